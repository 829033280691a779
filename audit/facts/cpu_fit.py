"""Does a guest's CPU fit a host? The judgement behind the CPU checks, over facts alone.

A running guest carries its CPU in full: a model, plus, minus. The target must have every feature of it, and its
libvirt must know every name in it. What libvirt compares at last is the guest's CPU as QEMU gives it on the target
(libvirt 11.3 qemu_process.c qemuProcessVerifyCPU); host-model of the target's domcapabilities is what QEMU can give.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from audit.cpu import X86, CpuMap, Verdict, compare_by_lists, required_features
from audit.cpu import CpuDefinition as CpuDefinition  # checks take it from here
from audit.facts.base import Unavailable
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.host_models import DOMCAPS_KVM, DomainCapabilities
from audit.text import some_of, visible

PASSTHROUGH = ("host-passthrough", "maximum")
"""The CPU modes that give a guest what the host has, without naming it."""

# The guest's topology decides it, not the host: no host-model names it, and yet QEMU >= 10 lists it.
NOT_THE_HOSTS = frozenset({"ht"})
# Of these vendors' hosts QEMU since 10.1 hides a register that KVM emulates; who asks for it by name still gets it
# (QEMU commit d3a24134; libvirt's list, "Fix domain capabilities on AMD CPUs").
_HIDING = frozenset({"AMD", "Hygon"})
_SHOWN = 16  # names of features in one message: the first tell the story
_DEFAULT_ADDRESS_BITS = 40  # QEMU's phys-bits of a named model, where nothing else is asked for


@dataclass(frozen=True, slots=True)
class CpuGap:
    """What a target lacks for a guest's CPU; at least one part is set."""

    unknown_model: str = ""
    """The target's libvirt or QEMU does not know the guest's model."""
    missing: tuple[str, ...] = ()
    """Features that the guest has and the target cannot give."""
    unknown_features: tuple[str, ...] = ()
    """Names in the guest's definition that the target's libvirt does not know, be they switched on or off."""

    def __str__(self) -> str:
        parts = []
        if self.unknown_model:
            parts.append(f"CPU model {visible(self.unknown_model, 60)} is unknown there")
        if self.missing:
            parts.append(f"lacks {_listed(self.missing)}")
        if self.unknown_features:
            parts.append(f"its libvirt does not know {_listed(self.unknown_features)}")
        return "; ".join(parts)


def migratable(host_model: CpuDefinition) -> CpuDefinition:
    """What a host-model guest runs with: without what QEMU refuses to migrate."""
    return replace(host_model, check="full", features=tuple(f for f in host_model.features if f.name != "invtsc"))


def running(definition: CpuDefinition | None, arch: str) -> CpuDefinition:
    """A guest's CPU, where none is named QEMU's default. Raises `Unavailable` where that one is not known."""
    if definition is not None:
        return definition
    if arch not in X86:
        raise Unavailable(DOMCAPS_KVM, f"the guest names no CPU, and the default of {visible(arch, 20)} is not known")
    return CpuDefinition(model="qemu64" if arch == "x86_64" else "qemu32", check="none")


def gap(
    cpu: CpuDefinition,
    arch: str,
    there: DomainCapabilities,
    names: CpuMapFiles,
    *,
    inactive: CpuDefinition | None = None,
    own: CpuDefinition | None = None,
) -> CpuGap | None:
    """What `there` lacks for a guest that runs with `cpu`; None: nothing. Raises `Unavailable` where it cannot tell.

    `inactive`: the guest's persistent definition. `own`: the host-model of the host where the guest runs; it is
    needed where libvirt did not check the guest's CPU at its start (check='none'), and the guest so has only what
    that host could give.
    """
    if not cpu.model:
        raise Unavailable(DOMCAPS_KVM, f"a CPU of mode {cpu.mode} names no features")
    if arch not in X86:
        return _gap_by_name(cpu, there)
    cpu = _without_added(cpu, inactive)
    if unknown := _unknown_model(cpu, there, names):
        return CpuGap(unknown_model=unknown, unknown_features=_unknown_features(cpu, there, names))
    if there.host_model is None:
        raise Unavailable(DOMCAPS_KVM, f"{there.emulator} offers no host-model to compare with")
    missing = _missing(cpu, there.host_model)
    if missing and cpu.check != "full":
        if own is None:
            raise Unavailable(DOMCAPS_KVM, "what the guest's own host gave it is not known (check='none')")
        missing -= _missing(cpu, own)
    unknown_features = _unknown_features(cpu, there, names)
    missing -= set(unknown_features)
    hidden = missing & CpuMap.carried().arch_capabilities if there.host_model.vendor in _HIDING else frozenset()
    if hidden and hidden == missing and not unknown_features:
        raise Unavailable(DOMCAPS_KVM, f"QEMU since 10.1 hides {_listed(sorted(hidden))} there, and may give it")
    missing -= hidden
    return CpuGap("", tuple(sorted(missing)), unknown_features) if missing or unknown_features else None


def passed_through(definition: CpuDefinition, given: CpuDefinition) -> CpuDefinition:
    """What a host-passthrough or maximum guest has at least, on a host that gives guests `given`."""
    whole = given if definition.migratable == "off" else migratable(given)
    return replace(whole, check="full")


def seen_address_bits(cpu: CpuDefinition | None, host_bits: int) -> int:
    """The physical address bits that a KVM guest sees on a host that has `host_bits`."""
    if cpu is None or cpu.maxphysaddr is None:
        passthrough = cpu is not None and cpu.mode in PASSTHROUGH
        return host_bits if passthrough else _DEFAULT_ADDRESS_BITS
    if cpu.maxphysaddr.mode == "emulate":
        return cpu.maxphysaddr.bits or _DEFAULT_ADDRESS_BITS
    return min(host_bits, cpu.maxphysaddr.limit or host_bits)


def _missing(cpu: CpuDefinition, host_model: CpuDefinition) -> frozenset[str]:
    """Features of `cpu` that the host-model is without."""
    if cpu.model and cpu.model == host_model.model and cpu.model not in CpuMap.carried():
        # What the model contains is the same on both sides, so that no map has to know it.
        plus = cpu.named("require", "force") - host_model.named("require", "force")
        minus = host_model.named("disable", "forbid") - cpu.named("disable", "forbid", "optional")
        return (plus | minus) - NOT_THE_HOSTS
    return _features(cpu) - _features(host_model) - NOT_THE_HOSTS


def _features(cpu: CpuDefinition) -> frozenset[str]:
    """All features of a definition, also of those that the map has no name for."""
    cpu_map = CpuMap.carried()
    assert cpu.model, "asked for definitions with a model only"
    if cpu.model not in cpu_map:
        raise Unavailable(
            DOMCAPS_KVM, f"this program's CPU map ({cpu_map.version}) has no model {visible(cpu.model, 60)}"
        )
    known = tuple(feature for feature in cpu.features if feature.name in cpu_map.order)
    unknown = frozenset(f.name for f in cpu.features if f not in known and f.policy in ("require", "force"))
    return required_features(replace(cpu, features=known), cpu_map) | unknown


def _without_added(cpu: CpuDefinition, inactive: CpuDefinition | None) -> CpuDefinition:
    """The definition as it travels: without features that a later libvirt added to the model, unless asked for.

    libvirt 11.3 qemu_domain.c qemuDomainMakeCPUMigratable. What a host-model guest was started with is not to be
    seen any more, so that what it has switched on counts as asked for.
    """
    model = CpuMap.carried().model(cpu.model) if cpu.model and cpu.model in CpuMap.carried() else None
    if model is None or not model.added:
        return cpu
    explicit = {feature.name for feature in inactive.features} if inactive else set()
    if inactive is None or inactive.mode != "custom":
        explicit |= cpu.named("require", "force")
    return replace(cpu, features=tuple(f for f in cpu.features if f.name not in model.added or f.name in explicit))


def _unknown_model(cpu: CpuDefinition, there: DomainCapabilities, names: CpuMapFiles) -> str:
    """The guest's model, when the target cannot make a CPU of that name; "" when it can."""
    assert cpu.model, "asked for definitions with a model only"
    if there.hypervisor is None:
        raise Unavailable(DOMCAPS_KVM, f"{there.emulator} tells no named CPU models")
    if there.hypervisor.find(cpu.model):
        return ""
    if names.models is not None and cpu.model in names.models and cpu.fallback != "forbid":
        raise Unavailable(DOMCAPS_KVM, f"libvirt there would say model {visible(cpu.model, 60)} by another one")
    return cpu.model


def _unknown_features(cpu: CpuDefinition, there: DomainCapabilities, names: CpuMapFiles) -> tuple[str, ...]:
    listed = {feature.name for feature in cpu.features if feature.policy != "optional"}
    if names.features is not None:
        return tuple(sorted(listed - names.features))
    proved = {feature.name for feature in there.host_model.features} if there.host_model else set()
    for model in there.hypervisor.models if there.hypervisor else ():
        proved |= model.blockers
    if unproved := sorted(listed - proved):
        raise Unavailable(DOMCAPS_KVM, f"no CPU map there tells whether its libvirt knows {_listed(unproved)}")
    return ()


def _gap_by_name(cpu: CpuDefinition, there: DomainCapabilities) -> CpuGap | None:
    """Other architectures: libvirt's map does not spell out their models; what the definitions list is compared."""
    if there.virttype != "kvm":  # software emulation makes any model that it knows
        if there.hypervisor is None:
            raise Unavailable(DOMCAPS_KVM, f"{there.emulator} tells no named CPU models")
        return None if there.hypervisor.find(cpu.model or "") else CpuGap(unknown_model=cpu.model or "")
    if there.host_model is None:
        raise Unavailable(DOMCAPS_KVM, f"{there.emulator} offers no host-model to compare with")
    # Vendors are other checks' affair; not every libvirt states one here.
    found = compare_by_lists(there.host_model, replace(cpu, vendor=None), there.hypervisor, there.arch)
    if found.verdict is Verdict.UNKNOWN:
        raise Unavailable(DOMCAPS_KVM, visible(found.reason, 200))
    if found.verdict is Verdict.INCOMPATIBLE:
        return CpuGap(missing=found.missing) if found.missing else CpuGap(unknown_model=cpu.model or "")
    return None


def _listed(names: Collection[str]) -> str:
    return visible(some_of(names, _SHOWN), 600)
