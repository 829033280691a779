"""What the checks about devices of the host share: which of them can leave it."""

from collections.abc import Iterator

from audit.check import Unavailable
from audit.facts.hostdev import GuestHeld, Held, MediatedDevices, PciDevices
from audit.facts.mellanox import MellanoxDevices
from audit.facts.vfio import VfioDevices, migrates

PASSTHROUGH = ("12.3/passthrough", "12.3/sr-iov", "12.3/mdev")


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
    return "" if may else f"{driver} cannot hand over the device's state: VFIO migration is not supported in kernel"


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
