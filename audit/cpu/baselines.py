"""The CPU that every one of several hosts can give, and why it is not more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from audit.cpu.arithmetic import decode, expand, feature_set
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError, IncompatibleCpus, MaxPhysAddr
from audit.cpu.hypervisor import Hypervisor

# virsh cpu-baseline leaves out what QEMU never gives to guests (libvirt 11.3 qemu_capabilities.c).
NEVER_IN_QEMU = frozenset(
    {
        "cmt",
        "mbm_local",
        "mbm_total",
        "osxsave",
        "ospke",
        "vmx-ept-uc",
        "vmx-ept-wb",
        "vmx-invvpid-single-context",
    }
)


def baseline(
    cpus: Sequence[CpuDefinition],
    cpu_map: CpuMap,
    *,
    hypervisor: Hypervisor | None = None,
    allowed: frozenset[str] | None = None,
    migratable: bool = False,
) -> CpuDefinition:
    """Give the best definition of what all CPUs have in common (libvirt 11.3 cpu_x86.c virCPUx86Baseline).

    `allowed`: features that may appear at all. Raises UnknownCpuName, IncompatibleCpus; CpuError for no CPUs and for
    a CPU without model.
    """
    if not cpus:
        raise CpuError("no CPUs given")
    models = [_model_name(cpu, index) for index, cpu in enumerate(cpus)]
    preferred = list(dict.fromkeys(models))
    vendor = _common_vendor(cpus, cpu_map)
    common = frozenset.intersection(*(feature_set(cpu, cpu_map) for cpu in cpus))
    if allowed is not None:
        common &= allowed
    if not common:
        raise IncompatibleCpus("CPUs are incompatible")
    result = decode(common, cpu_map, vendor=vendor, hypervisor=hypervisor, preferred=preferred, migratable=migratable)
    return replace(
        result,
        fallback="forbid" if preferred == [result.model] else "allow",
        # A CPU that names no vendor is an answer that should name none; the models were still chosen by vendor.
        vendor=vendor if all(cpu.vendor for cpu in cpus) else None,
    )


def plain_baseline(
    cpus: Sequence[CpuDefinition], cpu_map: CpuMap, *, features: bool = False, migratable: bool = False
) -> CpuDefinition:
    """Compute `virsh cpu-baseline` (virConnectBaselineCPU), which depends on no host.

    The CPUs are hosts' definitions (read them with kind="host"). Raises as baseline does.
    Source: libvirt 11.3 qemu_driver.c qemuConnectBaselineCPU.
    """
    result = baseline(cpus, cpu_map, migratable=migratable)
    kept = tuple(feature for feature in result.features if feature.name not in NEVER_IN_QEMU)
    result = replace(result, features=kept)
    return expand(result, cpu_map) if features else result


def hypervisor_baseline(
    cpus: Sequence[CpuDefinition],
    cpu_map: CpuMap,
    hypervisor: Hypervisor | None = None,
    *,
    features: bool = False,
    migratable: bool = False,
) -> CpuDefinition:
    """Compute `virsh hypervisor-cpu-baseline [--features] [--migratable]`.

    libvirt's answer depends on the host that it is asked on; here `hypervisor` stands for that host, or for several at
    once (Hypervisor.common). Without one: a current QEMU that knows every model and can run it.
    Raises as baseline does. Source: libvirt 11.3 qemu_driver.c qemuConnectBaselineHypervisorCPU.
    """
    allowed = hypervisor.features if hypervisor else None
    if migratable:
        local = hypervisor.not_migratable if hypervisor else frozenset({"invtsc"})
        allowed = (frozenset(cpu_map.order) if allowed is None else allowed) - local
    result = baseline(cpus, cpu_map, hypervisor=hypervisor, allowed=allowed)
    result = replace(result, fallback="forbid", maxphysaddr=_narrowest(cpus))
    return expand(result, cpu_map) if features else result


def who_removed(
    cpus_by_host: Mapping[str, CpuDefinition],
    baseline_cpu: CpuDefinition,
    cpu_map: CpuMap,
    hypervisors: Mapping[str, Hypervisor] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Say for each feature that some host offers and the baseline lacks, which hosts lack or block it.

    Map order; hosts in the order given. An empty tuple: no host's fault (not migratable, unknown to QEMU).
    Raises UnknownCpuName.
    """
    offered = {host: feature_set(cpu, cpu_map) for host, cpu in cpus_by_host.items()}
    blocked = {
        host: model.blockers
        for host, hypervisor in (hypervisors or {}).items()
        if baseline_cpu.model and (model := hypervisor.find(baseline_cpu.model))
    }
    lost = frozenset[str]().union(*offered.values()) - feature_set(baseline_cpu, cpu_map)
    return {
        name: tuple(
            host for host, features in offered.items() if name not in features or name in blocked.get(host, frozenset())
        )
        for name in cpu_map.sorted(lost)
    }


def _model_name(cpu: CpuDefinition, index: int) -> str:
    if not cpu.model:
        raise CpuError(f"no CPU model specified at index {index}")
    return cpu.model


def _common_vendor(cpus: Sequence[CpuDefinition], cpu_map: CpuMap) -> str | None:
    """Find the one vendor of all CPUs; the first CPU's model does not count, as in libvirt."""
    vendor = cpus[0].vendor and cpu_map.require_vendor(cpus[0].vendor)
    for cpu in cpus[1:]:
        model = cpu_map.model(cpu.model or "")
        if cpu.vendor and model.vendor and cpu.vendor != model.vendor:
            raise IncompatibleCpus(f"CPU vendor {model.vendor} of model {model.name} differs from vendor {cpu.vendor}")
        name = cpu.vendor or model.vendor
        if name and not vendor:
            vendor = cpu_map.require_vendor(name)
        elif name and name != vendor:
            raise IncompatibleCpus("CPU vendors do not match")
    return vendor


def _narrowest(cpus: Sequence[CpuDefinition]) -> MaxPhysAddr | None:
    limits = [cpu.maxphysaddr.limit for cpu in cpus if cpu.maxphysaddr and cpu.maxphysaddr.limit]
    return MaxPhysAddr("passthrough", limit=min(limits)) if len(limits) == len(cpus) else None
