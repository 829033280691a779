"""The devices of a guest: which of them keep it where it is, and what they ask of the target."""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Told, Unavailable, check
from audit.facts.arguments import GuestArguments, KnownArguments
from audit.facts.firewall import Listening
from audit.facts.guest import GuestIdentity, GuestMemory
from audit.facts.guest_devices import GuestDevices, GuestDisks, GuestNics
from audit.facts.hostdev import GuestHeld, Held, MediatedDevices, PciDevices, UsbDevices
from audit.facts.mellanox import MellanoxDevices
from audit.facts.names import OwnAddresses, is_loopback
from audit.facts.versions import Libvirt, Version
from audit.facts.vfio import VfioDevices
from audit.facts.virtiofs import GuestShares, VirtiofsDaemons
from checks._hostdev import PASSTHROUGH, why_it_stays
from checks._sockets import collide, is_address

QEMU_DECIDES = Version(8, 6, 0)
"""Since then libvirt asks QEMU what prevents a migration, instead of refusing every passed-through device."""
VIRTIOFS_MAY = Version(10, 5, 0)
"""RHEL 9.5's 10.5.0 has the change; what came before refuses."""
VIRTIOFS_DOES = Version(10, 8, 0)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="RHEL 9 §12.3; libvirt 11.3 qemuMigrationSrcIsAllowedHostdev; QEMU vfio_migration_realize",
    remedy="virsh detach-device GUEST DEVICE.xml --live before the migration, and attach one of the target's after it",
    covers=(*PASSTHROUGH, "failure 64", "failure 65", "failure 69"),
)
def no_passthrough(
    held: GuestHeld,
    libvirt: Libvirt,
    bound: VfioDevices,
    mellanox: MellanoxDevices,
    pci: PciDevices,
    mediated: MediatedDevices,
) -> Told:
    """The guest holds no device of the host that cannot migrate.

    The state of passed-through hardware stays behind, unless the kernel driver that holds the device can hand it over
    (for Mellanox virtual functions see the checks of that domain). A NIC of `<teaming type='transient'>` is unplugged
    by QEMU for the migration.
    """
    for device in held.devices:
        if device.kind == "usb" or device.unplugged:
            continue
        try:
            if libvirt.daemon < QEMU_DECIDES and device.kind != "capabilities":
                because = f"libvirt {libvirt.daemon} refuses every passed-through device but USB"
            else:
                because = why_it_stays(device, bound, mellanox, pci, mediated)
        except Unavailable as why:
            yield why
            continue
        if because:
            yield Finding(expected="no such device", actual=device.name, because=because)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="RHEL 9 §12.3; libvirt 11.3 virHostdevFindUSBDevice; QEMU hw/usb/host-libusb.c usb_host_post_load",
    remedy="virsh detach-device GUEST USB.xml --live",
    covers=PASSTHROUGH,
)
def no_usb_passthrough(held: GuestHeld, there: Target[UsbDevices]) -> Told:
    """The target has a USB device like the one that the guest holds, or the guest may lose it.

    libvirt and QEMU let such a guest go, and look on the target for a device of the same vendor and product: none stops
    the migration, and so do several. Where the guest's configuration names a place on the bus as well, it must be
    there. One with `startupPolicy='requisite'` or `'optional'` may be missing.
    """
    for device in held.devices:
        if device.kind != "usb" or device.optional:
            continue
        try:
            because = _usb_missing(device, there)
        except Unavailable as why:
            yield why
            continue
        if because:
            yield Finding("no USB device of the host, or one like it there", device.name, because)


def _usb_missing(device: Held, there: UsbDevices) -> str:
    """Why libvirt does not find the USB device on the target; "" if it does. Raises `Unavailable`."""
    if device.address is None:
        return "named by its place on the bus alone, where on the target is nothing, or something else"
    places = there.places(device.address)
    if device.place_fixed:
        return "" if device.place in places else f"Did not find USB device {device.address} at {device.place}"
    by_kind = ""
    if not places:
        by_kind = "plugged into this host, it is not found on another one"
    elif len(places) > 1:
        by_kind = f"Multiple USB devices for {device.address}, use <address> to specify one"
    if device.place_fixed is None and bool(by_kind) is (device.place in places):
        raise Unavailable(there.probes[0], f"whether {device.name} was attached with its place on the bus")
    return by_kind


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed; QEMU hw/virtio/vhost-vdpa",
    remedy="virsh detach-device GUEST DEVICE.xml --live before the migration, and attach one of the target's after it",
    covers=("12.3/passthrough",),
)
def no_vdpa(nics: GuestNics, disks: GuestDisks, libvirt: Libvirt) -> Iterator[Finding]:
    """The guest has no vDPA device that stays.

    libvirt before 8.6 refuses a vDPA NIC. Newer ones ask QEMU, and that depends on what the hardware's driver can do.
    """
    count = sum(1 for nic in nics.nics if nic.type == "vdpa")
    if count and libvirt.daemon < QEMU_DECIDES:
        yield Finding(
            expected="no vDPA NIC",
            actual=f"{count}, libvirt {libvirt.daemon}",
            because="vDPA devices cannot be migrated",
        )
    elif count or any(disk.type == "vhostvdpa" for disk in disks.disks):
        raise Unavailable(libvirt.probes[0], "whether a vDPA device can migrate is known to QEMU and its driver only")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="QEMU docs/interop/vhost-user",
    remedy="Compare version and configuration of the backend (OVS with DPDK, SPDK) on both hosts",
    covers=("failure 70",),
)
def vhostuser_backend(nics: GuestNics, disks: GuestDisks) -> Iterator[Finding]:
    """No NIC or disk depends on another process's vhost-user backend.

    The target's backend must offer the same features, and a disk's the same data; nobody compares them beforehand.
    """
    held = [f"NIC {nic.mac or ''}".strip() for nic in nics.nics if nic.type == "vhostuser"]
    held += [f"disk {disk.target}" for disk in disks.disks if disk.type == "vhostuser"]
    if held:
        yield Finding("no vhost-user device, or equal backends on both hosts", ", ".join(held))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed, qemuVhostUserFillFSCapabilities",
    remedy="Unmount it in the guest and detach it: virsh detach-device GUEST FILESYSTEM.xml --live",
    covers=("failure 63",),
)
def no_virtiofs(shares: GuestShares, daemons: VirtiofsDaemons, libvirt: Libvirt) -> Told:
    """libvirt does not refuse to migrate the guest for the sake of a virtiofs file system.

    Up to 10.4 every one prevents migration. 10.8 refuses only where libvirt has started the daemon itself, and that
    cannot hand over which files the guest has open (`migrate-precopy`). In between it depends on the vendor.
    """
    for share in shares.shares:
        because = ""
        if libvirt.daemon < VIRTIOFS_MAY:
            because = f"libvirt {libvirt.daemon}: migration with virtiofs device is not supported"
        elif share.socket is None:
            try:
                able = daemons.can_migrate(share.binary)
            except Unavailable as why:
                yield why
                continue
            if able is None:
                yield Unavailable(daemons.probes[0], f"no description of {share.binary or 'one virtiofsd'}")
                continue
            because = "" if able else "migration with this virtiofs device is not supported"
        if because:
            yield Finding(
                expected="no virtiofs; or libvirt 10.8 or newer and a virtiofsd with migrate-precopy (1.11 or newer)",
                actual=f"virtiofs {share.tag}, {share.binary or share.socket or 'virtiofsd'}",
                because=because,
            )
        elif libvirt.daemon < VIRTIOFS_DOES:
            yield Unavailable(libvirt.probes[0], f"whether this libvirt {libvirt.daemon} lets virtiofs go")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.ALLOWED,
    reference="QEMU hw/9pfs",
    remedy="In the guest: umount the 9p file system, before the migration",
)
def filesystem_9p(devices: GuestDevices) -> Iterator[Finding]:
    """No 9p file system is mounted by the guest.

    QEMU refuses to migrate while the guest has a 9p share mounted, and allows it while it has not. Which is the case
    cannot be seen from the host. The folder must exist on the target as well.
    """
    shares = sum(1 for driver in devices.filesystems if driver in {"path", "handle", "loop", "nbd"})
    if shares:
        yield Finding(
            expected="no 9p file system, or not mounted in the guest",
            actual=f"{shares} 9p file systems, perhaps mounted",
            because="Migration is disabled when VirtFS export path is mounted in the guest",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed",
    remedy="virsh edit GUEST: <shmem role='master'>, at the next start; or detach the device",
    covers=("failure 58",),
)
def shmem_role(devices: GuestDevices) -> Iterator[Finding]:
    """Shared memory devices have the role of the master.

    Only a master takes its content along; a peer (the default) would find other content on the target.
    """
    for name, model, role in devices.shmems:
        if role != "master" or model == "ivshmem":
            yield Finding(
                expected="role='master', and not the old model ivshmem",
                actual=f"shmem {name}: {model}, {role}",
                because=f"shmem device '{name}' cannot be migrated, only shmem with role='master' can be migrated",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed",
    covers=("failure 58",),
)
def no_transient_disk(disks: GuestDisks) -> Iterator[Finding]:
    """No disk is transient.

    What the guest wrote to a `<transient/>` disk is thrown away when it stops, and lies in a file of this host.
    """
    for disk in disks.disks:
        if disk.transient:
            yield Finding(
                expected="no <transient/>",
                actual=f"{disk.target} is transient",
                because="migration with transient disk is not supported",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsSafe",
    remedy="virsh detach-disk GUEST TARGET --live, or put the data on shared storage",
    covers=("12.3/passthrough", "failure 44"),
)
def nvme_disk(disks: GuestDisks) -> Iterator[Finding]:
    """No disk is an NVMe device of the host.

    QEMU drives the controller itself; nobody else can reach the data.
    """
    for disk in disks.disks:
        if disk.type == "nvme":
            yield Finding(
                expected="no disk of type nvme",
                actual=f"{disk.target}: NVMe at {disk.source}",
                because="Migration without shared storage is unsafe",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed",
    covers=("failure 58",),
)
def dimm_addresses(memory: GuestMemory) -> Iterator[Finding]:
    """Every memory module knows its slot and base address.

    A target that placed them elsewhere would give the guest other memory than it has.
    """
    if memory.dimms_without_address:
        yield Finding(
            expected="<address type='dimm'> at every memory module",
            actual="a module without",
            because="domain's dimm info lacks slot ID or base address",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference="QEMU backends/tpm/tpm_passthrough.c",
    remedy="virsh edit GUEST: use <backend type='emulator'>, at the next start; keys sealed by the chip are lost",
    covers=("12.3/passthrough",),
)
def no_tpm_passthrough(devices: GuestDevices) -> Iterator[Finding]:
    """The guest does not use the host's TPM chip.

    What the chip keeps cannot leave it. QEMU lets the guest go all the same, and it finds another chip: what it sealed
    (BitLocker, LUKS) stays closed. An emulated TPM's state travels along.
    """
    if devices.tpm == "passthrough":
        yield Finding(
            expected="an emulated TPM, or none",
            actual="the host's TPM",
            because="the guest would go on with the target's chip, which has none of its keys",
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt 9.0.0 release notes: external TPM emulator",
    remedy="Start the emulator on the target, on the same socket and with --migration incoming, before the migration",
    covers=("failure 72",),
)
def tpm_external(devices: GuestDevices) -> Iterator[Finding]:
    """The emulator of the guest's TPM is run by libvirt, not by the administrator.

    libvirt connects to another's emulator where the guest's configuration says, and leaves the rest to whoever runs it.
    """
    if devices.tpm == "external":
        yield Finding("no TPM, or one of libvirt's own", "TPM of type external")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU: SEV and TDX guests have a migration blocker",
    covers=("failure 73",),
)
def no_launch_security(devices: GuestDevices) -> Iterator[Finding]:
    """The guest's memory is not encrypted by the processor.

    A host cannot read the memory of an SEV or TDX guest, and so cannot send it.
    """
    if devices.launch_security not in {None, "s390-pv"}:
        yield Finding(
            expected="no <launchSecurity>",
            actual=str(devices.launch_security),
            because="memory that the host cannot read cannot be copied",
        )
    elif devices.launch_security == "s390-pv":
        yield Finding(expected="no <launchSecurity>", actual="s390-pv", because="a protected guest does not migrate")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.ALLOWED,
    reference="libvirt drvqemu: pass-through of arbitrary QEMU commands",
    remedy="virsh dumpxml GUEST | grep qemu:arg; try the move with a copy of the guest, or drop the arguments",
)
def no_custom_arguments(devices: GuestDevices) -> Iterator[Finding]:
    """The guest has no QEMU arguments that libvirt does not understand.

    Devices and files that stand in `<qemu:commandline>` only are checked by nobody before the migration; some
    prevent it (`non-migratable device`), others are missing on the target. Properties in `<qemu:override>` may change
    what the guest's devices are.
    """
    if devices.custom_arguments:
        yield Finding("no <qemu:commandline>, no <qemu:override>", "arguments of the administrator's own")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU softmmu/vl.c: invalid option; qdev-monitor.c: is not a valid device model name",
    remedy="virsh edit GUEST: drop the argument, or say it in the way of newer releases, at the next start",
)
def arguments_known(
    arguments: GuestArguments, here: Source[KnownArguments], there: Target[KnownArguments]
) -> Iterator[Finding]:
    """The target's QEMU knows the arguments that the guest's definition hands to it.

    libvirt passes `<qemu:commandline>` on as it is. Options and devices come and go with QEMU's releases, and a
    distribution's QEMU has fewer than another's.
    """
    if not arguments.options:
        raise NotApplicable("no arguments of its own")
    ours, theirs = here.of(arguments.emulator), there.of(arguments.emulator)
    gone = [f"-{name}" for name in arguments.options if name in ours.options - theirs.options]
    gone += [f"-device {name}" for name in arguments.devices if name in ours.devices - theirs.devices]
    if gone:
        yield Finding("a QEMU that knows the guest's own arguments", f"it does not know {', '.join(gone)}")
    elif ours != theirs and not (theirs.options.issuperset(arguments.options)):
        lacking = ", ".join(f"-{name}" for name in arguments.options if name not in theirs.options)
        raise Unavailable(there.probes[0], f"neither host's QEMU lists {lacking}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU ui/vnc.c, spice-server",
    covers=("12.6/xml",),
)
def graphics_listen(devices: GuestDevices, there: Target[OwnAddresses], guest: GuestIdentity) -> Iterator[Finding]:
    """The display listens on an address that the target has.

    The target's QEMU binds it at once and does not start without. Wildcard and loopback addresses exist everywhere.
    """
    for kind, address in devices.graphics:
        if address is not None and is_address(address) and not is_loopback(address) and not there.interface_of(address):
            yield Finding(
                expected="0.0.0.0, a loopback address, or one of the target's",
                actual=f"{kind} on {address}",
                because="Failed to bind socket: Cannot assign requested address",
                remedy=f"virsh edit {shlex.quote(guest.name)}: <listen type='address' address='0.0.0.0'/>, at the next "
                "start; or migrate with --xml and the changed address",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU ui/vnc.c, spice-server",
    covers=("12.6/xml",),
)
def graphics_port(devices: GuestDevices, there: Target[Listening], guest: GuestIdentity) -> Iterator[Finding]:
    """The display's fixed port is free on the target.

    libvirt looks for a free port only where it may choose (`autoport='yes'`).
    """
    for kind, address, port in devices.graphics_ports:
        taken = [s for s in there.sockets if s.port == port and collide(s.address, address or "127.0.0.1")]
        if taken:
            yield Finding(
                expected=f"port {port} free on the target",
                actual=f"something listens on {taken[0].address} port {port}",
                because=f"{kind}: Failed to bind socket: Address already in use",
                remedy=f"virsh edit {shlex.quote(guest.name)}: autoport='yes', at the next start; or migrate with "
                "--xml and another port",
            )
