"""Hardware virtualization: can the hosts run KVM guests at all?"""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Target, check
from audit.facts.cpu import X86, Processor
from audit.facts.guest import GuestMachine
from audit.facts.kvm import Kvm
from audit.facts.machines import MachineTypes


@check(
    severity=Severity.HIGH,
    reference="virt-host-validate qemu",
    remedy="virt-host-validate qemu",
    plain_guest=True,
    covers=("12.3/firmware-settings", "12.4/installed", "12.6/kvm"),
)
def virtualization_usable(machines: MachineTypes, kvm: Kvm, processor: Processor) -> Iterator[Finding]:
    """libvirt offers KVM on this host.

    Without hardware virtualization only emulated guests run here, slowly, and no KVM guest can come.
    """
    if "kvm" in machines.virttypes(machines.native_arch):
        return
    if not machines.lists:
        because = "libvirt knows no QEMU here."
    elif kvm.device:
        because = "/dev/kvm is there: QEMU may lack KVM, or libvirt was started before; restart it."
    elif machines.native_arch in X86 and not processor.flags & {"vmx", "svm"}:
        because = "The processor shows neither vmx nor svm: switch virtualization on in the firmware."
    else:
        because = "There is no /dev/kvm: load kvm_intel or kvm_amd, and see that the firmware allows virtualization."
    yield Finding(f"KVM for {machines.native_arch}", "not offered", because)


@check(severity=Severity.INFO, reference="RHEL 9, nested virtual machines")
def nested_off(kvm: Kvm) -> Iterator[Finding]:
    """Guests on this host cannot be hypervisors themselves.

    Where they can, host-model guests carry vmx or svm with them, which every target must then offer as well; guests
    that run guests of their own are best not migrated live.
    """
    if kvm.nested:
        yield Finding("nested = N", "nested = Y", "Usual on current kernels; worth knowing before a move.")


@check(severity=Severity.MEDIUM, reference="virt-host-validate qemu", remedy="modprobe tun")
def tun_present(kvm: Target[Kvm]) -> Iterator[Finding]:
    """The host has /dev/net/tun.

    Every guest with a network on a bridge needs it.
    """
    if not kvm.tun:
        yield Finding("/dev/net/tun", "not there")


@check(severity=Severity.LOW, reference="virt-host-validate qemu", remedy="modprobe vhost_net")
def vhost_net_present(kvm: Target[Kvm]) -> Iterator[Finding]:
    """The host has /dev/vhost-net.

    Without it the network of guests passes through QEMU, and is slower.
    """
    if not kvm.vhost_net:
        yield Finding("/dev/vhost-net", "not there")


@check(
    severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="RHEL 9 §12.6", plain_guest=True, covers=("12.6/kvm",)
)
def kvm_on_both(source: Source[MachineTypes], target: Target[MachineTypes]) -> Iterator[Finding]:
    """Source and target both run KVM guests.

    An emulated guest cannot become a KVM guest on the way, nor the other way round.
    """
    without = [
        f"{role} offers none"
        for role, machines in (("source", source), ("target", target))
        if "kvm" not in machines.virttypes(machines.native_arch)
    ]
    if without:
        yield Finding("KVM on source and target", ", ".join(without))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="libvirt: Domain requires KVM, but it is not available",
    remedy="virt-host-validate qemu",
    offline=True,
    covers=("12.6/kvm",),
)
def virttype_available(machine: GuestMachine, target: Target[MachineTypes]) -> Iterator[Finding]:
    """The target runs guests of the guest's virttype and architecture.

    A KVM guest needs KVM there; an emulated one needs an emulator of its architecture.
    """
    offered = target.virttypes(machine.arch)
    if machine.virttype not in offered:
        actual = f"{', '.join(sorted(offered))} only" if offered else f"nothing for {machine.arch}"
        yield Finding(f"{machine.virttype} for {machine.arch}", actual)


@check(severity=Severity.INFO, reference="RHEL 9, nested virtual machines", covers=("failure 3",))
def nested_equal(source: Source[Kvm], target: Target[Kvm]) -> Iterator[Finding]:
    """Nested virtualization is on, or off, on both source and target.

    Guests that carry vmx or svm find no home where it is off; the CPU checks say which.
    """
    if source.nested is None or target.nested is None:
        raise NotApplicable("the kernel does not tell")
    if source.nested != target.nested:
        yield Finding("on" if source.nested else "off", "on" if target.nested else "off")
