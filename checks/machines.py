"""Machine types: the board that QEMU builds for a guest must exist on the target."""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Target, check
from audit.facts.guest import GuestMachine, GuestState
from audit.facts.machines import MachineTypes
from audit.facts.versions import Libvirt, Version

LOOKS_WHEN_DEFINING = Version(9, 1, 0)
"""9.0.0 defines a guest of any machine type and looks when it starts; 11.3.0 does not. In between it was not tried."""


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="RHEL 9 §12.10; libvirt: Emulator does not support machine type",
    remedy="Upgrade QEMU on the target, or give the guest an older machine type with virsh edit and restart it.",
    offline=True,
    covers=("12.6/machine", "failure 24"),
)
def machine_offered(
    machine: GuestMachine, state: GuestState, target: Target[MachineTypes], libvirt: Target[Libvirt]
) -> Iterator[Finding]:
    """The target offers the guest's machine type.

    A guest keeps the versioned machine type that it was started with; a QEMU that does not know it refuses the guest
    before the first page of memory is copied.
    """
    if target.of(machine.virttype, machine.arch) is None:
        raise NotApplicable(f"the target offers no {machine.virttype} for {machine.arch} at all")
    if not state.active and libvirt.daemon < LOOKS_WHEN_DEFINING:
        raise NotApplicable("the target's libvirt takes the definition of a shut-off guest all the same")
    if target.find(machine.virttype, machine.arch, machine.machine) is None:
        newest = target.usual(machine.virttype) or "none of that kind"
        yield Finding(machine.machine, f"not offered; a new guest there gets {newest}")


@check(
    severity=Severity.MEDIUM,
    reference="libvirt 9.0 qemuValidateDomainDef: not asked for an offline migration",
    remedy="Give the guest an older machine type with virsh edit before it is moved, or after.",
    offline=True,
)
def machine_starts(
    machine: GuestMachine, state: GuestState, target: Target[MachineTypes], libvirt: Target[Libvirt]
) -> Iterator[Finding]:
    """A shut-off guest's machine type is one that the target could start.

    An old libvirt takes the definition without looking; the guest is refused when somebody starts it there.
    """
    if state.active or libvirt.daemon >= LOOKS_WHEN_DEFINING:
        raise NotApplicable("the migration is refused without")
    if target.of(machine.virttype, machine.arch) and not target.find(machine.virttype, machine.arch, machine.machine):
        yield Finding(machine.machine, "not offered")


@check(
    severity=Severity.LOW,
    reference="QEMU deprecation policy",
    remedy="Give the guest a newer machine type with virsh edit at its next planned restart.",
    covers=("failure 25",),
)
def machine_not_deprecated(machine: GuestMachine, target: Target[MachineTypes]) -> Iterator[Finding]:
    """The guest's machine type is not about to be dropped on the target.

    It still works there; a later QEMU will refuse it.
    """
    if target.deprecated(machine.virttype, machine.arch, machine.machine):
        yield Finding("a current machine type", f"{machine.machine} is deprecated there")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="RHEL 9 §12.10",
    remedy="Create guests on the source with the target's machine type, or upgrade QEMU on the target.",
    plain_guest=True,
    covers=("12.6/machine", "failure 17", "failure 24"),
)
def common_newest(source: Source[MachineTypes], target: Target[MachineTypes]) -> Iterator[Finding]:
    """The target offers the machine type that a new guest gets on the source.

    Guests created on a newer QEMU get a newer machine type, and cannot move to an older one; guests with older
    machine types can, and are judged one by one.
    """
    if source.native_arch != target.native_arch:
        raise NotApplicable("the architectures differ")
    newest = source.usual("kvm")
    if newest is None or target.of("kvm", target.native_arch) is None:
        raise NotApplicable("no KVM on one of them")
    if target.find("kvm", target.native_arch, newest) is None:
        yield Finding(newest, f"not offered; a new guest there gets {target.usual('kvm')}")
