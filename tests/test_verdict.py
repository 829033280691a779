"""How outcomes become verdicts: the rules of docs/how-it-decides.md, row by row."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from audit.check import (
    ANOTHER_ADDRESS,
    COPY_CHANGES,
    COPY_STORAGE,
    COPY_WHOLE,
    STARTED_HERE,
    TUNNELLED,
    Blocks,
    Cluster,
    Finding,
    Severity,
    Source,
    Stage,
    Target,
    check,
)
from audit.facts.base import Guest, GuestFact, HostFact
from audit.judge import Judged, Judgements, Outcome, Subject
from audit.results import Reason
from audit.verdict import (
    ClusterRoutes,
    GuestRoutes,
    Route,
    Way,
    concerns,
    departure,
    guest_route,
    other_ways,
    pair_route,
    summary,
    unread_route,
)

GUEST = Guest("a", "u", "web")


@dataclass(frozen=True, slots=True)
class Some(HostFact):
    value: int


@dataclass(frozen=True, slots=True)
class SomeGuest(GuestFact):
    value: int


def of_host(some: Some) -> Iterator[Finding]:
    """It holds."""


def of_target(some: Target[Some]) -> Iterator[Finding]:
    """It holds."""


def of_pair(here: Source[Some], there: Target[Some]) -> Iterator[Finding]:
    """It holds."""


def of_guest(guest: SomeGuest) -> Iterator[Finding]:
    """It holds."""


def of_placement(guest: SomeGuest, there: Target[Some]) -> Iterator[Finding]:
    """It holds."""


def of_cluster(some: Cluster[Some]) -> Iterator[Finding]:
    """It holds."""


def failed(function, *, severity=Severity.HIGH, blocks=Blocks.MIGRATION, status="fail", hosts=(), **options):
    made = check(severity=severity, blocks=blocks, reference="none", **options)(function)
    finding = Finding(expected="good", actual=f"bad {function.__name__}", hosts=frozenset(hosts))
    return made, Judged(status, (finding,) if status == "fail" else (), "" if status == "fail" else "no answer")


def verdict_with(subject, entry, *, active=True):
    found = Judgements()
    found.add(entry[0], subject, entry[1])
    return guest_route(found, "c", GUEST, "b", active=active).verdict


@pytest.mark.parametrize(
    ("subject", "entry", "verdict"),
    [
        (Subject("a", None, GUEST), failed(of_guest), "no"),
        (Subject("a", "b", GUEST), failed(of_placement), "no"),
        (Subject("a", "c", GUEST), failed(of_placement), "yes"),
        (Subject("a", "b"), failed(of_pair), "no"),
        (Subject("b", "a"), failed(of_pair), "yes"),
        (Subject("a"), failed(of_host), "no"),
        (Subject("b"), failed(of_host), "no"),
        (Subject("b"), failed(of_target), "no"),
        (Subject("a"), failed(of_target), "yes"),
        (Subject("a", "b"), failed(of_pair, plain_guest=True), "yes"),
        (Subject("a", "b"), failed(of_pair, status="unknown"), "unknown"),
        (Subject("a", "b"), failed(of_pair, status="error"), "unknown"),
        (Subject("a", "b"), failed(of_pair, blocks=Blocks.NOTHING), "conditions"),
        (Subject("a", "b"), failed(of_pair, blocks=Blocks.NOTHING, severity=Severity.MEDIUM), "conditions"),
        (Subject("a", "b"), failed(of_pair, blocks=Blocks.NOTHING, severity=Severity.LOW), "yes"),
        (Subject("a", "b"), failed(of_pair, blocks=Blocks.NOTHING, status="unknown"), "conditions"),
        (Subject("a", "b"), failed(of_pair, blocks=Blocks.NOTHING, severity=Severity.LOW, status="unknown"), "yes"),
        (Subject("a", "b"), failed(of_pair, blocks=Blocks.BASELINE, severity=Severity.LOW), "yes"),
        (Subject(cluster="c"), failed(of_cluster, hosts=("a", "b")), "no"),
        (Subject(cluster="c"), failed(of_cluster, hosts=("a", "z")), "yes"),
    ],
)
def test_what_one_outcome_makes_of_a_route(subject, entry, verdict):
    assert verdict_with(subject, entry) == verdict


def unseeing(*unseen, status="pass", hosts=(), **options):
    """A cluster check that could not see some hosts."""
    made, judged = failed(of_cluster, status=status, hosts=hosts, **options)
    return made, replace(judged, unseen=tuple((host, f"{host} did not tell") for host in unseen))


def partly(*hosts):
    """A cluster check that found something between these hosts, and could not look at everything."""
    made, judged = failed(of_cluster, hosts=hosts)
    return made, replace(judged, reason="the rest is not known")


@pytest.mark.parametrize(
    ("entry", "verdict"),
    [
        (failed(of_cluster, status="unknown"), "unknown"),
        (failed(of_cluster, status="error"), "unknown"),
        (unseeing("b", status="unknown"), "unknown"),
        (unseeing("z", status="unknown"), "yes"),
        (unseeing("b", status="unknown", blocks=Blocks.NOTHING), "conditions"),
        (unseeing("b", status="unknown", blocks=Blocks.NOTHING, severity=Severity.LOW), "yes"),
        (unseeing("b", status="fail", hosts=("x", "y")), "unknown"),
        (unseeing("z", status="fail", hosts=("x", "y")), "yes"),
        (unseeing("b", status="fail", hosts=("a", "b")), "no"),
        (partly("x", "y"), "unknown"),
        (partly("a", "b"), "no"),
    ],
)
def test_what_a_cluster_check_could_not_see_is_never_green(entry, verdict):
    assert verdict_with(Subject(cluster="c"), entry) == verdict


def test_the_reason_is_that_of_the_route_s_own_host():
    found = Judgements()
    made, judged = unseeing("z", "b", status="unknown")
    found.add(made, Subject(cluster="c"), judged)
    [reason] = guest_route(found, "c", GUEST, "b", active=True).reasons
    assert reason["message"] == "b did not tell"


def test_a_shut_off_guest_heeds_only_what_concerns_offline_migration():
    assert verdict_with(Subject("a", "b"), failed(of_pair), active=False) == "yes"
    assert verdict_with(Subject("a", "b"), failed(of_pair, offline=True), active=False) == "no"


def test_the_decisive_reason_comes_first():
    found = Judgements()
    for made, judged in (
        failed(of_guest, status="unknown", stage=Stage.CONNECT),
        failed(of_host, stage=Stage.START),
        failed(of_pair, stage=Stage.SAFE),
    ):
        found.add(
            made,
            {"of_guest": Subject("a", None, GUEST), "of_host": Subject("b"), "of_pair": Subject("a", "b")}[
                made.function.__name__
            ],
            judged,
        )
    route = guest_route(found, "c", GUEST, "b", active=True)
    assert route.verdict == "no"
    assert [r["message"].rpartition(": ")[2] for r in route.reasons] == ["bad of_pair", "bad of_host", "no answer"]


def test_the_plain_guest_heeds_what_is_only_about_it():
    found = Judgements()
    made, judged = failed(of_pair, plain_guest=True)
    found.add(made, Subject("a", "b"), judged)
    assert pair_route(found, "c", "a", "b").verdict == "no"
    assert pair_route(found, "c", "b", "a").verdict == "yes"


YES, NO, MAYBE = (
    Route("yes"),
    Route("no", ({"check": "x", "status": "fail", "message": "bad"},)),
    unread_route("b", "?"),
)
IF = Route("conditions", ({"check": "x", "status": "fail", "message": "do this"},))


def run(*guests: dict[str, Route], active=True, unread=None, drain=(), pairs=None, leave=YES):
    made = tuple(GuestRoutes(Guest("a", f"u{n}", f"g{n}"), active, targets, leave) for n, targets in enumerate(guests))
    return summary([ClusterRoutes("c", ("a", "b", "c"), unread or {}, pairs or {}, made)], drain)


@pytest.mark.parametrize(
    ("guests", "word"),
    [
        ([{"b": YES, "c": YES}], "GO"),
        ([{"b": YES, "c": IF}], "GO"),
        ([{"b": YES, "c": NO}], "GO WITH CONDITIONS"),
        ([{"b": IF, "c": IF}], "GO WITH CONDITIONS"),
        ([{"b": NO, "c": NO}], "NO-GO"),
        ([{"b": NO, "c": MAYBE}], "CANNOT SAY"),
        ([{"b": YES, "c": MAYBE}], "GO WITH CONDITIONS"),
        ([{"b": NO, "c": NO}, {"b": MAYBE, "c": MAYBE}], "NO-GO"),
        ([{"b": YES, "c": YES}, {"b": MAYBE, "c": MAYBE}], "CANNOT SAY"),
        ([{}], "CANNOT SAY"),
    ],
)
def test_the_run_is_as_good_as_its_worst_guest(guests, word):
    assert run(*guests)["word"] == word


def test_a_guest_that_cannot_leave_is_no_go_even_with_no_target_audited():
    assert run({}, leave=NO)["word"] == "NO-GO"


def test_shut_off_guests_do_not_decide():
    pairs = {(s, t): YES for s in "abc" for t in "abc" if s != t}
    assert run({"b": NO, "c": NO}, active=False, pairs=pairs)["word"] == "GO"


def test_an_unread_host_keeps_a_run_from_being_green_but_not_from_being_red():
    assert run({"b": YES, "c": YES}, unread={"c": "down"})["word"] == "CANNOT SAY"
    assert run({"b": NO, "c": NO}, unread={"c": "down"})["word"] == "NO-GO"


def test_a_drain_counts_only_the_drained_hosts_guests_and_the_other_targets():
    assert run({"b": YES, "c": YES}, drain=("a", "b"))["word"] == "GO WITH CONDITIONS"
    empty = run({"b": NO, "c": NO}, drain=("b",), pairs={("b", "a"): NO, ("b", "c"): NO})
    assert (empty["word"], empty["sentence"]) == ("GO", "Draining b: no guest is running there.")
    assert run({"b": YES, "c": YES}, drain=("a",))["sentence"].startswith("Draining a: ")


def test_a_cluster_without_guests_needs_a_peer_in_each_direction():
    one_way = {("a", "b"): YES, ("a", "c"): YES, ("b", "a"): NO, ("b", "c"): YES, ("c", "a"): NO, ("c", "b"): YES}
    assert run(pairs=one_way)["word"] == "NO-GO"
    assert run(pairs={**one_way, ("b", "a"): MAYBE})["word"] == "CANNOT SAY"
    assert run(pairs={**one_way, ("b", "a"): IF})["word"] == "GO WITH CONDITIONS"
    assert run(pairs={**one_way, ("b", "a"): YES})["word"] == "GO"


def test_guests_are_counted_by_their_number_of_targets():
    counts = run({"b": YES, "c": IF}, {"b": YES, "c": NO}, {"b": NO, "c": NO}, {"b": NO, "c": MAYBE})["guests"]
    assert counts == {"two_or_more": 1, "one": 1, "none": 1, "unknown": 1, "total": 4}


def test_what_concerns_the_cluster_as_a_whole_is_a_condition_of_the_run():
    found = Judgements()
    for made, judged in (failed(of_cluster, blocks=Blocks.NOTHING), failed(of_cluster, hosts=("a", "b"))):
        found.add(made, Subject(cluster="c"), judged)
    [concern] = concerns(found, "c")
    cluster = ClusterRoutes(
        "c", ("a", "b", "c"), {}, {}, (GuestRoutes(GUEST, True, {"b": YES, "c": YES}, YES),), (concern,)
    )
    assert summary([cluster], ())["word"] == "GO WITH CONDITIONS"


def test_departure_reads_the_guest_and_its_host_as_a_source():
    found = Judgements()
    for made, judged, subject in (
        (*failed(of_target), Subject("a")),
        (*failed(of_guest), Subject("a", None, GUEST)),
    ):
        found.add(made, subject, judged)
    assert [r["check"] for r in departure(found, GUEST, active=True).reasons] == [failed(of_guest)[0].id]


# Other ways ---------------------------------------------------------------------------------------------------


def local_disk(reason="", *, more=()):
    made = check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="none")(of_placement)
    finding = Finding("shared", "local", lifted_by=(COPY_STORAGE,), about="vda")
    return made, Judged("fail", (finding, *more), reason)


def ways_with(*entries, persistent=False):
    """The ways where these outcomes are about the placement, beside a disk that is not shared."""
    found = Judgements()
    for made, judged in entries:
        found.add(made, Subject("a", "b", GUEST), judged)
    usual = guest_route(found, "c", GUEST, "b", active=True).verdict
    return other_ways(found, "c", GUEST, "b", usual, persistent=persistent)


def for_copying(**options):
    return failed(of_placement, way=COPY_STORAGE, **options)


@pytest.mark.parametrize(
    ("entries", "verdict"),
    [
        ([local_disk()], "yes"),
        ([local_disk(more=(Finding("x", "y"),))], None),
        ([local_disk("vdb: no answer")], "unknown"),
        ([local_disk(), failed(of_pair)], None),
        ([local_disk(), failed(of_pair, plain_guest=True)], "yes"),
        ([local_disk(), failed(of_pair, status="unknown")], "unknown"),
        ([local_disk(), failed(of_pair, blocks=Blocks.NOTHING)], "conditions"),
        ([local_disk(), for_copying()], None),
        ([local_disk(), for_copying(status="unknown")], "unknown"),
        ([local_disk(), for_copying(blocks=Blocks.NOTHING, severity=Severity.MEDIUM)], "conditions"),
    ],
)
def test_copying_disks_along_lifts_no_more_than_it_may(entries, verdict):
    whole, changes = ways_with(*entries)
    assert [way.kind for way in (whole, changes)] == ["copy-storage", "copy-storage-inc"]
    assert whole.verdict == changes.verdict == (verdict or "no")
    assert whole.disks == ("vda",)
    assert bool(whole.reasons) == (verdict != "yes")


def test_what_lies_below_is_copied_with_the_whole_disk_only():
    below = Finding("base", "not there", lifted_by=(COPY_WHOLE,), about="vda")
    whole, changes = ways_with(local_disk(more=(below,)))
    assert (whole.verdict, changes.verdict) == ("yes", "no")
    whole, changes = ways_with(local_disk(), failed(of_placement, way=COPY_CHANGES))
    assert (whole.verdict, changes.verdict) == ("yes", "no")


def lifted(kind, about="", **options):
    made = check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference="none", **options)(of_pair)
    return made, Judged("fail", (Finding("open", "closed", lifted_by=(kind, TUNNELLED), about=about),))


def test_another_address_or_another_place_to_start_from():
    closed = lifted(ANOTHER_ADDRESS, "--migrateuri tcp://192.0.2.1")
    by_address = Way("another-address", "yes", options=("--migrateuri tcp://192.0.2.1",))
    assert ways_with(closed) == (by_address, Way("tunnelled", "yes"))
    assert {way.verdict for way in ways_with(closed, failed(of_placement))} == {"no"}
    assert ways_with(lifted(STARTED_HERE)) == (Way("started-here", "yes"), Way("tunnelled", "yes"))
    both = {way.kind: way.verdict for way in ways_with(closed, lifted(STARTED_HERE))}
    assert both == {"another-address": "no", "started-here": "no", "tunnelled": "yes"}, "each of the others lifts one"


def test_a_host_that_could_not_be_read_may_be_shut_all_the_same():
    made, judged = failed(of_pair)
    route = unread_route("b", "timed out", [Outcome(made, Subject("a", "b"), judged)])
    assert route.verdict == "no"
    assert [reason["check"] for reason in route.reasons] == [made.id, "host.reached"]


def test_no_other_way_where_the_usual_one_is_open():
    assert ways_with(failed(of_pair, blocks=Blocks.NOTHING), persistent=True) == ()


def test_offline_is_a_way_for_guests_that_are_defined():
    assert ways_with(failed(of_pair), persistent=True) == (Way("offline", "yes"),)
    [closed] = ways_with(failed(of_pair, offline=True), persistent=True)
    assert (closed.verdict, len(closed.reasons)) == ("no", 1)
    assert ways_with(failed(of_pair)) == ()


def test_checks_of_a_way_do_not_bear_on_the_usual_one():
    assert verdict_with(Subject("a", "b", GUEST), for_copying()) == "yes"
    assert verdict_with(Subject("a", "b", GUEST), for_copying(offline=True), active=False) == "yes"
    found = Judgements()
    made, judged = failed(of_pair, way=COPY_STORAGE)
    found.add(made, Subject("a", "b"), judged)
    assert pair_route(found, "c", "a", "b").verdict == "yes"


def test_a_no_go_says_where_copying_would_help():
    ways = {"b": (Way("copy-storage", "conditions", ("vda",)),), "c": (Way("copy-storage", "unknown", ("vda",)),)}
    no = Route("no", (Reason(check="x", status="fail", message="local disk"),))
    guest = GuestRoutes(GUEST, True, {"b": no, "c": no}, Route("yes"), ways)
    verdict = summary([ClusterRoutes("c", ("a", "b", "c"), {}, {}, (guest,))], ())
    assert verdict["word"] == "NO-GO"
    assert verdict["blocking"] == [
        "web on a has no target: b, c: local disk (with its disks copied along, --copy-storage-all, it could go to b)"
    ]
