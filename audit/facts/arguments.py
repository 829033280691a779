"""Arguments that a guest's definition hands to QEMU past libvirt: what they name, and whether a QEMU knows them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import Facts, GuestFact, GuestSource, HostFact, Question, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.text import visible

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
INSTALLED = re.compile(
    r"(?:/usr(?:/local)?/(?:bin|libexec)|/opt/[A-Za-z0-9][A-Za-z0-9._-]{0,63}/(?:bin|libexec))/"
    r"(?:qemu-[a-z0-9_-]{1,40}|kvm(?:-spice)?)"
)
"""Where an emulator is that a distribution or an administrator installed: such a one may be asked what it can do."""

# Options whose files QEMU reads at its start; elsewhere a path is something that it may well make itself.
_READ = frozenset({
    "acpitable", "bios", "blockdev", "cdrom", "device", "drive", "dtb", "fda", "fdb", "fw_cfg", "hda", "hdb", "hdc",
    "hdd", "initrd", "kernel", "mtdblock", "option-rom", "pflash", "sd", "smbios",
})  # fmt: skip
_LISTENS = frozenset({"chardev", "gdb", "incoming", "monitor", "parallel", "qmp", "qmp-pretty", "serial", "vnc"})
_ADDRESS = re.compile(r"(?:tcp|telnet|websocket):(\[[0-9A-Fa-f:.]{0,100}\]|[A-Za-z0-9_.-]{0,100}):([0-9]{1,5})(?:,|$)")
_GDB_PORT = 1234  # what -s is short for


class Option(NamedTuple):
    """One option of QEMU's with its value, "" where it has none."""

    name: str
    value: str


def options_of(root: etree._Element) -> tuple[Option, ...]:
    """The options in `<qemu:commandline>`, in their order."""
    found: list[Option] = []
    for node in root.iterfind(f"{_QEMU}commandline/{_QEMU}arg"):
        word = node.get("value") or ""
        if re.fullmatch(r"--?[A-Za-z0-9][A-Za-z0-9_-]*", word):
            found.append(Option(word.lstrip("-"), ""))
        elif found:
            found[-1] = Option(found[-1].name, word)
    return tuple(found)


def devices_of(root: etree._Element) -> Iterator[dict[str, str]]:
    """The properties of what `-device` adds, `driver` among them: `MODEL,key=value,…`, or JSON."""
    for option in options_of(root):
        if option.name == "device" and (properties := _properties(option.value)).get("driver"):
            yield properties


def _properties(value: str) -> dict[str, str]:
    if value.lstrip().startswith("{"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
    first, *rest = value.split(",")
    words = (first if first.startswith("driver=") else f"driver={first}", *rest)
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def files_of(root: etree._Element) -> Iterator[tuple[str, str]]:
    """Option and path of files that QEMU reads at its start."""
    for option in options_of(root):
        if option.name in _READ:
            parts = [part.partition("=") for part in option.value.replace(",,", "\0").split(",")]
            values = [value if equals else name for name, equals, value in parts]
            for value in values:
                path = value.replace("\0", ",").removeprefix("file:")
                if path.startswith("/"):
                    yield f"-{option.name}", path


def ports_of(root: etree._Element) -> Iterator[tuple[str, str, int]]:
    """Option, address and TCP port on which QEMU listens; `*` where it says no address."""
    for option in options_of(root):
        if option.name == "s":
            yield "-s", "*", _GDB_PORT
        match = _ADDRESS.match(option.value)
        waits = option.name == "gdb" or re.search(r",(?:server|server=on)(?:,|$)", option.value)
        if match and option.name in _LISTENS and waits and int(match[2]) < 65536:
            yield f"-{option.name}", match[1].strip("[]") or "*", int(match[2])


@dataclass(frozen=True, slots=True)
class GuestArguments(GuestFact):
    """The options that libvirt hands to QEMU unread."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    emulator: str
    options: tuple[str, ...]
    devices: tuple[str, ...]
    """Kinds of devices that `-device` adds."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<qemu:commandline>`."""
        options = options_of(guest.xml)
        devices = (properties["driver"] for properties in devices_of(guest.xml))
        return cls(
            guest.xml.findtext("devices/emulator") or "",
            tuple(dict.fromkeys(option.name for option in options)),
            tuple(dict.fromkeys(devices)),
        )


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, ...]]:
    guests = facts.each_guest(sorted({host, *peers}), GuestArguments)
    return [(name,) for name in sorted({own.emulator for _, own in guests if own.options}) if INSTALLED.fullmatch(name)]


# The lines of an answer carry the record's number, put there by sed.
KNOWN = Question(
    "guest.known_arguments",
    """\
xargs -0 sh -c '
record=0
for emulator; do
  record=$((record + 1))
  options=$("$emulator" -help </dev/null 2>&1) && devices=$("$emulator" -device help </dev/null 2>&1)
  status=$?
  printf "%s\\n" "$options" | sed -n "s/^-/$record:-/p"
  printf "%s\\n" "$devices" | sed -n "s/^name /$record:name /p"
  echo "$record=$status"
done' sh""",
    seconds=30,
    limit=1024 * 1024,
    ask=_ask,
    arity=1,
    maximum=20,
    hand="EMULATOR -help; EMULATOR -device help",
)


class Known(NamedTuple):
    """What one emulator says of itself."""

    emulator: str
    options: frozenset[str]
    devices: frozenset[str]


@dataclass(frozen=True, slots=True)
class KnownArguments(HostFact):
    """Options and devices that the host's emulators know, where guests of the cluster have arguments of their own."""

    probes: ClassVar[tuple[Probe, ...]] = (KNOWN,)
    emulators: tuple[Known, ...]

    def of(self, emulator: str) -> Known:
        """That one's. Raises `Unavailable`."""
        for known in self.emulators:
            if known.emulator == emulator:
                return known
        raise Unavailable(KNOWN, f"{visible(emulator, 100) or 'the emulator'} was not asked, or did not answer")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`RECORD:-option or -alias …`, `RECORD:name "…", bus …, alias "…"`; `RECORD=0` where all was printed."""
        if KNOWN.name not in said.host.outputs:
            return cls(())  # nothing had to be asked
        text = said.text(KNOWN)
        found = []
        for number, (emulator,) in enumerate(said.evidence(KNOWN).arguments, 1):
            if f"\n{number}=0\n" not in f"\n{text}":
                continue
            heads = re.findall(rf"^{number}:(-\S+(?: or -\S+)*)", text, re.MULTILINE)
            options = frozenset(name.lstrip("-") for head in heads for name in head.split(" or "))
            lines = re.findall(rf'^{number}:(name ".*)$', text, re.MULTILINE)
            devices = frozenset(name for line in lines for name in re.findall(r'(?:name|alias) "([^"]+)"', line))
            found.append(Known(emulator, options, devices))
        return cls(tuple(found))
