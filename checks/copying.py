"""May a guest's images be copied along with it (`virsh migrate --copy-storage-all`, RHEL 9 §12.1, §12.6)?

Judged for guests whose images lie on their own host only, and only for that way of migrating: it is told beside the
verdict of the usual one.
"""

import shlex
from collections.abc import Generator, Iterator
from typing import NamedTuple

from audit.check import (
    COPY_CHANGES,
    COPY_STORAGE,
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
)
from audit.convergence import size
from audit.facts.disk_sizes import FREE, SIZES, DiskSize, FreeSpace, GuestDiskSizes, copyable
from audit.facts.guest import GuestIdentity, GuestState
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.image_users import ImageUsers
from audit.facts.paths import Paths, PathState, folder_of
from audit.facts.pools import POOLS, Pools, disk_path
from audit.facts.storage import Mounts, Place
from audit.text import some_of
from checks._storage import both_local, copied_to

_FOLDER_POOLS = frozenset({"dir", "fs", "netfs"})


class _Copy(NamedTuple):
    """One image to be copied, and what is in its place on the target."""

    disk: Disk
    path: str
    there: PathState


def _copies(
    state: GuestState, disks: GuestDisks, here: Paths, mounts: Mounts, pools: Pools, their_pools: Pools, there: Paths
) -> Generator[Unavailable, None, list[_Copy]]:
    """`copies = yield from _copies(…)`: the images that --copy-storage-all would have to copy.

    Those of which that is not known are told. `NotApplicable` if there is none else.
    """
    if not state.active:
        raise NotApplicable("the guest does not run")
    found = []
    for disk in filter(copyable, disks.disks):
        try:
            own, path = disk_path(disk, pools), disk_path(disk, their_pools)
            if own is None or path is None or not copied_to(disk, path):
                continue
            ours, theirs = here.at(own), there.at(path)
            local = both_local(Place(ours, mounts.of(ours, own)), None)
        except Unavailable as why:
            yield why
            continue
        if ours.exists and (local or not theirs.exists):
            found.append(_Copy(disk, path, theirs))
    if not found:
        raise NotApplicable("the guest has no images on its own host alone")
    return found


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="RHEL 9 §12.6; libvirt 11.3 qemuMigrationDstPrecreateStorage",
    way=COPY_STORAGE,
    covers=("12.1/disks", "12.6/storage-copy", "failure 48", "failure 53"),
)
def place_ready(
    guest: GuestIdentity,
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
    users: Target[ImageUsers],
    sizes: GuestDiskSizes,
) -> Told:
    """Where an image is to be copied to, there is its folder, and nothing else in its place than an equal image.

    An image that is there already is written over from its beginning to its end; one of another size makes the copy
    fail, or belongs to somebody else.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    for disk, path, theirs in copies:
        if not theirs.exists:
            if not theirs.folder_exists:
                yield Finding(
                    expected=f"the folder of {path} on the target",
                    actual="not there",
                    remedy=f"On the target: mkdir -p {shlex.quote(path.rpartition('/')[0])}",
                )
        elif theirs.kind != "file":
            yield Finding(expected=f"nothing, or an image, at {path} on the target", actual=f"a {theirs.kind}")
        elif others := users.of(path, but=guest.uuid):
            yield Finding(f"nobody's image at {path} on the target", f"a disk of {some_of(others, 3)}", _LOCKED)
        else:
            yield from _same_size(disk, path, theirs, sizes)


_LOCKED = 'While that guest runs: Failed to get "write" lock. While not: its data would be overwritten'


def _same_size(disk: Disk, path: str, theirs: PathState, sizes: GuestDiskSizes) -> Told:
    """What is there can take the copy: an image of the same format and size."""
    qcow2 = disk.format == "qcow2"
    if disk.format != "raw" and (not qcow2 or theirs.image is None):
        yield Unavailable(SIZES, f"{path}: the size of the {disk.format} image that is there is not known")
        return
    if qcow2 and theirs.image is not None and theirs.image.format != "qcow2":
        yield Finding(f"a qcow2 image at {path} on the target", "none", "Image is not in qcow2 format")
        return
    found = theirs.image.capacity if qcow2 and theirs.image else theirs.size
    wanted = sizes.of(disk.target).capacity
    if found != wanted:
        yield Finding(
            expected=f"{path} of {wanted} bytes on the target",
            actual=f"{found} bytes",
            because="Source and target image have different sizes: it is another image, perhaps another guest's",
            remedy=f"On the target: {_making(disk, path, sizes.of(disk.target))}",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="RHEL 9 §12.6; libvirt 11.3 qemuMigrationDstPrecreateDisk",
    way=COPY_STORAGE,
    covers=("12.6/storage-copy", "failure 44"),
)
def image_made(
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
    sizes: GuestDiskSizes,
) -> Told:
    """The images that are copied to are there, or libvirt on the target makes them: their folder is a pool's.

    Without an active pool whose folder it is, nobody makes the image, and the migration fails: make it by hand, of the
    same format and size.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    for disk, path, theirs in copies:
        if theirs.exists or not theirs.folder_exists or _made_by_libvirt(disk, path, their_pools):
            continue
        if their_pools.unread:
            raise Unavailable(POOLS, their_pools.unread)
        yield Finding(
            expected=f"an active pool in {folder_of(path)} on the target, or an image at {path}",
            actual="neither",
            because=f"Storage pool not found: no storage pool with matching target path '{folder_of(path)}'",
            remedy=f"On the target: {_making(disk, path, sizes.of(disk.target))}",
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    way=COPY_STORAGE,
    covers=("12.6/storage-copy", "failure 44"),
)
def overwrites(
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
) -> Told:
    """There is nothing yet where images are copied to.

    An image that is there already is overwritten: somebody has to say that it may be.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    for _, path, theirs in copies:
        if theirs.exists:
            yield Finding(f"nothing at {path} on the target", "an image, which would be overwritten")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.PREPARE,
    reference="libvirt 9 qemuMigrationAnyCopyDisk: every disk that is neither read-only nor shareable",
    way=COPY_STORAGE,
    covers=("12.6/storage-copy",),
)
def only_own(
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
) -> Told:
    """Every disk that would be copied is the source's own: none is shared with the target.

    Without --migrate-disks libvirt copies every disk that the guest writes to, a shared one onto itself. QEMU's locks
    prevent the worst, where there are any.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    own = [copy.disk.target for copy in copies]
    others = [d.target for d in disks.disks if d.source and not (d.readonly or d.shareable or d.target in own)]
    if others:
        yield Finding(
            expected=f"{', '.join(own)} copied alone, by --migrate-disks {','.join(own)}",
            actual=f"{', '.join(others)} would be copied, too",
            because="block-export-add: Block node is read-only",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 qemuMigrationDstPrecreateStorage",
    way=COPY_CHANGES,
    covers=("12.6/storage-copy", "failure 48"),
)
def increment_placed(
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
) -> Told:
    """With --copy-storage-inc, the images whose changes are copied are on the target already.

    Only each disk's top image is copied; libvirt does not make one above the images below it.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    for disk, path, theirs in copies:
        if not theirs.exists:
            yield Finding(
                expected=f"{path} on the target, above the same images as here",
                actual="not there",
                because="pre-creation of storage target for incremental storage migration of disk "
                f"'{disk.target}' is not supported",
            )


def _made_by_libvirt(disk: Disk, path: str, pools: Pools) -> bool:
    """The target's libvirt makes the image, since a pool of it is known to be in charge of its place."""
    return disk.pool is not None or any(
        pool.active and pool.type in _FOLDER_POOLS and (pool.path or "").rstrip("/") == folder_of(path)
        for pool in pools.pools
    )


def _making(disk: Disk, path: str, of: DiskSize) -> str:
    """What makes an image that takes up its room only when it is written to."""
    format_ = shlex.quote(disk.format or "raw")
    if disk.pool is None:
        return f"qemu-img create -f {format_} {shlex.quote(path)} {of.capacity}"
    name = shlex.quote(path.rpartition("/")[2])
    return f"virsh vol-create-as {shlex.quote(disk.pool)} {name} {of.capacity} --allocation 0 --format {format_}"


class _Need(NamedTuple):
    """What the images that are to be made on one file system of the target need, in bytes."""

    mount: str
    free: int
    allocated: int
    capacity: int
    at_once: int
    """What libvirt allocates before anything is copied: the images that it makes."""
    whole: tuple[str, ...]
    """What would make those by hand that libvirt would make at their full size."""


def _needs(copies: list[_Copy], sizes: GuestDiskSizes, free: FreeSpace, pools: Pools) -> Iterator[_Need]:
    needs: dict[str, _Need] = {}
    for disk, path, theirs in copies:
        folder = folder_of(path)
        if folder is None:
            raise Unavailable(FREE, "a path that cannot be asked about")
        if theirs.exists or not theirs.folder_exists:
            continue  # it takes up its room already, or there is no folder to look into
        place, disk_size = free.of(folder), sizes.of(disk.target)
        so_far = needs.get(place.mount, _Need(place.mount, place.free_kib * 1024, 0, 0, 0, ()))
        whole = (_making(disk, path, disk_size),) if _made_by_libvirt(disk, path, pools) else ()
        needs[place.mount] = so_far._replace(
            allocated=so_far.allocated + disk_size.allocation,
            capacity=so_far.capacity + disk_size.capacity,
            at_once=so_far.at_once + (disk_size.capacity if whole else 0),
            whole=so_far.whole + whole,
        )
    yield from needs.values()


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    way=COPY_STORAGE,
    covers=("12.6/storage-copy", "failure 59"),
)
def room(
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
    sizes: GuestDiskSizes,
    free: Target[FreeSpace],
) -> Told:
    """The target has room for what the images that would be copied take up here.

    Images that libvirt makes in its pools take up their full size at once. Several guests that are moved there need
    their sum. An overlay is copied with what lies below it, and needs more.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    for need in _needs(copies, sizes, free, their_pools):
        wanted = max(need.allocated, need.at_once)
        if wanted > need.free:
            yield Finding(
                expected=f"{size(wanted)} free in {need.mount} on the target",
                actual=size(need.free),
                because="libvirt makes images in its pools at their full size: No space left on device"
                if need.allocated <= need.free
                else "",
                remedy=f"On the target: {'; '.join(need.whole)}" if need.allocated <= need.free else "",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6; libvirt 9 createRawFile, storageBackendCreateQemuImgOpts",
    way=COPY_STORAGE,
    covers=("12.6/storage-copy", "failure 59"),
)
def room_to_grow(
    state: GuestState,
    disks: GuestDisks,
    here: Source[Paths],
    mounts: Source[Mounts],
    pools: Source[Pools],
    their_pools: Target[Pools],
    there: Target[Paths],
    sizes: GuestDiskSizes,
    free: Target[FreeSpace],
) -> Told:
    """The target has room for the images that would be copied at the size that the guest sees.

    A thin image can grow that large, and a copy may not be as thin as the image was. Then the disk is full, and the
    guest stops.
    """
    copies = yield from _copies(state, disks, here, mounts, pools, their_pools, there)
    for need in _needs(copies, sizes, free, their_pools):
        if max(need.allocated, need.at_once) <= need.free < need.capacity:
            yield Finding(expected=f"{size(need.capacity)} free in {need.mount} on the target", actual=size(need.free))
