"""The report's advice on a CPU baseline: who gives what, what it costs, how to group the hosts, what guests must do.

All of it is bounded: a cluster may have a thousand hosts that differ, and a guest's features may be two hundred.
"""

from collections.abc import Sequence

from audit.explain import level_name, split_sentence
from audit.report_model import (
    BarBlock,
    Command,
    Cost,
    CpuAdvice,
    Cut,
    Few,
    Gain,
    Grouping,
    GuestChange,
    GuestCpu,
    GuestCpus,
    HeatHead,
    HeatMap,
    HeatRow,
)
from audit.report_words import (
    COMMAND_LIMIT,
    NAME_LIMIT,
    SENTENCE_LIMIT,
    VALUE_LIMIT,
    Context,
    counted,
    cut,
    few,
    shown_name,
    some,
)
from audit.results import (
    Advice,
    Baseline,
    FeatureRow,
    GroupResult,
    GuestCpuAdvice,
    HostKindResult,
    LostFeatures,
    SplitResult,
)
from audit.text import visible

FEATURES = 6  # feature names said at once
HOSTS = 8  # host names in a cell; of more than that
SOME_HOSTS = 3  # only the first of them, behind their number
HEAT_COLUMNS = 7  # kinds of hosts side by side on A4, the baseline beside them
HEAT_BLOCKS = 3  # more than 21 kinds nobody compares
HEAT_ROWS = (12, 40)  # on paper, on screen; so are the others
COSTS = (10, 40)
GUEST_LINES = (24, 80)
LACKING = (80, 120)  # characters of what a host lacks for a guest
GAINS = 6
NOTES = 5
CHANGES = 40  # differences on the whole page; the files have them all
DIFF_LIMIT = 20_000  # characters

# Results → section


def notes_section(baseline: Baseline) -> Few[str]:
    """Where virsh on one of the hosts would say otherwise."""
    return few([visible(note, SENTENCE_LIMIT) for note in baseline.get("notes", [])], NOTES)


def advice_section(baseline: Baseline, files: Sequence[str], changes: int, context: Context) -> CpuAdvice | None:
    """The advice on a baseline; None for results without.

    `files`: per guest the name of its difference's file, "" for none. `changes`: so many of them are shown.
    """
    advice = baseline.get("advice")
    if not advice:
        return None
    splits = advice["splits"]
    return CpuAdvice(
        level=level_name(advice["level"]),
        warning=visible(advice["warning"], SENTENCE_LIMIT),
        alike=_alike(advice["kinds"], context) if len(advice["kinds"]) == 1 else "",
        heat=_heat_map(advice, baseline, context) if len(advice["kinds"]) > 1 and advice["matrix"] else None,
        costs=few([_cost(lost, context) for lost in advice["lost"]], COSTS[not context.paper]),
        gains=few(
            [
                Gain(
                    hosts=_hosts(out["hosts"], context),
                    rest=_gives(out["model"], None, out["level"]),
                    features=_features(out["gained"]),
                    count=len(out["gained"]),
                )
                for out in advice["left_out"]
            ],
            GAINS,
        ),
        groupings=_groupings(splits, context) if len(splits) > 1 else (),
        counts_guests=any(split["movable"] is not None for split in splits),
        guests=_guests(advice["guests"], files, changes, context),
        unread=few(
            [(context.host(host), visible(why, SENTENCE_LIMIT)) for host, why in advice["unread"].items()], HOSTS
        ),
        files=_files(files),
    )


def _features(names: Sequence[str], shown: int = FEATURES) -> Cut[str]:
    return cut([visible(name, 40) for name in names], shown)


def _hosts(names: Sequence[str], context: Context, most: int = HOSTS, first: int = SOME_HOSTS) -> str:
    """Their short names; when more than `most`, their number and the `first`."""
    if len(names) <= most:
        return ", ".join(map(context.host, names))
    return f"{len(names):,} hosts: {', '.join(map(context.host, names[:first]))} …"


def _gives(model: str | None, features: int | None, level: float) -> str:
    if model is None:
        return "nothing in common"
    number = [] if features is None else [counted(features, "feature")]
    return ", ".join([shown_name(model) or "no named model", *number, level_name(level)])


def _alike(kinds: Sequence[HostKindResult], context: Context) -> str:
    [kind] = kinds
    gives = _gives(kind["model"], kind["features"], kind["level"])
    if len(kind["hosts"]) == 1:
        return f"{_hosts(kind['hosts'], context)} gives guests {gives}."
    return f"All {len(kind['hosts'])} hosts give guests the same: {gives}."


def _files(files: Sequence[str]) -> str:
    number = sum(map(bool, files))
    return f"the difference that gives it to {counted(number, 'guest')}, one a file" if number else ""


# Who gives what


def _heat_map(advice: Advice, baseline: Baseline, context: Context) -> HeatMap:
    """The kinds with the most hosts, and the features that most of the hosts give."""
    kinds = advice["kinds"]
    order = sorted(range(len(kinds)), key=lambda number: -len(kinds[number]["hosts"]))
    shown = order[: HEAT_COLUMNS * HEAT_BLOCKS]
    rows = advice["matrix"][: HEAT_ROWS[not context.paper]]
    blocks = []
    for start in range(0, len(shown), HEAT_COLUMNS):
        part = shown[start : start + HEAT_COLUMNS]
        heads = tuple(_heat_head(kinds[number], context) for number in part)
        blocks.append((heads, tuple(_heat_row(row, part, context) for row in rows)))
    return HeatMap(
        caption=f"{counted(sum(len(row['features']) for row in advice['matrix']), 'feature')} that not every one of "
        f"{counted(len(kinds), 'kind')} of hosts gives, or that the baseline gives up",
        blocks=tuple(blocks),
        baseline=HeatHead(
            hosts="baseline",
            model=shown_name(baseline["model"] or "none"),
            features=counted(advice["features"], "feature"),
            level=level_name(advice["level"]),
        ),
        left_out=_left_out(kinds, shown, advice["matrix"][len(rows) :]),
    )


def _heat_head(kind: HostKindResult, context: Context) -> HeatHead:
    return HeatHead(
        hosts=_hosts(kind["hosts"], context, most=3, first=1),
        model=shown_name(kind["model"]) or "no named model",
        features=counted(kind["features"], "feature"),
        level=level_name(kind["level"]),
    )


def _heat_row(row: FeatureRow, kinds: Sequence[int], context: Context) -> HeatRow:
    given = tuple(row["given"][number] for number in kinds)
    features = _features(row["features"], FEATURES if len(kinds) < 5 and not context.paper else 3)  # low lines
    return HeatRow(features, len(row["features"]), given, row["baseline"])


def _left_out(kinds: Sequence[HostKindResult], shown: Sequence[int], rows: Sequence[FeatureRow]) -> str:
    left = []
    if len(shown) < len(kinds):
        hosts = sum(len(kind["hosts"]) for kind in kinds) - sum(len(kinds[number]["hosts"]) for number in shown)
        left.append(f"{counted(len(kinds) - len(shown), 'kind')} with {counted(hosts, 'host')} in all")
    if rows:
        left.append(f"{counted(len(rows), 'line')} of {counted(sum(len(row['features']) for row in rows), 'feature')}")
    return " and ".join(left)


# Who costs what


def _cost(lost: LostFeatures, context: Context) -> Cost:
    reasons = []
    for why in lost["why"]:
        who = "" if why["hosts"] == lost["hosts"] else _hosts(why["hosts"], context)
        reasons.append((who, visible(why["cause"], 20), visible(why["words"], SENTENCE_LIMIT)))
    return Cost(
        features=_features(lost["features"]),
        count=len(lost["features"]),
        hosts=_hosts(lost["hosts"], context) or "none: every host gives it",
        reasons=few(reasons, 3),
    )


# Grouping

BAR_WIDTH, BAR_HEIGHT = 360.0, 34.0  # of the picture's view box; below the blocks stands their label
BLOCK_GAP, BLOCK_LEAST = 3.0, 4.0  # a host among a thousand is still seen
CHARACTER = 7.0  # width of one in a label
# By x86-64 level. As attributes, for paper, where WeasyPrint hides the style sheets from a picture; screens take
# their own from the sheet.
SHADES = ("#e3e7ed", "#cddff3", "#9fc1e6", "#5b93cf", "#1f5fa8")
NO_SHADE = "#ffffff"
_BEST = {"features": "features", "level": "level", "guests": "guests that move"}


def _groupings(splits: Sequence[SplitResult], context: Context) -> tuple[Grouping, ...]:
    tallest = max(group["features"] for split in splits for group in split["groups"])
    return tuple(_grouping(split, tallest, context) for split in splits)


def _grouping(split: SplitResult, tallest: int, context: Context) -> Grouping:
    groups = [(chr(ord("A") + number % 26), group) for number, group in enumerate(split["groups"])]
    best = ", ".join(_BEST[goal] for goal in split["best_by"])
    return Grouping(
        number="1 group, as now" if len(groups) == 1 else counted(len(groups), "group"),
        features=f"{split['features']:g}",
        level=level_name(split["level"]),
        movable="–" if split["movable"] is None else f"{split['movable']:,}",
        best_by="" if len(groups) == 1 else best + ("" if split["exact"] else "; not every way was tried"),
        sentence=visible(split_sentence(split), SENTENCE_LIMIT),
        blocks=_bar(groups, tallest),
        groups=tuple((letter, _hosts(group["hosts"], context), _group_gives(group)) for letter, group in groups),
    )


def _group_gives(group: GroupResult) -> str:
    alone = "; alone, so none of its guests can move" if len(group["hosts"]) == 1 else ""
    return _gives(group["model"], group["features"], group["level"]) + alone


def _bar(groups: Sequence[tuple[str, GroupResult]], tallest: int) -> tuple[BarBlock, ...]:
    """One block a group: as wide as it has hosts, as high as it keeps features, as dark as its x86-64 level."""
    hosts = sum(len(group["hosts"]) for _, group in groups)
    free = BAR_WIDTH - BLOCK_GAP * (len(groups) - 1) - BLOCK_LEAST * len(groups)
    left, blocks = 0.0, []
    for letter, group in groups:
        width = BLOCK_LEAST + free * len(group["hosts"]) / max(1, hosts)
        height = max(2.0, BAR_HEIGHT * group["features"] / max(1, tallest))
        none = group["model"] is None
        blocks.append(
            BarBlock(
                x=f"{left:.1f}",
                y=f"{BAR_HEIGHT - height + 1:.1f}",
                width=f"{width:.1f}",
                height=f"{height:.1f}",
                shade="none" if none else f"v{group['level']}",
                fill=NO_SHADE if none else SHADES[group["level"]],
                label=_fitting((f"{letter}: {'none' if none else group['features']}", letter), width),
                label_x=f"{left + width / 2:.1f}",
                title=f"{letter}: {counted(len(group['hosts']), 'host')}, {_group_gives(group)}",
            )
        )
        left += width + BLOCK_GAP
    return tuple(blocks)


def _fitting(labels: Sequence[str], width: float) -> str:
    return next((label for label in labels if CHARACTER * len(label) <= width + BLOCK_GAP), "")


# Guests

_EFFECTS = {  # by urgency: the mark's colour, if it has one, and the word
    "power cycle": ("conditions", "power cycle"),
    "transient": ("conditions", "transient"),
    "unknown": ("unknown", "not judged"),
    "next start": ("", "next start"),
    "has it": ("yes", "has it"),
}


def _guests(guests: Sequence[GuestCpuAdvice], files: Sequence[str], changes: int, context: Context) -> GuestCpus | None:
    """Those that their CPU keeps from moving first; those of a host that the same holds for share a line."""
    if not guests:
        return None
    folded: dict[tuple[object, ...], list[tuple[GuestCpuAdvice, str]]] = {}
    settled = []
    for guest, file in zip(guests, files, strict=True):
        if guest["effect"] == "has it" and not (guest["blocked"] or guest["unproved"] or guest["problem"]):
            settled.append(guest["guest"])
        else:
            folded.setdefault(_consequences(guest), []).append((guest, file))
    lines = sorted(folded.values(), key=_urgency)
    rows = []
    for same in lines[: GUEST_LINES[not context.paper]]:
        shown = [] if context.paper else [change for change in same[:changes] if change[1]]
        changes -= len(shown)
        rows.append(_guest_line([guest for guest, _ in same], shown, context))
    left = [guest["guest"] for same in lines[len(rows) :] for guest, _ in same]
    return GuestCpus(
        summary=_summary(guests),
        rows=tuple(rows),
        left_out=f"{counted(len(left), 'guest')} more" if left else "",
        settled=some([shown_name(name) for name in settled], 24),
    )


def _consequences(guest: GuestCpuAdvice) -> tuple[object, ...]:
    barred = tuple(guest["blocked"].items()), tuple(guest["unproved"].items())
    changed = tuple(guest["loses"]), tuple(guest["gains"])
    return guest["host"], guest["effect"], barred, changed, guest["problem"]


def _urgency(same: Sequence[tuple[GuestCpuAdvice, str]]) -> tuple[int, int]:
    """Then in the order of the results."""
    guest = same[0][0]
    return -len(guest["blocked"]), tuple(_EFFECTS).index(guest["effect"])


def _summary(guests: Sequence[GuestCpuAdvice]) -> str:
    counts = (
        (sum(bool(guest["blocked"]) for guest in guests), "barred from some host by the CPU"),
        (sum(guest["effect"] == "power cycle" for guest in guests), "to be shut down and started to get the baseline"),
        (sum(guest["effect"] == "next start" for guest in guests), "shut off, to get it at the next start"),
        (sum(guest["effect"] == "has it" for guest in guests), "running with its features already"),
        (sum(guest["effect"] == "transient" for guest in guests), "transient, to be changed where it is defined"),
        (sum(guest["effect"] == "unknown" for guest in guests), "not judged"),
    )
    return f"{counted(len(guests), 'guest')}: " + "; ".join(f"{number:,} {what}" for number, what in counts if number)


def _guest_line(
    same: Sequence[GuestCpuAdvice], changes: Sequence[tuple[GuestCpuAdvice, str]], context: Context
) -> GuestCpu:
    guest = same[0]
    kind, effect = _EFFECTS[guest["effect"]]
    return GuestCpu(
        guests=cut([shown_name(each["guest"]) for each in same], 6),
        host=context.host(guest["host"]),
        kind=kind,
        effect=effect,
        blocked=_by_reason(guest["blocked"], context),
        unproved=_by_reason(guest["unproved"], context),
        loses=_features(guest["loses"]),
        lost=len(guest["loses"]),
        gained=len(guest["gains"]),
        problem=visible(guest["problem"], VALUE_LIMIT),
        changes=tuple(_change(each, file) for each, file in changes),
    )


def _by_reason(hosts: dict[str, str], context: Context) -> Few[tuple[str, str]]:
    """Hosts with the same reason together."""
    most = 2 if context.paper else 3
    reasons: dict[str, list[str]] = {}
    for host, why in hosts.items():
        reasons.setdefault(why, []).append(host)
    return few([(_hosts(names, context, 4), _brief(why, context)) for why, names in reasons.items()], most)


def _brief(why: str, context: Context) -> str:
    """The start of each of its parts, which are lists of features."""
    limit = LACKING[not context.paper]
    return "; ".join(visible(part, limit) for part in visible(why, 4 * VALUE_LIMIT).split("; ")[:4])


def _change(guest: GuestCpuAdvice, file: str) -> GuestChange:
    return GuestChange(
        guest=visible(guest["guest"], NAME_LIMIT),
        file=file,
        diff=guest["diff"] if len(guest["diff"]) <= DIFF_LIMIT else "",
        apply=_commands(guest["apply"]),
        undo=_commands(guest["undo"]),
    )


def _commands(lines: Sequence[str]) -> Command:
    """Commands that can be shown exactly, or none; a remark is not missed."""
    exact = [line for line in lines if len(line) <= COMMAND_LIMIT and visible(line, COMMAND_LIMIT) == line]
    if any(not line.startswith("#") for line in lines if line not in exact):
        return Command("They hold characters that cannot be shown safely: see results.json.", pasteable=False)
    return Command("\n".join(exact), pasteable=True)
