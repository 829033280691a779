"""Storage that QEMU itself speaks to over the network (Ceph, iSCSI, NBD, …): whether a host gets a connection to it.

A path on a mounted file system is looked up where it lies; of such a disk nothing lies on the host. What can be looked
at without speaking the storage's protocol is whether it takes a connection. That is tried with `--probe-network` only,
closed again at once, and only made to storage that running guests of the cluster use at that moment. Without, a host is
known to get there whose own running guests use it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE, running_guests
from audit.facts.reach import OPTION as PROBE_NETWORK
from audit.text import visible

_HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Every portal of a running guest's disk: number, host, port."""
    named: dict[tuple[str, int], None] = {}
    for guest, disks in facts.each_guest(sorted({host, *peers}), GuestDisks):
        state = facts.of_guest(guest, GuestState)
        if isinstance(state, Unavailable) or not state.active:
            continue
        for disk in disks.disks:
            named.update(dict.fromkeys(disk.portals))
    asked = ((name, port) for name, port in named if _HOST.fullmatch(name) and not name.startswith("-"))
    return tuple((str(number), name, str(port)) for number, (name, port) in enumerate(asked))


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
    option=PROBE_NETWORK,
    hand="timeout 4 bash -c 'exec 3<>/dev/tcp/STORAGE/PORT'",
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
    """Which storage in the network the host gets a connection to."""

    probes: ClassVar[tuple[Probe, ...]] = (PORTALS, GUESTS, XML, XML_INACTIVE)
    tried: tuple[tuple[str, int, str], ...]
    """Host, port, and why there is no connection; "": there is one."""
    unread: str = ""
    used: frozenset[tuple[str, int]] = frozenset()
    """Those that running guests of the host use."""

    def problem(self, host: str, port: int) -> str:
        """Why there is no connection; "": there is one. Raises `Unavailable` where it was not tried."""
        if (host, port) in self.used:
            return ""
        if self.unread:
            raise Unavailable(PORTALS, self.unread)
        for name, number, problem in self.tried:
            if (name, number) == (host, port):
                return problem
        raise Unavailable(PORTALS, f"whether {visible(host, 60)} takes a connection at port {port} was not tried")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From each attempt's exit status (124: no answer) and words. What says something else is not known."""
        used = _used(said)
        try:
            asked = {record[0]: record[1:] for record in said.evidence(PORTALS).arguments}
            lines = said.lines(PORTALS, ok=(0, 123)) if asked else []
        except Unavailable as why:
            return cls((), why.reason, used)
        found = []
        for line in lines:
            number, _, rest = line.partition(" ")
            status, _, words = rest.partition(" ")
            if number not in asked:
                raise Unavailable(PORTALS, f"not understood: {visible(line, 120)}")
            problem = _problem(status, words.lower())
            if problem is not None:
                found.append((asked[number][0], int(asked[number][1]), problem))
        return cls(tuple(sorted(found)), used=used)


def _used(said: Said) -> frozenset[tuple[str, int]]:
    """By the host's running guests, as far as they can be read."""
    try:
        guests, _ = running_guests(said, GuestDisks)
    except Unavailable:
        return frozenset()
    return frozenset(portal for _, disks in guests for disk in disks.disks for portal in disk.portals)


def _problem(status: str, words: str) -> str | None:
    if status == "0":
        return ""
    if status == "124":
        return "Connection timed out"
    return next((shown for sign, shown in _CLOSED.items() if sign in words), None)
