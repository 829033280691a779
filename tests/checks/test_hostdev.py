"""Devices of the host that may move with a guest, on plain values."""

import pytest

from audit.check import Blocks, NotApplicable, Severity, Unavailable
from audit.facts.guest_devices import GuestDevices
from audit.facts.hostdev import GuestHeld, Held, HeldPci, MediatedDevices, PciDevice, PciDevices
from audit.facts.mellanox import MellanoxDevices
from audit.facts.versions import Qemu, Version
from audit.facts.vfio import VfioDevices
from checks import hostdev as checks
from tests.asked import found

ADDRESS, UUID = "0000:3b:00.0", "c2177883-f1bb-47f0-914d-32a22e3a8804"
PCI = Held("device", "pci", ADDRESS, None, None, False, False, True, False)
VGPU = PCI._replace(kind="mdev", address=UUID, model="vfio-pci")
NO_CARDS = MellanoxDevices((), False, False)
PLAIN = GuestDevices((), (), (), None, None, False, False, None, (), (), False, False)
BEHIND = GuestDevices((), (), (), None, None, False, True, None, (), (), False, False)
HERE = PciDevices(((ADDRESS, PciDevice("0x1da8:0x1002", "pds_vfio_pci", "58")),))
UNREAD = PciDevices((), "not collected")
NO_MDEV = MediatedDevices((), (), None)


def held(*devices):
    return GuestHeld(devices)


def qemu(*numbers):
    return Qemu(Version(*numbers))


def there(model="0x1da8:0x1002", driver="qat_vfio_pci", group="7"):
    return PciDevices(((ADDRESS, PciDevice(model, driver, group)),))


def test_qemu_must_know_the_protocol():
    def sides(*versions):
        return [f.expected for f in found(checks.qemu, held(PCI), NO_CARDS, *(qemu(*v) for v in versions))]

    assert sides((7, 2, 0), (9, 0, 0)) == ["source: QEMU 8.1 or newer"]
    assert sides((9, 0, 0), (7, 2, 0)) == ["target: QEMU 8.1 or newer"]
    assert sides((8, 1, 0), (9, 0, 0)) == []
    with pytest.raises(Unavailable):
        sides((8, 0, 0), (9, 0, 0))
    for nothing in (held(), held(PCI._replace(unplugged=True)), held(PCI._replace(kind="usb"))):
        with pytest.raises(NotApplicable):
            found(checks.qemu, nothing, NO_CARDS, qemu(7, 0), qemu(7, 0))


def test_vfio_behind_a_viommu():
    assert found(checks.without_viommu, held(PCI), BEHIND, NO_CARDS, qemu(9, 1))[0].because.startswith("Migration is")
    with pytest.raises(Unavailable):
        found(checks.without_viommu, held(PCI), BEHIND, NO_CARDS, qemu(10, 2))
    for devices, guest in ((held(PCI), PLAIN), (held(), BEHIND)):  # virtio devices may be behind one
        with pytest.raises(NotApplicable):
            found(checks.without_viommu, devices, guest, NO_CARDS, qemu(9, 1))


def test_what_may_move_is_a_condition_until_it_was_tried():
    facts = (VfioDevices(()), NO_CARDS, HERE, MediatedDevices((), ((UUID, "nvidia-742"),), "550.54"))
    assert [f.actual for f in found(checks.untried, held(PCI, VGPU), *facts)] == [
        f"pci device {ADDRESS}",
        f"mdev device {UUID}",
    ]
    assert (checks.untried.severity, checks.untried.blocks) == (Severity.MEDIUM, Blocks.NOTHING)
    staying = (VfioDevices(((ADDRESS, "vfio-pci"),)), NO_CARDS, HERE, NO_MDEV)
    assert not found(checks.untried, held(PCI), *staying)
    with pytest.raises(Unavailable):
        found(checks.untried, held(PCI), VfioDevices(()), NO_CARDS, UNREAD, NO_MDEV)
    with pytest.raises(NotApplicable):
        found(checks.untried, held(), *facts)


@pytest.mark.parametrize(
    ("device", "target", "expected"),
    [
        (PCI, there(), None),
        (PCI, PciDevices(((ADDRESS, None),)), f"a PCI device {ADDRESS} on the target"),
        (PCI._replace(unplugged=True), PciDevices(((ADDRESS, None),)), f"a PCI device {ADDRESS} on the target"),
        (PCI, there(model="0x8086:0x10ed"), f"a device 0x1da8:0x1002 at {ADDRESS} on the target"),
        (PCI._replace(unplugged=True), there(model="0x8086:0x10ed"), None),
        (PCI, there(group=None), f"{ADDRESS} in an IOMMU group on the target"),
        (PCI._replace(managed=False), there(driver="qat_4xxxvf"), f"{ADDRESS} bound to a VFIO driver on the target"),
        (PCI._replace(managed=False), there(), None),
        (PCI, there(driver=None), None),
    ],
)
def test_the_device_at_the_same_address(device, target, expected):
    findings = found(checks.pci_on_target, held(device), NO_CARDS, HERE, target)
    assert [f.expected for f in findings] == ([expected] if expected else [])


def test_the_device_at_the_same_address_is_not_known():
    for here, target in ((HERE, UNREAD), (UNREAD, there())):
        with pytest.raises(Unavailable):
            found(checks.pci_on_target, held(PCI), NO_CARDS, here, target)
    for devices in (held(), held(PCI._replace(pooled=True)), held(VGPU)):
        with pytest.raises(NotApplicable):
            found(checks.pci_on_target, devices, NO_CARDS, UNREAD, UNREAD)


def test_a_device_is_in_one_guest_at_a_time():
    [finding] = found(checks.pci_free, held(PCI), NO_CARDS, HeldPci(((ADDRESS, "render01"),)))
    assert finding.because == f"PCI device {ADDRESS} is in use by driver QEMU, domain render01"
    assert not found(checks.pci_free, held(PCI), NO_CARDS, HeldPci(()))
    with pytest.raises(Unavailable):
        found(checks.pci_free, held(PCI), NO_CARDS, HeldPci((), 1))
    with pytest.raises(NotApplicable):
        found(checks.pci_free, held(), NO_CARDS, HeldPci((), 1))


def test_mediated_devices_on_the_target():
    here = MediatedDevices((), ((UUID, "nvidia-742"),), "550.54")

    def finding(target):
        return found(checks.mdev_on_target, held(VGPU), here, target)

    assert not finding(here)
    [other] = finding(MediatedDevices((), ((UUID, "nvidia-700"),), "550.54"))
    assert other.actual == "nvidia-700"
    [free] = finding(MediatedDevices((("0000:3b:00.4", "nvidia-742", 2),), (), "550.54"))
    assert free.remedy == f"On the target: mdevctl start --uuid {UUID} --parent 0000:3b:00.4 --type nvidia-742"
    [full] = finding(MediatedDevices((("0000:3b:00.4", "nvidia-742", 0),), (), "550.54"))
    assert full.actual == "none, and none of that type left"
    [none] = finding(NO_MDEV)
    assert none.actual == "none, and no card that offers that type"
    with pytest.raises(Unavailable):
        finding(MediatedDevices((), (), None, "not collected"))
    with pytest.raises(NotApplicable):
        found(checks.mdev_on_target, held(PCI), here, here)


def test_nvidias_driver_is_the_same():
    here = MediatedDevices((), ((UUID, "nvidia-742"),), "550.54")
    older = MediatedDevices((), (), "535.1")
    [finding] = found(checks.same_vgpu_driver, held(VGPU), HERE, here, older)
    assert finding.actual == "535.1"
    assert not found(checks.same_vgpu_driver, held(VGPU), HERE, here, here)
    assert found(checks.same_vgpu_driver, held(PCI), there(driver="nvidia"), here, older)
    with pytest.raises(NotApplicable):
        found(checks.same_vgpu_driver, held(PCI), HERE, here, older)
    with pytest.raises(Unavailable):
        found(checks.same_vgpu_driver, held(VGPU), HERE, here, MediatedDevices((), (), None, "not collected"))


def test_scsi_devices_by_number():
    lun = PCI._replace(kind="scsi", address="scsi_host3 0:1:2")
    assert found(checks.scsi_same_lun, held(lun))[0].actual == "scsi device scsi_host3 0:1:2"
    assert not found(checks.scsi_same_lun, held(lun._replace(address="iscsi:iqn.2024-01.a:b"), PCI))
