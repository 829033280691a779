"""Does a live migration come to an end, in a time that can be waited for (RHEL 9 §12.6, §12.9)?

The arithmetic is in `audit.convergence`. How fast a guest changes its memory is known only where that was measured.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterator

from audit.check import (
    At,
    Cluster,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Stage,
    Target,
    Told,
    Unavailable,
    check,
)
from audit.convergence import (
    CHANNEL,
    GBIT,
    MIB,
    TESTED,
    Load,
    channels,
    diagnose,
    duration,
    rate,
    remaining_seconds,
    size,
)
from audit.facts.dirty_rate import GuestDirtyRate, GuestMigration, pci_devices
from audit.facts.guest import GuestIdentity, GuestMemory, GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.ways import MigrationWays, Way

_MBIT = GBIT // 1000


def _measured(state: GuestState, measured: GuestDirtyRate) -> tuple[int, str]:
    """Bytes a second that the guest changes, and how to say it."""
    if state.state != "running":
        raise NotApplicable("the guest does not run: its memory does not change")
    dirty = max(1, measured.mib_per_second) * MIB  # 0 is anything below 1
    return dirty, f"{rate(dirty)}, measured for {measured.seconds} s"


def _over(way: Way) -> str:
    return f"{rate(way.mbps * _MBIT)} at most, over {way.here} here and {way.there} on the target"


def _stands_still(memory: GuestMemory, way: Way) -> str:
    return duration(memory.memory_kib * 1024 / (way.mbps * _MBIT))


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6, §12.9.1",
    covers=("12.6/bandwidth", "12.6/dirty-rate", "12.8/no-dirty-rate", "12.9/load", "12.9/suspend", "failure 77"),
)
def bandwidth(
    state: GuestState,
    measured: GuestDirtyRate,
    memory: GuestMemory,
    guest: GuestIdentity,
    here: Source[MigrationWays],
    there: Target[MigrationWays],
) -> Iterator[Finding]:
    """The network carries more than the guest changes of its memory in the same time.

    A live migration copies again what the guest has changed meanwhile; if that is more than the network carries, it
    never ends. The rate is an average of the time that it was measured for, in which a page counts once however often
    it is written: it is the least to reckon with.
    """
    dirty, words = _measured(state, measured)
    way = here.way(there)
    if dirty >= way.mbps * _MBIT:
        name = shlex.quote(guest.name)
        yield Finding(
            expected=f"a network that carries more than {words}",
            actual=_over(way),
            because="The live migration would not end.",
            remedy=f"virsh migrate {name} …  # without --live it stands still for {_stands_still(memory, way)}; "
            f"or --live --postcopy, then virsh migrate-postcopy {name}; or less load, or a faster network",
        )


@check(
    severity=Severity.LOW,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6; policy",
    remedy="Move it when it has less to do; be ready with virsh migrate-setmaxdowntime and virsh suspend",
    covers=("12.6/bandwidth", "12.9/reduce"),
)
def bandwidth_ample(
    state: GuestState,
    measured: GuestDirtyRate,
    memory: GuestMemory,
    here: Source[MigrationWays],
    there: Target[MigrationWays],
    policy: Policy,
) -> Iterator[Finding]:
    """The network carries significantly more than the guest changes of its memory.

    The closer the two are, the longer a live migration takes, and a short rush of work keeps it from ending. How many
    times the rate is enough is for the site to say.
    """
    dirty, words = _measured(state, measured)
    way = here.way(there)
    carried = way.mbps * _MBIT
    if dirty < carried < dirty * policy.dirty_rate_factor:
        seconds = remaining_seconds(memory.memory_kib * 1024, dirty, carried)
        yield Finding(
            expected=f"{policy.dirty_rate_factor} times {words}",
            actual=_over(way),
            because=f"It takes about {duration(seconds)}, if nothing else uses the network." if seconds else "",
        )


@check(
    severity=Severity.LOW,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.9.1; policy",
    remedy="Plan for it; a faster network: virsh migrate --migrateuri tcp://ADDRESS; --parallel above 10 Gbit/s",
    covers=("failure 77",),
)
def copied_in_time(
    state: GuestState, memory: GuestMemory, here: Source[MigrationWays], there: Target[MigrationWays], policy: Policy
) -> Iterator[Finding]:
    """The guest's memory is copied in a time that fits into a maintenance window.

    That is memory over bandwidth, for a guest that changes nothing: the least that it takes, and only with the network
    to itself. How long is too long is for the site to say.
    """
    if not state.active:
        raise NotApplicable("the guest does not run")
    total, most = memory.memory_kib * 1024, policy.long_migration_minutes * 60
    if total / GBIT <= most:
        raise NotApplicable("quickly copied, even by 1 Gbit/s")
    way = here.way(there)
    seconds = total / (way.mbps * _MBIT)
    if seconds > most:
        yield Finding(
            expected=f"at most {policy.long_migration_minutes} min", actual=duration(seconds), because=_over(way)
        )


@check(
    severity=Severity.LOW,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.9.1",
    covers=("12.6/progress", "12.9/domjobinfo", "12.9/downtime", "12.9/postcopy", "12.9/suspend", "12.9/bandwidth"),
)
def under_way(
    migration: GuestMigration, guest: GuestIdentity, nics: GuestNics, devices: GuestDevices, policy: Policy
) -> Iterator[Finding]:
    """A migration of the guest that is under way comes to an end.

    Of a migration under way libvirt tells how fast the guest changes its memory and what the network carries.
    `virt-preflight converge` says the same, and more, of what `virsh domjobinfo` prints.
    """
    job = migration.under_way
    if job is None:
        raise NotApplicable("no migration is under way")
    load = Load(job.dirty, job.bandwidth, job.memory_remaining, job.memory_total)
    found = diagnose(
        load, shlex.quote(guest.name), factor=policy.dirty_rate_factor, postcopy=not pci_devices(nics, devices)
    )
    if found.word in {"does not converge", "close"} and not job.postcopy_requests:
        yield Finding(
            expected="a migration that ends",
            actual=f"one that {'does not' if found.word != 'close' else 'hardly does'}: {found.because}",
            remedy="; or ".join(fix.command for fix in found.fixes if fix.command),
        )


# Large guests --------------------------------------------------------------------------------------------------


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.3, §12.9",
    covers=("12.3/large", "12.9/large"),
)
def large_guest(guest: GuestMemory, state: GuestState, policy: Policy) -> Iterator[Finding]:
    """The guest is not larger than what live migration is reliable for.

    A guest with very much memory takes long to copy and dirties pages meanwhile; the migration may never come to an
    end by itself. It needs a fast network, several connections, and somebody who watches it.
    """
    if not state.active:
        raise NotApplicable("the guest does not run")
    if guest.memory_kib > policy.large_guest_kib:
        beyond = guest.memory_kib * 1024 > TESTED
        tested = f" Red Hat has tested up to {size(TESTED)}: this is beyond it." if beyond else ""
        yield Finding(
            expected=f"at most {size(policy.large_guest_kib * 1024)}",
            actual=size(guest.memory_kib * 1024),
            because=f"A network of {policy.large_guest_nic_mbps // 1000} Gbit/s or more and tuning are recommended, "
            f"and the vendor asks to be consulted.{tested}",
            remedy="virsh migrate --live --parallel --parallel-connections "
            f"{channels(policy.large_guest_nic_mbps * _MBIT)} …  # with --postcopy from QEMU 10.1 only; watch it: "
            "virsh domjobinfo GUEST | virt-preflight converge",
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.9.1",
    remedy="Migrate over a faster network: virsh migrate --migrateuri tcp://ADDRESS",
    covers=("12.9/nic-25g",),
)
def large_guest_nic(
    memory: GuestMemory, here: Source[MigrationWays], there: Target[MigrationWays], policy: Policy
) -> Iterator[Finding]:
    """A very large guest travels over NICs that are fast enough.

    Above 1 TiB the guest may change its memory faster than a slow network copies it. Looked at is the way to the name
    that the target gives to the source, which migration takes unless told otherwise.
    """
    if memory.memory_kib <= policy.large_guest_kib:
        raise NotApplicable("not a very large guest")
    way = here.way(there)
    for side, device, host in (("here", way.here, here), ("on the target", way.there, there)):
        mbps = host.speed(device)
        if mbps < policy.large_guest_nic_mbps:
            yield Finding(expected=f"{policy.large_guest_nic_mbps} Mbit/s", actual=f"{mbps} Mbit/s {side} ({device})")


# The network ---------------------------------------------------------------------------------------------------


@check(
    severity=Severity.LOW,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.9.1",
    remedy="A network of its own: migration_host in qemu.conf of the targets, or virsh migrate --migrateuri "
    "tcp://ADDRESS",
    covers=("12.9/nic",),
)
def dedicated_nic(hosts: Cluster[MigrationWays]) -> Told:
    """Migrations have NICs of their own, that no bridge for guests uses.

    A migration takes all the bandwidth that there is: guests on the same NIC feel it, and what they send slows the
    migration.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for source, target in _pairs(hosts):
        for host, device in zip((source, target), source.fact.to(target.fact), strict=True):
            try:
                if device is not None and host.fact.shared(device):
                    found[device].add(host.host)
            except Unavailable as why:
                yield why
    for device, names in sorted(found.items()):
        yield Finding(
            expected="a NIC for migrations alone",
            actual=f"{device} is used by bridges for guests too",
            hosts=frozenset(names),
        )
    for source, target in _pairs(hosts):  # was everything known?
        source.fact.devices(target.fact)


def _pairs(hosts: Cluster[MigrationWays]) -> Iterator[tuple[At[MigrationWays], At[MigrationWays]]]:
    """Every host with every other. A cluster of one has none."""
    if len(hosts) < 2:
        raise NotApplicable("the cluster has one host")
    return ((source, target) for source in hosts for target in hosts if source is not target)


@check(severity=Severity.INFO, stage=Stage.TRANSFER, reference="RHEL 9 §12.6", covers=("12.6/parallel",))
def parallel(hosts: Cluster[MigrationWays]) -> Iterator[Finding]:
    """One connection carries what the network between the hosts can.

    It carries some 10 Gbit/s. More needs several, one for each 10 Gbit/s: multi-FD migration.
    """
    found: defaultdict[int, set[str]] = defaultdict(set)
    unknown = []
    for source, target in _pairs(hosts):
        try:
            found[source.fact.way(target.fact).mbps].update((source.host, target.host))
        except Unavailable as why:
            unknown.append(why)
    for mbps, names in sorted(found.items()):
        if mbps * _MBIT > CHANNEL:
            yield Finding(
                expected="a network of 10 Gbit/s or less, or several connections",
                actual=f"{mbps} Mbit/s",
                remedy=f"virsh migrate --live --parallel --parallel-connections {channels(mbps * _MBIT)} …",
                hosts=frozenset(names),
            )
    if unknown:
        raise unknown[0]
