"""What a host's firmware and kernel are set to, as far as the system shows it.

Firmware has hundreds of settings and no common way to read them. What is seen here is what they left behind.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.facts.host_models import DOMCAPS_KVM
from audit.text import visible

SETTINGS = Probe(
    "settings.firmware",
    """\
if [ -d /sys/firmware/efi ]; then echo "boot UEFI"; else echo "boot BIOS"; fi
for table in DMAR IVRS IORT; do [ ! -e "/sys/firmware/acpi/tables/$table" ] || echo "IOMMU table $table"; done
cd /sys/devices/system 2>/dev/null || exit
for node in node/node[0-9]*; do [ ! -d "$node" ] || echo "node ${node##*/}"; done
for file in cpu/cpufreq/boost cpu/intel_pstate/no_turbo cpu/intel_pstate/status cpu/amd_pstate/status \\
    cpu/cpu0/power/energy_perf_bias cpu/cpu0/cpufreq/energy_performance_preference cpu/cpu0/cpufreq/scaling_driver \\
    cpu/cpuidle/current_driver
do
    if [ -r "$file" ] && said=$(cat "$file" 2>/dev/null); then echo "$file $said"; fi
done
for file in kvm_amd/parameters/sev kvm_intel/parameters/sgx kvm_intel/parameters/tdx kvm/parameters/tdp_mmu; do
    if [ -r "/sys/module/$file" ]; then echo "$file $(cat "/sys/module/$file")"; fi
done
echo end""",
    hand="ls /sys/firmware/efi /sys/firmware/acpi/tables; grep . /sys/devices/system/cpu/cpufreq/boost",
)
PAGE_SIZE = Probe("settings.page_size", "uname -m && { getconf PAGESIZE 2>/dev/null || :; }", hand="getconf PAGESIZE")
USERFAULTFD = Probe(
    "settings.userfaultfd",
    """\
cd /proc/sys/vm || exit
if [ -e unprivileged_userfaultfd ]; then cat unprivileged_userfaultfd; else echo absent; fi""",
    hand="cat /proc/sys/vm/unprivileged_userfaultfd",
)

# How sysfs calls it, and how people do.
_NAMES = {
    "cpu/cpufreq/boost": "boost",
    "cpu/intel_pstate/no_turbo": "no_turbo",
    "cpu/intel_pstate/status": "intel_pstate",
    "cpu/amd_pstate/status": "amd_pstate",
    "cpu/cpu0/power/energy_perf_bias": "energy_perf_bias",
    "cpu/cpu0/cpufreq/energy_performance_preference": "energy_performance_preference",
    "cpu/cpu0/cpufreq/scaling_driver": "frequency driver",
    "cpu/cpuidle/current_driver": "idle driver",
    "kvm_amd/parameters/sev": "SEV",
    "kvm_intel/parameters/sgx": "SGX",
    "kvm_intel/parameters/tdx": "TDX",
    "kvm/parameters/tdp_mmu": "tdp_mmu",
}


@dataclass(frozen=True, slots=True)
class FirmwareSettings(HostFact):
    """What the settings of firmware and kernel left behind in the system."""

    probes: ClassVar[tuple[Probe, ...]] = (SETTINGS,)
    settings: tuple[tuple[str, str], ...]
    """By name. A setting that the system does not show is not there."""

    def differences(self, other: Self) -> tuple[tuple[str, str, str], ...]:
        """Name, here, there, of what both show and is not the same."""
        theirs = dict(other.settings)
        return tuple((name, value, theirs[name]) for name, value in self.settings if theirs.get(name, value) != value)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """A name and a value a line; the last line says that nothing was cut off."""
        *lines, end = said.lines(SETTINGS)
        if end != "end":
            raise ValueError("cut off")
        found: dict[str, str] = {"IOMMU table": "none"}
        nodes = 0
        for line in lines:
            match = re.fullmatch(r"(boot|node|IOMMU table|\S+/\S+) (\S.*)", line)
            if not match or (match[1] not in {"boot", "node", "IOMMU table"} and match[1] not in _NAMES):
                raise ValueError(f"not a setting: {visible(line, 100)}")
            if match[1] == "node":
                nodes += 1
            else:
                found[_NAMES.get(match[1], match[1])] = match[2].strip()
        return cls(tuple(sorted({**found, "NUMA nodes": str(nodes)}.items())))


@dataclass(frozen=True, slots=True)
class PageSize(HostFact):
    """The size of the kernel's memory pages."""

    probes: ClassVar[tuple[Probe, ...]] = (PAGE_SIZE,)
    arch: str
    """`uname -m`."""
    stated_bytes: int | None
    """None: the host has no getconf."""

    @property
    def page_bytes(self) -> int:
        """The size. Raises `Unavailable`."""
        if self.stated_bytes is None:
            raise Unavailable(PAGE_SIZE, "no getconf")
        return self.stated_bytes

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`aarch64`, `65536`."""
        arch, *size = said.text(PAGE_SIZE).split()
        return cls(arch, int(size[0]) if size else None)


@dataclass(frozen=True, slots=True)
class Userfaultfd(HostFact):
    """Who may handle page faults of his own: what a QEMU that receives by post-copy does."""

    probes: ClassVar[tuple[Probe, ...]] = (USERFAULTFD,)
    unprivileged: bool | None
    """Everybody may. None: the kernel has no such switch (before 5.2, or without userfaultfd)."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`0`, `1`, or `absent`."""
        return cls({"0": False, "1": True, "absent": None}[said.text(USERFAULTFD).strip()])


@dataclass(frozen=True, slots=True)
class Gic(HostFact):
    """The interrupt controllers that KVM can give to ARM guests."""

    probes: ClassVar[tuple[Probe, ...]] = (DOMCAPS_KVM,)
    versions: frozenset[str] | None
    """2, 3, 4; None: not listed."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`<gic supported='yes'><enum name='version'><value>3</value>`."""
        gic = said.xml(DOMCAPS_KVM).find("features/gic")
        values = [] if gic is None else gic.iterfind("enum[@name='version']/value")
        return cls(frozenset(value.text or "" for value in values) or None)


@dataclass(frozen=True, slots=True)
class GuestGic(GuestFact):
    """The interrupt controller that an ARM guest has."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    version: str | None
    """2, 3, 4, host; None: not said."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """`<gic version=>`."""
        gic = guest.xml.find("features/gic")
        return cls(None if gic is None else gic.get("version") or None)
