"""The commands on CPUs: `baseline` and `compare`. What virsh prints goes to standard output, all else to the other."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from audit.advice import advice_on, level_warning
from audit.baselines import Cluster, choose_map, cluster_sources, find_cluster
from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuMap,
    CpuSource,
    IncompatibleCpus,
    NotComputable,
    Verdict,
    compare_with,
    feature_set,
    find_source,
    joint_baseline,
    notes_on,
    psabi_level,
    read_sources,
    remedy,
)
from audit.cpu.cpumap import CARRIED
from audit.cpu.rules import Version as LibvirtVersion
from audit.evaluate import cpu_barriers
from audit.evidence import Bundle
from audit.explain import explained
from audit.facts.versions import Version
from audit.guest_advice import Evidence
from audit.judge import discover
from audit.text import visible

UNREADABLE, REFUSED, CANNOT_SAY = 2, 3, 5
_STDIN = Path("-")

_path = click.Path(path_type=Path, allow_dash=True)
_cpu_map = click.option(
    "--cpu-map",
    metavar="DIR|RELEASE",
    help=f"Compute with the cpu_map folder of a libvirt, or with a map carried here: {', '.join(CARRIED)}.",
)


@click.command()
@click.argument("sources", nargs=-1, required=True, type=_path, metavar="SOURCE...")
@click.option("--features", is_flag=True, help="Also list the features that the model includes.")
@click.option("--migratable", is_flag=True, help="Leave out features that block migration.")
@click.option("--cluster", metavar="NAME", help="Of a bundle with several clusters: which one.")
@click.option("--as-on", metavar="HOST", help="What virsh on that one host (or on that file's host) would print.")
@click.option("--explain", is_flag=True, help="Tell who costs what, how to group hosts, what it means for guests.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON: cpu_xml, notes, advice.")
@_cpu_map
def baseline(
    sources: tuple[Path, ...],
    features: bool,
    migratable: bool,
    cluster: str | None,
    as_on: str | None,
    explain: bool,
    as_json: bool,
    cpu_map: str | None,
) -> int:
    """Print the CPU that all CPUs in the sources can give, as `virsh hypervisor-cpu-baseline` prints it.

    A source is a file of <cpu>, <domainCapabilities>, <capabilities> or <domain> elements, libvirt's cache of a
    QEMU's capabilities, `-` for standard input, or a bundle. Exit status: 2 unreadable, 3 incompatible CPUs.
    """
    if as_on and (explain or as_json):
        raise click.UsageError("--as-on is what one host would say; --explain and --json are about all of them")
    clusters = [find_cluster(Bundle.read(source), cluster) for source in sources if source.is_dir()]
    if cluster and not clusters:
        raise click.UsageError("--cluster goes with a bundle")
    try:
        told, chosen = _told(sources, clusters, cpu_map)
        host = find_source(told, as_on) if as_on else None
        result = joint_baseline(told, chosen, as_on=host, features=features, migratable=migratable)
        plain = joint_baseline(told, chosen, migratable=migratable) if features else result
        notes = [] if as_on else notes_on(told, chosen, plain, migratable=migratable)
    except CpuError as error:
        return _refused(error)
    if not (as_json or explain):
        notes += filter(None, [level_warning(psabi_level(feature_set(plain, chosen)))])
        _print(result.to_xml(), [f"note: {note}" for note in notes], err=True)
        return 0
    advice = advice_on(told, joint_baseline(told, chosen, migratable=True), chosen, _evidence(sources, clusters))
    if as_json:
        found = {"cpu_xml": result.to_xml(), "engine": chosen.version, "notes": notes, "advice": advice}
        click.echo(json.dumps(found, indent=1))
    else:
        _print(result.to_xml(), [f"Computed with the CPU map of {chosen.version}", *explained(advice, notes)])
    return 0


def _print(xml: str, lines: Iterable[str], *, err: bool = False) -> None:
    """The result as virsh prints it, then what people are told, defused."""
    click.echo(xml)
    for line in lines:
        click.echo(visible(line, 4000), err=err)


def _evidence(sources: Sequence[Path], clusters: Sequence[Cluster]) -> Evidence | None:
    """What a bundle tells beyond its hosts' CPUs; None for files, and for a mixture."""
    if not len(clusters) == len(sources) == 1:
        return None
    [cluster] = clusters
    return Evidence(cluster.facts, cpu_barriers(cluster, discover()), cluster_sources(cluster).virttype, {})


@click.command()
@click.argument("target", type=_path, metavar="TARGET")
@click.argument("cpu", type=_path, metavar="CPU-XML")
@click.option("--host", metavar="NAME", help="Of a bundle: which host is the target.")
@click.option("--libvirt", metavar="VERSION", help="The target's libvirt; by default what the source gives away of it.")
@_cpu_map
def compare(target: Path, cpu: Path, host: str | None, libvirt: str | None, cpu_map: str | None) -> int:
    """Say whether the target can give that CPU, as `virsh hypervisor-cpu-compare` says it on the target.

    The first line is identical, superset or incompatible; then come the missing features. Where the target is no
    domcapabilities, capabilities cache or bundle, it is compared as `virsh cpu-compare` does. What would make an
    incompatible CPU pass goes to standard error. Exit status: 3 incompatible, 5 where only QEMU knows.
    """
    clusters = [find_cluster(Bundle.read(target), None)] if target.is_dir() else []
    try:
        told, chosen = _told((target,), clusters, cpu_map)
        there = find_source(told, host) if host else _only(told, target)
        if libvirt:
            there = _with_libvirt(there, libvirt)
        asked = read_sources(_bytes(cpu), cpu.name, chosen)[0].cpu
        found = compare_with(there, asked, chosen)
    except IncompatibleCpus as error:
        return _refused(error)
    click.echo(found.verdict.value)
    for name in found.missing:
        click.echo(visible(name))
    if found.reason and not found.missing:
        click.echo(f"error: {visible(found.reason, 1000)}", err=True)
    if found.verdict is Verdict.INCOMPATIBLE:
        _tell_remedy(there, asked, chosen)
        return REFUSED
    return CANNOT_SAY if found.verdict is Verdict.UNKNOWN else 0


def _refused(error: CpuError) -> int:
    """libvirt's words, and the status that goes with them."""
    click.echo(f"error: {visible(error.words, 1000)}", err=True)
    if isinstance(error, IncompatibleCpus):
        return REFUSED
    return CANNOT_SAY if isinstance(error, NotComputable) else UNREADABLE


def _told(sources: Sequence[Path], clusters: Sequence[Cluster], wanted: str | None) -> tuple[list[CpuSource], CpuMap]:
    """All CPUs of the sources, in their order, and the map to compute with."""
    of_bundles = iter([cluster_sources(cluster).sources for cluster in clusters])
    texts = [(next(of_bundles) if path.is_dir() else _bytes(path), _name(path, sources)) for path in sources]

    def read(cpu_map: CpuMap) -> list[CpuSource]:
        return [
            source
            for text, name in texts
            for source in (read_sources(text, name, cpu_map) if isinstance(text, bytes) else text)
        ]

    if wanted:
        chosen = _map(wanted)
        return read(chosen), chosen
    told = read(CpuMap.carried())
    chosen, _ = choose_map(told, CpuMap.local())
    return read(chosen), chosen  # once more: host-models of capabilities caches are decoded with the map


def _name(source: Path, sources: Sequence[Path]) -> str:
    """What to call a file's host: the file's name, if no other file has it."""
    alone = sum(other.name == source.name for other in sources) == 1
    return source.name if alone else str(source)


def _map(wanted: str) -> CpuMap:
    if wanted in CARRIED:
        return CpuMap.carried(wanted)
    return CpuMap.from_folder(wanted, wanted)


def _only(told: Sequence[CpuSource], target: Path) -> CpuSource:
    """The first CPU of a file, as virsh takes it; of a bundle the only host."""
    if target.is_dir() and len(told) > 1:
        raise click.UsageError(f"--host: which of {', '.join(source.name for source in told)}?")
    return told[0]


def _with_libvirt(source: CpuSource, text: str) -> CpuSource:
    try:
        version: LibvirtVersion = Version.read(text)
    except ValueError as error:
        raise click.UsageError(f"--libvirt: {error}") from error
    return replace(source, libvirt=version)


def _tell_remedy(target: CpuSource, cpu: CpuDefinition, cpu_map: CpuMap) -> None:
    found = remedy(target, cpu, cpu_map)
    click.echo(f"to pass: {visible(found.words, 1000)}", err=True)
    if found.cpu:
        for line in found.cpu.to_xml().splitlines():
            click.echo(visible(line, 4000), err=True)


def _bytes(source: Path) -> bytes:
    if source == _STDIN:
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{source}: {error.strerror}") from error
