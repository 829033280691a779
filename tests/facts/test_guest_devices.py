"""Devices that the target must offer."""

import pytest

from audit.facts.base import Unavailable
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.guest_offloads import GuestOffloads

DOMAIN = "<domain><name>g</name><devices>{}</devices></domain>"


def test_video_models_and_the_tpms(guest_source):
    inner = (
        "<video><model type='qxl' ram='65536'/></video><video><model type='virtio'/></video>"
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    )
    devices = GuestDevices.parse(guest_source(DOMAIN.format(inner)))
    assert (devices.videos, devices.tpm, devices.tpm_model) == (("qxl", "virtio"), "emulator", "tpm-crb")
    plain = GuestDevices.parse(guest_source(DOMAIN.format("")))
    assert (plain.videos, plain.tpm, plain.tpm_model) == ((), None, None)


@pytest.mark.parametrize(
    ("kind", "model", "from_kernel"),
    [
        ("bridge", "virtio", True),
        ("network", "virtio-non-transitional", True),
        ("direct", "virtio", True),
        ("bridge", "e1000e", False),
        ("user", "virtio", False),
        ("vhostuser", "virtio", False),
        ("hostdev", "virtio", False),
    ],
)
def test_whose_offloads_the_kernel_decides(guest_source, kind, model, from_kernel):
    nic = f"<interface type='{kind}'><source bridge='br0'/><model type='{model}'/></interface>"
    assert GuestOffloads.parse(guest_source(DOMAIN.format(nic))) == GuestOffloads(from_kernel)
    more = DOMAIN.format("<interface type='user'><model type='virtio'/></interface>" + nic)
    assert GuestOffloads.parse(guest_source(more)) == GuestOffloads(from_kernel)


def test_a_guest_without_devices_tells_no_offloads(guest_source):
    assert GuestOffloads.parse(guest_source(DOMAIN.format(""))) == GuestOffloads(False)
    with pytest.raises(Unavailable):
        GuestOffloads.parse(guest_source("<domain><name>g</name></domain>"))


def test_taps_that_libvirt_does_not_make(guest_source):
    inner = "<interface type='ethernet'><target dev='mytap1' managed='no'/></interface>"
    inner += "<interface type='ethernet'><target dev='vnet3'/></interface>"
    own, made = GuestNics.parse(guest_source(DOMAIN.format(inner))).nics
    assert (own.ifname, own.own_tap, made.own_tap) == ("mytap1", True, False)
