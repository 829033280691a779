"""Bundles → results: facts, judgements, verdicts and baselines of a run. Pure: same bundles, same bytes."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from audit.advice import FACTS as BASELINE_FACTS
from audit.baselines import Cluster, CrossChecker, cluster_baselines
from audit.check import Check, Parameter, Role, Scope
from audit.evidence import Bundle, HostEvidence, Probe
from audit.facts.base import Facts, Guest, GuestFact, HostFact, Unavailable
from audit.facts.guest import GuestCpu, GuestMachine, GuestMemory, GuestPinning, GuestState
from audit.facts.guest_source import read_guests
from audit.guest_advice import Barriers
from audit.guest_storage import FACTS as STORAGE_FACTS
from audit.guest_storage import disk_results
from audit.inventory import Inventory
from audit.judge import Judge, Judgements, Subject
from audit.judge import Outcome as JudgedOutcome
from audit.policy import Policy
from audit.results import (
    FORMAT,
    CheckResult,
    EvidenceRef,
    GuestResult,
    HostResult,
    Outcome,
    Pair,
    Results,
    Run,
    TargetResult,
    WayResult,
)
from audit.results import Subject as SubjectResult
from audit.sidebyside import FACTS as SIDE_BY_SIDE_FACTS
from audit.sidebyside import rows
from audit.verdict import (
    UNREACHED,
    ClusterRoutes,
    GuestRoutes,
    Route,
    Way,
    concerns,
    cpu_barrier,
    departure,
    guest_route,
    other_ways,
    pair_route,
    summary,
    unread_route,
)

GUEST_FACTS = (GuestState, GuestMemory, GuestPinning, GuestCpu, GuestMachine)
"""What the report reads of guests."""


class EvaluationError(Exception):
    """The bundles cannot be judged together."""


def needed_facts(checks: Sequence[Check]) -> tuple[type[HostFact] | type[GuestFact], ...]:
    """The facts that these checks and the report read: what a collection must supply the probes of."""
    of_checks = [kind for check in checks for kind in check.facts]
    return tuple(dict.fromkeys([*of_checks, *SIDE_BY_SIDE_FACTS, *BASELINE_FACTS, *GUEST_FACTS, *STORAGE_FACTS]))


def evaluate(
    bundles: Sequence[Bundle],
    checks: Sequence[Check],
    drain: Sequence[str] = (),
    cross_check: CrossChecker | None = None,
) -> Results:
    """Judge the hosts, guests, pairs and placements of the bundles' clusters.

    `drain` narrows the verdict to emptying those hosts; `cross_check` asks a second opinion on each baseline, the one
    thing in the results that does not follow from the bundles alone. Raises `EvaluationError` when two bundles hold
    the same host or have different policies, or a host to drain is in none.
    """
    evidence, inventories = _merged(bundles)
    policy = inventories[0].policy
    facts = Facts(evidence, read_guests)
    judge = Judge(facts, checks, policy)
    clusters = _clusters(inventories)
    unknown = sorted(set(drain) - {host for hosts in clusters.values() for host in hosts})
    if unknown:
        raise EvaluationError(f"not among the audited hosts: {', '.join(unknown)}")
    judged = {}
    for name, hosts in clusters.items():
        reached = _reached(hosts, evidence)
        judged[name] = judge.cluster(name, reached, sorted({*hosts} - {*reached}))
    routes = [_routes(name, hosts, evidence, facts, judged[name]) for name, hosts in clusters.items()]
    return Results(
        format=FORMAT,
        run=_run(bundles, inventories[0], policy, drain, evidence),
        verdict=summary(routes, drain),
        hosts=[_host(host, name, evidence[host], facts) for name, hosts in clusters.items() for host in hosts],
        checks=[_check(check, list(judged.values())) for check in checks],
        outcomes=[
            *_unread_outcomes(clusters, evidence),
            *(o for found in judged.values() for entry in _flat(found) for o in _outcomes(entry, facts)),
        ],
        pairs=[_pair(cluster, s, t, route) for cluster in routes for (s, t), route in cluster.pairs.items()],
        guests=[_guest(cluster, guest, facts) for cluster in routes for guest in cluster.guests],
        baselines=[
            baseline
            for name, hosts in clusters.items()
            for baseline in cluster_baselines(name, hosts, facts, partial(cpu_barrier, judged[name]), cross_check)
        ],
    )


def cpu_barriers(cluster: Cluster, checks: Sequence[Check]) -> Barriers:
    """What the checks say of the CPUs of the cluster's running guests, for advice without a whole evaluation."""
    hosts = [host for host in cluster.hosts if not cluster.facts.said(host).host.problem]
    return partial(cpu_barrier, Judge(cluster.facts, checks, cluster.policy).cluster(cluster.name, hosts))


def _merged(bundles: Sequence[Bundle]) -> tuple[dict[str, HostEvidence], list[Inventory]]:
    evidence: dict[str, HostEvidence] = {}
    inventories = [Inventory.from_json(bundle.inventory) for bundle in bundles]
    for bundle, inventory in zip(bundles, inventories, strict=True):
        if twice := sorted(evidence.keys() & bundle.hosts.keys()):
            raise EvaluationError(f"in more than one bundle: {', '.join(twice)}")
        if lacking := sorted({host.name for host in inventory.hosts} - bundle.hosts.keys()):
            raise EvaluationError(f"bundle {bundle.run_id} has no evidence of {', '.join(lacking)}")
        if inventory.policy != inventories[0].policy:
            raise EvaluationError("the bundles were collected under different policies: judge them one by one")
        evidence.update(bundle.hosts)
    return evidence, inventories


def _clusters(inventories: Sequence[Inventory]) -> dict[str, tuple[str, ...]]:
    clusters: dict[str, tuple[str, ...]] = {}
    for inventory in inventories:
        for cluster in inventory.clusters:
            clusters[cluster.name] = clusters.get(cluster.name, ()) + tuple(host.name for host in cluster.hosts)
    return clusters


def _reached(hosts: Sequence[str], evidence: dict[str, HostEvidence]) -> tuple[str, ...]:
    return tuple(host for host in hosts if not evidence[host].problem)


def _routes(
    name: str, hosts: tuple[str, ...], evidence: dict[str, HostEvidence], facts: Facts, found: Judgements
) -> ClusterRoutes:
    unreached = {host: evidence[host].problem for host in hosts if evidence[host].problem}
    unlisted: dict[str, str] = {}
    guests: list[GuestRoutes] = []
    for host in _reached(hosts, evidence):
        listed = facts.guests(host)
        if isinstance(listed, Unavailable):
            unlisted[host] = f"its guests could not be listed: {listed}"
            continue
        for guest in listed:
            state = facts.of_guest(guest, GuestState)
            active = isinstance(state, Unavailable) or state.active  # one that may be running counts as running
            targets = {
                target: _unread(unreached, found, host, target)
                or guest_route(found, name, guest, target, active=active)
                for target in hosts
                if target != host
            }
            persistent = not isinstance(state, Unavailable) and state.persistent
            ways = {
                target: other_ways(found, name, guest, target, route.verdict, persistent=persistent)
                for target, route in targets.items()
                if active and target not in unreached
            }
            guests.append(GuestRoutes(guest, active, targets, departure(found, guest, active=active), ways))
    pairs = {
        (s, t): _unread(unreached, found, s, t) or pair_route(found, name, s, t) for s in hosts for t in hosts if s != t
    }
    return ClusterRoutes(name, hosts, unreached | unlisted, pairs, tuple(guests), concerns(found, name))


def _unread(unread: dict[str, str], found: Judgements, source: str, target: str) -> Route | None:
    """The route from or to a host that could not be read; None: both could."""
    host = next((host for host in (source, target) if host in unread), None)
    return None if host is None else unread_route(host, unread[host], found.shut.get((source, target), ()))


# Results, part by part ------------------------------------------------------------------------------------


def _run(
    bundles: Sequence[Bundle],
    inventory: Inventory,
    policy: Policy,
    drain: Sequence[str],
    evidence: dict[str, HostEvidence],
) -> Run:
    finished = max(bundle.finished for bundle in bundles)
    until = datetime.fromisoformat(min(bundle.started for bundle in bundles)) + timedelta(days=policy.validity_days)
    return Run(
        id="+".join(bundle.run_id for bundle in bundles),
        tool=bundles[0].tool,
        started=min(bundle.started for bundle in bundles),
        finished=finished,
        valid_until=until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        change=dict(inventory.change),
        policy={name: getattr(policy, name) for name in Policy.__dataclass_fields__},
        drain=list(drain),
        active=sorted({" ".join(filter(None, given)) for bundle in bundles for given in bundle.active.items()}),
        bundle_sha256=_digest(evidence),
    )


def _digest(evidence: dict[str, HostEvidence]) -> str:
    lines = [
        f"{host} {output.probe} {output.status} {output.problem} {output.sha256}"
        for host, said in sorted(evidence.items())
        for output in sorted(said.outputs.values(), key=lambda o: o.probe)
    ]
    lines += [f"{host} {said.problem}" for host, said in sorted(evidence.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _host(name: str, cluster: str, said: HostEvidence, facts: Facts) -> HostResult:
    return HostResult(
        name=name,
        cluster=cluster,
        reached=not said.problem,
        problem=said.problem,
        privilege=said.privilege,
        rows=[] if said.problem else rows(facts, name),
    )


def _check(check: Check, found: Sequence[Judgements]) -> CheckResult:
    counts: Counter[str] = Counter({"pass": 0, "fail": 0, "skip": 0, "unknown": 0, "error": 0})
    skipped: Counter[str] = Counter()
    for judgements in found:
        counts.update(judgements.counts.get(check.id, {}))
        skipped.update(judgements.skipped.get(check.id, {}))
    return CheckResult(
        id=check.id,
        title=check.title,
        why=check.why,
        scope=check.scope.value,
        severity=check.severity.name.lower(),
        blocks=check.blocks.value,
        reference=check.reference,
        remedy=check.remedy,
        counts=dict(counts),
        skipped=dict(sorted(skipped.items())),
    )


def _flat(found: Judgements) -> Iterator[JudgedOutcome]:
    for outcomes in found.outcomes.values():
        yield from outcomes


def _outcomes(entry: JudgedOutcome, facts: Facts) -> Iterator[Outcome]:
    """One outcome a finding; one for an unknown or an error."""
    check, subject, judged = entry
    assert judged.status not in ("pass", "skip"), "those are counted, not kept"
    evidence = _evidence(check, subject, facts)
    if judged.status == "fail":
        for finding in judged.findings:
            yield _outcome(
                entry, evidence, finding.message, finding.remedy or check.remedy, finding.expected, finding.actual
            )
    else:
        yield _outcome(entry, evidence, judged.reason, _supply(judged.probe))


def _outcome(
    entry: JudgedOutcome, evidence: list[EvidenceRef], message: str, remedy: str, expected: str = "", actual: str = ""
) -> Outcome:
    check, subject, judged = entry
    assert judged.status != "pass" and judged.status != "skip", "those are counted, not kept"  # noqa: PT018
    return Outcome(
        check=check.id,
        status=judged.status,
        subject=_subject(check.scope, subject),
        severity=check.severity.name.lower(),
        blocks=check.blocks.value,
        message=message,
        expected=expected,
        actual=actual,
        evidence=evidence,
        remedy=remedy,
        waiver=None,
    )


def _supply(probe: Probe | None) -> str:
    return f"as root on the host: {probe.by_hand}" if probe else ""


def _subject(scope: Scope, subject: Subject) -> SubjectResult:
    if scope is Scope.CLUSTER:
        return {"cluster": subject.cluster or ""}
    host, target, guest = subject.host or "", subject.target, subject.guest
    if guest is not None:
        about: SubjectResult = {"guest": guest.name, "guest_uuid": guest.uuid, "host": host}
        return {**about, "target": target} if target else about
    return {"source": host, "target": target} if target else {"host": host}


def _evidence(check: Check, subject: Subject, facts: Facts) -> list[EvidenceRef]:
    """The outputs that the check's facts were parsed from; of a cluster check none, it reads every host's."""
    refs: dict[tuple[str, str], EvidenceRef] = {}
    for parameter in check.parameters:
        host = _host_of(parameter, subject)
        if parameter.kind is Policy or host is None:
            continue
        outputs = facts.said(host).host.outputs
        for probe in parameter.kind.probes:
            output = outputs.get(probe.name)
            if output is None and probe.option:  # an active probe that nobody asked for
                continue
            refs[host, probe.name] = EvidenceRef(host=host, probe=probe.name, sha256=output.sha256 if output else None)
    return list(refs.values())


def _host_of(parameter: Parameter, subject: Subject) -> str | None:
    return subject.target if parameter.role is Role.TARGET and subject.target else subject.host


def _unread_outcomes(clusters: dict[str, tuple[str, ...]], evidence: dict[str, HostEvidence]) -> Iterator[Outcome]:
    """One outcome for each host that could not be read, instead of one for each check that could not be made."""
    for hosts in clusters.values():
        for host in hosts:
            if evidence[host].problem:
                yield Outcome(
                    check=UNREACHED,
                    status="unknown",
                    subject={"host": host},
                    severity="high",
                    blocks="migration",
                    message=f"{host} could not be read: {evidence[host].problem}",
                    expected="",
                    actual="",
                    evidence=[],
                    remedy=f"ssh {shlex.quote(host)} true",
                    waiver=None,
                )


def _pair(cluster: ClusterRoutes, source: str, target: str, route: Route) -> Pair:
    return Pair(cluster=cluster.name, source=source, target=target, verdict=route.verdict, reasons=list(route.reasons))


def _guest(cluster: ClusterRoutes, routes: GuestRoutes, facts: Facts) -> GuestResult:
    guest = routes.guest
    told = GuestResult(
        name=guest.name,
        uuid=guest.uuid,
        host=guest.host,
        cluster=cluster.name,
        state=_value(facts, guest, GuestState, "state") or "unknown",
        active=routes.active,
        memory_kib=_value(facts, guest, GuestMemory, "memory_kib"),
        vcpus=_value(facts, guest, GuestPinning, "vcpus"),
        targets=[_target(host, route, routes.ways.get(host, ())) for host, route in routes.targets.items()],
    )
    with suppress(Unavailable):  # the checks of its disks tell
        told["disks"] = disk_results(facts, guest)
    return told


def _way(way: Way) -> WayResult:
    result = WayResult(kind=way.kind, verdict=way.verdict, disks=list(way.disks))
    if way.reasons:
        result["reasons"] = list(way.reasons)
    if way.options:
        result["options"] = list(way.options)
    return result


def _target(host: str, route: Route, ways: Sequence[Way]) -> TargetResult:
    target = TargetResult(host=host, verdict=route.verdict, reasons=list(route.reasons))
    if ways:
        target["ways"] = [_way(way) for way in ways]
    return target


def _value(facts: Facts, guest: Guest, kind: type[GuestFact], name: str) -> Any:
    fact = facts.of_guest(guest, kind)
    return None if isinstance(fact, Unavailable) else getattr(fact, name)
