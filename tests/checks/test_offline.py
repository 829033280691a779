"""What has to be done by hand for a guest that is shut off."""

from dataclasses import replace

import pytest

from audit.check import NotApplicable, Severity, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.pools import Pools
from audit.facts.reach import Peer
from checks import offline
from tests.disks import BLOCK, DISK, FAST, FILE, GONE, LOCAL, NO_POOLS, VOLUME, found, paths

OFF, RUNS = GuestState("shut off", False, True), GuestState("running", True, True)
NFS_DISK = replace(DISK, type="network", source="rbd:vm/a")


def images(here, there, *disks, their_pools=NO_POOLS, state=OFF, peer="kvm02"):
    facts = (FAST, here, their_pools, there, Peer(peer, False))
    return found(offline.images_there, state, GuestDisks(disks or (DISK,)), *facts)


def test_there_already():
    assert images(paths(a=FILE), paths(a=FILE)) == []
    assert images(paths(a=LOCAL), paths(a=replace(LOCAL, inode=8))) == []  # a copy of the same size
    assert images(paths(a=BLOCK), paths(a=BLOCK)) == []
    assert images(paths(a=BLOCK), paths(a=replace(BLOCK, identity=frozenset()))) == []  # judged where the guest runs


def test_not_there_is_a_note():
    assert offline.images_there.severity is Severity.LOW
    assert offline.images_there.offline
    [finding] = images(paths(a=LOCAL), paths(a=GONE))
    assert finding.remedy == "scp -p /srv/a root@kvm02:/srv/a"
    [finding] = images(paths(a=LOCAL), paths(a=replace(GONE, folder_exists=False)), peer="2001:db8::2")
    assert finding.remedy == "On the target: mkdir -p /srv; then here: scp -p /srv/a 'root@[2001:db8::2]:/srv/a'"
    [finding] = images(paths(a=LOCAL), paths(a=replace(LOCAL, size=7)))
    assert (finding.actual, finding.remedy) == ("7 bytes; here 1024", "")  # perhaps another guest's
    [finding] = images(paths(a=LOCAL), paths(a=BLOCK))
    assert finding.actual == "a block"
    [finding] = images(paths(a=BLOCK), paths(a=replace(BLOCK, identity=frozenset({"naa.2#0"}))))
    assert finding.actual == "another device"
    [finding] = images(paths(a=BLOCK), paths(a=GONE))
    assert "LUN" in finding.remedy
    quoted = replace(DISK, source="/srv/a b")
    [finding] = images(paths(**{"/srv/a b": LOCAL}), paths(**{"/srv/a b": GONE}), quoted)
    assert finding.remedy == "scp -p '/srv/a b' 'root@kvm02:/srv/a b'"


def test_a_volume_lies_where_the_target_has_its_pool():
    elsewhere = Pools((replace(FAST.pools[0], path="/fast"),))
    [finding] = images(paths(a=LOCAL), paths(**{"/fast/a": GONE}), VOLUME, their_pools=elsewhere)
    assert finding.remedy == "scp -p /srv/a root@kvm02:/fast/a"
    [finding] = images(paths(a=LOCAL), paths(), VOLUME)
    assert finding.expected == "the pool fast on the target (vda)"
    ceph = Pools((replace(FAST.pools[0], type="rbd"),))
    assert images(paths(a=LOCAL), paths(), VOLUME, their_pools=ceph) == []


def test_an_image_that_is_lost_here():
    assert images(paths(a=GONE), paths(a=FILE)) == []
    [finding] = images(paths(a=GONE), paths(a=GONE))
    assert finding.remedy == ""


def test_what_it_can_start_without_is_left_out():
    gone = paths(a=GONE)
    for disk in (replace(DISK, source=None), NFS_DISK, replace(DISK, startup_policy="optional")):
        with pytest.raises(NotApplicable, match="no images"):
            images(paths(a=LOCAL), gone, disk)
    with pytest.raises(NotApplicable, match="runs"):
        images(paths(a=LOCAL), gone, state=RUNS)


def test_not_known():
    with pytest.raises(Unavailable, match="not asked"):
        images(paths(a=LOCAL), paths())
    with pytest.raises(Unavailable, match="not asked"):
        images(paths(), paths(a=LOCAL))
    with pytest.raises(Unavailable, match="no storage driver"):
        images(paths(a=LOCAL), paths(a=LOCAL), VOLUME, their_pools=Pools((), "no storage driver"))
    [finding] = images(paths(a=LOCAL), paths(a=GONE), DISK, replace(DISK, target="vdb", source="/srv/b"))
    assert "vda" in finding.expected
