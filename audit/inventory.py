"""Inventory: which hosts, in which clusters, how to log in, judged by which policy.

A YAML file (docs/inventory.md has every key), or names from the command line, or this machine. A mistake is one
line that names the file, the line and the key. `to_json` gives the long form of the same format, without secrets
because there are none in it; the bundle's manifest keeps it.
"""

import difflib
import ipaddress
import json
import re
import socket
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from audit.evidence import HOST_NAME
from audit.policy import Policy
from audit.text import visible

SIZE_LIMIT = 8 * 1024 * 1024  # bytes; ten thousand hosts with all their keys fit well below it
_DEPTH_LIMIT = 20
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]{0,252}")
_USER = re.compile(r"[^\s:/'\"`$;&|<>(){}-][^\s:/'\"`$;&|<>(){}]{0,127}")
_JUMP = re.compile(r"[A-Za-z0-9_\[][^\s'\"`$;&|<>(){}]{0,1023}")
_CHANGE = ("ticket", "window", "requester")


class InventoryError(Exception):
    """What is wrong with the inventory, on one line."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host, and how to log in to it. What is None is left to the ssh configuration."""

    name: str
    address: str | None = None
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    sudo: bool = True
    jump: str | None = None
    local: bool = False
    """It is the machine that this program runs on: no SSH."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The hosts among which guests may move."""

    name: str
    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every host name is unique in it."""

    clusters: tuple[Cluster, ...]
    policy: Policy = field(default_factory=Policy)
    change: Mapping[str, str] = field(default_factory=dict)
    """Of `ticket`, `window` and `requester` those that are given."""

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, cluster by cluster."""
        return tuple(host for cluster in self.clusters for host in cluster.hosts)

    @classmethod
    def read(cls, path: Path) -> "Inventory":
        """The inventory in the file. Raises `InventoryError`."""
        try:
            with path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except OSError as error:
            raise InventoryError(f"{path}: {error.strerror}") from error
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes | str, name: str) -> "Inventory":
        """The inventory in `data`; `name` stands in errors. Raises `InventoryError`."""
        return _inventory(_document(data, name))

    @classmethod
    def of_hosts(cls, names: Sequence[str]) -> "Inventory":
        """One cluster, `default`, of hosts written `[user@]host[:port]`. Raises `InventoryError`."""
        hosts: dict[str, Host] = {}
        for name in names:
            try:
                host = _spelled(name)
            except ValueError as error:
                raise InventoryError(f"command line: {error}") from error
            if host.name.lower() in hosts:
                raise InventoryError(f"command line: host {host.name} is named twice")
            hosts[host.name.lower()] = host
        return cls((Cluster("default", tuple(hosts.values())),))

    @classmethod
    def this_machine(cls) -> "Inventory":
        """One cluster, `default`, of the machine that this program runs on."""
        name = socket.gethostname()
        return cls((Cluster("default", (Host(name if _PLAIN_NAME.fullmatch(name) else "localhost", local=True),)),))

    def only(self, names: Sequence[str]) -> "Inventory":
        """The same, without the hosts that `names` does not have. Raises `InventoryError` for a name it has not."""
        known = {host.name for host in self.hosts}
        for name in names:
            if name not in known:
                raise InventoryError(f"command line: no host {name} in the inventory{_meant(name, known)}")
        clusters = (Cluster(c.name, tuple(host for host in c.hosts if host.name in names)) for c in self.clusters)
        return replace(self, clusters=tuple(cluster for cluster in clusters if cluster.hosts))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values that `from_json` makes the same inventory of; lists where order counts."""
        return {
            "clusters": [
                {c.name: {"hosts": [{h.name: _changed(h, Host(h.name))} for h in c.hosts]}} for c in self.clusters
            ],
            "policy": _changed(self.policy, Policy()),
            "change": dict(self.change),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], name: str = "manifest.json") -> "Inventory":
        """The inventory that `to_json` was called on. Raises `InventoryError`."""
        return cls.parse(json.dumps(value, ensure_ascii=False, indent=1), name)


def _changed(value: Host | Policy, usual: Host | Policy) -> dict[str, Any]:
    pairs = ((f.name, getattr(value, f.name), getattr(usual, f.name)) for f in fields(value))
    return {name: now for name, now, before in pairs if now != before}


# YAML nodes with a place to point at ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A YAML node, and where it stands."""

    file: str
    key: str
    node: yaml.Node

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    def wrong(self, message: str) -> InventoryError:
        where = f"{self.file}:{self.line}"
        return InventoryError(visible(f"{where}: {self.key}: {message}" if self.key else f"{where}: {message}", 500))

    def at(self, key: str, node: yaml.Node) -> "_Place":
        return _Place(self.file, f"{self.key}.{key}" if self.key else key, node)

    @property
    def empty(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == "tag:yaml.org,2002:null"

    def text(self, what: str = "a text") -> str:
        """The scalar as it is written: `22:00`, `no` and `2026-11-23` are what they look like, unlike in YAML 1.1."""
        if not isinstance(self.node, yaml.ScalarNode) or self.empty or not self.node.value:
            raise self.wrong(f"must be {what}{self._kind()}")
        value = str(self.node.value)
        if len(value) > 4096 or any(unicodedata.category(char)[0] == "C" for char in value):
            raise self.wrong("must be one line without control characters")
        return value

    def items(self, known: Sequence[str] | None = None) -> Iterator[tuple[str, "_Place"]]:
        """The keys of a mapping with their values; every key must be in `known`, if that is given."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"must be a mapping{self._kind()}")
        seen: dict[str, int] = {}
        for key_node, value_node in self.node.value:
            key = _Place(self.file, self.key, key_node).text("a mapping with plain keys")
            place = self.at(key, key_node)
            if key in seen:
                raise place.wrong(f"stands twice, first in line {seen[key]}")
            seen[key] = place.line
            if known is not None and key not in known:
                raise place.wrong(f"unknown key{_meant(key, known) or ', known are ' + ', '.join(known)}")
            yield key, self.at(key, value_node)

    def _on(self, node: yaml.Node) -> "_Place":
        return _Place(self.file, self.key, node)

    def named(self) -> Iterator[tuple[str, "_Place", "_Place | None"]]:
        """A list of names, of single-key mappings, or a mapping: each name, where it stands, and what is under it."""
        if isinstance(self.node, yaml.SequenceNode):
            for number, node in enumerate(self.node.value, 1):
                if isinstance(node, yaml.MappingNode):
                    entries = list(_Place(self.file, self.key, node).items())
                    if len(entries) != 1:
                        raise self._on(node).wrong(
                            f"entry {number} must be a name or `name: {{keys}}`; indent its keys more"
                        )
                    yield entries[0][0], self.at(entries[0][0], node), entries[0][1]
                else:
                    name = self._on(node).text("a list of names")
                    yield name, self.at(name, node), None
        elif isinstance(self.node, yaml.MappingNode):
            for name, place in self.items():
                yield name, place, place
        else:
            raise self.wrong(f"must be a list or a mapping of names{self._kind()}")

    def _kind(self) -> str:
        match self.node:
            case yaml.MappingNode():
                return ", not a mapping"
            case yaml.SequenceNode():
                return ", not a list"
            case _:
                return ", and is empty" if self.empty or not self.node.value else f", not {str(self.node.value)[:40]!r}"


def _document(data: bytes | str, name: str) -> _Place:
    if len(data) > SIZE_LIMIT:
        raise InventoryError(f"{name}: larger than {SIZE_LIMIT // 1024**2} MiB")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        event: Any
        for event in yaml.parse(data, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            reason = _refused(event, depth)
            if reason:
                raise InventoryError(f"{name}:{event.start_mark.line + 1}: {reason}")
        node = yaml.compose(data, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise InventoryError(f"{where}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise InventoryError(f"{name}: not YAML: {' '.join(str(error).split())[:200]}") from error
    if node is None:
        raise InventoryError(f"{name}: is empty; it needs `clusters`")
    return _Place(name, "", node)


def _refused(event: Any, depth: int) -> str:
    """Why a YAML event has no place in an inventory, "" if it has."""
    if isinstance(event, yaml.AliasEvent):
        return f"*{event.anchor}: YAML aliases are not supported, use `defaults`"
    tag = getattr(event, "tag", None)
    if tag and not tag.startswith("tag:yaml.org,2002:"):
        return f"{tag}: YAML tags are not supported"
    return "nested too deeply" if depth > _DEPTH_LIMIT else ""


def _meant(word: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), 1)
    return f", did you mean {close[0]}?" if close else ""


# What the file says ---------------------------------------------------------------------------------------


def _inventory(document: _Place) -> Inventory:
    parts = dict(document.items(("defaults", "clusters", "policy", "change")))
    usual = _login(parts["defaults"], Host("")) if _given(parts, "defaults") else Host("")
    if not _given(parts, "clusters"):
        raise parts.get("clusters", document).wrong("no `clusters` with hosts")
    seen: dict[str, int] = {}
    names: set[str] = set()
    clusters = []
    for name, place, under in parts["clusters"].named():
        if not _CLUSTER_NAME.fullmatch(name):
            raise place.wrong("not a cluster name: letters, digits, dot, dash and underscore, at most 64")
        if name in names:
            raise place.wrong("this cluster stands twice")
        names.add(name)
        clusters.append(_cluster(name, under or place, under is not None, usual, seen))
    if not clusters:
        raise parts["clusters"].wrong("has no cluster")
    policy = _policy(parts["policy"]) if _given(parts, "policy") else Policy()
    change = {key: place.text() for key, place in parts["change"].items(_CHANGE)} if _given(parts, "change") else {}
    return Inventory(tuple(clusters), policy, change)


def _given(parts: Mapping[str, _Place], key: str) -> bool:
    return key in parts and not parts[key].empty


def _cluster(name: str, place: _Place, described: bool, usual: Host, seen: dict[str, int]) -> Cluster:
    if not described or place.empty:
        raise place.wrong("has no hosts")
    hosts = place
    if isinstance(place.node, yaml.MappingNode):
        parts = dict(place.items(("hosts", "defaults")))
        if _given(parts, "defaults"):
            usual = _login(parts["defaults"], usual)
        if not _given(parts, "hosts"):
            raise place.wrong("has no `hosts`")
        hosts = parts["hosts"]
    found = tuple(_host(*entry, usual, seen) for entry in hosts.named())
    if not found:
        raise hosts.wrong("names no host")
    return Cluster(name, found)


def _host(spelled: str, place: _Place, under: _Place | None, usual: Host, seen: dict[str, int]) -> Host:
    try:
        short = _spelled(spelled)
    except ValueError as error:
        raise place.wrong(str(error)) from error
    if short.name.lower() in seen:
        raise place.wrong(f"host {short.name} stands twice, first in line {seen[short.name.lower()]}")
    seen[short.name.lower()] = place.line
    host = replace(usual, **_changed(short, Host("")))
    return host if under is None or under.empty else _login(under, host)


def _login(place: _Place, usual: Host) -> Host:
    """`usual` with what the mapping says."""
    values = {key: _LOGIN[key](value) for key, value in place.items(tuple(_LOGIN))}
    return replace(usual, **values)


def _spelled(text: str) -> Host:
    """A host from `[user@]host[:port]`, with an IPv6 address in brackets or without a port."""
    user, at, rest = text.rpartition("@")
    found = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d{1,5}))?", rest)
    address = (found["v6"] or found["name"]) if found else rest
    port = int(found["port"]) if found and found["port"] else None
    name = f"[{address}]" if ":" in address else address
    understood = _ipv6(address) if ":" in address else found and not found["v6"] and _PLAIN_NAME.fullmatch(address)
    if not understood or not HOST_NAME.fullmatch(name) or (at and not _USER.fullmatch(user)):
        raise ValueError(f"not a host name: {text[:80]!r}")
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"not a port number: {text[:80]!r}")
    return Host(name, address=address if name != address else None, port=port, user=user or None)


def _ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return bool(_ADDRESS.fullmatch(text))


def _port(place: _Place) -> int:
    value = _whole(place)
    if not 0 < value < 65536:
        raise place.wrong(f"must be a port number, 1 to 65535, not {value}")
    return value


def _whole(place: _Place) -> int:
    value = place.text("a whole number")
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
        raise place.wrong(f"must be a whole number, not {value[:40]!r}")
    return int(value)


def _yes_or_no(place: _Place) -> bool:
    value = place.text("true or false").lower()
    if value not in {"true", "false", "yes", "no", "on", "off"}:
        raise place.wrong(f"must be true or false, not {value[:40]!r}")
    return value in {"true", "yes", "on"}


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[_Place], str]:
    def read(place: _Place) -> str:
        value = place.text(what)
        if not pattern.fullmatch(value):
            raise place.wrong(f"must be {what}, not {value[:80]!r}")
        return value

    return read


_LOGIN: dict[str, Callable[[_Place], Any]] = {
    "address": _matching(_ADDRESS, "a host name or an IP address"),
    "port": _port,
    "user": _matching(_USER, "a user name"),
    "identity_file": lambda place: place.text("the path of a private key"),
    "sudo": _yes_or_no,
    "jump": _matching(_JUMP, "[user@]host[:port], or several of them separated by commas, or none"),
    "local": _yes_or_no,
}


def _policy(place: _Place) -> Policy:
    hints = get_type_hints(Policy)
    found = dict(place.items(tuple(hints)))
    policy = Policy(**{key: _of_type(value, hints[key]) for key, value in found.items()})
    try:
        if policy.migration_network:
            ip_network(policy.migration_network, strict=False)
    except ValueError:
        raise found["migration_network"].wrong("must be a network, as 10.0.1.0/24") from None
    return policy


def _of_type(place: _Place, hint: Any) -> Any:
    """The value as the policy's field has it: a choice, a truth value, a number that is not negative, or a text."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        value = place.text(f"one of {', '.join(choices)}")
        if value not in choices:
            raise place.wrong(f"must be one of {', '.join(choices)}, not {value[:40]!r}")
        return value
    readers: dict[Any, Callable[[_Place], Any]] = {bool: _yes_or_no, int: _whole, str: _Place.text}
    return readers[hint](place)
