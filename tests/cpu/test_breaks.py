"""Each known break: a case of it, both sides of each of its bounds, and what it makes of unknown versions."""

from dataclasses import replace

import pytest

from audit.cpu import CpuDefinition, CpuFeature, CpuMap, Topology
from audit.cpu.breaks import BREAKS, Bound, RunningCpu, Side, Undecided, known_breaks

DEBIAN = frozenset({"debian"})
RHEL = frozenset({"rocky", "rhel", "centos", "fedora"})
UBUNTU = frozenset({"ubuntu", "debian"})
OLD = Side((9, 0, 0), (7, 2, 22), DEBIAN)
NEW = Side((11, 3, 0), (10, 0, 13), DEBIAN)
NOTHING = Side()
BY_ID = {one.id: one for one in BREAKS}


def cpu(plus="", minus="", topology=(1, 1, 2, 1), virttype="kvm", **more):
    features = tuple(CpuFeature(name) for name in plus.split())
    features += tuple(CpuFeature(name, "disable") for name in minus.split())
    topology = Topology(*topology) if topology else None
    definition = {"model": "Nehalem", "check": "full", "topology": topology, "features": features} | more
    return RunningCpu(CpuDefinition(**definition), virttype)


TWO_CORES = cpu()
WITH_HT = cpu("ht")
UNNAMED, NAMED, DISABLED = cpu("vmx ht"), cpu("vmx ht vmx-ept vmx-ins-outs"), cpu("vmx ht", "vmx-ept")
CASES = {  # break → guest, source and target of a case
    "ht-extra": (TWO_CORES, OLD, NEW),
    "ht-missing": (WITH_HT, NEW, OLD),
    "vmx-unnamed": (UNNAMED, OLD, Side((10, 0, 0), (8, 2, 0), DEBIAN)),
    "vmx-withheld": (NAMED, NEW, Side((10, 0, 0), (8, 2, 0), DEBIAN)),
    "vmx-disabled": (DISABLED, NEW, Side((10, 4, 0), (8, 2, 0), DEBIAN)),
}


def ids(source, target, guest):
    return [one.id for one in known_breaks(source, target, guest)]


def test_every_break_has_a_case():
    assert [one.id for one in BREAKS] == list(CASES)
    assert {one.id for one in BREAKS if one.blocks} == {"ht-extra", "ht-missing", "vmx-unnamed"}
    for one in BREAKS:
        assert one.title
        assert one.reference
        assert "guest CPU doesn't match specification" in one.symptom
        assert one.repair.startswith(("libvirt 1", "QEMU "))


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_each(name):
    guest, source, target = CASES[name]
    assert ids(source, target, guest) == [name]
    assert known_breaks(source, target, guest, (BY_ID[name],)) == (BY_ID[name],)
    assert known_breaks(source, target, guest, ()) == ()
    assert not known_breaks(source, target, cpu("aes", topology=None)), "a guest that none of them concerns"


EDGES = [(name, bound) for name, one in BY_ID.items() for bound in one.bounds]


@pytest.mark.parametrize(("name", "bound"), EDGES)
def test_both_sides_of_each_bound(name, bound):
    """Inside a bound's first and last version it applies, outside of both it does not."""
    guest, *sides = CASES[name]

    def applies(version):
        source, target = sides
        if bound.end == "source":
            source = replace(source, **{bound.part: version})
        else:
            target = replace(target, **{bound.part: version})
        return BY_ID[name].applies(source, target, guest)

    assert bound.since > (0, 0, 0) or bound.before, "a bound that excludes nothing"
    if bound.since > (0, 0, 0):
        major, minor, _ = bound.since
        assert applies(bound.since)
        assert not applies((major, minor - 1, 99) if minor else (major - 1, 99, 99))
    if bound.before:
        major, minor, _ = bound.before
        assert applies((major, minor - 1, 99))
        assert not applies(bound.before)


@pytest.mark.parametrize(("name", "bound"), EDGES)
def test_an_unknown_version_is_never_no_break(name, bound):
    guest, source, target = CASES[name]
    source, target = (
        replace(side, **{bound.part: None}) if bound.end == end else side
        for end, side in (("source", source), ("target", target))
    )
    with pytest.raises(Undecided, match=f"the {bound.end}'s version of") as doubt:
        known_breaks(source, target, guest)
    assert (doubt.value.end, doubt.value.part) == (bound.end, bound.part)
    assert BY_ID[name].title in doubt.value.reason


def test_the_bounds_as_published():
    """The numbers themselves, once more: what they come from is cited beside them in the table."""
    assert BY_ID["ht-extra"].bounds == (
        Bound("target", "qemu", (10, 0, 0)),
        Bound("target", "libvirt", before=(11, 10, 0)),
    )
    assert BY_ID["ht-missing"].bounds[0] == Bound("target", "qemu", before=(8, 2, 0))
    assert BY_ID["vmx-unnamed"].bounds == (Bound("target", "libvirt", (9, 10, 0), (10, 2, 0)),)
    assert BY_ID["vmx-disabled"].bounds == (Bound("target", "libvirt", (9, 10, 0), (10, 5, 0)),)


def test_versions_matter_only_where_everything_else_fits():
    assert not known_breaks(NOTHING, NOTHING, cpu("aes", topology=None))
    assert not known_breaks(NOTHING, replace(NEW, libvirt=None, qemu=(9, 2, 0)), TWO_CORES), "QEMU alone rules it out"
    assert not known_breaks(NOTHING, replace(NEW, libvirt=(11, 10, 0), qemu=None), TWO_CORES), "and so does libvirt"
    with pytest.raises(Undecided):
        known_breaks(NOTHING, NOTHING, TWO_CORES)


def test_a_break_for_certain_outweighs_one_in_doubt():
    both = cpu("vmx")
    target = Side((10, 0, 0), (10, 0, 0), UBUNTU)
    assert ids(OLD, target, both) == ["ht-extra"], "Ubuntu may have repaired vmx-unnamed"
    with pytest.raises(Undecided):
        known_breaks(OLD, replace(target, qemu=(8, 2, 0)), both)


@pytest.mark.parametrize(
    ("name", "systems"),
    [
        ("ht-extra", RHEL),
        ("vmx-unnamed", RHEL),
        ("vmx-unnamed", UBUNTU),
        ("vmx-withheld", UBUNTU),
        ("vmx-disabled", RHEL),
    ],
)
def test_a_repair_that_the_version_does_not_tell(name, systems):
    guest, source, target = CASES[name]
    with pytest.raises(Undecided, match="has the repair of libvirt") as doubt:
        known_breaks(source, replace(target, systems=systems), guest)
    assert (doubt.value.end, doubt.value.part) == ("target", "system")
    with pytest.raises(Undecided, match="whose build"):
        known_breaks(source, replace(target, systems=None), guest)
    assert ids(replace(source, systems=systems), target, guest) == [name], "the source's build repairs nothing"


def test_no_system_can_hide_the_break_that_qemu_makes():
    guest, source, target = CASES["ht-missing"]
    assert ids(source, replace(target, systems=None), guest) == ["ht-missing"]
    assert ids(source, replace(target, systems=RHEL), guest) == ["ht-missing"]


@pytest.mark.parametrize(
    ("topology", "applies"),
    [
        (None, False),  # every vCPU is a socket of its own
        ((2, 1, 1, 1), False),
        ((1, 1, 1, 1), False),
        ((1, 1, 2, 1), True),
        ((1, 1, 1, 2), True),
        ((1, 2, 1, 1), True),
    ],
)
def test_ht_comes_with_threads_in_one_socket(topology, applies):
    assert ids(OLD, NEW, cpu(topology=topology)) == ["ht-extra"] * applies


def test_what_counts_for_ht_is_the_definition():
    assert not known_breaks(OLD, NEW, WITH_HT), "a guest of QEMU 10 names it"
    assert ids(OLD, NEW, cpu(minus="ht")) == ["ht-extra"], "QEMU 10 shows it though it is switched off"
    assert ids(NEW, NEW, TWO_CORES) == ["ht-extra"], "the guest still runs in the QEMU of before the update"
    assert ids(OLD, NEW, cpu(virttype="qemu")) == ["ht-extra"]
    assert not any("ht" in model.features for model in CpuMap.carried().models), "no model brings it along"


def test_ht_is_missing_under_kvm_only_as_far_as_known():
    assert not known_breaks(NEW, OLD, cpu("ht", virttype="qemu"))
    assert not known_breaks(NEW, OLD, TWO_CORES)


@pytest.mark.parametrize("more", [{"check": "none"}, {"check": None}, {"model": None, "features": ()}])
def test_an_unverified_cpu_is_not_refused(more):
    target = Side((10, 0, 0), (10, 0, 0), DEBIAN)
    for plus, minus in (("", ""), ("ht", ""), ("vmx", ""), ("vmx vmx-ept", ""), ("vmx", "vmx-ept")):
        guest = cpu(**({"plus": plus, "minus": minus} | more))
        assert not known_breaks(NEW, target, guest)
        assert not known_breaks(NEW, OLD, guest)


def test_which_vmx_guests():
    target = Side((10, 1, 0), (8, 2, 0), DEBIAN)
    assert not known_breaks(OLD, target, cpu("ht")), "without vmx"
    assert not known_breaks(OLD, target, cpu("ht", minus="vmx"))
    assert not known_breaks(Side((10, 0, 0), (8, 2, 0)), target, NAMED), "between two affected releases"
    assert ids(Side((10, 0, 0), (8, 2, 0)), target, UNNAMED) == ["vmx-unnamed"], "started before an update of libvirt"
    assert ids(OLD, target, DISABLED) == ["vmx-disabled"]
    assert ids(NEW, target, cpu("vmx ht vmx-ept", "vmx-eptad")) == ["vmx-withheld", "vmx-disabled"]
