"""What of a guest's disks and lines QEMU does not hand over: formats, reservations, card readers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.arguments import devices_of
from audit.facts.base import GuestFact, GuestSource, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE

_MOST_LAYERS = 256


@dataclass(frozen=True, slots=True)
class GuestFormats(GuestFact):
    """The formats of every image that the guest's disks consist of, and how they are driven."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    formats: tuple[tuple[str, str], ...]
    """Disk and format, each once: qcow2, raw, vmdk, …"""
    writable_folders: tuple[str, ...]
    """Disks of type `dir` that the guest may write to (QEMU's vvfat)."""
    reservations: tuple[str, ...]
    """Disks with SCSI persistent reservations (`<reservations>`)."""
    smartcard_host: bool
    """A smart card that is read on the host (mode host, or host-certificates)."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<disk>` and `<smartcard>`."""
        disks = [(_target(node), node) for node in guest.xml.iterfind("devices/disk")]
        cards = guest.xml.iterfind("devices/smartcard")
        return cls(
            tuple(dict.fromkeys((target, kind) for target, node in disks for kind in _formats(node))),
            tuple(t for t, node in disks if node.get("type") == "dir" and node.find("readonly") is None),
            tuple(t for t, node in disks if node.find("source/reservations") is not None),
            any((node.get("mode") or "").startswith("host") for node in cards),
        )


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    return (target.get("dev") if target is not None else None) or ""


def _formats(disk: etree._Element) -> Iterator[str]:
    """The top image's, and those below it as far as the XML tells; an empty drive has none."""
    driver = disk.find("driver")
    if disk.find("source") is None:
        return
    if driver is not None and driver.get("type"):
        yield driver.get("type") or ""
    layer = disk.find("backingStore")
    for _ in range(_MOST_LAYERS):
        if layer is None:
            return
        kind = layer.find("format")
        if kind is not None and kind.get("type"):
            yield kind.get("type") or ""
        layer = layer.find("backingStore")


_UNSAVED = (
    ("video/model[@type='virtio']/acceleration[@accel3d='yes']", "virgl", "3D acceleration of the screen"),
    ("video/driver[@name='vhostuser']", "vhost-user-gpu", "screen drawn by a process of its own"),
    ("disk/target[@bus='nvme']", "nvme", "disk on the bus nvme"),
    ("controller[@type='nvme']", "nvme", "controller of type nvme"),
    ("sound[@model='usb']", "usb-audio", "sound of model usb"),
    ("sound[@model='virtio']", "virtio-sound", "sound of model virtio"),
    ("interface/model[@type='usb-net']", "usb-net", "NIC of model usb-net"),
    ("serial/target[@type='usb-serial']", "usb-serial", "serial line of type usb-serial"),
    ("filesystem/driver[@type='mtp']", "usb-mtp", "shared folder of type mtp"),
    ("crypto[@model='virtio']", "virtio-crypto", "crypto device"),
    ("input[@type='passthrough']", "virtio-input-host", "passed-through input device"),
    ("iommu[@model='amd']", "amd-iommu", "IOMMU of model amd"),
)
"""Where in `<devices>`, QEMU's name of what is there, and words for it."""
# Tried with QEMU 7.2: each has a state that is not saved (`query-migrate`: blocked-reasons).
_UNSAVED_MODELS = frozenset(
    {
        *("nvme", "rocker", "amd-iommu", "virtio-crypto", "virtio-sound", "virtio-input-host"),
        *("usb-audio", "usb-net", "usb-serial", "usb-braille", "usb-mtp", "usb-uas", "usb-wacom-tablet"),
        *("vhost-user-fs", "vhost-user-gpu"),
    }
)
_BUS = re.compile(r"-(?:pci|device)(?:-(?:non-)?transitional)?$")


def _models(root: etree._Element) -> Iterator[str]:
    """Models of the devices among the administrator's own arguments to QEMU (`-device MODEL,…`), as far as known."""
    for properties in devices_of(root):
        model = _BUS.sub("", properties["driver"])
        if model in {"virtio-gpu-gl", "virtio-vga-gl"}:
            yield "virgl"
        elif model in {"ivshmem-plain", "ivshmem-doorbell"}:
            if properties.get("master") not in {"on", "true", "True", "yes"}:
                yield "ivshmem"
        elif model in _UNSAVED_MODELS:
            yield model


@dataclass(frozen=True, slots=True)
class GuestUnsaved(GuestFact):
    """Emulated devices of a kind whose state QEMU does not save, or did not save in former releases."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    devices: tuple[tuple[str, str], ...]
    """QEMU's name and words for it, each once."""
    hyperv_passthrough: bool = False
    """It has whatever Hyper-V enlightenments its host offers (`<hyperv mode='passthrough'/>`)."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<devices>`, `<features>` and `<qemu:commandline>`."""
        devices = guest.xml.find("devices")
        if devices is None:
            raise Unavailable(XML, "no <devices>")
        found = [(name, words) for path, name, words in _UNSAVED if devices.find(path) is not None]
        found += [(name, f"device {name} by QEMU's own arguments") for name in dict.fromkeys(_models(guest.xml))]
        return cls(tuple(found), guest.xml.find("features/hyperv[@mode='passthrough']") is not None)


@dataclass(frozen=True, slots=True)
class GuestSpice(GuestFact):
    """Devices that speak SPICE, whatever the guest's graphics are."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    devices: tuple[str, ...]
    """channel, redirdev, smartcard, audio, …: each kind once."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """Of type spicevmc, spiceport or spice. `<graphics>` is told by `GuestDevices`."""
        nodes = (node for node in guest.xml.iterfind("devices/*") if node.tag != "graphics")
        found = (str(node.tag) for node in nodes if node.get("type") in {"spicevmc", "spiceport", "spice"})
        return cls(tuple(dict.fromkeys(found)))
