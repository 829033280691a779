"""What the checks about disks share."""

from collections.abc import Generator

from audit.check import Unavailable
from audit.facts.disk_sizes import copyable
from audit.facts.guest_devices import Disk
from audit.facts.pools import Pools, disk_path
from audit.facts.storage import Place


def both_local(source: Place, target: Place | None) -> bool:
    """The image is a file on the guest's own host alone, and at most another such file lies in its place on the target.

    Only then can it be copied there: on shared storage the copy might go onto the image itself.
    """
    return all(place.state.kind == "file" and place.local for place in (source, target) if place)


def copied_to(disk: Disk, path: str) -> bool:
    """The disk can be copied to a file of that path on the target. Volumes of LVM and ZFS pools are devices."""
    return copyable(disk) and not path.startswith("/dev/")


def path_of(disk: Disk, pools: Pools, *, own: bool = False) -> Generator[Unavailable, None, str | None]:
    """`path = yield from path_of(…)`: the disk's path on the host whose pools these are.

    None where it has none, or it is not known; then the check has told why. A pool that is missing is known to be
    missing on the target; on the guest's own host it must be somewhere.
    """
    try:
        path = disk_path(disk, pools)
        lost = own and disk.pool is not None and pools.find(disk.pool) is None
    except Unavailable as why:
        yield why
        return None
    if lost:
        yield Unavailable(Pools.probes[0], f"{disk.target}: no pool {disk.pool} on the guest's own host")
    return path
