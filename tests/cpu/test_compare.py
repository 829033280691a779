"""Comparing: libvirt's three words, why, and the newer rules of hypervisor-cpu-compare."""

from dataclasses import replace

import pytest

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuMap,
    Hypervisor,
    HypervisorModel,
    Rules,
    UnknownCpuName,
    Verdict,
    compare,
    hypervisor_compare,
    rules_of,
)

MAP = CpuMap.carried()
HOST = CpuDefinition(kind="host", arch="x86_64", model="Westmere", vendor="Intel", features=(CpuFeature("avx"),))
HOST_MODEL = CpuDefinition(model="Westmere", vendor="Intel", fallback="forbid", features=(CpuFeature("avx"),))
NEW, OLD = rules_of((10, 10, 0)), rules_of((10, 9, 0))


def guest(model: str | None = "Westmere", match: str = "exact", vendor: str | None = None, **policies: str):
    features = tuple(CpuFeature(name, policy) for name, policy in policies.items())
    return CpuDefinition(model=model, match=match, vendor=vendor, features=features)


@pytest.mark.parametrize(
    ("cpu", "verdict"),
    [
        (guest(avx="require"), Verdict.IDENTICAL),
        (guest(avx="force"), Verdict.IDENTICAL),
        (guest(avx="optional"), Verdict.IDENTICAL),
        (guest(avx="disable"), Verdict.IDENTICAL),
        (guest(), Verdict.SUPERSET),
        (guest("Nehalem", vendor="Intel"), Verdict.SUPERSET),
        (guest(rtm="force"), Verdict.SUPERSET),
        (guest(rtm="optional"), Verdict.SUPERSET),
        (guest(rtm="forbid"), Verdict.SUPERSET),
        (guest(model=None), Verdict.SUPERSET),
    ],
)
def test_what_the_host_can_run(cpu, verdict):
    answer = compare(HOST, cpu, MAP)
    assert (answer.verdict, answer.missing, answer.reason) == (verdict, (), "")


@pytest.mark.parametrize(
    ("cpu", "missing", "reason"),
    [
        (
            guest(rtm="require", hle="require"),
            ("hle", "rtm"),
            "Host CPU does not provide required features: hle, rtm",
        ),
        (guest(vendor="AMD"), (), "host CPU vendor does not match required CPU vendor AMD"),
        (guest(avx="forbid"), (), "Host CPU provides forbidden features: avx"),
        (guest(match="strict"), (), "Host CPU does not strictly match guest CPU: Extra features: avx"),
        (replace(HOST, arch="ppc64"), (), "CPU arch ppc64 does not match host arch"),
    ],
)
def test_what_it_cannot_and_why(cpu, missing, reason):
    answer = compare(HOST, cpu, MAP)
    assert (answer.verdict, answer.missing, answer.reason) == (Verdict.INCOMPATIBLE, missing, reason)


def test_strict_is_content_with_the_same():
    assert compare(HOST, guest(match="strict", avx="require"), MAP).verdict == Verdict.IDENTICAL


def test_a_host_without_model_runs_nothing():
    assert compare(CpuDefinition(), guest(), MAP).reason == "unknown host CPU"


def test_unknown_names_are_refused():
    with pytest.raises(UnknownCpuName, match="Unknown CPU feature foo"):
        compare(HOST, guest(foo="require"), MAP)


def test_a_host_model_that_is_no_report_is_refused():
    with pytest.raises(CpuError, match="does not support reporting CPU model"):
        hypervisor_compare(replace(HOST_MODEL, fallback="allow"), guest(), MAP)


def ask(cpu: CpuDefinition, usable: str, *blockers: str, rules: Rules = NEW):
    hypervisor = Hypervisor((HypervisorModel(cpu.model or "", usable, frozenset(blockers)),))
    return hypervisor_compare(HOST_MODEL, cpu, MAP, hypervisor, rules)


def test_a_usable_model_is_a_superset_whatever_the_map_says():
    assert compare(HOST_MODEL, guest("Haswell"), MAP).verdict == Verdict.INCOMPATIBLE
    assert ask(guest("Haswell"), "yes").verdict == Verdict.SUPERSET
    assert ask(guest("Haswell", hle="disable"), "yes").verdict == Verdict.SUPERSET
    assert ask(guest("Haswell", avx="require"), "yes").verdict == Verdict.INCOMPATIBLE
    assert ask(guest("Haswell"), "yes", rules=OLD).verdict == Verdict.INCOMPATIBLE


def test_versioned_models_are_judged_by_blockers():
    assert not MAP.model("Haswell-v4").compat_check
    blocked = ask(guest("Haswell-v4"), "no", "bmi1", "bmi2")
    assert (blocked.verdict, blocked.missing) == (Verdict.INCOMPATIBLE, ("bmi1", "bmi2"))
    assert ask(guest("Haswell-v4", bmi1="disable", bmi2="disable"), "no", "bmi1", "bmi2").verdict == Verdict.SUPERSET
    lacking = ask(guest("Haswell-v4", avx="require", smap="require"), "no")
    assert lacking.missing == ("smap",)
    assert ask(guest("Haswell-v4"), "no", rules=OLD).verdict == Verdict.INCOMPATIBLE


def test_libvirts_quirk_for_host_definitions_of_versioned_models():
    host = CpuDefinition(kind="host", arch="x86_64", model="Haswell-v4", features=(CpuFeature("smap"),))
    assert ask(host, "no").verdict == Verdict.SUPERSET


def test_what_is_known_of_no_model_is_compared_by_the_map():
    assert hypervisor_compare(HOST_MODEL, guest("Haswell"), MAP).verdict == Verdict.INCOMPATIBLE
    assert hypervisor_compare(HOST_MODEL, guest(avx="require"), MAP).verdict == Verdict.IDENTICAL
