"""What has to be done by hand for a guest that is shut off: an offline migration moves its definition, nothing else."""

import shlex

from audit.check import Finding, NotApplicable, Severity, Source, Stage, Target, Told, check, if_known
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.paths import Paths, PathState
from audit.facts.pools import Pools
from audit.facts.reach import Peer
from checks._storage import path_of


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/offline-copy",),
)
def images_there(
    state: GuestState,
    disks: GuestDisks,
    pools: Source[Pools],
    here: Source[Paths],
    their_pools: Target[Pools],
    there: Target[Paths],
    peer: Target[Peer],
) -> Told:
    """The images of a guest that is shut off are on the target already.

    Its definition can move without them, but there it does not start before. Images below an overlay have to be copied
    too; libvirt does not tell them of a guest that is shut off: qemu-img info --backing-chain does.
    """
    if state.active:
        raise NotApplicable("the guest runs")
    asked = [disk for disk in disks.disks if disk.source and disk.startup_policy == "mandatory" and disk.type != "dir"]
    if not any(disk.local or disk.pool for disk in asked):
        raise NotApplicable("the guest has no images in files or devices")
    for disk in asked:
        path = yield from path_of(disk, pools, own=True)
        their_path = yield from path_of(disk, their_pools)
        theirs = None if their_path is None else (yield from if_known(there.find(their_path)))
        ours = None if path is None else (yield from if_known(here.find(path)))
        if disk.pool and their_path is None and their_pools.find(disk.pool) is None:
            yield Finding(f"the pool {disk.pool} on the target ({disk.target})", "not there")
        if path is None or ours is None or their_path is None or theirs is None:
            continue
        actual = _unlike(ours, theirs) if theirs.exists else "not there"
        if actual:
            yield Finding(
                expected=f"{their_path} on the target ({disk.target})",
                actual=actual,
                because="Only the definition is moved, which the guest cannot start with alone.",
                remedy="" if theirs.exists else _copy(path, their_path, ours, theirs, peer),
            )


def _unlike(ours: PathState, theirs: PathState) -> str:
    """How what lies there is seen to be something else; "" if it is not: a copy of the same size is as good."""
    if ours.kind != theirs.kind:
        return f"a {theirs.kind}" if ours.exists else ""
    if ours.kind == "file":
        return "" if ours.size == theirs.size else f"{theirs.size} bytes; here {ours.size}"
    return "another device" if ours.identity and theirs.identity and ours.identity != theirs.identity else ""


def _copy(path: str, their_path: str, ours: PathState, theirs: PathState, peer: Peer) -> str:
    """How the image comes to the target; a device cannot be copied to where there is none."""
    if ours.kind != "file":
        return "Present the LUN to the target: zoning, multipath, rescan-scsi-bus.sh" if ours.kind == "block" else ""
    host = f"[{peer.name}]" if ":" in peer.name else peer.name
    make = f"On the target: mkdir -p {shlex.quote(their_path.rpartition('/')[0])}; then here: "
    command = f"scp -p {shlex.quote(path)} {shlex.quote(f'root@{host}:{their_path}')}"
    return command if theirs.folder_exists else make + command
