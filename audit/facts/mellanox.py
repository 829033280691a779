"""Mellanox network devices: the functions of a host, and what decides whether their VFs can move with a guest.

Which devices there are comes from sysfs alone and needs no privilege. What the tools say about each of them
(devlink, ethtool, mstflint, mstconfig) is kept per device with its own reason where it could not be had: a tool
that fails on one device, or for want of root, must leave the other facts and the guests without a VF in peace.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.guest import GuestDevices, GuestNics, read_guests
from audit.facts.openvswitch import INSTALLED, OpenVswitch
from audit.facts.versions import VIRSH, Libvirt
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


def _per_function(ask: str, *, once: bool = False) -> str:
    """A script that runs `ask` for each physical function, or `once`; `ask` leaves what a tool said in `said`.

    Prints "== ADDRESS STATUS", then the tool's lines, each led by a blank so that none can pass for a header;
    "end" closes the list. Without such a device nothing is run and "end" stands alone.
    """
    return f"""
for d in /sys/bus/pci/devices/*; do
  {{ read -r vendor <"$d/vendor" && read -r class <"$d/class"; }} 2>/dev/null || continue
  case $vendor/$class in 0x15b3/0x02*) ;; *) continue ;; esac
  [ -e "$d/physfn" ] && continue
  b=${{d##*/}}
  {ask}
  echo "== $b $?"; printf '%s\\n' "$said" | sed 's/^/ /'
  {"break" if once else ""}
done
echo end
"""


DEVLINK_INFO = Probe(
    "mellanox.devlink_info",
    _per_function('said=$(devlink -j dev info "pci/$b" 2>&1)'),
    hand="devlink -j dev info pci/DEVICE",
)
ETHTOOL = Probe(
    "mellanox.ethtool",
    _per_function('for net in "$d"/net/*; do break; done; said=$(ethtool -i "${net##*/}" 2>&1)'),
    hand="ethtool -i INTERFACE",
)
MSTFLINT = Probe(
    "mellanox.mstflint", _per_function('said=$($sudo mstflint -d "$b" q 2>&1)'), seconds=60, hand="mstflint -d DEVICE q"
)
MSTCONFIG = Probe(
    "mellanox.mstconfig",
    _per_function('said=$($sudo mstconfig -d "$b" -e query VF_MIGRATION_MODE 2>&1)'),
    seconds=60,
    hand="mstconfig -d DEVICE -e query VF_MIGRATION_MODE",
)
ESWITCH = Probe(
    "mellanox.eswitch",
    _per_function('said=$($sudo devlink -j dev eswitch show "pci/$b" 2>&1)'),
    hand="devlink -j dev eswitch show pci/DEVICE",
)
PORTS = Probe(
    "mellanox.ports", _per_function("b=all; said=$(devlink -j port show 2>&1)", once=True), hand="devlink -j port show"
)
TOOLS = Probe(
    "mellanox.tools",
    _per_function("b=all; said=$(command -v mstconfig 2>&1)", once=True),
    hand="command -v mstflint mstconfig",
)
MODULE = Probe(
    "mellanox.vfio_module",
    _per_function(
        "b=all; if [ -d /sys/bus/pci/drivers/mlx5_vfio_pci ]; then said=loaded; "
        "else said=$(modinfo -n mlx5_vfio_pci 2>&1); fi",
        once=True,
    ),
    hand="modinfo mlx5_vfio_pci",
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
MIGRATION_ENABLED = 2
MIGRATION_MODES: dict[int | None, str] = {
    0: "DEVICE_DEFAULT(0)",
    1: "MIGRATION_DISABLED(1)",
    MIGRATION_ENABLED: "MIGRATION_ENABLED(2)",
}
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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unread:
    """What a tool did not tell of one device, and why."""

    probe: Probe
    reason: str


def _known(value: T | Unread) -> T:
    if isinstance(value, Unread):
        raise Unavailable(value.probe, value.reason)
    return value


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
class Firmware:
    """Which firmware a device has. Compare versions by `version_key`, never as text."""

    running: str
    stored: str | None
    """In flash, run after the next reset; None where no tool told it."""
    psid: str | None
    """The board's parameter set: what kind of card it is, finer than its model."""


@dataclass(frozen=True, slots=True)
class VfMigrationMode:
    """mstconfig's VF_MIGRATION_MODE: 0 device default, 1 disabled, 2 enabled."""

    supported: bool
    """The running firmware knows the parameter."""
    current: int | None
    """None where mstconfig has no such column, or the parameter is unknown."""
    next_boot: int | None

    @property
    def enabled(self) -> bool:
        """The card as it runs now migrates VFs. Raises `Unavailable` if only the next boot's value tells so."""
        if self.supported and self.current is None and self.next_boot == MIGRATION_ENABLED:
            raise Unavailable(MSTCONFIG, "mstconfig tells the value after the next boot, not the current one")
        return self.current == MIGRATION_ENABLED

    def __str__(self) -> str:
        if not self.supported:
            return "a parameter that the firmware does not know"
        now, then = (MIGRATION_MODES.get(mode, str(mode)) for mode in (self.current, self.next_boot))
        if self.current is None:
            return f"{then} at the next boot"
        return now if now == then else f"{now}, {then} at the next boot"


@dataclass(frozen=True, slots=True)
class DevlinkPort:
    """devlink's port function of a VF."""

    name: str
    """As `devlink port function set` wants it: pci/0000:e1:00.0/1."""
    migratable: bool


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
        return _known(self.held_state)

    @property
    def port(self) -> DevlinkPort:
        """Its port function, if devlink tells whether it is migratable. Raises `Unavailable`."""
        return _known(self.port_state)


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
        return _known(self.firmware_state)

    @property
    def psid(self) -> str:
        """Its PSID. Raises `Unavailable`."""
        if self.firmware.psid is None:
            raise Unavailable(DEVLINK_INFO, f"{self.address}: no PSID told")
        return self.firmware.psid

    @property
    def vf_migration(self) -> VfMigrationMode:
        """Its VF_MIGRATION_MODE. Raises `Unavailable`."""
        return _known(self.vf_migration_state)

    @property
    def eswitch(self) -> str:
        """`switchdev` or `legacy`. Raises `Unavailable`."""
        return _known(self.eswitch_state)


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
        return _known(self.pfs_state)

    @property
    def mstflint(self) -> bool:
        """The package mstflint, which brings mstconfig, is installed. Raises `Unavailable`."""
        return _known(self.mstflint_state)

    @property
    def vfio_module(self) -> bool:
        """The kernel has mlx5_vfio_pci, loaded or to be loaded. Raises `Unavailable`."""
        return _known(self.module_state)

    def vf(self, address: str) -> Vf | None:
        """The Mellanox VF at a PCI address (0000:e1:00.1); None when what is there is not one. Raises `Unavailable`."""
        return next((vf for pf in self.pfs for vf in pf.vfs if vf.address == address), None)

    def pf(self, vf: Vf) -> Pf:
        """The physical function of one of this host's VFs."""
        return next(pf for pf in self.pfs if pf.address == vf.pf)

    @classmethod
    def parse(cls, said: Said) -> "MellanoxDevices":
        """From sysfs and from the tools, as far as they told."""
        tools = _Tools(said)
        return cls(
            pfs_state=_reading(SYSFS, lambda: _pfs(_functions(said.lines(SYSFS)), tools)),
            mstflint_state=_reading(TOOLS, lambda: tools.block(TOOLS, "all")[0] == 0),
            module_state=_reading(MODULE, lambda: _module(*tools.block(MODULE, "all"))),
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


@dataclass(frozen=True, slots=True)
class VfSurroundings(HostFact):
    """What a guest's VF needs of its host beside the card. Like the devices, never unavailable as a whole."""

    probes = (IOMMU, *OpenVswitch.probes, *Libvirt.probes)

    iommu_state: Iommu | Unread
    openvswitch_state: OpenVswitch | Unread
    libvirt_state: Libvirt | Unread

    @property
    def iommu(self) -> Iommu:
        """The host's IOMMU. Raises `Unavailable`."""
        return _known(self.iommu_state)

    @property
    def openvswitch(self) -> OpenVswitch:
        """The host's Open vSwitch. Raises `Unavailable`."""
        return _known(self.openvswitch_state)

    @property
    def libvirt(self) -> Libvirt:
        """The host's libvirt. Raises `Unavailable`."""
        return _known(self.libvirt_state)

    @classmethod
    def parse(cls, said: Said) -> "VfSurroundings":
        """Each from its own probes."""
        return cls(
            iommu_state=_reading(IOMMU, lambda: Iommu.parse(said)),
            openvswitch_state=_reading(INSTALLED, lambda: OpenVswitch.parse(said)),
            libvirt_state=_reading(VIRSH, lambda: Libvirt.parse(said)),
        )


def version_key(version: str) -> tuple[int, ...]:
    """A firmware version as numbers: 28.36.1010 comes before 28.41.1000, 16.26.0100 equals 16.26.100.

    Raises `ValueError` when it is not dotted numbers.
    """
    return tuple(int(part) for part in version.split("."))


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


def _pfs(functions: Mapping[str, Lines], tools: "_Tools") -> tuple[Pf, ...]:
    physical = sorted(address for address, lines in functions.items() if _is_physical(lines))
    return tuple(_pf(address, functions, tools) for address in physical)


def _pf(address: str, functions: Mapping[str, Lines], tools: "_Tools") -> Pf:
    own = functions[address]
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
            _vf(address, number, functions, virtual[number], representors.get(number), tools)
            for number in sorted(virtual)
        ),
        total_vfs=int(own.get("sriov_totalvfs", ["0"])[0]),
        firmware_state=_reading(DEVLINK_INFO, lambda: tools.firmware(address)),
        vf_migration_state=_reading(MSTCONFIG, lambda: _vf_migration(*tools.block(MSTCONFIG, address))),
        eswitch_state=_reading(ESWITCH, lambda: tools.eswitch(address)),
    )


def _vf(
    pf: str, number: int, functions: Mapping[str, Lines], address: str, representor: Netdev | None, tools: "_Tools"
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
        port_state=_reading(PORTS, lambda: tools.port(pf, number)),
        held_state=_reading(GuestDevices.probes[0], lambda: address in tools.held()),
    )


def _netdev(line: str) -> Netdev:
    name, port, state, master = line.split(" ")
    return Netdev(name, None if port == "-" else port, state, None if master == "-" else master)


def _reading(probe: Probe, read: Callable[[], T]) -> T | Unread:
    """What a tool told of one device, or why not."""
    try:
        return read()
    except Unavailable as reason:
        return Unread(reason.probe, reason.reason)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # the last two: JSON of another shape
        return Unread(probe, f"not understood: {visible(repr(error), 160)}")


class _Tools:
    """What the tools said, per probe and device."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._held: frozenset[str] | None = None

    def held(self) -> frozenset[str]:
        """PCI addresses of devices that running guests have; read only where there is a VF to ask for."""
        if self._held is None:
            running = [source for source in read_guests(self._said) if source.active]
            nics = [nic.pci_address for source in running for nic in GuestNics.parse(source).nics]
            others = [dev.address for source in running for dev in GuestDevices.parse(source).hostdevs]
            self._held = frozenset(address for address in (*nics, *others) if address)
        return self._held

    def block(self, probe: Probe, device: str) -> tuple[int, str]:
        """Exit status and words of the tool about one device."""
        lines = self._said.lines(probe)
        if not lines or lines[-1] != "end":
            raise ValueError("the list of devices has no end")
        start = next((n for n, line in enumerate(lines) if line.startswith(f"== {device} ")), None)
        if start is None:
            raise Unavailable(probe, f"{device}: not asked")
        words = []
        for line in lines[start + 1 :]:
            if not line.startswith(" "):
                break
            words.append(line[1:])
        return int(lines[start].split(" ")[2]), "\n".join(words)

    def answer(self, probe: Probe, device: str) -> str:
        """The tool's words where it succeeded."""
        status, words = self.block(probe, device)
        if status != 0:
            raise Unavailable(probe, _failed(device, status, words))
        return words

    def json(self, probe: Probe, device: str) -> Any:
        """The JSON object in the tool's words; warnings may stand before it."""
        words = self.answer(probe, device)
        start = words.find("{")
        if start < 0:
            raise Unavailable(probe, f"{device}: nothing told")
        try:
            return json.JSONDecoder().raw_decode(words[start:])[0]
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def firmware(self, device: str) -> Firmware:
        """From devlink, else ethtool, else mstflint: the first that tells the running version."""
        failures: list[Unavailable] = []
        for read in (self._devlink_firmware, self._ethtool_firmware, self._mstflint_firmware):
            try:
                return read(device)
            except Unavailable as reason:
                failures.append(reason)
            except (ValueError, LookupError, TypeError, AttributeError):
                failures.append(Unavailable(DEVLINK_INFO, f"{device}: not understood"))
        raise failures[0]

    def _devlink_firmware(self, device: str) -> Firmware:
        versions = self.json(DEVLINK_INFO, device)["info"][f"pci/{device}"]["versions"]
        psids = [section["fw.psid"] for section in versions.values() if "fw.psid" in section]
        stored = versions.get("stored", {})
        stored = stored.get("fw.version", stored.get("fw"))
        running = versions["running"].get("fw.version") or versions["running"]["fw"]
        return _firmware(running, stored, psids[0] if psids else None)

    def _ethtool_firmware(self, device: str) -> Firmware:
        fields = _fields(self.answer(ETHTOOL, device))
        running, _, psid = fields["firmware-version"].partition(" ")
        return _firmware(running, None, psid.strip("()") or None)

    def _mstflint_firmware(self, device: str) -> Firmware:
        fields = _fields(self.answer(MSTFLINT, device))
        stored = fields["FW Version"]
        return _firmware(fields.get("FW Version(Running)", stored), stored, fields.get("PSID"))

    def eswitch(self, device: str) -> str:
        """The mode of the device's embedded switch."""
        mode = self.json(ESWITCH, device)["dev"][f"pci/{device}"]["mode"]
        if mode not in {"legacy", "switchdev"}:
            raise ValueError(f"eswitch mode {visible(str(mode), 40)}")
        return str(mode)

    def port(self, device: str, number: int) -> DevlinkPort:
        """devlink's port of the device's VF with that number."""
        for name, port in self.json(PORTS, "all")["port"].items():
            is_vf = port.get("flavour") == "pcivf" and port.get("vfnum") == number and not port.get("external", False)
            if re.fullmatch(rf"pci/{re.escape(device)}/\d+", name) and is_vf:
                state = port.get("function", {}).get("migratable")
                if state not in {"enable", "disable"}:
                    raise Unavailable(PORTS, f"{device}: devlink tells no `migratable` of VF {number}")
                return DevlinkPort(name, migratable=state == "enable")
        raise Unavailable(PORTS, f"{device}: devlink shows no port of VF {number}")


def _fields(text: str) -> dict[str, str]:
    """`Key: value` lines."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith(" "))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _firmware(running: str, stored: str | None, psid: str | None) -> Firmware:
    """Checked: the versions are dotted numbers, the PSID is a word. Raises `ValueError`."""
    if len(version_key(running)) < 3 or (stored is not None and len(version_key(stored)) < 3):
        raise ValueError("not a firmware version")
    if psid is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{3,32}", psid):
        raise ValueError("not a PSID")
    return Firmware(running, stored, psid)


def _failed(device: str, status: int, words: str) -> str:
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "")
    if status == 127:
        return f"command not found: {visible(last, 160)}"
    return f"{device}: exit status {status}: {visible(last, 160)}"


def _vf_migration(status: int, words: str) -> VfMigrationMode:
    """From mstconfig's table, whose header tells its columns: Next Boot; Default and Next Boot; or all three."""
    if "doesn't support VF_MIGRATION_MODE" in words:
        return VfMigrationMode(supported=False, current=None, next_boot=None)
    if status != 0:
        raise Unavailable(MSTCONFIG, _failed("mstconfig", status, words))
    columns: list[str] = []
    for line in words.splitlines():
        if line.strip().startswith("Configurations:"):
            columns = re.findall(r"Default|Current|Next Boot", line)
        name, _, values = line.partition("VF_MIGRATION_MODE")
        if not columns or not re.fullmatch(r"[*\sA-Z]*", name) or not values[:1].isspace():
            continue
        if len(values.split()) != len(columns):
            raise ValueError(f"{len(columns)} columns, but {visible(line, 120)}")
        modes = dict(zip(columns, (_mode(value) for value in values.split()), strict=True))
        return VfMigrationMode(supported=True, current=modes.get("Current"), next_boot=modes["Next Boot"])
    raise ValueError("no VF_MIGRATION_MODE in the answer")


def _mode(value: str) -> int:
    match = re.fullmatch(r"(?:[A-Z_]+\((\d+)\)|(\d+))", value)
    if not match:
        raise ValueError(f"not a mode: {visible(value, 60)}")
    return int(match[1] or match[2])


def _module(status: int, words: str) -> bool:
    if status != 0 and "not found" not in words:
        raise Unavailable(MODULE, _failed("modinfo", status, words))
    if status == 127:  # "modinfo: not found"
        raise Unavailable(MODULE, "modinfo: command not found")
    return status == 0
