"""The commands on CPUs: `baseline` and `compare`. What virsh prints goes to standard output, all else to the other."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from audit.advice import advice_on, level_warning
from audit.baselines import Cluster, Told, choose_map, cluster_sources, find_cluster, maps_at_hand
from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuMap,
    CpuSource,
    IncompatibleCpus,
    NotComputable,
    Verdict,
    compare_with,
    expand,
    feature_set,
    find_source,
    joint_baseline,
    notes_on,
    psabi_level,
    read_sources,
    remedy,
)
from audit.cpu.cpumap import CARRIED
from audit.cpu.joint import doubts_on
from audit.evaluate import cpu_barriers
from audit.evidence import Bundle
from audit.explain import explained
from audit.facts.versions import Version
from audit.guest_advice import Evidence
from audit.judge import discover
from audit.text import XML_LIMIT, visible

UNREADABLE, REFUSED, CANNOT_SAY = 2, 3, 5
_STDIN = Path("-")
_LIKE_THE_CARRIED = (10, 10, 0)
"""Since then libvirt has the models, and the order of features, of the newest carried map."""

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
    QEMU's capabilities, `-` for standard input, or a bundle. Exit status: 2 unreadable, 3 incompatible CPUs, 5
    where only QEMU knows.
    """
    if as_on and (explain or as_json):
        raise click.UsageError("--as-on is what one host would say; --explain and --json are about all of them")
    try:
        asked = _asked(sources, cluster, cpu_map, features=features, migratable=migratable)
        if as_on:
            return _answer_as_on(asked, _meant(as_on, sources), chosen=cpu_map is not None)
        if explain or as_json:
            return _advise(asked, as_json=as_json)
        xml, notes = asked.answer()
    except CpuError as error:
        return _refused(error)
    _print(xml, [f"note: {note}" for note in notes], err=True)
    return 0


class _OfBundle(NamedTuple):
    """A bundle's cluster, and what its hosts told."""

    cluster: Cluster
    told: Told

    def evidence(self) -> Evidence:
        """What it tells beyond its hosts' CPUs; all checks are made for it."""
        return Evidence(self.cluster.facts, cpu_barriers(self.cluster, discover()), self.told.virttype, {})


@dataclass(frozen=True)
class _Asked:
    """A question for a baseline."""

    sources: Sequence[CpuSource]
    cpu_map: CpuMap
    features: bool
    migratable: bool
    bundle: _OfBundle | None
    """Where the sources are just one bundle's."""

    def answer(self) -> tuple[str, list[str]]:
        """What virsh prints, and what to note about it. Raises CpuError."""
        plain = joint_baseline(self.sources, self.cpu_map, migratable=self.migratable)
        notes = notes_on(self.sources, self.cpu_map, plain, migratable=self.migratable)
        warning = level_warning(psabi_level(feature_set(plain, self.cpu_map)))
        result = expand(plain, self.cpu_map) if self.features else plain
        return result.to_xml(), [*notes, warning] if warning else notes

    def advised(self) -> dict[str, Any]:
        """The answer with all advice, as JSON values. Raises CpuError."""
        xml, notes = self.answer()
        given = joint_baseline(self.sources, self.cpu_map, migratable=True)
        if not self.migratable and given != joint_baseline(self.sources, self.cpu_map):
            notes.append("the advice is about the baseline with --migratable, which is the one to give to guests")
        evidence = self.bundle.evidence() if self.bundle else None
        advice = advice_on(self.sources, given, self.cpu_map, evidence)
        return {"cpu_xml": xml, "engine": self.cpu_map.version, "notes": notes, "advice": advice}


def _answer_as_on(asked: _Asked, name: str, *, chosen: bool) -> int:
    """One host's answer, by its libvirt's map: where there is no evidence of it, the one that its list follows."""
    host = find_source(asked.sources, name)
    cpu_map = asked.cpu_map if chosen else choose_map([host], CpuMap.local())[0]
    result = joint_baseline(asked.sources, cpu_map, as_on=host, features=asked.features, migratable=asked.migratable)
    doubts = list(doubts_on([host], result))
    if not chosen and host.cpu_map is None and host.libvirt and host.libvirt < _LIKE_THE_CARRIED:
        doubts.append(
            f"nothing tells which CPU map libvirt on {host.name} goes by: this is by that of {cpu_map.version}, "
            "--cpu-map chooses another"
        )
    _print(result.to_xml(), [f"note: {doubt}" for doubt in doubts], err=True)
    return 0


def _advise(asked: _Asked, *, as_json: bool) -> int:
    """The answer and all advice; where vendors differ, for each of them, and libvirt's refusal."""
    try:
        found, refusal = [asked.advised()], None
    except IncompatibleCpus as error:
        vendors = {source.cpu.vendor for source in asked.sources}
        if len(vendors) == 1:
            raise
        groups = [[s for s in asked.sources if s.cpu.vendor == one] for one in sorted(vendors, key=str)]
        found, refusal = [replace(asked, sources=group).advised() for group in groups], error
    if as_json:
        whole = {"problem": refusal.words, "vendors": found} if refusal else found[0]
        click.echo(json.dumps(whole, indent=1))
    else:
        for one in found:
            head = f"Computed with the CPU map of {one['engine']}"
            _print(one["cpu_xml"], [head, *explained(one["advice"], one["notes"]), ""])
    return _refused(refusal) if refusal else 0


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
    if target == cpu == _STDIN:
        raise click.ClickException("standard input can be given once")
    try:
        reading = _read((target,), None, host, cpu_map)
        there = find_source(reading.sources, host) if host else _only(reading.sources, target)
        if libvirt:
            there = replace(there, libvirt=_version(libvirt))
        asked = read_sources(_bytes(cpu), cpu.name, reading.cpu_map)[0].cpu
        found = compare_with(there, asked, reading.cpu_map)
    except CpuError as error:
        return _refused(error)
    click.echo(found.verdict.value)
    for name in found.missing:
        click.echo(visible(name))
    if found.reason and not found.missing:
        click.echo(f"error: {visible(found.reason, 1000)}", err=True)
    if found.verdict is Verdict.INCOMPATIBLE:
        _tell_remedy(there, asked, reading.cpu_map)
        return REFUSED
    return CANNOT_SAY if found.verdict is Verdict.UNKNOWN else 0


def _tell_remedy(target: CpuSource, cpu: CpuDefinition, cpu_map: CpuMap) -> None:
    found = remedy(target, cpu, cpu_map)
    lines = [f"to pass: {found.words}", *(found.cpu.to_xml().splitlines() if found.cpu else [])]
    for line in lines:
        click.echo(visible(line, 4000), err=True)


def _print(xml: str, lines: Iterable[str], *, err: bool = False) -> None:
    """The result as virsh prints it, then what people are told, defused."""
    click.echo(xml)
    for line in lines:
        click.echo(visible(line, 4000), err=err)


def _refused(error: CpuError) -> int:
    """libvirt's words, and the status that goes with them."""
    click.echo(f"error: {visible(error.words, 1000)}", err=True)
    if isinstance(error, IncompatibleCpus):
        return REFUSED
    return CANNOT_SAY if isinstance(error, NotComputable) else UNREADABLE


# Reading ---------------------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """All CPUs of the sources, in their order, the map to compute with, and the bundles."""

    sources: list[CpuSource]
    cpu_map: CpuMap
    bundles: list[_OfBundle]


def _asked(
    paths: Sequence[Path], cluster: str | None, wanted: str | None, *, features: bool, migratable: bool
) -> _Asked:
    reading = _read(paths, cluster, None, wanted)
    if cluster and not reading.bundles:
        raise click.UsageError("--cluster goes with a bundle")
    only = reading.bundles[0] if len(reading.bundles) == len(paths) == 1 else None
    return _Asked(reading.sources, reading.cpu_map, features, migratable, only)


def _read(paths: Sequence[Path], cluster: str | None, host: str | None, wanted: str | None) -> _Reading:
    if list(paths).count(_STDIN) > 1:
        raise click.ClickException("standard input can be given once")
    clusters = [find_cluster(Bundle.read(path), cluster, host) for path in paths if path.is_dir()]
    if host:  # what the cluster's other hosts did not tell is no matter of this one's
        clusters = [one._replace(hosts=(host,)) for one in clusters]
    bundles = [_OfBundle(one, cluster_sources(one)) for one in clusters]
    of_bundles = iter(bundles)
    texts = [(next(of_bundles).told.sources if path.is_dir() else _bytes(path), _name(path, paths)) for path in paths]
    given = _map(wanted) if wanted else None
    local = CpuMap.local()
    maps = [] if given else maps_at_hand(local)

    def read(cpu_map: CpuMap) -> list[CpuSource]:
        found: list[CpuSource] = []
        for text, name in texts:
            found += read_sources(text, name, cpu_map, maps) if isinstance(text, bytes) else text
        return found

    sources = read(given or maps[0])
    if given:
        return _Reading(sources, given, bundles)
    chosen, _ = choose_map(sources, local)
    if chosen is not maps[0]:
        sources = read(chosen)  # once more: the map decodes host-models of caches that tell no map of their own
    return _Reading(sources, chosen, bundles)


def _name(path: Path, paths: Sequence[Path]) -> str:
    """What to call a file's host: the file's name, if no other file has it."""
    alike = {other for other in paths if other.name == path.name}
    return path.name if len(alike) == 1 else str(path)


def _meant(name: str, paths: Sequence[Path]) -> str:
    """A path as it was typed stands for its source."""
    return next((_name(path, paths) for path in paths if path == Path(name)), name)


def _map(wanted: str) -> CpuMap:
    if wanted in CARRIED:
        return CpuMap.carried(wanted)
    if not Path(wanted).is_dir():
        raise click.ClickException(f"--cpu-map {wanted}: neither a folder nor one of {', '.join(CARRIED)}")
    return CpuMap.from_folder(wanted, wanted)


def _only(told: Sequence[CpuSource], target: Path) -> CpuSource:
    """The first CPU of a file, as virsh takes it; of a bundle the only host."""
    if target.is_dir() and len(told) > 1:
        raise click.ClickException(f"--host: which of {', '.join(source.name for source in told)}?")
    return told[0]


def _version(text: str) -> Version:
    try:
        return Version.read(text)
    except ValueError as error:
        raise click.ClickException(f"--libvirt: {error}") from error


def _bytes(source: Path) -> bytes:
    """The whole of a file or of standard input; of one that is too large so much that the parser will refuse it."""
    try:
        if source == _STDIN:
            return sys.stdin.buffer.read(XML_LIMIT + 1)
        with source.open("rb") as file:
            return file.read(XML_LIMIT + 1)
    except OSError as error:
        raise click.ClickException(f"{source}: {error.strerror}") from error
