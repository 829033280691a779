"""Each known issue: a case of it, both sides of each of its bounds, and what it makes of what is not known."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from audit.cpu import CpuDefinition, CpuFeature, CpuMap, Topology
from audit.facts.base import Unavailable
from audit.facts.cpu import CPUINFO, Processor
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.guest_offloads import GuestOffloads
from audit.facts.versions import OS_RELEASE, Kernel, KernelArguments, Libvirt, OsRelease, Qemu, Version
from audit.judge import Missing
from audit.known import ADVISORIES, GuestView, HostView, VendorsRepair, advisories_for
from audit.known.advisory import BootedWith, Bound, ProcessorHas


def system(name, *like):
    return OsRelease(name, "1", 1, None, name, like, "")


def host(libvirt=(9, 0, 0), qemu=(7, 2, 22), kernel="6.1.100", here=None, flags=(), words=()):
    return HostView(
        Libvirt(Version(*libvirt), Version(0)),
        Qemu(Version(*qemu)),
        Kernel(kernel, "x86_64"),
        here or ARCH,
        Processor("Intel family 6", "Xeon", "Intel", None, frozenset(flags), 46, 8),
        KernelArguments(tuple(words)),
    )


def guest(plus="", minus="", topology=(1, 1, 2, 1), virttype="kvm", machine="pc-q35-7.2", offloads=False, **more):
    features = tuple(CpuFeature(name) for name in plus.split())
    features += tuple(CpuFeature(name, "disable") for name in minus.split())
    definition = {"model": "Nehalem", "check": "full", "features": features} | more
    definition["topology"] = Topology(*topology) if topology else None
    cpu = GuestCpu(True, CpuDefinition(**definition), None, None, frozenset())
    return GuestView(cpu, GuestMachine(virttype, "x86_64", machine, None, None, None, None), GuestOffloads(offloads))


ARCH, DEBIAN, UBUNTU = system("arch"), system("debian"), system("ubuntu", "debian")
ROCKY, SLES = system("rocky", "rhel", "centos", "fedora"), system("sles", "suse")
OLD, NEW = host(), host((11, 3, 0), (10, 0, 13))
TWO_CORES, WITH_HT = guest(), guest("ht")
UNNAMED, NAMED, DISABLED = guest("vmx ht"), guest("vmx ht vmx-ept vmx-ins-outs"), guest("vmx ht", "vmx-ept")
V10 = host((10, 0, 0), (8, 2, 0))
USO = guest("ht", machine="pc-q35-8.2", offloads=True)
BY_ID = {one.id: one for one in ADVISORIES}
BOUNDS = [(name, bound) for name, one in BY_ID.items() for bound in one.conditions if isinstance(bound, Bound)]
OTHERS = [(name, c) for name, one in BY_ID.items() for c in one.conditions if not isinstance(c, Bound)]
UNSEEN = [(name, bound) for name, bound in BOUNDS if bound.unseen]


class Case(NamedTuple):
    guest: GuestView
    source: HostView
    target: HostView


CASES = {
    "ht-extra": Case(TWO_CORES, OLD, NEW),
    "ht-missing": Case(WITH_HT, NEW, OLD),
    "vmx-unnamed": Case(UNNAMED, OLD, V10),
    "vmx-withheld": Case(NAMED, NEW, V10),
    "vmx-disabled": Case(DISABLED, NEW, host((10, 4, 0), (8, 2, 0))),
    "vmx-blocked": Case(guest("ht vmx", check="partial"), host(qemu=(3, 1, 0)), host((12, 0, 0))),
    "pkru": Case(WITH_HT, host(kernel="5.15.108-1-pve", flags=["pku"]), host((12, 0, 0), kernel="6.2.16-arch1")),
    "udp-offload": Case(USO, host((12, 0, 0), (8, 2, 0), "6.8.0-45-generic"), host((12, 0, 0), (8, 2, 2), "5.15.0")),
    "tsx-by-choice": Case(guest("rtm", topology=None), host(words=["ro", "tsx=on"]), OLD),
    "svm-state": Case(guest("svm", topology=None, model="EPYC"), host(kernel="5.4.0-200-generic"), OLD),
}


def ids(source, target, subject, advisories=ADVISORIES):
    return [one.id for one in advisories_for(source, target, subject, advisories)]


def bites(name, source, target):
    return BY_ID[name].applies(source, target, CASES[name].guest)


def changed(case, end, **parts):
    """Both ends of a case, one of them with something else in it."""
    return [replace(side, **parts) if name == end else side for name, side in case._asdict().items() if name != "guest"]


def at(case, bound, version):
    facts = {
        "libvirt": Libvirt(Version(*version), Version(0)),
        "qemu": Qemu(Version(*version)),
        "kernel": Kernel(".".join(map(str, version)), "x86_64"),
    }
    return changed(case, bound.end, **{bound.part: facts[bound.part]})


def gone(probe=CPUINFO):
    return Missing(Unavailable(probe, "gone"))


def test_every_advisory_has_a_case_and_is_written_out():
    assert [one.id for one in ADVISORIES] == list(CASES)
    assert [one.id for one in ADVISORIES if one.level == "break"] == ["ht-extra", "ht-missing", "vmx-unnamed"]
    assert [one.id for one in ADVISORIES if one.level == "note"] == ["tsx-by-choice", "svm-state"]
    for one in ADVISORIES:
        for text in (one.title, one.symptom, one.repair, one.reference):
            assert text
            assert not text.endswith(".")
        assert not one.remedy or one.remedy.endswith(".")


def test_a_note_is_about_the_guests_own_host():
    assert {c.end for one in ADVISORIES if one.level == "note" for c in one.conditions} == {"source"}


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_each(name):
    subject, source, target = CASES[name]
    assert ids(source, target, subject) == [name]
    assert ids(source, target, subject, ()) == []
    assert not ids(source, target, guest("aes pku", topology=None, model="Skylake-Client-noTSX-IBRS"))
    assert BY_ID[name].found(source, target)


@pytest.mark.parametrize(("name", "bound"), BOUNDS)
def test_both_sides_of_each_bound(name, bound):
    """Inside a bound's first and last version it applies, outside of both it does not."""
    case = CASES[name]
    assert bound.since > (0, 0, 0) or bound.before, "a bound that excludes nothing"
    if bound.since > (0, 0, 0):
        major, minor, _ = bound.since
        assert bites(name, *at(case, bound, bound.since))
        assert not bites(name, *at(case, bound, (major, minor - 1, 99) if minor else (major - 1, 99, 99)))
    if bound.before:
        major, minor, _ = bound.before
        assert bites(name, *at(case, bound, (major, minor - 1, 0) if minor else (major - 1, 99, 0)))
        assert not bites(name, *at(case, bound, bound.before))
    for series in bound.mended:
        assert bites(name, *at(case, bound, (*series[:2], series[2] - 1)))
        assert not bites(name, *at(case, bound, series))
        assert not bites(name, *at(case, bound, (*series[:2], series[2] + 40)))


@pytest.mark.parametrize(("name", "bound"), BOUNDS)
def test_an_unknown_version_is_never_no_issue(name, bound):
    case = CASES[name]
    with pytest.raises(Unavailable, match=f"the version of the {bound.end}'s .*gone") as doubt:
        ids(*changed(case, bound.end, **{bound.part: gone()}), case.guest, (BY_ID[name],))
    assert BY_ID[name].title in doubt.value.reason
    assert not isinstance(doubt.value, VendorsRepair)


@pytest.mark.parametrize(("name", "condition"), OTHERS)
def test_other_conditions(name, condition):
    case = CASES[name]
    part = {ProcessorHas: "processor", BootedWith: "arguments"}[type(condition)]
    assert not bites(name, *changed(case, condition.end, **{part: getattr(OLD, part)}))
    with pytest.raises(Unavailable, match="gone"):
        bites(name, *changed(case, condition.end, **{part: gone()}))


@pytest.mark.parametrize(("name", "bound"), UNSEEN)
def test_a_repair_that_the_number_does_not_tell(name, bound):
    case = CASES[name]
    for hidden in (ROCKY, SLES, UBUNTU, DEBIAN):
        sides = changed(case, bound.end, system=hidden)
        if bound.unseen & {hidden.id, *hidden.id_like}:
            with pytest.raises(VendorsRepair, match="has the repair") as doubt:
                bites(name, *sides)
            assert doubt.value.probe is OS_RELEASE
        else:
            assert bites(name, *sides)
    with pytest.raises(Unavailable, match="whose build") as doubt:
        bites(name, *changed(case, bound.end, system=gone()))
    assert not isinstance(doubt.value, VendorsRepair)


def test_the_bounds_as_published():
    """The numbers themselves, once more: what they come from is cited beside them in the table."""
    published = {
        (one.id, bound.end, bound.part): (bound.since[:2], bound.before and bound.before[:2])
        for one in ADVISORIES
        for bound in one.conditions
        if isinstance(bound, Bound)
    }
    ever = (0, 0)
    assert published == {
        ("ht-extra", "target", "libvirt"): (ever, (11, 10)),
        ("ht-extra", "target", "qemu"): ((10, 0), None),
        ("ht-missing", "target", "libvirt"): (ever, (11, 10)),
        ("ht-missing", "target", "qemu"): (ever, (8, 2)),
        ("ht-missing", "source", "libvirt"): (ever, (11, 10)),
        ("vmx-unnamed", "target", "libvirt"): ((9, 10), (10, 2)),
        ("vmx-withheld", "target", "libvirt"): ((9, 10), (10, 2)),
        ("vmx-withheld", "source", "libvirt"): ((10, 2), None),
        ("vmx-disabled", "target", "libvirt"): ((9, 10), (10, 5)),
        ("vmx-blocked", "source", "qemu"): ((3, 1), (4, 1)),
        ("pkru", "target", "kernel"): ((5, 17), (6, 6)),
        ("pkru", "source", "kernel"): (ever, (5, 17)),
        ("udp-offload", "target", "kernel"): (ever, (6, 2)),
        ("udp-offload", "source", "kernel"): ((6, 2), None),
        ("udp-offload", "source", "qemu"): ((8, 2), None),
        ("svm-state", "source", "kernel"): (ever, (5, 8)),
    }


def test_versions_matter_only_where_everything_else_fits():
    nothing = HostView(*(gone() for _ in range(6)))
    assert not ids(nothing, nothing, guest("pku", topology=None))
    extra = (BY_ID["ht-extra"],)
    assert not ids(nothing, replace(NEW, libvirt=gone(), qemu=Qemu(Version(9, 2))), TWO_CORES, extra)
    assert not ids(nothing, replace(NEW, libvirt=Libvirt(Version(11, 10), Version(0)), qemu=gone()), TWO_CORES, extra)
    with pytest.raises(Unavailable):
        ids(nothing, nothing, TWO_CORES, extra)
    with pytest.raises(Unavailable, match="libvirt knows no QEMU"):
        ids(OLD, replace(NEW, qemu=Qemu(None)), TWO_CORES, extra)


def test_what_is_certain_outweighs_doubt_and_what_evidence_settles_comes_before_what_a_vendor_knows():
    target = host((10, 0, 0), (10, 0, 0), here=UBUNTU)
    assert ids(OLD, target, guest("vmx")) == ["ht-extra"], "Ubuntu may have repaired vmx-unnamed"
    with pytest.raises(VendorsRepair):
        ids(OLD, replace(target, qemu=Qemu(Version(8, 2))), guest("vmx"))
    with pytest.raises(Unavailable) as doubt:
        ids(OLD, replace(target, qemu=gone()), guest("vmx"))
    assert not isinstance(doubt.value, VendorsRepair)


def test_an_advisory_must_not_ask_for_a_fact_that_its_check_left_out():
    with pytest.raises(TypeError):
        ids(HostView(), HostView(), TWO_CORES)


# --- ht and vmx --------------------------------------------------------------------------------------------------


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
    assert ids(OLD, NEW, guest(topology=topology)) == ["ht-extra"] * applies


def test_what_counts_for_ht_is_the_definition():
    assert not ids(OLD, NEW, WITH_HT), "a guest of QEMU 10 names it"
    assert ids(OLD, NEW, guest(minus="ht")) == ["ht-extra"], "QEMU 10 shows it though it is switched off"
    assert ids(NEW, NEW, TWO_CORES) == ["ht-extra"], "the guest still runs in the QEMU of before the update"
    assert ids(OLD, NEW, guest(virttype="qemu")) == ["ht-extra"]
    assert not any("ht" in model.features for model in CpuMap.carried().models), "no model brings it along"
    assert not ids(NEW, OLD, guest("ht", virttype="qemu")), "under KVM only, as far as known"
    assert not ids(NEW, OLD, TWO_CORES)


@pytest.mark.parametrize("more", [{"check": "none"}, {"check": None}, {"model": None, "mode": "host-passthrough"}])
def test_an_unverified_cpu_is_not_refused(more):
    verified = [one for one in ADVISORIES if one.id.startswith(("ht-", "vmx-")) and one.id != "vmx-blocked"]
    target = host((10, 0, 0), (10, 0, 0))
    for plus, minus in (("", ""), ("ht", ""), ("vmx", ""), ("vmx vmx-ept", ""), ("vmx", "vmx-ept")):
        assert not ids(NEW, target, guest(plus, minus, **more), verified)
        assert not ids(NEW, OLD, guest(plus, minus, **more), verified)


def test_which_vmx_guests():
    target = host((10, 1, 0), (8, 2, 0))
    assert not ids(OLD, target, guest("ht")), "without vmx"
    assert not ids(OLD, target, guest("ht", minus="vmx"))
    assert not ids(V10, target, NAMED), "between two affected releases"
    assert ids(V10, target, UNNAMED) == ["vmx-unnamed"], "started before an update of libvirt"
    assert ids(OLD, target, DISABLED) == ["vmx-disabled"]
    assert ids(NEW, target, guest("vmx ht vmx-ept", "vmx-eptad")) == ["vmx-withheld", "vmx-disabled"]
    assert not ids(host(qemu=(3, 1, 0)), OLD, guest("vmx ht", virttype="qemu")), "an emulated vmx blocks nothing"


# --- kernels -----------------------------------------------------------------------------------------------------


def test_which_guests_have_the_register_hidden():
    source, target = CASES["pkru"][1:]
    only = (BY_ID["pkru"],)
    assert ids(source, target, guest(), only)
    assert ids(source, target, guest(model="Skylake-Server-IBRS"), only)
    assert ids(source, target, guest(model="Icelake-Server", minus="pku"), only)
    for one in (guest("pku"), guest(model="Icelake-Server"), guest(model=None, mode="host-passthrough")):
        assert not ids(source, target, one, only)
    assert not ids(source, target, guest(virttype="qemu"), only)
    with pytest.raises(Unavailable, match="whether CPU model Unheard has pku"):
        ids(source, target, guest(model="Unheard"), only)
    assert not ids(source, source, guest(model="Unheard"), only), "between like kernels it does not matter"
    unnamed = replace(guest(), cpu=GuestCpu(True, None, None, None, frozenset()))
    assert ids(source, target, unnamed, only), "QEMU's default has no pku"


@pytest.mark.parametrize(
    ("kernel", "applies"),
    [("6.1.0", True), ("6.1.59", True), ("6.1.60-1-lts", False), ("6.5.13-5-pve", False), ("6.8.12-4-pve", False)],
)
def test_stable_kernels_with_the_repair(kernel, applies):
    source, target = CASES["pkru"][1:]
    assert bites("pkru", source, replace(target, kernel=Kernel(kernel, "x86_64"))) is applies


@pytest.mark.parametrize(("here", "there"), [(UBUNTU, ARCH), (ROCKY, ARCH), (ARCH, DEBIAN), (ARCH, UBUNTU)])
def test_a_distributions_kernel_may_have_it_unseen(here, there):
    source, target = CASES["pkru"][1:]
    with pytest.raises(VendorsRepair):
        bites("pkru", replace(source, system=here), replace(target, system=there))
    fixed = replace(target, system=there, kernel=Kernel("6.8.0-45-generic", "x86_64"))
    assert not bites("pkru", replace(source, system=here), fixed)


def test_red_hats_kernels_are_no_targets_of_it():
    source = replace(CASES["pkru"].source, kernel=Kernel("4.18.0-513.el8.x86_64", "x86_64"), system=ROCKY)
    assert not bites("pkru", source, host(kernel="5.14.0-427.el9.x86_64", here=ROCKY))


@pytest.mark.parametrize(
    ("machine", "concerned"),
    [
        ("pc-q35-8.2", True),
        ("pc-i440fx-9.0", True),
        ("pc-q35-10.1+pve0", True),
        ("virt-9.2", True),
        ("pc-q35-noble", True),
        ("pc-q35-8.1", False),
        ("pc-q35-jammy", False),
        ("pc-q35-rhel9.6.0", False),
        ("pc-q35-rhel10.0.0", False),
        ("s390-ccw-virtio-7.2", False),
    ],
)
def test_which_machine_types_hand_on_uso(machine, concerned):
    _, source, target = CASES["udp-offload"]
    assert ids(source, target, guest("ht", machine=machine, offloads=True)) == ["udp-offload"] * concerned
    assert not ids(source, target, guest("ht", machine=machine, offloads=False))


def test_uso_on_other_architectures_and_ways():
    _, source, target = CASES["udp-offload"]
    arm = replace(USO, machine=replace(USO.machine, arch="aarch64", machine="virt-9.0"))
    assert ids(source, target, arm) == ["udp-offload"]
    assert not ids(target, source, USO), "to a kernel that has more"
    assert not ids(target, target, USO), "what never was offered was not taken"


def test_which_guests_have_tsx_or_svm():
    source = host(kernel="5.4.0", words=["tsx=auto"])
    notes = (BY_ID["tsx-by-choice"], BY_ID["svm-state"])
    assert ids(source, OLD, guest("hle"), notes) == ["tsx-by-choice"]
    assert ids(source, OLD, guest(model="Haswell"), notes) == ["tsx-by-choice"], "by its model"
    assert not ids(source, OLD, guest(minus="hle rtm", model="Haswell"), notes)
    assert not ids(source, OLD, guest(model="Haswell-noTSX"), notes)
    assert not ids(source, OLD, guest("svm", virttype="qemu"), notes), "an emulated svm is not the kernel's"


def test_debians_build_tells_the_stable_release_that_its_kernels_name_hides():
    source, target = CASES["pkru"][1:]
    only = (BY_ID["pkru"],)
    hidden = Kernel("6.1.0-13-amd64", "x86_64")
    debian = replace(target, kernel=hidden, system=DEBIAN)
    with pytest.raises(VendorsRepair):
        ids(source, debian, guest(), only)
    assert ids(source, replace(debian, kernel=replace(hidden, stable=Version(6, 1, 55))), guest(), only) == ["pkru"]
    assert not ids(source, replace(debian, kernel=replace(hidden, stable=Version(6, 1, 119))), guest(), only)
