"""The way through the target's firewall: for the connection to libvirt and for QEMU's data.

One open way between two hosts is enough to migrate: QEMU and libvirt try every address that a name leads to, and any
other address of the target can be given to `virsh migrate`. So a way that is closed while another is open is worth an
action, and does not make the migration impossible.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Literal

from audit.check import Blocks, Finding, NotApplicable, Policy, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.firewall import NFT, Firewall
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses
from audit.facts.netfilter import Answer, Packet
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import Peer, Reach
from audit.facts.services import Daemons, Sshd
from checks._ways import (
    TRIED,
    anybody,
    control_ranges,
    control_tried,
    data_tried,
    everywhere,
    opening,
    settled,
    shown,
    url,
)

_FOR_EACH_PAIR = "it depends on the way a source takes, and is judged for each pair"
_FOR_ALL = "it is the same for every source"


@dataclass(frozen=True, slots=True)
class _Ways:
    """The connections that a source can make to the target."""

    by_name: tuple[Packet, ...] | None
    """By the name that it would use, all of which are tried. None: the name leads nowhere, or back to the source."""
    by_address: tuple[tuple[str, tuple[Packet, ...]], ...]
    """By each other address of the target; several packets: which of its own the source would use is not known."""

    @property
    def packets(self) -> list[Packet]:
        """All of them."""
        return [*(self.by_name or ()), *(packet for _, packets in self.by_address for packet in packets)]


def _ways(
    name: str, peers: PeerAddresses, source: OwnAddresses, target: OwnAddresses, only: str | None = None
) -> _Ways:
    """`only`: the one address that the target listens on."""
    routes = [route for route in peers.of(name) if not route.leads_here]
    named = tuple(_packet(route.source, route.address, target) for route in routes if route.device)
    others = {its.ip for its in target.reachable if not source.interface_of(its.ip)}
    others -= {route.address for route in routes if route.device}
    listening = [its for its in sorted(others) if only is None or ip_address(its) == ip_address(only)]
    ways = ((its, tuple(_packet(mine, its, target) for mine in _nearest(source, its))) for its in listening)
    return _Ways(named if routes else None, tuple((its, packets) for its, packets in ways if packets))


def _packet(mine: str | None, its: str, target: OwnAddresses) -> Packet:
    return Packet(6 if ":" in its else 4, 0, mine, its, target.interface_of(its))


def _nearest(source: OwnAddresses, its: str) -> list[str]:
    """Addresses that the source may come from: those in the same network, else all of that IP version."""
    same = [mine for mine in source.reachable if (":" in mine.ip) == (":" in its)]
    near = [mine.ip for mine in same if ip_address(its) in ip_interface(f"{mine.ip}/{mine.prefix}").network]
    return near or [mine.ip for mine in same]


State = Literal["open", "closed", "unknown"]


def _named_state(firewall: Firewall, ports: range, ways: _Ways) -> State:
    """Of the name: one open way is enough."""
    states = _states(_answers(firewall, ports, ways.by_name or ()))
    return "open" if "open" in states else "closed" if states <= {"closed"} else "unknown"


def _open_address(firewall: Firewall, ports: range, ways: _Ways) -> str | None:
    """An address by which the target is reached for certain."""
    for address, packets in ways.by_address:
        if _states(_answers(firewall, ports, packets)) == {"open"}:
            return address
    return None


def _answers(firewall: Firewall, ports: range, packets: Sequence[Packet]) -> list[tuple[range, Answer]]:
    return [answer for packet in packets for answer in firewall.answers(ports, packet)]


def _states(answers: Sequence[tuple[range, Answer]]) -> set[str]:
    return {answer.state for _, answer in answers}


def _rules(answers: Sequence[tuple[range, Answer]]) -> str:
    return "; ".join(dict.fromkeys(rule for _, answer in answers for rule in answer.rules))


def _judge(firewall: Firewall, ports: range, answers: Sequence[tuple[range, Answer]], use: str) -> Iterator[Finding]:
    """One finding if all `answers` are no, nothing if all are yes; unknown otherwise."""
    if not answers:
        raise Unavailable(NFT, "no way from the source to the target is known")
    if _states(answers) == {"closed"}:
        yield Finding(
            expected=f"TCP port {shown(ports)} is open",
            actual=f"closed by: {_rules(answers)}",
            because=f"It is needed {use}.",
            remedy=opening(firewall, ports),
        )
    elif _states(answers) != {"open"}:
        raise Unavailable(NFT, f"whether TCP port {shown(ports)} is open cannot be told from: {_rules(answers)}")


_CONTROL = "to reach the target's libvirt"
_DATA = "for the guest's memory and copied disks"


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/port-ssh", "12.6/port-tls", "12.6/port-tcp"),
)
def control_port_open(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    daemons: Target[Daemons],
    sshd: Target[Sshd],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's firewall lets others reach libvirt: port 22 for SSH, 16514 for TLS, 16509 for unencrypted TCP.

    The source speaks with the target's libvirt before and during the migration. (Red Hat's guide has 16509 and
    16514 the wrong way round.)
    """
    if peer.tries:
        raise NotApplicable(_FOR_EACH_PAIR)
    candidates = control_ranges(daemons, sshd, policy)
    if not _same_for_all(firewall, own, candidates):
        raise NotApplicable(_FOR_EACH_PAIR)
    yield from _control_for_all(firewall, own, candidates)


def _same_for_all(firewall: Firewall, own: OwnAddresses, candidates: Sequence[range]) -> bool:
    """One of the ports is open whoever connects, or all are closed."""
    states = [_states(_answers(firewall, ports, anybody(own))) for ports in candidates]
    return {"open"} in states or all(state == {"closed"} for state in states)


def _control_for_all(firewall: Firewall, own: OwnAddresses, candidates: Sequence[range]) -> Iterator[Finding]:
    found = [(ports, _answers(firewall, ports, anybody(own))) for ports in candidates]
    if not any(_states(answers) == {"open"} for _, answers in found):
        yield from _judge(firewall, *found[0], _CONTROL)


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/port-ssh", "12.6/port-tls", "12.6/port-tcp"),
)
def control_port_open_to_source(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    daemons: Target[Daemons],
    sshd: Target[Sshd],
    names: Target[OwnNames],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    reach: Source[Reach],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's firewall lets this source reach libvirt.

    Where the rules depend on who connects and by which interface, the answer holds for one source only.
    """
    candidates = control_ranges(daemons, sshd, policy)
    if settled(lambda: control_tried(reach, peer, own, source, candidates)):
        raise NotApplicable(TRIED)
    if _same_for_all(firewall, own, candidates):
        if not peer.tries:
            raise NotApplicable(_FOR_ALL)
        yield from _control_for_all(firewall, own, candidates)
        return
    ways = _ways(names.name_for_migration, peers, source, own)
    if not any(_passable(firewall, ports, ways) for ports in candidates):
        found = [(ports, _answers(firewall, ports, ways.packets)) for ports in candidates]
        ports, answers = next((item for item in found if _states(item[1]) != {"closed"}), found[0])
        yield from _judge(firewall, ports, answers, _CONTROL)


def _passable(firewall: Firewall, ports: range, ways: _Ways) -> bool:
    """The source gets through, by the target's name or, where that is closed for certain, by another address."""
    named = _named_state(firewall, ports, ways)
    return named == "open" or (named == "closed" and _open_address(firewall, ports, ways) is not None)


@check(
    severity=Severity.HIGH,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/port-ssh", "12.6/port-tls", "12.6/port-tcp"),
)
def control_port_open_by_name(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    daemons: Target[Daemons],
    sshd: Target[Sshd],
    names: Target[OwnNames],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    reach: Source[Reach],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's firewall lets this source reach libvirt by the target's own name, not by another address only.

    The name may lead into a network in which the port is closed, while it is open in another. The connection then
    needs an address of the other network.
    """
    candidates = control_ranges(daemons, sshd, policy)
    if settled(lambda: control_tried(reach, peer, own, source, candidates)):
        raise NotApplicable(TRIED)
    if _same_for_all(firewall, own, candidates):
        raise NotApplicable(_FOR_ALL)
    ways = _ways(names.name_for_migration, peers, source, own)
    if ways.by_name is None:
        raise NotApplicable(_NO_NAME)
    if any(_named_state(firewall, ports, ways) == "open" for ports in candidates):
        return
    for ports in candidates:
        if _named_state(firewall, ports, ways) == "closed" and (address := _open_address(firewall, ports, ways)):
            yield _detour(
                firewall, ports, ways, address, f"virsh migrate … {url(f'qemu+{policy.transport}', address)}/system"
            )
            return


_NO_NAME = "the target's name leads nowhere, which is judged apart"


def _detour(firewall: Firewall, ports: range, ways: _Ways, address: str, remedy: str) -> Finding:
    """The name's way is closed, that of `address` is open."""
    answers = _answers(firewall, ports, ways.by_name or ())
    return Finding(
        expected=f"TCP port {shown(ports)} is open by the target's name",
        actual=f"closed by: {_rules(answers)}" if answers else "the source has no route there",
        because=f"It is open at {address}.",
        remedy=remedy,
    )


def _first(ports: range) -> range:
    return ports[:1]


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/ports-migration", "failure 37"),
)
def migration_ports_open(
    firewall: Target[Firewall], own: Target[OwnAddresses], conf: Target[QemuConf], peer: Target[Peer]
) -> Iterator[Finding]:
    """The target's firewall lets guests in: the first port of QEMU's migration range is open.

    The guest's memory does not travel through the SSH or TLS connection to libvirt, but by a connection of its own
    to a port that QEMU opens for the time of the migration: the lowest free one from 49152, unless qemu.conf says
    otherwise. (Tunnelled migration, `--p2p --tunnelled`, needs none, at the price of speed.)
    """
    if peer.tries:
        raise NotApplicable(_FOR_EACH_PAIR)
    if not _same_for_all(firewall, own, [_first(conf.migration_ports)]):
        raise NotApplicable(_FOR_EACH_PAIR)
    yield from _data_for_all(firewall, own, conf)


def _data_for_all(firewall: Firewall, own: OwnAddresses, conf: QemuConf) -> Iterator[Finding]:
    answers = _answers(firewall, _first(conf.migration_ports), anybody(own))
    yield from _judge(firewall, conf.migration_ports, answers, _DATA)


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/reachable", "12.6/ports-migration", "failure 37"),
)
def migration_ports_open_to_source(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    conf: Target[QemuConf],
    names: Target[OwnNames],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    reach: Source[Reach],
    peer: Target[Peer],
) -> Iterator[Finding]:
    """The target's firewall lets this source's guests in, by one way at least.

    Where the rules depend on who connects and by which interface, the answer holds for one source only.
    """
    first = _first(conf.migration_ports)
    if settled(lambda: data_tried(reach, peer, firewall, conf, own, source)):
        raise NotApplicable(TRIED)
    if _same_for_all(firewall, own, [first]):
        if not peer.tries:
            raise NotApplicable(_FOR_ALL)
        yield from _data_for_all(firewall, own, conf)
        return
    ways = _data_ways(conf, names, peers, source, own)
    if not _passable(firewall, first, ways):
        answers = _answers(firewall, first, ways.packets)
        yield from _judge(firewall, conf.migration_ports if _states(answers) == {"closed"} else first, answers, _DATA)


def _data_ways(conf: QemuConf, names: OwnNames, peers: PeerAddresses, source: OwnAddresses, own: OwnAddresses) -> _Ways:
    name = conf.migration_host or names.name_for_migration
    return _ways(name, peers, source, own, None if everywhere(conf) else conf.migration_address)


@check(
    severity=Severity.HIGH,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/ports-migration", "failure 37"),
)
def migration_ports_open_by_name(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    conf: Target[QemuConf],
    names: Target[OwnNames],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    reach: Source[Reach],
    peer: Target[Peer],
) -> Iterator[Finding]:
    """The target's firewall lets this source's guests in by the name that libvirt uses, not by another address only.

    Unless told otherwise, libvirt sends the guest to the target's own name. Where that leads into a network in which
    the ports are closed, the migration fails; with the option in the remedy it takes the network in which they are
    open.
    """
    first = _first(conf.migration_ports)
    if settled(lambda: data_tried(reach, peer, firewall, conf, own, source)):
        raise NotApplicable(TRIED)
    if _same_for_all(firewall, own, [first]):
        raise NotApplicable(_FOR_ALL)
    ways = _data_ways(conf, names, peers, source, own)
    if ways.by_name is None:
        raise NotApplicable(_NO_NAME)
    if _named_state(firewall, first, ways) == "closed" and (address := _open_address(firewall, first, ways)):
        yield _detour(
            firewall, conf.migration_ports, ways, address, f"virsh migrate --migrateuri {url('tcp', address)} …"
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/ports-migration", "failure 38"),
)
def migration_range_open(
    firewall: Target[Firewall], own: Target[OwnAddresses], conf: Target[QemuConf]
) -> Iterator[Finding]:
    """All ports of the migration range are open, if its first one is.

    Every migration takes the lowest free port, and one more for disks that are copied. With only the first ones
    open a single migration works, and several at the same time fail.
    """
    answers = _answers(firewall, conf.migration_ports, anybody(own))
    first = [answer for ports, answer in answers if conf.migration_ports.start in ports]
    closed = [ports for ports, answer in answers if answer.state == "closed"]
    if closed and all(answer.state == "open" for answer in first):
        yield Finding(
            expected=f"TCP ports {shown(conf.migration_ports)} are open",
            actual=f"closed: {', '.join(dict.fromkeys(map(shown, closed)))}",
            because=f"Only {closed[0].start - conf.migration_ports.start} migrations at a time would get through, "
            "half as many if disks are copied.",
            remedy=opening(firewall, conf.migration_ports),
        )
    elif all(answer.state == "open" for answer in first):
        unsure = [(ports, answer) for ports, answer in answers if answer.state == "unknown"]
        if unsure:
            which = ", ".join(dict.fromkeys(shown(ports) for ports, _ in unsure))
            raise Unavailable(NFT, f"whether TCP ports {which} are open cannot be told from: {_rules(unsure)}")


@check(
    severity=Severity.INFO,
    stage=Stage.TRANSFER,
    reference="libvirt qemu.conf: migration_port_min",
    covers=("12.6/ports-migration", "failure 38"),
)
def migration_range_width(conf: Target[QemuConf]) -> Iterator[Finding]:
    """qemu.conf leaves at least the default 64 ports for incoming migrations.

    Each migration that comes in takes one, and one more if disks are copied; where none is free it is refused.
    """
    if len(conf.migration_ports) < 64:
        yield Finding("64 ports or more", f"{len(conf.migration_ports)}: {shown(conf.migration_ports)}")
