"""Network checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import fields

import pytest

from audit.check import NotApplicable, Policy, Unavailable
from audit.facts.guest import GuestMemory
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.network import LibvirtNetwork, LibvirtNetworks, Link, Links, Subnets, WayOut
from checks import network as checks


def found(check, *facts):
    return list(check.function(*facts))


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


def test_speed():
    def memory(kib):
        return GuestMemory(kib, kib, (), frozenset(), False, False, False, False, False, None)

    large, fast, slow = memory(2 * 1024**3), WayOut("br0", 25000), WayOut("br0", 10000)
    assert not found(checks.migration_nic_speed, large, fast, fast, Policy())
    [finding] = found(checks.migration_nic_speed, large, fast, slow, Policy())
    assert finding.actual == "10000 Mbit/s on the target (br0)"
    with pytest.raises(Unavailable):
        found(checks.migration_nic_speed, large, fast, WayOut("br0", None), Policy())
    with pytest.raises(NotApplicable):
        found(checks.migration_nic_speed, memory(1024), slow, slow, Policy())
