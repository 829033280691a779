"""Links, libvirt networks, subnets and the way out."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.names import OwnAddresses
from audit.facts.network import (
    ADDRESSES,
    LINKS,
    NETWORKS,
    NETWORKS_ACTIVE,
    ROUTES,
    SPEEDS,
    LibvirtNetworks,
    Links,
    Speeds,
    Subnets,
    WayOut,
)

MARK = "0123456789abcdef0123456789abcdef"


def link(name, kind=None, *, up=True, mtu=1500, **more):
    info = {"linkinfo": {"info_kind": kind}} if kind else {}
    return {"ifname": name, "flags": ["UP"] if up else [], "mtu": mtu, **info, **more}


LINK_LIST = [
    link("lo", mtu=65536),
    link("br0", "bridge"),
    link("bond0", "bond", master="br0"),
    link("eno1", master="bond0"),
    link("eno2", master="bond0"),
    link("br0.20", "vlan", link="br0"),
    link("virbr0", "bridge"),
    link("ovsbr", "openvswitch", up=False),
    link("vnet0", "tun", master="br0"),
    {},
]


def test_links(said):
    links = Links.parse(said({LINKS.name: json.dumps(LINK_LIST)}))
    assert links.bridges == {"br0", "ovsbr"}
    assert {port.name for port in links.hardware("br0.20")} == {"eno1", "eno2"}
    assert links.find("eno1").master == "bond0"
    assert not links.find("ovsbr").up
    assert links.find("nope") is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[1]", "[{}]", '[{"ifname": "a"}]', '[{"ifname": 1, "mtu": 2, "flags": []}]']
)
def test_links_not_understood(said, text):
    with pytest.raises(Unavailable):
        Links.parse(said({LINKS.name: text}))


def test_way_out(said):
    routes = [{"dst": "default", "dev": "eno9", "metric": 100}, {"dst": "default", "dev": "br0"}]
    answers = {
        LINKS.name: json.dumps(LINK_LIST),
        ROUTES.name: json.dumps(routes),
        SPEEDS.name: "bond0 50000\neno1 25000\neno2 10000\nlo \nvirbr0 -1\n",
    }
    assert WayOut.parse(said(answers)).device == "br0"
    speeds = Speeds.parse(said(answers))
    assert (speeds.of("br0"), speeds.of("br0.20"), speeds.of("eno2")) == (25000, 25000, 10000)
    silent = Speeds.parse(said(answers | {SPEEDS.name: "eno1 -1\neno2 0\n"}))
    for device in ("br0", "vnet0", "nope"):
        with pytest.raises(Unavailable):
            silent.of(device)
    with pytest.raises(Unavailable):
        WayOut.parse(said(answers | {ROUTES.name: "[]"}))


N1, N2 = "0fd77d13-89ec-4b34-8fd4-5d601fa04580", "1ce8cacd-0e81-4e8d-939f-2efea999b70b"
XML = f"""\
{MARK}
{MARK} {N1}
<network><name>default</name><uuid>{N1}</uuid><forward mode='nat'/><bridge name='virbr0'/></network>

{MARK} {N2}
<network><name>prod</name><uuid>{N2}</uuid><forward mode='bridge'><interface dev='eno1'/></forward>
<portgroup name='web'/></network>

{MARK} end
"""


def test_libvirt_networks(said):
    answers = {NETWORKS.name: XML, NETWORKS_ACTIVE.name: f"{N2}\n\nautostart\n{N1}\n\n"}
    networks = LibvirtNetworks.parse(said(answers))
    default, prod = networks.find("default"), networks.find("prod")
    assert (default.active, default.autostart, default.forward, default.bridge) == (False, True, "nat", "virbr0")
    assert (prod.active, prod.devices, prod.portgroups, prod.bridge) == (True, ("eno1",), {"web"}, None)
    assert networks.find("other") is None


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {NETWORKS.name: XML, NETWORKS_ACTIVE.name: (1, "error: no connection")},
        {NETWORKS.name: XML, NETWORKS_ACTIVE.name: f"{N2}\n"},
        {NETWORKS.name: f"{MARK}\n{MARK} {N1}\nerror: Network not found\n", NETWORKS_ACTIVE.name: "autostart\n"},
        {NETWORKS.name: f"{MARK}\n", NETWORKS_ACTIVE.name: f"{N1}\nautostart\n"},
    ],
)
def test_networks_that_could_not_be_listed_are_unknown_one_by_one(said, answers):
    with pytest.raises(Unavailable):
        LibvirtNetworks.parse(said(answers)).find("other")


def test_subnets(said):
    def address(local, prefix):
        return {"local": local, "prefixlen": prefix}

    entries = [
        {"ifname": "br0", "addr_info": [address("10.0.0.11", 24), address("fe80::1", 64), address("fd00::1", 64)]},
        {"ifname": "lo", "addr_info": [address("127.0.0.1", 8)]},
        {},
    ]
    subnets = Subnets.parse(said({ADDRESSES.name: json.dumps(entries)}))
    assert subnets.of("br0") == {"10.0.0.0/24", "fd00::/64"}
    assert subnets.of("lo") == frozenset()


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(
                st.sampled_from(
                    ["ifname", "mtu", "flags", "dev", "metric", "addr_info", "local", "prefixlen", "linkinfo"]
                ),
                c,
            )
        ),
    ).map(json.dumps)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_either_read_or_refused(text):
    data = text.encode("utf-8", "surrogatepass")
    probes = (LINKS, ADDRESSES, ROUTES, SPEEDS, NETWORKS, NETWORKS_ACTIVE)
    said = Said(HostEvidence("h", {probe.name: Evidence(probe.name, 0, data) for probe in probes}))
    for kind in (Links, Subnets, OwnAddresses, Speeds, WayOut, LibvirtNetworks):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            kind.parse(said)


@pytest.mark.corpus
def test_real_links(samples, said):
    first, second = (Links.parse(said({LINKS.name: path.read_bytes()})) for path in samples("ip-link-json"))
    assert "br0" in first.bridges | second.bridges
    assert first.find("eno1").mtu == 9000
    assert first.find("eno1").master == "br0"


@pytest.mark.corpus
def test_real_addresses_and_routes(samples, said):
    [addresses], [routes] = samples("ip-addr-json"), samples("ip-route-json")
    assert Subnets.parse(said({ADDRESSES.name: addresses.read_bytes()})).subnets
    answers = {ROUTES.name: routes.read_bytes().replace(b'{"dst":"192', b'{"dev":null,"dst":"192')}
    answers |= {LINKS.name: samples("ip-link-json")[0].read_bytes(), SPEEDS.name: "eno1 25000\n"}
    assert WayOut.parse(said(answers)).device == "br0"


@pytest.mark.corpus
def test_real_network_xml(samples, said):
    [path] = samples("net-dumpxml")
    uuid = "9108a6db-c833-484e-8fb5-77768fdcfe5c"
    answers = {
        NETWORKS.name: f"{MARK}\n{MARK} {uuid}\n".encode() + path.read_bytes(),
        NETWORKS_ACTIVE.name: "autostart\n",
    }
    found = LibvirtNetworks.parse(said(answers)).find("default")
    assert (found.forward, found.bridge, found.active) == ("nat", "virbr0", False)
