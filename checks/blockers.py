"""What QEMU itself does not migrate, or what does not follow it: image formats, reservations, card readers."""

from collections.abc import Iterator

from audit.check import Blocks, Finding, Severity, Source, Stage, Told, Unavailable, check
from audit.facts.blockers import GuestFormats, GuestUnsaved
from audit.facts.versions import Qemu, Version

# block/{qcow,vdi,vmdk,vpc,vhdx}.c: each registers a migration blocker when an image is opened, read-only or not, on
# top or below another one (tried with QEMU 7.2).
STAY = frozenset({"qcow", "vdi", "vmdk", "vpc", "vhdx"})


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU block/vmdk.c, vpc.c, vhdx.c, vdi.c, qcow.c: migrate_add_blocker",
    remedy="Copy the disk to a qcow2 or raw image while the guest runs: virsh blockcopy GUEST DISK --dest FILE "
    "--format qcow2 --pivot; or, while it is shut off, with qemu-img convert",
)
def disk_format(disks: GuestFormats) -> Iterator[Finding]:
    """No disk's image, nor one below it, has a format that QEMU does not hand over.

    Guests that came from another hypervisor may still run from its images. QEMU refuses to migrate while one is open,
    even where the disks would be copied.
    """
    for target, kind in disks.formats:
        if kind in STAY:
            yield Finding(
                expected="qcow2, raw, or another format that QEMU migrates",
                actual=f"{target}: {kind}",
                because=f"The {kind} format used by node '{target}' does not support live migration",
            )


# QEMU: what is marked .unmigratable, or blocks migration itself; and from where on that was not looked up.
_SAID_OF = {
    "virgl": "virgl is not yet migratable",
    "ivshmem": "Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
}
_UNSAVED_UNTIL = {"amd-iommu": Version(10, 1, 0), "nvme": Version(11, 0, 0), "vhost-user-gpu": Version(0, 0, 0)}


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU VMStateDescription.unmigratable; hw/display/virtio-gpu-base.c",
    remedy="virsh edit GUEST: another model of that device, or none, at the next start; or virsh detach-device --live",
)
def unsaved_devices(devices: GuestUnsaved, qemu: Source[Qemu]) -> Told:
    """No emulated device of the guest is one that QEMU does not migrate.

    Most of QEMU's devices can be saved and loaded; some, among them 3D acceleration, USB sound and NVMe controllers,
    cannot, and QEMU refuses to migrate a guest that has one.
    """
    for name, words in devices.devices:
        until = _UNSAVED_UNTIL.get(name)
        if until is None or (qemu.version is not None and qemu.version < until):
            because = _SAID_OF.get(name, f"non-migratable device: {name}")
            yield Finding("no such device", words, because)
        else:
            yield Unavailable(qemu.probes[0], f"whether QEMU {qemu.version or 'there'} migrates {name} ({words})")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU target/i386/kvm/kvm.c hyperv_init_vcpu",
    remedy="virsh edit GUEST: <hyperv mode='custom'> with the enlightenments that it needs, at the next start",
)
def hyperv_passthrough(guest: GuestUnsaved) -> Iterator[Finding]:
    """The guest's Hyper-V enlightenments are named one by one.

    A guest that has whatever its host offers would have others on another host; QEMU refuses to migrate it.
    """
    if guest.hyperv_passthrough:
        because = "'hv-passthrough' CPU flag prevents migration, use explicit set of hv-* flags instead"
        yield Finding("<hyperv mode='custom'>", "<hyperv mode='passthrough'/>", because)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU block/vvfat.c: migrate_add_blocker",
    remedy="virsh detach-disk GUEST DISK --live",
)
def writable_folder(disks: GuestFormats) -> Iterator[Finding]:
    """No disk is a folder of the host that the guest may write to.

    QEMU shows a folder as a FAT disk, and keeps what the guest writes in memory of its own.
    """
    for target in disks.writable_folders:
        yield Finding(
            expected="no disk of type dir, or a read-only one",
            actual=target,
            because="The vvfat (rw) format does not support live migration",
        )


@check(
    severity=Severity.HIGH,
    stage=Stage.AFTER,
    reference="libvirt formatdomain: <reservations>; QEMU docs/pr-manager; oVirt MigrateVmCommand: SCSI reservation",
    remedy="Release the reservations in the guest (fail its cluster's service over) before the migration",
)
def persistent_reservations(disks: GuestFormats) -> Iterator[Finding]:
    """No disk passes SCSI persistent reservations on to its LUN.

    A reservation belongs to the host's port that registered it. It does not move with the guest: on the target its own
    reservation may lock the guest out, and the storage sees another cluster node.
    """
    for target in disks.reservations:
        yield Finding("no reservation held while the guest moves", f"{target} has <reservations>")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="libvirt formatdomain: <smartcard mode='host'>",
    remedy="virsh edit GUEST: <smartcard mode='passthrough' type='spicevmc'/>, at the next start; or detach it",
)
def host_smartcard(disks: GuestFormats) -> Iterator[Finding]:
    """The guest does not use a smart card that is in its host.

    The card stays behind: on the target the guest finds the reader of that host, or none.
    """
    if disks.smartcard_host:
        yield Finding("no smart card of the host's", "<smartcard mode='host'>")
