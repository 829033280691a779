"""What a host says of its storage: mounts, pools, and the state of the paths that guests name."""

from hashlib import sha256

from audit.transports import Records
from scripts.sample_fleets.description import Answer, Fleet, Host, Lun, stable_uuid
from scripts.sample_fleets.machines import QEMU
from scripts.sample_fleets.network import mark

IMAGES = "/var/lib/libvirt/images"
NVRAM = "/var/lib/libvirt/qemu/nvram"
OVMF = "/usr/share/edk2/ovmf"
_ROOT, _SRV, _DEV, _FIRST_NFS = (253, 0), (253, 4), (0, 5), 52
_SYSTEM_FILES = {QEMU: 0o755, f"{OVMF}/OVMF_CODE.secboot.fd": 0o644, f"{OVMF}/OVMF_VARS.secboot.fd": 0o644}
# Folders whose owner or mode is not root's 0755.
_FOLDERS = {
    IMAGES: (0o711, 0),
    "/var/lib/libvirt/qemu": (0o751, 107),
    NVRAM: (0o755, 107),
    "/var/lib/libvirt": (0o755, 0),
    "/var/lib/libvirt/boot": (0o711, 0),
}
LOCAL_EXT4 = "/srv/vm"
_VARIABLES = 540_672


def mountinfo(host: Host) -> Answer:
    """/proc/self/mountinfo."""
    lines = [
        "21 66 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:2 - sysfs sysfs rw,seclabel",
        "22 66 0:5 / /dev rw,nosuid shared:8 - devtmpfs devtmpfs rw,seclabel,size=4096k,nr_inodes=65914201,mode=755",
        "23 66 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw",
        "26 21 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,seclabel,nsdelegate",
        "28 66 0:26 / /run rw,nosuid,nodev shared:13 - tmpfs tmpfs rw,seclabel,size=105463848k,nr_inodes=819200",
        "66 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/rhel-root rw,seclabel,attr2,inode64,logbufs=8,noquota",
        "91 66 259:2 / /boot rw,relatime shared:48 - xfs /dev/nvme0n1p2 rw,seclabel,attr2,inode64,logbufs=8,noquota",
        "94 91 259:1 / /boot/efi rw,relatime shared:50 - vfat /dev/nvme0n1p1 rw,fmask=0077,dmask=0077,codepage=437",
        f"97 66 253:4 / {LOCAL_EXT4} rw,relatime shared:52 - ext4 /dev/mapper/rhel-vm rw,seclabel",
    ]
    for number, mount in enumerate(host.nfs):
        kind = "nfs4" if mount.version.startswith("4") else "nfs"
        locks = "" if kind == "nfs" else f"clientaddr={host.address},"
        if kind == "nfs":
            locks = f"mountaddr={mount.server},mountvers=3,mountport=20048,mountproto=tcp,"
        options = (
            f"rw,vers={mount.version},rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,"
            f"sec=sys,{locks}local_lock=none,addr={mount.server}"
        )
        place = f"0:{_FIRST_NFS + number} / {mount.target}"
        lines.append(
            f"{310 + number} 66 {place} {mount.options} shared:{160 + number} - {kind} {mount.source} {options}"
        )
    return Answer("\n".join(lines) + "\n")


def selinux(_host: Host) -> Answer:
    """Enforcing, and what guests may use."""
    return Answer("enforce 1\nvirt_use_nfs --> on\nvirt_use_samba --> off\nvirt_use_fusefs --> off\n")


def users(_host: Host) -> Answer:
    """The accounts that QEMU may run as."""
    return Answer(
        "qemu uid=107(qemu) gid=107(qemu) groups=107(qemu),36(kvm)\nroot uid=0(root) gid=0(root) groups=0(root)\n"
    )


def pools_active(host: Host) -> Answer:
    """The one pool that every host has."""
    return Answer(f"{_pool_uuid(host)}\n\n")


def _pool_uuid(host: Host) -> str:
    return stable_uuid("pool", host.name)


def pools(host: Host) -> Answer:
    """Its XML."""
    stamp, uuid = mark(host, "storage.pools"), _pool_uuid(host)
    return Answer(
        f"{stamp}\n{stamp} {uuid}\n<pool type='dir'>\n  <name>default</name>\n  <uuid>{uuid}</uuid>\n"
        "  <capacity unit='bytes'>21990232555520</capacity>\n  <allocation unit='bytes'>9895604649984</allocation>\n"
        "  <available unit='bytes'>12094627905536</available>\n  <source>\n  </source>\n  <target>\n"
        f"    <path>{IMAGES}</path>\n    <permissions>\n      <mode>0711</mode>\n      <owner>0</owner>\n"
        "      <group>0</group>\n      <label>system_u:object_r:nfs_t:s0</label>\n    </permissions>\n  </target>\n"
        f"</pool>\n\n{stamp} end\n"
    )


def secrets(_host: Host) -> Answer:
    """None are defined."""
    return Answer("\n")


# The state of paths ---------------------------------------------------------------------------------------------


def free(records: Records) -> Answer:
    """`df -P -k`: all on one file system with room for a few images."""
    head = "Filesystem     1024-blocks      Used Available Capacity Mounted on"
    line = "/dev/vda2        209612800 104806400 104806400      50% /"
    return Answer("".join(f"record {number}\n{head}\n{line}\n" for number, _ in records))


def portals(_host: Host, _fleet: Fleet, records: Records) -> Answer:
    """All storage in the network takes connections."""
    return Answer("".join(f"{number} 0 \n" for number, _, _ in records))


def samples(host: Host, fleet: Fleet, records: Records) -> Answer:
    """An image of one name is the same wherever it is."""
    lines = []
    for number, path in records:
        there = "= whole" in _Path(host, fleet, path).record(number)
        words = f"{int(sha256(path.encode()).hexdigest()[:8], 16)} 1048576"
        lines.append(f"{number} {words} {words}\n" if there else f"{number} none\n")
    return Answer("".join(lines))


def volumes(host: Host, _fleet: Fleet, records: Records) -> Answer:
    """Every pool knows its volumes."""
    stamp = mark(host, "storage.volumes")
    told = "".join(f"{stamp} {number}\n{IMAGES}/{volume}\n\n" for number, _, volume in records)
    return Answer(f"{stamp}\n{told}{stamp} end\n")


def paths(host: Host, fleet: Fleet, records: Records) -> Answer:
    """Every folder on the way to each path, and what is at its end."""
    return Answer("".join(_Path(host, fleet, path).record(number) for number, path in records))


class _Path:
    """One path on one host."""

    def __init__(self, host: Host, fleet: Fleet, path: str) -> None:
        self.host, self.fleet, self.path = host, fleet, path
        self.lun = next((lun for lun in host.luns if path in lun_paths(lun)), None)

    def record(self, number: str) -> str:
        parts = [part for part in self.path.split("/") if part]
        folders = ["/" + "/".join(parts[:at]) for at in range(len(parts))]
        lines = [f"record {number}"]
        for folder in folders:
            if not self._folder_exists(folder):
                return "\n".join([*lines, "= missing", ""])
            lines.append(self._folder(folder))
        if not self._exists():
            return "\n".join([*lines, "= missing", ""])
        return "\n".join([*lines, *self._end(), ""])

    def _mount(self, path: str) -> tuple[tuple[int, int], str, str]:
        """Device number, statfs type and statfs identity of the file system under a path."""
        for number, mount in enumerate(self.host.nfs):
            if path == mount.target or path.startswith(mount.target + "/"):
                return (0, _FIRST_NFS + number), "6969", "0"
        if path == LOCAL_EXT4 or path.startswith(LOCAL_EXT4 + "/"):
            return _SRV, "ef53", sha256(self.host.name.encode()).hexdigest()[:16]
        if path.startswith("/dev"):
            return _DEV, "1021994", "0"
        return _ROOT, "58465342", "fd0000000000"

    def _inode(self, path: str) -> int:
        """The same on all hosts where an NFS server says it."""
        device = self._mount(path)[0]
        server = next((m.source for n, m in enumerate(self.host.nfs) if device == (0, _FIRST_NFS + n)), self.host.name)
        return int(sha256(f"{server}/{path}".encode()).hexdigest()[:8], 16)

    def _folder_exists(self, folder: str) -> bool:
        if folder in ("/", "/dev", "/dev/mapper", "/dev/disk", "/dev/disk/by-id", *_FOLDERS, LOCAL_EXT4):
            return True
        below = folder + "/"
        known = [*_SYSTEM_FILES, *_FOLDERS, LOCAL_EXT4, *(m.target for m in self.host.nfs), *self._files()]
        return any(path.startswith(below) or path == folder for path in known)

    def _files(self) -> list[str]:
        """Beyond the system's own: on shared storage what any guest names, locally what this host has."""
        shared = [m.target + "/" for m in self.host.nfs]
        named = [p for h in self.fleet.hosts for g in h.guests for d in g.disks for p in (d.source, d.backing) if p]
        mine = [f"{NVRAM}/{guest.name}_VARS.fd" for guest in self.host.guests if guest.uefi]
        return [*(p for p in named if any(p.startswith(s) for s in shared)), *self.host.files, *mine]

    def _exists(self) -> bool:
        return self.path in _SYSTEM_FILES or self.path in self._files() or self.lun is not None

    def _folder(self, path: str) -> str:
        mode, owner = _FOLDERS.get(path, (0o755, 0))
        return self._stat(path, 0o40000 | mode, owner, 4096)

    def _stat(self, path: str, mode: int, owner: int, size: int) -> str:
        major, minor = self._mount(path)[0]
        return f"{mode:x} {owner} {owner} {size} {major << 8 | minor} {self._inode(path)}"

    def _end(self) -> list[str]:
        _, kind, identity = self._mount(self.path)
        fs = f"fs {kind} {identity}"
        if self.lun:
            last = self._stat(self.path, 0o60660, 107, 0)
            wwid = self.lun.wwid
            paths_below = [f"id 1 0 0 naa.{wwid[1:]}"] * 2
            return [last, "= whole", fs, f"id 0 0 2 mpath-{wwid}", *paths_below]
        if self.path in _SYSTEM_FILES:
            size = _VARIABLES if "VARS" in self.path else 1_966_080
            return [self._stat(self.path, 0o100000 | _SYSTEM_FILES[self.path], 0, size), "= whole", fs]
        running = any(
            self.path in (disk.source, disk.backing)
            for host in self.fleet.hosts for guest in host.guests if guest.active for disk in guest.disks
        )  # fmt: skip
        owner = 107 if running or self.path.startswith(NVRAM) else 0
        mode = 0o100644 if self.path.endswith(".iso") else 0o100600
        size = _VARIABLES if self.path.startswith(NVRAM) else 42_951_376_896
        return [self._stat(self.path, mode, owner, size), "= whole", fs]


def lun_paths(lun: Lun) -> tuple[str, ...]:
    """The names under which a LUN is found in /dev."""
    names = (f"/dev/disk/by-id/dm-uuid-mpath-{lun.wwid}", f"/dev/disk/by-id/wwn-0x{lun.wwid[1:]}")
    return (*names, f"/dev/mapper/{lun.alias or lun.wwid}")
