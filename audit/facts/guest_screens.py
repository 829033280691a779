"""What a guest's screens take of their host, by the guest's configuration: ports, sockets, networks, graphics cards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE


class ScreenPath(NamedTuple):
    """Something that a screen opens on the host."""

    what: str
    path: str
    made: bool
    """QEMU makes it; its folder must exist."""


@dataclass(frozen=True, slots=True)
class GuestScreens(GuestFact):
    """What `<graphics>` names; not what libvirt chose besides, which stands in a running guest's XML only."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    websockets: tuple[tuple[str | None, int], ...] = ()
    """Per fixed port of a VNC server's websocket: address (None: the host's configuration says) and port."""
    networks: tuple[str, ...] = ()
    """libvirt networks whose address on the host a screen listens on."""
    paths: tuple[ScreenPath, ...] = ()

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From the inactive XML; a transient guest's tells what it was started with."""
        root = guest.xml if guest.inactive is None else guest.inactive
        nodes = list(root.iterfind("devices/graphics"))
        listens = [listen for node in nodes for listen in node.iterfind("listen[@type='network']")]
        return cls(
            tuple(dict.fromkeys(port for node in nodes for port in _websocket(node))),
            tuple(dict.fromkeys(network for listen in listens if (network := listen.get("network")))),
            tuple(dict.fromkeys(path for node in nodes for path in _paths(node))),
        )


def _websocket(node: etree._Element) -> Iterator[tuple[str | None, int]]:
    port = int(node.get("websocket") or -1)
    if port > 0:
        addresses = [listen.get("address") for listen in node.iterfind("listen[@type='address']")]
        yield (addresses[0] if addresses else node.get("listen")) or None, port


def _paths(node: etree._Element) -> Iterator[ScreenPath]:
    kind = node.get("type", "")
    sockets = [listen.get("socket") for listen in node.iterfind("listen[@type='socket']")]
    for path in (*sockets, node.get("socket")):
        if path:
            yield ScreenPath(f"{kind} socket", path, True)
    render = node.find("gl[@rendernode]")
    if render is not None and render.get("rendernode"):
        yield ScreenPath("graphics card", render.get("rendernode") or "", False)
