"""A guest's disks, network interfaces and other devices, from its XML."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.arguments import files_of
from audit.facts.base import GuestFact, GuestSource, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE

_XML = (GUESTS, XML, XML_INACTIVE)
_MOST_LAYERS = 256
_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


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
    """Paths of the backing chain's local files and devices, topmost first, as the live XML tells them."""
    backing_known: bool
    """The XML states the chain (running guests); False: there may be more below."""
    format: str | None
    cache: str | None
    readonly: bool
    shareable: bool
    transient: bool
    mirror: bool
    """A copy or commit job is active on it (`<mirror>`)."""
    secrets: tuple[str, ...]
    """UUIDs or usages of the secrets that the host must know to open it."""
    startup_policy: str = "mandatory"
    """What libvirt does when the source is missing: `optional` and `requisite` drop it when migrating."""
    portals: tuple[tuple[str, int], ...] = ()
    """Of a network disk: hosts and TCP ports; one that answers will do."""

    @property
    def local(self) -> bool:
        """The source is a path in the host's file system."""
        return self.source is not None and self.type in {"file", "block", "dir"}

    @property
    def pool(self) -> str | None:
        """The storage pool that a volume is of."""
        return self.source.partition("/")[0] if self.type == "volume" and self.source else None


@dataclass(frozen=True, slots=True)
class GuestDisks(GuestFact):
    """Every disk, CD-ROM and floppy drive."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    disks: tuple[Disk, ...]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<devices>`."""
        return cls(tuple(_disk(node) for node in _devices(guest.xml, "disk")))


def _devices(root: etree._Element, tag: str) -> Iterator[etree._Element]:
    devices = root.find("devices")
    if devices is None:
        raise Unavailable(XML, "no <devices>")
    return devices.iterfind(tag)


def _get(node: etree._Element, path: str, attribute: str) -> str | None:
    """An attribute of the first such child; None where either is missing or empty."""
    child = node.find(path)
    return None if child is None else child.get(attribute) or None


def _disk(node: etree._Element) -> Disk:
    kind = node.get("type", "file")
    image = _get(node, "driver", "type")
    backing, known = _backing(node)
    places = (node, *node.iterfind("source"))
    secrets = [
        secret.get("uuid") or secret.get("usage") or ""
        for place in places
        for path in ("auth/secret", "encryption/secret")
        for secret in place.iterfind(path)
    ]
    return Disk(
        target=_get(node, "target", "dev") or "",
        device=node.get("device", "disk"),
        type=kind,
        source=_source(kind, node.find("source")),
        backing=backing,
        backing_known=known or image in {None, "raw"},  # libvirt does not guess formats: raw where none is said
        format=image,
        cache=_get(node, "driver", "cache"),
        readonly=node.find("readonly") is not None,
        shareable=node.find("shareable") is not None,
        transient=node.find("transient") is not None,
        mirror=node.find("mirror") is not None,
        secrets=tuple(dict.fromkeys(secrets)),
        startup_policy=_get(node, "source", "startupPolicy") or "mandatory",
        portals=_portals(node.find("source")) if kind == "network" else (),
    )


# qemuDomainStorageSource defaults (libvirt virstoragefile.c); Ceph's monitors listen at either port, or both.
_PORTS = {
    "iscsi": (3260,),
    "nbd": (10809,),
    "rbd": (3300, 6789),
    "gluster": (24007,),
    "sheepdog": (7000,),
    "ssh": (22,),
    "http": (80,),
    "https": (443,),
    "ftp": (21,),
    "ftps": (990,),
    "nfs": (2049,),
}


def _portals(source: etree._Element | None) -> tuple[tuple[str, int], ...]:
    """Where a network disk's storage listens; () where the XML does not say, or it is no TCP port."""
    if source is None:
        return ()
    found = []
    for host in source.iterfind("host"):
        name, port = host.get("name"), host.get("port")
        if name and host.get("transport", "tcp") == "tcp":
            found += [
                (name, int(number)) for number in ((port,) if port else _PORTS.get(source.get("protocol", ""), ()))
            ]
    return tuple(dict.fromkeys(found))


_SOURCES = {"file": "file", "block": "dev", "dir": "dir", "vhostuser": "path", "vhostvdpa": "dev"}


def _source(kind: str, source: etree._Element | None) -> str | None:
    if source is None:
        return None
    if kind in _SOURCES:
        return source.get(_SOURCES[kind]) or None
    if kind == "network":
        return f"{source.get('protocol', '')}:{source.get('name', '')}"
    if kind == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    if kind == "nvme":
        return _pci(source.find("address")) or "nvme"
    raise ValueError(f"disk type {kind!r}")


def _backing(disk: etree._Element) -> tuple[tuple[str, ...], bool]:
    """The chain's local paths, and whether it is stated to its end: an empty `<backingStore/>`."""
    paths: list[str] = []
    layer = disk.find("backingStore")
    for _ in range(_MOST_LAYERS):
        if layer is None:
            return tuple(paths), False
        kind = layer.get("type")
        if kind is None and len(layer) == 0:
            return tuple(paths), True
        path = _source(kind or "file", layer.find("source"))
        if path and kind in {"file", "block", "dir"}:
            paths.append(path)
        layer = layer.find("backingStore")
    raise ValueError("endless backing chain")


def _pci(address: etree._Element | None) -> str | None:
    """`0000:e1:00.1`. Raises `ValueError` for numbers that are none."""
    if address is None or address.get("bus") is None:
        return None
    domain, bus, slot, function = (int(address.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function"))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


@dataclass(frozen=True, slots=True)
class Nic:
    """One `<interface>`."""

    type: str
    """network, bridge, direct, user, hostdev, vhostuser, vdpa, ethernet, …: of a running guest what it came to."""
    source: str | None
    """Name of the network, bridge or device."""
    network: str | None
    """The libvirt network that it is configured with; a target is asked for that one, whatever it came to here."""
    bridge: str | None
    """The bridge that it is connected to, of a running guest also where a network led to it."""
    portgroup: str | None
    """Of a network."""
    virtualport: str | None
    """openvswitch, 802.1Qbh, …, as it is configured: what a libvirt network adds to that does not travel."""
    mac: str | None
    model: str | None
    mtu: int | None
    teaming: str | None
    """`persistent` or `transient`."""
    pci_address: str | None
    """Of a hostdev interface, as 0000:00:00.0."""
    driver: str | None
    """Host driver asked for (`<driver model='mlx5_vfio_pci'>`), of a hostdev interface."""
    ifname: str | None
    managed: bool = False
    """Of a hostdev interface: libvirt takes the device from its driver, and gives it back."""
    vlans: tuple[str, ...] = ()
    """Its VLAN tags, where it has any."""
    own_tap: bool = False
    """Of an ethernet interface: its device on the host, `ifname`, is made by somebody else than libvirt."""
    mode: str | None = None
    """Of a direct interface: bridge, vepa, private or passthrough."""


@dataclass(frozen=True, slots=True)
class GuestNics(GuestFact):
    """Every network interface."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    nics: tuple[Nic, ...]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<devices>`. What a libvirt network lent, or added, is told from the configuration."""
        nics = tuple(_nic(node) for node in _devices(guest.xml, "interface"))
        if guest.inactive is not None and any(nic.type == "hostdev" or nic.network for nic in nics):
            configured = {nic.mac: nic for nic in map(_nic, _devices(guest.inactive, "interface")) if nic.network}
            nics = tuple(_as_configured(nic, configured.get(nic.mac)) for nic in nics)
        return cls(nics)


def _as_configured(nic: Nic, configured: Nic | None) -> Nic:
    """A running guest's NIC, with what its configuration says of the network that it is in."""
    if nic.type == "hostdev":
        return replace(nic, network=configured.network if configured else None)
    return replace(nic, virtualport=configured.virtualport) if nic.network and configured else nic


def _nic(node: etree._Element) -> Nic:
    kind = node.get("type", "")
    if not kind:
        raise ValueError("interface without a type")
    network, bridge = _get(node, "source", "network"), _get(node, "source", "bridge")
    plain = {"network": network, "bridge": bridge}
    mtu = _get(node, "mtu", "size")
    return Nic(
        type=kind,
        source=plain[kind] if kind in plain else _get(node, "source", "dev") or _get(node, "source", "path"),
        network=network,
        bridge=bridge,
        portgroup=_get(node, "source", "portgroup"),
        virtualport=_get(node, "virtualport", "type"),
        mac=_get(node, "mac", "address"),
        model=_get(node, "model", "type"),
        mtu=None if mtu is None else int(mtu),
        teaming=_get(node, "teaming", "type"),
        pci_address=_pci(node.find("source/address[@type='pci']")) if kind == "hostdev" else None,
        driver=_get(node, "driver", "model") if kind == "hostdev" else None,
        ifname=_get(node, "target", "dev"),
        managed=node.get("managed") == "yes",
        vlans=tuple(tag.get("id", "") for tag in node.iterfind("vlan/tag")),
        own_tap=_get(node, "target", "managed") == "no",
        mode=_get(node, "source", "mode") if kind == "direct" else None,
    )


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
    dropped_when_missing: bool = False
    """A USB device that a target may do without (`startupPolicy`)."""
    managed: bool = False
    """libvirt takes the device from its driver, and gives it back."""


@dataclass(frozen=True, slots=True)
class GuestDevices(GuestFact):
    """The other devices that decide about migration."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    hostdevs: tuple[HostDevice, ...]
    filesystems: tuple[str, ...]
    """The driver of each `<filesystem>`: `path` = 9p, `virtiofs`, …"""
    shmems: tuple[tuple[str, str, str], ...]
    """Per `<shmem>`: name, model, role (`peer` where not stated)."""
    tpm: str | None
    """Backend: passthrough, emulator, external."""
    tpm_secret: str | None
    vsock: bool
    viommu: bool
    launch_security: str | None
    graphics: tuple[tuple[str, str | None], ...]
    """Per `<graphics>`: type and the address it is configured to listen on. None: the host's configuration says."""
    serial_paths: tuple[tuple[str, str], ...]
    """Of serial, console, parallel and channel devices: file, dev, pipe, unix (listening), connect or log; and the
    host path, where it is configured and not libvirt's own choice."""
    user_net: bool
    custom_arguments: bool
    """QEMU arguments or properties of the administrator's own (`<qemu:commandline>`, `<qemu:override>`), which libvirt
    does not understand."""
    videos: tuple[str, ...] = ()
    """Model of each `<video>`: virtio, qxl, vga, none, …"""
    tpm_model: str | None = None
    graphics_ports: tuple[tuple[str, str | None, int], ...] = ()
    """Per fixed port of a `<graphics>` (`autoport='no'`): type, address as above, port."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<devices>` and `<launchSecurity>`."""
        root = guest.xml
        tpm = next(_devices(root, "tpm"), None)
        security = root.find("launchSecurity")
        graphics = _graphics(root, guest.inactive)
        return cls(
            hostdevs=tuple(_host_device(node) for node in _devices(root, "hostdev")),
            filesystems=tuple(_get(node, "driver", "type") or "path" for node in _devices(root, "filesystem")),
            shmems=tuple(
                (node.get("name", ""), _get(node, "model", "type") or "ivshmem", node.get("role") or "peer")
                for node in _devices(root, "shmem")
            ),
            tpm=None if tpm is None else _get(tpm, "backend", "type") or "passthrough",
            tpm_secret=None if tpm is None else _get(tpm, "backend/encryption", "secret"),
            vsock=next(_devices(root, "vsock"), None) is not None,
            viommu=next(_devices(root, "iommu"), None) is not None,
            launch_security=None if security is None else security.get("type") or "unknown",
            graphics=graphics,
            serial_paths=tuple(dict.fromkeys(_serial_paths(root, guest.inactive))),
            user_net=any(node.get("type") == "user" for node in _devices(root, "interface")),
            custom_arguments=any(
                root.find(path) is not None for path in (f"{_QEMU}commandline/{_QEMU}arg", f"{_QEMU}override/*")
            ),
            videos=tuple(filter(None, (_get(node, "model", "type") for node in _devices(root, "video")))),
            tpm_model=None if tpm is None else tpm.get("model"),
            graphics_ports=tuple(
                (kind, address, port)
                for node, (kind, address) in zip(_devices(root, "graphics"), graphics, strict=True)
                for port in _fixed_ports(node)
            ),
        )


def _host_device(node: etree._Element) -> HostDevice:
    kind = node.get("type") or ""
    if node.get("mode") == "capabilities":
        return HostDevice("capabilities", None, None, None, None)
    address: str | None = None
    if kind == "pci":
        address = _pci(node.find("source/address"))
    elif kind == "mdev":
        address = _get(node, "source/address", "uuid")
    elif kind == "usb":
        vendor, product = _get(node, "source/vendor", "id"), _get(node, "source/product", "id")
        address = f"{vendor}:{product}" if vendor else None
    elif not kind:
        raise ValueError("hostdev without a type")
    return HostDevice(
        type=kind,
        address=address,
        driver=_get(node, "driver", "model"),
        teaming=_get(node, "teaming", "type"),
        mdev_model=node.get("model"),
        dropped_when_missing=_get(node, "source", "startupPolicy") in {"optional", "requisite"},
        managed=node.get("managed") == "yes",
    )


@dataclass(frozen=True, slots=True)
class KeptDevices(GuestFact):
    """What of a guest's devices its next start would have, too: its saved definition's."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    macs: frozenset[str]
    pci_addresses: frozenset[str]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From the inactive XML. A transient guest's tells what it was started with."""
        if guest.inactive is None:
            raise Unavailable(_XML[2], "no inactive XML")
        saved = guest._replace(xml=guest.inactive)
        nics, others = GuestNics.parse(saved).nics, GuestDevices.parse(saved).hostdevs
        addresses = (*(nic.pci_address for nic in nics), *(device.address for device in others))
        return cls(
            frozenset(nic.mac.lower() for nic in nics if nic.mac),
            frozenset(address for address in addresses if address),
        )


def _graphics(root: etree._Element, inactive: etree._Element | None) -> tuple[tuple[str, str | None], ...]:
    """The live XML also shows addresses that come from the host's qemu.conf, and those do not travel."""
    live = [_listens(node) for node in _devices(root, "graphics")]
    if inactive is None or inactive is root:
        return tuple(live)
    configured = [_listens(node) for node in _devices(inactive, "graphics")]
    if [kind for kind, _ in live] != [kind for kind, _ in configured]:
        return tuple(live)
    pairs = zip(live, configured, strict=True)
    return tuple((kind, address if other is not None else None) for (kind, address), (_, other) in pairs)


def _listens(node: etree._Element) -> tuple[str, str | None]:
    """Type and address; none for a socket, nor for a libvirt network, whose address each host has its own."""
    listens = list(node.iterfind("listen"))
    kind = node.get("type", "")
    if not listens:
        return kind, node.get("listen") or None
    addresses = [listen.get("address") for listen in listens if listen.get("type") == "address"]
    return kind, addresses[0] if addresses else None


def _fixed_ports(node: etree._Element) -> Iterator[int]:
    """Those that libvirt must take, and does not choose itself."""
    if node.get("autoport") != "yes":
        ports = [int(node.get(name) or -1) for name in ("port", "tlsPort")]
        yield from (port for port in ports if port > 0)


class HostFile(NamedTuple):
    """Something on the host that a guest needs besides its disks and its firmware."""

    what: str
    path: str
    made: bool
    """QEMU makes it; its folder must exist."""


_EVERYWHERE = frozenset({"/dev/urandom", "/dev/random", "/dev/null"})


@dataclass(frozen=True, slots=True)
class GuestFiles(GuestFact):
    """Kernel, memory modules, shared folders, sockets: what QEMU opens and does not start without."""

    probes: ClassVar[tuple[Probe, ...]] = _XML
    files: tuple[HostFile, ...]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<os>`, `<devices>` and `<qemu:commandline>`; serial lines are told by `GuestDevices`."""
        found = (file for file in _files(guest.xml) if file.path not in _EVERYWHERE)
        return cls(tuple(dict.fromkeys(found)))


def _files(root: etree._Element) -> Iterator[HostFile]:
    texts = [(tag, root.findtext(f"os/{tag}")) for tag in ("kernel", "initrd", "dtb")]
    texts += [(f"{node.get('model', '')} memory", node.findtext("source/path")) for node in _devices(root, "memory")]
    texts += [("source of random numbers", node.findtext("backend")) for node in _devices(root, "rng")]
    texts += [("ACPI table", node.text) for node in root.iterfind("os/acpi/table")]
    texts += [("UEFI shim", root.findtext("os/shim"))]
    texts += [("option ROM", node.get("file")) for node in root.iterfind("devices/*/rom")]
    texts += [("fw_cfg entry", node.get("file")) for node in root.iterfind("sysinfo[@type='fwcfg']/entry")]
    texts += [("input device", _get(node, "source", "evdev") or _get(node, "source", "dev")) for node in _inputs(root)]
    texts += [("lease", _get(node, "target", "path")) for node in _devices(root, "lease")]
    texts += list(files_of(root))
    yield from (HostFile(what, path.strip(), False) for what, path in texts if path and path.strip())
    for node in _devices(root, "filesystem"):
        socket, folder = _get(node, "source", "socket"), _get(node, "source", "dir")
        if socket or folder:
            yield HostFile("virtiofs socket" if socket else "shared folder", socket or folder or "", False)
    yield from _sockets(root)


def _inputs(root: etree._Element) -> Iterator[etree._Element]:
    return (node for node in _devices(root, "input") if node.get("type") in {"passthrough", "evdev"})


def _sockets(root: etree._Element) -> Iterator[HostFile]:
    """Of vhost-user: who is the client (QEMU, where nothing is said) connects to what must be there already."""
    for tag in ("disk", "interface"):
        for node in _devices(root, tag):
            path = _get(node, "source", "path")
            if node.get("type") == "vhostuser" and path:
                yield HostFile("vhost-user socket", path, _get(node, "source", "mode") == "server")


CHARACTER_DEVICES = ("serial", "console", "parallel", "channel", "redirdev", "smartcard", "rng/backend")
"""Where in `<devices>` QEMU opens files, sockets and ports for a line of characters."""


def _serial_paths(root: etree._Element, inactive: etree._Element | None) -> Iterator[tuple[str, str]]:
    """Sockets that libvirt placed itself stand in the live XML only, and each host makes its own."""
    own_choice: set[str] = set()
    if inactive is not None and inactive is not root:
        live = {path for _, path in _character_paths(root)}
        own_choice = live - {path for _, path in _character_paths(inactive)}
    for kind, path in _character_paths(root):
        if not (kind == "unix" and path in own_choice):
            yield kind, path


def _character_paths(root: etree._Element) -> Iterator[tuple[str, str]]:
    for tag in CHARACTER_DEVICES:
        for node in _devices(root, tag):
            kind, path = node.get("type", ""), _get(node, "source", "path")
            log = _get(node, "log", "file")
            if path and kind in {"file", "dev", "pipe"}:
                yield kind, path
            elif path and kind == "unix":
                yield "connect" if _get(node, "source", "mode") == "connect" else "unix", path
            if log:
                yield "log", log
