"""What the paths that guests name are on a host: there or not, who may pass, on which storage."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.firmware import GuestFirmware
from audit.facts.guest import GuestMachine
from audit.facts.guest_devices import Disk, GuestDevices, GuestDisks, GuestFiles
from audit.facts.guest_screens import GuestScreens
from audit.facts.pools import Pools
from audit.facts.tpm import GuestTpmState
from audit.text import visible

_LONGEST = 2048  # bytes; 50 such paths fit into what xargs takes at once, so that no record is torn
_DEEPEST = 64

MOUNTS_MARK = "\nmounts\n"
"""In the answer to PATHS: after it stands mountinfo, with what was mounted by looking (autofs, NFS within NFS)."""


def folder_of(path: str) -> str | None:
    """The folder that the path is in; None: none that can be asked about."""
    folder = path.rstrip("/").rpartition("/")[0]
    return folder if askable(folder) else None


def askable(path: str) -> bool:
    """A path that can be asked about, and means the same to everyone."""
    parts = path.split("/")
    return (
        path.startswith("/")
        and len(path.encode("utf-8", "replace")) <= _LONGEST
        and len(parts) <= _DEEPEST
        and ".." not in parts
    )


def _named(facts: Facts, host: str, peers: Sequence[str]) -> Iterator[str]:
    """Every path that the cluster's guests name, what can stop most guests first."""
    hosts = sorted({host, *peers})
    for _, machine in facts.each_guest(hosts, GuestMachine):
        yield from filter(None, (machine.emulator, machine.loader))
    pools = facts.of(host, Pools)
    for _, disks in facts.each_guest(hosts, GuestDisks):
        for disk in disks.disks:
            if disk.local and disk.source:
                yield disk.source
            elif disk.pool and not isinstance(pools, Unavailable):
                yield from _volume(disk, pools)
    for _, disks in facts.each_guest(hosts, GuestDisks):
        for disk in disks.disks:
            yield from disk.backing
    for _, machine in facts.each_guest(hosts, GuestMachine):
        yield from filter(None, [machine.nvram])
    for _, firmware in facts.each_guest(hosts, GuestFirmware):
        yield from filter(None, [firmware.template])
    yield from _beside(facts, hosts)


def _beside(facts: Facts, hosts: Sequence[str]) -> Iterator[str]:
    for _, devices in facts.each_guest(hosts, GuestDevices):
        yield from (path for _, path in devices.serial_paths)
    for _, files in facts.each_guest(hosts, GuestFiles):
        yield from (file.path for file in files.files)
    for _, screens in facts.each_guest(hosts, GuestScreens):
        yield from (screen.path for screen in screens.paths)
    for _, tpm in facts.each_guest(hosts, GuestTpmState):
        yield from filter(None, [tpm.path])


def _volume(disk: Disk, pools: Pools) -> Iterator[str]:
    try:
        path = pools.path_of(disk)
    except Unavailable:
        return
    if path:
        yield path


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    paths = dict.fromkeys(path for path in _named(facts, host, peers) if askable(path))
    return tuple((str(number), path) for number, path in enumerate(paths))


# One line for every folder on the way and one for the last component, as far as stat gets; then "=" and why it got no
# further. Where root is squashed by an NFS server, the hypervisor's own user may get further: "again" starts over.
# "may": what that user may do, access lists and all: come to it, read and write. "image": a qcow2 image's head.
PATHS = Question(
    "storage.paths",
    """\
$sudo xargs -0 -x -n 100 sh -c '
export LC_ALL=C
look() {
    { words=$($as timeout -s KILL 5 stat -L -c "%f %u %g %s %d %i" -- "$@" 2>&1 >&3); } 3>&1
    status=$?
    case $status:$words in
        0:*) end=whole ;;
        *"No such file or directory" | *"Not a directory") end=missing ;;
        *"Permission denied") end=denied ;;
        *) end=failed ;;
    esac
}
identify() {
    seen=-
    for file in "$1/dm/uuid" "$1/wwid" "$1/device/wwid" "$1/../wwid" "$1/../device/wwid"; do
        [ -r "$file" ] || continue
        seen=$(head -c 300 "$file" | tr -cd "A-Za-z0-9._:+-")
        break
    done
    part=0
    [ ! -r "$1/partition" ] || part=$(tr -cd 0-9 <"$1/partition")
    set -- "$1" "$2" "${seen:--}" "$part" "$1"/slaves/*
    [ -e "$5" ] && below=$(($# - 4)) || below=0
    echo "id $2 $4 $below $3"
    [ "$2" -lt 4 ] && [ "$below" -gt 0 ] || return 0
    depth=$(($2 + 1))
    shift 4
    for slave; do (identify "$slave" "$depth"); done
}
one() {
    number=$1 rest=$2 path= head= may=
    set -- /
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
        [ -z "$part" ] || { path=$path/$part; set -- "$@" "$path"; }
    done
    echo "record $number"
    as=
    look "$@"
    if [ "$end" = denied ] && [ -n "$hypervisor" ]; then
        as=$hypervisor
        echo again
        look "$@"
    fi
    echo "= $end"
    [ "$end" = whole ] || return 0
    $as timeout -s KILL 5 stat -f -c "fs %t %i" -- "${path:-/}"
    [ -z "$hypervisor" ] || may=$($hypervisor timeout -s KILL 5 sh -c "
        for right in e r w; do test -\\$right \\"\\$0\\" && printf \\$right; done; printf ." "${path:-/}")
    [ -z "$may" ] || echo "may $uid -${may%.}"
    [ ! -f "$path" ] || head=$($as timeout -s KILL 5 head -c 32 -- "$path" | od -An -v -tx1 | tr -d " \\n")
    case $head in
        514649fb*) echo "image $head" ;;
        ?*) echo "image -" ;;
    esac
    [ ! -b "$path" ] || {
        device=$(stat -L -c "0x%t 0x%T" -- "$path")
        identify "/sys/dev/block/$((${device% *})):$((${device#* }))" 0
    }
}
hypervisor=
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    conf() {
        sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*\\"+\\{0,1\\}\\([A-Za-z0-9_.-]*\\)\\".*/\\1/p" \\
            /etc/libvirt/qemu.conf 2>/dev/null | tail -n 1
    }
    group=$(conf group)
    for user in $(conf user) qemu libvirt-qemu; do
        uid=$(id -u "$user" 2>/dev/null) && gid=$(id -g "$user") || continue
        [ "$uid" != 0 ] || break
        [ -z "$group" ] || gid=$(getent group "$group" | cut -d: -f3)
        hypervisor="setpriv --reuid $uid --regid $gid --init-groups"
        break
    done
fi
while [ $# -ge 2 ]; do one "$1" "$2"; shift 2; done' paths
status=$?
echo mounts
cat /proc/self/mountinfo
exit "$status"
""",
    seconds=180,
    limit=16 * 1024 * 1024,
    ask=_ask,
    arity=2,
    maximum=3000,
    hand="namei -l PATH; stat -L PATH; stat -f PATH",
)

Kind = Literal["file", "folder", "block", "other"]
_KINDS: dict[int, Kind] = {0x8: "file", 0x4: "folder", 0x6: "block"}


class Component(NamedTuple):
    """One folder on the way, or the last component, symbolic links followed."""

    mode: int
    """Permission bits only."""
    uid: int
    gid: int


class Rights(NamedTuple):
    """What a user may do with what a path leads to: tried, so access lists count, too."""

    uid: int
    reach: bool
    read: bool
    write: bool


class Image(NamedTuple):
    """What the head of an image says."""

    format: Literal["qcow2", "other"]
    capacity: int
    """Of qcow2: the bytes that a guest sees; else 0."""


@dataclass(frozen=True, slots=True)
class PathState:
    """What one path is on one host."""

    exists: bool
    folder_exists: bool
    """All but the last component."""
    components: tuple[Component, ...]
    """From `/` on, as far as there are any."""
    kind: Kind | None
    size: int
    device: str | None
    """`major:minor` of the file system it lies on."""
    inode: int
    magic: int | None
    """statfs(2)'s file system type."""
    fsid: int
    """statfs(2)'s identity; 0 where the file system has none, as NFS."""
    identity: frozenset[str]
    """Of a block device: what its hardware and volume manager say it is, the same on every host that sees it.
    Empty: not known."""
    rights: Rights | None = None
    """What QEMU's user may do there; None: not tried."""
    image: Image | None = None
    """Of a file: what its head says of it; None: not known."""

    def searchable(self, uid: int, gids: frozenset[int]) -> bool:
        """Whether the mode bits let that user pass every folder on the way; access lists are not seen."""
        return all(_may_search(folder, uid, gids) for folder in self.components[:-1])


def _may_search(folder: Component, uid: int, gids: frozenset[int]) -> bool:
    if uid == 0:
        return True
    shift = 6 if folder.uid == uid else 3 if folder.gid in gids else 0
    return bool(folder.mode >> shift & 1)


@dataclass(frozen=True, slots=True)
class Paths(HostFact):
    """The state of every path that was asked about."""

    probes: ClassVar[tuple[Probe, ...]] = (PATHS,)
    paths: tuple[str, ...]
    """Sorted."""
    states: tuple[PathState | str, ...]
    """In the same order; a string is why nothing is known."""
    unread: str = ""
    """Why nothing at all is known."""

    def find(self, path: str) -> PathState | Unavailable:
        """The path's state, or why it is not known."""
        if self.unread:
            return Unavailable(PATHS, self.unread)
        at = bisect_left(self.paths, path)
        if at == len(self.paths) or self.paths[at] != path:
            return Unavailable(PATHS, f"not asked about {visible(path, 120)}")
        state = self.states[at]
        return Unavailable(PATHS, f"{visible(path, 120)}: {state}") if isinstance(state, str) else state

    def at(self, path: str) -> PathState:
        """The path's state. Raises `Unavailable`."""
        state = self.find(path)
        if isinstance(state, Unavailable):
            raise state
        return state

    def devices(self) -> Iterator[tuple[str, frozenset[str]]]:
        """The block devices that tell who they are: path, identity."""
        for path, state in zip(self.paths, self.states, strict=True):
            if not isinstance(state, str) and state.kind == "block" and state.identity:
                yield path, state.identity

    @classmethod
    def parse(cls, said: Said) -> Self:
        """A path without an answer is not known; nothing of the paths themselves is printed by the host."""
        try:
            text = said.text(PATHS, ok=(0, 123))
        except Unavailable as why:
            return cls((), (), why.reason)
        blocks = _blocks(text.partition(MOUNTS_MARK)[0])
        found: dict[str, PathState | str] = {}
        for number, path in said.evidence(PATHS).arguments:
            lines = blocks.get(number)
            found[path] = "no answer" if lines is None else _state(lines, _depth(path))
        ordered = sorted(found.items())
        return cls(tuple(path for path, _ in ordered), tuple(state for _, state in ordered))


def _depth(path: str) -> int:
    return 1 + sum(1 for part in path.split("/") if part)


def _blocks(text: str) -> dict[str, list[str]]:
    blocks: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("record "):
            lines = blocks.setdefault(line.removeprefix("record "), [])
        elif lines is None:
            raise Unavailable(PATHS, f"not understood: {visible(line, 120)}")
        else:
            lines.append(line)
    return blocks


_ENDS = {
    "denied": "permission denied on the way; root privileges are needed to look",
    "failed": "the host could not look (the storage does not answer?)",
}


def _state(lines: list[str], depth: int) -> PathState | str:
    """One record's answer, or why it tells nothing."""
    if "again" in lines:
        lines = lines[lines.index("again") + 1 :]
    marks = [at for at, line in enumerate(lines) if line.startswith("= ")]
    if len(marks) != 1:
        return "the answer broke off"
    end = lines[marks[0]].removeprefix("= ")
    if end in _ENDS:
        return _ENDS[end]
    stats = [line.split() for line in lines[: marks[0]]]
    if any(len(fields) != 6 for fields in stats) or (end == "whole") != (len(stats) == depth) or not stats:
        return "the answer is not understood"
    components = tuple(Component(int(f[0], 16) & 0o7777, int(f[1]), int(f[2])) for f in stats)
    if end != "whole":
        folder = len(stats) == depth - 1 and int(stats[-1][0], 16) >> 12 == 0x4
        return PathState(False, folder, components, None, 0, None, 0, None, 0, frozenset())
    mode, _, _, size, device, inode = stats[-1]
    rest = [line.split() for line in lines[marks[0] + 1 :]]
    fs = next((fields for fields in rest if fields[:1] == ["fs"] and len(fields) == 3), None)
    if fs is None:
        return "the file system's type could not be read"
    return PathState(
        exists=True,
        folder_exists=True,
        components=components,
        kind=_KINDS.get(int(mode, 16) >> 12, "other"),
        size=int(size),
        device=_device(int(device)),
        inode=int(inode),
        magic=int(fs[1], 16),
        fsid=int(fs[2], 16),
        rights=_rights(rest),
        image=_image(rest),
        identity=_identity([fields[1:] for fields in rest if fields[:1] == ["id"] and len(fields) == 5]),
    )


def _rights(lines: list[list[str]]) -> Rights | None:
    """`may 64055 -erw`."""
    for words in lines:
        if words[:1] == ["may"] and len(words) == 3 and words[1].isdigit() and re.fullmatch("-e?r?w?", words[2]):
            return Rights(int(words[1]), *(right in words[2] for right in "erw"))
    return None


def _image(lines: list[list[str]]) -> Image | None:
    """`image -`, or the first 32 bytes: magic, version, backing file's name, cluster bits, size (QEMU docs/interop)."""
    for words in lines:
        if words == ["image", "-"]:
            return Image("other", 0)
        if words[:1] == ["image"] and len(words) == 2 and re.fullmatch("514649fb0000000[23][0-9a-f]{48}", words[1]):
            return Image("qcow2", int(words[1][48:], 16))
    return None


def _device(number: int) -> str:
    major = (number >> 8) & 0xFFF | (number >> 32) & ~0xFFF
    minor = number & 0xFF | (number >> 12) & ~0xFF
    return f"{major}:{minor}"


def _identity(nodes: list[list[str]]) -> frozenset[str]:
    """What names the device itself. Names of logical volumes count only with the hardware below them: hosts that were
    installed from one image have volumes of the same UUID on their own disks."""
    found = set()
    within_multipath: int | None = None
    for depth, part, below, text in nodes:
        if within_multipath is not None and int(depth) > within_multipath:
            continue
        multipath = _MULTIPATH.fullmatch(text)
        within_multipath = int(depth) if multipath else None
        own = multipath or text.startswith(("naa.", "eui.", "uuid.", "nvme.", "t10."))
        if "QEMU" in text or (not own and (int(below) == 0 or text == "-")):
            return frozenset()
        found.add(f"{_wwid(multipath['wwid'])}#{multipath['part'] or part}" if multipath else f"{text}#{part}")
    return frozenset(found)


_MULTIPATH = re.compile(r"(?:part(?P<part>\d+)-)?mpath-(?P<wwid>.+)")


def _wwid(name: str) -> str:
    """multipath's name of a LUN as the kernel would say it: a host with a single path to it knows only that one."""
    kind = {"3": "naa.", "2": "eui."}.get(name[:1])
    return kind + name[1:].lower() if kind and re.fullmatch(r"[0-9A-Fa-f]{16,}", name[1:]) else name
