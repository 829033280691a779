"""The command that reads what libvirt says of a migration and tells whether it comes to an end; no host is asked."""

import json
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click

from audit.convergence import DOWNTIME_MS, MIB, Diagnosis, Load, diagnose, duration, rate, size
from audit.jobinfo import PASTE_LIMIT, DirtyRate, JobInfo, JobInfoError, read_dirty_rate, read_job_info
from audit.text import visible

DOES_NOT, CANNOT_SAY = 3, 5
_STATUS = {"converges": 0, "close": 0, "does not converge": DOES_NOT, "cannot say": CANNOT_SAY}
_WORDS = {
    "converges": "It converges",
    "close": "It may converge, but not by much",
    "does not converge": "It does not converge",
    "cannot say": "Cannot say whether it converges",
}


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-")
@click.option("--bandwidth", type=click.IntRange(1), metavar="MIB/S", help="What the network carries, where not said.")
@click.option("--memory", type=click.IntRange(1), metavar="MIB", help="The guest's memory, where not said.")
@click.option(
    "--downtime",
    type=click.IntRange(1),
    default=DOWNTIME_MS,
    show_default=True,
    metavar="MS",
    help="What `virsh migrate-getmaxdowntime` says.",
)
@click.option(
    "--factor", type=click.IntRange(1), default=2, show_default=True, help="Bandwidth wanted over dirty rate."
)
@click.option("--guest", metavar="NAME", help="Its name, for the commands.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def converge(
    file: Path,
    bandwidth: int | None,
    memory: int | None,
    downtime: int,
    factor: int,
    guest: str | None,
    as_json: bool,
) -> int:
    """Say whether a live migration will end, from the output of `virsh domjobinfo GUEST`, and what helps if not.

    FILE, or what is pasted to standard input, is that output (with --rawstats or without), or that of `virsh domstats
    GUEST --dirtyrate` for a migration to come, or both. Exit status: 2 not understood, 3 does not converge, 5 cannot
    say.
    """
    text = _text(file)
    try:
        load, over = _load(text, bandwidth, memory, downtime)
    except JobInfoError as error:
        raise click.ClickException(str(error)) from error
    if over is not None:
        return _tell_over(*over, as_json=as_json)
    found = diagnose(load, shlex.quote(guest or _guest(text) or "GUEST"), factor=factor)
    if as_json:
        click.echo(json.dumps({**asdict(found), "fixes": [fix._asdict() for fix in found.fixes]}, indent=1))
    else:
        for line in _lines(found, load):
            click.echo(visible(line, 2000))
    return _STATUS[found.word]


def _text(file: Path) -> str:
    if file == Path("-") and sys.stdin.isatty():
        click.echo("Paste the output of `virsh domjobinfo GUEST`, then Ctrl-D:", err=True)
    try:
        if file == Path("-"):
            data = sys.stdin.buffer.read(PASTE_LIMIT + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(PASTE_LIMIT + 1)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    if len(data) > PASTE_LIMIT:
        raise click.ClickException(f"{file}: larger than {PASTE_LIMIT // MIB} MiB, which is no output about one guest")
    return data.decode("utf-8", "replace")


_Over = tuple[int, str]
"""Exit status and what to say where there is nothing to reckon."""


def _load(text: str, bandwidth: int | None, memory: int | None, downtime: int) -> tuple[Load, _Over | None]:
    """The numbers, of what is under way or is to come; or why there is nothing to reckon. Raises `JobInfoError`."""
    measured = read_dirty_rate(text) if "dirtyrate." in text else None
    given = None if bandwidth is None else bandwidth * MIB
    whole = None if memory is None else memory * MIB
    if measured is not None and "Job type" not in text:
        return _to_come(measured, given, whole, downtime)
    job = read_job_info(text)
    if job.kind == "None" and measured is not None:
        return _to_come(measured, given, whole, downtime)
    if over := _over(job):
        return Load(None, None, None), over
    missing = [
        label
        for label, value in (
            ("Memory remaining", job.memory_remaining),
            ("Dirty rate", job.dirty_pages),
            ("Page size", job.page_bytes),
        )
        if value is None
    ]
    if missing:
        raise JobInfoError(f"no line {', '.join(f'`{label}:`' for label in missing)}: paste the whole output")
    return Load(job.dirty, job.bandwidth or given, job.memory_remaining, job.memory_total or whole, downtime), None


def _to_come(measured: DirtyRate, given: int | None, whole: int | None, downtime: int) -> tuple[Load, _Over | None]:
    if measured.mib_per_second is None:
        return Load(None, None, None), (CANNOT_SAY, f"There is no dirty rate: {measured.problem}.")
    dirty = max(1, measured.mib_per_second) * MIB  # 0 is anything below 1
    return Load(dirty, given, whole, whole, downtime, under_way=False), None


def _over(job: JobInfo) -> _Over | None:
    """The job is no live migration under way: what it is instead."""
    if job.kind == "None":
        return (
            CANNOT_SAY,
            "No job of that guest is under way. `virsh domjobinfo --completed GUEST` tells of the last one.",
        )
    if job.kind == "Completed":
        took = "" if job.elapsed_ms is None else f" after {duration(job.elapsed_ms / 1000)}"
        stood = "" if job.downtime_ms is None else f"; the guest stood still for {job.downtime_ms} ms"
        return 0, f"The {job.operation or 'job'} has completed{took}{stood}."
    if not job.migrating:
        return CANNOT_SAY, (
            "This is the target's side: ask on the source."
            if job.operation == "incoming migration"
            else f"This is no migration under way: {job.kind.lower()}, {job.operation}."
        )
    if not job.memory_total and job.disks_remaining is not None:
        left = size(job.disks_remaining)
        return CANNOT_SAY, f"Its memory is not being copied yet, {left} of its disks are left: ask again after that."
    if job.postcopy_requests:
        return 0, f"It is in post-copy already ({job.postcopy_requests} pages asked for), which ends by itself."
    return None


def _tell_over(status: int, words: str, *, as_json: bool) -> int:
    click.echo(json.dumps({"word": "cannot say" if status else "converges", "because": words}) if as_json else words)
    return status


def _guest(text: str) -> str | None:
    """Its name, where the paste has it: in `Domain: 'NAME'`, or in the command before the output."""
    match = re.search(r"^Domain: '([^\n]{1,200})'\s*$", text, re.MULTILINE)
    typed = re.search(r"^.*\bvirsh\b[^\n]*\bdom(?:jobinfo|stats)\s+([A-Za-z0-9_][^\s;|&]{0,200})", text, re.MULTILINE)
    return match[1] if match else typed[1] if typed else None


def _lines(found: Diagnosis, load: Load) -> list[str]:
    lines = [f"{_WORDS[found.word]}: {found.because}."]
    if found.seconds is not None:
        lines.append(
            f"What is left ({size(load.remaining or 0)}) takes about {duration(found.seconds)}, if nothing changes."
        )
    if found.needed is not None and found.word != "converges":
        lines.append(f"It needs {rate(found.needed)} to be sure of it.")
        if found.word == "cannot say":
            lines.append("Say what there is with --bandwidth.")
    lines += [f"Note: {note}" for note in found.notes]
    if found.fixes:
        lines.append("What helps:")
    for fix in found.fixes:
        lines.append(f"  - {fix.what}")
        if fix.command:
            lines.append(f"      {fix.command}")
    return lines
