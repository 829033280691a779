"""What a host says of devices that guests hold, and of what it has to run them: ROMs, swtpm, virtiofsd."""

import json

from audit.transports import Records
from scripts.sample_fleets.description import Answer, Fleet, Host
from scripts.sample_fleets.network import vf_addresses

_GPU_MODEL = "0x10de:0x25b6"
_VF_MODEL = "0x15b3:0x101e"


def pci(host: Host, _fleet: Fleet, records: Records) -> Answer:
    """What is at the PCI addresses that guests hold."""
    there = dict.fromkeys(host.held_devices, f"{_GPU_MODEL} vfio-pci 58")
    for card in host.cards:
        for number, address in enumerate(vf_addresses(card)):
            there[address] = f"{_VF_MODEL} {'mlx5_vfio_pci' if number in card.held else 'mlx5_core'} {120 + number}"
    return Answer("".join(f"{address} {there.get(address, 'none')}\n" for (address,) in records) + "end\n")


def usb(_host: Host, _fleet: Fleet, records: Records) -> Answer:
    """No USB device that a guest could hold."""
    return Answer("".join(f"{name}\n" for (name,) in records) + "end\n")


def mdev(_host: Host) -> Answer:
    """No mediated devices."""
    return Answer("end\n")


def virtiofs(host: Host) -> Answer:
    """virtiofsd's description; it hands over its state since RHEL 9.5."""
    new = tuple(int(part) for part in host.software.libvirt.split(".")[:2]) >= (10, 5)
    features = ["migrate-precopy", "separate-options"] if new else ["separate-options"]
    described = {"description": "virtiofsd vhost-user-fs", "type": "fs", "binary": "/usr/libexec/virtiofsd"}
    description = json.dumps({**described, "features": features})
    return Answer(f"== /usr/share/qemu/vhost-user/50-virtiofsd.json\n{description}\n\n== end\n")


def swtpm(_host: Host) -> Answer:
    """RHEL 9's."""
    features = '"tpm-1.2", "tpm-2.0", "cmdarg-seccomp", "cmdarg-migration", "nvram-backend-dir", "nvram-backend-file"'
    return Answer(
        "TPM emulator version 0.8.0, Copyright (c) 2014-2022 IBM Corp. and others\nlibrary 0.9.1\n"
        f'capabilities {{ "type": "swtpm", "features": [ {features} ], "version": "0.8.0" }}\n'
    )


def roms(_host: Host) -> Answer:
    """What ipxe-roms-qemu and seavgabios-bin install."""
    sizes = {
        "bios-256k.bin": 262144,
        "efi-e1000e.rom": 258560,
        "efi-rtl8139.rom": 259072,
        "efi-virtio.rom": 258048,
        "vgabios-stdvga.bin": 39936,
        "vgabios-virtio.bin": 39936,
    }
    return Answer("".join(f"{name} {size}\n" for name, size in sizes.items()) + "end\n")
