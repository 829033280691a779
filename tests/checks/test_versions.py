from dataclasses import replace

import pytest

from audit.check import NotApplicable, Unavailable
from audit.facts.guest import GuestMachine
from audit.facts.machines import MachineList, MachineTypes
from audit.facts.versions import Bios, Kernel, KernelArguments, Libvirt, OsRelease, Qemu, Version
from checks import versions as checks
from tests.asked import found


def system(name, version):
    major, _, minor = version.partition(".")
    return OsRelease(name, version, int(major), int(minor) if minor else None, f"{name} {version}", (), "")


RHEL90, RHEL94, RHEL86, DEBIAN = (
    system("rhel", "9.0"),
    system("rhel", "9.4"),
    system("rhel", "8.6"),
    system("debian", "12"),
)
SP4, SP5 = system("sles", "15.4"), system("sles", "15.5")
OLD, NEW = Qemu(Version(7, 2, 22)), Qemu(Version(8, 2, 0))


def test_supported_os():
    assert not found(checks.supported_os, RHEL90)
    [finding] = found(checks.supported_os, DEBIAN)
    assert finding.actual == "debian 12"
    assert found(checks.supported_os, system("rhel", "11.0"))


def test_qemu_present():
    assert found(checks.qemu_present, MachineTypes("x86_64", ()))
    assert not found(checks.qemu_present, MachineTypes("x86_64", (MachineList("qemu", "x86_64", "/q", ()),)))


def test_qemu_not_older():
    assert not found(checks.qemu_not_older, OLD, NEW, DEBIAN, DEBIAN)
    [finding] = found(checks.qemu_not_older, NEW, OLD, DEBIAN, DEBIAN)
    assert (finding.expected, finding.actual) == ("QEMU 8.2.0 or later", "QEMU 7.2.22")
    assert not found(checks.qemu_not_older, NEW, OLD, RHEL94, RHEL90), "Red Hat supports this way back"
    assert found(checks.qemu_not_older, NEW, OLD, SP5, SP4)
    micro = Qemu(Version(7, 2, 17))
    assert not found(checks.qemu_not_older, OLD, micro, DEBIAN, DEBIAN), "a bug-fix release is no other QEMU"
    with pytest.raises(NotApplicable):
        found(checks.qemu_not_older, NEW, Qemu(None), DEBIAN, DEBIAN)


def test_libvirt_not_older():
    old, new = (Libvirt(version, version) for version in (Version(9, 0), Version(10, 0)))
    assert found(checks.libvirt_not_older, new, old)
    assert not found(checks.libvirt_not_older, old, new)


def test_os_paths():
    assert not found(checks.os_path_supported, RHEL94, RHEL90)
    assert not found(checks.os_path_stated, RHEL94, RHEL90)
    [finding] = found(checks.os_path_supported, SP5, SP4)
    assert "sles 15.5 → sles 15.4: unsupported" in finding.actual
    assert not found(checks.os_path_stated, SP5, SP4), "said once"
    for source, target in ((RHEL86, RHEL94), (RHEL90, DEBIAN), (RHEL86, RHEL86)):
        assert not found(checks.os_path_supported, source, target)
        assert found(checks.os_path_stated, source, target)
    with pytest.raises(NotApplicable, match="each host"):
        found(checks.os_path_stated, DEBIAN, DEBIAN)
    [finding] = found(checks.os_path_stated, RHEL86, RHEL86)
    assert "unconfirmed" in finding.actual


def test_machine_supported():
    q35 = GuestMachine("kvm", "x86_64", "pc-q35-rhel9.0.0", None, None, None, None)
    pc = replace(q35, machine="pc-i440fx-rhel7.6.0")
    assert not found(checks.machine_supported, q35, RHEL90, RHEL94)
    [finding] = found(checks.machine_supported, pc, RHEL90, RHEL94)
    assert (finding.expected, finding.actual) == ("q35", "pc-i440fx-rhel7.6.0")
    assert not found(checks.machine_supported, pc, RHEL86, RHEL86)
    for machine, source in ((pc, DEBIAN), (replace(pc, arch="s390x"), RHEL90)):
        with pytest.raises(NotApplicable):
            found(checks.machine_supported, machine, source, source)


def test_notes():
    one, other = Kernel("5.14.0-427", "x86_64"), Kernel("5.14.0-503", "x86_64")
    assert found(checks.kernel_equal, one, other)
    assert not found(checks.kernel_equal, one, one)
    plain, off = KernelArguments(("root=UUID=1", "quiet")), KernelArguments(("root=UUID=2", "tsx=off"))
    [finding] = found(checks.kernel_arguments_equal, plain, off)
    assert (finding.expected, finding.actual) == ("none", "tsx=off")
    assert not found(checks.kernel_arguments_equal, plain, KernelArguments(("root=UUID=3",)))
    bios = Bios("Dell", "2.1", "2023", None, "Dell", "R640")
    assert found(checks.bios_equal, bios, replace(bios, version="2.2"))
    assert not found(checks.bios_equal, bios, bios)
    for one, other in ((replace(bios, product=None), replace(bios, product=None)), (bios, replace(bios, version=None))):
        with pytest.raises(Unavailable):
            found(checks.bios_equal, one, other)
    with pytest.raises(NotApplicable):
        found(checks.bios_equal, bios, replace(bios, product="R750"))
