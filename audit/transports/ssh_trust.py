"""Who is there: the keys that known_hosts files have for a host. Nothing here ever accepts one."""

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.transports.ssh_config import Target


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One key that a known_hosts file has for a host."""

    type: str
    blob: bytes
    where: str


def known_keys(files: Sequence[str], name: str) -> tuple[KnownKey, ...]:
    """The keys that `files` have for `name` (`host`, or `[host]:port`), without those that any of them revokes."""
    known: list[KnownKey] = []
    revoked: set[bytes] = set()
    for file in files:
        with contextlib.suppress(OSError):
            for number, line in enumerate(Path(file).read_text("utf-8", "replace").splitlines(), 1):
                marker, _, rest = line.partition(" ") if line.startswith("@") else ("", "", line)
                words = rest.split()
                if len(words) < 3 or line.startswith("#") or not _names(words[0], name):
                    continue
                with contextlib.suppress(binascii.Error):
                    blob = base64.b64decode(words[2], validate=True)
                    if marker == "@revoked":
                        revoked.add(blob)
                    elif not marker:  # certificate authorities of hosts are beyond paramiko
                        known.append(KnownKey(words[1], blob, f"{file}:{number}"))
    return tuple(key for key in known if key.blob not in revoked)


def _names(patterns: str, name: str) -> bool:
    """Whether the first field of a known_hosts line means `name`: hashed, or patterns separated by commas."""
    if patterns.startswith("|1|"):
        salt, _, digest = patterns[3:].partition("|")
        try:
            wanted = hmac.digest(base64.b64decode(salt), name.encode(), "sha1")
        except binascii.Error:
            return False
        return hmac.compare_digest(base64.b64encode(wanted), digest.encode())
    found = False
    for pattern in patterns.lower().split(","):
        if fnmatch.fnmatchcase(name, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def unknown_key(key_type: str, blob: bytes, known: Sequence[KnownKey], target: Target) -> str:
    """What to say, and to do, about a host that shows a key which is not among the known ones."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    shown = f"{target.known_as} shows {key_type} SHA256:{digest}"
    other = next((each for each in known if each.type == key_type), None)
    if other:
        return (
            f"host key is not the known one: {shown}, {other.where} has another. Either the host was installed anew"
            f" or somebody stands in between; when sure of the first: ssh-keygen -R '{target.known_as}'"
        )
    port = "" if target.port == 22 else f"-p {target.port} "
    scan = "" if target.jump or target.proxy_command else f" or: ssh-keyscan {port}{target.hostname}"
    scan += " >> ~/.ssh/known_hosts" if scan else ""
    return (
        f"host key unknown: {shown}. Compare it on the host (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub),"
        f" then accept it once with: ssh {port}{target.user}@{target.hostname}{scan}"
    )
