"""Known issues: versions, hosts and guests between which a migration fails, or does harm, though the CPU fits."""

from collections.abc import Iterable, Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, check
from audit.facts.cpu import X86, Processor
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.guest_offloads import GuestOffloads
from audit.facts.versions import Kernel, KernelArguments, Libvirt, OsRelease, Qemu, support_path
from audit.known import ADVISORIES, Advisory, GuestView, HostView, VendorsRepair, advisories_for


def _of(level: str) -> tuple[Advisory, ...]:
    return tuple(one for one in ADVISORIES if one.level == level)


_BREAKS, _RISKS, _NOTES = _of("break"), _of("risk"), _of("note")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt NEWS 11.10.0, 10.2.0; QEMU 10.0, 8.2",
    remedy="Update the target, or shut the guest down and start it there.",
    covers=(
        "12.3/qemu",
        "failure 2",
        "false alarm 5",
    ),
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
    guest = _running(cpu, machine)
    if machine.arch not in X86:
        raise NotApplicable("the known breaks are about x86 CPUs")
    if cpu.definition is None:
        raise NotApplicable("the guest names no CPU, and libvirt compares none")
    yield from _found(_BREAKS, guest, HostView(source, system=here), HostView(libvirt, qemu, system=system))


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt NEWS 10.2.0, 10.5.0; Linux 5.17, 6.2, 6.6; QEMU 4.1, 8.2",
    remedy="Update the target, or try the way with a guest that may fail.",
    covers=("12.3/qemu", "12.3/kernel", "failure 3", "failure 7", "failure 23", "failure 27"),
)
def no_known_risk(
    cpu: GuestCpu,
    machine: GuestMachine,
    offloads: GuestOffloads,
    libvirt_here: Source[Libvirt],
    libvirt_there: Target[Libvirt],
    qemu_here: Source[Qemu],
    kernel_here: Source[Kernel],
    kernel_there: Target[Kernel],
    processor: Source[Processor],
    here: Source[OsRelease],
    there: Target[OsRelease],
) -> Iterator[Finding]:
    """The versions of libvirt, QEMU and kernel have no known fault that may refuse or harm the guest.

    Whether such a fault bites depends on what cannot be read from outside: what a driver in the guest made use of,
    which QEMU the guest was started in. Where the vendor supports the way, its builds are taken to have the repair.
    """
    source = HostView(libvirt_here, qemu_here, kernel_here, here, processor)
    target = HostView(libvirt_there, kernel=kernel_there, system=there)
    yield from _found(_RISKS, _running(cpu, machine, offloads), source, target)


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="Linux admin guide, hw-vuln; QEMU 5.1",
    covers=("failure 5", "failure 23"),
)
def no_known_trap(
    cpu: GuestCpu,
    machine: GuestMachine,
    kernel: Source[Kernel],
    arguments: Source[KernelArguments],
    system: Source[OsRelease],
) -> Iterator[Finding]:
    """Nothing is known that will keep the guest from moving one day, or harm what runs inside it.

    It stands in nobody's way today. Whoever knows of it can plan a restart before it does.
    """
    source = HostView(kernel=kernel, system=system, arguments=arguments)
    yield from _found(_NOTES, _running(cpu, machine), source, HostView())


def _running(cpu: GuestCpu, machine: GuestMachine, offloads: GuestOffloads | None = None) -> GuestView:
    if not cpu.active:
        raise NotApplicable("the guest is shut off: its CPU is made up when it starts")
    return GuestView(cpu, machine, offloads)


def _found(advisories: Iterable[Advisory], guest: GuestView, source: HostView, target: HostView) -> Iterator[Finding]:
    try:
        found = advisories_for(source, target, guest, advisories)
    except VendorsRepair as doubt:
        assert source.system is not None, "every check asks for it"
        # A note is about the source alone, and nothing to be in doubt about.
        if target.system is None or support_path(source.system, target.system).status == "supported":
            raise NotApplicable(
                "only the vendor knows whether its build is repaired, and it supports the way"
            ) from doubt
        raise
    for one in found:
        because = f"{one.title[:1].upper()}{one.title[1:]}. How it shows: {one.symptom} ({one.reference})."
        yield Finding(one.repair, one.found(source, target), because, one.remedy)
