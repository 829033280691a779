"""Volumes of libvirt's storage pools: whether a host's pool knows those that guests name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.guest_devices import GuestDisks
from audit.facts.virsh import DRAW_MARK, answers
from audit.text import visible

_LONGEST = 256
"""Bytes of a name. Longer ones no file system has."""


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Every volume that the cluster's guests name: number, pool, volume."""
    named: dict[tuple[str, str], None] = {}
    for _, disks in facts.each_guest(sorted({host, *peers}), GuestDisks):
        for disk in disks.disks:
            pool, _, volume = (disk.source or "").partition("/") if disk.pool else ("", "", "")
            if pool and volume and max(len(pool), len(volume)) <= _LONGEST:
                named[pool, volume] = None
    return tuple((str(number), pool, volume) for number, (pool, volume) in enumerate(named))


VOLUMES = Question(
    "storage.volumes",
    DRAW_MARK
    + """\
echo "$mark"
xargs -0 -x -n 300 sh -c '
export LC_ALL=C
while [ $# -ge 3 ]; do
    echo "$0 $1"
    timeout -s KILL 20 virsh -r -q -c qemu:///system vol-path --pool "$2" --vol "$3" 2>&1
    shift 3
done
echo "$0 end"' "$mark"
""",
    seconds=90,
    ask=_ask,
    arity=3,
    maximum=500,
    hand="virsh -r -c qemu:///system vol-path --pool POOL --vol VOLUME",
)
_NONE = re.compile(r"(?i)no storage vol(?:ume)? with matching|storage volume not found")


@dataclass(frozen=True, slots=True)
class Volumes(HostFact):
    """Which of the volumes that guests name this host's pools know. A pool learns of new files when it is refreshed."""

    probes: ClassVar[tuple[Probe, ...]] = (VOLUMES,)
    known: tuple[tuple[str, str], ...]
    """Pool and volume."""
    missing: tuple[tuple[str, str], ...]
    """Those of pools that said that they have none of that name."""
    unread: str = ""

    def has(self, pool: str, volume: str) -> bool:
        """Raises `Unavailable`, where the pool did not say."""
        if self.unread:
            raise Unavailable(VOLUMES, self.unread)
        if (pool, volume) in self.known:
            return True
        if (pool, volume) in self.missing:
            return False
        raise Unavailable(VOLUMES, f"whether the pool {visible(pool, 60)} has {visible(volume, 60)}")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From what `vol-path` printed for each: a path (or a network volume's name), or why there is none."""
        try:
            asked = said.evidence(VOLUMES).arguments
            found = answers(said, VOLUMES) if asked else {}
        except Unavailable as why:
            return cls((), (), why.reason)
        known, missing = [], []
        for number, pool, volume in asked:
            text = found.get(number, b"").decode("utf-8", "replace").strip()
            if _NONE.search(text):
                missing.append((pool, volume))
            elif text and "error:" not in text:
                known.append((pool, volume))
        return cls(tuple(sorted(known)), tuple(sorted(missing)))
