"""Memory: does the guest find room on the target, of the kind and in the place that it asks for?"""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Policy, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.guest import GuestMemory, GuestPinning
from audit.facts.memory import HUGEPAGES, Cell, Cgroup, HugePages, Memory, NumaTopology, Overcommit
from audit.facts.resident import GuestResident

_GIB = 1024 * 1024


def _gib(kib: int) -> str:
    return f"{kib / _GIB:.1f} GiB"


def _set(numbers: frozenset[int] | set[int]) -> str:
    """As the kernel writes sets of CPUs: 0-3,8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="kernel vm/overcommit-accounting; QEMU: cannot set up guest memory",
    remedy="Choose a target with more memory; or, where the guest never uses all of its own, there: sysctl "
    "vm.overcommit_memory=1",
)
def reservable(guest: GuestMemory, host: Target[Overcommit]) -> Iterator[Finding]:
    """The target's kernel lets QEMU ask for as much memory as the guest has.

    QEMU asks for it when it starts, long before the guest uses it. By default the kernel refuses more than memory and
    swap space together; with vm.overcommit_memory = 2, more than is left of its limit.
    """
    if guest.hugepage_kib or guest.file_backed:
        raise NotApplicable("the guest's memory is in huge pages or in a file")
    asked = (
        guest.memory_kib if host.mode == 2 else guest.block_kib
    )  # the limit is for all, the heuristic for each piece
    if host.most_kib is not None and asked > host.most_kib:
        yield Finding(
            expected=f"a kernel that gives {_gib(asked)} to one program",
            actual=f"{_gib(host.most_kib)} with vm.overcommit_memory = {host.mode}",
            because="cannot set up guest memory: Cannot allocate memory",
        )


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="host memory; policy",
    covers=("failure 76",),
)
def fits(guest: GuestMemory, used: GuestResident, host: Target[Memory], policy: Policy) -> Iterator[Finding]:
    """The target has the memory for what the guest has in use, swap space included.

    libvirt does not ask: a guest that is too large arrives all the same, and the kernel of the target then kills
    processes, this guest or another. Several guests that move to the same target need their sum. A guest whose memory
    is locked, or taken at its start, needs all of it.
    """
    needed, what = _needed(guest, policy), f"{_gib(guest.memory_kib)} guest, {_gib(policy.guest_overhead_kib)} QEMU"
    if needed <= _most(host):
        return
    if not (guest.locked or guest.immediate):
        needed, what = used.known_kib(), f"in use, of {_gib(guest.memory_kib)}"
    if needed > _most(host):
        yield Finding(
            expected=f"room for {_gib(needed)} ({what})",
            actual=_available(host),
            because="The target would have to kill processes.",
        )


@check(severity=Severity.HIGH, stage=Stage.START, reference="host memory; policy", covers=("failure 76",))
def room_to_use(guest: GuestMemory, host: Target[Memory], policy: Policy) -> Iterator[Finding]:
    """The target has the memory for all that the guest may use, swap space included.

    A guest that has touched a part of its memory only finds room for that part. The rest it may use at any time, a
    file cache alone does it; then the target's kernel kills processes, this guest or another.
    """
    if _needed(guest, policy) > _most(host):
        yield Finding(
            expected=f"room for {_gib(_needed(guest, policy))} ({_gib(guest.memory_kib)} guest, "
            f"{_gib(policy.guest_overhead_kib)} QEMU)",
            actual=_available(host),
            because="Should the guest use what it has, the target would have to kill processes.",
        )


@check(severity=Severity.MEDIUM, stage=Stage.START, reference="host memory; policy", covers=("failure 76",))
def reserve_kept(guest: GuestMemory, host: Target[Memory], policy: Policy) -> Iterator[Finding]:
    """The guest leaves on the target the reserve of memory that the policy keeps free.

    With less, the guest still finds room, but the target may have to swap, which slows all its guests, and has
    nothing left for what comes next. How much is to stay free is for the site to say.
    """
    needed = _needed(guest, policy)
    if needed > _most(host):
        raise NotApplicable("the guest does not fit at all")
    if needed > host.available_kib - policy.memory_reserve_kib:
        swaps = needed > host.available_kib
        yield Finding(
            expected=f"{_gib(needed + policy.memory_reserve_kib)} available "
            f"({_gib(guest.memory_kib)} guest, {_gib(policy.guest_overhead_kib)} QEMU, "
            f"{_gib(policy.memory_reserve_kib)} reserve)",
            actual=_available(host),
            because="The target would have to swap." if swaps else "It fits, inside the reserve.",
        )


def _needed(guest: GuestMemory, policy: Policy) -> int:
    if guest.hugepage_kib:
        raise NotApplicable("the guest lives in huge pages")
    return guest.memory_kib + policy.guest_overhead_kib


def _most(host: Memory) -> int:
    """What can be had with everything else swapped out as far as there is swap space."""
    return min(host.available_kib + host.swap_free_kib, host.total_kib)


def _available(host: Memory) -> str:
    swap = f", and {_gib(host.swap_free_kib)} of swap space" if host.swap_free_kib else ", and no swap space"
    return f"{_gib(host.available_kib)} of {_gib(host.total_kib)} available{swap}"


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt memoryBacking",
    covers=("failure 74",),
)
def hugepages_fit(guest: GuestMemory, host: Target[HugePages]) -> Iterator[Finding]:
    """The target has enough free huge pages of the sizes that the guest asks for, on the nodes that it is bound to.

    A guest in huge pages takes all of them when its QEMU starts on the target; with too few, QEMU does not start:
    unable to map backing store for guest RAM.
    """
    if not guest.hugepage_kib:
        raise NotApplicable("the guest asks for no huge pages")
    sizes = {size or host.default_kib for size in guest.hugepage_kib}
    for size in sorted(sizes, key=lambda size: size or 0):
        if size is None or size not in host.sizes_kib:
            yield Finding(
                expected=f"huge pages of {size} KiB" if size else "huge pages",
                actual=f"the target has {', '.join(f'{s} KiB' for s in host.sizes_kib) or 'none'}",
            )
    known = sorted(size for size in sizes if size in host.sizes_kib)
    for size in known if len(sizes) == 1 else ():
        needed = -(-guest.memory_kib // size)
        free, extra = _free(host, size, guest.nodeset if guest.strict else frozenset())
        if free + extra < needed:
            where = f" on nodes {_set(guest.nodeset)}" if guest.strict and guest.nodeset else ""
            yield Finding(
                expected=f"{needed} free huge pages of {size} KiB{where}",
                actual=f"{free} are free",
                remedy=f"virsh allocpages --add --pagesize {size}KiB --pagecount {needed - free}",
            )
        elif free < needed:
            raise Unavailable(HUGEPAGES, f"{free} free of {needed}; whether the kernel can add the rest is not known")
    if len(sizes) > 1:
        raise Unavailable(HUGEPAGES, "how the guest's memory divides into several page sizes is not known")


def _free(host: HugePages, size: int, nodes: frozenset[int]) -> tuple[int, int]:
    """Free pages, and pages that the kernel may add on demand."""
    everywhere = host.pool(size)
    if everywhere is None:
        raise Unavailable(HUGEPAGES, f"no count of pages of {size} KiB")
    free = max(0, everywhere.free - everywhere.reserved)
    if nodes:
        pools = (host.pool(size, node) for node in nodes)
        free = min(free, sum(pool.free for pool in pools if pool))
    return free, everywhere.surplus_possible


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt numatune",
    covers=("12.3/numa", "12.6/xml", "failure 75"),
)
def nodes_exist(guest: GuestMemory, host: Target[NumaTopology]) -> Iterator[Finding]:
    """The target has the NUMA nodes that the guest's memory is bound to.

    The numbers of the nodes travel with the guest's configuration. Where the target lacks one, libvirt refuses to
    start the guest there: NUMA node N is unavailable.
    """
    if not guest.nodeset:
        raise NotApplicable("the guest's memory is not bound to nodes")
    if lacking := guest.nodeset - host.nodes:
        yield Finding(
            expected=f"NUMA nodes {_set(guest.nodeset)}",
            actual=f"the target has {_set(host.nodes)}, not {_set(lacking)}",
            remedy="virsh migrate --xml FILE …, with another <numatune> in FILE",
        )


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt cputune",
    covers=("12.3/numa", "12.6/xml", "failure 75"),
)
def pinned_cpus_exist(guest: GuestPinning, host: Target[NumaTopology]) -> Iterator[Finding]:
    """The target has the host CPUs that the guest is pinned to.

    The numbers of the CPUs travel with the guest's configuration. Where the target lacks one (or has it offline),
    libvirt cannot pin the guest as asked and gives up.
    """
    if not guest.cpuset:
        raise NotApplicable("the guest is not pinned")
    if lacking := guest.cpuset - host.cpus:
        yield Finding(
            expected=f"CPUs {_set(guest.cpuset)} online",
            actual=f"the target has {_set(host.cpus)}, not {_set(lacking)}",
            remedy="virsh migrate --xml FILE …, with another <cputune> in FILE",
        )


@check(severity=Severity.MEDIUM, stage=Stage.START, reference="RHEL 9 §12.3", covers=("12.3/numa", "failure 75"))
def topology_similar(
    pinning: GuestPinning, memory: GuestMemory, here: Source[NumaTopology], there: Target[NumaTopology]
) -> Iterator[Finding]:
    """For a pinned guest, the target's NUMA topology is like the source's.

    Similar means: the same nodes, with the same CPU numbers in each, and memory that differs by no more than a
    tenth. On another topology the same numbers mean other CPUs and other memory: the guest runs, but slower.
    """
    if not (pinning.cpuset or memory.nodeset):
        raise NotApplicable("the guest is not pinned")
    if differences := list(_differences(here, there)):
        yield Finding(
            expected="the same nodes, CPUs in them, and about the same memory",
            actual="; ".join(differences[:3]),
            because="The guest's pinning was made for the source.",
        )


def _differences(here: NumaTopology, there: NumaTopology) -> Iterator[str]:
    if here.nodes != there.nodes:
        yield f"nodes {_set(here.nodes)} here, {_set(there.nodes)} there"
        return
    other = {cell.id: cell for cell in there.cells}
    for cell in here.cells:
        yield from _cell_differences(cell, other[cell.id])


def _cell_differences(here: Cell, there: Cell) -> Iterator[str]:
    if here.cpus != there.cpus:
        yield f"node {here.id}: CPUs {_set(here.cpus)} here, {_set(there.cpus)} there"
    if abs(here.memory_kib - there.memory_kib) * 10 > here.memory_kib:
        yield f"node {here.id}: {_gib(here.memory_kib)} here, {_gib(there.memory_kib)} there"


@check(severity=Severity.LOW, stage=Stage.AFTER, reference="kernel: cgroup-v2", covers=("failure 31",))
def same_cgroup_version(here: Source[Cgroup], there: Target[Cgroup]) -> Iterator[Finding]:
    """Source and target use the same version of control groups.

    The range of CPU shares differs between versions 1 and 2; a guest's `<shares>` can mean another weight there.
    """
    if here.version != there.version:
        yield Finding(f"cgroup v{here.version}", f"cgroup v{there.version}")
