"""Whether a guest's Mellanox VFs can move with it (RHEL 9 §12.8).

Guests without such a VF are skipped before anything is asked of their hosts.
"""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Policy, Severity, Source, Stage, Target, Told, check
from audit.facts.guest import GuestIdentity, GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics, KeptDevices
from audit.facts.mellanox import CONNECTX_7, Iommu, MellanoxDevices, Pf
from audit.facts.mellanox_tools import version_key
from audit.facts.openvswitch import OpenVswitch
from audit.facts.versions import Libvirt, Qemu
from checks import _mellanox as needs
from checks._hostdev import behind_viommu, qemu_migrates_vfio
from checks._mellanox import SECTION, VARIANT_DRIVER, nodedev
from checks._vf import both_cards, given_of, moves_of, take_and_give, vfs_of

MOST_VFS = 4


@check(
    severity=Severity.MEDIUM,
    stage=Stage.ALLOWED,
    reference=SECTION,
    covers=("12.8/preview", "12.8/verify", "12.8/no-dirty-rate", "12.8/no-postcopy", "failure 66"),
)
def technology_preview(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], guest: GuestIdentity
) -> Iterator[Finding]:
    """The guest does not rely on a Technology Preview to migrate.

    Migration with a Mellanox VF is a Technology Preview in RHEL 9: it may work, but Red Hat does not support it.
    Afterwards it is to be verified inside the guest that the VF carries its traffic.
    """
    vfs = vfs_of(nics, devices, source)
    macs = [given.mac for address, given in given_of(nics, devices).items() if given.mac and source.vf(address)]
    which = f" | grep -i {' '.join(f'-e {mac}' for mac in macs)}" if macs else ""
    yield Finding(
        expected="no VF, or an accepted risk",
        actual=f"Mellanox VF {', '.join(vf.address for vf in vfs)}",
        because="Somebody has to accept that this migration is not supported, and migrate without --postcopy.",
        remedy=f"virsh migrate --live --domain {shlex.quote(guest.name)} --desturi qemu+ssh://TARGET/system\n"
        "# and then, in the guest: is the VF's interface there, and does it carry traffic?\n"
        f"ip -br link{which}\n"
        "ping -c 3 -I INTERFACE 8.8.8.8",
    )


@check(
    severity=Severity.LOW,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.8; QEMU: VFIO migration is not supported with postcopy migration",
    covers=("12.8/no-postcopy", "12.8/no-dirty-rate", "failure 66"),
)
def limits(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """The guest may be migrated by post-copy, and the rate at which it changes its memory be calculated.

    Both help with a migration that does not end, and a Mellanox VF rules both out: what it writes passes KVM by. A
    guest that changes more than the network carries has to be slowed down.
    """
    vfs = vfs_of(nics, devices, source)
    yield Finding(
        expected="post-copy and virsh domdirtyrate-calc, should they be wanted",
        actual=f"neither, with the Mellanox VF {vfs[0].address}",
        because="QEMU refuses post-copy, and what the VF writes is not in the calculated rate.",
        remedy="Migrate without --postcopy, at a time of little load; --auto-converge slows the guest down.",
    )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference=SECTION,
    remedy="Remove the <iommu> element with virsh edit, and restart the guest.",
    covers=("12.8/no-viommu", "failure 66"),
)
def without_viommu(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], here: Source[Qemu]) -> Told:
    """A guest with a Mellanox VF has no vIOMMU.

    QEMU says "Migration is currently not supported with vIOMMU enabled". Newer ones can in some cases.
    """
    vfs = vfs_of(nics, devices, source)
    if devices.viommu:
        yield behind_viommu(here, f"the VF {vfs[0].address}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference=SECTION,
    covers=("12.8/driver", "failure 65", "12.3/sr-iov"),
)
def driver(
    state: GuestState, nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], guest: GuestIdentity
) -> Iterator[Finding]:
    """The guest's Mellanox VF is driven by mlx5_vfio_pci.

    The ordinary vfio-pci cannot take the VF's state along; QEMU says "VFIO migration is not supported in kernel".
    """
    if not state.active:
        raise NotApplicable("shut off: the driver is chosen when it starts")
    given = given_of(nics, devices)
    for vf in vfs_of(nics, devices, source):
        if vf.driver != VARIANT_DRIVER:
            yield Finding(
                expected=VARIANT_DRIVER,
                actual=f"{vf.address}: {vf.driver or 'no driver'}",
                because="The driver is chosen when the VF is attached: libvirt 10.0.0 or newer chooses it by itself.",
                remedy=" && ".join(take_and_give(guest, given[vf.address])),
            )


@check(severity=Severity.MEDIUM, stage=Stage.AFTER, reference=SECTION, covers=("12.8/mac",))
def mac(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """The guest's Mellanox VF is given to it as an interface, with a MAC address of its own.

    libvirt gives the target's VF the MAC address that the `<interface>` states. Of a plain `<hostdev>` it knows none:
    the guest might go on with another address, and be cut off. (No two guests may have the same; see the guests'.)
    """
    vfs = vfs_of(nics, devices, source)
    given = given_of(nics, devices)
    for vf in vfs:
        if not given[vf.address].mac:
            yield Finding(
                expected="<interface type='hostdev'> with a <mac>",
                actual=f"{vf.address} is given " + ("without one" if given[vf.address].interface else "as <hostdev>"),
                remedy="Detach the VF, and attach it again with virsh attach-device --live --config as: "
                + needs.interface_xml("52:54:00:xx:xx:xx", vf.address),
            )


@check(severity=Severity.LOW, stage=Stage.AFTER, reference=SECTION, covers=("12.8/attach",))
def kept(
    state: GuestState,
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    saved: KeptDevices,
    guest: GuestIdentity,
) -> Iterator[Finding]:
    """The guest's Mellanox VF is in its saved definition, too.

    A VF that was attached with --live alone is gone when the guest starts anew, wherever that is.
    """
    vfs = vfs_of(nics, devices, source)
    if not state.active or not state.persistent:
        raise NotApplicable("the guest is not both running and defined")
    given = given_of(nics, devices)
    for own in (given[vf.address] for vf in vfs):
        if own.address not in saved.pci_addresses and (own.mac or "").lower() not in saved.macs:
            yield Finding(
                expected="attached with --live --config",
                actual=f"{own.address} is in the running guest only",
                remedy=f"{needs.write_xml(own.xml)} && virsh attach-device {shlex.quote(guest.name)} vf.xml --config",
            )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU 8.1 release notes: VFIO",
    remedy="dnf upgrade qemu-kvm",
    covers=("failure 65",),
)
def qemu(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    here: Source[Qemu],
    there: Target[Qemu],
) -> Told:
    """QEMU is 8.1 or newer on both hosts of a guest with a Mellanox VF.

    Older ones know the migration of VFIO devices as an experiment only, switched off, and refuse. Some vendors' 8.0
    has what 8.1 has (RHEL 9.3).
    """
    vfs_of(nics, devices, source)
    yield from qemu_migrates_vfio(here, there)


@check(severity=Severity.MEDIUM, stage=Stage.ALLOWED, reference="RHEL 10 §12.6")
def count(nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices]) -> Iterator[Finding]:
    """The guest has no more than four VFs of one Mellanox port.

    More than four VFs of one physical function are not to be migrated at the same time.
    """
    vfs = vfs_of(nics, devices, source)
    for pf in sorted({vf.pf for vf in vfs}):
        number = sum(vf.pf == pf for vf in vfs)
        if number > MOST_VFS:
            yield Finding(f"{MOST_VFS} VFs of one port at most", f"{number} of {pf}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=("12.8/vf", "12.8/both", "failure 68"),
)
def on_target(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The target has a free Mellanox VF for each of the guest's.

    libvirt does not make VFs: they must be there before the guest comes, and no running guest may have them.
    """
    wanted = len(vfs_of(nics, devices, source))
    there = [vf for pf in target.pfs for vf in pf.vfs]
    if len(there) < wanted:
        actual = f"{len(there)}" if target.pfs else "no Mellanox device"
        yield Finding(f"Mellanox VFs on the target: {wanted}", actual, _MADE, _make(target, wanted))
    elif (free := sum(not vf.held for vf in there)) < wanted:
        actual = f"{free} of {len(there)}"
        yield Finding(f"free Mellanox VFs on the target: {wanted}", actual, _MADE, _make(target, wanted))


_MADE = "New VFs have to be made migratable and plugged in before they can be used: audit again."


def _make(target: MellanoxDevices, wanted: int) -> str:
    """How to make so many VFs on a card that no guest has VFs of; a changed number makes all of a card's VFs anew."""
    cards = [pf for pf in target.pfs if pf.model == CONNECTX_7 and all(vf.held_state is False for vf in pf.vfs)]
    if not cards:
        return ""
    card = max(cards, key=lambda pf: pf.total_vfs)
    path = f"/sys/bus/pci/devices/{card.address}/sriov_numvfs"
    if card.total_vfs < wanted:
        return f"mstconfig -d {card.address} set SRIOV_EN=1 NUM_OF_VFS={wanted} && mstfwreset -d {card.address} reset"
    return (f"echo 0 > {path} && " if card.vfs else "") + f"echo {wanted} > {path}"


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="libvirt 11.3 virHostdevPreparePCIDevices",
    covers=(
        "12.8/detach",
        "12.8/both",
    ),
)
def detached(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The VF that awaits the guest's on the target can be taken from its driver, or has been.

    libvirt does that itself for devices of managed='yes'. Others it wants bound to a VFIO driver beforehand, which
    must be the one that can load the VF's state.
    """
    given = given_of(nics, devices)
    for move in moves_of(nics, devices, source, target):
        if move.to_vf and move.to_vf.driver != VARIANT_DRIVER and not given[move.vf.address].managed:
            yield Finding(
                expected=f"target: {VARIANT_DRIVER}, or managed='yes'",
                actual=f"{move.to_vf.address}: {move.to_vf.driver or 'no driver'}, managed='no'",
                because=f"Unmanaged PCI device {move.to_vf.address} must be manually detached from the host",
                remedy=f"virsh nodedev-detach {nodedev(move.to_vf.address)} --driver {VARIANT_DRIVER}",
            )


@check(
    severity=Severity.MEDIUM,
    reference="libvirt: a <hostdev> names its host device by PCI address",
    covers=("12.8/attach", "12.6/xml"),
)
def address(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    guest: GuestIdentity,
) -> Iterator[Finding]:
    """The guest's Mellanox VF has the same PCI address on the target.

    The guest's XML names the VF by its address on the host, and the target looks for that address.
    A VF that comes from the pool of a libvirt network is chosen by the target itself.
    """
    given = given_of(nics, devices)
    moves = [move for move in moves_of(nics, devices, source, target) if not given[move.vf.address].network]
    moved = [
        (move.vf.address, move.to_vf.address) for move in moves if move.to_vf and move.to_vf.address != move.vf.address
    ]
    name = shlex.quote(guest.name)
    swaps = "".join(f"s|{needs.address_xml(old)}|{needs.address_xml(new)}|;t;" for old, new in moved)
    for old, new in moved:
        yield Finding(
            expected=f"VF at {old}",
            actual=f"VF at {new}",
            because="The target's address has to be put into the XML that the guest is migrated with.",
            remedy=f'virsh dumpxml --migratable {name} | sed "/<source>/,/<.source>/{{{swaps}}}" > to.xml\n'
            f"virsh migrate --live --xml to.xml --domain {name} --desturi qemu+ssh://TARGET/system",
        )


@check(severity=Severity.HIGH, blocks=Blocks.MIGRATION, reference=SECTION, covers=("12.8/cx7", "12.8/both"))
def device(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Told:
    """The guest's Mellanox VF is of a ConnectX-7 in Ethernet mode, on both hosts.

    It is the first card whose VFs can migrate, and the one that the documentation names.
    """
    for side, pf in both_cards(moves_of(nics, devices, source, target)):
        yield from needs.connectx7(side, pf)


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
) -> Told:
    """The cards of the guest's Mellanox VF have firmware that migrates VFs, on both hosts.

    The card itself saves and loads the VF's state; firmware older than the minimum cannot.
    """
    for side, pf in both_cards(moves_of(nics, devices, source, target)):
        yield from needs.firmware(side, pf, policy.mellanox_min_firmware)


@check(severity=Severity.HIGH, stage=Stage.TRANSFER, reference="RHEL 10 §12.6", covers=("12.8/same-firmware",))
def same_firmware(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Told:
    """The cards of the guest's Mellanox VF have the same PSID and the same firmware on both hosts.

    RHEL 10 asks for it; RHEL 9 does not say so. One card loads what another has saved: if it cannot,
    the migration fails, and the guest goes on where it was.
    """
    for move in moves_of(nics, devices, source, target):
        yield from _alike(move.pf, move.to_pf)


@needs.condition
def _alike(pf: Pf, to_pf: Pf) -> Iterator[Finding]:
    ours, theirs = pf.firmware.running, to_pf.firmware.running
    if version_key(ours) != version_key(theirs):
        target_older = version_key(theirs) < version_key(ours)
        older, side = (to_pf, "target") if target_older else (pf, "source")
        yield Finding(
            expected=f"firmware {ours}",
            actual=f"target: {to_pf.address} runs {theirs}",
            remedy=f"mstflint -d {older.address} -i FIRMWARE.bin burn && mstfwreset -d {older.address} reset"
            f"  # on the {side}, with no guest on its VFs",
        )
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
) -> Told:
    """VF_MIGRATION_MODE is MIGRATION_ENABLED on the cards of the guest's Mellanox VF, on both hosts.

    Without it the card offers no migration of its VFs, and QEMU refuses.
    """
    for side, pf in both_cards(moves_of(nics, devices, source, target)):
        yield from needs.migration_mode(side, pf)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=(
        "12.8/switchdev",
        "12.8/both",
    ),
)
def switchdev(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Told:
    """The cards of the guest's Mellanox VF are in switchdev mode, on both hosts.

    The other mode, legacy, knows neither migratable VFs nor representors.
    """
    for side, pf in both_cards(moves_of(nics, devices, source, target)):
        yield from needs.switchdev(side, pf)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    covers=(
        "12.8/migratable",
        "12.8/detach",
        "12.8/both",
    ),
)
def migratable(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    guest: GuestIdentity,
) -> Told:
    """The guest's Mellanox VF is made migratable on the source, and so is the one that awaits it.

    A VF offers migration only after `devlink port function set … migratable enable`.
    """
    given = given_of(nics, devices)
    for move in moves_of(nics, devices, source, target):
        first, then = take_and_give(guest, given[move.vf.address]) if move.vf.held_state is True else ("", "")
        yield from needs.migratable("source: ", move.pf, move.vf, first=first, then=then)
        if move.to_vf:
            yield from needs.migratable("target: ", move.to_pf, move.to_vf)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference=SECTION,
    remedy="dnf install kernel-modules",
    covers=("12.8/driver", "failure 65", "12.8/both"),
)
def driver_on_target(
    nics: GuestNics, devices: GuestDevices, source: Source[MellanoxDevices], target: Target[MellanoxDevices]
) -> Iterator[Finding]:
    """The target's kernel has the driver mlx5_vfio_pci for the guest's Mellanox VF.

    The guest's state can be loaded only by the driver that saves it.
    """
    moves_of(nics, devices, source, target)
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

    It does since 10.0.0. An older one takes vfio-pci, which cannot load the VF's state; it does not know the XML's
    `<driver model=>` either.
    """
    moves = moves_of(nics, devices, source, target)
    unbound = [move.to_vf for move in moves if move.to_vf and move.to_vf.driver != VARIANT_DRIVER]
    unmade = any(move.to_vf is None for move in moves)
    if (unbound or unmade) and libvirt.daemon < (10, 0, 0):
        yield Finding(
            expected="target: libvirt 10.0.0 or newer",
            actual=f"libvirt {libvirt.daemon}",
            because="Bound by hand (libvirt 9.7.0), it has to be in the XML with managed='no'.",
            remedy=" && ".join(
                f"virsh nodedev-detach {nodedev(vf.address)} --driver {VARIANT_DRIVER}" for vf in unbound
            ),
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
) -> Told:
    """The target's IOMMU is on and keeps the VF apart that awaits the guest's.

    Otherwise libvirt cannot hand it to the guest.
    """
    moves = moves_of(nics, devices, source, target)
    yield from needs.iommu("target: ", iommu)
    for vf in (move.to_vf for move in moves if move.to_vf):
        yield from needs.isolated("target: ", vf, iommu)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference=SECTION,
    covers=(
        "12.8/nic-up",
        "12.8/ovs-running",
        "12.8/openvswitch",
        "12.8/bridge",
        "12.8/vf-port",
        "12.8/both",
    ),
)
def network(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    ovs: Target[OpenVswitch],
) -> Told:
    """The VF that awaits the guest's on the target reaches the network.

    In switchdev mode a VF reaches nobody until its representor is in a bridge and the port is up:
    the guest would arrive and be cut off. libvirt does not see to it.
    """
    moves = moves_of(nics, devices, source, target)
    for pf in dict.fromkeys(move.to_pf for move in moves):
        yield from needs.link("target: ", pf)
    if not needs.kernel_bridged(move.to_vf for move in moves if move.to_vf):
        yield from needs.openvswitch("target: ", ovs)
    for move in moves:
        if move.to_vf:
            yield from needs.representor("target: ", move.to_pf, move.to_vf, ovs)


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference=SECTION,
    covers=(
        "12.8/hw-offload",
        "12.8/max-idle",
        "12.8/pf-port",
        "12.8/both",
    ),
)
def openvswitch_settings(
    nics: GuestNics,
    devices: GuestDevices,
    source: Source[MellanoxDevices],
    target: Target[MellanoxDevices],
    here: Source[OpenVswitch],
    there: Target[OpenVswitch],
) -> Told:
    """Open vSwitch is set up as the documentation asks, on both hosts.

    Hardware offload keeps the VF fast, a long idle time keeps its flows during the move, and the port
    belongs into the bridge (or a tunnel leads out of it). Whether Open vSwitch was restarted after hardware offload
    was set does not show in its database: look for "Flow API Enabled" in ovs-vswitchd.log.
    """
    moves = moves_of(nics, devices, source, target)
    ours, theirs = [(move.pf, move.vf) for move in moves], [(move.to_pf, move.to_vf) for move in moves]
    for side, places, ovs in (("source: ", ours, here), ("target: ", theirs, there)):
        if needs.kernel_bridged(vf for _, vf in places if vf):
            continue
        yield from needs.settings(side, ovs)
        for pf in dict.fromkeys(pf for pf, _ in places):
            yield from needs.uplink(side, pf, ovs)
