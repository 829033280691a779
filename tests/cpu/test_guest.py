"""What a running guest needs, and whether a target gives it."""

from dataclasses import replace

import pytest

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuMap,
    Hypervisor,
    HypervisorModel,
    NotPortable,
    NotProvable,
    Portable,
    UnknownCpuName,
    feature_set,
    missing_on,
    psabi_level,
    required_features,
)

MAP = CpuMap.carried()
TARGET = CpuDefinition(
    model="Skylake-Client-IBRS",
    vendor="Intel",
    fallback="forbid",
    features=(CpuFeature("invtsc"), CpuFeature("mpx"), CpuFeature("hle", "disable"), CpuFeature("rtm", "disable")),
)


def running(model: str | None, check: str | None = "full", vendor: str | None = "Intel", **policies: str):
    features = tuple(CpuFeature(name.replace("_", "-"), policy) for name, policy in policies.items())
    return CpuDefinition(model=model, fallback="forbid", check=check, vendor=vendor, features=features)


def test_a_guest_needs_its_model_and_more_minus_what_is_off():
    cpu = running("Westmere", avx="require", rtm="force", aes="disable")
    assert required_features(cpu, MAP) == (MAP.model("Westmere").features | {"avx", "rtm"}) - {"aes"}


def test_a_feature_that_the_model_lost_counts_unless_the_guest_names_it():
    assert "mpx" in MAP.model("Skylake-Client-IBRS").removed
    assert "mpx" in required_features(running("Skylake-Client-IBRS"), MAP)
    assert "mpx" not in required_features(running("Skylake-Client-IBRS", mpx="disable"), MAP)


def test_without_model_nothing_is_known():
    with pytest.raises(CpuError, match="no CPU model specified"):
        required_features(running(None, vendor=None), MAP)


def test_a_guest_moves_where_its_features_are():
    assert missing_on(running("Westmere", avx="require"), TARGET, MAP) == Portable()
    same = running("Skylake-Client-IBRS", mpx="disable", hle="disable", rtm="disable")
    assert missing_on(same, TARGET, MAP) == Portable()


def test_missing_features_are_named_in_map_order():
    cpu = running("Skylake-Client-IBRS", mpx="disable", avx512f="require")
    assert missing_on(cpu, TARGET, MAP) == NotPortable(missing=("hle", "rtm", "avx512f"))


def test_invtsc_counts_as_given_where_it_is_reported():
    cpu = running("Westmere", invtsc="require")
    assert missing_on(cpu, TARGET, MAP) == Portable()
    assert missing_on(cpu, replace(TARGET, features=TARGET.features[1:]), MAP) == NotPortable(missing=("invtsc",))


def test_another_vendor_is_told_apart_from_missing_features():
    amd = replace(TARGET, model="EPYC", vendor="AMD", features=())
    assert missing_on(running("486"), amd, MAP) == NotPortable(vendors=("Intel", "AMD"))
    assert missing_on(running("486", vendor=None), amd, MAP) == Portable()


def test_a_model_that_the_target_does_not_know():
    unknown = NotPortable(unknown_model="Westmere-v9")
    assert missing_on(running("Westmere-v9"), TARGET, MAP) == unknown
    only_nehalem = Hypervisor((HypervisorModel("Nehalem"),))
    assert missing_on(running("Westmere"), TARGET, MAP, only_nehalem) == NotPortable(unknown_model="Westmere")
    assert missing_on(running("Nehalem"), TARGET, MAP, only_nehalem) == Portable()
    assert missing_on(replace(running("Westmere"), fallback="allow"), TARGET, MAP, only_nehalem) == Portable()


def test_names_that_the_targets_map_does_not_know():
    cpu = running("Westmere", future_bit="require", other_bit="disable")
    assert missing_on(cpu, TARGET, MAP) == NotPortable(unknown_features=("future-bit", "other-bit"))


@pytest.mark.parametrize(
    "cpu",
    [
        CpuDefinition(mode="host-passthrough", check="none"),
        CpuDefinition(mode="maximum"),
        CpuDefinition(mode="host-model"),
        CpuDefinition(),
        running("Skylake-Server", check="none", mpx="disable"),
    ],
)
def test_what_names_no_features_cannot_be_proved(cpu):
    assert isinstance(missing_on(cpu, TARGET, MAP), NotProvable)


def test_an_unchecked_guest_that_asks_for_nothing_special_is_proved():
    assert missing_on(running("Westmere", check="none"), TARGET, MAP) == Portable()


def test_a_target_that_cannot_be_read_is_an_error():
    with pytest.raises(UnknownCpuName):
        missing_on(running("Westmere"), replace(TARGET, model="Future"), MAP)
    with pytest.raises(CpuError, match="unknown host CPU"):
        missing_on(running("Westmere"), CpuDefinition(), MAP)


@pytest.mark.parametrize(
    ("model", "level"),
    [
        ("486", 0),
        ("qemu64", 1),
        ("Nehalem", 2),
        ("IvyBridge", 2),
        ("Haswell", 2),  # QEMU's has no lzcnt (abm)
        ("Skylake-Client", 3),
        ("EPYC", 3),
        ("Skylake-Server", 4),
    ],
)
def test_psabi_levels(model: str, level: int):
    assert psabi_level(feature_set(CpuDefinition(model=model), MAP)) == level
