"""The files beside a guest's disks: the emulator, what serial lines lead to, what else its configuration names."""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, Severity, Stage, Target, Told, check, if_known
from audit.facts.firewall import Listening
from audit.facts.guest import GuestIdentity, GuestMachine
from audit.facts.guest_devices import GuestDevices, GuestFiles
from audit.facts.names import OwnAddresses, is_loopback
from audit.facts.paths import Paths
from audit.facts.taken import GuestNumbers
from checks._sockets import collide, is_address


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virQEMUCapsCacheLookup",
    offline=True,
    covers=("failure 28",),
)
def emulator(machine: GuestMachine, guest: GuestIdentity, there: Target[Paths]) -> Iterator[Finding]:
    """The emulator that the guest names exists on the target and can be run there.

    Distributions keep QEMU in different places: /usr/libexec/qemu-kvm, /usr/bin/qemu-system-x86_64.
    """
    if not machine.emulator:
        return
    state = there.at(machine.emulator)
    if state.exists and state.kind == "file" and state.components and not state.components[-1].mode & 0o111:
        yield Finding(
            expected=f"{machine.emulator} executable on the target",
            actual=f"mode {state.components[-1].mode & 0o7777:04o}",
            because=f"QEMU binary {machine.emulator} is not executable",
            remedy=f"On the target: chmod 0755 {shlex.quote(machine.emulator)}",
        )
    if not state.exists:
        yield Finding(
            expected=f"{machine.emulator} on the target",
            actual="not there",
            because=f"Cannot check QEMU binary {machine.emulator}: No such file or directory",
            remedy=f"Install QEMU there; or virsh edit {shlex.quote(guest.name)} and drop <emulator>",
        )


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.START, reference="QEMU chardev/char-file.c")
def serial(devices: GuestDevices, there: Target[Paths]) -> Told:
    """The files, pipes and sockets of serial lines can be opened on the target.

    For a log or a listening socket its folder must exist, for a device, a pipe or a peer's socket the path itself.
    """
    for kind, path in devices.serial_paths:
        state = yield from if_known(there.find(path))
        if state is None or state.exists:
            continue
        folder = path.rpartition("/")[0] or "/"
        if kind in {"dev", "pipe", "connect"}:
            yield Finding(expected=f"{path} on the target", actual="not there", because=f"serial line of type {kind}")
        elif not state.folder_exists:
            yield Finding(
                expected=f"the folder {folder} on the target",
                actual="not there",
                because=f"{path} cannot be made",
                remedy=f"On the target: mkdir -p {shlex.quote(folder)}",
            )


def _on_target(host: str, addresses: OwnAddresses) -> bool:
    """Whether that address, or name, is the target's own. Other names each host resolves for itself."""
    return host == "localhost" or (is_address(host) and (is_loopback(host) or bool(addresses.interface_of(host))))


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.START, reference="QEMU chardev/char-socket.c")
def serial_server(
    numbers: GuestNumbers, there: Target[Listening], addresses: Target[OwnAddresses]
) -> Iterator[Finding]:
    """Where a serial line connects to a TCP server of its own host, the target has one, too.

    QEMU connects at once, and does not start without; unless it was told to try again (`<reconnect enabled='yes'/>`).
    """
    for what, host, port in numbers.servers:
        if not _on_target(host, addresses):
            continue
        served = any(s.port == port and (host == "localhost" or collide(s.address, host)) for s in there.sockets)
        if not served:
            yield Finding(
                expected=f"a server at {host} port {port} on the target",
                actual="nothing listens there",
                because=f"{what}: Failed to connect to '{host}:{port}': Connection refused",
                remedy="Start it on the target, before the migration",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="QEMU chardev/char-socket.c",
    remedy="On the target: nc -vz HOST PORT",
)
def remote_server(numbers: GuestNumbers, addresses: Target[OwnAddresses]) -> Iterator[Finding]:
    """No serial line depends on a TCP server elsewhere.

    QEMU connects at once, and does not start where it cannot. Whether the target reaches that server is not tried.
    """
    for what, host, port in numbers.servers:
        if not _on_target(host, addresses):
            yield Finding(f"the {what} line's server {host} port {port} to be reached from the target", "not tried")


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.START, reference="QEMU: what it opens at its start")
def present(files: GuestFiles, there: Target[Paths]) -> Told:
    """What else the guest's configuration names on its host exists on the target.

    Kernel and initial RAM disk of a direct boot, persistent memory, shared folders, sockets of other processes: QEMU
    does not start without them. Of a socket that QEMU makes itself, the folder must exist.
    """
    for file in files.files:
        state = yield from if_known(there.find(file.path))
        if state is None or state.exists or (file.made and state.folder_exists):
            continue
        wanted = file.path.rpartition("/")[0] if file.made else file.path
        yield Finding(
            expected=f"{wanted} on the target",
            actual="not there",
            because=f"{file.what}: Failed to open '{file.path}': No such file or directory",
            remedy="Provide it on the target under the same path",
        )
