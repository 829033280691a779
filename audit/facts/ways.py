"""Which way a migration takes between two hosts, over which devices, and how fast these are."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Self, TypeVar

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.names import (
    FQDN,
    HOSTNAME,
    LIBVIRT_NAME,
    OWN_RESOLUTION,
    PEERS,
    OwnAddresses,
    OwnNames,
    PeerAddresses,
    Route,
)
from audit.facts.network import ADDRESSES, LINKS, ROUTES, SPEEDS, Links, Speeds, WayOut
from audit.facts.qemu_conf import QEMU_CONF, QemuConf
from audit.text import visible

F = TypeVar("F", bound=HostFact)


class Way(NamedTuple):
    """The devices at both ends, as far as they are known, and the speed of the slower end."""

    here: str
    there: str
    mbps: int


@dataclass(frozen=True)  # not slotted: it keeps what it is asked for most
class MigrationWays(HostFact):
    """By which devices the host sends guests to its peers, and receives them.

    Without `--migrateuri` a target names `migration_host` of its qemu.conf or else its own host name, and the source
    connects to what that resolves to there. Where that leads to no address of the target, a migration has to be given
    one, and the default route stands in; where it could not be read, the way is not known.
    """

    probes: ClassVar[tuple[Probe, ...]] = (
        *(PEERS, HOSTNAME, LIBVIRT_NAME, FQDN, OWN_RESOLUTION, QEMU_CONF),
        *(ADDRESSES, ROUTES, LINKS, SPEEDS),
    )
    name: str | None
    """What it tells a source to connect to. None: not known."""
    peers: tuple[tuple[str, Route | None], ...]
    """By a peer's name: the first route to it that leaves this host; None: there is none. Those not known lack."""
    own: tuple[tuple[str, str], ...]
    """Its addresses and the devices that carry them; empty: not known."""
    default: str | None
    speeds: tuple[tuple[str, int], ...]
    """Mbit/s by device; those of which nothing tells lack."""
    bridged: frozenset[str] | None
    """Devices with the same hardware below them as a bridge that guests may be on. None: not known."""

    @cached_property
    def _routes(self) -> Mapping[str, Route | None]:
        return dict(self.peers)

    @cached_property
    def _speeds(self) -> Mapping[str, int]:
        return dict(self.speeds)

    @cached_property
    def _devices(self) -> Mapping[str, str]:
        return dict(self.own)

    def to(self, target: "MigrationWays") -> tuple[str | None, str | None]:
        """The device here and the one at the target that a migration to it uses; None: not known."""
        if target.name is None or target.name not in self._routes:
            return None, None
        route = self._routes[target.name]
        if route is None:
            return self.default, target.default
        return route.device, (target._devices.get(route.address) or target.default) if target.own else None

    def devices(self, target: "MigrationWays") -> tuple[str, str]:
        """The same, known. Raises `Unavailable`."""
        here, there = self.to(target)
        if target.name is None:
            raise Unavailable(QEMU_CONF, "the name that the target gives for migrations is not known")
        if target.name not in self._routes:
            raise Unavailable(PEERS, f"where {visible(target.name, 80)} leads is not known")
        if here is None or there is None:
            raise Unavailable(ROUTES, "the device that a migration would use is not known")
        return here, there

    def way(self, target: "MigrationWays") -> Way:
        """The same with its speed. Raises `Unavailable`."""
        here, there = self.devices(target)
        return Way(here, there, min(self.speed(here), target.speed(there)))

    def shared(self, device: str) -> bool:
        """Guests' bridges use that device, too. Raises `Unavailable`."""
        if self.bridged is None:
            raise Unavailable(LINKS, "which devices bridges use is not known")
        return device in self.bridged

    def speed(self, device: str) -> int:
        """Mbit/s of one of its devices. Raises `Unavailable`."""
        if device not in self._speeds:
            raise Unavailable(SPEEDS, f"no device below {visible(device, 40)} says its speed")
        return self._speeds[device]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the facts about names, addresses, routes and devices, as far as they can be had."""
        answers = _had(PeerAddresses, said)
        addresses, default = _had(OwnAddresses, said), _had(WayOut, said)
        links, speeds = _had(Links, said), _had(Speeds, said)
        routes = tuple(
            (name, _leaving(routes)) for name, routes in (answers.answers if answers else ()) if routes is not None
        )
        return cls(
            name=_name(said),
            peers=routes,
            own=tuple((own.ip, own.interface) for own in (addresses.addresses if addresses else ())),
            default=default.device if default else None,
            speeds=speeds.speeds if speeds else (),
            bridged=None if links is None else _bridged(links),
        )


def _had(kind: type[F], said: Said) -> F | None:
    try:
        return kind.parse(said)
    except (Unavailable, ValueError, LookupError, ArithmeticError):
        return None


def _name(said: Said) -> str | None:
    conf, names = _had(QemuConf, said), _had(OwnNames, said)
    if conf is None:
        return None  # it may name another network
    try:
        return conf.migration_host or (names.name_for_migration if names else None)
    except Unavailable:
        return None


def _leaving(routes: tuple[Route, ...]) -> Route | None:
    return next((route for route in routes if route.device and not route.leads_here), None)


def _bridged(links: Links) -> frozenset[str]:
    below = {port.name for bridge in links.bridges for port in links.hardware(bridge)}
    named = [link.name for link in links.links if link.kind not in {"tun", "macvtap"}]
    return frozenset(name for name in named if below & {port.name for port in links.hardware(name)})
