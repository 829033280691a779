"""What a guest is called, what is being done to it, and what keeps it where it is apart from its devices."""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Cluster, Finding, Severity, Stage, Target, Told, check
from audit.facts.guest import GuestIdentity, GuestSnapshots, GuestState, HostGuestNames
from audit.facts.guest_devices import GuestNics
from audit.facts.guest_jobs import GuestBlockJobs, GuestJob
from audit.facts.macs import MacsInUse, Plugged, place_of


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed",
    offline=True,
    covers=("failure 56",),
)
def no_snapshots(snapshots: GuestSnapshots, guest: GuestIdentity) -> Iterator[Finding]:
    """The guest has no snapshots.

    libvirt does not carry snapshot metadata to another host and refuses to move a guest that has any, even shut off.
    """
    if snapshots.snapshots:
        yield Finding(
            expected="no snapshots",
            actual="it has some",
            because=f"cannot migrate domain with {snapshots.snapshots} snapshots",
            remedy=f"virsh snapshot-list {shlex.quote(guest.name)}; "
            f"virsh snapshot-delete {shlex.quote(guest.name)} --current  # repeat, or add --metadata to keep the data",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuMigrationSrcIsAllowed",
    covers=("failure 57",),
)
def no_block_job(jobs: GuestBlockJobs, guest: GuestIdentity) -> Iterator[Finding]:
    """No copy, commit or backup of the guest's disks is running.

    Its state cannot be handed to the target's QEMU. libvirt refuses until the job has ended.
    """
    for disk, words in jobs.jobs:
        name, target = shlex.quote(guest.name), shlex.quote(disk)
        yield Finding(
            expected="no block job",
            actual=f"{disk}: {words}",
            because="domain has active block job",
            remedy=f"virsh blockjob {name} {target} --info  # wait for it, or end it with --abort",
        )
    jobs.complete()


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuDomainObjBeginAsyncJob",
    covers=("12.6/paused", "failure 57"),
)
def no_job(job: GuestJob, guest: GuestIdentity) -> Iterator[Finding]:
    """No backup, migration, save or dump of the guest is under way.

    A guest can have one such job at a time; a migration has to wait for it.
    """
    if job.job != "none":
        yield Finding(
            expected="no job",
            actual=job.job,
            because="libvirt runs one job of a guest at a time",
            remedy=f"virsh domjobinfo {shlex.quote(guest.name)}",
        )


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="virsh(1) migrate --persistent",
    remedy="virsh dumpxml GUEST > guest.xml; or migrate with --persistent",
    covers=("12.1/transient",),
)
def persistent(state: GuestState) -> Iterator[Finding]:
    """The guest is defined on its host, not only running there.

    A transient guest's configuration is gone when it stops. Migration keeps it transient unless told otherwise.
    """
    if not state.persistent:
        yield Finding("a persistent guest", "transient")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virDomainObjListAdd",
    offline=True,
    covers=("12.1/transient",),
)
def name_free(guest: GuestIdentity, there: Target[HostGuestNames]) -> Iterator[Finding]:
    """Neither the guest's name nor its UUID is taken on the target.

    The same guest may be defined there, shut off, as an earlier migration leaves it.
    """
    for other in there.clashing(guest.name, guest.uuid):
        if other.active:
            because = f"domain '{other.name}' is already active"
        elif other.name != guest.name:
            because = f"domain '{other.name}' is already defined with uuid {other.uuid}"
        elif other.uuid != guest.uuid:
            because = f"domain '{other.name}' already exists with uuid {other.uuid}"
        else:
            continue
        yield Finding(
            expected=f"no other guest called {guest.name} or with UUID {guest.uuid}",
            actual=f"{other.name}, {other.uuid}, {'running' if other.active else 'shut off'}",
            because=because,
            remedy=f"On the target: virsh dominfo {shlex.quote(other.uuid)}; undefine it if it is a leftover",
        )
    if guest.uuid in there.unread or not any(other.uuid == guest.uuid for other in there.guests):
        there.complete()


@check(severity=Severity.LOW, reference="libvirt 11.3 virDomainObjListAdd", remedy="virsh domrename GUEST NEW-NAME")
def names_unique(hosts: Cluster[HostGuestNames]) -> Iterator[Finding]:
    """No two guests of the cluster have the same name.

    They can never be on one host. The same guest defined on several hosts is not meant.
    """
    homes: dict[str, dict[str, set[str]]] = {}
    for at in hosts:
        for guest in at.fact.guests:
            homes.setdefault(guest.name, {}).setdefault(guest.uuid, set()).add(at.host)
    for name, by_uuid in sorted(homes.items()):
        if len(by_uuid) > 1:
            places = sorted(host for found in by_uuid.values() for host in found)
            yield Finding(
                expected="one guest of that name",
                actual=f"{len(by_uuid)} guests called {name}, on {', '.join(places)}",
                hosts=frozenset(places),
            )


@check(
    severity=Severity.LOW,
    reference="libvirt 11.3 virDomainObjListAdd",
    remedy="Define the copy again with a UUID of its own",
)
def uuids_unique(hosts: Cluster[HostGuestNames]) -> Iterator[Finding]:
    """No two guests of the cluster have the same UUID.

    A cloned configuration whose UUID was kept cannot share a host with the original.
    """
    homes: dict[str, dict[str, set[str]]] = {}
    for at in hosts:
        for guest in at.fact.guests:
            homes.setdefault(guest.uuid, {}).setdefault(guest.name, set()).add(at.host)
    for uuid, by_name in sorted(homes.items()):
        if len(by_name) > 1:
            places = sorted(host for found in by_name.values() for host in found)
            yield Finding(
                expected="one guest of that UUID",
                actual=f"{', '.join(sorted(by_name))} share {uuid}, on {', '.join(places)}",
                hosts=frozenset(places),
            )


_NEW_MAC = "Give the copy another: virsh edit, drop its <mac>, and start it anew; or run the two on separate networks"


def _same_network(one: Plugged, other: Plugged, *, same_host: bool) -> bool:
    """Two NICs of one MAC address hear each other. Bridges that lead nowhere are each host's own."""
    if one.vlans != other.vlans:
        return False
    if one.wire and other.wire:
        return one.where == other.where or "" in {one.where, other.where}
    return same_host and one.where == other.where


@check(severity=Severity.LOW, reference="RHEL 9 §12.8; IEEE 802", remedy=_NEW_MAC, covers=("12.8/mac",))
def macs_unique(hosts: Cluster[MacsInUse]) -> Told:
    """No two running guests of the cluster have the same MAC address on one network, nor one of a host's own.

    A copy that kept the address takes the other's traffic, now and then. On bridges of the same name it is seen if
    they lead out of their hosts; copies on networks of their own do not disturb each other.
    """
    by_mac: dict[str, list[tuple[str, Plugged]]] = {}
    for at in hosts:
        for nic in at.fact.nics:
            by_mac.setdefault(nic.mac, []).append((at.host, nic))
        for nic_host, nic in ((other.host, nic) for other in hosts for nic in other.fact.nics):
            if nic.wire and nic.mac in at.fact.own:
                yield Finding(
                    expected="a MAC address of its own",
                    actual=f"{nic.name} on {nic_host} has {nic.mac}, which is {at.host}'s own",
                    hosts=frozenset({nic_host, at.host}),
                )
    for mac, places in sorted(by_mac.items()):
        clashing = [
            (here, one, there, other)
            for n, (here, one) in enumerate(places)
            for there, other in places[n + 1 :]
            if one.guest != other.guest and _same_network(one, other, same_host=here == there)
        ]
        for here, one, there, other in clashing:
            yield Finding(
                expected="one running guest of that MAC address",
                actual=f"{mac}: {one.name} on {here}, {other.name} on {there}, "
                + (f"both on {one.where}" if one.where == other.where and one.where else "both on the wire"),
                hosts=frozenset({here, there}),
            )
    for at in hosts:
        if at.fact.unread:
            yield at.fact.missing()


@check(severity=Severity.MEDIUM, stage=Stage.AFTER, reference="RHEL 9 §12.8", remedy=_NEW_MAC, covers=("12.8/mac",))
def mac_free(nics: GuestNics, guest: GuestIdentity, there: Target[MacsInUse]) -> Told:
    """No guest that runs on the target has the guest's MAC address on the network that the guest comes to.

    Copies of one guest do not disturb each other on hosts and networks of their own; brought together, they do.
    """
    own = [(nic, nic.mac.lower(), place_of(nic)) for nic in dict.fromkeys(nics.nics) if nic.mac]
    for nic, mac, where in own:
        for other in there.nics if mac in there.macs else ():
            if other.mac != mac or other.guest == guest.uuid or other.vlans != nic.vlans:
                continue
            same_network = nic.network is not None and nic.network == other.network
            on_wire = where is not None and other.wire and "" in {where, other.where}
            if same_network or on_wire or (where is not None and where == other.where):
                yield Finding(
                    expected=f"no other guest with {mac}",
                    actual=f"{other.name} runs there with it",
                    because=f"both are on {nic.network or where or other.where or 'the wire'}",
                )
    if own and there.unread:
        yield there.missing()


@check(
    severity=Severity.HIGH,
    reference="virsh(1) migrate: libvirt does not look for the guest elsewhere",
    remedy="Find out at once which of them is the real one, and stop the other",
)
def running_once(hosts: Cluster[HostGuestNames]) -> Iterator[Finding]:
    """No guest runs on two hosts at once.

    Two running copies write to the same disks and destroy them.
    """
    running: dict[str, list[tuple[str, str]]] = {}
    for at in hosts:
        for guest in at.fact.guests:
            if guest.active:
                running.setdefault(guest.uuid, []).append((at.host, guest.name))
    for uuid, places in sorted(running.items()):
        if len({host for host, _ in places}) > 1:
            yield Finding(
                expected="one running guest of that UUID",
                actual=f"{places[0][1]} ({uuid}) runs on {', '.join(sorted(host for host, _ in places))}",
                because="unless it is being migrated at this very moment",
            )
