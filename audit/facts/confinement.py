"""Confinement: which security drivers libvirt has on a host, and which ones a guest's labels are of."""

from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.cpu import CAPABILITIES
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE


@dataclass(frozen=True, slots=True)
class SecurityDrivers(HostFact):
    """What libvirt's daemon confines guests with here. It has SELinux where the kernel has it, permissive or not."""

    probes: ClassVar[tuple[Probe, ...]] = (CAPABILITIES,)
    models: frozenset[str]
    """selinux, apparmor, dac, none."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`/capabilities/host/secmodel`; libvirt states at least `none`."""
        models = frozenset(node.text or "" for node in said.xml(CAPABILITIES).iterfind("host/secmodel/model"))
        if not models:
            raise Unavailable(CAPABILITIES, "names no security driver")
        return cls(models)


@dataclass(frozen=True, slots=True)
class GuestLabels(GuestFact):
    """The guest's `<seclabel>`; a running guest has those that libvirt made for it, too."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    models: frozenset[str]
    """Of labels that migrate: selinux, apparmor. Plain ownership (dac) is every host's own."""
    unconfined: bool = False
    """It asks to be confined by no driver, or not by SELinux."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<seclabel model= type=>`."""
        labels = [(node.get("model"), node.get("type")) for node in guest.xml.iterfind("seclabel")]
        return cls(
            frozenset(model for model, _ in labels if model and model not in {"dac", "none"}),
            any(kind == "none" and model in {None, "none", "selinux"} for model, kind in labels)
            and not any(model == "selinux" and kind != "none" for model, kind in labels),
        )
