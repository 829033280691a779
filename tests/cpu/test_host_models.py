"""The host-model that libvirt shows is this engine's decode of what QEMU reported."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from lxml import etree

from audit.cpu import (
    CpuMap,
    Hypervisor,
    Rules,
    Verdict,
    compare,
    hypervisor_baseline,
    hypervisor_compare,
    read_cpus,
    rules_of,
)
from audit.cpu.qemucaps import host_model
from audit.cpu.qemucaps import hypervisor as hypervisor_of
from audit.cpu.reading import parse_untrusted
from tests.cpu import corpus

pytestmark = [pytest.mark.corpus, corpus.needs_corpus]


@cache
def cpu_map(version: str) -> CpuMap:
    return corpus.load_map(version)


def rules(version: str) -> Rules:
    return rules_of(cpu_map(version).release)


def caps_of(file: Path) -> etree._Element:
    return parse_untrusted(file.read_bytes())


def _pairs() -> list:
    """Yield every domain capabilities file of libvirt's tests whose QEMU cache is there too."""
    if not corpus.FOLDER:
        return []
    pairs = []
    for version, joint in (("9.0.0", "."), ("11.3.0", "_")):
        for file in sorted((corpus.folder(version) / "domaincapsdata").glob("qemu_*x86_64*.xml")):
            number, machine, variant = re.fullmatch(r"qemu_([\d.]+\d)(?:-(\w+))?\.x86_64(.*)\.xml", file.name).groups()
            caps = corpus.folder(version) / "qemucapabilitiesdata" / f"caps_{number}{joint}x86_64{variant}.xml"
            accelerator = "tcg" if machine == "tcg" else "hvf" if "hvf" in variant else "kvm"
            if caps.exists():
                pairs.append(pytest.param(version, file, caps, accelerator, id=f"{version}-{file.stem}"))
    return pairs


@pytest.mark.parametrize(("version", "file", "caps_file", "accelerator"), _pairs())
def test_host_model(version: str, file: Path, caps_file: Path, accelerator: str):
    [reported] = read_cpus(file.read_bytes())
    decoded = host_model(caps_of(caps_file), accelerator, cpu_map(version), rules(version))
    assert decoded == replace(reported, maxphysaddr=None)


@pytest.mark.parametrize(("version", "file", "caps_file", "accelerator"), _pairs())
def test_a_host_can_run_its_own_host_model(version: str, file: Path, caps_file: Path, accelerator: str):
    [reported] = read_cpus(file.read_bytes())
    assert compare(reported, reported, cpu_map(version)).verdict == Verdict.IDENTICAL
    hypervisor = Hypervisor.from_domcapabilities(file.read_bytes())
    answer = hypervisor_compare(reported, reported, cpu_map(version), hypervisor, rules(version))
    assert answer.verdict != Verdict.INCOMPATIBLE
    mine = hypervisor_baseline([reported], cpu_map(version), hypervisor, rules=rules(version))
    assert mine.model == reported.model
    assert compare(reported, mine, cpu_map(version)).verdict != Verdict.INCOMPATIBLE


@pytest.mark.parametrize(("version", "file", "caps_file", "accelerator"), _pairs())
def test_models_and_blockers_of_domcapabilities_are_those_of_the_cache(
    version: str, file: Path, caps_file: Path, accelerator: str
):
    offered = hypervisor_of(caps_of(caps_file), accelerator)
    shown = Hypervisor.from_domcapabilities(file.read_bytes())
    for model in shown.models:
        cached = offered.find(model.name)
        assert cached
        assert model.usable == cached.usable
        if version == "11.3.0":
            assert model.blockers == cached.blockers
