"""Device checks, on plain values; among them what really happened in a lab of real migrations."""

from dataclasses import fields, replace

import pytest

from audit.check import Blocks, NotApplicable, Unavailable
from audit.facts.arguments import GuestArguments, Known, KnownArguments
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestIdentity, GuestMemory
from audit.facts.guest_devices import Disk, GuestDevices, GuestDisks, GuestNics, Nic
from audit.facts.hostdev import GuestHeld, Held, MediatedDevices, PciDevice, PciDevices, UsbDevices
from audit.facts.mellanox import MellanoxDevices
from audit.facts.names import OwnAddresses
from audit.facts.network import Address
from audit.facts.versions import Libvirt, Version
from audit.facts.vfio import VfioDevices
from audit.facts.virtiofs import GuestShares, Share, VirtiofsDaemons
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


PCI = Held("device", "pci", "0000:3b:00.0", None, None, False, False, True, False)
USB = PCI._replace(kind="usb", address="0x0951:0x1666")
MDEV = PCI._replace(kind="mdev", address="c2177883-f1bb-47f0-914d-32a22e3a8804", model="vfio-pci")
GPU = VfioDevices((("0000:3b:00.0", "vfio-pci"),))
VARIANT = VfioDevices((("0000:3b:00.0", "pds_vfio_pci"),))
NONE = VfioDevices(())
NO_MDEV = MediatedDevices((), (), None)


def pci(driver):
    return PciDevices((("0000:3b:00.0", PciDevice("0x10de:0x25b6", driver, "58")),))


def mdev(kind):
    return MediatedDevices((), ((MDEV.address, kind),), None)


def usb(*places):
    return UsbDevices((("0951:1666", places),))


def stays(device, libvirt, bound=NONE, at=None, mediated=NO_MDEV):
    at = at or pci(None)
    return bool(found(checks.no_passthrough, GuestHeld((device,)), libvirt, bound, NO_CARDS, at, mediated))


@pytest.mark.parametrize(
    ("device", "libvirt", "bound", "fails"),
    [
        (PCI, NEW, GPU, True),
        (PCI, NEW, VARIANT, False),
        (PCI, OLD, VARIANT, True),
        (PCI._replace(asked_driver="mlx5_vfio_pci"), NEW, NONE, False),
        (PCI._replace(what="NIC"), NEW, GPU, True),
        (PCI._replace(unplugged=True), OLD, GPU, False),
        (USB, OLD, GPU, False),
        (MDEV, OLD, GPU, True),
        (PCI._replace(kind="scsi"), OLD, GPU, True),
        (PCI._replace(kind="scsi"), NEW, GPU, False),
        (PCI._replace(kind="scsi_host"), NEW, GPU, True),
        (PCI._replace(kind="capabilities"), NEW, GPU, True),
    ],
)
def test_passthrough(device, libvirt, bound, fails):
    assert stays(device, libvirt, bound) is fails


def test_the_driver_that_holds_it_now_decides():
    assert stays(PCI, NEW, at=pci("vfio-pci"))
    assert not stays(PCI, NEW, at=pci("nvidia"))  # a vGPU without mdev: RHEL 10, Ubuntu 24.04
    # qat: its devices do not log what they write, and QEMU goes by the IOMMU only where it was set up so
    for at in (pci("acme_vfio_pci"), pci("qat_vfio_pci"), pci(None), PciDevices((), "not collected")):
        with pytest.raises(Unavailable):
            stays(PCI, NEW, at=at)


def test_mediated_devices():
    assert not stays(MDEV, NEW, mediated=mdev("nvidia-742"))
    assert stays(MDEV, NEW, mediated=mdev("i915-GVTg_V5_4"))
    assert stays(MDEV._replace(model="vfio-ap"), NEW)
    for mediated in (mdev("acme-1"), NO_MDEV, MediatedDevices((), (), None, "not collected")):
        with pytest.raises(Unavailable):
            stays(MDEV, NEW, mediated=mediated)


def test_passthrough_needs_no_evidence_without_a_device():
    unread = (VfioDevices((), "no"), NO_CARDS, PciDevices((), "no"), MediatedDevices((), (), None, "no"))
    assert not found(checks.no_passthrough, GuestHeld(()), NEW, *unread)
    with pytest.raises(Unavailable):
        found(checks.no_passthrough, GuestHeld((PCI,)), NEW, *unread)


def test_a_definite_finding_comes_before_an_unknown():
    held = GuestHeld((MDEV, PCI))
    [finding] = found(checks.no_passthrough, held, NEW, GPU, NO_CARDS, pci(None), NO_MDEV)
    assert "0000:3b:00.0" in finding.actual


def test_usb():
    def fails(device, there):
        return bool(found(checks.no_usb_passthrough, GuestHeld((device,)), there))

    nowhere, here, elsewhere, twice = (usb(*places) for places in ((), ("1:4",), ("3:2",), ("1:4", "3:2")))
    assert [fails(USB, there) for there in (nowhere, here, twice)] == [True, False, True]
    # as libvirt's virHostdevFindUSBDevice: a configured place counts, and then it alone
    at = USB._replace(place="1:4", place_fixed=True)
    assert [fails(at, there) for there in (nowhere, here, elsewhere, twice)] == [True, False, True, False]
    # attached to the running guest only: its live XML has a place either way
    perhaps = USB._replace(place="1:4", place_fixed=None)
    assert [fails(perhaps, there) for there in (nowhere, here)] == [True, False]
    for there in (elsewhere, twice):
        with pytest.raises(Unavailable, match="whether usb device 0x0951:0x1666 was attached with its place"):
            fails(perhaps, there)
    assert not fails(USB._replace(optional=True), UsbDevices(()))
    assert fails(USB._replace(address=None), UsbDevices(()))
    assert not fails(PCI, UsbDevices((), "not collected"))
    with pytest.raises(Unavailable):
        fails(USB, UsbDevices((), "not collected"))


DAEMON = "/usr/libexec/virtiofsd"
SHARE = Share("projects", "/srv/projects", None, DAEMON)
MIGRATES = VirtiofsDaemons(((DAEMON, frozenset({"migrate-precopy"})),))
STAYS = VirtiofsDaemons(((DAEMON, frozenset({"separate-options"})),))


def refused(libvirt, daemons, share=SHARE):
    version = Version(*libvirt)
    return bool(found(checks.no_virtiofs, GuestShares((share,)), daemons, Libvirt(version, version)))


def test_virtiofs():
    external = SHARE._replace(folder=None, socket="/run/v.sock", binary=None)
    assert refused((9, 0, 0), MIGRATES)
    assert refused((9, 0, 0), MIGRATES, external)
    assert refused((10, 5, 0), STAYS)
    assert refused((11, 3, 0), STAYS)
    assert not refused((10, 8, 0), MIGRATES)
    assert not refused((11, 3, 0), VirtiofsDaemons((), "not collected"), external)
    assert not found(checks.no_virtiofs, GuestShares(()), VirtiofsDaemons((), "no"), DEBIAN12)


def test_virtiofs_that_is_not_known():
    for libvirt, daemons in (
        ((10, 5, 0), MIGRATES),
        ((11, 3, 0), VirtiofsDaemons(())),
        ((11, 3, 0), VirtiofsDaemons((), "not collected")),
    ):
        with pytest.raises(Unavailable):
            refused(libvirt, daemons)


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
    assert found(checks.tpm_external, replace(PLAIN, tpm="external"))
    assert not found(checks.tpm_external, replace(PLAIN, tpm="emulator"))  # judged by what the target has
    assert found(checks.no_launch_security, replace(PLAIN, launch_security="sev"))
    assert found(checks.no_launch_security, replace(PLAIN, launch_security="s390-pv"))
    assert found(checks.no_custom_arguments, replace(PLAIN, custom_arguments=True))
    memory = GuestMemory(1, 1, (), frozenset(), False, False, False, False, False, None)
    assert found(checks.dimm_addresses, replace(memory, dimms_without_address=True))
    assert not found(checks.dimm_addresses, memory)
    for check in (
        checks.no_tpm_passthrough,
        checks.tpm_external,
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


def test_arguments_known():
    emulator = "/usr/bin/qemu-system-x86_64"
    own = GuestArguments(emulator, ("device", "no-hpet"), ("edu",))

    def run(here, there, arguments=own):
        both = (KnownArguments((Known(emulator, *map(frozenset, side)),)) for side in (here, there))
        return found(checks.arguments_known, arguments, *both)

    older = ({"device", "no-hpet"}, {"edu"})
    assert not run(older, older)
    assert not run(({"device"}, set()), ({"device"}, set())), "what starts there starts here: help tells not all"
    [finding] = run(older, ({"device"}, {"edu"}))
    assert finding.actual == "it does not know -no-hpet"
    [finding] = run(older, ({"device", "no-hpet"}, {"rng"}))
    assert finding.actual == "it does not know -device edu"
    with pytest.raises(Unavailable, match="neither host's QEMU lists -no-hpet"):
        run(({"device"}, {"edu"}), ({"device", "new"}, {"edu"}))
    with pytest.raises(Unavailable, match="was not asked"):
        found(checks.arguments_known, own, KnownArguments(()), KnownArguments(()))
    with pytest.raises(NotApplicable):
        run(older, older, GuestArguments(emulator, (), ()))
