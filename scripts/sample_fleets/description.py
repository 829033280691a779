"""The language that the sample fleets are described in: a few words a host and a guest, everything else follows."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

GIB = 1024 * 1024  # KiB
_NAMESPACE = uuid.UUID("5ad1f1ee-75a3-4b1e-8f0d-2f6f1d0c5a11")


class Answer(NamedTuple):
    """What a probe leaves behind: standard output, exit status, standard error."""

    stdout: str | bytes = ""
    status: int = 0
    stderr: str = ""


def stable_uuid(*words: str) -> str:
    """A UUID that is always the same for the same words."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(words)))


@dataclass(frozen=True)
class Processor:
    """A CPU generation: what is printed on it, and what it can give to guests."""

    name: str
    vendor: str
    family: int
    model: int
    stepping: int
    microcode: int
    tsc_hz: int
    address_bits: int
    virtual_bits: int
    like: str
    """The model of libvirt's map that it comes with, taken as it stands but for the next two."""
    without: str = ""
    plus: str = ""
    """libvirt's names of the features that KVM gives to guests beyond that model."""
    host_only: str = ""
    """libvirt's names of what the processor has and no guest gets."""
    kernel_only: str = ""
    """Flags of /proc/cpuinfo that libvirt has no name for."""
    sockets: int = 2
    cores: int = 16
    threads: int = 2

    @property
    def cpus(self) -> int:
        """Logical processors."""
        return self.sockets * self.cores * self.threads


@dataclass(frozen=True)
class Software:
    """A release of the operating system, and what it brings."""

    version: str
    kernel: str
    libvirt: str
    qemu: str
    packages: str
    machines: tuple[str, ...]
    """Versioned q35 types, newest first."""
    unknown_features: str = ""
    """Names of the carried CPU map that this libvirt does not know yet."""
    os_name: str = "Red Hat Enterprise Linux"
    codename: str = "Plow"


@dataclass(frozen=True)
class Nfs:
    """One NFS mount."""

    source: str
    target: str
    version: str = "4.2"
    options: str = "rw,relatime"
    server: str = "192.0.2.200"


@dataclass(frozen=True)
class Lun:
    """A disk of the storage network, seen by two paths."""

    wwid: str
    size_gib: int
    alias: str = ""


@dataclass(frozen=True)
class MellanoxCard:
    """A ConnectX-7 with its VFs."""

    address: str
    netdev: str
    firmware: str = "28.43.1014"
    psid: str = "MT_0000000834"
    migration_mode: int = 2
    vfs: int = 2
    held: frozenset[int] = frozenset()
    """Numbers of the VFs that are bound to mlx5_vfio_pci, because a guest has them."""


@dataclass(frozen=True)
class Disk:
    """A guest's disk."""

    source: str | None
    kind: str = "file"
    """file, block, or network (an RBD image)."""
    device: str = "disk"
    image: str = "qcow2"
    cache: str = "none"
    bus: str = "virtio"
    backing: str | None = None


@dataclass(frozen=True)
class Nic:
    """A guest's network interface: a bridge, a libvirt network, or a VF's PCI address."""

    kind: str
    source: str


@dataclass(frozen=True)
class Guest:
    """A guest. What is not said is what virt-install chooses on RHEL 9."""

    name: str
    memory_gib: int = 8
    vcpus: int = 4
    cpu: str = "host-model"
    """host-model, host-passthrough, or the name of a model with `+feature` and `-feature` behind it."""
    started_as: Processor | None = None
    """The processor that a host-model guest was started on, if not its host's: it carries that one's features."""
    started_with: Software | None = None
    machine: str = ""
    """"" is the newest type of the host's QEMU."""
    state: str = "running"
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = (Nic("bridge", "br-prod"),)
    devices: tuple[str, ...] = ()
    """XML of further devices."""
    uefi: bool = False
    hugepage_kib: int = 0
    nodeset: str = ""
    cpuset: str = ""
    """Host CPUs, one a vCPU: `8-11`."""
    tsc_hz: int = 0
    snapshots: tuple[str, ...] = ()
    shared_memory: bool = False
    block_job: str = ""
    """virsh's words about a job on its first disk."""
    twin: str = ""
    """Set where another guest has the same name."""

    @property
    def uuid(self) -> str:
        """Of its own, and always the same."""
        return stable_uuid("guest", self.name, self.twin)

    @property
    def active(self) -> bool:
        """It has a QEMU process."""
        return self.state != "shut off"


@dataclass(frozen=True)
class Host:
    """A host. `number` decides its addresses."""

    name: str
    number: int
    processor: Processor
    software: Software
    memory_gib: int = 512
    bios: str = "2.21.2"
    system: str = "Dell Inc. PowerEdge R650"
    bridges: tuple[str, ...] = ("br0", "br-prod")
    """The first one carries the host's own address."""
    networks: tuple[str, ...] = ("default",)
    nfs: tuple[Nfs, ...] = ()
    luns: tuple[Lun, ...] = ()
    files: frozenset[str] = frozenset()
    """Files on this host's own file systems that a guest names."""
    hugepages: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Page size in KiB → pages, free pages."""
    cards: tuple[MellanoxCard, ...] = ()
    open_vswitch: bool = False
    guests: tuple[Guest, ...] = ()
    session_guest: str = ""
    """The name of a guest that a user runs for himself."""
    privilege: str = "sudo"
    """As the evidence says it; `user: …` is a login without root."""
    problem: str = ""
    """Why it cannot be asked at all."""
    garbage: Mapping[str, Answer] = field(default_factory=dict)
    """Answers that are not what such a host should print, by probe."""
    firewall_ports: tuple[str, ...] = ("16514", "49152-49215")
    certificate_ends: str = "Feb  1 09:00:00 2028 GMT"
    """Of libvirt's server certificate."""
    certificate_valid: bool = True
    held_devices: tuple[str, ...] = ()
    """PCI addresses of devices that vfio-pci holds for guests."""

    @property
    def fqdn(self) -> str:
        """Its full name."""
        return f"{self.name}.example.com"

    @property
    def address(self) -> str:
        """Of the first bridge."""
        return f"192.0.2.{self.number}"

    @property
    def root(self) -> bool:
        """Probes may become root there."""
        return not self.privilege.startswith("user:")

    @property
    def used_gib(self) -> int:
        """Memory of its running guests that do not live in huge pages, and of the host itself."""
        return 9 + sum(guest.memory_gib for guest in self.guests if guest.active and not guest.hugepage_kib)


@dataclass(frozen=True)
class Fleet:
    """A cluster, and its inventory as somebody would write it."""

    name: str
    inventory: str
    hosts: tuple[Host, ...]
