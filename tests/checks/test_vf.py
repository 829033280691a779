"""What a guest's Mellanox VF needs to move, on both hosts; and that the notes about the hosts say the same."""

from dataclasses import replace
from typing import Any

import pytest

from audit.check import Blocks, Check, NotApplicable, Scope, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import HostDevice
from audit.facts.mellanox import Iommu, MellanoxDevices, Netdev, Pf
from audit.facts.mellanox_tools import DevlinkPort, Firmware, VfMigrationMode
from audit.facts.openvswitch import Database, OpenVswitch
from audit.facts.versions import Libvirt, Qemu, Version
from checks import mellanox
from checks import vf as checks
from tests.mellanox_hosts import (
    AROUND,
    BAD_FIRMWARE,
    BDF,
    GOOD,
    NO_CARD,
    NOTHING_ELSE,
    OVS,
    QEMU,
    STAGED_FIRMWARE,
    UNREAD,
    UNREADABLE,
    UNTOLD,
    WITH_VF,
    WITHOUT,
    devices,
    host,
    judge,
    nic,
    nics,
    pf,
    vf,
)

CHECKS = [value for value in vars(checks).values() if isinstance(value, Check)]


def test_scopes() -> None:
    assert {c.scope for c in CHECKS} == {Scope.GUEST, Scope.PLACEMENT}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
@pytest.mark.parametrize("source", [NO_CARD, GOOD, UNREADABLE])
def test_guests_without_a_vf_are_not_disturbed(check: Check, source: MellanoxDevices) -> None:
    with pytest.raises(NotApplicable):
        judge(check, source=source, target=UNREADABLE, around=UNTOLD, guest=WITHOUT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_a_team_that_libvirt_unplugs_is_not_judged(check: Check) -> None:
    with pytest.raises(NotApplicable):
        judge(check, target=NO_CARD, guest=nics(nic(teaming="transient")))


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_a_vf_with_all_it_needs(check: Check) -> None:
    findings = judge(check)
    assert [f.actual for f in findings] == (["Mellanox VF 0000:e1:00.1"] if check is checks.technology_preview else [])


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_a_vf_given_as_hostdev_is_one_too(check: Check) -> None:
    other = devices(HostDevice("pci", "0000:e1:00.1", None, None, None))
    assert judge(check, guest=WITHOUT, others=other) == judge(check)


MODE_OFF = pf(vf(), vf_migration_state=VfMigrationMode(supported=True, current=1, next_boot=1))
MODE_PENDING = pf(vf(), vf_migration_state=VfMigrationMode(supported=True, current=0, next_boot=2))
MODE_NEXT_ONLY = pf(vf(), vf_migration_state=VfMigrationMode(supported=True, current=None, next_boot=0))
MODE_UNSUPPORTED = pf(vf(), vf_migration_state=VfMigrationMode(supported=False, current=None, next_boot=None))
LEGACY = pf(vf(representor=None, port_state=UNREAD), eswitch_state="legacy")
NOT_MIGRATABLE = pf(vf(port_state=DevlinkPort(f"pci/{BDF}/1", migratable=False)))
OLD_CARD = pf(vf(), device_id=0x101D, firmware_state=Firmware("22.35.2000", None, "MT_0000000359"))
INFINIBAND = pf(vf(), ethernet=False, uplink=None)


@pytest.mark.parametrize(
    ("host_check", "vf_check", "broken", "actual", "remedy"),
    [
        ("connectx7", "device", OLD_CARD, "ConnectX-6 Dx", ""),
        ("connectx7", "device", INFINIBAND, "InfiniBand", f"mstconfig -d {BDF} set LINK_TYPE_P1=2"),
        ("firmware", "firmware", BAD_FIRMWARE, "runs 28.35.2000", f"mstflint -d {BDF} -i FIRMWARE.bin burn"),
        ("firmware", "firmware", STAGED_FIRMWARE, "28.43.1014 is stored", f"mstfwreset -d {BDF} reset"),
        ("migration_mode", "migration_mode", MODE_OFF, "MIGRATION_DISABLED(1)", "set VF_MIGRATION_MODE=2"),
        ("migration_mode", "migration_mode", MODE_PENDING, "DEVICE_DEFAULT(0), MIGR", f"mstfwreset -d {BDF} reset"),
        ("migration_mode", "migration_mode", MODE_NEXT_ONLY, "DEVICE_DEFAULT(0) at the", "VF_MIGRATION_MODE=2"),
        ("migration_mode", "migration_mode", MODE_UNSUPPORTED, "does not know", "VF_MIGRATION_MODE=2"),
        ("switchdev", "switchdev", LEGACY, "legacy", f"devlink dev eswitch set pci/{BDF} mode switchdev"),
        ("migratable", "migratable", NOT_MIGRATABLE, "disable", f"set pci/{BDF}/1 migratable enable"),
    ],
)
def test_a_card_that_is_not_ready(host_check: str, vf_check: str, broken: Pf, actual: str, remedy: str) -> None:
    [note] = judge(getattr(mellanox, host_check), source=host(broken))
    check = getattr(checks, vf_check)
    [on_source] = judge(check, source=host(broken))
    [on_target] = judge(check, target=host(broken))
    assert check.blocks is Blocks.MIGRATION
    for finding in (note, on_source, on_target):
        assert actual in finding.actual
        assert remedy in finding.remedy
    assert on_source.expected == f"source: {note.expected}"
    assert on_target.expected == f"target: {note.expected}"


@pytest.mark.parametrize(
    ("check", "unread"),
    [
        ("firmware", {"firmware_state": UNREAD}),
        ("migration_mode", {"vf_migration_state": UNREAD}),
        ("migration_mode", {"vf_migration_state": VfMigrationMode(supported=True, current=None, next_boot=2)}),
        ("switchdev", {"eswitch_state": UNREAD}),
        ("connectx7", {"device_id": 0xA2DC}),
    ],
)
def test_what_is_not_told_is_unknown(check: str, unread: dict[str, Any]) -> None:
    unknown = host(pf(vf(), **unread))
    with pytest.raises(Unavailable):
        judge(getattr(mellanox, check), source=unknown)
    placement = checks.device if check == "connectx7" else getattr(checks, check)
    with pytest.raises(Unavailable):
        judge(placement, target=unknown)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_a_pci_device_on_a_host_that_tells_nothing_is_unknown(check: Check) -> None:
    with pytest.raises(Unavailable):
        judge(check, source=UNREADABLE)


@pytest.mark.parametrize(
    "check",
    [checks.iommu, checks.network, checks.openvswitch_settings, mellanox.iommu],
    ids=lambda c: c.id,
)
def test_surroundings_that_are_not_told_are_unknown(check: Check) -> None:
    with pytest.raises(Unavailable):
        judge(check, around=UNTOLD)


def test_what_is_known_comes_before_what_is_not() -> None:
    found = checks.migration_mode.function(
        WITH_VF, NOTHING_ELSE, host(pf(vf(), vf_migration_state=UNREAD)), host(MODE_OFF)
    )
    assert "target" in next(found).expected
    with pytest.raises(Unavailable):
        next(found)


def test_driver_of_the_target() -> None:
    assert judge(checks.driver_on_target, target=host(pf(vf()), module=False))
    with pytest.raises(Unavailable):
        judge(checks.driver_on_target, target=host(pf(vf()), module=UNREAD))


@pytest.mark.parametrize("driver", ["vfio-pci", None])
def test_driver_of_the_running_vf(driver: str | None) -> None:
    assert judge(checks.driver, source=host(pf(vf(driver=driver))))
    shut_off = GuestState("shut off", active=False, persistent=True)
    with pytest.raises(NotApplicable):
        list(checks.driver.function(shut_off, WITH_VF, NOTHING_ELSE, host(pf(vf(driver=driver)))))


def test_viommu() -> None:
    assert judge(checks.without_viommu, others=devices(viommu=True))
    assert checks.without_viommu.blocks is Blocks.MIGRATION


def test_qemu_that_does_not_migrate_vfio_devices() -> None:
    old = Qemu(Version(8, 0, 5))
    assert checks.qemu.blocks is Blocks.MIGRATION
    for qemu, side in (((old, QEMU), "source"), ((QEMU, old), "target")):
        [finding] = judge(checks.qemu, qemu=qemu)
        assert (finding.expected, finding.actual) == (f"{side}: QEMU 8.1 or newer", "QEMU 8.0.5")


def test_five_vfs_of_one_port() -> None:
    source = host(pf(*(vf(number) for number in range(5))))
    guest = nics(*(nic(pci_address=f"0000:e1:00.{number}") for number in range(1, 6)))
    [finding] = judge(checks.count, source=source, guest=guest)
    assert finding.actual == f"5 of {BDF}"


@pytest.mark.parametrize(
    ("target", "actual", "remedy"),
    [
        (NO_CARD, "no Mellanox device", ""),
        (host(pf()), "0", f"echo 1 > /sys/bus/pci/devices/{BDF}/sriov_numvfs"),
        (host(pf(vf(held_state=True))), "0 of 1", ""),
    ],
)
def test_no_vf_on_the_target(target: MellanoxDevices, actual: str, remedy: str) -> None:
    [finding] = judge(checks.on_target, target=target)
    assert (finding.actual, finding.remedy) == (actual, remedy)


def test_whether_the_targets_vf_is_free_is_unknown() -> None:
    with pytest.raises(Unavailable):
        judge(checks.on_target, target=host(pf(vf(held_state=UNREAD))))


def test_two_vfs_need_two() -> None:
    source, guest = host(pf(vf(0), vf(1))), nics(nic(), nic(pci_address="0000:e1:00.2"))
    assert judge(checks.on_target, source=source, guest=guest)
    assert judge(checks.on_target, source=source, guest=guest, target=host(pf(vf(0), vf(5)))) == []


def test_a_vf_at_another_address() -> None:
    elsewhere = host(pf(vf(0, held_state=True), vf(2)))
    [finding] = judge(checks.address, target=elsewhere)
    assert finding.actual == "VF at 0000:e1:00.3"
    assert judge(checks.address, target=elsewhere, guest=nics(nic(network="pool"))) == []
    assert checks.address.blocks is Blocks.NOTHING


def test_the_readier_of_two_vfs_is_looked_at() -> None:
    unready = vf(2, port_state=DevlinkPort(f"pci/{BDF}/3", migratable=False))
    assert judge(checks.migratable, target=host(pf(unready, vf(4)))) == []


def test_a_target_without_vfs_is_judged_by_its_card() -> None:
    bare = replace(BAD_FIRMWARE, vfs=())
    assert judge(checks.firmware, target=host(bare))
    assert judge(checks.migratable, target=host(bare)) == []
    with pytest.raises(NotApplicable, match="no Mellanox device"):
        judge(checks.firmware, target=NO_CARD)


def test_same_firmware_and_psid() -> None:
    other = pf(vf(), firmware_state=Firmware("28.42.1000", None, "MT_0000001244"))
    assert [f.actual for f in judge(checks.same_firmware, target=host(other))] == [
        f"target: {BDF} runs 28.42.1000",
        f"target: {BDF} has MT_0000001244",
    ]
    padded = pf(vf(), firmware_state=Firmware("28.43.01014", None, "MT_0000000844"))
    assert judge(checks.same_firmware, target=host(padded)) == []
    assert checks.same_firmware.blocks is Blocks.NOTHING
    with pytest.raises(Unavailable, match="PSID"):
        judge(checks.same_firmware, target=host(pf(vf(), firmware_state=Firmware("28.43.1014", None, None))))


def test_older_libvirt_has_to_be_told_the_driver() -> None:
    around = replace(AROUND, libvirt_state=Libvirt(Version(9, 10, 0), Version(9, 10, 0)))
    free = host(pf(vf(driver="mlx5_core")))
    assert judge(checks.driver_chosen, target=free, around=around)
    assert judge(checks.driver_chosen, target=free) == []
    assert judge(checks.driver_chosen, around=around) == []  # bound beforehand
    told = nics(nic(driver="mlx5_vfio_pci"))
    assert judge(checks.driver_chosen, target=free, around=around, guest=told) == []


@pytest.mark.parametrize(
    ("iommu", "remedy"),
    [
        (Iommu(0, frozenset({"DMAR"}), ()), 'grubby --args="intel_iommu=on iommu=pt"'),
        (Iommu(0, frozenset({"IVRS"}), ("amd_iommu=off",)), 'grubby --args="iommu=pt"'),
        (Iommu(0, frozenset(), ()), "firmware's setup"),
    ],
)
def test_iommu_off(iommu: Iommu, remedy: str) -> None:
    around = replace(AROUND, iommu_state=iommu)
    [note] = judge(mellanox.iommu, around=around)
    [finding] = judge(checks.iommu, around=around)
    assert remedy in note.remedy
    assert finding.actual == note.actual
    assert "no IOMMU groups" in finding.actual


def test_a_vf_without_acs() -> None:
    shared = host(pf(vf(isolated=False)))
    assert "shares" in judge(mellanox.iommu, source=shared)[0].actual
    assert "shares" in judge(checks.iommu, target=shared)[0].actual
    assert judge(checks.iommu, source=shared) == []  # it runs there


@pytest.mark.parametrize(
    ("ovs", "expected"),
    [
        (OpenVswitch(False, False, "not installed"), "openvswitch installed"),
        (replace(OVS, running_state=False), "Open vSwitch running"),
    ],
)
def test_no_open_vswitch(ovs: OpenVswitch, expected: str) -> None:
    around = replace(AROUND, openvswitch_state=ovs)
    assert judge(mellanox.openvswitch, around=around)[0].expected == expected
    assert judge(checks.network, around=around)[0].expected == f"target: {expected}"


def test_a_bridge_of_the_kernel_does_as_well() -> None:
    none = replace(AROUND, openvswitch_state=OpenVswitch(False, False, "not installed"))
    bridged = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "up", "br0"))))
    assert judge(checks.network, target=bridged, around=none) == []


def test_a_representor_in_no_bridge() -> None:
    loose = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "up", None))))
    [finding] = judge(checks.network, target=loose)
    assert finding.remedy == "ovs-vsctl add-port BRIDGE rep0"
    assert finding.actual == "rep0 is in none"
    assert judge(mellanox.openvswitch, source=loose)
    unread = replace(AROUND, openvswitch_state=replace(OVS, database_state="permission denied"))
    with pytest.raises(Unavailable, match="permission denied"):
        judge(checks.network, target=loose, around=unread)
    assert judge(checks.network, around=unread) == []  # ovs-system is its master: in some bridge


@pytest.mark.parametrize(
    ("uplink", "actual"),
    [
        (Netdev("enp225s0np0", "p0", "down", "ovs-system"), "is down"),
        (None, "no network interface"),
    ],
)
def test_no_link_on_the_target(uplink: Netdev | None, actual: str) -> None:
    down = host(pf(vf(), uplink=uplink))
    [finding] = judge(checks.network, target=down)
    assert actual in finding.actual
    assert judge(mellanox.link, source=down)
    assert judge(checks.network, source=down) == []


def test_settings_of_open_vswitch() -> None:
    bare = replace(OVS, database_state=Database(frozenset({("max-idle", "10000")}), ()))
    around = replace(AROUND, openvswitch_state=bare)
    target = host(pf(vf(), uplink=Netdev("enp225s0np0", "p0", "up", None)))
    findings = judge(checks.openvswitch_settings, target=target, around=around)
    assert [f.actual for f in findings] == ["hw-offload=not set", "max-idle=10000", "enp225s0np0 is in none"]
    assert checks.openvswitch_settings.blocks is Blocks.NOTHING
