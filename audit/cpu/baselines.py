"""The CPU that every one of several hosts can give, and why it is not more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from audit.cpu.arithmetic import decode, expand, feature_set
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError, IncompatibleCpus, MaxPhysAddr, NotComputable
from audit.cpu.hypervisor import Hypervisor
from audit.cpu.reading import X86
from audit.cpu.rules import NEWEST, Rules

# virsh cpu-baseline leaves out what QEMU never gives to guests (libvirt 11.3 qemu_capabilities.c).
_NEVER_IN_QEMU = frozenset({"cmt", "mbm_local", "mbm_total", "osxsave", "ospke"})
_NO_SUPPORT = "this function is not supported by the connection driver"
_NEVER_EITHER = frozenset({"vmx-ept-uc", "vmx-ept-wb", "vmx-invvpid-single-context"})


def baseline(
    cpus: Sequence[CpuDefinition],
    cpu_map: CpuMap,
    *,
    hypervisor: Hypervisor | None = None,
    allowed: frozenset[str] | None = None,
    migratable: bool = False,
    rules: Rules = NEWEST,
) -> CpuDefinition:
    """Give the best definition of what all CPUs have in common (libvirt 11.3 cpu_x86.c virCPUx86Baseline).

    `allowed`: features that may appear at all. Raises UnknownCpuName, IncompatibleCpus; CpuError for no CPUs and for
    a CPU without model.
    """
    if not cpus:
        raise CpuError("no CPUs given")
    models = [_model_name(cpu, index) for index, cpu in enumerate(cpus)]
    preferred = list(dict.fromkeys(models))
    common, vendor = _in_common(cpus, cpu_map)
    if allowed is not None:
        common &= allowed
    if not common:
        raise IncompatibleCpus("CPUs are incompatible")
    result = decode(
        common,
        cpu_map,
        vendor=vendor,
        hypervisor=hypervisor,
        preferred=preferred,
        migratable=migratable,
        rules=rules,
    )
    return replace(
        result,
        fallback="forbid" if preferred == [result.model] else "allow",
        # A CPU that names no vendor is an answer that should name none; the models were still chosen by vendor.
        vendor=vendor if all(cpu.vendor for cpu in cpus) else None,
    )


def never_in_qemu(rules: Rules = NEWEST) -> frozenset[str]:
    """Features that `virsh cpu-baseline` leaves out, because no QEMU gives them to guests."""
    return _NEVER_IN_QEMU | _NEVER_EITHER if rules.three_more_unsupported else _NEVER_IN_QEMU


def plain_baseline(
    cpus: Sequence[CpuDefinition],
    cpu_map: CpuMap,
    *,
    features: bool = False,
    migratable: bool = False,
    rules: Rules = NEWEST,
) -> CpuDefinition:
    """Compute `virsh cpu-baseline` (virConnectBaselineCPU), which depends on no host.

    The CPUs are hosts' definitions (read them with kind="host"). Raises as baseline does; NotComputable where the first
    CPU, which decides about the architecture, is not x86. Source: libvirt 11.3 qemu_driver.c qemuConnectBaselineCPU.
    """
    arch = cpus[0].arch if cpus else None
    if arch not in (None, *X86):
        raise NotComputable(f"cannot compute baseline CPU of {arch} architecture", _NO_SUPPORT)
    result = baseline(cpus, cpu_map, migratable=migratable, rules=rules)
    kept = tuple(feature for feature in result.features if feature.name not in never_in_qemu(rules))
    result = replace(result, features=kept)
    return expand(result, cpu_map) if features else result


def hypervisor_baseline(
    cpus: Sequence[CpuDefinition],
    cpu_map: CpuMap,
    hypervisor: Hypervisor | None = None,
    *,
    features: bool = False,
    migratable: bool = False,
    rules: Rules = NEWEST,
) -> CpuDefinition:
    """Compute `virsh hypervisor-cpu-baseline [--features] [--migratable]`.

    libvirt's answer depends on the host that it is asked on; here `hypervisor` stands for that host, or for several at
    once (Hypervisor.common), and `rules` for its libvirt. Without one: a current QEMU that knows every model and can
    run it. Raises as baseline does. Source: libvirt 11.3 qemu_driver.c qemuConnectBaselineHypervisorCPU.
    """
    allowed = hypervisor.features if hypervisor else None
    local = hypervisor.not_migratable if hypervisor else frozenset({"invtsc"})
    if migratable and local is not None:
        allowed = (frozenset(cpu_map.order) if allowed is None else allowed) - local
    by_libvirts_list = migratable and local is None
    result = baseline(cpus, cpu_map, hypervisor=hypervisor, allowed=allowed, migratable=by_libvirts_list, rules=rules)
    width = _narrowest(cpus) if rules.baseline_has_address_bits else None
    result = replace(result, fallback="forbid", maxphysaddr=width)
    return expand(result, cpu_map) if features else result


def _model_name(cpu: CpuDefinition, index: int) -> str:
    if not cpu.model:
        raise CpuError(f"no CPU model specified at index {index}")
    return cpu.model


def _in_common(cpus: Sequence[CpuDefinition], cpu_map: CpuMap) -> tuple[frozenset[str], str | None]:
    """Find the features and the one vendor of all CPUs; the first CPU's model is not asked for its vendor.

    One CPU after the other, as in libvirt, so that of several reasons to refuse the same one is told.
    """
    features = feature_set(cpus[0], cpu_map)
    vendor = cpus[0].vendor and cpu_map.require_vendor(cpus[0].vendor)
    for cpu in cpus[1:]:
        features &= feature_set(cpu, cpu_map)
        model = cpu_map.model(cpu.model or "")
        if cpu.vendor and model.vendor and cpu.vendor != model.vendor:
            raise IncompatibleCpus(f"CPU vendor {model.vendor} of model {model.name} differs from vendor {cpu.vendor}")
        name = cpu.vendor or model.vendor
        if name and not vendor:
            vendor = cpu_map.require_vendor(name)
        elif name and name != vendor:
            raise IncompatibleCpus("CPU vendors do not match")
    return features, vendor


def _narrowest(cpus: Sequence[CpuDefinition]) -> MaxPhysAddr | None:
    limits = [cpu.maxphysaddr.limit for cpu in cpus if cpu.maxphysaddr and cpu.maxphysaddr.limit]
    return MaxPhysAddr("passthrough", limit=min(limits)) if len(limits) == len(cpus) else None
