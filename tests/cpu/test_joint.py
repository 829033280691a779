"""A baseline for several hosts: their models and blockers all count, and who would say otherwise is told."""

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
    MaxPhysAddr,
    NotComputable,
    UnknownCpuName,
    Verdict,
    compare_with,
    feature_set,
    joint_baseline,
    lost_features,
    notes_on,
    remedy,
)
from audit.cpu.sources import named_by

MAP, OLD_MAP = CpuMap.carried(), CpuMap.carried("9.0.0")
WIDTH = {"maxphysaddr": MaxPhysAddr("passthrough", limit=46)}
OLD_AND_NEW = (("old", (9, 0, 0), OLD_MAP), ("new", (11, 3, 0), MAP))
ALL = tuple(HypervisorModel(model.name) for model in MAP.models)


def cpu(model: str, *names: str, **more) -> CpuDefinition:
    """`-name` is switched off."""
    features = tuple(CpuFeature(n.lstrip("-"), "disable" if n[0] == "-" else "require") for n in names)
    return CpuDefinition(model=model, vendor="Intel", fallback="forbid", features=features, **more)


def host(name: str, definition: CpuDefinition, models=ALL, libvirt=(11, 3, 0), **more) -> CpuSource:
    return CpuSource(name, definition, Hypervisor(models), libvirt=libvirt, **more)


def blocked(model: str, *features: str) -> tuple[HypervisorModel, ...]:
    return tuple(HypervisorModel(m.name, "no", frozenset(features)) if m.name == model else m for m in ALL)


def without(model: str) -> tuple[HypervisorModel, ...]:
    return tuple(m for m in ALL if m.name != model)


def notes(*sources: CpuSource) -> list[str]:
    return notes_on(sources, MAP, joint_baseline(sources, MAP), migratable=False)


def test_equal_hosts_agree():
    assert notes(host("a", cpu("Westmere")), host("b", cpu("Westmere"))) == []


def test_a_model_that_one_host_does_not_offer_is_not_chosen_and_the_other_told():
    a, b = host("a", cpu("Westmere")), host("b", cpu("Westmere"), without("Westmere"))
    joint = joint_baseline([a, b], MAP)
    assert joint.model == "Nehalem"
    assert feature_set(joint, MAP) == feature_set(cpu("Westmere"), MAP)
    assert notes(a, b) == ["virsh on a would choose Westmere, which QEMU on b does not offer"]
    assert joint_baseline([a, b], MAP, as_on=a).model == "Westmere"


def test_what_one_host_blocks_is_off_for_all():
    a, b = host("a", cpu("Westmere")), host("b", cpu("Westmere"), blocked("Westmere", "aes"))
    joint = joint_baseline([a, b], MAP)
    assert joint.named("disable") == {"aes"}
    assert notes(a, b) == ["virsh on a would not switch off aes, which QEMU on b cannot give"]
    assert lost_features([a, b], joint, MAP) == {"aes": ("b",)}


def test_hosts_with_equal_answers_are_named_together():
    many = [host(f"h{n}", cpu("Westmere")) for n in range(12)]
    [note] = notes(*many, host("b", cpu("Westmere"), without("Westmere")))
    assert note.startswith("virsh on h0, h1, h2, h3, h4, h5, h6, h7 and 4 more would choose Westmere")


def test_an_older_libvirt_goes_by_its_own_map_and_rules():
    old = host("old", cpu("Westmere", "vme"), libvirt=(9, 0, 0), cpu_map=OLD_MAP)
    new = host("new", cpu("Westmere", "vme", "sha512"), cpu_map=MAP)
    assert notes(old, new) == [
        "virsh on old would refuse: Unknown CPU feature sha512",
    ]
    wide = [replace(source, cpu=cpu("Westmere", **WIDTH)) for source in (old, new)]
    assert joint_baseline(wide, MAP).maxphysaddr
    assert joint_baseline(wide, MAP, as_on=wide[0]).maxphysaddr is None


def test_another_order_of_the_map_is_told():
    pair = [host(n, cpu("Westmere", "ss", "vmx"), libvirt=v, cpu_map=m) for n, v, m in OLD_AND_NEW]
    [note] = notes(*pair)
    assert note.startswith("virsh on old would list the same features in another order: its libvirt (9.0.0) has")


def test_doubts_are_told():
    silent = host("a", cpu("Westmere"), tuple(m._replace(usable="no") if m.name == "Westmere" else m for m in ALL))
    assert "does not list what is missing" in notes(silent)[0]
    bare = CpuSource("f.xml", cpu("Westmere"))
    assert "f.xml: nothing is told of the hypervisor" in notes(host("a", cpu("Westmere")), bare)[0]
    assert notes(bare, bare) == []


def test_no_host_is_given_a_name_that_its_libvirt_does_not_know():
    """A blocker on a new host may have no name on an old one, whose libvirt would refuse the definition."""
    old = host("old", cpu("Haswell", "ss", "vmx"), cpu_map=OLD_MAP)
    old = replace(old, hypervisor=named_by(old.hypervisor, OLD_MAP))
    new = host("new", cpu("Haswell", "vmx", "ss"), blocked("Haswell", "vmx-ins-outs", "aes"), cpu_map=MAP)
    joint = joint_baseline([old, new], MAP)
    assert joint.named("disable") == {"aes"}
    assert joint_baseline([new], MAP).named("disable") == {"aes", "vmx-ins-outs"}


def test_a_baseline_that_cannot_be_said_everywhere_is_told():
    """Where every model needs such a name the next best is given, and who will refuse it."""
    everything = frozenset(name for name in MAP.order if name != "aes")
    old = host("old", cpu("Westmere", "-aes"))
    old = replace(old, hypervisor=Hypervisor((HypervisorModel("Westmere"),), names=everything))
    joint = joint_baseline([old], MAP)
    assert joint.named("disable") == {"aes"}
    assert "libvirt on old does not know aes, and refuses" in notes_on([old], MAP, joint, migratable=False)[-1]


def test_migratable_leaves_out_what_any_hosts_qemu_says():
    a = host("a", cpu("Westmere", "invtsc", "avx"))
    b = replace(a, name="b", hypervisor=replace(a.hypervisor, not_migratable=frozenset({"avx"})))
    assert [f.name for f in joint_baseline([a, b], MAP, migratable=True).features] == []
    silent = replace(a, hypervisor=replace(a.hypervisor, not_migratable=None))
    assert [f.name for f in joint_baseline([silent], MAP, migratable=True).features] == ["avx"]  # by libvirt's own list


@pytest.mark.parametrize(("arch", "words"), [("aarch64", "is not supported for arch aarch64"), ("s390x", "QEMU's own")])
def test_other_architectures_are_not_guessed(arch: str, words: str):
    with pytest.raises(NotComputable, match=words):
        joint_baseline([CpuSource("a", cpu("gen15a-base"), arch=arch)], MAP)


def test_sources_of_several_architectures_have_nothing_in_common():
    with pytest.raises(NotComputable, match="several"):
        joint_baseline([CpuSource("a", cpu("Westmere")), CpuSource("b", cpu("z14"), arch="s390x")], MAP)


def test_a_remedy_passes_and_is_the_smallest():
    target = host("t", cpu("Westmere"))
    found = remedy(target, cpu("Westmere", "avx"), MAP)
    assert found.words == "switch off avx"
    assert compare_with(target, found.cpu, MAP).verdict in (Verdict.IDENTICAL, Verdict.SUPERSET)
    foreign = remedy(target, replace(cpu("EPYC"), vendor="AMD"), MAP)
    assert (foreign.words, foreign.cpu) == ("no definition does: CPU vendors do not match", None)
    assert remedy(replace(target, arch="s390x"), cpu("z14"), MAP).cpu is None


def test_lists_do_not_compare_strangers():
    power = CpuSource("t", CpuDefinition(model="POWER8", vendor="IBM"), arch="ppc64")
    assert compare_with(power, CpuDefinition(model="POWER8", vendor="IBM"), MAP).verdict == "identical"
    for stranger in ({"vendor": "Freescale"}, {"arch": "x86_64", "kind": "host"}):
        guest = CpuDefinition(model="POWER8", **stranger)
        assert compare_with(power, guest, MAP).verdict == "incompatible", stranger
    nameless = replace(power, cpu=CpuDefinition(model="POWER8"))
    assert compare_with(nameless, CpuDefinition(model="POWER8", vendor="IBM"), MAP).verdict == "incompatible"


def test_lists_decide_where_only_qemu_knows_the_models():
    def there(definition: CpuDefinition, usable: str = "yes", *blockers: str) -> CpuSource:
        models = (HypervisorModel("gen15a-base", usable, frozenset(blockers)),)
        return CpuSource("t", definition, Hypervisor(models), arch="s390x")

    guest = CpuDefinition(model="gen15a-base", features=(CpuFeature("te"),))
    same = replace(guest, fallback="forbid")
    more = replace(same, features=(CpuFeature("te"), CpuFeature("vx")))
    newer = replace(more, model="gen16a-base")
    words = {
        "identical": there(same),
        "superset": there(more),
        "incompatible": there(replace(same, features=())),
    }
    for word, target in words.items():
        assert compare_with(target, guest, MAP).verdict == word
    off = replace(same, features=(CpuFeature("te", "disable"),))
    assert compare_with(there(off), replace(guest, features=()), MAP).missing == ("te",)
    assert compare_with(there(off), replace(guest, features=off.features), MAP).verdict == "identical"
    assert compare_with(there(newer), guest, MAP).verdict == "superset"
    assert compare_with(there(replace(newer, features=())), guest, MAP).verdict == "unknown"
    assert compare_with(there(newer, "unknown"), guest, MAP).verdict == "unknown"
    assert compare_with(there(newer, "no", "te"), guest, MAP).missing == ("te",)
    assert "does not know the model" in compare_with(there(newer), replace(guest, model="gen17"), MAP).reason


NAMES = st.sampled_from([name for name in MAP.order if name not in MAP.model("486").features])
MODELS = st.sampled_from(
    [m.name for m in MAP.models if m.vendor == "Intel" and MAP.model("486").features <= m.features]
)
SOURCES = st.lists(
    st.builds(
        lambda model, plus, blocked_too: host(
            model, cpu(model, *sorted(plus)), tuple(m._replace(blockers=frozenset(blocked_too)) for m in ALL)
        ),
        MODELS,
        st.frozensets(NAMES, max_size=8),
        st.frozensets(NAMES, max_size=2),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(SOURCES, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_hosts_changes_nothing(sources, rng, migratable):
    """Where every CPU names its vendor; libvirt looks at the first one's model only if it does."""
    shuffled = rng.sample(sources, len(sources))
    assert joint_baseline(shuffled, MAP, migratable=migratable) == joint_baseline(sources, MAP, migratable=migratable)


@settings(deadline=None)
@given(SOURCES)
def test_a_joint_baseline_is_in_every_host_and_blocked_by_none(sources):
    joint = joint_baseline(sources, MAP)
    has = feature_set(joint, MAP)
    for source in sources:
        assert has <= feature_set(source.cpu, MAP)
        assert not has & source.hypervisor.find(joint.model).blockers & MAP.model(joint.model).features


@settings(deadline=None)
@given(SOURCES, st.integers(0, 3))
def test_every_name_of_a_joint_baseline_is_known_to_every_libvirt(sources, number):
    """One host's libvirt knows the names of an old map only."""
    place = number % len(sources)
    old = sources[place]
    try:
        feature_set(old.cpu, OLD_MAP)
    except UnknownCpuName:
        return
    sources[place] = replace(old, hypervisor=named_by(old.hypervisor, OLD_MAP))
    joint = joint_baseline(sources, MAP)
    unsaid = {feature.name for feature in joint.features} - OLD_MAP.order.keys()
    assert not unsaid or any("does not know" in note for note in notes_on(sources, MAP, joint, migratable=False))


@settings(deadline=None)
@given(SOURCES)
def test_no_host_is_asked_for_what_another_one_lacks(sources):
    """What is lost is lost by somebody, or is nobody's to give; and what one host removes it lacks or blocks."""
    sources = [replace(source, name=f"h{number}") for number, source in enumerate(sources)]
    joint = joint_baseline(sources, MAP)
    by_name = {source.name: source for source in sources}
    for feature, hosts in lost_features(sources, joint, MAP).items():
        for name in hosts:
            source = by_name[name]
            lacks = feature not in feature_set(source.cpu, MAP)
            assert lacks or feature in source.hypervisor.find(joint.model).blockers
