from dataclasses import replace

import pytest

from audit.check import NotApplicable
from audit.facts.base import Unavailable
from audit.facts.cpu import CAPABILITIES
from audit.facts.guest import GuestMachine, GuestState
from audit.facts.machines import Machine, MachineList, MachineTypes
from audit.facts.versions import Libvirt, Version
from checks import machines as checks
from tests.asked import found

GUEST = GuestMachine("kvm", "x86_64", "pc-q35-9.0", None, None, None, None)
RUNNING, OFF = GuestState("running", True, True), GuestState("shut off", False, True)
LIBVIRT = Libvirt(Version(9, 0, 0), Version(9, 0, 0))


def host(*versions, virttype="kvm", arch="x86_64"):
    names = [f"pc-q35-{version}" for version in versions]
    machines = [Machine(name, None, name.endswith("-2.0"), None) for name in names]
    machines.append(Machine("q35", names[-1], False, None))
    return MachineTypes(arch, (MachineList(virttype, arch, "/usr/bin/qemu", tuple(machines)),))


def test_machine_offered():
    assert not found(checks.machine_offered, GUEST, RUNNING, host("8.0", "9.0", "10.0"), LIBVIRT)
    [finding] = found(checks.machine_offered, GUEST, RUNNING, host("7.2", "8.0"), LIBVIRT)
    assert (finding.expected, finding.actual) == ("pc-q35-9.0", "not offered; a new guest there gets pc-q35-8.0")
    assert not found(checks.machine_offered, replace(GUEST, machine="q35"), RUNNING, host("8.0"), LIBVIRT), (
        "a shut-off guest's alias"
    )
    with pytest.raises(NotApplicable):
        found(checks.machine_offered, replace(GUEST, virttype="qemu"), RUNNING, host("9.0"), LIBVIRT)


def test_a_definition_alone():
    older, newer = (Libvirt(version, version) for version in (Version(9, 0, 0), Version(11, 3, 0)))
    for check, takes, refuses in ((checks.machine_offered, older, newer), (checks.machine_starts, newer, older)):
        with pytest.raises(NotApplicable):
            found(check, GUEST, OFF, host("8.0"), takes)
        assert len(found(check, GUEST, OFF, host("8.0"), refuses)) == 1
        assert not found(check, GUEST, OFF, host("9.0"), refuses)
    with pytest.raises(NotApplicable):
        found(checks.machine_starts, GUEST, RUNNING, host("8.0"), older)


@pytest.mark.corpus
def test_machine_types_of_real_hosts(said, samples):
    """What a host lists it takes; another distribution's machine types and those that are gone it does not."""
    tried = 0
    for path in samples("virsh-capabilities"):
        try:
            target = MachineTypes.parse(said({CAPABILITIES.name: path.read_bytes()}))
        except Unavailable:
            continue  # an error message
        for one in target.lists:
            guest = replace(GUEST, virttype=one.virttype, arch=one.arch)
            for machine in one.machines:
                assert not found(checks.machine_offered, replace(guest, machine=machine.name), RUNNING, target, LIBVIRT)
            for name in ("pc-q35-rhel99.0.0", "pc-q35-jammy-x", "pc-i440fx-1.0.99"):
                assert found(checks.machine_offered, replace(guest, machine=name), RUNNING, target, LIBVIRT)
            tried += 1
    assert tried


def test_machine_not_deprecated():
    old = replace(GUEST, machine="pc-q35-2.0")
    assert found(checks.machine_not_deprecated, old, host("2.0", "9.0"))
    assert not found(checks.machine_not_deprecated, GUEST, host("2.0", "9.0"))
    assert not found(checks.machine_not_deprecated, old, host("9.0")), "not there at all: another check's affair"


def test_common_newest():
    assert not found(checks.common_newest, host("8.0"), host("8.0", "9.0"))
    [finding] = found(checks.common_newest, host("8.0", "9.0"), host("8.0"))
    assert finding.expected == "pc-q35-9.0"
    for source, target in (
        (host("8.0"), host("8.0", virttype="qemu")),
        (host("8.0", virttype="qemu"), host("8.0")),
        (host("8.0"), host("8.0", arch="i686")),
    ):
        with pytest.raises(NotApplicable):
            found(checks.common_newest, source, target)
