"""Storage that QEMU itself speaks to over the network (Ceph, iSCSI, NBD, …): whether a host finds and reaches it.

A path on a mounted file system is looked up where it lies; of such a disk nothing lies on the host. Looked at is what
the storage's name leads to there. With `--probe-network` it is also asked for a connection, closed again at once;
only storage is, that running guests of the cluster use at that moment.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.names import PEERS, Route, read_routes
from audit.facts.reach import OPTION
from audit.text import visible

_HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")


def _portals(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, int]]:
    """Every portal of a running guest's disk."""
    named: dict[tuple[str, int], None] = {}
    for guest, disks in facts.each_guest(sorted({host, *peers}), GuestDisks):
        state = facts.of_guest(guest, GuestState)
        if isinstance(state, Unavailable) or not state.active:
            continue
        for disk in disks.disks:
            named.update(dict.fromkeys(disk.portals))
    return [(name, port) for name, port in named if _HOST.fullmatch(name) and not name.startswith("-")]


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Number, host, port."""
    portals = _portals(facts, host, peers)
    return tuple((str(number), name, str(port)) for number, (name, port) in enumerate(portals))


SERVERS = Question(
    "storage.servers",
    PEERS.command,
    seconds=120,
    ask=lambda facts, host, peers: tuple((name,) for name in dict.fromkeys(n for n, _ in _portals(facts, host, peers))),
    maximum=300,
    hand="getent ahosts STORAGE",
)


@dataclass(frozen=True, slots=True)
class StorageServers(HostFact):
    """What the names and addresses of guests' storage lead to on this host."""

    probes: ClassVar[tuple[Probe, ...]] = (SERVERS,)
    answers: tuple[tuple[str, tuple[Route, ...] | None], ...]

    def of(self, name: str) -> tuple[Route, ...]:
        """The routes to it; empty: it does not resolve here. Raises `Unavailable`."""
        routes = dict(self.answers).get(name)
        if routes is None:
            raise Unavailable(SERVERS, f"no answer about {visible(name, 80)}")
        return routes

    @classmethod
    def parse(cls, said: Said) -> Self:
        """As of other hosts' names."""
        return cls(read_routes(said, SERVERS))


# One line for each: its number, the exit status, bash's words.
PORTALS = Question(
    "storage.portals",
    """\
command -v bash >/dev/null || { echo "bash: not found" >&2; exit 127; }
xargs -0 -n 3 -P 32 sh -c '
[ $# -eq 2 ] || exit 0
said=$(LC_ALL=C timeout -k 1 4 bash -c "exec 3<>/dev/tcp/\\$1/\\$2" try "$1" "$2" 2>&1)
printf "%s %s %s\\n" "$0" "$?" "$(printf "%s" "$said" | head -c 600 | tr "\\n" " ")"'
""",
    seconds=60,
    ask=_ask,
    arity=3,
    maximum=300,
    hand="timeout 4 bash -c 'exec 3<>/dev/tcp/STORAGE/PORT'",
    option=OPTION,
)

_CLOSED = {
    "connection refused": "Connection refused",
    "no route to host": "No route to host",
    "network is unreachable": "Network is unreachable",
    "name or service not known": "Name or service not known",
    "no address associated with hostname": "Name or service not known",
    "name resolution": "Temporary failure in name resolution",
    "connection reset": "Connection reset by peer",
}


@dataclass(frozen=True, slots=True)
class Portals(HostFact):
    """Which storage in the network the host gets a connection to; nothing is known without `--probe-network`."""

    probes: ClassVar[tuple[Probe, ...]] = (PORTALS,)
    tried: tuple[tuple[str, int, str], ...]
    """Host, port, and why there is no connection; "": there is one."""
    unread: str = ""

    def problem(self, host: str, port: int) -> str:
        """Why there is no connection; "": there is one. Raises `Unavailable` where it was not tried."""
        if self.unread:
            raise Unavailable(PORTALS, self.unread)
        for name, number, problem in self.tried:
            if (name, number) == (host, port):
                return problem
        raise Unavailable(PORTALS, f"whether {visible(host, 60)} takes a connection at port {port} was not tried")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From each attempt's exit status (124: no answer) and words. What says something else is not known."""
        try:
            asked = {record[0]: record[1:] for record in said.evidence(PORTALS).arguments}
            lines = said.lines(PORTALS, ok=(0, 123)) if asked else []
        except Unavailable as why:
            return cls((), why.reason)
        found = []
        for line in lines:
            number, _, rest = line.partition(" ")
            status, _, words = rest.partition(" ")
            if number not in asked:
                raise Unavailable(PORTALS, f"not understood: {visible(line, 120)}")
            problem = _problem(status, words.lower())
            if problem is not None:
                found.append((asked[number][0], int(asked[number][1]), problem))
        return cls(tuple(sorted(found)))


def _problem(status: str, words: str) -> str | None:
    if status == "0":
        return ""
    if status == "124":
        return "Connection timed out"
    return next((shown for sign, shown in _CLOSED.items() if sign in words), None)
