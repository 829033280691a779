"""Who may open the images."""

from dataclasses import replace

import pytest

from audit.check import NotApplicable, Unavailable
from audit.facts.administrator import Administrator
from audit.facts.confinement import GuestLabels, SecurityDrivers
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.paths import Component, Rights
from audit.facts.qemu_conf import QemuConf
from audit.facts.storage import HypervisorUser, Mounts, Selinux, User
from audit.judge import Missing
from checks import access as checks
from tests.disks import (
    DISK,
    FAST,
    FILE,
    LOCAL,
    LOCAL_MOUNT,
    NO_POOLS,
    SHARED,
    UNSHARED,
    VOLUME,
    found,
    nfs,
    paths,
)


def test_selinux():
    disks = GuestDisks((DISK,))
    off, on = (Selinux(True, (("virt_use_nfs", value),)) for value in (False, True))
    fuse = Selinux(True, (("virt_use_fusefs", False),))
    confined, selinux = GuestLabels(frozenset({"selinux"})), SecurityDrivers(frozenset({"selinux", "dac"}))

    def run(disks, pools, there, mounts, booleans, labels=confined, drivers=selinux):
        return found(checks.selinux_nfs, disks, pools, there, mounts, booleans, labels, drivers)

    [finding] = run(disks, NO_POOLS, paths(a=FILE), SHARED, off)
    assert finding.remedy == "On the target: setsebool -P virt_use_nfs on"
    assert not run(disks, NO_POOLS, paths(a=FILE), SHARED, on)
    assert not run(disks, NO_POOLS, paths(a=LOCAL), UNSHARED, Selinux(True, ()))
    assert not run(disks, NO_POOLS, paths(a=LOCAL), UNSHARED, None), "nobody asks whether it is enforcing"
    assert run(GuestDisks((VOLUME,)), FAST, paths(a=FILE), SHARED, off)
    gluster = Mounts((replace(LOCAL_MOUNT, device="0:45", type="fuse.glusterfs"),))
    [finding] = run(disks, NO_POOLS, paths(a=replace(FILE, magic=0x65735546)), gluster, fuse)
    assert finding.remedy == "On the target: setsebool -P virt_use_fusefs on"
    context = Mounts((nfs(context="system_u:object_r:svirt_image_t:s0"),))
    assert not run(disks, NO_POOLS, paths(a=FILE), context, off)
    with pytest.raises(NotApplicable):
        run(disks, NO_POOLS, paths(a=FILE), SHARED, Selinux(False, ()))
    with pytest.raises(Unavailable):
        run(disks, NO_POOLS, paths(a=FILE), SHARED, Selinux(True, ()))
    unread = Missing(Unavailable(SecurityDrivers.probes[0], "no"))
    assert not run(disks, NO_POOLS, paths(a=FILE), SHARED, on, unread, unread), "it is on: nobody asks"
    with pytest.raises(NotApplicable, match="confine"):  # security_driver = "none" in qemu.conf
        run(disks, NO_POOLS, paths(a=FILE), SHARED, off, drivers=SecurityDrivers(frozenset({"none"})))
    with pytest.raises(NotApplicable, match="confine"):
        run(disks, NO_POOLS, paths(a=FILE), SHARED, off, GuestLabels(frozenset(), unconfined=True))


def user(uid=107, gid=107):
    return HypervisorUser(User("qemu", uid, gid, frozenset({gid})), False)


def test_images_owned():
    """The target's libvirt leaves owners alone."""
    running, kept = GuestState("running", True, True), QemuConf(dynamic_ownership=False)
    root = replace(FILE, components=(Component(0o755, 0, 0), Component(0o600, 0, 0)), rights=RIGHTS)

    def run(state, disk=DISK, conf=kept, guest=running, who=None):
        there = paths(a=state) if state else paths()
        return found(checks.images_owned, guest, GuestDisks((disk,)), NO_POOLS, there, who or user(), conf, user())

    [finding] = run(root)
    assert "Could not open '/srv/a': Permission denied" in finding.because
    assert not run(root, who=user(0))
    assert not run(replace(root, components=(Component(0o755, 0, 0), Component(0o600, 107, 107))))
    assert not run(replace(root, rights=RIGHTS._replace(read=True, write=True))), "an access list opens it"
    assert run(replace(root, rights=RIGHTS._replace(read=True)))
    assert not run(replace(root, rights=RIGHTS._replace(read=True)), replace(DISK, readonly=True))
    assert not run(replace(root, rights=RIGHTS._replace(reach=False))), "its folders are another check's"
    with pytest.raises(Unavailable, match="access list"):
        run(replace(root, rights=None))
    with pytest.raises(Unavailable):
        run(None)
    with pytest.raises(NotApplicable):
        run(root, conf=QemuConf())
    with pytest.raises(NotApplicable):
        run(root, guest=GuestState("shut off", False, True))


RIGHTS = Rights(107, True, False, False)


def test_permissions_and_ids():
    closed = replace(
        FILE, components=(Component(0o755, 0, 0), Component(0o700, 1000, 1000), Component(0o644, 107, 107))
    )
    opened = replace(closed, components=(Component(0o755, 0, 0), Component(0o711, 1000, 1000), Component(0o600, 0, 0)))
    shut = replace(closed, rights=Rights(107, False, False, False))

    def run(state, who=None, disks=(DISK,), pools=NO_POOLS):
        return found(checks.permissions, GuestDisks(disks), pools, paths(a=state), who or user())

    assert run(shut)
    assert run(shut, disks=(VOLUME,), pools=FAST)
    assert not run(opened)
    assert not run(shut, user(0))
    assert not run(replace(closed, rights=Rights(107, True, False, False))), "an access list opens it"
    for tried in (None, Rights(64055, False, False, False)):
        with pytest.raises(Unavailable, match="access list"):
            run(replace(closed, rights=tried))
    with pytest.raises(Unavailable):
        found(checks.permissions, GuestDisks((DISK,)), NO_POOLS, paths(), user())
    assert run(shut, disks=(replace(DISK, source="/srv/unknown"), DISK)), "certain before unknown"
    below = replace(DISK, source="/srv/b", backing=("/srv/a",))
    assert found(checks.permissions, GuestDisks((below,)), NO_POOLS, paths(a=shut, b=FILE), user())
    assert found(checks.qemu_uid_same, user(), user(64055, 107), SHARED, SHARED)
    assert not found(checks.qemu_uid_same, user(), user(64055, 107), SHARED, UNSHARED)
    assert not found(checks.qemu_uid_same, user(), user(gid=993), SHARED, SHARED), "the owner needs no group"
    assert checks.qemu_uid_same.plain_guest, "a guest on other storage is not concerned by some common mount"


CONF = QemuConf()


def test_images_on_nfs():
    running, off = GuestState("running", True, True), GuestState("shut off", False, True)

    def judged(mode, uid, gid, *, disk=DISK, mounts=SHARED, conf=CONF, state=running, qemu=107, own=None):
        image = replace(FILE, components=(Component(0o755, 0, 0), Component(mode, uid, gid)))
        facts = (
            state,
            GuestDisks((disk,)),
            NO_POOLS,
            paths(a=image),
            mounts,
            user(qemu),
            conf,
            user(qemu) if own is None else own,
        )
        return found(checks.images_open, *facts)

    assert not judged(0o600, 107, 0)
    assert not judged(0o660, 0, 107)
    assert not judged(0o666, 0, 0)
    assert not judged(0o600, 0, 0, mounts=UNSHARED), "libvirt gives it to QEMU's user"
    assert not judged(0o600, 0, 0, qemu=0)
    [finding] = judged(0o644, 0, 0)
    assert (finding.expected, finding.actual) == ("/srv/a open to qemu (107:107)", "0644 0:0")
    assert "squashes root" in finding.because
    assert finding.remedy.startswith("chown 107:107 /srv/a")
    [finding] = judged(0o600, 107, 107, qemu=64055, own=user(107))
    assert finding.remedy.startswith("Give qemu on the target the uid that qemu has here (107); not chown")
    [finding] = judged(0o600, 107, 107, qemu=64055, own=Missing(Unavailable(QemuConf.probes[0], "not root")))
    assert finding.remedy == "Give the hypervisor's account the same uid on both hosts"
    assert not judged(0o644, 0, 0, disk=replace(DISK, readonly=True))
    [finding] = judged(0o600, 0, 0, conf=QemuConf(dynamic_ownership=False))
    assert finding.because.startswith("dynamic_ownership = 0")
    [finding] = judged(0o600, 0, 0, conf=Missing(Unavailable(QemuConf.probes[0], "not root")))
    assert "only with dynamic_ownership" in finding.because
    with pytest.raises(NotApplicable):
        judged(0o600, 0, 0, state=off)
    with pytest.raises(Unavailable):
        found(checks.images_open, running, GuestDisks((DISK,)), NO_POOLS, paths(), SHARED, user(), CONF, user())


def test_administrator():
    assert not found(checks.administrator, Administrator(True, "root", frozenset()))
    [finding] = found(checks.administrator, Administrator(False, "audit", frozenset({"libvirt"})))
    assert finding.actual == "audit, in group libvirt"
