"""Facts × checks → judgements: every check over every subject of its scope, each distinct question asked once.

Checks are pure and facts are shared by value (`audit.facts.base.Facts`), so a judgement is memoised by the
identity of the facts it was made from: a fleet costs as much as it has distinct values.
"""

import importlib
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Literal, NamedTuple, NoReturn

from audit.check import At, Blocks, Check, Finding, NotApplicable, Parameter, Role, Scope
from audit.evidence import Probe
from audit.facts.base import Facts, Guest, GuestFact, NotAsked, Unavailable
from audit.policy import Policy
from audit.text import visible

GROUP = "virt_preflight.checks"


class CheckError(Exception):
    """The installed checks cannot be used together."""


def discover() -> tuple[Check, ...]:
    """All checks that installed packages offer (entry point group `virt_preflight.checks`), by id.

    An entry point names a module, or a package whose modules are all looked through.
    """
    found: dict[str, Check] = {}
    for entry in entry_points(group=GROUP):
        for module in _modules(entry.load()):
            for value in vars(module).values():
                if isinstance(value, Check) and found.setdefault(value.id, value) is not value:
                    raise CheckError(f"two checks are called {value.id}")
    return tuple(found[name] for name in sorted(found))


def _modules(root: ModuleType) -> Iterator[ModuleType]:
    yield root
    for info in pkgutil.iter_modules(getattr(root, "__path__", [])):
        yield importlib.import_module(f"{root.__name__}.{info.name}")


@dataclass(frozen=True, slots=True)
class Judged:
    """What one check said of one combination of facts."""

    status: Literal["pass", "fail", "skip", "unknown", "error"]
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    """Of a skip, an unknown or an error; of a fail, why it could not look at everything."""
    probe: Probe | None = None
    """Of an unknown, or such a fail: the one that would supply what is missing."""
    unseen: tuple[tuple[str, str], ...] = ()
    """Of a cluster check: each host that it could not see, and why."""


PASS = Judged("pass")


class Subject(NamedTuple):
    """What an outcome is about; unused parts are None."""

    host: str | None = None
    target: str | None = None
    """Of a pair (`host` is then the source) or a placement."""
    guest: Guest | None = None
    cluster: str | None = None


class Outcome(NamedTuple):
    """One check, one subject, one judgement that is neither a pass nor a skip."""

    check: Check
    subject: Subject
    judged: Judged


@dataclass
class Judgements:
    """Of one cluster: what is not a pass, by subject, and how often each check came to which status."""

    outcomes: dict[Subject, list[Outcome]] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    skipped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    shut: dict[tuple[str, str], list[Outcome]] = field(default_factory=dict)
    """By source and a target that could not be read: what is wrong between them all the same, and blocks."""

    def of(self, subject: Subject) -> list[Outcome]:
        """The outcomes about that very subject."""
        return self.outcomes.get(subject, [])

    def add(self, check: Check, subject: Subject, judged: Judged) -> None:
        """Count it, and keep it unless it is a pass or a skip."""
        self.counts[check.id][judged.status] += 1
        if judged.status == "skip":
            self.skipped[check.id][judged.reason] += 1
        elif judged.status != "pass":
            self.outcomes.setdefault(subject, []).append(Outcome(check, subject, judged))


class Missing:
    """Stands in for a fact that cannot be had: whatever a check asks of it raises the reason.

    So a check whose question does not arise, or that is decided by its other facts, is not made unknown by a fact that
    it never looks at; and one that does look is.
    """

    __slots__ = ("_why",)

    def __init__(self, why: Unavailable) -> None:
        self._why = why

    def _refuse(self, *_: object) -> NoReturn:
        raise type(self._why)(self._why.probe, self._why.reason)

    __getattr__ = __eq__ = __bool__ = __iter__ = __contains__ = __len__ = __str__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class Judge:
    """Applies checks to the facts of one run."""

    def __init__(self, facts: Facts, checks: Sequence[Check], policy: Policy) -> None:
        self._facts = facts
        self._checks = checks
        self._policy = policy
        self._memo: dict[tuple[Any, ...], Judged] = {}
        self._missing: dict[int, Missing] = {}
        self._arguments: dict[tuple[type[Any], Any], Any] = {}

    def cluster(self, name: str, hosts: Sequence[str], unread: Sequence[str] = ()) -> Judgements:
        """Every check over every subject of the cluster's reached hosts, guests, ordered pairs and placements.

        Of its `unread` hosts, as targets, only what the sources alone know counts.
        """
        found = Judgements()
        subjects = dict(self._subjects(name, hosts))
        for check in self._checks:
            for subject in subjects[check.scope]:
                found.add(check, subject, self._judged(check, subject, hosts))
        for source, target in ((source, target) for source in hosts for target in unread):
            outcomes = [o for o in self._between(Subject(source, target)) if o.judged.status == "fail"]
            if outcomes:
                found.shut[source, target] = outcomes
        return found

    def _between(self, pair: Subject) -> Iterator[Outcome]:
        for check in self._checks:
            if check.scope is Scope.PAIR and check.blocks is Blocks.MIGRATION and not (check.way or check.plain_guest):
                yield Outcome(check, pair, self._judged(check, pair, ()))

    def _subjects(self, cluster: str, hosts: Sequence[str]) -> Iterator[tuple[Scope, list[Subject]]]:
        guests = [guest for host in hosts for guest in self._guests(host)]
        yield Scope.CLUSTER, [Subject(cluster=cluster)]
        yield Scope.HOST, [Subject(host) for host in hosts]
        yield Scope.PAIR, [Subject(host, target) for host in hosts for target in hosts if target != host]
        yield Scope.GUEST, [Subject(guest.host, None, guest) for guest in guests]
        yield (
            Scope.PLACEMENT,
            [Subject(guest.host, target, guest) for guest in guests for target in hosts if target != guest.host],
        )

    def _guests(self, host: str) -> tuple[Guest, ...]:
        guests = self._facts.guests(host)
        return () if isinstance(guests, Unavailable) else guests

    def _judged(self, check: Check, subject: Subject, hosts: Sequence[str]) -> Judged:
        if check.scope is Scope.CLUSTER:
            return self._cluster_judged(check, hosts)
        return self._ask(check, [self._argument(parameter, subject) for parameter in check.parameters])

    def _argument(self, parameter: Parameter, subject: Subject) -> Any:
        role, kind = parameter
        if kind is Policy:
            return self._policy
        about: Any = subject.target if role is Role.TARGET and subject.target else subject.host
        if issubclass(kind, GuestFact):
            about = subject.guest
        try:
            return self._arguments[kind, about]
        except KeyError:
            assert about is not None, "every scope but the cluster's has a host, and a guest fact makes a guest scope"
            return self._arguments.setdefault((kind, about), self._fact(kind, about))

    def _fact(self, kind: type[Any], about: Any) -> Any:
        fact = self._facts.of_guest(about, kind) if issubclass(kind, GuestFact) else self._facts.of(about, kind)
        return self._missing.setdefault(id(fact), Missing(fact)) if isinstance(fact, Unavailable) else fact

    def _cluster_judged(self, check: Check, hosts: Sequence[str]) -> Judged:
        """A cluster check sees the facts that there are; it passes only if it saw them all."""
        members: list[At[Any]] = []
        missing: dict[str, Unavailable] = {}
        [kind] = check.facts
        for host in hosts:
            for guest, fact in self._of_host(host, kind):
                if isinstance(fact, Unavailable):
                    missing.setdefault(host, fact)
                else:
                    members.append(At(host, fact, guest))
        seen = tuple(members)
        judged = _asked(check, [self._policy if p.kind is Policy else seen for p in check.parameters])
        unknown = {host: why for host, why in missing.items() if not isinstance(why, NotAsked)}
        if unknown and judged.status in ("pass", "skip"):  # the question may arise on a host that was not seen
            judged = _without(next(iter(unknown.values())))
        elif missing and judged.status == "pass":
            judged = _without(next(iter(missing.values())))
        return replace(judged, unseen=tuple((host, str(why)) for host, why in unknown.items()))

    def _of_host(self, host: str, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        if not issubclass(kind, GuestFact):
            yield "", self._facts.of(host, kind)
            return
        guests = self._facts.guests(host)
        if isinstance(guests, Unavailable):
            yield "", guests
            return
        for guest in guests:
            yield guest.name, self._facts.of_guest(guest, kind)

    def _ask(self, check: Check, arguments: list[Any]) -> Judged:
        """The check's answer. Facts are shared by value, so their identity stands for them."""
        key = (check.id, *map(id, arguments))
        if key not in self._memo:
            self._memo[key] = _asked(check, arguments)
        return self._memo[key]


def _asked(check: Check, arguments: Iterable[Any]) -> Judged:
    """Findings come before what is not known, and that before a question that does not arise, in whatever order."""
    findings: list[Finding] = []
    reasons: list[NotApplicable | Unavailable] = []
    try:
        stream: Iterator[object] = check.function(*arguments)
        for told in stream:  # one by one: what was told before the check stops for a reason is kept
            if isinstance(told, Finding):
                findings.append(told)
            elif isinstance(told, Unavailable):
                reasons.append(told)
            else:
                return Judged("error", reason=f"{check.id} told {visible(repr(told))}")
    except (NotApplicable, Unavailable) as reason:
        reasons.append(reason)
    except Exception as error:  # noqa: BLE001 - a check is somebody else's code; its bug must not end the run
        broken = f"{check.id} failed: {visible(repr(error))}"
        return Judged("fail", tuple(findings), broken) if findings else Judged("error", reason=broken)
    answers = [_without(reason) for reason in reasons]
    unknown = next((answer for answer in answers if answer.status == "unknown"), None)
    if findings:  # what could not be looked at stays on record: a way that lifts the findings must not hide it
        rest = (unknown.reason, unknown.probe) if unknown else ()
        return Judged("fail", tuple(findings), *rest)
    return unknown or (answers[0] if answers else PASS)


def _without(reason: NotApplicable | Unavailable) -> Judged:
    """A check that came to no end: unknown, unless its question does not arise or an active probe was not asked for."""
    if isinstance(reason, Unavailable) and not isinstance(reason, NotAsked):
        return Judged("unknown", reason=str(reason), probe=reason.probe)
    return Judged("skip", reason=str(reason))
