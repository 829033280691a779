"""Reading of libvirt's own test data (VIRT_PREFLIGHT_CORPUS), as libvirt's tests read it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from lxml import etree

from audit.cpu import CpuDefinition, CpuMap, CpuSignature, from_element
from audit.cpu.cpumap import Bit

FOLDER = os.environ.get("VIRT_PREFLIGHT_CORPUS")
needs_corpus = pytest.mark.skipif(not FOLDER, reason="VIRT_PREFLIGHT_CORPUS is not set")


def folder(version: str) -> Path:
    return Path(FOLDER or ".") / f"libvirt-{version}"


def load_map(version: str) -> CpuMap:
    return CpuMap.from_folder(folder(version) / "cpu_map", f"libvirt {version}")


def cases(kind: str) -> list[dict]:
    """x86 cases of one kind out of cases.json; none without the corpus."""
    if not FOLDER:
        return []
    found = json.loads((folder("9.0.0") / "cases.json").read_text())["cases"]
    return [case for case in found if case["kind"] == kind and case["arch"] == "x86_64"]


def parametrize(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in cases(kind)])


def read_one(file: str, kind: str | None = None) -> CpuDefinition:
    return from_element(etree.parse(folder("9.0.0") / file).getroot(), kind)


def text_of(file: str) -> str:
    """File without the comments that libvirt's test data carries."""
    root = etree.parse(folder("9.0.0") / file, etree.XMLParser(remove_comments=True)).getroot()
    return etree.tostring(root, encoding="unicode").replace('"', "'")


@dataclass(frozen=True)
class Raw:
    """What a processor reports, before libvirt names a model."""

    features: frozenset[str]
    vendor: str | None
    signature: CpuSignature | None


def from_cpuid(file: str, cpu_map: CpuMap) -> Raw:
    """Read `<cpudata>`: CPUID leaves and MSRs."""
    words: dict[tuple[str, int, int, str], int] = {}
    for node in etree.parse(folder("9.0.0") / file).getroot().iter("cpuid", "msr"):
        leaf = int(node.get("eax_in") or node.get("index"), 16)
        for register in ("eax", "ebx", "ecx", "edx"):
            key = (node.tag, leaf, int(node.get("ecx_in", "0"), 16), register)
            words[key] = int(node.get(register, "0"), 16)

    def has(bit: Bit) -> bool:
        return bool(words.get(bit[:4], 0) >> bit.number & 1)

    vendor = b"".join(words[("cpuid", 0, 0, r)].to_bytes(4, "little") for r in ("ebx", "edx", "ecx"))
    leaf1 = words[("cpuid", 1, 0, "eax")]
    signature = CpuSignature(
        (leaf1 >> 20 & 0xFF) + (leaf1 >> 8 & 0xF), (leaf1 >> 12 & 0xF0) + (leaf1 >> 4 & 0xF), leaf1 & 0xF
    )
    features = frozenset(feature.name for feature in cpu_map.features if has(feature.bit))
    vendors = {string: name for name, string in cpu_map.vendors}
    return Raw(features, vendors.get(vendor.decode()), signature)


def _replies(file: str) -> list[dict]:
    text = (folder("9.0.0") / file).read_text().strip()
    decoder, replies = json.JSONDecoder(), []
    while text:
        reply, end = decoder.raw_decode(text)
        replies.append(reply["return"])
        text = text[end:].strip()
    return replies


def caps_of_json(file: str, cpu_map: CpuMap, *, all_models: bool) -> etree._Element:
    """Write QEMU's replies as libvirt's cache has them; `all_models`: the replies tell of none, so that all count."""
    props, *models = _replies(file)
    caps = etree.Element("qemuCaps")
    etree.SubElement(caps, "arch").text = "x86_64"
    host = etree.SubElement(caps, "hostCPU", type="kvm")
    for name, value in props["model"]["props"].items():
        printed = str(value).lower() if isinstance(value, bool) else str(value)
        etree.SubElement(host, "property", name=name, value=printed)
    offered = [{"name": model.name} for model in cpu_map.models] if all_models else models[0]
    for model in offered:
        cpu = etree.SubElement(caps, "cpu", type="kvm", name=model["name"])
        for name in model.get("unavailable-features", ()):
            etree.SubElement(cpu, "blocker", name=name)
    return caps
