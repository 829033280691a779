"""Which network a bridge leads to."""

import contextlib
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.layer2 import (
    NEIGHBOURS,
    STATIONS,
    VLANS,
    GuestVlans,
    Neighbour,
    Segments,
    contradiction,
    groups,
    proof,
)

OWN_MAC = "3c:ec:ef:00:00:01"


def link(name, kind=None, master=None, address="3c:ec:ef:00:00:99", **data):
    entry = {"ifname": name, "mtu": 1500, "flags": ["UP"], "address": address}
    if kind:
        entry["linkinfo"] = {"info_kind": kind, "info_data": data}
    return entry | ({"master": master} if master else {})


LINKS = [
    link("bond0"),
    link("bond0.100", "vlan", "br-prod", id=100),
    link("vxlan7", "vxlan", "br-prod", id=7),
    link("br-prod", "bridge", vlan_filtering=0),
    link("br0", "bridge", address=OWN_MAC),
    link("br-trunk", "bridge", vlan_filtering=1),
    link("eno2", master="br-trunk"),
    link("vnet0", "tun", "br-prod"),
    link("vnet1", "tun", "br-trunk"),
]
NEIGH = [
    {"dst": "10.0.0.1", "dev": "br0", "lladdr": "aa:aa:aa:aa:aa:01", "state": ["STALE"]},
    {"dst": "10.0.0.2", "dev": "br0", "state": ["FAILED"]},
    {"dst": "fe80::1", "dev": "br0", "lladdr": "aa:aa:aa:aa:aa:01", "state": ["REACHABLE"]},
    {"dst": "10.0.0.3", "dev": "br0", "lladdr": "aa:aa:aa:aa:aa:03", "state": ["PERMANENT"]},
    {},
]
PORTS = [
    {"ifname": "eno2", "vlans": [{"vlan": 1, "flags": ["PVID"]}, {"vlan": 10, "vlanEnd": 20}]},
    {"ifname": "vnet1", "vlans": [{"vlan": 30}]},
]
FDB = """\
52:54:00:00:00:01 dev vnet0 master br-prod 
52:54:00:00:00:02 dev bond0.100 master br-prod 
52:54:00:00:00:03 dev eno2 vlan 10 extern_learn master br-trunk 
00:00:5e:00:01:0a dev bond0.100 master br-prod 
end
"""  # noqa: W291  # as bridge prints it
HOST = {
    "network.links": json.dumps(LINKS),
    "network.default_route": '[{"dst":"default","gateway":"10.0.0.1","dev":"br0","flags":[]}]',
    NEIGHBOURS.name: json.dumps(NEIGH),
    "network.addresses": '[{"ifname":"br0","addr_info":[{"local":"10.0.0.9","prefixlen":24}]},'
    '{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8}]}]',
    VLANS.name: json.dumps(PORTS),
    STATIONS.name: FDB,
}


def test_segments(said):
    segments = Segments.parse(said(HOST))
    assert segments.find("br-prod").vlans == {100}, "a vxlan's number is no VLAN"
    assert segments.find("bond0.100").vlans == {100}
    br0 = segments.find("br0")
    assert br0.neighbours == {Neighbour("10.0.0.1", "aa:aa:aa:aa:aa:01")}
    assert br0.own == {Neighbour("10.0.0.9", OWN_MAC)}
    assert (br0.bridge, br0.used) == (True, False)
    assert segments.find("br-prod").used
    assert not segments.find("bond0").bridge
    assert br0.gateways == {"10.0.0.1"}
    trunk = segments.find("br-trunk")
    assert (br0.filtering, trunk.filtering) == (False, True)
    assert segments.carried(trunk) == {1, *range(10, 21)}, "what a guest's port lists is not the way out"
    assert segments.find("vnet0") is None


def test_vlans_that_were_not_read_matter_where_they_are_asked_for(said):
    for answer in ((127, "bridge: not found"), '{"eno2":[]}', '[{"ifname":"eno2","vlans":[{"vlan":"x"}]}]', "nonsense"):
        segments = Segments.parse(said(HOST | {VLANS.name: answer}))
        with pytest.raises(Unavailable):
            segments.carried(segments.find("br-trunk"))


@pytest.mark.parametrize("probe", ["network.links", "network.default_route", NEIGHBOURS.name, "network.addresses"])
def test_segments_unavailable(said, probe):
    for answer in ((1, "no"), "nonsense", '{"a":1}'):
        with pytest.raises(Unavailable):
            Segments.parse(said(HOST | {probe: answer}))


def test_stations(said):
    segments = Segments.parse(said(HOST))
    assert segments.find("br-prod").guests == {"52:54:00:00:00:01"}
    assert segments.find("br-prod").outside == {"52:54:00:00:00:02"}, "no router's of several"
    assert segments.find("br-trunk").outside == {"52:54:00:00:00:03 in VLAN 10"}
    assert not segments.stations_unread


@pytest.mark.parametrize("answer", [(127, "bridge: not found"), "nonsense\nend\n", FDB.removesuffix("end\n")])
def test_stations_that_were_not_read_take_nothing_from_the_rest(said, answer):
    segments = Segments.parse(said(HOST | {STATIONS.name: answer}))
    assert segments.stations_unread
    assert segments.find("br-prod").vlans == {100}
    assert not segments.find("br-prod").outside


@pytest.fixture
def br0(said):
    return replace(Segments.parse(said(HOST)).find("br0"), neighbours=frozenset(), own=frozenset())


def seen(segment, *neighbours, own=()):
    return replace(
        segment,
        neighbours=frozenset(Neighbour(*one) for one in neighbours),
        own=frozenset(Neighbour(*one) for one in own),
    )


ROUTER, VIRTUAL = ("10.0.0.1", "aa:aa:aa:aa:aa:01"), ("10.0.0.1", "00:00:5e:00:01:0a")


def test_a_common_neighbour_proves_one_network(br0):
    assert proof(seen(br0, ROUTER), seen(br0, ROUTER, ("10.0.0.4", OWN_MAC))).startswith("the neighbour")
    assert not proof(seen(br0, ROUTER), seen(br0, ("10.1.0.1", ROUTER[1]))), "a router's MAC is everywhere"
    assert not proof(seen(br0, VIRTUAL), seen(br0, VIRTUAL))


def test_hosts_that_see_each_other_are_on_one_network(br0):
    assert proof(seen(br0, own=[ROUTER]), seen(br0, ROUTER))
    assert proof(seen(br0, ROUTER), seen(br0, own=[ROUTER]))


def test_an_address_that_both_hosts_have_proves_nothing(br0):
    """`virsh net-dumpxml | net-define` copies the bridge's address and its MAC: two networks, each its host's own."""
    copied = seen(br0, own=[("192.168.122.1", "52:54:00:aa:bb:cc")])
    assert not proof(copied, copied)
    assert groups({"a": copied, "b": copied}) == [["a"], ["b"]]


def heard(segment, *, guests=(), outside=()):
    return replace(segment, guests=frozenset(guests), outside=frozenset(outside))


MAC = "52:54:00:00:00:01"


def test_a_guest_that_the_other_hears_proves_it_too(br0):
    ours, theirs = heard(br0, guests=[MAC]), heard(br0, outside=[MAC])
    assert MAC in proof(ours, theirs)
    assert MAC in proof(theirs, ours)
    assert not proof(theirs, theirs), "a router that both hear"
    assert not proof(ours, heard(br0, guests=[MAC], outside=[MAC])), "two guests with one address"
    assert not proof(ours, heard(br0, outside=[f"{MAC} in VLAN 10"]))


def test_groups(br0):
    hosts = {
        "a": seen(br0, ROUTER),
        "b": seen(br0, own=[("10.0.0.2", MAC)]),
        "c": seen(heard(br0, outside=["52:54:00:00:00:09"]), ("10.0.0.2", MAC)),
        "d": seen(heard(br0, guests=["52:54:00:00:00:09"]), VIRTUAL),
        "e": seen(br0, VIRTUAL),
    }
    assert groups(hosts) == [["b", "c", "d"], ["a"], ["e"]]
    assert groups(hosts | {"f": seen(br0, ROUTER, ("10.0.0.2", MAC))}) == [["a", "b", "c", "d", "f"], ["e"]]


def test_groups_agree_with_proof(br0):
    """Pair by pair and all at once, on evidence that is drawn at random."""
    rng = random.Random(1)
    for _ in range(300):
        some = [(f"10.0.0.{n}", MAC[:-1] + str(n)) for n in range(6)]
        macs = [f"52:54:00:00:01:0{n}" for n in range(4)]

        def drawn(those):
            return rng.sample(those, rng.randint(0, 1))

        hosts = {
            name: heard(seen(br0, *drawn(some), own=drawn(some)), guests=drawn(macs), outside=drawn(macs))
            for name in "abcd"
        }
        of = {host: part for part in groups(hosts) for host in part}
        twice = [mac for mac in macs if sum(mac in segment.guests for segment in hosts.values()) > 1]
        for one in hosts:
            for other in hosts:
                if one != other and proof(hosts[one], hosts[other]) and not twice:
                    assert of[one] is of[other]


def test_contradictions(br0):
    tagged = replace(br0, vlans=frozenset({100}))
    assert contradiction(tagged, tagged) is None
    assert contradiction(tagged, br0) is None, "an access port may carry the same VLAN"
    assert contradiction(tagged, replace(br0, vlans=frozenset({200}))) == ("VLAN 100", "VLAN 200")
    one, other = seen(br0, ("10.0.0.1", "aa:aa:aa:aa:aa:01")), seen(br0, ("10.0.0.1", "aa:aa:aa:aa:aa:02"))
    assert contradiction(one, one) is None
    assert contradiction(one, other) == (
        "gateway 10.0.0.1 at aa:aa:aa:aa:aa:01",
        "gateway 10.0.0.1 at aa:aa:aa:aa:aa:02",
    )
    assert contradiction(one, seen(br0, ("10.0.0.1", "00:07:b4:00:01:01"))) is None, "routers that share an address"
    nobody = frozenset()
    assert contradiction(replace(one, gateways=nobody), replace(other, gateways=nobody)) is None


def test_guest_vlans(guest_source):
    xml = """<domain type='kvm'><name>g</name><uuid>9a1c0b6e-7f5d-4c1e-8a57-30a1e0a55a01</uuid><devices>
    <interface type='bridge'><source bridge='br0'/></interface>
    <interface type='bridge'><vlan trunk='yes'><tag id='10'/><tag id='20' nativeMode='untagged'/></vlan></interface>
    </devices></domain>"""
    assert GuestVlans.parse(guest_source(xml)).tags == (frozenset(), frozenset({10, 20}))
    with pytest.raises(ValueError, match="invalid literal"):
        GuestVlans.parse(guest_source(xml.replace("'10'", "'x'")))


@given(st.text(max_size=200))
def test_any_text(text):
    data = text.encode("utf-8", "replace")
    for probe in (NEIGHBOURS.name, VLANS.name, STATIONS.name):
        outputs = {name: Evidence(name, 0, answer.encode()) for name, answer in HOST.items()}
        said = Said(HostEvidence("h", outputs | {probe: Evidence(probe, 0, data)}))
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            Segments.parse(said)


@pytest.mark.corpus
def test_real(samples, said):
    for path in samples("ip-link-json"):
        answers = HOST | {"network.links": path.read_bytes(), NEIGHBOURS.name: "[]", "network.addresses": "[]"}
        for vlans in samples("bridge-vlan-json"):
            assert not Segments.parse(said(answers | {VLANS.name: vlans.read_bytes()})).vlans_unread
