"""NFS checks, on plain values."""

from dataclasses import replace

import pytest

from audit.check import Blocks, Unavailable
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.nfs import Exports
from audit.facts.paths import Paths, PathState
from audit.facts.pools import Pools
from audit.facts.storage import Mount, Mounts
from checks import nfs as checks

FILE = PathState(True, True, (), "file", 1024, "0:45", 99, 0x6969, 0, frozenset())
DISK = Disk("vda", "disk", "file", "/srv/a", (), True, "qcow2", "none", False, False, False, False, ())
NO_POOLS = Pools(())


def found(check, *facts):
    return list(check.function(*facts))


def nfs(path="/srv", server="nas", export="/vm", address="10.0.0.5"):
    options = frozenset({"vers=4.2", f"addr={address}"})
    return Mount(path, "0:45", "/", "nfs4", f"{server}:{export}", False, options)


LOCAL_MOUNT = Mount("/srv", "254:1", "/", "xfs", "/dev/vdb", False, frozenset())
SHARED = Mounts((nfs(),))


def test_nfs():
    local = Mount("/srv", "0:45", "/", "nfs", "nas:/vm", False, frozenset({"vers=3", "nolock", "local_lock=all"}))
    assert found(checks.locking, SHARED)
    assert not found(checks.locking, Mounts((local, LOCAL_MOUNT)))
    assert found(checks.locking_same, SHARED, Mounts((local,)))
    assert not found(checks.locking_same, SHARED, SHARED)
    assert not found(checks.same_export, SHARED, Mounts((nfs(server="nas.example"),)))
    assert found(checks.same_export, SHARED, Mounts((nfs(server="nas2", address="10.0.0.6"),)))
    assert found(checks.same_export, SHARED, Mounts((nfs(export="/other"),)))
    assert not found(checks.same_export, SHARED, Mounts((nfs(path="/other"), LOCAL_MOUNT)))


def served(theirs, *, there=FILE, disk=DISK):
    names = ("/srv/a", "/srv/base")
    here, other = (Paths(names, (state, state)) for state in (FILE, there))
    return found(checks.same_server, GuestDisks((disk,)), NO_POOLS, here, SHARED, NO_POOLS, other, theirs)


def test_one_server_by_two_addresses_is_for_somebody_to_look_at():
    elsewhere = Mounts((nfs(server="nas2", address="10.0.0.6"),))
    [finding] = served(elsewhere)
    assert (finding.expected, finding.actual) == ("/srv/a from nas on both hosts", "from nas2 on the target")
    assert len(served(elsewhere, disk=replace(DISK, backing=("/srv/base",)))) == 2
    assert checks.same_server.blocks is Blocks.NOTHING
    assert not served(SHARED)
    assert not served(Mounts((nfs(server="nas.example"),)))
    assert not served(elsewhere, there=replace(FILE, inode=7)), "another file: storage.disks_shared"
    assert not served(Mounts((LOCAL_MOUNT,)), there=replace(FILE, device="254:1"))
    assert not served(elsewhere, disk=replace(DISK, source="/nowhere", readonly=True))
    with pytest.raises(Unavailable, match="not asked about /nowhere"):
        served(elsewhere, disk=replace(DISK, source="/nowhere"))


def test_exports():
    assert found(checks.exports_without_root_squash, Exports(frozenset({"/a"}), frozenset({"/a"})))
    assert not found(checks.exports_without_root_squash, Exports(frozenset({"/a"}), frozenset()))
