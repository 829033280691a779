"""Whether a guest's disks, and the files around them, are on the target what they are here."""

import shlex
from collections.abc import Iterator

from audit.check import (
    COPY_STORAGE,
    COPY_WHOLE,
    Blocks,
    Finding,
    NotApplicable,
    Severity,
    Source,
    Stage,
    Target,
    Told,
    Unavailable,
    check,
    if_known,
)
from audit.facts.disk_sizes import copyable
from audit.facts.guest import GuestIdentity, GuestState
from audit.facts.guest_devices import Disk, GuestDevices, GuestDisks
from audit.facts.names import OwnAddresses
from audit.facts.paths import Paths, PathState
from audit.facts.pools import Pools, Secrets
from audit.facts.storage import Mount, Mounts, Place, SharedFilesystems, same_file
from audit.facts.versions import Libvirt, Version
from checks._storage import both_local, copied_to, path_of

QEMU_FLUSHES = Version(5, 7, 0)
"""Since then libvirt knows that QEMU drops its host cache at the switchover, whatever the cache mode."""


def _written(disks: GuestDisks) -> Iterator[Disk]:
    """The disks whose content the guest changes."""
    return (disk for disk in disks.disks if disk.source is not None and not disk.readonly)


_SUPPLY = {
    False: "Mount the shared storage on the target; or make an image there and migrate with --copy-storage-all",
    True: "Present the LUN to the target: zoning, multipath, rescan-scsi-bus.sh; or, of a local disk, make a volume of "
    "the same size and path there and migrate with --copy-storage-all",
}


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="RHEL 9 §12.6; libvirt 11.3 qemuDomainDetermineDiskChain",
    covers=("12.6/storage-lun", "12.6/storage-shared", "failure 46", "failure 50", "failure 54", "failure 55"),
)
def disks_reachable(disks: GuestDisks, guest: GuestIdentity, pools: Target[Pools], there: Target[Paths]) -> Told:
    """Every disk, CD-ROM and floppy image exists on the target at the same path.

    The target's QEMU opens the files and devices that the guest's configuration names.
    """
    for disk in disks.disks:
        path = yield from path_of(disk, pools)
        if path is None:
            continue
        state = yield from if_known(there.find(path))
        if state is None or state.exists or disk.startup_policy != "mandatory":
            continue
        name, target = shlex.quote(guest.name), shlex.quote(disk.target)
        removable = disk.device in {"cdrom", "floppy"}
        yield Finding(
            expected=f"{path} on the target",
            actual="not there" + ("" if state.folder_exists else ", nor its folder"),
            because=f"Cannot access storage file '{path}': No such file or directory"
            + (f" ({disk.device} {disk.target})" if removable else f" (disk {disk.target})"),
            remedy=f"virsh change-media {name} {target} --eject" if removable else _SUPPLY[disk.type == "block"],
            lifted_by=(COPY_STORAGE,) if copied_to(disk, path) else (),
            about=disk.target,
        )


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5; libvirt 11.3 qemuMigrationSrcIsSafe",
    remedy="Put the image on storage that both hosts mount; or migrate with --copy-storage-all",
    covers=("12.5/read-write", "12.5/same-path", "12.6/storage-lun", "12.6/storage-shared", "failure 44", "failure 50"),
)
def disks_shared(
    disks: GuestDisks,
    pools: Source[Pools],
    here: Source[Paths],
    here_mounts: Source[Mounts],
    declared: Source[SharedFilesystems],
    their_pools: Target[Pools],
    there: Target[Paths],
    there_mounts: Target[Mounts],
    addresses: Target[OwnAddresses],
) -> Told:
    """Every disk that the guest writes to is the same one on the target.

    libvirt refuses to migrate when an image lies on a local file system. It does not notice when a path leads to
    another file or block device on the target: the guest would go on with somebody else's data.
    """
    for disk in _written(disks):
        if disk.type == "dir":
            continue
        path = yield from path_of(disk, pools, own=True)
        their_path = yield from path_of(disk, their_pools)
        if path is None:
            continue
        ours = yield from if_known(here.find(path))
        theirs = None if their_path is None else (yield from if_known(there.find(their_path)))
        if ours is None:
            continue
        if not ours.exists:
            yield Unavailable(Paths.probes[0], f"{path}: in use, but not found on the guest's own host")
            continue
        source = Place(ours, here_mounts.of(ours, path))
        target = None
        if their_path is not None and theirs is not None and theirs.exists:
            target = Place(theirs, there_mounts.of(theirs, their_path))
        try:
            actual = _not_shared(path, source, target, declared, addresses)
        except Unavailable as why:
            yield why
            actual = ""
        if actual:
            yield Finding(
                expected=f"{disk.target} on storage shared with the target",
                actual=actual,
                because="Migration without shared storage is unsafe",
                lifted_by=(COPY_STORAGE,) if copyable(disk) and both_local(source, target) else (),
                about=disk.target,
            )
        elif target is not None and target.mount is not None and target.mount.read_only:
            yield _read_only(their_path or path, target.mount)


def _read_only(path: str, mount: Mount) -> Finding:
    return Finding(
        expected=f"{path} writable on the target",
        actual=f"{mount.path} is mounted read-only there",
        because=f"Could not open '{path}': Read-only file system",
        remedy=f"On the target: mount -o remount,rw {shlex.quote(mount.path)}",
    )


def _not_shared(
    path: str, source: Place, target: Place | None, declared: SharedFilesystems, addresses: OwnAddresses
) -> str:
    """How the disk is known not to be shared; "" if it is. Raises `Unavailable` if neither is certain."""
    probe = Paths.probes[0]
    if source.state.kind == "block":
        if target is None:
            return ""  # the missing device is another check's
        return "" if _same_device(path, source.state, target.state) else f"{path} is another device on the target"
    if source.shared is None:
        if not declared.declare(path):
            return f"{path} {source.words}"
        if target is None or target.state.inode == source.state.inode:
            return ""
        raise Unavailable(probe, f"{path}: declared shared in qemu.conf, but it looks like another file on the target")
    if target is None:
        return ""
    same = same_file(source, target)
    if same is None and target.shared is None:
        if target.state.inode != source.state.inode:
            return f"{path} is another file on the target, {target.words}"
        nfs = source.mount.nfs if source.mount else None
        if nfs and nfs.address and addresses.interface_of(nfs.address) is not None:
            return ""  # the target is the NFS server itself
    if same is None:
        raise Unavailable(probe, f"{path}: not proved to be the same file on both hosts ({source.fs}, {target.fs})")
    return "" if same else f"{path} is another file on the target: {source.words} here, {target.words} there"


def _same_device(path: str, ours: PathState, theirs: PathState) -> bool:
    """Raises `Unavailable` where a device does not tell what it is."""
    if theirs.kind != ours.kind:
        return False
    if not ours.identity or not theirs.identity:
        raise Unavailable(
            Paths.probes[0], f"{path}: nothing tells whether this block device is the same one on both hosts"
        )
    return ours.identity == theirs.identity


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.SAFE,
    reference="libvirt 11.3 qemuMigrationSrcIsSafe",
    remedy="virsh edit GUEST: <driver cache='none'>, at the next start",
    covers=("failure 45",),
)
def cache_mode(
    disks: GuestDisks, libvirt: Source[Libvirt], paths: Source[Paths], mounts: Source[Mounts]
) -> Iterator[Finding]:
    """No disk is cached by the host in a way that the other host would not see.

    Since libvirt 5.7 QEMU drops its cache at the switchover; older ones refuse every mode but none and directsync.
    """
    if libvirt.daemon >= QEMU_FLUSHES:
        return
    for disk in _written(disks):
        if disk.type in {"network", "nvme"} or disk.shareable or disk.cache in {"none", "directsync"}:
            continue
        if disk.type == "file" and disk.source:
            state = paths.at(disk.source)
            if Place(state, mounts.of(state, disk.source)).cluster:
                continue
        yield Finding(
            expected="cache='none' or 'directsync'",
            actual=f"{disk.target}: {disk.cache or 'default'}, libvirt {libvirt.daemon}",
            because="Migration may lead to data corruption if disks use cache other than none or directsync",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 qemuDomainDetermineDiskChain",
    remedy="Copy the file to the same path on the target, or move the chain to shared storage",
    covers=("12.6/storage-shared", "failure 46"),
)
def backing_chain(state: GuestState, disks: GuestDisks, here: Source[Paths], there: Target[Paths]) -> Told:
    """Every image below a disk's top image exists on the target, with the same size.

    An overlay holds only what differs from the image below it. With another one below, its data is garbage.
    """
    if not state.active:
        raise NotApplicable("shut off: libvirt tells what lies below an image while the guest runs")
    for disk, path in _layers(disks):
        whole = (COPY_WHOLE,) if copyable(disk) else ()
        theirs = yield from if_known(there.find(path))
        if theirs is None:
            continue
        if not theirs.exists:
            because = f"Cannot access backing file '{path}' of {disk.target}"
            yield Finding(f"{path} on the target", "not there", because, lifted_by=whole, about=disk.target)
            continue
        ours = yield from if_known(here.find(path))
        try:
            differs = "" if ours is None else _another_layer(path, ours, theirs)
        except Unavailable as why:
            yield why
            continue
        if differs:
            yield Finding(
                expected=f"{path}: the same image on both hosts",
                actual=differs,
                because=f"the image below {disk.target} is another one there",
                lifted_by=whole,
                about=disk.target,
            )
    for disk in disks.disks:
        if disk.source is not None and not disk.backing_known and disk.type in {"file", "block", "volume"}:
            yield Unavailable(GuestDisks.probes[1], f"{disk.target}: the XML does not tell what lies below the image")


def _another_layer(path: str, ours: PathState, theirs: PathState) -> str:
    """How the target's image is seen to be another one; "" if it is not. Raises `Unavailable`."""
    if not ours.exists:
        raise Unavailable(Paths.probes[0], f"{path}: in use, but not found on the guest's own host")
    if "block" in {ours.kind, theirs.kind}:
        return "" if _same_device(path, ours, theirs) else "another device on the target"
    return "" if ours.size == theirs.size else f"{ours.size} bytes here, {theirs.size} on the target"


def _layers(disks: GuestDisks) -> Iterator[tuple[Disk, str]]:
    return ((disk, path) for disk in disks.disks for path in disk.backing)


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.5",
    remedy="Compare the copies: sha256sum on both hosts",
)
def backing_copies(
    disks: GuestDisks,
    here: Source[Paths],
    here_mounts: Source[Mounts],
    there: Target[Paths],
    there_mounts: Target[Mounts],
) -> Told:
    """The images below a disk's top image are the same files on the target, not copies.

    A copy works as long as it is equal byte for byte; libvirt does not look.
    """
    for disk, path in _layers(disks):
        ours = yield from if_known(here.find(path))
        theirs = yield from if_known(there.find(path))
        if not (ours and theirs and ours.exists and theirs.exists) or "block" in {ours.kind, theirs.kind}:
            continue
        if not same_file(Place(ours, here_mounts.of(ours, path)), Place(theirs, there_mounts.of(theirs, path))):
            yield Finding(
                expected=f"{path} on storage shared with the target", actual=f"below {disk.target}: perhaps a copy"
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 storage_driver.c",
    covers=("12.6/storage-shared", "failure 47"),
)
def pools(disks: GuestDisks, there: Target[Pools]) -> Iterator[Finding]:
    """The storage pools of the guest's volumes are active on the target.

    A disk of type `volume` names a pool and a volume; each host looks up itself where that is.
    """
    for name in dict.fromkeys(disk.pool for disk in disks.disks if disk.pool):
        pool = there.find(name)
        if pool is None:
            yield Finding(
                expected=f"a pool {name} on the target",
                actual="none",
                because=f"Storage pool not found: no storage pool with matching name '{name}'",
                remedy=f"virsh pool-dumpxml {shlex.quote(name)} > pool.xml; on the target: virsh pool-define pool.xml",
            )
        elif not pool.active:
            yield Finding(
                expected=f"the pool {name} active on the target",
                actual="inactive",
                because=f"storage pool '{name}' is not active",
                remedy=f"On the target: virsh pool-start {shlex.quote(name)}",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt formatsecret",
    remedy="virsh secret-dumpxml UUID > secret.xml; on the target: virsh secret-define secret.xml, secret-set-value",
    covers=("12.6/storage-ceph", "failure 49", "failure 71"),
)
def secrets(disks: GuestDisks, devices: GuestDevices, there: Target[Secrets]) -> Iterator[Finding]:
    """The secrets that open the guest's disks and TPM are known on the target.

    Ceph users, iSCSI passwords and encryption keys do not travel with the guest.
    """
    wanted = [name for disk in disks.disks for name in disk.secrets]
    wanted += [devices.tpm_secret] if devices.tpm_secret else []
    for name in dict.fromkeys(wanted):
        if not there.has(name):
            yield Finding(
                expected=f"the secret {name} on the target",
                actual="none",
                because=f"Secret not found: no secret with matching uuid '{name}'",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    plain_guest=True,
    remedy="Mount one NFS export at the same path on both hosts; or plan with --copy-storage-all",
    covers=("12.5/nfs-installed", "12.5/same-path"),
)
def plain_guest_shared(
    source: Source[Mounts],
    our_pools: Source[Pools],
    our_secrets: Source[Secrets],
    here: Source[Paths],
    target: Target[Mounts],
    their_pools: Target[Pools],
    their_secrets: Target[Secrets],
    there: Target[Paths],
) -> Iterator[Finding]:
    """The two hosts share storage that a guest could be on.

    A file system at the same path from the same server; or a pool of network storage of the same name, a secret for
    Ceph or iSCSI that both know, a LUN that both see. A guest elsewhere needs a copy of its disks at each move.
    """
    theirs = {mount.path: mount for mount in target.shared}
    if any(m.path in theirs and _same_storage(m, theirs[m.path]) for m in source.shared):
        return
    if our_pools.network & their_pools.network or our_secrets.storage & their_secrets.storage:
        return
    luns = dict(there.devices())
    if any(luns.get(path) == identity for path, identity in here.devices()):
        return
    yield Finding(
        expected="storage that both share",
        actual=f"{', '.join(map(_from, source.shared)) or 'no shared file system'} here, "
        f"{', '.join(map(_from, target.shared)) or 'none'} on the target",
    )


def _same_storage(here: Mount, there: Mount) -> bool:
    if here.nfs and there.nfs:
        return here.nfs.export == there.nfs.export and here.nfs.same_server(there.nfs)
    return here.type == there.type


def _from(mount: Mount) -> str:
    return f"{mount.path} from {mount.source}"
