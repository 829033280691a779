"""Unknown is never green, for every check; and the tests have seen what each check can come to.

New checks are in it by themselves: they come from `discover()`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import Any, NamedTuple, TypeVar

import pytest

from audit.check import Check, Parameter, Role, Scope
from audit.evidence import Bundle, Evidence, HostEvidence, Probe
from audit.facts.base import Facts, Guest, GuestFact, Unavailable
from audit.facts.guest_source import read_guests
from audit.judge import Judge, Judgements, Missing, Subject, _asked, discover
from audit.policy import Policy
from audit.verdict import guest_route, pair_route
from tests import statuses
from tests.damage import PROBES, SAMPLE_DATA
from tests.tried import in_vain, tried

T = TypeVar("T")
CHECKS = discover()
GONE = Missing(Unavailable(Probe("gone", ""), "not there"))
POLICIES = tuple(replace(Policy(), transport=transport) for transport in ("ssh", "tls", "tcp"))
UNSEEN = {
    ("hostdev.without_viommu", "pass"): "a VFIO device behind a vIOMMU is a finding or unknown, anything else a skip",
    ("reach.full_packets_arrive", "skip"): "where the target's name leads nowhere, all ways to it count",
    ("vf.limits", "pass"): "a guest has a Mellanox VF, which is a finding, or none, which is a skip",
    ("vf.technology_preview", "pass"): "a guest has such a VF, which is a finding, or none, which is a skip",
}
"""Check and status that no plain call can show, though the source looks like it: why."""
INSTEAD = dict.fromkeys(
    ("firewall.control_port_open_to_source", "firewall.migration_ports_open_to_source"),
    "rules decide where attempts tell nothing; where these tell, reach.* judges instead, and is unknown without them",
)
"""Checks whose question does not arise any more once another fact lets another check answer it; why."""
each_plain_check = pytest.mark.parametrize(
    "check", [check for check in CHECKS if check.scope is not Scope.CLUSTER], ids=lambda check: check.id
)


@each_plain_check
def test_where_nothing_is_known_nothing_is_said(check: Check) -> None:
    found = {
        _asked(check, [policy if p.kind is Policy else GONE for p in check.parameters]).status for policy in POLICIES
    }
    assert found - {"skip"} == {"unknown"}, "skip: by the policy alone"


@pytest.mark.parametrize("check", [c for c in CHECKS if c.scope is Scope.CLUSTER], ids=lambda check: check.id)
def test_where_no_host_tells_a_cluster_is_unknown(check: Check) -> None:
    silent = Facts({name: HostEvidence(name) for name in ("one", "two")}, read_guests)
    assert Judge(silent, [check], Policy()).cluster("c", ["one", "two"]).counts[check.id] == {"unknown": 1}


@lru_cache(maxsize=1)
def fleets() -> list[tuple[Facts, list[str]]]:
    """The sample fleets that were read whole, without active probes and with them, and their hosts."""
    names = ("uniform", "mixed", "mellanox")
    bundles = [read(name) for read in (_read, tried, in_vain) for name in names]
    return [(Facts(bundle.hosts, read_guests), sorted(bundle.hosts)) for bundle in bundles]


@lru_cache(maxsize=1)
def routes() -> list[tuple[Facts, Guest, str]]:
    """Guests of the sample fleets, each with a host to go to; their own hosts are the sources of pairs."""
    found = []
    for facts, hosts in fleets():
        guests = [guest for host in hosts for guest in facts.guests(host)]
        found += [(facts, guest, target) for guest, target in product(guests, hosts) if target != guest.host]
    return found


def _argument(parameter: Parameter, facts: Facts, guest: Guest, target: str, policy: Policy) -> Any:
    if parameter.kind is Policy:
        return policy
    if issubclass(parameter.kind, GuestFact):
        return facts.of_guest(guest, parameter.kind)
    return facts.of(target if parameter.role is Role.TARGET else guest.host, parameter.kind)


@cache
def _values(parameter: Parameter) -> list[Any]:
    """Different facts of that kind in the sample fleets."""
    found = dict.fromkeys(_argument(parameter, *route, Policy()) for route in routes())
    return _spread([fact for fact in found if not isinstance(fact, Unavailable)], 30)


def _real_arguments(check: Check) -> Iterator[list[Any]]:
    """Different combinations of facts that belong together."""
    seen = set()
    for policy in POLICIES if any(p.kind is Policy for p in check.parameters) else POLICIES[:1]:
        for facts, guest, target in routes():
            arguments = [_argument(p, facts, guest, target, policy) for p in check.parameters]
            if any(isinstance(argument, Unavailable) for argument in arguments):
                continue  # a guest that was not asked about, or an active probe that was not asked for
            if tuple(map(id, arguments)) not in seen:
                seen.add(tuple(map(id, arguments)))
                yield arguments


def _spread(values: list[T], most: int) -> list[T]:
    """So many of them at most, from all over."""
    return values[:: -(-len(values) // most) or 1]


@each_plain_check
def test_no_answer_depends_on_what_is_missing(check: Check) -> None:
    """What a check says without a fact it says whatever that fact might have been."""
    combinations = _spread(list(_real_arguments(check)), 40)
    excused = False
    assert combinations, "no sample fleet has all that it asks for"
    for arguments in combinations:
        for place, parameter in enumerate(check.parameters):
            if parameter.kind is Policy:
                continue
            without = _asked(check, [*arguments[:place], GONE, *arguments[place + 1 :]]).status
            assert without != "error"
            if without == "unknown":
                continue
            allowed = {"fail"} if without == "fail" else {"pass", "skip", "unknown"}
            for value in _values(parameter):
                judged = _asked(check, [*arguments[:place], value, *arguments[place + 1 :]])
                if check.id in INSTEAD and judged.status == "skip" and "skip" not in allowed:
                    excused = True
                    continue
                assert judged.status in allowed, f"{without} without {parameter.kind.__name__}; {judged} with {value}"
    assert excused == (check.id in INSTEAD), "what needs no excuse has none"


@cache
def _read(fleet: str) -> Bundle:
    return Bundle.read(SAMPLE_DATA / fleet / "bundle")


RUNS = {
    "mixed": lambda: _read("mixed"),
    "mellanox": lambda: _read("mellanox"),
    "tried": lambda: tried("uniform"),
    "in vain": lambda: in_vain("uniform"),
}
EACH_LOST = [
    pytest.param(run, probe, id=f"{run}-{probe.name}")
    for run in RUNS
    for probe in PROBES
    if probe.option or run in {"mixed", "mellanox"}
]


def _judged(hosts: dict[str, HostEvidence], checks: tuple[Check, ...]) -> Judgements:
    return Judge(Facts(hosts, read_guests), checks, Policy()).cluster("c", sorted(hosts))


def _statuses(judged: Judgements) -> dict[tuple[str, Subject], str]:
    """By check and subject, what is neither a pass nor a skip."""
    return {(o.check.id, o.subject): o.judged.status for outcomes in judged.outcomes.values() for o in outcomes}


RANK = {"no": 0, "unknown": 1, "conditions": 2, "yes": 3}


def _routes(judged: Judgements, guests: set[Guest], hosts: list[str]) -> dict[tuple[Any, ...], int]:
    """How free each way is: of a guest, running or shut off, to each other host, and of each pair of hosts."""
    pairs = [(one, other) for one in hosts for other in hosts if one != other]
    found = {pair: RANK[pair_route(judged, "c", *pair).verdict] for pair in pairs}
    ways = [
        (guest, there, active) for guest in guests for here, there in pairs if here == guest.host for active in (0, 1)
    ]
    return found | {
        (guest, there, active): RANK[guest_route(judged, "c", guest, there, active=bool(active)).verdict]
        for guest, there, active in ways
    }


class Told(NamedTuple):
    """What a run's evidence comes to, with nothing lost."""

    judged: Judgements
    statuses: dict[tuple[str, Subject], str]
    routes: dict[tuple[Any, ...], int]


@cache
def _told(run: str) -> Told:
    hosts = dict(RUNS[run]().hosts)
    judged = _judged(hosts, CHECKS)
    return Told(judged, _statuses(judged), _routes(judged, _guests(hosts), sorted(hosts)))


def _guests(hosts: dict[str, HostEvidence]) -> set[Guest]:
    """Those that could be listed."""
    facts = Facts(hosts, read_guests)
    return {guest for host in hosts if not isinstance(guests := facts.guests(host), Unavailable) for guest in guests}


def _instead(run: str, after: Judgements, checks: tuple[Check, ...]) -> Judgements:
    """What the run comes to where these checks say that."""
    told = _told(run).judged.outcomes
    return Judgements(
        {
            subject: [o for o in told.get(subject, []) if o.check not in checks] + after.of(subject)
            for subject in {*told, *after.outcomes}
        }
    )


@pytest.mark.parametrize(("run", "probe"), EACH_LOST)
@pytest.mark.parametrize(
    "change", [{"status": None, "problem": "timed out"}, {"status": 1}, {"status": 0}], ids=["late", "failed", "empty"]
)
def test_no_answer_depends_on_what_was_not_read(run: str, change: dict[str, Any], probe: Probe) -> None:
    """Without a probe's output nothing passes that fails with it, nothing fails that passes with it, no way is freer.

    Where a check takes another one's place, the other one is unknown.
    """
    hosts = {}
    for name, host in RUNS[run]().hosts.items():
        broken = replace(host.outputs.get(probe.name, Evidence(probe.name)), stdout=b"", stderr=b"", **change)
        hosts[name] = replace(host, outputs={**host.outputs, probe.name: broken})
    checks = tuple(check for check in CHECKS if probe in check.probes)
    listed = _guests(hosts)
    judged = _judged(hosts, checks)
    after = _statuses(judged)
    unknown = {subject for (_, subject), status in after.items() if status == "unknown"}
    for check in checks:
        before = {key: status for key, status in _told(run).statuses.items() if key[0] == check.id}
        now = {key: status for key, status in after.items() if key[0] == check.id}
        failing = {key for key, status in now.items() if status == "fail"} - before.keys()
        assert {subject for _, subject in failing} <= (unknown if check.id in INSTEAD else set())
        assert set(now.values()) <= {"fail", "unknown"}
        assert [key for key in before if key not in now and key[1].guest in {None, *listed}] == []
    routes = _routes(_instead(run, judged, checks), listed, sorted(hosts))
    best = {way: max(rank, RANK["unknown"]) for way, rank in _told(run).routes.items()}
    assert [way for way, rank in routes.items() if rank > best[way]] == []


@pytest.mark.last
def test_the_tests_have_seen_all_that_a_check_can_come_to() -> None:
    if not statuses.ALL_CHECK_TESTS_RUN:
        pytest.skip("only where all of tests/checks runs")
    unseen = {(check.id, status) for check in CHECKS for status in statuses.possible(check) - statuses.SEEN[check.id]}
    assert [" ".join(each) for each in sorted(unseen - UNSEEN.keys())] == []
    assert UNSEEN.keys() <= unseen, "what is seen needs no excuse"


@pytest.mark.last
def test_no_check_comes_to_what_its_source_does_not_say() -> None:
    """Else `possible` has missed something, and so would the test above."""
    assert {(name, status) for name in statuses.SEEN for status in statuses.SEEN[name]} <= {
        (check.id, status) for check in CHECKS for status in statuses.possible(check)
    }
