#!/usr/bin/env python3
"""Write the documents that follow from the checks and from audit/data: docs/coverage.md, checks.md and limits.md.

    python3 scripts/make_docs.py [--check]

With --check it writes nothing, and ends with 1 where a document is not what it would write. What stands in limits.md
above the line that says so is written by hand, and kept.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from audit.catalogue import Answer, answers, applies, domains, judged, shows  # noqa: E402
from audit.check import Check  # noqa: E402
from audit.evidence import Probe  # noqa: E402
from audit.judge import discover  # noqa: E402
from audit.messages import SAYINGS, foreseen  # noqa: E402

DOCS = ROOT / "docs"
MADE = "<!-- Written by scripts/make_docs.py from the checks and from audit/data. Do not edit by hand. -->"


def documents(checks: Sequence[Check]) -> dict[Path, str]:
    """Every document that is made, and its text."""
    rows = answers(checks)
    limits = DOCS / "limits.md"
    return {
        DOCS / "coverage.md": _text(coverage(rows, checks)),
        DOCS / "checks.md": _text(catalogue(checks)),
        limits: _text([limits.read_text("utf-8").partition(MADE)[0].rstrip(), "", MADE, "", *what_is_not_seen(rows)]),
    }


def _text(lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


# Coverage -------------------------------------------------------------------------------------------------


def coverage(rows: Sequence[Answer], checks: Sequence[Check]) -> Iterator[str]:
    """What is asked and what has gone wrong elsewhere, section by section, with what answers it."""
    yield "# What is covered, and by what"
    yield ""
    yield MADE
    yield ""
    yield (
        "Every row of chapter 12 of Red Hat Enterprise Linux 9, “Configuring and managing virtualization”, and every "
        "failure that people have met, with what answers it here: the [checks](checks.md), how often each is made, and "
        "the probes whose output it reads. Where no check does, it says what else, or [why nothing can](limits.md)."
    )
    for section, found in groupby(rows, key=lambda answer: answer.row.section):
        yield from ("", f"## {section}", "", "| what | kind | answered by |", "|---|---|---|")
        for answer in found:
            yield f"| {_what(answer)} | {answer.row.kind} | {'<br>'.join(_answered(answer)) or '**nothing**'} |"
    beyond = [check for check in checks if not check.covers]
    yield from ("", "## Checks beyond both", "")
    yield "They answer no row above, and look at what libvirt, QEMU or the kernel are known to ask for."
    yield ""
    yield from (f"* {_link(check)}: {check.title}" for check in beyond)


def _what(answer: Answer) -> str:
    row = answer.row
    cause = f"<br>*{_cell(row.cause)}*" if row.cause else ""
    cites = f"<br>{', '.join(_cite(cite) for cite in row.cites)}" if row.cites else ""
    return f"<a id='{_anchor(row.id)}'></a>**{row.id}** {_cell(row.says)}{cause}{cites}"


def _anchor(id_: str) -> str:
    return id_.replace(" ", "-").replace("/", "-")


def _cite(cite: str) -> str:
    if not cite.startswith("https://"):
        return f"`{cite}`"
    short = cite.removeprefix("https://").removeprefix("www.").removeprefix("github.com/").rstrip("/")
    return f"[{short if len(short) <= 40 else short[:39] + '…'}]({cite})"


def _answered(answer: Answer) -> Iterator[str]:
    for check in answer.checks:
        yield f"{_link(check)} ({check.scope.value}): {', '.join(_probes(check))}"
    yield from (_cell(feature) for feature in answer.features)
    yield from (f"*Not seen:* {_cell(limit)}" for limit in answer.limits)
    yield from (f"*Not looked at yet:* {_cell(gap)}" for gap in answer.open)


def _probes(check: Check) -> Iterator[str]:
    """Those of one domain together, as a shell would expand it: `guest.{list,xml}`."""
    names: dict[str, list[str]] = {}
    for probe in check.probes:
        domain, _, name = probe.name.partition(".")
        names.setdefault(domain, []).append(name)
    for domain, found in names.items():
        yield f"`{domain}.{found[0]}`" if len(found) == 1 else f"`{domain}.{{{','.join(found)}}}`"


def _link(check: Check) -> str:
    return f"[{check.id}](checks.md#{check.id.replace('.', '')})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# Checks ---------------------------------------------------------------------------------------------------


def catalogue(checks: Sequence[Check]) -> Iterator[str]:
    """Every check, by domain."""
    groups = domains(checks)
    yield "# Checks"
    yield ""
    yield MADE
    yield ""
    yield (
        f"{len(checks)} checks. `virt-preflight checks ID` tells the same of one of them, those of other packages "
        "included. Evidence is named by its probe, with the command that shows a person the same; how what it finds "
        "becomes a verdict is in [how it decides](how-it-decides.md)."
    )
    yield ""
    yield from (f"* [{d.name}](#{d.name}) ({len(d.checks)}): {d.heading}" for d in groups)
    for domain in groups:
        yield from ("", f"## {domain.name}", "", domain.heading)
        for check in domain.checks:
            yield from _check(check)


def _check(check: Check) -> Iterator[str]:
    yield from ("", f"### {check.id}", "", f"**{_prose(check.title)}**", "")
    if check.why:
        yield from (_prose(check.why), "")
    yield f"* Judged: {judged(check)} ({check.scope.value}). Counts for: {applies(check)}."
    yield f"* Severity: {check.severity.name.lower()}. Blocks: {check.blocks.value}. Would show: {shows(check)}."
    yield f"* Reference: {_prose(check.reference)}"
    yield f"* Remedy: {_prose(check.remedy) if check.remedy else 'each finding has its own.'}"
    if said := foreseen(check.id)[:SAYINGS]:
        yield "* libvirt, QEMU or ssh would say:"
        yield from (f"  * {_code(message.said)}" for message in said)
    if check.covers:
        yield f"* Answers: {', '.join(f'[{id_}](coverage.md#{_anchor(id_)})' for id_ in check.covers)}"
    yield "* Evidence:"
    yield from (_evidence(probe) for probe in check.probes)


def _evidence(probe: Probe) -> str:
    root = " (as root)" if "$sudo" in probe.command else ""
    active = f" (active: asked only with `{probe.option}`)" if probe.option else ""
    return f"  * `{probe.name}`{root}{active}: {_code(' '.join(probe.by_hand.split()))}"


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def _prose(text: str) -> str:
    """Docstrings write code in backticks, and elements of XML as they are."""
    parts = text.split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


# Limits ---------------------------------------------------------------------------------------------------


def what_is_not_seen(rows: Sequence[Answer]) -> Iterator[str]:
    """The rows that, in whole or in part, nobody can see from a host, and those that nothing looks at yet."""
    yield from ("## What cannot be seen from a host", "")
    for answer in rows:
        if answer.row.limit:
            yield f"* {_row(answer)} {_cell(answer.row.limit)}"
    yield from ("", "## What is not looked at yet", "")
    for answer in rows:
        if answer.row.open:
            yield f"* {_row(answer)} {_cell(answer.row.open)}"


def _row(answer: Answer) -> str:
    says = answer.row.says.rstrip(".")
    return f"[{answer.row.id}](coverage.md#{_anchor(answer.row.id)}), “{_cell(says)}”:"


def main() -> None:
    """Write them, or compare."""
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    stale = []
    for path, text in documents(discover()).items():
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path)
            if not sys.argv[1:]:
                path.write_text(text, "utf-8")
    print("\n".join(str(path.relative_to(ROOT)) for path in stale) or "nothing to do")
    sys.exit(bool(stale and sys.argv[1:]))


if __name__ == "__main__":
    main()
