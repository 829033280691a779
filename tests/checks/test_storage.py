"""Storage checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import replace

import pytest

from audit.check import NotApplicable, Unavailable
from audit.facts.guest import GuestIdentity, GuestState
from audit.facts.guest_devices import GuestDevices, GuestDisks
from audit.facts.names import OwnAddresses
from audit.facts.network import Address
from audit.facts.pools import Pool, Pools, Secrets
from audit.facts.storage import Mounts, SharedFilesystems
from audit.facts.versions import Libvirt, Version
from checks import storage as checks
from tests.disks import (
    BLOCK,
    DISK,
    FAST,
    FILE,
    GONE,
    LOCAL,
    NO_POOLS,
    SHARED,
    UNSHARED,
    VOLUME,
    found,
    nfs,
    paths,
)

CDROM = replace(DISK, target="sda", device="cdrom", source="/iso/cd.iso", readonly=True)
WEB = GuestIdentity("web", "11111111-2222-4333-8444-555555555555", None)
RUNS = GuestState("running", True, True)
NOT_DECLARED = SharedFilesystems(())
NOWHERE = OwnAddresses((Address("br0", "10.0.0.12", 24),))


def shared(
    here,
    there,
    *,
    disk=DISK,
    ours=SHARED,
    theirs=SHARED,
    declared=NOT_DECLARED,
    addresses=NOWHERE,
    pools=(NO_POOLS, NO_POOLS),
):
    (near, far), disks = pools, GuestDisks((disk,))
    return found(checks.disks_shared, disks, near, here, ours, declared, far, there, theirs, addresses)


def test_reachable():
    assert not found(checks.disks_reachable, GuestDisks((DISK,)), WEB, NO_POOLS, paths(a=FILE))
    [finding] = found(checks.disks_reachable, GuestDisks((DISK,)), WEB, NO_POOLS, paths(a=GONE))
    assert finding.because.startswith("Cannot access storage file '/srv/a': No such file or directory")
    with pytest.raises(Unavailable):
        found(checks.disks_reachable, GuestDisks((DISK,)), WEB, NO_POOLS, paths())


def test_a_local_iso_is_named_with_its_remedy():
    there = paths(**{"/iso/cd.iso": GONE})
    [finding] = found(checks.disks_reachable, GuestDisks((CDROM,)), WEB, NO_POOLS, there)
    assert finding.remedy == "virsh change-media web sda --eject"
    dropped = replace(CDROM, startup_policy="optional")
    assert not found(checks.disks_reachable, GuestDisks((dropped, replace(CDROM, source=None))), WEB, NO_POOLS, there)


def test_a_missing_disk_comes_before_an_unknown_one():
    disks = GuestDisks((replace(DISK, source="/srv/unknown"), DISK))
    [finding] = found(checks.disks_reachable, disks, WEB, NO_POOLS, paths(a=GONE))
    assert "/srv/a" in finding.expected


def test_volumes_are_looked_up_in_each_host_s_own_pool():
    disk = replace(DISK, type="volume", source="fast/v1")
    there = Pools((Pool("fast", "dir", True, "/other"),))
    assert found(checks.disks_reachable, GuestDisks((disk,)), WEB, there, paths(**{"/other/v1": GONE}))
    assert not found(checks.disks_reachable, GuestDisks((disk,)), WEB, NO_POOLS, paths()), "the pool is another check's"


def test_volumes_must_be_shared_too():
    assert not shared(paths(a=FILE), paths(a=FILE), disk=VOLUME, pools=(FAST, FAST))
    local = {"ours": UNSHARED, "theirs": UNSHARED}
    assert shared(paths(a=LOCAL), paths(a=LOCAL), disk=VOLUME, pools=(FAST, FAST), **local)
    assert shared(paths(a=LOCAL), paths(), disk=VOLUME, pools=(FAST, NO_POOLS), **local), "whatever the target has"
    rbd = Pools((Pool("fast", "rbd", True, None),))
    assert not shared(paths(), paths(), disk=VOLUME, pools=(rbd, rbd))
    unread, luns = Pools((), "no storage driver"), Pools((Pool("fast", "iscsi", True, "/dev/disk/by-path"),))
    for near, far in ((unread, FAST), (FAST, unread), (NO_POOLS, FAST), (luns, luns)):
        with pytest.raises(Unavailable):
            shared(paths(a=FILE), paths(a=FILE), disk=VOLUME, pools=(near, far))


def test_a_read_only_mount_on_the_target():
    read_only = Mounts((replace(nfs(), read_only=True),))
    [finding] = shared(paths(a=FILE), paths(a=FILE), theirs=read_only)
    assert finding.remedy == "On the target: mount -o remount,rw /srv"
    assert "Read-only file system" in finding.because
    assert not shared(paths(a=FILE), paths(a=FILE), disk=replace(DISK, readonly=True), theirs=read_only)


def test_the_same_number_in_another_export_is_no_proof():
    for theirs in (nfs(export="/other"), nfs(server="nas2", address="10.0.0.6", export="/other")):
        with pytest.raises(Unavailable):
            shared(paths(a=FILE), paths(a=FILE), theirs=Mounts((theirs,)))


def test_shared_by_nfs():
    assert not shared(paths(a=FILE), paths(a=FILE))
    assert not shared(paths(a=FILE), paths(a=GONE)), "what is missing is another check's"


def test_local_disks_do_not_go():
    [finding] = shared(paths(a=LOCAL), paths(a=LOCAL), ours=UNSHARED, theirs=UNSHARED)
    assert finding.because == "Migration without shared storage is unsafe"
    assert "xfs" in finding.actual
    with pytest.raises(Unavailable):
        shared(paths(a=GONE), paths(a=FILE))


def test_a_file_of_the_same_path_on_another_file_system_is_another_file():
    [finding] = shared(paths(a=FILE), paths(a=LOCAL), theirs=UNSHARED)
    assert "another file on the target" in finding.actual
    [finding] = shared(paths(a=FILE), paths(a=replace(FILE, inode=7)), theirs=Mounts((nfs(export="/other"),)))
    assert "nas:/other" in finding.actual


def test_the_nfs_server_itself_as_a_target():
    same = replace(LOCAL, inode=FILE.inode)
    server = OwnAddresses((Address("eno1", "10.0.0.5", 24),))
    assert not shared(paths(a=FILE), paths(a=same), theirs=UNSHARED, addresses=server)
    with pytest.raises(Unavailable):
        shared(paths(a=FILE), paths(a=same), theirs=UNSHARED)


def test_what_libvirt_s_configuration_declares_shared():
    lustre = replace(FILE, magic=0x0BD00BD0)
    declared = SharedFilesystems(("/srv",))
    assert not shared(paths(a=lustre), paths(a=lustre), declared=declared)
    with pytest.raises(Unavailable):
        shared(paths(a=lustre), paths(a=replace(lustre, inode=1)), declared=declared)
    with pytest.raises(Unavailable):
        shared(paths(a=lustre), paths(a=lustre), declared=SharedFilesystems((), "permission denied"))


@pytest.mark.parametrize(
    ("theirs", "outcome"),
    [
        (BLOCK, "same"),
        (replace(BLOCK, identity=frozenset({"naa.2#0"})), "other"),
        (replace(BLOCK, identity=frozenset()), "unknown"),
        (GONE, "same"),
        (FILE, "other"),
    ],
)
def test_block_devices(theirs, outcome):
    disk = replace(DISK, type="block")
    try:
        findings = shared(paths(a=BLOCK), paths(a=theirs), disk=disk)
    except Unavailable:
        assert outcome == "unknown"
    else:
        assert bool(findings) is (outcome == "other")


@pytest.mark.parametrize(
    "disk",
    [CDROM, replace(DISK, source=None), replace(DISK, type="network", source="rbd:a/b"), replace(DISK, type="dir")],
)
def test_disks_that_need_not_be_shared(disk):
    assert not shared(paths(), paths(), disk=disk)


def test_cache_mode_of_old_libvirt():
    old, new = (Libvirt(v, v) for v in (Version(5, 6, 0), Version(9, 0, 0)))
    cached = GuestDisks((replace(DISK, cache="writeback"),))
    assert found(checks.cache_mode, cached, old, paths(a=FILE), SHARED)
    assert not found(checks.cache_mode, cached, new, paths(), SHARED)
    assert not found(checks.cache_mode, GuestDisks((DISK,)), old, paths(), SHARED)
    gfs = replace(FILE, magic=0x01161970)
    assert not found(checks.cache_mode, cached, old, paths(a=gfs), UNSHARED)
    with pytest.raises(Unavailable):
        found(checks.cache_mode, cached, old, paths(), SHARED)


OVERLAY = GuestDisks((replace(DISK, backing=("/srv/base",)),))


def test_backing_chain():
    with pytest.raises(NotApplicable):
        found(checks.backing_chain, replace(RUNS, active=False), OVERLAY, paths(), paths())
    assert not found(checks.backing_chain, RUNS, OVERLAY, paths(base=FILE), paths(base=FILE))
    assert found(checks.backing_chain, RUNS, OVERLAY, paths(base=FILE), paths(base=GONE))
    assert found(checks.backing_chain, RUNS, OVERLAY, paths(base=FILE), paths(base=replace(FILE, size=5)))
    with pytest.raises(Unavailable):
        found(checks.backing_chain, RUNS, GuestDisks((replace(DISK, backing_known=False),)), paths(), paths())


def test_block_devices_below_an_image():
    chain = (checks.backing_chain, RUNS, OVERLAY, paths(base=BLOCK))
    assert not found(*chain, paths(base=BLOCK))
    [finding] = found(*chain, paths(base=replace(BLOCK, identity=frozenset({"naa.2#0"}))))
    assert finding.actual == "another device on the target"
    for here, there in ((BLOCK, replace(BLOCK, identity=frozenset())), (GONE, FILE)):
        with pytest.raises(Unavailable):
            found(checks.backing_chain, RUNS, OVERLAY, paths(base=here), paths(base=there))
    assert not found(checks.backing_copies, OVERLAY, paths(base=BLOCK), SHARED, paths(base=BLOCK), SHARED)


def test_backing_copies():
    copies = (OVERLAY, paths(base=LOCAL), UNSHARED, paths(base=LOCAL), UNSHARED)
    assert found(checks.backing_copies, *copies)
    assert not found(checks.backing_copies, OVERLAY, paths(base=FILE), SHARED, paths(base=FILE), SHARED)
    with pytest.raises(Unavailable):
        found(checks.backing_copies, OVERLAY, paths(base=FILE), SHARED, paths(), SHARED)
    two = GuestDisks((replace(DISK, backing=("/srv/unknown", "/srv/base")),))
    assert next(checks.backing_copies.function(two, *copies[1:])), "what is certain comes before what is unknown"


def serial(*serial_paths, tpm_secret=None):
    return GuestDevices((), (), (), None, tpm_secret, False, False, None, (), serial_paths, False, False)


def test_pools_and_secrets():
    volume = GuestDisks((replace(DISK, type="volume", source="fast/v1", secrets=("s1",)),))
    assert found(checks.pools, volume, NO_POOLS)
    assert found(checks.pools, volume, Pools((Pool("fast", "dir", False, "/x"),)))
    assert not found(checks.pools, volume, Pools((Pool("fast", "dir", True, "/x"),)))
    assert not found(checks.pools, GuestDisks((DISK,)), Pools((), "no storage driver"))
    with pytest.raises(Unavailable, match="no storage driver"):
        found(checks.pools, volume, Pools((), "no storage driver"))
    assert found(checks.secrets, volume, serial(), Secrets(frozenset()))
    assert not found(checks.secrets, volume, serial(tpm_secret="t"), Secrets(frozenset({"s1", "t"})))
    assert not found(checks.secrets, GuestDisks((DISK,)), serial(), Secrets(frozenset(), "not collected"))
    with pytest.raises(Unavailable, match="not collected"):
        found(checks.secrets, volume, serial(), Secrets(frozenset(), "not collected"))


def test_plain_guests_need_shared_storage():
    nothing = (NO_POOLS, Secrets(frozenset()), paths())

    def judged(ours, theirs, own=nothing, other=nothing):
        return found(checks.plain_guest_shared, ours, *own, theirs, *other)

    assert not judged(SHARED, SHARED)
    assert not judged(SHARED, Mounts((replace(nfs(), type="nfs"),)))
    [finding] = judged(SHARED, Mounts((nfs(server="nas2", address="10.0.0.6"),)))
    assert finding.actual == "/srv from nas:/vm here, /srv from nas2:/vm on the target"
    backup = nfs("/backup", export="/backup/kvm01")
    assert not judged(Mounts((backup, nfs())), Mounts((replace(backup, source="nas:/backup/kvm02"), nfs())))
    [finding] = judged(SHARED, UNSHARED)
    assert finding.actual == "/srv from nas:/vm here, none on the target"
    rbd = (Pools((Pool("vms", "rbd", True, None),)), *nothing[1:])
    assert not judged(UNSHARED, UNSHARED, rbd, rbd), "Ceph"
    assert judged(UNSHARED, UNSHARED, rbd, (Pools((Pool("vms", "rbd", False, None),)), *nothing[1:]))
    local = (Pools((Pool("vms", "dir", True, "/srv"),)), *nothing[1:])
    assert judged(UNSHARED, UNSHARED, local, local), "a folder of each host's own"
    cephx = (NO_POOLS, Secrets(frozenset({"u"}), storage=frozenset({"u"})), paths())
    assert not judged(UNSHARED, UNSHARED, cephx, cephx), "Ceph without pools of libvirt's"
    assert judged(UNSHARED, UNSHARED, cephx, (NO_POOLS, Secrets(frozenset({"u"})), paths()))
    san = (*nothing[:2], paths(**{"/dev/mapper/a": BLOCK}))
    assert not judged(UNSHARED, UNSHARED, san, san), "LUNs"
    other = (*nothing[:2], paths(**{"/dev/mapper/a": replace(BLOCK, identity=frozenset({"naa.2#0"}))}))
    assert judged(UNSHARED, UNSHARED, san, other)
