"""PCI devices that a VFIO driver holds ready for guests."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

VFIO = Probe(
    "vfio.bound",
    """\
cd /sys/bus/pci/drivers 2>/dev/null || { echo absent; exit 0; }
for driver in *vfio*; do
    for device in "$driver"/*:*:*; do [ ! -e "$device" ] || echo "$driver ${device##*/}"; done
done
exit 0""",
    hand="ls -l /sys/bus/pci/drivers/*vfio*/",
)

# Kernel drivers that implement VFIO's migration protocol (linux: drivers/vfio/pci; NVIDIA's own drives its vGPUs):
# those whose devices log what they write to the guest's memory (vfio_device.log_ops) ...
_LOG = frozenset({"mlx5_vfio_pci", "pds_vfio_pci", "nvidia"})
# ... those whose devices leave that to the IOMMU ...
_DO_NOT_LOG = frozenset({"hisi_acc_vfio_pci", "qat_vfio_pci", "virtio_vfio_pci", "xe_vfio_pci"})
# ... and those that are known not to: QEMU finds no VFIO_DEVICE_FEATURE_MIGRATION.
_STAY = frozenset({"vfio_pci", "nvgrace_gpu_vfio_pci", "ism_vfio_pci"})


def migrates(driver: str) -> bool | None:
    """Whether that driver can hand a device's state to a migration; None: not known here."""
    name = _module(driver)
    return True if name in _LOG | _DO_NOT_LOG else False if name in _STAY else None


def logs_writes(driver: str) -> bool:
    """Whether that driver's devices log themselves what they write. QEMU does not migrate others of its own accord,
    unless the IOMMU does it for them (9.1, with iommufd)."""
    return _module(driver) in _LOG


def _module(driver: str) -> str:
    return driver.replace("-", "_")


@dataclass(frozen=True, slots=True)
class VfioDevices(HostFact):
    """Which VFIO driver each such device is bound to."""

    probes: ClassVar[tuple[Probe, ...]] = (VFIO,)
    bound: tuple[tuple[str, str], ...]
    """Address 0000:00:00.0 and driver."""
    unread: str = ""
    """Why it could not be looked up. Only guests with such devices depend on it."""

    def driver(self, address: str | None) -> str | None:
        """The VFIO driver of the device at that address; None: none. Raises `Unavailable`."""
        if self.unread:
            raise Unavailable(VFIO, self.unread)
        return dict(self.bound).get(address or "")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """One line a device: `DRIVER ADDRESS`; `absent` where the host has no PCI bus."""
        try:
            lines = said.lines(VFIO)
        except Unavailable as why:
            return cls((), why.reason)
        if lines == ["absent"]:
            return cls(())
        bound = []
        for line in lines:
            driver, _, address = line.partition(" ")
            if not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address):
                raise Unavailable(VFIO, f"not understood: {visible(line, 120)}")
            bound.append((address, driver))
        return cls(tuple(sorted(bound)))
