"""Names: will the source find the target by the name that the target's libvirt gives it?"""

import shlex
from collections import defaultdict
from collections.abc import Iterator

from audit.check import Cluster, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, is_address, same_address
from audit.facts.qemu_conf import QemuConf


def _by_address(target: OwnAddresses) -> str:
    """The option that makes names needless."""
    address = next((own.ip for own in target.reachable), "ADDRESS")
    return f"virsh migrate --migrateuri {shlex.quote(f'tcp://[{address}]' if ':' in address else f'tcp://{address}')} …"


@check(
    severity=Severity.HIGH,
    stage=Stage.TRANSFER,
    reference="libvirt qemuMigrationDstPrepareDirect",
    covers=("12.6/reachable", "failure 36"),
)
def target_resolvable(
    names: Target[OwnNames], conf: Target[QemuConf], own: Target[OwnAddresses], peers: Source[PeerAddresses]
) -> Iterator[Finding]:
    """The name that the target gives for the migration resolves on the source, to the target.

    Unless told otherwise by `--migrateuri`, libvirt on the target answers "send the guest to tcp:NAME", with
    `migration_host` of its qemu.conf or else its own host name; one that starts with "localhost" it refuses. QEMU on
    the source connects to that name: unresolvable, or an address of the loopback (Debian's 127.0.1.1), it cannot
    arrive. Hosts that are always migrated between by address work all the same, with the option in the remedy.
    """
    name = conf.migration_host or names.name_for_migration
    remedy = _by_address(own)
    if name.startswith("localhost"):
        yield Finding(
            expected="the target has a host name that others can use",
            actual=f"it calls itself {name}",
            because="libvirt refuses: hostname on destination resolved to localhost, but migration requires an FQDN.",
            remedy=remedy,
        )
        return
    routes = peers.of(name)
    if not routes:
        yield Finding(
            expected=f"{name} resolves on the source",
            actual="it does not",
            because="The source's QEMU would be told to connect to a name that it cannot resolve.",
            remedy=remedy,
        )
    elif all(route.leads_here for route in routes):
        yield Finding(
            expected=f"{name} leads from the source to the target",
            actual=f"it leads back to the source: {', '.join(route.address for route in routes)}",
            because="The source's QEMU would connect to its own host.",
            remedy=remedy,
        )
    elif not any(own.interface_of(route.address) for route in routes):
        yield Finding(
            expected=f"{name} resolves to an address of the target",
            actual=f"on the source it resolves to {', '.join(route.address for route in routes)}",
            because="The target has none of these addresses: a stale entry, or a translated address.",
            remedy=remedy,
        )


@check(
    severity=Severity.HIGH,
    stage=Stage.TRANSFER,
    reference="libvirt qemu.conf: migration_address",
    covers=("failure 37",),
)
def migration_address_reached(
    names: Target[OwnNames], conf: Target[QemuConf], peers: Source[PeerAddresses]
) -> Iterator[Finding]:
    """The source connects to the address that the target listens on for migrations.

    `migration_address` in qemu.conf makes QEMU on the target listen on one address only (a migration network, as a
    rule); a source that is given another one is refused.
    """
    address = conf.migration_address
    if address is None or address in {"0.0.0.0", "::"}:  # noqa: S104  # a comparison, nothing is bound
        raise NotApplicable("the target listens on all its addresses")
    if not is_address(address):
        raise Unavailable(QemuConf.probes[0], f"what migration_address = {address!r} resolves to there")
    name = conf.migration_host or names.name_for_migration
    found = [route.address for route in peers.of(name)]
    if found and not any(same_address(address, one) for one in found):
        shown = f"tcp://[{address}]" if ":" in address else f"tcp://{address}"
        yield Finding(
            expected=f"{name} resolves on the source to {address}",
            actual=f"it resolves to {', '.join(found)}",
            because=f"The target listens for migrations on {address} only.",
            remedy=f"virsh migrate --migrateuri {shlex.quote(shown)} …",
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
