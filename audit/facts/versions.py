"""Versions: operating system, kernel, QEMU, libvirt, BIOS, packages; and what the vendors support between them."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, Literal, NamedTuple, Self

import yaml

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

OS_RELEASE = Probe(
    "versions.os_release",
    "if [ -e /etc/os-release ]; then cat /etc/os-release; else cat /usr/lib/os-release; fi",
    hand="cat /etc/os-release",
)
KERNEL = Probe("versions.kernel", "uname -r -m && uname -v", hand="uname -rmv")
VIRSH = Probe("versions.virsh", "virsh -r -c qemu:///system version --daemon")
CMDLINE = Probe("versions.cmdline", "cat /proc/cmdline")
BIOS = Probe(
    "versions.bios",
    """\
[ -d /sys/class/dmi/id ] || { echo absent; exit 0; }
cd /sys/class/dmi/id || exit 1
for name in bios_vendor bios_version bios_date bios_release sys_vendor product_name; do
  [ ! -e "$name" ] || printf '%s=%s\\n' "$name" "$(cat "$name")"
done""",
    hand="grep . /sys/class/dmi/id/bios_* /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name",
)
# A Debian may have rpm installed, and an empty rpm database answers like one that has none of the packages.
PACKAGES = Probe(
    "versions.packages",
    """\
if [ -s /var/lib/dpkg/status ]; then
  echo dpkg
  dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' || echo failed
else
  echo rpm
  rpm -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE} ii\\n' || echo failed
fi | grep -E '^(dpkg|rpm|failed)$|^(libvirt|qemu|edk2|ovmf|seabios|ipxe|swtpm|openvswitch|mstflint|cockpit)'""",
    seconds=60,
    hand="rpm -qa || dpkg -l",
)


class Version(NamedTuple):
    """A version of three numbers; compares as one expects."""

    major: int
    minor: int = 0
    micro: int = 0

    @classmethod
    def read(cls, text: str) -> "Version":
        """`9.1.0`, `9.1`. Raises `ValueError`."""
        numbers = text.split(".")
        if not 1 <= len(numbers) <= 3 or not all(number.isascii() and number.isdigit() for number in numbers):
            raise ValueError(f"not a version: {visible(text, 40)}")
        return cls(*(int(number) for number in numbers))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.micro}"


_LONGEST_VALUE = 4096  # characters; shlex takes the square of the time


@dataclass(frozen=True, slots=True)
class OsRelease(HostFact):
    """The operating system, by os-release(5)."""

    probes: ClassVar[tuple[Probe, ...]] = (OS_RELEASE,)

    id: str
    """rhel, centos, rocky, debian, ubuntu, sles, …"""
    version_id: str
    """As it stands there; "" where a rolling release has none."""
    major: int | None
    minor: int | None
    """None: not stated. CentOS Stream and Debian have no minor release."""
    pretty: str
    id_like: tuple[str, ...]
    variant: str

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Shell assignments, quoted as a shell reads them."""
        values: dict[str, str] = {}
        for line in said.lines(OS_RELEASE):
            name, equals, rest = line.strip().partition("=")
            if name.startswith("#") or not equals:
                continue
            if len(rest) > _LONGEST_VALUE:
                raise Unavailable(OS_RELEASE, f"{visible(name, 40)} is {len(rest)} characters long")
            values[name] = "".join(shlex.split(rest, comments=False))
        if not values.get("ID"):
            raise Unavailable(OS_RELEASE, "names no system (ID=)")
        version = values.get("VERSION_ID", "")
        numbers = [int(part) if part.isascii() and part.isdigit() else None for part in version.split(".")[:2]]
        return cls(
            id=values["ID"].lower(),
            version_id=version,
            major=numbers[0],
            minor=numbers[1] if len(numbers) > 1 else None,
            pretty=values.get("PRETTY_NAME") or f"{values.get('NAME', values['ID'])} {version}".strip(),
            id_like=tuple(values.get("ID_LIKE", "").split()),
            variant=values.get("VARIANT_ID", ""),
        )


@dataclass(frozen=True, slots=True)
class Kernel(HostFact):
    """The running kernel."""

    probes: ClassVar[tuple[Probe, ...]] = (KERNEL,)

    release: str
    arch: str
    """`uname -m`."""
    stable: Version | None = None
    """The stable release that it is built from, where only the build tells, as Debian's does."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`5.14.0-427.el9.x86_64 x86_64`, and the build: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)`."""
        line, *build = said.lines(KERNEL)
        release, arch = line.split()
        found = re.search(r" Debian (\d{1,4})\.(\d{1,4})\.(\d{1,4})-", " ".join(build), re.ASCII)
        return cls(release, arch, Version(*map(int, found.groups())) if found else None)

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers; distributions change what is behind them. Raises `Unavailable`."""
        try:
            major, minor = self.release.split("-")[0].split(".")[:2]
            return int(major), int(minor)
        except ValueError as error:
            raise Unavailable(KERNEL, f"not a kernel version: {visible(self.release, 60)}") from error

    @property
    def numbers(self) -> Version:
        """The first three numbers. Raises `Unavailable`.

        The third is the stable release only where the distribution says so: Ubuntu and Red Hat leave a 0.
        """
        if self.stable:
            return self.stable
        found = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", self.release, re.ASCII)
        if not found:
            raise Unavailable(KERNEL, f"not a kernel version: {visible(self.release, 60)}")
        return Version(*(int(number or 0) for number in found.groups()))


@dataclass(frozen=True, slots=True)
class KernelArguments(HostFact):
    """The running kernel's command line."""

    probes: ClassVar[tuple[Probe, ...]] = (CMDLINE,)

    words: tuple[str, ...]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Words between blanks."""
        return cls(tuple(said.text(CMDLINE).split()))

    @property
    def cpu_words(self) -> frozenset[str]:
        """Those that change what processors and KVM give to guests."""
        return frozenset(word for word in self.words if _CPU_WORDS.fullmatch(word))


_CPU_WORDS = re.compile(
    r"(clearcpuid|gather_data_sampling|kvm|kvm_amd|kvm_intel|l1tf|mds|mitigations|no(x2apic|xsave\w*|pku|pti|smt)"
    r"|nospectre_v[12]|pti|retbleed|spec_store_bypass_disable|spectre_v2|split_lock_detect|srbds|tsc|tsx\w*)([.=].*)?"
)


@dataclass(frozen=True, slots=True)
class Libvirt(HostFact):
    """libvirt: the running daemon and the library that its client uses."""

    probes: ClassVar[tuple[Probe, ...]] = (VIRSH,)

    daemon: Version
    library: Version

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`Using library: libvirt 9.0.0`, `Running against daemon: 9.0.0`."""
        values = _virsh_version(said)
        return cls(
            daemon=Version.read(values["Running against daemon"]),
            library=Version.read(values["Using library"].removeprefix("libvirt ")),
        )


@dataclass(frozen=True, slots=True)
class Qemu(HostFact):
    """The installed QEMU; running guests may still be in the one they were started with."""

    probes: ClassVar[tuple[Probe, ...]] = (VIRSH,)

    version: Version | None
    """None: libvirt runs, and knows no QEMU here."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`Running hypervisor: QEMU 7.2.22`."""
        values = _virsh_version(said)
        running = values.get("Running hypervisor")
        return cls(Version.read(running.removeprefix("QEMU ")) if running else None)


def _virsh_version(said: Said) -> dict[str, str]:
    pairs = (line.partition(": ") for line in said.lines(VIRSH))
    return {name.strip(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Bios(HostFact):
    """The firmware and the machine, as SMBIOS tells them to everybody. None: not told (s390x, many ARM hosts)."""

    probes: ClassVar[tuple[Probe, ...]] = (BIOS,)

    vendor: str | None
    version: str | None
    date: str | None
    release: str | None
    system_vendor: str | None
    product: str | None

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`bios_version=2.19.1`, a line each."""
        lines = said.lines(BIOS)
        if not lines:
            raise Unavailable(BIOS, "no answer")
        values = {} if lines == ["absent"] else dict(line.split("=", 1) for line in lines)
        keys = ("bios_vendor", "bios_version", "bios_date", "bios_release", "sys_vendor", "product_name")
        return cls(*(values.get(key, "").strip() or None for key in keys))


@dataclass(frozen=True, slots=True)
class Packages(HostFact):
    """The installed packages that virtualization consists of."""

    probes: ClassVar[tuple[Probe, ...]] = (PACKAGES,)

    manager: Literal["rpm", "dpkg"]
    packages: tuple[tuple[str, str], ...]
    """Name and version with release, by name."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The manager's name, then `name version ii` a line; other states than `ii` are not installed."""
        manager, *lines = said.lines(PACKAGES)
        if "failed" in lines:
            raise Unavailable(PACKAGES, f"{manager} could not read its database")
        if manager not in ("rpm", "dpkg"):
            raise ValueError(f"neither rpm nor dpkg: {visible(manager, 80)}")
        rows = (line.split() for line in lines)
        found = {(row[0], row[1]) for row in rows if len(row) == 3 and row[2] == "ii"}
        return cls("rpm" if manager == "rpm" else "dpkg", tuple(sorted(found)))

    def version(self, name: str) -> str | None:
        """The version of an installed package."""
        return next((version for package, version in self.packages if package == name), None)


Status = Literal["supported", "best effort", "unsupported", "no statement"]


@dataclass(frozen=True, slots=True)
class SupportPath:
    """What a vendor says about live migration from one of its releases to another."""

    status: Status
    certain: bool
    """False: recollected or second-hand; look it up before relying on it."""
    machines: tuple[str, ...]
    """Kinds of machine types that it holds for; empty: not restricted."""
    reference: str
    note: str

    @property
    def words(self) -> str:
        """For a reader: the status, where it stands, and how sure that is."""
        sure = "" if self.certain else "; from an unconfirmed source, look it up"
        return f"{self.status} ({self.reference}{sure})"


_NOTHING_SAID = SupportPath("no statement", False, (), "no row in the support table", "")


def support_path(source: OsRelease, target: OsRelease) -> SupportPath:
    """The first row of the support table that fits both systems and the direction."""
    if source.id != target.id:
        return SupportPath("no statement", True, (), "different systems", "No vendor speaks for the path between them.")
    for row in _table()["paths"]:
        if row["os"] == source.id and _fits(row, source, target):
            return SupportPath(
                row["status"], row["certain"], tuple(row.get("machines", ())), row["reference"], row.get("note", "")
            )
    return _NOTHING_SAID


def stated_majors(system: OsRelease) -> frozenset[int]:
    """The major releases of this system that the support table has rows for."""
    rows = (row for row in _table()["paths"] if row["os"] == system.id)
    return frozenset(_range(row[side])[0] for row in rows for side in ("source", "target"))


@cache
def _table() -> dict[str, Any]:
    """The support table that comes with this package: data with dates and sources, see its head."""
    table: dict[str, Any] = yaml.safe_load(files("audit").joinpath("data", "support.yaml").read_text("utf-8"))
    return table


def _fits(row: dict[str, Any], source: OsRelease, target: OsRelease) -> bool:
    if not (_within(row["source"], source) and _within(row["target"], target)):
        return False
    step = (target.minor or 0) - (source.minor or 0)
    if target.major != source.major:
        step = (target.major or 0) - (source.major or 0)
    direction = "same" if step == 0 else "forward" if step > 0 else "backward"
    return direction in row["direction"].split() and abs(step) <= row.get("at_most_steps", abs(step))


def _range(text: str) -> tuple[int, int | None, int | None]:
    """Major, first and last minor of `9` (any minor), `7.6` (this one), `7.6+` (this and later)."""
    major, _, minor = text.partition(".")
    if not minor:
        return int(major), None, None
    first = int(minor.rstrip("+"))
    return int(major), first, None if minor.endswith("+") else first


def _within(text: str, system: OsRelease) -> bool:
    major, first, last = _range(text)
    if system.major != major or first is None:
        return system.major == major
    return system.minor is not None and first <= system.minor and (last is None or system.minor <= last)
