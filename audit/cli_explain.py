"""The command that tells what is behind libvirt's and QEMU's words, and which checks foresee it; no host is asked."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence

import click

from audit.check import Check
from audit.cli_checks import labelled, wrapped
from audit.judge import discover
from audit.messages import LIMIT, MOST, Explanation, explain

CANNOT_SAY = 5
_READ = 16 * 1024 * 1024
"""Bytes that are read of a log; the end of it is looked at."""
_LOOK = (
    "virsh migrate --live --verbose …  # once more, and keep all that it says",
    "journalctl -u virtqemud -u libvirtd --since -10min  # on both hosts",
    "tail -n 50 /var/log/libvirt/qemu/GUEST.log  # on both hosts",
)


@click.command("explain", context_settings={"ignore_unknown_options": True})
@click.argument("text", nargs=-1, metavar="[TEXT...|-]")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def explain_(text: tuple[str, ...], as_json: bool) -> int:
    """Tell what is behind an error of libvirt or QEMU, what helps, and which checks foresee it.

    TEXT is the message, or what is pasted to standard input: a whole session or log may be. What is nearest to the root
    of the trouble is told first. Exit status: 2 no text, 5 where nothing in it is known, or only that something failed.
    """
    given = " ".join(text) if text and text != ("-",) else _pasted()
    if not given.strip():
        raise click.UsageError("no text: give the message as argument, or paste it to standard input")
    found = explain(given)
    checks = {check.id: check for check in discover()}
    if as_json:
        click.echo(json.dumps(_shape(found, checks), indent=1))
    else:
        click.echo("\n".join(_lines(found, checks, cut=len(given) > LIMIT)))
    return 0 if any(one.tells_cause for one in found) else CANNOT_SAY


def _pasted() -> str:
    if sys.stdin.isatty():
        click.echo("Paste the message, then Ctrl-D:", err=True)
    data = sys.stdin.buffer.read(_READ + 1)
    if len(data) > _READ:
        raise click.ClickException(f"more than {_READ // 1024 // 1024} MiB: give the end of the log, as by tail -n 200")
    return data.decode("utf-8", "replace")


def _shape(found: Sequence[Explanation], checks: Mapping[str, Check]) -> dict[str, object]:
    return {
        "format": "virt-preflight/explanations/1",
        "explanations": [
            {
                "id": one.message.id,
                "depth": one.message.depth.name.lower(),
                "words": one.words,
                "cause": one.cause,
                "remedy": one.remedy,
                "commands": list(one.commands),
                "checks": [{"id": id_, "title": checks[id_].title} for id_ in one.checks if id_ in checks],
                "why_not": one.message.why_not,
                "seen": one.message.seen,
            }
            for one in found
        ],
    }


def _lines(found: Sequence[Explanation], checks: Mapping[str, Check], *, cut: bool) -> Iterator[str]:
    if cut:
        yield from wrapped(f"Only the last {LIMIT // 1024} KiB were looked at.")
        yield ""
    for number, one in enumerate(found):
        if number:
            yield ""
        yield from _explained(one, checks)
    if len(found) == MOST:
        yield from ("", f"There may be more: only {MOST} are told.")
    if not any(one.tells_cause for one in found):
        if found:
            yield ""
        yield from wrapped(
            "That says only that something failed. The reason stands elsewhere:"
            if found
            else "Nothing in this text is known. Look for what was said before it:"
        )
        yield from (f"  {line}" for line in _LOOK)


def _explained(one: Explanation, checks: Mapping[str, Check]) -> Iterator[str]:
    yield from wrapped(f"“{one.words}”")
    yield from labelled("cause", one.cause)
    yield from labelled("remedy", one.remedy)
    for command in one.commands:
        yield from labelled("", f"  {command}", whole=True)
    known = [checks[id_] for id_ in one.checks if id_ in checks]
    for number, check in enumerate(known):
        yield from labelled("" if number else "foreseen by", f"{check.id}: {check.title}")
    if known:
        yield from labelled("see", f"virt-preflight checks {known[0].id}")
    if one.message.why_not:
        yield from labelled("unforeseen", one.message.why_not)
