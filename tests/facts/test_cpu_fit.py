from dataclasses import replace

import pytest

from audit.cpu import CpuDefinition, CpuFeature, Hypervisor, HypervisorModel, MaxPhysAddr
from audit.facts.base import Unavailable
from audit.facts.cpu_fit import CpuGap, gap, migratable, running, seen_address_bits
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.host_models import DOMCAPS_KVM, DomainCapabilities, HostModels


def cpu(model, plus="", minus="", **more):
    features = [CpuFeature(name) for name in plus.split()] + [CpuFeature(name, "disable") for name in minus.split()]
    return CpuDefinition(**{"model": model, "features": tuple(features), "check": "full", "fallback": "forbid"} | more)


def offer(host_model, *models, arch="x86_64", virttype="kvm"):
    names = {host_model.model, "qemu64", "Westmere", "Skylake-Client-IBRS", *models} if host_model else set(models)
    hypervisor = Hypervisor(tuple(HypervisorModel(name) for name in sorted(names)))
    return DomainCapabilities(
        virttype, arch, "pc-q35-9.0", "/usr/bin/qemu", host_model, frozenset(), hypervisor, frozenset(), frozenset()
    )


OLD = cpu("Westmere", "vmx pcid hypervisor")
NEW = cpu("Skylake-Client-IBRS", "vmx hypervisor stibp invtsc", "hle rtm")
NAMES = CpuMapFiles("ab", None, None)
_FEATURES = "vmx pcid hypervisor stibp invtsc hle rtm mpx ht avx svm xsavec aes pclmuldq ssbd"
KNOWN = CpuMapFiles("ab", frozenset(_FEATURES.split()), frozenset({"Westmere", "Skylake-Client-IBRS", "qemu64"}))


def test_an_old_cpu_fits_a_new_host():
    assert gap(OLD, "x86_64", offer(NEW), KNOWN) is None


def test_a_new_cpu_lacks_features_on_an_old_host():
    lacking = gap(migratable(NEW), "x86_64", offer(OLD), KNOWN)
    assert lacking
    assert {"avx", "avx2", "stibp", "xsavec"} <= set(lacking.missing)
    assert "hle" not in lacking.missing
    assert "invtsc" not in lacking.missing, "a host-model guest does not get it"
    assert "lacks " in str(lacking)
    assert "avx2" in str(lacking)


def test_one_feature_makes_the_difference():
    assert gap(cpu("Westmere", "vmx hypervisor"), "x86_64", offer(cpu("Westmere", "hypervisor")), KNOWN) == CpuGap(
        missing=("vmx",)
    )


def test_ht_is_the_topologys():
    assert gap(cpu("Westmere", "ht"), "x86_64", offer(OLD), KNOWN) is None


def test_a_model_that_the_target_does_not_know():
    lacking = gap(cpu("SapphireRapids"), "x86_64", offer(OLD), KNOWN)
    assert lacking
    assert lacking.unknown_model == "SapphireRapids"
    assert "unknown there" in str(lacking)


def test_a_model_that_libvirt_would_translate_is_open():
    with pytest.raises(Unavailable, match="by another one"):
        gap(cpu("qemu64", fallback="allow"), "x86_64", replace(offer(OLD), hypervisor=Hypervisor(())), KNOWN)


def test_a_switched_off_feature_must_be_known_by_name():
    guest = cpu("Westmere", "", "cmpccxadd")
    assert gap(guest, "x86_64", offer(OLD), KNOWN) == CpuGap(unknown_features=("cmpccxadd",))
    assert "does not know cmpccxadd" in str(gap(guest, "x86_64", offer(OLD), KNOWN))
    with pytest.raises(Unavailable, match="cmpccxadd"):
        gap(guest, "x86_64", offer(OLD), NAMES)
    assert gap(cpu("Westmere", "vmx"), "x86_64", offer(OLD), NAMES) is None, "its own host-model proves the name"


def test_features_that_no_map_knows_are_compared_by_name():
    there = offer(cpu("Westmere", "brand-new"))
    names = replace(KNOWN, features=KNOWN.features | {"brand-new", "newer-still"})
    assert gap(cpu("Westmere", "brand-new", "newer-still"), "x86_64", there, names) is None
    assert gap(cpu("Westmere", "newer-still"), "x86_64", there, names) == CpuGap(missing=("newer-still",))


def test_a_model_that_no_map_knows_cancels_out():
    there = offer(cpu("Future-Lake", "vmx", "hle rtm"))
    names = replace(KNOWN, models=KNOWN.models | {"Future-Lake"})
    assert gap(cpu("Future-Lake", "vmx", "hle rtm"), "x86_64", there, names) is None
    assert gap(cpu("Future-Lake", "vmx avx", "hle"), "x86_64", there, names) == CpuGap(missing=("avx", "rtm"))
    with pytest.raises(Unavailable, match="has no model Future-Lake"):
        gap(cpu("Westmere"), "x86_64", there, names)


def test_features_added_to_the_model_later_stay_behind():
    """The libvirt that sends the guest leaves them out, unless they were asked for."""
    guest = cpu("Westmere", "vmx-ept", "vmx-vpid")
    custom = cpu("Westmere", check=None)
    assert gap(guest, "x86_64", offer(OLD), KNOWN, inactive=custom) is None
    asked = gap(guest, "x86_64", offer(OLD), KNOWN, inactive=cpu("Westmere", "vmx-ept"))
    assert asked == CpuGap(unknown_features=("vmx-ept",))
    host_model = CpuDefinition(mode="host-model")
    assert gap(guest, "x86_64", offer(OLD), KNOWN, inactive=host_model) == asked


def test_an_unchecked_guest_has_what_its_host_gave():
    guest = cpu("qemu64", check="none")
    intel = offer(cpu("Westmere", "vmx"))  # qemu64 names svm, which no Intel host gives
    assert gap(guest, "x86_64", intel, KNOWN, own=intel.host_model) is None
    with pytest.raises(Unavailable, match="own host"):
        gap(guest, "x86_64", intel, KNOWN)
    amd = cpu("Opteron_G3")
    assert gap(guest, "x86_64", intel, KNOWN, own=amd) == CpuGap(missing=("svm",))


def test_without_named_features_nothing_can_be_told():
    with pytest.raises(Unavailable, match="host-passthrough"):
        gap(CpuDefinition(mode="host-passthrough"), "x86_64", offer(OLD), KNOWN)
    with pytest.raises(Unavailable, match="no host-model"):
        gap(cpu("Westmere"), "x86_64", offer(None, "Westmere"), KNOWN)
    with pytest.raises(Unavailable, match="no named"):
        gap(cpu("Westmere"), "x86_64", replace(offer(OLD), hypervisor=None), KNOWN)


def test_other_architectures_are_compared_by_name():
    z15 = cpu("gen15a-base", "vx te")
    assert gap(z15, "s390x", offer(cpu("gen15a-base", "vx te msa9"), arch="s390x"), NAMES) is None
    assert gap(z15, "s390x", offer(cpu("gen15a-base", "vx"), arch="s390x"), NAMES) == CpuGap(missing=("te",))
    newer = lambda features: offer(cpu("gen16a-base", features), "gen15a-base", arch="s390x")  # noqa: E731
    assert gap(z15, "s390x", newer("vx te msa9"), NAMES) is None
    with pytest.raises(Unavailable, match="only QEMU"):  # gen16a-base may contain te
        gap(z15, "s390x", newer("vx"), NAMES)
    stranger = offer(cpu("gen16a-base", "vx te"), arch="s390x")
    assert gap(z15, "s390x", stranger, NAMES) == CpuGap(unknown_model="gen15a-base")
    arm = offer(None, "cortex-a57", arch="aarch64", virttype="qemu")
    assert gap(cpu("cortex-a57", check="none"), "aarch64", arm, NAMES) is None
    assert gap(cpu("neoverse-v1", check="none"), "aarch64", arm, NAMES) == CpuGap(unknown_model="neoverse-v1")


def test_what_new_qemu_hides_of_amd_processors_is_not_known_to_be_missing():
    guest = cpu("EPYC-Rome", "arch-capabilities rdctl-no", vendor="AMD", check="full")
    names = CpuMapFiles("ab", frozenset({"arch-capabilities", "rdctl-no", "vaes"}), frozenset({"EPYC-Rome"}))
    host = offer(cpu("EPYC-Rome", vendor="AMD"))
    with pytest.raises(Unavailable, match="hides arch-capabilities, rdctl-no"):
        gap(guest, "x86_64", host, names)
    both = replace(guest, features=(*guest.features, CpuFeature("vaes")))
    assert gap(both, "x86_64", host, names) == CpuGap(missing=("vaes",))
    intel = offer(cpu("EPYC-Rome", vendor="Intel"))
    assert gap(guest, "x86_64", intel, names) == CpuGap(missing=("arch-capabilities", "rdctl-no"))


def test_no_cpu_named():
    assert running(None, "x86_64").model == "qemu64"
    assert running(OLD, "s390x") is OLD
    with pytest.raises(Unavailable, match="default of s390x"):
        running(None, "s390x")


@pytest.mark.parametrize(
    ("definition", "bits"),
    [
        (None, 40),
        (cpu("Westmere"), 40),
        (CpuDefinition(mode="host-passthrough"), 46),
        (cpu("Westmere", maxphysaddr=MaxPhysAddr("emulate", 42)), 42),
        (cpu("Westmere", maxphysaddr=MaxPhysAddr("passthrough", limit=39)), 39),
        (cpu("Westmere", maxphysaddr=MaxPhysAddr("passthrough", limit=64)), 46),
        (cpu("Westmere", maxphysaddr=MaxPhysAddr("passthrough")), 46),
    ],
)
def test_seen_address_bits(definition, bits):
    assert seen_address_bits(definition, 46) == bits


@pytest.fixture
def real(corpus, said):
    def read(version, name):
        text = (corpus / f"libvirt-{version}" / "domaincapsdata" / f"{name}.xml").read_bytes()
        return HostModels.parse(said({DOMCAPS_KVM.name: text})).natives[0]

    return read


@pytest.fixture
def map_names(corpus, said):
    from audit.cpu import CpuMap

    def read(version):
        cpu_map = CpuMap.from_folder(corpus / f"libvirt-{version}" / "cpu_map")
        features, models = frozenset(cpu_map.order), frozenset(model.name for model in cpu_map.models)
        return CpuMapFiles(version, features, models)

    return read


@pytest.mark.corpus
def test_emulated_host_models_fit_neither_way(real, map_names):
    """As the lab had it between QEMU 7.2 and 10.0: unknown CPU feature one way, missing features the other."""
    old, new = real("9.0.0", "qemu_7.2.0-tcg.x86_64"), real("11.3.0", "qemu_9.2.0-tcg.x86_64+amdsev")
    back = gap(migratable(new.host_model), "x86_64", old, map_names("9.0.0"))
    assert back
    assert "cmpccxadd" in back.unknown_features
    forward = gap(migratable(old.host_model), "x86_64", new, map_names("11.3.0"))
    assert forward
    assert "pcommit" in forward.missing


@pytest.mark.corpus
def test_every_real_host_model_fits_its_own_host(corpus, real, map_names):
    for version in ("9.0.0", "11.3.0"):
        names = map_names(version)
        for path in sorted((corpus / f"libvirt-{version}" / "domaincapsdata").glob("*x86_64*.xml")):
            there = real(version, path.name.removesuffix(".xml"))
            if there.host_model:
                assert gap(migratable(there.host_model), "x86_64", there, names) is None, path.name


@pytest.mark.corpus
def test_real_generations(real, map_names):
    names = map_names("11.3.0")
    skylake, rome, genoa = (
        real("11.3.0", name) for name in ("qemu_5.0.0-q35.x86_64", "qemu_8.2.0.x86_64", "qemu_9.2.0-q35.x86_64+amdsev")
    )
    assert gap(migratable(skylake.host_model), "x86_64", rome, names)
    assert gap(migratable(genoa.host_model), "x86_64", rome, names)
    assert gap(cpu("qemu64", "", "svm"), "x86_64", skylake, names) is None
