"""Devices of the host that guests hold, and what hosts say of them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Said, Unavailable
from audit.facts.guest_devices import GuestNics
from audit.facts.hostdev import MDEV, PCI, USB, GuestHeld, HeldPci, MediatedDevices, PciDevice, PciDevices, UsbDevices
from audit.facts.vfio import logs_writes, migrates

DOMAIN = "<domain id='1'><name>g</name><devices>{}</devices></domain>"
GPU = (
    "<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/>"
    "<source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source></hostdev>"
)
STICK = "<hostdev mode='subsystem' type='usb'><source{}><vendor id='0x0951'/><product id='0x1666'/></source></hostdev>"
VF = (
    "<interface type='hostdev'{}><mac address='52:54:00:0:0:1'/>"
    "<source><address type='pci' domain='0x0000' bus='0xe1' slot='0x00' function='0x2'/></source>{}</interface>"
)
LUN = (
    "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host3'/>"
    "<address bus='0' target='1' unit='2'/></source></hostdev>"
)
ISCSI = "<hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='iqn.2024-01.a:b/1'/></hostdev>"
VGPU = (
    "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source>"
    "<address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>"
)
UUID = "c2177883-f1bb-47f0-914d-32a22e3a8804"


def held(guest_source, inner, inactive=None):
    whole = DOMAIN.format(inactive) if inactive is not None else None
    return GuestHeld.parse(guest_source(DOMAIN.format(inner), inactive=whole)).devices


def test_every_kind(guest_source):
    gpu, stick, lun, iscsi, vgpu = held(guest_source, GPU + STICK.format("") + LUN + ISCSI + VGPU)
    assert (gpu.kind, gpu.address, gpu.managed, gpu.name) == ("pci", "0000:3b:00.0", True, "pci device 0000:3b:00.0")
    assert (stick.kind, stick.address, stick.optional) == ("usb", "0x0951:0x1666", False)
    assert (lun.kind, lun.address) == ("scsi", "scsi_host3 0:1:2")
    assert iscsi.address == "iscsi:iqn.2024-01.a:b/1"
    assert (vgpu.kind, vgpu.address, vgpu.model) == ("mdev", UUID, "vfio-pci")
    assert held(guest_source, STICK.format(" startupPolicy='optional'"))[0].optional


def test_nics(guest_source):
    [plain] = held(guest_source, VF.format(" managed='yes'", ""), VF.format(" managed='yes'", ""))
    assert (plain.what, plain.address, plain.managed, plain.pooled) == ("NIC", "0000:e1:00.2", True, False)
    [team] = held(guest_source, VF.format("", "<teaming type='transient' persistent='ua-0'/>"))
    assert (team.unplugged, team.managed) == (True, False)
    network = "<interface type='network'><mac address='52:54:00:0:0:1'/><source network='vfs'/></interface>"
    [lent] = held(guest_source, VF.format("", ""), network)
    assert (lent.pooled, lent.managed) == (True, True)
    # what moves is the configuration: the target must have that network, and lends a VF of its own
    lending = guest_source(DOMAIN.format(VF.format("", "")), inactive=DOMAIN.format(network))
    assert [nic.network for nic in GuestNics.parse(lending).nics] == ["vfs"]
    assert held(guest_source, "<interface type='bridge'><source bridge='br0'/></interface>") == ()


def test_pci(said):
    asked = (("0000:3b:00.0",), ("0000:ff:00.0",), ("0000:e1:00.2",))
    text = b"0000:3b:00.0 0x10de:0x25b6 vfio-pci 58\n0000:ff:00.0 none\n0000:e1:00.2 0x15b3:0x101e - -\nend\n"
    devices = PciDevices.parse(said({PCI.name: Evidence(PCI.name, status=0, stdout=text, arguments=asked)}))
    assert devices.at("0000:3b:00.0") == PciDevice("0x10de:0x25b6", "vfio-pci", "58")
    assert devices.at("0000:ff:00.0") is None
    assert devices.at("0000:e1:00.2") == PciDevice("0x15b3:0x101e", None, None)
    with pytest.raises(Unavailable, match="not asked"):
        devices.at("0000:00:00.0")
    for broken in (b"0000:3b:00.0 none\n", b""):
        answer = PciDevices.parse(said({PCI.name: Evidence(PCI.name, status=0, stdout=broken, arguments=asked)}))
        with pytest.raises(Unavailable, match="broke off"):
            answer.at("0000:3b:00.0")
    nonsense = Evidence(PCI.name, status=0, stdout=b"nonsense\nend\n", arguments=asked)
    with pytest.raises(Unavailable, match="not understood"):
        PciDevices.parse(said({PCI.name: nonsense})).at("0000:3b:00.0")
    absent = Evidence(PCI.name, status=0, stdout=b"absent\n", arguments=asked)
    assert PciDevices.parse(said({PCI.name: absent})).at("0000:3b:00.0") is None
    with pytest.raises(Unavailable, match="not collected"):
        PciDevices.parse(said({})).at("0000:3b:00.0")


def test_usb(said):
    answer = Evidence(USB.name, status=0, stdout=b"0951:1666\n1d6b:0002 1:1 2:1\nend\n", arguments=(("0951:1666",),))
    devices = UsbDevices.parse(said({USB.name: answer}))
    assert (devices.places("0x0951:0x1666"), devices.places("1d6b:0002")) == ((), ("1:1", "2:1"))
    with pytest.raises(Unavailable, match="not asked"):
        devices.places("ffff:ffff")
    with pytest.raises(Unavailable):
        UsbDevices.parse(said({})).places("0951:1666")
    with pytest.raises(Unavailable, match="not understood"):
        UsbDevices.parse(said({USB.name: "0951:1666 many\nend\n"})).places("0951:1666")


def test_where_a_usb_device_is_configured_to_be(guest_source):
    """A running guest's XML tells the place of every one; only the configuration tells whether it was asked for."""
    live = STICK.format("").replace("</source>", "<address bus='1' device='4'/></source>")

    def told(inner, inactive):
        [device] = held(guest_source, inner, inactive)
        return device.place, device.place_fixed

    assert told(live, STICK.format("")) == ("1:4", False)
    assert told(live, live) == ("1:4", True)
    assert told(live, "") == ("1:4", None)  # attached to the running guest only
    assert told(live, live.replace("0x0951", "0x0952")) == ("1:4", None)
    by_place = "<hostdev mode='subsystem' type='usb'><source><address bus='1' device='4'/></source></hostdev>"
    assert told(by_place, by_place) == ("1:4", True)


def test_mdev(said):
    text = f"type 0000:3b:00.4 nvidia-742 3\ndevice {UUID} nvidia-742\nnvidia 550.54.10\nend\n"
    mediated = MediatedDevices.parse(said({MDEV.name: text}))
    assert mediated.type_of(UUID.upper()) == "nvidia-742"
    assert mediated.type_of("00000000-0000-4000-8000-000000000000") is None
    assert (mediated.available("nvidia-742"), mediated.nvidia) == ((("0000:3b:00.4", 3),), "550.54.10")
    assert MediatedDevices.parse(said({MDEV.name: "end\n"})) == MediatedDevices((), (), None)
    for bad in ({}, {MDEV.name: f"device {UUID} nvidia-742\n"}):
        with pytest.raises(Unavailable):
            MediatedDevices.parse(said(bad)).type_of(UUID)
    with pytest.raises(Unavailable, match="not understood"):
        MediatedDevices.parse(said({MDEV.name: "what is this\nend\n"})).known()


@given(st.binary())
def test_no_bytes_but_unavailable(data):
    for probe, kind in ((PCI, PciDevices), (USB, UsbDevices), (MDEV, MediatedDevices)):
        answer = Evidence(probe.name, status=0, stdout=data, arguments=(("x",),))
        with suppress(Unavailable, ValueError, LookupError):
            kind.parse(Said(HostEvidence("h", {probe.name: answer})))


def test_what_is_asked(guest_source):
    """Only addresses and numbers of the right shape are told to a host."""
    source = guest_source(DOMAIN.format(GPU + STICK.format("") + VF.format("", "")))
    facts = Facts({"kvm01": source.said.host}, lambda _said: [source])
    assert PCI.ask(facts, "kvm01", ()) == (("0000:3b:00.0",), ("0000:e1:00.2",))
    assert USB.ask(facts, "kvm01", ()) == (("0951:1666",),)


def test_which_drivers_hand_over_a_state():
    assert [logs_writes(driver) for driver in ("mlx5_vfio_pci", "pds-vfio-pci", "qat_vfio_pci", "xe-vfio-pci")] == [
        True,
        True,
        False,
        False,
    ]
    assert all(migrates(driver) for driver in ("mlx5_vfio_pci", "hisi_acc_vfio_pci", "xe-vfio-pci", "nvidia"))
    assert [migrates(driver) for driver in ("vfio-pci", "nvgrace_gpu_vfio_pci", "acme_vfio_pci")] == [
        False,
        False,
        None,
    ]


def test_devices_that_other_guests_hold_are_told_by_guest():
    free = HeldPci((("0000:3b:00.0", "render01"),))
    assert (free.holder("0000:3b:00.0"), free.holder("0000:3b:00.1")) == ("render01", None)
    free.complete()
    with pytest.raises(Unavailable):
        HeldPci((), 1).complete()
