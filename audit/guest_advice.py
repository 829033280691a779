"""What a cluster's baseline means for each guest: where its CPU lets it go, what it loses, and how it gets there."""

from collections.abc import Iterable, Sequence

from audit.cpu import X86, CpuDefinition, CpuError, CpuMap, CpuSource, feature_set
from audit.cpu.guest import required_features
from audit.cpu.paste import apply_commands, difference, undo_commands, with_cpu
from audit.facts.base import Facts, G, Guest, H, Unavailable
from audit.facts.cpu import CpuIdentity
from audit.facts.cpu_fit import gap, migratable, passed_through, running
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.guest import GuestCpu, GuestMachine, GuestState
from audit.facts.guest_source import inactive_text
from audit.facts.host_models import DOMCAPS_KVM, DomainCapabilities, HostModels, Request
from audit.results import GuestCpuAdvice

_PASSTHROUGH = ("host-passthrough", "maximum")
# Features whose loss is felt, the worst first: by speed, by protection, by what stands on them.
_MATTERS = (
    "aes", "avx2", "avx", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "fma", "sse4.2", "sse4.1", "ssse3",
    "popcnt", "pclmuldq", "sha-ni", "vaes", "amx-tile", "bmi1", "bmi2", "pcid", "invpcid", "spec-ctrl", "ibrs", "ibpb",
    "stibp", "ssbd", "md-clear", "arch-capabilities", "vmx", "svm", "pdpe1gb", "x2apic", "tsc-deadline", "invtsc",
    "rdrand", "rdseed", "rdtscp", "xsave", "smep", "smap", "pku", "umip", "f16c", "movbe", "adx", "erms", "hle", "rtm",
)  # fmt: skip


def by_weight(features: Iterable[str]) -> list[str]:
    """Those that matter most first, the others by name."""
    weight = {name: place for place, name in enumerate(_MATTERS)}
    return sorted(features, key=lambda name: (weight.get(name, len(weight)), name))


def guests_advice(
    sources: Sequence[CpuSource], baseline: CpuDefinition, cpu_map: CpuMap, facts: Facts, virttype: str
) -> list[GuestCpuAdvice]:
    """The guests of these hosts; those that their CPU keeps from moving somewhere come first."""
    hosts = [source.name for source in sources]
    found = []
    for host in hosts:
        guests = facts.guests(host)
        for guest in () if isinstance(guests, Unavailable) else guests:
            found.append(_guest(guest, hosts, baseline, cpu_map, facts, virttype))
    return sorted(found, key=lambda advice: (-len(advice["blocked"]), advice["host"], advice["guest"]))


def _guest(
    guest: Guest, hosts: Sequence[str], baseline: CpuDefinition, cpu_map: CpuMap, facts: Facts, virttype: str
) -> GuestCpuAdvice:
    advice = GuestCpuAdvice(
        guest=guest.name, uuid=guest.uuid, host=guest.host, effect="unknown", blocked={}, unproved={}, loses=[],
        gains=[], problem="", diff="", apply=[], undo=[],
    )  # fmt: skip
    try:
        cpu = _of_guest(facts, guest, GuestCpu)
        machine = _of_guest(facts, guest, GuestMachine)
        state = _of_guest(facts, guest, GuestState)
    except Unavailable as why:
        advice["problem"] = str(why)
        return advice
    if machine.virttype != virttype or machine.arch not in X86:
        advice["problem"] = (
            f"the baseline is for {virttype} guests of x86; this one is {machine.virttype}, {machine.arch}"
        )
        return advice
    if state.active:
        _where(advice, guest, hosts, cpu, machine, facts)
        _what_changes(advice, guest, cpu, machine, baseline, cpu_map, facts)
    else:
        advice["effect"] = "next start"
    _how(advice, guest, state, baseline, facts)
    return advice


def _where(
    advice: GuestCpuAdvice, guest: Guest, hosts: Sequence[str], cpu: GuestCpu, machine: GuestMachine, facts: Facts
) -> None:
    """To which of the hosts the CPU that it runs with does not fit."""
    for host in hosts:
        if host == guest.host:
            continue
        try:
            lacking = _misfit(cpu, machine, guest.host, host, facts)
        except Unavailable as why:
            advice["unproved"][host] = str(why)
        else:
            if lacking:
                advice["blocked"][host] = lacking


def _misfit(cpu: GuestCpu, machine: GuestMachine, here: str, there: str, facts: Facts) -> str:
    """What the target lacks, "" for nothing. Raises `Unavailable`."""
    definition = running(cpu.definition, machine.arch)
    target, names = _offer(facts, there, machine), _told(facts, there, CpuMapFiles)
    given = _offer(facts, here, machine).host_model
    if definition.mode not in _PASSTHROUGH:
        own = None if definition.check == "full" else given
        return str(gap(definition, machine.arch, target, names, inactive=cpu.inactive, own=own) or "")
    if given is not None and (lacking := gap(passed_through(definition, given), machine.arch, target, names)):
        return str(lacking)
    unequal = _told(facts, here, CpuIdentity).differences(_told(facts, there, CpuIdentity))
    if unequal:
        raise Unavailable(DOMCAPS_KVM, f"{definition.mode}: {'; '.join(unequal)}")
    return ""


def _of_guest(facts: Facts, guest: Guest, kind: type[G]) -> G:
    fact = facts.of_guest(guest, kind)
    if isinstance(fact, Unavailable):
        raise fact
    return fact


def _told(facts: Facts, host: str, kind: type[H]) -> H:
    fact = facts.of(host, kind)
    if isinstance(fact, Unavailable):
        raise fact
    return fact


def _offer(facts: Facts, host: str, machine: GuestMachine) -> DomainCapabilities:
    offer = _told(facts, host, HostModels).offer(
        Request(machine.virttype, machine.arch, machine.machine, machine.emulator or "")
    )
    if not isinstance(offer, DomainCapabilities):
        raise Unavailable(DOMCAPS_KVM, offer.words)
    return offer


def _what_changes(
    advice: GuestCpuAdvice,
    guest: Guest,
    cpu: GuestCpu,
    machine: GuestMachine,
    baseline: CpuDefinition,
    cpu_map: CpuMap,
    facts: Facts,
) -> None:
    """What the guest would lose and gain, and what it takes."""
    try:
        has = _runs_with(cpu, machine, guest.host, cpu_map, facts)
    except (Unavailable, CpuError) as why:
        advice["problem"] = str(why)
        return
    shall = feature_set(baseline, cpu_map)
    advice["loses"], advice["gains"] = by_weight(has - shall), by_weight(shall - has)
    advice["effect"] = "has it" if has == shall else "power cycle"


def _runs_with(cpu: GuestCpu, machine: GuestMachine, host: str, cpu_map: CpuMap, facts: Facts) -> frozenset[str]:
    """The features that the running guest sees. Raises `Unavailable`, CpuError."""
    definition = running(cpu.definition, machine.arch)
    given = _offer(facts, host, machine).host_model
    if definition.mode in _PASSTHROUGH:
        if given is None:
            raise Unavailable(DOMCAPS_KVM, f"what {definition.mode} gives here is not told")
        definition = passed_through(definition, given)
    has = required_features(definition, cpu_map)
    if definition.check != "full" and given is not None:
        has &= feature_set(migratable(given), cpu_map)  # QEMU left out, without a word, what the host cannot give
    return has


def _how(advice: GuestCpuAdvice, guest: Guest, state: GuestState, baseline: CpuDefinition, facts: Facts) -> None:
    """The difference to apply, and how to take it back."""
    if not state.persistent:
        advice["problem"] = advice["problem"] or "transient: change it where its definition is kept"
        return
    try:
        before = inactive_text(facts.said(guest.host), guest.uuid, active=state.active)
        pasted = with_cpu(before, baseline)
    except (Unavailable, CpuError) as why:
        advice["problem"] = advice["problem"] or str(why)
        return
    advice["diff"] = difference(before, pasted.text, guest.uuid)
    if advice["diff"]:
        restart = advice["effect"] == "power cycle"
        advice["apply"] = apply_commands(guest.uuid, pasted, restart=restart)
        advice["undo"] = undo_commands(guest.uuid, restart=restart)
    elif not state.active:
        advice["effect"] = "has it"
