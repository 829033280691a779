"""Images that guests only read, and that lie on two hosts as two files: whether they begin and end alike.

Their checksums never prove that two files are equal, and always that they differ. Only checksums leave the host.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.paths import askable
from audit.text import visible


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every image in a file that a running guest of the cluster only reads: number, path."""
    named: dict[str, None] = {}
    for guest, disks in facts.each_guest(sorted({host, *peers}), GuestDisks):
        state = facts.of_guest(guest, GuestState)
        if isinstance(state, Unavailable) or not state.active:
            continue
        for disk in disks.disks:
            own = [disk.source] if disk.readonly and disk.type == "file" and disk.source else []
            named.update(dict.fromkeys(path for path in (*own, *disk.backing) if askable(path)))
    yield from ((str(number), path) for number, path in enumerate(named))


# One line for each: number, and cksum's words for its first and its last MiB; or "none", where there is no file.
SAMPLES = Question(
    "storage.samples",
    """\
$sudo xargs -0 -x -n 100 sh -c '
export LC_ALL=C
while [ $# -ge 2 ]; do
    if [ -f "$2" ]; then
        echo "$1" $(timeout -s KILL 5 head -c 1048576 -- "$2" | cksum) \\
            $(timeout -s KILL 5 tail -c 1048576 -- "$2" | cksum)
    else
        echo "$1 none"
    fi
    shift 2
done
exit 0' samples
""",
    seconds=90,
    ask=lambda facts, host, peers: tuple(_ask(facts, host, peers)),
    arity=2,
    maximum=500,
    hand="sha256sum IMAGE",
)


@dataclass(frozen=True, slots=True)
class Samples(HostFact):
    """The checksums of the first and the last MiB of images that guests only read."""

    probes: ClassVar[tuple[Probe, ...]] = (SAMPLES,)
    sums: tuple[tuple[str, str], ...]
    """Path and sums; `none` where there is no file."""
    unread: str = ""

    def of(self, path: str) -> str | None:
        """None: there is no file. Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(SAMPLES, self.unread)
        found = next((words for known, words in self.sums if known == path), None)
        if found is None:
            raise Unavailable(SAMPLES, f"{visible(path, 120)}: what it begins with was not read")
        return None if found == "none" else found

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From two lines of cksum, checksum and bytes each; a file that could not be read has 0 bytes."""
        try:
            asked = {record[0]: record[1] for record in said.evidence(SAMPLES).arguments}
            lines = said.lines(SAMPLES, ok=(0, 123)) if asked else []
        except Unavailable as why:
            return cls((), why.reason)
        found = []
        for line in lines:
            number, _, words = line.partition(" ")
            if number not in asked or not re.fullmatch(r"none|\d+ \d+ \d+ \d+", words):
                raise Unavailable(SAMPLES, f"not understood: {visible(line, 120)}")
            if words.split()[1:2] != ["0"]:
                found.append((asked[number], words))
        return cls(tuple(sorted(found)))
