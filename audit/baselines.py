"""The CPU baseline of each cluster: what `virsh hypervisor-cpu-baseline` would print for its hosts, and who took what.

libvirt's own answer depends on the host that it is asked on; here the models and blockers of every host count, so that
the result starts on all of them. The arithmetic is `audit.cpu`'s, the advice around it `audit.advice`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from audit.advice import advice_on
from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuMap,
    CpuSource,
    NotComputable,
    joint_baseline,
    lost_features,
    notes_on,
)
from audit.cpu.cpumap import CARRIED
from audit.cpu.crosscheck import CrossCheck
from audit.cpu.sources import fitting_map, named_by
from audit.evidence import Bundle
from audit.facts.base import Facts, Unavailable
from audit.facts.cpu_map import CpuMapFiles, cpu_map_files
from audit.facts.guest_source import read_guests
from audit.facts.host_models import DomainCapabilities, HostModels
from audit.facts.versions import Libvirt
from audit.guest_advice import Barriers, Evidence
from audit.inventory import Inventory
from audit.policy import Policy
from audit.results import Baseline

CrossChecker = Callable[[Sequence[CpuDefinition], CpuMap], CrossCheck]


class Told(NamedTuple):
    """What a cluster's hosts told of what they can give to guests of one virttype, and why some told nothing."""

    virttype: str
    sources: tuple[CpuSource, ...]
    missing: dict[str, str]


def cluster_baselines(
    cluster: str, hosts: Sequence[str], facts: Facts, barriers: Barriers, cross_check: CrossChecker | None = None
) -> list[Baseline]:
    """One baseline for each CPU vendor among the cluster's hosts; a host that cannot be in it is named with the reason.

    Judged for KVM; where no host has it, for software emulation. `barriers`: what the checks say of guests' CPUs.
    """
    told = _told(hosts, facts)
    cpu_map, engine = choose_map(told.sources)
    evidence = Evidence(facts, barriers, told.virttype, told.missing)
    return [
        _baseline(cluster, group, told, cpu_map, engine, evidence, cross_check) for group in _by_vendor(told.sources)
    ] or [_none(cluster, hosts, told, engine)]


class Cluster(NamedTuple):
    """A cluster of a bundle."""

    name: str
    hosts: tuple[str, ...]
    facts: Facts
    policy: Policy


def find_cluster(bundle: Bundle, name: str | None, host: str | None = None) -> Cluster:
    """The bundle's cluster of that name; without one, that of the host, or the only one.

    Raises `CpuError` when that leaves a choice.
    """
    inventory = Inventory.from_json(bundle.inventory)
    clusters = {one.name: tuple(host.name for host in one.hosts) for one in inventory.clusters}
    fitting = [one for one, hosts in clusters.items() if name in (None, one) and (host is None or host in hosts)]
    if len(fitting) != 1:
        known = ", ".join(f"{one} ({len(hosts)} hosts)" for one, hosts in sorted(clusters.items()))
        wanted = f"no cluster {name}" if name else f"no host {host}" if host else "name one of the clusters"
        raise CpuError(f"{wanted}: there is {known}", None)
    [found] = fitting
    return Cluster(found, clusters[found], Facts(bundle.hosts, read_guests), inventory.policy)


def cluster_sources(cluster: Cluster) -> Told:
    """What the cluster's hosts can give to KVM guests (without KVM: to emulated ones).

    Raises NotComputable when a host did not tell: a baseline without it would not be one.
    """
    told = _told(cluster.hosts, cluster.facts)
    if told.missing:
        host, why = next(iter(told.missing.items()))
        raise NotComputable(f"{host}: {why}", None)
    return told


def host_maps(facts: Facts, hosts: Sequence[str]) -> dict[str, CpuMap]:
    """The CPU maps of the hosts' own libvirts, as far as there is evidence of them; equal ones were fetched once."""
    by_digest: dict[str, CpuMap] = {}
    for host, names in facts.each(hosts, CpuMapFiles):
        libvirt = facts.of(host, Libvirt)
        version = "" if isinstance(libvirt, Unavailable) else f"libvirt {libvirt.daemon} on {host}"
        try:
            by_digest.setdefault(names.digest or "", CpuMap.from_files(cpu_map_files(facts.said(host)), version))
        except (Unavailable, CpuError):
            continue  # fetched from another host, absent, or damaged there: the next one serves as well
    digests = {host: names.digest for host, names in facts.each(hosts, CpuMapFiles) if names.digest}
    return {host: by_digest[digest] for host, digest in digests.items() if digest in by_digest}


def maps_at_hand(local: CpuMap | None = None) -> list[CpuMap]:
    """The carried maps and perhaps the local one, the newest first."""
    maps = [*([local] if local else []), *(CpuMap.carried(release) for release in CARRIED)]
    return sorted(maps, key=lambda one: one.release, reverse=True)


def choose_map(sources: Sequence[CpuSource], local: CpuMap | None = None) -> tuple[CpuMap, str]:
    """The map to compute with, and what to call it: the newest that fits, of the hosts' own, `local` and the carried.

    The results of a run never depend on the local one.
    """
    own = [source.cpu_map for source in sources if source.cpu_map]
    chosen = fitting_map([*own, *maps_at_hand(local)], sources)
    carried = any(chosen is CpuMap.carried(release) for release in CARRIED)
    return chosen, f"carried CPU map ({chosen.version})" if carried else f"CPU map of {chosen.version}"


def _told(hosts: Sequence[str], facts: Facts) -> Told:
    """For KVM guests; where no host offers that, for emulated ones, unless none offers those either."""
    maps = host_maps(facts, hosts)
    kvm = _offers("kvm", hosts, facts, maps)
    qemu = kvm if kvm.sources else _offers("qemu", hosts, facts, maps)
    return kvm if kvm.sources or not qemu.sources else qemu


def _offers(virttype: str, hosts: Sequence[str], facts: Facts, maps: Mapping[str, CpuMap]) -> Told:
    """What each host can give to a guest of that virttype."""
    sources: list[CpuSource] = []
    missing: dict[str, str] = {}
    for host in hosts:
        libvirt = facts.of(host, Libvirt)
        try:
            offer = facts.told(host, HostModels).native(virttype)
        except Unavailable as reason:
            missing[host] = str(reason)
            continue
        if not isinstance(offer, DomainCapabilities):
            missing[host] = offer.words
        elif offer.host_model is None:
            missing[host] = f"{offer.emulator} offers no host-model for {virttype} {offer.arch}"
        else:
            version = None if isinstance(libvirt, Unavailable) else libvirt.daemon
            own = maps.get(host)
            offered = named_by(offer.hypervisor, own) if offer.hypervisor and own else offer.hypervisor
            sources.append(CpuSource(host, offer.host_model, offered, offer.arch, version, own, host_model=True))
    return Told(virttype, tuple(sources), missing)


def _by_vendor(sources: Sequence[CpuSource]) -> list[tuple[CpuSource, ...]]:
    groups: dict[str | None, list[CpuSource]] = {}
    for source in sources:
        groups.setdefault(source.cpu.vendor, []).append(source)
    return [tuple(group) for group in groups.values()]


def _baseline(
    cluster: str,
    sources: tuple[CpuSource, ...],
    told: Told,
    cpu_map: CpuMap,
    engine: str,
    evidence: Evidence,
    cross_check: CrossChecker | None,
) -> Baseline:
    result = _none(cluster, [source.name for source in sources], told, engine)
    try:
        plain = joint_baseline(sources, cpu_map)
        migratable = joint_baseline(sources, cpu_map, migratable=True)
        lost = lost_features(sources, plain, cpu_map)
    except CpuError as error:
        result["problem"] = str(error)
        return result
    result["problem"] = ""
    result["cpu_xml"] = plain.to_xml()
    result["migratable_cpu_xml"] = migratable.to_xml() if migratable != plain else None
    result["model"] = plain.model
    result["vendor"] = plain.vendor
    result["removed_by"] = {feature: list(by) for feature, by in lost.items()}
    result["notes"] = notes_on(sources, cpu_map, plain, migratable=False)
    result["advice"] = advice_on(sources, migratable, cpu_map, evidence)
    if cross_check:
        checked = cross_check([source.cpu for source in sources], cpu_map)
        who = f"libvirt {checked.libvirt_version}" if checked.libvirt_version else "libvirt"
        result["cross_check"] = f"{who} {checked.status}: {checked.detail}"
    return result


def _none(cluster: str, hosts: Sequence[str], told: Told, engine: str) -> Baseline:
    return Baseline(
        cluster=cluster,
        hosts=[host for host in hosts if host not in told.missing],
        missing=told.missing,
        virttype=told.virttype,
        cpu_xml=None,
        migratable_cpu_xml=None,
        model=None,
        vendor=None,
        problem="no host of the cluster told what it can give to guests",
        engine=engine,
        removed_by={},
        cross_check="not made: no local libvirt was asked",
        notes=[],
        advice=None,
    )
