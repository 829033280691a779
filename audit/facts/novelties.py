"""What in a guest's definition only newer releases of libvirt or QEMU know."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE

_PLACES = (
    ("panic of model pvpanic", "devices/panic[@model='pvpanic']"),
    ("audio of type pipewire", "devices/audio[@type='pipewire']"),
    ("channel of type qemu-vdagent", "devices/channel[@type='qemu-vdagent']"),
    ("channel of type dbus", "devices/channel[@type='dbus']"),
    ("iommu of model virtio", "devices/iommu[@model='virtio']"),
    ("memory of model sgx-epc", "devices/memory[@model='sgx-epc']"),
    ("memory of model virtio-mem", "devices/memory[@model='virtio-mem']"),
    ("memory of model virtio-pmem", "devices/memory[@model='virtio-pmem']"),
    ("clock with offset absolute", "clock[@offset='absolute']"),
    ("feature ps2", "features/ps2"),
    ("feature async-teardown", "features/async-teardown"),
    ("pstore", "devices/pstore"),
    ("NIC of model igb", "devices/interface/model[@type='igb']"),
)
"""Words for what is there, and where it stands."""


@dataclass(frozen=True, slots=True)
class GuestNovelties(GuestFact):
    """Devices and features of the guest that not every release in use knows."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    names: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...] = ()
    """Devices whose kinds libvirt lists in domain capabilities: the element, and the kind."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From the whole definition; most guests have none."""
        return cls(
            tuple(name for name, path in _PLACES if guest.xml.find(path) is not None),
            tuple(sorted(set(_kinds(guest.xml)))),
        )


_LISTED_CHANNELS = frozenset({"qemu-vdagent", "dbus"})
"""Other types of a `<channel>` every QEMU has, and libvirt lists few of them; SPICE's are judged by its graphics."""


def _kinds(root: etree._Element) -> Iterator[tuple[str, str]]:
    yield from (("redirdev", node.get("bus", "usb")) for node in root.iterfind("devices/redirdev"))
    yield from (("rng", node.get("model", "random")) for node in root.iterfind("devices/rng/backend"))
    for node in root.iterfind("devices/filesystem"):
        driver = node.find("driver")
        yield "filesystem", (driver.get("type") if driver is not None else None) or "path"
    kinds = {node.get("type", "") for node in root.iterfind("devices/channel")}
    yield from (("channel", kind) for kind in kinds & _LISTED_CHANNELS)
