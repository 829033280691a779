"""What a cluster's baseline costs, who makes it cost that, and how the hosts had better be grouped.

Guest-visible features of some hosts: those of the baseline that is computed for them, and so of every guest that is to
move among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import and_
from typing import Literal

from audit.cpu.arithmetic import feature_set
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError
from audit.cpu.guest import psabi_level
from audit.cpu.joint import joint_baseline
from audit.cpu.sources import CpuSource

MOST_GROUPS = 4
_MOST_EXACT = 8  # kinds of hosts of which all ways to group them are tried: 2,795 ways of 255 groups
_MOST_SEARCHED = 40  # kinds of hosts that a search looks at one by one; above it, those of one CPU model together
_MOST_TRIED = 50  # kinds of hosts that are left out in turn; above it, those that alone lack something

Goal = Literal["features", "level", "guests"]
"""What a grouping is best by: features kept, x86-64 level kept, guests that can still move as they run now."""
GOALS: tuple[Goal, ...] = ("features", "level", "guests")


@dataclass(frozen=True, slots=True)
class HostKind:
    """Hosts that give guests the same: no baseline tells them apart."""

    sources: tuple[CpuSource, ...]
    features: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts."""
        return tuple(source.name for source in self.sources)


def host_kinds(sources: Sequence[CpuSource], cpu_map: CpuMap) -> tuple[HostKind, ...]:
    """The kinds of hosts, in the order of their first. Raises UnknownCpuName."""
    kinds: dict[object, list[CpuSource]] = {}
    for source in sources:
        kinds.setdefault((source.cpu, source.hypervisor, source.arch), []).append(source)
    return tuple(HostKind(tuple(same), feature_set(same[0].cpu, cpu_map)) for same in kinds.values())


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the rest of the cluster, and its baseline, gains without some hosts."""

    hosts: tuple[str, ...]
    baseline: CpuDefinition
    gained: tuple[str, ...]
    level: int


def leave_one_out(kinds: Sequence[HostKind], baseline: CpuDefinition, cpu_map: CpuMap) -> tuple[LeftOut, ...]:
    """What the cluster would gain without each kind of hosts, the most first; kinds that cost nothing are left out.

    Hosts that are equal cost the cluster what they cost together: without one of them the others still do.
    """
    if len(kinds) < 2:
        return ()
    now = feature_set(baseline, cpu_map)
    everything = frozenset[str]().union(*(kind.features for kind in kinds))
    lacking = Counter(name for kind in kinds for name in everything - kind.features)
    by_one = {name for name, number in lacking.items() if number == 1}
    found = []
    for kind in kinds:
        if len(kinds) > _MOST_TRIED and by_one <= kind.features:
            continue  # what it lacks, another one lacks too
        rest = [source for other in kinds if other is not kind for source in other.sources]
        try:
            without = joint_baseline(rest, cpu_map, migratable=True)
        except CpuError:
            continue
        has = feature_set(without, cpu_map)
        if gained := cpu_map.sorted(has - now):
            found.append(LeftOut(kind.names, without, tuple(gained), psabi_level(has)))
    return tuple(sorted(found, key=lambda out: (-len(out.gained), out.hosts)))


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts that would be a cluster of their own."""

    hosts: tuple[str, ...]
    baseline: CpuDefinition | None
    """None: these hosts have none (other vendors, nothing in common); then no guest can move among them."""
    features: int
    level: int


@dataclass(frozen=True, slots=True)
class Split:
    """A way to group the hosts, and what it keeps."""

    groups: tuple[Group, ...]
    features: float
    """Guest-visible features of a host, on average over the hosts."""
    level: float
    """Its x86-64 level, on average."""
    movable: int | None
    """Guests that could move to another host of their group, as they run now; None: no guests are known."""
    best_by: tuple[Goal, ...]
    exact: bool
    """All ways were tried; else a search for a good one."""


@dataclass(frozen=True, slots=True)
class RunningGuest:
    """A guest, and the hosts whose CPU fits it as it runs now; of its own host nothing is said."""

    host: str
    fits: frozenset[str]


def best_splits(
    kinds: Sequence[HostKind], cpu_map: CpuMap, guests: Sequence[RunningGuest] | None = None
) -> tuple[Split, ...]:
    """The best ways to part the hosts into 1 to 4 groups, by each goal; a way that is best by several is told once."""
    search = _Search(tuple(kinds) if len(kinds) <= _MOST_SEARCHED else _by_model(kinds), guests, cpu_map)
    goals = GOALS if guests else GOALS[:2]
    found: dict[tuple[int, ...], list[Goal]] = {}
    for number in range(1, min(MOST_GROUPS, len(search.kinds)) + 1):
        for goal in goals:
            parts = tuple(sorted(search.best(number, goal)))
            told = found.setdefault(parts, [])
            if goal not in told:
                told.append(goal)
    return tuple(search.split(parts, tuple(best_by)) for parts, best_by in found.items())


def _by_model(kinds: Sequence[HostKind]) -> tuple[HostKind, ...]:
    """Coarser kinds: hosts whose host-models are of one named model, with what they have in common."""
    models: dict[object, list[HostKind]] = {}
    for kind in kinds:
        models.setdefault((kind.sources[0].cpu.vendor, kind.sources[0].cpu.model), []).append(kind)
    return tuple(
        HostKind(
            tuple(source for kind in same for source in kind.sources),
            frozenset.intersection(*(kind.features for kind in same)),
        )
        for same in models.values()
    )


class _Search:
    """Groups are bit masks over the kinds; features are bit masks too, so that a group's worth is an `&`."""

    def __init__(self, kinds: tuple[HostKind, ...], guests: Sequence[RunningGuest] | None, cpu_map: CpuMap) -> None:
        self.kinds = kinds
        self._map = cpu_map
        self.guests = None if guests is None else self._fits(guests)
        self.exact = len(kinds) <= _MOST_EXACT
        names = sorted(frozenset[str]().union(*(kind.features for kind in kinds)))
        self._names = names
        self._bits = {name: 1 << place for place, name in enumerate(names)}
        self._features = [sum(self._bits[name] for name in kind.features) for kind in kinds]
        self._sizes = [len(kind.sources) for kind in kinds]
        self._vendors = [kind.sources[0].cpu.vendor for kind in kinds]
        # Where QEMUs differ, a group's baseline may be less than what its processors have in common.
        self._asks = self.exact and len({kind.sources[0].hypervisor for kind in kinds}) > 1
        self._levels: dict[int, int] = {}
        self._groups: dict[int, Group] = {}
        self._worths: dict[int, tuple[int, int, int]] = {}

    def _fits(self, guests: Iterable[RunningGuest]) -> list[tuple[int, int]]:
        """Per guest: its own kind's bit, and the kinds in which there is another host that fits it."""
        place = {name: number for number, kind in enumerate(self.kinds) for name in kind.names}
        return [
            (1 << place[guest.host], reduce(lambda mask, host: mask | 1 << place[host], guest.fits & place.keys(), 0))
            for guest in guests
            if guest.host in place
        ]

    def members(self, group: int) -> list[int]:
        """The kinds in a group."""
        return [number for number in range(len(self.kinds)) if group >> number & 1]

    def worth(self, group: int) -> tuple[int, int, int]:
        """Features and levels, each times the hosts, and the guests that can move within the group."""
        if group not in self._worths:
            members = self.members(group)
            hosts = sum(self._sizes[number] for number in members)
            moving = sum(1 for own, fits in self.guests or () if own & group and fits & group)
            features, level = self._gives(group, members)
            self._worths[group] = (features * hosts, level * hosts, moving)
        return self._worths[group]

    def _gives(self, group: int, members: list[int]) -> tuple[int, int]:
        """Features and x86-64 level of what the group's hosts have in common."""
        if self._asks:
            found = self.group(group)
            return found.features, found.level
        vendors = {self._vendors[number] for number in members} - {None}
        common = reduce(and_, (self._features[number] for number in members)) if len(vendors) < 2 else 0
        return common.bit_count(), self._level(common)

    def _level(self, common: int) -> int:
        if common not in self._levels:
            self._levels[common] = psabi_level(name for name in self._names if self._bits[name] & common)
        return self._levels[common]

    def best(self, number: int, goal: Goal) -> tuple[int, ...]:
        """The grouping into that many groups with the highest total by the goal, then by the others."""
        key = self._key(goal)
        if self.exact:
            return max(_partitions(len(self.kinds), number), key=key)
        return self._improved(self._merged(number, key), key)

    def _key(self, goal: Goal) -> Callable[[Sequence[int]], tuple[int, ...]]:
        first = GOALS.index(goal)

        def key(groups: Sequence[int]) -> tuple[int, ...]:
            totals = [sum(values) for values in zip(*map(self.worth, groups), strict=True)]
            return totals[first], *totals

        return key

    def _merged(self, number: int, key: Callable[[Sequence[int]], tuple[int, ...]]) -> tuple[int, ...]:
        """Start with each kind alone, and join the two groups that lose least, until few enough are left."""
        groups = [1 << place for place in range(len(self.kinds))]
        while len(groups) > number:
            pairs = [(a, b) for place, a in enumerate(groups) for b in groups[place + 1 :]]
            a, b = max(pairs, key=lambda pair: _gain(key, pair))
            groups = [group for group in groups if group not in (a, b)] + [a | b]
        return tuple(groups)

    def _improved(self, groups: tuple[int, ...], key: Callable[[Sequence[int]], tuple[int, ...]]) -> tuple[int, ...]:
        """Move single kinds to other groups as long as that helps."""
        best = groups
        while True:
            better = max(_moves(best, len(self.kinds)), key=key, default=best)
            if key(better) <= key(best):
                return best
            best = better

    def split(self, parts: Sequence[int], best_by: tuple[Goal, ...]) -> Split:
        """Spell a grouping out, with the groups' real baselines; the largest group first."""
        groups = sorted((self.group(part) for part in parts), key=lambda g: (-len(g.hosts), g.hosts))
        hosts = sum(len(group.hosts) for group in groups)
        moving = None if self.guests is None else sum(self.worth(part)[2] for part in parts)
        return Split(
            groups=tuple(groups),
            features=sum(group.features * len(group.hosts) for group in groups) / hosts,
            level=sum(group.level * len(group.hosts) for group in groups) / hosts,
            movable=moving,
            best_by=best_by,
            exact=self.exact,
        )

    def group(self, part: int) -> Group:
        """The group with its baseline."""
        if part not in self._groups:
            sources = [source for number in self.members(part) for source in self.kinds[number].sources]
            names = tuple(source.name for source in sources)
            try:
                cpu = joint_baseline(sources, self._map, migratable=True)
                has = feature_set(cpu, self._map)
                self._groups[part] = Group(names, cpu, len(has), psabi_level(has))
            except CpuError:
                self._groups[part] = Group(names, None, 0, 0)
        return self._groups[part]


def _gain(key: Callable[[Sequence[int]], tuple[int, ...]], pair: tuple[int, int]) -> tuple[int, ...]:
    """What joining two groups brings (most often: costs)."""
    joined, apart = key((pair[0] | pair[1],)), key(pair)
    return tuple(after - before for after, before in zip(joined, apart, strict=True))


def _partitions(count: int, number: int) -> Iterator[tuple[int, ...]]:
    """All ways to part `count` things into `number` groups that are not empty."""

    def place(thing: int, groups: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(groups) + count - thing < number:
            return
        if thing == count:
            yield groups
            return
        for at, group in enumerate(groups):
            yield from place(thing + 1, (*groups[:at], group | 1 << thing, *groups[at + 1 :]))
        if len(groups) < number:
            yield from place(thing + 1, (*groups, 1 << thing))

    return place(0, ())


def _moves(groups: tuple[int, ...], count: int) -> Iterator[tuple[int, ...]]:
    """All groupings that differ by one thing in another group."""
    for thing in range(count):
        bit = 1 << thing
        for source, group in enumerate(groups):
            if not group & bit or group == bit:
                continue
            for target in range(len(groups)):
                if target != source:
                    moved = list(groups)
                    moved[source] ^= bit
                    moved[target] |= bit
                    yield tuple(moved)


@dataclass(frozen=True)
class HostSide:
    """What may explain why a host gives guests less than others: its processor, and the software on it."""

    processor: str = ""
    """Vendor, family, model and stepping; "" when not known."""
    flags: frozenset[str] = frozenset()
    """What the kernel lists of the processor's features, in its own spelling."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Microcode, kernel, kernel arguments, QEMU, libvirt, firmware, by name; what is not known is left out."""

    @cached_property
    def spelled(self) -> frozenset[str]:
        """The flags in a spelling that libvirt's names can be looked up in."""
        return frozenset(_plain(_KERNEL_NAMES.get(flag, flag)) for flag in self.flags)


# Kernel names that differ from libvirt's by more than dots, dashes and underscores.
_KERNEL_NAMES = {
    "pclmulqdq": "pclmuldq",
    "tsc_deadline_timer": "tsc-deadline",
    "nonstop_tsc": "invtsc",
}


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").replace(".", "")


KERNEL_ARGUMENTS = "kernel arguments"
"""What a HostSide's software calls them."""

Cause = Literal["silicon", "software", "hypervisor", "unknown"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a host does not give a feature that another one gives."""

    cause: Cause
    words: str


def why_lacking(feature: str, host: str, having: Sequence[str], sides: Mapping[str, HostSide]) -> Reason:
    """Say why `host` lacks a feature that the hosts in `having` give to guests.

    Same processor and yet different is software; then what differs is named, as far as it was read. A feature that
    the host's kernel lists is withheld by what stands between processor and guest. One that the other hosts' kernels
    list and this one's does not, is the processor's or its firmware's. Many features kernels never list (those of
    registers and of nested virtualization): where they come from cannot be told.
    """
    mine = sides.get(host)
    if mine is None or not mine.processor:
        return Reason("unknown", "the source does not tell which processor it is: audit the host")
    twins = [name for name in having if name in sides and sides[name].processor == mine.processor]
    if twins:
        return Reason("software", _software(mine, twins[0], sides[twins[0]]))
    name = _plain(feature)
    if name in mine.spelled:
        return Reason("hypervisor", "the processor has it; kernel, QEMU or libvirt do not give it to guests")
    arguments = mine.software.get(KERNEL_ARGUMENTS, "")
    if "clearcpuid=" in arguments:
        return Reason("unknown", f"another processor ({mine.processor}), or the kernel's arguments: {arguments}")
    if any(name in sides[other].spelled for other in having if other in sides):
        return Reason("silicon", f"the processor ({mine.processor}) does not have it, or its firmware switches it off")
    return Reason("unknown", f"processor ({mine.processor}), microcode, kernel or QEMU: no kernel lists it")


def _software(mine: HostSide, twin: str, theirs: HostSide) -> str:
    differing = [
        f"{name} {here or 'none'} (there {theirs.software[name] or 'none'})"
        for name, here in mine.software.items()
        if name in theirs.software and here != theirs.software[name]
    ]
    what = "; ".join(differing) or "nothing else that was read differs, which leaves firmware settings"
    return f"the same processor as {twin}, which gives it: {what}"
