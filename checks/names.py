"""Names: will the source find the target by the name in the URI, and by the one that the target's libvirt gives it?"""

from collections import defaultdict
from collections.abc import Iterator

from audit.check import (
    ANOTHER_ADDRESS,
    TUNNELLED,
    Blocks,
    Cluster,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Stage,
    Target,
    Unavailable,
    check,
)
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, is_address, same_address
from audit.facts.qemu_conf import QEMU_CONF, ConfInForce, QemuConf
from audit.facts.reach import Peer
from checks._names import astray, name_that_leads
from checks._sockets import addresses_in
from checks._ways import everywhere, in_force, migrate_uri, needs_ports, speaks_from_source, uri


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
    reference="libvirt: connection URIs",
    offline=True,
    covers=("12.6/reachable", "failure 36"),
)
def target_known(
    peer: Target[Peer], names: Target[OwnNames], own: Target[OwnAddresses], peers: Source[PeerAddresses], policy: Policy
) -> Iterator[Finding]:
    """The inventory's name of the target leads from the source to the target, for qemu+tls and qemu+tcp.

    It stands in the URI of every command that this report shows. Over SSH the source's own configuration may say more
    about a name; see `ssh.target_known`.
    """
    speaks_from_source(policy)
    if policy.transport == "ssh":
        raise NotApplicable("over SSH, ssh's own configuration is asked")
    actual, because = astray(peer.name, peers.of(peer.name), own)
    if actual:
        other = name_that_leads(names, own, peers)
        yield Finding(
            expected=f"{peer.name} resolves on the source, to the target",
            actual=actual,
            because=because,
            remedy=f"virsh migrate … {uri(policy, other)}" if other else "Make the name known in DNS or /etc/hosts",
            lifted_by=(ANOTHER_ADDRESS,) if other else (),
            about=uri(policy, other) if other else "",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="libvirt qemuMigrationDstPrepareDirect",
    covers=("12.6/reachable", "failure 36"),
)
def target_resolvable(
    names: Target[OwnNames],
    conf: Target[QemuConf],
    age: Target[ConfInForce],
    own: Target[OwnAddresses],
    peers: Source[PeerAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The name that the target gives for the migration resolves on the source, to the target.

    Unless told otherwise by `--migrateuri`, libvirt on the target answers "send the guest to tcp:NAME", with
    `migration_host` of its qemu.conf or else its own host name; one that starts with "localhost" it refuses. The
    source connects to that name: unresolvable, or an address of the loopback (Debian's 127.0.1.1), it cannot arrive.
    Where guests are always sent to an address, say so: `migration_network` in the inventory's policy.
    """
    needs_ports(policy)
    in_force(conf, age)
    if policy.migration_network:
        raise NotApplicable("guests are sent to an address (policy.migration_network)")
    name = conf.migration_host or names.name_for_migration
    if name.startswith("localhost"):
        actual, because = (
            f"it calls itself {name}",
            "hostname on destination resolved to localhost, but migration requires an FQDN",
        )
    else:
        actual, because = astray(name, peers.of(name), own)
    if actual:
        address = next((its.ip for its in own.reachable), "")
        yield Finding(
            expected="the target has a host name that others can use"
            if name.startswith("localhost")
            else f"{name} resolves on the source, to the target",
            actual=actual,
            because=because,
            remedy=f"virsh migrate {migrate_uri(address or 'ADDRESS')} …",
            lifted_by=(ANOTHER_ADDRESS, TUNNELLED) if address else (TUNNELLED,),
            about=migrate_uri(address) if address else "",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="libvirt qemu.conf: migration_address",
    covers=("failure 37",),
)
def migration_address_reached(
    names: Target[OwnNames],
    conf: Target[QemuConf],
    age: Target[ConfInForce],
    own: Target[OwnAddresses],
    peers: Source[PeerAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The source connects to the address that the target listens on for migrations.

    `migration_address` in qemu.conf makes QEMU on the target listen on one address only (a migration network, as a
    rule); a source that is given another one is refused.
    """
    needs_ports(policy)
    in_force(conf, age)
    address = conf.migration_address
    if address is None or everywhere(conf):
        raise NotApplicable("the target listens on all its addresses")
    if not is_address(address):
        raise Unavailable(QEMU_CONF, f"what migration_address = {address!r} resolves to there")
    if not own.interface_of(address):
        raise NotApplicable("the target has no such address, which is judged apart")
    name = policy.migration_network or conf.migration_host or names.name_for_migration
    found = addresses_in(name, own) if policy.migration_network else [route.address for route in peers.of(name)]
    if found and not any(same_address(address, one) for one in found):
        yield Finding(
            expected=f"{name} resolves on the source to {address}",
            actual=f"it resolves to {', '.join(found)}",
            because=f"The target listens for migrations on {address} only.",
            remedy=f"virsh migrate {migrate_uri(address)} …",
            lifted_by=(ANOTHER_ADDRESS, TUNNELLED),
            about=migrate_uri(address),
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt qemu.conf: migration_address",
    remedy="Correct migration_address in the target's /etc/libvirt/qemu.conf, and restart libvirt's daemon",
    covers=("failure 37",),
)
def listens_where_it_can(
    conf: Target[QemuConf], age: Target[ConfInForce], own: Target[OwnAddresses], policy: Policy
) -> Iterator[Finding]:
    """The target has the address on which its qemu.conf lets it listen for guests, and one in the policy's network.

    QEMU there binds to `migration_address`, and an address that the host does not have cannot be bound.
    """
    needs_ports(policy)
    in_force(conf, age)
    address = conf.migration_address
    if policy.migration_network and not addresses_in(policy.migration_network, own):
        yield Finding(
            expected=f"an address in {policy.migration_network} (policy.migration_network)",
            actual=", ".join(its.ip for its in own.reachable),
            lifted_by=(TUNNELLED,),
        )
    if address is None or everywhere(conf):
        return
    if not is_address(address):
        raise Unavailable(QEMU_CONF, f"what migration_address = {address!r} resolves to there")
    if not own.interface_of(address):
        yield Finding(
            expected=f"{address} is an address of the target",
            actual=", ".join(its.ip for its in own.reachable),
            because="Failed to bind socket: Cannot assign requested address",
            lifted_by=(TUNNELLED,),
        )


@check(severity=Severity.MEDIUM, stage=Stage.CONNECT, reference="RHEL 9 §12.6")
def unique(hosts: Cluster[OwnNames]) -> Iterator[Finding]:
    """No two hosts of the cluster call themselves by the same name.

    A name that two hosts bear leads to one of them at most: guests meant for the other go astray or fail.
    """
    bearers: defaultdict[str, set[str]] = defaultdict(set)
    for host in hosts:
        bearers[host.fact.libvirt or host.fact.hostname].add(host.host)
    for name, of in sorted(bearers.items()):
        if len(of) > 1 and not name.startswith("localhost"):
            yield Finding(
                expected="one host of each name",
                actual=f"{len(of)} hosts call themselves {name}",
                remedy="hostnamectl set-hostname NAME",
                hosts=frozenset(of),
            )
