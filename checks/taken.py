"""Numbers that a guest keeps when it moves, and that the target may have given away already.

Ports of displays are judged by `devices.graphics_port`.
"""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Stage, Target, check
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestIdentity
from audit.facts.names import OwnAddresses, is_loopback
from audit.facts.taken import GuestNumbers, HostCids
from checks._sockets import collide, is_address


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virVsockSetGuestCid",
)
def vsock_cid(numbers: GuestNumbers, there: Target[HostCids], guest: GuestIdentity) -> Iterator[Finding]:
    """The guest's fixed vsock CID is not taken on the target.

    A CID is a guest's address for its host, and unique there. libvirt chooses one only where it may (`auto='yes'`).
    """
    if numbers.cid is None or not numbers.cid_fixed:
        raise NotApplicable("no fixed vsock CID")
    if holder := there.holder(numbers.cid):
        yield Finding(
            expected=f"CID {numbers.cid} free on the target",
            actual=f"taken by {holder}",
            because="failed to set guest cid: Address already in use",
            remedy=f"virsh edit {shlex.quote(guest.name)}: <cid auto='yes'/>, at the next start; or migrate with --xml "
            "and another CID",
        )
    there.complete()


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU chardev/char-socket.c",
)
def serial_port(
    numbers: GuestNumbers, there: Target[Listening], addresses: Target[OwnAddresses], guest: GuestIdentity
) -> Iterator[Finding]:
    """The TCP ports that the guest's serial lines, or QEMU arguments of its own, listen on can be had on the target.

    The target's QEMU binds address and port at once, and does not start without.
    """
    if not numbers.ports:
        raise NotApplicable("no serial line or argument that listens on a TCP port")
    for what, address, port in numbers.ports:
        taken = _holders(address, [socket for socket in there.sockets if socket.port == port])
        remedy = f"virsh edit {shlex.quote(guest.name)}; or migrate with --xml and another address or port"
        if taken:
            yield Finding(
                expected=f"port {port} free on the target",
                actual=f"something listens on {taken[0].address} port {port}",
                because=f"{what}: Failed to bind socket: Address already in use",
                remedy=remedy,
            )
        elif is_address(address) and not _everywhere(address) and not addresses.interface_of(address):
            yield Finding(
                expected=f"the address {address} on the target",
                actual="not one of its own",
                because=f"{what}: Failed to bind socket: Cannot assign requested address",
                remedy=remedy,
            )


def _holders(address: str, sockets: list[Socket]) -> list[Socket]:
    """Which of the sockets with that port are in the way.

    Where no address is said, QEMU takes both versions of IP, or the one that is left (util/qemu-sockets.c).
    """
    if address != "*":
        return [socket for socket in sockets if collide(socket.address, address)]
    held = {socket.address for socket in sockets}
    return sockets if "*" in held or held >= {"0.0.0.0", "::"} else []  # noqa: S104


def _everywhere(address: str) -> bool:
    return is_loopback(address) or address in {"0.0.0.0", "::"}  # noqa: S104
