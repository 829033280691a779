"""Identity: libvirt must be able to tell the hosts apart."""

from collections import defaultdict
from collections.abc import Iterator

from audit.check import Blocks, Cluster, Finding, Severity, check
from audit.facts.identity import HostIdentity

_REMEDY = (
    'Set host_uuid (or host_uuid_source = "machine-id") in /etc/libvirt/virtqemud.conf or libvirtd.conf on each of '
    "them, and restart the daemon."
)


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    reference="libvirt: Attempt to migrate guest to the same host",
    remedy=_REMEDY,
    offline=True,
    covers=("failure 42",),
)
def host_uuids_unique(identities: Cluster[HostIdentity]) -> Iterator[Finding]:
    """Every host of the cluster has a host UUID of its own.

    libvirt knows hosts by their UUID. Cloned servers and boards with a placeholder share one, and libvirt takes a
    migration between them for one from a host to itself.
    """
    hosts = defaultdict(set)
    for identity in identities:
        hosts[identity.fact.uuid].add(identity.host)
    for uuid, sharing in sorted(hosts.items()):
        if len(sharing) > 1:
            yield Finding("one host per UUID", f"{uuid} on {', '.join(sorted(sharing))}", hosts=frozenset(sharing))


@check(severity=Severity.LOW, reference="libvirt host_uuid", remedy=_REMEDY, covers=("failure 42",))
def host_uuid_real(identity: HostIdentity) -> Iterator[Finding]:
    """The host's UUID is not a placeholder from the factory.

    The next board of the same make has the same one, and cannot exchange guests with this host.
    """
    if identity.from_factory:
        yield Finding("a UUID of its own", identity.uuid)
