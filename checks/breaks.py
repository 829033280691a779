"""Known breaks: versions of libvirt and QEMU that refuse a guest although its CPU fits."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.cpu.breaks import BREAKS, Break, RunningCpu, Side, Undecided, known_breaks
from audit.facts.cpu import X86
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.versions import OS_RELEASE, VIRSH, Libvirt, OsRelease, Qemu, support_path

_BLOCKING = tuple(one for one in BREAKS if one.blocks)
_RISKS = tuple(one for one in BREAKS if not one.blocks)
_PROBES = {"libvirt": VIRSH, "qemu": VIRSH, "system": OS_RELEASE}
_T = TypeVar("_T")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt NEWS 11.10.0, 10.2.0; QEMU 10.0, 8.2",
    remedy="Update the target, or shut the guest down and start it there.",
    covers=("12.3/qemu", "failure 2", "false alarm 5"),
)
def no_known_break(
    cpu: GuestCpu,
    machine: GuestMachine,
    source: Source[Libvirt],
    libvirt: Target[Libvirt],
    qemu: Target[Qemu],
    here: Source[OsRelease],
    system: Target[OsRelease],
) -> Iterator[Finding]:
    """The target's versions have no known fault that refuses the guest although its CPU fits.

    Some releases describe the same CPU with other names than the ones before. libvirt then takes the guest's CPU for a
    changed one, and refuses it on arrival; the guest goes on running on the source. Where only the vendor could say
    whether its build has the repair, and it supports the way, it is taken to have it.
    """
    yield from _found(_BLOCKING, _running(cpu, machine), _side(source), _side(libvirt, qemu, system), (here, system))


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt NEWS 10.2.0, 10.5.0",
    remedy="Update libvirt on the target, or try the way with a guest that may fail.",
    covers=("12.3/qemu", "failure 3"),
)
def no_known_risk(
    cpu: GuestCpu,
    machine: GuestMachine,
    source: Source[Libvirt],
    libvirt: Target[Libvirt],
    here: Source[OsRelease],
    system: Target[OsRelease],
) -> Iterator[Finding]:
    """The versions of libvirt have no known fault that may refuse the guest although its CPU fits.

    Whether such a fault bites depends on details that cannot be read from outside. A refused guest goes on running on
    the source. Where the vendor supports the way, its builds are taken to have the repair.
    """
    yield from _found(_RISKS, _running(cpu, machine), _side(source), _side(libvirt, None, system), (here, system))


def _found(
    breaks: tuple[Break, ...], guest: RunningCpu, source: Side, target: Side, way: tuple[OsRelease, OsRelease]
) -> Iterator[Finding]:
    try:
        found = known_breaks(source, target, guest, breaks)
    except Undecided as doubt:
        if doubt.part == "system" and target.systems and support_path(*way).status == "supported":
            raise NotApplicable(
                "only the vendor knows whether its build is repaired, and it supports the way"
            ) from doubt
        raise Unavailable(_PROBES[doubt.part], doubt.reason) from doubt
    versions = ((name, version) for name, version in (("libvirt", target.libvirt), ("QEMU", target.qemu)) if version)
    has = ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in versions)
    for one in found:
        yield Finding(
            f"{one.repair} or later on the target", has, f"{one.title}. libvirt says: {one.symptom} ({one.reference})."
        )


def _running(cpu: GuestCpu, machine: GuestMachine) -> RunningCpu:
    if not cpu.active:
        raise NotApplicable("the guest is shut off: its CPU is made up when it starts")
    if machine.arch not in X86:
        raise NotApplicable("the known breaks are about x86 CPUs")
    if cpu.definition is None:
        raise NotApplicable("the guest names no CPU, and libvirt compares none")
    return RunningCpu(cpu.definition, machine.virttype)


def _side(libvirt: Libvirt, qemu: Qemu | None = None, system: OsRelease | None = None) -> Side:
    """What is known of one end. A fact that cannot be had matters only where a break depends on it."""
    return Side(
        libvirt=_told(lambda: libvirt.daemon),
        qemu=None if qemu is None else _told(lambda: qemu.version),
        systems=None if system is None else _told(lambda: frozenset({system.id, *system.id_like})),
    )


def _told(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except Unavailable:
        return None
