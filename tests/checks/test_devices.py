"""Device checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import fields, replace

import pytest

from audit.check import Blocks, Unavailable
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestIdentity, GuestMemory
from audit.facts.guest_devices import Disk, GuestDevices, GuestDisks, GuestNics, HostDevice, Nic
from audit.facts.mellanox import MellanoxDevices
from audit.facts.names import OwnAddresses
from audit.facts.network import Address
from audit.facts.versions import Libvirt, Version
from audit.facts.vfio import VfioDevices
from checks import devices as checks
from tests.asked import found

F8 = GuestIdentity("f8", "11111111-2222-4333-8444-555555555555", None)
PLAIN = GuestDevices((), (), (), None, None, False, False, None, (), (), False, False)
DISK = Disk("vda", "disk", "file", "/srv/a.raw", (), True, "raw", "none", False, False, False, False, ())
NEW, OLD = (Libvirt(v, v) for v in (Version(11, 3, 0), Version(8, 5, 0)))
DEBIAN12 = Libvirt(Version(9, 0, 0), Version(9, 0, 0))
NO_CARDS = MellanoxDevices((), False, False)


def nic(**changes):
    return Nic(**{field.name: None for field in fields(Nic)} | {"type": "bridge"} | changes)


PCI = HostDevice("pci", "0000:3b:00.0", None, None, None)
GPU = VfioDevices((("0000:3b:00.0", "vfio-pci"),))
VARIANT = VfioDevices((("0000:3b:00.0", "hisi_acc_vfio_pci"),))


@pytest.mark.parametrize(
    ("device", "libvirt", "bound", "fails"),
    [
        (PCI, NEW, GPU, True),
        (PCI, NEW, VfioDevices(()), True),
        (PCI, NEW, VARIANT, False),
        (PCI, OLD, VARIANT, True),
        (replace(PCI, driver="mlx5_vfio_pci"), NEW, VfioDevices(()), False),
        (replace(PCI, teaming="transient"), OLD, GPU, False),
        (HostDevice("usb", "0x0951:0x1666", None, None, None), OLD, GPU, False),
        (HostDevice("mdev", "uuid", None, None, "vfio-pci"), OLD, GPU, True),
        (HostDevice("capabilities", None, None, None, None), NEW, GPU, True),
    ],
)
def test_passthrough(device, libvirt, bound, fails):
    devices = replace(PLAIN, hostdevs=(device,))
    assert bool(found(checks.no_passthrough, devices, GuestNics(()), libvirt, bound, NO_CARDS)) is fails


def test_passthrough_of_nics():
    plain = nic(type="hostdev", pci_address="0000:3b:00.0")
    for one, fails in ((plain, True), (replace(plain, teaming="transient"), False), (nic(), False)):
        assert bool(found(checks.no_passthrough, PLAIN, GuestNics((one,)), NEW, GPU, NO_CARDS)) is fails


def test_passthrough_that_only_the_driver_knows_of():
    mdev = HostDevice("mdev", "uuid", None, None, "vfio-pci")
    with pytest.raises(Unavailable):
        found(checks.no_passthrough, replace(PLAIN, hostdevs=(mdev,)), GuestNics(()), NEW, GPU, NO_CARDS)
    unread = VfioDevices((), "not collected")
    with pytest.raises(Unavailable):
        found(checks.no_passthrough, replace(PLAIN, hostdevs=(PCI,)), GuestNics(()), NEW, unread, NO_CARDS)
    assert not found(checks.no_passthrough, PLAIN, GuestNics(()), NEW, VfioDevices((), "not collected"), NO_CARDS)


def test_a_definite_finding_comes_before_an_unknown():
    devices = replace(PLAIN, hostdevs=(HostDevice("mdev", "uuid", None, None, None), PCI))
    [finding] = found(checks.no_passthrough, devices, GuestNics(()), NEW, GPU, NO_CARDS)
    assert "0000:3b:00.0" in finding.actual


def test_usb():
    usb = HostDevice("usb", "0x0951:0x1666", None, None, None)
    assert found(checks.no_usb_passthrough, replace(PLAIN, hostdevs=(usb,)))
    assert not found(checks.no_usb_passthrough, replace(PLAIN, hostdevs=(replace(usb, dropped_when_missing=True), PCI)))


def test_virtiofs():
    shares = replace(PLAIN, filesystems=("virtiofs",))
    assert found(checks.no_virtiofs, shares, DEBIAN12)
    with pytest.raises(Unavailable):
        found(checks.no_virtiofs, shares, NEW)
    assert not found(checks.no_virtiofs, PLAIN, DEBIAN12)


def test_9p_does_not_block_but_somebody_must_look():
    assert found(checks.filesystem_9p, replace(PLAIN, filesystems=("path",)))
    assert checks.filesystem_9p.blocks is Blocks.NOTHING
    assert not found(checks.filesystem_9p, replace(PLAIN, filesystems=("virtiofs",)))


def test_shmem():
    for device, fails in (
        (("s", "ivshmem-doorbell", "peer"), True),
        (("s", "ivshmem-plain", "master"), False),
        (("s", "ivshmem", "master"), True),
    ):
        assert bool(found(checks.shmem_role, replace(PLAIN, shmems=(device,)))) is fails


def test_devices_that_stay():
    assert found(checks.no_transient_disk, GuestDisks((replace(DISK, transient=True),)))
    assert found(checks.nvme_disk, GuestDisks((replace(DISK, type="nvme", source="0000:01:00.0"),)))
    assert found(checks.no_tpm_passthrough, replace(PLAIN, tpm="passthrough"))
    assert found(checks.tpm_emulated, replace(PLAIN, tpm="emulator"))
    assert found(checks.no_launch_security, replace(PLAIN, launch_security="sev"))
    assert found(checks.no_launch_security, replace(PLAIN, launch_security="s390-pv"))
    assert found(checks.no_custom_arguments, replace(PLAIN, custom_arguments=True))
    memory = GuestMemory(1, 1, (), frozenset(), False, False, False, False, False, None)
    assert found(checks.dimm_addresses, replace(memory, dimms_without_address=True))
    assert not found(checks.dimm_addresses, memory)
    for check in (
        checks.no_tpm_passthrough,
        checks.tpm_emulated,
        checks.no_launch_security,
        checks.no_custom_arguments,
    ):
        assert not found(check, PLAIN)
    for check in (checks.no_transient_disk, checks.nvme_disk):
        assert not found(check, GuestDisks((DISK,)))


@pytest.mark.parametrize(
    ("address", "fails"),
    [
        ("10.77.0.11", True),
        ("10.77.0.12", False),
        ("0.0.0.0", False),
        ("127.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("kvm1.example", False),
        (None, False),
    ],
)
def test_display(address, fails):
    there = OwnAddresses((Address("br0", "10.77.0.12", 24),))
    assert bool(found(checks.graphics_listen, replace(PLAIN, graphics=(("vnc", address),)), there, F8)) is fails


def test_vdpa_is_for_qemu_to_say():
    vdpa = GuestNics((nic(type="vdpa", source="/dev/vhost-vdpa-0"),))
    assert found(checks.no_vdpa, vdpa, GuestDisks(()), OLD)[0].because == "vDPA devices cannot be migrated"
    disk = GuestDisks((replace(DISK, type="vhostvdpa", source="/dev/vhost-vdpa-0"),))
    for nics, disks in ((vdpa, GuestDisks(())), (GuestNics(()), disk)):
        with pytest.raises(Unavailable):
            found(checks.no_vdpa, nics, disks, NEW)
    assert not found(checks.no_vdpa, GuestNics((nic(),)), GuestDisks((DISK,)), OLD)


def test_vhostuser_needs_somebody_to_compare_the_backends():
    disk = GuestDisks((replace(DISK, type="vhostuser", source="/run/spdk"),))
    [finding] = found(checks.vhostuser_backend, GuestNics((nic(type="vhostuser", mac="52:54:00:0:0:1"),)), disk)
    assert finding.actual == "NIC 52:54:00:0:0:1, disk vda"
    assert checks.vhostuser_backend.blocks is Blocks.NOTHING
    assert not found(checks.vhostuser_backend, GuestNics((nic(),)), GuestDisks((DISK,)))


@pytest.mark.parametrize(
    ("address", "socket", "fails"),
    [
        (None, Socket("127.0.0.1", 5905), True),
        (None, Socket("*", 5905), True),
        (None, Socket("10.0.0.1", 5905), False),
        ("0.0.0.0", Socket("10.0.0.1", 5905), True),
        ("kvm1.example", Socket("127.0.0.1", 5905), False),
        (None, Socket("*", 5906), False),
    ],
)
def test_a_fixed_port_of_the_display_must_be_free(address, socket, fails):
    devices = replace(PLAIN, graphics_ports=(("vnc", address, 5905),))
    assert bool(found(checks.graphics_port, devices, Listening(frozenset({socket})), F8)) is fails
    assert not found(checks.graphics_port, PLAIN, Listening(frozenset({socket})), F8)
