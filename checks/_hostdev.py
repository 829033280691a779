"""What the checks about devices of the host share: which of them can leave it."""

from collections.abc import Iterator

from audit.check import Finding, Told, Unavailable
from audit.facts.hostdev import GuestHeld, Held, MediatedDevices, PciDevices
from audit.facts.mellanox import MellanoxDevices
from audit.facts.versions import Qemu, Version
from audit.facts.vfio import VfioDevices, logs_writes, migrates

PASSTHROUGH = ("12.3/passthrough", "12.3/sr-iov", "12.3/mdev")
EXPERIMENT_UNTIL = Version(8, 1, 0)
"""Since then QEMU migrates VFIO devices without being asked to (commit 8bbcb64a71d8)."""
NEW_PROTOCOL = Version(8, 0, 0)
"""Since then it speaks the second version of VFIO's protocol, the only one that kernels since 5.18 know."""
VIOMMU_REFUSED_UNTIL = Version(10, 2, 0)


def qemu_migrates_vfio(here: Qemu, there: Qemu) -> Told:
    """Whether both QEMUs migrate VFIO devices. 8.0 alone tells nothing: RHEL 9.3's qemu-kvm 8.0.0 has what 8.1 has
    (its changelog, bug 2192818)."""
    for side, version in (("source", here.version), ("target", there.version)):
        if version is not None and version < NEW_PROTOCOL:
            yield Finding(f"{side}: QEMU 8.1 or newer", f"QEMU {version}", "VFIO device doesn't support migration")
        elif version is not None and version < EXPERIMENT_UNTIL:
            yield Unavailable(here.probes[0], f"{side}: whether this QEMU {version} has 8.1's VFIO migration")


def behind_viommu(here: Qemu, name: str) -> Finding | Unavailable:
    """What the source's QEMU makes of a VFIO device of a guest with a vIOMMU."""
    if here.version is None or here.version >= VIOMMU_REFUSED_UNTIL:
        return Unavailable(here.probes[0], f"whether QEMU {here.version} lets a VFIO device migrate behind a vIOMMU")
    return Finding(
        expected="no <iommu> in the guest",
        actual=f"vIOMMU beside {name}",
        because="Migration is currently not supported with vIOMMU enabled",
    )


def vfio(held: GuestHeld, mellanox: MellanoxDevices) -> Iterator[Held]:
    """Devices that would migrate by VFIO: not those that are unplugged, nor Mellanox VFs, which are judged apart."""
    for device in held.devices:
        if device.unplugged or device.kind not in {"pci", "mdev"}:
            continue
        if device.kind == "pci" and device.address is not None and mellanox.vf(device.address) is not None:
            continue
        yield device


def why_it_stays(
    device: Held, bound: VfioDevices, mellanox: MellanoxDevices, pci: PciDevices, mediated: MediatedDevices
) -> str:
    """Why QEMU does not let the device go; "" if it may, or is judged elsewhere. Raises `Unavailable`."""
    match device.kind:
        case "capabilities":
            return "a host device handed to a container does not move"
        case "scsi_host":
            return "vhost-scsi does not support migration in all cases"
        case "mdev":
            return _mediated(device, mediated)
        case "pci":
            return _pci(device, bound, mellanox, pci)
        case "scsi":
            return ""
        case _:
            raise Unavailable(bound.probes[0], f"whether a {device.kind} device can migrate is not known here")


def _pci(device: Held, bound: VfioDevices, mellanox: MellanoxDevices, pci: PciDevices) -> str:
    address = device.address
    if address is not None and mellanox.vf(address) is not None:
        return ""
    driver = bound.driver(address) or device.asked_driver
    if driver is None and address is not None:
        there = pci.at(address)
        driver = there.driver if there else None
    if driver is None:
        raise Unavailable(pci.probes[0], f"no driver holds {device.name}, though the guest has it")
    may = migrates(driver)
    if may is None:
        raise Unavailable(pci.probes[0], f"whether {driver} can hand over a device's state is not known here")
    if not may:
        return f"{driver} cannot hand over the device's state: VFIO migration is not supported in kernel"
    if not logs_writes(driver):
        raise Unavailable(
            pci.probes[0],
            f"devices of {driver} do not log what they write: QEMU migrates them only where the IOMMU does (9.1 or "
            "newer, with iommufd), or where it was told to do without",
        )
    return ""


def _mediated(device: Held, mediated: MediatedDevices) -> str:
    if device.model in {"vfio-ccw", "vfio-ap"}:
        return f"State blocked by non-migratable device '{device.model}'"
    kind = mediated.type_of(device.address or "")
    if kind is None:
        raise Unavailable(mediated.probes[0], f"{device.name} was not found on its own host")
    if kind.startswith("i915-GVTg"):
        return "Intel GVT-g cannot hand over its state: VFIO migration is not supported in kernel"
    if not kind.startswith("nvidia-"):
        raise Unavailable(mediated.probes[0], f"whether a mediated device of type {kind} can migrate is not known here")
    return ""
