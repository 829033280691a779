"""libvirt's /etc/libvirt/qemu.conf, and the syntax of libvirt's configuration files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

QEMU_CONF = Probe(
    "services.qemu_conf",
    """
text=$($sudo cat /etc/libvirt/qemu.conf) || exit
printf '%s\\n' "$text" |
    sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' \\
        -e 's/^\\([[:space:]]*[a-z_]*password[[:space:]]*=\\).*/\\1 "hidden"/'
""",
    hand="grep -v '^#' /etc/libvirt/qemu.conf",
)


# How long ago the file was changed, and how long each daemon that reads it has been running, both in seconds.
CONF_AGE = Probe(
    "services.conf_age",
    """
read -r up rest </proc/uptime
now=$(date +%s.%N)
changed=$($sudo stat -c %.Y /etc/libvirt/qemu.conf) || changed=
[ -z "$changed" ] || echo "conf $now $changed"
ticks=$(getconf CLK_TCK) || exit
for file in /proc/[0-9]*/comm; do
    read -r name <"$file" || continue
    case $name in libvirtd|virtqemud) ;; *) continue ;; esac
    [ "$(stat -c %u "$file")" = 0 ] || continue
    started=$(sed 's/.*) //' "${file%comm}stat" | cut -d' ' -f20)
    [ -z "$started" ] || echo "daemon $up $started $ticks"
done 2>/dev/null
echo end
""",
    hand="stat -c %y /etc/libvirt/qemu.conf; ps -o lstart= -C libvirtd,virtqemud",
)


@dataclass(frozen=True, slots=True)
class ConfInForce(HostFact):
    """Whether libvirt's daemon has read its qemu.conf as it stands now: it reads it when it starts."""

    probes: ClassVar[tuple[Probe, ...]] = (CONF_AGE,)
    stale: bool
    """The file was changed after the daemon was started."""

    def settled(self) -> None:
        """Raise `Unavailable` where what the file says may not hold."""
        if self.stale:
            raise Unavailable(
                CONF_AGE, "qemu.conf was changed after libvirt's daemon was started, and what it says may not hold yet"
            )

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the ages of both, compared with some slack. No file, or no daemon yet: nothing is stale."""
        lines = said.lines(CONF_AGE)
        if not lines or lines[-1] != "end":
            raise Unavailable(CONF_AGE, "answer is incomplete")
        changed, running = [], []
        for line in lines[:-1]:
            word, *numbers = line.split()
            first, second, *ticks = map(float, numbers)
            if word == "conf":
                changed.append(first - second)
            else:
                running.append(first - second / ticks[0])
        return cls(bool(changed) and any(age > changed[0] + _SLACK_SECONDS for age in running))


_SLACK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class QemuConf(HostFact):
    """libvirt's /etc/libvirt/qemu.conf, with its defaults where it is silent. A change needs a restart to hold."""

    probes: ClassVar[tuple[Probe, ...]] = (QEMU_CONF,)
    present: bool = True
    migration_address: str | None = None
    """Address that incoming migrations listen on; None: all."""
    migration_host: str | None = None
    """Name or address given to the source to connect to; None: the host's own name."""
    migration_port_min: int = 49152
    migration_port_max: int = 49215
    migrate_tls_force: bool = False
    """Refuse migrations without `--tls`."""
    migrate_tls_x509_cert_dir: str | None = None
    default_tls_x509_cert_dir: str | None = None
    lock_manager: str | None = None
    """lockd, sanlock or nop; None: none."""
    security_driver: tuple[str, ...] | None = None
    """None: whichever the host has."""
    user: str | None = None
    group: str | None = None
    dynamic_ownership: bool = True
    remember_owner: bool = True
    shared_filesystems: tuple[str, ...] = ()
    hugetlbfs_mount: tuple[str, ...] | None = None
    """None: all hugetlbfs mounts that are found."""
    relaxed_acs_check: bool = False
    vnc_listen: str | None = None
    spice_listen: str | None = None

    @property
    def own_way(self) -> bool:
        """It says something about the way that guests come, and not by default."""
        names = ("migration_address", "migration_host", "migration_port_min", "migration_port_max")
        return any(getattr(self, name) != getattr(_DEFAULTS, name) for name in names)

    @property
    def migration_ports(self) -> range:
        """The ports that QEMU listens on during a migration, for memory and for copied disks alike."""
        return range(self.migration_port_min, self.migration_port_max + 1)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From libvirt's configuration syntax; a file that is not there means all defaults."""
        output = said.evidence(QEMU_CONF)
        gone = b"/etc/libvirt/qemu.conf" in output.stderr and b"No such file or directory" in output.stderr
        if output.status != 0 and gone:
            return cls(present=False)
        settings = parse_conf(said.text(QEMU_CONF))
        known = {field.name: field.type for field in fields(cls)}
        typed: dict[str, Any] = {k: _typed(k, value, known[k]) for k, value in settings.items() if k in known}
        conf = cls(**typed)
        if not 0 < conf.migration_port_min <= conf.migration_port_max <= 65535:
            raise ValueError(f"migration ports {conf.migration_port_min} to {conf.migration_port_max}")
        return conf


_DEFAULTS = QemuConf()

Value = str | int | tuple[str, ...]

_ATOM = re.compile(r'"""(?P<long>.*?)"""|"(?P<double>[^"\n]*)"|\'(?P<single>[^\'\n]*)\'|(?P<number>-?\d+)', re.DOTALL)
_KEY = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_REST = re.compile(r"[ \t]*(?:;|#[^\n]*)?(?:\n|\Z)")


def parse_conf(text: str) -> Mapping[str, Value]:
    """The settings of a libvirt `*.conf` file. Raises `ValueError`, also for a key set twice to different values."""
    settings: dict[str, Value] = {}
    at = _blank(text, 0)
    while at < len(text):
        key = _KEY.match(text, at)
        if not key:
            raise ValueError(f"not a setting: {visible(text[at : at + 60])}")
        value, at = _value(text, key.end())
        end = _REST.match(text, at)
        if not end:
            raise ValueError(f"{key[1]}: not understood: {visible(text[at : at + 60])}")
        if settings.setdefault(key[1], value) != value:
            raise ValueError(f"{key[1]} is set twice")
        at = _blank(text, end.end())
    return settings


def _value(text: str, at: int) -> tuple[Value, int]:
    if not text.startswith("[", at):
        return _atom(text, at)
    items: list[str] = []
    at = _blank(text, at + 1)
    while not text.startswith("]", at):
        item, at = _atom(text, at)
        items.append(str(item))
        at = _blank(text, at)
        if text.startswith(",", at):
            at = _blank(text, at + 1)
        elif not text.startswith("]", at):
            raise ValueError("list without end")
    return tuple(items), at + 1


def _atom(text: str, at: int) -> tuple[str | int, int]:
    match = _ATOM.match(text, at)
    if not match:
        raise ValueError(f"not a value: {visible(text[at : at + 60])}")
    if match["number"] is not None:
        return int(match["number"]), match.end()
    return next(match[kind] for kind in ("long", "double", "single") if match[kind] is not None), match.end()


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _typed(key: str, value: Value, kind: object) -> Value | bool | None:
    """`value` as the field wants it; libvirt takes a string where a list may stand."""
    if kind in {int, bool}:
        if not isinstance(value, int):
            raise ValueError(f"{key} is not a number: {visible(str(value), 60)}")
        return bool(value) if kind is bool else value
    if kind == str | None:
        if not isinstance(value, str):
            raise ValueError(f"{key} is not a string: {visible(str(value), 60)}")
        bracketed = key in {"migration_host", "migration_address"} and value.startswith("[") and value.endswith("]")
        return (value[1:-1] if bracketed else value) or None
    return value if isinstance(value, tuple) else (str(value),)
