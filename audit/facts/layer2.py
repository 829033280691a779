"""Which network a bridge leads to: VLANs, gateways, neighbours, and stations that its ports have learnt.

The name of a bridge says nothing about the cable. Two bridges are on one network when both see the same station there;
they are not when they carry different VLANs, or when the same gateway has another hardware address.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.facts.network import ADDRESSES, LINKS, ROUTES, Link, Links, objects, read_addresses
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
    filtering: bool = False
    """A bridge that keeps VLANs apart by itself."""
    carried: frozenset[int] = frozenset()
    """Of such a bridge: the VLANs that its ports to the outside let through."""
    gateways: frozenset[str] = frozenset()
    """Of default routes through it."""
    neighbours: frozenset[Neighbour] = frozenset()
    """Others seen on it; link-local ones left out."""
    own: frozenset[Neighbour] = frozenset()
    """The host itself, as others see it there."""
    guests: frozenset[str] = frozenset()
    """Hardware addresses that this bridge has heard behind a guest's tap in the last minutes, with the VLAN where it
    keeps VLANs apart."""
    outside: frozenset[str] = frozenset()
    """The same behind any other port."""
    bridge: bool = False
    """A bridge of the administrator's, for guests or not."""
    used: bool = False
    """A guest is on it."""

    def mac_of(self, ip: str) -> Neighbour | None:
        """The neighbour of that address."""
        return next((neighbour for neighbour in (*self.neighbours, *self.own) if neighbour.ip == ip), None)


@dataclass(frozen=True, slots=True)
class Segments(HostFact):
    """The networks that the host's devices are on."""

    probes: ClassVar[tuple[Probe, ...]] = (LINKS, ROUTES, NEIGHBOURS, ADDRESSES, VLANS, STATIONS)
    segments: tuple[Segment, ...]
    vlans_unread: str = ""
    """Why the VLANs of bridges that filter them are not known. Only guests with a VLAN of their own depend on it."""
    stations_unread: str = ""
    """Why it is not known who was heard on the bridges; that can only add to what the neighbours prove."""

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
        """From links, default routes, the neighbour table, the host's own addresses and the bridges' tables."""
        details = {str(entry.get("ifname")): entry for entry in objects(said, LINKS) if entry}
        known = Links.parse(said)
        ids = {link.name: _number(_info(details[link.name]).get("id")) for link in known.links if link.kind == "vlan"}
        gateways = [(entry.get("dev"), entry.get("gateway")) for entry in objects(said, ROUTES)]
        neighbours, own = _neighbours(said), _own(said, {name: entry.get("address") for name, entry in details.items()})
        carried, vlans_unread = _port_vlans(said)
        heard, stations_unread = _stations(said, {link.name for link in known.links if link.kind == "tun"})
        ports: dict[str, list[Link]] = {}
        for link in known.links:
            ports.setdefault(link.master or "", []).append(link)
        found = []
        for link in known.links:
            if link.kind in {"tun", "veth"}:
                continue
            below = ports.get(link.name, [])
            outside = (carried.get(port.name, frozenset()) for port in below if port.kind != "tun")
            members = [link.name, *(port.name for port in below if port.kind == "vlan")]
            found.append(
                Segment(
                    device=link.name,
                    vlans=frozenset(number for name in members if (number := ids.get(name)) is not None),
                    filtering=link.kind == "bridge" and _info(details[link.name]).get("vlan_filtering") == 1,
                    carried=frozenset().union(*outside),
                    gateways=frozenset(str(ip) for device, ip in gateways if device == link.name and ip),
                    neighbours=frozenset(neighbours.get(link.name, ())),
                    own=frozenset(own.get(link.name, ())),
                    guests=frozenset(heard.get((link.name, True), ())),
                    outside=frozenset(heard.get((link.name, False), ())),
                    bridge=link.name in known.bridges,
                    used=any(port.kind == "tun" for port in below),
                )
            )
        return cls(tuple(found), vlans_unread, stations_unread)


def _info(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    info = entry.get("linkinfo")
    data = info.get("info_data") if isinstance(info, dict) else None
    return data if isinstance(data, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _neighbours(said: Said) -> dict[str, set[Neighbour]]:
    """Who answered on which device."""
    found: dict[str, set[Neighbour]] = {}
    for entry in filter(None, objects(said, NEIGHBOURS)):
        device, state = entry.get("dev"), entry.get("state", [])
        if not isinstance(state, list):
            raise Unavailable(NEIGHBOURS, "a state that is no list")
        if isinstance(device, str) and _SETTLED.intersection(map(str, state)):
            _add(found, device, entry.get("dst"), entry.get("lladdr"))
    return found


def _own(said: Said, macs: Mapping[str, object]) -> dict[str, set[Neighbour]]:
    """The host's own addresses with the hardware address of their device."""
    found: dict[str, set[Neighbour]] = {}
    for address in read_addresses(said):
        _add(found, address.interface, address.ip, macs.get(address.interface))
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


def _stations(said: Said, taps: Set[str]) -> tuple[dict[tuple[str, bool], set[str]], str]:
    """By bridge, and whether behind a tap: the stations heard there; or why they are not known.

    `52:54:00:aa:bb:cc dev vnet0 vlan 10 master br0`; an Open vSwitch keeps its table to itself.
    """
    try:
        *lines, end = said.lines(STATIONS)
    except Unavailable as why:
        return {}, why.reason
    if end != "end":
        return {}, "cut off"
    found: dict[tuple[str, bool], set[str]] = {}
    for line in lines:
        match = _STATION.match(line)
        if not match:
            return {}, f"not a station: {visible(line, 120)}"
        mac, port, vlan, bridge = match.groups()
        if not _VIRTUAL.match(mac):
            found.setdefault((bridge, port in taps), set()).add(f"{mac} in VLAN {vlan}" if vlan else mac)
    return found, ""


_STATION = re.compile(r"([0-9a-f:]{17}) dev (\S+) (?:vlan (\d{1,4}) )?.*\bmaster (\S+)")


def proof(here: Segment, there: Segment) -> str:
    """What proves that two devices are on one network, in words; "" if nothing does.

    A neighbour with the same address and the same hardware address, or a guest of one host heard by the other. That
    a station is heard on both is no proof by itself: a router often has one hardware address in all its networks. Nor
    is an address that both hosts have themselves: networks that were copied from host to host bring theirs along.
    """
    common = (here.neighbours & there.neighbours) | (here.own & there.neighbours) | (here.neighbours & there.own)
    if told := sorted(neighbour for neighbour in common if not neighbour.virtual):
        return f"the neighbour {told[0].ip} at {told[0].mac}"
    # An address that guests of both have is of clones: whose it is that is heard cannot be told.
    ours, theirs = here.guests - there.guests, there.guests - here.guests
    if known := sorted((ours & there.outside) | (theirs & here.outside)):
        return f"the guest at {known[0]}, which both hear"
    return ""


def groups(segments: Mapping[str, Segment]) -> list[list[str]]:
    """The hosts, divided into those whose segments are proved to be one network, directly or by way of others.

    Large groups first. By the same evidence as `proof`, but in time that grows with the number of hosts only.
    """
    group = {host: [host] for host in segments}

    def join(hosts: Collection[str]) -> None:
        lists = {id(group[host]): group[host] for host in hosts}
        if len(lists) > 1:
            joined = sorted(host for one in lists.values() for host in one)
            group.update(dict.fromkeys(joined, joined))

    seen: dict[Neighbour, set[str]] = {}
    for host, segment in segments.items():
        for neighbour in segment.neighbours:
            seen.setdefault(neighbour, set()).add(host)
    for host, segment in segments.items():
        for neighbour in segment.own & seen.keys():
            seen[neighbour].add(host)
    for neighbour, hosts in seen.items():
        if not neighbour.virtual:
            join(hosts)
    homes: dict[str, set[str]] = {}
    for host, segment in segments.items():
        for mac in segment.guests:
            homes.setdefault(mac, set()).add(host)
    single = {mac: next(iter(of)) for mac, of in homes.items() if len(of) == 1}
    for host, segment in segments.items():
        join({host, *(single[mac] for mac in segment.outside & single.keys())})
    return sorted({id(one): one for one in group.values()}.values(), key=lambda one: (-len(one), one))


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
