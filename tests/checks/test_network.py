"""Network checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import fields, replace

import pytest

from audit.check import At, Blocks, NotApplicable, Severity, Unavailable
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.layer2 import GuestVlans, Neighbour, Segment, Segments
from audit.facts.network import LibvirtNetwork, LibvirtNetworks, Link, Links, Subnets
from checks import network as checks
from tests.asked import found


def nic(**changes):
    return Nic(**{field.name: None for field in fields(Nic)} | {"type": "bridge"} | changes)


def link(name="br0", kind="bridge", mtu=1500, *, up=True):
    return Link(name, up, mtu, kind, None, None)


def links(*those):
    return Links(those)


def network(name="prod", bridge="br0", *, active=True, forward="bridge", devices=(), groups=()):
    return LibvirtNetworks((LibvirtNetwork(name, active, False, forward, bridge, devices, frozenset(groups)),))


NONE = LibvirtNetworks(())
BRIDGED = GuestNics((nic(source="br-prod"),))
NETWORKED = GuestNics((nic(source="br0", bridge="br0", network="prod"),))


def test_bridges():
    [finding] = found(checks.sources_present, BRIDGED, links(link()), NONE)
    assert finding.because == "Cannot get interface MTU on 'br-prod': No such device"
    assert not found(checks.sources_present, BRIDGED, links(link("br-prod")), NONE)
    assert not found(checks.sources_present, BRIDGED, links(link("br-prod", up=False)), NONE)


def test_a_bridge_that_is_down_cuts_off_and_stops_nothing():
    [finding] = found(checks.sources_up, BRIDGED, links(link("br-prod", up=False)), NONE)
    assert finding.remedy == "On the target: ip link set br-prod up"
    assert checks.sources_up.blocks is Blocks.NOTHING
    assert not found(checks.sources_up, BRIDGED, links(link("br-prod")), NONE)
    assert not found(checks.sources_up, BRIDGED, links(), NONE), "sources_present tells that"
    assert not found(checks.sources_up, BRIDGED, links(link("br-prod", "openvswitch", up=False)), NONE)
    direct = GuestNics((nic(type="direct", source="eno1"),))
    assert found(checks.sources_up, direct, links(link("eno1", None, up=False)), NONE)
    with pytest.raises(Unavailable):
        found(checks.sources_up, NETWORKED, links(link()), LibvirtNetworks((), "no network driver"))


def test_libvirt_networks():
    [finding] = found(checks.sources_present, NETWORKED, links(link()), NONE)
    assert finding.because == "Network not found: no network with matching name 'prod'"
    [finding] = found(checks.sources_present, NETWORKED, links(link()), network(active=False))
    assert finding.because == "network 'prod' is not active"
    assert not found(checks.sources_present, NETWORKED, links(link()), network())
    assert found(checks.sources_present, NETWORKED, links(), network())
    with pytest.raises(Unavailable):
        found(checks.sources_present, NETWORKED, links(link()), LibvirtNetworks((), "no network driver"))


def test_networks_without_a_bridge_need_one_of_their_devices():
    passed = network(bridge=None, forward="passthrough", devices=("ens1f0", "ens1f1"))
    [finding] = found(checks.sources_present, NETWORKED, links(link()), passed)
    assert finding.expected == "the device ens1f0 on the target"
    assert not found(checks.sources_present, NETWORKED, links(link("ens1f1", None)), passed)


def test_the_local_port_of_an_open_vswitch_may_be_down():
    switched = GuestNics((nic(type="network", source="br0", network="prod", virtualport="openvswitch"),))
    userspace = links(link(kind="tun", up=False))
    assert not found(checks.sources_up, switched, userspace, network())
    assert found(checks.sources_up, NETWORKED, userspace, network())


def test_port_groups():
    def judged(theirs, ours=("v10", "v20"), group="v10"):
        nics = GuestNics((nic(type="network", source="br0", network="prod", portgroup=group),))
        return found(checks.portgroups_present, nics, network(groups=ours), network(groups=theirs))

    assert not judged(("v10",))
    [finding] = judged(("v20", "v30"))
    assert (finding.expected, finding.actual) == ("port group v10 in prod on the target", "v20, v30")
    assert not judged((), ours=()), "missing here as well: nothing changes"
    assert not found(checks.portgroups_present, _grouped(), network(groups=["v10"]), NONE), "network.sources_present"
    with pytest.raises(NotApplicable):
        judged((), group=None)
    unread = LibvirtNetworks((), "no network driver")
    for ours, theirs in ((network(groups=["v10"]), unread), (unread, network(groups=["v10"]))):
        with pytest.raises(Unavailable):
            found(checks.portgroups_present, _grouped(), ours, theirs)
    assert (checks.portgroups_present.severity, checks.portgroups_present.blocks) == (Severity.HIGH, Blocks.NOTHING)


def _grouped():
    return GuestNics((nic(type="network", source="br0", network="prod", portgroup="v10"),))


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
    for forward in ("nat", "route", None):
        default = network("default", "virbr0", forward=forward)
        assert found(checks.common_bridge, links(), default, links(), default), "each host's own"


def test_same_subnet():
    def subnets(*those):
        return Subnets((("br0", frozenset(those)),))

    def judged(ours, theirs):
        return found(checks.same_subnet, links(link()), ours, links(link()), theirs)

    assert not judged(subnets("10.0.0.0/24", "fd00::/64"), subnets("10.0.0.0/24"))
    assert judged(subnets("10.0.0.0/24"), subnets("10.0.1.0/24"))
    assert not judged(subnets("10.0.0.0/24"), Subnets(()))


def segment(device="br0", vlans=(), gateway=None, mac="aa:aa:aa:aa:aa:01", carried=None, *, used=True):
    return Segment(
        device,
        frozenset(vlans),
        carried is not None,
        frozenset(carried or ()),
        frozenset({gateway} if gateway else ()),
        frozenset({Neighbour(gateway, mac)} if gateway else ()),
        bridge=True,
        used=used,
    )


def segments(*those, unread="", unheard=""):
    return Segments(those, unread, unheard)


def test_what_speaks_against_one_network():
    def judged(here, there):
        return found(checks.same_network, NETWORKED, network(), here, network(), there)

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
    mac = frozenset({"52:54:00:00:00:01"})
    heard = segments(replace(segment(vlans=[100]), guests=mac)), segments(replace(segment(vlans=[200]), outside=mac))
    assert not judged(*heard), "proved all the same"
    assert (checks.same_network.severity, checks.same_network.blocks) == (Severity.MEDIUM, Blocks.NOTHING)
    unread = LibvirtNetworks((), "no network driver")
    with pytest.raises(Unavailable):
        found(checks.same_network, NETWORKED, unread, one, network(), one)


def test_what_proves_one_network():
    def judged(*hosts):
        return found(checks.same_network_proved, tuple(At(f"h{n}", fact) for n, fact in enumerate(hosts)))

    router, silent = segments(segment(gateway="10.0.0.1")), segments(segment())
    assert not judged(router, router)
    assert not judged(router, router, segments(segment("br1"))), "one host alone has it"
    [finding] = judged(router, silent, router, silent)
    assert finding.expected == "br0 proved to be one network on the 4 hosts that have it"
    assert finding.actual == "one network of h0, h2; no proof about h1, h3"
    assert finding.hosts == {"h0", "h1", "h2", "h3"}
    [finding] = judged(*(silent for _ in range(9)))
    assert finding.actual == "no proof about h0, h1, h2, h3, h4 and 4 more"
    deaf = segments(segment(), unheard="bridge: not found")
    with pytest.raises(Unavailable):
        judged(router, deaf)
    assert not judged(router, segments(segment(gateway="10.0.0.1"), unheard="bridge: not found"))
    with pytest.raises(NotApplicable):
        judged(segments(segment(used=False)), segments(segment(used=False)))
    with pytest.raises(NotApplicable):
        judged(router, segments(replace(segment(), bridge=False)))
    assert checks.same_network_proved.severity is Severity.INFO


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
    [finding] = judged(own("bridge"), their_networks=own(None))
    assert finding.actual == "isolated, the target's own"
    assert not found(checks.not_on_own_network, BRIDGED, NONE, Subnets(()), NONE, Subnets(()))
    with pytest.raises(Unavailable):
        judged(LibvirtNetworks((), "no network driver"))


def test_vlans_of_the_guest():
    def judged(target, tags=(10,), nics=BRIDGED, source=None):
        here = source or segments(segment("br-prod"))
        return found(checks.vlans_carried, nics, GuestVlans((frozenset(tags),)), NONE, here, NONE, target)

    [finding] = judged(segments(segment("br-prod", carried=[1, 20])))
    assert finding.expected == "br-prod on the target to carry VLAN 10"
    assert not judged(segments(segment("br-prod", carried=[1, 10])))
    assert not judged(segments(segment("br-prod"))), "neither bridge filters"
    [finding] = judged(segments(segment("br-prod")), source=segments(segment("br-prod", carried=[10])))
    assert finding.actual == "VLAN filtering is off"
    switched = GuestNics((nic(source="br-prod", virtualport="openvswitch"),))
    with pytest.raises(NotApplicable, match="Open vSwitch"):
        judged(segments(segment("br-prod", carried=[1])), nics=switched)
    with pytest.raises(Unavailable):
        judged(segments(segment("br-prod", carried=[1]), unread="bridge: not found"))
    with pytest.raises(NotApplicable):
        judged(segments(), tags=())
