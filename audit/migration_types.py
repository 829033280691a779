"""The ways of moving a guest, in words and commands: what a report says of them (RHEL 9 §12.1, §12.6)."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from audit.results import WayResult
from audit.text import visible

_SCHEMES = {"ssh": "qemu+ssh", "tls": "qemu+tls", "tcp": "qemu+tcp"}


@dataclass(frozen=True, slots=True)
class MigrationType:
    """One way: what it does, when to take it, what storage it needs, and the command on the source."""

    name: str
    what: str
    storage: str
    command: str


def target_uri(target: str, transport: str) -> str:
    """How `virsh migrate` is told the target: `qemu+ssh://kvm02/system`."""
    return f"{_SCHEMES.get(transport, 'qemu+ssh')}://{target}/system"


def migrate(options: Sequence[str], guest: str, target: str, transport: str) -> str:
    """The command, names quoted for a shell."""
    return shlex.join(["virsh", "migrate", *options, guest, target_uri(target, transport)])


def copy_options(disks: Sequence[str]) -> list[str]:
    """A live migration that copies these disks, and no other: libvirt would copy shared ones onto themselves."""
    return ["--live", "--persistent", "--copy-storage-all", "--migrate-disks", ",".join(disks) or "DISK,DISK"]


_SHARED = "Disks shared: NFS or a cluster file system, the same LUN, Ceph."


def migration_types(transport: str, guest: str = "GUEST", target: str = "TARGET") -> tuple[MigrationType, ...]:
    """All ways, from the one that a guest notices least."""

    def command(*options: str) -> str:
        return migrate(options, guest, target, transport)

    return (
        MigrationType(
            "live",
            "The guest runs on while its memory is copied. Not for guests that change it faster than it is copied.",
            _SHARED,
            command("--live", "--persistent"),
        ),
        MigrationType(
            "hybrid",
            "A live migration that does not end: suspend the guest meanwhile, and it does.",
            _SHARED,
            f"virsh suspend {shlex.quote(guest)}",
        ),
        MigrationType(
            "non-live",
            "The guest stands still until all its memory is there, then it goes on.",
            _SHARED,
            command("--persistent"),
        ),
        MigrationType(
            "live, disks copied",
            "As live; the disks that are named are copied first. It takes long. cockpit cannot do it.",
            "Disks in files on the source alone, and room on the target.",
            migrate(copy_options(()), guest, target, transport),
        ),
        MigrationType(
            "offline",
            "Only the definition moves, of a guest that is shut off; one that runs goes on where it is.",
            "None for the move; to start there the guest needs its images, copied by hand if not shared.",
            command("--offline", "--persistent", "--undefinesource"),
        ),
    )


AFTERWARDS = (
    "Without --persistent the guest is transient on the target: once it stops there, it is gone. On the source it "
    "stays defined, unless --undefinesource is given, and must not be started. Then look whether it runs: virsh list "
    "on the target; only after that: virsh undefine GUEST on the source."
)
"""For whoever migrates."""


def other_way(way: WayResult) -> str:
    """A way that is open, or might be, where the usual one is not, or only wants an image made; "": one not to tell."""
    doubt = {"conditions": ", with conditions", "unknown": ", not proved"}.get(way["verdict"], "")
    if way["verdict"] == "no":
        first = next(iter(way.get("reasons", ())), None)
        if first is None or first["check"] != _IMAGE_MADE:
            return ""
        doubt = f", not before this: {visible(first['message'], 240)}"
    match way["kind"]:
        case "copy-storage":
            disks = visible(shlex.quote(",".join(way["disks"])), 120)
            return f"live with {disks} copied along (--copy-storage-all --migrate-disks {disks}){doubt}"
        case "copy-storage-inc":
            return ""
        case "another-address":
            return f"live, to another address ({visible(' '.join(way.get('options', ())), 160)}){doubt}"
        case "started-here":
            return f"live, started here and not on the source (virsh -c qemu+ssh://SOURCE/system migrate …){doubt}"
        case "tunnelled":
            return f"live, through libvirt's own connection (--p2p --tunnelled){doubt}"
        case "offline":
            return f"offline: its definition only{doubt}"


_IMAGE_MADE = "copying.image_made"
"""The check of what a single command on the target mends."""
