"""Folders of the host that guests share by virtiofs, and what the daemons that serve them can do."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.text import visible

# No line of a JSON document begins like this one, unless within a string, and those have no lines.
DAEMONS = Probe(
    "virtiofs.daemons",
    """\
for file in /usr/share/qemu/vhost-user/*.json /etc/qemu/vhost-user/*.json; do
    [ -f "$file" ] || continue
    echo "== $file"
    head -c 65536 "$file" || exit
    echo
done
echo "== end" """.strip(),
    hand="cat /usr/share/qemu/vhost-user/*.json /etc/qemu/vhost-user/*.json",
)


class Share(NamedTuple):
    """One virtiofs file system of a guest."""

    tag: str
    folder: str | None
    socket: str | None
    """Of a daemon that libvirt did not start; then there is no folder."""
    binary: str | None
    """The daemon that libvirt started; the live XML tells it."""


@dataclass(frozen=True, slots=True)
class GuestShares(GuestFact):
    """Every virtiofs file system of the guest."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    shares: tuple[Share, ...]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<filesystem>` with `<driver type='virtiofs'>`."""
        nodes = guest.xml.iterfind("devices/filesystem")
        found = []
        for node in nodes:
            driver = node.find("driver")
            if driver is None or driver.get("type") != "virtiofs":
                continue
            at = {path: child for path in ("source", "target", "binary") if (child := node.find(path)) is not None}
            attribute = {
                name: at[path].get(key)
                for name, path, key in (
                    ("tag", "target", "dir"),
                    ("folder", "source", "dir"),
                    ("socket", "source", "socket"),
                    ("binary", "binary", "path"),
                )
                if path in at
            }
            found.append(
                Share(
                    attribute.get("tag") or "",
                    attribute.get("folder"),
                    attribute.get("socket"),
                    attribute.get("binary"),
                )
            )
        return cls(tuple(found))


@dataclass(frozen=True, slots=True)
class VirtiofsDaemons(HostFact):
    """The virtiofs daemons that are installed, by QEMU's descriptions of vhost-user backends."""

    probes: ClassVar[tuple[Probe, ...]] = (DAEMONS,)
    daemons: tuple[tuple[str, frozenset[str]], ...]
    """Path of the binary and its features: `migrate-precopy`, `separate-options`, …"""
    unread: str = ""
    """Why nothing is known. Only guests with such file systems depend on it."""

    def can_migrate(self, binary: str | None) -> bool | None:
        """Whether that daemon (None: the only one that there is) hands over its state; None: it is not described.

        Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(DAEMONS, self.unread)
        answers = {"migrate-precopy" in has for path, has in self.daemons if binary in (None, path)}
        return answers.pop() if len(answers) == 1 else None

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`== FILE`, then the file; of two of one name that in /etc counts. `== end` after the last one."""
        try:
            text = said.text(DAEMONS)
        except Unavailable as why:
            return cls((), why.reason)
        if not text.rstrip().endswith("== end"):
            return cls((), "the answer broke off")
        by_name = {name.rpartition("/")[2]: (name, content) for name, content in _files(text)}
        try:
            found = [daemon for name, content in by_name.values() for daemon in _daemon(content)]
        except (ValueError, RecursionError) as error:
            return cls((), f"a description is not understood: {visible(str(error), 100)}")
        return cls(tuple(sorted(found, key=lambda pair: pair[0])))


def _files(text: str) -> Iterator[tuple[str, str]]:
    for part in ("\n" + text).split("\n== ")[1:-1]:
        name, _, content = part.partition("\n")
        yield name.strip(), content


def _daemon(content: str) -> Iterator[tuple[str, frozenset[str]]]:
    if not content.strip():
        return  # an empty file hides the one of the same name
    described = json.loads(content)
    if not isinstance(described, dict) or described.get("type") != "fs":
        return
    binary, features = described.get("binary"), described.get("features", [])
    if not isinstance(binary, str) or not isinstance(features, list) or not all(isinstance(f, str) for f in features):
        raise ValueError("no binary with features")
    yield binary, frozenset(features)
