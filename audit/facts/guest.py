"""Guests: which there are, and what of each one's configuration decides whether it can move.

Small facts on purpose, so that equal values are judged once. All come from the domain XML (live for an
active guest), see libvirt's formatdomain; names, paths and descriptions in it are other people's text.
"""

from dataclasses import dataclass
from typing import Literal

from audit.cpu import CpuDefinition
from audit.facts.base import GuestFact

State = Literal["running", "paused", "shut off", "crashed", "other"]


@dataclass(frozen=True, slots=True)
class GuestState(GuestFact):
    """Whether the guest runs, and how it is kept."""

    state: State
    active: bool
    """It has a QEMU process: running, paused, or in between."""
    persistent: bool
    autodestroy: bool = False


@dataclass(frozen=True, slots=True)
class GuestMachine(GuestFact):
    """What the guest is to its hypervisor."""

    virttype: str
    """`kvm` or `qemu`, libvirt's `<domain type=`."""
    arch: str
    machine: str
    """As in the XML; of an active guest always a versioned type, of an inactive one perhaps an alias."""
    emulator: str | None
    firmware: Literal["bios", "efi"] | None
    loader: str | None
    nvram: str | None


@dataclass(frozen=True, slots=True)
class GuestCpu(GuestFact):
    """The guest's `<cpu>`; of an active guest what it runs with (`check='full'`, host-model expanded)."""

    active: bool
    definition: CpuDefinition | None
    """None: no `<cpu>` element, that is QEMU's default model for the machine type."""
    inactive: CpuDefinition | None
    """What the next start would ask for."""
    tsc_frequency_hz: int | None
    """`<timer name='tsc' frequency=>`."""
    hyperv: frozenset[str]
    """Enlightenments that are on, by libvirt's names."""


@dataclass(frozen=True, slots=True)
class GuestMemory(GuestFact):
    """Memory and where it must come from."""

    memory_kib: int
    max_memory_kib: int
    hugepage_kib: tuple[int, ...]
    """Page sizes asked for; 0 = the host's default size. Empty: no huge pages."""
    nodeset: frozenset[int]
    """Host NUMA nodes that `<numatune>` binds memory to."""
    strict: bool
    """`mode='strict'` for any of it."""
    locked: bool
    file_backed: bool
    nvdimm: bool
    dimms_without_address: bool
    hard_limit_kib: int | None


@dataclass(frozen=True, slots=True)
class GuestPinning(GuestFact):
    """vCPUs and the host CPUs they are pinned to."""

    vcpus: int
    cpuset: frozenset[int]
    """Host CPUs named anywhere in `<vcpu cpuset>` or `<cputune>`; empty: not pinned."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One `<disk>`."""

    target: str
    device: str
    """disk, cdrom, floppy, lun"""
    type: str
    """file, block, dir, network, volume, nvme, vhostuser, vhostvdpa"""
    source: str | None
    """Path, device, or `protocol:name` of a network disk, `pool/volume` of a volume. None: empty drive."""
    backing: tuple[str, ...]
    """Paths of the backing chain's files and devices, topmost first, as the live XML tells them."""
    backing_known: bool
    """The XML states the chain (running guests); False: there may be more below."""
    format: str | None
    cache: str | None
    readonly: bool
    shareable: bool
    transient: bool
    mirror: bool
    """A copy or commit job is active on it (`<mirror>`)."""
    secret: str | None
    """UUID or usage of a `<auth>`/encryption secret that the host must know."""


@dataclass(frozen=True, slots=True)
class GuestDisks(GuestFact):
    """Every disk, CD-ROM and floppy drive."""

    disks: tuple[Disk, ...]


@dataclass(frozen=True, slots=True)
class Nic:
    """One `<interface>`."""

    type: str
    """network, bridge, direct, user, hostdev, vhostuser, vdpa, ethernet, …"""
    source: str | None
    """Name of the network, bridge or device."""
    portgroup: str | None
    """Of a network."""
    virtualport: str | None
    """openvswitch, 802.1Qbh, …"""
    mac: str | None
    model: str | None
    mtu: int | None
    teaming: str | None
    """`persistent` or `transient`."""
    pci_address: str | None
    """Of a hostdev interface, as 0000:00:00.0."""
    driver: str | None
    """Host driver asked for (`mlx5_vfio_pci`), of a hostdev interface."""
    ifname: str | None


@dataclass(frozen=True, slots=True)
class GuestNics(GuestFact):
    """Every network interface."""

    nics: tuple[Nic, ...]


@dataclass(frozen=True, slots=True)
class HostDevice:
    """One `<hostdev>` that is not an interface."""

    type: str
    """pci, usb, scsi, scsi_host, mdev, or `capabilities`."""
    address: str | None
    """PCI address 0000:00:00.0, mdev UUID, or vendor:product."""
    driver: str | None
    teaming: str | None
    mdev_model: str | None


@dataclass(frozen=True, slots=True)
class GuestDevices(GuestFact):
    """The other devices that decide about migration."""

    hostdevs: tuple[HostDevice, ...]
    filesystems: tuple[tuple[str, bool], ...]
    """Per `<filesystem>`: driver (`path` = 9p, `virtiofs`, …) and whether an external socket serves it."""
    shmems: tuple[tuple[str, str, str], ...]
    """Per `<shmem>`: name, model, role (`peer` where not stated)."""
    tpm: str | None
    """Backend: passthrough, emulator, external."""
    tpm_secret: str | None
    vsock: bool
    viommu: bool
    launch_security: str | None
    graphics: tuple[tuple[str, str | None], ...]
    """Per `<graphics>`: type and the address it listens on."""
    serial_files: tuple[str, ...]
    """Host paths of serial, console, parallel and channel devices of type file, dev, pipe or unix."""
    user_net: bool


@dataclass(frozen=True, slots=True)
class GuestSnapshots(GuestFact):
    """libvirt's snapshot and checkpoint metadata."""

    snapshots: int


@dataclass(frozen=True, slots=True)
class GuestJob(GuestFact):
    """What is being done to the guest right now (`virsh domjobinfo`): None, backup, migration, dump, …"""

    job: str
    """`none` or the operation's name."""
