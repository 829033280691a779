"""What the kernel's packet filter does with a new TCP connection: tables of rules, evaluated.

`audit.facts.nftables` and `audit.facts.iptables` read them.

A packet may be known in part only: its source, its destination or its interface may be open. A rule then matches,
does not match, or may match, and the walk through the chains collects every verdict that is possible. Constructs
that are not understood *may* match. What comes out is one of: certainly accepted, certainly refused (and by which
rule), or both are possible (and on what it depends).

Assumed of the packet: the first of its connection (conntrack state new, SYN set), from an unprivileged port, on a
plausible path (reverse path filters let it pass), addressed to this very host or leaving it for another, and below any
rate limit.
Programs in BPF (XDP, tc) are not seen.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

from audit.text import visible

Family = Literal[4, 6]
Verdict = Literal["accept", "drop", "return", "continue", "jump", "goto", "unknown"]

# Interfaces of guests and containers and the loopback: connections of other hosts do not come in by them.
_INNER = re.compile(r"lo|(vnet|tap|macvtap|veth|docker|br-[0-9a-f]{12}|virbr|cali|cni|lxc|podman|flannel)[^ ]*")


class Interval(NamedTuple):
    """Numbers from `low` to `high`: ports, or addresses of one version (0: not an address)."""

    version: int
    low: int
    high: int

    @classmethod
    def of_network(cls, text: str) -> Self:
        """The addresses of a network, or one address. Raises `ValueError`."""
        network = ipaddress.ip_network(text, strict=False)
        return cls(network.version, int(network.network_address), int(network.broadcast_address))


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. None: not known."""

    family: Family
    port: int
    source: str | None = None
    destination: str | None = None
    interface: str | None = None
    leaving: bool = False
    """It goes out by the interface, and has not come in by it."""
    reply: bool = False
    """It answers the first one: `port` is where it comes from, and the connection is established by it."""


@dataclass(frozen=True, slots=True)
class Test:
    """One condition of a rule. `kind` tells how `values` are compared; see `matches`."""

    kind: str
    values: tuple[Any, ...] = ()
    negated: bool = False

    def matches(self, packet: Packet, layer: str) -> bool | None:
        """Whether the packet fulfils it; None: it may."""
        if self.kind == "interface" and packet.leaving:  # it came in by none: of that, nft and iptables differ
            return None if self.negated else False
        found = _TESTS[self.kind](packet, self.values, layer)
        return found if found is None or not self.negated else not found


UNKNOWN = Test("unknown")
ALWAYS = Test("any", ((),))
NEVER = Test("never")


def _number(known: int | None, values: tuple[Any, ...]) -> bool | None:
    return None if known is None else any(v.low <= known <= v.high for v in values)


def _unprivileged(values: tuple[Any, ...]) -> bool | None:
    if any(v.low <= 1024 and v.high == 65535 for v in values):
        return True
    return False if all(v.high < 1024 for v in values) else None


def _ip(known: str | None, family: Family, values: tuple[Any, ...]) -> bool | None:
    same = [v for v in values if v.version == family]
    if known is None:
        everything = (1 << (32 if family == 4 else 128)) - 1
        return True if any(v.low == 0 and v.high == everything for v in same) else None if same else False
    ip = ipaddress.ip_address(known.partition("%")[0])
    return any(v.low <= int(ip) <= v.high for v in same) if ip.version == family else None


def _interface(known: str | None, values: tuple[Any, ...], layer: str) -> bool | None:
    if known is not None and layer in {"ip", "ip6", "inet"}:
        return any(known == v or (v.endswith("*") and known.startswith(v[:-1])) for v in values)
    if all(_INNER.fullmatch(v) for v in values):
        return False
    return None


def _all(packet: Packet, tests: Iterable[Test], layer: str) -> bool | None:
    results = {test.matches(packet, layer) for test in tests}
    return False if False in results else None if None in results else True


def _any(packet: Packet, values: tuple[Any, ...], layer: str) -> bool | None:
    results = {_all(packet, tests, layer) for tests in values}
    return True if True in results else None if None in results else False


_TESTS: Mapping[str, Callable[[Packet, tuple[Any, ...], str], bool | None]] = {
    "port": lambda p, v, _: _unprivileged(v) if p.reply else _number(p.port, v),
    "source port": lambda p, v, _: _number(p.port, v) if p.reply else _unprivileged(v),
    "source": lambda p, v, _: _ip(p.source, p.family, v),
    "destination": lambda p, v, _: _ip(p.destination, p.family, v),
    "interface": lambda p, v, layer: _interface(p.interface, v, layer),
    "out interface": lambda p, v, layer: _interface(p.interface, v, layer) if p.leaving else None,
    "local": lambda p, _v, _l: not p.leaving,
    "protocol": lambda _p, v, _l: bool({"tcp", "6", "all", "0"} & set(v)),
    "family": lambda p, v, _: f"ipv{p.family}" in v,
    "state": lambda p, v, _: ("established" if p.reply else "new") in v,
    "any": _any,
    "never": lambda _p, _v, _l: False,
    "unknown": lambda _p, _v, _l: None,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions and what follows when all hold."""

    tests: tuple[Test, ...]
    verdict: Verdict
    target: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. `hook` is "" for a chain that others jump to."""

    name: str
    rules: tuple[Rule, ...]
    hook: str = ""
    policy: str = "accept"


@dataclass(frozen=True, slots=True)
class Table:
    """A name space of chains. `layer`: ip, ip6, inet, bridge, netdev."""

    layer: str
    name: str
    chains: tuple[Chain, ...]
    opaque: bool = False
    """Holds iptables' own extensions, which nft does not spell out; iptables-save does."""

    def judges(self, family: Family) -> bool:
        """IP packets of this family pass here."""
        return self.layer not in {"arp", "ip6" if family == 4 else "ip"}


class Answer(NamedTuple):
    """What happens to a packet. unknown: it depends on what is not known of the packet, or not understood."""

    state: Literal["open", "closed", "unknown"]
    rules: tuple[str, ...] = ()
    """Which rules refuse it; where it is not known: between which it is open."""


_HOOKS = {False: {"ingress", "prerouting", "input"}, True: {"output"}}
"""By whether the packet leaves. What leaves may be renumbered after `output`; hardly anybody refuses it there."""


def judge(tables: Iterable[Table], packet: Packet) -> Answer:
    """The answer of all base chains that the packet passes: each must accept, any may refuse."""
    doubtful: set[str] = set()
    for table in tables:
        chains = {chain.name: chain for chain in table.chains}
        for chain in table.chains if table.judges(packet.family) else ():
            if chain.hook not in _HOOKS[packet.leaving]:
                continue
            verdicts, falls = _Walk(chains, packet, table.layer).through(chain)
            if falls:
                verdicts |= {(_POLICY[chain.policy], f"policy {chain.policy} of chain {chain.name}")}
            kinds = {verdict for verdict, _ in verdicts}
            texts = sorted(text for _, text in verdicts)
            if kinds == {"drop"}:
                return Answer("closed", tuple(texts[:3]))
            if kinds != {"accept"}:
                doubtful.update(texts)
    return Answer("unknown", tuple(sorted(doubtful)[:4])) if doubtful else Answer("open")


_POLICY: dict[str, Verdict] = {"accept": "accept", "drop": "drop"}


@dataclass(slots=True)
class _Walk:
    """One packet's way through the chains of one table."""

    chains: Mapping[str, Chain]
    packet: Packet
    layer: str
    done: dict[str, tuple[frozenset[tuple[Verdict, str]], bool]] = field(default_factory=dict)
    path: tuple[str, ...] = ()

    def through(self, chain: Chain | None) -> tuple[frozenset[tuple[Verdict, str]], bool]:
        """The verdicts that may be reached in it, and whether the packet may leave at its end."""
        if chain is None:
            return frozenset({("unknown", "jump to a chain that is not listed")}), True
        if chain.name in self.path or len(self.path) > 64:
            return frozenset({("unknown", f"chain {visible(chain.name, 60)} jumps in a circle, or too deep")}), True
        if chain.name not in self.done:
            self.path = (*self.path, chain.name)
            self.done[chain.name] = self._rules(chain)
            self.path = self.path[:-1]
        return self.done[chain.name]

    def _rules(self, chain: Chain) -> tuple[frozenset[tuple[Verdict, str]], bool]:
        verdicts: set[tuple[Verdict, str]] = set()
        may_leave = False
        for rule in chain.rules:
            match = False if rule.verdict == "continue" else _all(self.packet, rule.tests, self.layer)
            if match is False:
                continue
            leaves = rule.verdict == "return"
            stays = False
            if rule.verdict in {"jump", "goto"}:
                inner, falls = self.through(self.chains.get(rule.target))
                verdicts |= inner
                leaves = falls and rule.verdict == "goto"
                stays = falls and rule.verdict == "jump"
            elif rule.verdict != "return":
                verdicts.add((rule.verdict, rule.text))
            may_leave = may_leave or leaves
            if match is True and not stays:
                return frozenset(verdicts), may_leave
        return frozenset(verdicts), True


def ports_that_matter(tables: Iterable[Table], ports: range) -> Iterator[range]:
    """`ports` cut into ranges within which every port is treated alike."""
    cuts = {ports.start, ports.stop}
    for table in tables:
        for chain in table.chains:
            for rule in chain.rules:
                cuts.update(cut for value in _port_values(rule.tests) for cut in (value.low, value.high + 1))
    edges = sorted(cut for cut in cuts if ports.start <= cut <= ports.stop)
    for low, high in pairwise(edges):
        yield range(low, high)


def _port_values(tests: Iterable[Test]) -> Iterator[Interval]:
    for test in tests:
        if test.kind in {"port", "source port"}:
            yield from test.values
        elif test.kind == "any":
            for inner in test.values:
                yield from _port_values(inner)
