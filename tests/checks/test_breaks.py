from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Severity, Unavailable
from audit.cpu import CpuDefinition, CpuFeature, Topology
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.versions import KERNEL, OS_RELEASE, VIRSH, Libvirt, OsRelease, Qemu, Version
from audit.judge import Missing
from checks import breaks as checks

Q35 = GuestMachine("kvm", "x86_64", "pc-q35-7.2", None, None, None, None)
ARM = replace(Q35, arch="aarch64")
DEBIAN = OsRelease("debian", "13", 13, None, "Debian 13", (), "")
ROCKY = OsRelease("rocky", "10.1", 10, 1, "Rocky 10.1", ("rhel", "centos", "fedora"), "")
RHEL = OsRelease("rhel", "9.6", 9, 6, "RHEL 9.6", ("fedora",), "")
GONE = Missing(Unavailable(KERNEL, "gone"))


def guest(plus="", minus="", cores=2, active=True):
    features = [CpuFeature(name) for name in plus.split()] + [CpuFeature(name, "disable") for name in minus.split()]
    definition = CpuDefinition(
        model="Nehalem", check="full", topology=Topology(1, 1, cores, 1), features=tuple(features)
    )
    return GuestCpu(active, definition, None, None, frozenset())


def libvirt(*numbers):
    return Libvirt(Version(*numbers), Version(0))


def qemu(*numbers):
    return Qemu(Version(*numbers))


V9, V10, V11, V12 = libvirt(9), libvirt(10), libvirt(11, 3), libvirt(12)
QEMU10 = qemu(10, 0, 13)


def broken(cpu, source=V9, target=V11, there=QEMU10, here=DEBIAN, system=DEBIAN, machine=Q35):
    return list(checks.no_known_break.function(cpu, machine, source, target, there, here, system))


def risky(cpu, source=V11, target=V10, here=DEBIAN, system=DEBIAN, machine=Q35):
    return list(checks.no_known_risk.function(cpu, machine, source, target, here, system))


def test_no_known_break():
    [finding] = broken(guest())
    assert finding.expected == "libvirt 11.10 or later on the target"
    assert finding.actual == "libvirt 11.3.0, QEMU 10.0.13"
    assert "extra features: ht" in finding.because
    assert not broken(guest(), target=V12)
    assert not broken(guest(), there=qemu(9, 2))
    assert not broken(guest(cores=1))
    [finding] = broken(guest("ht"), V11, V9, qemu(7, 2, 22))
    assert (finding.expected, finding.actual) == ("QEMU 8.2 or later on the target", "libvirt 9.0.0, QEMU 7.2.22")
    assert "missing features: ht" in finding.because
    [finding] = broken(guest("vmx ht"), target=V10, there=qemu(8, 2))
    assert "vmx-" in finding.because


def test_no_known_risk():
    [finding] = risky(guest("ht vmx vmx-ept"))
    assert (finding.expected, finding.actual) == ("libvirt 10.2 or later on the target", "libvirt 10.0.0")
    [finding] = risky(guest("ht vmx", "vmx-ept"), target=libvirt(10, 4))
    assert finding.expected == "libvirt 10.5 or later on the target"
    assert not risky(guest("ht vmx vmx-ept"), source=V10)
    assert not risky(guest("ht vmx", "vmx-ept"), target=libvirt(10, 5))
    assert not risky(guest(), target=V11), "what blocks is not said a second time"


def test_where_the_vendor_supports_the_way_its_build_is_taken_to_be_repaired():
    for judge, cpu in ((broken, guest()), (risky, guest("ht vmx vmx-ept"))):
        with pytest.raises(NotApplicable, match="it supports the way"):
            judge(cpu, here=RHEL, system=RHEL)
        with pytest.raises(Unavailable, match="has the repair"):
            judge(cpu, here=DEBIAN, system=ROCKY)


def test_only_what_is_certain_blocks():
    assert checks.no_known_break.blocks is Blocks.MIGRATION
    assert checks.no_known_risk.blocks is Blocks.NOTHING
    assert checks.no_known_risk.severity is Severity.MEDIUM


def test_a_vendors_build_is_not_judged_by_its_number():
    with pytest.raises(Unavailable, match="has the repair") as unknown:
        broken(guest(), system=ROCKY)
    assert unknown.value.probe is OS_RELEASE
    with pytest.raises(Unavailable) as unknown:
        broken(guest(), system=GONE)
    assert unknown.value.probe is OS_RELEASE


def test_a_version_that_is_not_known():
    for more in ({"target": GONE}, {"there": GONE}, {"there": Qemu(None)}):
        with pytest.raises(Unavailable, match="the target's version of") as unknown:
            broken(guest(), **more)
        assert unknown.value.probe is VIRSH
    assert broken(guest(), source=GONE), "this break does not depend on the source's libvirt"
    assert not broken(guest(cores=1), GONE, GONE, GONE, GONE), "nor a guest that none concerns on anything"
    with pytest.raises(Unavailable, match="the source's version of libvirt"):
        risky(guest("vmx vmx-ept"), source=GONE)


@pytest.mark.parametrize(
    ("cpu", "machine"),
    [(guest(active=False), Q35), (guest(), ARM), (replace(guest(), definition=None), Q35)],
)
def test_only_compared_cpus_of_running_x86_guests(cpu, machine):
    for judge in (broken, risky):
        with pytest.raises(NotApplicable):
            judge(cpu, machine=machine)
