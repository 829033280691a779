"""What of a guest's network interfaces depends on the host's kernel.

Apart from `GuestNics`, whose values differ for every guest (MAC addresses): this one has two, and is judged twice.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource
from audit.facts.guest_devices import GuestNics

_ON_A_TAP = frozenset({"network", "bridge", "direct", "ethernet"})


@dataclass(frozen=True, slots=True)
class GuestOffloads(GuestFact):
    """Whether the guest may use offloads that its host's kernel offers."""

    probes: ClassVar[tuple[Probe, ...]] = GuestNics.probes
    from_kernel: bool
    """It has a virtio NIC on a tap or macvtap device: QEMU asks the kernel which offloads that has, and offers them."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<interface>`."""
        nics = GuestNics.parse(guest).nics
        return cls(any((nic.model or "").startswith("virtio") and nic.type in _ON_A_TAP for nic in nics))
