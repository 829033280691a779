"""Folders shared by virtiofs."""

from dataclasses import replace

import pytest

from audit.check import NotApplicable, Unavailable
from audit.facts.paths import Paths, PathState
from audit.facts.storage import Mount, Mounts
from audit.facts.versions import Qemu, Version
from audit.facts.virtiofs import GuestShares, Share, VirtiofsDaemons
from checks import virtiofs as checks
from tests.asked import found

DAEMON = "/usr/libexec/virtiofsd"
OWN = GuestShares((Share("projects", "/srv/p", None, DAEMON),))
EXTERNAL = GuestShares((Share("a", None, "/run/a.sock", None),))
NONE = GuestShares(())
ABLE = VirtiofsDaemons(((DAEMON, frozenset({"migrate-precopy"})),))
UNABLE = VirtiofsDaemons(((DAEMON, frozenset()),))
UNREAD = VirtiofsDaemons((), "not collected")


def test_qemu():
    old, new = Qemu(Version(8, 1, 0)), Qemu(Version(8, 2, 0))
    assert [f.expected for f in found(checks.qemu, OWN, old, new)] == ["source: QEMU 8.2 or newer"]
    assert [f.expected for f in found(checks.qemu, EXTERNAL, new, old)] == ["target: QEMU 8.2 or newer"]
    assert not found(checks.qemu, OWN, new, new)
    with pytest.raises(NotApplicable):
        found(checks.qemu, NONE, old, old)


def test_the_targets_daemon():
    assert not found(checks.daemon_on_target, OWN, ABLE)
    assert found(checks.daemon_on_target, OWN, UNABLE)
    elsewhere = VirtiofsDaemons((("/usr/lib/qemu/virtiofsd", frozenset({"migrate-precopy"})),))
    assert not found(checks.daemon_on_target, OWN, elsewhere)
    assert not found(checks.daemon_on_target, EXTERNAL, UNREAD)
    for daemons in (UNREAD, VirtiofsDaemons(())):
        with pytest.raises(Unavailable):
            found(checks.daemon_on_target, OWN, daemons)
    with pytest.raises(NotApplicable):
        found(checks.daemon_on_target, NONE, UNREAD)


def test_the_same_folder():
    folder = PathState(True, True, (), "folder", 4096, "0:52", 7, 0x6969, 0, frozenset())
    gone = PathState(False, True, (), None, 0, None, 0, None, 0, frozenset())
    local = replace(folder, device="8:1", magic=0xEF53)
    mounts = Mounts(
        (
            Mount("/", "8:1", "/", "ext4", "/dev/vda", False, frozenset()),
            Mount("/srv/p", "0:52", "/", "nfs4", "nas:/p", False, frozenset({"vers=4.2", "addr=10.0.0.9"})),
        )
    )

    def findings(shares, here, there):
        at = (Paths(("/srv/p",), (here,)), mounts, Paths(("/srv/p",), (there,)), mounts)
        return [f.actual for f in found(checks.same_folder, shares, *at)]

    assert findings(OWN, folder, folder) == []
    assert findings(OWN, local, local) == ["projects: perhaps another folder"]
    assert findings(OWN, folder, gone) == []  # judged apart
    assert findings(EXTERNAL, folder, folder) == ["a is served by a daemon of the administrator's own"]
    with pytest.raises(Unavailable):
        findings(OWN, folder, "denied")
    with pytest.raises(NotApplicable):
        findings(NONE, folder, folder)
