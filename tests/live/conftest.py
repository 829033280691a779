"""A real libvirtd on this machine with a few guests under software emulation, and what they are known to be."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

URI = "qemu:///system"
PREFIX = "vpf-test-"
DISKS = Path("/var/lib/libvirt/images")

GUEST = """
<domain type='{virttype}'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <features><acpi/></features>
  {cpu}
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}' cache='none'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class LiveGuest(NamedTuple):
    """A guest that the fixture made."""

    name: str
    uuid: str
    running: bool
    disk: Path


def virsh(*arguments: str, stdin: str = "") -> str:
    """virsh's standard output; raises when it fails."""
    done = subprocess.run(
        ["virsh", "-q", "-c", URI, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"virsh {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def answers() -> bool:
    """Whether a libvirtd answers."""
    return (
        subprocess.run(["virsh", "-r", "-c", URI, "uri"], capture_output=True, timeout=60, check=False).returncode == 0
    )


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[str]:
    """A libvirtd that answers on qemu:///system: the machine's own, or one started for the tests."""
    if os.geteuid() != 0:
        pytest.skip("needs root to run a libvirtd")
    if not shutil.which("virsh") or not shutil.which("qemu-system-x86_64"):
        pytest.skip("needs virsh and qemu-system-x86_64")
    started: list[subprocess.Popen[bytes]] = []
    if not answers():
        if not shutil.which("libvirtd"):
            pytest.skip("no libvirtd runs here, and none can be started")
        _open_kvm()
        for daemon in ("virtlogd", "libvirtd"):
            started.append(
                subprocess.Popen(
                    [daemon], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
                )
            )
        for _ in range(100):
            if answers():
                break
            time.sleep(0.2)
        else:
            pytest.fail("the libvirtd that was started does not answer")
    yield URI
    for process in reversed(started):
        process.terminate()
        process.wait(20)


def _open_kvm() -> None:
    """Do what udev does at boot: QEMU's user may open /dev/kvm. Otherwise libvirt probes QEMU anew at each call."""
    kvm = Path("/dev/kvm")
    if kvm.exists() and not kvm.stat().st_mode & 0o066:
        kvm.chmod(0o666)


@pytest.fixture(scope="session")
def live_guests(libvirtd: str) -> Iterator[dict[str, LiveGuest]]:
    """A running guest, one with a snapshot, and a shut-off one whose name is markup."""
    made: dict[str, LiveGuest] = {}
    try:
        made["runs"] = _define("runs", running=True)
        made["snapped"] = _define("snapped", running=True, fmt="qcow2", machine="pc")
        # Never started, so that it may be of the kind that baselines here are for.
        made["hostile"] = _define("<img src=x onerror=alert(1)> & 'quoted'", running=False, virttype=_usual_virttype())
        for guest in made.values():
            if guest.running:
                virsh("start", guest.uuid)
        virsh("snapshot-create-as", made["snapped"].uuid, "before-upgrade")
        yield made
    finally:
        for guest in made.values():
            _remove(guest)


# A boot sector that opens the high memory to 16-bit code, then for ever counts up one word in each page of 32 MiB.
_WRITER = bytes.fromhex(
    "fae4920c02e69231c08ed8660f0116527c0f20c00c010f22c0bb08008ec324fe0f22c0"  # A20, GDT, "unreal" mode
    "664266bf0000400026676689176681c7001000006681ff0000400272ebebe1"  # the loop
    "0000000000000000ffff00000092cf000f00427c"  # the GDT
)


@pytest.fixture(scope="module")  # it keeps a processor busy: gone as soon as nobody looks at it
def writing_guest(libvirtd: str) -> Iterator[LiveGuest]:
    """A running guest that changes its memory all the time, as fast as the emulation lets it."""
    guest = _define("writes", running=True)
    try:
        with guest.disk.open("r+b") as disk:
            disk.write(_WRITER.ljust(510, b"\0") + b"\x55\xaa")
        virsh("start", guest.uuid)
        time.sleep(5)  # its firmware first
        yield guest
    finally:
        _remove(guest)


def _usual_virttype() -> str:
    command = ["virsh", "-q", "-c", URI, "domcapabilities", "--virttype", "kvm", "--machine", "q35"]
    return "qemu" if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode else "kvm"


def _define(
    name: str,
    *,
    running: bool,
    fmt: str = "raw",
    machine: str = "q35",
    cpu: str = "<cpu mode='host-model'/>",
    virttype: str = "qemu",
) -> LiveGuest:
    full = PREFIX + name
    disk = DISKS / f"{PREFIX}{abs(hash(name))}.{fmt}"
    disk.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, str(disk), "16M"], check=True, timeout=60)
    escaped = full.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    xml = GUEST.format(name=escaped, machine=machine, cpu=cpu, disk=disk, format=fmt, virttype=virttype)
    virsh("define", "/dev/stdin", stdin=xml)
    return LiveGuest(full, virsh("domuuid", full).strip(), running, disk)


def _remove(guest: LiveGuest) -> None:
    for command in (["destroy", guest.uuid], ["undefine", guest.uuid, "--snapshots-metadata", "--nvram"]):
        subprocess.run(["virsh", "-q", "-c", URI, *command], capture_output=True, timeout=60, check=False)
    guest.disk.unlink(missing_ok=True)
