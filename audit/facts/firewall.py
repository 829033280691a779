"""The firewall's answer to a peer's new TCP connection, and what listens.

firewalld and ufw are front ends: what they mean is in the kernel's rules, which `nft` and `iptables-save` show
to root only. QEMU listens on its migration ports during a migration only: that nothing listens there is normal.
"""

import ipaddress
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.hidden_rules import NF_TABLES, hidden_rules
from audit.facts.iptables import from_iptables
from audit.facts.netfilter import Answer, Chain, Family, Packet, Table, judge, ports_that_matter
from audit.facts.nftables import from_nft
from audit.text import visible

LISTENING = Probe(
    "firewall.listening",
    "ss -H -ltn 2>/dev/null || ss -ltn 2>/dev/null || { cat /proc/net/tcp && { cat /proc/net/tcp6 || :; }; }",
    hand="ss -ltn",
)
NFT = Probe("firewall.nft", "$sudo nft -j list ruleset", limit=32 * 1024 * 1024)
IPTABLES = Probe("firewall.iptables", "$sudo iptables-save", limit=32 * 1024 * 1024)
IP6TABLES = Probe("firewall.ip6tables", "$sudo ip6tables-save", limit=32 * 1024 * 1024)
# Tables of the old kernel interface, which neither nft nor iptables-nft shows.
LEGACY = Probe(
    "firewall.legacy",
    """
for version in ip ip6; do
    [ -e "/proc/net/${version}_tables_names" ] || continue
    names=$($sudo cat "/proc/net/${version}_tables_names") || exit
    [ -n "$names" ] || continue
    echo "# $version"
    $sudo "${version}tables-legacy-save" || exit
done
echo "# end"
""",
    limit=32 * 1024 * 1024,
    hand="iptables-legacy-save; ip6tables-legacy-save",
)
FIREWALLD = Probe(
    "firewall.firewalld", "$sudo firewall-cmd --list-all-zones", seconds=40, hand="firewall-cmd --list-all-zones"
)


class Socket(NamedTuple):
    """A listening TCP socket. Address `*`: all of both versions."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Listening(HostFact):
    """The TCP ports that something listens on now."""

    probes: ClassVar[tuple[Probe, ...]] = (LISTENING,)
    sockets: frozenset[Socket]

    def reachable(self, port: int) -> bool:
        """Something listens on that port, on more than the loopback."""
        return any(s.port == port and not re.match(r"127\.|::1$|::ffff:127\.", s.address) for s in self.sockets)

    @property
    def ports(self) -> frozenset[int]:
        """Every port, the loopback's too."""
        return frozenset(s.port for s in self.sockets)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `ss` of any age, or from /proc/net/tcp and tcp6."""
        sockets = frozenset(filter(None, map(_socket, said.lines(LISTENING))))
        if not sockets:  # a host that can be asked listens somewhere: `ss` was not allowed to see it
            raise Unavailable(LISTENING, "shows no listening socket at all, not even the SSH server's")
        return cls(sockets)


_STATES = {
    *("ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSE-WAIT", "LAST-ACK", "CLOSING"),
    *("UNCONN", "CLOSE"),
}


def _socket(line: str) -> Socket | None:
    words = line.split()
    if words[0] in {"State", "Netid", "sl"} or words[0] in _STATES or words[1] in _STATES:
        return None
    if re.fullmatch(r"\d+:", words[0]):
        return _proc_socket(*words[1:4])
    if "LISTEN" not in words[:2]:
        raise Unavailable(LISTENING, f"not understood: {visible(line, 120)}")
    if words[0] not in {"LISTEN", "tcp"}:
        return None
    address, _, port = words[words.index("LISTEN") + 3].rpartition(":")
    # Old versions write `:::22` for [::]:22; newer ones add the interface: `[fe80::1]%eth0:22`, `0.0.0.0%eth0:22`.
    return Socket(re.sub(r"%.*", "", address.replace("[", "").replace("]", "")), int(port))


def _proc_socket(local: str, _remote: str, state: str) -> Socket | None:
    if state != "0A":
        return None
    digits, _, port = local.partition(":")
    data = bytes.fromhex(digits)
    # Words of four bytes in the host's order, which is little-endian wherever KVM is common (s390x: see limits).
    words = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    address = ipaddress.ip_address(int.from_bytes(words)) if len(words) == 4 else ipaddress.IPv6Address(words)
    return Socket(str(address), int(port, 16))


class Zone(NamedTuple):
    """One zone of firewalld, as it is now."""

    name: str
    active: bool
    default: bool
    target: str
    interfaces: tuple[str, ...]
    sources: tuple[str, ...]
    services: tuple[str, ...]
    ports: tuple[str, ...]
    rich_rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Firewalld(HostFact):
    """firewalld's zones; where it does not run, it has none. For people: what holds is in `Firewall`."""

    probes: ClassVar[tuple[Probe, ...]] = (FIREWALLD,)
    running: bool
    zones: tuple[Zone, ...]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `firewall-cmd --list-all-zones`; it may not run, or not be there."""
        output = said.evidence(FIREWALLD)
        idle = output.status == 252 and b"not running" in (output.stdout + output.stderr).lower()
        if idle or _not_there(said, FIREWALLD):
            return cls(False, ())
        return cls(True, tuple(_zones(said.text(FIREWALLD))))


def _zones(text: str) -> Iterator[Zone]:
    head, keys, key = None, dict[str, list[str]](), ""
    for line in [*text.splitlines(), "end"]:
        if not line.strip():
            continue
        if not line[0].isspace():
            if head is not None:
                yield _zone(head, keys)
            head, keys, key = line.strip(), {}, ""
        else:
            match = re.match(r"\s+([a-z][a-z -]*?)(?::\s*(.*)|\s*)$", line)
            if match and not line.startswith(("\t", "        ")):
                key = match[1]
                keys[key] = [match[2]] if match[2] else []
            else:
                keys[key].append(line.strip())


def _zone(head: str, keys: dict[str, list[str]]) -> Zone:
    match = re.fullmatch(r"(\S+)(?: \(([a-z, ]+)\))?", head)
    if not match or "target" not in keys:
        raise ValueError(f"not a zone of firewalld: {visible(head, 80)}")
    marks = set((match[2] or "").split(", "))

    def words(key: str) -> tuple[str, ...]:
        return tuple(" ".join(keys.get(key, [])).split())

    return Zone(
        name=match[1],
        active="active" in marks,
        default="default" in marks,
        target=" ".join(keys["target"]),
        interfaces=words("interfaces"),
        sources=words("sources"),
        services=words("services"),
        ports=words("ports"),
        rich_rules=tuple(keys.get("rich rules", [])),
    )


Keeper = Literal["firewalld", "ufw", "nftables", "iptables", "none"]


@dataclass(frozen=True, slots=True)
class Firewall(HostFact):
    """All packet filter rules that a connection meets that comes in, or one that is made from here."""

    probes: ClassVar[tuple[Probe, ...]] = (NFT, IPTABLES, IP6TABLES, LEGACY, NF_TABLES)
    tables: tuple[Table, ...]
    missing: tuple[tuple[Family, str], ...] = ()
    """For which IP version there are rules that could not be read, and why."""
    hidden: str = ""
    """Why there may be more rules than these. What these refuse is refused all the same."""

    @property
    def keeper(self) -> Keeper:
        """Whose rules these are, so that a remedy can be written in its language."""
        names = {table.name for table in self.tables}
        chains = {chain.name for table in self.tables for chain in table.chains if chain.rules or chain.hook}
        if "firewalld" in names or "IN_public" in chains or "INPUT_ZONES" in chains:
            return "firewalld"
        if any(name.startswith(("ufw-", "ufw6-")) for name in chains):
            return "ufw"
        base = {(t.layer, c.name) for t in self.tables for c in t.chains if c.hook == "input" and _refuses(c)}
        return "none" if not base else "iptables" if base <= {("ip", "INPUT"), ("ip6", "INPUT")} else "nftables"

    @property
    def input_chain(self) -> str | None:
        """The chain that a rule for incoming packets goes to, as `FAMILY TABLE CHAIN` of nft."""
        chains = ((t, c) for t in self.tables for c in t.chains if c.hook == "input" and _refuses(c))
        return next((shlex.join((table.layer, table.name, chain.name)) for table, chain in chains), None)

    def answers(self, ports: range, like: Packet) -> Sequence[tuple[range, Answer]]:
        """What happens to a packet `like` this one at each of the ports, ports that fare alike taken together."""
        for family, reason in self.missing:
            if family == like.family:
                raise Unavailable(IPTABLES if family == 4 else IP6TABLES, reason)
        answers: list[tuple[range, Answer]] = []
        for part in ports_that_matter(self.tables, ports):
            packet = replace(like, port=part.start)
            answer = judge(self.tables, packet)
            if self.hidden and answer.state != "closed":
                raise Unavailable(NFT, self.hidden)
            if answers and answers[-1][1] == answer:
                answers[-1] = (range(answers[-1][0].start, part.stop), answer)
            else:
                answers.append((part, answer))
        return answers

    @classmethod
    def parse(cls, said: Said) -> Self:
        """nft's tables; iptables' own where nft cannot spell them out; and those of the old kernel interface."""
        nft = _nft(said)
        tables = [table for table in nft or () if not (table.opaque and table.layer in {"ip", "ip6"})]
        missing: list[tuple[Family, str]] = []
        for family, layer, probe in _SAVES:
            opaque = {t.name for t in nft or () if t.opaque and t.layer == layer}
            try:
                tables.extend(_iptables(said, probe, family, opaque, nft_spoke=nft is not None))
            except Unavailable as reason:
                missing.append((family, reason.reason))
        return cls(tuple(tables), tuple(missing), _hidden(said) if nft is None else "")


def _refuses(chain: Chain) -> bool:
    """It may refuse anything at all."""
    return bool(chain.rules) or chain.policy == "drop"


_SAVES: tuple[tuple[Family, str, Probe], ...] = ((4, "ip", IPTABLES), (6, "ip6", IP6TABLES))


def _nft(said: Said) -> tuple[Table, ...] | None:
    """nft's tables; None: there is no nft on this host."""
    if _not_there(said, NFT):
        return None
    return from_nft(said.json(NFT))


def _not_there(said: Said, probe: Probe) -> bool:
    """The program is not installed (as the shell tells it, or sudo)."""
    output = said.evidence(probe)
    if output.status == 1:
        return re.search(rb"sudo: [\w-]+: command not found", output.stderr) is not None
    return output.status == 127


def _hidden(said: Said) -> str:
    try:
        outputs = [said.evidence(probe) for probe in (IPTABLES, IP6TABLES)]
        return hidden_rules(said, [output.stdout.decode("utf-8", "replace") for output in outputs])
    except Unavailable as reason:
        return f"nft is not installed; {reason}"


def _iptables(said: Said, probe: Probe, family: Family, opaque: set[str], *, nft_spoke: bool) -> list[Table]:
    """The tables that only iptables can tell: those `opaque` to nft, and those that nft does not see."""
    if _not_there(said, probe):
        if not nft_spoke:
            raise Unavailable(probe, "neither nft nor iptables-save is installed")
        if opaque:
            raise Unavailable(probe, "iptables' rules are in the kernel, but iptables-save is not installed")
        return _legacy(said, family)
    text = said.text(probe)
    if "use 'nft' tool" in text and not nft_spoke:  # "is incompatible", "contains incompatible base-chains"
        raise Unavailable(probe, "there are rules that only nft can show, and it is not installed")
    tables = list(from_iptables(text, family))
    through_nft = "(nf_tables)" in text or "xtables-save" in text or not tables
    if not through_nft:
        return tables
    if nft_spoke:
        if not opaque <= {table.name for table in tables}:
            raise Unavailable(probe, "iptables-save does not show all of iptables' tables")
        tables = [table for table in tables if table.name in opaque]
    return [*tables, *_legacy(said, family)]


def _legacy(said: Said, family: Family) -> list[Table]:
    text = said.text(LEGACY)
    if not text.rstrip().endswith("# end"):
        raise Unavailable(LEGACY, "answer is incomplete")
    part = re.search(rf"^# {'ip' if family == 4 else 'ip6'}$\n(.*?)(?=^# ip6$|^# end$)", text, re.MULTILINE | re.DOTALL)
    return list(from_iptables(part[1], family)) if part else []
