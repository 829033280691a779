"""NFS: locking, exports, and whether two hosts mean the same server."""

from collections.abc import Iterator

from audit.check import Finding, Severity, Source, Stage, Target, check
from audit.facts.guest_devices import GuestDisks
from audit.facts.nfs import Exports
from audit.facts.paths import Paths
from audit.facts.pools import Pools, disk_path
from audit.facts.storage import Mounts, Place, same_file


@check(
    severity=Severity.LOW,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.5",
    remedy="mount -o nolock (NFS 3 only), or keep QEMU's own image locks: do not run one image twice",
    covers=("12.5/locking", "failure 52"),
)
def locking(mounts: Mounts) -> Iterator[Finding]:
    """NFS file locking is not used.

    The procedure asks for it, because libvirt's lock managers are not supported on NFS. QEMU's image locks
    are let go by the source and taken by the target, so migration works with them; NFS 4 cannot be without locks.
    """
    for mount in mounts.mounts:
        nfs = mount.nfs
        if nfs and nfs.locks != "local":
            yield Finding(
                expected="an NFS mount without file locking",
                actual=f"{mount.path}: NFS {nfs.version or 'of unknown version'}, "
                + ("locks kept by the server" if nfs.locks == "server" else "locking unknown"),
            )


@check(
    severity=Severity.HIGH,
    stage=Stage.TRANSFER,
    reference="nfs(5) local_lock; RHEL 9 §12.5",
    remedy="Mount it with the same options on both hosts",
    covers=("12.5/locking", "12.5/options", "failure 52"),
)
def locking_same(source: Source[Mounts], target: Target[Mounts]) -> Iterator[Finding]:
    """Both hosts keep the locks of a common NFS mount in the same place.

    Where one host locks locally and the other on the server, neither sees that the other has an image open.
    """
    theirs = {mount.path: mount.nfs for mount in target.mounts}
    for mount in source.mounts:
        here, there = mount.nfs, theirs.get(mount.path)
        if here and there and here.export == there.export and {here.locks, there.locks} == {"server", "local"}:
            yield Finding(
                expected=f"{mount.path}: the same kind of locking",
                actual=f"{here.locks} here, {there.locks} on the target",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    plain_guest=True,
    remedy="Mount the same export at this path on both hosts",
    covers=("12.5/same-path", "12.6/storage-shared"),
)
def same_export(source: Source[Mounts], target: Target[Mounts]) -> Iterator[Finding]:
    """What is mounted by NFS at the same path comes from the same export.

    Two exports at one path look alike and hold different images.
    """
    theirs = {mount.path: mount.nfs for mount in target.mounts}
    for mount in source.mounts:
        here, there = mount.nfs, theirs.get(mount.path)
        if here is None or there is None:
            continue
        if here.export != there.export or not here.same_server(there):
            yield Finding(
                expected=f"{mount.path}: {here.server}:{here.export} on both",
                actual=f"{there.server}:{there.export} on the target",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    remedy="Make sure that it is one server: touch a file from one host and look from the other; or mount it alike",
    covers=("12.5/same-path",),
)
def same_server(
    disks: GuestDisks,
    pools: Source[Pools],
    here: Source[Paths],
    here_mounts: Source[Mounts],
    their_pools: Target[Pools],
    there: Target[Paths],
    there_mounts: Target[Mounts],
) -> Iterator[Finding]:
    """Both hosts reach the guest's images at the same NFS server's name or address.

    A server may have several addresses. A replica has the same exports, and the same files in them, too.
    """
    paths = [(disk_path(disk, pools), disk_path(disk, their_pools)) for disk in disks.disks if not disk.readonly]
    paths += [(path, path) for disk in disks.disks for path in disk.backing]
    for path, their_path in paths:
        ours = here.at(path) if path else None
        mount = here_mounts.of(ours, path) if path and ours and ours.exists else None
        if not path or not their_path or ours is None or mount is None or mount.nfs is None:
            continue
        theirs = there.at(their_path)
        other = there_mounts.of(theirs, their_path) if theirs.exists else None
        if other is None or other.nfs is None or mount.nfs.same_server(other.nfs):
            continue
        if same_file(Place(ours, mount), Place(theirs, other)):
            yield Finding(
                expected=f"{path} from {mount.nfs.server} on both hosts",
                actual=f"from {other.nfs.server} on the target",
                because="the same export, file number and size: one server of several addresses, or a replica",
            )


@check(
    severity=Severity.INFO,
    stage=Stage.START,
    reference="RHEL 9 §12.5",
    remedy="In /etc/exports: (rw,no_root_squash), then: exportfs -ra",
    covers=("12.5/root-squash", "failure 51"),
)
def exports_without_root_squash(exports: Exports) -> Iterator[Finding]:
    """What the host exports by NFS lets root be root.

    libvirt before 10.4 gives images to QEMU's user as root, which a squashing server refuses. Of interest for
    exports that hold images only.
    """
    for path in sorted(exports.squashed):
        yield Finding(expected=f"{path}: no_root_squash", actual="root_squash")
