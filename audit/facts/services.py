"""Services: systemd units, libvirt's daemons and their sockets.

libvirt's daemons come modular (`virtqemud`, `virtproxyd`, …) or monolithic (`libvirtd`). Both are started by
their sockets and end when idle: `virtqemud.service` inactive with `virtqemud.socket` active is healthy.
TLS is port 16514, unencrypted TCP is port 16509.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.policy import MigrationTransport
from audit.text import visible

TLS_PORT = 16514
TCP_PORT = 16509
SSH_PORT = 22

_UNITS = (
    *(f"virtqemud{suffix}" for suffix in (".service", ".socket", "-ro.socket", "-admin.socket")),
    *(f"virtproxyd{suffix}" for suffix in (".service", ".socket", "-tls.socket", "-tcp.socket")),
    *(f"libvirtd{suffix}" for suffix in (".service", ".socket", "-ro.socket", "-tls.socket", "-tcp.socket")),
    *(f"virt{name}.socket" for name in ("networkd", "storaged", "nodedevd", "secretd", "nwfilterd", "logd", "lockd")),
    *("virtnetworkd.service", "virtstoraged.service", "virtlogd.service", "virtlockd.service", "sanlock.service"),
    *("ssh.service", "sshd.service", "ssh.socket", "sshd.socket", "cockpit.socket"),
    *("rpc-statd.service", "rpcbind.service", "rpcbind.socket", "nfs-client.target"),
    *("openvswitch.service", "openvswitch-switch.service", "ovs-vswitchd.service"),
    *("chronyd.service", "chrony.service", "systemd-timesyncd.service", "ntpd.service"),
    *("firewalld.service", "nftables.service", "ufw.service"),
)

UNITS = Probe(
    "services.units",
    "SYSTEMD_PAGER= systemctl show --no-pager -p Id,Names,LoadState,ActiveState,SubState,UnitFileState,Listen "
    + " ".join(_UNITS),
    hand="systemctl list-units --all 'virt*' 'libvirt*'",
)

DAEMON = Probe(
    "services.daemon",
    """
for socket in /run/libvirt/*-sock; do [ -S "$socket" ] && echo "socket $socket"; done
for file in /proc/[0-9]*/comm; do
    read -r name <"$file" || continue
    case $name in libvirtd|virtqemud|virtproxyd) ;; *) continue ;; esac
    [ "$(stat -c %u "$file")" != 0 ] || echo "process $name"
done 2>/dev/null
if said=$(virsh -r -c qemu:///system uri 2>&1); then echo answers; else echo "silent $?: $said"; fi
echo end
""",
    seconds=40,
    hand="virsh -r -c qemu:///system uri; ls /run/libvirt",
)

SSHD = Probe(
    "services.sshd",
    """
set -- ${SSH_CONNECTION:-}
[ $# -ne 4 ] || echo "port $4"
$sudo sshd -T 2>/dev/null |
    sed -n -e 's/^[Pp]ort \\([0-9]*\\)$/port \\1/p' -e 's/^[Mm]ax[Ss]tartups \\([0-9]*\\).*/startups \\1/p'
echo end
""",
    hand="sshd -T | grep -E '^(port|maxstartups)'",
)

_RUNNING = {"active", "activating", "reloading"}
_ENABLED = {"enabled", "enabled-runtime", "static", "indirect", "generated", "linked", "alias"}


@dataclass(frozen=True, slots=True)
class Unit:
    """One systemd unit, as `systemctl show` tells it."""

    name: str
    load: str
    """loaded, not-found, masked, error, …"""
    active: str
    """ActiveState: active, inactive, failed, …"""
    enabled: str
    """UnitFileState: enabled, disabled, static, masked, …; empty where there is no such unit."""
    listen: tuple[str, ...] = ()
    """Addresses and paths of a socket unit, without the kind in parentheses."""

    @property
    def exists(self) -> bool:
        """There is such a unit, and it may be started."""
        return self.load == "loaded"

    @property
    def running(self) -> bool:
        """It is active; for a socket: systemd listens."""
        return self.active in _RUNNING

    @property
    def at_boot(self) -> bool:
        """It comes back by itself after a reboot."""
        return self.enabled in _ENABLED

    @property
    def ports(self) -> tuple[int, ...]:
        """The TCP ports a socket unit listens on."""
        found = (re.search(r":(\d+)$", address) for address in self.listen)
        return tuple(sorted({int(match[1]) for match in found if match}))


@dataclass(frozen=True, slots=True)
class Units(HostFact):
    """The units of systemd that matter to migration. No systemd: unavailable."""

    probes: ClassVar[tuple[Probe, ...]] = (UNITS,)
    units: tuple[tuple[str, Unit], ...]
    """By every name they answered to, aliases too."""

    def of(self, name: str) -> Unit:
        """The unit of that name, perhaps not found there; `Unavailable` if systemd did not tell."""
        for known, unit in self.units:
            if known == name:
                return unit
        raise Unavailable(UNITS, f"nothing said about {name}")

    def running(self, *names: str) -> bool:
        """Any of these units is active."""
        return any(self.of(name).running for name in names)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From blocks of KEY=VALUE, in whatever order."""
        # Asked for a unit that is not there, some versions end with 1 or 4 but tell all the same.
        text = said.text(UNITS, ok=(0, 1, 4) if said.evidence(UNITS).stdout.strip() else (0,))
        units: dict[str, Unit] = {}
        for block in re.split(r"\n\s*\n", text.strip()):
            unit, names = _unit(block)
            for name in names:
                # An alias that is not found must not hide the unit that has it among its names.
                if name not in units or not units[name].exists:
                    units[name] = unit
        return cls(tuple(sorted(units.items())))


def _unit(block: str) -> tuple[Unit, frozenset[str]]:
    said: dict[str, str] = {}
    listen = []
    for line in block.splitlines():
        key, equals, value = line.partition("=")
        if not equals:
            raise Unavailable(UNITS, f"not systemd's answer: {visible(line, 120)}")
        if key == "Listen":
            listen.append(value.rpartition(" (")[0] or value)
        else:
            said[key] = value
    name = said["Id"]
    unit = Unit(name, said["LoadState"], said["ActiveState"], said.get("UnitFileState", ""), tuple(listen))
    return unit, frozenset({name, *said.get("Names", "").split()})


Mode = Literal["modular", "monolithic", "both", "none"]


@dataclass(frozen=True, slots=True)
class Daemons(HostFact):
    """Which of libvirt's daemons serve QEMU guests here, and by which sockets.

    Told by systemd; on a host without it (a container) by processes and by the sockets in /run/libvirt.
    """

    probes: ClassVar[tuple[Probe, ...]] = (DAEMON, UNITS)
    mode: Mode
    answers: bool
    """qemu:///system could be opened, read-only."""
    silence: str
    """Why it could not."""
    units: Units | None
    """None: no systemd here that could be asked."""
    processes: frozenset[str]
    """Daemons that root runs, with or without systemd; users' own session daemons do not count."""

    @property
    def offers_modular(self) -> bool:
        """Modular daemons are installed; where neither kind runs, they are the ones to start."""
        return self.mode == "modular" or (self.units is not None and self.units.of("virtqemud.socket").exists)

    @property
    def modular(self) -> bool:
        """The modular daemons are those that are asked, or would be."""
        return self.mode in {"modular", "both"} or (self.mode == "none" and self.offers_modular)

    def socket_unit(self, transport: MigrationTransport) -> str:
        """The socket unit that must listen for this transport, given the kind of daemons here."""
        modular = self.modular
        if transport == "ssh":
            return "virtqemud.socket" if modular else "libvirtd.socket"
        return f"{'virtproxyd' if modular else 'libvirtd'}-{transport}.socket"

    def socket(self, transport: MigrationTransport) -> Unit | None:
        """That unit; None without systemd."""
        return None if self.units is None else self.units.of(self.socket_unit(transport))

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Systemd's word where there is one, else what runs."""
        lines = said.lines(DAEMON)
        if not lines or lines[-1] != "end":
            raise Unavailable(DAEMON, "answer is incomplete")
        try:
            units = Units.parse(said)
        except Unavailable:
            units = None
        processes = frozenset(line.removeprefix("process ") for line in lines if line.startswith("process "))
        sockets = {line.rpartition("/")[2] for line in lines if line.startswith("socket ")}
        silent = [line.removeprefix("silent ") for line in lines if line.startswith("silent ")]
        if not silent and "answers" not in lines:
            raise Unavailable(DAEMON, "answer is incomplete")
        modular = "virtqemud" in processes
        monolithic = "libvirtd" in processes
        if units is not None:
            modular = modular or units.running("virtqemud.socket", "virtqemud.service")
            monolithic = monolithic or units.running("libvirtd.socket", "libvirtd.service")
        elif not (modular or monolithic) and not silent:
            # In modular mode libvirt-sock belongs to virtproxyd; virtqemud-sock belongs to nobody else.
            modular, monolithic = "virtqemud-sock" in sockets, "virtqemud-sock" not in sockets
        mode: Mode = "both" if modular and monolithic else "modular" if modular else "monolithic"
        return cls(
            mode=mode if modular or monolithic else "none",
            answers=not silent,
            silence=visible(silent[0], 200) if silent else "",
            units=units,
            processes=processes,
        )


@dataclass(frozen=True, slots=True)
class Sshd(HostFact):
    """The ports of the SSH server, as it tells itself (root) and as this very connection used."""

    probes: ClassVar[tuple[Probe, ...]] = (SSHD,)
    ports: frozenset[int]
    """Empty: asked in vain (no root, and not connected over SSH); see what listens instead."""
    startups: int | None = None
    """Connections that may be logging in at once before it drops some (the first number of MaxStartups); 0: no limit;
    None: asked in vain."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `port N` and `startups N` lines."""
        lines = said.lines(SSHD)
        if not lines or lines[-1] != "end":
            raise Unavailable(SSHD, "answer is incomplete")
        startups = [int(line.removeprefix("startups ")) for line in lines if line.startswith("startups ")]
        ports = (line.removeprefix("port ") for line in lines[:-1] if not line.startswith("startups "))
        return cls(frozenset(map(int, ports)), next(iter(startups), None))


def control_ports(transport: MigrationTransport, daemons: Daemons | None, sshd: Sshd | None) -> tuple[int, ...]:
    """The TCP ports by which a host's libvirt can be reached: several where the SSH server has several.

    None: not known; the usual port then.
    """
    if transport == "ssh":
        return tuple(sorted(sshd.ports)) if sshd and sshd.ports else (SSH_PORT,)
    unit = daemons.socket(transport) if daemons else None
    return (unit.ports if unit else ()) or (TLS_PORT if transport == "tls" else TCP_PORT,)
