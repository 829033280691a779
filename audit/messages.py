"""From libvirt's and QEMU's words back to what is behind them, and to the checks that foresee it.

The messages stand in `audit/data/messages.yaml`. Their patterns hold what a message says in its essence: names, paths,
numbers and prefixes are left open, all quotes are the same, and white space is collapsed, so that they outlive versions
and whatever wraps them. What is explained is other people's text: bounded, matched by bounded patterns, and shown only
after `visible`.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from itertools import count
from typing import Any

import yaml

from audit.text import visible

LIMIT = 64 * 1024
"""Characters that are looked at, the last ones: in a log what matters stands at the end."""
MOST = 20
"""Explanations of one text."""
SAYINGS = 3
"""How many messages are told of one check."""
_HITS = 50
"""Places where one pattern is looked for in a text."""
_SHOWN = 240

_QUOTES = str.maketrans(dict.fromkeys('\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u2039\u203a\u00ab\u00bb`´"', "'"))
_WRITTEN_QUOTES = re.compile(r"\\x2[27]|&(?:quot|apos|#39|#34);|\\[\"']", re.IGNORECASE)
_SEVERAL_QUOTES = re.compile("'{2,}")
_COLOURS = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_OPEN = re.compile(r"(\?P)?<([a-z_]*)>|…")
_MARK = "__"
"""Between a value's name and its number: the same name may stand in several alternatives."""
_VALUE = r"(?:(?<=').{1,200}?(?=')|[^\s']{1,200})"
_NAMED = re.compile(r"\{([a-z_]+)\}")


class Depth(IntEnum):
    """How near to the root of the trouble a message is; the nearest is told first."""

    CAUSE = 0
    """It names what is wrong."""
    EFFECT = 1
    """It follows from something that another message may name."""
    WRAPPER = 2
    """It says that something failed, not what; told only where nothing else is."""


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that libvirt, QEMU or ssh says when a migration fails."""

    id: str
    depth: Depth
    says: tuple[re.Pattern[str], ...]
    example: str
    """A whole message as it is emitted."""
    checks: tuple[str, ...]
    """Ids of the checks that foresee it, the best match first."""
    why_not: str
    """Why no check foresees it, where none does."""
    cause: str
    remedy: str
    run: tuple[str, ...]
    """Commands of the remedy. Like cause and remedy they may name groups of the patterns: `{path}`."""
    seen: str
    """Where it is said or was met."""

    @property
    def said(self) -> str:
        """The example, on one line."""
        return " ".join(self.example.split())


@dataclass(frozen=True, slots=True)
class Explanation:
    """One message that was found in a text, told for that text. Everything in it is fit to be shown."""

    message: Message
    words: str
    """What was found."""
    cause: str
    remedy: str
    commands: tuple[str, ...]
    """To be pasted: values from the text are quoted for the shell."""

    @property
    def checks(self) -> tuple[str, ...]:
        """Ids of the checks that foresee it, the best match first."""
        return self.message.checks

    @property
    def tells_cause(self) -> bool:
        """It is more than the news that something failed."""
        return self.message.depth is not Depth.WRAPPER


@dataclass(frozen=True, slots=True)
class _Hit:
    message: Message
    start: int
    end: int
    words: str
    values: tuple[tuple[str, str], ...]

    def covers(self, other: "_Hit") -> bool:
        """They are about the same words, and this one says more: it is nearer to the root, or holds the other whole."""
        if self.message.depth < other.message.depth:
            return self.start < other.end and other.start < self.end
        return self.message.depth == other.message.depth and self.start <= other.start and other.end <= self.end


@cache
def messages() -> tuple[Message, ...]:
    """All that are known, in the file's order. Raises `ValueError` or `KeyError` where the file is wrong."""
    text = files("audit").joinpath("data", "messages.yaml").read_text("utf-8")
    data: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506, a safe one
    if data["format"] != "virt-preflight/messages/1":
        raise ValueError(f"messages.yaml: format {data['format']!r}")
    return tuple(_message(entry) for section in data["sections"] for entry in section["messages"])


def _message(entry: dict[str, Any]) -> Message:
    checks, why_not = tuple(entry.get("checks", ())), entry.get("why_not", "")
    if bool(checks) == bool(why_not):
        raise ValueError(f"messages.yaml: {entry['id']}: either checks, or why there are none")
    says, run = entry["says"], entry.get("run", ())
    return Message(
        id=entry["id"],
        depth=Depth[entry.get("depth", "cause").upper()],
        says=tuple(compiled(pattern) for pattern in ([says] if isinstance(says, str) else says)),
        example=entry["example"],
        checks=checks,
        why_not=why_not,
        cause=entry["cause"],
        remedy=entry["remedy"],
        run=(run,) if isinstance(run, str) else tuple(run),
        seen=entry["seen"],
    )


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of the file as a regular expression.

    In it, `<name>` stands for a value that may be quoted, `<>` for one without a name, `…` for up to 200 characters.
    Alternatives may use the same name.
    """

    number = count()

    def bounded(match: re.Match[str]) -> str:
        if match[0] == "…":
            return ".{0,200}?"
        group = f"?P<{match[2]}{_MARK}{next(number)}>"
        if match[1]:  # a group that is written out
            return group
        return f"'?({group}{_VALUE})'?" if match[2] else f"'?{_VALUE}'?"

    return re.compile(_OPEN.sub(bounded, pattern), re.IGNORECASE)


def foreseen(check_id: str) -> tuple[Message, ...]:
    """What libvirt or QEMU would say where the check finds something, the best match first."""
    naming = [message for message in messages() if check_id in message.checks]
    return tuple(sorted(naming, key=lambda message: (message.checks.index(check_id), message.depth)))


def explain(text: str) -> tuple[Explanation, ...]:
    """What is said in the text and known, what is nearest to the root of the trouble first; () if nothing is.

    The text may be one message, a terminal session or a log. The same message about another thing counts once more.
    """
    said = plain(text)
    hits = [hit for message in messages() for hit in _hits(message, said)]
    kept: list[_Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.message.depth, hit.start - hit.end, hit.start)):
        if not any(other.covers(hit) for other in kept):
            kept.append(hit)
    if any(hit.message.depth is not Depth.WRAPPER for hit in kept):
        kept = [hit for hit in kept if hit.message.depth is not Depth.WRAPPER]
    kept.sort(key=lambda hit: (hit.message.depth, hit.start))
    return tuple(_told(hit) for n, hit in enumerate(kept) if not _repeated(hit, n, kept))[:MOST]


def _repeated(hit: _Hit, number: int, kept: Sequence[_Hit]) -> bool:
    """The same message is told already of the same thing, or is told elsewhere with more of its values."""
    alike = ((n, other) for n, other in enumerate(kept) if other.message.id == hit.message.id and n != number)
    ours = set(hit.values)
    return any(ours < set(other.values) or (ours == set(other.values) and n < number) for n, other in alike)


def plain(text: str) -> str:
    """The end of the text as patterns see it: on one line, without colours, with one kind of quotes."""
    cut = _COLOURS.sub("", text[-LIMIT:])
    return _SEVERAL_QUOTES.sub("'", " ".join(_WRITTEN_QUOTES.sub("'", cut).translate(_QUOTES).split()))


def _hits(message: Message, said: str) -> Iterator[_Hit]:
    for pattern in message.says:
        for number, match in enumerate(pattern.finditer(said)):
            if number == _HITS:
                break
            values = {name.partition(_MARK)[0]: _value(match, name) for name in pattern.groupindex if match[name]}
            yield _Hit(message, *match.span(), match[0], tuple(sorted(values.items())))


def _value(match: re.Match[str], name: str) -> str:
    """Without what a sentence puts around a word; within quotes, as it stands."""
    start = match.start(name)
    return match[name] if match.string[start - 1 : start] == "'" else match[name].strip("()").rstrip(":,.;")


def _told(hit: _Hit) -> Explanation:
    message, values = hit.message, dict(hit.values)
    return Explanation(
        message,
        visible(hit.words, _SHOWN),
        _filled(message.cause, values),
        _filled(message.remedy, values),
        tuple(_filled(command, values, pasted=True) for command in message.run),
    )


def _filled(text: str, values: Mapping[str, str], *, pasted: bool = False) -> str:
    """With the values, or, where the words did not tell one, its name in capitals.

    In what is to be pasted they are quoted for the shell, and never look like an option.
    """

    def value(match: re.Match[str]) -> str:
        found = visible(values.get(match[1], ""), _SHOWN).strip()
        if not found or (pasted and (found.startswith("-") or found.endswith("…"))):
            return match[1].upper()
        return shlex.quote(found) if pasted else found

    return _NAMED.sub(value, text)
