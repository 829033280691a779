"""Whatever a host says, every fact is a fact or the reason why there is none, and no check fails of itself.

New facts and checks are in it by themselves: the kinds come from `needed_facts(discover())`. VIRT_PREFLIGHT_EXAMPLES
multiplies the number of examples, and makes them random.
"""

import dataclasses
import enum
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.evaluate import evaluate
from audit.evidence import HostEvidence, Probe
from audit.facts.base import Facts, GuestFact, HostFact, Question, Unavailable
from audit.facts.guest_source import read_guests
from audit.judge import Judge, discover
from audit.policy import Policy
from audit.results import dumps
from audit.text import visible
from tests import damage
from tests.tried import ACTIVE, tried

FACTOR = int(os.environ.get("VIRT_PREFLIGHT_EXAMPLES", "1"))
CHECKS = discover()
ROOT = Path(__file__).resolve().parent.parent


def examples(number: int) -> settings:
    """So many examples, the same ones at each run unless more were asked for."""
    return settings(
        max_examples=number * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def _facts(host: HostEvidence, kind: type[Any]) -> list[Any]:
    """The host's facts of that kind: one, or one a guest; or why there are none."""
    facts = Facts({host.host: host}, read_guests)
    if issubclass(kind, HostFact):
        return [facts.of(host.host, kind)]
    guests = facts.guests(host.host)
    return [guests] if isinstance(guests, Unavailable) else [facts.of_guest(guest, kind) for guest in guests]


def _looked_through(value: Any) -> None:
    """Fails unless the value is made of immutable ones, and its texts can be shown."""
    match value:
        case str():
            assert _harmless(visible(value))
        case None | bool() | int() | float() | bytes() | enum.Enum():
            pass
        case tuple() | frozenset():
            for part in value:
                _looked_through(part)
        case _:
            assert dataclasses.is_dataclass(value), f"{type(value)} in a fact"
            assert type(value).__dataclass_params__.frozen, f"{type(value)} is not frozen"
            for field in dataclasses.fields(value):
                _looked_through(getattr(value, field.name))


def _harmless(text: str) -> bool:
    return not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text)


@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.__name__)
def test_a_fact_or_the_reason_why_there_is_none(kind: type[HostFact] | type[GuestFact]) -> None:
    @examples(25)
    @given(damage.ill_hosts(kind.probes))
    def look(ill: damage.Ill) -> None:
        found, again = _facts(ill.host, kind), _facts(ill.host, kind)
        assert len(found) == len(again)
        for fact, other in zip(found, again, strict=True):
            if isinstance(fact, Unavailable):
                assert (fact.probe, fact.reason) == (other.probe, other.reason)
                assert fact.reason
                assert _harmless(fact.reason), repr(fact.reason)
            else:
                assert isinstance(fact, kind)
                assert fact == other
                assert hash(fact) == hash(other)
                _looked_through(fact)

    look()


class _Watched(dict[str, Any]):
    """A host's outputs, which notes what is looked at."""

    def __init__(self, outputs: Any) -> None:
        super().__init__(outputs)
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.__name__)
def test_a_fact_names_all_probes_that_it_reads(kind: type[HostFact] | type[GuestFact]) -> None:
    for host in damage.real_hosts():
        outputs = _Watched(host.outputs)
        _facts(dataclasses.replace(host, outputs=outputs), kind)
        listing = {"guest.list", "guest.xml", "guest.xml_inactive"} if issubclass(kind, GuestFact) else set()
        assert outputs.seen - listing <= {probe.name for probe in kind.probes}


@pytest.mark.parametrize(
    "question", [probe for probe in damage.PROBES if isinstance(probe, Question)], ids=lambda probe: probe.name
)
def test_questions_are_asked_whatever_the_first_round_said(question: Question) -> None:
    @examples(15)
    @given(damage.ill_hosts(damage.PROBES), st.integers(0, len(damage.real_hosts()) - 1))
    def ask(ill: damage.Ill, other: int) -> None:
        well = damage.real_hosts()[other]
        facts = Facts(
            {"ill": HostEvidence("ill", ill.host.outputs), "well": HostEvidence("well", well.outputs)}, read_guests
        )
        for asked, peer in (("ill", "well"), ("well", "ill")):
            for record in question.ask(facts, asked, [peer]):
                assert len(record) == question.arity - bool(question.option and ACTIVE[question.option])
                assert all(isinstance(value, str) for value in record)

    ask()


@pytest.mark.parametrize("probe", damage.PROBES, ids=lambda probe: probe.name)
def test_no_check_fails_of_itself(probe: Probe) -> None:
    checks = [check for check in CHECKS if probe in check.probes]

    @examples(5)
    @given(damage.ill_hosts([probe]), st.integers(0, len(damage.real_hosts()) - 1))
    def judge(ill: damage.Ill, other: int) -> None:
        well = damage.real_hosts()[other]
        hosts = {"ill": HostEvidence("ill", ill.host.outputs), "well": HostEvidence("well", well.outputs)}
        judged = Judge(Facts(hosts, read_guests), checks, Policy()).cluster("c", sorted(hosts))
        for outcomes in judged.outcomes.values():
            for outcome in outcomes:
                assert outcome.judged.status != "error", outcome.judged.reason
                str([finding.message for finding in outcome.judged.findings])

    judge()


@pytest.mark.parametrize("fleet", ["mixed", "mellanox"])
def test_results_are_written_whatever_a_host_said(fleet: str) -> None:
    bundle = tried(fleet)
    name = min(bundle.hosts)

    @examples(4)
    @given(damage.ill_hosts(damage.PROBES, bundle.hosts[name], most=20))
    def judge(ill: damage.Ill) -> None:
        results = evaluate([dataclasses.replace(bundle, hosts={**bundle.hosts, name: ill.host})], CHECKS)
        assert [o for o in results["outcomes"] if o["status"] == "error"] == []
        dumps(results).encode()

    judge()


def test_a_megabyte_is_read_in_reasonable_time() -> None:
    stride = "8" if FACTOR == 1 else "1"
    run = [sys.executable, "-m", "tests.swollen", stride]
    done = subprocess.run(run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-4000:]
