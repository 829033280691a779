"""Firmware in a guest's memory: a block of it must have the same size on both hosts, or nothing can be received."""

import shlex
from collections.abc import Iterator

from audit.check import (
    Blocks,
    Finding,
    NotApplicable,
    Severity,
    Source,
    Stage,
    Target,
    Told,
    Unavailable,
    check,
    if_known,
)
from audit.facts.firmware import ROMS, GuestFirmware, OptionRoms
from audit.facts.guest import GuestMachine
from audit.facts.paths import Paths


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU: the firmware is part of the guest's memory layout",
    covers=("failure 29",),
)
def loader(machine: GuestMachine, here: Source[Paths], there: Target[Paths]) -> Told:
    """The guest's firmware exists on the target.

    The target's QEMU maps the firmware file before it receives anything, and expects it to be of the same size.
    """
    if machine.loader:
        theirs = yield from if_known(there.find(machine.loader))
        ours = yield from if_known(here.find(machine.loader))
        if theirs is not None and not theirs.exists:
            yield Finding(
                expected=f"{machine.loader} on the target",
                actual="not there",
                remedy="Install the same firmware package (edk2-ovmf, ovmf) on the target",
            )
        # The size of a qcow2 file is not the size of the flash memory.
        elif machine.loader_format == "raw" and theirs and ours and ours.exists and ours.size != theirs.size:
            yield Finding(
                expected=f"{machine.loader} of {ours.size} bytes",
                actual=f"{theirs.size} bytes on the target",
                because="Size mismatch: system.flash0",
                remedy="Install the same firmware package in the same version on the target",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 qemuPrepareNVRAM; QEMU migration/ram.c parse_ramblock",
    covers=("failure 29",),
)
def variables(firmware: GuestFirmware, here: Source[Paths], there: Target[Paths]) -> Iterator[Finding]:
    """The target has, or can make, a file for the guest's UEFI variables, of the same size.

    Where the file is not there, libvirt copies a template, whose path stands in the guest's XML. QEMU maps the file
    as flash memory and receives the variables into it.
    """
    if not firmware.nvram:
        raise NotApplicable("no file of UEFI variables")
    theirs, ours = there.at(firmware.nvram), here.find(firmware.nvram)
    path = firmware.nvram
    if not theirs.folder_exists:
        folder = firmware.nvram.rpartition("/")[0]
        yield Finding(
            expected=f"the folder {folder} on the target",
            actual="not there",
            because=f"Failed to create file '{firmware.nvram}': No such file or directory",
            remedy=f"On the target: mkdir -p {shlex.quote(folder)}",
        )
        return
    if not theirs.exists:
        if not firmware.template:
            raise NotApplicable("libvirt looks for a template itself")
        path = firmware.template
        theirs = there.at(path)
        if not theirs.exists:
            yield Finding(
                expected=f"{path} on the target",
                actual="not there",
                because=f"Failed to open file '{path}': No such file or directory",
                remedy="Install the same firmware package (edk2-ovmf, ovmf) on the target; or copy the guest's "
                f"{shlex.quote(firmware.nvram)} there",
            )
            return
    if not firmware.raw or theirs.kind == "block":
        return
    if isinstance(ours, Unavailable):
        raise ours
    if ours.exists and ours.kind == "file" and ours.size != theirs.size:
        yield Finding(
            expected=f"{path} of {ours.size} bytes",
            actual=f"{theirs.size} bytes on the target",
            because="Size mismatch: system.flash1",
            remedy="On the target: move the file away, if no guest of the target uses it; or install the same firmware "
            "package",
        )


def _comparable(firmware: GuestFirmware, here: OptionRoms, there: OptionRoms) -> None:
    """Raise where the files that were looked at are not those that QEMU takes."""
    if firmware.own:
        raise NotApplicable("an emulator of the site's own brings its own")
    sides = {bool(side.sizes_bytes) for side in (here, there) if not side.unread}
    if sides == {False}:
        raise NotApplicable("neither host has such files where distributions have them")
    if len(sides) == 2:
        raise Unavailable(ROMS, "one of the hosts has no such files where distributions have them")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU hw/i386/x86.c x86_bios_rom_init; migration/ram.c parse_ramblock",
    remedy="Install the same package of the BIOS on both hosts (seabios-bin, seabios)",
    covers=("failure 29",),
)
def bios(firmware: GuestFirmware, here: Source[OptionRoms], there: Target[OptionRoms]) -> Iterator[Finding]:
    """The target has the guest's BIOS, of the same size.

    The BIOS is a block of the guest's memory, as large as its file. QEMU does not start without the file; a block of
    another size ends the migration.
    """
    if not firmware.bios:
        raise NotApplicable("no BIOS of QEMU's choice")
    _comparable(firmware, here, there)
    ours, theirs = here.file_bytes(firmware.bios), there.file_bytes(firmware.bios)
    if theirs is None and ours is not None:
        yield Finding(f"{firmware.bios} on the target", "not found", f"could not load PC BIOS '{firmware.bios}'")
    elif ours is not None and ours != theirs:
        yield Finding(f"{firmware.bios} of {ours} bytes", f"{theirs} bytes on the target", "Size mismatch: pc.bios")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU hw/pci/pci.c pci_add_option_rom, migration/ram.c parse_ramblock",
    remedy="Install the same packages of ROMs on both hosts (ipxe-roms-qemu, seavgabios; ipxe-qemu, seabios)",
    covers=("failure 29",),
)
def option_roms(firmware: GuestFirmware, here: Source[OptionRoms], there: Target[OptionRoms]) -> Iterator[Finding]:
    """The ROM files of the guest's devices take as much memory on the target as here.

    A device's ROM is a block of the guest's memory: the file's size, rounded up to a power of two. Blocks of different
    size end the migration. A guest has the file that was there when it was started; QEMU does not start without it.
    """
    if not firmware.roms:
        raise NotApplicable("no device with a ROM of QEMU's")
    _comparable(firmware, here, there)
    for name in firmware.roms:
        ours, theirs = here.block_bytes(name), there.block_bytes(name)
        if ours is not None and theirs is not None and ours != theirs:
            yield Finding(
                expected=f"{name} of up to {ours // 1024} KiB on the target",
                actual=f"{theirs // 1024} KiB",
                because="Size mismatch of the device's ROM",
            )
        elif ours is not None and theirs is None:
            yield Finding(f"{name} on the target", "not found", f'failed to find romfile "{name}"')
