"""What a guest has by number on its host, so that two guests of one host cannot both have it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.arguments import ports_of
from audit.facts.base import GuestFact, GuestSource, HostFact, Said
from audit.facts.guest_devices import CHARACTER_DEVICES
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE, running_guests, unread_guests


@dataclass(frozen=True, slots=True)
class GuestNumbers(GuestFact):
    """vsock CID and listening TCP ports that the guest's XML fixes."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    cid: int | None
    """Its vsock CID now; None: none."""
    cid_fixed: bool
    """libvirt must take that one (`auto='no'`), and may not choose another."""
    ports: tuple[tuple[str, str, int], ...]
    """Of character devices, and QEMU arguments of the guest's own, that wait for connections: what, address, port.
    Address `*`: none is said."""
    servers: tuple[tuple[str, str, int], ...] = ()
    """Of character devices that connect at the guest's start, and must be able to: what, address, port."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<vsock>`, `<source mode='bind'>` or `'connect'` of devices of type tcp, and `<qemu:commandline>`."""
        cid = guest.xml.find("devices/vsock/cid")
        number = cid.get("address") if cid is not None else None
        lines = [node for tag in CHARACTER_DEVICES for node in guest.xml.iterfind(f"devices/{tag}[@type='tcp']")]
        return cls(
            int(number) if number is not None else None,
            cid is not None and cid.get("auto") != "yes",
            tuple(dict.fromkeys((*_sockets(lines, "bind", "0.0.0.0"), *ports_of(guest.xml)))),  # noqa: S104
            tuple(dict.fromkeys(_sockets(lines, "connect", "127.0.0.1"))),
        )


def _sockets(lines: Sequence[etree._Element], mode: str, default: str) -> Iterator[tuple[str, str, int]]:
    """What, address and port of those lines that bind or connect; ports by name are left out, and patient clients."""
    for node in lines:
        source = node.find(f"source[@mode='{mode}']")
        if source is None or source.find("reconnect[@enabled='yes']") is not None:
            continue
        service = source.get("service") or ""
        if re.fullmatch(r"[0-9]{1,5}", service):
            yield str(node.tag), source.get("host") or default, int(service)


@dataclass(frozen=True, slots=True)
class HostCids(HostFact):
    """vsock CIDs of the host's running guests."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    taken: tuple[tuple[int, str], ...]
    """CID and the guest's name."""
    unread: int = 0

    def holder(self, cid: int) -> str | None:
        """The guest that has it."""
        return dict(self.taken).get(cid)

    def complete(self) -> None:
        """Raise `Unavailable` if there are running guests whose CID is not known."""
        if self.unread:
            raise unread_guests(self.unread)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From what guests are read from."""
        found, unread = running_guests(said, GuestNumbers)
        return cls(tuple(sorted((own.cid, guest.name) for guest, own in found if own.cid is not None)), unread)
