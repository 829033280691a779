"""CPUs: can the target give a guest the CPU that it runs with?"""

from collections.abc import Iterator

from audit.check import (
    Blocks,
    Finding,
    NotApplicable,
    Severity,
    Source,
    Stage,
    Target,
    Unavailable,
    check,
)
from audit.facts.cpu import (
    CPUINFO,
    X86,
    CpuIdentity,
    CpuMapFiles,
    DomainCapabilities,
    HostCpu,
    HostModels,
    Microcode,
    Processor,
    Refusal,
    Request,
    Smt,
    Vulnerabilities,
)
from audit.facts.cpu_fit import gap, migratable, running, seen_address_bits
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.versions import Libvirt, Qemu, Version

_PASSTHROUGH = ("host-passthrough", "maximum")
_TSC_TOLERANCE_PPM = 250
_RESTART = "Give the guest the cluster's baseline CPU with virsh edit, then shut it down and start it again."


@check(severity=Severity.MEDIUM, reference="RHEL 9 §12.3", remedy="Update the microcode package and reboot the host.")
def microcode_same_on_all_cpus(microcode: Microcode) -> Iterator[Finding]:
    """All processors of the host run the same microcode.

    Different revisions on one host mean that an update was loaded only in part; features may then come and go with
    the processor that a guest happens to run on.
    """
    if len(microcode.revisions) > 1:
        yield Finding("one microcode revision", str(microcode), "A microcode update reached some processors only.")


@check(severity=Severity.CRITICAL, blocks=Blocks.MIGRATION, reference="RHEL 9 §12.4", plain_guest=True)
def same_architecture(source: Source[HostCpu], target: Target[HostCpu]) -> Iterator[Finding]:
    """Source and target have the same architecture.

    A guest that runs on the processor itself cannot move to another kind of processor.
    """
    if source.arch != target.arch:
        yield Finding(source.arch, target.arch, "KVM runs a guest's instructions as they are.")


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="RHEL 9 §12.3", plain_guest=True)
def same_vendor(source: Source[HostCpu], target: Target[HostCpu]) -> Iterator[Finding]:
    """Source and target have processors of the same vendor.

    A guest adapts to its vendor's processor when it boots; no vendor supports moving a running guest to another's.
    """
    if source.arch != target.arch:
        raise NotApplicable("the architectures differ")
    if source.vendor is None and target.vendor is None:
        raise NotApplicable(f"{source.arch} hosts tell no vendor")
    if source.vendor is None or target.vendor is None:
        raise Unavailable(CPUINFO, "the processor's vendor is not known")
    if source.vendor != target.vendor:
        yield Finding(source.vendor, target.vendor, "A running guest keeps using what only its own vendor has.")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="RHEL 9 §12.4",
    remedy="Use the cluster's baseline CPU instead of host-model.",
    plain_guest=True,
)
def host_model_fits(
    source: Source[HostModels],
    target: Target[HostModels],
    names: Target[CpuMapFiles],
    here: Source[HostCpu],
    there: Target[HostCpu],
) -> Iterator[Finding]:
    """The target can give a guest the source's host-model CPU.

    A host-model guest gets all that its host can give when it starts, and must find all of it wherever it goes.
    """
    offered, wanted = _kvm(source), _kvm(target)
    if offered.arch != wanted.arch:
        raise NotApplicable("the architectures differ")
    if offered.host_model is None:
        raise NotApplicable(f"there is no host-model for {offered.arch}")
    lacking = gap(migratable(offered.host_model), offered.arch, wanted, names)
    if lacking:
        same = here.signature is not None and here.signature == there.signature
        because = "The processors are the same: kernel, microcode, QEMU or libvirt make the difference." if same else ""
        yield Finding(f"all of {offered.host_model.model} as the source has it", str(lacking), because)


def _kvm(models: HostModels) -> DomainCapabilities:
    offer = models.native("kvm")
    if isinstance(offer, Refusal):
        raise NotApplicable("without KVM there is no host-model to compare")
    return offer


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="RHEL 10, limitations", plain_guest=True)
def same_processor_without_models(
    models: Source[HostModels], source: Source[CpuIdentity], target: Target[CpuIdentity]
) -> Iterator[Finding]:
    """Where there is no host-model, source and target have the same processor.

    On ARM a guest always sees the processor itself, and moves only between hosts with identical ones.
    """
    if _kvm(models).host_model is not None:
        raise NotApplicable("host-models are compared")
    if source.processor != target.processor:
        yield Finding(source.processor, target.processor, "The guest would find another processor under itself.")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="RHEL 9 §12.4; libvirt 11.3 qemuProcessVerifyCPU",
    remedy=_RESTART,
)
def guest_cpu_fits(
    cpu: GuestCpu,
    machine: GuestMachine,
    own: Source[HostModels],
    target: Target[HostModels],
    names: Target[CpuMapFiles],
) -> Iterator[Finding]:
    """The target can give the guest the CPU that it runs with.

    The features that a guest found when it started stay with it until it is shut down. libvirt refuses the guest when
    the target lacks one of them, or does not know its name.
    """
    _live(cpu)
    definition = running(cpu.definition, machine.arch)
    if definition.mode in _PASSTHROUGH:
        raise NotApplicable(f"the CPU is {definition.mode}")
    there = _offer(target, machine)
    lacking = gap(definition, machine.arch, there, names, inactive=cpu.inactive, own=_own(own, machine))
    if lacking:
        yield Finding(f"all of the guest's {definition.model}", str(lacking))


def _live(cpu: GuestCpu) -> None:
    if not cpu.active:
        raise NotApplicable("the guest is shut off: its CPU is made up when it starts")


def _offer(models: HostModels, machine: GuestMachine) -> DomainCapabilities:
    offer = models.offer(Request(machine.virttype, machine.arch, machine.machine, machine.emulator or ""))
    if isinstance(offer, Refusal):
        raise NotApplicable(f"libvirt there takes no such guest: {offer.words}")
    return offer


def _own(models: HostModels, machine: GuestMachine):  # type: ignore[no-untyped-def]
    """The host-model of the guest's own host; None where it is not known."""
