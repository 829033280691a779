"""What the checks of firewalls' rules and those of attempts to connect share: ports, words, and who of the two decides.

An attempt says more than rules: it has met whatever stands in between, and rules that nobody understands. So where one
has told, the rules are not judged; where it told nothing, they are. It told of one source, at that time.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audit.check import STARTED_HERE, NotApplicable, Policy, Unavailable
from audit.facts.firewall import NFT, Firewall
from audit.facts.names import OwnAddresses
from audit.facts.netfilter import Family, Packet
from audit.facts.qemu_conf import ConfInForce, QemuConf
from audit.facts.reach import PORTS, Peer, Reach, Try
from audit.facts.services import Daemons, Sshd, control_ports

TRIED = "it was tried from the source, which says more than the rules"
_FAMILIES: tuple[Family, ...] = (4, 6)


def anybody(target: OwnAddresses) -> list[Packet]:
    """A connection from an unknown source, for each IP version that the target has an address of."""
    return [Packet(family, 0) for family in _FAMILIES if {family} <= target.families]


def control_ranges(daemons: Daemons, sshd: Sshd, policy: Policy) -> list[range]:
    """The ports by which the target's libvirt can be reached; several where the SSH server has several."""
    return [range(port, port + 1) for port in control_ports(policy.transport, daemons, sshd)]


def shown(ports: range) -> str:
    """`22`, `49152-49215`."""
    return str(ports.start) if len(ports) == 1 else f"{ports.start}-{ports.stop - 1}"


def url(scheme: str, address: str) -> str:
    """An address in a command."""
    return shlex.quote(f"{scheme}://[{address}]" if ":" in address else f"{scheme}://{address}")


def uri(policy: Policy, address: str) -> str:
    """How virsh is told that address of the target, as it is pasted."""
    return f"{url(f'qemu+{policy.transport}', address)}/system"


def migrate_uri(address: str) -> str:
    """The option that sends a guest to that address."""
    return f"--migrateuri {url('tcp', address)}"


def command(option: str) -> str:
    """The command with that option, or with that URI of the target."""
    return f"virsh migrate {option} …" if option.startswith("--") else f"virsh migrate … {option}"


def speaks_from_source(policy: Policy) -> None:
    """Raise `NotApplicable` where virsh does not run on the source, and so does not connect from there."""
    if policy.started_on == "here" and not policy.tunnelled:
        raise NotApplicable("virsh is started here (policy.started_on), and needs no way from the source to libvirt")


def from_here(policy: Policy) -> tuple[str, ...]:
    """The other way where the source does not get through to the target's libvirt: this machine has, over SSH."""
    return (STARTED_HERE,) if policy.transport == "ssh" else ()


def needs_ports(policy: Policy) -> None:
    """Raise `NotApplicable` where guests do not come to ports of QEMU's."""
    if policy.tunnelled:
        raise NotApplicable("guests come through libvirt's own connection (policy.tunnelled)")


def in_force(conf: QemuConf, age: ConfInForce) -> QemuConf:
    """What qemu.conf says of the way that guests come. `Unavailable` if it may not hold yet."""
    if conf.own_way:
        age.settled()
    return conf


def opening(firewall: Firewall, ports: range) -> str:
    """What opens the ports, in the language of whoever keeps the rules."""
    match firewall.keeper:
        case "firewalld":
            return f"firewall-cmd --permanent --add-port={shown(ports)}/tcp && firewall-cmd --reload"
        case "ufw":
            return f"ufw allow {shown(ports).replace('-', ':')}/tcp"
        case "iptables":
            return f"iptables -I INPUT -p tcp --dport {shown(ports).replace('-', ':')} -j ACCEPT"
        case "nftables" if (chain := firewall.input_chain) is not None:
            return f"nft insert rule {chain} tcp dport {shown(ports)} accept"
    return ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What the attempts from one source prove: some ways are open, or none is."""

    tries: tuple[Try, ...]
    open: tuple[Try, ...]

    @property
    def told(self) -> str:
        """What came of each address, the same answers taken together."""
        found: dict[str, list[str]] = {}
        for one in self.tries:
            found.setdefault(_ANSWERS[one.state], []).append(one.address)
        return "; ".join(f"{', '.join(dict.fromkeys(addresses))}: {answer}" for answer, addresses in found.items())


_ANSWERS = {
    "open": "open",
    "refused": "refused",
    "silent": "no answer in time, as of a firewall that drops",
    "unreachable": "no route to host, which is what a firewall says that rejects, or nobody has that address",
    "prohibited": "rejected by a firewall",
    "unrouted": "the source has no route there",
    "unsaid": "not known",
}


def everywhere(conf: QemuConf) -> bool:
    """The target listens for guests on all its addresses."""
    return conf.migration_address in {None, "0.0.0.0", "::"}  # noqa: S104  # a comparison, nothing is bound


def control_tried(reach: Reach, peer: Peer, own: OwnAddresses, source: OwnAddresses, ports: Sequence[range]) -> Tried:
    """The attempts at the target's libvirt. One that is accepted is enough.

    Raises `NotApplicable` if there was none, `Unavailable` (`NotAsked`) if not enough is known of them.
    """
    tries = tuple(one for one in reach.of(peer.name, "control") if any(one.port in range_ for range_ in ports))
    if not tries:
        raise NotApplicable("not tried: nothing on the target listens there, which is judged apart")
    opened = tuple(one for one in tries if one.state == "open")
    if not opened:
        _all_known(tries, _ways(own, source))
    return Tried(tries, opened)


def data_tried(
    reach: Reach, peer: Peer, firewall: Firewall, conf: QemuConf, own: OwnAddresses, source: OwnAddresses
) -> Tried:
    """The attempts at the highest port of QEMU's range, for all of which it stands. The same errors.

    Nothing listens there, so that "refused" is the best answer: the target's own, if a port that nobody opened is kept
    off.
    """
    tries = reach.of(peer.name, "migration")
    ways = _ways(own, source)
    if not everywhere(conf):
        tries = tuple(one for one in tries if one.address == conf.migration_address)
        ways = [address for address in ways if address == conf.migration_address]
    if not tries:
        raise NotApplicable("not tried: something listens too near to it, or what listens on the target is not known")
    alike = _alike(firewall, conf, own)
    if alike is False:
        raise NotApplicable("the target's rules part the range, for which one port does not stand then")
    kept_off = {one.address for one in reach.of(peer.name, "compare") if one.kept_off}
    opened = tuple(o for o in tries if o.state == "open" or (o.state == "refused" and o.address in kept_off))
    if not opened:
        if any(one.state == "refused" for one in tries):
            raise NotApplicable(
                "refused, as a port that nobody opened is: by the target or a firewall, only rules tell"
            )
        _all_known(tries, ways)
        if alike is None:
            raise Unavailable(
                NFT, f"port {conf.migration_port_max} is kept off; whether the lower ones are, rules tell"
            )
    return Tried(tries, opened)


def settled(tried: Callable[[], Tried]) -> bool:
    """The attempts tell one way or the other."""
    try:
        tried()
    except (NotApplicable, Unavailable):
        return False
    return True


def _ways(own: OwnAddresses, source: OwnAddresses) -> list[str]:
    """The target's addresses, without those that the source has too."""
    return [address.ip for address in own.reachable if not source.interface_of(address.ip)]


def _all_known(tries: Sequence[Try], ways: Sequence[str]) -> None:
    if unsaid := next((one for one in tries if one.state == "unsaid"), None):
        raise Unavailable(PORTS, f"{unsaid.address} port {unsaid.port}: {unsaid.words}")
    if left := sorted(set(ways) - {one.address for one in tries}):
        raise Unavailable(PORTS, f"none that was tried is open, and these were not tried: {', '.join(left)}")


def _alike(firewall: Firewall, conf: QemuConf, own: OwnAddresses) -> bool | None:
    """The target's rules treat all ports of the range alike. None: they could not be read."""
    try:
        return all(len(firewall.answers(conf.migration_ports, packet)) == 1 for packet in anybody(own))
    except Unavailable:
        return None
