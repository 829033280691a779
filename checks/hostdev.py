"""Devices of the host that may move with the guest: what QEMU and the target must have for them.

Which devices stay for certain, and keep the guest, is judged by `devices.no_passthrough`.
"""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Told, Unavailable, check
from audit.facts.guest_devices import GuestDevices
from audit.facts.hostdev import GuestHeld, Held, HeldPci, MediatedDevices, PciDevice, PciDevices
from audit.facts.mellanox import MellanoxDevices
from audit.facts.versions import Qemu
from audit.facts.vfio import VfioDevices
from checks._hostdev import PASSTHROUGH, behind_viommu, qemu_migrates_vfio, vfio, why_it_stays


def _pci_held(held: GuestHeld, cards: MellanoxDevices) -> list[tuple[Held, str]]:
    """PCI devices that the target must have at the same address: not those that a network lends there anew, nor
    Mellanox VFs that migrate, which are judged apart."""
    fixed = ((one, one.address) for one in held.devices if one.kind == "pci" and one.address and not one.pooled)
    return [(one, address) for one, address in fixed if one.unplugged or cards.vf(address) is None]


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU 8.1: vfio/migration: Make VFIO migration non-experimental",
    remedy="Upgrade QEMU to 8.1 or newer, and restart the guest",
    covers=(*PASSTHROUGH, "failure 65"),
)
def qemu(held: GuestHeld, cards: Source[MellanoxDevices], here: Source[Qemu], there: Target[Qemu]) -> Told:
    """QEMU is 8.1 or newer on both hosts of a guest with a VFIO device that may migrate.

    Before 8.0 it knows only a first version of the kernel's protocol, as an experiment that is switched off. Some
    vendors' 8.0 has what 8.1 has (RHEL 9.3).
    """
    if not any(vfio(held, cards)):
        raise NotApplicable("no VFIO device that would migrate")
    yield from qemu_migrates_vfio(here, there)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU vfio_viommu_preset, vfio_migration_realize",
    remedy="Remove the <iommu> element with virsh edit, and restart the guest.",
    covers=("failure 66",),
)
def without_viommu(held: GuestHeld, devices: GuestDevices, cards: Source[MellanoxDevices], here: Source[Qemu]) -> Told:
    """A guest with a VFIO device that would migrate has no vIOMMU.

    Behind a vIOMMU, QEMU cannot follow which memory the device writes to. Newer ones can in some cases.
    """
    behind = list(vfio(held, cards))
    if not behind or not devices.viommu:
        raise NotApplicable("no VFIO device behind a vIOMMU")
    yield behind_viommu(here, behind[0].name)


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="linux include/uapi/linux/vfio.h VFIO_DEVICE_FEATURE_MIGRATION; RHEL 9 §12.3",
    remedy="Move a guest of no importance with such a device first; migrate without --postcopy",
    covers=(*PASSTHROUGH, "failure 66", "failure 67"),
)
def untried(
    held: GuestHeld,
    bound: VfioDevices,
    cards: Source[MellanoxDevices],
    pci: Source[PciDevices],
    mediated: Source[MediatedDevices],
) -> Iterator[Finding]:
    """The guest does not rely on a device's own ability to migrate.

    The kernel's driver can hand over the state of such devices. Whether this one's firmware does, and whether the
    target's takes it, shows in the migration only. Post-copy is not possible, and the end may take longer.
    """
    moving = list(vfio(held, cards))
    if not moving:
        raise NotApplicable("no VFIO device that would migrate")
    for device in moving:
        if not why_it_stays(device, bound, cards, pci, mediated):
            yield Finding("no such device, or one that was moved before", device.name, "its driver may hand it over")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virPCIDeviceNew, virHostdevPreparePCIDevices",
    covers=("failure 68",),
)
def pci_on_target(
    held: GuestHeld, cards: Source[MellanoxDevices], here: Source[PciDevices], there: Target[PciDevices]
) -> Told:
    """The target has a device of the same model at the PCI address of the guest's, ready to be passed through.

    The guest's XML names the host's PCI address; libvirt takes what it finds there. That of a NIC which is unplugged
    for the migration must exist as well.
    """
    wanted = _pci_held(held, cards)
    if not wanted:
        raise NotApplicable("no PCI device that the target must have")
    for device, address in wanted:
        try:
            theirs = there.at(address)
            if theirs is None:
                yield Finding(
                    expected=f"a PCI device {address} on the target",
                    actual="none",
                    because=f"Device {address} not found: could not access /sys/bus/pci/devices/{address}/config",
                    remedy="Migrate with --xml and the address of a free device of that model on the target",
                )
                continue
            ours = here.at(address)
        except Unavailable as why:
            yield why
            continue
        if not device.unplugged and ours is not None and ours.model != theirs.model:
            yield Finding(f"a device {ours.model} at {address} on the target", theirs.model)
        yield from _unready(device, address, theirs)


def _unready(device: Held, address: str, there: PciDevice) -> Iterator[Finding]:
    if there.iommu_group is None:
        yield Finding(
            expected=f"{address} in an IOMMU group on the target",
            actual="none",
            because="host doesn't support passthrough of host PCI devices",
            remedy="Turn the IOMMU on, in the firmware and on the kernel's command line, and restart the target",
        )
    elif not device.managed and "vfio" not in (there.driver or "") and there.driver != "nvidia":
        yield Finding(
            expected=f"{address} bound to a VFIO driver on the target",
            actual=there.driver or "no driver",
            because=f"Unmanaged PCI device {address} must be manually detached from the host",
            remedy=f"On the target: virsh nodedev-detach pci_{address.translate({58: 95, 46: 95})}",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virHostdevIsPCINodeDeviceUsed",
    remedy="Migrate with --xml and the address of a free device on the target",
    covers=("failure 68",),
)
def pci_free(held: GuestHeld, cards: Source[MellanoxDevices], there: Target[HeldPci]) -> Iterator[Finding]:
    """No guest of the target holds the device at the PCI address of this guest's.

    One device cannot be in two guests.
    """
    wanted = _pci_held(held, cards)
    if not wanted:
        raise NotApplicable("no PCI device that the target must have")
    for _, address in wanted:
        if holder := there.holder(address):
            yield Finding(
                expected=f"{address} free on the target",
                actual=f"held by {holder}",
                because=f"PCI device {address} is in use by driver QEMU, domain {holder}",
            )
    there.complete()


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virMediatedDeviceNew",
    covers=("12.3/mdev", "failure 69"),
)
def mdev_on_target(held: GuestHeld, here: Source[MediatedDevices], there: Target[MediatedDevices]) -> Iterator[Finding]:
    """The target has a mediated device of the same UUID and type.

    libvirt does not make it. It has to be made beforehand, on a card that offers the type and has one to spare.
    """
    wanted = [device.address for device in held.devices if device.kind == "mdev" and device.address]
    if not wanted:
        raise NotApplicable("no mediated device")
    for uuid in wanted:
        ours, theirs = here.type_of(uuid), there.type_of(uuid)
        if theirs is None:
            yield _missing(uuid, ours, there.available(ours or ""))
        elif ours is not None and ours != theirs:
            yield Finding(f"{uuid} of type {ours} on the target", theirs)


def _missing(uuid: str, kind: str | None, available: tuple[tuple[str, int], ...]) -> Finding:
    free = [parent for parent, number in available if number]
    if free:
        make = f"mdevctl start --uuid {uuid} --parent {shlex.quote(free[0])} --type {shlex.quote(kind or '')}"
        actual, remedy = f"none, but {free[0]} can make one", f"On the target: {make}"
    else:
        actual = f"none, and {'none of that type left' if available else 'no card that offers that type'}"
        remedy = "Choose a target with a card of that model and the same driver, with one to spare"
    return Finding(
        expected=f"mediated device {uuid}{f' of type {kind}' if kind else ''} on the target",
        actual=actual,
        because=f"mediated device '{uuid}' not found",
        remedy=remedy,
    )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="NVIDIA vGPU software: migration between hosts of the same vGPU manager",
    remedy="Install the same version of the vGPU manager on both hosts",
    covers=("12.3/mdev", "failure 69"),
)
def same_vgpu_driver(
    held: GuestHeld,
    pci: Source[PciDevices],
    here: Source[MediatedDevices],
    there: Target[MediatedDevices],
) -> Iterator[Finding]:
    """NVIDIA's driver has the same version on both hosts of a guest with a vGPU.

    A vGPU's state is for the driver that wrote it. NVIDIA supports some mixes of versions, and names them in its notes.
    """
    if not any(_vgpu(device, pci, here) for device in held.devices):
        raise NotApplicable("no vGPU of NVIDIA's")
    if here.known().nvidia != there.known().nvidia:
        yield Finding(f"NVIDIA driver {here.nvidia} on the target", there.nvidia or "none")


def _vgpu(device: Held, pci: PciDevices, mediated: MediatedDevices) -> bool:
    if device.kind == "mdev":
        return (mediated.type_of(device.address or "") or "").startswith("nvidia-")
    if device.kind != "pci" or device.address is None or device.unplugged:
        return False
    at = pci.at(device.address)
    return at is not None and at.driver == "nvidia"


@check(
    severity=Severity.HIGH,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virSCSIDeviceNew; QEMU hw/scsi/scsi-generic.c",
    remedy="Compare on both hosts: lsscsi --scsi_id; or give the guest the LUN as <disk type='block' device='lun'>",
    covers=PASSTHROUGH,
)
def scsi_same_lun(held: GuestHeld) -> Iterator[Finding]:
    """No SCSI device is named by the number of an adapter of this host.

    Since libvirt 8.6 QEMU lets it go. On the target the same numbers may lead to another disk, which the guest would
    go on writing to: nobody compares.
    """
    for device in held.devices:
        if device.kind == "scsi" and not (device.address or "").startswith("iscsi:"):
            yield Finding("no such device, or the same LUN there", device.name)
