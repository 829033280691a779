"""The source's own packet filter: whether it lets out what a migration sends.

Most hosts let out everything. Where a policy is kept for outgoing connections too, SSH is in it as a rule, and QEMU's
ports are forgotten: libvirt is reached, and the guest is not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from audit.check import (
    ANOTHER_ADDRESS,
    TUNNELLED,
    Blocks,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Stage,
    Target,
    Unavailable,
    check,
)
from audit.facts.firewall import NFT, Firewall, Listening
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses
from audit.facts.netfilter import Packet
from audit.facts.qemu_conf import ConfInForce, QemuConf
from audit.facts.reach import Peer, Reach
from audit.facts.services import Daemons, Sshd
from checks._paths import Ways, answers_to, control_ways, data_ways, first_port, rules_of, states_of
from checks._ways import (
    TRIED,
    command,
    control_ranges,
    control_tried,
    data_tried,
    from_here,
    in_force,
    migrate_uri,
    needs_ports,
    settled,
    shown,
    speaks_from_source,
    uri,
)


def _leaving(source: OwnAddresses, packets: Sequence[Packet]) -> list[Packet]:
    """The packets as the source sends them. By which device is known, where it comes from one of its addresses."""
    return [
        replace(packet, leaving=True, interface=source.interface_of(packet.source) if packet.source else None)
        for packet in packets
    ]


def _judge(
    firewall: Firewall,
    ports: range,
    source: OwnAddresses,
    ways: Ways,
    lifted_by: tuple[str, ...],
    option: Callable[[str], str],
) -> Iterator[Finding]:
    """A finding if none of the ways that are taken is let out."""
    named = answers_to(firewall, ports, _leaving(source, ways.by_name or ()))
    states = states_of(named)
    if not named or "open" in states:
        return
    if states != {"closed"}:
        raise Unavailable(NFT, f"whether the source lets out TCP to port {shown(ports)}: {rules_of(named)}")
    other = next(
        (address for address, packets in ways.by_address if _open(firewall, ports, source, packets)),
        None,
    )
    yield Finding(
        expected=f"the source lets out connections to TCP port {shown(ports)} of the target",
        actual=f"closed by: {rules_of(named)}",
        because=f"It lets them out to {other}." if other else "",
        remedy=command(option(other)) if other else _opening(firewall, ports),
        lifted_by=(*lifted_by, ANOTHER_ADDRESS) if other else lifted_by,
        about=option(other) if other else "",
    )


def _open(firewall: Firewall, ports: range, source: OwnAddresses, packets: Sequence[Packet]) -> bool:
    return states_of(answers_to(firewall, ports, _leaving(source, packets))) == {"open"}


def _opening(firewall: Firewall, ports: range) -> str:
    """What lets it out, in the language of whoever keeps the rules."""
    match firewall.keeper:
        case "firewalld":
            rule = f"-p tcp --dport {shown(ports).replace('-', ':')} -j ACCEPT"
            return f"On the source: firewall-cmd --direct --add-rule ipv4 filter OUTPUT 0 {rule}"
        case "ufw":
            return f"On the source: ufw allow out {shown(ports).replace('-', ':')}/tcp"
    return f"On the source: iptables -I OUTPUT -p tcp --dport {shown(ports).replace('-', ':')} -j ACCEPT"


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/reachable", "failure 37"),
)
def control_port(
    firewall: Source[Firewall],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    daemons: Target[Daemons],
    sshd: Target[Sshd],
    reach: Source[Reach],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The source's own firewall lets out connections to the target's libvirt.

    Rules for outgoing connections are rare, and refuse just as those for incoming ones do.
    """
    speaks_from_source(policy)
    candidates = control_ranges(daemons, sshd, policy)
    if settled(lambda: control_tried(reach, peer, own, source, candidates)):
        raise NotApplicable(TRIED)
    ways = control_ways(peer, names, peers, source, own)
    yield from _judge(firewall, candidates[0], source, ways, from_here(policy), lambda address: uri(policy, address))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="nft(8): ct state; iptables-extensions(8): conntrack",
    covers=("12.6/ports-migration", "failure 37"),
)
def answers(
    firewall: Target[Firewall],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    conf: Target[QemuConf],
    age: Target[ConfInForce],
    listening: Target[Listening],
    reach: Source[Reach],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's own firewall lets out QEMU's answers to the source.

    A policy that drops what the host sends has to accept what belongs to connections that others made
    (`ct state established`); rules by port alone forget QEMU's ports, and the source waits in vain.
    """
    needs_ports(policy)
    in_force(conf, age)
    if settled(lambda: data_tried(reach, peer, firewall, conf, own, source)):
        raise NotApplicable(TRIED)
    ways = data_ways(conf, names, peers, source, own, policy)
    packets = [
        replace(packet, source=packet.destination, destination=packet.source, leaving=True, reply=True)
        for packet in ways.by_name or ()
    ]
    first = first_port(firewall, conf, listening, packets)
    found = answers_to(firewall, first, packets)
    if states_of(found) == {"closed"}:
        yield Finding(
            expected=f"the target answers from TCP port {shown(first)}",
            actual=f"closed by: {rules_of(found)}",
            remedy="On the target: iptables -I OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            lifted_by=(TUNNELLED,),
        )
    elif found and "open" not in states_of(found):
        raise Unavailable(NFT, f"whether the target answers from TCP port {shown(first)}: {rules_of(found)}")


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/reachable", "12.6/ports-migration", "failure 37"),
)
def migration_ports(
    firewall: Source[Firewall],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    conf: Target[QemuConf],
    age: Target[ConfInForce],
    listening: Target[Listening],
    reach: Source[Reach],
    there: Target[Firewall],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The source's own firewall lets out connections to QEMU's migration ports on the target.

    The guest's memory goes by a connection of its own, to a port from 49152 on, which a policy for outgoing
    connections seldom has.
    """
    needs_ports(policy)
    in_force(conf, age)
    if settled(lambda: data_tried(reach, peer, there, conf, own, source)):
        raise NotApplicable(TRIED)
    ways = data_ways(conf, names, peers, source, own, policy)
    first = first_port(firewall, conf, listening, _leaving(source, ways.by_name or ()))
    yield from _judge(firewall, first, source, ways, (TUNNELLED,), migrate_uri)
