"""Memory: how much there is, huge pages, NUMA cells and their CPUs, the cgroup version."""

import re
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.cpu import CAPABILITIES
from audit.text import visible

MEMINFO = Probe("memory.meminfo", "cat /proc/meminfo")
OVERCOMMIT = Probe("memory.overcommit", "cat /proc/sys/vm/overcommit_memory")

# Where a page size is there, its files are; a pattern that matches nothing is silently skipped.
HUGEPAGES = Probe(
    "memory.hugepages",
    """
[ -d /sys/kernel/mm ] || exit 1
cd /sys || exit
for file in kernel/mm/hugepages/hugepages-*/*_hugepages devices/system/node/node*/hugepages/hugepages-*/*_hugepages
do
    [ ! -r "$file" ] || echo "$file:$(cat "$file")"
done
echo end
""",
    hand="grep -r . /sys/kernel/mm/hugepages /sys/devices/system/node/node*/hugepages",
)

NODES = Probe(
    "memory.nodes",
    """
cd /sys/devices/system/node 2>/dev/null || { echo absent; exit 0; }
for file in node[0-9]*/cpulist node[0-9]*/distance; do echo "$file:$(cat "$file")" || exit; done
for file in node[0-9]*/meminfo; do echo "$file:$(sed -n 's/.*MemTotal: *//p' "$file")" || exit; done
echo end
""",
    hand="grep . /sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/meminfo",
)

CGROUP = Probe("memory.cgroup", "stat -f -c %T /sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory(HostFact):
    """The host's memory now."""

    probes: ClassVar[tuple[Probe, ...]] = (MEMINFO,)
    total_kib: int
    available_kib: int
    """What can be had without swapping: MemAvailable; pages of the huge page pools are not in it."""
    swap_total_kib: int
    swap_free_kib: int

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From /proc/meminfo."""
        kib = meminfo(said.text(MEMINFO))
        if "MemAvailable" not in kib:
            raise Unavailable(MEMINFO, "no MemAvailable (kernel before 3.14)")
        return cls(kib["MemTotal"], kib["MemAvailable"], kib["SwapTotal"], kib["SwapFree"])


@dataclass(frozen=True, slots=True)
class Overcommit(HostFact):
    """How much memory the kernel lets a program ask for at once, used or not."""

    probes: ClassVar[tuple[Probe, ...]] = (OVERCOMMIT, MEMINFO)
    mode: int
    """vm.overcommit_memory: 0 = all that there is, swap space included; 1 = anything; 2 = what is left of a limit."""
    most_kib: int | None
    """None: there is no limit."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """By the kernel's __vm_enough_memory (mm/util.c)."""
        mode = int(said.text(OVERCOMMIT))
        kib = meminfo(said.text(MEMINFO))
        if mode not in {0, 1, 2}:
            raise Unavailable(OVERCOMMIT, f"not understood: {mode}")
        if mode == 1:
            return cls(mode, None)
        if mode == 0:
            return cls(mode, kib["MemTotal"] + kib["SwapTotal"])
        return cls(mode, max(0, kib["CommitLimit"] - kib["Committed_AS"]))


def meminfo(text: str) -> dict[str, int]:
    """The numbers of /proc/meminfo, in KiB where they are sizes."""
    return {m[1]: int(m[2]) for m in re.finditer(r"^([A-Za-z0-9_()]+):\s+(\d+)(?: kB)?\s*$", text, re.MULTILINE)}


class Pool(NamedTuple):
    """Huge pages of one size, of the whole host (`node` None) or of one NUMA node."""

    size_kib: int
    node: int | None
    total: int
    free: int
    reserved: int
    """Free pages already promised to somebody; known for the whole host only, 0 for a node."""
    surplus_possible: int
    """Pages that the kernel may add on demand, if it finds memory; for the whole host only."""


@dataclass(frozen=True, slots=True)
class HugePages(HostFact):
    """The pools of huge pages."""

    probes: ClassVar[tuple[Probe, ...]] = (HUGEPAGES, MEMINFO)
    default_kib: int | None
    """None: the kernel has no huge pages."""
    pools: tuple[Pool, ...]

    @property
    def sizes_kib(self) -> tuple[int, ...]:
        """The page sizes that the host has, with or without pages in them."""
        return tuple(sorted({pool.size_kib for pool in self.pools}))

    def pool(self, size_kib: int, node: int | None = None) -> Pool | None:
        """That pool; None: no such size, or no such node."""
        return next((p for p in self.pools if (p.size_kib, p.node) == (size_kib, node)), None)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the files in /sys, one a line."""
        lines = said.lines(HUGEPAGES)
        if not lines or lines[-1] != "end":
            raise Unavailable(HUGEPAGES, "answer is incomplete")
        counts: dict[tuple[int, int | None], dict[str, int]] = {}
        for line in lines[:-1]:
            match = re.search(r"(?:/node(\d+)/hugepages|mm/hugepages)/hugepages-(\d+)kB/(\w+)_hugepages:(\d+)$", line)
            if match:
                node = None if match[1] is None else int(match[1])
                counts.setdefault((int(match[2]), node), {})[match[3]] = int(match[4])
            elif not re.search(r"/\w+:", line):
                raise ValueError(f"not a count of huge pages: {visible(line, 120)}")
        pools = [_pool(size, node, count) for (size, node), count in counts.items()]
        default = meminfo(said.text(MEMINFO)).get("Hugepagesize")
        if (default is None) != (not pools):
            raise Unavailable(HUGEPAGES, "/proc/meminfo and /sys disagree on whether there are huge pages")
        return cls(default, tuple(sorted(pools, key=lambda p: (p.size_kib, -1 if p.node is None else p.node))))


def _pool(size: int, node: int | None, count: dict[str, int]) -> Pool:
    surplus = max(0, count.get("nr_overcommit", 0) - count.get("surplus", 0)) if node is None else 0
    return Pool(size, node, count["nr"], count["free"], count["resv"] if node is None else 0, surplus)


class Cell(NamedTuple):
    """One NUMA node."""

    id: int
    memory_kib: int
    cpus: frozenset[int]
    distances: tuple[tuple[int, int], ...]
    """To each node, by its id."""


@dataclass(frozen=True, slots=True)
class NumaTopology(HostFact):
    """The NUMA nodes and the online CPUs of each, from libvirt's capabilities, else from /sys."""

    probes: ClassVar[tuple[Probe, ...]] = (CAPABILITIES, NODES)
    cells: tuple[Cell, ...]

    @property
    def nodes(self) -> frozenset[int]:
        """The ids of all nodes."""
        return frozenset(cell.id for cell in self.cells)

    @property
    def cpus(self) -> frozenset[int]:
        """All online CPUs."""
        return frozenset().union(*(cell.cpus for cell in self.cells))

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Both sources name nodes and CPUs by the kernel's numbers."""
        try:
            cells = _cells_of_capabilities(said)
        except (Unavailable, ValueError, LookupError) as reason:
            try:
                cells = _cells_of_sysfs(said)
            except Unavailable:
                if isinstance(reason, Unavailable):
                    raise reason from None
                raise
        return cls(tuple(sorted(cells)))


def _cells_of_capabilities(said: Said) -> list[Cell]:
    cells = said.xml(CAPABILITIES).findall("host/topology/cells/cell")
    if not cells:
        raise Unavailable(CAPABILITIES, "libvirt tells no NUMA cells")
    found = []
    for cell in cells:
        memory = cell.find("memory")  # libvirt leaves it out for a node without memory
        size = 0 if memory is None or memory.text is None else int(memory.text)
        if memory is not None and memory.get("unit", "KiB") != "KiB":
            raise ValueError(f"memory in {memory.get('unit')}")
        cpus = frozenset(int(cpu.attrib["id"]) for cpu in cell.findall("cpus/cpu"))
        distances = ((int(s.attrib["id"]), int(s.attrib["value"])) for s in cell.findall("distances/sibling"))
        found.append(Cell(int(cell.attrib["id"]), size, cpus, tuple(sorted(distances))))
    return found


def _cells_of_sysfs(said: Said) -> list[Cell]:
    lines = said.lines(NODES)
    if not lines or lines[-1] != "end":
        raise Unavailable(NODES, "this kernel shows no NUMA nodes" if lines == ["absent"] else "answer is incomplete")
    files: dict[int, dict[str, str]] = {}
    for line in lines[:-1]:
        match = re.fullmatch(r"node(\d+)/(cpulist|distance|meminfo):(.*)", line)
        if not match:
            raise ValueError(f"not a NUMA node: {visible(line, 120)}")
        files.setdefault(int(match[1]), {})[match[2]] = match[3].strip()
    ids = sorted(files)
    cells = []
    for node in ids:
        distances = [int(word) for word in files[node]["distance"].split()]
        if len(distances) != len(ids):
            raise ValueError(f"node {node} has {len(distances)} distances to {len(ids)} nodes")
        memory = int(files[node]["meminfo"].removesuffix(" kB"))
        cells.append(Cell(node, memory, cpu_list(files[node]["cpulist"]), tuple(zip(ids, distances, strict=True))))
    return cells


def cpu_list(text: str) -> frozenset[int]:
    """The kernel's way to write sets of numbers: `0-3,8,10-11`; the empty text is the empty set."""
    numbers: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not 0 <= low <= high < 65536:
            raise ValueError(f"not a list of CPUs: {visible(text, 80)}")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


@dataclass(frozen=True, slots=True)
class Cgroup(HostFact):
    """The version of control groups that the host runs its guests in."""

    probes: ClassVar[tuple[Probe, ...]] = (CGROUP,)
    version: int
    """2 = unified; 1 = legacy or hybrid."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the file system type of /sys/fs/cgroup."""
        kind = said.text(CGROUP).strip()
        versions = {"cgroup2fs": 2, "tmpfs": 1, "UNKNOWN (0x63677270)": 2}
        if kind not in versions:
            raise Unavailable(CGROUP, f"not understood: {visible(kind, 80)}")
        return cls(versions[kind])
