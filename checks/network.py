"""Whether a guest's NICs find on the target what they are connected to here."""

import ipaddress
import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, Severity, Source, Stage, Target, check
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.network import LibvirtNetwork, LibvirtNetworks, Links, Subnets


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 qemuInterfaceBridgeConnect",
)
def sources_present(nics: GuestNics, links: Target[Links], networks: Target[LibvirtNetworks]) -> Iterator[Finding]:
    """The networks, bridges and devices that the guest's NICs connect to exist on the target and are up.

    The guest's configuration names them; the target takes them by that name.
    """
    for nic in dict.fromkeys(nics.nics):
        if nic.network is not None:
            yield from _network(nic.network, networks.find(nic.network), links)
        elif nic.type == "bridge" and nic.source:
            yield from _device(nic.source, links, is_bridge=True, switched=nic.virtualport == "openvswitch")
        elif nic.type == "direct" and nic.source:
            yield from _device(nic.source, links, is_bridge=False, switched=False)


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
        yield from _device(network.bridge, links, is_bridge=True, switched=False)


def _device(name: str, links: Links, *, is_bridge: bool, switched: bool) -> Iterator[Finding]:
    link = links.find(name)
    what = "bridge" if is_bridge else "device"
    if link is None:
        yield Finding(
            expected=f"the {what} {name} on the target",
            actual="not there",
            because=f"Cannot get interface MTU on '{name}': No such device",
            remedy=f"On the target: make {what} {shlex.quote(name)} as here; or migrate with --xml and another name",
        )
    elif not link.up and link.kind != "openvswitch" and not switched:
        # The local port of an Open vSwitch bridge is usually down; the switch works nevertheless.
        yield Finding(
            expected=f"{name} up on the target",
            actual="down",
            because="the guest would arrive and be cut off",
            remedy=f"On the target: ip link set {shlex.quote(name)} up",
        )


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
)
def common_bridge(
    here: Source[Links],
    our_networks: Source[LibvirtNetworks],
    there: Target[Links],
    their_networks: Target[LibvirtNetworks],
) -> Iterator[Finding]:
    """The two hosts have a bridge or an active libvirt network of the same name.

    A guest finds its network on the target by that name only.
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
    return frozenset(network.name for network in networks.networks if network.active)


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.6",
    plain_guest=True,
    remedy="Check the switch ports: the same networks, untagged and tagged, on both hosts",
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
