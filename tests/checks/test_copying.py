"""Whether images may be copied along, on plain values; and what copying lifts."""

from dataclasses import replace

import pytest

from audit.check import COPY_CHANGES, COPY_STORAGE, NotApplicable, Unavailable
from audit.facts.disk_sizes import DiskSize, FreeSpace, GuestDiskSizes, Room
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.image_users import ImageUsers
from audit.facts.paths import Image, Paths
from audit.facts.pools import Pool, Pools
from audit.facts.storage import MOUNTINFO, Mounts
from audit.judge import Missing
from checks import copying as checks
from checks import storage
from tests.checks.test_storage import CDROM, NOT_DECLARED, NOWHERE, RUNS, WEB, shared
from tests.disks import BLOCK, DISK, FILE, GONE, LOCAL, NO_POOLS, SHARED, UNSHARED, VOLUME, found, paths

RAW = replace(DISK, format="raw")
SIZES = GuestDiskSizes((DiskSize("vda", 2048, 1024), DiskSize("vdb", 2048, 1024)))
NOT_THERE = replace(GONE, folder_exists=True)
NO_FOLDER = replace(GONE, folder_exists=False)
IN_SRV = Pools((Pool("images", "dir", True, "/srv/"),))


NOBODYS = ImageUsers(())


def asked(check, there, *more, disks=(DISK,), here=None, mounts=UNSHARED, their_pools=NO_POOLS, state=RUNS):
    facts = (state, GuestDisks(disks), here or paths(a=LOCAL), mounts, NO_POOLS, their_pools, there)
    if check is checks.place_ready:
        return found(check, WEB, *facts, *(more or (NOBODYS,)), SIZES)
    if check in (checks.overwrites, checks.only_own, checks.increment_placed):
        return found(check, *facts)
    return found(check, *facts, SIZES, *more)


ALL = (checks.place_ready, checks.image_made, checks.overwrites, checks.only_own, checks.increment_placed)


def test_all_are_for_that_way_only():
    for check in (*ALL, checks.room, checks.room_to_grow):
        assert check.way == (COPY_CHANGES if check is checks.increment_placed else COPY_STORAGE)


def test_place_ready():
    assert not asked(checks.place_ready, paths(a=NOT_THERE))
    [finding] = asked(checks.place_ready, paths(a=NO_FOLDER))
    assert finding.remedy == "On the target: mkdir -p /srv"
    assert asked(checks.place_ready, paths(a=BLOCK))
    assert asked(checks.place_ready, paths(a=replace(LOCAL, kind="folder")))
    assert not asked(checks.place_ready, paths(a=replace(LOCAL, size=2048)), disks=(RAW,))
    [finding] = asked(checks.place_ready, paths(a=replace(LOCAL, size=1000)), disks=(RAW,))
    assert finding.expected == "/srv/a of 2048 bytes on the target"
    with pytest.raises(Unavailable, match="qcow2"):
        asked(checks.place_ready, paths(a=LOCAL))
    with pytest.raises(Unavailable, match="vmdk"):
        asked(checks.place_ready, paths(a=LOCAL), disks=(replace(DISK, format="vmdk"),))
    assert not asked(checks.place_ready, paths(a=replace(LOCAL, image=Image("qcow2", 2048))))
    [finding] = asked(checks.place_ready, paths(a=replace(LOCAL, image=Image("qcow2", 4096))))
    assert "different sizes" in finding.because
    [finding] = asked(checks.place_ready, paths(a=replace(LOCAL, image=Image("other", 0))))
    assert finding.because == "Image is not in qcow2 format"


def test_nobody_else_uses_the_place():
    there = paths(a=replace(LOCAL, size=2048))
    others = ImageUsers((("/srv/a", "another-uuid", "db"), ("/srv/b", "another-uuid", "db")))
    [finding] = asked(checks.place_ready, there, others, disks=(RAW,))
    assert finding.actual == "a disk of db"
    assert not asked(checks.place_ready, there, ImageUsers((("/srv/a", WEB.uuid, "web"),)), disks=(RAW,))
    with pytest.raises(Unavailable):
        asked(checks.place_ready, there, ImageUsers((), 1), disks=(RAW,))


def test_not_for_guests_whose_disks_are_shared():
    some = (FreeSpace(()),)
    for check, more in (
        *((check, ()) for check in ALL),
        (checks.room, some),
        (checks.room_to_grow, some),
    ):
        for disks in ((), (CDROM,), (replace(DISK, shareable=True),), (replace(DISK, type="block"),), (VOLUME,)):
            with pytest.raises(NotApplicable):
                asked(check, paths(a=NOT_THERE), *more, disks=disks)
        with pytest.raises(NotApplicable):
            asked(check, paths(a=FILE), *more, here=paths(a=FILE), mounts=SHARED)
        with pytest.raises(NotApplicable):
            asked(check, paths(a=NOT_THERE), *more, state=GuestState("shut off", False, True))


def test_not_known_which_images_would_be_copied():
    """Nothing of a disk's path, here or there, or of what is mounted: a skip would be a lie."""
    room = FreeSpace((("/srv", Room("/", 4)),))
    for check, more in (
        *((check, ()) for check in ALL),
        (checks.room, (room,)),
        (checks.room_to_grow, (room,)),
    ):
        for there, changes in (
            (paths(), {}),
            (paths(a=NOT_THERE), {"here": Paths((), (), "timed out")}),
            (paths(a=NOT_THERE), {"mounts": Missing(Unavailable(MOUNTINFO, "timed out"))}),
        ):
            with pytest.raises(Unavailable):
                asked(check, there, *more, **changes)
    beside = (replace(DISK, target="vdb", source="/srv/b"), DISK)
    assert asked(checks.place_ready, paths(a=NO_FOLDER), disks=beside), "what is known of another disk counts"
    with pytest.raises(Unavailable):
        asked(checks.place_ready, paths(a=NOT_THERE), disks=beside)


def test_image_made():
    assert not asked(checks.image_made, paths(a=NOT_THERE), their_pools=IN_SRV)
    [finding] = asked(checks.image_made, paths(a=NOT_THERE))
    assert finding.remedy == "On the target: qemu-img create -f qcow2 /srv/a 2048"
    inactive = Pools((replace(IN_SRV.pools[0], active=False),))
    assert asked(checks.image_made, paths(a=NOT_THERE), their_pools=inactive)
    assert not asked(checks.image_made, paths(a=LOCAL)), "nobody has to make it"
    assert not asked(checks.image_made, paths(a=NO_FOLDER)), "that is for another check"
    with pytest.raises(Unavailable):
        asked(checks.image_made, paths(a=NOT_THERE), their_pools=Pools((), "no storage driver"))


def test_overwrites():
    assert not asked(checks.overwrites, paths(a=NOT_THERE))
    [finding] = asked(checks.overwrites, paths(a=LOCAL))
    assert "overwritten" in finding.actual


def test_only_own():
    beside = replace(DISK, target="vdb", source="/srv/b")
    there, here, mounts = paths(a=NOT_THERE, b=FILE), paths(a=LOCAL, b=FILE), Mounts((*UNSHARED.mounts, *SHARED.mounts))
    [finding] = asked(checks.only_own, there, disks=(DISK, beside), here=here, mounts=mounts)
    assert finding.expected == "vda copied alone, by --migrate-disks vda"
    assert not asked(checks.only_own, there, disks=(DISK,), here=here, mounts=mounts)
    for kept in ({"readonly": True}, {"shareable": True}, {"source": None}):
        assert not asked(checks.only_own, there, disks=(DISK, replace(beside, **kept)), here=here, mounts=mounts)


def test_increment_placed():
    assert not asked(checks.increment_placed, paths(a=LOCAL))
    [finding] = asked(checks.increment_placed, paths(a=NOT_THERE))
    assert "incremental" in finding.because


def test_room():
    two = (DISK, replace(DISK, target="vdb", source="/srv/b"))
    here, there = paths(a=LOCAL, b=LOCAL), paths(a=NOT_THERE, b=NOT_THERE)

    def judged(check, kib):
        return asked(check, there, FreeSpace((("/srv", Room("/", kib)),)), disks=two, here=here)

    assert not judged(checks.room, 4)
    assert not judged(checks.room_to_grow, 4)
    assert not judged(checks.room, 2)
    [finding] = judged(checks.room_to_grow, 2)
    assert finding.expected == "4.0 KiB free in / on the target"
    [finding] = judged(checks.room, 1)
    assert finding.expected == "2.0 KiB free in / on the target"
    assert not judged(checks.room_to_grow, 1), "that is for the other"
    for check in (checks.room, checks.room_to_grow):
        with pytest.raises(Unavailable):
            asked(check, there, FreeSpace((), "timed out"), disks=two, here=here)


def test_what_libvirt_makes_takes_its_full_size_at_once():
    """It gives no allocation, which then is the capacity: fallocate for raw images, preallocation=falloc for qcow2."""
    free = FreeSpace((("/srv", Room("/", 1)),))
    [finding] = asked(checks.room, paths(a=NOT_THERE), free, their_pools=IN_SRV)
    assert "full size" in finding.because
    assert finding.remedy == "On the target: qemu-img create -f qcow2 /srv/a 2048"
    assert not asked(checks.room_to_grow, paths(a=NOT_THERE), free, their_pools=IN_SRV), "that is for the other"
    assert not asked(checks.room, paths(a=NOT_THERE), free)
    [by_hand] = asked(checks.room_to_grow, paths(a=NOT_THERE), free)
    assert (by_hand.because, by_hand.remedy) == ("", "")
    fast = Pools((Pool("fast", "dir", True, "/srv"),))
    volume = found(
        *(checks.room, RUNS, GuestDisks((VOLUME,)), paths(a=LOCAL), UNSHARED, fast, fast),
        *(paths(a=NOT_THERE), SIZES, free),
    )
    assert volume[0].remedy == "On the target: virsh vol-create-as fast a 2048 --allocation 0 --format qcow2"


# What copying lifts --------------------------------------------------------------------------------------------


def lifted(*findings):
    return [("".join(finding.lifted_by), finding.about) for finding in findings]


def test_copying_lifts_that_an_image_is_local():
    assert lifted(*shared(paths(a=LOCAL), paths(a=NOT_THERE), ours=UNSHARED, theirs=UNSHARED)) == [
        (COPY_STORAGE, "vda")
    ]
    assert lifted(*shared(paths(a=LOCAL), paths(a=replace(LOCAL, inode=8)), ours=UNSHARED, theirs=UNSHARED)) == [
        (COPY_STORAGE, "vda")
    ]


def test_copying_does_not_go_onto_shared_storage_or_devices():
    """The copy would overwrite what is there: perhaps the very image that is copied."""
    on_nfs = shared(paths(a=LOCAL), paths(a=replace(FILE, inode=8)), ours=UNSHARED, theirs=SHARED)
    from_nfs = shared(paths(a=FILE), paths(a=LOCAL), ours=SHARED, theirs=UNSHARED)
    other_lun = shared(
        paths(a=BLOCK),
        paths(a=replace(BLOCK, identity=frozenset({"naa.2#0"}))),
        disk=replace(DISK, type="block"),
        ours=Mounts(()),
        theirs=Mounts(()),
    )
    lustre = replace(LOCAL, magic=0x0BD00BD0)  # which libvirt takes for local, and is the same file on both hosts
    on_lustre = shared(paths(a=lustre), paths(a=lustre), ours=UNSHARED, theirs=UNSHARED)
    for findings in (on_nfs, from_nfs, other_lun, on_lustre):
        assert lifted(*findings) == [("", "vda")]


def test_copying_lifts_that_an_image_is_not_there():
    def judged(disk):
        return found(
            storage.disks_reachable, GuestDisks((disk,)), WEB, NO_POOLS, paths(a=GONE, **{"/iso/cd.iso": GONE})
        )

    assert lifted(*judged(DISK)) == [(COPY_STORAGE, "vda")]
    encrypted = replace(DISK, secrets=("some-uuid",))
    for disk in (
        CDROM,
        replace(DISK, type="block"),
        replace(DISK, shareable=True),
        replace(DISK, device="lun"),
        encrypted,
    ):
        assert lifted(*judged(disk))[0][0] == ""


def test_volumes_that_are_devices_are_not_copied():
    """There is no folder to make or to measure: /dev/vg is none."""
    pool = Pools((Pool("vg", "logical", True, "/dev/vg"),))
    disk = replace(DISK, type="volume", source="vg/a", format="raw")
    there = paths(**{"/dev/vg/a": NO_FOLDER})
    assert lifted(*found(storage.disks_reachable, GuestDisks((disk,)), WEB, pool, there)) == [("", "vda")]
    with pytest.raises(NotApplicable):
        found(
            checks.place_ready,
            WEB,
            RUNS,
            GuestDisks((disk,)),
            paths(**{"/dev/vg/a": BLOCK}),
            UNSHARED,
            pool,
            pool,
            there,
            NOBODYS,
            SIZES,
        )


def test_read_only_on_the_target_is_not_lifted():
    mounts = Mounts((replace(SHARED.mounts[0], read_only=True),))
    findings = shared(paths(a=FILE), paths(a=FILE), theirs=mounts, declared=NOT_DECLARED, addresses=NOWHERE)
    assert [finding.lifted_by for finding in findings] == [()]
