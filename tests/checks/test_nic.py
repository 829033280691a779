"""How NICs are connected to what the target has; among them what really happened in a lab of real migrations."""

from dataclasses import fields

import pytest

from audit.check import Blocks, NotApplicable, Unavailable
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.network import LibvirtNetwork, LibvirtNetworks, Link, Links
from audit.facts.nwfilters import Filter, Filters, GuestFilters, Reference
from audit.facts.openvswitch import Bridge, Database, OpenVswitch
from audit.facts.versions import Libvirt, Version
from checks import nic as checks
from tests.asked import found

NONE = LibvirtNetworks(())
UNREAD = LibvirtNetworks((), "no network driver")


def nics(**changes):
    return GuestNics((Nic(**{field.name: None for field in fields(Nic)} | {"type": "bridge"} | changes),))


BRIDGED = nics(source="br-int")
SWITCHED = nics(source="br-int", virtualport="openvswitch")
NETWORKED = nics(type="network", source="prod", network="prod")


def link(name="br-int", kind="bridge", master=None, lower=None, *, up=True, passthru=False):
    return Link(name, up, 1500, kind, master, lower, passthru)


def links(*those):
    return Links(those)


def network(bridge="br-int", *, forward="bridge", devices=(), switched=()):
    return LibvirtNetworks(
        (LibvirtNetwork("prod", True, False, forward, bridge, devices, frozenset(), frozenset(switched)),)
    )


def test_a_bridge_of_the_kernel():
    assert not found(checks.bridge_is_one, BRIDGED, links(link()), NONE)
    assert not found(checks.bridge_is_one, BRIDGED, links(), NONE), "network.sources_present tells that"
    assert not found(checks.bridge_is_one, SWITCHED, links(link(kind="openvswitch")), NONE)
    for kind in ("openvswitch", "tun", "veth", "bond", None):
        [finding] = found(checks.bridge_is_one, BRIDGED, links(link(kind=kind)), NONE)
        assert finding.because == "Unable to add bridge br-int port vnet0: Operation not supported"
    assert found(checks.bridge_is_one, NETWORKED, links(link(kind="openvswitch")), network())
    assert not found(checks.bridge_is_one, NETWORKED, links(link(kind="openvswitch")), network(switched=("",)))
    assert not found(checks.bridge_is_one, nics(type="direct", source="br-int"), links(link(kind=None)), NONE)
    with pytest.raises(Unavailable):
        found(checks.bridge_is_one, NETWORKED, links(link()), UNREAD)


def switch(*bridges, running=True, unread=""):
    database = unread or Database(frozenset(), tuple(Bridge(name, frozenset({name})) for name in bridges))
    return OpenVswitch(True, running, database)


ABSENT = OpenVswitch(False, False, "not installed")


@pytest.mark.parametrize(
    ("kind", "there", "lacks"),
    [
        ("openvswitch", switch("br-int"), None),
        ("openvswitch", switch(unread="not root"), None),
        ("openvswitch", switch("br-int", running=False), "Open vSwitch does not run"),
        ("tun", switch("br-int"), None),
        ("tun", switch("other"), "none of its bridges"),
        ("tun", ABSENT, "Open vSwitch is not installed"),
        ("bridge", switch("br-int"), "a bridge of the kernel's"),
        ("bridge", ABSENT, "a bridge of the kernel's"),
        (None, switch("other"), "none of its bridges"),
    ],
)
def test_a_bridge_of_open_vswitch(kind, there, lacks):
    told = found(checks.openvswitch_bridge, SWITCHED, links(link(kind=kind)), NONE, there)
    assert [finding.actual for finding in told] == ([lacks] if lacks else [])


def test_what_is_not_known_of_open_vswitch():
    assert not found(checks.openvswitch_bridge, SWITCHED, links(), NONE, ABSENT), "network.sources_present tells that"
    with pytest.raises(NotApplicable):
        found(checks.openvswitch_bridge, BRIDGED, links(link()), NONE, ABSENT)
    for kind, there in (
        ("openvswitch", ABSENT),
        ("tun", switch(unread="not root")),
        ("openvswitch", switch(running="?")),
    ):
        with pytest.raises(Unavailable):
            found(checks.openvswitch_bridge, SWITCHED, links(link(kind=kind)), NONE, there)
    with pytest.raises(Unavailable):
        found(checks.openvswitch_bridge, NETWORKED, links(link()), UNREAD, ABSENT)
    assert found(checks.openvswitch_bridge, NETWORKED, links(link()), network(switched=("",)), switch("br-int"))


def test_macvtap():
    direct = nics(type="direct", source="eno1", mode="bridge")
    alone = nics(type="direct", source="eno1", mode="passthrough")
    card = link("eno1", None)

    def judged(guest, *there):
        return [finding.actual for finding in found(checks.macvtap_possible, guest, links(*there), NONE)]

    assert judged(direct, card) == []
    assert judged(direct) == [], "network.sources_present tells that"
    assert judged(direct, link("eno1", None, "br0"), link("br0")) == ["a port of br0"]
    assert judged(direct, link("eno1", None, "vrf0"), link("vrf0", "vrf")) == []
    other = link("macvtap3", "macvtap", lower="eno1")
    assert judged(direct, card, other) == []
    assert judged(alone, card, other) == ["taken by macvtap3"]
    assert judged(direct, card, link("macvtap3", "macvtap", lower="eno1", passthru=True)) == ["taken by macvtap3"]
    pooled = network(None, devices=("eno1",))
    assert found(checks.macvtap_possible, NETWORKED, links(link("eno1", None, "br0"), link("br0")), pooled)
    with pytest.raises(NotApplicable):
        judged(BRIDGED, card)
    with pytest.raises(Unavailable):
        found(checks.macvtap_possible, NETWORKED, links(card), UNREAD)


def test_names_of_taps():
    named, new, old = (
        nics(source="br0", ifname="web0"),
        Libvirt(*[Version(9, 0, 0)] * 2),
        Libvirt(*[Version(8, 0, 0)] * 2),
    )
    [finding] = found(checks.name_free, named, links(link("web0", "veth")), old)
    assert finding.because == "The web0 interface already exists"
    assert found(checks.name_free, named, links(link("web0", "tun")), new)
    with pytest.raises(Unavailable):
        found(checks.name_free, named, links(link("web0", "tun")), old)
    assert not found(checks.name_free, named, links(link()), new)
    for free in (nics(ifname="vnet0"), nics(), nics(type="ethernet", ifname="web0", own_tap=True)):
        assert not found(checks.name_free, free, links(link("web0", "tun"), link("vnet0", "tun")), new)


def filters(*those, unread=""):
    return Filters(those, unread)


def of(name, variables=(), *includes, rules="same"):
    return Filter(name, rules, frozenset(variables), tuple(Reference(one, frozenset()) for one in includes))


SITE = GuestFilters((Reference("site", frozenset()),))


def test_filters_are_there():
    [finding] = found(checks.filters_present, SITE, filters())
    assert finding.because == "referenced filter 'site' is missing"
    [finding] = found(checks.filters_present, SITE, filters(of("site", (), "clean")))
    assert finding.expected == "a network filter clean on the target"
    assert not found(checks.filters_present, SITE, filters(of("site", (), "clean"), of("clean", (), "site")))
    with pytest.raises(Unavailable):
        found(checks.filters_present, SITE, filters(unread="no driver"))
    with pytest.raises(NotApplicable):
        found(checks.filters_present, GuestFilters(()), filters())
    assert checks.filters_present.blocks is Blocks.MIGRATION


def test_parameters_of_filters():
    def judged(variables, given=(), learning="any", inner=()):
        guest = GuestFilters((Reference("site", frozenset(given), learning),))
        there = filters(of("site", variables, "clean"), of("clean", inner))
        return [finding.actual for finding in found(checks.filter_parameters, guest, there)]

    assert judged(["MAC"]) == []
    assert judged(["PORT"]) == ["it uses PORT"]
    assert judged(["PORT"], ["PORT"]) == []
    assert judged([], ["PORT"], inner=["PORT"]) == []
    assert judged([], inner=["PORT", "IP"]) == ["it uses IP, PORT"]
    assert judged(["IP"]) == [], "libvirt learns it"
    assert judged(["IP"], learning="none") == ["it uses IP"]
    assert not found(checks.filter_parameters, SITE, filters()), "filters_present tells that"
    with pytest.raises(Unavailable):
        found(checks.filter_parameters, SITE, filters(unread="no driver"))
    with pytest.raises(NotApplicable):
        found(checks.filter_parameters, GuestFilters(()), filters())


def test_filters_have_the_same_rules():
    def judged(there):
        return [finding.expected for finding in found(checks.filters_alike, SITE, here, there)]

    here = filters(of("site", (), "clean"), of("clean"))
    assert judged(here) == []
    assert judged(filters(of("site", (), "clean"), of("clean", rules="other"))) == [
        "filter clean on the target as on the source"
    ]
    assert judged(filters()) == [], "filters_present tells that"
    with pytest.raises(Unavailable):
        judged(filters(unread="no driver"))
    with pytest.raises(NotApplicable):
        found(checks.filters_alike, GuestFilters(()), here, here)
