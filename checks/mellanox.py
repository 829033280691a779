"""Mellanox VFs that move with their guest (RHEL 9 §12.8), and what their hosts need for it.

The same conditions are judged twice: as notes about each host that has such a card, and as what decides for the
guests that have such a VF. A host that is not ready for VFs must not disturb the guests without one.
"""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from audit.check import Blocks, Finding, NotApplicable, Policy, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.mellanox import CONNECTX_7, SYSFS, MellanoxDevices, Netdev, Pf, Vf, VfSurroundings
from audit.facts.mellanox_tools import MIGRATION_ENABLED, MIGRATION_MODES, Unread, version_key
from audit.facts.openvswitch import OpenVswitch
from audit.facts.versions import Qemu

SECTION = "RHEL 9 §12.8"
NVIDIA_FIRMWARE = "28.41.1000"
VARIANT_DRIVER = "mlx5_vfio_pci"
MOST_VFS = 4
LONG_IDLE_MS = 300_000
VFIO_QEMU = (8, 1)

# The conditions, each about one device. `side` says whose it is where two hosts are looked at. ------------------


def _together(*parts: Iterator[Finding]) -> Iterator[Finding]:
    """All findings of all parts; only then the first thing that is unknown."""
    unknown: Unavailable | None = None
    for part in parts:
        try:
            yield from part
        except Unavailable as reason:
            unknown = unknown or reason
    if unknown:
        raise unknown


def _connectx7(side: str, pf: Pf) -> Iterator[Finding]:
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


def _firmware(side: str, pf: Pf, minimum: str) -> Iterator[Finding]:
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


def _migration_mode(side: str, pf: Pf) -> Iterator[Finding]:
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


def _switchdev(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.eswitch != "switchdev":
        yield Finding(
            expected=f"{side}eswitch mode switchdev",
            actual=f"{pf.address}: {pf.eswitch}",
            because="Only in this mode is a VF made migratable, and does it have a representor to be plugged in.",
            remedy=f"devlink dev eswitch set pci/{pf.address} mode switchdev",
        )


def _migratable(side: str, pf: Pf, vf: Vf) -> Iterator[Finding]:
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


def _link(side: str, pf: Pf) -> Iterator[Finding]:
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


def _iommu(side: str, around: VfSurroundings) -> Iterator[Finding]:
    iommu = around.iommu
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


def _isolated(side: str, vf: Vf) -> Iterator[Finding]:
    if vf.isolated is False:
        yield Finding(
            expected=f"{side}VF in an IOMMU group of its own",
            actual=f"{vf.address} shares its group with other functions of the card",
            because="Without ACS on the way to it, the VF cannot be given to a guest apart from its neighbours.",
            remedy="Ask the system's vendor about ACS, and turn it on in the firmware's setup.",
        )


def _openvswitch(side: str, around: VfSurroundings) -> Iterator[Finding]:
    ovs = around.openvswitch
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


def _settings(side: str, around: VfSurroundings) -> Iterator[Finding]:
    ovs = around.openvswitch
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


def _bridged(side: str, what: str, net: Netdev | None, around: VfSurroundings) -> Iterator[Finding]:
    ovs = around.openvswitch
    if net is not None and ovs.installed and _bridge_of(net, ovs) is None:
        yield Finding(
            expected=f"{side}{what} in a bridge",
            actual=f"{net.name} is in none",
            because="In switchdev mode nothing but a bridge carries the traffic of a VF.",
            remedy=f"ovs-vsctl add-port BRIDGE {shlex.quote(net.name)}",
        )


# Hosts that have a ConnectX-7: notes. ---------------------------------------------------------------------------


def _cards(devices: MellanoxDevices) -> list[Pf]:
    cards = [pf for pf in devices.pfs if pf.model == CONNECTX_7]
    if not cards:
        raise NotApplicable(f"no {CONNECTX_7}")
    return cards


def _cards_with_vfs(devices: MellanoxDevices) -> list[Pf]:
    cards = [pf for pf in _cards(devices) if pf.vfs]
    if not cards:
        raise NotApplicable(f"no {CONNECTX_7} with VFs")
    return cards


@check(severity=Severity.LOW, reference=SECTION)
def connectx7(devices: MellanoxDevices) -> Iterator[Finding]:
    """VFs of Mellanox devices belong to a ConnectX-7 in Ethernet mode.

    Only the VFs of this card can be migrated with the guest that has them. A VF itself does not show
    which card it is of, so it is judged by its physical function.
    """
    with_vfs = [pf for pf in devices.pfs if pf.vfs]
    if not with_vfs:
        raise NotApplicable("no Mellanox device with VFs")
    yield from _together(*(_connectx7("", pf) for pf in with_vfs))


@check(severity=Severity.LOW, reference=SECTION)
def firmware(devices: MellanoxDevices, policy: Policy) -> Iterator[Finding]:
    """The firmware of the ConnectX-7 is new enough to migrate VFs.

    Saving and loading the state of a VF is done by the card. Guests without a VF are not concerned.
    """
    yield from _together(*(_firmware("", pf, policy.mellanox_min_firmware) for pf in _cards(devices)))


@check(severity=Severity.INFO, reference="NVIDIA, SR-IOV live migration")
def recommended_firmware(devices: MellanoxDevices, policy: Policy) -> Iterator[Finding]:
    """The firmware of the ConnectX-7 is what NVIDIA asks for.

    Red Hat's minimum is older than NVIDIA's own: between the two, migration may work but is not what NVIDIA tests.
    """
    for pf in _cards(devices):
        key = version_key(pf.firmware.running)
        if version_key(policy.mellanox_min_firmware) <= key < version_key(NVIDIA_FIRMWARE):
            yield Finding(f"firmware {NVIDIA_FIRMWARE} or newer", f"{pf.address} runs {pf.firmware.running}")


@check(severity=Severity.LOW, reference=SECTION)
def firmware_active(devices: MellanoxDevices) -> Iterator[Finding]:
    """The ConnectX-7 runs the firmware that is stored in it.

    Otherwise the next reset changes the version, and what was judged today no longer holds.
    """
    for pf in _cards(devices):
        running, stored = pf.firmware.running, pf.firmware.stored
        if stored is not None and version_key(stored) != version_key(running):
            yield Finding(
                expected=f"{stored} running, as stored",
                actual=f"{pf.address} runs {running}",
                remedy=f"mstfwreset -d {pf.address} reset",
            )


@check(severity=Severity.LOW, reference=SECTION)
def migration_mode(devices: MellanoxDevices) -> Iterator[Finding]:
    """VF_MIGRATION_MODE of the ConnectX-7 is MIGRATION_ENABLED.

    It is set in the card's own memory and takes effect with its next reset.
    """
    yield from _together(*(_migration_mode("", pf) for pf in _cards(devices)))


@check(severity=Severity.LOW, reference=SECTION)
def migration_mode_stays(devices: MellanoxDevices) -> Iterator[Finding]:
    """VF_MIGRATION_MODE of the ConnectX-7 stays MIGRATION_ENABLED after the next reset.

    A changed setting waits for the card's reset: what works today fails after the next reboot.
    """
    for pf in _cards(devices):
        mode = pf.vf_migration
        if mode.current == MIGRATION_ENABLED and mode.next_boot != MIGRATION_ENABLED:
            yield Finding(
                expected=f"{MIGRATION_MODES[MIGRATION_ENABLED]} at the next boot",
                actual=f"{pf.address}: {mode}",
                remedy=f"mstconfig -d {pf.address} set VF_MIGRATION_MODE=2",
            )


@check(severity=Severity.LOW, reference=SECTION, remedy="dnf install mstflint")
def mstflint(devices: MellanoxDevices) -> Iterator[Finding]:
    """The package mstflint is installed where there is a ConnectX-7.

    It brings mstconfig, which alone shows and sets VF_MIGRATION_MODE.
    """
    _cards(devices)
    if not devices.mstflint:
        yield Finding("mstconfig in the path", "not found")


@check(severity=Severity.LOW, reference=SECTION, remedy="dnf install kernel-modules")
def variant_driver(devices: MellanoxDevices) -> Iterator[Finding]:
    """The kernel has the driver mlx5_vfio_pci where there is a ConnectX-7.

    The ordinary vfio-pci hands a VF to a guest, but cannot take its state along.
    """
    _cards(devices)
    if not devices.vfio_module:
        yield Finding(f"module {VARIANT_DRIVER}", "the running kernel has no such module")


@check(severity=Severity.LOW, reference=SECTION)
def switchdev(devices: MellanoxDevices) -> Iterator[Finding]:
    """A ConnectX-7 with VFs is in switchdev mode.

    Guests without a VF are not concerned.
    """
    yield from _together(*(_switchdev("", pf) for pf in _cards_with_vfs(devices)))


@check(severity=Severity.LOW, reference=SECTION)
def migratable(devices: MellanoxDevices) -> Iterator[Finding]:
    """The VFs of a ConnectX-7 are made migratable.

    It is set per VF, while no driver holds it, and is lost when the VFs are made anew.
    """
    yield from _together(*(_migratable("", pf, vf) for pf in _cards_with_vfs(devices) for vf in pf.vfs))


@check(severity=Severity.LOW, reference=SECTION)
def link(devices: MellanoxDevices) -> Iterator[Finding]:
    """A ConnectX-7 with VFs has its link up.

    The VFs reach the network through it.
    """
    yield from _together(*(_link("", pf) for pf in _cards_with_vfs(devices)))


@check(severity=Severity.LOW, reference=SECTION)
def iommu(devices: MellanoxDevices, around: VfSurroundings) -> Iterator[Finding]:
    """The IOMMU is on where there is a ConnectX-7, and keeps its VFs apart.

    It lets a guest drive a VF without reaching the host's memory; ACS keeps VFs from reaching each other.
    """
    cards = _cards(devices)
    yield from _together(_iommu("", around), *(_isolated("", vf) for pf in cards for vf in pf.vfs))


@check(severity=Severity.LOW, reference=SECTION)
def openvswitch(devices: MellanoxDevices, around: VfSurroundings) -> Iterator[Finding]:
    """Open vSwitch is installed, running and set up where a ConnectX-7 has VFs.

    In switchdev mode nothing but a bridge carries their traffic.
    """
    cards = _cards_with_vfs(devices)
    yield from _together(
        _openvswitch("", around),
        _settings("", around),
        *(_bridged("", "NIC", pf.uplink, around) for pf in cards),
        *(_bridged("", "representor of the VF", vf.representor, around) for pf in cards for vf in pf.vfs),
    )


# Guests that have such a VF. ------------------------------------------------------------------------------------


def _addresses(nics: GuestNics, devices: GuestDevices) -> list[str]:
    """Host PCI devices that stay with the guest; libvirt unplugs the transient one of a team before it migrates."""
    taken = [nic.pci_address for nic in nics.nics if nic.type == "hostdev" and nic.teaming != "transient"]
    taken += [dev.address for dev in devices.hostdevs if dev.type == "pci" and dev.teaming != "transient"]
    return [address for address in taken if address is not None]


def _vfs(nics: GuestNics, devices: GuestDevices, source: MellanoxDevices) -> list[Vf]:
    """The guest's Mellanox VFs. Guests without a PCI device are skipped before the host is looked at."""
    vfs = [vf for address in _addresses(nics, devices) if (vf := source.vf(address))]
    if not vfs:
        raise NotApplicable("no Mellanox VF attached")
    return vfs


class Move(NamedTuple):
    """One VF of the guest, and what awaits it on the target."""

    vf: Vf
    pf: Pf
    to_pf: Pf
    to_vf: Vf | None


def _moves(nics: GuestNics, devices: GuestDevices, source: MellanoxDevices, target: MellanoxDevices) -> list[Move]:
    """Where each VF would land: on the VF of the same address if that is free, else on the readiest."""
    moves: list[Move] = []
    for vf in _vfs(nics, devices, source):
        pf = source.pf(vf)
        gone = {move.to_vf.address for move in moves if move.to_vf}
        free = [(p, v) for p in target.pfs for v in p.vfs if v.address not in gone and v.held_state is not True]
        if free:
            moves.append(Move(vf, pf, *min(free, key=lambda to: _distance(vf, pf, *to))))
        elif target.pfs:
            moves.append(Move(vf, pf, min(target.pfs, key=lambda p: (p.model != pf.model, p.address)), None))
    if not moves:
        raise NotApplicable("the target has no Mellanox device")
    return moves


def _distance(vf: Vf, pf: Pf, to_pf: Pf, to_vf: Vf) -> tuple[bool | str, ...]:
    ready = to_pf.eswitch_state == "switchdev" and not isinstance(to_vf.port_state, Unread) and to_vf.port.migratable
    alike = to_pf.model == pf.model and to_pf.ethernet
    return (to_vf.address != vf.address, not alike, not ready, to_vf.address)


def _both_cards(moves: list[Move]) -> list[tuple[str, Pf]]:
    """The physical functions on both sides, each once."""
    return list(dict.fromkeys([*(("source: ", m.pf) for m in moves), *(("target: ", m.to_pf) for m in moves)]))


@check(severity=Severity.MEDIUM, stage=Stage.ALLOWED, reference=SECTION)
def vf_technology_preview(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """The guest does not rely on a Technology Preview to migrate.

    Migration with a Mellanox VF is a Technology Preview in RHEL 9: it may work, but Red Hat does not support it.
    It excludes post-copy and the calculation of the dirty page rate.
    """
    vfs = _vfs(nics, devices, source)
    yield Finding(
        expected="no VF, or an accepted risk",
        actual=f"Mellanox VF {', '.join(vf.address for vf in vfs)}",
        because="Somebody has to accept that this migration is not supported, and migrate without --postcopy.",
    )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference=SECTION,
    remedy="Remove the <iommu> element with virsh edit, and restart the guest.",
)
def vf_without_viommu(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """A guest with a Mellanox VF has no vIOMMU.

    QEMU says "Migration is currently not supported with vIOMMU enabled".
    """
    vfs = _vfs(nics, devices, source)
    if devices.viommu:
        yield Finding("no <iommu> in the guest", f"vIOMMU beside the VF {vfs[0].address}")


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.ALLOWED, reference=SECTION)
def vf_driver(
    state: GuestState, nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]
) -> Iterator[Finding]:
    """The guest's Mellanox VF is driven by mlx5_vfio_pci.

    The ordinary vfio-pci cannot take the VF's state along; QEMU says "VFIO migration is not supported in kernel".
    """
    if not state.active:
        raise NotApplicable("shut off: the driver is chosen when it starts")
    for vf in _vfs(nics, devices, source):
        if vf.driver != VARIANT_DRIVER:
            yield Finding(
                expected=VARIANT_DRIVER,
                actual=f"{vf.address}: {vf.driver or 'no driver'}",
                because="The driver is chosen when the VF is attached: libvirt 10.0.0 or newer chooses it by itself.",
                remedy="Detach the VF, add <driver model='mlx5_vfio_pci'/> to its XML if libvirt is older, attach it.",
            )


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.ALLOWED, reference="QEMU 8.1 release notes: VFIO")
def vf_qemu(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    here: Source[Qemu],
    there: Target[Qemu],
) -> Iterator[Finding]:
    """QEMU is 8.1 or newer on both hosts of a guest with a Mellanox VF.

    Older ones know the migration of VFIO devices as an experiment only, switched off, and refuse.
    """
    _vfs(nics, devices, source)
    for side, qemu in (("source", here), ("target", there)):
        if qemu.version is not None and qemu.version < VFIO_QEMU:
            yield Finding(f"{side}: QEMU 8.1 or newer", f"QEMU {qemu.version}", remedy="dnf upgrade qemu-kvm")


@check(severity=Severity.MEDIUM, stage=Stage.ALLOWED, reference="RHEL 10 §12.6")
def vf_count(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """The guest has no more than four VFs of one Mellanox port.

    More than four VFs of one physical function are not to be migrated at the same time.
    """
    vfs = _vfs(nics, devices, source)
    for pf in sorted({vf.pf for vf in vfs}):
        number = sum(vf.pf == pf for vf in vfs)
        if number > MOST_VFS:
            yield Finding(f"{MOST_VFS} VFs of one port at most", f"{number} of {pf}")


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_on_target(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The target has a free Mellanox VF for each of the guest's.

    libvirt does not make VFs: they must be there before the guest comes, and no running guest may have them.
    """
    vfs = _vfs(nics, devices, source)
    there = [vf for pf in target.pfs for vf in pf.vfs]
    if len(there) < len(vfs):
        card = next((pf for pf in target.pfs if pf.model == CONNECTX_7), None)
        yield Finding(
            expected=f"Mellanox VFs on the target: {len(vfs)}",
            actual=f"{len(there)}" if target.pfs else "no Mellanox device",
            remedy=f"echo {len(vfs)} > /sys/bus/pci/devices/{card.address}/sriov_numvfs" if card and not there else "",
        )
    elif (free := sum(not vf.held for vf in there)) < len(vfs):
        yield Finding(f"free Mellanox VFs on the target: {len(vfs)}", f"{free} of {len(there)}")


@check(severity=Severity.MEDIUM, reference="libvirt: a <hostdev> names its host device by PCI address")
def vf_address(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The guest's Mellanox VF has the same PCI address on the target.

    The guest's XML names the VF by its address on the host, and the target looks for that address.
    A VF that comes from the pool of a libvirt network is chosen by the target itself.
    """
    pooled = {nic.pci_address for nic in nics.nics if nic.network}
    for move in _moves(nics, devices, source, target):
        if move.to_vf and move.to_vf.address != move.vf.address and move.vf.address not in pooled:
            yield Finding(
                expected=f"VF at {move.vf.address}",
                actual=f"VF at {move.to_vf.address}",
                because="The target's address has to be put into the XML that the guest is migrated with.",
                remedy="virsh dumpxml --migratable GUEST > to.xml; edit the address; virsh migrate --xml to.xml …",
            )


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_device(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The guest's Mellanox VF is of a ConnectX-7 in Ethernet mode, on both hosts.

    It is the first card whose VFs can migrate, and the one that the documentation names.
    """
    moves = _moves(nics, devices, source, target)
    yield from _together(*(_connectx7(side, pf) for side, pf in _both_cards(moves)))


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_firmware(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    policy: Policy,
) -> Iterator[Finding]:
    """The cards of the guest's Mellanox VF have firmware that migrates VFs, on both hosts.

    The card itself saves and loads the VF's state; firmware older than the minimum cannot.
    """
    moves = _moves(nics, devices, source, target)
    yield from _together(*(_firmware(side, pf, policy.mellanox_min_firmware) for side, pf in _both_cards(moves)))


@check(severity=Severity.HIGH, stage=Stage.TRANSFER, reference="RHEL 10 §12.6")
def vf_same_firmware(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The cards of the guest's Mellanox VF have the same PSID and the same firmware on both hosts.

    RHEL 10 asks for it; RHEL 9 does not say so. One card loads what another has saved: if it cannot,
    the migration fails, and the guest goes on where it was.
    """
    moves = _moves(nics, devices, source, target)
    yield from _together(*(_alike(move.pf, move.to_pf) for move in moves))


def _alike(pf: Pf, to_pf: Pf) -> Iterator[Finding]:
    if version_key(pf.firmware.running) != version_key(to_pf.firmware.running):
        yield Finding(f"firmware {pf.firmware.running}", f"target: {to_pf.address} runs {to_pf.firmware.running}")
    if pf.psid != to_pf.psid:
        yield Finding(f"PSID {pf.psid}", f"target: {to_pf.address} has {to_pf.psid}")


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_migration_mode(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """VF_MIGRATION_MODE is MIGRATION_ENABLED on the cards of the guest's Mellanox VF, on both hosts.

    Without it the card offers no migration of its VFs, and QEMU refuses.
    """
    moves = _moves(nics, devices, source, target)
    yield from _together(*(_migration_mode(side, pf) for side, pf in _both_cards(moves)))


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_switchdev(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The cards of the guest's Mellanox VF are in switchdev mode, on both hosts.

    The other mode, legacy, knows neither migratable VFs nor representors.
    """
    moves = _moves(nics, devices, source, target)
    yield from _together(*(_switchdev(side, pf) for side, pf in _both_cards(moves)))


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_migratable(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The guest's Mellanox VF is made migratable on the source, and so is the one that awaits it.

    A VF offers migration only after `devlink port function set … migratable enable`.
    """
    moves = _moves(nics, devices, source, target)
    yield from _together(
        *(_migratable("source: ", move.pf, move.vf) for move in moves),
        *(_migratable("target: ", move.to_pf, move.to_vf) for move in moves if move.to_vf),
    )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    remedy="dnf install kernel-modules",
)
def vf_driver_on_target(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The target's kernel has the driver mlx5_vfio_pci for the guest's Mellanox VF.

    The guest's state can be loaded only by the driver that saves it.
    """
    _moves(nics, devices, source, target)
    if not target.vfio_module:
        yield Finding(f"target: module {VARIANT_DRIVER}", "the running kernel has no such module")


@check(severity=Severity.MEDIUM, reference="libvirt 10.0.0 release notes")
def vf_driver_chosen(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    around: Target[VfSurroundings],
) -> Iterator[Finding]:
    """The target's libvirt binds mlx5_vfio_pci to the guest's Mellanox VF by itself.

    It does since 10.0.0. An older one takes vfio-pci, which cannot load the VF's state, unless it is told otherwise.
    """
    asked = {nic.driver for nic in nics.nics} | {device.driver for device in devices.hostdevs}
    moves = _moves(nics, devices, source, target)
    bound = all(move.to_vf is not None and move.to_vf.driver == VARIANT_DRIVER for move in moves)
    if not bound and VARIANT_DRIVER not in asked and around.libvirt.daemon < (10, 0, 0):
        yield Finding(
            expected="target: libvirt 10.0.0 or newer",
            actual=f"libvirt {around.libvirt.daemon}, and the VF's XML names no driver",
            remedy="Add <driver model='mlx5_vfio_pci'/> to the VF's XML (libvirt 9.7.0), or upgrade libvirt.",
        )


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION)
def vf_iommu(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    around: Target[VfSurroundings],
) -> Iterator[Finding]:
    """The target's IOMMU is on and keeps the VF apart that awaits the guest's.

    Otherwise libvirt cannot hand it to the guest.
    """
    moves = _moves(nics, devices, source, target)
    isolated = (_isolated("target: ", move.to_vf) for move in moves if move.to_vf)
    yield from _together(_iommu("target: ", around), *isolated)


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, stage=Stage.AFTER, reference=SECTION)
def vf_network(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    around: Target[VfSurroundings],
) -> Iterator[Finding]:
    """The VF that awaits the guest's on the target reaches the network.

    In switchdev mode a VF reaches nobody until its representor is in a bridge and the port is up:
    the guest would arrive and be cut off. libvirt does not see to it.
    """
    moves = _moves(nics, devices, source, target)
    landing = [move.to_vf for move in moves if move.to_vf]
    masters = {vf.representor.master for vf in landing if vf.representor}
    elsewhere = bool(masters) and masters.isdisjoint({None, "ovs-system"})  # bridges of the kernel itself
    yield from _together(
        *(_link("target: ", pf) for pf in dict.fromkeys(move.to_pf for move in moves)),
        *(() if elsewhere else (_openvswitch("target: ", around),)),
        *(_bridged("target: ", "representor of the VF", vf.representor, around) for vf in landing),
    )


@check(severity=Severity.MEDIUM, stage=Stage.AFTER, reference=SECTION)
def vf_openvswitch_settings(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    around: Target[VfSurroundings],
) -> Iterator[Finding]:
    """The target's Open vSwitch is set up as the documentation asks.

    Hardware offload keeps the VF fast, a long idle time keeps its flows during the move, and the port
    belongs into the bridge (or a tunnel leads out of it).
    """
    moves = _moves(nics, devices, source, target)
    uplinks = dict.fromkeys(move.to_pf.uplink for move in moves)
    yield from _together(_settings("target: ", around), *(_bridged("target: ", "NIC", net, around) for net in uplinks))
