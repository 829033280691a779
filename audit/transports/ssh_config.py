"""What `ssh HOST` would do, asked of `ssh -G` itself.

So Include, Match, tokens and the system's files mean what they mean to OpenSSH.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from audit.text import visible
from audit.transports import Connection

CONNECT_SECONDS = 20


class SshError(Exception):
    """Why there is no session, in words for the report."""


@dataclass(frozen=True, slots=True)
class Target:
    """A connection as OpenSSH's configuration resolves it."""

    hostname: str
    port: int
    user: str
    identity_file: str | None
    """The one that the inventory names: it must be there."""
    identity_files: tuple[str, ...]
    identities_only: bool
    jump: str
    proxy_command: str
    known_as: str
    """The name that known_hosts files have it under."""
    known_hosts: tuple[str, ...]


def resolve(connection: Connection, config: Path | None = None) -> Target:
    """The connection with what the ssh configuration adds; the connection's own values win. Raises `SshError`."""
    values = _ssh_g(connection, config)
    first = {key: found[0] for key, found in values.items()}
    port = int(first["port"])
    tokens = {
        "h": first["hostname"],
        "n": connection.address,
        "p": first["port"],
        "r": first["user"],
        "d": str(Path.home()),
        "%": "%",
    }
    alias = first.get("hostkeyalias", "").lower()
    name = alias or first["hostname"].lower()
    files = f"{first.get('userknownhostsfile', '')} {first.get('globalknownhostsfile', '')}"
    return Target(
        hostname=first["hostname"],
        port=port,
        user=first["user"],
        identity_file=connection.identity_file and _path(connection.identity_file, {}),
        identity_files=tuple(_path(found, tokens) for found in values.get("identityfile", ()) if found != "none"),
        identities_only=first.get("identitiesonly") == "yes",
        jump=_unless_none(first.get("proxyjump", "")),
        proxy_command=_expanded(_unless_none(first.get("proxycommand", "")), tokens),
        known_as=name if alias or port == 22 else f"[{name}]:{port}",
        known_hosts=tuple(_path(found, tokens) for found in files.split() if found != "none"),
    )


def _ssh_g(connection: Connection, config: Path | None) -> dict[str, list[str]]:
    ssh = shutil.which("ssh")
    if not ssh:
        raise SshError("the ssh program is missing here; it reads the ssh configuration: install openssh-client(s)")
    options = {
        "-F": config,
        "-p": connection.port,
        "-l": connection.user,
        "-i": connection.identity_file,
        "-J": connection.jump,
    }
    given = [word for option, value in options.items() if value for word in (option, str(value))]
    try:
        done = subprocess.run(  # noqa: S603  # values are checked by the inventory, and none can be an option
            [ssh, "-G", *given, "--", connection.address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONNECT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SshError(f"ssh -G: {error}") from error
    values: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)
    if done.returncode or not {"hostname", "port", "user"} <= values.keys():
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise SshError(f"ssh configuration: {visible(words[-1], 200)}")
    return values


def _unless_none(value: str) -> str:
    return "" if value.lower() == "none" else value


def _expanded(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _path(text: str, tokens: dict[str, str]) -> str:
    return str(Path(os.path.expandvars(_expanded(text.strip('"'), tokens))).expanduser())


def last_hop(jump: str) -> tuple[str, Connection]:
    """The jump host next to the target, as it is written, and the connection to it, behind those before it."""
    earlier, _, via = jump.rpartition(",")
    user, _, rest = via.removeprefix("ssh://").rpartition("@")
    address, colon, port = rest.rpartition(":")
    if not colon or "]" in port or (":" in address.strip("[]") and not address.startswith("[")):
        address, port = rest, ""
    number = int(port) if port.isdecimal() else None
    return via, Connection(address.strip("[]"), port=number, user=user or None, jump=earlier or None)
