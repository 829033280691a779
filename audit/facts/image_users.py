"""Which images a host's guests have for disks."""

from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.guest_devices import GuestDisks
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE, read_guests


@dataclass(frozen=True, slots=True)
class ImageUsers(HostFact):
    """The files that the guests of a host have for disks, running or not, those below other images, too."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    users: tuple[tuple[str, str, str], ...]
    """Path, guest's UUID, guest's name."""
    unread: int = 0
    """So many guests could not be read."""

    def of(self, path: str, *, but: str) -> tuple[str, ...]:
        """The names of the guests that use it, but for the one of that UUID. Raises `Unavailable` if one might."""
        found = tuple(name for used, uuid, name in self.users if used == path and uuid != but)
        if not found and self.unread:
            raise Unavailable(XML, f"{self.unread} guests there could not be read")
        return found

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From every guest's disks."""
        users: set[tuple[str, str, str]] = set()
        unread = 0
        for source in read_guests(said):
            try:
                disks = GuestDisks.parse(source).disks
            except (Unavailable, ValueError):
                unread += 1
                continue
            paths = {path for disk in disks for path in (disk.source if disk.local else None, *disk.backing) if path}
            users.update((path, source.guest.uuid, source.guest.name) for path in paths)
        return cls(tuple(sorted(users)), unread)
