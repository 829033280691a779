"""Disks, what lies at their paths, and where that is mounted: what the checks about images are tried on."""

from dataclasses import replace

from audit.facts.guest_devices import Disk
from audit.facts.paths import Paths, PathState
from audit.facts.pools import Pool, Pools
from audit.facts.storage import Mount, Mounts
from tests.asked import found as found

DISK = Disk("vda", "disk", "file", "/srv/a", (), True, "qcow2", "none", False, False, False, False, ())
VOLUME = replace(DISK, type="volume", source="fast/a")
FAST = Pools((Pool("fast", "netfs", True, "/srv"),))
NO_POOLS = Pools(())
NFS, XFS = 0x6969, 0x58465342
FILE = PathState(True, True, (), "file", 1024, "0:45", 99, NFS, 0, frozenset())
GONE = PathState(False, True, (), None, 0, None, 0, None, 0, frozenset())
LOCAL = replace(FILE, magic=XFS, device="254:1", inode=7)
BLOCK = replace(FILE, kind="block", identity=frozenset({"naa.1#0"}))


def paths(**states):
    known = {name if name.startswith("/") else "/srv/" + name: state for name, state in states.items()}
    return Paths(tuple(sorted(known)), tuple(known[name] for name in sorted(known)))


def nfs(path="/srv", server="nas", export="/vm", address="10.0.0.5", **options):
    words = {"vers": "4.2", "addr": address, **options}
    return Mount(
        path, "0:45", "/", "nfs4", f"{server}:{export}", False, frozenset(f"{k}={v}" for k, v in words.items())
    )


LOCAL_MOUNT = Mount("/srv", "254:1", "/", "xfs", "/dev/vdb", False, frozenset())
SHARED, UNSHARED = Mounts((nfs(),)), Mounts((LOCAL_MOUNT,))
