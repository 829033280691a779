"""libvirt's storage pools and secrets."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.guest_devices import Disk
from audit.facts.virsh import UUID, answers, document, for_each
from audit.text import visible

POOLS_ACTIVE = Probe("storage.pools_active", "virsh -r -q -c qemu:///system pool-list --uuid", seconds=40)
POOLS = Probe(
    "storage.pools",
    for_each("pool-list --all --uuid", "pool-dumpxml $u"),
    seconds=60,
    hand="virsh -r -c qemu:///system pool-dumpxml POOL",
)
SECRETS = Probe("storage.secrets", "virsh -r -q -c qemu:///system secret-list", seconds=40)


@dataclass(frozen=True, slots=True)
class Pool:
    """One storage pool."""

    name: str
    type: str
    """dir, fs, netfs, logical, iscsi, rbd, …"""
    active: bool
    path: str | None
    """Where its volumes are found."""


_NETWORK_POOLS = frozenset({"rbd", "gluster", "sheepdog", "iscsi-direct"})
_NAMED_BY_PATH = frozenset({"dir", "fs", "netfs", "logical", "vstorage", "zfs"})
"""Their volumes are called what their files or devices are called; a LUN is `unit:0:0:1`, and only libvirt knows
where that is."""


@dataclass(frozen=True, slots=True)
class Pools(HostFact):
    """Every storage pool, active or not."""

    probes: ClassVar[tuple[Probe, ...]] = (POOLS, POOLS_ACTIVE)
    pools: tuple[Pool, ...]
    unread: str = ""
    """Why they could not be listed, or not all of them. Only guests with volumes depend on it."""

    def find(self, name: str) -> Pool | None:
        """The pool of that name. Raises `Unavailable` if it might be one that could not be read."""
        found = next((pool for pool in self.pools if pool.name == name), None)
        if found is None and self.unread:
            raise Unavailable(POOLS, self.unread)
        return found

    def path_of(self, disk: Disk) -> str | None:
        """Where a disk of type `volume` lies on this host; None for a network disk, or where there is no such pool.
        Raises `Unavailable` where that is not known."""
        name, _, volume = (disk.source or "").partition("/")
        pool = self.find(name)
        if pool is None or pool.type in _NETWORK_POOLS:
            return None
        if pool.path is None or pool.type not in _NAMED_BY_PATH:
            raise Unavailable(
                POOLS, f"where {visible(volume, 60)} of the {visible(pool.type, 20)} pool {visible(name, 60)} lies"
            )
        return f"{pool.path.rstrip('/')}/{volume}"

    @property
    def network(self) -> frozenset[tuple[str, str]]:
        """Name and type of the active pools that lead to storage in the network, the same from every host."""
        kinds = _NETWORK_POOLS | {"iscsi"}
        return frozenset((pool.name, pool.type) for pool in self.pools if pool.active and pool.type in kinds)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From each pool's XML and the list of the active ones."""
        try:
            active = frozenset(said.text(POOLS_ACTIVE).split())
            found = answers(said, POOLS)
        except Unavailable as why:
            return cls((), why.reason)
        pools, unread = [], ""
        for uuid, answer in found.items():
            try:
                root = document(POOLS, "pool", uuid, answer)
            except Unavailable as why:
                unread = why.reason
                continue
            path = (root.findtext("target/path") or "").strip() or None
            pools.append(Pool(root.findtext("name") or "", root.get("type", ""), uuid in active, path))
        if not active <= found.keys():
            unread = unread or "pools came while they were being listed"
        return cls(tuple(sorted(pools, key=lambda pool: pool.name)), unread)


def disk_path(disk: Disk, pools: Pools) -> str | None:
    """The disk's path on the host whose pools these are; None where it has none. Raises `Unavailable`."""
    return disk.source if disk.local else pools.path_of(disk) if disk.pool else None


@dataclass(frozen=True, slots=True)
class Secrets(HostFact):
    """What libvirt's secrets can be asked for by: their UUIDs and usages. Their values are never read."""

    probes: ClassVar[tuple[Probe, ...]] = (SECRETS,)
    names: frozenset[str]
    unread: str = ""
    """Why they could not be listed. Only guests that use secrets depend on it."""
    storage: frozenset[str] = frozenset()
    """UUIDs of those that open network storage: of Ceph users and iSCSI initiators."""

    def has(self, name: str) -> bool:
        """Whether there is a secret of that UUID or usage. Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(SECRETS, self.unread)
        return name in self.names

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From ` UUID   TYPE USAGE`, or ` UUID   Unused`."""
        try:
            lines = said.lines(SECRETS)
        except Unavailable as why:
            return cls(frozenset(), why.reason)
        names: set[str] = set()
        storage: set[str] = set()
        for line in lines:
            uuid, _, usage = line.strip().partition(" ")
            if not UUID.fullmatch(uuid):
                raise Unavailable(SECRETS, f"not understood: {visible(line, 120)}")
            names.add(uuid)
            match = re.fullmatch(r"([a-z]+) (.+)", usage.strip())
            if match:
                names.add(match[2])
                storage.update({uuid} if match[1] in {"ceph", "iscsi"} else ())
        return cls(frozenset(names), storage=frozenset(storage))
