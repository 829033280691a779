"""Reading of libvirt's own test data (VIRT_PREFLIGHT_CORPUS), as libvirt's tests read it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from lxml import etree

from audit.cpu import CpuDefinition, CpuMap, CpuSignature, Hypervisor, HypervisorModel, from_element
from audit.cpu.cpumap import Bit

FOLDER = os.environ.get("VIRT_PREFLIGHT_CORPUS")
needs_corpus = pytest.mark.skipif(not FOLDER, reason="VIRT_PREFLIGHT_CORPUS is not set")

# QEMU's spelling → libvirt's.
QEMU_NAMES = {
    "cmp-legacy": "cmp_legacy",
    "ds-cpl": "ds_cpl",
    "fxsr-opt": "fxsr_opt",
    "kvm-pv-eoi": "kvm_pv_eoi",
    "kvm-pv-unhalt": "kvm_pv_unhalt",
    "lahf-lm": "lahf_lm",
    "nodeid-msr": "nodeid_msr",
    "pclmulqdq": "pclmuldq",
    "perfctr-core": "perfctr_core",
    "perfctr-nb": "perfctr_nb",
    "tsc-adjust": "tsc_adjust",
    "vmx-invept-single-context-noglobals": "vmx-invvpid-single-context-noglobals",
}
VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"}


def libvirt_name(name: str) -> str:
    return QEMU_NAMES.get(name, name)


def folder(version: str) -> Path:
    return Path(FOLDER or ".") / f"libvirt-{version}"


def load_map(version: str) -> CpuMap:
    return CpuMap.from_folder(folder(version) / "cpu_map", version)


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
    """What a processor (or QEMU) reports, before libvirt names a model."""

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
    return Raw(features, VENDORS.get(vendor.decode()), signature)


def _replies(file: str) -> list[dict]:
    text = (folder("9.0.0") / file).read_text().strip()
    decoder, replies = json.JSONDecoder(), []
    while text:
        reply, end = decoder.raw_decode(text)
        replies.append(reply["return"])
        text = text[end:].strip()
    return replies


def raw_of_props(props: dict[str, object], cpu_map: CpuMap) -> Raw:
    names = {libvirt_name(name) for name, value in props.items() if value is True}
    signature = CpuSignature(*(int(props.get(key) or 0) for key in ("family", "model", "stepping")))
    vendor = VENDORS.get(str(props.get("vendor", "")))
    return Raw(frozenset(names & cpu_map.order.keys()), vendor, signature if signature.family else None)


def from_qemu_json(file: str, cpu_map: CpuMap) -> Raw:
    return raw_of_props(_replies(file)[0]["model"]["props"], cpu_map)


def hypervisor_of_json(file: str) -> Hypervisor:
    return Hypervisor(
        tuple(
            HypervisorModel(model["name"], blockers=frozenset(map(libvirt_name, model.get("unavailable-features", ()))))
            for model in _replies(file)[1]
        )
    )


@dataclass(frozen=True)
class Caps:
    """One `caps_*.xml` of one accelerator: libvirt's cache of what a QEMU said."""

    raw: Raw
    hypervisor: Hypervisor


def read_caps(file: Path, accelerator: str, cpu_map: CpuMap) -> Caps | None:
    root = etree.parse(file).getroot()
    host = root.find(f"hostCPU[@type='{accelerator}']")
    if host is None:
        return None
    props: dict[str, object] = {}
    for node in host.findall("property"):
        value = node.get("value")
        props[node.get("name")] = value == "true" if node.get("type") == "boolean" else value
    models = tuple(
        HypervisorModel(
            node.get("name"),
            node.get("usable", "unknown"),
            frozenset(libvirt_name(blocker.get("name")) for blocker in node.findall("blocker")),
        )
        for node in root.findall(f"cpu[@type='{accelerator}']")
    )
    local = {node.get("name") for node in host.findall("property[@migratable='no']")}
    hypervisor = Hypervisor(models, frozenset(map(libvirt_name, props)), frozenset(map(libvirt_name, local)))
    return Caps(raw_of_props(props, cpu_map), hypervisor)
