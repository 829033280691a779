"""The connections that a source can make to a target, and what packet filters say of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Literal

from audit.check import Finding, NotApplicable, Policy, Unavailable
from audit.facts.firewall import NFT, Firewall, Listening
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses
from audit.facts.netfilter import Answer, Packet
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import Peer
from checks._sockets import addresses_in
from checks._ways import everywhere, opening, shown

CONTROL = "to reach the target's libvirt"
DATA = "for the guest's memory and copied disks"


@dataclass(frozen=True, slots=True)
class Ways:
    """The connections that a source can make to the target."""

    by_name: tuple[Packet, ...] | None
    """By the name that it would use, all of which are tried. None: the name leads nowhere, or back to the source."""
    by_address: tuple[tuple[str, tuple[Packet, ...]], ...]
    """By each other address of the target; several packets: which of its own the source would use is not known."""

    @property
    def packets(self) -> list[Packet]:
        """All of them."""
        return [*(self.by_name or ()), *(packet for _, packets in self.by_address for packet in packets)]


def ways_to(
    name: str, peers: PeerAddresses, source: OwnAddresses, target: OwnAddresses, only: str | None = None
) -> Ways:
    """`only`: the one address that the target listens on."""
    routes = [route for route in peers.of(name) if not route.leads_here]
    named = tuple(packet_to(route.source, route.address, target) for route in routes if route.device)
    others = {its.ip for its in target.reachable if not source.interface_of(its.ip)}
    others -= {route.address for route in routes if route.device}
    listening = [its for its in sorted(others) if only is None or ip_address(its) == ip_address(only)]
    ways = ((its, tuple(packet_to(mine, its, target) for mine in nearest(source, its))) for its in listening)
    return Ways(named if routes else None, tuple((its, packets) for its, packets in ways if packets))


def packet_to(mine: str | None, its: str, target: OwnAddresses) -> Packet:
    """The packet as the target meets it."""
    return Packet(6 if ":" in its else 4, 0, mine, its, target.interface_of(its))


def nearest(source: OwnAddresses, its: str) -> list[str]:
    """Addresses that the source may come from: those in the same network, else all of that IP version."""
    same = [mine for mine in source.reachable if (":" in mine.ip) == (":" in its)]
    near = [mine.ip for mine in same if ip_address(its) in ip_interface(f"{mine.ip}/{mine.prefix}").network]
    return near or [mine.ip for mine in same]


State = Literal["open", "closed", "unknown"]


def named_state(firewall: Firewall, ports: range, ways: Ways) -> State:
    """Of the name: one open way is enough."""
    states = states_of(answers_to(firewall, ports, ways.by_name or ()))
    return "open" if "open" in states else "closed" if states <= {"closed"} else "unknown"


def open_address(firewall: Firewall, ports: range, ways: Ways) -> str | None:
    """An address by which the target is reached for certain."""
    for address, packets in ways.by_address:
        if states_of(answers_to(firewall, ports, packets)) == {"open"}:
            return address
    return None


def answers_to(firewall: Firewall, ports: range, packets: Sequence[Packet]) -> list[tuple[range, Answer]]:
    """What becomes of each packet, at each of the ports that fare differently."""
    return [answer for packet in packets for answer in firewall.answers(ports, packet)]


def states_of(answers: Sequence[tuple[range, Answer]]) -> set[str]:
    """Which of open, closed and unknown occur."""
    return {answer.state for _, answer in answers}


def rules_of(answers: Sequence[tuple[range, Answer]]) -> str:
    """The rules that they go back to, each once."""
    return "; ".join(dict.fromkeys(rule for _, answer in answers for rule in answer.rules))


def control_ways(peer: Peer, names: OwnNames, peers: PeerAddresses, source: OwnAddresses, target: OwnAddresses) -> Ways:
    """To the target's libvirt: by the name that the inventory has, or the target's own where that one leads nowhere."""
    known = [name for name in (peer.name, names.libvirt, names.fqdn, names.hostname) if name]
    name = next((name for name in known if _leads_away(name, peers)), peer.name)
    return ways_to(name, peers, source, target)


def _leads_away(name: str, peers: PeerAddresses) -> bool:
    try:
        return any(not route.leads_here for route in peers.of(name))
    except Unavailable:
        return False


def data_ways(
    conf: QemuConf, names: OwnNames, peers: PeerAddresses, source: OwnAddresses, own: OwnAddresses, policy: Policy
) -> Ways:
    """For guests: to the name that libvirt on the target gives, or to its address in the policy's network."""
    if policy.migration_network:
        chosen = addresses_in(policy.migration_network, own)
        packets = tuple(packet_to(mine, its, own) for its in chosen for mine in nearest(source, its))
        if not packets:
            raise NotApplicable("the target has no address in policy.migration_network, which is judged apart")
        return Ways(packets, ())
    name = conf.migration_host or names.name_for_migration
    return ways_to(name, peers, source, own, None if everywhere(conf) else conf.migration_address)


def first_port(firewall: Firewall, conf: QemuConf, listening: Listening, packets: Sequence[Packet]) -> range:
    """The port that libvirt takes for the next guest: the lowest of the range on which nothing listens.

    What listens does not matter where the rules treat the whole range alike.
    """
    ports = conf.migration_ports
    if all(len(firewall.answers(ports, packet)) == 1 for packet in packets):
        return ports[:1]
    return next((range(port, port + 1) for port in ports if port not in listening.ports), ports[:1])


def judge_answers(
    firewall: Firewall, ports: range, answers: Sequence[tuple[range, Answer]], use: str, lifted_by: tuple[str, ...] = ()
) -> Iterator[Finding]:
    """One finding if all `answers` are no, nothing if all are yes; unknown otherwise."""
    if not answers:
        raise Unavailable(NFT, "no way from the source to the target is known")
    if states_of(answers) == {"closed"}:
        yield Finding(
            expected=f"TCP port {shown(ports)} is open",
            actual=f"closed by: {rules_of(answers)}",
            because=f"It is needed {use}.",
            remedy=opening(firewall, ports),
            lifted_by=lifted_by,
        )
    elif states_of(answers) != {"open"}:
        raise Unavailable(NFT, f"whether TCP port {shown(ports)} is open cannot be told from: {rules_of(answers)}")
