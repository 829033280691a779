"""What the source met when it tried the network (`--probe-network`): the ways to the target, and a login to it.

The probe tries the target's own addresses from each source; what it proves holds for that source, at that time. One
open way is enough to migrate, as in `firewall`: where the name's way is closed, another address can be given.
"""

import shlex
from collections.abc import Iterator

from audit.check import (
    ANOTHER_ADDRESS,
    STARTED_HERE,
    TUNNELLED,
    Blocks,
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
from audit.facts.firewall import Firewall
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import MTU, PORTS, PathMtu, Peer, Reach
from audit.facts.services import Daemons, Sshd
from audit.facts.ssh_setup import SshClient, SshServer
from audit.facts.ssh_trust import SshTrust, Trust
from checks._login import answered_by_hand
from checks._sockets import addresses_in
from checks._ways import (
    Tried,
    anybody,
    command,
    control_ranges,
    control_tried,
    data_tried,
    from_here,
    migrate_uri,
    needs_ports,
    opening,
    shown,
    speaks_from_source,
    uri,
)


def _fault(firewall: Firewall, own: OwnAddresses, ports: range) -> tuple[str, str]:
    """Where to look, and what opens the ports if it is the target's own rules that may close them."""
    try:
        states = {answer.state for packet in anybody(own) for _, answer in firewall.answers(ports, packet)}
        if states == {"open"}:
            return "The target's own rules let everybody in: look between the hosts, and at the source's rules.", ""
        return "", opening(firewall, ports)
    except Unavailable:
        return "", ""


def _named(peers: PeerAddresses, *names: str | None) -> tuple[str, frozenset[str]]:
    """The first of the names that leads from the source to another host, and where to. `NotApplicable` if none does."""
    for name in filter(None, names):
        try:
            found = frozenset(route.address for route in peers.of(name) if not route.leads_here)
        except Unavailable:
            continue
        if found:
            return name, found
    raise NotApplicable("the target's name leads nowhere, which is judged apart")


def _by_name(
    name: str, addresses: frozenset[str], tried: Tried, option: str, lifted_by: tuple[str, ...]
) -> Iterator[Finding]:
    """A finding if none of the name's addresses is open; another one is."""
    at_name = [one for one in tried.tries if one.address in addresses]
    if any(one in tried.open or (one.use == "migration" and one.state == "refused") for one in at_name):
        return
    unknown = next((one for one in at_name if one.state == "unsaid"), None)
    if unknown or not at_name:
        raise Unavailable(PORTS, f"where {name} leads: {unknown.words if unknown else 'not tried'}")
    yield Finding(
        expected=f"TCP port {at_name[0].port} is open by the name {name}",
        actual=f"closed at {', '.join(dict.fromkeys(one.address for one in at_name))}",
        because=f"It is open at {tried.open[0].address}.",
        remedy=command(option),
        lifted_by=(*lifted_by, ANOTHER_ADDRESS),
        about=option,
    )


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/reachable", "12.6/port-ssh", "12.6/port-tls", "12.6/port-tcp"),
)
def control_port_answers(
    reach: Source[Reach],
    peer: Target[Peer],
    own: Target[OwnAddresses],
    source: Source[OwnAddresses],
    daemons: Target[Daemons],
    sshd: Target[Sshd],
    firewall: Target[Firewall],
    policy: Policy,
) -> Iterator[Finding]:
    """The port of the target's libvirt accepts a connection from the source, at one address at least.

    Port 22 for SSH, 16514 for TLS, 16509 for unencrypted TCP: before anything moves, libvirt there must be asked.
    Tried with `--probe-network`; without it, the target's rules are judged instead.
    """
    speaks_from_source(policy)
    ranges = control_ranges(daemons, sshd, policy)
    tried = control_tried(reach, peer, own, source, ranges)
    if not tried.open:
        because, remedy = _fault(firewall, own, ranges[0])
        expected = f"TCP port {' or '.join(map(shown, ranges))} accepts connections"
        yield Finding(expected, tried.told, because, remedy, lifted_by=from_here(policy))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/port-ssh", "12.6/port-tls", "12.6/port-tcp"),
)
def control_port_answers_by_name(
    reach: Source[Reach],
    peer: Target[Peer],
    own: Target[OwnAddresses],
    source: Source[OwnAddresses],
    daemons: Target[Daemons],
    sshd: Target[Sshd],
    names: Target[OwnNames],
    peers: Source[PeerAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The port of the target's libvirt accepts a connection by the target's name, not by another address only.

    The name is the inventory's, where the source knows that one, else the target's own.
    """
    speaks_from_source(policy)
    tried = control_tried(reach, peer, own, source, control_ranges(daemons, sshd, policy))
    if not tried.open:
        raise NotApplicable("no way is open, which is judged apart")
    name, addresses = _named(peers, peer.name, names.libvirt, names.fqdn, names.hostname)
    yield from _by_name(name, addresses, tried, uri(policy, tried.open[0].address), from_here(policy))


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/reachable", "12.6/ports-migration", "failure 37"),
)
def migration_port_reached(
    reach: Source[Reach],
    peer: Target[Peer],
    firewall: Target[Firewall],
    conf: Target[QemuConf],
    own: Target[OwnAddresses],
    source: Source[OwnAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The highest port of QEMU's migration range on the target can be reached from the source, at one address at least.

    The guest's memory comes by a connection of its own to a port of that range. One port is tried for all, and
    none on which something listens: a stray connection would make a migration that waits there fail. "Refused" means
    that it was reached, if another port that nobody opened is kept off; else only the target's rules can tell.
    """
    needs_ports(policy)
    tried = data_tried(reach, peer, firewall, conf, own, source)
    if not tried.open:
        ports = conf.migration_ports
        because, remedy = _fault(firewall, own, ports)
        expected = f"TCP port {ports[-1]}, of {shown(ports)}, can be reached"
        yield Finding(expected, tried.told, because, remedy, lifted_by=(TUNNELLED,))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.6",
    covers=("12.6/ports-migration", "failure 36", "failure 37"),
)
def migration_port_reached_by_name(
    reach: Source[Reach],
    peer: Target[Peer],
    firewall: Target[Firewall],
    conf: Target[QemuConf],
    own: Target[OwnAddresses],
    source: Source[OwnAddresses],
    names: Target[OwnNames],
    peers: Source[PeerAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """QEMU's port on the target can be reached by the name that libvirt uses, not by another address only.

    Unless told otherwise, libvirt sends the guest to `migration_host` of the target's qemu.conf, or to its own name.
    """
    needs_ports(policy)
    tried = data_tried(reach, peer, firewall, conf, own, source)
    if not tried.open:
        raise NotApplicable("no way is open, which is judged apart")
    if policy.migration_network:
        name, addresses = policy.migration_network, frozenset(addresses_in(policy.migration_network, own))
    else:
        name, addresses = _named(peers, conf.migration_host or names.name_for_migration)
    yield from _by_name(name, addresses, tried, migrate_uri(tried.open[0].address), (TUNNELLED,))


@check(severity=Severity.MEDIUM, stage=Stage.TRANSFER, reference="RFC 2923 §2.1", covers=("failure 35",))
def full_packets_arrive(
    mtu: Source[PathMtu],
    peer: Target[Peer],
    conf: Target[QemuConf],
    names: Target[OwnNames],
    peers: Source[PeerAddresses],
) -> Iterator[Finding]:
    """Packets as large as both hosts' devices allow reach the target, or somebody reports that they do not.

    Hosts set to jumbo frames behind a switch that is not: small packets pass, full ones are lost without a word. A
    connection is made, and stalls. Where a router reports its smaller MTU, TCP sends smaller packets, and all is well.
    """
    paths = mtu.of(peer.name, asked=peer.tries)
    chosen = [path for path in paths if path.address in _addresses(conf, names, peers)] or paths
    for path in chosen:
        if path.swallows:
            size = path.size - (48 if ":" in path.address else 28)
            yield Finding(
                expected=f"a packet of {path.size} bytes gets to {path.address}",
                actual="a small ping is answered, a full one is not, and nobody reports a smaller MTU",
                because=f"Connections by {path.device} stall as soon as they send full packets.",
                remedy=f"ping -M do -c 3 -s {size} {path.address}  # on the source: make the MTU of both and of the "
                "switches the same",
            )
    if not any(path.swallows or path.carries or path.reported for path in chosen):
        silent = ", ".join(path.address for path in chosen if path.answers is False)
        raise Unavailable(MTU, f"no answer to a small ping: {silent}" if silent else "ping could not be sent")


def _addresses(conf: QemuConf, names: OwnNames, peers: PeerAddresses) -> frozenset[str]:
    """Where the guest's data would go; empty: not known, so that all ways count."""
    try:
        return _named(peers, conf.migration_host or names.name_for_migration)[1]
    except (Unavailable, NotApplicable):
        return frozenset()


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.LOG_IN,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("failure 39",),
)
def ssh_trusted(
    trust: Source[SshTrust],
    peer: Target[Peer],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    client: Source[SshClient],
    server: Target[SshServer],
    policy: Policy,
) -> Iterator[Finding]:
    """The source can log in to the target over SSH by itself, and reaches libvirt there.

    `virsh migrate … qemu+ssh://TARGET/system`, typed on the source or with `--p2p`, logs in from there as the same
    user, as a rule root: the target's host key must be known to it, and its own key be accepted. Started from another
    machine that can log in to both, a migration without `--p2p` needs none of this.
    """
    if policy.transport != "ssh":
        raise NotApplicable("the migration does not use qemu+ssh")
    speaks_from_source(policy)
    login = trust.of(peer.name, asked=peer.tries)
    if answered_by_hand(client, server, own, peer, login.outcome):
        raise NotApplicable("ssh asks, where somebody is there to answer, which is judged apart")
    if login.outcome not in {"trusted", "no libvirt"}:
        yield Finding(
            expected=f"{login.user} on the source may log in to {login.name}",
            actual=f"{_OUTCOMES[login.outcome]}: {login.words}",
            because="virsh on the source could not use qemu+ssh; from another machine it can.",
            remedy=_remedy(login),
            lifted_by=(STARTED_HERE,),
        )
    elif login.hostname != names.hostname:
        yield Finding(
            expected=f"{login.name} leads from the source to the target, {names.hostname}",
            actual=f"the host that answers calls itself {login.hostname}",
            because="The guest would be sent to another host.",
            lifted_by=(STARTED_HERE,),
        )
    elif login.outcome == "no libvirt":
        yield Finding(
            expected=f"{login.login} on the target reaches qemu:///system",
            actual=login.words,
            because=f"{login.user} on the source logs in as {login.login}.",
            lifted_by=(STARTED_HERE,),
        )


_OUTCOMES = {
    "unknown key": "the target's host key is not known there",
    "changed key": "the target's host key is another than the one known there",
    "denied": "its key is not accepted",
    "unresolved": "the name is not known there",
    "refused": "nothing listens",
    "silent": "no answer in time",
    "unreachable": "no route",
    "closed": "the connection was closed",
}


def _remedy(login: Trust) -> str:
    name = shlex.quote(login.name)
    match login.outcome:
        case "unknown key" | "changed key":
            forget = f"ssh-keygen -R {name}; " if login.outcome == "changed key" else ""
            return f"{forget}ssh {name} true  # on the source, as {login.user}: compare the fingerprint that it shows"
        case "denied":
            return f"ssh-copy-id {name}  # on the source, as {login.user}"
    return ""
