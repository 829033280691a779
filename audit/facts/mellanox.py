"""Mellanox network devices: the functions of a host, and what decides whether their VFs can move with a guest.

Which devices there are comes from sysfs alone and needs no privilege. What the tools say about each of them comes
from `audit.facts.mellanox_tools`, or why it could not be had.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable, once
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.guest_source import read_guests
from audit.facts.mellanox_tools import (
    DEVLINK_INFO,
    ESWITCH,
    ETHTOOL,
    MODULE,
    MSTCONFIG,
    MSTFLINT,
    PORTS,
    TOOLS,
    DevlinkPort,
    Firmware,
    Tools,
    Unread,
    VfMigrationMode,
    known,
    reading,
)
from audit.text import visible

SYSFS = Probe(
    "mellanox.sysfs",
    r"""
[ -d /sys/bus/pci/devices ] || { echo 'no PCI bus'; exit 0; }
for d in /sys/bus/pci/devices/*; do
  { read -r vendor <"$d/vendor"; } 2>/dev/null || continue
  [ "$vendor" = 0x15b3 ] || continue
  echo "== ${d##*/}"
  for name in device class sriov_numvfs sriov_totalvfs numa_node; do
    { read -r value <"$d/$name"; } 2>/dev/null && echo "$name $value"
  done
  for link in "$d/driver" "$d/physfn" "$d"/virtfn*; do
    [ -L "$link" ] && echo "${link##*/} $(basename "$(readlink "$link")")"
  done
  for member in "$d"/iommu_group/devices/*; do
    [ -e "$member" ] && echo "group ${member##*/}"
  done
  for net in "$d"/net/*; do
    [ -e "$net" ] || continue
    { read -r port <"$net/phys_port_name"; } 2>/dev/null || port=-
    { read -r state <"$net/operstate"; } 2>/dev/null || state=-
    master=-; [ -L "$net/master" ] && master=$(basename "$(readlink "$net/master")")
    echo "net ${net##*/} ${port:--} $state $master"
  done
done
echo end
""",
    hand="lspci -Dnn -d 15b3:",
)

IOMMU = Probe(
    "mellanox.iommu",
    r"""
if [ -d /sys/kernel/iommu_groups ]; then
  set -- /sys/kernel/iommu_groups/*
  [ -e "$1" ] || set --
  echo "groups $#"
else
  echo 'groups none'
fi
for table in DMAR IVRS IORT; do [ -e "/sys/firmware/acpi/tables/$table" ] && echo "table $table"; done
printf 'cmdline '; cat /proc/cmdline
""",
    hand="ls /sys/kernel/iommu_groups; cat /proc/cmdline",
)

CONNECTX_7 = "ConnectX-7"
_OLDER_MODELS = {
    0x1003: "ConnectX-3",
    0x1007: "ConnectX-3 Pro",
    0x1011: "Connect-IB",
    0x1013: "ConnectX-4",
    0x1015: "ConnectX-4 Lx",
    0x1017: "ConnectX-5",
    0x1019: "ConnectX-5 Ex",
    0x101B: "ConnectX-6",
    0x101D: "ConnectX-6 Dx",
    0x101F: "ConnectX-6 Lx",
    0xA2D2: "BlueField",
    0xA2D6: "BlueField-2",
}
_MODELS = {0x1021: CONNECTX_7, 0x1023: "ConnectX-8", 0xA2DC: "BlueField-3"} | _OLDER_MODELS


@dataclass(frozen=True, slots=True)
class Netdev:
    """A network interface of a function."""

    name: str
    port: str | None
    """The kernel's phys_port_name: `p0` of an uplink, `pf0vf3` of a VF's representor; None where it tells none."""
    state: str
    """operstate: up, down, lowerlayerdown, dormant, unknown, …"""
    master: str | None
    """The bridge, bond or `ovs-system` it belongs to."""

    @property
    def represents(self) -> int | None:
        """The number of the VF whose traffic it carries on this host, if it is a representor."""
        match = re.fullmatch(r"(?:c0)?pf\d+vf(\d+)", self.port or "")
        return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Vf:
    """A virtual function."""

    address: str
    pf: str
    """Address of the physical function it belongs to; judge a VF by that one, VF ids are shared by models."""
    number: int
    driver: str | None
    isolated: bool | None
    """No other function of a Mellanox device is in its IOMMU group; None: it is in no group."""
    representor: Netdev | None
    """Its other end on this host, in switchdev mode."""
    port_state: DevlinkPort | Unread
    held_state: bool | Unread

    @property
    def held(self) -> bool:
        """A running guest of this host has it. Raises `Unavailable`."""
        return known(self.held_state)

    @property
    def port(self) -> DevlinkPort:
        """Its port function, if devlink tells whether it is migratable. Raises `Unavailable`."""
        return known(self.port_state)


@dataclass(frozen=True, slots=True)
class Pf:
    """A physical function: one port of a card."""

    address: str
    device_id: int
    ethernet: bool
    """PCI class 0200; False: InfiniBand."""
    driver: str | None
    uplink: Netdev | None
    vfs: tuple[Vf, ...]
    total_vfs: int
    """How many VFs can be made (sriov_totalvfs)."""
    firmware_state: Firmware | Unread
    vf_migration_state: VfMigrationMode | Unread
    eswitch_state: str | Unread

    @property
    def model(self) -> str:
        """Its name, or its id where this table has none."""
        return _MODELS.get(self.device_id, f"device 15b3:{self.device_id:04x}")

    @property
    def too_old(self) -> bool:
        """Its model is known to be older than the ConnectX-7, the first whose VFs can migrate."""
        return self.device_id in _OLDER_MODELS

    @property
    def firmware(self) -> Firmware:
        """Its firmware. Raises `Unavailable`."""
        return known(self.firmware_state)

    @property
    def psid(self) -> str:
        """Its PSID. Raises `Unavailable`."""
        if self.firmware.psid is None:
            raise Unavailable(DEVLINK_INFO, f"{self.address}: no PSID told")
        return self.firmware.psid

    @property
    def vf_migration(self) -> VfMigrationMode:
        """Its VF_MIGRATION_MODE. Raises `Unavailable`."""
        return known(self.vf_migration_state)

    @property
    def eswitch(self) -> str:
        """`switchdev` or `legacy`. Raises `Unavailable`."""
        return known(self.eswitch_state)


@dataclass(frozen=True, slots=True)
class MellanoxDevices(HostFact):
    """The Mellanox (NVIDIA) network devices that the host itself drives.

    Never unavailable as a whole, only in what it is asked: guests without a VF must not be judged unknown for it.
    """

    probes = (
        *(SYSFS, DEVLINK_INFO, ETHTOOL, MSTFLINT, MSTCONFIG, ESWITCH, PORTS, TOOLS, MODULE),
        *GuestDevices.probes,
    )

    pfs_state: tuple[Pf, ...] | Unread
    mstflint_state: bool | Unread
    module_state: bool | Unread

    @property
    def pfs(self) -> tuple[Pf, ...]:
        """The physical functions, by address. Raises `Unavailable`."""
        return known(self.pfs_state)

    @property
    def mstflint(self) -> bool:
        """The package mstflint, which brings mstconfig, is installed. Raises `Unavailable`."""
        return known(self.mstflint_state)

    @property
    def vfio_module(self) -> bool:
        """The kernel has mlx5_vfio_pci, loaded or to be loaded. Raises `Unavailable`."""
        return known(self.module_state)

    def vf(self, address: str) -> Vf | None:
        """The Mellanox VF at a PCI address (0000:e1:00.1); None when what is there is not one. Raises `Unavailable`."""
        return next((vf for pf in self.pfs for vf in pf.vfs if vf.address == address), None)

    def pf(self, vf: Vf) -> Pf:
        """The physical function of one of this host's VFs."""
        return next(pf for pf in self.pfs if pf.address == vf.pf)

    @classmethod
    def parse(cls, said: Said) -> "MellanoxDevices":
        """From sysfs and from the tools, as far as they told."""
        tools = Tools(said)
        return cls(
            pfs_state=reading(SYSFS, lambda: _pfs(_functions(said.lines(SYSFS)), said)),
            mstflint_state=reading(TOOLS, tools.mstflint),
            module_state=reading(MODULE, tools.vfio_module),
        )


@dataclass(frozen=True, slots=True)
class Iommu(HostFact):
    """Whether the host can give PCI devices to guests at all."""

    probes = (IOMMU,)

    groups: int
    """IOMMU groups; 0: the IOMMU is off, or there is none."""
    tables: frozenset[str]
    """ACPI tables that announce one: DMAR (Intel VT-d), IVRS (AMD-Vi), IORT (ARM)."""
    arguments: tuple[str, ...]
    """The kernel's arguments about it, as booted."""

    @property
    def passthrough(self) -> bool:
        """The arguments let the host's own devices pass it by: iommu=pt, or iommu.passthrough=1."""
        options = {word for argument in self.arguments for word in argument.removeprefix("iommu=").split(",")}
        return bool(options & {"pt", "iommu.passthrough=1"})

    @classmethod
    def parse(cls, said: Said) -> "Iommu":
        """From sysfs, the names of the ACPI tables and the kernel command line (which may be of several lines)."""
        head, cmdline, arguments = said.text(IOMMU).partition("cmdline ")
        lines = [line.partition(" ") for line in head.splitlines()]
        if not cmdline or not lines or lines[0][0] != "groups" or any(word != "table" for word, _, _ in lines[1:]):
            raise ValueError("not groups, tables, command line")
        return cls(
            groups=0 if lines[0][2] == "none" else int(lines[0][2]),
            tables=frozenset(table for _, _, table in lines[1:]),
            arguments=tuple(word for word in arguments.split() if re.match(r"(intel_|amd_)?iommu[=.]", word)),
        )


Lines = Mapping[str, Sequence[str]]
"""Of one function in sysfs: per first word, the rests of the lines that began with it."""


def _functions(lines: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """What sysfs says, per PCI address. Raises `ValueError` when the list does not end as the probe ends it."""
    if lines == ["no PCI bus"]:
        return {}
    if not lines or lines[-1] != "end":
        raise ValueError("the list of devices has no end")
    functions: dict[str, dict[str, list[str]]] = {}
    here: dict[str, list[str]] | None = None
    for line in lines[:-1]:
        word, _, rest = line.partition(" ")
        if word == "==":
            here = functions.setdefault(_address(rest), {})
        elif here is None:
            raise ValueError(f"before the first device: {visible(line, 80)}")
        else:
            here.setdefault(word, []).append(rest)
    return functions


def _address(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", text):
        raise ValueError(f"not a PCI address: {visible(text, 40)}")
    return text


def _is_physical(lines: Lines) -> bool:
    """A network function that is nobody's VF. A VF handed into a VM shows no `physfn`: its id tells it."""
    vf_ids = {0x1002, 0x1004, 0x1012, 0x1014, 0x1016, 0x1018, 0x101A, 0x101C, 0x101E, 0xA2D3}
    return lines["class"][0].startswith("0x02") and "physfn" not in lines and int(lines["device"][0], 16) not in vf_ids


def _pfs(functions: Mapping[str, Lines], said: Said) -> tuple[Pf, ...]:
    physical = sorted(address for address, lines in functions.items() if _is_physical(lines))
    return tuple(_pf(address, functions, said) for address in physical)


def _pf(address: str, functions: Mapping[str, Lines], said: Said) -> Pf:
    own = functions[address]
    tools = Tools(said)
    netdevs = [_netdev(line) for line in own.get("net", ())]
    representors = {net.represents: net for net in netdevs if net.represents is not None}
    uplinks = [net for net in netdevs if net.port is None or re.fullmatch(r"p\d+(s\d+)?", net.port)]
    virtual = {int(word.removeprefix("virtfn")): rests[0] for word, rests in own.items() if word.startswith("virtfn")}
    if len(virtual) != int(own.get("sriov_numvfs", ["0"])[0]):
        raise ValueError(f"{address}: {len(virtual)} VFs listed, {own['sriov_numvfs'][0]} told")
    return Pf(
        address=address,
        device_id=int(own["device"][0], 16),
        ethernet=own["class"][0].startswith("0x0200"),
        driver=own.get("driver", [None])[0],
        uplink=uplinks[0] if uplinks else None,
        vfs=tuple(
            _vf(address, number, functions, virtual[number], representors.get(number), said)
            for number in sorted(virtual)
        ),
        total_vfs=int(own.get("sriov_totalvfs", ["0"])[0]),
        firmware_state=reading(DEVLINK_INFO, lambda: tools.firmware(address)),
        vf_migration_state=reading(MSTCONFIG, lambda: tools.vf_migration(address)),
        eswitch_state=reading(ESWITCH, lambda: tools.eswitch(address)),
    )


def _vf(
    pf: str, number: int, functions: Mapping[str, Lines], address: str, representor: Netdev | None, said: Said
) -> Vf:
    own = functions[_address(address)]
    group = own.get("group", [])
    return Vf(
        address=address,
        pf=pf,
        number=number,
        driver=own.get("driver", [None])[0],
        isolated=not (set(group) - {address}) & set(functions) if group else None,
        representor=representor,
        port_state=reading(PORTS, lambda: Tools(said).port(pf, number)),
        held_state=reading(GuestDevices.probes[0], lambda: address in _held(said)),
    )


@once  # read only where there is a VF to ask for, and then for each
def _held(said: Said) -> frozenset[str]:
    """PCI addresses of devices that running guests have."""
    running = [source for source in read_guests(said) if source.active]
    nics = [nic.pci_address for source in running for nic in GuestNics.parse(source).nics]
    others = [dev.address for source in running for dev in GuestDevices.parse(source).hostdevs]
    return frozenset(address for address in (*nics, *others) if address)


def _netdev(line: str) -> Netdev:
    name, port, state, master = line.split(" ")
    return Netdev(name, None if port == "-" else port, state, None if master == "-" else master)
