"""Firmware in a guest's memory: a block of it must have the same size on both hosts, or nothing can be received.

The UEFI firmware itself is judged by `storage.nvram_and_loader`.
"""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.firmware import GuestFirmware, OptionRoms
from audit.facts.paths import Paths


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
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


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
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
    for name in firmware.roms:
        ours, theirs = here.block_bytes(name), there.block_bytes(name)
        if ours is not None and theirs is not None and ours != theirs:
            yield Finding(
                expected=f"{name} of up to {ours // 1024} KiB on the target",
                actual=f"{theirs // 1024} KiB",
                because="Size mismatch of the device's ROM",
            )
        elif (ours is None) != (theirs is None):
            side = "here" if ours is None else "on the target"
            yield Finding(f"{name} on both hosts", f"not found {side}", f'failed to find romfile "{name}"')
