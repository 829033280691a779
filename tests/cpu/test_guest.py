"""What a running guest sees."""

import pytest

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuMap,
    feature_set,
    psabi_level,
    required_features,
)

MAP = CpuMap.carried()


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
