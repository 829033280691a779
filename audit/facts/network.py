"""What guests' NICs connect to on a host: links, bridges, libvirt networks; and how fast the way out is."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.virsh import answers, document, for_each
from audit.text import visible

LINKS = Probe("network.links", "ip -j -d link show", limit=16 * 1024 * 1024)
ADDRESSES = Probe("network.addresses", "ip -j addr show", limit=16 * 1024 * 1024)
ROUTES = Probe("network.default_route", "ip -j route show default")
SPEEDS = Probe(
    "network.speeds",
    """\
cd /sys/class/net || exit
for name in *; do echo "$name $(cat "$name/speed" 2>/dev/null)"; done""",
    hand="grep . /sys/class/net/*/speed",
)
NETWORKS_ACTIVE = Probe(
    "network.libvirt_active",
    "virsh -r -q -c qemu:///system 'net-list --uuid; echo autostart; net-list --all --autostart --uuid'",
    seconds=40,
    hand="virsh -r -c qemu:///system net-list --all",
)
NETWORKS = Probe(
    "network.libvirt",
    for_each("net-list --all --uuid", "net-dumpxml $u"),
    seconds=60,
    hand="virsh -r -c qemu:///system net-dumpxml NETWORK",
)


@dataclass(frozen=True, slots=True)
class Link:
    """One network device of the host."""

    name: str
    up: bool
    """Administratively; a bridge without ports has no carrier and works nevertheless."""
    mtu: int
    kind: str | None
    """bridge, openvswitch, bond, vlan, tun, …; None: hardware, or not said."""
    master: str | None
    """The bridge or bond that it is a port of."""
    lower: str | None
    """The device that it is on top of, as a VLAN or a macvtap."""
    passthru: bool = False
    """A macvlan or macvtap that has the device below it for itself."""


@dataclass(frozen=True)  # not slotted: it keeps what it is asked for most
class Links(HostFact):
    """The host's network devices."""

    probes: ClassVar[tuple[Probe, ...]] = (LINKS,)
    links: tuple[Link, ...]

    def find(self, name: str) -> Link | None:
        """The device of that name."""
        return self._named.get(name)

    @cached_property
    def _named(self) -> Mapping[str, Link]:
        return {link.name: link for link in reversed(self.links)}

    @cached_property
    def _below(self) -> Mapping[str, list[str]]:
        """By device: what lies directly below it, a bridge's or bond's ports, what a VLAN lies on."""
        below: dict[str, list[str]] = {link.name: [] for link in self.links}
        for link in self.links:
            if link.master in below:
                below[link.master].append(link.name)
            if link.kind == "vlan" and link.lower:
                below[link.name].append(link.lower)
        return below

    @property
    def bridges(self) -> frozenset[str]:
        """Names of bridges, those that container engines and libvirt keep for themselves left out."""
        own = re.compile(r"(virbr|docker|podman|br-[0-9a-f]{12}$|cni|lxcbr|lxdbr|incusbr|ovs-system)")
        return frozenset(
            link.name for link in self.links if link.kind in {"bridge", "openvswitch"} and not own.match(link.name)
        )

    def hardware(self, name: str) -> tuple[Link, ...]:
        """The devices at the bottom of `name`: a bridge's or bond's ports, what a VLAN lies on."""
        bottom: dict[str, Link] = {}
        seen: set[str] = set()
        todo = [name]
        while todo:
            current = todo.pop()
            link = self.find(current)
            if link is None or current in seen:
                continue
            seen.add(current)
            below = self._below[current]
            todo.extend(below)
            if not below and link.kind is None:
                bottom[current] = link
        return tuple(bottom.values())

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `ip -j -d link`; objects without a name are filtered rows."""
        links = [_link(entry) for entry in objects(said, LINKS) if entry]
        if not links:
            raise Unavailable(LINKS, "no network devices")
        return cls(tuple(sorted(links, key=lambda link: link.name)))


def objects(said: Said, probe: Probe) -> list[dict[str, Any]]:
    """The JSON objects that `ip -j` or `bridge -j` printed. Raises `Unavailable` for anything else."""
    value = said.json(probe)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Unavailable(probe, "not a list of objects")
    return value


def _link(entry: dict[str, Any]) -> Link:
    name, mtu, flags = entry.get("ifname"), entry.get("mtu"), entry.get("flags")
    info = entry.get("linkinfo")
    kind = info.get("info_kind") if isinstance(info, dict) else None
    data = info.get("info_data") if isinstance(info, dict) else None
    passthru = isinstance(data, dict) and data.get("mode") == "passthru"
    if not isinstance(name, str) or not isinstance(mtu, int) or not isinstance(flags, list):
        raise Unavailable(LINKS, "a device without name, MTU or flags")
    return Link(name, "UP" in flags, mtu, _text(kind), _text(entry.get("master")), _text(entry.get("link")), passthru)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Address(NamedTuple):
    """One address of a network interface."""

    interface: str
    ip: str
    prefix: int


def read_addresses(said: Said) -> Iterator[Address]:
    """Every address of every interface, from `ip -j addr`; empty objects are filtered rows."""
    for entry in filter(None, objects(said, ADDRESSES)):
        name, addresses = entry.get("ifname"), entry.get("addr_info", [])
        if not isinstance(name, str) or not isinstance(addresses, list):
            raise Unavailable(ADDRESSES, "a device without name or addresses")
        for address in filter(None, addresses):
            if not isinstance(address, dict):
                raise Unavailable(ADDRESSES, f"{visible(name, 40)}: an address that is no object")
            ip, prefix = address.get("local"), address.get("prefixlen")
            if not isinstance(ip, str) or not isinstance(prefix, int):
                raise Unavailable(ADDRESSES, f"{visible(name, 40)}: an address without its prefix")
            ipaddress.ip_interface(f"{ip}/{prefix}")  # refuses what is none
            yield Address(name, ip, prefix)


@dataclass(frozen=True, slots=True)
class Subnets(HostFact):
    """The IP networks that each device has an address in, link-local ones left out."""

    probes: ClassVar[tuple[Probe, ...]] = (ADDRESSES,)
    subnets: tuple[tuple[str, frozenset[str]], ...]

    def of(self, device: str) -> frozenset[str]:
        """The networks of that device; empty: it has no address."""
        return dict(self.subnets).get(device, frozenset())

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the interfaces' addresses."""
        found: dict[str, set[str]] = {}
        for own in read_addresses(said):
            network = ipaddress.ip_interface(f"{own.ip}/{own.prefix}").network
            if not network.is_link_local and not network.is_loopback:
                found.setdefault(own.interface, set()).add(str(network))
        return cls(tuple((name, frozenset(networks)) for name, networks in sorted(found.items())))


@dataclass(frozen=True, slots=True)
class Speeds(HostFact):
    """How fast the hardware below each device is."""

    probes: ClassVar[tuple[Probe, ...]] = (LINKS, SPEEDS)
    speeds: tuple[tuple[str, int], ...]
    """Device and the Mbit/s of its fastest port; devices of which nothing says its speed, as virtual ones, lack."""

    def of(self, device: str) -> int:
        """Mbit/s of the device. Raises `Unavailable` if nothing says it."""
        found = dict(self.speeds).get(device)
        if found is None:
            raise Unavailable(SPEEDS, f"no device below {visible(device, 40)} says its speed")
        return found

    @classmethod
    def parse(cls, said: Said) -> Self:
        """sysfs says -1, nothing, or the speed in Mbit/s."""
        known: dict[str, int] = {}
        for line in said.lines(SPEEDS):
            name, _, speed = line.partition(" ")
            if speed.strip().isdigit() and int(speed):
                known[name] = int(speed)
        links = Links.parse(said)
        fastest = {
            link.name: max((known[port.name] for port in links.hardware(link.name) if port.name in known), default=None)
            for link in links.links
        }
        return cls(tuple(sorted((name, speed) for name, speed in fastest.items() if speed is not None)))


@dataclass(frozen=True, slots=True)
class WayOut(HostFact):
    """The device of the default route."""

    probes: ClassVar[tuple[Probe, ...]] = (ROUTES,)
    device: str

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The default route of the lowest metric."""
        routes = [entry for entry in objects(said, ROUTES) if isinstance(entry.get("dev"), str)]
        if not routes:
            raise Unavailable(ROUTES, "no default route")
        metrics = [entry.get("metric", 0) for entry in routes]
        if not all(isinstance(metric, int) for metric in metrics):
            raise Unavailable(ROUTES, "a metric that is no number")
        return cls(str(min(zip(metrics, range(len(routes)), routes, strict=True))[2]["dev"]))


_SWITCH = "virtualport[@type='openvswitch']"


@dataclass(frozen=True, slots=True)
class LibvirtNetwork:
    """One `virsh net-list` network."""

    name: str
    active: bool
    autostart: bool
    forward: str | None
    """nat, route, bridge, passthrough, hostdev, …; None: isolated."""
    bridge: str | None
    devices: tuple[str, ...]
    """Physical devices that it forwards to."""
    portgroups: frozenset[str]
    switched: frozenset[str] = frozenset()
    """Port groups whose NICs are plugged into an Open vSwitch; "" stands for NICs without one."""

    def plugs_into_switch(self, portgroup: str | None) -> bool:
        """Whether a NIC in that port group is plugged into an Open vSwitch, and not into a bridge of the kernel's."""
        return (portgroup or "") in self.switched


def _switched(network: etree._Element) -> frozenset[str]:
    """A network's `<virtualport>` holds for all its port groups, a port group's for its own NICs."""
    groups = {group.get("name", ""): group for group in network.iterfind("portgroup")}
    own = {name for name, group in groups.items() if group.find(_SWITCH) is not None}
    if network.find(_SWITCH) is not None:
        return frozenset({*groups, ""})
    default = any(name in own and group.get("default") == "yes" for name, group in groups.items())
    return frozenset({*own, ""} if default else own)


@dataclass(frozen=True, slots=True)
class LibvirtNetworks(HostFact):
    """Every libvirt network, active or not."""

    probes: ClassVar[tuple[Probe, ...]] = (NETWORKS, NETWORKS_ACTIVE)
    networks: tuple[LibvirtNetwork, ...]
    unread: str = ""
    """Why they could not be listed, or not all of them. Only guests that use them depend on it."""

    def find(self, name: str) -> LibvirtNetwork | None:
        """The network of that name. Raises `Unavailable` if it might be one that could not be read."""
        found = next((network for network in self.networks if network.name == name), None)
        if found is None and self.unread:
            raise Unavailable(NETWORKS, self.unread)
        return found

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From each network's XML and the lists of the active and the autostarted ones."""
        try:
            listed, mark, started = said.text(NETWORKS_ACTIVE).partition("autostart")
            found = answers(said, NETWORKS)
        except Unavailable as why:
            return cls((), why.reason)
        if not mark or b"error:" in said.evidence(NETWORKS_ACTIVE).stderr:
            words = said.evidence(NETWORKS_ACTIVE).stderr.decode("utf-8", "replace")
            return cls((), visible(words.strip(), 200) or "the list of active networks is missing")
        active, autostart = frozenset(listed.split()), frozenset(started.split())
        networks, unread = [], ""
        for uuid, answer in found.items():
            try:
                root = document(NETWORKS, "network", uuid, answer)
            except Unavailable as why:
                unread = why.reason
                continue
            forward, bridge = root.find("forward"), root.find("bridge")
            devices = [node.get("dev") for node in root.iterfind("forward/interface")]
            networks.append(
                LibvirtNetwork(
                    name=root.findtext("name") or "",
                    active=uuid in active,
                    autostart=uuid in autostart,
                    forward=None if forward is None else forward.get("mode", "nat"),
                    bridge=None if bridge is None else bridge.get("name"),
                    devices=tuple(device for device in devices if device),
                    portgroups=frozenset(node.get("name", "") for node in root.iterfind("portgroup")),
                    switched=_switched(root),
                )
            )
        if not active <= found.keys():
            unread = unread or "networks came while they were being listed"
        return cls(tuple(sorted(networks, key=lambda network: network.name)), unread)
