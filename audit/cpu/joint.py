"""The baseline of several hosts, so that it starts on all of them; and where libvirt on one host would say otherwise.

`virsh hypervisor-cpu-baseline` answers for the host that it runs on: it knows that host's models and what blocks them
there, and nothing of the others. Here the models and blockers of every host count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from audit.cpu.arithmetic import feature_set
from audit.cpu.baselines import hypervisor_baseline
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError, IncompatibleCpus, NotComputable
from audit.cpu.hypervisor import Hypervisor
from audit.cpu.reading import X86
from audit.cpu.rules import NEWEST, Rules
from audit.cpu.sources import CpuSource
from audit.text import some_of

_MOST_ASKED = 100  # kinds of hypervisors; the cost grows with their square


def joint_baseline(
    sources: Sequence[CpuSource],
    cpu_map: CpuMap,
    *,
    as_on: CpuSource | None = None,
    features: bool = False,
    migratable: bool = False,
) -> CpuDefinition:
    """The richest CPU that starts on every source's host; with `as_on`, what virsh on that one host would print.

    `as_on` goes by that host's libvirt: its map, where there is evidence of it, its models and its rules.
    Raises as `hypervisor_baseline` does; NotComputable for other architectures than x86.
    """
    refuse_other_architectures(sources)
    if as_on is not None:
        hypervisor, cpu_map, rules = as_on.hypervisor, as_on.cpu_map or cpu_map, as_on.rules
    else:
        offered = [source.hypervisor for source in sources if source.hypervisor]
        hypervisor, rules = (Hypervisor.common(offered) if offered else None), NEWEST
    cpus = [source.cpu for source in sources]
    try:
        return hypervisor_baseline(cpus, cpu_map, hypervisor, features=features, migratable=migratable, rules=rules)
    except IncompatibleCpus:
        if as_on is not None or hypervisor is None or hypervisor.names is None:
            raise
    # There is none that every libvirt has the names for: the next best, and `notes_on` tells who will refuse it.
    hypervisor = replace(hypervisor, names=None)
    return hypervisor_baseline(cpus, cpu_map, hypervisor, features=features, migratable=migratable, rules=rules)


def refuse_other_architectures(sources: Sequence[CpuSource]) -> None:
    """Raise NotComputable unless all sources are x86: libvirt leaves the others to QEMU, or to nobody."""
    others = sorted({source.arch for source in sources} - X86)
    if not others:
        return
    arch = ", ".join(others)
    if len({source.arch for source in sources}) > 1:
        raise NotComputable(f"the sources are of several architectures: {', '.join(sorted({s.arch for s in sources}))}")
    if others != ["s390x"]:
        raise NotComputable(f"computing baseline hypervisor CPU is not supported for arch {arch}")
    equal = len({source.cpu for source in sources}) == 1
    raise NotComputable(
        f"libvirt leaves baselines of {arch} to QEMU's own tables: run virsh hypervisor-cpu-baseline on a host"
        + ("; all sources state the same CPU, so that each of them is one that all can give" if equal else "")
    )


def notes_on(sources: Sequence[CpuSource], cpu_map: CpuMap, joint: CpuDefinition, *, migratable: bool) -> list[str]:
    """What the reader of a joint baseline has to know: who would say otherwise and why, and what is not certain.

    Sources with equal answers are named together. `joint`: without `features`.
    """
    alike: dict[tuple[Hypervisor, CpuMap | None, Rules], list[CpuSource]] = {}
    for source in sources:
        if source.hypervisor is not None:
            alike.setdefault((source.hypervisor, source.cpu_map, source.rules), []).append(source)
    answers: dict[str, list[CpuSource]] = {}
    for same in list(alike.values())[:_MOST_ASKED]:
        words = _disagreement(same[0], sources, cpu_map, joint, migratable)
        answers.setdefault(words, []).extend(same)
    notes = [f"virsh on {some_of(s.name for s in same)} {words}" for words, same in answers.items() if words]
    if len(alike) > _MOST_ASKED:
        notes.append(f"of {len(alike)} kinds of hypervisors only {_MOST_ASKED} were asked what virsh there would say")
    return notes + list(doubts_on(sources, joint))


def _disagreement(
    host: CpuSource, sources: Sequence[CpuSource], cpu_map: CpuMap, joint: CpuDefinition, migratable: bool
) -> str:
    """What virsh on that host would say instead, and why; "" where it would say the same."""
    try:
        theirs = joint_baseline(sources, cpu_map, as_on=host, migratable=migratable)
    except CpuError as error:
        return f"would refuse: {error}"
    if theirs.model != joint.model:
        assert theirs.model, "a baseline has one"
        why = _why_not(theirs.model, sources) or _own_libvirt(host)
        return f"would choose {theirs.model}{why}"
    mine, other = ({f.name: f.policy for f in cpu.features} for cpu in (joint, theirs))
    changed = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
    if not changed:
        in_order = theirs.features == joint.features
        return "" if in_order else f"would list the same features in another order{_own_libvirt(host)}"
    blockers = {_who_blocks(name, joint.model or "", sources, host) for name in changed}
    why = "".join(sorted(blockers)) or _own_libvirt(host)
    gone = [name for name in changed if mine.get(name) == "disable" and name not in other]
    if gone == changed:
        return f"would not switch off {some_of(gone)}{why}"
    return f"would say otherwise of {some_of(changed)}{why}"


def _why_not(model: str, sources: Sequence[CpuSource]) -> str:
    """Who does not let the joint baseline be that model."""
    offering = [(source, source.hypervisor.find(model)) for source in sources if source.hypervisor]
    without = [source.name for source, found in offering if found is None]
    if without:
        return f", which QEMU on {some_of(without)} does not offer"
    blocking = [source.name for source, found in offering if found and found.blockers]
    return f", of which QEMU on {some_of(blocking)} cannot give everything" if blocking else ""


def _who_blocks(feature: str, model: str, sources: Sequence[CpuSource], host: CpuSource) -> str:
    blocking = [
        source.name
        for source in sources
        if source is not host
        and source.hypervisor
        and (found := source.hypervisor.find(model))
        and feature in found.blockers
    ]
    return f", which QEMU on {some_of(blocking)} cannot give" if blocking else ""


def _own_libvirt(host: CpuSource) -> str:
    version = ".".join(map(str, host.libvirt)) if host.libvirt else "of another version"
    return f": its libvirt ({version}) has another CPU map or other rules"


def doubts_on(sources: Sequence[CpuSource], joint: CpuDefinition) -> Iterator[str]:
    """What the sources leave open about this baseline of theirs."""
    doubts: dict[str, list[str]] = {}
    for source in sources:
        if source.doubt:
            doubts.setdefault(source.doubt, []).append(source.name)
    yield from (f"{some_of(names)}: {doubt}" for doubt, names in doubts.items())
    untold = [s.name for s in sources if s.hypervisor and s.hypervisor.unlisted_blockers(joint.model or "")]
    if untold:
        yield (
            f"{some_of(untold)}: QEMU cannot give all of {joint.model}, and libvirt before 10.9 does not list what is "
            "missing; virsh there may switch off more"
        )
    bare = [s.name for s in sources if s.hypervisor is None]
    if bare and len(bare) < len(sources):
        yield f"{some_of(bare)}: nothing is told of the hypervisor, which is taken to know and to give every model"
    named = {feature.name for feature in joint.features}
    for source in sources:
        names = source.hypervisor.names if source.hypervisor else None
        if names is not None and (unknown := sorted(named - names)):
            yield f"libvirt on {source.name} does not know {some_of(unknown)}, and refuses a definition that names it"


def lost_features(sources: Sequence[CpuSource], joint: CpuDefinition, cpu_map: CpuMap) -> dict[str, tuple[str, ...]]:
    """For each feature that some source has and the baseline lacks, which sources lack or block it. Map order.

    An empty tuple: no source's fault (not migratable, unknown to QEMU). Raises UnknownCpuName.
    """
    offered = {source.name: feature_set(source.cpu, cpu_map) for source in sources}
    blocked = {
        source.name: found.blockers
        for source in sources
        if source.hypervisor and (found := source.hypervisor.find(joint.model or ""))
    }
    lost = frozenset[str]().union(*offered.values()) - feature_set(joint, cpu_map)
    return {
        name: tuple(host for host, has in offered.items() if name not in has or name in blocked.get(host, frozenset()))
        for name in cpu_map.sorted(lost)
    }
