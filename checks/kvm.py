"""Hardware virtualization: can the hosts run KVM guests at all?"""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.cpu import X86, Processor
from audit.facts.guest import GuestMachine
from audit.facts.kvm import Kvm
from audit.facts.machines import MachineTypes
from audit.facts.settings import FirmwareSettings, Gic, GuestGic, PageSize, Userfaultfd
from audit.facts.storage import HypervisorUser
from audit.facts.versions import BIOS, Bios


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


@check(severity=Severity.INFO, reference="RHEL 9, nested virtual machines", covers=("failure 3", "failure 23"))
def nested_equal(source: Source[Kvm], target: Target[Kvm]) -> Iterator[Finding]:
    """Nested virtualization is on, or off, on both source and target.

    Guests that carry vmx or svm find no home where it is off; the CPU checks say which.
    """
    if source.nested is None or target.nested is None:
        raise NotApplicable("the kernel does not tell")
    if source.nested != target.nested:
        yield Finding("on" if source.nested else "off", "on" if target.nested else "off")


@check(
    severity=Severity.HIGH,
    stage=Stage.TRANSFER,
    reference="RHEL 10, limitations",
    remedy="Boot the kernel with the same page size on both: on RHEL kernel or kernel-64k",
    covers=("failure 21",),
)
def same_page_size(source: Source[PageSize], target: Target[PageSize]) -> Iterator[Finding]:
    """Source and target have memory pages of the same size.

    ARM and POWER kernels are built with pages of 4 or 64 KiB. Red Hat supports migration of ARM guests between equal
    ones only; a POWER guest may be refused on arrival, and post-copy is between unequal ones.
    """
    if source.arch in X86 and target.arch in X86:
        raise NotApplicable("x86 kernels all have pages of 4 KiB")
    if source.page_bytes != target.page_bytes:
        yield Finding(f"pages of {source.page_bytes} bytes", f"pages of {target.page_bytes} bytes")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt formatdomaincaps: gic",
    covers=("failure 21",),
)
def gic_offered(guest: GuestGic, machine: GuestMachine, target: Target[Gic]) -> Iterator[Finding]:
    """The target's KVM has the interrupt controller that an ARM guest was started with.

    A guest cannot change its GIC while it runs; QEMU does not start with one that KVM does not have.
    """
    if guest.version is None or guest.version == "host" or machine.virttype != "kvm":
        raise NotApplicable("the guest asks for no version of the GIC")
    if target.versions is None:
        raise Unavailable(Gic.probes[0], "libvirt lists no versions of the GIC")
    if guest.version not in target.versions:
        yield Finding(f"GIC version {guest.version}", f"{', '.join(sorted(target.versions)) or 'none'} on the target")


@check(
    severity=Severity.INFO,
    stage=Stage.TRANSFER,
    reference="kernel: vm.unprivileged_userfaultfd",
    remedy="echo vm.unprivileged_userfaultfd = 1 > /etc/sysctl.d/60-qemu-postcopy-migration.conf; sysctl --system",
    covers=("failure 61",),
)
def postcopy_possible(faults: Target[Userfaultfd], user: Target[HypervisorUser]) -> Iterator[Finding]:
    """QEMU may receive guests by post-copy here.

    It then handles page faults of its own (userfaultfd), which the kernel keeps from ordinary users unless it is told
    otherwise or /dev/userfaultfd is opened to them. Only `virsh migrate --postcopy` needs it.
    """
    if faults.unprivileged is None:
        raise NotApplicable("this kernel has no switch for it")
    if not faults.unprivileged and user.user.uid != 0:
        yield Finding(
            "vm.unprivileged_userfaultfd = 1",
            f"0, and QEMU runs as {user.user.name}",
            "Postcopy is not supported: Userfaultfd not available, where /dev/userfaultfd is not given to it.",
        )


@check(
    severity=Severity.INFO,
    reference="RHEL 9 §12.3",
    covers=("12.3/firmware-settings", "12.3/bios-settings"),
)
def firmware_settings_alike(
    here: Source[FirmwareSettings], our_model: Source[Bios], there: Target[FirmwareSettings], their_model: Target[Bios]
) -> Iterator[Finding]:
    """Hosts of the same model show the same settings of firmware and kernel.

    Compared is what can be seen in the running system: UEFI or BIOS, the IOMMU, NUMA nodes (sub-NUMA clustering),
    turbo, power profile, SEV, SGX. What changes the CPU or the topology for guests is judged by other checks; other
    settings of the firmware, such as those of memory and of devices, cannot be seen from the system.
    """
    if (our_model.system_vendor, our_model.product) != (their_model.system_vendor, their_model.product):
        raise NotApplicable("different server models")
    if our_model.product is None:
        raise Unavailable(BIOS, "the hosts do not say which model they are")
    for name, ours, theirs in here.differences(there):
        yield Finding(f"{name}: {ours}", theirs)
