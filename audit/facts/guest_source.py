"""Which guests a host has and what their XML says: probes and the reader that `Facts` is given."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import Guest, GuestFact, GuestSource, Said, Unavailable, once
from audit.facts.virsh import UUID, answers, document, for_each
from audit.text import visible

G = TypeVar("G", bound=GuestFact)

_SECTIONS = {
    "all": "--all",
    "running": "--state-running",
    "paused": "--state-paused",
    "shutoff": "--state-shutoff",
    "other": "--state-other",
    "persistent": "--all --persistent",
    "transient": "--all --transient",
    "autostart": "--all --autostart",
    "snapshots": "--all --with-snapshot",
    "no-snapshots": "--all --without-snapshot",
}
_LISTS = "; ".join(f"echo @{name}; list --uuid {options}" for name, options in _SECTIONS.items())

GUESTS = Probe(
    "guest.list",
    f"virsh -r -c qemu:///system '{_LISTS}'",
    seconds=40,
    hand="virsh -r -c qemu:///system list --all --uuid",
)


XML = Probe(
    "guest.xml",
    for_each("list --uuid --all", "dumpxml $u"),
    seconds=90,
    limit=64 * 1024 * 1024,
    hand="virsh -r -c qemu:///system dumpxml GUEST",
)
XML_INACTIVE = Probe(
    "guest.xml_inactive",
    for_each("list --uuid", "dumpxml --inactive $u"),
    seconds=90,
    limit=64 * 1024 * 1024,
    hand="virsh -r -c qemu:///system dumpxml --inactive GUEST",
)
SNAPSHOTS = Probe(
    "guest.snapshots",
    for_each("list --uuid --all --with-snapshot", "snapshot-list --name $u"),
    seconds=60,
    hand="virsh -r -c qemu:///system snapshot-list GUEST",
)
JOBS = Probe(
    "guest.jobs",
    for_each("list --uuid", "domjobinfo $u"),
    seconds=60,
    hand="virsh -r -c qemu:///system domjobinfo GUEST",
)


class Listing(NamedTuple):
    """The UUIDs that each of virsh's lists named."""

    sections: Mapping[str, frozenset[str]]

    @property
    def uuids(self) -> frozenset[str]:
        """Every guest that any list named."""
        return frozenset().union(*self.sections.values())

    def only(self, uuid: str, *names: str) -> str:
        """Which one of these lists, that exclude each other and leave nothing out, names the guest."""
        found = [name for name in names if uuid in self.sections[name]]
        if len(found) != 1:
            raise Unavailable(GUESTS, f"guest {uuid} came, went or changed while guests were being listed")
        return found[0]


@once
def read_listing(said: Said) -> Listing:
    """The guests by state. Raises `Unavailable` unless every list was printed without an error."""
    text = said.text(GUESTS)
    words = said.evidence(GUESTS).stderr.decode("utf-8", "replace")
    if "error:" in words:
        raise Unavailable(GUESTS, visible(words.strip(), 200))
    sections: dict[str, set[str]] = {}
    for line in text.split():
        if line.startswith("@"):
            name = line[1:]
            if name in sections or name not in _SECTIONS:
                raise Unavailable(GUESTS, f"unexpected section {visible(name, 40)}")
            sections[name] = set()
        elif sections and UUID.fullmatch(line):
            sections[name].add(line)
        else:
            raise Unavailable(GUESTS, f"not a UUID: {visible(line, 80)}")
    if sections.keys() != _SECTIONS.keys():
        raise Unavailable(GUESTS, "a list is missing")
    return Listing({name: frozenset(uuids) for name, uuids in sections.items()})


class _PartlyRead(GuestSource):
    """A guest that libvirt listed, but whose XML could not be read: a fact that asks for it gets the reason."""

    unread: tuple[str, str]

    @property
    def xml(self) -> etree._Element:
        if self.unread[0]:
            raise Unavailable(XML, self.unread[0])
        return self[2]

    @property
    def inactive(self) -> etree._Element | None:
        if self.unread[1]:
            raise Unavailable(XML_INACTIVE, self.unread[1])
        return self[3]


@once
def read_guests(said: Said) -> Sequence[GuestSource]:
    """Every guest that the host's libvirt lists, those included whose XML could not be read."""
    listing = read_listing(said)
    live = answers(said, XML)
    configured = answers(said, XML_INACTIVE)
    uuids = sorted(listing.uuids | live.keys() | configured.keys())
    return [_source(said, listing, uuid, live.get(uuid), configured.get(uuid)) for uuid in uuids]


def running_guests(said: Said, kind: type[G]) -> tuple[list[tuple[Guest, G]], int]:
    """The running guests with their facts of that kind, and how many running guests have none that can be read."""
    found, unread = [], 0
    for source in read_guests(said):
        try:
            if source.active:
                found.append((source.guest, kind.parse(source)))
        except (Unavailable, ValueError):
            unread += 1
    return found, unread


def unread_guests(number: int) -> Unavailable:
    """Why what a host's running guests have is not known whole."""
    return Unavailable(XML, f"{number} running guests there could not be read")


def _source(said: Said, listing: Listing, uuid: str, live: bytes | None, configured: bytes | None) -> GuestSource:
    try:
        xml = document(XML, "domain", uuid, live)
    except Unavailable as why:
        # Nobody can say whether it runs: taken as running, so that it counts.
        active = uuid not in listing.sections["shutoff"]
        source = _PartlyRead(Guest(said.host.host, uuid, uuid), active, etree.Element("unread"), None, said)
        source.unread = (why.reason, why.reason)
        return source
    guest = Guest(said.host.host, uuid, xml.findtext("name") or uuid)
    if xml.get("id") is None:
        return GuestSource(guest, False, xml, xml, said)
    try:
        return GuestSource(guest, True, xml, document(XML_INACTIVE, "domain", uuid, configured), said)
    except Unavailable as why:
        source = _PartlyRead(guest, True, xml, None, said)
        source.unread = ("", why.reason)
        return source


def inactive_text(said: Said, uuid: str, *, active: bool) -> str:
    """The guest's persistent definition as virsh printed it. Raises `Unavailable`.

    Text rather than a tree, for a difference that can be applied; it was parsed and found harmless before.
    """
    probe = XML_INACTIVE if active else XML
    answer = answers(said, probe).get(uuid)
    document(probe, "domain", uuid, answer)
    assert answer is not None, "else it were no document"
    return answer.decode("utf-8", "replace").strip("\n") + "\n"
