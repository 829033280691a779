"""CPUs: can the target give a guest the CPU that it runs with?"""

from collections.abc import Iterator
from dataclasses import replace

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
from audit.facts.cpu import CAPABILITIES, CPUINFO, X86, CpuIdentity, HostCpu, Microcode, Processor, Smt, Vulnerabilities
from audit.facts.cpu_fit import PASSTHROUGH, CpuDefinition, gap, migratable, passed_through, running, seen_address_bits
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.host_models import DomainCapabilities, HostModels, Refusal, Request
from audit.facts.versions import Libvirt
from audit.known import Ends
from checks._lacking import lacking

_TSC_TOLERANCE_PPM = 250
_RESTART = "Give the guest the cluster's baseline CPU with virsh edit, then shut it down and start it again."


@check(
    severity=Severity.MEDIUM,
    reference="RHEL 9 §12.3",
    remedy="Update the microcode package and reboot the host.",
    covers=("12.3/microcode",),
)
def microcode_same_on_all_cpus(microcode: Microcode) -> Iterator[Finding]:
    """All processors of the host run the same microcode.

    Different revisions on one host mean that an update was loaded only in part; features may then come and go with
    the processor that a guest happens to run on.
    """
    if len(microcode.revisions) > 1:
        yield Finding("one microcode revision", str(microcode), "A microcode update reached some processors only.")


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    reference="RHEL 9 §12.4",
    plain_guest=True,
    covers=("12.3/cpu-model",),
)
def same_architecture(source: Source[HostCpu], target: Target[HostCpu]) -> Iterator[Finding]:
    """Source and target have the same architecture.

    A guest that runs on the processor itself cannot move to another kind of processor.
    """
    if source.arch != target.arch:
        yield Finding(source.arch, target.arch, "KVM runs a guest's instructions as they are.")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="RHEL 9 §12.3",
    plain_guest=True,
    covers=("12.3/cpu-model", "failure 15"),
)
def same_vendor(source: Source[HostCpu], target: Target[HostCpu]) -> Iterator[Finding]:
    """Source and target have processors of the same vendor.

    A guest adapts to its vendor's processor when it boots; no vendor supports moving a running guest to another's.
    """
    if source.arch != target.arch:
        raise NotApplicable("the architectures differ")
    yield from _other_vendor(source, target, "A running guest keeps using what only its own vendor has.")


def _other_vendor(here: HostCpu, there: HostCpu, because: str) -> Iterator[Finding]:
    if here.vendor is None and there.vendor is None:
        raise NotApplicable(f"{here.arch} hosts tell no vendor")
    if here.vendor is None or there.vendor is None:
        raise Unavailable(CPUINFO, "the processor's vendor is not known")
    if here.vendor != there.vendor:
        yield Finding(here.vendor, there.vendor, because)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="RHEL 9 §12.4",
    remedy="Use the cluster's baseline CPU instead of host-model.",
    plain_guest=True,
    covers=("12.3/cpu-model", "12.4/host-model", "12.6/cpu", "failure 1", "failure 4", "failure 17"),
)
def host_model_fits(
    source: Source[HostModels],
    target: Target[HostModels],
    names: Target[CpuMapFiles],
    here: Source[CpuIdentity],
    there: Target[CpuIdentity],
    libvirt_here: Source[Libvirt],
    libvirt_there: Target[Libvirt],
) -> Iterator[Finding]:
    """The target can give a guest the source's host-model CPU.

    A host-model guest gets all that its host can give when it starts, and must find all of it wherever it goes.
    """
    offered, wanted = _kvm(source), _kvm(target)
    if offered.arch != wanted.arch:
        raise NotApplicable("the architectures differ")
    if offered.host_model is None:
        raise NotApplicable(f"there is no host-model for {offered.arch}")
    lacks = gap(migratable(offered.host_model), offered.arch, wanted, names)
    if lacks:
        finding = lacking(
            f"all of {offered.host_model.model} as the source has it",
            lacks,
            Ends(here, there, libvirt_here, libvirt_there),
        )
        yield replace(finding, remedy="")  # a fitted remedy is a guest's; a baseline is the hosts'


def _kvm(models: HostModels) -> DomainCapabilities:
    offer = models.native("kvm")
    if isinstance(offer, Refusal):
        raise NotApplicable("without KVM there is no host-model to compare")
    return offer


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="RHEL 10, limitations",
    plain_guest=True,
    covers=("12.3/cpu-model", "failure 21"),
)
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
    covers=(
        "12.3/cpu-model",
        "12.6/cpu",
        "12.6/xml-trouble",
        "failure 1",
        "failure 3",
        "failure 4",
        "failure 5",
        "failure 6",
        "failure 12",
        "failure 18",
        "failure 22",
        "false alarm 1",
        "false alarm 5",
        "false alarm 10",
        "failure 16",
        "failure 17",
        "failure 20",
    ),
)
def guest_cpu_fits(
    cpu: GuestCpu,
    machine: GuestMachine,
    target: Target[HostModels],
    names: Target[CpuMapFiles],
    here: Source[CpuIdentity],
    there: Target[CpuIdentity],
    libvirt_here: Source[Libvirt],
    libvirt_there: Target[Libvirt],
) -> Iterator[Finding]:
    """The target can give the guest the CPU that it runs with.

    The features that a guest found when it started stay with it until it is shut down. libvirt refuses the guest when
    the target lacks one of them, or does not know its name.
    """
    definition = _named(cpu, machine)
    if definition.check != "full":
        raise NotApplicable("libvirt did not compare the CPU with what QEMU gave")
    lacks = gap(definition, machine.arch, _offer(target, machine), names, inactive=cpu.inactive)
    if lacks:
        ends = Ends(here, there, libvirt_here, libvirt_there) if machine.virttype == "kvm" else None
        yield lacking(f"all of the guest's {definition.model}", lacks, ends, definition.model)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="RHEL 9 §12.4; libvirt 11.3 qemuDomainCheckCPU",
    remedy=_RESTART,
    covers=("12.6/cpu", "failure 1"),
)
def unchecked_cpu_fits(
    cpu: GuestCpu,
    machine: GuestMachine,
    own: Source[HostModels],
    target: Target[HostModels],
    names: Target[CpuMapFiles],
    here: Source[CpuIdentity],
    there: Target[CpuIdentity],
    libvirt_here: Source[Libvirt],
    libvirt_there: Target[Libvirt],
) -> Iterator[Finding]:
    """The target can give all that the guest's host gave it of an unchecked CPU.

    libvirt usually notes what QEMU gave a started guest (check='full'). Where it did not, it compares nothing on the
    target either: nothing is refused there, and the guest loses features while it uses them.
    """
    definition = _named(cpu, machine)
    if definition.check == "full":
        raise NotApplicable("libvirt compares the CPU")
    given = _offer(own, machine).host_model
    lacks = gap(definition, machine.arch, _offer(target, machine), names, inactive=cpu.inactive, own=given)
    if lacks:
        ends = Ends(here, there, libvirt_here, libvirt_there) if machine.virttype == "kvm" else None
        yield lacking(f"all that the source gives of {definition.model}", lacks, ends, definition.model)


def _named(cpu: GuestCpu, machine: GuestMachine) -> CpuDefinition:
    """The CPU of a running guest, where it names a model."""
    definition = _live(cpu, machine)
    if definition.mode in PASSTHROUGH:
        raise NotApplicable(f"the CPU is {definition.mode}")
    return definition


def _live(cpu: GuestCpu, machine: GuestMachine) -> CpuDefinition:
    if not cpu.active:
        raise NotApplicable("the guest is shut off: its CPU is made up when it starts")
    return running(cpu.definition, machine.arch)


def _offer(models: HostModels, machine: GuestMachine) -> DomainCapabilities:
    offer = models.offer(Request.of(machine))
    if isinstance(offer, Refusal):
        raise NotApplicable(f"libvirt takes no such guest: {offer.words}")
    return offer


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference="libvirt formatdomain, host-passthrough",
    remedy=_RESTART,
    covers=("12.3/cpu-model", "12.6/cpu", "failure 13", "false alarm 2"),
)
def passthrough_provable(
    cpu: GuestCpu,
    machine: GuestMachine,
    here: Source[CpuIdentity],
    there: Target[CpuIdentity],
    own: Source[HostModels],
    target: Target[HostModels],
    names: Target[CpuMapFiles],
) -> Iterator[Finding]:
    """A guest with the host's own CPU finds the same CPU on the target.

    libvirt compares nothing for host-passthrough and maximum: the migration succeeds, and the guest crashes later when
    it uses what is gone. Equal processors, microcode, kernels and QEMU are proof; anything less is not.
    """
    definition = _live(cpu, machine)
    if definition.mode not in PASSTHROUGH:
        raise NotApplicable("the guest's CPU is a named model")
    kvm = machine.virttype == "kvm"
    if kvm and here.family != there.family:
        yield Finding(here.processor, there.processor, "The guest would find another processor under itself.")
        return
    given = _offer(own, machine).host_model
    if given is not None:
        lacks = gap(passed_through(definition, given), machine.arch, _offer(target, machine), names)
        if lacks:
            yield Finding(f"all that the source gives to {definition.mode} guests", str(lacks))
            return
    unequal = here.differences(there) if kvm else here.software_differences(there)
    if unequal:
        raise Unavailable(CPUINFO, f"not provable that the CPU stays the same: {'; '.join(unequal)}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="RHEL 9 §12.3",
    remedy="Shut the guest down and start it on the target.",
    covers=("12.3/cpu-model", "12.6/cpu", "failure 15"),
)
def guest_same_vendor(
    cpu: GuestCpu, machine: GuestMachine, here: Source[HostCpu], there: Target[HostCpu]
) -> Iterator[Finding]:
    """The target's processor is of the vendor that the guest runs on.

    A KVM guest sees the vendor of its host and works around that vendor's faults. Found on another vendor's processor
    after a move, it crashes sooner or later, even where both have all its features.
    """
    _live(cpu, machine)
    if machine.virttype != "kvm":
        raise NotApplicable("the processor is emulated")
    yield from _other_vendor(here, there, "No vendor supports moving a running guest to another's processor.")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed",
    remedy="Add <timer name='tsc' frequency='…'/> to the guest's <clock>, or disable invtsc, and restart the guest.",
    covers=("failure 9",),
)
def invtsc_has_frequency(cpu: GuestCpu, processor: Processor) -> Iterator[Finding]:
    """A guest with an invariant TSC has its frequency written down.

    invtsc promises the guest a clock that never changes its pace. Without a stated frequency no other host can keep
    the promise, and libvirt refuses to migrate the guest.
    """
    definition = cpu.definition
    if not cpu.active or definition is None:
        raise NotApplicable("no CPU of a running guest")
    asked = "invtsc" in definition.named("require", "force")
    passed = definition.migratable == "off" and "nonstop_tsc" in processor.flags
    if (asked or passed) and not cpu.tsc_frequency_hz:
        actual = "invtsc without a frequency" if asked else f"{definition.mode} with migratable='off', which has invtsc"
        yield Finding("<timer name='tsc' frequency=…> beside invtsc", actual)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 qemuProcessStartValidateTSC",
    remedy="Move the guest to a host with TSC scaling, or restart it without a fixed TSC frequency.",
    covers=("failure 10", "false alarm 4"),
)
def tsc_frequency_within_tolerance(cpu: GuestCpu, machine: GuestMachine, target: Target[HostCpu]) -> Iterator[Finding]:
    """The target can give the guest the TSC frequency that it is fixed to.

    Identical servers measure frequencies some kHz apart; libvirt tolerates 250 ppm, and any frequency where the
    processor can scale its TSC.
    """
    wanted = cpu.tsc_frequency_hz
    if not wanted or not cpu.active or machine.virttype != "kvm":
        raise NotApplicable("no running KVM guest with a fixed TSC frequency")
    if target.tsc_scaling:
        return
    if target.tsc_frequency_hz is None:
        raise Unavailable(CAPABILITIES, "libvirt does not tell the TSC frequency")
    if _ppm(wanted, target.tsc_frequency_hz) <= _TSC_TOLERANCE_PPM:
        return
    if target.tsc_scaling is None:
        raise Unavailable(CAPABILITIES, "libvirt does not tell whether the TSC can be scaled")
    yield Finding(
        f"{wanted} Hz ± {_TSC_TOLERANCE_PPM} ppm, or TSC scaling", f"{target.tsc_frequency_hz} Hz, no scaling"
    )


def _ppm(one: int, other: int) -> float:
    return abs(one - other) * 1_000_000 / other if other else float("inf")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="QEMU hyperv_reenlightenment_post_load",
    remedy="Add <timer name='tsc' frequency='…'/> to the guest's <clock> and restart it.",
    covers=("failure 11",),
)
def reenlightenment_has_frequency(cpu: GuestCpu) -> Iterator[Finding]:
    """A guest with Hyper-V re-enlightenment has its TSC frequency written down.

    Once such a Windows guest has switched re-enlightenment on, QEMU on the target refuses it unless the TSC frequency
    is stated. The guest stays on the source unharmed.
    """
    if cpu.active and "reenlightenment" in cpu.hyperv and not cpu.tsc_frequency_hz:
        yield Finding("<timer name='tsc' frequency=…>", "re-enlightenment without a TSC frequency")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference="libvirt formatdomain, maxphysaddr",
    covers=("failure 8", "false alarm 9"),
)
def guest_address_bits_fit(
    cpu: GuestCpu, machine: GuestMachine, here: Source[HostCpu], there: Target[HostCpu]
) -> Iterator[Finding]:
    """The target addresses as much physical memory as the guest's CPU promises.

    A guest that was told of more address bits than the target has may use an address that does not exist there: it
    panics minutes after the move, when nobody watches any more.
    """
    definition = _kvm_cpu(cpu, machine)
    if definition is None or definition.maxphysaddr is None:
        raise NotApplicable("the guest's definition states no address bits")
    seen, given = _address_bits(definition, here, there)
    if given < seen:
        yield Finding(f"{seen} physical address bits", f"{given} on the target")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="QEMU x86 phys-bits",
    remedy="Add <maxphysaddr mode='emulate' bits='39'/> to the guest's <cpu> and restart it.",
    covers=("failure 8", "false alarm 9"),
)
def default_address_bits_fit(
    cpu: GuestCpu, machine: GuestMachine, here: Source[HostCpu], there: Target[HostCpu]
) -> Iterator[Finding]:
    """The target has the 40 address bits that QEMU promises by default.

    Small processors have 39. A guest that puts a device's memory at the top of what it was promised loses it there.
    """
    definition = _kvm_cpu(cpu, machine)
    if machine.arch not in X86 or (definition and (definition.maxphysaddr or definition.mode in PASSTHROUGH)):
        raise NotApplicable("the guest's address bits are not QEMU's default")
    seen, given = _address_bits(definition, here, there)
    if given < seen <= (here.address_bits or 0):
        yield Finding(f"{seen} physical address bits", f"{given} on the target")


def _kvm_cpu(cpu: GuestCpu, machine: GuestMachine) -> CpuDefinition | None:
    if not cpu.active or machine.virttype != "kvm":
        raise NotApplicable("no running KVM guest")
    return cpu.definition


def _address_bits(definition: CpuDefinition | None, here: HostCpu, there: HostCpu) -> tuple[int, int]:
    """What the guest sees now, and what the target has."""
    if here.address_bits is None or there.address_bits is None:
        raise Unavailable(CPUINFO, "the physical address bits are not told")
    return seen_address_bits(definition, here.address_bits), there.address_bits


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference="libvirt formatdomain, maxphysaddr",
    remedy="Use the cluster's baseline CPU, which states the smallest number of address bits.",
    plain_guest=True,
    covers=("failure 8", "false alarm 9"),
)
def address_bits_fit(models: Source[HostModels], here: Source[HostCpu], there: Target[HostCpu]) -> Iterator[Finding]:
    """The target has the physical address bits that the source's host-model promises.

    libvirt since 9.3 gives a host-model guest all address bits of its host; on a host with fewer the guest may use an
    address that does not exist.
    """
    model = _kvm(models).host_model
    if model is None or model.maxphysaddr is None:
        raise NotApplicable("the source's host-model states no address bits")
    seen, given = _address_bits(model, here, there)
    if given < seen:
        yield Finding(f"{seen} physical address bits", f"{given} on the target")


@check(severity=Severity.INFO, reference="RHEL 9 §12.3", covers=("12.3/microcode", "failure 14", "false alarm 3"))
def microcode_equal(
    here: Source[Processor], there: Target[Processor], source: Source[Microcode], target: Target[Microcode]
) -> Iterator[Finding]:
    """Source and target, if they have the same processor, run the same microcode.

    By itself a difference is harmless; it is named because microcode can take features away, which the CPU checks see.
    """
    if here.identity != there.identity:
        raise NotApplicable("the processors are not the same, and so their microcode is not comparable")
    if source != target:
        yield Finding(str(source), str(target))


@check(severity=Severity.LOW, reference="kernel admin guide, hw-vuln")
def no_more_vulnerable(source: Source[Vulnerabilities], target: Target[Vulnerabilities]) -> Iterator[Finding]:
    """The target is protected against every processor vulnerability that the source is protected against.

    Guests would move to a host where they are easier to attack.
    """
    told = {name for name, _ in source.states}
    worse = sorted((target.vulnerable - source.vulnerable) & told)
    if worse:
        yield Finding("no vulnerability more than on the source", ", ".join(worse))


@check(severity=Severity.INFO, reference="RHEL 9 §12.3", covers=("12.3/firmware-settings",))
def threads_equal(source: Source[Smt], target: Target[Smt]) -> Iterator[Finding]:
    """Source and target both use simultaneous multithreading, or both do not.

    A virtual CPU has a whole core on one and half a core on the other.
    """
    if None not in (source.active, target.active) and source.active != target.active:
        yield Finding("on" if source.active else "off", "on" if target.active else "off")


@check(
    severity=Severity.LOW, reference="libvirt 11.3 qemuProcessStartValidateTSC", covers=("failure 10", "false alarm 4")
)
def tsc_alike(source: Source[HostCpu], target: Target[HostCpu]) -> Iterator[Finding]:
    """Source and target count time at the same pace, or the target can scale it.

    Guests with a fixed TSC frequency cannot move otherwise; others take their time from the hypervisor.
    """
    mine, theirs = source.tsc_frequency_hz, target.tsc_frequency_hz
    if mine is None or theirs is None:
        raise NotApplicable("libvirt tells no TSC frequency")
    if _ppm(mine, theirs) > _TSC_TOLERANCE_PPM and not target.tsc_scaling:
        yield Finding(f"{mine} Hz ± {_TSC_TOLERANCE_PPM} ppm", f"{theirs} Hz, no scaling")
