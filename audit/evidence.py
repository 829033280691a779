"""Evidence: what probes printed, and the bundle that keeps it on disk.

A bundle is a folder that people can read and grep:

    BUNDLE/
      manifest.json              format, tool, run id, UTC times, inventory, active probes' options;
                                 sha256 of every host's index
      hosts/HOST/index.json      reached or not and why; status, duration, sizes, sha256 of every output
      hosts/HOST/PROBE.out       standard output, untouched
      hosts/HOST/PROBE.err       standard error, where there was any

It is written under a temporary name and renamed when the manifest, written last,
is on disk: what carries a bundle's name is complete.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "virt-preflight/bundle/1"
HOST_NAME = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9._:%\[\]-]{0,252}")
_PROBE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class BundleError(Exception):
    """The folder is not a complete, unaltered bundle of a known format."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One command with a name: read-only, unless `option` says that it must be asked for.

    `command` is POSIX sh, a constant of this project. `$sudo` in it stands for
    `sudo -n` where the inventory allows that and the login is not root, for nothing otherwise.
    """

    name: str
    command: str
    seconds: int = 20
    limit: int = 4 * 1024 * 1024
    hand: str = ""
    option: str = ""
    """Of an active probe, which does more than look: the option that asks for it ("--probe-network")."""

    @property
    def by_hand(self) -> str:
        """What a person would type as root to see the same: `hand`, or else the command itself."""
        return self.hand or self.command.replace("$sudo ", "").strip()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one probe left behind on one host.

    `status` is its exit status, None when it did not end. `problem` is "" when it ran to its end,
    else why it did not: "timed out after 20 s", "output cut at 4194304 bytes", "not run: …".
    `arguments` are the records that a question asked.
    """

    probe: str
    status: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    problem: str = ""
    arguments: tuple[tuple[str, ...], ...] = ()

    @property
    def sha256(self) -> str:
        """Of standard output, as the index has it."""
        return hashlib.sha256(self.stdout).hexdigest()


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """All that one host said. `problem` tells why it could not be asked ("" when it could)."""

    host: str
    outputs: Mapping[str, Evidence] = field(default_factory=dict)
    problem: str = ""
    privilege: str = ""
    """"root", "sudo", or "user: …" with the reason why there is no more."""
    started: str = ""
    finished: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The evidence of a run. `inventory` is the normalised inventory as plain JSON values, without secrets."""

    run_id: str
    tool: str
    started: str
    finished: str
    inventory: dict[str, Any]
    hosts: Mapping[str, HostEvidence]
    active: Mapping[str, str] = field(default_factory=dict)
    """The options that were given for active probes, with their values ("" for none)."""

    def write(self, folder: Path) -> None:
        """Write to `folder`, which must not exist. Raises `OSError` when the disk refuses; nothing is left then."""
        if folder.exists():
            raise FileExistsError(f"{folder} exists already")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            indexes = {name: _write_host(partial / "hosts" / name, host) for name, host in self.hosts.items()}
            manifest = {
                "format": FORMAT,
                "tool": self.tool,
                "run_id": self.run_id,
                "started": self.started,
                "finished": self.finished,
                "inventory": self.inventory,
                "active": dict(self.active),
                "hosts": indexes,
            }
            _write(partial / "manifest.json", _json(manifest))
            _sync(partial)
            partial.rename(folder)
            _sync(folder.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """The bundle in `folder`, every digest verified. Raises `BundleError` saying what is wrong with which file."""
        manifest = _object(folder / "manifest.json")
        if manifest.get("format") != FORMAT:
            raise BundleError(f"{folder}: format {manifest.get('format')!r} is not {FORMAT}")
        try:
            hosts = {name: _read_host(folder, name, digest) for name, digest in manifest["hosts"].items()}
            return cls(
                run_id=manifest["run_id"],
                tool=manifest["tool"],
                started=manifest["started"],
                finished=manifest["finished"],
                inventory=manifest["inventory"],
                hosts=hosts,
                active={str(option): str(value) for option, value in manifest.get("active", {}).items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BundleError(f"{folder}: damaged manifest or index: {error!r}") from error


def _write_host(folder: Path, host: HostEvidence) -> str:
    if not HOST_NAME.fullmatch(host.host) or folder.name != host.host:
        raise ValueError(f"not a host name: {host.host!r}")
    folder.mkdir(parents=True)
    entries = []
    for name, output in sorted(host.outputs.items()):
        if not _PROBE_NAME.fullmatch(name):
            raise ValueError(f"not a probe name: {name!r}")
        _write(folder / f"{name}.out", output.stdout)
        if output.stderr:
            _write(folder / f"{name}.err", output.stderr)
        entries.append(
            {
                "probe": name,
                "status": output.status,
                "problem": output.problem,
                "seconds": round(output.seconds, 3),
                "bytes": len(output.stdout),
                "sha256": output.sha256,
                "stderr_bytes": len(output.stderr),
                "stderr_sha256": hashlib.sha256(output.stderr).hexdigest(),
                "arguments": [list(record) for record in output.arguments],
            }
        )
    index = _json(
        {
            "host": host.host,
            "problem": host.problem,
            "privilege": host.privilege,
            "started": host.started,
            "finished": host.finished,
            "outputs": entries,
        }
    )
    _write(folder / "index.json", index)
    return hashlib.sha256(index).hexdigest()


def _read_host(bundle: Path, name: str, digest: str) -> HostEvidence:
    if not HOST_NAME.fullmatch(name):
        raise BundleError(f"{bundle}: not a host name: {name!r}")
    folder = bundle / "hosts" / name
    index = _object(folder / "index.json", digest)
    outputs = {}
    for entry in index["outputs"]:
        probe = entry["probe"]
        if not _PROBE_NAME.fullmatch(probe):
            raise BundleError(f"{folder}: not a probe name: {probe!r}")
        stderr = _bytes(folder / f"{probe}.err", entry["stderr_sha256"]) if entry["stderr_bytes"] else b""
        outputs[probe] = Evidence(
            probe=probe,
            status=entry["status"],
            stdout=_bytes(folder / f"{probe}.out", entry["sha256"]),
            stderr=stderr,
            seconds=entry["seconds"],
            problem=entry["problem"],
            arguments=tuple(tuple(record) for record in entry["arguments"]),
        )
    return HostEvidence(
        host=name,
        outputs=outputs,
        problem=index["problem"],
        privilege=index["privilege"],
        started=index["started"],
        finished=index["finished"],
    )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8", "backslashreplace")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _bytes(path: Path, digest: str | None) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{path}: altered since it was collected (sha256 differs)")
    return data


def _object(path: Path, digest: str | None = None) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(path, digest))
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path}: not a JSON object")
    return value
