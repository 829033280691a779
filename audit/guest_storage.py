"""Where a guest's disks lie: what a live migration of it rests on (RHEL 9 §12.1, note 1)."""

from typing import Literal

from audit.facts.base import Facts, Guest, GuestFact, HostFact, Unavailable
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.paths import Paths
from audit.facts.pools import Pools, disk_path
from audit.facts.storage import Mounts, Place, SharedFilesystems
from audit.results import DiskResult
from audit.text import visible

Kind = Literal["shared", "block", "network", "local", "host", "unknown"]
FACTS: tuple[type[HostFact] | type[GuestFact], ...] = (GuestDisks, Pools, Paths, Mounts, SharedFilesystems)


def disk_results(facts: Facts, guest: Guest) -> list[DiskResult]:
    """The guest's disks that hold something. Raises `Unavailable` if they cannot be listed."""
    return [_disk(facts, guest, disk) for disk in facts.told_of_guest(guest, GuestDisks).disks if disk.source]


def _disk(facts: Facts, guest: Guest, disk: Disk) -> DiskResult:
    kind: Kind
    try:
        kind, words = _where(facts, guest.host, disk)
    except Unavailable as why:
        kind, words = "unknown", why.reason
    return DiskResult(target=visible(disk.target, 40), kind=kind, where=visible(words, 120))


def _where(facts: Facts, host: str, disk: Disk) -> tuple[Kind, str]:
    path = disk_path(disk, facts.told(host, Pools))
    if path is None:  # no path in the host's file system: QEMU speaks to the storage itself
        protocol, _, name = (disk.source or "").partition(":")
        if disk.type != "network":
            return "host", disk.type
        return "network", f"Ceph {name}" if protocol == "rbd" else f"{protocol} {name}"
    state = facts.told(host, Paths).at(path)
    if state.kind == "block":
        names = sorted(state.identity, key=lambda name: (not name.startswith("naa."), name))  # the WWN first
        return "block", " ".join([path, *(name.partition("#")[0] for name in names[:1])])
    place = Place(state, facts.told(host, Mounts).of(state, path))
    if place.shared is None and not facts.told(host, SharedFilesystems).declare(path):
        return "local", place.fs
    return "shared", f"{place.fs} {place.mount.source}" if place.mount else place.fs
