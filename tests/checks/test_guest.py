"""Guest checks, on plain values; among them what really happened in a lab of real migrations."""

import pytest

from audit.check import At, Unavailable
from audit.facts.guest import GuestIdentity, GuestName, GuestSnapshots, GuestState, HostGuestNames
from audit.facts.guest_jobs import GuestBlockJobs, GuestJob
from checks import guest as checks

U1, U2 = "11111111-2222-4333-8444-555555555555", "91111111-2222-4333-8444-555555555555"
F8 = GuestIdentity("f8", U1, None)
NASTY = GuestIdentity("a'; rm -rf / #", U1, None)


def found(check, *facts):
    return list(check.function(*facts))


def names(*guests, unread=()):
    return HostGuestNames(tuple(GuestName(*guest) for guest in guests), frozenset(unread))


def test_snapshots():
    assert not found(checks.no_snapshots, GuestSnapshots(0), F8)
    [finding] = found(checks.no_snapshots, GuestSnapshots(2), NASTY)
    assert "cannot migrate domain with 2 snapshots" in finding.because
    assert "'a'\"'\"'; rm -rf / #'" in finding.remedy
    assert checks.no_snapshots.offline


def test_block_jobs():
    assert not found(checks.no_block_job, GuestBlockJobs(()), F8)
    [finding] = found(checks.no_block_job, GuestBlockJobs((("vda", "Block Copy: [100 %]"),)), F8)
    assert finding.because == "domain has active block job"
    with pytest.raises(Unavailable):
        found(checks.no_block_job, GuestBlockJobs((), (("vda", "timed out"),)), F8)


def test_jobs():
    assert not found(checks.no_job, GuestJob("none"), F8)
    assert found(checks.no_job, GuestJob("backup"), F8)


def test_transient_guest():
    assert found(checks.persistent, GuestState("running", True, False))
    assert not found(checks.persistent, GuestState("running", True, True))


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (names(("f8", U2, False)), "domain 'f8' already exists with uuid"),
        (names(("f8x", U1, False)), "domain 'f8x' is already defined with uuid"),
        (names(("f8", U1, True)), "domain 'f8' is already active"),
        (names(("f8", U1, False)), None),
        (names(("other", U2, True)), None),
    ],
)
def test_clashes_on_the_target(there, words):
    findings = found(checks.name_free, F8, there)
    assert [finding.because.startswith(words) for finding in findings] == ([True] if words else [])


def test_unread_guests_on_the_target_may_clash():
    with pytest.raises(Unavailable):
        found(checks.name_free, F8, names(("other", U2, True), unread=["u3"]))
    assert not found(checks.name_free, F8, names(("f8", U1, False), unread=["u3"]))
    assert checks.name_free.offline


def test_uniqueness_in_a_cluster():
    hosts = (
        At("a", names(("web", U1, True), ("copy", U2, False))),
        At("b", names(("web", U1, False), ("other", U2, False))),
    )
    assert not found(checks.names_unique, hosts)
    [finding] = found(checks.uuids_unique, hosts)
    assert "copy, other" in finding.actual
    assert not found(checks.running_once, hosts)
    twice = (At("a", names(("web", U1, True))), At("b", names(("web", U1, True), ("x", U2, True))))
    [finding] = found(checks.running_once, twice)
    assert "runs on a, b" in finding.actual
    assert not found(checks.uuids_unique, twice)
    [finding] = found(checks.names_unique, (At("a", names(("web", U1, True))), At("b", names(("web", U2, True)))))
    assert finding.hosts == {"a", "b"}
