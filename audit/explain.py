"""Advice on a baseline, told to a person at a terminal. Reads results and nothing else; whoever prints defuses it."""

import textwrap
from collections.abc import Iterator, Sequence

from audit.results import Advice, GuestCpuAdvice, SplitResult

WIDTH = 110
_EFFECTS = {
    "has it": "runs with its features already",
    "next start": "is shut off: takes it at its next start (but a managed save brings the old CPU back)",
    "power cycle": "needs a full power cycle to take it (shut down, then start: a reboot keeps the CPU)",
    "transient": "is transient: gone once it stops; change its CPU where its definition is kept",
    "unknown": "is not judged",
}
_BY = {"features": "keeps most features", "level": "keeps the highest level", "guests": "lets most guests move"}


def explained(advice: Advice, notes: Sequence[str]) -> Iterator[str]:
    """Lines, without newlines."""
    if advice["warning"]:
        yield from _wrapped("Warning: ", advice["warning"])
    for note in notes:
        if note != advice["warning"]:
            yield from _wrapped("Note: ", note)
    yield from _hosts(advice)
    yield from _lost(advice)
    yield from _left_out(advice)
    yield from _splits(advice)
    yield from _guests(advice)


def level_name(level: float) -> str:
    """`x86-64-v3`; averages as `x86-64-v2.5`."""
    return f"x86-64-v{level:g}" if level else "below x86-64-v1"


def _heading(text: str) -> Iterator[str]:
    yield ""
    yield text
    yield "-" * len(text)


def _wrapped(head: str, text: str, indent: str = "") -> Iterator[str]:
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=indent + head, subsequent_indent=indent + " " * len(head), break_on_hyphens=False
    )


def _hosts(advice: Advice) -> Iterator[str]:
    yield from _heading("What guests see")
    for kind in advice["kinds"]:
        about = f"{kind['model']}, {kind['features']} features, {level_name(kind['level'])}"
        yield from _wrapped("", f"{', '.join(kind['hosts'])}: {about}", "  ")
    yield f"  the baseline: {advice['features']} features, {level_name(advice['level'])}"


def _lost(advice: Advice) -> Iterator[str]:
    yield from _heading("Who costs what")
    if not advice["lost"]:
        yield "  Nothing is lost: all give the same."
    for lost in advice["lost"]:
        yield from _wrapped("", f"{', '.join(lost['features'])} ({len(lost['features'])})", "  ")
        for why in lost["why"]:
            yield from _wrapped("", f"{', '.join(why['hosts'])}: {why['words']}".removeprefix(": "), "      ")


def _left_out(advice: Advice) -> Iterator[str]:
    if not advice["left_out"]:
        return
    yield from _heading("What the others would gain without some")
    for out in advice["left_out"]:
        gain = f"{out['model']}, {level_name(out['level'])}, {len(out['gained'])} more: {', '.join(out['gained'])}"
        yield from _wrapped("", f"without {', '.join(out['hosts'])}: {gain}", "  ")


def _splits(advice: Advice) -> Iterator[str]:
    if len(advice["splits"]) < 2:
        return
    yield from _heading("How the hosts could be grouped")
    for split in advice["splits"]:
        yield from _wrapped("", split_sentence(split), "  ")
        for group in split["groups"]:
            gives = f"{group['model']}, {group['features']} features, {level_name(group['level'])}"
            alone = "; alone, so that no guest can move" if len(group["hosts"]) == 1 else ""
            about = gives if group["model"] else "nothing in common"
            yield from _wrapped("", f"{', '.join(group['hosts'])}: {about}{alone}", "      ")


def split_sentence(split: SplitResult) -> str:
    """What a grouping keeps, and what it is best by."""
    number = len(split["groups"])
    moving = "" if split["movable"] is None else f", {split['movable']} guests can move as they run now"
    by = "; ".join(_BY[goal] for goal in split["best_by"])
    tried = "" if split["exact"] else " (not every way was tried)"
    keeps = f"{split['features']:g} features and {level_name(split['level'])} a host on average{moving}"
    return f"{number} group{'' if number == 1 else 's'}: {keeps}; {by}{tried}"


def _guests(advice: Advice) -> Iterator[str]:
    if not advice["guests"] and not advice["unread"]:
        return
    yield from _heading("What it means for each guest")
    for host, why in advice["unread"].items():
        yield from _wrapped("", f"the guests of {host} could not be listed: {why}", "  ")
    for guest in advice["guests"]:
        yield f"  {guest['guest']} on {guest['host']} {_EFFECTS[guest['effect']]}"
        for line in guest_sentences(guest):
            yield from _wrapped("", line, "      ")
        if guest["diff"]:
            yield from ("        " + line for line in guest["diff"].splitlines())
            yield "      to apply, with the difference above as a file:"
            yield from ("        " + line for line in guest["apply"])
            yield "      to undo:"
            yield from ("        " + line for line in guest["undo"])


def guest_sentences(guest: GuestCpuAdvice) -> Iterator[str]:
    """What keeps the guest from moving now, and what the baseline would change for it."""
    for host, lacking in guest["blocked"].items():
        yield f"as it runs now its CPU keeps it from {host}: {lacking}"
    for host, why in guest["unproved"].items():
        yield f"whether its CPU lets it move to {host} is not proved: {why}"
    if guest["loses"]:
        yield f"would lose: {', '.join(guest['loses'])}"
    if guest["gains"]:
        yield f"would gain: {', '.join(guest['gains'])}"
    if guest["problem"]:
        yield f"not said: {guest['problem']}"
