"""Firmware in a guest's memory."""

from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Unavailable
from audit.facts.firmware import GuestFirmware, OptionRoms
from audit.facts.guest import GuestMachine
from audit.facts.paths import Paths, PathState
from checks import firmware as checks
from tests.asked import found

NVRAM, TEMPLATE = "/var/lib/libvirt/qemu/nvram/g.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
UEFI = GuestFirmware((), NVRAM, TEMPLATE, True)
FILE = PathState(True, True, (), "file", 540672, "8:1", 7, 0xEF53, 1, frozenset())
GONE = PathState(False, True, (), None, 0, None, 0, None, 0, frozenset())
SMALL = replace(FILE, size=131072)
NIC = GuestFirmware(("efi-virtio.rom",), None, None, True)


def paths(nvram, template=FILE):
    return Paths((TEMPLATE, NVRAM), (template, nvram))


@pytest.mark.parametrize(
    ("firmware", "there", "actual"),
    [
        (UEFI, paths(GONE), None),
        (UEFI, paths(FILE), None),
        (UEFI, paths(SMALL), "131072 bytes on the target"),
        (UEFI, paths(GONE, SMALL), "131072 bytes on the target"),
        (UEFI, paths(GONE, GONE), "not there"),
        (replace(UEFI, template=None), paths(replace(GONE, folder_exists=False)), "not there"),
        (replace(UEFI, raw=False), paths(GONE, SMALL), None),
        (replace(UEFI, raw=False), paths(GONE, GONE), "not there"),
    ],
)
def test_uefi_variables(firmware, there, actual):
    findings = found(checks.variables, firmware, paths(FILE), there)
    assert [f.actual for f in findings] == ([actual] if actual else [])


def test_uefi_variables_that_nobody_can_judge():
    for firmware, there in ((NIC, paths(FILE)), (replace(UEFI, template=None), paths(GONE))):
        with pytest.raises(NotApplicable):
            found(checks.variables, firmware, paths(FILE), there)
    unread = Paths((), (), "not collected")
    for here, there in ((unread, paths(GONE)), (paths(FILE), unread)):
        with pytest.raises(Unavailable):
            found(checks.variables, UEFI, here, there)


def roms(**sizes):
    return OptionRoms(tuple((f"efi-{name}.rom", size) for name, size in sizes.items()))


def test_roms_are_compared_as_they_lie_in_memory():
    def actual(here, there):
        return [f.actual for f in found(checks.option_roms, NIC, here, there)]

    assert actual(roms(virtio=160000), roms(virtio=258048)) == []
    assert actual(roms(virtio=258048), roms(virtio=262145)) == ["512 KiB"]
    assert actual(roms(virtio=258048), roms(e1000=1)) == ["not found"]
    assert actual(roms(e1000=1), roms(virtio=258048)) == [], "the guest has it: it was there when it started"
    with pytest.raises(Unavailable):
        actual(roms(virtio=1), OptionRoms((), "not collected"))
    with pytest.raises(NotApplicable):
        found(checks.option_roms, UEFI, roms(), roms())
    with pytest.raises(Unavailable, match="one of the hosts"):
        actual(roms(virtio=258048), roms())
    for firmware, here in ((NIC, roms()), (replace(NIC, own=True), roms(virtio=1))):
        with pytest.raises(NotApplicable):
            found(checks.option_roms, firmware, here, roms())
    assert checks.option_roms.blocks is Blocks.MIGRATION


def test_the_bios_is_compared_byte_by_byte():
    guest = replace(NIC, bios="bios-256k.bin")

    def actual(here, there, firmware=guest):
        sides = (OptionRoms(tuple(side.items())) for side in (here, there))
        return [f.actual for f in found(checks.bios, firmware, *sides)]

    name = "bios-256k.bin"
    assert actual({name: 262144}, {name: 262144}) == []
    assert actual({name: 262144}, {name: 131072}) == ["131072 bytes on the target"]
    assert actual({name: 262144}, {"bios.bin": 1}) == ["not found"]
    assert actual({"bios.bin": 1}, {name: 1}) == []
    for firmware in (NIC, replace(guest, own=True)):
        with pytest.raises(NotApplicable):
            actual({name: 1}, {name: 1}, firmware)
    with pytest.raises(Unavailable):
        found(checks.bios, guest, OptionRoms(((name, 1),)), OptionRoms((), "not collected"))


MACHINE = GuestMachine("kvm", "x86_64", "pc-q35-9.0", "/usr/libexec/qemu-kvm", "efi", "/fw/code.fd", "/vars/web.fd")


def test_the_firmware_itself():
    def there(code, variables=GONE):
        return Paths(("/fw/code.fd", "/vars/web.fd"), (code, variables))

    good = there(FILE)
    assert not found(checks.loader, MACHINE, good, good)
    assert len(found(checks.loader, MACHINE, good, there(GONE))) == 1
    [finding] = found(checks.loader, MACHINE, good, there(SMALL, FILE))
    assert "Size mismatch" in finding.because
    assert not found(checks.loader, replace(MACHINE, loader_format="qcow2"), good, there(SMALL, FILE))
    with pytest.raises(Unavailable):
        found(checks.loader, MACHINE, good, Paths((), ()))
