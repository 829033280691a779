"""Whether a guest's Mellanox VFs can move with it (RHEL 9 §12.8).

Guests without such a VF are skipped before anything is asked of their hosts.
"""

from collections.abc import Iterator
from typing import NamedTuple

from audit.check import Blocks, Finding, NotApplicable, Policy, Severity, Source, Stage, Target, check
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.mellanox import CONNECTX_7, Iommu, MellanoxDevices, Pf, Vf
from audit.facts.mellanox_tools import Unread, version_key
from audit.facts.openvswitch import OpenVswitch
from audit.facts.versions import Libvirt, Qemu
from checks import _mellanox as needs
from checks._mellanox import SECTION, VARIANT_DRIVER, together

MOST_VFS = 4
VFIO_QEMU = (8, 1)


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


@check(
    severity=Severity.MEDIUM,
    stage=Stage.ALLOWED,
    reference=SECTION,
    covers=("12.8/preview", "12.8/no-dirty-rate", "12.8/no-postcopy", "failure 66"),
)
def technology_preview(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
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
    covers=("12.8/no-viommu", "failure 66"),
)
def without_viommu(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """A guest with a Mellanox VF has no vIOMMU.

    QEMU says "Migration is currently not supported with vIOMMU enabled".
    """
    vfs = _vfs(nics, devices, source)
    if devices.viommu:
        yield Finding("no <iommu> in the guest", f"vIOMMU beside the VF {vfs[0].address}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference=SECTION,
    covers=("12.3/sr-iov", "12.8/driver", "failure 65"),
)
def driver(
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
def qemu(
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
def count(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """The guest has no more than four VFs of one Mellanox port.

    More than four VFs of one physical function are not to be migrated at the same time.
    """
    vfs = _vfs(nics, devices, source)
    for pf in sorted({vf.pf for vf in vfs}):
        number = sum(vf.pf == pf for vf in vfs)
        if number > MOST_VFS:
            yield Finding(f"{MOST_VFS} VFs of one port at most", f"{number} of {pf}")


@check(
    severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION, covers=("12.8/vf", "12.8/both", "failure 68")
)
def on_target(
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


@check(
    severity=Severity.MEDIUM,
    reference="libvirt: a <hostdev> names its host device by PCI address",
    covers=("12.6/xml", "12.8/attach"),
)
def address(
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


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION, covers=("12.8/cx7", "12.8/both"))
def device(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The guest's Mellanox VF is of a ConnectX-7 in Ethernet mode, on both hosts.

    It is the first card whose VFs can migrate, and the one that the documentation names.
    """
    moves = _moves(nics, devices, source, target)
    yield from together(*(needs.connectx7(side, pf) for side, pf in _both_cards(moves)))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=("12.8/firmware", "12.8/both", "failure 65"),
)
def firmware(
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
    yield from together(*(needs.firmware(side, pf, policy.mellanox_min_firmware) for side, pf in _both_cards(moves)))


@check(severity=Severity.HIGH, stage=Stage.TRANSFER, reference="RHEL 10 §12.6", covers=("12.8/same-firmware",))
def same_firmware(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The cards of the guest's Mellanox VF have the same PSID and the same firmware on both hosts.

    RHEL 10 asks for it; RHEL 9 does not say so. One card loads what another has saved: if it cannot,
    the migration fails, and the guest goes on where it was.
    """
    moves = _moves(nics, devices, source, target)
    yield from together(*(_alike(move.pf, move.to_pf) for move in moves))


def _alike(pf: Pf, to_pf: Pf) -> Iterator[Finding]:
    if version_key(pf.firmware.running) != version_key(to_pf.firmware.running):
        yield Finding(f"firmware {pf.firmware.running}", f"target: {to_pf.address} runs {to_pf.firmware.running}")
    if pf.psid != to_pf.psid:
        yield Finding(f"PSID {pf.psid}", f"target: {to_pf.address} has {to_pf.psid}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=("12.8/migration-mode", "12.8/both", "failure 65"),
)
def migration_mode(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """VF_MIGRATION_MODE is MIGRATION_ENABLED on the cards of the guest's Mellanox VF, on both hosts.

    Without it the card offers no migration of its VFs, and QEMU refuses.
    """
    moves = _moves(nics, devices, source, target)
    yield from together(*(needs.migration_mode(side, pf) for side, pf in _both_cards(moves)))


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION, covers=("12.8/switchdev", "12.8/both"))
def switchdev(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The cards of the guest's Mellanox VF are in switchdev mode, on both hosts.

    The other mode, legacy, knows neither migratable VFs nor representors.
    """
    moves = _moves(nics, devices, source, target)
    yield from together(*(needs.switchdev(side, pf) for side, pf in _both_cards(moves)))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=("12.8/detach", "12.8/migratable", "12.8/both"),
)
def migratable(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The guest's Mellanox VF is made migratable on the source, and so is the one that awaits it.

    A VF offers migration only after `devlink port function set … migratable enable`.
    """
    moves = _moves(nics, devices, source, target)
    yield from together(
        *(needs.migratable("source: ", move.pf, move.vf) for move in moves),
        *(needs.migratable("target: ", move.to_pf, move.to_vf) for move in moves if move.to_vf),
    )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    remedy="dnf install kernel-modules",
    covers=("12.8/driver", "12.8/both", "failure 65"),
)
def driver_on_target(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The target's kernel has the driver mlx5_vfio_pci for the guest's Mellanox VF.

    The guest's state can be loaded only by the driver that saves it.
    """
    _moves(nics, devices, source, target)
    if not target.vfio_module:
        yield Finding(f"target: module {VARIANT_DRIVER}", "the running kernel has no such module")


@check(severity=Severity.MEDIUM, reference="libvirt 10.0.0 release notes", covers=("12.8/driver",))
def driver_chosen(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    libvirt: Target[Libvirt],
) -> Iterator[Finding]:
    """The target's libvirt binds mlx5_vfio_pci to the guest's Mellanox VF by itself.

    It does since 10.0.0. An older one takes vfio-pci, which cannot load the VF's state, unless it is told otherwise.
    """
    asked = {nic.driver for nic in nics.nics} | {device.driver for device in devices.hostdevs}
    moves = _moves(nics, devices, source, target)
    bound = all(move.to_vf is not None and move.to_vf.driver == VARIANT_DRIVER for move in moves)
    if not bound and VARIANT_DRIVER not in asked and libvirt.daemon < (10, 0, 0):
        yield Finding(
            expected="target: libvirt 10.0.0 or newer",
            actual=f"libvirt {libvirt.daemon}, and the VF's XML names no driver",
            remedy="Add <driver model='mlx5_vfio_pci'/> to the VF's XML (libvirt 9.7.0), or upgrade libvirt.",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=("12.8/iommu", "12.8/iommu-on", "12.8/acs", "12.8/both"),
)
def iommu(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    iommu: Target[Iommu],
) -> Iterator[Finding]:
    """The target's IOMMU is on and keeps the VF apart that awaits the guest's.

    Otherwise libvirt cannot hand it to the guest.
    """
    moves = _moves(nics, devices, source, target)
    isolated = (needs.isolated("target: ", move.to_vf) for move in moves if move.to_vf)
    yield from together(needs.iommu("target: ", iommu), *isolated)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference=SECTION,
    covers=("12.8/nic-up", "12.8/openvswitch", "12.8/ovs-running", "12.8/vf-port", "12.8/both"),
)
def network(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    ovs: Target[OpenVswitch],
) -> Iterator[Finding]:
    """The VF that awaits the guest's on the target reaches the network.

    In switchdev mode a VF reaches nobody until its representor is in a bridge and the port is up:
    the guest would arrive and be cut off. libvirt does not see to it.
    """
    moves = _moves(nics, devices, source, target)
    landing = [move.to_vf for move in moves if move.to_vf]
    masters = {vf.representor.master for vf in landing if vf.representor}
    elsewhere = bool(masters) and masters.isdisjoint({None, "ovs-system"})  # bridges of the kernel itself
    yield from together(
        *(needs.link("target: ", pf) for pf in dict.fromkeys(move.to_pf for move in moves)),
        *(() if elsewhere else (needs.openvswitch("target: ", ovs),)),
        *(needs.bridged("target: ", "representor of the VF", vf.representor, ovs) for vf in landing),
    )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference=SECTION,
    covers=("12.8/hw-offload", "12.8/max-idle", "12.8/pf-port", "12.8/both"),
)
def openvswitch_settings(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    ovs: Target[OpenVswitch],
) -> Iterator[Finding]:
    """The target's Open vSwitch is set up as the documentation asks.

    Hardware offload keeps the VF fast, a long idle time keeps its flows during the move, and the port
    belongs into the bridge (or a tunnel leads out of it).
    """
    moves = _moves(nics, devices, source, target)
    uplinks = dict.fromkeys(move.to_pf.uplink for move in moves)
    yield from together(
        needs.settings("target: ", ovs), *(needs.bridged("target: ", "NIC", net, ovs) for net in uplinks)
    )
