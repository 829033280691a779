"""What the network lets through between the hosts of a cluster: tried, not read from rules. Only for `--probe-network`.

Each host tries each peer's own addresses: a TCP connection to the ports of libvirt's transports that something listens
on there, to one port of QEMU's migration range and to one port above it; and two sizes of ping.

QEMU's socket for an incoming migration takes the first connection that comes: a stray one makes that migration fail.
So no port of the range is tried on which something listens, nor one that libvirt could hand out meanwhile: it hands
out the lowest free one, so the highest is tried, if enough below it are free. Nothing listens there, so the best
answer is "refused": by the target itself, or by a firewall that refuses (what `reject` of iptables and nft does, if not
told otherwise). The port above the range tells which: where that one is kept off and the other is refused, the
firewall lets the other through.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self, TypeVar

from audit.evidence import Evidence, Probe
from audit.facts.base import Facts, HostFact, NotAsked, Question, Said, Unavailable
from audit.facts.firewall import Listening
from audit.facts.names import OwnAddresses
from audit.facts.network import Address, Links
from audit.facts.qemu_conf import QemuConf
from audit.facts.services import Daemons, Sshd, control_ports
from audit.policy import MigrationTransport
from audit.text import visible

OPTION = "--probe-network"
ADDRESSES = 4
"""So many of a peer's addresses at most. sshd may be set to lock out who connects often without logging in."""
SPARE = 16
"""So many ports below the one that is tried must be free, so that no migration gets it meanwhile."""
COMPARED = 20
"""How far above the range a port to compare with is looked for."""

TRANSPORTS: tuple[MigrationTransport, ...] = ("ssh", "tls", "tcp")
Use = Literal["control", "migration", "compare"]
T = TypeVar("T")


def in_turn(host: str, peers: Sequence[str]) -> list[str]:
    """The peers, beginning after `host`: so that not all hosts try the same one at the same time."""
    names = sorted({host, *peers})
    at = names.index(host)
    return [*names[at + 1 :], *names[:at]]


def _targets(facts: Facts, host: str, peers: Sequence[str]) -> Iterator[tuple[str, list[Address]]]:
    """Each peer that told its addresses, with those to try: its alone, of networks that `host` is in too first."""
    owners = Counter(ip for _, own in facts.each([host, *peers], OwnAddresses) for ip in {a.ip for a in own.addresses})
    mine = [own for _, own in facts.each([host], OwnAddresses)]
    near = [ipaddress.ip_interface(f"{a.ip}/{a.prefix}").network for own in mine for a in own.addresses]
    for peer, own in facts.each(in_turn(host, peers), OwnAddresses):
        single = {a.ip: a for a in own.reachable if owners[a.ip] == 1}
        ordered = sorted(single.values(), key=lambda a: not any(ipaddress.ip_address(a.ip) in net for net in near))
        yield peer, ordered[:ADDRESSES]


def _ports(facts: Facts, peer: str) -> Iterator[tuple[Use, int]]:
    """The ports of a peer to try, and what for."""
    daemons = next((fact for _, fact in facts.each([peer], Daemons)), None)
    sshd = next((fact for _, fact in facts.each([peer], Sshd)), None)
    listening = next((fact for _, fact in facts.each([peer], Listening)), None)
    ports = dict.fromkeys(p for way in TRANSPORTS for p in _control_ports(way, daemons, sshd)[:2])
    conf = next((fact for _, fact in facts.each([peer], QemuConf)), None)
    for port in ports:
        of_qemu = port in (conf or QemuConf()).migration_ports
        if not of_qemu and (listening is None or listening.reachable(port)):
            yield "control", port
    if conf is not None:
        top = conf.migration_port_max
        if listening is not None and _is_spare(conf, listening):
            yield "migration", top
            above = range(top + 1, min(top + COMPARED, 65535) + 1)
            free = [port for port in above if port not in listening.ports and port not in ports]
            yield from (("compare", port) for port in free[:1])


def _control_ports(transport: MigrationTransport, daemons: Daemons | None, sshd: Sshd | None) -> tuple[int, ...]:
    try:
        return control_ports(transport, daemons, sshd)
    except Unavailable:
        return control_ports(transport, None, sshd)


def _is_spare(conf: QemuConf, listening: Listening) -> bool:
    """No migration has the range's highest port, nor gets it before it was tried."""
    taken = [port for port in listening.ports if port in conf.migration_ports]
    return conf.migration_port_max - max(taken, default=conf.migration_port_min - 1) >= SPARE


def _ask_ports(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    found = (
        (peer, address.ip, str(port), use)
        for peer, addresses in _targets(facts, host, peers)
        for use, port in _ports(facts, peer)
        for address in addresses
    )
    return [(str(number), *record) for number, record in enumerate(found)]


# One line for each attempt, in any order: its number, bash's exit status and the end of what it complained. One that
# got no answer is tried once more: a packet may be lost, and a busy host slow. The second one has the time to learn
# that nobody answers for the address (3 s).
PORTS = Question(
    "reach.ports",
    """
command -v bash >/dev/null || { echo "bash: not found" >&2; exit 127; }
read -r now rest </proc/uptime
xargs -0 -n 5 -P 32 sh -c '
[ $# -eq 5 ] || exit 0
read -r now rest </proc/uptime
[ "${now%.*}" -lt "$0" ] || exit 0
connect() {
    said=$(timeout -k 1 "$1" bash -c "exec 3<>/dev/tcp/\\$1/\\$2" try "$2" "$3" 2>&1)
    status=$?
}
connect 3 "$3" "$4"
[ "$status" -ne 124 ] || connect 4 "$3" "$4"
printf "%s %s %s\\n" "$1" "$status" "${said##*: }"
' "$((${now%.*} + 60))"
""",
    seconds=75,
    ask=_ask_ports,
    arity=5,
    maximum=2000,
    hand="timeout 4 bash -c 'exec 3<>/dev/tcp/ADDRESS/PORT'",
    option=OPTION,
)


def _ask_mtu(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    found = (
        (peer, address.ip, str(link.mtu))
        for peer, addresses in _targets(facts, host, peers)
        for _, links in facts.each([peer], Links)
        for address in addresses
        if (link := links.find(address.interface))
    )
    return [(str(number), *record) for number, record in enumerate(found)]


# One line for each address: its number, this host's device, the size tried (the smaller of both ends' MTU: two hosts
# that speak TCP agree on that), the exit status of a small and of a full ping, and the MTU reported on the way.
MTU = Question(
    "reach.mtu",
    """
command -v ping >/dev/null || { echo "ping: not found" >&2; exit 127; }
read -r now rest </proc/uptime
xargs -0 -n 4 -P 32 sh -c '
[ $# -eq 4 ] || exit 0
read -r now rest </proc/uptime
[ "${now%.*}" -lt "$0" ] || exit 0
device=$(ip -o route get "$3" 2>/dev/null | sed -n "s/.* dev \\([^ ]*\\).*/\\1/p")
mtu=$(cat "/sys/class/net/${device:--}/mtu" 2>/dev/null)
[ "${mtu:-0}" -gt 0 ] && [ "$mtu" -le "$4" ] || mtu=$4
case $3 in *:*) headers=48 ;; *) headers=28 ;; esac
full=- reported=
ping -n -c 3 -i 0.3 -W 2 -s 56 "$3" >/dev/null 2>&1
small=$?
if [ "$small" -eq 0 ]; then
    said=$(ping -n -M do -c 3 -i 0.3 -W 2 -s "$((mtu - headers))" "$3" 2>&1)
    full=$?
    reported=$(printf "%s\\n" "$said" | sed -n "s/.*mtu *[=:] *\\([0-9][0-9]*\\).*/\\1/p" | sed -n "\\$p")
fi
printf "%s %s %s %s %s %s\\n" "$1" "${device:--}" "$mtu" "$small" "$full" "${reported:--}"
' "$((${now%.*} + 60))"
""",
    seconds=75,
    ask=_ask_mtu,
    arity=4,
    maximum=1000,
    hand="ping -M do -c 3 -s 1472 ADDRESS",
    option=OPTION,
)


@dataclass(frozen=True, slots=True)
class Peer(HostFact):
    """The host as this run goes about it: peers' answers about it go by this name."""

    probes: ClassVar[tuple[Probe, ...]] = (PORTS,)
    name: str
    """In the inventory."""
    tries: bool
    """The network was tried from here, and so from its peers."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """It does not matter here how the attempts went."""
        try:
            said.evidence(PORTS)
        except NotAsked:
            return cls(said.host.host, False)
        except Unavailable:
            pass
        return cls(said.host.host, True)


State = Literal["open", "refused", "silent", "unreachable", "prohibited", "unrouted", "unsaid"]

_STATES: Mapping[str, State] = {
    "Connection refused": "refused",
    "Connection timed out": "silent",
    # What a firewall that rejects makes of IPv4; and an address of this network that nobody answers for.
    "No route to host": "unreachable",
    "Host is down": "unreachable",
    "Machine is not on the network": "unreachable",
    "Protocol not available": "unreachable",
    "Permission denied": "prohibited",  # what a firewall that rejects makes of IPv6
    "Network is unreachable": "unrouted",
    "Cannot assign requested address": "unrouted",
    "Address family not supported by protocol": "unrouted",
}
_ENDED = {124, 137}
"""By `timeout`."""


class Try(NamedTuple):
    """One attempt to connect. `words` tells why nothing is known of it (`unsaid`)."""

    use: Use
    address: str
    port: int
    state: State
    words: str = ""

    @property
    def kept_off(self) -> bool:
        """Nothing came back, or a word of another than the target's own TCP."""
        return self.state in {"silent", "unreachable", "prohibited", "unrouted"}


@dataclass(frozen=True, slots=True)
class Reach(HostFact):
    """What became of this host's attempts to connect to its peers."""

    probes: ClassVar[tuple[Probe, ...]] = (PORTS,)
    peers: tuple[tuple[str, tuple[Try, ...]], ...]

    def of(self, peer: str, use: Use) -> tuple[Try, ...]:
        """The attempts at that peer for that use, perhaps none. `NotAsked` if it was not tried at all."""
        return tuple(one for one in _of(self.peers, peer, PORTS) if one.use == use)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """An attempt that is not told of was not made in time."""
        answers = _answers(said, PORTS, 2)
        tries: dict[str, list[Try]] = {}
        for number, peer, address, port, use in said.evidence(PORTS).arguments:
            state, words = _state(answers.get(number))
            tries.setdefault(peer, []).append(Try(use, address, int(port), state, words))  # type: ignore[arg-type]  # its own record
        return cls(_by_peer(tries))


def _state(answer: Sequence[str] | None) -> tuple[State, str]:
    if answer is None:
        return "unsaid", "no time was left to try it"
    status, *rest = answer
    words = " ".join(rest)
    if int(status) == 0:
        return "open", ""
    if int(status) in _ENDED:
        return "silent", ""
    state = _STATES.get(words, "unsaid")
    return state, visible(words, 120) or f"exit status {status}" if state == "unsaid" else ""


class Path(NamedTuple):
    """What one path carries."""

    address: str
    device: str | None
    """None: no route."""
    size: int
    """Bytes of the IP packet that was tried."""
    answers: bool | None
    """To a small ping; None: `ping` failed, or there was no time."""
    carries: bool | None
    """The full packet was answered; None: not known."""
    reported: int | None
    """A smaller MTU that a router or this host told of."""

    @property
    def swallows(self) -> bool:
        """Full packets are lost and nobody says so: TCP, which would send smaller ones, never learns."""
        return self.carries is False and self.reported is None


@dataclass(frozen=True, slots=True)
class PathMtu(HostFact):
    """Whether packets as large as the devices at both ends allow get from here to the peers."""

    probes: ClassVar[tuple[Probe, ...]] = (MTU,)
    peers: tuple[tuple[str, tuple[Path, ...]], ...]

    def of(self, peer: str, *, asked: bool = False) -> tuple[Path, ...]:
        """The paths to that peer. `NotAsked` if none was tried, `Unavailable` where one was asked for."""
        return _of(self.peers, peer, MTU, asked=asked)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Status 0: an answer; 1: none; 2 and what else there is: no ping that could be sent."""
        answers = _answers(said, MTU, 6)
        paths: dict[str, list[Path]] = {}
        for number, peer, address, size in said.evidence(MTU).arguments:
            paths.setdefault(peer, []).append(_path(address, int(size), answers.get(number)))
        return cls(_by_peer(paths))


def _path(address: str, size: int, answer: Sequence[str] | None) -> Path:
    if answer is None:
        return Path(address, None, size, None, None, None)
    device, tried, small, full, reported = answer
    told = {"0": True, "1": False}
    return Path(
        address=address,
        device=None if device == "-" else visible(device, 40),
        size=int(tried),
        answers=told.get(small),
        carries=told.get(full),
        reported=None if reported == "-" else int(reported),
    )


def _answers(said: Said, probe: Question, words: int) -> dict[str, list[str]]:
    """Lines by the record's number that begins them; each has `words` words or more. No more lines than records."""
    evidence: Evidence = said.evidence(probe)
    if not evidence.arguments:
        return {}
    asked = {record[0] for record in evidence.arguments}
    found: dict[str, list[str]] = {}
    for line in said.lines(probe, ok=(0, 123)):
        number, *rest = line.split()
        if number not in asked or number in found or len(rest) + 1 < words:
            raise ValueError(f"not an answer: {visible(line, 100)}")
        found[number] = rest
    return found


def _by_peer(found: Mapping[str, Sequence[T]]) -> tuple[tuple[str, tuple[T, ...]], ...]:
    return tuple((peer, tuple(items)) for peer, items in sorted(found.items()))


def _of(
    peers: Sequence[tuple[str, tuple[T, ...]]], peer: str, probe: Question, *, asked: bool = False
) -> tuple[T, ...]:
    for name, items in peers:
        if name == peer:
            return items
    why = f"{visible(peer, 80)} was not tried: not asked in the same run, or its addresses unknown"
    raise Unavailable(probe, why) if asked else NotAsked(probe, why)


def announcement(clusters: Sequence[int]) -> str:
    """What the option is about to do, for whoever gave it; `clusters`: how many hosts each has."""
    pairs = sum(size * (size - 1) for size in clusters)
    if not pairs:
        return f"{OPTION}: no cluster has two hosts, so there is nothing to try."
    return (
        f"{OPTION}: {sum(clusters)} hosts try each other, within their cluster only, {pairs} ways. On each: at most "
        f"{ADDRESSES} addresses, with TCP connections to the listening ports of SSH and libvirt, to the highest port "
        "of QEMU's range and to one above it (closed at once; none to a port of the range that something listens on), "
        "and with 6 pings; and one ssh login in batch mode. Each attempt is given up after seconds, all of a host's "
        "after 4 minutes. Nothing is written; the targets' sshd logs the connections and logins."
    )
