"""A live libvirt that answers for fake hosts, without a daemon and without touching anything of this machine's.

`qemu:///embed` keeps all that it has below a folder of its own, its cache of QEMU's capabilities too. There a fake
host is an entry for an emulator that is none. libvirt takes it for its own as long as everything in it that tells of
this machine is as a real probe would leave it: so a real entry is made first, and serves as the form.
"""

import copy
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lxml import etree

from audit.cpu import CpuMap
from audit.cpu.rules import Version
from tests.cpu.fakehosts import FakeHost

LOCAL_MAP = Path("/usr/share/libvirt/cpu_map")


class NoOracle(Exception):
    """This machine has no libvirt that could be asked; the text says why."""


def version_of(connection: Any) -> Version:
    """The release of the libvirt behind a connection."""
    number = connection.getLibVersion()
    return number // 1_000_000, number // 1000 % 1000, number % 1000


class Oracle:
    """One connection to an embedded libvirt; each planted host has an emulator of its own."""

    def __init__(self, libvirt: Any, connection: Any, root: Path) -> None:
        self.libvirt, self.connection = libvirt, connection
        self._root = root
        self.version = version_of(connection)
        self.cpu_map = CpuMap.from_folder(LOCAL_MAP, f"libvirt {'.'.join(map(str, self.version))}")
        try:
            caps = connection.getDomainCapabilities(None, "x86_64", None, None)
            self._form = etree.parse(self._entry(etree.fromstring(caps).findtext("path"))).getroot()
        except (libvirt.libvirtError, OSError) as error:
            raise NoOracle(f"libvirt has no QEMU for x86_64 here: {error}") from error
        # Where KVM cannot be used a probe leaves nothing of it, and libvirt takes no entry that has some.
        self.accelerators = sorted({node.get("type") for node in self._form.findall("hostCPU")} & {"kvm", "tcg"})

    def plant(self, hosts: Iterable[FakeHost]) -> None:
        """Have libvirt answer for these hosts, by their number: `emulator`. Raises NoOracle."""
        for number, host in enumerate(hosts):
            emulator = Path(self.emulator(number))
            emulator.write_text("#!/bin/sh\nexit 1\n")
            emulator.chmod(0o755)
            self._entry(emulator).write_bytes(etree.tostring(self._caps(host, number, emulator)))
        try:
            self.connection.getDomainCapabilities(self.emulator(0), "x86_64", None, self.domain_type(0))
        except self.libvirt.libvirtError as error:  # it looked for itself: so where /dev/kvm is there and does not work
            raise NoOracle(f"libvirt does not go by its cache of QEMU's capabilities here: {error}") from error

    def emulator(self, number: int) -> str:
        """Path that stands for the host."""
        return str(self._root / f"qemu-{number}")

    def accelerator(self, number: int) -> str:
        """`kvm` or `tcg`; where both can be used, hosts take turns."""
        return self.accelerators[number % len(self.accelerators)]

    def domain_type(self, number: int) -> str:
        """libvirt's word for the accelerator."""
        return {"kvm": "kvm", "tcg": "qemu"}[self.accelerator(number)]

    def _entry(self, emulator: str | Path | None) -> Path:
        key = hashlib.sha256(str(emulator).encode()).hexdigest()
        return self._root / "cache/qemu/capabilities" / f"{key}.xml"

    def _caps(self, host: FakeHost, number: int, emulator: Path) -> etree._Element:
        root = copy.deepcopy(self._form)
        root.find("emulator").text = str(emulator)
        root.find("qemuctime").text = str(int(emulator.stat().st_ctime))
        for old in root.findall("cpu") + root.findall("hostCPU"):
            root.remove(old)
        fake = host.caps(self.accelerator(number))
        place = root.index(root.find("arch")) + 1
        root[place:place] = fake.findall("hostCPU") + fake.findall("cpu")
        return root


@contextmanager
def oracle() -> Iterator[Oracle]:
    """Open the embedded libvirt. A process can have one at a time. Raises NoOracle."""
    os.environ.setdefault("LIBVIRT_DEBUG", "error")  # it would tell of each model that it cannot prefer
    try:
        import libvirt
    except ImportError as error:
        raise NoOracle(f"libvirt-python cannot be used: {error}") from error
    if not (LOCAL_MAP / "index.xml").exists():
        raise NoOracle("no libvirt CPU map on this machine")
    libvirt.registerErrorHandler(lambda *_: None, None)
    _run_event_loop(libvirt)
    root = Path(tempfile.mkdtemp(prefix="fake-hosts-"))
    root.chmod(0o755)  # QEMU is probed as a user of its own
    connection = None
    try:
        try:
            connection = libvirt.open(f"qemu:///embed?root={root}")
        except libvirt.libvirtError as error:
            raise NoOracle(f"libvirt's QEMU driver cannot be embedded here: {error}") from error
        yield Oracle(libvirt, connection, root)
    finally:
        if connection is not None:
            connection.close()
        shutil.rmtree(root, ignore_errors=True)


_loop: list[threading.Thread] = []


def _run_event_loop(libvirt: Any) -> None:
    """An embedded driver needs the loop that a daemon would run; there is one a process."""
    if _loop:
        return
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    _loop.append(threading.Thread(target=run, daemon=True))
    _loop[0].start()
