"""The engine: what becomes a pass, a fail, a skip, an unknown or an error, and that nothing is asked twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import pytest

from audit.check import (
    Blocks,
    Cluster,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Target,
    Told,
    check,
    if_known,
)
from audit.evidence import Evidence, HostEvidence, Probe
from audit.facts.base import Facts, Guest, GuestFact, GuestSource, HostFact, NotAsked, Said, Unavailable
from audit.judge import Judge, Missing, Subject, discover
from audit.text import parse_xml

LOAD = Probe("test.load", "cat /proc/loadavg")


@dataclass(frozen=True, slots=True)
class Load(HostFact):
    probes: ClassVar = (LOAD,)
    percent: int

    @classmethod
    def parse(cls, said: Said) -> Self:
        return cls(int(said.text(LOAD)))


@dataclass(frozen=True, slots=True)
class Title(GuestFact):
    probes: ClassVar = (LOAD,)
    text: str

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        text = guest.xml.findtext("title")
        if text is None:
            raise Unavailable(LOAD, "no title")
        return cls(text)


def facts(loads: dict[str, str], guests: dict[str, list[str]] | None = None) -> Facts:
    """Hosts by name with what their probe printed, and guests by host as XML."""

    def read_guests(said: Said) -> list[GuestSource]:
        return [
            GuestSource(Guest(said.host.host, f"uuid-{n}", f"g{n}"), True, parse_xml(xml.encode()), None, said)
            for n, xml in enumerate((guests or {}).get(said.host.host, []))
        ]

    hosts = {
        name: HostEvidence(name, {LOAD.name: Evidence(LOAD.name, 0, text.encode())} if text else {})
        for name, text in loads.items()
    }
    return Facts(hosts, read_guests)


def judged(function, loads, guests=None, **options):
    made = check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="none", **options)(function)
    return Judge(facts(loads, guests), [made], Policy()).cluster("c", tuple(loads)), made


def calm(load: Load) -> Iterator[Finding]:
    """The host is not busy."""
    if load.percent == 50:
        raise NotApplicable("half is nobody's business")
    if load.percent > 90:
        yield Finding(expected="at most 90 %", actual=f"{load.percent} %")
    assert load.percent >= 0


def test_each_status_comes_from_where_it_should():
    found, made = judged(calm, {"idle": "3", "busy": "99", "half": "50", "silent": "", "noise": "abc", "bug": "-1"})
    assert found.counts[made.id] == {"pass": 1, "fail": 1, "skip": 1, "unknown": 2, "error": 1}
    [busy] = found.of(Subject("busy"))
    assert busy.judged.findings[0].message == "expected at most 90 %; found: 99 %"
    [silent] = found.of(Subject("silent"))
    assert (silent.judged.reason, silent.judged.probe) == ("test.load: not collected", LOAD)
    [noise] = found.of(Subject("noise"))
    assert "not understood" in noise.judged.reason
    [bug] = found.of(Subject("bug"))
    assert bug.judged.status == "error"
    assert found.of(Subject("idle")) == found.of(Subject("half")) == []
    assert found.skipped[made.id] == {"half is nobody's business": 1}


def heavier(here: Source[Load], there: Target[Load]) -> Iterator[Finding]:
    """The target is not busier than the source."""
    if there.percent > here.percent:
        yield Finding(expected=f"at most {here.percent} %", actual=f"{there.percent} %")


def test_pairs_are_ordered():
    found, _ = judged(heavier, {"a": "10", "b": "20"})
    assert found.of(Subject("a", "b"))
    assert not found.of(Subject("b", "a"))


def test_of_a_host_that_could_not_be_read_only_what_the_source_knows_counts():
    def knows(here: Source[Load], there: Target[Load]) -> Iterator[Finding]:
        """The source is idle."""
        if here.percent > 50:
            yield Finding(expected="idle", actual="busy")
        elif there.percent:
            yield Finding(expected="idle", actual="busy, too")

    made = check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="none")(knows)
    judge = Judge(facts({"a": "90", "b": "10", "c": ""}), [made], Policy())
    found = judge.cluster("c", ("a", "b"), ("c",))
    assert list(found.shut) == [("a", "c")]
    assert sum(found.counts[made.id].values()) == 2, "the two that were read"


def test_equal_facts_are_judged_once():
    calls = []

    def counted(here: Source[Load], there: Target[Load]) -> Iterator[Finding]:
        """It is counted."""
        calls.append((here, there))
        yield from ()

    found, made = judged(counted, {f"host{n}": str(n % 2) for n in range(10)})
    assert found.counts[made.id]["pass"] == 90
    assert len(calls) == 4


def welcome(title: Title, there: Target[Load]) -> Iterator[Finding]:
    """The guest may come."""
    if title.text == "heavy" and there.percent > 50:
        yield Finding(expected="an idle host", actual=f"{there.percent} %")


def test_placements_and_a_guest_fact_that_is_missing():
    guests = {"a": ["<domain><title>heavy</title></domain>", "<domain/>"]}
    found, _ = judged(welcome, {"a": "0", "b": "60", "c": "10"}, guests)
    heavy, untitled = Guest("a", "uuid-0", "g0"), Guest("a", "uuid-1", "g1")
    assert found.of(Subject("a", "b", heavy))[0].judged.status == "fail"
    assert not found.of(Subject("a", "c", heavy))
    assert found.of(Subject("a", "c", untitled))[0].judged.reason == "test.load: no title"


def unique(loads: Cluster[Load]) -> Iterator[Finding]:
    """No two hosts are equally busy."""
    seen: dict[int, str] = {}
    for member in loads:
        if member.fact.percent in seen:
            hosts = frozenset({seen[member.fact.percent], member.host})
            yield Finding(expected="different", actual="equal", hosts=hosts)
        seen[member.fact.percent] = member.host


@pytest.mark.parametrize(
    ("loads", "status"),
    [({"a": "1", "b": "2"}, "pass"), ({"a": "1", "b": "1", "c": ""}, "fail"), ({"a": "1", "b": ""}, "unknown")],
)
def test_a_cluster_check_passes_only_if_it_saw_every_host(loads, status):
    found, made = judged(unique, loads)
    assert found.counts[made.id] == {status: 1}
    unseen = [host for outcome in found.of(Subject(cluster="c")) for host, _ in outcome.judged.unseen]
    assert unseen == [host for host, load in loads.items() if not load]


def test_a_question_that_does_not_arise_may_do_so_on_a_host_that_was_not_seen():
    def peers(loads: Cluster[Load]) -> Iterator[Finding]:
        """There are peers."""
        if len(loads) < 2:
            raise NotApplicable("one host")
        yield from ()

    found, made = judged(peers, {"a": "1", "b": ""})
    assert found.counts[made.id] == {"unknown": 1}
    [outcome] = found.of(Subject(cluster="c"))
    assert [host for host, _ in outcome.judged.unseen] == ["b"]
    assert judged(peers, {"a": "1"})[0].counts[made.id] == {"skip": 1}


def test_what_was_not_asked_of_one_host_does_not_hide_that_another_is_not_known():
    @dataclass(frozen=True, slots=True)
    class Active(HostFact):
        probes: ClassVar = (LOAD,)

        @classmethod
        def parse(cls, said: Said) -> Self:
            raise NotAsked(LOAD, "not tried") if said.host.host == "a" else Unavailable(LOAD, "gone")

    def tried(all_: Cluster[Active]) -> Iterator[Finding]:
        """It was tried."""
        yield from ()

    tried.__annotations__["all_"] = Cluster[Active]
    found, made = judged(tried, {"a": "1", "b": "1"})
    assert found.counts[made.id] == {"unknown": 1}
    found, made = judged(tried, {"a": "1"})
    assert found.counts[made.id] == {"skip": 1}


@pytest.mark.parametrize("stop", [Unavailable(LOAD, "not known"), NotApplicable("no more to see"), ValueError("bug")])
def test_what_was_found_before_the_check_stopped_is_kept(stop):
    def partly(load: Load) -> Iterator[Finding]:
        """Both halves hold."""
        yield Finding(expected="a", actual="b")
        raise stop

    found, _ = judged(partly, {"a": "1"})
    [outcome] = found.of(Subject("a"))
    assert outcome.judged.status == "fail"


A, B = Finding(expected="a", actual="b"), Finding(expected="c", actual="d")
GONE, LOST = Unavailable(LOAD, "gone"), Unavailable(Probe("test.other", "true"), "lost")
UNTRIED = NotAsked(LOAD, "not tried")


@pytest.mark.parametrize(
    ("told", "status", "reason"),
    [
        ([GONE, A, LOST, B], "fail", ""),
        ([GONE, LOST], "unknown", "test.load: gone"),
        ([UNTRIED, LOST], "unknown", "test.other: lost"),  # what nobody asked for hides nothing
        ([UNTRIED], "skip", ""),
        ([GONE, NotApplicable("no more to see")], "unknown", "test.load: gone"),
        ([A, NotApplicable("no more to see")], "fail", ""),
        ([GONE, ValueError("bug")], "error", ""),
        ([A, ValueError("bug")], "fail", ""),
        (["a word"], "error", ""),
        ([], "pass", ""),
    ],
)
def test_a_check_may_tell_what_it_cannot_see_and_go_on(told, status, reason):
    def partly(load: Load) -> Told:
        """Every part holds."""
        for part in told:
            if isinstance(part, NotApplicable | ValueError):
                raise part
            yield part

    found, made = judged(partly, {"a": "1"})
    assert found.counts[made.id] == {status: 1}
    for outcome in found.of(Subject("a")):
        assert outcome.judged.findings == tuple(part for part in told if status == "fail" and isinstance(part, Finding))
        assert outcome.judged.reason.startswith(reason)


def test_a_cluster_check_that_told_what_it_cannot_see_is_unknown():
    def partly(loads: Cluster[Load]) -> Told:
        """No host is busy."""
        yield from (GONE for member in loads if member.fact.percent > 50)

    for loads, status in (({"a": "1", "b": "99"}, "unknown"), ({"a": "1", "b": "2"}, "pass")):
        found, made = judged(partly, loads)
        assert found.counts[made.id] == {status: 1}


def test_if_known_tells_why_there_is_nothing():
    def look(value):
        state = yield from if_known(value)
        yield A if state == "seen" else B

    assert list(look("seen")) == [A]
    assert list(look(GONE)) == [GONE, B]


def test_a_missing_fact_makes_unknown_only_who_looks_at_it():
    def only_for_heavy(title: Title, there: Target[Load]) -> Iterator[Finding]:
        """A heavy guest finds an idle host."""
        if title.text != "heavy":
            raise NotApplicable("the guest is light")
        if there == Load(100):
            yield Finding(expected="idle", actual="busy")

    guests = {"a": ["<domain><title>heavy</title></domain>", "<domain><title>light</title></domain>"]}
    found, made = judged(only_for_heavy, {"a": "0", "b": ""}, guests)
    assert found.counts[made.id] == {"unknown": 1, "skip": 1}


def test_whatever_is_asked_of_a_missing_fact_is_refused():
    missing = Missing(Unavailable(LOAD, "gone"))
    for use in (str, bool, len, iter, lambda m: m.percent, lambda m: m == 1, lambda m: m != 1, lambda m: 1 in m, hash):
        with pytest.raises((Unavailable, TypeError)):
            use(missing)


def test_check_ids_are_the_golden_ones():
    """People write ids into waivers and scripts: renaming one is a decision, made visible in tests/check_ids.txt."""
    golden = Path(__file__).with_name("check_ids.txt")
    assert [c.id for c in discover()] == golden.read_text().split()


def test_an_active_probe_that_was_not_asked_for_is_a_skip_and_not_an_unknown():
    tried = Probe("test.tried", "true", option="--try")

    @dataclass(frozen=True, slots=True)
    class Tried(HostFact):
        probes: ClassVar = (tried,)
        answer: str

        @classmethod
        def parse(cls, said: Said) -> Self:
            return cls(said.text(tried))

    def answers(tried: Tried) -> Iterator[Finding]:
        """It answers."""
        if tried.answer:
            yield Finding("yes", tried.answer)

    answers.__annotations__ = {"tried": Tried, "return": Iterator[Finding]}
    found, made = judged(answers, {"h1": ""})
    assert found.counts[made.id] == {"skip": 1}
    assert "not tried: --try does" in next(iter(found.skipped[made.id]))
