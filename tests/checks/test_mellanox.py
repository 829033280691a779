"""Notes about hosts whose Mellanox VFs cannot move yet."""

from dataclasses import replace

import pytest

from audit.catalogue import requirements
from audit.check import Blocks, Check, NotApplicable, Policy, Scope, Severity, Unavailable
from audit.facts.mellanox import Iommu, MellanoxDevices, Netdev
from audit.facts.mellanox_tools import Firmware, VfMigrationMode
from checks import mellanox
from checks import vf as vf_checks
from tests.mellanox_hosts import AROUND, GOOD, NO_CARD, STAGED_FIRMWARE, UNREAD, UNREADABLE, UNTOLD, host, judge, pf, vf

CHECKS = [value for value in vars(mellanox).values() if isinstance(value, Check)]


def test_scopes() -> None:
    assert {c.scope for c in CHECKS} == {Scope.HOST}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_host_notes_disturb_nobody(check: Check) -> None:
    assert check.blocks is Blocks.NOTHING
    assert check.severity < Severity.MEDIUM
    assert judge(check) == []
    with pytest.raises(NotApplicable):
        judge(check, source=NO_CARD)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_cards_that_could_not_be_listed_are_unknown(check: Check) -> None:
    with pytest.raises(Unavailable, match="no root"):
        judge(check, source=UNREADABLE)


@pytest.mark.parametrize(
    ("check", "unread"),
    [
        (mellanox.firmware, host(pf(firmware_state=UNREAD))),
        (mellanox.recommended_firmware, host(pf(firmware_state=UNREAD))),
        (mellanox.firmware_active, host(pf(firmware_state=UNREAD))),
        (mellanox.migration_mode, host(pf(vf_migration_state=UNREAD))),
        (mellanox.migration_mode_stays, host(pf(vf_migration_state=UNREAD))),
        (mellanox.mstflint, host(pf(), mstflint=UNREAD)),
        (mellanox.variant_driver, host(pf(), module=UNREAD)),
        (mellanox.switchdev, host(pf(vf(), eswitch_state=UNREAD))),
        (mellanox.migratable, host(pf(vf(port_state=UNREAD)))),
    ],
)
def test_what_a_card_does_not_tell_is_unknown(check: Check, unread: MellanoxDevices) -> None:
    with pytest.raises(Unavailable, match="no root"):
        judge(check, source=unread)


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


def test_a_card_without_vfs_needs_no_switch() -> None:
    bare = host(pf(eswitch_state="legacy", uplink=None))
    for check in (mellanox.switchdev, mellanox.link, mellanox.openvswitch, mellanox.migratable, mellanox.connectx7):
        with pytest.raises(NotApplicable):
            judge(check, source=bare)


def test_names_from_the_host_are_quoted() -> None:
    nasty = host(pf(vf(), uplink=Netdev("a;reboot", "p0", "down", None)))
    [finding] = judge(mellanox.link, source=nasty)
    assert finding.remedy == "ip link set 'a;reboot' up"


def test_iommu_passthrough_is_a_mere_note() -> None:
    translated = replace(AROUND, iommu_state=Iommu(97, frozenset({"DMAR"}), ("intel_iommu=on",)))
    [finding] = judge(mellanox.iommu_passthrough, around=translated)
    assert finding.remedy.startswith('grubby --args="iommu=pt"')
    assert mellanox.iommu_passthrough.severity is Severity.INFO
    for arguments in (("iommu=pt",), ("iommu.passthrough=1",), ("iommu=soft,pt",)):
        around = replace(AROUND, iommu_state=Iommu(97, frozenset({"IVRS"}), arguments))
        assert judge(mellanox.iommu_passthrough, around=around) == []
    off = replace(AROUND, iommu_state=Iommu(0, frozenset({"DMAR"}), ()))
    assert judge(mellanox.iommu_passthrough, around=off) == []  # another check's
    with pytest.raises(Unavailable):
        judge(mellanox.iommu_passthrough, around=UNTOLD)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.id)
def test_every_check_says_what_it_covers(check: Check) -> None:
    assert check.covers


def test_every_requirement_of_the_section_is_covered() -> None:
    wanted = {row.id for row in requirements() if row.id.startswith("12.8/") and not row.same_as}
    checked = {
        row for made in (mellanox, vf_checks) for c in vars(made).values() if isinstance(c, Check) for row in c.covers
    }
    assert sorted(wanted - checked) == []
