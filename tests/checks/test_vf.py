"""What a guest's Mellanox VF needs to move, on both hosts; and that the notes about the hosts say the same."""

import contextlib
import re
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from audit.check import Blocks, Check, NotApplicable, Scope, Unavailable
from audit.facts.guest import GuestState
from audit.facts.guest_devices import HostDevice, KeptDevices
from audit.facts.mellanox import Iommu, MellanoxDevices, Netdev, Pf
from audit.facts.mellanox_tools import DevlinkPort, Firmware, VfMigrationMode
from audit.facts.openvswitch import Bridge, Database, OpenVswitch
from audit.facts.versions import Libvirt, Qemu, Version
from audit.report_words import command
from checks import mellanox
from checks import vf as checks
from tests.asked import found
from tests.mellanox_hosts import (
    AROUND,
    BAD_FIRMWARE,
    BDF,
    GOOD,
    MAC,
    NO_CARD,
    NOTHING_ELSE,
    OVS,
    QEMU,
    STAGED_FIRMWARE,
    UNREAD,
    UNREADABLE,
    UNTOLD,
    WEB,
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
NOTES = [value for value in vars(mellanox).values() if isinstance(value, Check)]


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
    said = {
        checks.technology_preview: ["Mellanox VF 0000:e1:00.1"],
        checks.limits: ["neither, with the Mellanox VF 0000:e1:00.1"],
    }
    assert [f.actual for f in judge(check)] == said.get(check, [])


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_a_vf_given_as_hostdev_is_one_too(check: Check) -> None:
    other = devices(HostDevice("pci", "0000:e1:00.1", None, None, None, managed=True))
    found = [finding.actual for finding in judge(check, guest=WITHOUT, others=other)]
    if check is checks.mac:
        assert found == ["0000:e1:00.1 is given as <hostdev>"]
    else:
        assert found == [finding.actual for finding in judge(check)]


VF_XML = (
    "<interface type='hostdev' managed='yes'><mac address='52:54:00:56:8c:f7'/>"
    "<source><address type='pci' domain='0x0000' bus='0xe1' slot='0x00' function='0x1'/></source></interface>"
)
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
    unread = host(pf(vf(), vf_migration_state=UNREAD))
    for source, target, side in ((unread, host(MODE_OFF), "target"), (host(MODE_OFF), unread, "source")):
        [finding] = judge(checks.migration_mode, source=source, target=target)
        assert finding.expected.startswith(side)


def test_driver_of_the_target() -> None:
    assert judge(checks.driver_on_target, target=host(pf(vf()), module=False))
    with pytest.raises(Unavailable):
        judge(checks.driver_on_target, target=host(pf(vf()), module=UNREAD))


@pytest.mark.parametrize("driver", ["vfio-pci", None])
def test_driver_of_the_running_vf(driver: str | None) -> None:
    [finding] = judge(checks.driver, source=host(pf(vf(driver=driver))))
    assert finding.remedy == (
        f"echo \"{VF_XML}\" > vf.xml && virsh detach-device 'web 1' vf.xml --live"
        " && virsh attach-device 'web 1' vf.xml --live"
    )
    shut_off = GuestState("shut off", active=False, persistent=True)
    with pytest.raises(NotApplicable):
        list(checks.driver.function(shut_off, WITH_VF, NOTHING_ELSE, host(pf(vf(driver=driver))), WEB))


def test_viommu() -> None:
    assert judge(checks.without_viommu, others=devices(viommu=True))
    with pytest.raises(Unavailable, match=r"whether QEMU 10\.2\.0 lets a VFIO device migrate"):
        judge(checks.without_viommu, others=devices(viommu=True), qemu=(Qemu(Version(10, 2)), QEMU))
    assert checks.without_viommu.blocks is Blocks.MIGRATION


def test_qemu_that_does_not_migrate_vfio_devices() -> None:
    old, backported = Qemu(Version(7, 2, 22)), Qemu(Version(8, 0, 0))
    assert checks.qemu.blocks is Blocks.MIGRATION
    for qemu, side in (((old, QEMU), "source"), ((QEMU, old), "target")):
        [finding] = judge(checks.qemu, qemu=qemu)
        assert (finding.expected, finding.actual) == (f"{side}: QEMU 8.1 or newer", "QEMU 7.2.22")
    for qemu in ((backported, QEMU), (QEMU, backported)):  # RHEL 9.3 has 8.1's migration in its 8.0.0
        with pytest.raises(Unavailable, match=r"whether this QEMU 8\.0\.0 has 8\.1's"):
            judge(checks.qemu, qemu=qemu)


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
    told = nics(nic(driver="mlx5_vfio_pci"))  # which libvirt before 10.0.0 does not read
    assert judge(checks.driver_chosen, target=free, around=around, guest=told)


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
    assert finding.remedy == "ovs-vsctl add-port br0 rep0"
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
    loose = host(pf(vf(), uplink=Netdev("enp225s0np0", "p0", "up", None)))
    findings = judge(checks.openvswitch_settings, source=loose, target=loose, around=around)
    faults = ["hw-offload=not set", "max-idle=10000", "enp225s0np0 is in none; Open vSwitch has no bridge"]
    assert [f.actual for f in findings] == faults * 2
    assert [f.expected.partition(":")[0] for f in findings] == ["source"] * 3 + ["target"] * 3
    assert findings[2].remedy == "ovs-vsctl add-br br-vf && ovs-vsctl add-port br-vf enp225s0np0"
    assert checks.openvswitch_settings.blocks is Blocks.NOTHING
    bridged = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "up", "br0"))))
    assert judge(checks.openvswitch_settings, source=bridged, target=bridged, around=around) == []
    spelt = replace(OVS, database_state=Database(frozenset({("hw-offload", "True"), ("max-idle", "300000")}), ()))
    assert judge(checks.openvswitch_settings, around=replace(AROUND, openvswitch_state=spelt)) == []


def test_which_bridge_to_plug_into() -> None:
    loose = host(pf(vf(representor=Netdev("rep 0", "pf0vf0", "up", None))))
    elsewhere = replace(pf(vf(representor=Netdev("rep0", "pf0vf0", "up", None))), uplink=None)
    several = (Bridge("br0", frozenset({"br0"})), Bridge("br1", frozenset({"br1", "enp225s0np0"})))
    around = replace(AROUND, openvswitch_state=replace(OVS, database_state=Database(frozenset(), several)))
    beside = [f for f in judge(checks.network, target=loose, around=around) if "bridge" in f.expected]
    assert [f.remedy for f in beside] == ["ovs-vsctl add-port br1 'rep 0'"]
    any_of = [f for f in judge(checks.network, target=host(elsewhere), around=around) if "bridge" in f.expected]
    assert [f.remedy for f in any_of] == ["ovs-vsctl add-port br0 rep0  # or another of: br0 br1"]


def test_a_representor_that_is_not_seen_is_unknown() -> None:
    blind = host(pf(vf(representor=None)))
    for run in (lambda: judge(checks.network, target=blind), lambda: judge(mellanox.openvswitch, source=blind)):
        with pytest.raises(Unavailable, match="representor is not seen"):
            run()
    assert judge(checks.network, target=host(LEGACY)) == []  # there is none; another check tells why


def test_a_representor_that_is_down_cuts_the_vf_off() -> None:
    down = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "down", "ovs-system"))))
    [finding] = judge(checks.network, target=down)
    assert (finding.actual, finding.remedy) == ("rep0 (0000:e1:00.1) is down", "ip link set rep0 up")
    untold = host(pf(vf(representor=Netdev("rep0", "pf0vf0", "-", "ovs-system"))))
    with pytest.raises(Unavailable, match="does not tell"):
        judge(checks.network, target=untold)


def test_a_vf_in_no_group_is_unknown_where_the_iommu_is_on() -> None:
    lost = host(pf(vf(isolated=None)))
    with pytest.raises(Unavailable, match="no IOMMU group"):
        judge(checks.iommu, target=lost)
    off = replace(AROUND, iommu_state=Iommu(0, frozenset({"DMAR"}), ()))
    [finding] = judge(checks.iommu, target=lost, around=off)
    assert "no IOMMU groups" in finding.actual


def test_what_the_operator_is_told_of_the_preview() -> None:
    [finding] = judge(checks.technology_preview)
    migrate, _, look, ping = finding.remedy.splitlines()
    assert migrate == "virsh migrate --live --domain 'web 1' --desturi qemu+ssh://TARGET/system"
    assert look == "ip -br link | grep -i -e 52:54:00:56:8c:f7"
    assert ping.startswith("ping -c 3 -I ")
    assert "--postcopy" in judge(checks.limits)[0].remedy


@pytest.mark.parametrize("mac", [None, "", "52:54:00:56:8c:f7'; reboot", "nonsense"])
def test_an_interface_without_a_mac_address(mac: str | None) -> None:
    [finding] = judge(checks.mac, guest=nics(nic(mac=mac)))
    assert finding.actual == "0000:e1:00.1 is given without one"
    assert "reboot" not in finding.remedy


def test_a_vf_of_the_running_guest_only() -> None:
    nothing = KeptDevices(frozenset(), frozenset())
    [finding] = judge(checks.kept, saved=nothing)
    assert finding.remedy == f"echo \"{VF_XML}\" > vf.xml && virsh attach-device 'web 1' vf.xml --config"
    assert judge(checks.kept, saved=KeptDevices(frozenset({MAC}), frozenset())) == []  # of a pool: no address
    other = devices(HostDevice("pci", "0000:e1:00.1", None, None, None))
    [finding] = judge(checks.kept, guest=WITHOUT, others=other, saved=nothing)
    assert "<hostdev mode='subsystem'" in finding.remedy
    for state in (GuestState("running", True, False), GuestState("shut off", False, True)):
        with pytest.raises(NotApplicable):
            found(checks.kept, state, WITH_VF, NOTHING_ELSE, GOOD, nothing, WEB)


@pytest.mark.parametrize(("driver", "managed", "fails"), [
    ("mlx5_core", False, True), (None, False, True), ("vfio-pci", False, True), ("mlx5_vfio_pci", False, False),
    ("mlx5_core", True, False), (None, True, False),
])  # fmt: skip
def test_an_unmanaged_vf_has_to_be_bound_beforehand(driver: str | None, managed: bool, fails: bool) -> None:
    target = host(pf(vf(driver=driver)))
    findings = judge(checks.detached, target=target, guest=nics(nic(managed=managed)))
    assert [f.remedy for f in findings] == [
        "virsh nodedev-detach pci_0000_e1_00_1 --driver mlx5_vfio_pci",
    ] * fails
    assert judge(checks.detached, target=host(pf()), guest=nics(nic(managed=managed))) == []
    assert checks.detached.blocks is Blocks.MIGRATION


def test_a_vf_that_a_guest_has_is_first_taken_from_it() -> None:
    held = host(pf(vf(held_state=True, port_state=DevlinkPort(f"pci/{BDF}/1", migratable=False))))
    [finding] = judge(checks.migratable, source=held)
    steps = finding.remedy.split(" && ")
    assert [step.split()[0:2] for step in steps] == [
        ["echo", '"<interface'],
        ["virsh", "detach-device"],
        ["virsh", "nodedev-detach"],
        ["devlink", "port"],
        ["virsh", "attach-device"],
    ]
    unbound = host(pf(vf(driver=None, port_state=DevlinkPort(f"pci/{BDF}/1", migratable=False))))
    [finding] = judge(checks.migratable, target=unbound)
    assert finding.remedy == f"devlink port function set pci/{BDF}/1 migratable enable"


def test_addresses_are_swapped_in_the_xml_at_once() -> None:
    """The remedy's own command, on XML as libvirt prints it; the guest's own addresses stay."""
    source, guest = host(pf(vf(0), vf(1))), nics(nic(), nic(pci_address="0000:e1:00.2", mac=None))
    target = host(pf(vf(1, held_state=True), vf(0, held_state=True), vf(2), vf(1, address="0000:e1:00.4")))
    first, second = judge(checks.address, source=source, target=target, guest=guest)
    assert first.remedy == second.remedy
    [script] = re.findall(r'sed "(.*)" > to.xml', first.remedy)
    given = "<source>\n{}\n</source>\n{}\n"
    old = [f"  <address type='pci' domain='0x0000' bus='0xe1' slot='0x00' function='0x{n}'/>" for n in (1, 2, 3, 4)]
    text = given.format(old[0], old[0]) + given.format(old[1], old[1])
    done = subprocess.run(["sed", script], input=text, capture_output=True, text=True, check=True)
    assert done.stdout == given.format(old[2], old[0]) + given.format(old[3], old[1])


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        (host(pf(total_vfs=0)), f"mstconfig -d {BDF} set SRIOV_EN=1 NUM_OF_VFS=1 && mstfwreset -d {BDF} reset"),
        (host(pf(device_id=0x101D)), ""),
    ],
)
def test_how_to_make_a_vf(target: MellanoxDevices, remedy: str) -> None:
    assert judge(checks.on_target, target=target)[0].remedy == remedy


def test_vfs_are_made_anew_only_where_nobody_has_one() -> None:
    source, guest = host(pf(vf(0), vf(1))), nics(nic(), nic(pci_address="0000:e1:00.2"))
    path = f"/sys/bus/pci/devices/{BDF}/sriov_numvfs"
    [finding] = judge(checks.on_target, source=source, guest=guest)
    assert finding.remedy == f"echo 0 > {path} && echo 2 > {path}"
    for busy in (True, UNREAD):
        [finding] = judge(checks.on_target, source=source, guest=guest, target=host(pf(vf(held_state=busy))))
        assert finding.remedy == ""


def test_which_of_two_cards_wants_newer_firmware() -> None:
    older = host(pf(vf(), firmware_state=Firmware("28.42.1000", None, "MT_0000000844")))
    for source, target, side in ((GOOD, older, "target"), (older, GOOD, "source")):
        [finding] = judge(checks.same_firmware, source=source, target=target)
        assert f"# on the {side}" in finding.remedy


NASTY = ("$(reboot)", "`reboot`", "b;reboot")
BROKEN = [
    *(OLD_CARD, INFINIBAND, BAD_FIRMWARE, STAGED_FIRMWARE, MODE_OFF, MODE_UNSUPPORTED, LEGACY, NOT_MIGRATABLE, pf()),
    pf(vf(driver="vfio-pci", isolated=False, held_state=True), uplink=Netdev(NASTY[0], "p0", "down", None)),
    pf(vf(1, representor=Netdev(NASTY[0], "pf0vf1", "down", None), driver=None)),
]


@pytest.mark.parametrize("check", [*CHECKS, *NOTES], ids=lambda c: c.id)
def test_remedies_can_be_pasted(check: Check) -> None:
    """A shell understands every command, and every name of the host's is quoted in it."""
    bridges = tuple(Bridge(name, frozenset()) for name in NASTY[1:])
    around = replace(AROUND, openvswitch_state=replace(OVS, database_state=Database(frozenset(), bridges)))
    remedies = {check.remedy}
    for broken in map(host, BROKEN):
        for source, target in ((broken, GOOD), (GOOD, broken)):
            with contextlib.suppress(NotApplicable, Unavailable):
                remedies |= {finding.remedy for finding in judge(check, source=source, target=target, around=around)}
    for shown in filter(None, map(command, remedies)):
        if shown.pasteable:
            assert subprocess.run(["sh", "-n", "-c", shown.text]).returncode == 0
            assert not any(name in shown.text.replace(f"'{name}'", "") for name in NASTY)
