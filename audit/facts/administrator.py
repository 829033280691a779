"""Who the audit was on a host: whether it could become root there."""

from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said

IDENTITY = Probe(
    "access.identity",
    'echo "root $($sudo id -u 2>/dev/null)"; echo "user $(id -u -n) $(id -G -n)"',
    hand="sudo -n id; id",
)


@dataclass(frozen=True, slots=True)
class Administrator(HostFact):
    """The login that the audit used."""

    probes: ClassVar[tuple[Probe, ...]] = (IDENTITY,)
    root: bool
    """It is root, or becomes root by sudo without a password."""
    user: str
    groups: frozenset[str]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`root 0`, `user audit audit libvirt`."""
        root, user = said.lines(IDENTITY)
        word, name, *groups = user.split()
        if word != "user" or root.split()[:1] != ["root"]:
            raise ValueError("neither root nor user")
        return cls(root.split()[1:] == ["0"], name, frozenset(groups))
