"""What a Mellanox VF needs to move with its guest (RHEL 9 §12.8): the conditions, each about one device.

They are judged twice: as notes about each host that has such a card (`checks.mellanox`), and as what decides for
the guests that have such a VF (`checks.vf`). `side` says whose device it is where two hosts are looked at.
"""

import shlex
from collections.abc import Iterator

from audit.check import Finding, Unavailable
from audit.facts.mellanox import CONNECTX_7, SYSFS, Iommu, Netdev, Pf, Vf
from audit.facts.mellanox_tools import MIGRATION_ENABLED, MIGRATION_MODES, version_key
from audit.facts.openvswitch import OpenVswitch

SECTION = "RHEL 9 §12.8"
VARIANT_DRIVER = "mlx5_vfio_pci"
LONG_IDLE_MS = 300_000


def together(*parts: Iterator[Finding]) -> Iterator[Finding]:
    """All findings of all parts; only then the first thing that is unknown."""
    unknown: Unavailable | None = None
    for part in parts:
        try:
            yield from part
        except Unavailable as reason:
            unknown = unknown or reason
    if unknown:
        raise unknown


def connectx7(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.too_old:
        yield Finding(f"{side}{CONNECTX_7}", f"{pf.model} ({pf.address})", "Older cards cannot migrate a VF.")
    elif not pf.ethernet:
        yield Finding(
            expected=f"{side}{CONNECTX_7} in Ethernet mode",
            actual=f"{pf.address} is in InfiniBand mode",
            because="The VFs of a port in InfiniBand mode cannot migrate.",
            remedy=f"mstconfig -d {pf.address} set LINK_TYPE_P1=2",
        )
    elif pf.model != CONNECTX_7:
        raise Unavailable(SYSFS, f"{pf.address} is a {pf.model}: documented is the {CONNECTX_7} only")


def firmware(side: str, pf: Pf, minimum: str) -> Iterator[Finding]:
    if pf.model != CONNECTX_7:  # other cards count their firmware otherwise
        return
    running, stored = pf.firmware.running, pf.firmware.stored
    if version_key(running) < version_key(minimum):
        newer = stored is not None and version_key(stored) >= version_key(minimum)
        yield Finding(
            expected=f"{side}firmware {minimum} or newer",
            actual=f"{pf.address} runs {running}" + (f", {stored} is stored" if newer else ""),
            because="Older firmware cannot save and load the state of a VF.",
            remedy=f"mstfwreset -d {pf.address} reset" if newer else f"mstflint -d {pf.address} -i FIRMWARE.bin burn",
        )


def migration_mode(side: str, pf: Pf) -> Iterator[Finding]:
    mode = pf.vf_migration
    if not mode.enabled:
        reset = f"mstfwreset -d {pf.address} reset"
        pending = mode.current is not None and mode.next_boot == MIGRATION_ENABLED
        yield Finding(
            expected=f"{side}VF_MIGRATION_MODE {MIGRATION_MODES[MIGRATION_ENABLED]}",
            actual=f"{pf.address}: {mode}",
            because="QEMU refuses to migrate the VF of a card that was not set up for it.",
            remedy=reset if pending else f"mstconfig -d {pf.address} set VF_MIGRATION_MODE=2 && {reset}",
        )


def switchdev(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.eswitch != "switchdev":
        yield Finding(
            expected=f"{side}eswitch mode switchdev",
            actual=f"{pf.address}: {pf.eswitch}",
            because="Only in this mode is a VF made migratable, and does it have a representor to be plugged in.",
            remedy=f"devlink dev eswitch set pci/{pf.address} mode switchdev",
        )


def migratable(side: str, pf: Pf, vf: Vf) -> Iterator[Finding]:
    if pf.eswitch_state == "legacy":  # told by another check; there is no port to set it on
        return
    if not vf.port.migratable:
        nodedev = "pci_" + vf.address.replace(":", "_").replace(".", "_")
        yield Finding(
            expected=f"{side}VF with `migratable enable`",
            actual=f"{vf.address} ({vf.port.name}): migratable disable",
            because="The driver offers migration only for a VF that was made migratable while it was unbound.",
            remedy=f"virsh nodedev-detach {nodedev} --driver pci-stub && "
            f"devlink port function set {vf.port.name} migratable enable",
        )


def link(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.uplink is None:
        yield Finding(f"{side}NIC that is up", f"{pf.address} has no network interface (driver {pf.driver})")
    elif pf.uplink.state in {"unknown", "-"}:
        raise Unavailable(SYSFS, f"{pf.uplink.name} does not tell whether its link is up")
    elif pf.uplink.state != "up":
        yield Finding(
            expected=f"{side}NIC that is up",
            actual=f"{pf.uplink.name} ({pf.address}) is {pf.uplink.state}",
            because="The VF reaches the network through this port.",
            remedy=f"ip link set {shlex.quote(pf.uplink.name)} up",
        )


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


def isolated(side: str, vf: Vf) -> Iterator[Finding]:
    if vf.isolated is False:
        yield Finding(
            expected=f"{side}VF in an IOMMU group of its own",
            actual=f"{vf.address} shares its group with other functions of the card",
            because="Without ACS on the way to it, the VF cannot be given to a guest apart from its neighbours.",
            remedy="Ask the system's vendor about ACS, and turn it on in the firmware's setup.",
        )


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


def settings(side: str, ovs: OpenVswitch) -> Iterator[Finding]:
    if not ovs.installed:  # told by another check
        return
    offload, idle = ovs.database.setting("hw-offload"), ovs.database.setting("max-idle")
    if offload != "true":
        yield Finding(
            expected=f"{side}hw-offload=true",
            actual=f"hw-offload={offload or 'not set'}",
            because="The processor forwards every packet of the VF.",
            remedy="ovs-vsctl set Open_vSwitch . other_config:hw-offload=true && systemctl restart openvswitch",
        )
    if idle is None or not idle.isdecimal() or int(idle) < LONG_IDLE_MS:
        yield Finding(
            expected=f"{side}max-idle={LONG_IDLE_MS} or more",
            actual=f"max-idle={idle or 'not set'}",
            because="Flows of the guest may be dropped while it stands still to be moved.",
            remedy=f"ovs-vsctl set Open_vSwitch . other_config:max-idle={LONG_IDLE_MS}",
        )


def _bridge_of(net: Netdev, ovs: OpenVswitch) -> str | None:
    """The bridge that `net` is plugged into, or the bond or Linux bridge it belongs to."""
    if net.master == "ovs-system":
        known = not isinstance(ovs.database_state, str)
        return (ovs.bridge_of(net.name) if known else None) or net.master
    return net.master or ovs.bridge_of(net.name)


def bridged(side: str, what: str, net: Netdev | None, ovs: OpenVswitch) -> Iterator[Finding]:
    if net is not None and ovs.installed and _bridge_of(net, ovs) is None:
        yield Finding(
            expected=f"{side}{what} in a bridge",
            actual=f"{net.name} is in none",
            because="In switchdev mode nothing but a bridge carries the traffic of a VF.",
            remedy=f"ovs-vsctl add-port BRIDGE {shlex.quote(net.name)}",
        )
