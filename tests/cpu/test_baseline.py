"""Baselines: the documented example, each of libvirt's rules on small inputs, and what must hold for all inputs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuMap,
    CpuSignature,
    CpuSource,
    Hypervisor,
    HypervisorModel,
    IncompatibleCpus,
    MaxPhysAddr,
    UnknownCpuName,
    Verdict,
    as_host,
    baseline,
    compare,
    decode,
    expand,
    feature_set,
    hypervisor_baseline,
    lost_features,
    plain_baseline,
    read_cpus,
)
from tests.cpu import corpus

MAP = CpuMap.carried()

# Red Hat Enterprise Linux 9, Migrating virtual machines, 12.4: features of both hosts, and the printed result.
SKYLAKE_FEATURES = """
    ss vmx pdcm hypervisor tsc_adjust clflushopt umip md-clear stibp arch-capabilities ssbd xsaves pdpe1gb invtsc
    ibpb ibrs amd-stibp amd-ssbd rsba skip-l1dfl-vmentry pschange-mc-no -hle -rtm
"""
IVYBRIDGE_FEATURES = """
    ss vmx pdcm pcid hypervisor arat tsc_adjust umip md-clear stibp arch-capabilities ssbd xsaveopt pdpe1gb invtsc
    ibpb amd-ssbd skip-l1dfl-vmentry pschange-mc-no
"""


def cpu(model: str, *features: str, vendor: str | None = None) -> CpuDefinition:
    """Make a guest's CPU; "-name" disables."""
    listed = (CpuFeature(f[1:], "disable") if f.startswith("-") else CpuFeature(f) for f in features)
    return CpuDefinition(model=model, vendor=vendor, features=tuple(listed))


def names(result: CpuDefinition) -> list[str]:
    return [("-" if feature.policy == "disable" else "") + feature.name for feature in result.features]


SKYLAKE = cpu("Skylake-Client-IBRS", *SKYLAKE_FEATURES.split(), vendor="Intel")
IVYBRIDGE = cpu("IvyBridge-IBRS", *IVYBRIDGE_FEATURES.split(), vendor="Intel")


def test_the_documents_example():
    result = hypervisor_baseline([SKYLAKE, IVYBRIDGE], MAP)
    assert (result.model, result.fallback, result.vendor) == ("IvyBridge-IBRS", "forbid", "Intel")
    # libvirt 11.3 lists `ss` after `hypervisor`, as its map does; the document is from before.
    assert names(result) == MAP.sorted(IVYBRIDGE_FEATURES.split())


@pytest.mark.corpus
@corpus.needs_corpus
def test_the_documents_example_line_by_line():
    result = hypervisor_baseline([SKYLAKE, IVYBRIDGE], corpus.load_map("9.0.0"))
    assert result.to_xml().splitlines() == [
        "<cpu mode='custom' match='exact'>",
        "  <model fallback='forbid'>IvyBridge-IBRS</model>",
        "  <vendor>Intel</vendor>",
        *(f"  <feature policy='require' name='{name}'/>" for name in IVYBRIDGE_FEATURES.split()),
        "</cpu>",
    ]


def test_the_documents_example_migratable_lacks_invtsc_only():
    both = [hypervisor_baseline([SKYLAKE, IVYBRIDGE], MAP, migratable=flag) for flag in (False, True)]
    assert set(names(both[0])) - set(names(both[1])) == {"invtsc"}


def test_current_qemu_migrates_xsaves():
    assert "xsaves" in names(hypervisor_baseline([SKYLAKE], MAP, migratable=True))
    assert "xsaves" not in names(plain_baseline([as_host(SKYLAKE, MAP)], MAP, migratable=True))


def test_expanded_features_are_sorted_by_byte():
    expanded = names(hypervisor_baseline([cpu("Dhyana", "3dnow")], MAP, features=True))
    assert expanded == sorted(expanded, key=lambda name: name.removeprefix("-"))
    assert expanded[:2] == ["3dnow", "3dnowprefetch"]
    assert "-monitor" in expanded  # the model had it once


def test_one_model_is_kept_and_nothing_replaces_it():
    result = baseline([cpu("Westmere", "-aes"), cpu("Westmere", "-popcnt")], MAP)
    assert (result.model, result.fallback) == ("Westmere", "forbid")
    assert names(result) == ["-popcnt", "-aes"]


def test_different_models_allow_a_fallback():
    assert baseline([cpu("Westmere"), cpu("Nehalem")], MAP).fallback == "allow"
    assert hypervisor_baseline([cpu("Westmere"), cpu("Nehalem")], MAP).fallback == "forbid"


def test_versioned_models_come_in_and_never_out():
    result = hypervisor_baseline([cpu("Skylake-Client-v4"), cpu("Cascadelake-Server-v5")], MAP)
    assert result.model
    assert MAP.model(result.model).decode_guest
    assert feature_set(result, MAP) == feature_set(cpu("Skylake-Client-v4"), MAP) & feature_set(
        cpu("Cascadelake-Server-v5"), MAP
    )


def test_a_cpu_without_vendor_hides_the_vendor():
    assert baseline([cpu("Westmere", vendor="Intel"), cpu("Nehalem")], MAP).vendor is None
    assert baseline([cpu("Westmere", vendor="Intel"), cpu("Nehalem", vendor="Intel")], MAP).vendor == "Intel"


@pytest.mark.parametrize(
    ("cpus", "kind", "message"),
    [
        ([], CpuError, "no CPUs given"),
        ([cpu("Westmere"), CpuDefinition()], CpuError, "no CPU model specified at index 1"),
        ([cpu("Westmore")], UnknownCpuName, "Unknown CPU model Westmore"),
        ([cpu("Westmere", "sea")], UnknownCpuName, "Unknown CPU feature sea"),
        ([cpu("Westmere", vendor="Foo")], UnknownCpuName, "Unknown CPU vendor Foo"),
        ([cpu("486"), cpu("Westmere", vendor="Foo")], IncompatibleCpus, "CPU vendor Intel of model Westmere differs"),
        (
            [cpu("Westmere", vendor="Intel"), cpu("EPYC", vendor="AMD")],
            IncompatibleCpus,
            "CPU vendors do not match",
        ),
        ([cpu("Westmere", vendor="Intel"), cpu("EPYC")], IncompatibleCpus, "CPU vendors do not match"),
        ([cpu("486", "-fpu", "-pse", "-vme")], IncompatibleCpus, "CPUs are incompatible"),
    ],
)
def test_refusals_are_libvirts(cpus, kind, message):
    with pytest.raises(kind, match=message):
        baseline(cpus, MAP)


def test_a_hypervisor_that_offers_nothing_fitting_is_told():
    with pytest.raises(IncompatibleCpus, match="Cannot find suitable CPU model for given data"):
        hypervisor_baseline([cpu("Westmere", vendor="Intel")], MAP, Hypervisor((HypervisorModel("EPYC"),)))


def test_only_offered_models_are_chosen_and_blocked_features_are_switched_off():
    hypervisor = Hypervisor((HypervisorModel("Nehalem"), HypervisorModel("Westmere", "no", frozenset({"aes", "hle"}))))
    result = hypervisor_baseline([cpu("Westmere")], MAP, hypervisor)
    assert (result.model, names(result)) == ("Westmere", ["-aes", "-hle"])
    result = hypervisor_baseline([cpu("IvyBridge")], MAP, Hypervisor((HypervisorModel("Nehalem"),)))
    assert result.model == "Nehalem"
    assert feature_set(result, MAP) == feature_set(cpu("IvyBridge"), MAP)


def test_a_hypervisor_gives_only_features_that_it_knows():
    hypervisor = Hypervisor(
        (HypervisorModel("Westmere"),), MAP.model("Westmere").features - {"aes"}, frozenset({"lahf_lm"})
    )
    assert names(hypervisor_baseline([cpu("Westmere", "avx")], MAP, hypervisor)) == ["-aes"]
    migratable = hypervisor_baseline([cpu("Westmere", "avx")], MAP, hypervisor, migratable=True)
    assert set(names(migratable)) == {"-aes", "-lahf_lm"}


def test_several_hosts_have_the_models_of_all_and_the_blockers_of_any():
    one = Hypervisor((HypervisorModel("A"), HypervisorModel("B", "no", frozenset({"x"}))), frozenset({"f", "g"}))
    two = Hypervisor((HypervisorModel("B", "unknown", frozenset({"y"})), HypervisorModel("C")))
    three = replace(two, features=frozenset({"g", "h"}))
    joint = (HypervisorModel("B", "no", frozenset({"x", "y"})),)
    assert Hypervisor.common([one]) == one
    assert Hypervisor.common([one, two]) == Hypervisor(joint, frozenset({"f", "g"}))
    assert Hypervisor.common([two, one]).features == {"f", "g"}
    assert Hypervisor.common([one, two, three]) == Hypervisor(joint, frozenset({"g"}))


def test_the_narrowest_address_width_is_told_only_if_all_tell_theirs():
    wide, narrow = (replace(cpu("Westmere"), maxphysaddr=MaxPhysAddr("passthrough", limit=n)) for n in (52, 46))
    assert hypervisor_baseline([wide, narrow], MAP).maxphysaddr == MaxPhysAddr("passthrough", limit=46)
    assert hypervisor_baseline([wide, cpu("Westmere")], MAP).maxphysaddr is None


def test_broken_tsx_is_taken_out():
    data = feature_set(cpu("Haswell"), MAP)
    for signature, has_tsx in ((CpuSignature(6, 60, 3), False), (CpuSignature(6, 63, 4), True)):
        result = decode(data, MAP, vendor="Intel", signature=signature)
        assert ("rtm" in feature_set(result, MAP)) is has_tsx


def test_a_signature_beats_the_score():
    data = feature_set(cpu("Nehalem"), MAP)
    assert decode(data, MAP, vendor="Intel").model == "Nehalem"
    assert decode(data, MAP, vendor="Intel", signature=CpuSignature(6, 44, 2)).model == "Westmere"


def test_disabled_features_cost_extra_and_only_half_of_them_count():
    # Without the extra cost (before libvirt 8.4) this is IvyBridge.
    assert hypervisor_baseline([cpu("IvyBridge"), cpu("Haswell-noTSX")], MAP).model == "SandyBridge"
    # Were all of them counted, this were kvm32.
    assert hypervisor_baseline([cpu("n270"), cpu("Conroe")], MAP).model == "n270"


def test_lost_features_name_the_hosts_that_lack_or_block_them():
    a = CpuSource("a", cpu("Westmere", "invtsc", "avx"))
    b = CpuSource("b", cpu("Westmere", "invtsc"))
    c = CpuSource("c", cpu("Nehalem", "invtsc"))
    result = hypervisor_baseline([source.cpu for source in (a, b, c)], MAP, migratable=True)
    assert lost_features([a, b, c], result, MAP) == {"aes": ("c",), "avx": ("b", "c"), "invtsc": ()}


def cpus(kind: str = "guest", vendor: str | None = "Intel") -> st.SearchStrategy[CpuDefinition]:
    """Make any CPU of one vendor that has at least what a 486 has, so that some baseline exists."""
    common = MAP.model("486").features
    models = [m.name for m in MAP.models if m.vendor in (vendor, None) and common <= m.features]
    policies = st.just("require") if kind == "host" else st.sampled_from(["require", "disable", "force", "optional"])
    features = st.dictionaries(
        st.sampled_from([feature.name for feature in MAP.features if feature.name not in common]),
        policies,
        max_size=12,
    )
    return st.builds(
        lambda model, listed: CpuDefinition(
            kind=kind,
            arch="x86_64" if kind == "host" else None,
            model=model,
            vendor=vendor,
            features=tuple(CpuFeature(*item) for item in listed.items()),
        ),
        st.sampled_from(models),
        features,
    )


several = st.lists(cpus(), min_size=1, max_size=4)


@settings(deadline=None)
@given(several)
def test_a_baseline_is_just_what_all_have(group):
    common = frozenset.intersection(*(feature_set(one, MAP) for one in group))
    assert feature_set(hypervisor_baseline(group, MAP), MAP) == common


@settings(deadline=None)
@given(several)
def test_every_host_can_run_the_baseline(group):
    result = hypervisor_baseline(group, MAP)
    assert all(compare(one, result, MAP).verdict != Verdict.INCOMPATIBLE for one in group)
    [alone] = {compare(one, hypervisor_baseline([one], MAP), MAP).verdict for one in group[:1]}
    assert alone in (Verdict.IDENTICAL, Verdict.SUPERSET)


@settings(deadline=None)
@given(several, cpus(), st.booleans())
def test_one_host_more_never_adds_a_feature(group, another, migratable):
    before = hypervisor_baseline(group, MAP, migratable=migratable)
    after = hypervisor_baseline([*group, another], MAP, migratable=migratable)
    assert feature_set(after, MAP) <= feature_set(before, MAP)


@settings(deadline=None)
@given(several, st.frozensets(st.sampled_from([feature.name for feature in MAP.features]), max_size=20))
def test_what_a_hypervisor_blocks_is_off(group, blocked):
    hypervisor = Hypervisor(tuple(HypervisorModel(model.name, "no", blocked) for model in MAP.models))
    result = hypervisor_baseline(group, MAP, hypervisor)
    in_model = MAP.model(result.model).features
    assert not feature_set(result, MAP) & blocked & in_model


@settings(deadline=None)
@given(cpus() | cpus("host"))
def test_spelling_out_and_printing_change_no_feature(one):
    plain = replace(one, features=tuple(f for f in one.features if f.policy in ("require", "disable")))
    assert feature_set(expand(one, MAP), MAP) == feature_set(plain, MAP)
    assert read_cpus(one.to_xml()) == [one]


@settings(deadline=None)
@given(cpus())
def test_a_guest_said_as_a_host_has_the_same_features(one):
    assert feature_set(as_host(one, MAP), MAP) == feature_set(one, MAP)
