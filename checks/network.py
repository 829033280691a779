"""Whether a guest's NICs find on the target what they are connected to here."""

import ipaddress
import shlex
from collections.abc import Iterator

from audit.check import (
    Blocks,
    Cluster,
    Finding,
    NotApplicable,
    Severity,
    Source,
    Stage,
    Target,
    Told,
    Unavailable,
    check,
)
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.layer2 import STATIONS, GuestVlans, Segment, Segments, contradiction, groups, proof
from audit.facts.network import LibvirtNetwork, LibvirtNetworks, Links, Subnets
from audit.text import some_of
from checks._nics import attachments

_SWITCH = "Check the switch ports: the same networks, untagged and tagged, on both hosts"
_OWN_NETWORK = {None: "isolated", "none": "isolated", "nat": "NAT", "route": "routed", "open": "routed"}
"""Networks that libvirt makes on each host for itself, by their `<forward mode=>`."""


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 qemuInterfaceBridgeConnect, qemuInterfaceEthernetConnect",
    covers=("12.6/bridge", "12.6/xml", "12.6/xml-trouble", "failure 32", "failure 33"),
)
def sources_present(nics: GuestNics, links: Target[Links], networks: Target[LibvirtNetworks]) -> Iterator[Finding]:
    """The networks, bridges and devices that the guest's NICs connect to exist on the target.

    The guest's configuration names them; the target takes them by that name. So it does with a tap or macvtap device
    that somebody else makes (type='ethernet', <target managed='no'/>), which has to be there before the guest.
    """
    for nic in dict.fromkeys(nics.nics):
        if nic.network is not None:
            yield from _network(nic.network, networks.find(nic.network), links)
        elif nic.type == "bridge" and nic.source:
            yield from _device(nic.source, links, is_bridge=True)
        elif nic.type == "direct" and nic.source:
            yield from _device(nic.source, links, is_bridge=False)
        elif nic.type == "ethernet" and nic.own_tap and nic.ifname and links.find(nic.ifname) is None:
            yield Finding(
                expected=f"the device {nic.ifname} on the target",
                actual="not there",
                because="target managed='no' but specified dev doesn't exist",
                remedy=f"On the target: ip tuntap add dev {shlex.quote(nic.ifname)} mode tap; connect it as here",
            )


def _network(name: str, network: LibvirtNetwork | None, links: Links) -> Iterator[Finding]:
    if network is None:
        yield Finding(
            expected=f"a libvirt network {name} on the target",
            actual="none",
            because=f"Network not found: no network with matching name '{name}'",
            remedy=f"virsh net-dumpxml {shlex.quote(name)} > net.xml; on the target: virsh net-define net.xml",
        )
    elif not network.active:
        yield Finding(
            expected=f"the libvirt network {name} active on the target",
            actual="inactive",
            because=f"network '{name}' is not active",
            remedy=f"On the target: virsh net-start {shlex.quote(name)}; virsh net-autostart {shlex.quote(name)}",
        )
    elif network.bridge:
        yield from _device(network.bridge, links, is_bridge=True)
    elif network.devices and not any(links.find(device) for device in network.devices):
        yield from _device(network.devices[0], links, is_bridge=False)


def _device(name: str, links: Links, *, is_bridge: bool) -> Iterator[Finding]:
    what = "bridge" if is_bridge else "device"
    if links.find(name) is None:
        yield Finding(
            expected=f"the {what} {name} on the target",
            actual="not there",
            because=f"Cannot get interface MTU on '{name}': No such device",
            remedy=f"On the target: make {what} {shlex.quote(name)} as here; or migrate with --xml and another name",
        )


@check(
    severity=Severity.HIGH,
    stage=Stage.AFTER,
    reference="libvirt 11.3 qemuInterfaceBridgeConnect: nobody looks",
    covers=("12.6/bridge", "failure 32"),
)
def sources_up(nics: GuestNics, links: Target[Links], networks: Target[LibvirtNetworks]) -> Iterator[Finding]:
    """The bridges and devices that the guest's NICs connect to are up on the target.

    libvirt plugs the guest in all the same; it arrives and is cut off, until somebody sets the device up. The local
    port of an Open vSwitch bridge is usually down; the switch works nevertheless.
    """
    for place in attachments(nics, networks):
        link = links.find(place.device)
        if link is not None and not link.up and link.kind != "openvswitch" and not place.switched:
            yield Finding(
                expected=f"{place.device} up on the target",
                actual="down",
                because="the guest would arrive and be cut off",
                remedy=f"On the target: ip link set {shlex.quote(place.device)} up",
            )


@check(
    severity=Severity.HIGH,
    stage=Stage.START,
    reference="libvirt formatnetwork: portgroup",
    remedy="virsh net-edit NETWORK on the target: the same <portgroup> as here",
    covers=("12.6/bridge",),
)
def portgroups_present(
    nics: GuestNics, our_networks: Source[LibvirtNetworks], networks: Target[LibvirtNetworks]
) -> Iterator[Finding]:
    """The target's libvirt networks have the port groups that the guest's NICs are in.

    A port group gives its VLAN, its bandwidth and its port profile. libvirt does not complain where one is missing:
    the guest arrives without them, in whatever network the bridge carries untagged.
    """
    asked = {(nic.network, nic.portgroup) for nic in nics.nics if nic.network is not None and nic.portgroup is not None}
    if not asked:
        raise NotApplicable("no NIC is in a port group")
    for name, group in sorted(asked):
        ours, theirs = our_networks.find(name), networks.find(name)
        if theirs and group not in theirs.portgroups and (ours is None or group in ours.portgroups):
            yield Finding(f"port group {group} in {name} on the target", ", ".join(sorted(theirs.portgroups)) or "none")


def _bridge(nic: Nic, networks: LibvirtNetworks) -> str | None:
    """The bridge or device that a NIC would be connected to on the host whose networks these are."""
    if nic.network is not None:
        network = networks.find(nic.network)
        return network.bridge if network else None
    return nic.source if nic.type in {"bridge", "direct"} else None


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="libvirt formatdomain: interface mtu",
    remedy="Set the same MTU on the target: ip link set DEVICE mtu N, and in the network configuration",
    covers=("failure 34", "failure 35"),
)
def mtu_same(
    nics: GuestNics,
    here: Source[Links],
    our_networks: Source[LibvirtNetworks],
    there: Target[Links],
    their_networks: Target[LibvirtNetworks],
) -> Iterator[Finding]:
    """The guest's bridges on the target carry packets as large as here.

    The guest keeps its MTU; larger packets than the target's bridge takes vanish, and connections hang.
    """
    for nic in dict.fromkeys(nics.nics):
        ours, theirs = _bridge(nic, our_networks), _bridge(nic, their_networks)
        link, other = (here.find(ours) if ours else None), (there.find(theirs) if theirs else None)
        if link and other and other.mtu < (nic.mtu or link.mtu):
            yield Finding(expected=f"{other.name} of MTU {nic.mtu or link.mtu} on the target", actual=str(other.mtu))


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="RHEL 9 §12.6",
    plain_guest=True,
    remedy="Give the bridges that guests use the same name on all hosts",
    covers=("12.6/bridge", "failure 32"),
)
def common_bridge(
    here: Source[Links],
    our_networks: Source[LibvirtNetworks],
    there: Target[Links],
    their_networks: Target[LibvirtNetworks],
) -> Iterator[Finding]:
    """The two hosts have a bridge or an active libvirt network of the same name.

    A guest finds its network on the target by that name only. Networks that end at the host (NAT, routed, isolated)
    do not count: both hosts have one called default, and neither leads to the other's.
    """
    ours, theirs = _active(our_networks), _active(their_networks)
    if here.bridges & there.bridges or ours & theirs:
        return
    yield Finding(
        expected="a bridge or an active libvirt network of the same name on both",
        actual=f"{', '.join(sorted(here.bridges | ours)) or 'none'} here, "
        f"{', '.join(sorted(there.bridges | theirs)) or 'none'} on the target",
    )


def _active(networks: LibvirtNetworks) -> frozenset[str]:
    return frozenset(
        network.name for network in networks.networks if network.active and network.forward not in _OWN_NETWORK
    )


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.6",
    plain_guest=True,
    remedy=_SWITCH,
    covers=("12.6/bridge", "failure 35"),
)
def same_subnet(
    here: Source[Links], our_subnets: Source[Subnets], there: Target[Links], their_subnets: Target[Subnets]
) -> Iterator[Finding]:
    """Bridges of the same name lead to the same IP network, where the hosts' own addresses show it.

    A guest keeps its address. Bridges without an address of the host's prove nothing either way.
    """
    for name in sorted(here.bridges & there.bridges):
        ours, theirs = _ipv4(our_subnets.of(name)), _ipv4(their_subnets.of(name))
        if ours and theirs and not ours & theirs:
            yield Finding(
                expected=f"{name} in {', '.join(sorted(ours))} on the target", actual=", ".join(sorted(theirs))
            )


def _ipv4(subnets: frozenset[str]) -> frozenset[str]:
    return frozenset(subnet for subnet in subnets if ipaddress.ip_network(subnet).version == 4)


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.6",
    remedy=_SWITCH,
    covers=("12.6/bridge", "failure 35"),
)
def same_network(
    nics: GuestNics,
    our_networks: Source[LibvirtNetworks],
    here: Source[Segments],
    their_networks: Target[LibvirtNetworks],
    there: Target[Segments],
) -> Iterator[Finding]:
    """Nothing speaks against the guest's bridges leading to the same networks on the target as here.

    A name is no proof. Other VLANs below a bridge, or a gateway with the same address and other hardware, mean that
    the guest would arrive in somebody else's network, unless a common neighbour or guest proves that it is the same.
    """
    for nic in dict.fromkeys(nics.nics):
        our_name, their_name = _bridge(nic, our_networks), _bridge(nic, their_networks)
        segment = here.find(our_name) if our_name else None
        other = there.find(their_name) if their_name else None
        against = contradiction(segment, other) if segment and other else None
        if segment is None or other is None or against is None or proof(segment, other):
            continue
        yield Finding(
            expected=f"{other.device} on the target to lead where {segment.device} leads here ({against.here})",
            actual=against.there,
            because="The guest would be cut off, or in another network.",
        )


@check(
    severity=Severity.INFO,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.6",
    remedy="ping a guest of one host from a guest of the other on that bridge, and collect again",
    covers=("12.6/bridge",),
)
def same_network_proved(hosts: Cluster[Segments]) -> Told:
    """Bridges of the same name that guests use are proved to be on one network.

    By a neighbour that two hosts see with the same hardware address, or by a guest of one host that the other hears.
    What is not proved is not wrong: hosts without an address on a bridge, or quiet guests, leave no trace.
    """
    bridges: dict[str, dict[str, Segment]] = {}
    for host in hosts:
        for segment in host.fact.segments:
            if segment.bridge:
                bridges.setdefault(segment.device, {})[host.host] = segment
    asked = {name: of for name, of in bridges.items() if len(of) > 1 and any(one.used for one in of.values())}
    if not asked:
        raise NotApplicable("no guest is on a bridge that several hosts have")
    unread = {host.host: host.fact.stations_unread for host in hosts if host.fact.stations_unread}
    for name, of in sorted(asked.items()):
        parts = groups(of)
        if len(parts) > 1 and unread.keys() & of.keys():
            yield Unavailable(STATIONS, next(why for host, why in unread.items() if host in of))
        elif len(parts) > 1:
            told = [f"one network of {some_of(part, 5)}" for part in parts if len(part) > 1]
            alone = [part[0] for part in parts if len(part) == 1]
            yield Finding(
                expected=f"{name} proved to be one network on the {len(of)} hosts that have it",
                actual="; ".join([*told, f"no proof about {some_of(alone, 5)}"] if alone else told),
                hosts=frozenset(of),
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="libvirt formatnetwork: forward",
    remedy="Connect the guest to a bridge that leads to a network of both hosts",
    covers=("12.6/bridge",),
)
def not_on_own_network(
    nics: GuestNics,
    networks: Source[LibvirtNetworks],
    here: Source[Subnets],
    their_networks: Target[LibvirtNetworks],
    there: Target[Subnets],
) -> Iterator[Finding]:
    """The guest is not on a network that its host, or the target, keeps for itself.

    libvirt's NAT, routed and isolated networks end at the host. After the move the guest is on the target's network
    of that name: connections that are open end, and neighbours on the source are out of reach.
    """
    for name in sorted({nic.network for nic in nics.nics if nic.network is not None}):
        ours, theirs = networks.find(name), their_networks.find(name)
        if ours is None or ours.forward not in _OWN_NETWORK or ours.bridge is None:
            if ours and theirs and theirs.bridge and theirs.forward in _OWN_NETWORK:
                yield Finding(
                    expected=f"{name} on the target to lead out of it, as here",
                    actual=f"{_OWN_NETWORK[theirs.forward]}, the target's own",
                    because="The guest would be cut off from its neighbours.",
                )
            continue
        mine = _ipv4(here.of(ours.bridge))
        other = _ipv4(there.of(theirs.bridge)) if theirs and theirs.bridge else frozenset()
        elsewhere = bool(mine and other and not mine & other)
        yield Finding(
            expected="a network that both hosts are on",
            actual=f"{name}: {_OWN_NETWORK[ours.forward]}, the host's own ({', '.join(sorted(mine)) or 'no subnet'})",
            because=f"The target's is {', '.join(sorted(other))}: the guest's address does not belong there."
            if elsewhere
            else "Open connections through the host end with the move.",
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="libvirt formatdomain: vlan; bridge(8)",
    remedy="On the target: bridge vlan add dev UPLINK vid VLAN, and in the network configuration",
    covers=("12.6/bridge", "failure 35"),
)
def vlans_carried(
    nics: GuestNics,
    vlans: GuestVlans,
    our_networks: Source[LibvirtNetworks],
    here: Source[Segments],
    networks: Target[LibvirtNetworks],
    there: Target[Segments],
) -> Iterator[Finding]:
    """The target's bridges let the VLANs that the guest's NICs are configured with out of the host.

    A bridge with VLAN filtering carries only those that its ports list; one without lets the guest into whatever it
    leads to. Whether the switch carries them cannot be seen from the host, and neither can what an Open vSwitch does.
    """
    if not any(vlans.tags):
        raise NotApplicable("no NIC has a VLAN of its own")
    tagged = [(nic, tags) for nic, tags in zip(nics.nics, vlans.tags, strict=True) if tags and nic.virtualport is None]
    if not tagged:
        raise NotApplicable("its VLANs are an Open vSwitch's, which is not looked into")
    for nic, tags in dict.fromkeys(tagged):
        name, our_name = _bridge(nic, networks), _bridge(nic, our_networks)
        segment, own = (there.find(name) if name else None), (here.find(our_name) if our_name else None)
        if segment is None:
            continue
        if not segment.filtering:
            if own and own.filtering:
                yield Finding(
                    expected=f"{name} on the target to keep VLANs apart, as {own.device} does here",
                    actual="VLAN filtering is off",
                    remedy="Set the target's bridge up as here, in its network configuration (bridge vlan show); "
                    "not while other guests are on it",
                )
        elif lacking := tags - there.carried(segment):
            yield Finding(
                expected=f"{name} on the target to carry VLAN {', '.join(map(str, sorted(lacking)))}",
                actual="no port to the outside lists it",
            )
