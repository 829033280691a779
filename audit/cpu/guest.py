"""What a running guest's CPU needs of the host that it moves to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from audit.cpu.arithmetic import feature_set
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError
from audit.cpu.hypervisor import Hypervisor

# x86-64 psABI levels 1 to 4 as libvirt names their features; each takes in the ones before.
_PSABI_LEVELS = (
    frozenset({"cmov", "cx8", "fpu", "fxsr", "lm", "mmx", "sse", "sse2", "syscall"}),
    frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4.1", "sse4.2", "ssse3"}),
    frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    frozenset({"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}),
)


@dataclass(frozen=True, slots=True)
class Portable:
    """The target can give everything that the guest's CPU has."""


@dataclass(frozen=True, slots=True)
class NotPortable:
    """What stands in the way; at least one part is set.

    `missing`: features that the target's processor or hypervisor lacks, map order. `unknown_model`: the target does not
    know the guest's model. `unknown_features`: names that the target's map lacks. `vendors`: (guest's, target's).
    """

    missing: tuple[str, ...] = ()
    unknown_model: str | None = None
    unknown_features: tuple[str, ...] = ()
    vendors: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NotProvable:
    """The definition does not say which features the guest sees."""

    reason: str


Portability = Portable | NotPortable | NotProvable


def required_features(cpu: CpuDefinition, cpu_map: CpuMap) -> frozenset[str]:
    """Give the features that the guest sees, out of a running guest's live `<cpu>`.

    A feature that the model has lost since counts as seen unless the definition names it: the libvirt that started
    the guest may still have had it in the model (libvirt 11.3 qemu_process.c, VIR_CPU_FEATURE_REQUIRE for removed).
    Raises UnknownCpuName; CpuError without a model.
    """
    if not cpu.model:
        raise CpuError("no CPU model specified")
    named = {feature.name for feature in cpu.features}
    return feature_set(cpu, cpu_map) | frozenset(cpu_map.model(cpu.model).removed).difference(named)


def missing_on(
    cpu: CpuDefinition,
    target_host_model: CpuDefinition,
    cpu_map: CpuMap,
    hypervisor: Hypervisor | None = None,
) -> Portability:
    """Judge whether a running guest's live `<cpu>` can be had on a target.

    `target_host_model`: of the target's domcapabilities. `cpu_map`: the target's, or the newest at hand.
    `hypervisor`: the target's models; without it every model of the map counts as known.
    Raises UnknownCpuName when the map cannot read the target's own host-model; CpuError when that has no model.
    Source: libvirt 11.3 qemu_process.c qemuProcessVerifyCPU, cpu_x86.c virCPUx86UpdateLive.

    invtsc is compared like any feature: a target that reports it gives it to who asks by name. Whether a guest with
    invtsc may move at all is the TSC frequency's affair.
    """
    if not target_host_model.model:
        raise CpuError("unknown host CPU")
    if cpu.mode in ("host-passthrough", "maximum") or not cpu.model:
        return NotProvable(f"mode='{cpu.mode}' without named features")
    vendors = _vendor_difference(cpu, target_host_model)
    unknown = tuple(feature.name for feature in cpu.features if feature.name not in cpu_map.order)
    if cpu.model not in cpu_map or not _offered(cpu.model, cpu.fallback, hypervisor):
        return NotPortable(unknown_model=cpu.model, unknown_features=unknown, vendors=vendors)
    if unknown:
        return NotPortable(unknown_features=unknown, vendors=vendors)
    missing = cpu_map.sorted(required_features(cpu, cpu_map) - feature_set(target_host_model, cpu_map))
    if missing and cpu.check == "none":
        return NotProvable(f"libvirt checks nothing (check='none'), and the target lacks {', '.join(missing)}")
    if missing or vendors:
        return NotPortable(missing=tuple(missing), vendors=vendors)
    return Portable()


def psabi_level(features: Iterable[str]) -> int:
    """Give the x86-64 level (1 to 4: x86-64-v1 to x86-64-v4) that these features reach; 0 below the first.

    Source: x86-64 psABI, "Micro-Architecture Levels". osxsave is the guest system's doing and does not count.
    """
    have = frozenset(features)
    return next((level for level, needs in enumerate(_PSABI_LEVELS) if not needs <= have), len(_PSABI_LEVELS))


def _vendor_difference(cpu: CpuDefinition, target: CpuDefinition) -> tuple[str, str] | None:
    if not cpu.vendor or not target.vendor or cpu.vendor == target.vendor:
        return None
    return cpu.vendor, target.vendor


def _offered(model: str, fallback: str, hypervisor: Hypervisor | None) -> bool:
    """Whether QEMU knows the model; with fallback='allow' libvirt says it by another model instead."""
    return hypervisor is None or fallback == "allow" or hypervisor.find(model) is not None
