"""libvirt's cache of what a QEMU said (/var/cache/libvirt/qemu/capabilities/*.xml), and the host-model made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxml import etree

from audit.cpu.arithmetic import decode
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuFeature, CpuSignature, UnreadableInput
from audit.cpu.hypervisor import Hypervisor, HypervisorModel, usable
from audit.cpu.reading import X86
from audit.cpu.rules import NEWEST, Rules, Version

_NUMBER = re.compile(r"[0-9]{1,10}")

# QEMU's spelling where libvirt has its own (libvirt 11.3 qemu_capabilities.c virQEMUCapsCPUFeaturesX86).
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


def accelerator(caps: etree._Element) -> str:
    """Which part of the cache counts: `kvm` where QEMU has it, else `tcg` (`hvf` is not looked at).

    Raises UnreadableInput where the cache tells no CPU: from a QEMU older than 2.9.
    """
    types = {node.get("type") for node in caps.findall("hostCPU")}
    for known in ("kvm", "tcg"):
        if known in types:
            return known
    raise UnreadableInput("these QEMU capabilities tell nothing of the host's CPU")


def hypervisor(caps: etree._Element, accel: str) -> Hypervisor:
    """What QEMU said about models and features, in libvirt's names.

    The features are all that QEMU has a name for, whether or not this host can give them: that is how libvirt reads
    them (libvirt 11.3 qemu_capabilities.c virQEMUCapsGetCPUFeatures).
    """
    models = tuple(
        HypervisorModel(
            node.get("name", ""),
            usable(node),
            frozenset(_libvirts_name(blocker.get("name", "")) for blocker in node.findall("blocker")),
        )
        for node in caps.findall(f"cpu[@type='{accel}']")
    )
    host = _host(caps, accel)
    properties = {_libvirts_name(node.get("name", "")): node for node in host.findall("property")}
    stays = frozenset(name for name, node in properties.items() if node.get("migratable") == "no")
    return Hypervisor(models, frozenset(properties), stays if host.get("migratability") == "yes" else None)


def host_model(caps: etree._Element, accel: str, cpu_map: CpuMap, rules: Rules = NEWEST) -> CpuDefinition:
    """The CPU that `host-model` stands for in domcapabilities, decoded from what QEMU said.

    The address bits, which libvirt takes from the running host, are not in the cache and are left out. Raises
    IncompatibleCpus when no model fits, UnreadableInput for an architecture other than x86 and s390x.
    Source: libvirt 11.3 qemu_capabilities.c virQEMUCapsInitHostCPUModel.
    """
    arch = caps.findtext("arch") or ""
    host = _host(caps, accel)
    values = {_libvirts_name(node.get("name", "")): node.get("value", "") for node in host.findall("property")}
    if arch in X86:
        has = frozenset(name for name, value in values.items() if value == "true")
        decoded = decode(
            has & cpu_map.order.keys(),
            cpu_map,
            vendor=_vendor(values, cpu_map),
            signature=_signature(values),
            hypervisor=hypervisor(caps, accel),
            rules=rules,
        )
        return CpuDefinition(model=decoded.model, fallback="forbid", vendor=decoded.vendor, features=decoded.features)
    if arch == "s390x" and host.get("model"):
        policies = {"true": "require", "false": "disable"}
        listed = [CpuFeature(name, policies[value]) for name, value in values.items() if value in policies]
        return CpuDefinition(model=host.get("model"), fallback="forbid", features=tuple(listed))
    raise UnreadableInput(f"these QEMU capabilities name no host-model for {arch}")


def libvirt_version(caps: etree._Element) -> Version | None:
    """The libvirt that wrote the cache, whose rules made its host-model; None where it does not say."""
    number = caps.findtext("selfvers") or ""
    if not _NUMBER.fullmatch(number) or int(number) == 0:
        return None
    return int(number) // 1_000_000, int(number) // 1000 % 1000, int(number) % 1000


def _libvirts_name(name: str) -> str:
    return QEMU_NAMES.get(name, name)


def _host(caps: etree._Element, accel: str) -> etree._Element:
    host = caps.find(f"hostCPU[@type='{accel}']")
    if host is None:
        raise UnreadableInput(f"these QEMU capabilities tell nothing of the host's CPU for {accel}")
    return host


def _vendor(values: Mapping[str, str], cpu_map: CpuMap) -> str | None:
    return next((name for name, string in cpu_map.vendors if string == values.get("vendor")), None)


def _signature(values: Mapping[str, str]) -> CpuSignature | None:
    numbers = [values.get(name, "") for name in ("family", "model", "stepping")]
    if not all(_NUMBER.fullmatch(number) for number in numbers) or not int(numbers[0]):
        return None
    return CpuSignature(*map(int, numbers))
