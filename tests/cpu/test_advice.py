"""What a baseline costs and how hosts are grouped best; by the definition, by trying every way, and by properties."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.cpu import (
    CpuDefinition,
    CpuFeature,
    CpuMap,
    CpuSource,
    Hypervisor,
    HypervisorModel,
    feature_set,
    joint_baseline,
    psabi_level,
)
from audit.cpu import advice as engine
from audit.cpu.advice import HostSide, RunningGuest, best_splits, host_kinds, leave_one_out, why_lacking

MAP = CpuMap.carried()
MODELS = ("Nehalem", "Westmere", "IvyBridge", "Haswell", "Skylake-Server", "EPYC", "EPYC-Rome")


def host(name: str, model: str, *plus: str, vendor: str = "Intel") -> CpuSource:
    return CpuSource(name, CpuDefinition(model=model, vendor=vendor, features=tuple(map(CpuFeature, plus))))


def splits(hosts: Sequence[CpuSource], guests: Sequence[RunningGuest] | None = None):
    return best_splits(host_kinds(hosts, MAP), MAP, guests)


def kept(groups: Sequence[Sequence[CpuSource]]) -> int:
    """Features that a guest sees, summed over the hosts: by definition, without the search's shortcuts."""
    total = 0
    for group in groups:
        vendors = {source.cpu.vendor for source in group}
        common = frozenset.intersection(*(feature_set(source.cpu, MAP) for source in group))
        total += len(common) * len(group) if len(vendors) == 1 else 0
    return total


def ways(things: list) -> Iterator[list[list]]:
    """All partitions."""
    if not things:
        yield []
        return
    first, *rest = things
    for way in ways(rest):
        yield [[first], *way]
        for number in range(len(way)):
            yield [*way[:number], [first, *way[number]], *way[number + 1 :]]


def test_leaving_one_out_gains_what_it_alone_lacked():
    hosts = [host("old", "Nehalem"), host("a", "IvyBridge"), host("b", "IvyBridge")]
    baseline = joint_baseline(hosts, MAP, migratable=True)
    [without_old] = leave_one_out(host_kinds(hosts, MAP), baseline, MAP)
    assert without_old.hosts == ("old",)
    assert set(without_old.gained) == feature_set(hosts[1].cpu, MAP) - feature_set(hosts[0].cpu, MAP)
    assert without_old.level == psabi_level(feature_set(hosts[1].cpu, MAP))


def test_equal_hosts_cost_together_and_alone_there_is_nothing_to_gain():
    equal = [host(name, "Nehalem") for name in "ab"]
    hosts = [*equal, host("c", "IvyBridge")]
    [out] = leave_one_out(host_kinds(hosts, MAP), joint_baseline(hosts, MAP), MAP)
    assert out.hosts == ("a", "b")
    assert leave_one_out(host_kinds(equal, MAP), joint_baseline(equal, MAP), MAP) == ()


def test_the_best_split_follows_the_generations():
    hosts = [host(f"old{n}", "Nehalem") for n in range(2)] + [host(f"new{n}", "Skylake-Server") for n in range(3)]
    one, two = splits(hosts)
    assert [len(group.hosts) for group in one.groups] == [5]
    assert [group.hosts for group in two.groups] == [("new0", "new1", "new2"), ("old0", "old1")]
    assert [group.level for group in two.groups] == [4, 2]
    assert two.level == pytest.approx((3 * 4 + 2 * 2) / 5)
    assert set(two.best_by) == {"features", "level"}


def test_vendors_have_nothing_in_common():
    one, two = splits([host("i", "Nehalem"), host("a", "EPYC", vendor="AMD")])
    assert (one.groups[0].baseline, one.features, one.level) == (None, 0, 0)
    assert len(two.groups) == 2


def test_guests_that_can_still_move_are_a_goal_of_their_own():
    hosts = [host("a", "Nehalem"), host("b", "Nehalem", "avx"), host("c", "Haswell")]
    at_home = [RunningGuest("a", frozenset("bc")), RunningGuest("b", frozenset("c")), RunningGuest("c", frozenset())]
    found = splits(hosts, at_home)
    [whole] = [split for split in found if len(split.groups) == 1]
    assert whole.movable == 2
    by_guests = next(split for split in found if len(split.groups) == 2 and "guests" in split.best_by)
    assert by_guests.movable == 1  # a with b or c, or b with c; but never both
    assert splits(hosts)[0].movable is None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(MODELS), min_size=1, max_size=6), st.integers(1, 4))
def test_no_way_keeps_more_features_than_the_one_found(models: list[str], number: int):
    hosts = [host(f"h{n}", m, vendor="AMD" if "EPYC" in m else "Intel") for n, m in enumerate(models)]
    found = [s for s in splits(hosts) if len(s.groups) == number and "features" in s.best_by]
    # Equal hosts are never parted: that could only lose what parting them would keep for nobody.
    kinds = [kind.sources for kind in host_kinds(hosts, MAP)]
    possible = [[sum(group, ()) for group in way] for way in ways(kinds) if len(way) == number]
    assert bool(found) is bool(possible)
    if found:
        assert round(found[0].features * len(hosts)) == max(map(kept, possible))
        assert found[0].exact


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from(MODELS), min_size=10, max_size=14), st.randoms(use_true_random=False))
def test_the_search_for_many_kinds_is_never_worse_than_one_group_less(models: list[str], rng):
    names = sorted(MAP.order)
    hosts = [host(f"h{n}", m, *rng.sample(names, 3)) for n, m in enumerate(models) if "EPYC" not in m]
    by_features = [s.features for s in splits(hosts) if "features" in s.best_by]
    assert by_features == sorted(by_features)


def test_very_many_kinds_are_taken_by_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "_MOST_SEARCHED", 3)
    names = sorted(MAP.order)
    hosts = [host(f"h{n}", MODELS[n % 3], names[n]) for n in range(12)]
    two = next(split for split in splits(hosts) if len(split.groups) == 2)
    assert sorted(len(group.hosts) for group in two.groups) == [4, 8]


SAME = "Intel family 6 model 85 stepping 7"
THERE = HostSide(SAME, frozenset({"rtm"}), {"microcode": "0x2", "kernel": "5.14", "kernel arguments": ""})


def test_same_processor_is_software_and_what_differs_is_named():
    here = HostSide(SAME, frozenset(), {"microcode": "0x5", "kernel": "5.14", "kernel arguments": "tsx=off"})
    reason = why_lacking("rtm", "here", ["there"], {"here": here, "there": THERE})
    assert reason.cause == "software"
    assert "microcode 0x5 (there 0x2); kernel arguments tsx=off (there none)" in reason.words
    equal = why_lacking("rtm", "here", ["there"], {"here": THERE, "there": THERE})
    assert "firmware settings" in equal.words


@pytest.mark.parametrize(
    ("feature", "flag"),
    [("avx512f", "avx512f"), ("sse4.1", "sse4_1"), ("pclmuldq", "pclmulqdq"), ("invtsc", "nonstop_tsc")],
)
def test_what_the_kernel_lists_is_withheld_on_the_way_to_the_guest(feature: str, flag: str):
    here = HostSide("Intel family 6 model 63 stepping 2", frozenset({flag}), {})
    assert why_lacking(feature, "here", ["there"], {"here": here, "there": THERE}).cause == "hypervisor"


def test_another_processor_is_silicon_only_where_kernels_tell():
    other = HostSide("Intel family 6 model 63 stepping 2", frozenset({"avx2"}), {})
    there = HostSide(SAME, frozenset({"avx512f"}), {})
    sides = {"here": other, "there": there}
    assert why_lacking("avx512f", "here", ["there"], sides).cause == "silicon"
    assert why_lacking("rdctl-no", "here", ["there"], sides).cause == "unknown"  # a register's bit: no kernel lists it
    masked = HostSide(other.processor, frozenset(), {"kernel arguments": "clearcpuid=avx512f"})
    reason = why_lacking("avx512f", "here", ["there"], {"here": masked, "there": there})
    assert (reason.cause, "clearcpuid=avx512f" in reason.words) == ("unknown", True)
    assert why_lacking("avx512f", "here", ["there"], {"there": there}).cause == "unknown"


def test_where_qemus_differ_groups_are_judged_by_what_they_really_get():
    """What processors have in common is not all that their guests see: QEMU may block some of it."""
    models = ("Westmere", "Nehalem")

    def offering(name: str, model: str, *blockers: str) -> CpuSource:
        listed = tuple(HypervisorModel(m, "no" if blockers else "yes", frozenset(blockers)) for m in models)
        return replace(host(name, model), hypervisor=Hypervisor(listed))

    blind = offering("a", "Westmere", "sse", "sse2", "fpu", "mmx", "pae", "cx8", "aes")
    hosts = [blind, offering("b", "Westmere"), offering("c", "Nehalem")]
    two = next(split for split in splits(hosts) if len(split.groups) == 2 and "features" in split.best_by)
    assert two.exact
    totals = {}
    for way in ways(hosts):
        if len(way) == 2:
            got = [(len(feature_set(joint_baseline(group, MAP, migratable=True), MAP)), len(group)) for group in way]
            totals[tuple(sorted(len(group) for group in way)), way[0][0].name] = sum(f * n for f, n in got)
    assert round(two.features * 3) == max(totals.values())
