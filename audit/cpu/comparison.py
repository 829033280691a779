"""Whether a host can give what a CPU definition asks for: the answers of virsh's compare commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from audit.cpu.arithmetic import expand, feature_set, features_with
from audit.cpu.baselines import hypervisor_baseline
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError, CpuFeature, NotComputable
from audit.cpu.hypervisor import Hypervisor
from audit.cpu.reading import X86
from audit.cpu.rules import NEWEST, Rules
from audit.cpu.sources import CpuSource


class Verdict(StrEnum):
    """libvirt's word; `superset`: the host has more than the CPU asks for."""

    IDENTICAL = "identical"
    SUPERSET = "superset"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"
    """Not libvirt's: what is at hand proves neither."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """libvirt's word, the features that the host lacks, and the reason for an `incompatible` or `unknown`."""

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
    rules: Rules = NEWEST,
) -> Comparison:
    """Compare as `virsh hypervisor-cpu-compare` does on the host whose domcapabilities give `host_model`.

    `hypervisor`: that host's models (none: nothing is known of them, and the older rules hold).
    Raises UnknownCpuName, CpuError. Source: libvirt 11.3 qemu_driver.c qemuConnectCompareHypervisorCPU,
    qemu_domain.c qemuDomainCheckCPU, cpu_x86.c virCPUx86CompareUnusable; before 10.10 x86Compute alone.
    """
    if host_model.fallback != "forbid":
        raise NotComputable("QEMU does not support reporting CPU model for hypervisor")
    offered = hypervisor.find(cpu.model) if hypervisor and cpu.model else None
    if not rules.blockers_decide or offered is None:
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


def compare_with(target: CpuSource, cpu: CpuDefinition, cpu_map: CpuMap) -> Comparison:
    """Compare as virsh does on the target: by its hypervisor where the source tells of one, else by the CPU alone.

    Raises UnknownCpuName, CpuError.
    """
    if target.arch not in X86:
        if cpu.arch not in (None, target.arch):
            return _incompatible(f"CPU arch {cpu.arch} does not match host arch")
        return compare_by_lists(target.cpu, cpu, target.hypervisor, target.arch)
    if target.hypervisor is None:
        return compare(target.cpu, cpu, cpu_map)
    return hypervisor_compare(target.cpu, cpu, cpu_map, target.hypervisor, target.rules)


def compare_by_lists(
    host_model: CpuDefinition, cpu: CpuDefinition, hypervisor: Hypervisor | None, arch: str
) -> Comparison:
    """Compare where only QEMU knows what a model contains (s390x, POWER, ARM): by what the definitions list.

    Of equal models the lists decide. Of unequal ones the target must call the model usable, and list everything that
    the CPU lists; what it does not list its own model may contain, so that nothing follows.
    """
    if cpu.vendor and cpu.vendor != host_model.vendor:
        return _incompatible(f"host CPU vendor does not match required CPU vendor {cpu.vendor}")
    wanted, offered = cpu.named("require", "force"), host_model.named("require", "force")
    missing = sorted(wanted - offered)
    if cpu.model and cpu.model == host_model.model:
        off, off_there = cpu.named("disable", "forbid", "optional"), host_model.named("disable", "forbid")
        if lacking := sorted({*missing, *(off_there - off)}):
            return _lacking(lacking)
        more = (offered - wanted) | (off - off_there)
        return Comparison(Verdict.SUPERSET if more else Verdict.IDENTICAL)
    found = hypervisor.find(cpu.model) if hypervisor and cpu.model else None
    if hypervisor and cpu.model and found is None:
        return _incompatible(f"QEMU there does not know the model {cpu.model}")
    if found and found.usable == "no" and (blocked := sorted(found.blockers - cpu.named("disable"))):
        return _lacking(blocked)
    if found and found.usable == "yes" and not missing:
        return Comparison(Verdict.SUPERSET)
    return Comparison(
        Verdict.UNKNOWN, reason=f"only QEMU can compare the {arch} models {cpu.model} and {host_model.model}"
    )


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would make an incompatible CPU pass. `cpu`: a definition that does, None where there is none."""

    words: str
    cpu: CpuDefinition | None = None


def remedy(target: CpuSource, cpu: CpuDefinition, cpu_map: CpuMap) -> Remedy:
    """Find the smallest change that lets the CPU pass on the target: switch off what is missing, else another model.

    Every definition that is proposed was compared. Raises UnknownCpuName.
    """
    if target.arch not in X86:
        return Remedy("nothing that could be proved: only QEMU knows what the models contain")
    if cpu.arch not in (None, *X86):
        return Remedy(f"no definition does: its architecture is {cpu.arch}")
    missing = compare_with(target, cpu, cpu_map).missing
    if missing:
        off = {name: CpuFeature(name, "disable") for name in missing}
        kept = [feature for feature in cpu.features if feature.name not in off]
        smaller = replace(cpu, kind="guest", arch=None, features=(*kept, *off.values()))
        if _passes(target, smaller, cpu_map):
            return Remedy(f"switch off {', '.join(missing)}", smaller)
    try:
        common = hypervisor_baseline([cpu, target.cpu], cpu_map, target.hypervisor, rules=target.rules)
    except CpuError as error:
        return Remedy(f"no definition does: {error}")
    if not _passes(target, common, cpu_map):
        return Remedy("no definition was found that does")
    lost = cpu_map.sorted(feature_set(cpu, cpu_map) - feature_set(common, cpu_map))
    return Remedy(f"use {common.model}" + (f", which is without {', '.join(lost)}" if lost else ""), common)


def _passes(target: CpuSource, cpu: CpuDefinition, cpu_map: CpuMap) -> bool:
    return compare_with(target, cpu, cpu_map).verdict in (Verdict.IDENTICAL, Verdict.SUPERSET)


def _incompatible(reason: str) -> Comparison:
    return Comparison(Verdict.INCOMPATIBLE, reason=reason)


def _lacking(missing: Iterable[str]) -> Comparison:
    names = tuple(missing)
    reason = f"Host CPU does not provide required features: {', '.join(names)}"
    return Comparison(Verdict.INCOMPATIBLE, names, reason)
