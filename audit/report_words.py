"""How the report words things: names, times, sizes, commands, and lists that are not too long."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from audit.report_model import Because, Command, Cut, Few
from audit.results import EvidenceRef, HostResult, Pair, Reason
from audit.text import visible

T = TypeVar("T")
Placed = TypeVar("Placed", HostResult, Pair)

NAME_LIMIT = 80  # characters of a guest's or host's name; libvirt itself takes names of 10 kB
VALUE_LIMIT = 220
SENTENCE_LIMIT = 400
COMMAND_LIMIT = 4000
COMMAND_LINES = 8  # beyond it a command is a script, which paper leaves out
PAPER_NAMES = 12  # names in one list
SCREEN_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Context:
    """What every section needs to name a host, to refer to a finding, and to know how long a list may be."""

    short: dict[str, str]
    anchors: dict[str, str]
    names: int
    """As many names stand in one list."""
    paper: bool = False

    def host(self, name: str) -> str:
        """Its short name."""
        return self.short.get(name, shown_name(name))

    def some(self, hosts: Iterable[str]) -> str:
        """The short names of `hosts`, as many as may be."""
        return self.join([self.host(name) for name in hosts])

    def join(self, names: Sequence[str]) -> str:
        """Of `names` as many as may be."""
        return some(names, self.names)

    def because(self, reason: Reason, routes: Cut[tuple[str, str]] | None = None) -> Because:
        """The reason as it is shown, with what it applies to."""
        check, text = reason["check"], visible(reason["message"], VALUE_LIMIT)
        return Because(text, reason["status"], visible(check, 60), self.anchors.get(check, ""), routes or Cut(()))


def moment(time: str) -> str:
    """A UTC time of the results as people write it; what is no time is shown as it is."""
    try:
        stamp = datetime.fromisoformat(time)
        return (stamp.astimezone(UTC) if stamp.tzinfo else stamp).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return visible(time, 40) or "not stated"


def size(kib: int) -> str:
    """Memory in the largest binary unit that needs at most one decimal place."""
    for unit, factor in (("TiB", 1024**3), ("GiB", 1024**2), ("MiB", 1024)):
        if kib >= factor:
            return f"{kib / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{kib} KiB"


def command(remedy: str) -> Command | None:
    """The remedy, told apart: a command begins with a small letter or a path, a sentence with a capital.

    A command that cannot be shown whole and exact must not be pasted, so it is not shown.
    """
    if not remedy.strip():
        return None
    text = remedy.strip("\n")
    if not re.match(r"\s*[a-z/$#.]", text):
        return Command(visible(text, SENTENCE_LIMIT * 2), pasteable=False)
    if len(text) > COMMAND_LIMIT or any(visible(line, COMMAND_LIMIT) != line for line in text.split("\n")):
        return Command("The command holds characters that cannot be shown safely: see results.json.", pasteable=False)
    return Command(text, pasteable=True, long=text.count("\n") >= COMMAND_LINES)


def evidence(ref: EvidenceRef) -> str:
    """`kvm01 cpu.capabilities 9f86d081884c`, enough of the digest to find it in the bundle's index."""
    digest = ref["sha256"][:12] if ref["sha256"] else "no output"
    return f"{shown_name(ref['host'])} {visible(ref['probe'], 100)} {visible(digest, 12)}"


def shown_name(name: str) -> str:
    """A name at a bearable length, defused."""
    return visible(name, NAME_LIMIT)


def shown_sentences(sentences: list[str]) -> tuple[str, ...]:
    """Sentences at a bearable length, defused."""
    return tuple(visible(sentence, SENTENCE_LIMIT) for sentence in sentences)


def some(names: Sequence[str], limit: int, joint: str = ", ") -> str:
    """The first `limit` names, and how many more there are."""
    if len(names) <= limit + 1:  # "and 1 more" is no shorter than the name
        return joint.join(names)
    return f"{joint.join(names[:limit])} and {len(names) - limit} more"


def cut(items: Sequence[T], shown: int) -> Cut[T]:
    """The first `shown` items apart from the rest, unless that would save one line at most."""
    return Cut(tuple(items)) if len(items) <= shown + 1 else Cut(tuple(items[:shown]), tuple(items[shown:]))


def few(items: Sequence[T], shown: int) -> Few[T]:
    """The first `shown` items, and how many more there are."""
    return Few(tuple(items)) if len(items) <= shown + 1 else Few(tuple(items[:shown]), len(items) - shown)


def short_names(hosts: list[str]) -> dict[str, str]:
    """Host names without their domain, where that is unambiguous among all of them; addresses stay whole."""
    short = {host: host if re.fullmatch(r"[0-9.]+|.*:.*", host) else host.split(".")[0] for host in hosts}
    unique = len(set(short.values())) == len(short)
    return {host: shown_name(short[host] if unique else host) for host in hosts}


def counted(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def lines(text: str, width: int) -> int:
    """How many lines of `width` characters it takes; East Asian characters are twice as wide as others."""
    length = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    return 1 + max(0, length - 1) // width


def by_cluster(items: list[Placed]) -> list[tuple[str, list[Placed]]]:
    """Hosts or pairs by their cluster, in the order of the results."""
    grouped: dict[str, list[Placed]] = {}
    for item in items:
        grouped.setdefault(item["cluster"], []).append(item)
    return list(grouped.items())
