"""What a Mellanox VF needs to move, on hosts and for guests."""

from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

import pytest

from audit.check import Blocks, Check, Finding, NotApplicable, Policy, Scope, Severity, Unavailable
from audit.evidence import Probe
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics, HostDevice, Nic
from audit.facts.mellanox import Iommu, MellanoxDevices, Netdev, Pf, Vf, VfSurroundings
from audit.facts.mellanox_tools import DevlinkPort, Firmware, Unread, VfMigrationMode
from audit.facts.openvswitch import Bridge, Database, OpenVswitch
from audit.facts.versions import Libvirt, Qemu, Version
from checks import mellanox

BDF = "0000:e1:00.0"
UNREAD = Unread(Probe("some.probe", "true"), "no root")
POLICY = Policy()


def vf(number: int = 0, **changes: Any) -> Vf:
    address = f"0000:e1:00.{number + 1}"
    fine = Vf(
        address=address,
        pf=BDF,
        number=number,
        driver="mlx5_vfio_pci",
        isolated=True,
        representor=Netdev(f"enp225s0npf0vf{number}", f"pf0vf{number}", "up", "ovs-system"),
        port_state=DevlinkPort(f"pci/{BDF}/{number + 1}", migratable=True),
        held_state=False,
    )
    return replace(fine, **changes)


def pf(*vfs: Vf, **changes: Any) -> Pf:
    fine = Pf(
        address=BDF,
        device_id=0x1021,
        ethernet=True,
        driver="mlx5_core",
        uplink=Netdev("enp225s0np0", "p0", "up", "ovs-system"),
        vfs=vfs,
        total_vfs=8,
        firmware_state=Firmware("28.43.1014", "28.43.1014", "MT_0000000844"),
        vf_migration_state=VfMigrationMode(supported=True, current=2, next_boot=2),
        eswitch_state="switchdev",
    )
    return replace(fine, **changes)


def host(*pfs: Pf, mstflint: bool | Unread = True, module: bool | Unread = True) -> MellanoxDevices:
    return MellanoxDevices(pfs, mstflint, module)


OVS = OpenVswitch(
    installed=True,
    running_state=True,
    database_state=Database(
        frozenset({("hw-offload", "true"), ("max-idle", "300000")}),
        (Bridge("br0", frozenset({"br0", "enp225s0np0", "enp225s0npf0vf0"})),),
    ),
)
IOMMU = Iommu(97, frozenset({"DMAR"}), ("intel_iommu=on", "iommu=pt"))
AROUND = VfSurroundings(IOMMU, OVS, Libvirt(Version(11, 3, 0), Version(11, 3, 0)))
QEMU = Qemu(Version(8, 1))
GOOD = host(pf(vf()))
NO_CARD = host(mstflint=UNREAD, module=UNREAD)
UNREADABLE = MellanoxDevices(UNREAD, UNREAD, UNREAD)


def nic(**changes: Any) -> Nic:
    fields: dict[str, Any] = {field.name: None for field in fields_of(Nic)}
    return Nic(**fields | {"type": "hostdev", "pci_address": "0000:e1:00.1"} | changes)


def nics(*all_of_them: Nic) -> GuestNics:
    return GuestNics(all_of_them)


def devices(*hostdevs: HostDevice, viommu: bool = False) -> GuestDevices:
    fields: dict[str, Any] = {field.name: None for field in fields_of(GuestDevices)}
    return GuestDevices(**fields | {"hostdevs": hostdevs, "viommu": viommu})


RUNNING = GuestState("running", active=True, persistent=True)
WITH_VF, NOTHING_ELSE = nics(nic()), devices()
WITHOUT = nics(nic(type="network", pci_address=None))


def judge(
    check: Check,
    source: MellanoxDevices = GOOD,
    target: MellanoxDevices = GOOD,
    around: VfSurroundings = AROUND,
    guest: GuestNics = WITH_VF,
    others: GuestDevices = NOTHING_ELSE,
    qemu: tuple[Qemu, Qemu] = (QEMU, QEMU),
) -> list[Finding]:
    """The check's findings, given what its signature asks for."""
    seen: dict[str, list[Any]] = {"MellanoxDevices": [source, target], "VfSurroundings": [around], "Qemu": list(qemu)}
    given: dict[str, Any] = {"GuestNics": guest, "GuestDevices": others, "GuestState": RUNNING, "Policy": POLICY}
    arguments = []
    for parameter in check.parameters:
        name = parameter.kind.__name__
        arguments.append(given[name] if name in given else seen[name].pop(0))
    return list(check.function(*arguments))


CHECKS = [value for value in vars(mellanox).values() if isinstance(value, Check)]
HOST_CHECKS = [c for c in CHECKS if c.scope is Scope.HOST]
GUEST_CHECKS = [c for c in CHECKS if c.scope in (Scope.GUEST, Scope.PLACEMENT)]


def test_scopes() -> None:
    assert len(HOST_CHECKS) + len(GUEST_CHECKS) == len(CHECKS)
    assert {c.id for c in GUEST_CHECKS} == {c.id for c in CHECKS if c.id.startswith("mellanox.vf_")}


@pytest.mark.parametrize("check", HOST_CHECKS, ids=lambda c: c.id)
def test_host_notes_disturb_nobody(check: Check) -> None:
    assert check.blocks is Blocks.NOTHING
    assert check.severity < Severity.MEDIUM
    assert judge(check) == []
    with pytest.raises(NotApplicable):
        judge(check, source=NO_CARD)


@pytest.mark.parametrize("check", GUEST_CHECKS, ids=lambda c: c.id)
@pytest.mark.parametrize("source", [NO_CARD, GOOD, UNREADABLE])
def test_guests_without_a_vf_are_not_disturbed(check: Check, source: MellanoxDevices) -> None:
    around = VfSurroundings(UNREAD, UNREAD, UNREAD)
    with pytest.raises(NotApplicable):
        judge(check, source=source, target=UNREADABLE, around=around, guest=WITHOUT)


@pytest.mark.parametrize("check", GUEST_CHECKS, ids=lambda c: c.id)
def test_a_team_that_libvirt_unplugs_is_not_judged(check: Check) -> None:
    with pytest.raises(NotApplicable):
        judge(check, target=NO_CARD, guest=nics(nic(teaming="transient")))


@pytest.mark.parametrize("check", GUEST_CHECKS, ids=lambda c: c.id)
def test_a_vf_with_all_it_needs(check: Check) -> None:
    findings = judge(check)
    assert [f.actual for f in findings] == (
        ["Mellanox VF 0000:e1:00.1"] if check is mellanox.vf_technology_preview else []
    )


@pytest.mark.parametrize("check", GUEST_CHECKS, ids=lambda c: c.id)
def test_a_vf_given_as_hostdev_is_one_too(check: Check) -> None:
    other = devices(HostDevice("pci", "0000:e1:00.1", None, None, None))
    assert judge(check, guest=WITHOUT, others=other) == judge(check)


BAD_FIRMWARE = pf(vf(), firmware_state=Firmware("28.35.2000", "28.35.2000", "MT_0000000844"))
STAGED_FIRMWARE = pf(vf(), firmware_state=Firmware("28.35.2000", "28.43.1014", "MT_0000000844"))
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
        ("connectx7", "vf_device", OLD_CARD, "ConnectX-6 Dx", ""),
        ("connectx7", "vf_device", INFINIBAND, "InfiniBand", f"mstconfig -d {BDF} set LINK_TYPE_P1=2"),
        ("firmware", "vf_firmware", BAD_FIRMWARE, "runs 28.35.2000", f"mstflint -d {BDF} -i FIRMWARE.bin burn"),
        ("firmware", "vf_firmware", STAGED_FIRMWARE, "28.43.1014 is stored", f"mstfwreset -d {BDF} reset"),
        ("migration_mode", "vf_migration_mode", MODE_OFF, "MIGRATION_DISABLED(1)", "set VF_MIGRATION_MODE=2"),
        ("migration_mode", "vf_migration_mode", MODE_PENDING, "DEVICE_DEFAULT(0), MIGR", f"mstfwreset -d {BDF} reset"),
        ("migration_mode", "vf_migration_mode", MODE_NEXT_ONLY, "DEVICE_DEFAULT(0) at the", "VF_MIGRATION_MODE=2"),
        ("migration_mode", "vf_migration_mode", MODE_UNSUPPORTED, "does not know", "VF_MIGRATION_MODE=2"),
        ("switchdev", "vf_switchdev", LEGACY, "legacy", f"devlink dev eswitch set pci/{BDF} mode switchdev"),
        ("migratable", "vf_migratable", NOT_MIGRATABLE, "disable", f"set pci/{BDF}/1 migratable enable"),
    ],
)
def test_a_card_that_is_not_ready(host_check: str, vf_check: str, broken: Pf, actual: str, remedy: str) -> None:
    [note] = judge(getattr(mellanox, host_check), source=host(broken))
    check = getattr(mellanox, vf_check)
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
    placement = mellanox.vf_device if check == "connectx7" else getattr(mellanox, f"vf_{check}")
    with pytest.raises(Unavailable):
        judge(placement, target=unknown)


@pytest.mark.parametrize("check", GUEST_CHECKS, ids=lambda c: c.id)
def test_a_pci_device_on_a_host_that_tells_nothing_is_unknown(check: Check) -> None:
    with pytest.raises(Unavailable):
        judge(check, source=UNREADABLE)


@pytest.mark.parametrize(
    "check",
    [mellanox.vf_iommu, mellanox.vf_network, mellanox.vf_openvswitch_settings, mellanox.iommu],
    ids=lambda c: c.id,
)
def test_surroundings_that_are_not_told_are_unknown(check: Check) -> None:
    with pytest.raises(Unavailable):
        judge(check, around=VfSurroundings(UNREAD, UNREAD, UNREAD))


def test_what_is_known_comes_before_what_is_not() -> None:
    found = mellanox.vf_migration_mode.function(
        WITH_VF, NOTHING_ELSE, host(pf(vf(), vf_migration_state=UNREAD)), host(MODE_OFF)
    )
    assert "target" in next(found).expected
    with pytest.raises(Unavailable):
        next(found)


def test_the_threshold_is_the_policys() -> None:
    strict = Policy(mellanox_min_firmware="28.100.0")
    [finding] = mellanox.firmware.function(GOOD, strict)
    assert finding.expected == "firmware 28.100.0 or newer"


def test_between_red_hats_minimum_and_nvidias() -> None:
    between = host(pf(firmware_state=Firmware("28.36.1010", None, None)))
    assert judge(mellanox.firmware, source=between) == []
    [finding] = judge(mellanox.recommended_firmware, source=between)
    assert "28.36.1010" in finding.actual


def test_changes_that_wait_for_a_reset() -> None:
    [finding] = judge(mellanox.firmware_active, source=host(STAGED_FIRMWARE))
    assert finding.expected.startswith("28.43.1014")
    leaving = pf(vf_migration_state=VfMigrationMode(supported=True, current=2, next_boot=0))
    [finding] = judge(mellanox.migration_mode_stays, source=host(leaving))
    assert "DEVICE_DEFAULT(0) at the next boot" in finding.actual


def test_tools_and_driver_of_the_host() -> None:
    assert judge(mellanox.mstflint, source=host(pf(), mstflint=False))
    assert judge(mellanox.variant_driver, source=host(pf(), module=False))
    assert judge(mellanox.vf_driver_on_target, target=host(pf(vf()), module=False))
    with pytest.raises(Unavailable):
        judge(mellanox.vf_driver_on_target, target=host(pf(vf()), module=UNREAD))


def test_a_card_without_vfs_needs_no_switch() -> None:
    bare = host(pf(eswitch_state="legacy", uplink=None))
    for check in (mellanox.switchdev, mellanox.link, mellanox.openvswitch, mellanox.migratable, mellanox.connectx7):
        with pytest.raises(NotApplicable):
            judge(check, source=bare)


@pytest.mark.parametrize("driver", ["vfio-pci", None])
def test_driver_of_the_running_vf(driver: str | None) -> None:
    assert judge(mellanox.vf_driver, source=host(pf(vf(driver=driver))))
    shut_off = GuestState("shut off", active=False, persistent=True)
    with pytest.raises(NotApplicable):
        list(mellanox.vf_driver.function(shut_off, WITH_VF, NOTHING_ELSE, host(pf(vf(driver=driver)))))


def test_viommu() -> None:
    assert judge(mellanox.vf_without_viommu, others=devices(viommu=True))
    assert mellanox.vf_without_viommu.blocks is Blocks.MIGRATION


def test_qemu_that_does_not_migrate_vfio_devices() -> None:
    old = Qemu(Version(8, 0, 5))
    assert mellanox.vf_qemu.blocks is Blocks.MIGRATION
    for qemu, side in (((old, QEMU), "source"), ((QEMU, old), "target")):
        [finding] = judge(mellanox.vf_qemu, qemu=qemu)
        assert (finding.expected, finding.actual) == (f"{side}: QEMU 8.1 or newer", "QEMU 8.0.5")


def test_five_vfs_of_one_port() -> None:
    source = host(pf(*(vf(number) for number in range(5))))
    guest = nics(*(nic(pci_address=f"0000:e1:00.{number}") for number in range(1, 6)))
    [finding] = judge(mellanox.vf_count, source=source, guest=guest)
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
    [finding] = judge(mellanox.vf_on_target, target=target)
    assert (finding.actual, finding.remedy) == (actual, remedy)


def test_whether_the_targets_vf_is_free_is_unknown() -> None:
    with pytest.raises(Unavailable):
        judge(mellanox.vf_on_target, target=host(pf(vf(held_state=UNREAD))))


def test_two_vfs_need_two() -> None:
    source, guest = host(pf(vf(0), vf(1))), nics(nic(), nic(pci_address="0000:e1:00.2"))
    assert judge(mellanox.vf_on_target, source=source, guest=guest)
    assert judge(mellanox.vf_on_target, source=source, guest=guest, target=host(pf(vf(0), vf(5)))) == []


def test_a_vf_at_another_address() -> None:
    elsewhere = host(pf(vf(0, held_state=True), vf(2)))
    [finding] = judge(mellanox.vf_address, target=elsewhere)
    assert finding.actual == "VF at 0000:e1:00.3"
    assert judge(mellanox.vf_address, target=elsewhere, guest=nics(nic(network="pool"))) == []
    assert mellanox.vf_address.blocks is Blocks.NOTHING


def test_the_readier_of_two_vfs_is_looked_at() -> None:
    unready = vf(2, port_state=DevlinkPort(f"pci/{BDF}/3", migratable=False))
    assert judge(mellanox.vf_migratable, target=host(pf(unready, vf(4)))) == []


def test_a_target_without_vfs_is_judged_by_its_card() -> None:
    bare = replace(BAD_FIRMWARE, vfs=())
    assert judge(mellanox.vf_firmware, target=host(bare))
    assert judge(mellanox.vf_migratable, target=host(bare)) == []
    with pytest.raises(NotApplicable, match="no Mellanox device"):
        judge(mellanox.vf_firmware, target=NO_CARD)


def test_same_firmware_and_psid() -> None:
    other = pf(vf(), firmware_state=Firmware("28.42.1000", None, "MT_0000001244"))
    assert [f.actual for f in judge(mellanox.vf_same_firmware, target=host(other))] == [
        f"target: {BDF} runs 28.42.1000",
        f"target: {BDF} has MT_0000001244",
    ]
    padded = pf(vf(), firmware_state=Firmware("28.43.01014", None, "MT_0000000844"))
    assert judge(mellanox.vf_same_firmware, target=host(padded)) == []
    assert mellanox.vf_same_firmware.blocks is Blocks.NOTHING
    with pytest.raises(Unavailable, match="PSID"):
        judge(mellanox.vf_same_firmware, target=host(pf(vf(), firmware_state=Firmware("28.43.1014", None, None))))


def test_older_libvirt_has_to_be_told_the_driver() -> None:
    around = replace(AROUND, libvirt_state=Libvirt(Version(9, 10, 0), Version(9, 10, 0)))
    free = host(pf(vf(driver="mlx5_core")))
    assert judge(mellanox.vf_driver_chosen, target=free, around=around)
    assert judge(mellanox.vf_driver_chosen, target=free) == []
    assert judge(mellanox.vf_driver_chosen, around=around) == []  # bound beforehand
    told = nics(nic(driver="mlx5_vfio_pci"))
    assert judge(mellanox.vf_driver_chosen, target=free, around=around, guest=told) == []


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
    [finding] = judge(mellanox.vf_iommu, around=around)
    assert remedy in note.remedy
    assert finding.actual == note.actual
    assert "no IOMMU groups" in finding.actual


def test_a_vf_without_acs() -> None:
    shared = host(pf(vf(isolated=False)))
    assert "shares" in judge(mellanox.iommu, source=shared)[0].actual
    assert "shares" in judge(mellanox.vf_iommu, target=shared)[0].actual
    assert judge(mellanox.vf_iommu, source=shared) == []  # it runs there


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
    assert judge(mellanox.vf_network, around=around)[0].expected == f"target: {expected}"


def test_a_bridge_of_the_kernel_does_as_well() -> None:
    none = replace(AROUND, openvswitch_state=OpenVswitch(False, False, "not installed"))
    bridged = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "up", "br0"))))
    assert judge(mellanox.vf_network, target=bridged, around=none) == []


def test_a_representor_in_no_bridge() -> None:
    loose = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "up", None))))
    [finding] = judge(mellanox.vf_network, target=loose)
    assert finding.remedy == "ovs-vsctl add-port BRIDGE rep0"
    assert finding.actual == "rep0 is in none"
    assert judge(mellanox.openvswitch, source=loose)
    unread = replace(AROUND, openvswitch_state=replace(OVS, database_state="permission denied"))
    with pytest.raises(Unavailable, match="permission denied"):
        judge(mellanox.vf_network, target=loose, around=unread)
    assert judge(mellanox.vf_network, around=unread) == []  # ovs-system is its master: in some bridge


@pytest.mark.parametrize(
    ("uplink", "actual"),
    [
        (Netdev("enp225s0np0", "p0", "down", "ovs-system"), "is down"),
        (None, "no network interface"),
    ],
)
def test_no_link_on_the_target(uplink: Netdev | None, actual: str) -> None:
    down = host(pf(vf(), uplink=uplink))
    [finding] = judge(mellanox.vf_network, target=down)
    assert actual in finding.actual
    assert judge(mellanox.link, source=down)
    assert judge(mellanox.vf_network, source=down) == []


def test_settings_of_open_vswitch() -> None:
    bare = replace(OVS, database_state=Database(frozenset({("max-idle", "10000")}), ()))
    around = replace(AROUND, openvswitch_state=bare)
    target = host(pf(vf(), uplink=Netdev("enp225s0np0", "p0", "up", None)))
    findings = judge(mellanox.vf_openvswitch_settings, target=target, around=around)
    assert [f.actual for f in findings] == ["hw-offload=not set", "max-idle=10000", "enp225s0np0 is in none"]
    assert mellanox.vf_openvswitch_settings.blocks is Blocks.NOTHING


def test_names_from_the_host_are_quoted() -> None:
    nasty = host(pf(vf(), uplink=Netdev("a;reboot", "p0", "down", None)))
    [finding] = judge(mellanox.link, source=nasty)
    assert finding.remedy == "ip link set 'a;reboot' up"
