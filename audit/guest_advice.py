"""What a cluster's baseline means for each guest: where its CPU lets it go, what it loses, and how it gets there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from audit.cpu import X86, CpuDefinition, CpuError, CpuMap, feature_set
from audit.cpu.guest import required_features
from audit.cpu.paste import apply_commands, difference, undo_commands, with_cpu
from audit.facts.base import Facts, Guest, Unavailable
from audit.facts.cpu import HostCpu
from audit.facts.cpu_fit import NOT_THE_HOSTS, PASSTHROUGH, migratable, passed_through, running, seen_address_bits
from audit.facts.guest import GuestCpu, GuestMachine, GuestState
from audit.facts.guest_source import inactive_text
from audit.facts.host_models import DOMCAPS_KVM, DomainCapabilities, HostModels, Request
from audit.results import GuestCpuAdvice

CPU_DOMAINS = frozenset({"cpu", "breaks"})
"""The domains of checks that judge whether a guest's CPU can be had on a target."""


class Barrier(NamedTuple):
    """What keeps a guest from a target, or from being judged for it, as far as its CPU goes; "" for nothing."""

    no: str = ""
    unknown: str = ""


Barriers = Callable[[Guest, str], Barrier]
"""What the checks said of a running guest and a target."""


class Evidence(NamedTuple):
    """What is known of a cluster's guests and hosts beyond the CPUs that hosts can give."""

    facts: Facts
    barriers: Barriers
    virttype: str
    """The kind of guests that the baseline is for: kvm or qemu."""
    missing: Mapping[str, str]
    """Hosts of the cluster that are not in the baseline, and why."""


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


class GuestsAdvice(NamedTuple):
    """The guests, and the hosts whose guests could not be listed, with the reason."""

    guests: list[GuestCpuAdvice]
    unread: dict[str, str]


def guests_advice(hosts: Sequence[str], baseline: CpuDefinition, cpu_map: CpuMap, evidence: Evidence) -> GuestsAdvice:
    """The guests of these hosts and of the missing ones; those that their CPU keeps from somewhere come first."""
    found, unread = [], {}
    for host in (*hosts, *evidence.missing):
        guests = evidence.facts.guests(host)
        if isinstance(guests, Unavailable):
            unread[host] = str(guests)
            continue
        for guest in guests:
            found.append(_guest(guest, hosts, baseline, cpu_map, evidence))
    order = sorted(found, key=lambda advice: (-len(advice["blocked"]), advice["host"], advice["guest"]))
    return GuestsAdvice(order, unread)


def _guest(
    guest: Guest, hosts: Sequence[str], baseline: CpuDefinition, cpu_map: CpuMap, evidence: Evidence
) -> GuestCpuAdvice:
    advice = GuestCpuAdvice(
        guest=guest.name, uuid=guest.uuid, host=guest.host, effect="unknown", blocked={}, unproved={}, loses=[],
        gains=[], problem="", diff="", apply=[], undo=[],
    )  # fmt: skip
    facts, virttype = evidence.facts, evidence.virttype
    try:
        cpu = facts.told_of_guest(guest, GuestCpu)
        machine = facts.told_of_guest(guest, GuestMachine)
        state = facts.told_of_guest(guest, GuestState)
    except Unavailable as why:
        advice["problem"] = str(why)
        return advice
    if guest.host in evidence.missing:
        advice["problem"] = f"{guest.host} is not in the baseline: {evidence.missing[guest.host]}"
    elif machine.virttype != virttype or machine.arch not in X86:
        advice["problem"] = f"the baseline is for {virttype} guests of x86, not for {machine.virttype} {machine.arch}"
    else:
        if state.active:
            _where(advice, guest, hosts, evidence)
            _what_changes(advice, guest, cpu, machine, baseline, cpu_map, facts)
        else:
            advice["effect"] = "next start"
        _how(advice, guest, state, baseline, facts)
    return advice


def _where(advice: GuestCpuAdvice, guest: Guest, hosts: Sequence[str], evidence: Evidence) -> None:
    """From which of the hosts the CPU that it runs with keeps it."""
    for host in hosts:
        if host != guest.host:
            barrier = evidence.barriers(guest, host)
            if barrier.no:
                advice["blocked"][host] = barrier.no
            elif barrier.unknown:
                advice["unproved"][host] = barrier.unknown
    advice["unproved"].update(evidence.missing)


def _offer(facts: Facts, host: str, machine: GuestMachine) -> DomainCapabilities:
    offer = facts.told(host, HostModels).offer(Request.of(machine))
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
    # Of host-passthrough libvirt lists nothing: what it has beyond the named features nobody knows.
    named = cpu.definition is None or cpu.definition.mode not in PASSTHROUGH
    same = named and has == shall and not _sees_more_bits(cpu.definition, baseline, guest.host, facts)
    advice["effect"] = "has it" if same else "power cycle"


def _sees_more_bits(definition: CpuDefinition | None, baseline: CpuDefinition, host: str, facts: Facts) -> bool:
    """Whether the guest sees more physical address bits than the baseline states; unless known to, it may."""
    limit = baseline.maxphysaddr.limit if baseline.maxphysaddr else None
    if not limit:
        return False
    here = facts.of(host, HostCpu)
    if isinstance(here, Unavailable) or here.address_bits is None:
        return True
    return seen_address_bits(definition, here.address_bits) > limit


def _runs_with(cpu: GuestCpu, machine: GuestMachine, host: str, cpu_map: CpuMap, facts: Facts) -> frozenset[str]:
    """The features that the running guest sees. Raises `Unavailable`, CpuError."""
    definition = running(cpu.definition, machine.arch)
    given = _offer(facts, host, machine).host_model
    if definition.mode in PASSTHROUGH:
        if given is None:
            raise Unavailable(DOMCAPS_KVM, f"what {definition.mode} gives here is not told")
        definition = passed_through(definition, given)
    has = required_features(definition, cpu_map) - NOT_THE_HOSTS
    if definition.check != "full" and given is not None:
        has &= feature_set(migratable(given), cpu_map)  # QEMU left out, without a word, what the host cannot give
    return has


def _how(advice: GuestCpuAdvice, guest: Guest, state: GuestState, baseline: CpuDefinition, facts: Facts) -> None:
    """The difference to apply, and how to take it back."""
    if not state.persistent:
        advice["effect"] = "transient"
        return
    try:
        before = inactive_text(facts.said(guest.host), guest.uuid, active=state.active)
        pasted = with_cpu(before, baseline)
    except (Unavailable, CpuError) as why:
        advice["problem"] = advice["problem"] or str(why)
        return
    advice["diff"] = difference(before, pasted, guest.uuid)
    if advice["diff"]:
        restart = advice["effect"] == "power cycle"
        paused = state.state == "paused"
        advice["apply"] = apply_commands(guest.uuid, pasted, restart=restart, paused=paused)
        advice["undo"] = undo_commands(guest.uuid, restart=restart)
    elif not state.active:
        advice["effect"] = "has it"
