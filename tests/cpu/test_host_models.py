"""The host-model that libvirt shows is this engine's decode of what QEMU reported."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from audit.cpu import (
    CpuMap,
    Hypervisor,
    Verdict,
    compare,
    decode,
    hypervisor_baseline,
    hypervisor_compare,
    read_cpus,
)
from tests.cpu import corpus

pytestmark = [pytest.mark.corpus, corpus.needs_corpus]


@cache
def cpu_map(version: str) -> CpuMap:
    return corpus.load_map(version)


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
    caps = corpus.read_caps(caps_file, accelerator, cpu_map(version))
    assert caps
    decoded = decode(
        caps.raw.features,
        cpu_map(version),
        vendor=caps.raw.vendor,
        signature=caps.raw.signature,
        hypervisor=caps.hypervisor,
    )
    assert replace(decoded, fallback="forbid") == replace(reported, maxphysaddr=None)


@pytest.mark.parametrize(("version", "file", "caps_file", "accelerator"), _pairs())
def test_a_host_can_run_its_own_host_model(version: str, file: Path, caps_file: Path, accelerator: str):
    [reported] = read_cpus(file.read_bytes())
    assert compare(reported, reported, cpu_map(version)).verdict == Verdict.IDENTICAL
    hypervisor = Hypervisor.from_domcapabilities(file.read_bytes())
    answer = hypervisor_compare(reported, reported, cpu_map(version), hypervisor)
    assert answer.verdict != Verdict.INCOMPATIBLE
    mine = hypervisor_baseline([reported], cpu_map(version), hypervisor)
    assert mine.model == reported.model
    assert compare(reported, mine, cpu_map(version)).verdict != Verdict.INCOMPATIBLE


@pytest.mark.parametrize(("version", "file", "caps_file", "accelerator"), _pairs())
def test_models_and_blockers_of_domcapabilities_are_those_of_the_cache(
    version: str, file: Path, caps_file: Path, accelerator: str
):
    caps = corpus.read_caps(caps_file, accelerator, cpu_map(version))
    shown = Hypervisor.from_domcapabilities(file.read_bytes())
    for model in shown.models:
        cached = caps.hypervisor.find(model.name)
        assert model.usable == cached.usable
        if version == "11.3.0":
            assert model.blockers == cached.blockers
