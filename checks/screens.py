"""What a guest's screens take of the target besides their address and main port.

Those are judged by `devices.graphics_listen` and `devices.graphics_port`; whether QEMU offers such a screen, by
`offered.graphics_offered`.
"""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Stage, Target, Told, check, if_known
from audit.facts.firewall import Listening
from audit.facts.guest import GuestIdentity
from audit.facts.guest_screens import GuestScreens
from audit.facts.network import LibvirtNetworks
from audit.facts.paths import Paths
from checks._sockets import collide


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.START, reference="QEMU ui/vnc.c")
def websocket_free(screens: GuestScreens, there: Target[Listening], guest: GuestIdentity) -> Iterator[Finding]:
    """The fixed port of the display's websocket is free on the target.

    `autoport='yes'` is about the port of VNC itself; libvirt chooses the websocket's only where it says `-1`.
    """
    if not screens.websockets:
        raise NotApplicable("no websocket of a fixed port")
    for address, port in screens.websockets:
        taken = [s for s in there.sockets if s.port == port and collide(s.address, address or "127.0.0.1")]
        if taken:
            yield Finding(
                expected=f"port {port} free on the target",
                actual=f"something listens on {taken[0].address} port {port}",
                because="vnc: Failed to find an available port: Address already in use",
                remedy=f"virsh edit {shlex.quote(guest.name)}: websocket='-1', at the next start; or migrate with "
                "--xml and another port",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 qemuProcessGraphicsSetupNetworkAddress",
)
def network_there(screens: GuestScreens, there: Target[LibvirtNetworks]) -> Iterator[Finding]:
    """The libvirt network on whose address a display listens is there and active on the target.

    The address is that of the host in that network, and each host's own.
    """
    if not screens.networks:
        raise NotApplicable("no screen listens on a libvirt network")
    for name in screens.networks:
        network = there.find(name)
        if network is None:
            because = f"Network not found: no network with matching name '{name}'"
            yield Finding(f"a libvirt network {name} on the target", "none", because)
        elif not network.active:
            yield Finding(
                expected=f"the libvirt network {name} active on the target",
                actual="inactive",
                because="the address that the display is to listen on is not there",
                remedy=f"On the target: virsh net-start {shlex.quote(name)}; virsh net-autostart {shlex.quote(name)}",
            )


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.START, reference="QEMU ui/vnc.c, ui/egl-helpers.c")
def paths_there(screens: GuestScreens, there: Target[Paths]) -> Told:
    """The folders of displays' sockets, and graphics cards that displays draw with, exist on the target.

    Sockets that libvirt places itself are in folders of its own.
    """
    if not screens.paths:
        raise NotApplicable("no screen names a path")
    for screen in screens.paths:
        state = yield from if_known(there.find(screen.path))
        if state is None or state.exists or (screen.made and state.folder_exists):
            continue
        wanted = screen.path.rpartition("/")[0] if screen.made else screen.path
        failed = "Failed to bind socket to" if screen.made else "Failed to open"
        yield Finding(
            expected=f"{wanted} on the target",
            actual="not there",
            because=f"{screen.what}: {failed} {screen.path}: No such file or directory",
            remedy=f"On the target: mkdir -p {shlex.quote(wanted)}" if screen.made else "",
        )
