"""Devices of a host that a guest holds, and what the hosts know of them: PCI, USB, mediated (vGPU).

The guest names them by the host's own numbers, so the same numbers must mean a like device on the target.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import Facts, GuestFact, GuestSource, HostFact, Question, Said, Unavailable
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE, running_guests, unread_guests
from audit.text import visible

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_USB_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Held(NamedTuple):
    """One device of the host that a guest holds."""

    what: Literal["NIC", "device"]
    kind: str
    """pci, usb, mdev, scsi, scsi_host, or `capabilities` (containers only)."""
    address: str | None
    """PCI address 0000:00:00.0, UUID of a mediated device, vendor:product of a USB device, adapter and LUN."""
    asked_driver: str | None
    """`<driver model=>`"""
    model: str | None
    """Of a mediated device: vfio-pci, vfio-ccw, vfio-ap."""
    unplugged: bool
    """libvirt's `<teaming type='transient'>`: QEMU takes it out of the guest for the migration."""
    optional: bool
    """A USB device that a target may do without (`startupPolicy`)."""
    managed: bool
    """libvirt itself binds a PCI device to a VFIO driver."""
    pooled: bool
    """A virtual function that a libvirt network lent; the target's network lends another one."""
    place: str | None = None
    """Of a USB device: bus and number on its host, `1:4`."""
    place_fixed: bool | None = False
    """The USB device is configured with that place, and must be there on the target. None: it was attached to the
    running guest only, and its configuration does not tell."""

    @property
    def name(self) -> str:
        """For findings: `pci device 0000:3b:00.0`."""
        kind = "" if self.what == "NIC" else f"{self.kind} "
        return f"{kind}{self.what} {self.address or ''}".strip()


@dataclass(frozen=True, slots=True)
class GuestHeld(GuestFact):
    """Every device of the host that the guest holds."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    devices: tuple[Held, ...]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<hostdev>` and `<interface type='hostdev'>`."""
        nodes = list(guest.xml.iterfind("devices/hostdev"))
        found = [
            Held(
                "device",
                device.type,
                _scsi(node) if device.type == "scsi" else device.address,
                device.driver,
                device.mdev_model,
                device.teaming == "transient",
                device.dropped_when_missing,
                node.get("managed") == "yes",
                False,
                *(_usb_place(node, guest) if device.type == "usb" else (None, False)),
            )
            for node, device in zip(nodes, GuestDevices.parse(guest).hostdevs, strict=True)
        ]
        interfaces = list(guest.xml.iterfind("devices/interface"))
        for node, nic in zip(interfaces, GuestNics.parse(guest).nics, strict=True):
            if nic.type == "hostdev":
                managed, pooled = node.get("managed") == "yes", nic.network is not None
                unplugged = nic.teaming == "transient"
                found.append(
                    Held("NIC", "pci", nic.pci_address, nic.driver, None, unplugged, False, managed or pooled, pooled)
                )
        return cls(tuple(found))


def _scsi(node: etree._Element) -> str | None:
    """`scsi_host0 0:0:0` (adapter, then bus, target and unit), or `iscsi:NAME`."""
    source, adapter, address = node.find("source"), node.find("source/adapter"), node.find("source/address")
    if source is not None and source.get("protocol"):
        return f"{source.get('protocol')}:{source.get('name', '')}"
    if adapter is None or address is None:
        return None
    return f"{adapter.get('name', '')} {':'.join(address.get(part, '0') for part in ('bus', 'target', 'unit'))}"


def _usb_place(node: etree._Element, guest: GuestSource) -> tuple[str | None, bool | None]:
    """Where a USB device is, and whether it is configured so: a running guest's XML tells the place of every one."""
    kind, place = _usb(node)
    if guest.inactive is None or guest.inactive is guest.xml:
        return place, place is not None
    configured = [other for other in map(_usb, guest.inactive.iterfind("devices/hostdev")) if other[0] == kind]
    return place, (kind, place) in configured if configured else None


def _usb(node: etree._Element) -> tuple[tuple[str | None, ...], str | None]:
    """Vendor and product of a USB device, and its bus and number."""
    ids = tuple(None if (at := node.find(f"source/{tag}")) is None else at.get("id") for tag in ("vendor", "product"))
    at = node.find("source/address")
    bus, number = (None, None) if at is None else (at.get("bus"), at.get("device"))
    return ids, f"{int(bus, 0)}:{int(number, 0)}" if bus and number else None


@dataclass(frozen=True, slots=True)
class HeldPci(HostFact):
    """PCI devices that the host's running guests hold."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    held: tuple[tuple[str, str], ...]
    """Address and the guest's name."""
    unread: int = 0
    """Guests whose devices are not known."""

    def holder(self, address: str) -> str | None:
        """The guest that has it."""
        return dict(self.held).get(address)

    def complete(self) -> None:
        """Raise `Unavailable` if there are running guests whose devices are not known."""
        if self.unread:
            raise unread_guests(self.unread)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From what guests are read from."""
        found, unread = running_guests(said, GuestHeld)
        pci = [(one, guest) for guest, own in found for one in own.devices if one.kind == "pci"]
        return cls(tuple(sorted((one.address, guest.name) for one, guest in pci if one.address)), unread)


def _ask_pci(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Every PCI address that guests of the cluster hold."""
    return _named(facts, host, peers, "pci", _PCI_ADDRESS)


def _ask_usb(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """vendor:product of every USB device that guests of the cluster hold."""
    return _named(facts, host, peers, "usb", _USB_ID)


def _named(
    facts: Facts, host: str, peers: Sequence[str], kind: str, shape: re.Pattern[str]
) -> Sequence[tuple[str, ...]]:
    names: Iterator[str | None] = (
        plain_usb(one.address) if kind == "usb" else one.address
        for _, held in facts.each_guest(sorted({host, *peers}), GuestHeld)
        for one in held.devices
        if one.kind == kind
    )
    return tuple((name,) for name in dict.fromkeys(names) if name and shape.fullmatch(name))


def plain_usb(address: str | None) -> str | None:
    """`0x0951:0x1666` as the kernel writes it: 0951:1666."""
    return None if address is None else address.lower().replace("0x", "")


PCI = Question(
    "hostdev.pci",
    """\
xargs -0 sh -c '
[ -d /sys/bus/pci/devices ] || { echo absent; exit 0; }
for address; do
    case $address in *[!0-9a-f:.]*) continue ;; esac
    cd "/sys/bus/pci/devices/$address" 2>/dev/null || { echo "$address none"; continue; }
    driver=- group=-
    [ ! -e driver ] || { driver=$(readlink driver); driver=${driver##*/}; }
    [ ! -e iommu_group ] || { group=$(readlink iommu_group); group=${group##*/}; }
    echo "$address $(cat vendor):$(cat device) $driver $group"
done
echo end' sh""",
    ask=_ask_pci,
    hand="lspci -nnk -s ADDRESS",
)


class PciDevice(NamedTuple):
    """One PCI device of a host."""

    model: str
    """vendor:device, as 0x15b3:0x101e"""
    driver: str | None
    iommu_group: str | None
    """None: the IOMMU is off, or not there."""


@dataclass(frozen=True, slots=True)
class PciDevices(HostFact):
    """What is at the PCI addresses that guests of the cluster hold."""

    probes: ClassVar[tuple[Probe, ...]] = (PCI,)
    found: tuple[tuple[str, PciDevice | None], ...]
    unread: str = ""
    """Why nothing is known. Only guests with such devices depend on it."""

    def at(self, address: str) -> PciDevice | None:
        """The device there; None: there is none. Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(PCI, self.unread)
        known = dict(self.found)
        if address not in known:
            raise Unavailable(PCI, f"not asked about {visible(address, 20)}")
        return known[address]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """A line an address: `ADDRESS MODEL DRIVER GROUP`, or `ADDRESS none`; `end` after the last one."""
        try:
            lines, asked = said.lines(PCI), said.evidence(PCI).arguments
            if lines == ["absent"]:
                return cls(tuple(sorted((address, None) for (address,) in asked)))
            _ended(PCI, lines, asked)
            return cls(tuple(sorted((_pci_line(line) for line in lines[:-1]), key=lambda pair: pair[0])))
        except Unavailable as why:
            return cls((), why.reason)


def _ended(probe: Probe, lines: list[str], asked: object) -> None:
    if asked and lines[-1:] != ["end"]:
        raise Unavailable(probe, "the answer broke off")


def _pci_line(line: str) -> tuple[str, PciDevice | None]:
    match line.split():
        case [address, "none"] if _PCI_ADDRESS.fullmatch(address):
            return address, None
        case [address, model, driver, group] if _PCI_ADDRESS.fullmatch(address):
            if re.fullmatch(r"0x[0-9a-f]{4}:0x[0-9a-f]{4}", model):
                return address, PciDevice(model, _or_none(driver), _or_none(group))
    raise Unavailable(PCI, f"not understood: {visible(line, 120)}")


def _or_none(text: str) -> str | None:
    return None if text == "-" else text


USB = Question(
    "hostdev.usb",
    """\
xargs -0 sh -c '
for wanted; do
    places=
    for device in /sys/bus/usb/devices/*/idVendor; do
        [ -r "$device" ] || continue
        cd "${device%/idVendor}" || exit
        [ "$(cat idVendor):$(cat idProduct)" != "$wanted" ] || places="$places $(cat busnum):$(cat devnum)"
    done
    echo "$wanted$places"
done
echo end' sh""",
    ask=_ask_usb,
    maximum=100,
    hand="lsusb -d VENDOR:PRODUCT",
)


@dataclass(frozen=True, slots=True)
class UsbDevices(HostFact):
    """Where the host has USB devices of each kind that guests of the cluster hold."""

    probes: ClassVar[tuple[Probe, ...]] = (USB,)
    found: tuple[tuple[str, tuple[str, ...]], ...]
    """vendor:product, and bus and number of each such device: 1:4."""
    unread: str = ""

    def places(self, address: str) -> tuple[str, ...]:
        """Where those of that vendor:product are. Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(USB, self.unread)
        known = dict(self.found)
        wanted = plain_usb(address)
        if wanted not in known:
            raise Unavailable(USB, f"not asked about {visible(address, 20)}")
        return known[wanted]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """A line a kind, with the places of those that there are: `0951:1666 1:4 3:2`; `end` after the last one."""
        try:
            lines = said.lines(USB)
            _ended(USB, lines, said.evidence(USB).arguments)
            return cls(tuple(sorted(_usb_line(line) for line in lines[:-1])))
        except Unavailable as why:
            return cls((), why.reason)


def _usb_line(line: str) -> tuple[str, tuple[str, ...]]:
    name, *places = line.split()
    if not _USB_ID.fullmatch(name) or not all(re.fullmatch(r"[0-9]{1,3}:[0-9]{1,3}", place) for place in places):
        raise Unavailable(USB, f"not understood: {visible(line, 80)}")
    return name, tuple(places)


MDEV = Probe(
    "hostdev.mdev",
    """\
for parent in /sys/class/mdev_bus/*; do
    [ -d "$parent/mdev_supported_types" ] || continue
    for type in "$parent"/mdev_supported_types/*; do
        [ ! -r "$type/available_instances" ] ||
            echo "type ${parent##*/} ${type##*/} $(cat "$type/available_instances")"
    done
done
for device in /sys/bus/mdev/devices/*; do
    [ -e "$device/mdev_type" ] || continue
    type=$(readlink "$device/mdev_type")
    echo "device ${device##*/} ${type##*/}"
done
[ ! -r /sys/module/nvidia/version ] || echo "nvidia $(cat /sys/module/nvidia/version)"
echo end""",
    hand="mdevctl list; mdevctl types; cat /sys/module/nvidia/version",
)


@dataclass(frozen=True, slots=True)
class MediatedDevices(HostFact):
    """Mediated devices that exist, what could be made, and the version of NVIDIA's host driver."""

    probes: ClassVar[tuple[Probe, ...]] = (MDEV,)
    types: tuple[tuple[str, str, int], ...]
    """Parent's address, type, how many more of it can be made."""
    devices: tuple[tuple[str, str], ...]
    """UUID and type."""
    nvidia: str | None
    unread: str = ""
    """Why nothing is known. Only guests with such devices depend on it."""

    def known(self) -> Self:
        """The fact itself. Raises `Unavailable` where nothing is known."""
        if self.unread:
            raise Unavailable(MDEV, self.unread)
        return self

    def type_of(self, uuid: str) -> str | None:
        """The type of the device; None: there is none of that UUID. Raises `Unavailable`."""
        return dict(self.known().devices).get(uuid.lower())

    def available(self, kind: str) -> tuple[tuple[str, int], ...]:
        """Parents that know the type, and how many more of it each can make. Raises `Unavailable`."""
        return tuple((parent, number) for parent, name, number in self.known().types if name == kind)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`type PARENT TYPE AVAILABLE`, `device UUID TYPE`, `nvidia VERSION`, `end`."""
        try:
            lines = said.lines(MDEV)
            _ended(MDEV, lines, asked=True)
            return cls(*_mediated(lines[:-1]))
        except Unavailable as why:
            return cls((), (), None, why.reason)


def _mediated(lines: list[str]) -> tuple[tuple[tuple[str, str, int], ...], tuple[tuple[str, str], ...], str | None]:
    types, devices, nvidia = [], [], None
    for line in lines:
        match line.split():
            case ["type", parent, kind, number] if re.fullmatch(r"[0-9]{1,6}", number):
                types.append((parent, kind, int(number)))
            case ["device", uuid, kind] if _UUID.fullmatch(uuid.lower()):
                devices.append((uuid.lower(), kind))
            case ["nvidia", version]:
                nvidia = version
            case _:
                raise Unavailable(MDEV, f"not understood: {visible(line, 120)}")
    return tuple(sorted(types)), tuple(sorted(devices)), nvidia
