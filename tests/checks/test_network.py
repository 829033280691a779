"""Network checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import fields

import pytest

from audit.check import Blocks, NotApplicable, Severity, Unavailable
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.layer2 import GuestVlans, Neighbour, Segment, Segments, Station, Stations
from audit.facts.network import LibvirtNetwork, LibvirtNetworks, Link, Links, Subnets
from checks import network as checks
from tests.asked import found


def nic(**changes):
    return Nic(**{field.name: None for field in fields(Nic)} | {"type": "bridge"} | changes)


def link(name="br0", kind="bridge", mtu=1500, *, up=True):
    return Link(name, up, mtu, kind, None, None)


def links(*those):
    return Links(those)


def network(name="prod", bridge="br0", *, active=True):
    return LibvirtNetworks((LibvirtNetwork(name, active, False, "bridge", bridge, (), frozenset()),))


NONE = LibvirtNetworks(())
BRIDGED = GuestNics((nic(source="br-prod"),))
NETWORKED = GuestNics((nic(source="br0", bridge="br0", network="prod"),))


def test_bridges():
    [finding] = found(checks.sources_present, BRIDGED, links(link()), NONE)
    assert finding.because == "Cannot get interface MTU on 'br-prod': No such device"
    assert not found(checks.sources_present, BRIDGED, links(link("br-prod")), NONE)
    assert found(checks.sources_present, BRIDGED, links(link("br-prod", up=False)), NONE)
    assert not found(checks.sources_present, BRIDGED, links(link("br-prod", "openvswitch", up=False)), NONE)


def test_libvirt_networks():
    [finding] = found(checks.sources_present, NETWORKED, links(link()), NONE)
    assert finding.because == "Network not found: no network with matching name 'prod'"
    [finding] = found(checks.sources_present, NETWORKED, links(link()), network(active=False))
    assert finding.because == "network 'prod' is not active"
    assert not found(checks.sources_present, NETWORKED, links(link()), network())
    assert found(checks.sources_present, NETWORKED, links(), network())
    with pytest.raises(Unavailable):
        found(checks.sources_present, NETWORKED, links(link()), LibvirtNetworks((), "no network driver"))


def test_networks_matter_to_those_who_use_them():
    unread = LibvirtNetworks((), "no network driver")
    assert not found(checks.sources_present, GuestNics((nic(type="user"), nic(source="br0"))), links(link()), unread)


def test_direct_devices():
    direct = GuestNics((nic(type="direct", source="eno1"),))
    assert found(checks.sources_present, direct, links(), NONE)
    assert not found(checks.sources_present, direct, links(link("eno1", None)), NONE)


def test_devices_that_libvirt_does_not_make():
    tap = GuestNics((nic(type="ethernet", ifname="mytap1", own_tap=True),))
    [finding] = found(checks.sources_present, tap, links(), NONE)
    assert finding.because == "target managed='no' but specified dev doesn't exist"
    assert not found(checks.sources_present, tap, links(link("mytap1", "tun", up=False)), NONE)
    made = GuestNics((nic(type="ethernet", ifname="vnet3"),))
    assert not found(checks.sources_present, made, links(), NONE)


def test_mtu():
    def judged(ours, theirs, nics=NETWORKED):
        return found(checks.mtu_same, nics, links(link(mtu=ours)), network(), links(link(mtu=theirs)), network())

    assert judged(9000, 1500)
    assert not judged(1500, 9000)
    assert not judged(1500, 1500)
    assert judged(9000, 8000, GuestNics((nic(source="br0", mtu=9000),)))
    bridge, unread = links(link()), LibvirtNetworks((), "no network driver")
    with pytest.raises(Unavailable, match="no network driver"):
        found(checks.mtu_same, NETWORKED, bridge, network(), bridge, unread)


def test_common_bridge():
    assert not found(checks.common_bridge, links(link()), NONE, links(link()), NONE)
    assert not found(checks.common_bridge, links(), network(), links(), network())
    assert found(checks.common_bridge, links(link()), NONE, links(link("br1")), NONE)
    assert found(checks.common_bridge, links(), network(), links(), network(active=False))


def test_same_subnet():
    def subnets(*those):
        return Subnets((("br0", frozenset(those)),))

    def judged(ours, theirs):
        return found(checks.same_subnet, links(link()), ours, links(link()), theirs)

    assert not judged(subnets("10.0.0.0/24", "fd00::/64"), subnets("10.0.0.0/24"))
    assert judged(subnets("10.0.0.0/24"), subnets("10.0.1.0/24"))
    assert not judged(subnets("10.0.0.0/24"), Subnets(()))


def segment(device="br0", vlans=(), gateway=None, mac="aa:aa:aa:aa:aa:01", carried=None):
    neighbours = frozenset({Neighbour(gateway, mac)} if gateway else ())
    gateways = frozenset({gateway} if gateway else ())
    return Segment(device, frozenset(vlans), carried is not None, frozenset(carried or ()), gateways, neighbours)


def segments(*those, unread=""):
    return Segments(those, unread)


QUIET = Stations(frozenset(), frozenset())


def test_what_speaks_against_one_network():
    def judged(here, there, ours=QUIET, theirs=QUIET):
        return found(checks.same_network, NETWORKED, network(), here, network(), there, ours, theirs)

    one, other = segments(segment(vlans=[100])), segments(segment(vlans=[200]))
    assert not judged(one, one)
    assert not judged(one, segments(segment()))
    assert not judged(one, segments()), "network.sources_present tells that it is not there"
    [finding] = judged(one, other)
    assert finding.actual == "VLAN 200"
    router = segments(segment(gateway="10.0.0.1"))
    [finding] = judged(router, segments(segment(gateway="10.0.0.1", mac="aa:aa:aa:aa:aa:02")))
    assert finding.actual == "gateway 10.0.0.1 at aa:aa:aa:aa:aa:02"
    assert not judged(router, segments(segment(gateway="10.0.0.1", mac="00:00:5e:00:01:01")))
    guest = frozenset({Station("br0", "52:54:00:00:00:01", None)})
    assert not judged(one, other, Stations(guest, frozenset()), Stations(frozenset(), guest)), "proved all the same"
    assert (checks.same_network.severity, checks.same_network.blocks) == (Severity.MEDIUM, Blocks.NOTHING)


def test_what_proves_one_network():
    tap = Link("vnet0", True, 1500, "tun", "br0", None)
    used = links(link(), tap)

    def judged(here, there, ours=QUIET, theirs=QUIET, theirs_links=used):
        return found(checks.same_network_proved, used, here, ours, theirs_links, there, theirs)

    router, silent = segments(segment(gateway="10.0.0.1")), segments(segment())
    assert not judged(router, router)
    [finding] = judged(router, silent)
    assert finding.actual == "br0: not contradicted, not proved"
    [finding] = judged(segments(segment(vlans=[1])), segments(segment(vlans=[2])))
    assert finding.actual == "br0: VLAN 1 here, VLAN 2 on the target"
    assert not judged(router, router, Stations(frozenset(), frozenset(), "bridge: not found"))
    with pytest.raises(Unavailable):
        judged(router, silent, Stations(frozenset(), frozenset(), "bridge: not found"))
    with pytest.raises(NotApplicable):
        judged(router, router, theirs_links=links(link("br1")))
    with pytest.raises(NotApplicable):
        found(checks.same_network_proved, links(link()), router, QUIET, links(link()), router, QUIET)
    assert checks.same_network_proved.severity is Severity.INFO


def test_what_is_proved_is_said_beside_what_is_not():
    both = links(link(), link("br1"), *(Link(f"vnet{n}", True, 1500, "tun", f"br{n}", None) for n in (0, 1)))
    here = segments(segment(gateway="10.0.0.1"), segment("br1"))
    [finding] = found(checks.same_network_proved, both, here, QUIET, both, here, QUIET)
    assert finding.actual == "br1: not contradicted, not proved"
    assert finding.because == "br0 is proved by the neighbour 10.0.0.1 at aa:aa:aa:aa:aa:01"


def test_networks_of_the_hosts_own():
    def own(forward, bridge="virbr0"):
        return LibvirtNetworks((LibvirtNetwork("prod", True, True, forward, bridge, (), frozenset()),))

    def judged(networks, ours=("192.168.122.0/24",), theirs=("192.168.122.0/24",), their_networks=None):
        here, there = (Subnets((("virbr0", frozenset(those)),)) for those in (ours, theirs))
        return found(checks.not_on_own_network, NETWORKED, networks, here, their_networks or networks, there)

    [finding] = judged(own("nat"))
    assert finding.actual == "prod: NAT, the host's own (192.168.122.0/24)"
    assert "Open connections" in finding.because
    [finding] = judged(own("nat"), theirs=("192.168.100.0/24",))
    assert "does not belong there" in finding.because
    assert judged(own(None))
    assert judged(own("nat"), their_networks=NONE)
    assert not judged(own("bridge"))
    assert not found(checks.not_on_own_network, BRIDGED, NONE, Subnets(()), NONE, Subnets(()))
    with pytest.raises(Unavailable):
        judged(LibvirtNetworks((), "no network driver"))


def test_vlans_of_the_guest():
    def judged(target, tags=(10,), nics=BRIDGED):
        return found(checks.vlans_carried, nics, GuestVlans((frozenset(tags),)), NONE, target)

    [finding] = judged(segments(segment("br-prod", carried=[1, 20])))
    assert finding.expected == "br-prod on the target to carry VLAN 10"
    assert not judged(segments(segment("br-prod", carried=[1, 10])))
    assert not judged(segments(segment("br-prod"))), "a bridge that does not filter"
    switched = GuestNics((nic(source="br-prod", virtualport="openvswitch"),))
    assert not judged(segments(segment("br-prod", carried=[1])), nics=switched)
    with pytest.raises(Unavailable):
        judged(segments(segment("br-prod", carried=[1]), unread="bridge: not found"))
    with pytest.raises(NotApplicable):
        judged(segments(), tags=())
