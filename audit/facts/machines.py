"""Machine types: which ones a host's QEMU offers, what their aliases stand for, and which are about to go."""

from dataclasses import dataclass
from typing import ClassVar, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.cpu import CAPABILITIES
from audit.text import visible

# The alias by which a new guest of an architecture gets its machine type.
USUAL = {
    "x86_64": "q35",
    "i686": "q35",
    "aarch64": "virt",
    "s390x": "s390-ccw-virtio",
    "ppc64": "pseries",
    "ppc64le": "pseries",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine type, or an alias of one."""

    name: str
    canonical: str | None
    """What an alias stands for; None: it is no alias."""
    deprecated: bool
    max_cpus: int | None


@dataclass(frozen=True, slots=True)
class MachineList:
    """What one virttype offers for one architecture. libvirt puts the default first."""

    virttype: str
    arch: str
    emulator: str
    machines: tuple[Machine, ...]


@dataclass(frozen=True, slots=True)
class MachineTypes(HostFact):
    """Every machine type of the host, from `virsh capabilities`."""

    probes: ClassVar[tuple[Probe, ...]] = (CAPABILITIES,)

    native_arch: str
    lists: tuple[MachineList, ...]
    """Empty: libvirt knows no QEMU here."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`/capabilities/guest/arch`; a `<domain>` with machines of its own has only those."""
        root = said.xml(CAPABILITIES)
        native = root.findtext("host/cpu/arch")
        if root.tag != "capabilities" or not native:
            raise Unavailable(CAPABILITIES, "does not name the host's architecture")
        lists: dict[tuple[str, str], MachineList] = {}
        for guest in root.findall("guest"):
            if guest.findtext("os_type") != "hvm":
                continue
            for arch in guest.findall("arch"):
                for domain in arch.findall("domain"):
                    one = _list(arch, domain)
                    lists.setdefault((one.virttype, one.arch), one)
        return cls(native, tuple(lists.values()))

    def of(self, virttype: str, arch: str) -> MachineList | None:
        """What is offered to guests of this kind; None: nothing."""
        return next((one for one in self.lists if (one.virttype, one.arch) == (virttype, arch)), None)

    def virttypes(self, arch: str) -> frozenset[str]:
        """kvm, qemu: what guests of this architecture can be."""
        return frozenset(one.virttype for one in self.lists if one.arch == arch)

    def find(self, virttype: str, arch: str, name: str) -> Machine | None:
        """The machine type of that name or alias."""
        offered = self.of(virttype, arch)
        return next((one for one in offered.machines if one.name == name), None) if offered else None

    def resolve(self, virttype: str, arch: str, name: str) -> str | None:
        """The versioned name that `name` stands for here; None: not offered."""
        machine = self.find(virttype, arch, name)
        return (machine.canonical or machine.name) if machine else None

    def deprecated(self, virttype: str, arch: str, name: str) -> bool:
        """Whether QEMU says that it will drop this machine type; an alias goes with what it stands for."""
        canonical = self.resolve(virttype, arch, name) or name
        machine = self.find(virttype, arch, canonical)
        return machine is not None and machine.deprecated

    def usual(self, virttype: str) -> str | None:
        """The versioned machine type that a new guest of the host's architecture gets (q35, virt, …)."""
        return self.resolve(virttype, self.native_arch, USUAL.get(self.native_arch, "virt"))


def _list(arch: etree._Element, domain: etree._Element) -> MachineList:
    own = domain.findall("machine")
    return MachineList(
        virttype=domain.get("type", ""),
        arch=arch.get("name", ""),
        emulator=domain.findtext("emulator") or arch.findtext("emulator") or "",
        machines=tuple(_machine(node) for node in own or arch.findall("machine")),
    )


def _machine(node: etree._Element) -> Machine:
    if not node.text:
        raise ValueError("a machine type without a name")
    most = node.get("maxCpus", "")
    if most and not (most.isascii() and most.isdigit()):
        raise ValueError(f"maxCpus is no number: {visible(most, 40)}")
    return Machine(node.text, node.get("canonical"), node.get("deprecated") == "yes", int(most) if most else None)
