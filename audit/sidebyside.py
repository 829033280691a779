"""The table of hosts side by side: which facts are worth comparing by eye, and how each is said in a few words."""

from collections.abc import Callable
from typing import Any, NamedTuple

from audit.facts.base import Facts, HostFact, Unavailable
from audit.facts.cpu import HostCpu, Microcode, Smt, Vulnerabilities
from audit.facts.firewall import Firewall
from audit.facts.host_models import DomainCapabilities, HostModels
from audit.facts.kvm import Kvm
from audit.facts.machines import MachineTypes
from audit.facts.mellanox import MellanoxDevices
from audit.facts.memory import HugePages, Memory, NumaTopology
from audit.facts.network import Links
from audit.facts.qemu_conf import QemuConf
from audit.facts.services import Daemons
from audit.facts.storage import Mounts, Selinux
from audit.facts.versions import Bios, Kernel, Libvirt, OsRelease, Qemu
from audit.results import Row


class Line(NamedTuple):
    """One row: the fact that it is read from, and how to say it."""

    domain: str
    label: str
    kind: type[HostFact]
    say: Callable[[Any], object]


def _gib(kib: int) -> str:
    return f"{kib / 1024**2:.1f} GiB"


def _processor(cpu: HostCpu) -> str:
    signature = cpu.signature
    numbers = f" (family {signature.family} model {signature.model} stepping {signature.stepping})" if signature else ""
    return f"{cpu.vendor or ''} {cpu.model or cpu.arch}{numbers}".strip()


def _tsc(cpu: HostCpu) -> str:
    if cpu.tsc_frequency_hz is None:
        return "not stated"
    scaling = {True: ", scaling", False: ", no scaling", None: ""}[cpu.tsc_scaling]
    return f"{cpu.tsc_frequency_hz / 1e6:.3f} MHz{scaling}"


def _host_model(virttype: str) -> Callable[[HostModels], str]:
    def say(models: HostModels) -> str:
        offer = models.native(virttype)
        if not isinstance(offer, DomainCapabilities):
            return f"not offered: {offer.words}"
        cpu = offer.host_model
        if cpu is None:
            return "not offered"
        without = [feature.name for feature in cpu.features if feature.policy == "disable"]
        return f"{cpu.model} +{len(cpu.features) - len(without)}" + (f" −{len(without)}" if without else "")

    return say


def _huge_pages(pages: HugePages) -> str:
    pools = [p for p in pages.pools if p.node is None and p.total]
    return ", ".join(f"{p.total} × {p.size_kib} KiB, {p.free} free" for p in pools) or "none"


def _numa(topology: NumaTopology) -> str:
    cells = ", ".join(f"{len(cell.cpus)} CPUs/{_gib(cell.memory_kib)}" for cell in topology.cells)
    return f"{len(topology.cells)} {'cell' if len(topology.cells) == 1 else 'cells'}: {cells}"


def _bios(bios: Bios) -> str:
    return " ".join(part for part in (bios.vendor, bios.version, bios.date) if part) or "none shown"


def _product(bios: Bios) -> str:
    return " ".join(part for part in (bios.system_vendor, bios.product) if part) or "none shown"


def _nested(kvm: Kvm) -> str:
    return {True: "on", False: "off", None: "not stated"}[kvm.nested]


def _shared(mounts: Mounts) -> str:
    return ", ".join(f"{m.path} ← {m.source} ({m.type})" for m in mounts.shared) or "none"


def _mellanox(devices: MellanoxDevices) -> str:
    return ", ".join(f"{pf.address} {pf.model}" for pf in devices.pfs) or "none"


LINES = (
    Line("cpu", "Processor, as libvirt names it", HostCpu, _processor),
    Line("cpu", "Host-model for KVM guests", HostModels, _host_model("kvm")),
    Line("cpu", "Host-model for emulated guests", HostModels, _host_model("qemu")),
    Line("cpu", "Microcode", Microcode, str),
    Line("cpu", "TSC", HostCpu, _tsc),
    Line("cpu", "Physical address bits", HostCpu, lambda f: f.address_bits or "not stated"),
    Line("cpu", "Threads per core (SMT)", Smt, lambda f: {True: "on", False: "off", None: "not stated"}[f.active]),
    Line("cpu", "Vulnerable to", Vulnerabilities, lambda f: ", ".join(sorted(f.vulnerable)) or "nothing that it knows"),
    Line("versions", "Operating system", OsRelease, lambda f: f.pretty),
    Line("versions", "Kernel", Kernel, lambda f: f.release),
    Line("versions", "QEMU", Qemu, lambda f: f.version or "none"),
    Line("versions", "libvirt", Libvirt, lambda f: f.daemon),
    Line("versions", "BIOS", Bios, _bios),
    Line("versions", "System", Bios, _product),
    Line("kvm", "KVM device", Kvm, lambda f: "present" if f.device else "absent"),
    Line("kvm", "Nested virtualization", Kvm, _nested),
    Line("machines", "Newest usual machine type", MachineTypes, lambda f: f.usual("kvm") or f.usual("qemu") or "none"),
    Line("memory", "Memory", Memory, lambda f: _gib(f.total_kib)),
    Line("memory", "Huge pages", HugePages, _huge_pages),
    Line("memory", "NUMA", NumaTopology, _numa),
    Line("services", "libvirt daemons", Daemons, lambda f: f.mode),
    Line("services", "Migration ports", QemuConf, lambda f: f"{f.migration_port_min}–{f.migration_port_max}"),
    Line("firewall", "Firewall", Firewall, lambda f: f.keeper),
    Line("network", "Bridges", Links, lambda f: ", ".join(sorted(f.bridges)) or "none"),
    Line("storage", "Shared file systems", Mounts, _shared),
    Line("storage", "SELinux", Selinux, lambda f: "enforcing" if f.enforcing else "not enforcing"),
    Line("mellanox", "Mellanox devices", MellanoxDevices, _mellanox),
)

FACTS: tuple[type[HostFact], ...] = tuple(dict.fromkeys(line.kind for line in LINES))


def rows(facts: Facts, host: str) -> list[Row]:
    """The host's column."""
    return [_row(line, facts, host) for line in LINES]


def _row(line: Line, facts: Facts, host: str) -> Row:
    try:
        return Row(domain=line.domain, label=line.label, value=str(line.say(facts.told(host, line.kind))))
    except Unavailable as reason:
        return Row(domain=line.domain, label=line.label, value=None, why=str(reason))
