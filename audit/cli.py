"""The commands and their exit status; no logic. `virt-preflight --help` is the reference."""

import functools
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from audit import cli_checks, cli_converge, cli_cpu, cli_explain
from audit import report as reports
from audit.check import Check
from audit.collect import collect, now, probes_of
from audit.cpu import CpuError
from audit.cpu.crosscheck import cross_check
from audit.evaluate import EvaluationError, evaluate, needed_facts
from audit.evidence import Bundle, BundleError
from audit.facts.dirty_rate import MOST_GUESTS, MOST_SECONDS
from audit.facts.dirty_rate import OPTION as DIRTY_RATE
from audit.facts.guest_source import read_guests
from audit.facts.reach import OPTION as PROBE_NETWORK
from audit.facts.reach import announcement
from audit.inventory import Inventory, InventoryError
from audit.judge import CheckError, discover
from audit.progress import Progress
from audit.results import EXIT_STATUS, Results, ResultsError, dumps, load
from audit.text import visible

TOOL = f"virt-preflight {version('virt-preflight')}"
USAGE, REFUSED = 2, 3
READABLE = (InventoryError, BundleError, EvaluationError, CheckError, ResultsError, CpuError)
"""Errors that are about the input: one clear line and exit status 2."""
SHOWN = 12
"""How many reasons are printed; the report has them all."""


def main() -> NoReturn:
    """Run the command line. Exit status: 0 GO, 1 our own failure, 2 usage, 3 NO-GO, 4 with conditions, 5 cannot say."""
    try:
        status = commands.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        status = USAGE
    except click.Abort:
        click.echo("interrupted", err=True)
        status = 1
    except READABLE as error:
        click.echo(f"virt-preflight: {visible(str(error), 1000)}", err=True)
        status = USAGE
    except OSError as error:
        click.echo(f"virt-preflight: {visible(str(error), 1000)}", err=True)
        status = 1
    except Exception as error:
        if os.environ.get("VIRT_PREFLIGHT_DEBUG"):
            raise
        click.echo(f"virt-preflight failed, and it is its own fault: {visible(repr(error), 1000)}", err=True)
        click.echo("Set VIRT_PREFLIGHT_DEBUG=1 to see where.", err=True)
        status = 1
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("virt-preflight"), prog_name="virt-preflight")
def commands() -> None:
    """Judge before the maintenance window which KVM guest can move where, and why not."""


# Collecting and judging -----------------------------------------------------------------------------------


def _asking(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the commands that open connections; those for active probes become its argument `active`."""

    @functools.wraps(function)
    def command(*, probe_network: bool, measure_dirty_rate: int | None, **others: Any) -> Any:
        active = _active(probe_network=probe_network, measure_dirty_rate=measure_dirty_rate)
        return function(active=active, **others)

    made: Callable[..., Any] = command
    for option in (
        click.argument("hosts", nargs=-1, metavar="[HOST]..."),
        click.option("-i", "--inventory", type=click.Path(path_type=Path), help="YAML file of clusters and hosts."),
        click.option("--workers", default=32, show_default=True, help="How many hosts are asked at once."),
        click.option("--seconds", default=120.0, show_default=True, help="Deadline for each round on each host."),
        click.option(
            PROBE_NETWORK,
            is_flag=True,
            help="Let the hosts of a cluster try each other: ports, full packets, ssh logins.",
        ),
        click.option(
            DIRTY_RATE,
            type=click.IntRange(1, MOST_SECONDS),
            metavar="SECONDS",
            help="Let libvirt measure how fast running guests change their memory. Short periods tell more.",
        ),
    ):
        made = option(made)
    return made


def _active(*, probe_network: bool, measure_dirty_rate: int | None) -> dict[str, str]:
    """The options that were given for active probes, with their values ("" for none)."""
    given = {PROBE_NETWORK: ""} if probe_network else {}
    return given | ({DIRTY_RATE: str(measure_dirty_rate)} if measure_dirty_rate else {})


def _announce(active: Mapping[str, str], inventory: Inventory) -> None:
    """Say what the active probes will do, before they do."""
    if PROBE_NETWORK in active:
        click.echo(announcement([len(cluster.hosts) for cluster in inventory.clusters]), err=True)
    if seconds := active.get(DIRTY_RATE):
        click.echo(
            f"{DIRTY_RATE}: libvirt measures running guests for {seconds} s (domdirtyrate-calc, page sampling, on a "
            f"connection that may write), at most {MOST_GUESTS} a host, all at once; not those with assigned devices.",
            err=True,
        )


_drain = click.option("--drain", multiple=True, metavar="HOST", help="Judge only whether these hosts can be emptied.")


@commands.command()
@_asking
@_drain
@click.option(
    "--no-pdf", is_flag=True, help="All but report.pdf, which takes most of the time: `report` makes it later."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("virt-preflight"), show_default=True)
def audit(
    hosts: tuple[str, ...],
    inventory: Path | None,
    workers: int,
    seconds: float,
    active: Mapping[str, str],
    drain: tuple[str, ...],
    no_pdf: bool,
    output: Path,
) -> int:
    """Collect evidence from the hosts, judge it, and write the reports to a folder.

    With no host it audits this machine, without SSH. With an inventory, hosts narrow it to themselves.
    """
    if (output / "bundle").exists():
        raise click.UsageError(f"{output} holds a run already: name another folder with -o")
    asked = _inventory(hosts, inventory)
    if strangers := sorted(set(drain) - {host.name for host in asked.hosts}):
        raise click.UsageError(f"--drain names no host of this run: {', '.join(strangers)}")
    checks = discover()
    bundle = _collected(asked, checks, workers, seconds, active)
    bundle.write(output / "bundle")
    results = evaluate([bundle], checks, drain, cross_check)
    reports.write_whole(output / "results.json", dumps(results).encode())
    written = reports.write_report(results, output, rendered=now(), pdf=not no_pdf)
    _tell(results, [output / "results.json", *written, output / "bundle"])
    return EXIT_STATUS[results["verdict"]["word"]]


@commands.command("collect")
@_asking
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle's folder, a new one.")
def collect_(
    hosts: tuple[str, ...],
    inventory: Path | None,
    workers: int,
    seconds: float,
    active: Mapping[str, str],
    output: Path,
) -> None:
    """Gather evidence only, into a bundle that `evaluate` judges anywhere."""
    if output.exists():
        raise click.UsageError(f"{output} exists already: name another folder with -o")
    bundle = _collected(_inventory(hosts, inventory), discover(), workers, seconds, active)
    bundle.write(output)
    click.echo(str(output))


@commands.command("evaluate")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@_drain
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="results.json; without, it goes to standard output."
)
def evaluate_(bundles: tuple[Path, ...], drain: tuple[str, ...], output: Path | None) -> int:
    """Judge bundles. No connection is opened."""
    results = evaluate([Bundle.read(path) for path in bundles], discover(), drain, cross_check)
    if output is None:
        click.echo(dumps(results), nl=False)
    else:
        reports.write_whole(output, dumps(results).encode())
        _tell(results, [output])
    return EXIT_STATUS[results["verdict"]["word"]]


@commands.command()
@click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS.JSON")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write everything to this folder.")
@click.option("--html", type=click.Path(path_type=Path), help="Write only the HTML page, here.")
@click.option("--pdf", type=click.Path(path_type=Path), help="Write only the PDF, here.")
def report(results: Path, output: Path | None, html: Path | None, pdf: Path | None) -> int:
    """Render results.json as HTML, PDF, tables and baseline files."""
    found = load(results)
    if not (output or html or pdf):
        raise click.UsageError("say where to: -o FOLDER, --html FILE or --pdf FILE")
    rendered = now()
    written = reports.write_report(found, output, rendered=rendered) if output else []
    if html:
        written.append(reports.write_whole(html, reports.render_html(found, rendered=rendered).encode()))
    if pdf:
        written.append(reports.write_whole(pdf, reports.render_pdf(found, rendered=rendered)))
    for path in written:
        click.echo(str(path))
    return EXIT_STATUS[found["verdict"]["word"]]


def _inventory(hosts: Sequence[str], path: Path | None) -> Inventory:
    if path is None:
        return Inventory.of_hosts(hosts) if hosts else Inventory.this_machine()
    inventory = Inventory.read(path)
    return inventory.only(hosts) if hosts else inventory


def _collected(
    inventory: Inventory, checks: Sequence[Check], workers: int, seconds: float, active: Mapping[str, str]
) -> Bundle:
    _announce(active, inventory)
    with Progress(Console(stderr=True)) as progress:
        return collect(
            inventory,
            probes_of(needed_facts(checks)),
            read_guests=read_guests,
            tool=TOOL,
            secret=progress.paused(getpass.getpass) if sys.stdin.isatty() else None,
            active=active,
            progress=progress,
            workers=workers,
            seconds=seconds,
        )


def _tell(results: Results, written: Sequence[Path]) -> None:
    verdict = results["verdict"]
    colour = {"GO": "green", "NO-GO": "red"}.get(verdict["word"], "yellow")
    click.echo(click.style(verdict["word"], fg=colour, bold=True) + f"  {visible(verdict['sentence'], 500)}")
    for heading, reasons in (("Blocking", verdict["blocking"]), ("Conditions", verdict["conditions"])):
        if reasons:
            click.echo(f"{heading}:")
        for reason in reasons[:SHOWN]:
            click.echo(f"  - {visible(reason, 400)}")
        if len(reasons) > SHOWN:
            click.echo(f"  - … and {len(reasons) - SHOWN} more: see the report")
    for path in written:
        click.echo(str(path))


# CPUs: the commands are in audit.cli_cpu, for their length --------------------------------------------------

commands.add_command(cli_cpu.baseline)
commands.add_command(cli_cpu.compare)
commands.add_command(cli_converge.converge)

# Checks: in audit.cli_checks ---------------------------------------------------------------------------------

commands.add_command(cli_checks.checks)

# Other people's error messages: in audit.cli_explain ---------------------------------------------------------

commands.add_command(cli_explain.explain_)


if __name__ == "__main__":
    main()
