"""Emulated TPMs: swtpm and the library behind it, and where a guest's TPM keeps its state."""

import json
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.text import visible

SWTPM = Probe(
    "tpm.swtpm",
    """\
command -v swtpm >/dev/null || { echo absent; exit 0; }
swtpm --version | head -n 1
for library in /usr/lib64/libtpms.so.*.*.* /usr/lib/libtpms.so.*.*.* /usr/lib/*/libtpms.so.*.*.*; do
    [ ! -e "$library" ] || echo "library ${library##*libtpms.so.}"
done
echo "capabilities $(swtpm socket --tpm2 --print-capabilities 2>/dev/null | tr -d '\\n')"
""",
    hand="swtpm --version; swtpm socket --tpm2 --print-capabilities; ls /usr/lib*/libtpms.so.* /usr/lib/*/libtpms.so.*",
)
_VERSION = re.compile(r"(?:TPM emulator version |swtpm[ -])?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Swtpm(HostFact):
    """The installed TPM emulator; a running guest may still have the one that it was started with."""

    probes: ClassVar[tuple[Probe, ...]] = (SWTPM,)
    present: bool
    version: tuple[int, int, int] | None
    library: tuple[int, int, int] | None
    """libtpms, whose releases decide about the format of the TPM's state. None: not known."""
    features: frozenset[str] | None
    """cmdarg-migration and others; None: this swtpm does not tell."""
    unread: str = ""
    """Why nothing is known. Only guests with a TPM depend on it."""

    def known(self) -> Self:
        """The fact itself. Raises `Unavailable` where nothing is known."""
        if self.unread:
            raise Unavailable(SWTPM, self.unread)
        return self

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`TPM emulator version 0.8.0, …`, `library 0.9.6`, `capabilities {…}`; or `absent`."""
        try:
            lines = said.lines(SWTPM)
        except Unavailable as why:
            return cls(False, None, None, None, why.reason)
        if lines == ["absent"]:
            return cls(False, None, None, None)
        words = {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in lines}
        version = _VERSION.search(lines[0]) if lines else None
        if "capabilities" not in words or version is None:
            return cls(False, None, None, None, f"not understood: {visible(lines[0] if lines else '', 80)}")
        library = [found for line in lines if (found := re.fullmatch(r"library (\d+)\.(\d+)\.(\d+)", line))]
        return cls(
            True,
            _numbers(version),
            max((_numbers(found) for found in library), default=None),
            _features(words["capabilities"]),
        )


def _numbers(match: re.Match[str]) -> tuple[int, int, int]:
    major, minor, micro = (int(number) for number in match.groups())
    return major, minor, micro


def _features(text: str) -> frozenset[str] | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    features = told.get("features") if isinstance(told, dict) else None
    if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
        return None
    return frozenset(features)


@dataclass(frozen=True, slots=True)
class GuestTpmState(GuestFact):
    """The folder or file that an emulated TPM keeps its state in."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    path: str | None
    """None: no TPM that libvirt runs an emulator for."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<tpm>`; libvirt's own place is a folder named by the guest's UUID."""
        backend = guest.xml.find("devices/tpm/backend")
        if backend is None or backend.get("type") != "emulator":
            return cls(None)
        source = backend.find("source")
        stated = source.get("path") if source is not None else None
        return cls(stated or f"/var/lib/libvirt/swtpm/{guest.guest.uuid}")
