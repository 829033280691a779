"""Why features are missing, and what helps: each cause, what is told without one, and what hosts must tell for it."""

from dataclasses import replace

import pytest

from audit.cpu import CpuMap
from audit.facts.base import Unavailable
from audit.facts.cpu import CPUINFO, CpuIdentity
from audit.facts.versions import Libvirt, Version
from audit.judge import Missing
from audit.known import CAUSES, Ends, explain
from audit.known.missing import _SVM

XEON = CpuIdentity("Intel family 6", "Intel family 6 model 85 stepping 7", (7,), "5.14.0-427", Version(8, 2))
OTHER = replace(XEON, processor="Intel family 6 model 106 stepping 6")
ZEN = CpuIdentity("AMD family 23", "AMD family 23 model 49 stepping 0", (7,), "5.10.0-20-amd64", Version(7, 2))
LIBVIRT = Libvirt(Version(10), Version(10))
APART = Ends(XEON, OTHER, LIBVIRT, LIBVIRT)
CASES = {
    "nested-vmx": ("vmx-vmfunc vmx-posted-intr", APART),
    "nested-svm": ("svm npt vnmi", Ends(ZEN, replace(ZEN, processor="other"), LIBVIRT, LIBVIRT)),
    "tsx": ("hle rtm", APART),
    "xsaves-zen": ("xsaves", Ends(ZEN, replace(ZEN, kernel="6.1.0-37-amd64"), LIBVIRT, LIBVIRT)),
    "amx-kernel": ("amx-tile amx-int8", Ends(replace(XEON, kernel="6.1.0"), XEON, LIBVIRT, LIBVIRT)),
}


def test_every_cause_has_a_case():
    assert [one.id for one in CAUSES] == list(CASES)
    for one in CAUSES:
        assert not one.title.endswith(".")
        assert one.remedy.endswith(".")
        assert one.reference


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_each(name):
    features, ends = CASES[name]
    [cause] = [one for one in CAUSES if one.id == name]
    told = explain(features.split(), ends)
    assert told.because.startswith(f"{cause.title} ({cause.reference}).")
    assert told.remedy.endswith(".")
    assert not explain(["aes"], APART)


def test_features_that_causes_name_exist():
    known = CpuMap.carried().order.keys()
    assert known >= {"vmx", "hle", "rtm", "xsaves", "amx-tile", "amx-int8", "amx-bf16", "pku", "ht"}
    assert known >= _SVM
    assert any(name.startswith("vmx-") for name in known)


def test_vmx_is_switched_off_as_a_whole():
    remedy = explain(["vmx-vmfunc", "vmx-posted-intr"], APART).remedy
    assert "<feature policy='disable' name='vmx'/>" in remedy
    assert "vmx-vmfunc" not in remedy
    assert "<feature policy='disable' name='svm'/>" in explain(["npt"], CASES["nested-svm"][1]).remedy


@pytest.mark.parametrize(
    ("model", "instead"),
    [
        ("Cascadelake-Server", "Cascadelake-Server-noTSX."),
        ("Skylake-Server-IBRS", "Skylake-Server-noTSX-IBRS."),
        ("Skylake-Server", "Skylake-Server-noTSX-IBRS."),
        ("Haswell", "Haswell-noTSX."),
        ("Haswell-IBRS", "Haswell-noTSX-IBRS."),
    ],
)
def test_a_model_without_tsx_is_proposed_where_there_is_one(model, instead):
    told = explain(["hle", "rtm"], APART, model)
    assert told.remedy.endswith(f" Or use the model {instead}")
    assert "name='hle'/><feature policy='disable' name='rtm'/>" in told.remedy


@pytest.mark.parametrize("model", ["Nehalem", "Haswell-noTSX", None])
def test_and_none_where_there_is_none(model):
    assert "Or use" not in explain(["rtm"], APART, model).remedy


def test_a_remedy_needs_everything_explained():
    assert explain(["vmx-vmfunc", "avx512f"], APART) is None, "another processor, and no fault of anything"
    told = explain(["vmx-vmfunc", "avx512f"], Ends(XEON, XEON, LIBVIRT, LIBVIRT))
    assert "hypervisors themselves" in told.because
    assert not told.remedy, "switching vmx off would not be enough"
    both = explain(["vmx-vmfunc", "hle"], APART).remedy
    assert "name='vmx'" in both
    assert "name='hle'" in both


def test_software_is_named_where_the_processors_are_equal():
    newer = Libvirt(Version(11, 3), Version(11, 3))
    there = replace(XEON, kernel="5.14.0-503", microcode=(8,))
    told = explain(["waitpkg"], Ends(XEON, there, LIBVIRT, newer))
    assert told.because == (
        "The processors are the same, so software makes the difference: "
        "microcode 0x7 → 0x8; kernel 5.14.0-427 → 5.14.0-503; libvirt 10.0.0 → 11.3.0."
    )
    assert not told.remedy
    assert "firmware settings" in explain(["waitpkg"], Ends(XEON, XEON, LIBVIRT, LIBVIRT)).because


def test_causes_of_one_make_or_kernel_are_not_told_of_others():
    assert explain(["xsaves"], APART) is None
    zen3 = replace(ZEN, family="AMD family 25", processor="AMD family 25 model 1 stepping 1")
    assert explain(["xsaves"], Ends(ZEN, zen3, LIBVIRT, LIBVIRT)) is None
    assert explain(["amx-tile"], APART) is None, "the processor may have none"
    told = explain(["amx-tile"], Ends(XEON, replace(XEON, kernel="6.1.0"), LIBVIRT, LIBVIRT))
    assert "AMX" not in told.because, "a kernel that gives it"


def test_what_hosts_do_not_tell_explains_nothing():
    gone = Missing(Unavailable(CPUINFO, "gone"))
    with pytest.raises(Unavailable):
        explain(["aes"], Ends(gone, XEON, LIBVIRT, LIBVIRT))
