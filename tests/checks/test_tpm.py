"""Emulated TPMs."""

from dataclasses import replace

import pytest

from audit.check import NotApplicable, Unavailable
from audit.facts.storage import Mount, Mounts, SharedFilesystems
from audit.facts.tpm import GuestTpmState, Swtpm
from audit.facts.versions import Libvirt, Version
from checks import tpm as checks
from tests.asked import found
from tests.disks import FILE, GONE, paths

PATH = "/var/lib/libvirt/swtpm/11111111-2222-4333-8444-555555555555"
STATE, NONE = GuestTpmState(PATH), GuestTpmState(None)
ROOT = Mount("/", "253:0", "/", "xfs", "/dev/vda", False, frozenset())
NFS = Mount("/var/lib/libvirt/swtpm", "0:52", "/", "nfs4", "nas:/tpm", False, frozenset())
LOCAL, SHARED = Mounts((ROOT,)), Mounts((ROOT, NFS))
NOTHING, ALL = SharedFilesystems(()), SharedFilesystems(("/var/lib/libvirt",))
UNREAD = SharedFilesystems((), "not root")
HERE = paths(**{PATH: replace(GONE, folder_exists=False)})
LINKED = paths(**{PATH: replace(FILE, kind="folder", device="0:60")})
ELSEWHERE = Mount("/srv/shared", "0:60", "/", "nfs4", "nas:/all", False, frozenset())
OLD = Swtpm(True, (0, 7, 3), (0, 9, 1), frozenset({"tpm-2.0"}))
NEW = Swtpm(True, (0, 8, 0), (0, 9, 6), frozenset({"tpm-2.0", "cmdarg-migration"}))
LOST = Swtpm(False, None, None, None, "not collected")


def libvirt(*numbers):
    return Libvirt(Version(*numbers), Version(*numbers))


@pytest.mark.parametrize("check", [checks.shared_state, checks.shared_state_taken])
def test_state_on_shared_storage_needs_a_swtpm_that_lets_go(check):
    def findings(swtpm, mounts, declared=NOTHING, places=HERE):
        return found(check, STATE, swtpm, libvirt(11, 3), places, mounts, declared)

    assert findings(OLD, SHARED)[0].actual == "0.7.3, state on nfs4 at /var/lib/libvirt/swtpm"
    assert findings(OLD, LOCAL, ALL)
    linked = findings(OLD, Mounts((ROOT, ELSEWHERE)), places=LINKED)
    assert linked[0].actual == "0.7.3, state on nfs4 at /srv/shared", "a symbolic link"
    with pytest.raises(Unavailable):
        findings(OLD, SHARED, places=paths())
    assert not findings(NEW, SHARED)
    assert not findings(NEW, LOCAL, UNREAD)  # nothing more has to be known
    for swtpm, mounts, declared in ((OLD, LOCAL, UNREAD), (LOST, SHARED, NOTHING), (OLD, LOCAL, UNREAD)):
        with pytest.raises(Unavailable):
            findings(swtpm, mounts, declared)
    for state, version, mounts in ((NONE, (11, 3), SHARED), (STATE, (8, 9), SHARED), (STATE, (11, 3), LOCAL)):
        with pytest.raises(NotApplicable):
            found(check, state, OLD, libvirt(*version), HERE, mounts, NOTHING)


def test_an_old_libvirt_takes_shared_state_for_its_own():
    def sides(here, there, mounts=SHARED):
        facts = (STATE, libvirt(*here), libvirt(*there), HERE, mounts, NOTHING)
        return [f.expected for f in found(checks.shared_state_known, *facts)]

    assert sides((8, 0), (9, 0)) == ["source: libvirt 8.10 or newer"]
    assert sides((9, 0), (8, 0)) == ["target: libvirt 8.10 or newer"]
    assert sides((9, 0), (9, 0)) == sides((8, 0), (8, 0), LOCAL) == []
    with pytest.raises(NotApplicable):
        found(checks.shared_state_known, NONE, libvirt(8, 0), libvirt(8, 0), HERE, SHARED, NOTHING)
    with pytest.raises(Unavailable):
        found(checks.shared_state_known, STATE, libvirt(8, 0), libvirt(9, 0), HERE, LOCAL, UNREAD)


def test_the_targets_emulator_reads_what_the_sources_wrote():
    def findings(here, there):
        return [f.actual for f in found(checks.emulator_not_older, STATE, here, there)]

    assert findings(NEW, OLD) == ["swtpm 0.7.3"]
    assert findings(OLD, NEW) == findings(NEW, NEW) == []
    later = Swtpm(True, (0, 8, 9), (0, 10, 1), None)
    assert findings(later, NEW) == ["libtpms 0.9.6"]
    assert findings(later, Swtpm(True, (0, 8, 0), None, None)) == []
    with pytest.raises(Unavailable):
        findings(NEW, LOST)
    for state, there in ((NONE, OLD), (STATE, Swtpm(False, None, None, None))):
        with pytest.raises(NotApplicable):
            found(checks.emulator_not_older, state, NEW, there)
