"""What the checks about disks share: telling what is certain before what is not known."""

from audit.check import Unavailable
from audit.facts.guest_devices import Disk
from audit.facts.paths import PathState
from audit.facts.pools import Pools, disk_path
from audit.facts.storage import Place


def both_local(source: Place, target: Place | None) -> bool:
    """The image is a file on the guest's own host alone, and at most another such file lies in its place on the target.

    Only then can it be copied there: on shared storage the copy might go onto the image itself.
    """
    return all(
        place.state.kind == "file" and place.shared is None and not place.fuse for place in (source, target) if place
    )


class Unknown(list[Unavailable]):
    """Collects what is not known, so that what is certain is told first."""

    def path(self, disk: Disk, pools: Pools, *, own: bool = False) -> str | None:
        """The disk's path on the host whose pools these are; None where it has none, or it is not known.

        A pool that is missing is known to be missing on the target; on the guest's own host it must be somewhere.
        """
        try:
            path = disk_path(disk, pools)
            lost = own and disk.pool is not None and pools.find(disk.pool) is None
        except Unavailable as why:
            self.append(why)
            return None
        if lost:
            self.append(Unavailable(Pools.probes[0], f"{disk.target}: no pool {disk.pool} on the guest's own host"))
        return path

    def known(self, state: PathState | Unavailable) -> PathState | None:
        """The state, or None after having noted why there is none."""
        if isinstance(state, Unavailable):
            self.append(state)
            return None
        return state

    def end(self) -> None:
        """Raise the first that was noted."""
        for reason in self:
            raise reason
