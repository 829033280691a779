"""Unknown is never green, for every check; and the tests have seen what each check can come to.

New checks are in it by themselves: they come from `discover()`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from itertools import islice, product
from typing import Any

import pytest

from audit.check import Check, Parameter, Role, Scope
from audit.evidence import Bundle, Evidence, HostEvidence, Probe
from audit.facts.base import Facts, Guest, GuestFact, Unavailable
from audit.facts.guest_source import read_guests
from audit.judge import Judge, Missing, Subject, _asked, discover
from audit.policy import Policy
from tests import statuses
from tests.damage import PROBES, SAMPLE_DATA

CHECKS = discover()
GONE = Missing(Unavailable(Probe("gone", ""), "not there"))
POLICIES = tuple(replace(Policy(), transport=transport) for transport in ("ssh", "tls", "tcp"))
UNSEEN = {
    ("vf.technology_preview", "pass"): "a guest has such a VF, which is a finding, or none, which is a skip",
    ("reach.full_packets_arrive", "skip"): "a name that leads nowhere leaves all paths to look at",
}
"""Check and status that no plain call can show, though the source looks like it: why."""
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
    """The sample fleets that were read whole, and their hosts."""
    bundles = [Bundle.read(SAMPLE_DATA / name / "bundle") for name in ("uniform", "mixed", "mellanox")]
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
        fact: Any = facts.of_guest(guest, parameter.kind)
    else:
        fact = facts.of(target if parameter.role is Role.TARGET else guest.host, parameter.kind)
    return _stand_in(fact) if isinstance(fact, Unavailable) else fact


@cache
def _stand_in(why: Unavailable) -> Missing:
    """Of what is asked for by an option only, or is not there for every guest."""
    return Missing(why)


@lru_cache(maxsize=512)
def _values(parameter: Parameter) -> tuple[Any, ...]:
    """The different facts of that kind in the sample fleets."""
    if parameter.kind is Policy:
        return POLICIES
    values = (_argument(parameter, *route, Policy()) for route in routes())
    return tuple(dict.fromkeys(value for value in values if type(value) is not Missing))


def _real_arguments(check: Check) -> Iterator[list[Any]]:
    """Different combinations of facts that belong together."""
    seen = set()
    for policy in POLICIES if any(p.kind is Policy for p in check.parameters) else POLICIES[:1]:
        for facts, guest, target in routes():
            arguments = [_argument(p, facts, guest, target, policy) for p in check.parameters]
            if tuple(map(id, arguments)) not in seen:
                seen.add(tuple(map(id, arguments)))
                yield arguments


@each_plain_check
def test_no_answer_depends_on_what_is_missing(check: Check) -> None:
    """What a check says without a fact it says whatever that fact might have been."""
    for arguments in islice(_real_arguments(check), 40):
        for place, parameter in enumerate(check.parameters):
            if parameter.kind is Policy:
                continue
            without = _asked(check, [*arguments[:place], GONE, *arguments[place + 1 :]]).status
            assert without != "error"
            if without == "unknown":
                continue
            allowed = {"fail"} if without == "fail" else {"pass", "skip", "unknown"}
            for value in _values(parameter)[:30]:
                judged = _asked(check, [*arguments[:place], value, *arguments[place + 1 :]])
                assert judged.status in allowed, f"{without} without {parameter.kind.__name__}; {judged} with {value}"


@lru_cache(maxsize=2)
def _read(fleet: str) -> Bundle:
    return Bundle.read(SAMPLE_DATA / fleet / "bundle")


def _statuses(hosts: dict[str, HostEvidence], checks: tuple[Check, ...]) -> dict[tuple[str, Subject], str]:
    """By check and subject, what is neither a pass nor a skip."""
    judged = Judge(Facts(hosts, read_guests), checks, Policy()).cluster("c", sorted(hosts))
    return {(o.check.id, o.subject): o.judged.status for outcomes in judged.outcomes.values() for o in outcomes}


@lru_cache(maxsize=2)
def _told(fleet: str) -> dict[tuple[str, Subject], str]:
    return _statuses(dict(_read(fleet).hosts), CHECKS)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
@pytest.mark.parametrize(
    "change", [{"status": None, "problem": "timed out"}, {"status": 1}, {"status": 0}], ids=["late", "failed", "empty"]
)
@pytest.mark.parametrize("fleet", ["mixed", "mellanox"])
def test_no_answer_depends_on_what_was_not_read(fleet: str, change: dict[str, Any], probe: Probe) -> None:
    """Without a probe's output nothing passes that fails with it, and nothing fails that passes with it."""
    hosts = {}
    for name, host in _read(fleet).hosts.items():
        broken = replace(host.outputs.get(probe.name, Evidence(probe.name)), stdout=b"", stderr=b"", **change)
        hosts[name] = replace(host, outputs={**host.outputs, probe.name: broken})
    checks = tuple(check for check in CHECKS if probe in check.probes)
    facts = Facts(hosts, read_guests)
    listed = {guest for host in hosts if not isinstance(guests := facts.guests(host), Unavailable) for guest in guests}
    after = _statuses(hosts, checks)
    for check in checks:
        before = {key: status for key, status in _told(fleet).items() if key[0] == check.id}
        now = {key: status for key, status in after.items() if key[0] == check.id}
        assert {key for key, status in now.items() if status == "fail"} <= before.keys()
        assert set(now.values()) <= {"fail", "unknown"}
        assert [key for key in before if key not in now and key[1].guest in {None, *listed}] == []


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
