"""`nft -j list ruleset`: nftables' JSON, read as tables for `audit.facts.netfilter`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.facts.netfilter import ALWAYS, NEVER, UNKNOWN, Chain, Interval, Rule, Table, Test
from audit.text import visible


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
        return tuple(_table(layer, name, mine) for (layer, name), mine in tables.items())
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not the JSON of nft: {visible(repr(error), 120)}") from error


def _table(layer: str, name: str, mine: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    sets = {f"@{body['name']}": body for kind, body in mine if kind in {"set", "map"}}
    rules: dict[str, list[Rule]] = {body["name"]: [] for kind, body in mine if kind == "chain"}
    for body in (body for kind, body in mine if kind == "rule"):
        rules[body["chain"]].extend(_RuleReader(body, sets).rules())
    chains = []
    for chain in (body for kind, body in mine if kind == "chain"):
        policy = str(chain.get("policy", "accept"))
        if policy not in {"accept", "drop"}:
            raise ValueError(f"policy {visible(policy, 40)}")
        chains.append(Chain(str(chain["name"]), tuple(rules[chain["name"]]), str(chain.get("hook", "")), policy))
    opaque = any("xt" in statement for kind, body in mine if kind == "rule" for statement in body["expr"])
    return Table(str(layer), str(name), tuple(chains), opaque)


# Statements that change or record, but neither decide nor select.
_PASSIVE = {
    *("counter", "log", "mangle", "comment", "last", "flow", "secmark"),
    *("ct helper", "ct timeout", "ct expectation", "tcp option", "synproxy", "dup"),
}
# Statements that hold for a packet below the limit; inverted ("over"), they do not.
_LIMITS = {"limit", "ct count", "quota", "meter", "set", "map"}
_MOST_STATEMENTS = 128  # of a rule: NFT_RULE_MAXEXPRS of the kernel
_PAYLOADS = {
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
class _RuleReader:
    """One rule of nft's JSON, on the way to ours."""

    body: dict[str, Any]
    sets: Mapping[str, dict[str, Any]]

    def rules(self) -> Iterator[Rule]:
        """As several rules where a verdict map stands for them."""
        text = f"{self.body['chain']}: {visible(json.dumps(self.body['expr'], ensure_ascii=False), 240)}"
        tests: list[Test] = []
        if len(self.body["expr"]) > _MOST_STATEMENTS:
            raise ValueError(f"a rule of {len(self.body['expr'])} statements")
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
            elif kind in _LIMITS:
                if '"inv": true' in json.dumps(value):
                    tests.append(NEVER)
            elif kind == "xt" and isinstance(value, dict) and value.get("type") == "match":
                tests.append(UNKNOWN)
            elif kind not in _PASSIVE:  # queue, dnat, redirect, tproxy, notrack, xt's targets, …
                yield Rule(tuple(tests), "unknown", text=text)

    def _verdict_map(self, tests: tuple[Test, ...], value: dict[str, Any], text: str) -> Iterator[Rule]:
        left, data = value["key"], value["data"]
        entries = self.sets[data].get("elem", []) if isinstance(data, str) else data["set"]
        entries = [(self._plain(key), verdict) for key, verdict in entries]
        others = tuple((self._compare(left, [other]),) for other, _ in entries if other != "*")
        for key, verdict in entries:
            [(kind, target)] = verdict.items()
            # "*" is the catch-all: what no other entry took
            test = Test("any", others, negated=True) if key == "*" else self._compare(left, [key])
            name = str(target["target"]) if isinstance(target, dict) and "target" in target else ""
            known = kind in {"accept", "drop", "return", "continue", "jump", "goto"}
            yield Rule((*tests, *self._implied(left), test), kind if known else "unknown", name, text)

    def _match(self, value: dict[str, Any]) -> Iterator[Test]:
        left, op, right = value["left"], value.get("op", "=="), value["right"]
        yield from self._implied(left)
        if (flags := _flags_of(left)) is not None:
            yield _flags(flags, op, right)
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
                return _PAYLOADS.get((protocol, name), "unknown")
            case {"meta": {"key": "l4proto"}}:
                return "protocol"
            case {"meta": {"key": "nfproto" | "protocol"}}:
                return "family"
            case {"meta": {"key": "iifname" | "iif"}}:
                return "interface"
            case {"meta": {"key": "oifname" | "oif"}}:
                return "out interface"
            case {"ct": {"key": "state"}}:
                return "state"
            case {"ct": {"key": "status"}}:
                return "status"
            case {"ct": {"key": "direction"}}:
                return "direction"
            case {"meta": {"key": "pkttype"}}:
                return "delivery"
            case {"fib": {"result": str(result), "flags": flags}}:
                return _FIB.get((result, "daddr" in flags), "unknown")
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
            return NEVER if elements == [False] else ALWAYS if elements == [True] else UNKNOWN
        words = {str(element) for element in elements}
        if kind == "destination type":  # what comes in is for this host, what leaves is not
            return Test("local") if words == {"local"} else _by_word("delivery", words)
        if kind in {"state", "status", "direction", "delivery", "family"}:
            return _by_word(kind, words)
        try:
            if kind in {"protocol", "interface", "out interface"}:
                return Test(kind, tuple(sorted(words)))
            return Test(kind, tuple(_interval(kind, element) for element in elements))
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


_FIB = {
    ("type", True): "destination type",
    **{(result, to): "reverse path" for result in ("oif", "oifname", "check") for to in (True, False)},
}
_OTHER_PROTOCOLS = {"udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "arp", "esp", "ah", "comp", "vlan"}
_WORDS = {
    "state": {"new", "established", "related", "invalid", "untracked"},
    "status": {"expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying"},
    "direction": {"original", "reply"},
    "delivery": {"local", "unicast", "host", "broadcast", "multicast", "anycast", "other", "blackhole", "unreachable"},
}


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
    return ALWAYS if words & true else NEVER


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


def _flags(mask: set[str], op: str, right: Any) -> Test:
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
    return UNKNOWN if op not in hits else ALWAYS if hits[op] else NEVER


def _interval(kind: str, element: Any) -> Interval:
    match element:
        case {"range": [low, high]}:
            first, last = _interval(kind, low), _interval(kind, high)
            return Interval(first.version, first.low, last.high)
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return Interval.of_network(f"{address}/{length}")
        case int() if kind in {"port", "source port"} and not isinstance(element, bool):
            return Interval(0, element, element)
        case str() if kind in {"source", "destination"}:
            return Interval.of_network(element)
    raise ValueError(f"not understood: {visible(str(element), 80)}")
