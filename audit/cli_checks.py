"""The command `checks`: what is checked, by domain; and one check in full, as an operator asks about it."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import click

from audit.catalogue import acceptance, applies, domains, failures, judged, requirements, shows
from audit.check import Blocks, Check
from audit.evidence import Probe
from audit.judge import discover
from audit.messages import SAYINGS, foreseen
from audit.text import visible

LABEL = 12
"""Columns of the labels of one check's description."""


@click.command("checks")
@click.argument("check_id", required=False, metavar="[ID|DOMAIN]")
def checks(check_id: str | None) -> None:
    """List what is checked, by domain, or in one; with an id, tell why, by which evidence, and what a finding means."""
    found = {check.id: check for check in discover()}
    if check_id is None:
        lines = _listing(tuple(found.values()))
    elif check_id in found:
        lines = _description(found[check_id])
    elif in_domain := tuple(check for id_, check in found.items() if id_.startswith(f"{check_id}.")):
        lines = _listing(in_domain)
    else:
        raise click.UsageError(_no_such(check_id, tuple(found)))
    click.echo("\n".join(lines))


def _no_such(check_id: str, known: Sequence[str]) -> str:
    near = [id_ for id_ in known if check_id in id_] or get_close_matches(check_id, known, n=3, cutoff=0.5)
    perhaps = f" Did you mean {' or '.join(near[:3])}?" if near else ""
    return f"there is no check {visible(check_id, 60)}.{perhaps} `virt-preflight checks` lists them."


def _listing(found: Sequence[Check]) -> Iterator[str]:
    groups = domains(found)
    for domain in groups:
        yield from wrapped(f"{domain.name} ({len(domain.checks)}): {domain.heading}")
        for check in domain.checks:
            yield from wrapped(f"  {check.id}  ({_in_short(check)})", "      ")
            yield from wrapped(f"      {check.title}", "      ")
        yield ""
    among = f" in {len(groups)} domains" if len(groups) > 1 else ""
    yield from wrapped(f"{len(found)} checks{among}. `virt-preflight checks ID` tells one of them in full.")


def _in_short(check: Check) -> str:
    blocks = "" if check.blocks is Blocks.NOTHING else f", blocks {check.blocks.value}"
    return f"{check.scope.value}, {check.severity.name.lower()}{blocks}"


def _description(check: Check) -> Iterator[str]:
    yield check.id
    yield from wrapped(check.title)
    if check.why:
        yield ""
        yield from wrapped(check.why)
    yield ""
    yield from labelled("judged", f"{judged(check)} ({check.scope.value})")
    yield from labelled("counts for", applies(check))
    yield from labelled("severity", check.severity.name.lower())
    yield from labelled("blocks", check.blocks.value)
    yield from labelled("would show", shows(check))
    yield from labelled("reference", check.reference)
    yield from labelled("remedy", check.remedy or "each finding has its own")
    yield from labelled(
        "skipped", "where its question does not arise; results.json (checks[].skipped) has the reasons and how often"
    )
    for number, probe in enumerate(check.probes):
        yield from labelled("" if number else "evidence", _told(probe))
        yield from labelled("", f"  {probe.by_hand}", whole=True)
    says = {row.id: row.says for row in (*requirements(), *failures())}
    for number, id_ in enumerate(check.covers):
        yield from labelled("" if number else "answers", f"{id_}: {says.get(id_, 'not a row of this version')}")
    for number, message in enumerate(foreseen(check.id)[:SAYINGS]):
        yield from labelled("" if number else "would say", message.said)
    yield from labelled("accepting", acceptance(check))


def _told(probe: Probe) -> str:
    root = ", as root" if "$sudo" in probe.command else ""
    active = f", active: asked only with {probe.option}" if probe.option else ""
    return f"{probe.name}{root}{active}; by hand:"


def labelled(label: str, text: str, *, whole: bool = False) -> Iterator[str]:
    """Lines with what stands before them. `whole`: a command, which is not broken so that it can be pasted."""
    head = f"{label:{LABEL}}"
    if whole:
        yield from (f"{' ' * LABEL}{line}" for line in text.splitlines())
    else:
        yield from wrapped(head + text, " " * LABEL)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Lines as wide as the terminal, 80 columns where there is none (or what COLUMNS says)."""
    width = max(40, shutil.get_terminal_size((80, 24)).columns)
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
