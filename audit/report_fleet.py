"""The report's sections on the fleet: hosts side by side, host pairs, guests and their targets.

Equal statements are made once: equal hosts share a column, pairs a reason, guests a line.
"""

from collections.abc import Iterable, Iterator, Sequence

from audit.migration_types import other_way
from audit.report_model import (
    Because,
    Cut,
    FactCell,
    FactRow,
    FactTable,
    GuestGroup,
    GuestRow,
    HostSection,
    MatrixBlock,
    PairSection,
    Route,
)
from audit.report_words import SENTENCE_LIMIT, VALUE_LIMIT, Context, counted, cut, shown_name, size, some
from audit.results import GuestResult, HostResult, Pair, Reason, Results, RouteVerdict, Row, TargetResult
from audit.text import visible

HOST_COLUMNS = 6  # as many hosts stand side by side on an A4 page
WORD_COLUMNS = 12  # up to so many targets the matrix has words in its cells, beyond it only their signs
SIGN_COLUMNS = 26
ROUTE_VERDICTS: tuple[RouteVerdict, ...] = ("yes", "conditions", "no", "unknown")

# Hosts side by side


def host_section(cluster: str, hosts: list[HostResult]) -> HostSection:
    """The hosts of a cluster side by side; those with the same values in all lines share a column."""
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
            columns = tuple(some([shown_name(h["name"]) for h in hosts], 4) for hosts in members[part])
            tables.append(FactTable(columns, len(columns), _domains(kept)))
    return HostSection(
        cluster=shown_name(cluster),
        summary=f"{counted(len(reached), 'host')} read, {counted(sum(row.differs for _, row in rows), 'line')} "
        f"{'differs' if sum(row.differs for _, row in rows) == 1 else 'differ'}.",
        unread=tuple(
            (shown_name(h["name"]), visible(h["problem"], SENTENCE_LIMIT) or "no reason given")
            for h in hosts
            if not h["reached"]
        ),
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
        title = domain.upper() if len(domain) <= 3 else domain[:1].upper() + domain[1:]  # cpu, kvm, nfs; memory
        grouped.setdefault(visible(title, 40), []).append(row)
    return tuple((domain, tuple(rows)) for domain, rows in grouped.items())


# Pairs


def pair_section(cluster: str, pairs: list[Pair], context: Context) -> PairSection:
    """A cluster's matrix and the reasons why a pair is not a plain yes."""
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
        cluster=shown_name(cluster),
        counts=tuple((word, count) for word, count in counts if count),
        numbered=tuple(labels) if numbered else (),
        blocks=tuple(blocks),
        reasons=_pair_reasons(pairs, context),
    )


def _pair_reasons(pairs: list[Pair], context: Context) -> tuple[Because, ...]:
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
    return tuple(context.because(reasons[key], folded_routes(routes[key], context)) for key in order)


def folded_routes(routes: Iterable[tuple[str, str]], context: Context, shown: int = 6) -> Cut[tuple[str, str]]:
    """`(from, "to, to, to")`, with sources that share their targets folded; without targets, one list."""
    targets: dict[str, list[str]] = {}
    for source, target in routes:
        targets.setdefault(source, []).append(target)
    sources: dict[tuple[str, ...], list[str]] = {}
    for source, reached in targets.items():
        sources.setdefault(tuple(dict.fromkeys(reached)), []).append(source)
    return cut([(context.join(names), context.join([t for t in to if t])) for to, names in sources.items()], shown)


# Guests


def guest_groups(results: Results, context: Context) -> tuple[GuestGroup, ...]:
    """All guests, those without a way out first."""
    titles = {
        "none": ("No possible target", "no", ""),
        "unknown": ("Not known", "unknown", "No target is proved, and at least one could not be judged."),
        "alone": ("No other host audited", "unknown", "Where they could go cannot be said from one host."),
        "one": ("One possible target only", "conditions", "If that host fails or fills up, the guest cannot move."),
        "two": ("Two or more possible targets", "yes", ""),
        "outside": ("Outside the scope", "", "On hosts that are not to be drained; listed, they do not decide."),
        "off": ("Shut off", "", "Judged for offline migration, which copies the definition only; they do not decide."),
    }
    drain = set(results["run"]["drain"])
    grouped: dict[str, list[GuestResult]] = {key: [] for key in titles}
    for guest in results["guests"]:
        grouped[_fate(guest, drain)].append(guest)
    made = []
    for key, (title, kind, note) in titles.items():
        if grouped[key]:
            rows = _guest_rows(grouped[key], drain, context)
            made.append(GuestGroup(f"{title} ({len(grouped[key])})", kind, note, rows))
    return tuple(made)


def _fate(guest: GuestResult, drain: set[str]) -> str:
    if not guest["active"]:
        return "off"
    if drain and guest["host"] not in drain:
        return "outside"
    verdicts = [target["verdict"] for target in guest["targets"] if target["host"] not in drain]
    proved = sum(verdict in ("yes", "conditions") for verdict in verdicts)
    if proved:
        return "one" if proved == 1 else "two"
    if not verdicts:
        return "alone"
    return "unknown" if "unknown" in verdicts else "none"


def _guest_rows(guests: list[GuestResult], drain: set[str], context: Context) -> tuple[GuestRow, ...]:
    """By host, since that is what gets drained; within it, those with the fewest ways out first."""
    folded: dict[tuple[str, str, tuple[Route, ...]], list[tuple[str, str]]] = {}
    for guest in sorted(guests, key=lambda guest: (guest["name"], guest["uuid"])):
        leaves = guest["host"] in drain  # then hosts that are to be emptied too are no targets
        targets = [target for target in guest["targets"] if not (leaves and target["host"] in drain)]
        routes = tuple(_guest_routes(targets, context))
        folded.setdefault((guest["cluster"], guest["host"], routes), []).append(
            (shown_name(guest["name"]), _about(guest))
        )
    return tuple(
        GuestRow(cut(folded[key], context.names), context.host(key[1]), key[2])
        for key in sorted(folded, key=lambda key: (key[:2], len(folded[key])))
    )


def _about(guest: GuestResult) -> str:
    parts = [] if guest["state"] == "running" else [visible(guest["state"], 20)]
    if guest["vcpus"] is not None:
        parts.append(f"{guest['vcpus']} vCPU")
    if guest["memory_kib"] is not None:
        parts.append(size(guest["memory_kib"]))
    return "; ".join(filter(None, [", ".join(parts), *_storage(guest)]))


_KEPT = {
    "shared": "on {}",
    "block": "block device {}",
    "network": "on {}",
    "local": "local file ({})",
    "host": "host's {}",
}


def _storage(guest: GuestResult) -> Iterator[str]:
    """What of its disks lies where, the same places taken together: `vda, vdb on nfs4 nas01:/images`."""
    places: dict[str, list[str]] = {}
    for disk in guest.get("disks", []):
        words = _KEPT[disk["kind"]].format(visible(disk["where"], 80)) if disk["kind"] in _KEPT else "not known where"
        places.setdefault(words, []).append(visible(disk["target"], 20))
    yield from (f"{', '.join(targets)} {words}" for words, targets in places.items())


def _guest_routes(targets: list[TargetResult], context: Context) -> Iterator[Route]:
    """The targets by verdict and reasons. What holds for every target is said once, at the top."""
    keyed = [{_key(reason): reason for reason in target["reasons"]} for target in targets]
    ways = [tuple(filter(None, map(other_way, target.get("ways", ())))) for target in targets]
    grouped: dict[tuple[RouteVerdict, tuple[tuple[str, str, str], ...], tuple[str, ...]], list[int]] = {}
    for number, target in enumerate(targets):
        grouped.setdefault((target["verdict"], tuple(keyed[number]), ways[number]), []).append(number)
    common = set.intersection(*(set(reasons) for reasons in keyed)) if len(grouped) > 1 else set()
    verdicts = {verdict for verdict, *_ in grouped}
    all_ways = set(ways)
    if common:
        shared = [reason for key, reason in keyed[0].items() if key in common]
        yield Route(
            min(verdicts) if len(verdicts) == 1 else "",
            "every target",
            _because(shared, context),
            ways[0] if len(all_ways) == 1 else (),
        )
    for key in sorted(grouped, key=lambda key: ROUTE_VERDICTS.index(key[0])):
        verdict, reasons, others = key
        numbers = grouped[key]
        own = [keyed[numbers[0]][reason] for reason in reasons if reason not in common]
        said = common and len(all_ways) == 1
        if own or not common or len(verdicts) > 1 or (others and not said):
            hosts = context.some(targets[n]["host"] for n in numbers)
            yield Route(verdict, hosts, _because(own, context), () if said else others)


def _key(reason: Reason) -> tuple[str, str, str]:
    return reason["check"], reason["status"], reason["message"]


def _because(reasons: Sequence[Reason], context: Context) -> Cut[Because]:
    return cut([context.because(reason) for reason in reasons], 3)
