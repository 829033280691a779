"""What a cluster's baseline means for its hosts and guests, in the shape that results.json has.

The reckoning is `audit.cpu.advice`'s; here it is given what the hosts and guests told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from audit.cpu import CpuDefinition, CpuMap, CpuSource, feature_set, lost_features, psabi_level
from audit.cpu.advice import (
    KERNEL_ARGUMENTS,
    Group,
    HostKind,
    HostSide,
    Reason,
    RunningGuest,
    Split,
    best_splits,
    host_kinds,
    leave_one_out,
    why_lacking,
)
from audit.facts.base import Facts, HostFact, Unavailable
from audit.facts.cpu import HostCpu, Microcode, Processor
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.host_models import HostModels
from audit.facts.versions import Bios, Kernel, KernelArguments, Libvirt, Qemu
from audit.guest_advice import Evidence, GuestsAdvice, by_weight, guests_advice
from audit.results import (
    Advice,
    FeatureRow,
    GroupResult,
    GuestCpuAdvice,
    HostKindResult,
    LeftOutResult,
    LostFeatures,
    SplitResult,
    WhyLost,
)

FACTS = (HostModels, CpuMapFiles, Libvirt, Processor, HostCpu, Microcode, Kernel, KernelArguments, Qemu, Bios)
"""What is read of hosts, here and for the baseline itself."""

_LEAST_LEVEL = 2


def advice_on(
    sources: Sequence[CpuSource],
    baseline: CpuDefinition,
    cpu_map: CpuMap,
    evidence: Evidence | None = None,
) -> Advice:
    """All advice on the sources' baseline; without `evidence` (files, no bundle) what they do not tell is unknown.

    `baseline`: the migratable one, which guests are to be given. Raises UnknownCpuName.
    """
    kinds = host_kinds(sources, cpu_map)
    has = feature_set(baseline, cpu_map)
    level = psabi_level(has)
    hosts = [source.name for source in sources]
    guests, unread = guests_advice(hosts, baseline, cpu_map, evidence) if evidence else GuestsAdvice([], {})
    judged = [g for g in guests if g["effect"] in ("has it", "power cycle", "transient")]
    known = [RunningGuest(g["host"], _fits(g, hosts)) for g in judged]
    count = None if evidence is None or unread else known
    return Advice(
        features=len(has),
        level=level,
        warning=level_warning(level),
        kinds=[_kind(kind) for kind in kinds],
        matrix=_matrix(kinds, has),
        lost=_lost(sources, baseline, cpu_map, _sides(sources, evidence.facts) if evidence else {}),
        left_out=[
            LeftOutResult(
                hosts=list(out.hosts),
                model=out.baseline.model or "",
                level=out.level,
                gained=by_weight(out.gained),
            )
            for out in leave_one_out(kinds, baseline, cpu_map)
        ],
        splits=[_split(split) for split in best_splits(kinds, cpu_map, count)],
        guests=guests,
        unread=unread,
    )


def level_warning(level: int) -> str:
    """What a baseline of that x86-64 level does to guests; "" from the second level on."""
    if level >= _LEAST_LEVEL:
        return ""
    reached = f"reaches x86-64-v{level} only" if level else "does not even reach x86-64-v1"
    return f"The baseline {reached}: systems built for x86-64-v2 (RHEL 9 and its like) do not start on it."


# Hosts ----------------------------------------------------------------------------------------------------


def _kind(kind: HostKind) -> HostKindResult:
    cpu = kind.sources[0].cpu
    return HostKindResult(
        hosts=list(kind.names),
        model=cpu.model or "",
        features=len(kind.features),
        level=psabi_level(kind.features),
    )


def _matrix(kinds: Sequence[HostKind], baseline: frozenset[str]) -> list[FeatureRow]:
    """Features that not all give or the baseline lacks; those that the same hosts give share a row."""
    rows: dict[tuple[bool, ...], list[str]] = {}
    for name in by_weight(frozenset[str]().union(*(kind.features for kind in kinds))):
        given = tuple(name in kind.features for kind in kinds)
        if not all(given) or name not in baseline:
            rows.setdefault((*given, name in baseline), []).append(name)
    found = [FeatureRow(features=names, given=list(row[:-1]), baseline=row[-1]) for row, names in rows.items()]
    return sorted(found, key=lambda row: (-_giving(row, kinds), row["features"]))


def _giving(row: FeatureRow, kinds: Sequence[HostKind]) -> int:
    return sum(len(kind.sources) for kind, gives in zip(kinds, row["given"], strict=True) if gives)


def _sides(sources: Sequence[CpuSource], facts: Facts) -> dict[str, HostSide]:
    return {source.name: _side(source.name, facts) for source in sources}


_SOFTWARE: tuple[tuple[str, type[HostFact], Callable[[Any], str]], ...] = (
    ("microcode", Microcode, str),
    ("kernel", Kernel, lambda fact: fact.release),
    (KERNEL_ARGUMENTS, KernelArguments, lambda fact: " ".join(sorted(fact.cpu_words))),
    ("QEMU", Qemu, lambda fact: str(fact.version or "none")),
    ("libvirt", Libvirt, lambda fact: str(fact.daemon)),
    ("firmware", Bios, lambda fact: f"{fact.version or ''} {fact.date or ''}".strip()),
)


def _side(host: str, facts: Facts) -> HostSide:
    processor = facts.of(host, Processor)
    if isinstance(processor, Unavailable):
        return HostSide()
    software: dict[str, str] = {}
    for name, kind, say in _SOFTWARE:
        fact = facts.of(host, kind)
        if not isinstance(fact, Unavailable):
            software[name] = say(fact)
    return HostSide(processor.identity, processor.flags, software)


def _lost(
    sources: Sequence[CpuSource], baseline: CpuDefinition, cpu_map: CpuMap, sides: Mapping[str, HostSide]
) -> list[LostFeatures]:
    """Lost features by the hosts that lack them and by why; the longest list first."""
    grouped: dict[tuple[tuple[str, ...], tuple[_Because, ...]], list[str]] = {}
    offering = {source.name: feature_set(source.cpu, cpu_map) for source in sources}
    for name, lacking in lost_features(sources, baseline, cpu_map).items():
        without = frozenset(lacking)
        having = [host for host, has in offering.items() if name in has and host not in without]
        grouped.setdefault((lacking, tuple(_reasons(name, lacking, having, offering, sides))), []).append(name)
    return [
        LostFeatures(
            features=by_weight(names),
            hosts=list(hosts),
            why=[WhyLost(hosts=list(one.hosts), cause=one.reason.cause, words=one.reason.words) for one in why],
        )
        for (hosts, why), names in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0][0], item[1]))
    ]


class _Because(NamedTuple):
    """Hosts with the same reason."""

    hosts: tuple[str, ...]
    reason: Reason


_NOBODY = Reason("hypervisor", "QEMU does not migrate it, or switches it off with the model")
_BLOCKED = Reason("hypervisor", "QEMU there calls it unavailable for the baseline's model")


def _reasons(
    name: str,
    lacking: Sequence[str],
    having: Sequence[str],
    offering: Mapping[str, frozenset[str]],
    sides: Mapping[str, HostSide],
) -> Iterator[_Because]:
    """Why each of the hosts in `lacking` lacks it."""
    if not lacking:
        yield _Because((), _NOBODY)
    told: dict[Reason, list[str]] = {}
    for host in lacking:
        reason = _BLOCKED if name in offering[host] else why_lacking(name, host, having, sides)
        told.setdefault(reason, []).append(host)
    for reason, hosts in told.items():
        yield _Because(tuple(hosts), reason)


def _split(split: Split) -> SplitResult:
    return SplitResult(
        groups=[_group(group) for group in split.groups],
        features=round(split.features, 1),
        level=round(split.level, 2),
        movable=split.movable,
        best_by=list(split.best_by),
        exact=split.exact,
    )


def _group(group: Group) -> GroupResult:
    return GroupResult(
        hosts=list(group.hosts),
        model=group.baseline.model if group.baseline else None,
        features=group.features,
        level=group.level,
        cpu_xml=group.baseline.to_xml() if group.baseline else None,
    )


def _fits(advice: GuestCpuAdvice, hosts: Sequence[str]) -> frozenset[str]:
    """The other hosts that its CPU fits."""
    return frozenset(hosts) - {advice["host"], *advice["blocked"], *advice["unproved"]}
