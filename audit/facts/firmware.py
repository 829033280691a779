"""Firmware that QEMU puts into a guest's memory: option ROMs of its devices, and UEFI with its variables."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.text import visible

# Where distributions' QEMUs look (their --firmwarepath and data folders); the first one counts.
ROMS = Probe(
    "firmware.roms",
    """\
for folder in qemu-firmware ipxe/qemu seavgabios seabios qemu-kvm qemu ../lib/ipxe/qemu; do
    for file in "/usr/share/$folder"/efi-*.rom "/usr/share/$folder"/vgabios-*.bin \
        "/usr/share/$folder"/bios.bin "/usr/share/$folder"/bios-256k.bin
    do
        [ ! -f "$file" ] || echo "${file##*/} $(stat -L -c %s "$file")"
    done
done
echo end""",
    hand="ls -lL /usr/share/*/efi-*.rom /usr/share/*/*bios*.bin /usr/share/ipxe/qemu /usr/lib/ipxe/qemu",
)

# QEMU: `romfile` of each device class (hw/net, hw/display, hw/virtio).
_NIC_ROMS = {
    "virtio": "efi-virtio.rom",
    "virtio-transitional": "efi-virtio.rom",
    "virtio-non-transitional": "efi-virtio.rom",
    "e1000": "efi-e1000.rom",
    "e1000e": "efi-e1000e.rom",
    "rtl8139": "efi-rtl8139.rom",
    "ne2k_pci": "efi-ne2k_pci.rom",
    "pcnet": "efi-pcnet.rom",
    "vmxnet3": "efi-vmxnet3.rom",
}
_VIDEO_ROMS = {
    "vga": "vgabios-stdvga.bin",
    "qxl": "vgabios-qxl.bin",
    "virtio": "vgabios-virtio.bin",
    "cirrus": "vgabios-cirrus.bin",
    "vmvga": "vgabios-vmware.bin",
    "bochs": "vgabios-bochs-display.bin",
}


@dataclass(frozen=True, slots=True)
class OptionRoms(HostFact):
    """The ROM files that are installed beside QEMU."""

    probes: ClassVar[tuple[Probe, ...]] = (ROMS,)
    sizes_bytes: tuple[tuple[str, int], ...]
    unread: str = ""
    """Why nothing is known."""

    def file_bytes(self, name: str) -> int | None:
        """How large the file is; None: no such file. Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(ROMS, self.unread)
        return dict(self.sizes_bytes).get(name)

    def block_bytes(self, name: str) -> int | None:
        """How much of a guest's memory the ROM takes, a power of two (QEMU pci_add_option_rom). None: no such file.

        Raises `Unavailable`.
        """
        size = self.file_bytes(name)
        return None if size is None else 1 << max(size - 1, 0).bit_length()

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`NAME SIZE` in the order in which QEMU looks; `end` after the last one."""
        try:
            return cls(_sizes(said.lines(ROMS)))
        except Unavailable as why:
            return cls((), why.reason)


def _sizes(lines: list[str]) -> tuple[tuple[str, int], ...]:
    if lines[-1:] != ["end"]:
        raise Unavailable(ROMS, "the answer broke off")
    sizes: dict[str, int] = {}
    for line in lines[:-1]:
        name, _, size = line.rpartition(" ")
        if not name or not re.fullmatch(r"[0-9]{1,12}", size):
            raise Unavailable(ROMS, f"not understood: {visible(line, 100)}")
        sizes.setdefault(name, int(size))
    return tuple(sorted(sizes.items()))


@dataclass(frozen=True, slots=True)
class GuestFirmware(GuestFact):
    """What of the host's firmware files the guest has in its memory."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    roms: tuple[str, ...]
    """Names of the files that its devices load, where the XML says nothing else."""
    nvram: str | None
    """File with the UEFI variables, where it is a file."""
    template: str | None
    """What libvirt makes that file of where there is none."""
    raw: bool
    """Both are raw images: their size is that of the flash memory."""
    bios: str = ""
    """The file that its BIOS is, where QEMU chooses it."""
    own: bool = False
    """Its emulator is none of a distribution's, and so finds these files elsewhere."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<interface>`, `<video>` and `<os><nvram>`. Only PCs have a ROM for the screen."""
        nvram = guest.xml.find("os/nvram")
        loader = guest.xml.find("os/loader")
        path = template = None
        formats = {"raw"}
        if nvram is not None:
            source = nvram.find("source")
            path = (nvram.text or "").strip() or (source.get("file") if source is not None else None)
            template = nvram.get("template") or None
            formats |= {nvram.get("format") or "raw", nvram.get("templateFormat") or "raw"}
            formats |= {loader.get("format") or "raw"} if loader is not None else set()
        emulator = guest.xml.findtext("devices/emulator") or ""
        return cls(
            tuple(dict.fromkeys(_roms(guest.xml))),
            path or None,
            template,
            formats == {"raw"},
            _bios(guest.xml),
            bool(emulator) and not emulator.startswith(("/usr/bin/", "/usr/libexec/")),
        )


def _bios(root: etree._Element) -> str:
    """QEMU hw/i386/pc_piix.c, pc_q35.c: machine types before 2.0 had a smaller one."""
    system, kind = root.find("os"), root.find("os/type")
    if system is None or kind is None or kind.get("arch") not in {"x86_64", "i686"}:
        return ""
    machine = kind.get("machine") or ""
    if system.find("loader") is not None or system.get("firmware") == "efi" or not re.match(r"pc|q35", machine):
        return ""
    return "bios.bin" if re.fullmatch(r"pc-(?:i440fx-|q35-)?[01]\.[0-9]+", machine) else "bios-256k.bin"


def _roms(root: etree._Element) -> list[str]:
    found = []
    kind = root.find("os/type")
    screens = _VIDEO_ROMS if kind is not None and kind.get("arch") in {"x86_64", "i686"} else {}
    for tag, known in (("interface", _NIC_ROMS), ("video", screens)):
        for node in root.iterfind(f"devices/{tag}"):
            model, rom = node.find("model"), node.find("rom")
            name = known.get(model.get("type") or "" if model is not None else "")
            # <rom file=…> is a path of its own; bar='off' and enabled='no' leave no memory for one.
            if name and node.get("type") not in {"hostdev"} and rom is None and _on_pci(node):
                found.append(name)
    return found


def _on_pci(node: etree._Element) -> bool:
    address = node.find("address")
    return address is None or address.get("type") == "pci"
