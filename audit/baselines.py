"""The CPU baseline of each cluster: what `virsh hypervisor-cpu-baseline` would print for its hosts, and who took what.

libvirt's own answer depends on the host that it is asked on; here the models and blockers of every host count, so that
the result starts on all of them. The arithmetic is `audit.cpu`'s.
"""

from collections.abc import Callable, Sequence

from audit.cpu import CpuDefinition, CpuError, CpuMap, Hypervisor, hypervisor_baseline, who_removed
from audit.cpu.crosscheck import CrossCheck
from audit.evidence import Bundle
from audit.facts.base import Facts, Unavailable
from audit.facts.cpu import X86
from audit.facts.cpu_map import CpuMapFiles, cpu_map_files
from audit.facts.guest_source import read_guests
from audit.facts.host_models import DomainCapabilities, HostModels
from audit.facts.versions import Libvirt
from audit.results import Baseline

FACTS = (HostModels, CpuMapFiles, Libvirt)
"""What a baseline is computed from."""

CrossChecker = Callable[[Sequence[CpuDefinition], CpuMap], CrossCheck]

Offers = dict[str, DomainCapabilities]


def cluster_baselines(
    cluster: str, hosts: Sequence[str], facts: Facts, cross_check: CrossChecker | None = None
) -> list[Baseline]:
    """One baseline for each CPU vendor among the cluster's hosts; a host that cannot be in it is named with the reason.

    Judged for KVM; where no host has it, for software emulation.
    """
    virttype, offers, missing = _best_offers(hosts, facts)
    cpu_map, engine = newest_map(facts, hosts)
    return [
        _baseline(cluster, virttype, group, missing, cpu_map, engine, cross_check) for group in _by_vendor(offers)
    ] or [_none(cluster, hosts, missing, virttype, engine)]


def bundle_cpus(bundle: Bundle) -> tuple[list[CpuDefinition], list[Hypervisor]]:
    """What the bundle's hosts can give to KVM guests (without KVM: to emulated ones), as definitions and models.

    Raises `CpuError` when a host did not tell: a baseline without it would not be one.
    """
    facts = Facts(bundle.hosts, read_guests)
    _, offers, missing = _best_offers(sorted(bundle.hosts), facts)
    if missing:
        host, why = next(iter(missing.items()))
        raise CpuError(f"{host}: {why}")
    return (
        [offer.host_model for offer in offers.values() if offer.host_model],
        [offer.hypervisor for offer in offers.values() if offer.hypervisor],
    )


def newest_map(facts: Facts, hosts: Sequence[str]) -> tuple[CpuMap, str]:
    """The CPU map of the newest libvirt among the hosts, else the carried table; and what to call it."""
    found: list[tuple[tuple[int, ...], CpuMap, str]] = []
    for host, _ in facts.each(hosts, CpuMapFiles):
        libvirt = facts.of(host, Libvirt)
        try:
            cpu_map = CpuMap.from_files(cpu_map_files(facts.said(host)))
        except (Unavailable, CpuError):
            continue  # fetched from another host, absent, or damaged there: the next one serves as well
        if not isinstance(libvirt, Unavailable):
            found.append((tuple(libvirt.daemon), cpu_map, f"CPU map of libvirt {libvirt.daemon} on {host}"))
    if not found:
        carried = CpuMap.carried()
        return carried, f"carried CPU map ({carried.version})"
    _, cpu_map, name = max(found, key=lambda entry: entry[0])
    return cpu_map, name


def _best_offers(hosts: Sequence[str], facts: Facts) -> tuple[str, Offers, dict[str, str]]:
    """For KVM guests; where no host offers that, for emulated ones, unless none offers those either."""
    kvm = _offers("kvm", hosts, facts)
    qemu = kvm if kvm[0] else _offers("qemu", hosts, facts)
    return ("kvm", *kvm) if kvm[0] or not qemu[0] else ("qemu", *qemu)


def _offers(virttype: str, hosts: Sequence[str], facts: Facts) -> tuple[Offers, dict[str, str]]:
    """What each host can give to a guest of that virttype, and why some can give nothing."""
    offers: Offers = {}
    missing: dict[str, str] = {}
    for host in hosts:
        models = facts.of(host, HostModels)
        try:
            if isinstance(models, Unavailable):
                raise models
            offer = models.native(virttype)
        except Unavailable as reason:
            missing[host] = str(reason)
            continue
        if not isinstance(offer, DomainCapabilities):
            missing[host] = offer.words
        elif offer.host_model is None:
            missing[host] = f"{offer.emulator} offers no host-model for {virttype} {offer.arch}"
        else:
            offers[host] = offer
    return offers, missing


def _by_vendor(offers: Offers) -> list[Offers]:
    groups: dict[str | None, Offers] = {}
    for host, offer in offers.items():
        assert offer.host_model is not None, "offers have one"
        groups.setdefault(offer.host_model.vendor, {})[host] = offer
    return list(groups.values())


def _baseline(
    cluster: str,
    virttype: str,
    offers: Offers,
    missing: dict[str, str],
    cpu_map: CpuMap,
    engine: str,
    cross_check: CrossChecker | None,
) -> Baseline:
    cpus = {host: offer.host_model for host, offer in offers.items() if offer.host_model}
    hypervisors = {host: offer.hypervisor for host, offer in offers.items() if offer.hypervisor}
    common = Hypervisor.common(hypervisors.values()) if hypervisors else None
    result = _none(cluster, list(offers), missing, virttype, engine)
    others = sorted({offer.arch for offer in offers.values()} - X86)
    if others:
        result["problem"] = f"baselines are computed for x86 only, and here is {', '.join(others)}: ask libvirt there"
        return result
    try:
        plain = hypervisor_baseline(list(cpus.values()), cpu_map, common)
        migratable = hypervisor_baseline(list(cpus.values()), cpu_map, common, migratable=True)
        removed = who_removed(cpus, plain, cpu_map, hypervisors)
    except CpuError as error:
        result["problem"] = str(error)
        return result
    result["problem"] = ""
    result["cpu_xml"] = plain.to_xml()
    result["migratable_cpu_xml"] = migratable.to_xml() if migratable != plain else None
    result["model"] = plain.model
    result["vendor"] = plain.vendor
    result["removed_by"] = {feature: list(by) for feature, by in removed.items()}
    if cross_check:
        checked = cross_check(list(cpus.values()), cpu_map)
        who = f"libvirt {checked.libvirt_version}" if checked.libvirt_version else "libvirt"
        result["cross_check"] = f"{who} {checked.status}: {checked.detail}"
    return result


def _none(cluster: str, hosts: Sequence[str], missing: dict[str, str], virttype: str, engine: str) -> Baseline:
    return Baseline(
        cluster=cluster,
        hosts=[host for host in hosts if host not in missing],
        missing=missing,
        virttype=virttype,
        cpu_xml=None,
        migratable_cpu_xml=None,
        model=None,
        vendor=None,
        problem="no host of the cluster told what it can give to guests",
        engine=engine,
        removed_by={},
        cross_check="not made: no local libvirt was asked",
    )
