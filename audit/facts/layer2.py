"""Which network a bridge leads to: VLANs, gateways, neighbours, and stations that its ports have learnt.

The name of a bridge says nothing about the cable. Two bridges are on one network when both see the same station there;
they are not when they carry different VLANs, or when the same gateway has another hardware address.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.facts.network import ADDRESSES, LINKS, ROUTES, Links, objects, read_addresses
from audit.text import visible

NEIGHBOURS = Probe("network.neighbours", "ip -j neigh show", limit=16 * 1024 * 1024)
# The bridges' own addresses are left out where they are: a large host has more of those than of anything else.
STATIONS = Probe(
    "network.stations",
    """\
said=$(bridge fdb show) || exit
printf '%s\\n' "$said" | sed -n -e '/ permanent/d' -e '/ master /p'
echo end""",
    limit=16 * 1024 * 1024,
    hand="bridge fdb show",
)
VLANS = Probe("network.vlans", "bridge -j vlan show", limit=16 * 1024 * 1024)

# Addresses that several routers share, and that every network with such a group of routers has: VRRP and CARP, HSRP,
# GLBP. They prove nothing, and one that changes is no contradiction.
_VIRTUAL = re.compile(r"00:00:5e:00:0[12]:|00:00:0c:07:ac:|00:00:0c:9f:f|00:05:73:a0:0|00:07:b4:")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_SETTLED = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE"})


class Neighbour(NamedTuple):
    """An address and the station that answers for it."""

    ip: str
    mac: str

    @property
    def virtual(self) -> bool:
        """Its hardware address is that of a group of routers."""
        return bool(_VIRTUAL.match(self.mac))


@dataclass(frozen=True, slots=True)
class Segment:
    """What is known of the network that one device of the host is on."""

    device: str
    vlans: frozenset[int]
    """Of a VLAN device, or of those that are ports of this bridge; empty: the cable itself, whatever it carries."""
    filtering: bool
    """A bridge that keeps VLANs apart by itself."""
    carried: frozenset[int]
    """Of such a bridge: the VLANs that its ports to the outside let through."""
    gateways: frozenset[str]
    """Of default routes through it."""
    neighbours: frozenset[Neighbour]
    """Seen on it, and the host itself; link-local ones left out."""

    def mac_of(self, ip: str) -> Neighbour | None:
        """The neighbour of that address."""
        return next((neighbour for neighbour in self.neighbours if neighbour.ip == ip), None)


@dataclass(frozen=True, slots=True)
class Segments(HostFact):
    """The networks that the host's devices are on."""

    probes: ClassVar[tuple[Probe, ...]] = (LINKS, ROUTES, NEIGHBOURS, ADDRESSES, VLANS)
    segments: tuple[Segment, ...]
    vlans_unread: str = ""
    """Why the VLANs of bridges that filter them are not known. Only guests with a VLAN of their own depend on it."""

    def find(self, device: str) -> Segment | None:
        """What is known of that device."""
        return next((segment for segment in self.segments if segment.device == device), None)

    def carried(self, segment: Segment) -> frozenset[int]:
        """The VLANs that a filtering bridge lets out. Raises `Unavailable`."""
        if self.vlans_unread:
            raise Unavailable(VLANS, self.vlans_unread)
        return segment.carried

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From links, default routes, the neighbour table and the host's own addresses."""
        details = {str(entry.get("ifname")): entry for entry in objects(said, LINKS) if entry}
        links = Links.parse(said).links
        ids = {link.name: _number(_info(details[link.name]).get("id")) for link in links if link.kind == "vlan"}
        neighbours = _neighbours(said, {name: entry.get("address") for name, entry in details.items()})
        gateways = [(entry.get("dev"), entry.get("gateway")) for entry in objects(said, ROUTES)]
        carried, unread = _port_vlans(said)
        found = []
        for link in links:
            if link.kind in {"tun", "veth"}:
                continue
            ports = [port for port in links if port.master == link.name]
            outside = (carried.get(port.name, frozenset()) for port in ports if port.kind != "tun")
            members = [link.name, *(port.name for port in ports if port.kind == "vlan")]
            found.append(
                Segment(
                    device=link.name,
                    vlans=frozenset(number for name in members if (number := ids.get(name)) is not None),
                    filtering=link.kind == "bridge" and _info(details[link.name]).get("vlan_filtering") == 1,
                    carried=frozenset().union(*outside),
                    gateways=frozenset(str(ip) for device, ip in gateways if device == link.name and ip),
                    neighbours=frozenset(neighbours.get(link.name, ())),
                )
            )
        return cls(tuple(found), unread)


def _info(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    info = entry.get("linkinfo")
    data = info.get("info_data") if isinstance(info, dict) else None
    return data if isinstance(data, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _neighbours(said: Said, macs: Mapping[str, object]) -> dict[str, set[Neighbour]]:
    """By device; the host's own addresses with the hardware address of their device too."""
    found: dict[str, set[Neighbour]] = {}
    for entry in filter(None, objects(said, NEIGHBOURS)):
        device, state = entry.get("dev"), entry.get("state", [])
        if not isinstance(state, list):
            raise Unavailable(NEIGHBOURS, "a state that is no list")
        if isinstance(device, str) and _SETTLED.intersection(map(str, state)):
            _add(found, device, entry.get("dst"), entry.get("lladdr"))
    for own in read_addresses(said):
        _add(found, own.interface, own.ip, macs.get(own.interface))
    return found


def _add(found: dict[str, set[Neighbour]], device: str, ip: object, mac: object) -> None:
    if not isinstance(ip, str) or not isinstance(mac, str) or not _MAC.fullmatch(mac):
        return  # a tunnel or an Infiniband device: its neighbours have no such address
    address = ipaddress.ip_address(ip)
    if not address.is_link_local and not address.is_loopback:
        found.setdefault(device, set()).add(Neighbour(str(address), mac))


def _port_vlans(said: Said) -> tuple[dict[str, frozenset[int]], str]:
    """The VLANs of each port, or why they are not known."""
    try:
        ports = [(str(entry["ifname"]), entry["vlans"]) for entry in filter(None, objects(said, VLANS))]
        return {name: frozenset().union(*map(_span, vlans)) for name, vlans in ports}, ""
    except Unavailable as why:
        return {}, why.reason
    except (ValueError, LookupError, TypeError) as error:
        return {}, f"not understood: {visible(repr(error), 120)}"


def _span(entry: Mapping[str, Any]) -> frozenset[int]:
    first, last = entry["vlan"], entry.get("vlanEnd", entry["vlan"])
    if not 0 <= first <= last <= 4095:
        raise ValueError(f"VLANs {first} to {last}")
    return frozenset(range(first, last + 1))


class Station(NamedTuple):
    """A hardware address that a bridge has learnt, in which of its VLANs."""

    bridge: str
    mac: str
    vlan: int | None


@dataclass(frozen=True, slots=True)
class Stations(HostFact):
    """Who has been heard on the host's bridges in the last minutes; an Open vSwitch keeps that to itself."""

    probes: ClassVar[tuple[Probe, ...]] = (STATIONS, LINKS)
    guests: frozenset[Station]
    """Behind a guest's tap."""
    outside: frozenset[Station]
    """Behind any other port."""
    unread: str = ""
    """Why they are not known; they can only add to what the neighbours prove."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`52:54:00:aa:bb:cc dev vnet0 vlan 10 master br0`."""
        try:
            *lines, end = said.lines(STATIONS)
        except Unavailable as why:
            return cls(frozenset(), frozenset(), why.reason)
        if end != "end":
            raise ValueError("cut off")
        taps = {link.name for link in Links.parse(said).links if link.kind == "tun"}
        guests: set[Station] = set()
        outside: set[Station] = set()
        for line in lines:
            match = re.match(r"([0-9a-f:]{17}) dev (\S+) (?:vlan (\d{1,4}) )?.*\bmaster (\S+)", line)
            if not match:
                raise ValueError(f"not a station: {visible(line, 120)}")
            station = Station(match[4], match[1], None if match[3] is None else int(match[3]))
            if not _VIRTUAL.match(match[1]):
                (guests if match[2] in taps else outside).add(station)
        return cls(frozenset(guests), frozenset(outside))


def proof(here: Segment, there: Segment, ours: Stations, theirs: Stations) -> str:
    """What proves that two devices are on one network, in words; "" if nothing does.

    A neighbour with the same address and the same hardware address, or a guest of one host heard by the other. That
    a station is heard on both is no proof by itself: a router often has one hardware address in all its networks.
    """
    common = [neighbour for neighbour in here.neighbours & there.neighbours if not neighbour.virtual]
    if common:
        neighbour = min(common)
        return f"the neighbour {neighbour.ip} at {neighbour.mac}"
    for guests, device, heard, other in (
        (ours.guests, here.device, theirs.outside, there.device),
        (theirs.guests, there.device, ours.outside, here.device),
    ):
        macs = {(s.mac, s.vlan) for s in heard if s.bridge == other}
        known = sorted(s.mac for s in guests if s.bridge == device and (s.mac, s.vlan) in macs)
        if known:
            return f"the guest at {known[0]}, which both hear"
    return ""


class Contradiction(NamedTuple):
    """Why two devices are probably not on one network: what is seen on each."""

    here: str
    there: str


def contradiction(here: Segment, there: Segment) -> Contradiction | None:
    """What speaks against one network; None: nothing that is known does."""
    if here.vlans and there.vlans and not here.vlans & there.vlans:
        return Contradiction(_vlans(here.vlans), _vlans(there.vlans))
    for ip in sorted(here.gateways | there.gateways):
        ours, theirs = here.mac_of(ip), there.mac_of(ip)
        if ours and theirs and ours.mac != theirs.mac and not ours.virtual and not theirs.virtual:
            return Contradiction(f"gateway {ip} at {ours.mac}", f"gateway {ip} at {theirs.mac}")
    return None


def _vlans(numbers: frozenset[int]) -> str:
    return f"VLAN {', '.join(map(str, sorted(numbers)))}"


@dataclass(frozen=True, slots=True)
class GuestVlans(GuestFact):
    """The VLANs that the guest's NICs are configured with."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    tags: tuple[frozenset[int], ...]
    """Of each NIC, in the order of `GuestNics`; empty: none of its own."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<vlan><tag id=>`, of a running guest also where its network led to it."""
        nics = guest.xml.iterfind("devices/interface")
        return cls(tuple(frozenset(int(tag.get("id", "")) for tag in nic.iterfind("vlan/tag")) for nic in nics))
