"""Guests: which there are, and what of each one's configuration decides whether it can move.

Small facts on purpose, so that equal values are judged once. All come from the domain XML (live for an
active guest), see libvirt's formatdomain; names, paths and descriptions in it are other people's text.
Devices are in `audit.facts.guest_devices`, what is being done to a guest in `audit.facts.guest_jobs`.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from lxml import etree

from audit.cpu import CpuDefinition, CpuError, from_element
from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, SNAPSHOTS, XML, XML_INACTIVE, read_guests, read_listing
from audit.facts.virsh import answers
from audit.text import visible

State = Literal["running", "paused", "shut off", "other"]
"""`other`: crashed, suspended by the guest, shutting down."""

_XML = (GUESTS, XML, XML_INACTIVE)


@dataclass(frozen=True, slots=True)
class GuestIdentity(GuestFact):
    """What the guest is called."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    name: str
    uuid: str
    title: str | None

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From the XML's head."""
        return cls(guest.guest.name, guest.guest.uuid, guest.xml.findtext("title") or None)


@dataclass(frozen=True, slots=True)
class GuestState(GuestFact):
    """Whether the guest runs, and how it is kept."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    state: State
    active: bool
    """It has a QEMU process: running, paused, or in between."""
    persistent: bool

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From the lists by state, which must agree with the XML."""
        listing = read_listing(guest.said)
        uuid = guest.guest.uuid
        found = listing.only(uuid, "running", "paused", "shutoff", "other")
        states: dict[str, State] = {"running": "running", "paused": "paused", "shutoff": "shut off", "other": "other"}
        active = guest.xml.get("id") is not None
        if active != (found != "shutoff"):
            raise Unavailable(GUESTS, "the guest was started or stopped while it was being read")
        return cls(states[found], active, listing.only(uuid, "persistent", "transient") == "persistent")


class GuestName(NamedTuple):
    """One guest of a host, as far as names may clash."""

    name: str
    uuid: str
    active: bool


@dataclass(frozen=True, slots=True)
class HostGuestNames(HostFact):
    """Names and UUIDs of all guests that the host knows."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    guests: tuple[GuestName, ...]
    unread: frozenset[str]
    """UUIDs of guests whose name could not be read."""

    def clashing(self, name: str, uuid: str) -> tuple[GuestName, ...]:
        """The guests that have this name or this UUID."""
        return tuple(guest for guest in self.guests if guest.name == name or guest.uuid == uuid)

    def complete(self) -> None:
        """Raise `Unavailable` if there are guests whose names are not known."""
        if self.unread:
            raise Unavailable(XML, f"{len(self.unread)} guests there could not be read")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From what guests are read from."""
        guests, unread = [], set()
        for source in read_guests(said):
            try:
                known = GuestIdentity.parse(source)
                guests.append(GuestName(known.name, known.uuid, source.active))
            except Unavailable:
                unread.add(source.guest.uuid)
        return cls(tuple(sorted(guests)), frozenset(unread))


@dataclass(frozen=True, slots=True)
class GuestMachine(GuestFact):
    """What the guest is to its hypervisor."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    virttype: str
    """`kvm` or `qemu`, libvirt's `<domain type=`."""
    arch: str
    machine: str
    """As in the XML; of an active guest always a versioned type, of an inactive one perhaps an alias."""
    emulator: str | None
    firmware: Literal["bios", "efi"] | None
    """None: not said by the XML (direct kernel boot, other architectures)."""
    loader: str | None
    nvram: str | None
    loader_format: str = "raw"
    """raw or qcow2; the size of a raw one is the size of the guest's flash memory."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<os>`; libvirt always states architecture and machine."""
        root = guest.xml
        kind = root.find("os/type")
        virttype = root.get("type")
        if kind is None or not virttype or not kind.get("arch") or not kind.get("machine"):
            raise Unavailable(XML, "the XML does not state virtualization type, architecture and machine")
        arch = kind.get("arch", "")
        loader = root.find("os/loader")
        nvram = root.find("os/nvram")
        source = None if nvram is None else nvram.find("source")
        firmware: Literal["bios", "efi"] | None = None
        if root.find("os").get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash"):  # type: ignore[union-attr]
            firmware = "efi"
        elif loader is None and arch in {"x86_64", "i686"}:
            firmware = "bios"
        path = None if loader is None else (loader.text or "").strip() or None
        stated = None if loader is None else loader.get("format")
        return cls(
            virttype=virttype,
            arch=arch,
            machine=kind.get("machine", ""),
            emulator=root.findtext("devices/emulator") or None,
            firmware=firmware,
            loader=path,
            loader_format=stated or ("qcow2" if path and path.endswith(".qcow2") else "raw"),
            nvram=None
            if nvram is None
            else (nvram.text or "").strip() or (source.get("file") if source is not None else None),
        )


@dataclass(frozen=True, slots=True)
class GuestCpu(GuestFact):
    """The guest's `<cpu>`; of an active guest what it runs with (`check='full'`, host-model expanded)."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    active: bool
    definition: CpuDefinition | None
    """None: no `<cpu>` element, that is QEMU's default model for the machine type."""
    inactive: CpuDefinition | None
    """What the next start would ask for."""
    tsc_frequency_hz: int | None
    """`<timer name='tsc' frequency=>`."""
    hyperv: frozenset[str]
    """Enlightenments that are on, by libvirt's names."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<cpu>`, `<clock>` and `<features>`."""
        root = guest.xml
        timer = root.find("clock/timer[@name='tsc']")
        frequency = None if timer is None else timer.get("frequency")
        return cls(
            active=guest.active,
            definition=_cpu(root),
            inactive=None if guest.inactive is None else _cpu(guest.inactive),
            tsc_frequency_hz=None if frequency is None else int(frequency),
            hyperv=frozenset(str(node.tag) for node in root.iterfind("features/hyperv/*[@state='on']")),
        )


def _cpu(root: etree._Element) -> CpuDefinition | None:
    cpu = root.find("cpu")
    if cpu is None:
        return None
    try:
        return from_element(cpu, "guest")
    except CpuError as error:
        raise Unavailable(XML, f"<cpu> not understood: {visible(str(error), 120)}") from error


_UNITS_BYTES = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "MB": 1000**2,
    "M": 1024**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "G": 1024**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "T": 1024**4,
    "TiB": 1024**4,
}


def _kib(text: str | None, unit: str | None) -> int:
    """A scaled number in KiB, rounded up. Raises `ValueError`."""
    scale = _UNITS_BYTES.get(unit or "KiB")
    text = (text or "").strip()
    if scale is None or not re.fullmatch(r"[0-9]{1,19}", text):
        raise ValueError(f"not a size: {visible(text, 40)} {visible(unit or '', 20)}")
    return -(-int(text) * scale // 1024)


def _size(node: etree._Element) -> int:
    return _kib(node.text, node.get("unit"))


_MOST_CPUS = 65536


def number_set(text: str) -> frozenset[int]:
    """libvirt's lists of CPUs or nodes: `0-3,^2,8`. Raises `ValueError`."""
    numbers: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\^?)([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if not match or int(match[3] or match[2]) >= _MOST_CPUS:
            raise ValueError(f"not a list of numbers: {visible(text, 80)}")
        span = range(int(match[2]), int(match[3] or match[2]) + 1)
        if match[1]:
            numbers.difference_update(span)
        else:
            numbers.update(span)
    return frozenset(numbers)


@dataclass(frozen=True, slots=True)
class GuestMemory(GuestFact):
    """Memory and where it must come from."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    memory_kib: int
    max_memory_kib: int
    hugepage_kib: tuple[int, ...]
    """Page sizes asked for; 0 = the host's default size. Empty: no huge pages."""
    nodeset: frozenset[int]
    """Host NUMA nodes that `<numatune>` binds memory to."""
    strict: bool
    """`mode='strict'` for any of it."""
    locked: bool
    file_backed: bool
    nvdimm: bool
    dimms_without_address: bool
    hard_limit_kib: int | None
    immediate: bool = False
    """QEMU takes all of it at its start (`<allocation mode='immediate'/>`)."""
    block_kib: int = 0
    """The largest piece that QEMU asks for: all of it, or the largest of the guest's NUMA nodes and memory modules."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<memory>`, `<memoryBacking>`, `<numatune>`, `<memtune>` and memory devices."""
        root = guest.xml
        memory = root.find("memory")
        if memory is None:
            raise Unavailable(XML, "no <memory>")
        memory_kib = _size(memory)
        maximum = root.find("maxMemory")
        hugepages = root.find("memoryBacking/hugepages")
        pages: set[int] = set()
        if hugepages is not None:
            pages = {_kib(page.get("size"), page.get("unit")) for page in hugepages.iterfind("page")} or {0}
        bound = [
            node for tag in ("memory", "memnode") for node in root.iterfind(f"numatune/{tag}") if node.get("nodeset")
        ]
        source = root.find("memoryBacking/source")
        devices = list(root.iterfind("devices/memory"))
        limit = root.find("memtune/hard_limit")
        return cls(
            memory_kib=memory_kib,
            max_memory_kib=memory_kib if maximum is None else _size(maximum),
            hugepage_kib=tuple(sorted(pages)),
            nodeset=frozenset().union(*(number_set(node.get("nodeset", "")) for node in bound)),
            strict=any(node.get("mode", "strict") == "strict" for node in bound),
            locked=root.find("memoryBacking/locked") is not None,
            file_backed=source is not None and source.get("type") == "file",
            nvdimm=any(device.get("model") in {"nvdimm", "virtio-pmem"} for device in devices),
            dimms_without_address=any(
                device.get("model") == "dimm" and device.find("address[@type='dimm']") is None for device in devices
            ),
            hard_limit_kib=None if limit is None else _size(limit),
            immediate=root.find("memoryBacking/allocation[@mode='immediate']") is not None,
            block_kib=max(_blocks(root), default=memory_kib),
        )


def _blocks(root: etree._Element) -> list[int]:
    """The pieces that a guest with NUMA nodes of its own, and perhaps memory modules, has its memory in."""
    cells = [
        _kib(cell.get("memory"), cell.get("unit")) for cell in root.iterfind("cpu/numa/cell") if cell.get("memory")
    ]
    return cells and cells + [_size(size) for size in root.iterfind("devices/memory/target/size")]


@dataclass(frozen=True, slots=True)
class GuestPinning(GuestFact):
    """vCPUs and the host CPUs they are pinned to."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    vcpus: int
    cpuset: frozenset[int]
    """Host CPUs named anywhere in `<vcpu cpuset>` or `<cputune>`; empty: not pinned."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<vcpu>` and `<cputune>`."""
        vcpu = guest.xml.find("vcpu")
        if vcpu is None or not re.fullmatch(r"\s*[0-9]{1,6}\s*", vcpu.text or ""):
            raise Unavailable(XML, "no number of vCPUs")
        pins = [vcpu, *guest.xml.iterfind("cputune/*[@cpuset]")]
        return cls(int(vcpu.text or ""), frozenset().union(*(number_set(pin.get("cpuset", "")) for pin in pins)))


@dataclass(frozen=True, slots=True)
class GuestSnapshots(GuestFact):
    """libvirt's snapshot metadata."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, SNAPSHOTS)
    snapshots: int
    """At least so many."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """Whether there are any says the list of guests with snapshots; how many, the snapshots' names."""
        uuid = guest.guest.uuid
        if read_listing(guest.said).only(uuid, "snapshots", "no-snapshots") == "no-snapshots":
            return cls(0)
        names = answers(guest.said, SNAPSHOTS).get(uuid, b"")
        return cls(max(1, sum(1 for line in names.splitlines() if line.strip())))
