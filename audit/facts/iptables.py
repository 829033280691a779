"""`iptables-save` and `ip6tables-save`: their text, read as tables for `audit.facts.netfilter`."""

import re
import shlex
from collections.abc import Container, Iterator, Mapping, Sequence

from audit.facts.netfilter import ALWAYS, NEVER, UNKNOWN, Chain, Family, Interval, Rule, Table, Test, Verdict
from audit.text import visible

_BUILT_IN = {"PREROUTING": "prerouting", "INPUT": "input", "OUTPUT": "output"}
_PASSIVE = {
    *("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CHECKSUM", "TOS", "DSCP", "TTL", "HL", "TRACE", "SET"),
    *("CLASSIFY", "AUDIT", "SECMARK", "CONNSECMARK", "RATEEST", "LED", "IDLETIMER", "ACCT", "HMARK"),
}
# Options of matches that set a limit which one migration stays below, and their values.
_IGNORED = {
    *("-m", "--match", "--comment", "--limit", "--limit-burst", "--rsource", "--rdest", "--name", "--mask", "--set"),
    *("--seconds", "--hitcount", "--reap", "--reject-with", "--log-prefix", "--log-level", "--log-flags"),
    *("--hashlimit-upto", "--hashlimit-burst", "--hashlimit-mode", "--hashlimit-name", "--hashlimit-htable-expire"),
    *("--hashlimit-srcmask", "--hashlimit-dstmask", "--connlimit-upto", "--connlimit-saddr", "--connlimit-mask"),
    *("--connlimit-daddr", "--validmark", "--loose", "--syn"),
}
_NEVER_OPTIONS = {"--rcheck", "--update", "--hashlimit-above", "--connlimit-above", "-f", "--fragment", "--invert"}
_TRUE_WORDS = {
    "--pkt-type": {"unicast"},
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
            chain, rule = _rule(re.sub(r"^\[\d+:\d+\] ", "", line), policies)
            rules[chain].append(rule)
        elif line.strip() == "COMMIT" and name:
            tables.append(_table("ip" if family == 4 else "ip6", name, policies, rules))
            name = ""
        else:
            raise ValueError(f"not a line of iptables-save: {visible(line, 120)}")
    if name:
        raise ValueError(f"table {visible(name, 40)} without end")
    return tuple(tables)


def _table(layer: str, name: str, policies: Mapping[str, str], rules: Mapping[str, Sequence[Rule]]) -> Table:
    chains = []
    for chain, policy in policies.items():
        hook = "" if policy == "-" else _BUILT_IN.get(chain, "other")
        if policy not in {"-", "ACCEPT", "DROP"}:
            raise ValueError(f"policy {visible(policy, 40)}")
        action = "drop" if policy == "DROP" else "accept"
        chains.append(Chain(chain, tuple(rules[chain]), hook, action))
    return Table(layer, name, tuple(chains))


_LONGEST_RULE = 16 * 1024  # characters; shlex takes the square of the time


def _rule(line: str, chains: Container[str]) -> tuple[str, Rule]:
    if len(line) > _LONGEST_RULE:
        raise ValueError(f"a rule of {len(line)} characters: {visible(line, 80)}")
    words = shlex.split(line)
    if len(words) < 2 or words[0] != "-A" or words[1] not in chains:
        raise ValueError(f"not a rule: {visible(line, 120)}")
    tests: list[Test] = []
    verdict: Verdict = "continue"
    target = ""
    for negated, option, values in _options(words[2:]):
        if option in {"-j", "--jump", "-g", "--goto"}:
            verdict, target = _target(values, chains, goto=option in {"-g", "--goto"})
        elif option == "--notrack":  # of the target CT; rules about the connection's state then see another one
            verdict = "unknown"
        elif verdict == "continue":
            tests.extend(_tests(option, values, negated))
    return words[1], Rule(tuple(tests), verdict, target, visible(line, 240))


def _options(words: Sequence[str]) -> Iterator[tuple[bool, str, list[str]]]:
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


def _target(values: Sequence[str], chains: Container[str], *, goto: bool) -> tuple[Verdict, str]:
    [target] = values[:1] or [""]
    if target in chains:
        return ("goto" if goto else "jump"), target
    simple: dict[str, Verdict] = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
    if target in simple and not goto:
        return simple[target], ""
    if target == "CT" or target in _PASSIVE:
        return "continue", ""
    return "unknown", ""


def _tests(option: str, values: list[str], negated: bool) -> Iterator[Test]:
    value = values[0] if values else ""
    kinds = {
        **dict.fromkeys(("--dport", "--dports", "--destination-port", "--destination-ports"), "port"),
        **dict.fromkeys(("--sport", "--sports", "--source-port", "--source-ports"), "source port"),
        **dict.fromkeys(("-s", "--source", "--src-range"), "source"),
        **dict.fromkeys(("-d", "--destination", "--dst-range"), "destination"),
    }
    if option in kinds:
        try:
            yield Test(kinds[option], tuple(_interval(kinds[option], part) for part in value.split(",")), negated)
        except ValueError:
            yield UNKNOWN
    elif option in {"-p", "--protocol"}:
        yield Test("protocol", (value,), negated)
    elif option in {"-i", "--in-interface"}:
        yield Test("interface", (re.sub(r"\+$", "*", value),), negated)
    elif option in {"-o", "--out-interface"}:
        yield Test("out interface", (re.sub(r"\+$", "*", value),), negated)
    elif option == "--dst-type":
        yield _delivery(set(value.split(",")), negated)
    elif option in {"--ctstate", "--state"}:
        yield Test("state", tuple(value.lower().split(",")), negated)
    elif option == "--tcp-flags":
        yield _tcp_flags(values, negated)
    elif option in _TRUE_WORDS:
        hit = bool(set(value.split(",")) & _TRUE_WORDS[option])
        yield ALWAYS if hit != negated else NEVER
    elif option in _NEVER_OPTIONS or (option in _IGNORED and negated):
        # "! --syn": not the first packet of a connection; "! -f": no fragment, which always holds.
        yield NEVER if option not in {"-f", "--fragment"} or not negated else ALWAYS
    elif option not in _IGNORED:
        yield UNKNOWN


def _delivery(words: set[str], negated: bool) -> Test:
    """Of `-m addrtype --dst-type`: what comes in is for this host, what leaves is not."""
    if "UNICAST" in words:
        return NEVER if negated else ALWAYS
    return Test("local", (), negated) if "LOCAL" in words else ALWAYS if negated else NEVER


def _tcp_flags(values: list[str], negated: bool) -> Test:
    if len(values) != 2:
        return UNKNOWN
    mask, wanted = (set(value.split(",")) - {"NONE"} for value in values)
    hit = ({"SYN"} & mask == wanted) if "ALL" not in mask else wanted == {"SYN"}
    return ALWAYS if hit != negated else NEVER


def _interval(kind: str, text: str) -> Interval:
    if kind in {"port", "source port"}:
        low, colon, high = text.partition(":")
        return Interval(0, int(low or 0), int(high or 65535) if colon else int(low))
    first, dash, last = text.partition("-")
    return (
        Interval(*Interval.of_network(first)[:2], Interval.of_network(last).high) if dash else Interval.of_network(text)
    )
