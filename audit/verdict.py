"""Judgements → verdicts: which route is open, and what that makes of the run. The rules: docs/how-it-decides.md.

A route is a way from a source to a target: of a guest, or of the plain host-model guest that a pair is judged for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from audit.check import (
    ANOTHER_ADDRESS,
    COPY_CHANGES,
    COPY_STORAGE,
    COPY_WHOLE,
    STARTED_HERE,
    TUNNELLED,
    Blocks,
    Role,
    Severity,
)
from audit.facts.base import Guest
from audit.guest_advice import CPU_DOMAINS, Barrier
from audit.judge import Judged, Judgements, Outcome, Subject
from audit.results import Reason, RouteVerdict, Verdict, VerdictSummary, WayKind
from audit.text import some_of

UNREACHED = "host.reached"
"""The reason's id where a host could not be read."""


class Route(NamedTuple):
    """A verdict with all its reasons, the decisive one first: the one that a migration would meet first."""

    verdict: RouteVerdict
    reasons: tuple[Reason, ...] = ()


class Way(NamedTuple):
    """Another way for a guest to a target, where the usual one, live and with its disks shared, is not open."""

    kind: WayKind
    verdict: RouteVerdict
    disks: tuple[str, ...] = ()
    """Those that would be copied along."""
    reasons: tuple[Reason, ...] = ()
    """Why it is not open, or not without conditions; the one that the migration would meet first first."""
    options: tuple[str, ...] = ()
    """What the command has to say besides, or in place of the usual URI (another address)."""


@dataclass(frozen=True, slots=True)
class GuestRoutes:
    """One guest and where it can go; only `active` guests decide the run's verdict."""

    guest: Guest
    active: bool
    targets: dict[str, Route]
    departure: Route
    """What its own configuration and host say about leaving, whatever the target."""
    ways: Mapping[str, tuple[Way, ...]] = field(default_factory=dict)
    """By target: other ways."""


@dataclass(frozen=True, slots=True)
class ClusterRoutes:
    """All routes inside one cluster. `unread`: its hosts that could not be judged, and why."""

    name: str
    hosts: tuple[str, ...]
    unread: dict[str, str]
    pairs: dict[tuple[str, str], Route]
    guests: tuple[GuestRoutes, ...]
    concerns: tuple[str, ...] = ()
    """What was found about the cluster as a whole, and must be dealt with first."""


# Routes ---------------------------------------------------------------------------------------------------


def pair_route(found: Judgements, cluster: str, source: str, target: str) -> Route:
    """The ordered pair's verdict, for the plain host-model guest."""
    outcomes = [*_on_the_way(found, cluster, source, target), *found.of(Subject(source, target))]
    return _route(outcome for outcome in outcomes if not outcome.check.way)


def guest_route(found: Judgements, cluster: str, guest: Guest, target: str, *, active: bool) -> Route:
    """The guest's verdict for that target; a shut-off guest is judged for offline migration."""
    return _route(_concerning(_bearing(found, cluster, guest, target), active=active))


def other_ways(
    found: Judgements, cluster: str, guest: Guest, target: str, usual: RouteVerdict, *, persistent: bool
) -> tuple[Way, ...]:
    """For a running guest whose usual route is not open: other ways to the target, closed ones with why.

    Its disks are copied along, where nothing else but that they are not there is in the way; or the command is given
    another address of the target, or sends all through libvirt's connection, or is given on another machine than the
    source, where only the usual one is closed; or it is moved offline, that is, its definition, while it is shut off or
    to be started there (which a guest without a definition cannot be).
    """
    if usual in ("yes", "conditions"):
        return ()
    outcomes = _bearing(found, cluster, guest, target)
    ways = []
    for kind, lifts, asked in _LIFTING:
        about = tuple(sorted({f.about for o in outcomes for f in o.judged.findings if lifts[0] in f.lifted_by}))
        if about:
            rest = (_lifted(o, lifts) for o in outcomes if not o.check.plain_guest and o.check.way in ("", *asked))
            route = _route(outcome for outcome in rest if outcome is not None)
            disks = about if COPY_STORAGE in lifts else ()
            ways.append(Way(kind, route.verdict, disks, route.reasons[:_REASONS], () if disks else about))
    if persistent:
        route = _route(_concerning(outcomes, active=False))
        ways.append(Way("offline", route.verdict, reasons=route.reasons[:_REASONS]))
    return tuple(ways)


_REASONS = 4
"""So many of a way's reasons are told: there are as many ways as routes."""
_LIFTING: tuple[tuple[WayKind, tuple[str, ...], tuple[str, ...]], ...] = (
    (COPY_STORAGE, (COPY_STORAGE, COPY_WHOLE), (COPY_STORAGE,)),
    (COPY_CHANGES, (COPY_STORAGE,), (COPY_STORAGE, COPY_CHANGES)),
    (ANOTHER_ADDRESS, (ANOTHER_ADDRESS,), (ANOTHER_ADDRESS,)),
    (STARTED_HERE, (STARTED_HERE,), (STARTED_HERE,)),
    (TUNNELLED, (TUNNELLED,), (TUNNELLED,)),
)
"""Ways, what lifts a finding in each (the first of them opens it), and the checks of which ways bear on it."""


def _lifted(outcome: Outcome, lifts: tuple[str, ...]) -> Outcome | None:
    """The outcome for that way of migrating; None: it is moot then. What was hidden behind is not."""
    judged = outcome.judged
    findings = tuple(finding for finding in judged.findings if not set(lifts) & set(finding.lifted_by))
    if len(findings) == len(judged.findings):
        return outcome
    if findings or not judged.reason:
        return outcome._replace(judged=replace(judged, findings=findings)) if findings else None
    return outcome._replace(judged=replace(judged, status="unknown", findings=()))


def _bearing(found: Judgements, cluster: str, guest: Guest, target: str) -> list[Outcome]:
    """Everything that bears on the guest's moving there, in whatever way."""
    return [
        *_on_the_way(found, cluster, guest.host, target),
        *found.of(Subject(guest.host, target)),
        *found.of(Subject(guest.host, None, guest)),
        *found.of(Subject(guest.host, target, guest)),
    ]


def cpu_barrier(found: Judgements, guest: Guest, target: str) -> Barrier:
    """What the checks on CPUs say of a running guest and that target: the first refusal, the first doubt."""
    outcomes = [*found.of(Subject(guest.host, None, guest)), *found.of(Subject(guest.host, target, guest))]
    first: dict[RouteVerdict, str] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.check.stage, -o.check.severity, o.check.id)):
        effect = _effect(outcome)
        if outcome.check.domain in CPU_DOMAINS and effect in ("no", "unknown"):
            first.setdefault(effect, next(_reasons(outcome))["message"])
    return Barrier(first.get("no", ""), first.get("unknown", ""))


def departure(found: Judgements, guest: Guest, *, active: bool) -> Route:
    """What the guest's own configuration and host say about leaving."""
    outcomes = [*_in_role(found.of(Subject(guest.host)), Role.SOURCE), *found.of(Subject(guest.host, None, guest))]
    return _route(_concerning(outcomes, active=active))


def concerns(found: Judgements, cluster: str) -> tuple[str, ...]:
    """Findings of cluster checks that are no matter of some hosts' routes, and want attention."""
    return tuple(
        finding.message
        for outcome in found.of(Subject(cluster=cluster))
        for finding in outcome.judged.findings
        if not finding.hosts and outcome.check.severity >= Severity.MEDIUM
    )


def unread_route(host: str, why: str, shut: Sequence[Outcome] = ()) -> Route:
    """A route for which `host` could not be read; `shut`: what the source alone knows to be in the way."""
    unread = Reason(check=UNREACHED, status="unknown", message=f"{host} could not be read: {why}")
    known = _route(shut)
    return Route("no" if shut else "unknown", (*known.reasons, unread))


def _concerning(outcomes: Iterable[Outcome], *, active: bool) -> Iterator[Outcome]:
    return (o for o in outcomes if not (o.check.plain_guest or o.check.way) and (active or o.check.offline))


def _on_the_way(found: Judgements, cluster: str, source: str, target: str) -> Iterator[Outcome]:
    yield from _in_role(found.of(Subject(source)), Role.SOURCE)
    yield from _in_role(found.of(Subject(target)), Role.TARGET)
    for outcome in found.of(Subject(cluster=cluster)):
        judged = outcome.judged
        between = tuple(f for f in judged.findings if {source, target} <= f.hosts)
        unseen = [why for host, why in judged.unseen if host in (source, target)]
        if between:
            yield outcome._replace(judged=replace(judged, findings=between))
        elif unseen:
            yield outcome._replace(judged=Judged("unknown", reason=unseen[0], probe=judged.probe))
        elif judged.status == "fail" and judged.reason:  # what it could not look at may be between any two hosts
            yield outcome._replace(judged=replace(judged, status="unknown", findings=()))
        elif judged.status != "fail" and not judged.unseen:
            yield outcome


def _in_role(outcomes: Iterable[Outcome], role: Role) -> Iterator[Outcome]:
    return (o for o in outcomes if o.check.role in (Role.OWN, role))


_RANK: dict[RouteVerdict, int] = {"no": 0, "unknown": 1, "conditions": 2, "yes": 3}


def _route(outcomes: Iterable[Outcome]) -> Route:
    bearing = [(effect, outcome) for outcome in outcomes if (effect := _effect(outcome)) != "yes"]
    bearing.sort(key=lambda pair: (_RANK[pair[0]], pair[1].check.stage, -pair[1].check.severity, pair[1].check.id))
    reasons = tuple(reason for _, outcome in bearing for reason in _reasons(outcome))
    return Route(bearing[0][0] if bearing else "yes", reasons)


def _effect(outcome: Outcome) -> RouteVerdict:
    """What one outcome makes of a route that it bears on."""
    blocks = outcome.check.blocks is Blocks.MIGRATION
    if blocks:
        return "no" if outcome.judged.status == "fail" else "unknown"
    # Unknown is never green: what would have been a condition is one, namely to accept that it is not known.
    return "conditions" if outcome.check.severity >= Severity.MEDIUM else "yes"


def _reasons(outcome: Outcome) -> Iterator[Reason]:
    judged = outcome.judged
    if judged.status == "fail":
        for finding in judged.findings:
            yield Reason(check=outcome.check.id, status="fail", message=finding.message)
    elif judged.status != "pass" and judged.status != "skip":
        yield Reason(check=outcome.check.id, status=judged.status, message=judged.reason)


# The run --------------------------------------------------------------------------------------------------


class _Opinion(NamedTuple):
    """What one guest, host or cluster makes of the run, and why."""

    word: Verdict
    why: str


_ORDER: tuple[Verdict, ...] = ("NO-GO", "CANNOT SAY", "GO WITH CONDITIONS", "GO")


def summary(clusters: Sequence[ClusterRoutes], drain: Sequence[str]) -> VerdictSummary:
    """The run's verdict. `drain` narrows it to the guests of those hosts, with the other hosts as targets."""
    counts = Counter({"two_or_more": 0, "one": 0, "none": 0, "unknown": 0, "total": 0})
    opinions: list[_Opinion] = []
    for cluster in clusters:
        guests = [g for g in cluster.guests if g.active and (not drain or g.guest.host in drain)]
        for guest in guests:
            targets = {host: route for host, route in guest.targets.items() if host not in drain}
            counts[_bucket(guest, targets)] += 1
            counts["total"] += 1
            opinions.append(_of_guest(guest, targets))
        opinions.extend(_of_unread(cluster, drain))
        opinions.extend(_Opinion("GO WITH CONDITIONS", concern) for concern in cluster.concerns)
        if not guests:
            opinions.extend(_of_pairs(cluster, drain))
    word = _ORDER[min((_ORDER.index(o.word) for o in opinions), default=_ORDER.index("CANNOT SAY"))]
    blocking = [o.why for o in opinions if o.why and o.word in ("NO-GO", "CANNOT SAY")]
    conditions = [o.why for o in opinions if o.why and o.word == "GO WITH CONDITIONS"]
    return VerdictSummary(
        word=word,
        sentence=_sentence(word, counts, drain),
        guests=dict(counts),
        blocking=list(dict.fromkeys(blocking)),
        conditions=list(dict.fromkeys(conditions)),
    )


def _open(targets: dict[str, Route]) -> list[str]:
    return [host for host, route in targets.items() if route.verdict in ("yes", "conditions")]


def _bucket(guest: GuestRoutes, targets: dict[str, Route]) -> str:
    found = len(_open(targets))
    if found:
        return "two_or_more" if found > 1 else "one"
    return "none" if _nowhere(guest, targets) else "unknown"


def _nowhere(guest: GuestRoutes, targets: dict[str, Route]) -> bool:
    """Proved to have no target: every one refused, or none audited and the guest cannot leave anyway."""
    return guest.departure.verdict == "no" or (bool(targets) and all(r.verdict == "no" for r in targets.values()))


def _of_guest(guest: GuestRoutes, targets: dict[str, Route]) -> _Opinion:
    who = f"{guest.guest.name} on {guest.guest.host}"
    reachable = _open(targets)
    if not reachable:
        if guest.departure.verdict == "no":
            return _Opinion("NO-GO", f"{who} cannot leave: {guest.departure.reasons[0]['message']}")
        if _nowhere(guest, targets):
            return _Opinion("NO-GO", f"{who} has no target: {_each_first(targets)}{_instead(guest, targets)}")
        why = _each_first({h: r for h, r in targets.items() if r.verdict == "unknown"}) or "no other host was audited"
        return _Opinion("CANNOT SAY", f"{who} has no proved target: {why}")
    if all(targets[host].verdict == "conditions" for host in reachable):
        shared = _shared_first([targets[host] for host in reachable])
        return _Opinion("GO WITH CONDITIONS", f"{who}: {shared}")
    if len(reachable) == 1:
        return _Opinion("GO WITH CONDITIONS", f"{who} has one target only: {reachable[0]}")
    return _Opinion("GO", "")


_OTHERWISE: dict[WayKind, str] = {
    COPY_STORAGE: "with its disks copied along, --copy-storage-all, it",
    ANOTHER_ADDRESS: "by another address, see there, it",
    STARTED_HERE: "started here and not on its host, it",
    TUNNELLED: "through libvirt's own connection, --p2p --tunnelled, it",
}


def _instead(guest: GuestRoutes, targets: dict[str, Route]) -> str:
    """Where it could go in another way: no target that counts, but one to know of."""
    told = ""
    for kind, how in _OTHERWISE.items():
        there = [h for h in targets for w in guest.ways.get(h, ()) if w.kind == kind and w.verdict in _PROVED]
        told += f" ({how} could go to {some_of(there)})" if there else ""
    return told


_PROVED = ("yes", "conditions")


def _each_first(targets: dict[str, Route]) -> str:
    """The first reason of each target, targets with the same one named together."""
    by_reason: dict[str, list[str]] = {}
    for host, route in targets.items():
        by_reason.setdefault(route.reasons[0]["message"], []).append(host)
    return "; ".join(
        reason if reason.startswith(f"{hosts[0]} ") else f"{', '.join(hosts)}: {reason}"
        for reason, hosts in by_reason.items()
    )


def _shared_first(routes: Sequence[Route]) -> str:
    """A condition that holds for every target, else the first one's."""
    common = set.intersection(*({reason["message"] for reason in route.reasons} for route in routes))
    return next((r["message"] for r in routes[0].reasons if r["message"] in common), routes[0].reasons[0]["message"])


def _of_unread(cluster: ClusterRoutes, drain: Sequence[str]) -> Iterator[_Opinion]:
    """A host that could not be read leaves its own guests unjudged; as a mere target of a drain it is just missing."""
    for host, why in cluster.unread.items():
        if not drain or host in drain:
            yield _Opinion("CANNOT SAY", f"{host} could not be read: {why}")


def _of_pairs(cluster: ClusterRoutes, drain: Sequence[str]) -> Iterator[_Opinion]:
    """A cluster without guests in scope: each host needs a peer in each direction. A drained host is empty already."""
    if drain:
        yield from (_Opinion("GO", "") for host in drain if host in cluster.hosts and host not in cluster.unread)
        return
    if len(cluster.hosts) < 2:
        yield _Opinion(
            "CANNOT SAY", f"{cluster.name}: only {cluster.hosts[0]} was audited, and no other host to move to"
        )
        return
    for host in cluster.hosts:
        if host not in cluster.unread:
            out = {t: route for (s, t), route in cluster.pairs.items() if s == host}
            back = {s: route for (s, t), route in cluster.pairs.items() if t == host}
            yield _peer_opinion(f"a guest of {host} has no host to go to", out)
            yield _peer_opinion(f"{host} can take no guest of another host", back)


def _peer_opinion(what: str, routes: dict[str, Route]) -> _Opinion:
    verdicts = {route.verdict for route in routes.values()}
    if "yes" in verdicts:
        return _Opinion("GO", "")
    if "conditions" in verdicts:
        easy = [route for route in routes.values() if route.verdict == "conditions"]
        return _Opinion("GO WITH CONDITIONS", _shared_first(easy))
    if "unknown" in verdicts or not verdicts:
        unknown = {host: route for host, route in routes.items() if route.verdict == "unknown"}
        return _Opinion(
            "CANNOT SAY", f"not proved whether {what}: {_each_first(unknown) or 'no other host was audited'}"
        )
    return _Opinion("NO-GO", f"{what}: {_each_first(routes)}")


def _sentence(word: Verdict, counts: Counter[str], drain: Sequence[str]) -> str:
    scope = f"draining {', '.join(drain)}: " if drain else ""
    total = counts["total"]
    running = f"{total} running guest{'' if total == 1 else 's'}"
    if not total and drain and word == "GO":
        text = "no guest is running there"
    elif not total:
        text = {
            "GO": "no guest is running; hosts can exchange a plain guest in both directions",
            "GO WITH CONDITIONS": "no guest is running; hosts can exchange a plain guest once the conditions are met",
            "NO-GO": "no guest is running, and at least one host has no peer that a plain guest could move to or from",
            "CANNOT SAY": "no running guest was seen, and whether hosts could exchange one is not proved",
        }[word]
    elif word == "NO-GO":
        text = f"{counts['none']} of {running} cannot move to any audited host"
    elif word == "CANNOT SAY":
        unknown = counts["unknown"]
        text = (
            f"for {unknown} of {running} no target is proved"
            if unknown
            else f"each of the {running} that were seen has a target, but not every host could be read"
        )
    elif word == "GO WITH CONDITIONS":
        text = f"each of the {running} has a target; conditions must be met or accepted first"
    else:
        text = f"each of the {running} can move to at least two other hosts"
    sentence = scope + text
    return sentence[0].upper() + sentence[1:] + "."
