"""How large guests' disks are, and how much room hosts have where they would be copied to."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import Facts, GuestFact, GuestSource, HostFact, Question, Said, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.facts.paths import folder_of
from audit.facts.pools import Pools, disk_path
from audit.facts.virsh import DRAW_MARK, UUID, answers
from audit.text import visible


def copyable(disk: Disk) -> bool:
    """An image in a file that the guest alone writes to: what --copy-storage-all can copy to a file elsewhere.

    No encrypted one: QEMU copies what the guest sees, into an image that libvirt makes without encryption, and the
    target's QEMU is told to open an encrypted one (libvirt 9 qemuMigrationDstPrecreateDisk).
    """
    written = disk.source is not None and not (disk.readonly or disk.shareable or disk.secrets)
    return written and disk.device == "disk" and disk.type in {"file", "volume"}


def _ask_sizes(facts: Facts, host: str, _peers: object) -> Iterator[tuple[str, ...]]:
    for guest, disks in facts.each_guest([host], GuestDisks):
        state = facts.of_guest(guest, GuestState)
        active = not isinstance(state, Unavailable) and state.active
        if active and any(copyable(disk) for disk in disks.disks) and UUID.fullmatch(guest.uuid):
            yield (guest.uuid,)


SIZES = Question(
    "storage.disk_sizes",
    DRAW_MARK
    + """\
echo "$mark"
xargs -0 -n 100 sh -c '
commands=
for u; do
    case $u in *[!0-9a-f-]*) ;; *) commands="$commands echo $0 $u; domblkinfo $u --all; " ;; esac
done
virsh -r -c qemu:///system "$commands echo $0 end" 2>&1' "$mark"
""",
    seconds=90,
    ask=lambda facts, host, peers: tuple(_ask_sizes(facts, host, peers)),
    maximum=3000,
    hand="virsh -r -c qemu:///system domblkinfo GUEST --all",
)


class DiskSize(NamedTuple):
    """One disk, in bytes."""

    target: str
    capacity: int
    """What the guest sees."""
    allocation: int
    """What it takes up on its host."""


@dataclass(frozen=True, slots=True)
class GuestDiskSizes(GuestFact):
    """The sizes of a running guest's disks, where it has any that could be copied."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE, SIZES)
    disks: tuple[DiskSize, ...]

    def of(self, target: str) -> DiskSize:
        """That disk's. Raises `Unavailable`."""
        found = next((disk for disk in self.disks if disk.target == target), None)
        if found is None:
            raise Unavailable(SIZES, f"the size of {visible(target, 40)} is not known")
        return found

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `domblkinfo --all`: target, capacity, allocation, physical; `-` where there is nothing to tell."""
        if not guest.said.evidence(SIZES).arguments:
            raise Unavailable(SIZES, "the guest was not asked about")
        answer = answers(guest.said, SIZES).get(guest.guest.uuid)
        if answer is None:
            raise Unavailable(SIZES, "the guest was not asked about")
        text = answer.decode("utf-8", "replace")
        if "error:" in text:
            raise Unavailable(SIZES, visible(text[text.index("error:") :].strip(), 200))
        rows = re.findall(r"^ ([A-Za-z0-9_.-]{1,64}) +([0-9]{1,19}) +([0-9]{1,19}) +[0-9]{1,19} *$", text, re.MULTILINE)
        return cls(tuple(sorted(DiskSize(target, int(capacity), int(taken)) for target, capacity, taken in rows)))


# Room ------------------------------------------------------------------------------------------------------


def _ask_free(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Every folder that images of the peers' guests would be copied to."""
    pools = facts.of(host, Pools)
    folders: dict[str, None] = {}
    for _, disks in facts.each_guest(sorted(peers), GuestDisks):
        for disk in disks.disks:
            folder = _folder(disk, pools) if copyable(disk) else None
            if folder is not None:
                folders[folder] = None
    return tuple((str(number), folder) for number, folder in enumerate(folders))


def _folder(disk: Disk, pools: Pools | Unavailable) -> str | None:
    if isinstance(pools, Unavailable):
        return folder_of(disk.source) if disk.local and disk.source else None
    try:
        path = disk_path(disk, pools)
    except Unavailable:
        return None
    return folder_of(path) if path else None


# For each folder, in the order asked: "record N", then df's two lines, or none.
FREE = Question(
    "storage.free",
    """\
$sudo xargs -0 -x -n 100 sh -c '
export LC_ALL=C
while [ $# -ge 2 ]; do
    echo "record $1"
    timeout -s KILL 5 df -P -k -- "$2" 2>/dev/null
    shift 2
done
exit 0' free
""",
    seconds=120,
    ask=_ask_free,
    arity=2,
    maximum=1000,
    hand="df -P -k FOLDER",
)


class Room(NamedTuple):
    """The file system that a folder is on."""

    mount: str
    free_kib: int


@dataclass(frozen=True, slots=True)
class FreeSpace(HostFact):
    """How much room there is in the folders that guests' images would be copied to."""

    probes: ClassVar[tuple[Probe, ...]] = (FREE,)
    folders: tuple[tuple[str, Room], ...]
    unread: str = ""

    def of(self, folder: str) -> Room:
        """Raises `Unavailable` where it could not be looked up."""
        if self.unread:
            raise Unavailable(FREE, self.unread)
        found = dict(self.folders).get(folder)
        if found is None:
            raise Unavailable(FREE, f"how much room there is in {visible(folder, 120)} is not known")
        return found

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `df -P -k`: device, blocks, used, available, percent, mount point."""
        try:
            text = said.text(FREE, ok=(0, 123)) if said.evidence(FREE).arguments else ""
        except Unavailable as why:
            return cls((), why.reason)
        asked = {record[0]: record[1] for record in said.evidence(FREE).arguments}
        found: dict[str, Room] = {}
        for piece in re.split(r"^record ", text, flags=re.MULTILINE)[1:]:
            number, *lines = piece.splitlines()
            words = lines[-1].split(None, 5) if len(lines) >= 2 else []
            if number in asked and len(words) == 6 and words[3].isdigit():
                found[asked[number]] = Room(words[5], int(words[3]))
        return cls(tuple(sorted(found.items())))
