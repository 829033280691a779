"""The way through the target's firewall: for the connection to libvirt and for QEMU's data.

QEMU and libvirt try every address that a name leads to, and one open way is enough. Where all that the name leads to
are closed while another address of the target is open, the usual command is refused, and one that names that address
works: that is another way, told beside the verdict.
"""

from collections.abc import Callable, Iterator, Sequence

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
from checks._paths import (
    CONTROL,
    DATA,
    Ways,
    answers_to,
    control_ways,
    data_ways,
    first_port,
    judge_answers,
    named_state,
    open_address,
    rules_of,
    states_of,
)
from checks._ways import (
    TRIED,
    anybody,
    command,
    control_ranges,
    control_tried,
    data_tried,
    from_here,
    in_force,
    migrate_uri,
    needs_ports,
    opening,
    settled,
    shown,
    speaks_from_source,
    uri,
)

_FOR_EACH_PAIR = "it depends on the way a source takes, and is judged for each pair"
_FOR_ALL = "it is the same for every source"


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
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
    states = [states_of(answers_to(firewall, ports, anybody(own))) for ports in candidates]
    return {"open"} in states or all(state == {"closed"} for state in states)


def _control_for_all(firewall: Firewall, own: OwnAddresses, candidates: Sequence[range]) -> Iterator[Finding]:
    found = [(ports, answers_to(firewall, ports, anybody(own))) for ports in candidates]
    if not any(states_of(answers) == {"open"} for _, answers in found):
        yield from judge_answers(firewall, *found[0], CONTROL)


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
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
    speaks_from_source(policy)
    candidates = control_ranges(daemons, sshd, policy)
    if settled(lambda: control_tried(reach, peer, own, source, candidates)):
        raise NotApplicable(TRIED)
    if _same_for_all(firewall, own, candidates):
        if not peer.tries:
            raise NotApplicable(_FOR_ALL)
        yield from _control_for_all(firewall, own, candidates)
        return
    ways = control_ways(peer, names, peers, source, own)
    if not any(_passable(firewall, ports, ways) for ports in candidates):
        found = [(ports, answers_to(firewall, ports, ways.packets)) for ports in candidates]
        ports, answers = next((item for item in found if states_of(item[1]) != {"closed"}), found[0])
        yield from judge_answers(firewall, ports, answers, CONTROL, from_here(policy))


def _passable(firewall: Firewall, ports: range, ways: Ways) -> bool:
    """The source gets through, by the target's name or, where that is closed for certain, by another address."""
    named = named_state(firewall, ports, ways)
    return named == "open" or (named == "closed" and open_address(firewall, ports, ways) is not None)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
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
    speaks_from_source(policy)
    candidates = control_ranges(daemons, sshd, policy)
    if settled(lambda: control_tried(reach, peer, own, source, candidates)):
        raise NotApplicable(TRIED)
    if _same_for_all(firewall, own, candidates):
        raise NotApplicable(_FOR_ALL)
    ways = control_ways(peer, names, peers, source, own)
    if ways.by_name is None:
        raise NotApplicable(_NO_NAME)
    if not any(named_state(firewall, ports, ways) in {"open", "unknown"} for ports in candidates):
        ports = next((ports for ports in candidates if open_address(firewall, ports, ways)), candidates[0])
        yield from _detour(firewall, ports, ways, lambda address: uri(policy, address), from_here(policy))


_NO_NAME = "the target's name leads nowhere, which is judged apart"


def _detour(
    firewall: Firewall, ports: range, ways: Ways, option: Callable[[str], str], lifted_by: tuple[str, ...]
) -> Iterator[Finding]:
    """The name's way is closed; another may be open, by which `option` then leads. Nothing, if all are closed."""
    answers = answers_to(firewall, ports, ways.by_name or ())
    address = open_address(firewall, ports, ways)
    if address is None and states_of(answers_to(firewall, ports, ways.packets)) <= {"closed"}:
        return
    yield Finding(
        expected=f"TCP port {shown(ports)} is open by the target's name",
        actual=f"closed by: {rules_of(answers)}" if answers else "the source has no route there",
        because=f"It is open at {address}." if address else "Whether it is open at other addresses is not known.",
        remedy=command(option(address)) if address else opening(firewall, ports),
        lifted_by=(*lifted_by, ANOTHER_ADDRESS) if address else lifted_by,
        about=option(address) if address else "",
    )


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/ports-migration", "failure 37"),
)
def migration_ports_open(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    conf: Target[QemuConf],
    age: Target[ConfInForce],
    listening: Target[Listening],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's firewall lets guests in: the first free port of QEMU's migration range is open.

    The guest's memory does not travel through the SSH or TLS connection to libvirt, but by a connection of its own
    to a port that QEMU opens for the time of the migration: the lowest free one from 49152, unless qemu.conf says
    otherwise. (Tunnelled migration, `--p2p --tunnelled`, needs none, at the price of speed.)
    """
    needs_ports(policy)
    in_force(conf, age)
    if peer.tries:
        raise NotApplicable(_FOR_EACH_PAIR)
    first = first_port(firewall, conf, listening, anybody(own))
    if not _same_for_all(firewall, own, [first]):
        raise NotApplicable(_FOR_EACH_PAIR)
    yield from _data_for_all(firewall, own, conf, first)


def _data_for_all(firewall: Firewall, own: OwnAddresses, conf: QemuConf, first: range) -> Iterator[Finding]:
    answers = answers_to(firewall, first, anybody(own))
    yield from judge_answers(firewall, _concerned(firewall, conf, first, anybody(own)), answers, DATA, (TUNNELLED,))


def _concerned(firewall: Firewall, conf: QemuConf, first: range, packets: Sequence[Packet]) -> range:
    """The whole range, where none of it is open; else the port that libvirt would take."""
    states = states_of(answers_to(firewall, conf.migration_ports, packets))
    return conf.migration_ports if states == {"closed"} else first


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
    age: Target[ConfInForce],
    names: Target[OwnNames],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    reach: Source[Reach],
    listening: Target[Listening],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's firewall lets this source's guests in, by one way at least.

    Where the rules depend on who connects and by which interface, the answer holds for one source only.
    """
    needs_ports(policy)
    in_force(conf, age)
    if settled(lambda: data_tried(reach, peer, firewall, conf, own, source)):
        raise NotApplicable(TRIED)
    first = first_port(firewall, conf, listening, anybody(own))
    if _same_for_all(firewall, own, [first]):
        if not peer.tries:
            raise NotApplicable(_FOR_ALL)
        yield from _data_for_all(firewall, own, conf, first)
        return
    ways = data_ways(conf, names, peers, source, own, policy)
    if not _passable(firewall, first, ways):
        answers = answers_to(firewall, first, ways.packets)
        ports = _concerned(firewall, conf, first, ways.packets)
        yield from judge_answers(firewall, ports, answers, DATA, (TUNNELLED,))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/ports-migration", "failure 37"),
)
def migration_ports_open_by_name(
    firewall: Target[Firewall],
    own: Target[OwnAddresses],
    conf: Target[QemuConf],
    age: Target[ConfInForce],
    names: Target[OwnNames],
    source: Source[OwnAddresses],
    peers: Source[PeerAddresses],
    reach: Source[Reach],
    listening: Target[Listening],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's firewall lets this source's guests in by the name that libvirt uses, not by another address only.

    Unless told otherwise, libvirt sends the guest to the target's own name. Where that leads into a network in which
    the ports are closed, the migration fails; with the option in the remedy it takes the network in which they are
    open.
    """
    needs_ports(policy)
    in_force(conf, age)
    if settled(lambda: data_tried(reach, peer, firewall, conf, own, source)):
        raise NotApplicable(TRIED)
    first = first_port(firewall, conf, listening, anybody(own))
    if _same_for_all(firewall, own, [first]):
        raise NotApplicable(_FOR_ALL)
    ways = data_ways(conf, names, peers, source, own, policy)
    if ways.by_name is None:
        raise NotApplicable(_NO_NAME)
    if named_state(firewall, first, ways) == "closed":
        yield from _detour(firewall, first, ways, migrate_uri, (TUNNELLED,))


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
    answers = answers_to(firewall, conf.migration_ports, anybody(own))
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
            raise Unavailable(NFT, f"whether TCP ports {which} are open cannot be told from: {rules_of(unsure)}")


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


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt virPortAllocatorAcquire",
    remedy="ss -ltnp  # on the target; or raise migration_port_max in its qemu.conf, and restart libvirt's daemon",
    covers=("12.6/ports-migration", "failure 38"),
)
def migration_port_free(
    conf: Target[QemuConf], age: Target[ConfInForce], listening: Target[Listening], policy: Policy
) -> Iterator[Finding]:
    """A port of QEMU's migration range is free on the target.

    libvirt takes the lowest on which nothing listens, and refuses the guest where there is none.
    """
    needs_ports(policy)
    in_force(conf, age)
    if not set(conf.migration_ports) - listening.ports:
        yield Finding(
            expected=f"a free TCP port of {shown(conf.migration_ports)}",
            actual="something listens on each",
            because="Unable to find an unused port in range 'migration'",
            lifted_by=(TUNNELLED,),
        )
