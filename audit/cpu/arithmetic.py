"""The ground of libvirt's x86 arithmetic: which features a definition means, and which definition says them best.

libvirt computes on CPUID bits. Every feature of its map is one bit of its own (CpuMap holds it to that), so here a
processor is the set of its features' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from audit.cpu.cpumap import CpuMap, MapModel
from audit.cpu.definition import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuSignature,
    IncompatibleCpus,
    Kind,
)
from audit.cpu.hypervisor import Hypervisor
from audit.cpu.rules import NEWEST, Rules

# What decoding leaves out of a migratable CPU, in libvirt's own opinion. QEMU's is asked where it gives one.
_NOT_MIGRATABLE = frozenset({"xsaves", "invtsc"})

# Intel processors whose TSX is broken: (family, model) → first sane stepping, out of reach where none is.
_BROKEN_TSX = {(6, 60): 99, (6, 69): 99, (6, 70): 99, (6, 63): 4}


@lru_cache(maxsize=8192)
def feature_set(cpu: CpuDefinition, cpu_map: CpuMap) -> frozenset[str]:
    """Features that the definition asks for (libvirt 11.3 cpu_x86.c x86ModelFromCPU, all policies).

    Raises UnknownCpuName for a model or feature that the map lacks; optional features are not even looked up.
    """
    features = set(cpu_map.model(cpu.model).features) if cpu.model else set()
    for feature in cpu.features:
        if feature.policy == "optional":
            continue
        name = cpu_map.require_feature(feature.name)
        if feature.policy in ("require", "force"):
            features.add(name)
        else:
            features.discard(name)
    return frozenset(features)


def features_with(cpu: CpuDefinition, cpu_map: CpuMap, policy: str) -> frozenset[str]:
    """Features that the definition lists with one policy; the model's own count as required.

    Raises UnknownCpuName. Source: libvirt 11.3 cpu_x86.c x86ModelFromCPU, one policy.
    """
    listed = frozenset(cpu_map.require_feature(name) for name in cpu.named(policy))
    if policy == "require" and cpu.model:
        return listed | cpu_map.model(cpu.model).features
    return listed


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to say a set of features: a model, plus, minus."""

    model: MapModel
    required: frozenset[str]
    disabled: frozenset[str]

    def features(self, cpu_map: CpuMap, kind: Kind) -> tuple[CpuFeature, ...]:
        """List them as libvirt does: map order, features that the model lost at the end."""
        listed = [CpuFeature(name) for name in cpu_map.sorted(self.required)]
        listed += [CpuFeature(name, "disable") for name in cpu_map.sorted(self.disabled)]
        if kind == "guest":
            named = self.required | self.disabled
            listed += [CpuFeature(name, "disable") for name in self.model.removed if name not in named]
        return tuple(listed)

    def score(self, kind: Kind, rules: Rules) -> tuple[int, int]:
        """Score and penalty, less is better (libvirt 11.3 cpu_x86.c x86DecodeUseCandidate).

        Every disabled feature should cost 2, 3, 4 … on top of its place. libvirt's loop bound shrinks while it
        counts them, so that it sees only half of them; the answers depend on it.
        """
        required = len(self.required)
        if kind == "host":
            return required, 0
        extra = sum(name not in self.required and name not in self.disabled for name in self.model.removed)
        disabled = len(self.disabled) + extra
        if not rules.disabling_costs_extra:
            return required + disabled, 0
        seen = (disabled + 1) // 2
        penalty = sum(range(2, seen + 2))
        return required + disabled - seen + penalty, penalty


def decode(
    features: frozenset[str],
    cpu_map: CpuMap,
    *,
    kind: Kind = "guest",
    vendor: str | None = None,
    signature: CpuSignature | None = None,
    hypervisor: Hypervisor | None = None,
    preferred: Sequence[str] = (),
    migratable: bool = False,
    rules: Rules = NEWEST,
) -> CpuDefinition:
    """Name the model that fits a set of features best, with what it has too little or too much.

    A host's definition cannot take features away, so its model is one that is wholly contained.
    `preferred` models win ties and more; a single one wins always. `migratable` leaves out xsaves and invtsc.
    Raises IncompatibleCpus when no model fits. Source: libvirt 11.3 cpu_x86.c x86Decode.
    """
    if vendor == "Intel" and signature and _has_broken_tsx(signature):
        features -= {"hle", "rtm"}
    best: _Candidate | None = None
    for model in reversed(cpu_map.models):
        candidate = _candidate(features, model, cpu_map, vendor, hypervisor, rules)
        if candidate is None or not _decodable(candidate, kind):
            continue
        if len(preferred) == 1 and model.name in preferred:
            best = candidate
            break
        if best is None or _beats(candidate, best, kind, signature, preferred, rules):
            best = candidate
    if best is None:
        raise IncompatibleCpus("Cannot find suitable CPU model for given data", "internal error")
    listed = best.features(cpu_map, kind)
    if migratable:
        listed = tuple(feature for feature in listed if feature.name not in _NOT_MIGRATABLE)
    return CpuDefinition(
        kind=kind,
        arch="x86_64" if kind == "host" else None,
        model=best.model.name,
        vendor=vendor,
        signature=signature if kind == "host" else None,
        features=listed,
    )


def _has_broken_tsx(signature: CpuSignature) -> bool:
    return signature.stepping < _BROKEN_TSX.get((signature.family, signature.model), 0)


def _candidate(
    features: frozenset[str],
    model: MapModel,
    cpu_map: CpuMap,
    vendor: str | None,
    hypervisor: Hypervisor | None,
    rules: Rules,
) -> _Candidate | None:
    if vendor and model.vendor and vendor != model.vendor:
        return None
    required = features - model.features
    disabled = model.features - features
    if hypervisor:
        offered = hypervisor.find(model.name)
        if offered is None:
            return None
        names = cpu_map.order.keys() if hypervisor.names is None else hypervisor.names
        if not names >= disabled | frozenset(model.removed):
            return None  # it cannot be said where one of these has no name
        if rules.blockers_are_disabled:  # even a feature of the model that the processors all have
            disabled |= (offered.blockers & cpu_map.order.keys() & names) - required
    return _Candidate(model, required, disabled)


def _decodable(candidate: _Candidate, kind: Kind) -> bool:
    if kind == "host":
        return candidate.model.decode_host and not candidate.disabled
    return candidate.model.decode_guest


def _beats(
    candidate: _Candidate,
    best: _Candidate,
    kind: Kind,
    signature: CpuSignature | None,
    preferred: Sequence[str],
    rules: Rules,
) -> bool:
    if signature:
        meant, best_meant = (
            any(made_for.matches(signature) for made_for in one.model.signatures) for one in (candidate, best)
        )
        if meant != best_meant:
            return meant
    (score, penalty), (best_score, best_penalty) = candidate.score(kind, rules), best.score(kind, rules)
    return (score, penalty) < (best_score, best_penalty) or (
        candidate.model.name in preferred and penalty < best_penalty
    )


def expand(cpu: CpuDefinition, cpu_map: CpuMap) -> CpuDefinition:
    """Spell out the model's features, sorted by name in byte order.

    Policies other than require and disable drop out. Raises CpuError without a model, UnknownCpuName.
    Source: libvirt 11.3 cpu_x86.c virCPUx86ExpandFeatures.
    """
    if not cpu.model:
        raise CpuError("no CPU model specified")
    model = cpu_map.model(cpu.model)
    policies = dict.fromkeys(model.features, "require")
    policies |= {feature.name: feature.policy for feature in cpu.features if _kept(feature)}
    if cpu.kind == "guest":
        policies = dict.fromkeys(model.removed, "disable") | policies
    ordered = sorted(policies.items(), key=lambda item: item[0].encode())
    return replace(cpu, features=tuple(CpuFeature(name, policy) for name, policy in ordered))


def _kept(feature: CpuFeature) -> bool:
    return feature.policy in ("require", "disable")


def as_host(cpu: CpuDefinition, cpu_map: CpuMap) -> CpuDefinition:
    """Say a guest's CPU as a host's, which `virsh cpu-baseline` takes; nothing that it disables is lost.

    Raises UnknownCpuName; IncompatibleCpus when no model is contained in it.
    """
    return decode(feature_set(cpu, cpu_map), cpu_map, kind="host", vendor=cpu.vendor)
