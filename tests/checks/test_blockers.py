"""What QEMU does not migrate."""

import pytest

from audit.check import Blocks, Unavailable
from audit.facts.blockers import GuestFormats, GuestUnsaved
from audit.facts.versions import Qemu, Version
from checks import blockers as checks
from tests.asked import found as asked

PLAIN = GuestFormats((("vda", "qcow2"), ("vdb", "raw")), (), (), False)


def found(check, fact):
    return [finding.actual for finding in check.function(fact)]


def test_formats_of_other_hypervisors():
    assert found(checks.disk_format, GuestFormats((("vda", "qcow2"), ("vda", "vmdk")), (), (), False)) == ["vda: vmdk"]
    assert found(checks.disk_format, PLAIN) == []
    for kind in ("qcow", "vdi", "vpc", "vhdx"):
        assert found(checks.disk_format, GuestFormats((("sda", kind),), (), (), False))
    assert checks.disk_format.blocks is Blocks.MIGRATION


def test_what_stays_on_the_host():
    assert found(checks.writable_folder, GuestFormats((), ("fda",), (), False)) == ["fda"]
    assert found(checks.persistent_reservations, GuestFormats((), (), ("sda",), False)) == ["sda has <reservations>"]
    assert found(checks.host_smartcard, GuestFormats((), (), (), True))
    for check in (checks.writable_folder, checks.persistent_reservations, checks.host_smartcard):
        assert found(check, PLAIN) == []
    assert checks.persistent_reservations.blocks is Blocks.NOTHING


def test_devices_that_qemu_does_not_save():
    def judge(name, *version):
        devices = GuestUnsaved(((name, "words"),))
        return [finding.because for finding in asked(checks.unsaved_devices, devices, Qemu(Version(*version)))]

    assert judge("virgl", 10, 2) == ["virgl is not yet migratable"]
    assert judge("usb-audio", 7, 2) == ["non-migratable device: usb-audio"]
    assert judge("nvme", 10, 2) == ["non-migratable device: nvme"]
    assert judge("amd-iommu", 10, 0)
    for name, version in (("nvme", (11, 0)), ("amd-iommu", (10, 1)), ("vhost-user-gpu", (8, 2))):
        with pytest.raises(Unavailable, match=f"whether QEMU .* migrates {name}"):
            judge(name, *version)
    assert not asked(checks.unsaved_devices, GuestUnsaved(()), Qemu(None))
    with pytest.raises(Unavailable):
        asked(checks.unsaved_devices, GuestUnsaved((("nvme", "words"),)), Qemu(None))
    assert judge("ivshmem", 7, 2, 0) == ["Migration is disabled when using feature 'peer mode' in device 'ivshmem'"]
    assert checks.unsaved_devices.blocks is Blocks.MIGRATION


def test_enlightenments_passed_through():
    assert found(checks.hyperv_passthrough, GuestUnsaved((), True)) == ["<hyperv mode='passthrough'/>"]
    assert found(checks.hyperv_passthrough, GuestUnsaved(())) == []
    assert checks.hyperv_passthrough.blocks is Blocks.MIGRATION
