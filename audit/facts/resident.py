"""How much memory a guest has in use: what really has to find room on the target."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, Unavailable
from audit.facts.guest_source import GUESTS, XML
from audit.facts.virsh import answers, for_each
from audit.text import visible

MEMORY_STATISTICS = Probe(
    "guest.memory_statistics",
    for_each("list --uuid", "dommemstat $u"),
    seconds=60,
    hand="virsh -r -c qemu:///system dommemstat GUEST",
)


@dataclass(frozen=True, slots=True)
class GuestResident(GuestFact):
    """The memory that a running guest's QEMU holds on its host."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, MEMORY_STATISTICS)
    resident_kib: int | None
    """Memory of the guest that was never touched is not in it, nor is what was swapped out. None: not known."""
    unread: str = ""
    """Why it is not known."""

    def known_kib(self) -> int:
        """The number. Raises `Unavailable`."""
        if self.resident_kib is None:
            raise Unavailable(MEMORY_STATISTICS, self.unread)
        return self.resident_kib

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From the line `rss`, which libvirt takes from the process, whatever the guest has of drivers.

        Rounded up, so that guests that change all the time have the same value now and then.
        """
        if not guest.active:
            return cls(None, "the guest does not run")
        try:
            answer = answers(guest.said, MEMORY_STATISTICS).get(guest.guest.uuid)
        except Unavailable as why:
            return cls(None, why.reason)
        if answer is None:
            return cls(None, "the guest was not asked about")
        found = re.findall(rb"^rss ([0-9]{1,15})\s*$", answer, re.MULTILINE)
        if len(found) != 1:
            return cls(None, visible(answer.decode("utf-8", "replace").strip(), 200) or "no answer")
        return cls(-(-int(found[0]) // _STEP_KIB) * _STEP_KIB)


_STEP_KIB = 64 * 1024
