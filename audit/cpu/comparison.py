"""Whether a host can give what a CPU definition asks for: the answers of virsh's compare commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from audit.cpu.arithmetic import expand, feature_set, features_with
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError
from audit.cpu.hypervisor import Hypervisor

# Since then a model without <check partial='compat'/> is judged by the hypervisor's blockers.
_BLOCKERS_DECIDE_SINCE = (10, 10, 0)


class Verdict(StrEnum):
    """libvirt's word; `superset`: the host has more than the CPU asks for."""

    IDENTICAL = "identical"
    SUPERSET = "superset"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True)
class Comparison:
    """libvirt's word, the features that the host lacks, and libvirt's reason for an `incompatible`."""

    verdict: Verdict
    missing: tuple[str, ...] = ()
    reason: str = ""


def compare(host: CpuDefinition, cpu: CpuDefinition, cpu_map: CpuMap) -> Comparison:
    """Compare as `virsh cpu-compare` does, against any host's definition.

    Raises UnknownCpuName. Source: libvirt 11.3 cpu_x86.c x86Compute.
    """
    if not host.model:
        return _incompatible("unknown host CPU")
    if cpu.arch not in (None, "i686", "x86_64"):
        return _incompatible(f"CPU arch {cpu.arch} does not match host arch")
    if cpu.vendor and cpu.vendor != host.vendor:
        return _incompatible(f"host CPU vendor does not match required CPU vendor {cpu.vendor}")
    force, require, optional, disable, forbid = (
        features_with(cpu, cpu_map, policy) for policy in ("force", "require", "optional", "disable", "forbid")
    )
    has = feature_set(host, cpu_map)
    if forbidden := cpu_map.sorted(forbid & has):
        return _incompatible(f"Host CPU provides forbidden features: {', '.join(forbidden)}")
    require -= force | optional | disable
    if missing := cpu_map.sorted(require - has):
        return _lacking(missing)
    extra = has - optional - require - disable - force
    if extra and cpu.kind == "guest" and cpu.match == "strict":
        names = ", ".join(cpu_map.sorted(extra))
        return _incompatible(f"Host CPU does not strictly match guest CPU: Extra features: {names}")
    return Comparison(Verdict.SUPERSET if extra else Verdict.IDENTICAL)


def hypervisor_compare(
    host_model: CpuDefinition,
    cpu: CpuDefinition,
    cpu_map: CpuMap,
    hypervisor: Hypervisor | None = None,
    libvirt_version: tuple[int, int, int] = (11, 3, 0),
) -> Comparison:
    """Compare as `virsh hypervisor-cpu-compare` does on the host whose domcapabilities give `host_model`.

    `hypervisor`: that host's models (none: nothing is known of them, and the older rules hold).
    Raises UnknownCpuName, CpuError. Source: libvirt 11.3 qemu_driver.c qemuConnectCompareHypervisorCPU,
    qemu_domain.c qemuDomainCheckCPU, cpu_x86.c virCPUx86CompareUnusable; before 10.10 x86Compute alone.
    """
    if host_model.fallback != "forbid":
        raise CpuError("QEMU does not support reporting CPU model for hypervisor")
    offered = hypervisor.find(cpu.model) if hypervisor and cpu.model else None
    if libvirt_version < _BLOCKERS_DECIDE_SINCE or offered is None:
        return compare(host_model, cpu, cpu_map)
    only_disables = cpu.kind == "guest" and len(cpu.named("disable")) == len(cpu.features)
    if offered.usable == "yes" and (only_disables or not cpu.features):
        return Comparison(Verdict.SUPERSET)
    if cpu_map.model(offered.name).compat_check:
        return compare(host_model, cpu, cpu_map)
    # The vendor is ignored here, and so are a host definition's features: libvirt's quirks, not ours.
    missing = set(offered.blockers - cpu.named("disable"))
    if cpu.kind == "guest":
        missing |= cpu.named("require") - expand(host_model, cpu_map).named("require")
    return _lacking(sorted(missing)) if missing else Comparison(Verdict.SUPERSET)


def _incompatible(reason: str) -> Comparison:
    return Comparison(Verdict.INCOMPATIBLE, reason=reason)


def _lacking(missing: Iterable[str]) -> Comparison:
    names = tuple(missing)
    reason = f"Host CPU does not provide required features: {', '.join(names)}"
    return Comparison(Verdict.INCOMPATIBLE, names, reason)
