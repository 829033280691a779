"""What a fact is: a typed, frozen, hashable value parsed from evidence, or the reason why there is none.

A host fact names its probes and parses what they said; a guest fact parses one guest's XML (and may look
at its host's probes). Parsing is the only reader of raw text. A missing probe, an unexpected exit status
or text that does not parse raises `Unavailable`, which checks and reports receive instead of the fact:
never a default, never an empty collection that reads as "none".
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from lxml import etree

from audit.evidence import Evidence, HostEvidence, Probe
from audit.text import NotXml, parse_xml, visible


class Unavailable(Exception):
    """A fact that cannot be had: which probe, why, and the command that would supply it."""

    def __init__(self, probe: Probe, reason: str) -> None:
        super().__init__(f"{probe.name}: {reason}")
        self.probe = probe
        self.reason = reason


class NotAsked(Unavailable):
    """A fact that comes from an active probe, which this run was not asked for: nothing is wrong, nothing is known."""


R = TypeVar("R")
Ask = Callable[["Facts", str, Sequence[str]], Sequence[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Question(Probe):
    """A probe whose arguments the first round supplies.

    `ask(facts, host, peers)` is pure and gives the records to ask of `host`, each a tuple of `arity`
    strings without NUL. On the host, `command` reads them NUL-separated from standard input; `maximum`
    bounds their number: what is cut is not answered, and so is unknown. Where the option that asks for an active
    question has a value (`--measure-dirty-rate 30`), that is the last of the `arity` strings, and `ask` leaves it out.
    """

    ask: Ask = field(kw_only=True)
    arity: int = 1
    maximum: int = 2000


class Said:
    """What one host answered, read strictly. Every method raises `Unavailable` when there is nothing to rely on."""

    def __init__(self, host: HostEvidence) -> None:
        self.host = host
        self.made: dict[object, Any] = {}
        """What `once` keeps."""

    def evidence(self, probe: Probe) -> Evidence:
        """The probe's evidence, which ran to its end (with whatever exit status)."""
        if self.host.problem:
            raise Unavailable(probe, f"host not reached: {self.host.problem}")
        output = self.host.outputs.get(probe.name)
        if output is None and probe.option:
            raise NotAsked(probe, f"not tried: {probe.option} does")
        if output is None:
            raise Unavailable(probe, "not collected")
        if output.problem:
            raise Unavailable(probe, output.problem)
        if isinstance(probe, Question) and any(len(record) != probe.arity for record in output.arguments):
            raise Unavailable(probe, "another version of this program asked, with other records")
        return output

    def text(self, probe: Probe, *, ok: tuple[int, ...] = (0,)) -> str:
        """Standard output of a probe that ended with one of the statuses in `ok`."""
        output = self.evidence(probe)
        if output.status not in ok:
            raise Unavailable(probe, self._without_root(probe) + _failure(output))
        return output.stdout.decode("utf-8", "replace")

    def _without_root(self, probe: Probe) -> str:
        """Why a probe that wants root had none: the cause behind whatever it complained of."""
        user, _, why = self.host.privilege.partition(": ")
        return f"not root ({why}); " if user == "user" and "$sudo" in probe.command else ""

    def lines(self, probe: Probe, *, ok: tuple[int, ...] = (0,)) -> list[str]:
        """The non-blank lines of `text`."""
        return [line for line in self.text(probe, ok=ok).splitlines() if line.strip()]

    def xml(self, probe: Probe) -> etree._Element:
        """The root of the one XML document that the probe printed."""
        self.text(probe)
        try:
            return parse_xml(self.evidence(probe).stdout)
        except NotXml as error:
            raise Unavailable(probe, str(error)) from error

    def json(self, probe: Probe) -> Any:
        """The JSON value that the probe printed."""
        try:
            return json.loads(self.text(probe))
        except (ValueError, RecursionError) as error:
            raise Unavailable(probe, f"not JSON: {visible(str(error), 120)}") from error


def _failure(output: Evidence) -> str:
    """Why a probe failed, in its own words where it has any."""
    words = (output.stderr or output.stdout).decode("utf-8", "replace").strip()
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "")
    if output.status == 127:
        return f"command not found: {visible(last, 200)}" if last else "command not found"
    return f"exit status {output.status}" + (f": {visible(last, 200)}" if last else "")


def once(make: Callable[[Said], R]) -> Callable[[Said], R]:
    """Of what several facts of a host are read from: made once a host. What it raises, it raises each time."""

    @functools.wraps(make)
    def made(said: Said) -> R:
        if make not in said.made:
            said.made[make] = make(said)
        return said.made[make]  # type: ignore[no-any-return]

    return made


class HostFact:
    """Base of facts about a host. A subclass is a frozen, slotted dataclass with `probes` and `parse`."""

    __slots__ = ()
    probes: ClassVar[tuple[Probe, ...]] = ()

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The fact. Raises `Unavailable`; a `ValueError` or `LookupError` counts as text not understood."""
        raise NotImplementedError


class Guest(NamedTuple):
    """Which guest: the host it is defined or running on, its UUID and its (untrusted) name."""

    host: str
    uuid: str
    name: str


class GuestSource(NamedTuple):
    """What a guest fact is parsed from. `xml` is the live `<domain>` of an active guest, else the inactive one."""

    guest: Guest
    active: bool
    xml: etree._Element
    inactive: etree._Element | None
    said: Said


class GuestFact:
    """Base of facts about a guest; the same rules as for `HostFact`, parsed from its XML."""

    __slots__ = ()
    probes: ClassVar[tuple[Probe, ...]] = ()

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """The fact, from the guest's XML and its host's probes; the same errors."""
        raise NotImplementedError


H = TypeVar("H", bound=HostFact)
G = TypeVar("G", bound=GuestFact)
GuestReader = Callable[[Said], Sequence[GuestSource]]


F = TypeVar("F")


def _or_raise(fact: F | Unavailable) -> F:
    if isinstance(fact, Unavailable):
        raise fact
    return fact


class Facts:
    """All facts of a bundle, parsed once, equal values shared (so that identity implies equality and back)."""

    def __init__(self, hosts: Mapping[str, HostEvidence], read_guests: GuestReader) -> None:
        self._said = {name: Said(host) for name, host in hosts.items()}
        self._read_guests = read_guests
        self._host_facts: dict[tuple[str, type], Any] = {}
        self._guest_facts: dict[tuple[Guest, type], Any] = {}
        self._sources: dict[str, dict[Guest, GuestSource] | Unavailable] = {}
        self._shared: dict[Any, Any] = {}

    def said(self, host: str) -> Said:
        """The host's answers."""
        return self._said[host]

    def of(self, host: str, kind: type[H]) -> H | Unavailable:
        """The host's fact of that kind, or why there is none."""
        key = (host, kind)
        if key not in self._host_facts:
            self._host_facts[key] = self._parsed(kind, lambda: kind.parse(self._said[host]))
        return self._host_facts[key]  # type: ignore[no-any-return]

    def guests(self, host: str) -> tuple[Guest, ...] | Unavailable:
        """The host's guests, by name, or why they could not be listed."""
        sources = self._guest_sources(host)
        return sources if isinstance(sources, Unavailable) else tuple(sources)

    def of_guest(self, guest: Guest, kind: type[G]) -> G | Unavailable:
        """The guest's fact of that kind, or why there is none."""
        key = (guest, kind)
        if key not in self._guest_facts:
            sources = self._guest_sources(guest.host)
            assert not isinstance(sources, Unavailable), "a guest comes from `guests`"
            source = sources[guest]
            self._guest_facts[key] = self._parsed(kind, lambda: kind.parse(source))
        return self._guest_facts[key]  # type: ignore[no-any-return]

    def told(self, host: str, kind: type[H]) -> H:
        """The host's fact of that kind; raises the `Unavailable` that `of` gives."""
        return _or_raise(self.of(host, kind))

    def told_of_guest(self, guest: Guest, kind: type[G]) -> G:
        """The guest's fact of that kind; raises the `Unavailable` that `of_guest` gives."""
        return _or_raise(self.of_guest(guest, kind))

    def each(self, hosts: Sequence[str], kind: type[H]) -> Iterator[tuple[str, H]]:
        """The facts of that kind that there are; for questions and summaries, which take what they get."""
        for host in hosts:
            fact = self.of(host, kind)
            if not isinstance(fact, Unavailable):
                yield host, fact

    def each_guest(self, hosts: Sequence[str], kind: type[G]) -> Iterator[tuple[Guest, G]]:
        """The guests' facts of that kind that there are, over all `hosts`."""
        for host in hosts:
            guests = self.guests(host)
            for guest in () if isinstance(guests, Unavailable) else guests:
                fact = self.of_guest(guest, kind)
                if not isinstance(fact, Unavailable):
                    yield guest, fact

    def _guest_sources(self, host: str) -> dict[Guest, GuestSource] | Unavailable:
        if host not in self._sources:
            try:
                sources = self._read_guests(self._said[host])
                self._sources[host] = {s.guest: s for s in sorted(sources, key=lambda s: (s.guest.name, s.guest.uuid))}
            except Unavailable as reason:
                self._sources[host] = reason
        return self._sources[host]

    def _parsed(self, kind: type[HostFact] | type[GuestFact], parse: Callable[[], Any]) -> Any:
        try:
            fact = parse()
        except Unavailable as reason:
            return reason
        except (ValueError, LookupError, ArithmeticError) as error:  # text that no version known to us prints
            return Unavailable(kind.probes[0], f"not understood: {visible(str(error), 200) or type(error).__name__}")
        return self._shared.setdefault(fact, fact)
