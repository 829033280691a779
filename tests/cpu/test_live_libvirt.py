"""The same questions to the libvirt of this machine: its test driver computes baselines without a daemon."""

import builtins
import random
from pathlib import Path

import pytest

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuMap,
    baseline,
    cross_check,
    expand,
    from_element,
    hypervisor_baseline,
    rules_of,
)
from audit.cpu.reading import parse_untrusted
from tests.cpu.fakehosts import random_hosts
from tests.cpu.oracle import LOCAL_MAP, version_of
from tests.cpu.questions import random_questions

MAP = CpuMap.carried()
SKYLAKE, IVYBRIDGE = (CpuDefinition(model=m, vendor="Intel") for m in ("Skylake-Client-IBRS", "IvyBridge-IBRS"))


@pytest.fixture(scope="module")
def live():
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    if not (LOCAL_MAP / "index.xml").exists():
        pytest.skip("no libvirt CPU map on this machine")
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.openReadOnly("test:///default")
        connection.baselineCPU(["<cpu><arch>x86_64</arch><model>486</model></cpu>"], 0)
    except libvirt.libvirtError as error:
        pytest.skip(f"libvirt's test driver computes no baselines here: {error}")
    yield connection
    connection.close()


def test_baselines_are_libvirts_byte_for_byte(live):
    """libvirt's own code without the QEMU driver, which test_differential asks: nothing of QEMU is left out here."""
    import libvirt

    local, rules, rng = CpuMap.from_folder(LOCAL_MAP), rules_of(version_of(live)), random.Random(20)
    questions = random_questions(rng, local, rules, random_hosts(rng, local, 2), 1200)
    answers = 0
    for question in questions:
        if question.asked != "plain" or "s390x" in "".join(
            question.cpus
        ):  # the architecture is plain_baseline's affair
            continue
        spelled_out = "expand" in question.flags
        flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES if spelled_out else 0
        try:
            theirs = live.baselineCPU(list(question.cpus), flags)
            answers += 1
        except libvirt.libvirtError as error:
            theirs = str(error)
        try:
            mine = baseline([from_element(parse_untrusted(cpu), "host") for cpu in question.cpus], local, rules=rules)
            mine = (expand(mine, local) if spelled_out else mine).to_xml()
        except CpuError as error:
            mine = error.words
        assert mine == theirs, question
    assert answers > 120


def test_cross_check_agrees(live):
    check = cross_check([SKYLAKE, IVYBRIDGE], MAP)
    assert check.status == "agrees", check.detail
    assert check.libvirt_version
    assert cross_check([IVYBRIDGE, CpuDefinition(model="EPYC", vendor="AMD")], MAP).detail.startswith("both refuse")


def test_cross_check_tells_a_difference(live, tmp_path: Path):
    for file in LOCAL_MAP.glob("*.xml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = tmp_path / "x86_Westmere.xml"
    model.write_text(model.read_text().replace("<feature name='sse4.2'/>", ""))
    check = cross_check([CpuDefinition(model="Westmere", vendor="Intel")], CpuMap.from_folder(tmp_path), tmp_path)
    assert check.status == "differs"
    assert "sse4.2" in check.detail


def test_cross_check_without_map_or_library_is_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cross_check([IVYBRIDGE], MAP, tmp_path).status == "not available"
    real = builtins.__import__

    def without_libvirt(name, *rest, **more):
        if name == "libvirt":
            raise ImportError("no libvirt here")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_libvirt)
    check = cross_check([IVYBRIDGE], MAP)
    assert (check.status, check.libvirt_version) == ("not available", None)
    assert hypervisor_baseline([IVYBRIDGE], MAP).model == "IvyBridge-IBRS"
