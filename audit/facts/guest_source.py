"""Which guests a host has and what their XML says: probes and the reader that `Facts` is given.

The host starts virsh a few times, not once a guest: virsh takes many commands at once. What it says about
each guest stands between lines that carry a random mark, drawn on the host at each run, so that nothing in
a guest's name, title, description or metadata can pass for the beginning of another guest.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import Guest, GuestSource, Said, Unavailable
from audit.text import NotXml, parse_xml, visible

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

GUESTS = Probe("guest.list", f"virsh -r -c qemu:///system '{_LISTS}'", seconds=40)


def _for_each(options: str, command: str) -> str:
    """Let virsh run `command` for each guest that `list` with these options names ($u is its UUID)."""
    return f"""\
mark=$(od -An -N16 -tx1 /dev/urandom | tr -dc 0-9a-f)
[ ${{#mark}} -eq 32 ] || {{ echo "no random mark" >&2; exit 3; }}
uuids=$(virsh -r -q -c qemu:///system list --uuid {options}) || exit
echo "$mark"
[ -n "$uuids" ] || exit 0
echo "$uuids" | xargs -n 100 sh -c '
commands=
for u; do commands="$commands echo $0 $u; {command}; "; done
virsh -r -c qemu:///system "$commands echo $0 end" 2>&1' "$mark"
"""


XML = Probe("guest.xml", _for_each("--all", "dumpxml $u"), seconds=90, limit=64 * 1024 * 1024)
XML_INACTIVE = Probe("guest.xml_inactive", _for_each("", "dumpxml --inactive $u"), seconds=90, limit=64 * 1024 * 1024)
SNAPSHOTS = Probe("guest.snapshots", _for_each("--all --with-snapshot", "snapshot-list --name $u"), seconds=60)
JOBS = Probe("guest.jobs", _for_each("", "domjobinfo $u"), seconds=60)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARK = re.compile(rb"[0-9a-f]{32}")
# libvirt lets some control characters through into titles and descriptions, where XML knows no such thing.
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r")


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
        elif sections and _UUID.fullmatch(line):
            sections[name].add(line)
        else:
            raise Unavailable(GUESTS, f"not a UUID: {visible(line, 80)}")
    if sections.keys() != _SECTIONS.keys():
        raise Unavailable(GUESTS, "a list is missing")
    return Listing({name: frozenset(uuids) for name, uuids in sections.items()})


def per_guest(said: Said, probe: Probe) -> dict[str, bytes]:
    """What virsh printed about each guest, by UUID; errors included. A guest that is missing was not asked about."""
    said.text(probe, ok=(0, 123))  # 123: xargs, for a virsh that failed; its guests are missing then
    mark, _, rest = said.evidence(probe).stdout.partition(b"\n")
    if not _MARK.fullmatch(mark):
        raise Unavailable(probe, "output does not begin with its mark")
    if rest.strip() and not rest.startswith(mark):
        raise Unavailable(probe, visible(rest.decode("utf-8", "replace").strip(), 200))
    pieces = re.split(rb"^%s ([0-9a-f-]{36}|end)$\n?" % mark, rest, flags=re.MULTILINE)
    answers: dict[str, bytes] = {}
    for name, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        answers[name.decode()] = piece
    answers.pop("end", None)
    return answers


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


def read_guests(said: Said) -> Sequence[GuestSource]:
    """Every guest that the host's libvirt lists, those included whose XML could not be read."""
    listing = read_listing(said)
    live = per_guest(said, XML)
    configured = per_guest(said, XML_INACTIVE)
    uuids = sorted(listing.uuids | live.keys() | configured.keys())
    return [_source(said, listing, uuid, live.get(uuid), configured.get(uuid)) for uuid in uuids]


def _source(said: Said, listing: Listing, uuid: str, live: bytes | None, configured: bytes | None) -> GuestSource:
    xml = _domain(uuid, live)
    if isinstance(xml, str):
        # Nobody can say whether it runs: taken as running, so that it counts.
        active = uuid not in listing.sections["shutoff"]
        source = _PartlyRead(Guest(said.host.host, uuid, uuid), active, etree.Element("unread"), None, said)
        source.unread = (xml, xml)
        return source
    active = xml.get("id") is not None
    guest = Guest(said.host.host, uuid, xml.findtext("name") or uuid)
    if not active:
        return GuestSource(guest, False, xml, xml, said)
    inactive = _domain(uuid, configured)
    if isinstance(inactive, str):
        source = _PartlyRead(guest, True, xml, None, said)
        source.unread = ("", inactive)
        return source
    return GuestSource(guest, True, xml, inactive, said)


def _domain(uuid: str, piece: bytes | None) -> etree._Element | str:
    """The guest's `<domain>`, or why there is none."""
    if piece is None:
        return "libvirt lists the guest, but its XML was not printed"
    try:
        root = parse_xml(piece.translate(None, _CONTROLS).strip())
    except NotXml as error:
        words = piece.strip().decode("utf-8", "replace")
        return visible(words, 200) if words.startswith("error:") else str(error)
    if root.tag != "domain" or not root.findtext("name"):
        return "no <domain> with a name"
    if root.findtext("uuid") != uuid:
        return "the XML is that of another guest"
    return root
