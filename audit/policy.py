"""The thresholds that checks judge by; an inventory's `policy` section overrides them."""

from dataclasses import dataclass
from typing import Literal

MigrationTransport = Literal["ssh", "tls", "tcp"]
StartedOn = Literal["source", "here"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Every number and choice that a site may reasonably set otherwise. Units stand in the names."""

    transport: MigrationTransport = "ssh"
    """How `virsh migrate` will reach the target's libvirt: qemu+ssh, qemu+tls or qemu+tcp."""
    started_on: StartedOn = "source"
    """Where `virsh migrate` is typed: on the source (or with --p2p), which then logs in to the target by itself; or
    here, on the machine that audits, which speaks with both (`virsh -c qemu+ssh://SOURCE/system migrate …`)."""
    migration_network: str = ""
    """The network, as 10.0.1.0/24, by whose addresses guests are sent (`--migrateuri tcp://ADDRESS`). Without, they go
    to the name that the target gives."""
    tunnelled: bool = False
    """Guests are sent through libvirt's own connection (`--p2p --tunnelled`), and need no ports of QEMU's."""
    mellanox_min_firmware: str = "28.36.1010"
    """RHEL 9 §12.8; NVIDIA itself asks for 28.41.1000."""
    large_guest_kib: int = 1024**3
    """RHEL 9 §12.3 and §12.9: above 1 TiB live migration might be unreliable."""
    large_guest_nic_mbps: int = 25_000
    """RHEL 9 §12.9.1: the NIC recommended for such guests."""
    memory_reserve_kib: int = 1024**2
    """What a target must keep free beyond the guest that comes."""
    guest_overhead_kib: int = 256 * 1024
    """QEMU's own memory beside the guest's, assumed when asking whether a guest fits."""
    dirty_rate_factor: int = 2
    """How many times a guest's dirty rate the network's bandwidth should be: RHEL 9 §12.6, "significantly higher"."""
    long_migration_minutes: int = 10
    """A guest whose memory takes longer to copy gets a note."""
    validity_days: int = 7
    """How long a report may be relied upon, if nothing on the hosts changes."""
