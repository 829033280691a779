from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Scope, Severity, Unavailable
from audit.cpu import CpuDefinition, CpuFeature, Topology
from audit.facts.cpu import Processor
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.guest_offloads import GuestOffloads
from audit.facts.versions import KERNEL, OS_RELEASE, VIRSH, Kernel, KernelArguments, Libvirt, OsRelease, Qemu, Version
from audit.judge import Missing
from checks import breaks as checks

Q35 = GuestMachine("kvm", "x86_64", "pc-q35-7.2", None, None, None, None)
ARM = replace(Q35, arch="aarch64")
DEBIAN = OsRelease("debian", "13", 13, None, "Debian 13", (), "")
ROCKY = OsRelease("rocky", "10.1", 10, 1, "Rocky 10.1", ("rhel", "centos", "fedora"), "")
RHEL = OsRelease("rhel", "9.6", 9, 6, "RHEL 9.6", ("fedora",), "")
ARCHLINUX = OsRelease("arch", "", None, None, "Arch Linux", (), "")
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


K515, K61, K62, K68 = (Kernel(name, "x86_64") for name in ("5.15.0-91", "6.1.0-18", "6.2.16", "6.8.0-45"))
CPU = Processor("Intel family 6", "Xeon", "Intel", None, frozenset({"pku"}), 46, 8)
PLAIN, NET = GuestOffloads(False), GuestOffloads(True)


def broken(cpu, source=V9, target=V11, there=QEMU10, here=DEBIAN, system=DEBIAN, machine=Q35):
    return list(checks.no_known_break.function(cpu, machine, source, target, there, here, system))


def risky(cpu, source=V11, target=V10, here=DEBIAN, system=DEBIAN, machine=Q35, **more):
    facts = {"offloads": PLAIN, "qemu": qemu(8, 2), "kernel": K68, "kernel_there": K68, "processor": CPU} | more
    nets, there, *rest = facts.values()
    return list(checks.no_known_risk.function(cpu, machine, nets, source, target, there, *rest, here, system))


def trapped(cpu, kernel=K68, words="ro quiet", system=DEBIAN, machine=Q35):
    return list(checks.no_known_trap.function(cpu, machine, kernel, KernelArguments(tuple(words.split())), system))


def test_no_known_break():
    [finding] = broken(guest())
    assert finding.expected == "libvirt 11.10 or later on the target"
    assert finding.actual == "libvirt 11.3.0 on the target, QEMU 10.0.13 on the target"
    assert "extra features: ht" in finding.because
    assert not broken(guest(), target=V12)
    assert not broken(guest(), there=qemu(9, 2))
    assert not broken(guest(cores=1))
    [finding] = broken(guest("ht"), V11, V9, qemu(7, 2, 22))
    assert finding.expected == "QEMU 8.2 or later on the target"
    assert "missing features: ht" in finding.because
    [finding] = broken(guest("vmx ht"), target=V10, there=qemu(8, 2))
    assert "vmx-" in finding.because


def test_no_known_risk():
    [finding] = risky(guest("ht vmx vmx-ept"))
    assert finding.expected == "libvirt 10.2 or later on the target"
    assert finding.actual == "libvirt 10.0.0 on the target, libvirt 11.3.0 on the source"
    [finding] = risky(guest("ht vmx", "vmx-ept"), target=libvirt(10, 4))
    assert finding.expected == "libvirt 10.5 or later on the target"
    assert not risky(guest("ht vmx vmx-ept"), source=V10)
    assert not risky(guest("ht vmx", "vmx-ept"), target=libvirt(10, 5))
    assert not risky(guest(), target=V11), "what blocks is not said a second time"


def test_a_kernel_that_refuses_what_another_one_saved():
    [finding] = risky(guest(), kernel=K515, kernel_there=K62, here=ARCHLINUX, system=ARCHLINUX)
    assert "kernel 6.2.16 on the target, kernel 5.15.0 on the source, pku on the source" in finding.actual
    assert "100 %" in finding.because
    assert "Update the target's kernel" in finding.remedy
    assert not risky(guest("pku"), kernel=K515, kernel_there=K62)
    assert not risky(guest(), kernel=K515, kernel_there=K68)
    with pytest.raises(Unavailable, match="has the repair"):
        risky(guest(), kernel=K515, kernel_there=K61)


def test_a_kernel_without_the_offload_that_the_guest_may_use():
    modern = replace(Q35, machine="pc-q35-8.2")
    here = ARCHLINUX
    [finding] = risky(guest(), machine=modern, offloads=NET, kernel_there=K515, here=here, system=here)
    assert finding.expected == "kernel 6.2 or later on the target"
    assert "Features 0x1c0" in finding.because
    assert not risky(guest(), machine=modern, offloads=PLAIN, kernel_there=K515)
    assert not risky(guest(), machine=modern, offloads=NET)
    assert not risky(guest(), offloads=NET, kernel_there=K515), "an older machine type switches it off"
    with pytest.raises(Unavailable, match="gone"):
        risky(guest(), machine=modern, offloads=Missing(Unavailable(VIRSH, "gone")), kernel_there=K515)
    assert not risky(guest(), machine=modern, offloads=GONE, kernel_there=K68), "and where it does not matter"


def test_no_known_trap():
    assert not trapped(guest("rtm"))
    [finding] = trapped(guest("rtm"), words="ro tsx=on")
    assert "noTSX" in finding.remedy
    [finding] = trapped(guest("svm"), kernel=Kernel("5.4.0-26-arch", "x86_64"))
    assert finding.actual == "kernel 5.4.0 on the source"
    assert not trapped(guest("svm"))
    with pytest.raises(NotApplicable, match="only the vendor"):
        trapped(guest("svm"), kernel=Kernel("4.18.0-553.el8", "x86_64"), system=ROCKY)
    with pytest.raises(Unavailable):
        trapped(guest("svm"), kernel=GONE)
    with pytest.raises(NotApplicable):
        trapped(guest(active=False))


def test_where_the_vendor_supports_the_way_its_build_is_taken_to_be_repaired():
    for judge, cpu in ((broken, guest()), (risky, guest("ht vmx vmx-ept"))):
        with pytest.raises(NotApplicable, match="it supports the way"):
            judge(cpu, here=RHEL, system=RHEL)
        with pytest.raises(Unavailable, match="has the repair"):
            judge(cpu, here=DEBIAN, system=ROCKY)


def test_only_what_is_certain_blocks():
    assert checks.no_known_break.blocks is Blocks.MIGRATION
    assert checks.no_known_risk.blocks is checks.no_known_trap.blocks is Blocks.NOTHING
    assert checks.no_known_risk.severity is Severity.MEDIUM
    assert checks.no_known_trap.severity is Severity.LOW
    assert checks.no_known_trap.scope is Scope.GUEST, "told once a guest, not for every target"


def test_a_vendors_build_is_not_judged_by_its_number():
    with pytest.raises(Unavailable, match="has the repair") as unknown:
        broken(guest(), system=ROCKY)
    assert unknown.value.probe is OS_RELEASE
    with pytest.raises(Unavailable) as unknown:
        broken(guest(), system=GONE)
    assert unknown.value.probe is OS_RELEASE


def test_a_version_that_is_not_known():
    for more in ({"target": GONE}, {"there": GONE}, {"there": Qemu(None)}):
        with pytest.raises(Unavailable, match="the version of the target's") as unknown:
            broken(guest(), **more)
        assert unknown.value.probe is VIRSH
    assert broken(guest(), source=GONE), "this break does not depend on the source's libvirt"
    assert not broken(guest(cores=1), GONE, GONE, GONE, GONE), "nor a guest that none concerns on anything"
    with pytest.raises(Unavailable, match="the version of the source's libvirt"):
        risky(guest("ht vmx vmx-ept"), source=GONE)


@pytest.mark.parametrize(
    ("cpu", "machine"),
    [(guest(active=False), Q35), (guest(), ARM), (replace(guest(), definition=None), Q35)],
)
def test_only_compared_cpus_of_running_x86_guests(cpu, machine):
    with pytest.raises(NotApplicable):
        broken(cpu, machine=machine)


def test_risks_concern_running_guests():
    with pytest.raises(NotApplicable):
        risky(guest(active=False))
    assert not risky(guest(), machine=ARM, kernel=K515, kernel_there=K62), "a register of x86"
    assert not risky(replace(guest(), definition=None))
