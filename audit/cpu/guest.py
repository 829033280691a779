"""What a running guest sees of its CPU: features, and the x86-64 level that they reach."""

from __future__ import annotations

from collections.abc import Iterable

from audit.cpu.arithmetic import feature_set
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError

# x86-64 psABI levels 1 to 4 as libvirt names their features; each takes in the ones before.
_PSABI_LEVELS = (
    frozenset({"cmov", "cx8", "fpu", "fxsr", "lm", "mmx", "sse", "sse2", "syscall"}),
    frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4.1", "sse4.2", "ssse3"}),
    frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    frozenset({"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}),
)


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


def psabi_level(features: Iterable[str]) -> int:
    """Give the x86-64 level (1 to 4: x86-64-v1 to x86-64-v4) that these features reach; 0 below the first.

    Source: x86-64 psABI, "Micro-Architecture Levels". osxsave is the guest system's doing and does not count.
    """
    have = frozenset(features)
    return next((level for level, needs in enumerate(_PSABI_LEVELS) if not needs <= have), len(_PSABI_LEVELS))
