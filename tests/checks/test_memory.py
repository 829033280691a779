"""Room for the guest."""

from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Policy, Severity, Unavailable
from audit.facts.guest import GuestMemory, GuestPinning, GuestState
from audit.facts.memory import Cell, Cgroup, HugePages, Memory, NumaTopology, Overcommit, Pool
from audit.facts.resident import GuestResident
from checks import memory

GIB = 1024**2
GUEST = GuestMemory(8 * GIB, 8 * GIB, (), frozenset(), False, False, False, False, False, None, block_kib=8 * GIB)
USED = GuestResident(9 * GIB)
HUGE_GUEST = replace(GUEST, hugepage_kib=(2048,))
RUNNING = GuestState("running", True, True)


def cell(number, cpus, memory_kib=64 * GIB):
    return Cell(number, memory_kib, frozenset(cpus), ())


TWO = NumaTopology((cell(0, range(8)), cell(1, range(8, 16))))


def test_fits():
    run = memory.fits.function
    policy = Policy(memory_reserve_kib=GIB, guest_overhead_kib=GIB)
    assert list(run(GUEST, GuestResident(None, "lost"), Memory(64 * GIB, 10 * GIB, 0, 0), policy)) == []
    small = Memory(64 * GIB, 9 * GIB - 1, 0, 0)
    with pytest.raises(Unavailable, match="lost"):
        list(run(GUEST, GuestResident(None, "lost"), small, policy))
    [finding] = run(GUEST, GuestResident(9 * GIB), small, policy)
    assert finding.expected == "room for 9.0 GiB (in use, of 8.0 GiB)"
    with pytest.raises(NotApplicable):
        list(run(HUGE_GUEST, USED, Memory(GIB, GIB, 0, 0), policy))


def test_what_was_never_touched_needs_no_room_yet():
    policy = Policy(memory_reserve_kib=GIB, guest_overhead_kib=GIB)
    small = Memory(64 * GIB, 5 * GIB, 0, 0)
    assert list(memory.fits.function(GUEST, GuestResident(5 * GIB), small, policy)) == []
    [finding] = memory.room_to_use.function(GUEST, small, policy)
    assert "room for 9.0 GiB" in finding.expected
    assert memory.room_to_use.blocks is Blocks.NOTHING
    assert memory.room_to_use.severity is Severity.HIGH
    assert list(memory.room_to_use.function(GUEST, Memory(64 * GIB, 9 * GIB, 0, 0), policy)) == []
    for eager in (replace(GUEST, locked=True), replace(GUEST, immediate=True)):
        [finding] = memory.fits.function(eager, GuestResident(GIB), small, policy)
        assert "8.0 GiB guest" in finding.expected


def test_swap_space_counts_but_no_more_than_there_is_memory():
    policy = Policy(memory_reserve_kib=GIB, guest_overhead_kib=GIB)

    def run(host):
        return list(memory.fits.function(GUEST, USED, host, policy))

    assert run(Memory(64 * GIB, 5 * GIB, 8 * GIB, 4 * GIB)) == []
    assert len(run(Memory(64 * GIB, 5 * GIB, 8 * GIB, 4 * GIB - 1))) == 1
    assert len(run(Memory(9 * GIB - 1, 5 * GIB, 64 * GIB, 64 * GIB))) == 1


def test_the_kernel_gives_no_more_than_there_is():
    run = memory.reservable.function
    assert list(run(GUEST, Overcommit(0, 8 * GIB))) == []
    assert list(run(GUEST, Overcommit(1, None))) == []
    [finding] = run(GUEST, Overcommit(0, 8 * GIB - 1))
    assert finding.actual == "8.0 GiB with vm.overcommit_memory = 0"
    in_two = replace(GUEST, block_kib=4 * GIB)
    assert list(run(in_two, Overcommit(0, 4 * GIB))) == []
    assert len(list(run(in_two, Overcommit(2, 4 * GIB)))) == 1
    with pytest.raises(NotApplicable):
        list(run(HUGE_GUEST, Overcommit(0, 1)))


def test_inside_the_reserve_is_no_refusal():
    policy = Policy(memory_reserve_kib=GIB, guest_overhead_kib=GIB)
    tight = Memory(64 * GIB, 10 * GIB - 1, 4 * GIB, 4 * GIB)
    run = memory.reserve_kept.function
    assert memory.reserve_kept.blocks is Blocks.NOTHING
    assert memory.reserve_kept.severity is Severity.MEDIUM
    assert list(memory.fits.function(GUEST, USED, tight, policy)) == []
    [finding] = run(GUEST, tight, policy)
    assert "1.0 GiB reserve" in finding.expected
    assert finding.because == "It fits, inside the reserve."
    [finding] = run(GUEST, replace(tight, available_kib=9 * GIB - 1), policy)
    assert finding.because == "The target would have to swap."
    assert list(run(GUEST, replace(tight, available_kib=10 * GIB), policy)) == []
    for guest, host in ((GUEST, Memory(64 * GIB, GIB, 0, 0)), (HUGE_GUEST, tight)):
        with pytest.raises(NotApplicable):
            list(run(guest, host, policy))


def pools(free, reserved=0, surplus=0, nodes=()):
    made = [Pool(2048, None, free, free, reserved, surplus)]
    return HugePages(2048, (*made, *(Pool(2048, n, f, f, 0, 0) for n, f in enumerate(nodes))))


def test_huge_pages():
    run = memory.hugepages_fit.function
    assert list(run(HUGE_GUEST, pools(4096))) == []
    assert list(run(replace(HUGE_GUEST, hugepage_kib=(0,)), pools(4096))) == []
    [finding] = run(HUGE_GUEST, pools(4096, reserved=96))
    assert (finding.expected, finding.actual) == ("4096 free huge pages of 2048 KiB", "4000 are free")
    assert finding.remedy == "virsh allocpages --add --pagesize 2048KiB --pagecount 96"
    with pytest.raises(Unavailable, match="4000 free of 4096"):
        list(run(HUGE_GUEST, pools(4000, surplus=96)))
    with pytest.raises(NotApplicable):
        list(run(GUEST, pools(0)))


def test_huge_page_size_that_is_not_there():
    run = memory.hugepages_fit.function
    [finding] = run(replace(HUGE_GUEST, hugepage_kib=(1048576,)), pools(4096))
    assert finding.actual == "the target has 2048 KiB"
    [finding] = run(replace(HUGE_GUEST, hugepage_kib=(0,)), HugePages(None, ()))
    assert finding.actual == "the target has none"


def test_huge_pages_of_several_sizes_are_not_known():
    mixed = replace(HUGE_GUEST, hugepage_kib=(2048, 1048576))
    checked = memory.hugepages_fit.function(mixed, pools(4096))
    assert "1048576" in next(checked).expected
    with pytest.raises(Unavailable):
        next(checked)


def test_huge_pages_on_the_nodes_asked_for():
    run = memory.hugepages_fit.function
    bound = replace(HUGE_GUEST, nodeset=frozenset({1}), strict=True)
    assert list(run(bound, pools(8000, nodes=(3904, 4096)))) == []
    assert "on nodes 1" in next(iter(run(bound, pools(8000, nodes=(4096, 3904))))).expected
    assert list(run(replace(bound, strict=False), pools(8000, nodes=(4096, 3904)))) == []


def test_nodes_and_cpus():
    bound = replace(GUEST, nodeset=frozenset({0, 2}))
    [finding] = memory.nodes_exist.function(bound, TWO)
    assert finding.actual == "the target has 0-1, not 2"
    assert list(memory.nodes_exist.function(replace(GUEST, nodeset=frozenset({1})), TWO)) == []
    [finding] = memory.pinned_cpus_exist.function(GuestPinning(2, frozenset({3, 16, 17})), TWO)
    assert finding.actual == "the target has 0-15, not 16-17"
    assert list(memory.pinned_cpus_exist.function(GuestPinning(2, frozenset({3})), TWO)) == []
    for run, guest in ((memory.nodes_exist, GUEST), (memory.pinned_cpus_exist, GuestPinning(2, frozenset()))):
        with pytest.raises(NotApplicable):
            list(run.function(guest, TWO))


@pytest.mark.parametrize(
    ("there", "actual"),
    [
        (NumaTopology((cell(0, range(16)),)), "nodes 0-1 here, 0 there"),
        (NumaTopology((cell(0, range(0, 16, 2)), cell(1, range(1, 16, 2)))), "CPUs 0-7 here, 0,2,4"),
        (NumaTopology((cell(0, range(8)), cell(1, range(8, 16), 32 * GIB))), "node 1: 64.0 GiB here, 32.0 GiB there"),
    ],
)
def test_topology(there, actual):
    run = memory.topology_similar.function
    pinned = GuestPinning(2, frozenset({3}))
    [finding] = run(pinned, GUEST, TWO, there)
    assert actual in finding.actual
    assert list(run(pinned, GUEST, TWO, NumaTopology((cell(0, range(8)), cell(1, range(8, 16), 60 * GIB))))) == []
    with pytest.raises(NotApplicable):
        list(run(GuestPinning(2, frozenset()), GUEST, TWO, there))


def test_cgroup_version():
    assert list(memory.same_cgroup_version.function(Cgroup(2), Cgroup(2))) == []
    assert len(list(memory.same_cgroup_version.function(Cgroup(1), Cgroup(2)))) == 1
