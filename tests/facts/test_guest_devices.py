"""Devices that the target must offer."""

from audit.facts.guest_devices import GuestDevices

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
