"""Results → view model: everything the templates show, counted, grouped, ordered and cut; they only loop.

Board members read the first page and engineers the rest, so equal statements are made once, with the list of
what they concern. All names and messages are other people's text; they pass `visible` here or at the template's door.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from audit.results import (
    Baseline,
    CheckResult,
    EvidenceRef,
    GuestResult,
    HostResult,
    Outcome,
    Pair,
    Reason,
    Results,
    RouteVerdict,
    Row,
    Subject,
    TargetResult,
)
from audit.text import visible

T = TypeVar("T")

NAME_LIMIT = 80  # characters of a guest's or host's name; libvirt itself takes names of 10 kB
VALUE_LIMIT = 220
SENTENCE_LIMIT = 400
COMMAND_LIMIT = 4000
HOST_COLUMNS = 6  # as many hosts stand side by side on an A4 page
WORD_COLUMNS = 12  # up to so many targets the matrix has words in its cells, beyond it only their signs
SIGN_COLUMNS = 26
PAPER_NAMES = 12  # names in one list
SCREEN_NAMES = 1000
FIRST_PAGE_LINES = 22  # of blocking reasons and conditions together
FIRST_PAGE_WIDTH = 88  # characters a line there, in the widest font we expect

SEVERITIES = ("critical", "high", "medium", "low", "info")
ROUTE_VERDICTS: tuple[RouteVerdict, ...] = ("yes", "conditions", "no", "unknown")
KINDS = {"GO": "yes", "GO WITH CONDITIONS": "conditions", "NO-GO": "no", "CANNOT SAY": "unknown"}


@dataclass(frozen=True, slots=True)
class Cut(Generic[T]):
    """A long list: what is shown at once, and the rest, which paper leaves out and says so."""

    shown: tuple[T, ...]
    rest: tuple[T, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A remedy. `pasteable`: it is a command, shown exactly as it must be typed; else prose."""

    text: str
    pasteable: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of the first page; `kind` is the verdict whose colour it bears, "" for none."""

    number: int
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class FirstPage:
    """What a change board reads."""

    word: str
    kind: str
    sentence: str
    tallies: tuple[Tally, ...]
    blocking: Cut[str]
    conditions: Cut[str]
    change: tuple[tuple[str, str], ...]
    scope: tuple[tuple[str, str], ...]
    valid_until: str


@dataclass(frozen=True, slots=True)
class FactCell:
    """A host's value in the side-by-side table. `odd`: not what most others have."""

    text: str
    known: bool
    odd: bool


@dataclass(frozen=True, slots=True)
class FactRow:
    """A line of it. `same`: every host has this value, said once."""

    label: str
    differs: bool
    same: FactCell | None
    cells: tuple[FactCell, ...]


@dataclass(frozen=True, slots=True)
class FactTable:
    """At most `HOST_COLUMNS` columns of it; equal hosts share one. Only the first table has the rows that are `same`."""

    columns: tuple[str, ...]
    width: int
    domains: tuple[tuple[str, tuple[FactRow, ...]], ...]


@dataclass(frozen=True, slots=True)
class HostSection:
    """The hosts of one cluster."""

    cluster: str
    hosts: int
    differing: int
    unread: tuple[tuple[str, str], ...]
    tables: tuple[FactTable, ...]


@dataclass(frozen=True, slots=True)
class Because:
    """A reason, with what it applies to: `(from, to which)`."""

    text: str
    status: str
    check: str
    anchor: str
    routes: Cut[tuple[str, str]] = Cut(())


@dataclass(frozen=True, slots=True)
class MatrixBlock:
    """Some targets of the matrix: heads, and per source its cells' verdicts ("" on the diagonal)."""

    heads: tuple[str, ...]
    words: bool
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class PairSection:
    """The ordered pairs of one cluster."""

    cluster: str
    counts: tuple[tuple[str, int], ...]
    numbered: tuple[str, ...]
    """Host names by number, where the heads are numbers; else empty."""
    blocks: tuple[MatrixBlock, ...]
    reasons: tuple[Because, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Targets of a guest that share verdict and reasons. `verdict` is "" for what holds for all of them."""

    verdict: str
    hosts: str
    reasons: Cut[Because]


@dataclass(frozen=True, slots=True)
class GuestRow:
    """Guests of one host with the same targets and reasons: `(name, what it is)`."""

    guests: Cut[tuple[str, str]]
    host: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class GuestGroup:
    """Guests by number of proved targets."""

    title: str
    kind: str
    note: str
    rows: tuple[GuestRow, ...]


@dataclass(frozen=True, slots=True)
class BaselineSection:
    """A cluster's CPU. `xml` is the one to paste."""

    cluster: str
    hosts: str
    missing: tuple[tuple[str, str], ...]
    model: str
    virttype: str
    engine: str
    cross_check: str
    problem: str
    xml: str
    file: str
    plain_file: str
    """The same without `--migratable`, where that differs; else ""."""
    not_migratable: tuple[str, ...]
    """Lines of the plain one that the migratable one lacks."""
    removed: tuple[tuple[str, str, int], ...]
    """Hosts, the features they lack, how many."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One observation of a check and the subjects it was made on."""

    message: str
    expected: str
    actual: str
    remedy: Command | None
    subjects: Cut[tuple[str, str]]
    count: int
    evidence: Cut[str]


@dataclass(frozen=True, slots=True)
class CheckGroup:
    """A check with what it found, or what kept it from judging."""

    anchor: str
    id: str
    title: str
    why: str
    severity: str
    blocks: str
    reference: str
    remedy: Command | None
    statements: tuple[Statement, ...]
    count: int


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One line of the table of checks."""

    id: str
    title: str
    scope: str
    severity: str
    blocks: str
    reference: str
    counts: tuple[int, ...]
    skipped: str


@dataclass(frozen=True, slots=True)
class View:
    """The report."""

    run_id: str
    first: FirstPage
    all_blocking: tuple[str, ...]
    all_conditions: tuple[str, ...]
    method: tuple[tuple[str, str], ...]
    hosts: tuple[HostSection, ...]
    pairs: tuple[PairSection, ...]
    guests: tuple[GuestGroup, ...]
    baselines: tuple[BaselineSection, ...]
    findings: tuple[CheckGroup, ...]
    unknowns: tuple[CheckGroup, ...]
    errors: tuple[CheckGroup, ...]
    checks: tuple[CheckLine, ...]
    provenance: tuple[tuple[str, str], ...]
    policy: tuple[tuple[str, str], ...]
    logins: tuple[tuple[str, str, str, str], ...]
    rendered: str


@dataclass(frozen=True, slots=True)
class _Context:
    """What every section needs to name a host, to refer to a finding, and to know how long a list may be."""

    short: dict[str, str]
    anchors: dict[str, str]
    names: int
    """As many names stand in one list."""

    def host(self, name: str) -> str:
        return self.short.get(name, _name(name))

    def some(self, hosts: Iterable[str]) -> str:
        return self.join([self.host(name) for name in hosts])

    def join(self, names: Sequence[str]) -> str:
        return _some(names, self.names)

    def because(self, reason: Reason, routes: Cut[tuple[str, str]] | None = None) -> Because:
        check, text = reason["check"], visible(reason["message"], VALUE_LIMIT)
        return Because(text, reason["status"], visible(check, 60), self.anchors.get(check, ""), routes or Cut(()))


def build(results: Results, *, rendered: str, digest: str, files: dict[str, tuple[str, str]], paper: bool) -> View:
    """The view model of `results`; for `paper`, long lists of names are cut.

    `files`: per cluster the names of its baseline files, plain and migratable.
    """
    run = results["run"]
    fails = [o for o in results["outcomes"] if o["status"] == "fail"]
    context = _Context(
        short=_short_names([h["name"] for h in results["hosts"]]),
        anchors={check: f"finding-{n}" for n, check in enumerate(sorted({o["check"] for o in fails}), start=1)},
        names=PAPER_NAMES if paper else SCREEN_NAMES,
    )
    groups = _Groups({c["id"]: c for c in results["checks"]}, context)
    first = _first_page(results)
    return View(
        run_id=visible(run["id"], NAME_LIMIT),
        first=first,
        all_blocking=_sentences(results["verdict"]["blocking"]) if first.blocking.rest else (),
        all_conditions=_sentences(results["verdict"]["conditions"]) if first.conditions.rest else (),
        method=_method(results),
        hosts=tuple(_hosts(cluster, hosts) for cluster, hosts in _by_cluster(results["hosts"])),
        pairs=tuple(_pairs(cluster, pairs, context) for cluster, pairs in _by_cluster(results["pairs"])),
        guests=_guests(results, context),
        baselines=tuple(_baseline(b, files[b["cluster"]]) for b in results["baselines"]),
        findings=groups.of(fails),
        unknowns=groups.of([o for o in results["outcomes"] if o["status"] == "unknown"]),
        errors=groups.of([o for o in results["outcomes"] if o["status"] == "error"]),
        checks=tuple(_check_line(c) for c in sorted(results["checks"], key=lambda c: c["id"])),
        provenance=(
            ("Run", run["id"]),
            ("Tool", run["tool"]),
            ("Evidence collected", f"{moment(run['started'])} to {moment(run['finished'])}"),
            ("Report rendered", moment(rendered)),
            ("Evidence, SHA-256", run["bundle_sha256"]),
            ("results.json, SHA-256", digest),
            ("Format", results["format"]),
        ),
        policy=tuple((name, visible(str(value), VALUE_LIMIT)) for name, value in sorted(run["policy"].items())),
        logins=_logins(results["hosts"], context),
        rendered=rendered,
    )


# First page and scope


def _first_page(results: Results) -> FirstPage:
    run, verdict = results["run"], results["verdict"]
    blocking, conditions = _share(_sentences(verdict["blocking"]), _sentences(verdict["conditions"]))
    change = {"ticket": "", "window": "", "requester": "", **run["change"]}
    return FirstPage(
        word=verdict["word"],
        kind=KINDS[verdict["word"]],
        sentence=visible(verdict["sentence"], SENTENCE_LIMIT),
        tallies=_tallies(verdict["guests"]),
        blocking=blocking,
        conditions=conditions,
        change=tuple((visible(key, 20).capitalize(), visible(value, 120)) for key, value in list(change.items())[:6]),
        scope=_scope(results),
        valid_until=moment(run["valid_until"]),
    )


def _tallies(guests: dict[str, int]) -> tuple[Tally, ...]:
    wanted = (
        ("two_or_more", "two or more targets", "yes"),
        ("one", "one target only", "conditions"),
        ("none", "no target", "no"),
        ("unknown", "not known", "unknown"),
    )
    counted = tuple(Tally(guests.get(key, 0), label, kind if guests.get(key, 0) else "") for key, label, kind in wanted)
    return (*counted, Tally(guests.get("total", 0), "running guests in scope", ""))


def _scope(results: Results) -> tuple[tuple[str, str], ...]:
    clusters = [
        f"{_name(cluster)} ({_some([_name(h['name']) for h in hosts], 8)})"
        for cluster, hosts in _by_cluster(results["hosts"])
    ]
    unread = [_name(h["name"]) for h in results["hosts"] if not h["reached"]]
    off = sum(not guest["active"] for guest in results["guests"])
    lines = [("Hosts", f"{len(results['hosts'])} in {_some(clusters, 3, '; ')}")]
    if unread:
        lines.append(("Not read", _some(unread, 8)))
    if results["run"]["drain"]:
        lines.append(("To be drained", _some([_name(host) for host in results["run"]["drain"]], 8)))
    lines.append(("Guests", f"{len(results['guests']) - off} running, {off} shut off (these do not decide)"))
    return tuple(lines)


def _share(blocking: tuple[str, ...], conditions: tuple[str, ...]) -> tuple[Cut[str], Cut[str]]:
    """What of both lists fits the first page; blocking reasons first, but a few lines are the conditions' own."""
    reserved = min(_lines(conditions), 6)
    first = _fit(blocking, FIRST_PAGE_LINES - reserved)
    return first, _fit(conditions, FIRST_PAGE_LINES - _lines(first.shown))


def _fit(sentences: tuple[str, ...], lines: int) -> Cut[str]:
    shown = 0
    while shown < len(sentences) and _lines(sentences[: shown + 1]) <= lines:
        shown += 1
    shown = max(shown, min(1, len(sentences)))
    return Cut(sentences[:shown], sentences[shown:])


def _lines(sentences: Sequence[str]) -> int:
    return sum(1 + len(sentence) // FIRST_PAGE_WIDTH for sentence in sentences)


def _method(results: Results) -> tuple[tuple[str, str], ...]:
    run = results["run"]
    reached = sum(host["reached"] for host in results["hosts"])
    routes = sum(len(guest["targets"]) for guest in results["guests"])
    judged = sum(sum(check["counts"].values()) for check in results["checks"])
    return (
        ("What", f"{reached} of {len(results['hosts'])} hosts read, {len(results['guests'])} guests found on them."),
        ("When", f"{moment(run['started'])} to {moment(run['finished'])}. The state may have changed since."),
        ("How", f"{run['tool']}, read-only, over SSH or on the host itself; nothing was changed on any host."),
        (
            "Judged",
            f"{len(results['checks'])} checks came to {judged:,} judgements on hosts, {len(results['pairs'])} ordered "
            f"pairs, guests, and {routes} routes of a guest to a target.",
        ),
    )


# Hosts side by side


def _hosts(cluster: str, hosts: list[HostResult]) -> HostSection:
    reached = [host for host in hosts if host["reached"]]
    classes: dict[tuple[tuple[str, str, str | None, str], ...], list[HostResult]] = {}
    for host in reached:
        classes.setdefault(
            tuple((r["domain"], r["label"], r["value"], r.get("why", "")) for r in host["rows"]), []
        ).append(host)
    members = list(classes.values())
    rows = _fact_rows([hosts[0]["rows"] for hosts in members], [len(hosts) for hosts in members])
    tables = []
    for start in range(0, len(members), HOST_COLUMNS):
        part = slice(start, start + HOST_COLUMNS)
        kept = [(domain, _columns(row, part)) for domain, row in rows if not start or row.same is None]
        if kept:
            columns = tuple(_some([_name(h["name"]) for h in hosts], 4) for hosts in members[part])
            tables.append(FactTable(columns, len(columns), _domains(kept)))
    return HostSection(
        cluster=_name(cluster),
        hosts=len(reached),
        differing=sum(row.differs for _, row in rows),
        unread=tuple((_name(h["name"]), h["problem"] or "no reason given") for h in hosts if not h["reached"]),
        tables=tuple(tables),
    )


def _fact_rows(columns: list[list[Row]], weights: list[int]) -> list[tuple[str, FactRow]]:
    """One row per domain and label, over columns that stand for `weights` hosts each."""
    keys = dict.fromkeys((row["domain"], row["label"]) for rows in columns for row in rows)
    by_key = [{(row["domain"], row["label"]): row for row in rows} for rows in columns]
    made = []
    for key in keys:
        found = [rows.get(key) for rows in by_key]
        votes: dict[str, int] = {}
        for row, weight in zip(found, weights, strict=True):
            if row is not None and row["value"] is not None:
                votes[row["value"]] = votes.get(row["value"], 0) + weight
        usual = next((value for value, count in votes.items() if 2 * count > sum(votes.values())), None)
        cells = tuple(_fact_cell(row, usual) for row in found)
        same = cells[0] if len(set(cells)) == 1 else None
        made.append((key[0], FactRow(visible(key[1], 60), len(votes) > 1, same, cells)))
    return made


def _fact_cell(row: Row | None, usual: str | None) -> FactCell:
    if row is None:
        return FactCell("unknown: not asked", known=False, odd=False)
    if row["value"] is None:
        return FactCell(visible(f"unknown: {row.get('why') or 'no reason given'}", VALUE_LIMIT), known=False, odd=False)
    return FactCell(visible(row["value"], VALUE_LIMIT) or "none", known=True, odd=usual not in (None, row["value"]))


def _columns(row: FactRow, part: slice) -> FactRow:
    return FactRow(row.label, row.differs, row.same, row.cells[part])


def _domains(rows: list[tuple[str, FactRow]]) -> tuple[tuple[str, tuple[FactRow, ...]], ...]:
    grouped: dict[str, list[FactRow]] = {}
    for domain, row in rows:
        grouped.setdefault(visible(domain, 40), []).append(row)
    return tuple((domain, tuple(rows)) for domain, rows in grouped.items())


# Pairs


def _pairs(cluster: str, pairs: list[Pair], context: _Context) -> PairSection:
    hosts = list(dict.fromkeys(name for pair in pairs for name in (pair["source"], pair["target"])))
    verdicts = {(pair["source"], pair["target"]): pair["verdict"] for pair in pairs}
    names = [context.host(host) for host in hosts]
    numbered = len(hosts) > WORD_COLUMNS or max(map(len, names)) > 9
    heads = [str(number) for number in range(1, len(hosts) + 1)] if numbered else names
    labels = [f"{number}  {name}" for number, name in enumerate(names, start=1)] if numbered else names
    step = WORD_COLUMNS if len(hosts) <= WORD_COLUMNS else SIGN_COLUMNS
    blocks = []
    for start in range(0, len(hosts), step):
        part = hosts[start : start + step]
        rows = tuple(
            (label, tuple("" if s == t else verdicts.get((s, t), "unknown") for t in part))
            for label, s in zip(labels, hosts, strict=True)
        )
        blocks.append(MatrixBlock(tuple(heads[start : start + step]), step == WORD_COLUMNS, rows))
    counts = [(word, sum(pair["verdict"] == word for pair in pairs)) for word in ROUTE_VERDICTS]
    return PairSection(
        cluster=_name(cluster),
        counts=tuple((word, count) for word, count in counts if count),
        numbered=tuple(labels) if numbered else (),
        blocks=tuple(blocks),
        reasons=_pair_reasons(pairs, context),
    )


def _pair_reasons(pairs: list[Pair], context: _Context) -> tuple[Because, ...]:
    """Each reason once, with its pairs; those that decide a "no" come first."""
    reasons: dict[tuple[str, str, str], Reason] = {}
    routes: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    decisive: set[tuple[str, str, str]] = set()
    for pair in pairs:
        for reason in pair["reasons"]:
            reasons.setdefault(_key(reason), reason)
            routes.setdefault(_key(reason), []).append((context.host(pair["source"]), context.host(pair["target"])))
        if pair["verdict"] == "no" and pair["reasons"]:
            decisive.add(_key(pair["reasons"][0]))
    order = sorted(reasons, key=lambda key: (key not in decisive, key[1] != "fail", -len(routes[key]), key))
    return tuple(context.because(reasons[key], _routes(routes[key], context)) for key in order)


def _routes(routes: Iterable[tuple[str, str]], context: _Context, shown: int = 6) -> Cut[tuple[str, str]]:
    """`(from, "to, to, to")`, with sources that share their targets folded; without targets, one list."""
    targets: dict[str, list[str]] = {}
    for source, target in routes:
        targets.setdefault(source, []).append(target)
    sources: dict[tuple[str, ...], list[str]] = {}
    for source, reached in targets.items():
        sources.setdefault(tuple(dict.fromkeys(reached)), []).append(source)
    return _cut([(context.join(names), context.join([t for t in to if t])) for to, names in sources.items()], shown)


# Guests


def _guests(results: Results, context: _Context) -> tuple[GuestGroup, ...]:
    titles = {
        "none": ("No possible target", "no", ""),
        "unknown": ("Not known", "unknown", "No target is proved, and at least one could not be judged."),
        "one": ("One possible target only", "conditions", "If that host fails or fills up, the guest cannot move."),
        "two": ("Two or more possible targets", "yes", ""),
        "outside": ("Outside the scope", "", "On hosts that are not to be drained; listed, they do not decide."),
        "off": ("Shut off", "", "Judged for offline migration, which copies the definition only; they do not decide."),
    }
    drain = results["run"]["drain"]
    grouped: dict[str, list[GuestResult]] = {key: [] for key in titles}
    for guest in results["guests"]:
        grouped[_fate(guest, drain)].append(guest)
    made = []
    for key, (title, kind, note) in titles.items():
        if grouped[key]:
            rows = _guest_rows(grouped[key], context)
            made.append(GuestGroup(f"{title} ({len(grouped[key])})", kind, note, rows))
    return tuple(made)


def _fate(guest: GuestResult, drain: list[str]) -> str:
    if not guest["active"]:
        return "off"
    if drain and guest["host"] not in drain:
        return "outside"
    verdicts = [target["verdict"] for target in guest["targets"]]
    proved = sum(verdict in ("yes", "conditions") for verdict in verdicts)
    if proved:
        return "one" if proved == 1 else "two"
    return "unknown" if "unknown" in verdicts else "none"


def _guest_rows(guests: list[GuestResult], context: _Context) -> tuple[GuestRow, ...]:
    """By host, since that is what gets drained; within it, those with the fewest ways out first."""
    folded: dict[tuple[str, str, tuple[Route, ...]], list[tuple[str, str]]] = {}
    for guest in sorted(guests, key=lambda guest: (guest["name"], guest["uuid"])):
        routes = tuple(_guest_routes(guest["targets"], context))
        folded.setdefault((guest["cluster"], guest["host"], routes), []).append((_name(guest["name"]), _about(guest)))
    return tuple(
        GuestRow(_cut(folded[key], context.names), context.host(key[1]), key[2])
        for key in sorted(folded, key=lambda key: (key[:2], len(folded[key])))
    )


def _about(guest: GuestResult) -> str:
    parts = [] if guest["state"] == "running" else [visible(guest["state"], 20)]
    if guest["vcpus"] is not None:
        parts.append(f"{guest['vcpus']} vCPU")
    if guest["memory_kib"] is not None:
        parts.append(size(guest["memory_kib"]))
    return ", ".join(parts)


def _guest_routes(targets: list[TargetResult], context: _Context) -> Iterator[Route]:
    """The targets by verdict and reasons. What holds for every target is said once, at the top."""
    keyed = [{_key(reason): reason for reason in target["reasons"]} for target in targets]
    grouped: dict[tuple[RouteVerdict, tuple[tuple[str, str, str], ...]], list[int]] = {}
    for number, target in enumerate(targets):
        grouped.setdefault((target["verdict"], tuple(keyed[number])), []).append(number)
    common = set.intersection(*(set(reasons) for reasons in keyed)) if len(grouped) > 1 else set()
    verdicts = {verdict for verdict, _ in grouped}
    if common:
        shared = [reason for key, reason in keyed[0].items() if key in common]
        yield Route(min(verdicts) if len(verdicts) == 1 else "", "every target", _because(shared, context))
    for verdict, keys in sorted(grouped, key=lambda key: ROUTE_VERDICTS.index(key[0])):
        numbers = grouped[verdict, keys]
        own = [keyed[numbers[0]][key] for key in keys if key not in common]
        if own or not common or len(verdicts) > 1:
            yield Route(verdict, context.some(targets[n]["host"] for n in numbers), _because(own, context))


def _key(reason: Reason) -> tuple[str, str, str]:
    return reason["check"], reason["status"], reason["message"]


def _because(reasons: Sequence[Reason], context: _Context) -> Cut[Because]:
    return _cut([context.because(reason) for reason in reasons], 3)


# Baseline


def _baseline(baseline: Baseline, files: tuple[str, str]) -> BaselineSection:
    plain, migratable = baseline["cpu_xml"] or "", baseline["migratable_cpu_xml"]
    kept = set((migratable or plain).splitlines())
    lacking: dict[tuple[str, ...], list[str]] = {}
    for feature, hosts in sorted(baseline["removed_by"].items()):
        lacking.setdefault(tuple(hosts), []).append(visible(feature, 40))
    return BaselineSection(
        cluster=_name(baseline["cluster"]),
        hosts=_some([_name(host) for host in baseline["hosts"]], 24),
        missing=tuple((_name(host), why) for host, why in baseline["missing"].items()),
        model=" ".join(filter(None, (baseline["vendor"], baseline["model"]))) or "none",
        virttype=baseline["virttype"],
        engine=baseline["engine"],
        cross_check=baseline["cross_check"],
        problem=baseline["problem"],
        xml=migratable or plain,
        file=files[1] if migratable else files[0],
        plain_file=files[0] if migratable else "",
        not_migratable=tuple(line.strip() for line in plain.splitlines() if line not in kept),
        removed=tuple(
            (_some([_name(host) for host in hosts], 8), ", ".join(features), len(features))
            for hosts, features in sorted(lacking.items(), key=lambda item: -len(item[1]))
        ),
    )


# Findings, unknowns, errors


@dataclass(frozen=True, slots=True)
class _Groups:
    checks: dict[str, CheckResult]
    context: _Context

    def of(self, outcomes: list[Outcome]) -> tuple[CheckGroup, ...]:
        """By check; those that block come first, then by severity."""
        by_check: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            by_check.setdefault(outcome["check"], []).append(outcome)
        made = [self._group(check, found) for check, found in by_check.items()]
        return tuple(sorted(made, key=lambda g: (g.blocks == "nothing", _rank(g.severity), g.id)))

    def _group(self, check: str, outcomes: list[Outcome]) -> CheckGroup:
        known = self.checks.get(check)
        worst = min(outcomes, key=lambda o: (o["blocks"] == "nothing", _rank(o["severity"])))
        remedy = command(known["remedy"]) if known else None
        statements = tuple(self._statements(outcomes))
        if remedy and any(s.remedy == remedy for s in statements):
            remedy = None
        return CheckGroup(
            anchor=self.context.anchors.get(check, ""),
            id=visible(check, 80),
            title=visible(known["title"] if known else check, VALUE_LIMIT),
            why=visible(known["why"], 1200) if known else "",
            severity=worst["severity"].lower(),
            blocks=worst["blocks"].lower(),
            reference=visible(known["reference"], 160) if known else "",
            remedy=remedy,
            statements=statements,
            count=len(outcomes),
        )

    def _statements(self, outcomes: list[Outcome]) -> Iterator[Statement]:
        grouped: dict[tuple[str, str, str, str], list[Outcome]] = {}
        for outcome in outcomes:
            key = (outcome["message"], outcome["expected"], outcome["actual"], outcome["remedy"])
            grouped.setdefault(key, []).append(outcome)
        for (message, expected, actual, remedy), same in grouped.items():
            yield Statement(
                message=visible(message, SENTENCE_LIMIT),
                expected=visible(expected, SENTENCE_LIMIT),
                actual=visible(actual, SENTENCE_LIMIT),
                remedy=command(remedy),
                subjects=_routes((_subject(o["subject"], self.context) for o in same), self.context),
                count=len(same),
                evidence=_cut(list(dict.fromkeys(evidence(ref) for o in same for ref in o["evidence"])), 3),
            )


def _subject(subject: Subject, context: _Context) -> tuple[str, str]:
    """Whom it concerns, and towards whom ("" where there is no direction)."""
    host = context.host(subject.get("host", ""))
    source, target = context.host(subject.get("source", "")), context.host(subject.get("target", ""))
    if "guest" in subject:
        on = host or source
        return f"{_name(subject['guest'])} ({on})" if on else _name(subject["guest"]), target
    if "cluster" in subject and not host and not source:
        return f"cluster {_name(subject['cluster'])}", ""
    return source or host, target


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity.lower()) if severity.lower() in SEVERITIES else len(SEVERITIES)


def _check_line(check: CheckResult) -> CheckLine:
    skipped = sorted(check["skipped"].items(), key=lambda item: (-item[1], item[0]))
    return CheckLine(
        id=visible(check["id"], 80),
        title=visible(check["title"], VALUE_LIMIT),
        scope=check["scope"],
        severity=check["severity"].lower(),
        blocks=check["blocks"].lower(),
        reference=visible(check["reference"], 160),
        counts=tuple(check["counts"].get(key, 0) for key in ("pass", "fail", "unknown", "error", "skip")),
        skipped=_some([visible(reason, 160) for reason, _ in skipped], 3, "; "),
    )


def _logins(hosts: list[HostResult], context: _Context) -> tuple[tuple[str, str, str, str], ...]:
    folded: dict[tuple[str, str, str], list[str]] = {}
    for host in hosts:
        key = ("read" if host["reached"] else "not read", host["privilege"], host["problem"])
        folded.setdefault(key, []).append(host["name"])
    return tuple((context.some(names), *key) for key, names in folded.items())


# Words


def moment(time: str) -> str:
    """A UTC time of the results as people write it; what is no time is shown as it is."""
    try:
        return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return visible(time, 40) or "not stated"


def size(kib: int) -> str:
    """Memory in the largest binary unit that needs at most one decimal place."""
    for unit, factor in (("TiB", 1024**3), ("GiB", 1024**2), ("MiB", 1024)):
        if kib >= factor:
            return f"{kib / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{kib} KiB"


def command(remedy: str) -> Command | None:
    """The remedy, told apart: a command begins with a small letter or a path, a sentence with a capital.

    A command that cannot be shown whole and exact must not be pasted, so it is not shown.
    """
    if not remedy.strip():
        return None
    text = remedy.strip("\n")
    if not re.match(r"\s*[a-z/$#.]", text):
        return Command(visible(text, SENTENCE_LIMIT * 2), pasteable=False)
    if len(text) > COMMAND_LIMIT or any(visible(line, COMMAND_LIMIT) != line for line in text.split("\n")):
        return Command("The command holds characters that cannot be shown safely: see results.json.", pasteable=False)
    return Command(text, pasteable=True)


def evidence(ref: EvidenceRef) -> str:
    """`kvm01 cpu.capabilities 9f86d081884c`, enough of the digest to find it in the bundle's index."""
    digest = ref["sha256"][:12] if ref["sha256"] else "no output"
    return f"{_name(ref['host'])} {visible(ref['probe'], 100)} {visible(digest, 12)}"


def _name(name: str) -> str:
    return visible(name, NAME_LIMIT)


def _sentences(sentences: list[str]) -> tuple[str, ...]:
    return tuple(visible(sentence, SENTENCE_LIMIT) for sentence in sentences)


def _some(names: Sequence[str], limit: int, joint: str = ", ") -> str:
    """The first `limit` names, and how many more there are."""
    if len(names) <= limit + 1:  # "and 1 more" is no shorter than the name
        return joint.join(names)
    return f"{joint.join(names[:limit])} and {len(names) - limit} more"


def _cut(items: Sequence[T], shown: int) -> Cut[T]:
    return Cut(tuple(items)) if len(items) <= shown + 1 else Cut(tuple(items[:shown]), tuple(items[shown:]))


def _short_names(hosts: list[str]) -> dict[str, str]:
    """Host names without their domain, where that is unambiguous among all of them; addresses stay whole."""
    short = {host: host if re.fullmatch(r"[0-9.]+|.*:.*", host) else host.split(".")[0] for host in hosts}
    unique = len(set(short.values())) == len(short)
    return {host: _name(short[host] if unique else host) for host in hosts}


Placed = TypeVar("Placed", HostResult, Pair)


def _by_cluster(items: list[Placed]) -> list[tuple[str, list[Placed]]]:
    grouped: dict[str, list[Placed]] = {}
    for item in items:
        grouped.setdefault(item["cluster"], []).append(item)
    return list(grouped.items())
