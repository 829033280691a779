"""What an advisory is, and whether it bites a guest on a way.

Hosts and guests are views on facts. A fact that cannot be had raises `Unavailable` when it is looked at, so that what
is not known matters only where everything that is known fits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from audit.cpu import X86, CpuMap
from audit.facts.base import Unavailable
from audit.facts.cpu import Processor
from audit.facts.cpu_fit import PASSTHROUGH, CpuDefinition, running
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.guest_offloads import GuestOffloads
from audit.facts.guest_source import XML
from audit.facts.versions import KERNEL, OS_RELEASE, VIRSH, Kernel, KernelArguments, Libvirt, OsRelease, Qemu
from audit.text import visible

Version = tuple[int, int, int]
End = Literal["source", "target"]
Part = Literal["libvirt", "qemu", "kernel"]
Level = Literal["break", "risk", "note"]
"""break: the migration fails for certain. risk: it may fail, or harm the guest. note: worth knowing in time."""

_Fact = TypeVar("_Fact")
_ON = ("require", "force")
_PART_NAMES = {"libvirt": "libvirt", "qemu": "QEMU", "kernel": "kernel"}
_PROBES = {"libvirt": VIRSH, "qemu": VIRSH, "kernel": KERNEL}


class VendorsRepair(Unavailable):
    """By the version number the fault is there; the vendor may have repaired it without the number telling."""


@dataclass(frozen=True, slots=True)
class HostView:
    """What is asked of one end of a migration; None: the advisories that are judged do not ask for it."""

    libvirt: Libvirt | None = None
    qemu: Qemu | None = None
    kernel: Kernel | None = None
    system: OsRelease | None = None
    processor: Processor | None = None
    arguments: KernelArguments | None = None

    def numbered(self, part: Part) -> bool:
        """Whether the number tells all, whoever built it: it is that of the stable release."""
        return part == "kernel" and _given(self.kernel).stable is not None

    def version(self, part: Part) -> Version:
        """A part's version. Raises `Unavailable`."""
        match part:
            case "libvirt":
                return _given(self.libvirt).daemon
            case "kernel":
                return _given(self.kernel).numbers
            case "qemu":
                if (version := _given(self.qemu).version) is None:
                    raise Unavailable(VIRSH, "libvirt knows no QEMU there")
                return version

    @property
    def systems(self) -> frozenset[str]:
        """The system and those it is made from (os-release: ID and ID_LIKE). Raises `Unavailable`."""
        system = _given(self.system)
        return frozenset({system.id, *system.id_like})


def _given(fact: _Fact | None) -> _Fact:
    if fact is None:
        raise TypeError("an advisory asks for a fact that its check does not ask for")
    return fact


@dataclass(frozen=True, slots=True)
class GuestView:
    """A running guest, as advisories look at it."""

    cpu: GuestCpu
    machine: GuestMachine
    offloads: GuestOffloads | None = None

    @property
    def x86(self) -> bool:
        """Whether it has an x86 CPU."""
        return self.machine.arch in X86

    @property
    def kvm(self) -> bool:
        """Whether it runs on the processor itself."""
        return self.machine.virttype == "kvm"

    @property
    def definition(self) -> CpuDefinition:
        """Its CPU, where none is named QEMU's default. Raises `Unavailable`."""
        return running(self.cpu.definition, self.machine.arch)

    @property
    def verified(self) -> bool:
        """Whether libvirt compares its CPU with what QEMU gives on the target (qemu_process.c qemuProcessVerifyCPU)."""
        cpu = self.cpu.definition
        return self.x86 and cpu is not None and cpu.check == "full" and cpu.model is not None

    def on(self, name: str) -> bool:
        """Whether the definition switches this feature on by name."""
        return name in self.definition.named(*_ON)

    def has(self, name: str) -> bool:
        """Whether the guest's CPU has this feature, by name or by model. Raises `Unavailable`.

        A passed-through CPU is taken to have whatever its host has.
        """
        cpu = self.definition
        if cpu.mode in PASSTHROUGH or self.on(name):
            return True
        if name in cpu.named("disable", "forbid"):
            return False
        cpu_map = CpuMap.carried()
        if not cpu.model or cpu.model not in cpu_map:
            raise Unavailable(XML, f"whether CPU model {visible(cpu.model or '?', 60)} has {name}")
        return name in cpu_map.model(cpu.model).features

    @property
    def threads_per_socket(self) -> int:
        """More than 1 makes QEMU show the guest the feature ht; without `<topology>` every vCPU is a socket."""
        topology = self.definition.topology
        return topology.dies * topology.cores * topology.threads if topology else 1


class Condition(Protocol):
    """What must be so of one end for an advisory to bite."""

    @property
    def end(self) -> End:
        """Which end."""

    def holds(self, host: HostView) -> bool:
        """Whether it is so. Raises `Unavailable`, or as one of them `VendorsRepair`."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Versions of one part, from `since` up to `before`, and not that one itself."""

    end: End
    part: Part
    since: Version = (0, 0, 0)
    before: Version | None = None
    mended: tuple[Version, ...] = ()
    """Stable releases in between that have the repair as well, each for the rest of its own series."""
    unseen: frozenset[str] = frozenset()
    """Systems whose builds may have the repair without the number telling."""

    def contains(self, version: Version) -> bool:
        """Whether this version is in between."""
        if any(version[:2] == repaired[:2] and version >= repaired for repaired in self.mended):
            return False
        return self.since <= version and (self.before is None or version < self.before)

    def holds(self, host: HostView) -> bool:
        """Whether the host's version is in between."""
        where = f"the {self.end}'s {_PART_NAMES[self.part]}"
        try:
            version = host.version(self.part)
        except Unavailable as why:
            raise Unavailable(_PROBES[self.part], f"the version of {where} ({why.reason})") from why
        if not self.contains(version):
            return False
        if self.unseen and not host.numbered(self.part):
            try:
                systems = host.systems
            except Unavailable as why:
                raise Unavailable(OS_RELEASE, f"whose build {where} is ({why.reason})") from why
            if self.unseen & systems:
                raise VendorsRepair(OS_RELEASE, f"whether {where} has the repair")
        return True


@dataclass(frozen=True, slots=True)
class ProcessorHas:
    """A flag of the kernel's list in /proc/cpuinfo."""

    end: End
    flag: str

    def holds(self, host: HostView) -> bool:
        """Whether the host's processor has it."""
        return self.flag in _given(host.processor).flags


@dataclass(frozen=True, slots=True)
class BootedWith:
    """One of these words on the kernel's command line."""

    end: End
    words: frozenset[str]

    def holds(self, host: HostView) -> bool:
        """Whether the host was booted with one of them."""
        return not self.words.isdisjoint(_given(host.arguments).words)


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known issue."""

    id: str
    title: str
    """What is wrong, a sentence without its full stop."""
    symptom: str
    """How it shows: the words that somebody would search for."""
    repair: str
    """What must be there instead."""
    reference: str
    """Where it stands, and what was verified."""
    level: Level
    concerns: Callable[[GuestView], bool]
    conditions: tuple[Condition, ...] = ()
    """All must hold. Of a note only the source's: a note is told once a guest."""
    remedy: str = ""
    """Fitted to the issue; "": the check's own."""

    def applies(self, source: HostView, target: HostView, guest: GuestView) -> bool:
        """Whether it bites this guest on this way. Raises `Unavailable` where that hangs on what is not known."""
        doubts: list[Unavailable] = []
        sides = {"source": source, "target": target}
        try:
            if not self.concerns(guest):
                return False
        except Unavailable as doubt:
            doubts.append(doubt)
        for one in self.conditions:
            try:
                if not one.holds(sides[one.end]):
                    return False
            except Unavailable as doubt:
                doubts.append(doubt)
        if doubts:
            first = _settled_first(doubts)
            raise type(first)(first.probe, f"not known: {first.reason}. It decides about a known issue: {self.title}")
        return True

    def found(self, source: HostView, target: HostView) -> str:
        """The versions that it is about, as they are: `QEMU 10.0.13 on the target`."""
        told: dict[str, None] = {}
        for one in self.conditions:
            if isinstance(one, Bound):
                version = ".".join(map(str, (source if one.end == "source" else target).version(one.part)))
                told[f"{_PART_NAMES[one.part]} {version} on the {one.end}"] = None
            elif isinstance(one, ProcessorHas):
                told[f"{one.flag} on the {one.end}"] = None
            elif isinstance(one, BootedWith):
                told[f"booted with {' or '.join(sorted(one.words))}"] = None
        return ", ".join(told)


def advisories_for(
    source: HostView, target: HostView, guest: GuestView, advisories: Iterable[Advisory]
) -> tuple[Advisory, ...]:
    """Those that bite. Raises `Unavailable` where none does and one may, `VendorsRepair` if only vendors can tell."""
    found: list[Advisory] = []
    doubts: list[Unavailable] = []
    for one in advisories:
        try:
            if one.applies(source, target, guest):
                found.append(one)
        except Unavailable as doubt:
            doubts.append(doubt)
    if doubts and not found:
        raise _settled_first(doubts)
    return tuple(found)


def _settled_first(doubts: Iterable[Unavailable]) -> Unavailable:
    """One that evidence can settle, rather than what a vendor may have done."""
    return min(doubts, key=lambda one: isinstance(one, VendorsRepair))
