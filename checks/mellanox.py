"""What Mellanox VFs need of their hosts to move with a guest (RHEL 9 §12.8): notes about hosts with a ConnectX-7.

What decides for the guests that have such a VF is in `checks.vf`. A host that is not ready for VFs must not disturb
the guests without one.
"""

from collections.abc import Iterator

from audit.check import Finding, NotApplicable, Policy, Severity, Told, check
from audit.facts.mellanox import CONNECTX_7, Iommu, MellanoxDevices, Pf
from audit.facts.mellanox_tools import MIGRATION_ENABLED, MIGRATION_MODES, version_key
from audit.facts.openvswitch import OpenVswitch
from checks import _mellanox as needs
from checks._mellanox import SECTION, VARIANT_DRIVER

NVIDIA_FIRMWARE = "28.41.1000"


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


@check(severity=Severity.LOW, reference=SECTION, covers=("12.8/cx7",))
def connectx7(devices: MellanoxDevices) -> Told:
    """VFs of Mellanox devices belong to a ConnectX-7 in Ethernet mode.

    Only the VFs of this card can be migrated with the guest that has them. A VF itself does not show
    which card it is of, so it is judged by its physical function.
    """
    with_vfs = [pf for pf in devices.pfs if pf.vfs]
    if not with_vfs:
        raise NotApplicable("no Mellanox device with VFs")
    for pf in with_vfs:
        yield from needs.connectx7("", pf)


@check(severity=Severity.LOW, reference=SECTION, covers=("12.8/firmware", "failure 65"))
def firmware(devices: MellanoxDevices, policy: Policy) -> Told:
    """The firmware of the ConnectX-7 is new enough to migrate VFs.

    Saving and loading the state of a VF is done by the card. Guests without a VF are not concerned.
    """
    for pf in _cards(devices):
        yield from needs.firmware("", pf, policy.mellanox_min_firmware)


@check(severity=Severity.INFO, reference="NVIDIA, SR-IOV live migration", covers=("12.8/firmware",))
def recommended_firmware(devices: MellanoxDevices, policy: Policy) -> Iterator[Finding]:
    """The firmware of the ConnectX-7 is what NVIDIA asks for.

    Red Hat's minimum is older than NVIDIA's own: between the two, migration may work but is not what NVIDIA tests.
    """
    for pf in _cards(devices):
        key = version_key(pf.firmware.running)
        if version_key(policy.mellanox_min_firmware) <= key < version_key(NVIDIA_FIRMWARE):
            yield Finding(f"firmware {NVIDIA_FIRMWARE} or newer", f"{pf.address} runs {pf.firmware.running}")


@check(severity=Severity.LOW, reference=SECTION, covers=("12.8/firmware",))
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


@check(severity=Severity.LOW, reference=SECTION, covers=("12.8/migration-mode", "failure 65"))
def migration_mode(devices: MellanoxDevices) -> Told:
    """VF_MIGRATION_MODE of the ConnectX-7 is MIGRATION_ENABLED.

    It is set in the card's own memory and takes effect with its next reset.
    """
    for pf in _cards(devices):
        yield from needs.migration_mode("", pf)


@check(severity=Severity.LOW, reference=SECTION, covers=("12.8/migration-mode",))
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


@check(severity=Severity.LOW, reference=SECTION, remedy="dnf install mstflint", covers=("12.8/mstflint",))
def mstflint(devices: MellanoxDevices) -> Iterator[Finding]:
    """The package mstflint is installed where there is a ConnectX-7.

    It brings mstconfig, which alone shows and sets VF_MIGRATION_MODE.
    """
    _cards(devices)
    if not devices.mstflint:
        yield Finding("mstconfig in the path", "not found")


@check(
    severity=Severity.LOW, reference=SECTION, remedy="dnf install kernel-modules", covers=("12.8/driver", "failure 65")
)
def variant_driver(devices: MellanoxDevices) -> Iterator[Finding]:
    """The kernel has the driver mlx5_vfio_pci where there is a ConnectX-7.

    The ordinary vfio-pci hands a VF to a guest, but cannot take its state along.
    """
    _cards(devices)
    if not devices.vfio_module:
        yield Finding(f"module {VARIANT_DRIVER}", "the running kernel has no such module")


@check(
    severity=Severity.LOW,
    reference=SECTION,
    covers=(
        "12.8/switchdev",
        "12.8/both",
    ),
)
def switchdev(devices: MellanoxDevices) -> Told:
    """A ConnectX-7 with VFs is in switchdev mode.

    Guests without a VF are not concerned.
    """
    for pf in _cards_with_vfs(devices):
        yield from needs.switchdev("", pf)


@check(
    severity=Severity.LOW,
    reference=SECTION,
    covers=(
        "12.8/migratable",
        "12.8/detach",
        "12.8/both",
    ),
)
def migratable(devices: MellanoxDevices) -> Told:
    """The VFs of a ConnectX-7 are made migratable.

    It is set per VF, while no driver holds it, and is lost when the VFs are made anew.
    """
    for pf in _cards_with_vfs(devices):
        for vf in pf.vfs:
            yield from needs.migratable("", pf, vf)


@check(
    severity=Severity.LOW,
    reference=SECTION,
    covers=(
        "12.8/nic-up",
        "12.8/both",
    ),
)
def link(devices: MellanoxDevices) -> Told:
    """A ConnectX-7 with VFs has its link up.

    The VFs reach the network through it.
    """
    for pf in _cards_with_vfs(devices):
        yield from needs.link("", pf)


@check(
    severity=Severity.LOW,
    reference=SECTION,
    covers=("12.8/iommu", "12.8/iommu-on", "12.8/acs", "12.3/firmware-settings"),
)
def iommu(devices: MellanoxDevices, iommu: Iommu) -> Told:
    """The IOMMU is on where there is a ConnectX-7, and keeps its VFs apart.

    It lets a guest drive a VF without reaching the host's memory; ACS keeps VFs from reaching each other.
    """
    cards = _cards(devices)
    yield from needs.iommu("", iommu)
    for vf in (vf for pf in cards for vf in pf.vfs):
        yield from needs.isolated("", vf, iommu)


@check(severity=Severity.INFO, reference=SECTION, covers=("12.8/iommu-on",))
def iommu_passthrough(devices: MellanoxDevices, iommu: Iommu) -> Iterator[Finding]:
    """The host's own devices pass the IOMMU by (iommu=pt) where there is a ConnectX-7.

    It costs guests nothing to do without; the host's own network and disks are faster with it. Kernels may be built so.
    """
    _cards(devices)
    if iommu.groups and not iommu.passthrough:
        yield Finding(
            expected="iommu=pt among the kernel's arguments",
            actual=" ".join(iommu.arguments) or "no argument about the IOMMU",
            because="Every transfer of the host's own devices is translated.",
            remedy='grubby --args="iommu=pt" --update-kernel=ALL && systemctl reboot',
        )


@check(
    severity=Severity.LOW,
    reference=SECTION,
    covers=(
        "12.8/openvswitch",
        "12.8/ovs-running",
        "12.8/hw-offload",
        "12.8/max-idle",
        "12.8/bridge",
        "12.8/pf-port",
        "12.8/vf-port",
        "12.8/both",
    ),
)
def openvswitch(devices: MellanoxDevices, ovs: OpenVswitch) -> Told:
    """Open vSwitch is installed, running and set up where a ConnectX-7 has VFs.

    In switchdev mode nothing but a bridge carries their traffic.
    """
    cards = _cards_with_vfs(devices)
    if not needs.kernel_bridged(vf for pf in cards for vf in pf.vfs):
        yield from needs.openvswitch("", ovs)
        yield from needs.settings("", ovs)
    for pf in cards:
        yield from needs.uplink("", pf, ovs)
        for vf in pf.vfs:
            yield from needs.representor("", pf, vf, ovs)
