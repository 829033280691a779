"""Which way a migration takes between two hosts, over which devices, and how fast these are."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Self, TypeVar

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.names import HOSTNAME, LIBVIRT_NAME, PEERS, OwnAddresses, OwnNames, PeerAddresses, Route
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
    connects to what that resolves to there. Where this is not known, the default route stands in.
    """

    probes: ClassVar[tuple[Probe, ...]] = (
        *(PEERS, HOSTNAME, LIBVIRT_NAME, QEMU_CONF),
        *(ADDRESSES, ROUTES, LINKS, SPEEDS),
    )
    name: str | None
    """What it tells a source to connect to."""
    peers: tuple[tuple[str, Route], ...]
    """By a peer's name: the first route to it that leaves this host."""
    own: tuple[tuple[str, str], ...]
    """Its addresses and the devices that carry them."""
    default: str | None
    speeds: tuple[tuple[str, int], ...]
    """Mbit/s by device; those of which nothing tells lack."""
    bridged: frozenset[str] | None
    """Devices with the same hardware below them as a bridge that guests may be on. None: not known."""

    @cached_property
    def _routes(self) -> Mapping[str, Route]:
        return dict(self.peers)

    @cached_property
    def _speeds(self) -> Mapping[str, int]:
        return dict(self.speeds)

    @cached_property
    def _devices(self) -> Mapping[str, str]:
        return dict(self.own)

    def to(self, target: "MigrationWays") -> tuple[str | None, str | None]:
        """The device here and the one at the target that a migration to it uses; None: not known."""
        route = self._routes.get(target.name) if target.name else None
        arrives = target._devices.get(route.address) if route else None
        return (route.device if route and route.device else self.default), arrives or target.default

    def devices(self, target: "MigrationWays") -> tuple[str, str]:
        """The same, known. Raises `Unavailable`."""
        here, there = self.to(target)
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
        routes = ((name, _leaving(routes)) for name, routes in (answers.answers if answers else ()))
        return cls(
            name=_name(said),
            peers=tuple((name, route) for name, route in routes if route),
            own=tuple((own.ip, own.interface) for own in (addresses.addresses if addresses else ())),
            default=default.device if default else None,
            speeds=speeds.speeds if speeds else (),
            bridged=_bridged(links) if links else None,
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


def _leaving(routes: tuple[Route, ...] | None) -> Route | None:
    return next((route for route in routes or () if route.device and not route.leads_here), None)


def _bridged(links: Links) -> frozenset[str]:
    below = {port.name for bridge in links.bridges for port in links.hardware(bridge)}
    named = [link.name for link in links.links if link.kind not in {"tun", "macvtap"}]
    return frozenset(name for name in named if below & {port.name for port in links.hardware(name)})
