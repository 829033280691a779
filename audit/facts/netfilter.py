"""What the kernel's packet filter does with a new TCP connection: nftables' JSON and iptables-save, evaluated.

A packet may be known in part only: its source, its destination or its interface may be open. A rule then matches,
does not match, or may match, and the walk through the chains collects every verdict that is possible. Constructs
that are not understood *may* match. What comes out is one of: certainly accepted, certainly refused (and by which
rule), or both are possible (and on what it depends).

Assumed of the packet: the first of its connection (conntrack state new, SYN set), from an unprivileged port, on a
plausible path (reverse path filters let it pass), addressed to this very host, and below any rate limit.
Programs in BPF (XDP, tc) are not seen.
"""

import ipaddress
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

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


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. None: not known."""

    family: Family
    port: int
    source: str | None = None
    destination: str | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Test:
    """One condition of a rule. `kind` tells how `values` are compared; see `matches`."""

    kind: str
    values: tuple[Any, ...] = ()
    negated: bool = False

    def matches(self, packet: Packet, layer: str) -> bool | None:
        """Whether the packet fulfils it; None: it may."""
        found = _TESTS[self.kind](packet, self.values, layer)
        return found if found is None or not self.negated else not found


UNKNOWN = Test("unknown")
NEVER = Test("never")


def _number(known: int | None, values: tuple[Any, ...]) -> bool | None:
    return None if known is None else any(v.low <= known <= v.high for v in values)


def _source_port(values: tuple[Any, ...]) -> bool | None:
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
    "port": lambda p, v, _: _number(p.port, v),
    "source port": lambda _p, v, _l: _source_port(v),
    "source": lambda p, v, _: _ip(p.source, p.family, v),
    "destination": lambda p, v, _: _ip(p.destination, p.family, v),
    "interface": lambda p, v, layer: _interface(p.interface, v, layer),
    "protocol": lambda _p, v, _l: bool({"tcp", "6", "all", "0"} & set(v)),
    "family": lambda p, v, _: f"ipv{p.family}" in v,
    "state": lambda _p, v, _l: "new" in v,
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


_HOOKS = {"ingress", "prerouting", "input"}


def judge(tables: Iterable[Table], packet: Packet) -> Answer:
    """The answer of all base chains that an incoming packet passes: each must accept, any may refuse."""
    doubtful: set[str] = set()
    for table in tables:
        chains = {chain.name: chain for chain in table.chains}
        for chain in table.chains if table.judges(packet.family) else ():
            if chain.hook not in _HOOKS:
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

    def through(self, chain: Chain) -> tuple[frozenset[tuple[Verdict, str]], bool]:
        """The verdicts that may be reached in it, and whether the packet may leave at its end."""
        if chain.name in self.path or len(self.path) > 64:
            raise ValueError(f"chain {visible(chain.name, 60)} jumps in a circle")
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
                inner, falls = self.through(self.chains[rule.target])
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
        if test.kind == "port":
            yield from test.values
        elif test.kind == "any":
            for inner in test.values:
                yield from _port_values(inner)


# ---- nftables ---------------------------------------------------------------------------------------------------


def from_nft(ruleset: Any) -> tuple[Table, ...]:
    """The tables of `nft -j list ruleset`. Raises `ValueError` or `LookupError` for anything else."""
    try:
        objects = [pair for item in ruleset["nftables"] for pair in item.items()]
        if not any(kind == "metainfo" for kind, _ in objects):
            raise ValueError("not the JSON of nft: no metainfo")
        tables: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
        for kind, body in objects:
            if kind == "table":
                tables[body["family"], body["name"]] = []
            elif kind in {"chain", "rule", "set", "map"}:
                tables[body["family"], body["table"]].append((kind, body))
        return tuple(_nft_table(layer, name, mine) for (layer, name), mine in tables.items())
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not the JSON of nft: {visible(repr(error), 120)}") from error


def _nft_table(layer: str, name: str, mine: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    sets = {f"@{body['name']}": body for kind, body in mine if kind in {"set", "map"}}
    rules: dict[str, list[Rule]] = {body["name"]: [] for kind, body in mine if kind == "chain"}
    for body in (body for kind, body in mine if kind == "rule"):
        rules[body["chain"]].extend(_NftRule(body, sets).rules())
    chains = []
    for chain in (body for kind, body in mine if kind == "chain"):
        policy = str(chain.get("policy", "accept"))
        if policy not in _POLICY:
            raise ValueError(f"policy {visible(policy, 40)}")
        chains.append(Chain(str(chain["name"]), tuple(rules[chain["name"]]), str(chain.get("hook", "")), policy))
    opaque = any("xt" in statement for kind, body in mine if kind == "rule" for statement in body["expr"])
    return Table(str(layer), str(name), tuple(chains), opaque)


# Statements that change or record, but neither decide nor select.
_NFT_PASSIVE = {
    *("counter", "log", "mangle", "comment", "last", "flow", "secmark"),
    *("ct helper", "ct timeout", "ct expectation", "tcp option", "synproxy", "dup"),
}
# Statements that hold for a packet below the limit; inverted ("over"), they do not.
_NFT_LIMITS = {"limit", "ct count", "quota", "meter", "set", "map"}
_NFT_PAYLOADS = {
    **{(protocol, "dport"): "port" for protocol in ("tcp", "th")},
    **{(protocol, "sport"): "source port" for protocol in ("tcp", "th")},
    ("ip", "saddr"): "source",
    ("ip6", "saddr"): "source",
    ("ip", "daddr"): "destination",
    ("ip6", "daddr"): "destination",
    ("ip", "protocol"): "protocol",
    ("ip6", "nexthdr"): "protocol",
}


@dataclass(slots=True)
class _NftRule:
    """One rule of nft's JSON, on the way to ours."""

    body: dict[str, Any]
    sets: Mapping[str, dict[str, Any]]

    def rules(self) -> Iterator[Rule]:
        """As several rules where a verdict map stands for them."""
        text = f"{self.body['chain']}: {visible(json.dumps(self.body['expr'], ensure_ascii=False), 240)}"
        tests: list[Test] = []
        for statement in self.body["expr"]:
            [(kind, value)] = statement.items()
            if kind == "match":
                tests.extend(self._match(value))
            elif kind in {"accept", "drop", "return", "continue"}:
                yield Rule(tuple(tests), kind, text=text)
            elif kind == "reject":
                yield Rule(tuple(tests), "drop", text=text)
            elif kind in {"jump", "goto"}:
                yield Rule(tuple(tests), kind, str(value["target"]), text)
            elif kind == "vmap":
                yield from self._verdict_map(tuple(tests), value, text)
            elif kind in _NFT_LIMITS:
                if '"inv": true' in json.dumps(value):
                    tests.append(NEVER)
            elif kind == "xt" and isinstance(value, dict) and value.get("type") == "match":
                tests.append(UNKNOWN)
            elif kind not in _NFT_PASSIVE:  # queue, dnat, redirect, tproxy, notrack, xt's targets, …
                yield Rule(tuple(tests), "unknown", text=text)

    def _verdict_map(self, tests: tuple[Test, ...], value: dict[str, Any], text: str) -> Iterator[Rule]:
        left, data = value["key"], value["data"]
        entries = self.sets[data].get("elem", []) if isinstance(data, str) else data["set"]
        entries = [(self._plain(key), verdict) for key, verdict in entries]
        for key, verdict in entries:
            [(kind, target)] = verdict.items()
            if key == "*":  # the catch-all: what no other entry took
                others = tuple((self._compare(left, [other]),) for other, _ in entries if other != "*")
                test = Test("any", others, negated=True)
            else:
                test = self._compare(left, [key])
            name = str(target["target"]) if isinstance(target, dict) and "target" in target else ""
            known = kind in {"accept", "drop", "return", "continue", "jump", "goto"}
            yield Rule((*tests, *self._implied(left), test), kind if known else "unknown", name, text)

    def _match(self, value: dict[str, Any]) -> Iterator[Test]:
        left, op, right = value["left"], value.get("op", "=="), value["right"]
        yield from self._implied(left)
        if (flags := _flags_of(left)) is not None:
            yield _nft_flags(flags, op, right)
            return
        if op not in {"==", "!=", "in"}:
            yield self._ordered(left, op, right)
            return
        test = self._compare(left, self._elements(right))
        yield Test(test.kind, test.values, not test.negated) if op == "!=" else test

    @staticmethod
    def _implied(left: Any) -> Iterator[Test]:
        """To look into a header is to ask for its protocol, also where the comparison is negated."""
        protocol = left["payload"].get("protocol") if isinstance(left, dict) and "payload" in left else None
        if protocol in {"ip", "ip6"}:
            yield Test("family", ("ipv4" if protocol == "ip" else "ipv6",))
        elif protocol in _OTHER_PROTOCOLS:
            yield NEVER

    def _ordered(self, left: Any, op: str, right: Any) -> Test:
        kind = self._kind(left)
        if kind != "port" or not isinstance(right, int):
            return UNKNOWN
        bounds = {"<": (0, right - 1), "<=": (0, right), ">": (right + 1, 65535), ">=": (right, 65535)}
        return Test("port", (Interval(0, *bounds[op]),)) if op in bounds else UNKNOWN

    def _elements(self, right: Any) -> list[Any]:
        if isinstance(right, str) and right.startswith("@"):
            # A set that is filled by packets or timeouts is not known from one look at it.
            flags = self.sets[right].get("flags", [])
            changing = {"dynamic", "timeout"} & {flags} if isinstance(flags, str) else {"dynamic", "timeout"} & {*flags}
            return [None] if changing else self._elements({"set": self.sets[right].get("elem", [])})
        if isinstance(right, dict) and "set" in right:
            inner = right["set"]
            return [self._plain(item) for item in (inner if isinstance(inner, list) else [inner])]
        return [self._plain(item) for item in (right if isinstance(right, list) else [right])]

    @staticmethod
    def _plain(item: Any) -> Any:
        """An element without its comment, timeout or counter."""
        return item["elem"]["val"] if isinstance(item, dict) and "elem" in item else item

    def _kind(self, left: Any) -> str:
        """The kind of test for a left side."""
        match left:
            case {"payload": {"protocol": str(protocol), "field": str(name)}}:
                return _NFT_PAYLOADS.get((protocol, name), "unknown")
            case {"meta": {"key": "l4proto"}}:
                return "protocol"
            case {"meta": {"key": "nfproto" | "protocol"}}:
                return "family"
            case {"meta": {"key": "iifname" | "iif"}}:
                return "interface"
            case {"ct": {"key": "state"}}:
                return "state"
            case {"ct": {"key": "status"}}:
                return "status"
            case {"ct": {"key": "direction"}}:
                return "direction"
            case {"meta": {"key": "pkttype"}} | {"fib": {"result": "type", "flags": ["daddr", *_] | "daddr"}}:
                return "delivery"
            case {"fib": {"result": "oif" | "oifname" | "check"}}:
                return "reverse path"
            case {"concat": list()}:
                return "concat"
        return "unknown"

    def _compare(self, left: Any, elements: list[Any]) -> Test:
        kind = self._kind(left)
        if kind == "unknown" or None in elements:
            return UNKNOWN
        if kind == "concat":
            return self._concat(left["concat"], elements)
        if kind == "reverse path":  # `missing`: no way back to the source by this interface
            return NEVER if elements == [False] else _TRUE if elements == [True] else UNKNOWN
        words = {str(element) for element in elements}
        if kind in {"state", "status", "direction", "delivery", "family"}:
            return _by_word(kind, words)
        try:
            if kind in {"protocol", "interface"}:
                return Test(kind, tuple(sorted(words)))
            return Test(kind, tuple(_nft_interval(kind, element) for element in elements))
        except ValueError:
            return UNKNOWN

    def _concat(self, parts: list[Any], elements: list[Any]) -> Test:
        rows = []
        for element in elements:
            values = element["concat"] if isinstance(element, dict) else []
            if len(values) != len(parts):
                return UNKNOWN
            rows.append(tuple(self._compare(part, [value]) for part, value in zip(parts, values, strict=True)))
        return Test("any", tuple(rows))


_OTHER_PROTOCOLS = {"udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "arp", "esp", "ah", "comp", "vlan"}
_WORDS = {
    "state": {"new", "established", "related", "invalid", "untracked"},
    "status": {"expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying"},
    "direction": {"original", "reply"},
    "delivery": {"local", "unicast", "host", "broadcast", "multicast", "anycast", "other", "blackhole", "unreachable"},
}
_TRUE = Test("any", ((),))


def _by_word(kind: str, words: set[str]) -> Test:
    """Tests whose outcome follows from what is assumed of the packet."""
    if kind == "family":
        names = {"ip": "ipv4", "ip6": "ipv6"}
        return Test("family", tuple(sorted(names.get(word, word) for word in words)))
    if not words <= _WORDS[kind]:
        return UNKNOWN
    if kind == "state":
        return Test("state", tuple(sorted(words)))
    true: set[str] = {"status": set(), "direction": {"original"}, "delivery": {"local", "unicast", "host"}}[kind]
    return _TRUE if words & true else NEVER


def _flags_of(left: Any) -> set[str] | None:
    """The mask of a look at the TCP flags, empty for none; None: it looks at something else."""
    match left:
        case {"payload": {"protocol": "tcp", "field": "flags"}}:
            return set()
        case {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, mask]}:
            return _flag_names(mask)
    return None


def _flag_names(value: Any) -> set[str]:
    if isinstance(value, dict) and "|" in value:
        value = value["|"]
    return {str(item) for item in (value if isinstance(value, list) else [value])} - {"0"}


def _nft_flags(mask: set[str], op: str, right: Any) -> Test:
    """The first packet of a connection has SYN set, and none of the other flags but perhaps those of ECN."""
    wanted = _flag_names(right)
    if not wanted | mask <= {"fin", "syn", "rst", "psh", "ack", "urg"} or (op in {"==", "!="} and not mask):
        return UNKNOWN
    hits = {
        "==": {"syn"} & mask == wanted,
        "!=": {"syn"} & mask != wanted,
        "in": "syn" in wanted,
        "!": "syn" not in wanted,
    }
    return UNKNOWN if op not in hits else _TRUE if hits[op] else NEVER


def _nft_interval(kind: str, element: Any) -> Interval:
    match element:
        case {"range": [low, high]}:
            first, last = _nft_interval(kind, low), _nft_interval(kind, high)
            return Interval(first.version, first.low, last.high)
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return _network(f"{address}/{length}")
        case int() if kind in {"port", "source port"} and not isinstance(element, bool):
            return Interval(0, element, element)
        case str() if kind in {"source", "destination"}:
            return _network(element)
    raise ValueError(f"not understood: {visible(str(element), 80)}")


def _network(text: str) -> Interval:
    network = ipaddress.ip_network(text, strict=False)
    return Interval(network.version, int(network.network_address), int(network.broadcast_address))


# ---- iptables ---------------------------------------------------------------------------------------------------

_BUILT_IN = {"PREROUTING": "prerouting", "INPUT": "input"}
_XT_PASSIVE = {
    *("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CHECKSUM", "TOS", "DSCP", "TTL", "HL", "TRACE", "SET"),
    *("CLASSIFY", "AUDIT", "SECMARK", "CONNSECMARK", "RATEEST", "LED", "IDLETIMER", "ACCT", "HMARK"),
}
# Options of matches that set a limit which one migration stays below, and their values.
_XT_IGNORED = {
    *("-m", "--match", "--comment", "--limit", "--limit-burst", "--rsource", "--rdest", "--name", "--mask", "--set"),
    *("--seconds", "--hitcount", "--reap", "--reject-with", "--log-prefix", "--log-level", "--log-flags"),
    *("--hashlimit-upto", "--hashlimit-burst", "--hashlimit-mode", "--hashlimit-name", "--hashlimit-htable-expire"),
    *("--hashlimit-srcmask", "--hashlimit-dstmask", "--connlimit-upto", "--connlimit-saddr", "--connlimit-mask"),
    *("--connlimit-daddr", "--validmark", "--loose", "--syn"),
}
_XT_NEVER = {"--rcheck", "--update", "--hashlimit-above", "--connlimit-above", "-f", "--fragment", "--invert"}
_XT_TRUE_WORDS = {
    "--pkt-type": {"unicast"},
    "--dst-type": {"LOCAL", "UNICAST"},
    "--ctstatus": {"NONE"},
    "--ctdir": {"ORIGINAL"},
}


def from_iptables(text: str, family: Family) -> tuple[Table, ...]:
    """The tables of `iptables-save` (or `ip6tables-save`). Raises `ValueError` for anything else."""
    tables: list[Table] = []
    name = ""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("*") and not name:
            name, policies, rules = line[1:].strip(), {}, {}
        elif line.startswith(":") and name:
            chain, policy, *_ = line[1:].split()
            policies[chain] = policy
            rules[chain] = []
        elif line.startswith(("-A ", "[")) and name:
            chain, rule = _xt_rule(re.sub(r"^\[\d+:\d+\] ", "", line), set(policies))
            rules[chain].append(rule)
        elif line.strip() == "COMMIT" and name:
            tables.append(_xt_table("ip" if family == 4 else "ip6", name, policies, rules))
            name = ""
        else:
            raise ValueError(f"not a line of iptables-save: {visible(line, 120)}")
    if name:
        raise ValueError(f"table {visible(name, 40)} without end")
    return tuple(tables)


def _xt_table(layer: str, name: str, policies: Mapping[str, str], rules: Mapping[str, Sequence[Rule]]) -> Table:
    chains = []
    for chain, policy in policies.items():
        hook = "" if policy == "-" else _BUILT_IN.get(chain, "other")
        if policy not in {"-", "ACCEPT", "DROP"}:
            raise ValueError(f"policy {visible(policy, 40)}")
        action = "drop" if policy == "DROP" else "accept"
        chains.append(Chain(chain, tuple(rules[chain]), hook, action))
    return Table(layer, name, tuple(chains))


def _xt_rule(line: str, chains: set[str]) -> tuple[str, Rule]:
    words = shlex.split(line)
    if len(words) < 2 or words[0] != "-A" or words[1] not in chains:
        raise ValueError(f"not a rule: {visible(line, 120)}")
    tests: list[Test] = []
    verdict: Verdict = "continue"
    target = ""
    for negated, option, values in _xt_options(words[2:]):
        if option in {"-j", "--jump", "-g", "--goto"}:
            verdict, target = _xt_target(values, chains, goto=option in {"-g", "--goto"})
        elif option == "--notrack":  # of the target CT; rules about the connection's state then see another one
            verdict = "unknown"
        elif verdict == "continue":
            tests.extend(_xt_tests(option, values, negated))
    return words[1], Rule(tuple(tests), verdict, target, visible(line, 240))


def _xt_options(words: Sequence[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """Each option with its values, and whether `!` stands before it."""
    at = 0
    while at < len(words):
        negated = words[at] == "!"
        at += negated
        if at >= len(words) or not words[at].startswith("-"):
            raise ValueError(f"not an option: {visible(' '.join(words), 120)}")
        end = at + 1
        while end < len(words) and words[end] != "!" and not re.match(r"--?[a-zA-Z]", words[end]):
            end += 1
        if words[at] in {"--comment", "--log-prefix", "--nflog-prefix"}:  # one free word, whatever it looks like
            end = min(at + 2, len(words))
        yield negated, words[at], list(words[at + 1 : end])
        at = end


def _xt_target(values: Sequence[str], chains: set[str], *, goto: bool) -> tuple[Verdict, str]:
    [target] = values[:1] or [""]
    if target in chains:
        return ("goto" if goto else "jump"), target
    simple: dict[str, Verdict] = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
    if target in simple and not goto:
        return simple[target], ""
    if target == "CT" or target in _XT_PASSIVE:
        return "continue", ""
    return "unknown", ""


def _xt_tests(option: str, values: list[str], negated: bool) -> Iterator[Test]:
    value = values[0] if values else ""
    kinds = {
        **dict.fromkeys(("--dport", "--dports", "--destination-port", "--destination-ports"), "port"),
        **dict.fromkeys(("--sport", "--sports", "--source-port", "--source-ports"), "source port"),
        **dict.fromkeys(("-s", "--source", "--src-range"), "source"),
        **dict.fromkeys(("-d", "--destination", "--dst-range"), "destination"),
    }
    if option in kinds:
        try:
            yield Test(kinds[option], tuple(_xt_interval(kinds[option], part) for part in value.split(",")), negated)
        except ValueError:
            yield UNKNOWN
    elif option in {"-p", "--protocol"}:
        yield Test("protocol", (value,), negated)
    elif option in {"-i", "--in-interface"}:
        yield Test("interface", (re.sub(r"\+$", "*", value),), negated)
    elif option in {"--ctstate", "--state"}:
        yield Test("state", tuple(value.lower().split(",")), negated)
    elif option == "--tcp-flags":
        yield _tcp_flags(values, negated)
    elif option in _XT_TRUE_WORDS:
        hit = bool(set(value.split(",")) & _XT_TRUE_WORDS[option])
        yield _TRUE if hit != negated else NEVER
    elif option in _XT_NEVER or (option in _XT_IGNORED and negated):
        # "! --syn": not the first packet of a connection; "! -f": no fragment, which always holds.
        yield NEVER if option not in {"-f", "--fragment"} or not negated else _TRUE
    elif option not in _XT_IGNORED:
        yield UNKNOWN


def _tcp_flags(values: list[str], negated: bool) -> Test:
    if len(values) != 2:
        return UNKNOWN
    mask, wanted = (set(value.split(",")) - {"NONE"} for value in values)
    hit = ({"SYN"} & mask == wanted) if "ALL" not in mask else wanted == {"SYN"}
    return _TRUE if hit != negated else NEVER


def _xt_interval(kind: str, text: str) -> Interval:
    if kind in {"port", "source port"}:
        low, colon, high = text.partition(":")
        return Interval(0, int(low or 0), int(high or 65535) if colon else int(low))
    first, dash, last = text.partition("-")
    return Interval(*_network(first)[:2], _network(last).high) if dash else _network(text)
