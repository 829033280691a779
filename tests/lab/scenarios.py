"""Scenarios: how to prepare the hosts and the guest, and the migration to try. What comes of it, only trying tells."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from tests.lab import guests

FOLDER = Path(__file__).parent / "scenarios"
_SCHEMES = {"ssh": "qemu+ssh", "tls": "qemu+tls", "tcp": "qemu+tcp"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of `scenarios/FAMILY.yaml`."""

    family: str
    name: str
    about: str
    """One line: what is unusual."""
    source: str = "kvm1"
    target: str = "kvm2"
    others: tuple[str, ...] = ()
    """Hosts that are there and audited, too."""
    guest: guests.Guest = field(default_factory=guests.Guest)
    before: Mapping[str, str] = field(default_factory=dict)
    """By host (or `desk`): shell commands before the guest is started."""
    after: Mapping[str, str] = field(default_factory=dict)
    """By host (or `desk`): shell commands when it runs, before the audit."""
    lacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By host: features (those of `weaker.FEATURES`) that its processor is without."""
    options: tuple[str, ...] = ()
    """Options of `virt-preflight audit`."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The inventory's policy: which transport is meant, for one."""
    migrate: str = "virsh migrate --live {guest} {uri}"
    """The command; `{guest}`, `{source}`, `{target}` and `{uri}` stand for what they say."""
    at: str = ""
    """Where it is typed: a host, or `desk`; without, on the source."""
    short: bool = False
    """Whether it is one of the selection that `scripts/test` runs."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """All that take part."""
        return (self.source, self.target, *self.others)

    @property
    def command(self) -> str:
        """The migration as it is typed."""
        uri = f"{_SCHEMES[self.policy.get('transport', 'ssh')]}://{self.target}/system"
        names = {"guest": quote(self.guest.name), "source": self.source, "target": self.target, "uri": uri}
        command = self.migrate
        for name, value in names.items():
            command = command.replace(f"{{{name}}}", value)
        return command

    @property
    def way(self) -> str:
        """Which of virt-preflight's ways that is: `live`, or another that it tells beside that."""
        ways = {
            "--offline": "offline",
            "--copy-storage-inc": "copy-storage-inc",
            "--copy-storage": "copy-storage",
            "--migrateuri": "another-address",
            "--tunnelled": "tunnelled",
        }
        return next((way for option, way in ways.items() if option in self.migrate), "live")

    @property
    def copied(self) -> frozenset[str]:
        """The disks that the command names to be copied; empty: none by name."""
        words = shlex.split(self.migrate)
        named = words[words.index("--migrate-disks") + 1] if "--migrate-disks" in words else ""
        return frozenset(filter(None, named.split(",")))


def load(folder: Path = FOLDER) -> tuple[Scenario, ...]:
    """All scenarios, by family and as they stand in their files."""
    return tuple(
        _scenario(path.stem, values)
        for path in sorted(folder.glob("*.yaml"))
        for values in yaml.safe_load(path.read_text())
    )


def _scenario(family: str, values: dict[str, Any]) -> Scenario:
    values = {**values, "family": family, "guest": guests.guest(values.get("guest", {}))}
    for name in ("others", "options"):
        values[name] = tuple(values.get(name, ()))
    return Scenario(**values)
