"""Names: what the host calls itself, its addresses, and what its peers' names resolve to here.

Without `--migrateuri` libvirt on the target answers "connect to tcp:NAME:PORT", where NAME is `migration_host`
of its qemu.conf or else its own host name (what `virsh hostname` prints; a name that starts with `localhost` is
refused). The *source* then resolves NAME and connects: it must lead to the target, not back to the source.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Evidence, Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.network import ADDRESSES, Address, read_addresses
from audit.facts.qemu_conf import QemuConf
from audit.facts.tls import TlsCertificates
from audit.text import visible

HOSTNAME = Probe("names.hostname", "uname -n")
FQDN = Probe("names.fqdn", "hostname -f", seconds=30)
LIBVIRT_NAME = Probe("names.libvirt", "virsh -r -c qemu:///system hostname", seconds=40)
OWN_RESOLUTION = Probe("names.self", 'getent ahosts "$(uname -n)"', seconds=30)

# RFC 1123 names, with the underscore that people use all the same, and numeric addresses.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._:%-]{0,252}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class OwnNames(HostFact):
    """What the host calls itself."""

    probes: ClassVar[tuple[Probe, ...]] = (HOSTNAME, LIBVIRT_NAME, FQDN, OWN_RESOLUTION)
    hostname: str
    libvirt: str | None
    """What libvirt tells a source to connect to; None: it could not be asked, see `name_for_migration`."""
    fqdn: str | None
    """None: its own name resolves to no full name, or it could not be asked."""
    resolves_to: tuple[str, ...] | None
    """Addresses of its own name on itself; empty: not resolvable; None: not known."""

    @property
    def name_for_migration(self) -> str:
        """The name libvirt gives to a source that has no `--migrateuri`, unless qemu.conf says otherwise."""
        if self.libvirt is not None:
            return self.libvirt
        # libvirt takes these as they are; a short name it would complete by its own resolver.
        if "." in self.hostname or self.hostname.startswith("localhost"):
            return self.hostname
        raise Unavailable(LIBVIRT_NAME, "libvirt did not tell the host name that it uses")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The kernel's name; the others as far as they can be had."""
        hostname = _name(said.text(HOSTNAME))
        return cls(hostname, _said_name(said, LIBVIRT_NAME), _said_name(said, FQDN), _own_addresses(said))


def is_name(text: str) -> bool:
    """It is a name or an address that may be asked about."""
    return _NAME.fullmatch(text) is not None


def _name(text: str) -> str:
    name = text.strip()
    if not is_name(name):
        raise ValueError(f"not a host name: {visible(name, 80)}")
    return name


def _said_name(said: Said, probe: Probe) -> str | None:
    try:
        return _name(said.text(probe))
    except (Unavailable, ValueError):
        return None


def _own_addresses(said: Said) -> tuple[str, ...] | None:
    try:
        if said.evidence(OWN_RESOLUTION).status == 2:  # getent: not found
            return ()
        lines = said.lines(OWN_RESOLUTION)
        return tuple(dict.fromkeys(_address(line.split()[0]) for line in lines)) or None
    except (Unavailable, ValueError):
        return None


def _address(text: str) -> str:
    """`text`, which must be an IP address (perhaps with a zone)."""
    ipaddress.ip_address(text)
    return text


def is_loopback(address: str) -> bool:
    """It never leaves the host."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback or ip.is_unspecified


def is_address(text: str) -> bool:
    """It is an IP address, and no name."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def same_address(one: str, other: str) -> bool:
    """The same address, however it is written."""
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


@dataclass(frozen=True, slots=True)
class OwnAddresses(HostFact):
    """The addresses of the host's interfaces, loopback left out."""

    probes: ClassVar[tuple[Probe, ...]] = (ADDRESSES,)
    addresses: tuple[Address, ...]

    def interface_of(self, ip: str) -> str | None:
        """The interface that carries this address; None: not one of ours."""
        wanted = ipaddress.ip_address(ip)
        return next((own.interface for own in self.addresses if ipaddress.ip_address(own.ip) == wanted), None)

    @property
    def reachable(self) -> tuple[Address, ...]:
        """Those by which other hosts may reach this one: not link-local, not on networks of its own guests."""
        inner = re.compile(r"virbr|docker|br-[0-9a-f]{12}$|podman|cni|veth|vnet")
        return tuple(
            own
            for own in self.addresses
            if not inner.match(own.interface) and not ipaddress.ip_address(own.ip).is_link_local
        )

    @property
    def families(self) -> frozenset[int]:
        """4 and 6, as far as there is an address that others may reach."""
        return frozenset(ipaddress.ip_address(own.ip).version for own in self.reachable)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the interfaces' addresses."""
        addresses = [own for own in read_addresses(said) if not is_loopback(own.ip)]
        if not addresses:
            raise Unavailable(ADDRESSES, "no address but loopback")
        return cls(tuple(sorted(addresses)))


def _ask_peers(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Every name under which a peer may have to be reached: the inventory's, its own, its qemu.conf's, its TLS ones."""
    names = dict.fromkeys(peer for peer in peers if peer != host)
    for _, own in facts.each([peer for peer in peers if peer != host], OwnNames):
        names.update(dict.fromkeys(name for name in (own.libvirt, own.hostname, own.fqdn) if name))
    for _, conf in facts.each([peer for peer in peers if peer != host], QemuConf):
        if conf.migration_host:
            names[conf.migration_host] = None
    for _, tls in facts.each([peer for peer in peers if peer != host], TlsCertificates):
        names.update(dict.fromkeys(name for file in tls.files if file.role == "server" for name in file.host_names))
    return [(name,) for name in names if is_name(name)]


# For each name, in the order asked: one line "= STATUS", then "ADDRESS DEVICE SOURCE-ADDRESS" for each address.
PEERS = Question(
    "names.peers",
    """
xargs -0 sh -c '
for name do
    found=$(timeout 10 getent ahosts -- "$name" 2>/dev/null); echo "= $?"
    printf "%s\\n" "$found" | awk "NF && !seen[\\$1]++ { print \\$1 }" | head -n 8 | while read -r address; do
        route=$(ip -o route get "$address" 2>/dev/null)
        device=$(printf "%s\\n" "$route" | sed -n "s/.* dev \\([^ ]*\\).*/\\1/p")
        source=$(printf "%s\\n" "$route" | sed -n "s/.* src \\([^ ]*\\).*/\\1/p")
        echo "$address ${device:--} ${source:--}"
    done
done' names
""",
    seconds=240,
    ask=_ask_peers,
    maximum=1000,
    hand="getent ahosts PEER",
)


class Route(NamedTuple):
    """An address that a name resolves to, and how this host would reach it."""

    address: str
    device: str | None
    """None: no route."""
    source: str | None
    """The address that connections to it come from."""

    @property
    def leads_here(self) -> bool:
        """It is this host itself."""
        return self.device == "lo" or is_loopback(self.address)


@dataclass(frozen=True, slots=True)
class PeerAddresses(HostFact):
    """What the names of other hosts resolve to on this one, in the order in which they would be tried."""

    probes: ClassVar[tuple[Probe, ...]] = (PEERS,)
    answers: tuple[tuple[str, tuple[Route, ...] | None], ...]
    """None: the resolver gave no answer that could be relied on."""

    def of(self, name: str) -> tuple[Route, ...]:
        """The routes to `name`; empty: it does not resolve here. `Unavailable` if not asked or not answered."""
        for asked, routes in self.answers:
            if asked == name:
                if routes is None:
                    raise Unavailable(PEERS, f"no answer about {visible(name, 80)}")
                return routes
        raise Unavailable(PEERS, f"not asked about {visible(name, 80)}")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Answers come in the order of the questions."""
        return cls(read_routes(said, PEERS))


def read_routes(said: Said, probe: Probe) -> tuple[tuple[str, tuple[Route, ...] | None], ...]:
    """What names resolve to, from what PEERS' command printed about them; None: not to be relied on."""
    output = said.evidence(probe)
    if not output.arguments:
        return ()
    answers: list[list[Route] | None] = []
    for line in said.lines(probe):
        mark, *rest = line.split()
        if mark == "=":
            status = int(rest[0])
            answers.append([] if status in {0, 2} else None)  # 2: getent found no such name
        else:
            device, source = rest
            last = answers[-1]
            if last is not None:
                last.append(_route(mark, device, source))
    return _by_name(output, [None if answer is None else tuple(answer) for answer in answers])


def _by_name(
    output: Evidence, answers: Sequence[tuple[Route, ...] | None]
) -> tuple[tuple[str, tuple[Route, ...] | None], ...]:
    if len(answers) > len(output.arguments):
        raise ValueError("more answers than questions")
    missing = [None] * (len(output.arguments) - len(answers))
    return tuple((name, answer) for (name,), answer in zip(output.arguments, [*answers, *missing], strict=True))


def _route(address: str, device: str, source: str) -> Route:
    return Route(_address(address), None if device == "-" else device, None if source == "-" else _address(source))
