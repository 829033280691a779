"""Which network a bridge leads to."""

import contextlib
import json
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
    Station,
    Stations,
    contradiction,
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
HOST = {
    "network.links": json.dumps(LINKS),
    "network.default_route": '[{"dst":"default","gateway":"10.0.0.1","dev":"br0","flags":[]}]',
    NEIGHBOURS.name: json.dumps(NEIGH),
    "network.addresses": '[{"ifname":"br0","addr_info":[{"local":"10.0.0.9","prefixlen":24}]},'
    '{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8}]}]',
    VLANS.name: json.dumps(PORTS),
}


def test_segments(said):
    segments = Segments.parse(said(HOST))
    assert segments.find("br-prod").vlans == {100}, "a vxlan's number is no VLAN"
    assert segments.find("bond0.100").vlans == {100}
    br0 = segments.find("br0")
    assert br0.neighbours == {Neighbour("10.0.0.1", "aa:aa:aa:aa:aa:01"), Neighbour("10.0.0.9", OWN_MAC)}
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


FDB = """\
52:54:00:00:00:01 dev vnet0 master br-prod 
52:54:00:00:00:02 dev bond0.100 master br-prod 
52:54:00:00:00:03 dev eno2 vlan 10 extern_learn master br-trunk 
00:00:5e:00:01:0a dev bond0.100 master br-prod 
end
"""  # noqa: W291  # as bridge prints it


def test_stations(said):
    stations = Stations.parse(said(HOST | {STATIONS.name: FDB}))
    assert stations.guests == {Station("br-prod", "52:54:00:00:00:01", None)}
    assert stations.outside == {
        Station("br-prod", "52:54:00:00:00:02", None),
        Station("br-trunk", "52:54:00:00:00:03", 10),
    }
    assert Stations.parse(said(HOST | {STATIONS.name: (127, "bridge: not found")})).unread
    with pytest.raises(ValueError, match="not a station"):
        Stations.parse(said(HOST | {STATIONS.name: "nonsense\nend\n"}))
    with pytest.raises(ValueError, match="cut off"):
        Stations.parse(said(HOST | {STATIONS.name: FDB.removesuffix("end\n")}))


NONE = Stations(frozenset(), frozenset())


@pytest.fixture
def br0(said):
    return replace(Segments.parse(said(HOST)).find("br0"), neighbours=frozenset())


def seen(segment, *neighbours):
    return replace(segment, neighbours=frozenset(Neighbour(*one) for one in neighbours))


def test_a_common_neighbour_proves_one_network(br0):
    router, virtual = ("10.0.0.1", "aa:aa:aa:aa:aa:01"), ("10.0.0.1", "00:00:5e:00:01:0a")
    assert proof(seen(br0, router), seen(br0, router, ("10.0.0.4", OWN_MAC)), NONE, NONE).startswith("the neighbour")
    assert not proof(seen(br0, router), seen(br0, ("10.1.0.1", router[1])), NONE, NONE), "a router's MAC is everywhere"
    assert not proof(seen(br0, virtual), seen(br0, virtual), NONE, NONE)


def test_a_guest_that_the_other_hears_proves_it_too(br0):
    guest = Station("br0", "52:54:00:00:00:01", None)
    ours, theirs = Stations(frozenset({guest}), frozenset()), Stations(frozenset(), frozenset({guest}))
    assert "52:54:00:00:00:01" in proof(br0, br0, ours, theirs)
    assert "52:54:00:00:00:01" in proof(br0, br0, theirs, ours)
    assert not proof(br0, br0, ours, ours), "two guests with one address"
    assert not proof(br0, br0, theirs, theirs), "a router that both hear"
    assert not proof(br0, replace(br0, device="br1"), ours, theirs)
    other = Stations(frozenset(), frozenset({guest._replace(vlan=10)}))
    assert not proof(br0, br0, ours, other)


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
        for kind in (Segments, Stations):
            with contextlib.suppress(Unavailable, ValueError, LookupError):
                kind.parse(said)


@pytest.mark.corpus
def test_real(samples, said):
    for path in samples("ip-link-json"):
        answers = HOST | {"network.links": path.read_bytes(), NEIGHBOURS.name: "[]", "network.addresses": "[]"}
        for vlans in samples("bridge-vlan-json"):
            assert not Segments.parse(said(answers | {VLANS.name: vlans.read_bytes()})).vlans_unread
