"""The guard against false alarms: ordinary guests between two hosts alike have no reasons, or exactly these.

Each guest is as somebody's tool makes it. A check that finds something here finds it everywhere.
"""

import json
import re
from functools import cache
from typing import Any

import pytest

from scripts.sample_fleets.description import Answer, Guest, Nfs
from scripts.sample_fleets.network import filters, link_list
from tests.ordinary import HOST, results, told_of, verdict

_IMAGES = "/var/lib/libvirt/images/"
_NVRAM = "/var/lib/libvirt/qemu/nvram/"
_ARM = "/usr/share/edk2/aarch64/"
_OVIRT = "/rhev/data-center/mnt/nas01:_export_data/5c1b2a60/"
_NOVA = f"/var/lib/nova/instances/{Guest('nova').uuid}/"
# The sample hosts are RHEL 9's, which has neither; other systems' have both.
_SPARE_CARD = {"ifname": "ens9f0np0", "flags": ["UP"], "mtu": 1500}
_SPICE = {
    "<value>vnc</value>": b"<value>vnc</value><value>spice</value>",
    "<value>bochs</value>": b"<value>bochs</value><value>qxl</value>",
}


def _images(*names: str) -> tuple[str, ...]:
    return tuple(_IMAGES + name for name in names)


HOSTS: dict[str, dict[str, Any]] = {
    "windows11": {
        "files": (*_images("win11.qcow2"), "/usr/share/virtio-win/virtio-win.iso"),
        "own_files": (f"{_NVRAM}win11_VARS.fd",),
        "both": _SPICE,
    },
    "rhel9": {
        "files": _images("rhel9.qcow2", "share"),
        "own_files": (f"{_NVRAM}rhel9_VARS.fd",),
        "bridges": ("br0", "br-prod", "br-default"),
    },
    "cloud": {
        "files": (
            *_images("cloud-1.qcow2", "rhel-guest-image-9.4.qcow2", "cloud-1-seed.iso"),
            "/var/log/libvirt/qemu/cloud-1.log",
        )
    },
    "nova": {
        "files": (f"{_NOVA}disk.info",),
        "own_files": (f"{_NOVA}console.log",),
        "answers": {"storage.secrets": Answer("604c9994-1d82-11ed-8ae5-5254003d6107\n\n")},
    },
    "ovirt": {
        "files": (
            *(f"{_OVIRT}images/9e0d7a52/41bb6f0e", f"{_OVIRT}dom_md/xleases"),
            *("/var/run/ovirt-vmconsole-console/another.sock", "/var/lib/libvirt/qemu/channels/another"),
        ),
        "bridges": ("br0", "ovirtmgmt"),
        "networks": frozenset({"vdsm-ovirtmgmt"}),
        "nfs": (Nfs("nas01:/export/data", "/rhev/data-center/mnt/nas01:_export_data"),),
        "answers": {"network.filters": filters(HOST, ("vdsm-no-mac-spoofing",))},
    },
    "exotic": {
        "files": (
            *_images("exotic.qcow2", "exotic.nvdimm"),
            *("/run/vhost/another", "/dev/input/by-id/usb-keyboard-event-kbd"),
        )
    },
    "old": {"files": _images("legacy-crm.img")},
    "unusual": {
        "files": (
            *_images("unusual.qcow2", "quorum, with blank.raw", "vmlinuz-test", "initrd-test"),
            "/run/unusual/another",
        ),
        "both": _SPICE,
        "answers": {"network.links": Answer(json.dumps([*link_list(HOST), _SPARE_CARD]))},
    },
    "arm": {
        "files": (
            *_images("arm-build.qcow2"),
            *(f"{_ARM}QEMU_EFI-silent-pflash.qcow2", f"{_ARM}vars-template-pflash.qcow2"),
        ),
        "own_files": (f"{_NVRAM}arm-build_VARS.qcow2",),
    },
}


@cache
def judged(name: str, old: str = "", new: str = "") -> Any:
    """The results for the guest, with other words in its live XML."""

    def edit(xml: str) -> str:
        assert not old or xml.count(old) == 1, f"{old!r} stands there {xml.count(old)} times"
        return xml.replace(old, new)

    return results(name, edit=edit, **HOSTS[name])


@pytest.mark.parametrize("name", ["windows11", "rhel9", "cloud", "nova", "ovirt", "unusual"])
def test_ordinary_guests_go_without_a_word(name):
    assert verdict(judged(name)) == ("yes", {})
    noted = {"ovirt": {"machines.machine_not_deprecated"}}.get(name, set())
    assert told_of(judged(name), "fail", "unknown", "error").keys() == noted


@pytest.mark.parametrize(
    ("name", "word", "reasons"),
    [
        # what nobody can see: whether the backends, and the adapters' LUNs, are the same
        ("exotic", "conditions", {"devices.vhostuser_backend", "hostdev.scsi_same_lun"}),
        ("old", "conditions", {"versions.machine_supported"}),
        # the sample hosts are x86: what is about the guest's devices and files says nothing
        ("arm", "no", {"kvm.virttype_available", "kvm.gic_offered"}),
    ],
)
def test_guests_of_which_something_is_to_be_said(name, word, reasons):
    found, why = verdict(judged(name))
    assert (found, why.keys()) == (word, reasons)


_DISK = "<target dev='vda' bus='virtio'/>"
_LISTEN = " listen='127.0.0.1'>\n      <listen type='address' address='127.0.0.1'/>"
_SHARE = (
    "<filesystem type='mount'><driver type='virtiofs'/><source dir='/var/lib/libvirt/images/share'/>"
    "<target dir='s'/></filesystem>"
)
_VIDEO = "<model type='virtio' heads='1' primary='yes'/>"
_END = "  </devices>"
_STICK = (
    "<hostdev mode='subsystem' type='usb' managed='yes'><source><vendor id='0x0951'/><product id='0x1666'/>"
    "<address bus='1' device='4'/></source><alias name='hostdev0'/></hostdev>"
)


@pytest.mark.parametrize(
    ("old", "new", "reasons"),
    [
        (_VIDEO, f"{_VIDEO[:-2]}><acceleration accel3d='yes'/></model>", {"blockers.unsaved_devices"}),
        (_END, f"<sound model='usb'/>{_END}", {"blockers.unsaved_devices"}),
        (_END, f"<crypto model='virtio' type='qemu'><backend model='builtin'/></crypto>{_END}",
         {"blockers.unsaved_devices"}),
        (_END, f"<sound model='ich9'/>{_END}", set()),
        ("type='emulator' version='2.0'/>", "type='passthrough'><device path='/dev/tpm0'/></backend>",
         {"devices.no_tpm_passthrough"}),
        (_END, f"{_STICK}{_END}", {"devices.no_usb_passthrough"}),
        (_END, f"{_SHARE}{_END}", {"devices.no_virtiofs", "virtiofs.daemon_on_target"}),
        (_END, f"{_SHARE.replace('virtiofs', 'mtp')}{_END}", {"blockers.unsaved_devices", "offered.kinds_offered"}),
        ("<smm state='on'/>", "<smm state='on'/><hyperv mode='passthrough'/>", {"blockers.hyperv_passthrough"}),
        (_END, f"<redirdev bus='usb' type='spicevmc'/>{_END}", {"offered.spice_offered"}),
        ("name='qemu' type='qcow2'", "name='qemu' type='vmdk'", {"blockers.disk_format"}),
        (_DISK, f"{_DISK}<transient/>", {"devices.no_transient_disk"}),
        (_LISTEN, _LISTEN.replace("127.0.0.1", "192.0.2.11"), {"devices.graphics_listen"}),
        (_LISTEN, _LISTEN.replace("127.0.0.1", "0.0.0.0"), set()),
        (_LISTEN, _LISTEN.replace("127.0.0.1", "::"), set()),
        (_END, f"<vsock model='virtio'><cid auto='yes' address='3'/></vsock>{_END}", set()),
        ("<memballoon model='virtio'>", "<memballoon model='virtio' autodeflate='on' freePageReporting='on'>", set()),
        (_END, f"<iommu model='virtio'/>{_END}", set()),
        (_END, f"<shmem name='lg' role='master'><model type='ivshmem-plain'/><size unit='M'>32</size></shmem>{_END}",
         set()),
        ("<vcpu placement='static'>2<", "<vcpu placement='static' cpuset='0-7'>2<", set()),
    ],
)  # fmt: skip
def test_what_a_change_to_an_ordinary_guest_means(old, new, reasons):
    """One thing more or less in the guest of virt-install: that is what is told, and nothing else."""
    word, why = verdict(judged("rhel9", old, new))
    assert why.keys() == reasons
    assert word == ("no" if reasons else "yes")


@pytest.mark.parametrize(
    ("cpu", "reasons"),
    [
        ("<cpu mode='host-passthrough' check='none' migratable='on'/>", set()),  # virt-manager's choice
        ("<cpu mode='host-passthrough' check='none'/>", set()),
        ("<cpu mode='maximum' check='none'/>", set()),
        ("<cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model></cpu>", set()),
        ("<cpu mode='host-passthrough' check='none' migratable='off'/>", {"cpu.invtsc_has_frequency"}),
    ],
)
def test_whatever_cpu_it_has(cpu, reasons):
    """Alike hosts are alike to every kind of CPU."""

    def edit(xml: str) -> str:
        changed = re.sub("<cpu mode=.*?</cpu>", cpu, xml, flags=re.DOTALL)
        assert changed != xml
        return changed

    _, why = verdict(results("rhel9", edit=edit, **HOSTS["rhel9"]))
    assert why.keys() == reasons


def test_a_windows_guest_that_hears_of_changed_clocks():
    """QEMU stops it on arrival if it made use of that, which nobody sees (hyperv_reenlightenment_post_load)."""
    word, why = verdict(judged("windows11", "<ipi state='on'/>", "<ipi state='on'/><reenlightenment state='on'/>"))
    assert (word, list(why)) == ("conditions", ["cpu.reenlightenment_has_frequency"])
