"""Guest checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import fields

import pytest

from audit.check import At, Unavailable
from audit.facts.guest import GuestIdentity, GuestName, GuestSnapshots, GuestState, HostGuestNames
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.guest_jobs import GuestBlockJobs, GuestJob
from audit.facts.macs import MacsInUse, Plugged
from checks import guest as checks
from tests.asked import found

U1, U2 = "11111111-2222-4333-8444-555555555555", "91111111-2222-4333-8444-555555555555"
F8 = GuestIdentity("f8", U1, None)
NASTY = GuestIdentity("a'; rm -rf / #", U1, None)


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


MAC = "52:54:00:12:34:56"


def plugged(guest, where="br0", *, mac=MAC, wire=True, network=None, vlans=()):
    return Plugged(mac, guest, f"g{guest}", where, network, vlans, wire)


def on(host, *nics, own=(), unread=0):
    return At(host, MacsInUse(nics, frozenset(nic.mac for nic in nics), frozenset(own), unread))


@pytest.mark.parametrize(
    ("here", "there", "clash"),
    [
        (plugged("1"), plugged("2"), True),
        (plugged("1"), plugged("1"), False),  # the same guest on both is another check's
        (plugged("1"), plugged("2", "br1"), False),
        (plugged("1", vlans=("10",)), plugged("2", vlans=("20",)), False),
        (plugged("1", "virbr0", wire=False), plugged("2", "virbr0", wire=False), False),
        (plugged("1", "br-lab", wire=False), plugged("2", "br-lab"), False),
        (plugged("1", ""), plugged("2", ""), True),
        (plugged("1", ""), plugged("2"), True),
        (plugged("1", ""), plugged("2", "virbr0", wire=False), False),
        (plugged("1"), plugged("2", mac="52:54:00:12:34:57"), False),
    ],
)
def test_mac_addresses_across_hosts(here, there, clash):
    findings = found(checks.macs_unique, (on("a", here), on("b", there), on("c")))
    assert [finding.hosts for finding in findings] == [frozenset({"a", "b"})] * clash


def test_mac_addresses_on_one_host():
    copies = (plugged("1", "virbr0", wire=False), plugged("2", "virbr0", wire=False))
    [finding] = found(checks.macs_unique, (on("a", *copies),))
    assert finding.actual == f"{MAC}: g1 on a, g2 on a, both on virbr0"
    assert not found(checks.macs_unique, (on("a", copies[0], plugged("2", "virbr1", wire=False)),))


def test_a_guest_with_a_host_s_own_mac_address():
    [finding] = found(checks.macs_unique, (on("a", plugged("1")), on("b", own=[MAC])))
    assert (finding.actual, finding.hosts) == (f"g1 on a has {MAC}, which is b's own", frozenset({"a", "b"}))
    assert not found(checks.macs_unique, (on("a", plugged("1", "virbr0", wire=False)), on("b", own=[MAC])))
    assert not found(checks.macs_unique, (on("a", own=[MAC]), on("b", own=[MAC]))), "hosts are another matter"


def test_guests_whose_mac_addresses_are_not_known():
    with pytest.raises(Unavailable, match="1 running guests"):
        found(checks.macs_unique, (on("a", plugged("1")), on("b", unread=1)))
    assert found(checks.macs_unique, (on("a", plugged("1")), on("b", plugged("2"), unread=1)))


def nic(**changes):
    plain = {field.name: None for field in fields(Nic)} | {"type": "bridge", "mac": MAC.upper(), "vlans": ()}
    return GuestNics((Nic(**plain | changes),))


@pytest.mark.parametrize(
    ("own", "there", "clash"),
    [
        (nic(source="br0", bridge="br0"), plugged("2"), True),
        (nic(source="br0", bridge="br0"), plugged(U1), False),
        (nic(source="br0", bridge="br0"), plugged("2", "br1"), False),
        (nic(source="br0", bridge="br0", vlans=("7",)), plugged("2"), False),
        (nic(source="br0", bridge="br0", mac=None), plugged("2"), False),
        (nic(type="network", network="lab", bridge="virbr1"), plugged("2", "virbr2", network="lab", wire=False), True),
        (nic(type="network", network="lab", bridge="virbr1"), plugged("2", "virbr2", network="x", wire=False), False),
        (nic(type="hostdev"), plugged("2", ""), True),
        (nic(type="hostdev"), plugged("2"), True),
        (nic(type="hostdev"), plugged("2", "virbr0", wire=False), False),
        (nic(type="user"), plugged("2"), False),
    ],
)
def test_a_mac_address_that_is_taken_on_the_target(own, there, clash):
    assert bool(found(checks.mac_free, own, F8, on("b", there).fact)) is clash


def test_a_target_whose_mac_addresses_are_not_all_known():
    with pytest.raises(Unavailable):
        found(checks.mac_free, nic(source="br0"), F8, on("b", unread=2).fact)
    assert not found(checks.mac_free, GuestNics(()), F8, on("b", unread=2).fact)
