"""NFS as the host serves it."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

EXPORTS = Probe(
    "nfs.exports",
    """\
if [ -r /var/lib/nfs/etab ]; then cat /var/lib/nfs/etab
elif command -v exportfs >/dev/null; then $sudo exportfs -v
fi""",
    hand="exportfs -v",
)


@dataclass(frozen=True, slots=True)
class Exports(HostFact):
    """What the host exports."""

    probes: ClassVar[tuple[Probe, ...]] = (EXPORTS,)
    paths: frozenset[str]
    squashed: frozenset[str]
    """Those that turn root into nobody for some client."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`PATH CLIENT(OPTIONS)`, where exportfs puts a long path on a line of its own. Nothing at all: no exports."""
        text = said.text(EXPORTS)
        paths: set[str] = set()
        squashed: set[str] = set()
        path = ""
        for line in text.splitlines():
            if not line.strip():
                continue
            if not line[0].isspace():
                path = line.split()[0]
                line = line[len(path) :]
            if not path.startswith("/"):
                raise Unavailable(EXPORTS, f"not understood: {visible(path or line, 120)}")
            paths.add(path)
            for options in re.findall(r"\(([^()]*)\)", line):
                # The last word counts; root is squashed where nothing is said.
                words = [word for word in options.split(",") if word in {"root_squash", "no_root_squash"}]
                if not words or words[-1] == "root_squash":
                    squashed.add(path)
        return cls(frozenset(paths), frozenset(squashed))
