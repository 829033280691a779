"""MAC addresses in use on a host: those of its running guests, and where they are plugged in; and the host's own."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.guest_source import running_guests, unread_guests
from audit.facts.network import ADDRESSES, LINKS, Links, read_addresses

_INTEGRATION = frozenset({"br-int"})
"""Bridges on which OVN and OpenStack keep many separate networks."""


class Plugged(NamedTuple):
    """One NIC of a running guest."""

    mac: str
    """In small letters."""
    guest: str
    """UUID."""
    name: str
    where: str
    """The bridge or device that it is plugged into; "": it is a function of a card, and so on the wire itself."""
    network: str | None
    """The libvirt network."""
    vlans: tuple[str, ...]
    wire: bool
    """What it is plugged into leads out of the host."""


def place_of(nic: Nic) -> str | None:
    """The bridge or device that a NIC is plugged into, or "" for a card's function; None: it is not known to be one."""
    if nic.type == "hostdev":
        return ""
    if nic.type in {"bridge", "network", "direct"}:
        return nic.bridge or (nic.source if nic.type != "network" else None)
    return None


@dataclass(frozen=True, slots=True)
class MacsInUse(HostFact):
    """Which MAC addresses are heard on the host's bridges."""

    probes: ClassVar[tuple[Probe, ...]] = (*GuestNics.probes, LINKS, ADDRESSES)
    nics: tuple[Plugged, ...]
    macs: frozenset[str]
    """Theirs, to look one up at once."""
    own: frozenset[str]
    """Of the host's interfaces that have an IP address."""
    unread: int
    """Running guests whose NICs could not be read."""

    def missing(self) -> Unavailable:
        """Why some running guests' addresses are not known."""
        return unread_guests(self.unread)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the running guests' XML; links and addresses tell what a bridge leads to, and the host's own."""
        links = Links.parse(said)
        found: set[Plugged] = set()
        guests, unread = running_guests(said, GuestNics)
        for guest, nic in ((guest, nic) for guest, own in guests for nic in own.nics):
            where = place_of(nic)
            if nic.mac and where is not None:
                mac, wire = nic.mac.lower(), _leads_out(where, links)
                found.add(Plugged(mac, guest.uuid, guest.name, where, nic.network, nic.vlans, wire))
        return cls(tuple(sorted(found, key=repr)), frozenset(nic.mac for nic in found), _own(said), unread)


def _leads_out(where: str, links: Links) -> bool:
    """Whose ports an Open vSwitch bridge has does not show among the links: taken to lead out."""
    link = links.find(where)
    if where in _INTEGRATION:
        return False
    return not where or bool(links.hardware(where)) or (link is not None and link.kind == "openvswitch")


def _own(said: Said) -> frozenset[str]:
    """A VF that awaits a guest may have the guest's address already, and a macvtap device has it: neither has an IP."""
    addressed = {address.interface for address in read_addresses(said)} - {"lo"}
    entries = [entry for entry in said.json(LINKS) if entry.get("ifname") in addressed]
    macs = (entry.get("address") for entry in entries)
    return frozenset(mac.lower() for mac in macs if isinstance(mac, str))
