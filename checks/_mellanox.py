"""What a Mellanox VF needs to move with its guest (RHEL 9 §12.8): the conditions, each about one device.

They are judged twice: as notes about each host that has such a card (`checks.mellanox`), and as what decides for
the guests that have such a VF (`checks.vf`). `side` says whose device it is where two hosts are looked at.
"""

import functools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec

from audit.check import Finding, Told, Unavailable
from audit.facts.mellanox import CONNECTX_7, SYSFS, Iommu, Netdev, Pf, Vf
from audit.facts.mellanox_tools import MIGRATION_ENABLED, MIGRATION_MODES, version_key
from audit.facts.openvswitch import OpenVswitch

SECTION = "RHEL 9 §12.8"
VARIANT_DRIVER = "mlx5_vfio_pci"
LONG_IDLE_MS = 300_000
NEW_BRIDGE = "br-vf"

P = ParamSpec("P")


def condition(judge: Callable[P, Iterator[Finding]]) -> Callable[P, Told]:
    """What one device does not tell hides nothing that is known of the next: it is told, and the check goes on."""

    @functools.wraps(judge)
    def told(*args: P.args, **kwargs: P.kwargs) -> Told:
        try:
            yield from judge(*args, **kwargs)
        except Unavailable as why:
            yield why

    return told


def nodedev(address: str) -> str:
    """libvirt's name of a PCI device: pci_0000_e1_00_1."""
    return "pci_" + address.replace(":", "_").replace(".", "_")


def plain_mac(mac: str | None) -> str | None:
    """The MAC address, if it looks like one: it is other people's text."""
    return mac if mac and re.fullmatch(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", mac) else None


def address_xml(address: str) -> str:
    """A PCI address (0000:e1:00.1) as libvirt writes it."""
    domain, bus, slot, function = re.split("[:.]", address)
    return f"<address type='pci' domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"


def interface_xml(mac: str | None, address: str) -> str:
    """The `<interface>` that gives the VF at that address to a guest, in one line."""
    own = f"<mac address='{mac}'/>" if mac else ""
    return f"<interface type='hostdev' managed='yes'>{own}<source>{address_xml(address)}</source></interface>"


def hostdev_xml(address: str) -> str:
    """The `<hostdev>` that gives the device at that address to a guest, in one line."""
    return f"<hostdev mode='subsystem' type='pci' managed='yes'><source>{address_xml(address)}</source></hostdev>"


def pooled_xml(mac: str, network: str) -> str:
    """The `<interface>` that gives a VF of a libvirt network's pool to a guest, in one line. Both are plain words."""
    return f"<interface type='network'><mac address='{mac}'/><source network='{network}'/></interface>"


def write_xml(xml: str) -> str:
    """The command that writes such a line (no name of the host's is in it, only addresses) to vf.xml."""
    return f'echo "{xml}" > vf.xml'


def _first_free(pf: Pf) -> str:
    """A comment to what stops the card: who would lose the network."""
    return "  # stops the card's network; first detach its VFs from guests" if pf.vfs else ""


def _reset(pf: Pf) -> str:
    return f"mstfwreset -d {pf.address} reset{_first_free(pf)}"


@condition
def connectx7(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.too_old:
        yield Finding(f"{side}{CONNECTX_7}", f"{pf.model} ({pf.address})", "Older cards cannot migrate a VF.")
    elif not pf.ethernet:
        yield Finding(
            expected=f"{side}{CONNECTX_7} in Ethernet mode",
            actual=f"{pf.address} is in InfiniBand mode",
            because="The VFs of a port in InfiniBand mode cannot migrate.",
            remedy=f"mstconfig -d {pf.address} set LINK_TYPE_P1=2 && {_reset(pf)}",
        )
    elif pf.model != CONNECTX_7:
        raise Unavailable(SYSFS, f"{pf.address} is a {pf.model}: documented is the {CONNECTX_7} only")


@condition
def firmware(side: str, pf: Pf, minimum: str) -> Iterator[Finding]:
    if pf.model != CONNECTX_7:  # other cards count their firmware otherwise
        return
    running, stored = pf.firmware.running, pf.firmware.stored
    if version_key(running) < version_key(minimum):
        newer = stored is not None and version_key(stored) >= version_key(minimum)
        burn = "" if newer else f"mstflint -d {pf.address} -i FIRMWARE.bin burn && "
        yield Finding(
            expected=f"{side}firmware {minimum} or newer",
            actual=f"{pf.address} runs {running}" + (f", {stored} is stored" if newer else ""),
            because="Older firmware cannot save and load the state of a VF.",
            remedy=burn + _reset(pf),
        )


@condition
def migration_mode(side: str, pf: Pf) -> Iterator[Finding]:
    mode = pf.vf_migration
    if not mode.enabled:
        pending = mode.current is not None and mode.next_boot == MIGRATION_ENABLED
        steps = [] if pending else [f"mstconfig -d {pf.address} set VF_MIGRATION_MODE=2"]
        if not mode.supported:
            steps.insert(0, f"mstflint -d {pf.address} -i FIRMWARE.bin burn && mstfwreset -d {pf.address} reset")
        yield Finding(
            expected=f"{side}VF_MIGRATION_MODE {MIGRATION_MODES[MIGRATION_ENABLED]}",
            actual=f"{pf.address}: {mode}",
            because="QEMU refuses to migrate the VF of a card that was not set up for it.",
            remedy=" && ".join([*steps, _reset(pf)]),
        )


@condition
def switchdev(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.eswitch != "switchdev":
        yield Finding(
            expected=f"{side}eswitch mode switchdev",
            actual=f"{pf.address}: {pf.eswitch}",
            because="Only in this mode is a VF made migratable, and does it have a representor to be plugged in.",
            remedy=f"devlink dev eswitch set pci/{pf.address} mode switchdev{_first_free(pf)}",
        )


@condition
def migratable(side: str, pf: Pf, vf: Vf, *, first: str = "", then: str = "") -> Iterator[Finding]:
    """`first` and `then`: what has to be done around it, as where a guest has the VF."""
    if pf.eswitch_state == "legacy":  # told by another check; there is no port to set it on
        return
    if not vf.port.migratable:
        unbind = f"virsh nodedev-detach {nodedev(vf.address)} --driver pci-stub" if vf.driver else ""
        steps = [first, unbind, f"devlink port function set {vf.port.name} migratable enable", then]
        yield Finding(
            expected=f"{side}VF with `migratable enable`",
            actual=f"{vf.address} ({vf.port.name}): migratable disable",
            because="The driver offers migration only for a VF that was made migratable while it was unbound.",
            remedy=" && ".join(filter(None, steps)),
        )


@condition
def link(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.uplink is None:
        yield Finding(
            expected=f"{side}NIC that is up",
            actual=f"{pf.address} has no network interface (driver {pf.driver})",
            because="The VF reaches the network through this port.",
            remedy="" if pf.driver else f"virsh nodedev-reattach {nodedev(pf.address)}",
        )
    else:
        yield from _up(side, "NIC", pf.uplink, pf.address, "The VF reaches the network through this port.")


def _up(side: str, what: str, net: Netdev, whose: str, because: str) -> Iterator[Finding]:
    if net.state in {"unknown", "-"}:
        raise Unavailable(SYSFS, f"{net.name} does not tell whether its link is up")
    if net.state != "up":
        yield Finding(
            expected=f"{side}{what} that is up",
            actual=f"{net.name} ({whose}) is {net.state}",
            because=because,
            remedy=f"ip link set {shlex.quote(net.name)} up",
        )


@condition
def iommu(side: str, iommu: Iommu) -> Iterator[Finding]:
    if not iommu.groups:
        firmware = "announced by the firmware" if iommu.tables else "not announced by the firmware (VT-d, AMD-Vi)"
        intel = "" if "IVRS" in iommu.tables else "intel_iommu=on "
        yield Finding(
            expected=f"{side}IOMMU that is on",
            actual=f"no IOMMU groups; {firmware}; kernel arguments: {' '.join(iommu.arguments) or 'none'}",
            because="Without an IOMMU libvirt gives no PCI device to a guest.",
            remedy=f'grubby --args="{intel}iommu=pt" --update-kernel=ALL && systemctl reboot'
            if iommu.tables
            else "Turn VT-d or AMD-Vi on in the firmware's setup.",
        )


@condition
def isolated(side: str, vf: Vf, iommu: Iommu) -> Iterator[Finding]:
    if vf.isolated is False:
        yield Finding(
            expected=f"{side}VF in an IOMMU group of its own",
            actual=f"{vf.address} shares its group with other functions of the card",
            because="Without ACS on the way to it, the VF cannot be given to a guest apart from its neighbours.",
            remedy="Ask the system's vendor about ACS, and turn it on in the firmware's setup.",
        )
    elif vf.isolated is None and iommu.groups:  # without any, the IOMMU is off, and that is told
        raise Unavailable(SYSFS, f"{vf.address} is in no IOMMU group")


@condition
def openvswitch(side: str, ovs: OpenVswitch) -> Iterator[Finding]:
    if not ovs.installed:
        yield Finding(
            expected=f"{side}openvswitch installed",
            actual="not installed",
            because="In switchdev mode nothing but a bridge carries the traffic of a VF.",
            remedy="dnf install openvswitch && systemctl enable --now openvswitch",
        )
    elif not ovs.running:
        yield Finding(
            expected=f"{side}Open vSwitch running",
            actual="ovs-vswitchd is not running",
            because="In switchdev mode nothing but a bridge carries the traffic of a VF.",
            remedy="systemctl enable --now openvswitch",
        )


@condition
def settings(side: str, ovs: OpenVswitch) -> Iterator[Finding]:
    """That the service was restarted since hw-offload was set is not to be seen: its log says "Flow API Enabled"."""
    if not ovs.installed:  # told by another check
        return
    offload, idle = ovs.database.setting("hw-offload"), ovs.database.setting("max-idle")
    if (offload or "").lower() != "true":
        yield Finding(
            expected=f"{side}hw-offload=true",
            actual=f"hw-offload={offload or 'not set'}",
            because="The processor forwards every packet of the VF. The setting counts from the next restart on.",
            remedy="ovs-vsctl set Open_vSwitch . other_config:hw-offload=true && systemctl restart openvswitch",
        )
    if idle is None or not idle.isdecimal() or int(idle) < LONG_IDLE_MS:
        yield Finding(
            expected=f"{side}max-idle={LONG_IDLE_MS} or more",
            actual=f"max-idle={idle or 'not set'}",
            because="Flows of the guest may be dropped while it stands still to be moved.",
            remedy=f"ovs-vsctl set Open_vSwitch . other_config:max-idle={LONG_IDLE_MS}",
        )


def kernel_bridged(vfs: Iterable[Vf]) -> bool:
    """Their representors are ports of bridges of the kernel itself, so that Open vSwitch is not asked for."""
    masters = {vf.representor.master for vf in vfs if vf.representor}
    return bool(masters) and masters.isdisjoint({None, "ovs-system"})


def _bridge_of(net: Netdev, ovs: OpenVswitch) -> str | None:
    """The bridge that `net` is plugged into, or the bond or Linux bridge it belongs to."""
    if net.master == "ovs-system":
        known = not isinstance(ovs.database_state, str)
        return (ovs.bridge_of(net.name) if known else None) or net.master
    return net.master or ovs.bridge_of(net.name)


def _plug(net: Netdev, ovs: OpenVswitch, beside: Iterable[Netdev | None]) -> str:
    """How to plug `net` into the bridge of one of the others; else into any that there is, else into a new one."""
    bridges = [bridge.name for bridge in ovs.database.bridges]
    others = [bridge for other in beside if other and (bridge := ovs.bridge_of(other.name))]
    bridge = shlex.quote((others or bridges or [NEW_BRIDGE])[0])
    choice = f"  # or another of: {' '.join(map(shlex.quote, bridges))}" if not others and bridges[1:] else ""
    add = "" if bridges else f"ovs-vsctl add-br {bridge} && "
    return f"{add}ovs-vsctl add-port {bridge} {shlex.quote(net.name)}{choice}"


def _bridged(side: str, what: str, net: Netdev, ovs: OpenVswitch, beside: Iterable[Netdev | None]) -> Iterator[Finding]:
    if ovs.installed and _bridge_of(net, ovs) is None:
        none = "" if ovs.database.bridges else "; Open vSwitch has no bridge"
        yield Finding(
            expected=f"{side}{what} in a bridge",
            actual=f"{net.name} is in none{none}",
            because="In switchdev mode nothing but a bridge carries the traffic of a VF.",
            remedy=_plug(net, ovs, beside),
        )


@condition
def uplink(side: str, pf: Pf, ovs: OpenVswitch) -> Iterator[Finding]:
    """An address of the host's own on that NIC has to move to the bridge; the documentation has a NIC without any."""
    if pf.uplink is not None:
        yield from _bridged(side, "NIC", pf.uplink, ovs, [vf.representor for vf in pf.vfs])


@condition
def representor(side: str, pf: Pf, vf: Vf, ovs: OpenVswitch) -> Iterator[Finding]:
    if pf.eswitch_state == "legacy":  # told by another check; there are none
        return
    if vf.representor is None:
        raise Unavailable(SYSFS, f"{vf.address}: its representor is not seen")
    yield from _bridged(side, "representor of the VF", vf.representor, ovs, [pf.uplink])
    because = "A VF has a link only while its representor is up."
    yield from _up(side, "representor of the VF", vf.representor, vf.address, because)
