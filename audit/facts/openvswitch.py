"""Open vSwitch: installed, running, its settings, its bridges and what is plugged into them.

Its database is root's: where it may not be read, installed and running are known all the same.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.services import UNITS, Units
from audit.text import visible

INSTALLED = Probe(
    "openvswitch.installed", "if command -v ovs-vsctl >/dev/null; then echo yes; else echo no; fi", limit=1024
)

# One transaction, one JSON object a line: settings, bridges, ports (a bond has several interfaces), interfaces.
DATABASE = Probe(
    "openvswitch.database",
    """
command -v ovs-vsctl >/dev/null || { echo 'not installed'; exit 0; }
$sudo ovs-vsctl --timeout=5 --format=json -- --columns=other_config list Open_vSwitch \\
  -- --columns=name,ports list Bridge -- --columns=_uuid,interfaces list Port -- --columns=_uuid,name list Interface
""",
    hand="ovs-vsctl show; ovs-vsctl list Open_vSwitch",
)


@dataclass(frozen=True, slots=True)
class Bridge:
    """An Open vSwitch bridge and the network interfaces in it, its own and those of bonds too."""

    name: str
    interfaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Database:
    """What the database of Open vSwitch holds."""

    other_config: frozenset[tuple[str, str]]
    bridges: tuple[Bridge, ...]

    def setting(self, key: str) -> str | None:
        """A key of `other_config`; None where it is not set."""
        return dict(self.other_config).get(key)

    def bridge_of(self, interface: str) -> str | None:
        """The bridge that an interface is plugged into."""
        return next((bridge.name for bridge in self.bridges if interface in bridge.interfaces), None)


@dataclass(frozen=True, slots=True)
class OpenVswitch(HostFact):
    """Open vSwitch on a host."""

    probes: ClassVar[tuple[Probe, ...]] = (INSTALLED, DATABASE, UNITS)

    installed: bool
    running_state: bool | str
    """ovs-vswitchd runs; a text: why that is not known."""
    database_state: Database | str
    """A text: why it could not be read."""

    @property
    def running(self) -> bool:
        """Its forwarding daemon runs. Raises `Unavailable`."""
        if isinstance(self.running_state, str):
            raise Unavailable(UNITS, self.running_state)
        return self.running_state

    @property
    def database(self) -> Database:
        """Its database. Raises `Unavailable`."""
        if isinstance(self.database_state, str):
            raise Unavailable(DATABASE, self.database_state)
        return self.database_state

    def bridge_of(self, interface: str) -> str | None:
        """The bridge that an interface is plugged into. Raises `Unavailable`."""
        return self.database.bridge_of(interface) if self.installed else None

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Installed or not must be known; the rest may be unknown, each for a reason of its own."""
        answer = said.text(INSTALLED).strip()
        if answer not in {"yes", "no"}:
            raise ValueError(f"neither yes nor no: {visible(answer, 40)}")
        if answer == "no":
            return cls(installed=False, running_state=False, database_state="not installed")
        return cls(installed=True, running_state=_running(said), database_state=_database(said))


def _running(said: Said) -> bool | str:
    try:
        unit = Units.parse(said).of("ovs-vswitchd.service")
    except Unavailable as reason:
        return reason.reason
    except (ValueError, LookupError) as error:
        return f"not understood: {visible(repr(error), 120)}"
    if not unit.exists:  # in a container, or started by hand
        return f"ovs-vswitchd.service is {visible(unit.load, 40)}: what runs Open vSwitch here is not known"
    return unit.running


def _database(said: Said) -> Database | str:
    try:
        tables: list[list[dict[str, Any]]] = [_rows(line) for line in said.lines(DATABASE)]
        settings, bridges, ports, interfaces = tables
        names = {_key(row["_uuid"]): str(row["name"]) for row in interfaces}
        plugged = {_key(row["_uuid"]): {names[key] for key in _keys(row["interfaces"])} for row in ports}
        found = {str(row["name"]): [plugged[key] for key in _keys(row["ports"])] for row in bridges}
        return Database(
            other_config=frozenset(_map(settings[0]["other_config"])),
            bridges=tuple(Bridge(name, frozenset().union(*found[name])) for name in sorted(found)),
        )
    except Unavailable as reason:
        return reason.reason
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"not understood: {visible(repr(error), 120)}"


def _rows(line: str) -> list[dict[str, Any]]:
    """One table as OVSDB prints it: {"data": [[…], …], "headings": […]}."""
    table = json.loads(line)
    return [dict(zip(table["headings"], row, strict=True)) for row in table["data"]]


def _map(value: Any) -> list[tuple[str, str]]:
    """["map", [["key", "value"], …]]."""
    kind, pairs = value
    if kind != "map":
        raise ValueError(f"not a map: {visible(str(value), 60)}")
    return [(str(key), str(held)) for key, held in pairs]


def _key(value: Any) -> str:
    """["uuid", "…"]."""
    kind, key = value
    if kind != "uuid":
        raise ValueError(f"not a uuid: {visible(str(value), 60)}")
    return str(key)


def _keys(value: Any) -> list[str]:
    """A set of uuids; a set of one stands alone."""
    return [_key(member) for member in (value[1] if value[0] == "set" else [value])]
