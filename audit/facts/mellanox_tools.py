"""What the tools say of Mellanox network devices: devlink, ethtool, mstflint, mstconfig, modinfo.

What a tool says is kept per device, with its own reason where it could not be had: a tool that fails on one device,
or for want of root, must leave the other facts and the guests without a VF in peace.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from audit.evidence import Probe
from audit.facts.base import Said, Unavailable
from audit.text import visible


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

MIGRATION_ENABLED = 2
MIGRATION_MODES: dict[int | None, str] = {
    0: "DEVICE_DEFAULT(0)",
    1: "MIGRATION_DISABLED(1)",
    MIGRATION_ENABLED: "MIGRATION_ENABLED(2)",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unread:
    """What a tool did not tell of one device, and why."""

    probe: Probe
    reason: str


def known(value: T | Unread) -> T:
    """What was told. Raises `Unavailable`."""
    if isinstance(value, Unread):
        raise Unavailable(value.probe, value.reason)
    return value


def reading(probe: Probe, read: Callable[[], T]) -> T | Unread:
    """What a tool told of one device, or why not."""
    try:
        return read()
    except Unavailable as reason:
        return Unread(reason.probe, reason.reason)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # the last two: JSON of another shape
        return Unread(probe, f"not understood: {visible(repr(error), 160)}")


@dataclass(frozen=True, slots=True)
class Firmware:
    """Which firmware a device has. Compare versions by `version_key`, never as text."""

    running: str
    stored: str | None
    """In flash, run after the next reset; None where no tool told it."""
    psid: str | None
    """The board's parameter set: what kind of card it is, finer than its model."""


def version_key(version: str) -> tuple[int, ...]:
    """A firmware version as numbers: 28.36.1010 comes before 28.41.1000, 16.26.0100 equals 16.26.100.

    Raises `ValueError` when it is not dotted numbers.
    """
    return tuple(int(part) for part in version.split("."))


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


class Tools:
    """What the tools said, per probe and device."""

    def __init__(self, said: Said) -> None:
        self._said = said

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

    def vf_migration(self, device: str) -> VfMigrationMode:
        """The device's VF_MIGRATION_MODE."""
        return _vf_migration(*self._block(MSTCONFIG, device))

    def eswitch(self, device: str) -> str:
        """The mode of the device's embedded switch."""
        mode = self._json(ESWITCH, device)["dev"][f"pci/{device}"]["mode"]
        if mode not in {"legacy", "switchdev"}:
            raise ValueError(f"eswitch mode {visible(str(mode), 40)}")
        return str(mode)

    def port(self, device: str, number: int) -> DevlinkPort:
        """devlink's port of the device's VF with that number."""
        for name, port in self._json(PORTS, "all")["port"].items():
            is_vf = port.get("flavour") == "pcivf" and port.get("vfnum") == number and not port.get("external", False)
            if re.fullmatch(rf"pci/{re.escape(device)}/\d+", name) and is_vf:
                state = port.get("function", {}).get("migratable")
                if state not in {"enable", "disable"}:
                    raise Unavailable(PORTS, f"{device}: devlink tells no `migratable` of VF {number}")
                return DevlinkPort(name, migratable=state == "enable")
        raise Unavailable(PORTS, f"{device}: devlink shows no port of VF {number}")

    def mstflint(self) -> bool:
        """The package mstflint, which brings mstconfig, is installed."""
        return self._block(TOOLS, "all")[0] == 0

    def vfio_module(self) -> bool:
        """The kernel has mlx5_vfio_pci, loaded or to be loaded."""
        return _module(*self._block(MODULE, "all"))

    def _devlink_firmware(self, device: str) -> Firmware:
        versions = self._json(DEVLINK_INFO, device)["info"][f"pci/{device}"]["versions"]
        psids = [section["fw.psid"] for section in versions.values() if "fw.psid" in section]
        stored = versions.get("stored", {})
        stored = stored.get("fw.version", stored.get("fw"))
        running = versions["running"].get("fw.version") or versions["running"]["fw"]
        return _firmware(running, stored, psids[0] if psids else None)

    def _ethtool_firmware(self, device: str) -> Firmware:
        fields = _fields(self._answer(ETHTOOL, device))
        running, _, psid = fields["firmware-version"].partition(" ")
        return _firmware(running, None, psid.strip("()") or None)

    def _mstflint_firmware(self, device: str) -> Firmware:
        fields = _fields(self._answer(MSTFLINT, device))
        stored = fields["FW Version"]
        return _firmware(fields.get("FW Version(Running)", stored), stored, fields.get("PSID"))

    def _block(self, probe: Probe, device: str) -> tuple[int, str]:
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

    def _answer(self, probe: Probe, device: str) -> str:
        """The tool's words where it succeeded."""
        status, words = self._block(probe, device)
        if status != 0:
            raise Unavailable(probe, _failed(device, status, words))
        return words

    def _json(self, probe: Probe, device: str) -> Any:
        """The JSON object in the tool's words; warnings may stand before it."""
        words = self._answer(probe, device)
        start = words.find("{")
        if start < 0:
            raise Unavailable(probe, f"{device}: nothing told")
        try:
            return json.JSONDecoder().raw_decode(words[start:])[0]
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


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
