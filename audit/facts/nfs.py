"""NFS as the host serves it, and what of it the guests of others live on."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.guest_devices import GuestDisks
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE, read_guests
from audit.facts.names import FQDN, HOSTNAME, LIBVIRT_NAME, OWN_RESOLUTION, OwnAddresses, OwnNames
from audit.facts.network import ADDRESSES
from audit.facts.pools import POOLS, POOLS_ACTIVE, Pools, disk_path
from audit.facts.storage import Mounts, Nfs, within
from audit.text import visible

EXPORTS = Probe(
    "nfs.exports",
    """\
if [ -r /var/lib/nfs/etab ]; then cat /var/lib/nfs/etab
elif command -v exportfs >/dev/null; then $sudo exportfs -v
fi""",
    hand="exportfs -v",
)
CLIENT = Probe(
    "nfs.client", "if command -v mount.nfs >/dev/null; then echo yes; else echo no; fi", hand="command -v mount.nfs"
)


class Export(NamedTuple):
    """One folder for one kind of client."""

    path: str
    client: str
    """An address, a subnet, a name, `*.example.com`, `@netgroup`, or `*`."""
    read_only: bool
    root_squash: bool
    """Root of the client counts as nobody."""
    top: bool
    """NFS 4 clients find it as `/` (`fsid=0`)."""


class Client(NamedTuple):
    """Who asks an NFS server."""

    addresses: frozenset[str]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Exports(HostFact):
    """What the host exports."""

    probes: ClassVar[tuple[Probe, ...]] = (EXPORTS,)
    exports: tuple[Export, ...]

    def folder(self, export: str) -> str:
        """The folder on the server that a client's mount of `export` leads to."""
        if any(within(export, entry.path) for entry in self.exports):
            return export
        top = next((entry.path for entry in self.exports if entry.top), "")
        return f"{top.rstrip('/')}/{export.strip('/')}".rstrip("/") if top else export

    def to(self, folder: str, client: Client, strangers: frozenset[str] = frozenset()) -> tuple[Export, ...]:
        """How the folder is exported to that client: the entries of which one holds. Empty: it is not.

        More than one where a netgroup, or a name that may or may not be the client's, decides; the names of
        `strangers` are not. A single host comes before a subnet, that before a pattern of names, a netgroup, everybody.
        """
        around = [entry for entry in self.exports if within(folder, entry.path)]
        deepest = max((len(entry.path) for entry in around), default=0)
        ranked = [(_match(entry, client, strangers), entry) for entry in around if len(entry.path) == deepest]
        certain = min((match.rank for match, _ in ranked if match and match.certain), default=_EVERYBODY)
        return tuple(entry for match, entry in ranked if match and match.rank <= certain)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`PATH CLIENT(OPTIONS)`, where exportfs puts a long path on a line of its own. Nothing at all: no exports."""
        text = said.text(EXPORTS)
        found: list[Export] = []
        path = ""
        for line in text.splitlines():
            if not line.strip():
                continue
            if not line[0].isspace():
                path = line.split()[0]
                line = line[len(path) :]
            if not path.startswith("/"):
                raise Unavailable(EXPORTS, f"not understood: {visible(path or line, 120)}")
            for client, options in re.findall(r"(\S+?)\(([^()]*)\)", line):
                found.append(_export(path, "*" if client == "<world>" else client, options.split(",")))
        return cls(tuple(sorted(found)))


def _export(path: str, client: str, options: list[str]) -> Export:
    """The last word counts; read-only, and root squashed, where nothing is said."""

    def last(*words: str) -> str:
        return next((option for option in reversed(options) if option in words), words[0])

    return Export(
        path=re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path),
        client=client,
        read_only=last("ro", "rw") == "ro",
        root_squash=last("root_squash", "no_root_squash") == "root_squash"
        or last("no_all_squash", "all_squash") == "all_squash",
        top="fsid=0" in options or "fsid=root" in options,
    )


class _Match(NamedTuple):
    """How particular an export is about a client, and whether it is certain that it is for this one."""

    rank: int
    certain: bool


_HOST, _SUBNET, _PATTERN, _NETGROUP, _EVERYBODY = range(5)


def _match(export: Export, client: Client, strangers: frozenset[str]) -> _Match | None:
    """None: the export is for others."""
    wanted = export.client.lower()
    if wanted == "*":
        return _Match(_EVERYBODY, True)
    if wanted in client.names:
        return _Match(_HOST, True)
    if wanted.startswith("@"):
        return _Match(_NETGROUP, False)
    if "*" in wanted or "?" in wanted:
        return _Match(_PATTERN, any(fnmatchcase(name, wanted) for name in client.names))
    try:
        subnet = ipaddress.ip_network(wanted, strict=False)
    except ValueError:  # a name: another host's, or one that this client has on another network
        return None if wanted in strangers else _Match(_HOST, False)
    return _Match(_SUBNET, True) if any(ipaddress.ip_address(ip) in subnet for ip in client.addresses) else None


@dataclass(frozen=True, slots=True)
class NfsClient(HostFact):
    """Whether the host can mount NFS at all."""

    probes: ClassVar[tuple[Probe, ...]] = (CLIENT,)
    installed: bool

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`yes` or `no`."""
        return cls({"yes": True, "no": False}[said.text(CLIENT).strip()])


@dataclass(frozen=True, slots=True)
class NfsUse(HostFact):
    """The host's part in NFS: who it is to others, what it serves, what it mounts, and where its guests' images lie."""

    probes: ClassVar[tuple[Probe, ...]] = (
        *(ADDRESSES, HOSTNAME, LIBVIRT_NAME, FQDN, OWN_RESOLUTION, EXPORTS, *Mounts.probes),
        *(GUESTS, XML, XML_INACTIVE, POOLS, POOLS_ACTIVE),
    )
    client: Client
    exports: Exports
    mounts: tuple[tuple[str, Nfs], ...]
    """Path and what is mounted there by NFS."""
    images: tuple[tuple[str, str], ...]
    """Name of a running guest, path of a disk that it writes to."""

    def serves(self, mount: Nfs) -> bool:
        """That mount comes from this host: by the address that the server's name had, else by the name."""
        if mount.address is None:
            return mount.server in self.client.names
        return _plain(mount.address) in self.client.addresses

    def guests_at(self, folder: str) -> frozenset[str]:
        """The running guests with a disk below that folder."""
        return frozenset(name for name, path in self.images if within(path, folder))

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the facts of the same names."""
        names = OwnNames.parse(said)
        called = {name.lower() for name in (names.hostname, names.libvirt, names.fqdn) if name}
        return cls(
            client=Client(
                addresses=frozenset(_plain(own.ip) for own in OwnAddresses.parse(said).addresses),
                names=frozenset(called | {name.partition(".")[0] for name in called} - {"localhost"}),
            ),
            exports=Exports.parse(said),
            mounts=tuple((mount.path, mount.nfs) for mount in Mounts.parse(said).mounts if mount.nfs),
            images=tuple(sorted(set(_images(said)))),
        )


def _plain(address: str) -> str:
    return str(ipaddress.ip_address(address))


def _images(said: Said) -> Iterator[tuple[str, str]]:
    pools = Pools.parse(said)
    for guest in read_guests(said):
        for disk in GuestDisks.parse(guest).disks if guest.active else ():
            try:
                path = None if disk.readonly else disk_path(disk, pools)
            except Unavailable:
                if pools.unread:
                    raise
                continue  # a LUN, wherever libvirt finds it, is no file of an NFS server
            if path:
                yield guest.guest.name, path
