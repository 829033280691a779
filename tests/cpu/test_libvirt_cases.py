"""Every x86 case of libvirt's own CPU tests that this engine answers."""

from dataclasses import replace
from functools import cache

import pytest
from lxml import etree

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuMap,
    Verdict,
    baseline,
    compare,
    decode,
    expand,
    feature_set,
    from_element,
    qemucaps,
)
from tests.cpu import corpus

pytestmark = [pytest.mark.corpus, corpus.needs_corpus]


@cache
def map_900() -> CpuMap:
    return corpus.load_map("9.0.0")


def _inputs(case: dict) -> list[CpuDefinition]:
    if "input_files" in case:
        return [corpus.read_one(file) for file in case["input_files"]]
    root = etree.parse(corpus.folder("9.0.0") / case["input_file"]).getroot()
    return [from_element(node, "host") for node in root.findall("cpu")]


@corpus.parametrize("baseline")
def test_baseline(case):
    cpus = _inputs(case)
    flags = case["flags"]
    if case["expected_failure"]:
        with pytest.raises(CpuError):
            baseline(cpus, map_900(), migratable="migratable" in flags)
        return
    result = baseline(cpus, map_900(), migratable="migratable" in flags)
    assert all(compare(cpu, result, map_900()).verdict != Verdict.INCOMPATIBLE for cpu in cpus)
    if "expand_features" in flags:
        result = expand(result, map_900())
    assert result.to_xml().strip() == corpus.text_of(case["expected_file"])


@corpus.parametrize("compare")
def test_compare(case):
    host, cpu = corpus.read_one(case["host_file"], "host"), corpus.read_one(case["cpu_file"])
    if case["expected"] == "error":
        with pytest.raises(CpuError):
            compare(host, cpu, map_900())
        return
    assert compare(host, cpu, map_900()).verdict == case["expected"]


@corpus.parametrize("has_feature")
def test_has_feature(case):
    features = feature_set(corpus.read_one(case["host_file"], "host"), map_900())
    if case["expected"] == "error":
        with pytest.raises(CpuError, match="Unknown CPU feature"):
            map_900().require_feature(case["feature"])
        return
    assert (case["feature"] in features) is case["expected"]


@corpus.parametrize("decode")
def test_decode(case):
    raw = corpus.from_cpuid(case["input_file"], map_900())
    hypervisor = None
    if case.get("json_mode") in ("JSON_MODELS", "JSON_MODELS_REQUIRED"):
        replies = case["input_file"].replace(".xml", ".json")
        hypervisor = qemucaps.hypervisor(corpus.caps_of_json(replies, map_900(), all_models=False), "kvm")
    result = decode(
        raw.features,
        map_900(),
        kind=case["cpu_type"],
        vendor=raw.vendor,
        signature=raw.signature,
        hypervisor=hypervisor,
    )
    if case["cpu_type"] == "guest":
        result = replace(result, fallback="forbid")
    assert result.to_xml().strip() == corpus.text_of(case["expected_file"])


@corpus.parametrize("qemu_json_to_cpu")
def test_host_model_of_qemu_reply(case):
    no_models = case["json_mode"] not in ("JSON_MODELS", "JSON_MODELS_REQUIRED")
    caps = corpus.caps_of_json(case["input_file"], map_900(), all_models=no_models)
    result = qemucaps.host_model(caps, "kvm", map_900())
    assert result
    assert result.to_xml().strip() == corpus.text_of(case["expected_file"])


def _documents() -> list[str]:
    if not corpus.FOLDER:
        return []
    data = corpus.folder("9.0.0") / "cputestdata"
    return sorted(
        f"cputestdata/{file.name}"
        for tail in ("guest", "json", "host")
        for file in data.glob(f"x86_64-cpuid-*-{tail}.xml")
    )


@pytest.mark.parametrize("file", _documents())
def test_printing_what_was_read_changes_no_byte(file):
    assert corpus.read_one(file).to_xml().strip() == corpus.text_of(file)
