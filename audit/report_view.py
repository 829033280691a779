"""Results → view model: the whole of it, the first page, baselines and findings (the fleet: `report_fleet`).

Board members read the first page and engineers the rest. All names and messages are other people's text; they pass
`visible` here or at the templates' door.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.migration_types import AFTERWARDS, migration_types
from audit.report_cpu import CHANGES, advice_section, notes_section
from audit.report_fleet import folded_routes, guest_groups, host_section, pair_section
from audit.report_model import (
    BaselineSection,
    CheckGroup,
    CheckLine,
    CpuAdvice,
    Cut,
    FirstPage,
    Gap,
    Missed,
    Statement,
    Tally,
    View,
)
from audit.report_words import (
    NAME_LIMIT,
    PAPER_NAMES,
    SCREEN_NAMES,
    SENTENCE_LIMIT,
    VALUE_LIMIT,
    Context,
    by_cluster,
    command,
    counted,
    cut,
    evidence,
    lines,
    moment,
    short_names,
    shown_name,
    shown_sentences,
    some,
)
from audit.results import Baseline, CheckResult, HostResult, Outcome, Results, Subject
from audit.text import visible

SEVERITIES = ("critical", "high", "medium", "low", "info")
KINDS = {"GO": "yes", "GO WITH CONDITIONS": "conditions", "NO-GO": "no", "CANNOT SAY": "unknown"}
FIRST_PAGE_LINES = 33  # for the verdict's sentence, blocking reasons, conditions, change and scope together
FIRST_PAGE_WIDTH = 80  # characters a line there, in the widest font we expect; the verdict and the table have fewer


@dataclass(frozen=True, slots=True)
class Files:
    """Names of the files beside the report, per baseline."""

    baselines: list[tuple[str, str]]
    """Plain and migratable."""
    differences: list[list[str]]
    """Per guest, "" for none."""


def build(results: Results, *, rendered: str, digest: str, files: Files, paper: bool) -> View:
    """The view model of `results`; for `paper`, long lists of names are cut."""
    run = results["run"]
    fails = [o for o in results["outcomes"] if o["status"] == "fail"]
    context = Context(
        short=short_names([h["name"] for h in results["hosts"]]),
        anchors={check: f"finding-{n}" for n, check in enumerate(sorted({o["check"] for o in fails}), start=1)},
        names=PAPER_NAMES if paper else SCREEN_NAMES,
        paper=paper,
    )
    groups = _Groups({c["id"]: c for c in results["checks"]}, context)
    first = _first_page(results)
    return View(
        run_id=visible(run["id"], NAME_LIMIT),
        first=first,
        all_blocking=shown_sentences(results["verdict"]["blocking"]) if first.blocking.rest else (),
        all_conditions=shown_sentences(results["verdict"]["conditions"]) if first.conditions.rest else (),
        method=_method(results),
        hosts=tuple(host_section(cluster, hosts) for cluster, hosts in by_cluster(results["hosts"])),
        pairs=tuple(pair_section(cluster, pairs, context) for cluster, pairs in by_cluster(results["pairs"])),
        guests=guest_groups(results, context),
        ways=tuple(
            (way.name, way.what, way.storage, way.command)
            for way in migration_types(str(results["run"]["policy"].get("transport", "ssh")))
        ),
        afterwards=AFTERWARDS,
        baselines=_baselines(results["baselines"], files, context),
        findings=groups.of(fails),
        gaps=tuple(_gaps([o for o in results["outcomes"] if o["status"] == "unknown"], groups.checks, context)),
        errors=groups.of([o for o in results["outcomes"] if o["status"] == "error"]),
        checks=tuple(_check_line(c) for c in sorted(results["checks"], key=lambda c: c["id"]) if not _idle(c)),
        idle=_idle_checks([c for c in results["checks"] if _idle(c)]),
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
    sentence = visible(verdict["sentence"], SENTENCE_LIMIT)
    change = {"ticket": "", "window": "", "requester": "", **run["change"]}
    rows = [(visible(key, 20).capitalize(), visible(value, 120)) for key, value in list(change.items())[:6]]
    scope = _scope(results)
    taken = 1.3 * lines(sentence, 60) + sum(0.35 + lines(text, 62) for _, text in (*rows, *scope))
    blocking, conditions = _share(
        shown_sentences(verdict["blocking"]), shown_sentences(verdict["conditions"]), FIRST_PAGE_LINES - int(taken)
    )
    return FirstPage(
        word=verdict["word"],
        kind=KINDS[verdict["word"]],
        sentence=sentence,
        tallies=_tallies(verdict["guests"]),
        blocking=blocking,
        conditions=conditions,
        change=tuple(rows),
        scope=scope,
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
        f"{shown_name(cluster)} ({some([shown_name(h['name']) for h in hosts], 8)})"
        for cluster, hosts in by_cluster(results["hosts"])
    ]
    unread = [shown_name(h["name"]) for h in results["hosts"] if not h["reached"]]
    off = sum(not guest["active"] for guest in results["guests"])
    lines = [("Hosts", f"{len(results['hosts'])} in {some(clusters, 3, '; ')}")]
    if unread:
        lines.append(("Not read", some(unread, 8)))
    if results["run"]["drain"]:
        lines.append(("To be drained", some([shown_name(host) for host in results["run"]["drain"]], 8)))
    if results["run"]["active"]:
        lines.append(("Active probes", some([visible(option, 60) for option in results["run"]["active"]], 8)))
    lines.append(("Guests", f"{len(results['guests']) - off} running, {off} shut off (these do not decide)"))
    return tuple(lines)


def _share(blocking: tuple[str, ...], conditions: tuple[str, ...], space: int) -> tuple[Cut[str], Cut[str]]:
    """What of both lists fits into `space` lines; blocking reasons first, but a third is the conditions' own."""
    reserved = min(_height(conditions), space // 3)
    first = _fit(blocking, space - reserved)
    return first, _fit(conditions, space - _height(first.shown))


def _fit(sentences: tuple[str, ...], space: int) -> Cut[str]:
    shown = min(1, len(sentences))
    while shown < len(sentences) and _height(sentences[: shown + 1]) <= space:
        shown += 1
    return Cut(sentences[:shown], sentences[shown:])


def _height(sentences: Sequence[str]) -> int:
    return sum(lines(sentence, FIRST_PAGE_WIDTH) for sentence in sentences)


def _method(results: Results) -> tuple[tuple[str, str], ...]:
    run = results["run"]
    reached = sum(host["reached"] for host in results["hosts"])
    routes = sum(len(guest["targets"]) for guest in results["guests"])
    judged = sum(sum(check["counts"].values()) for check in results["checks"])
    return (
        (
            "What",
            f"{reached} of {counted(len(results['hosts']), 'host')} read, "
            f"{counted(len(results['guests']), 'guest')} found there.",
        ),
        ("When", f"{moment(run['started'])} to {moment(run['finished'])}. The state may have changed since."),
        ("How", f"{run['tool']}, read-only, over SSH or on the host itself; nothing was changed on any host."),
        (
            "Judged",
            f"{counted(judged, 'judgement')} by {counted(len(results['checks']), 'check')}, on hosts, guests, "
            f"{counted(len(results['pairs']), 'ordered pair')} and {counted(routes, 'route')} of a guest to a target.",
        ),
    )


# Baseline


def _baselines(baselines: list[Baseline], files: Files, context: Context) -> tuple[BaselineSection, ...]:
    changes = CHANGES // max(1, len(baselines))
    advice = [
        advice_section(baseline, names, changes, context)
        for baseline, names in zip(baselines, files.differences, strict=True)
    ]
    return tuple(map(_baseline, baselines, files.baselines, advice))


def _baseline(baseline: Baseline, files: tuple[str, str], advice: CpuAdvice | None) -> BaselineSection:
    plain, migratable = baseline["cpu_xml"] or "", baseline["migratable_cpu_xml"]
    kept = set((migratable or plain).splitlines())
    lacking: dict[tuple[str, ...], list[str]] = {}
    for feature, hosts in sorted(baseline["removed_by"].items()):
        lacking.setdefault(tuple(hosts), []).append(visible(feature, 40))
    return BaselineSection(
        cluster=shown_name(baseline["cluster"]),
        hosts=some([shown_name(host) for host in baseline["hosts"]], 24),
        missing=tuple((shown_name(host), visible(why, SENTENCE_LIMIT)) for host, why in baseline["missing"].items()),
        model=" ".join(filter(None, (baseline["vendor"], baseline["model"]))) or "none",
        virttype=baseline["virttype"],
        engine=baseline["engine"],
        cross_check=baseline["cross_check"],
        problem=visible(baseline["problem"], SENTENCE_LIMIT),
        xml=migratable or plain,
        file=files[1] if migratable else files[0],
        plain_file=files[0] if migratable else "",
        not_migratable=tuple(line.strip() for line in plain.splitlines() if line not in kept),
        removed=tuple(
            (some([shown_name(host) for host in hosts], 8), ", ".join(features), len(features))
            for hosts, features in sorted(lacking.items(), key=lambda item: -len(item[1]))
        ),
        notes=notes_section(baseline),
        advice=advice,
    )


# Findings, unknowns, errors


@dataclass(frozen=True, slots=True)
class _Groups:
    checks: dict[str, CheckResult]
    context: Context

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
            said = expected in message and actual in message  # once is enough
            yield Statement(
                message=visible(message, SENTENCE_LIMIT),
                expected="" if said else visible(expected, SENTENCE_LIMIT),
                actual="" if said else visible(actual, SENTENCE_LIMIT),
                remedy=command(remedy),
                subjects=folded_routes((_subject(o["subject"], self.context) for o in same), self.context),
                count=len(same),
                evidence=cut(list(dict.fromkeys(evidence(ref) for o in same for ref in o["evidence"])), 3),
            )


def _gaps(outcomes: list[Outcome], checks: dict[str, CheckResult], context: Context) -> Iterator[Gap]:
    """By what is missing, since one unreadable output keeps many checks from judging."""
    gaps: dict[tuple[str, str], dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        by_check = gaps.setdefault((outcome["message"], outcome["remedy"]), {})
        by_check.setdefault(outcome["check"], []).append(outcome)

    def weight(item: tuple[tuple[str, str], dict[str, list[Outcome]]]) -> tuple[bool, int, tuple[str, str]]:
        return not _any_blocks(item[1]), -sum(map(len, item[1].values())), item[0]

    for (message, remedy), by_check in sorted(gaps.items(), key=weight):
        missed = [
            Missed(
                title=visible(
                    checks[check]["title"] if check in checks else "Every check that concerns it", VALUE_LIMIT
                ),
                id=visible(check, 80),
                blocks=same[0]["blocks"].lower(),
                subjects=folded_routes((_subject(o["subject"], context) for o in same), context),
            )
            for check, same in sorted(by_check.items(), key=lambda item: (item[1][0]["blocks"] == "nothing", item[0]))
        ]
        supply = command(remedy.removeprefix("as root on the host: "))
        yield Gap(visible(message, SENTENCE_LIMIT), supply, cut(missed, 12), _any_blocks(by_check))


def _any_blocks(by_check: dict[str, list[Outcome]]) -> bool:
    return any(outcome["blocks"] != "nothing" for same in by_check.values() for outcome in same)


def _subject(subject: Subject, context: Context) -> tuple[str, str]:
    """Whom it concerns, and towards whom ("" where there is no direction)."""
    host = context.host(subject.get("host", ""))
    source, target = context.host(subject.get("source", "")), context.host(subject.get("target", ""))
    if "guest" in subject:
        on = host or source
        return f"{shown_name(subject['guest'])} ({on})" if on else shown_name(subject["guest"]), target
    if "cluster" in subject and not host and not source:
        return f"cluster {shown_name(subject['cluster'])}", ""
    return source or host, target


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity.lower()) if severity.lower() in SEVERITIES else len(SEVERITIES)


def _check_line(check: CheckResult) -> CheckLine:
    return CheckLine(
        id=visible(check["id"], 80),
        title=visible(check["title"], VALUE_LIMIT),
        scope=check["scope"],
        severity=check["severity"].lower(),
        blocks=check["blocks"].lower(),
        reference=visible(check["reference"], 160),
        counts=tuple(check["counts"].get(key, 0) for key in ("pass", "fail", "unknown", "error", "skip")),
    )


def _idle(check: CheckResult) -> bool:
    return not any(check["counts"].get(key, 0) for key in ("pass", "fail", "unknown", "error"))


def _idle_checks(checks: list[CheckResult]) -> tuple[tuple[str, str], ...]:
    """By the reasons why they did not apply; those that met no subject at all come last."""
    grouped: dict[tuple[bool, str], list[str]] = {}
    for check in checks:
        reasons = "; ".join(sorted(check["skipped"]))
        key = (not reasons, visible(reasons, VALUE_LIMIT) or "there is nothing of the kind they judge")
        grouped.setdefault(key, []).append(visible(check["id"], 80))
    return tuple((reason, ", ".join(sorted(grouped[last, reason]))) for last, reason in sorted(grouped))


def _logins(hosts: list[HostResult], context: Context) -> tuple[tuple[str, ...], ...]:
    folded: dict[tuple[str, ...], list[str]] = {}
    for host in hosts:
        texts = [visible(text, VALUE_LIMIT) for text in (host["privilege"], host["problem"])]
        key = ("read" if host["reached"] else "not read", *texts)
        folded.setdefault(key, []).append(host["name"])
    return tuple((context.some(names), *key) for key, names in folded.items())
