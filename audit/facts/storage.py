"""What a host's storage is: mounts, what makes a file on two hosts the same file, the hypervisor's user, SELinux."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.paths import MOUNTS_MARK, PATHS, PathState
from audit.facts.qemu_conf import QemuConf
from audit.text import visible

MOUNTINFO = Probe("storage.mountinfo", "cat /proc/self/mountinfo")
SELINUX = Probe(
    "storage.selinux",
    """\
if [ -e /sys/fs/selinux/enforce ]; then echo "enforce $(cat /sys/fs/selinux/enforce)"; else echo absent; exit 0; fi
for name in virt_use_nfs virt_use_samba virt_use_fusefs; do
    getsebool "$name" 2>/dev/null || echo "$name $(cat "/sys/fs/selinux/booleans/$name")"
done
exit 0""",
    hand="getenforce; getsebool virt_use_nfs virt_use_samba",
)
USERS = Probe(
    "storage.users",
    """\
conf=$($sudo sed -n 's/^[[:space:]]*user[[:space:]]*=[[:space:]]*"+\\{0,1\\}\\([A-Za-z0-9_.-]*\\)".*/\\1/p' \\
    /etc/libvirt/qemu.conf 2>/dev/null | tail -n 1)
for user in $conf qemu libvirt-qemu root; do
    if getent passwd "$user" >/dev/null; then echo "$user $(id "$user")"; fi
done""",
    hand="id qemu; id libvirt-qemu",
)

_PSEUDO = frozenset(
    {
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"),
        *("fusectl", "hugetlbfs", "mqueue", "nsfs", "nfsd", "proc", "pstore", "ramfs", "rootfs", "rpc_pipefs", "sysfs"),
        *("securityfs", "selinuxfs", "squashfs", "tracefs", "fuse.lxcfs", "fuse.gvfsd-fuse", "fuse.portal"),
    }
)


_TUNNEL = re.compile(r"127\..*|::1|localhost(\..*)?")


@dataclass(frozen=True, slots=True)
class Nfs:
    """An NFS mount's own."""

    server: str
    export: str
    address: str | None
    """What the server's name resolved to when it was mounted."""
    version: str | None
    """3, 4.0, 4.1, 4.2."""
    locks: Literal["server", "local", "unknown"]
    """Where POSIX locks are kept; `local`: other clients do not see them."""

    def same_server(self, other: Self) -> bool:
        """Both names, or both addresses, are the same; a tunnel's end on the host itself says nothing."""
        if any(_TUNNEL.fullmatch(end or "") for end in (self.server, self.address)):
            return False
        return self.server == other.server or (self.address is not None and self.address == other.address)

    def overlaps(self, other: Self) -> bool:
        """One of the two exports lies within the other, as paths."""
        return within(self.export, other.export) or within(other.export, self.export)


def within(path: str, folder: str) -> bool:
    """Whether `path` is the folder or lies below it, as paths."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system."""

    path: str
    device: str
    """major:minor"""
    root: str
    """Which folder of the file system is mounted."""
    type: str
    source: str
    read_only: bool
    options: frozenset[str]
    nfs: Nfs | None = field(init=False, compare=False)
    """What it is as an NFS mount; None: it is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nfs", self._nfs())  # asked for by many checks, about many guests

    def option(self, name: str) -> str | None:
        """The value of `name=value`."""
        return next((text.partition("=")[2] for text in self.options if text.startswith(f"{name}=")), None)

    def _nfs(self) -> Nfs | None:
        if self.type not in {"nfs", "nfs4"}:
            return None
        server, _, export = self.source.rpartition(":/")
        version = self.option("vers")
        local = self.option("local_lock")
        locks: Literal["server", "local", "unknown"] = "unknown"
        if "nolock" in self.options or local in {"all", "posix"}:
            locks = "local"
        elif self.type == "nfs4" or local in {"none", "flock"}:
            locks = "server"
        return Nfs(server.strip("[]").lower(), "/" + export.strip("/"), self.option("addr"), version, locks)


@dataclass(frozen=True, slots=True)
class Mounts(HostFact):
    """The file systems that paths lead to; of several mounted on one path, the one on top."""

    probes: ClassVar[tuple[Probe, ...]] = (MOUNTINFO, PATHS)
    mounts: tuple[Mount, ...]

    def of(self, state: PathState, path: str = "/") -> Mount | None:
        """The mount that a path's file system is; None where the device number tells nothing, as on btrfs.

        Of several mounts of one file system the one that `path` leads through, unless it is a symbolic link.
        """
        found = [mount for mount in self.mounts if mount.device == state.device]
        through = [mount for mount in found if within(path, mount.path)]
        return max(through, key=lambda mount: len(mount.path)) if through else next(iter(found), None)

    @property
    def shared(self) -> tuple[Mount, ...]:
        """Those that other hosts may see too."""
        return tuple(mount for mount in self.mounts if mount.type in SHARED_TYPES)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From mountinfo(5): as it was, and what of the network was mounted when the guests' paths were looked at."""
        mounts: dict[str, Mount] = {}
        for line in [*said.lines(MOUNTINFO), *_mounted_later(said)]:
            head, dash, tail = line.partition(" - ")
            fields, rest = head.split(" "), tail.split(" ")
            if not dash or len(fields) < 6 or len(rest) < 2 or not re.fullmatch(r"\d+:\d+", fields[2]):
                raise Unavailable(MOUNTINFO, f"not understood: {visible(line, 120)}")
            path = _plain(fields[4])
            options = frozenset((rest[2] if len(rest) > 2 else "").split(","))
            read_only = "ro" in fields[5].split(",") or "ro" in options
            mounts[path] = Mount(path, fields[2], _plain(fields[3]), rest[0], _plain(rest[1]), read_only, options)
        if not mounts:
            raise Unavailable(MOUNTINFO, "no mounts")
        return cls(tuple(mounts[path] for path in sorted(mounts) if mounts[path].type not in _PSEUDO))


def _mounted_later(said: Said) -> list[str]:
    """The lines of network file systems in what the look at the paths ended with; none where nobody looked."""
    try:
        later = said.text(PATHS, ok=(0, 123)).partition(MOUNTS_MARK)[2]
    except Unavailable:
        return []
    return [line for line in later.splitlines() if line.partition(" - ")[2].partition(" ")[0] in SHARED_TYPES]


def _plain(text: str) -> str:
    """Without mountinfo's octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


# What libvirt takes for shared, by statfs(2)'s type (virfile.c virFileIsSharedFSType).
_NFS = 0x6969
_FUSE = 0x65735546
_SHARED_MAGIC = {
    _NFS: "NFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x5346414F: "AFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x00C36400: "CephFS",
    0x47504653: "GPFS",
    0x61636673: "ACFS",
    0x19830326: "BeeGFS",
}
_SHARED_FUSE = {"fuse.glusterfs": "GlusterFS", "fuse.quobyte": "Quobyte"}
_SMB = frozenset({"SMB", "CIFS", "SMB2"})
_CLUSTER = frozenset({"GFS2", "OCFS2", "CephFS", "GlusterFS"})
SHARED_TYPES = frozenset(
    {"nfs", "nfs4", "gfs2", "ocfs2", "afs", "cifs", "smb3", "ceph", "gpfs", "acfs", "beegfs", *_SHARED_FUSE}
)
_LOCAL_NAMES = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x3153464A: "jfs",
    0xCA451A4E: "bcachefs",
    _FUSE: "FUSE",
}


class Place(NamedTuple):
    """Where a path lies on one host."""

    state: PathState
    mount: Mount | None

    @property
    def shared(self) -> str | None:
        """The name of the shared file system that it lies on; None: libvirt takes it for local."""
        if self.state.magic == _FUSE and self.mount is not None:
            return _SHARED_FUSE.get(self.mount.type)
        return _SHARED_MAGIC.get(self.state.magic or 0)

    @property
    def fuse(self) -> bool:
        """On a file system that a process of the host serves."""
        return self.state.magic == _FUSE

    @property
    def local(self) -> bool:
        """On a file system that is known to be one host's alone, not merely one that libvirt does not take for shared,
        as Lustre or VxFS."""
        return not self.fuse and self.state.magic in _LOCAL_NAMES

    @property
    def cluster(self) -> bool:
        """On a file system that keeps caches coherent between hosts."""
        return self.shared in _CLUSTER

    @property
    def fs(self) -> str:
        """The file system's name, for people."""
        if self.mount is not None:
            return self.mount.type
        return self.shared or _LOCAL_NAMES.get(self.state.magic or 0, f"type {self.state.magic or 0:#x}")

    @property
    def words(self) -> str:
        """The file system and where it comes from, for people."""
        if self.mount is None:
            return f"on {self.fs}"
        return f"on {self.fs} ({self.mount.source} at {self.mount.path})"


def same_file(here: Place, there: Place) -> bool | None:
    """Whether a file of the same path on two hosts is one file; None: neither proved.

    NFS gives every client the server's inode numbers, and so do cluster file systems. Another file system has a file
    of that number too: it proves nothing alone.
    """
    ours, theirs = here.state, there.state
    if here.mount and there.mount and here.mount.nfs and there.mount.nfs:
        same_root = here.mount.root == there.mount.root
        return _same_nfs_file(here.mount.nfs, there.mount.nfs, ours, theirs, same_root)
    if here.shared is None or here.shared != there.shared:
        return None
    same_inode, same_fsid = ours.inode == theirs.inode, ours.fsid == theirs.fsid
    if here.shared in {"GFS2", "OCFS2"}:  # mounted from a device, that may be called the same by chance
        return True if same_inode and same_fsid else None
    named = here.mount and there.mount and here.mount.source == there.mount.source
    if named and not same_inode:
        return _numbered_apart(here, there)
    return True if named or (same_inode and same_fsid and ours.fsid) else None


def _numbered_apart(here: Place, there: Place) -> bool | None:
    """Of one file system's name and two file numbers: another file, but where clients make up numbers of their own."""
    mounts = (here.mount, there.mount)
    numbers = (here.state.inode, there.state.inode)
    if here.shared in _SMB and any("noserverino" in mount.options for mount in mounts if mount):
        return (
            True
            if len({mount.root for mount in mounts if mount}) == 1 and here.state.size == there.state.size
            else None
        )
    # 64-bit numbers are folded into 32 bits for clients that ask for it (ino32, enable-ino32).
    return None if min(numbers) < 2**32 <= max(numbers) else False


def _same_nfs_file(here: Nfs, there: Nfs, ours: PathState, theirs: PathState, same_root: bool) -> bool | None:
    same_server, same_export = here.same_server(there), here.export == there.export and same_root
    if ours.inode != theirs.inode:
        return None if same_server and same_export else False
    if same_server and same_export:
        return True  # whatever the size: a guest's image grows while hosts are being asked
    # A server of several addresses is the same one, as far as that can be told from here; see nfs_same_server.
    proved = same_export or (same_server and here.overlaps(there))
    return True if proved and ours.size == theirs.size else None


@dataclass(frozen=True, slots=True)
class SharedFilesystems(HostFact):
    """What qemu.conf declares shared, whatever the file system's type."""

    probes: ClassVar[tuple[Probe, ...]] = QemuConf.probes
    folders: tuple[str, ...]
    unread: str = ""
    """Why qemu.conf could not be read; matters only for what is not shared by its type."""

    def declare(self, path: str) -> bool:
        """Whether `path` lies below one of them. Raises `Unavailable` if qemu.conf was not readable."""
        if self.unread:
            raise Unavailable(self.probes[0], self.unread)
        return any(within(path, folder) for folder in self.folders)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From qemu.conf."""
        try:
            return cls(QemuConf.parse(said).shared_filesystems)
        except Unavailable as why:
            return cls((), why.reason)


@dataclass(frozen=True, slots=True)
class Selinux(HostFact):
    """SELinux, as far as guests' storage is concerned."""

    probes: ClassVar[tuple[Probe, ...]] = (SELINUX,)
    enforcing: bool
    booleans: tuple[tuple[str, bool], ...]

    def allows(self, boolean: str) -> bool:
        """Whether the boolean is on. Raises `Unavailable` if it could not be read."""
        for name, value in self.booleans:
            if name == boolean:
                return value
        raise Unavailable(SELINUX, f"{boolean} could not be read")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From selinuxfs and `getsebool`: `virt_use_nfs --> on`."""
        first, *lines = said.lines(SELINUX)
        if first.strip() == "absent":
            return cls(False, ())
        match = re.fullmatch(r"enforce ([01])", first.strip())
        if not match:
            raise Unavailable(SELINUX, f"not understood: {visible(first, 80)}")
        return cls(match[1] == "1", read_booleans(lines))


def read_booleans(lines: list[str]) -> tuple[tuple[str, bool], ...]:
    """`NAME --> on` (getsebool) and `NAME 1 1` (selinuxfs: current, pending); what is neither is left out."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"(\w+)(?: --> (on|off)| ([01]) [01])\s*", line)
        if match:
            found[match[1]] = match[2] == "on" or match[3] == "1"
    return tuple(sorted(found.items()))


class User(NamedTuple):
    """An account."""

    name: str
    uid: int
    gid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class HypervisorUser(HostFact):
    """The user that QEMU runs as."""

    probes: ClassVar[tuple[Probe, ...]] = (USERS, *QemuConf.probes)
    user: User
    configured: bool
    """False: the distribution's default, because qemu.conf does not say or could not be read."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The account that qemu.conf names, else `qemu` (Red Hat, SUSE), else `libvirt-qemu` (Debian)."""
        accounts = {user.name: user for user in map(_user, said.lines(USERS))}
        try:
            name = QemuConf.parse(said).user
        except Unavailable:
            name = None
        if name is not None:
            name = name.lstrip("+")
            known = next((user for user in accounts.values() if name in {user.name, str(user.uid)}), None)
            if known is None:
                raise Unavailable(USERS, f"qemu.conf names the user {visible(name, 40)}, who was not looked up")
            return cls(known, True)
        for default in ("qemu", "libvirt-qemu"):
            if default in accounts:
                return cls(accounts[default], False)
        raise Unavailable(USERS, "neither qemu nor libvirt-qemu is an account here")


def _user(line: str) -> User:
    """`qemu uid=107(qemu) gid=107(qemu) groups=107(qemu),36(kvm)`."""
    match = re.fullmatch(r"(\S+) uid=(\d+)\S* gid=(\d+)\S* groups=(\S.*)", line)
    if not match:
        raise Unavailable(USERS, f"not understood: {visible(line, 120)}")
    groups = frozenset(int(number) for number in re.findall(r"(?:^|,)(\d+)", match[4]))
    return User(match[1], int(match[2]), int(match[3]), groups)
