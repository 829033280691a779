from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Unavailable
from audit.facts.cpu import Processor
from audit.facts.guest import GuestMachine
from audit.facts.kvm import Kvm
from audit.facts.machines import MachineList, MachineTypes
from audit.facts.settings import FirmwareSettings, Gic, GuestGic, PageSize, Userfaultfd
from audit.facts.storage import HypervisorUser, User
from audit.facts.versions import Bios
from checks import kvm as checks
from tests.asked import found

HOST = Kvm(True, True, True, True)
INTEL = Processor("Intel family 6", "Xeon", "Intel", None, frozenset({"vmx"}), 46, 8)
BOTH = MachineTypes(
    "x86_64", (MachineList("qemu", "x86_64", "/usr/bin/qemu", ()), MachineList("kvm", "x86_64", "/usr/bin/qemu", ()))
)
EMULATED = replace(BOTH, lists=BOTH.lists[:1])
NONE = replace(BOTH, lists=())


def test_virtualization_usable():
    assert not found(checks.virtualization_usable, BOTH, HOST, INTEL)
    without_flag = replace(INTEL, flags=frozenset())
    assert not found(checks.virtualization_usable, BOTH, HOST, without_flag), "what libvirt offers decides"
    reasons = [
        found(checks.virtualization_usable, machines, kvm, processor)[0].because
        for machines, kvm, processor in (
            (NONE, HOST, INTEL),
            (EMULATED, HOST, INTEL),
            (EMULATED, replace(HOST, device=False), without_flag),
            (EMULATED, replace(HOST, device=False), INTEL),
        )
    ]
    for word, reason in zip(
        ("knows no QEMU", "restart", "neither vmx nor svm", "load kvm_intel"), reasons, strict=True
    ):
        assert word in reason


def test_kvm_on_both():
    assert not found(checks.kvm_on_both, BOTH, BOTH)
    [finding] = found(checks.kvm_on_both, BOTH, EMULATED)
    assert finding.actual == "target offers none"
    [finding] = found(checks.kvm_on_both, NONE, EMULATED)
    assert finding.actual == "source offers none, target offers none"


def test_virttype_available():
    guest = GuestMachine("kvm", "x86_64", "q35", None, None, None, None)
    assert not found(checks.virttype_available, guest, BOTH)
    [finding] = found(checks.virttype_available, guest, EMULATED)
    assert (finding.expected, finding.actual) == ("kvm for x86_64", "qemu only")
    assert not found(checks.virttype_available, replace(guest, virttype="qemu"), EMULATED)
    [finding] = found(checks.virttype_available, replace(guest, arch="s390x"), BOTH)
    assert finding.actual == "nothing for s390x"


def test_notes():
    assert found(checks.nested_off, HOST)
    assert not found(checks.nested_off, replace(HOST, nested=False))
    assert found(checks.tun_present, replace(HOST, tun=False))
    assert not found(checks.tun_present, HOST)
    assert found(checks.vhost_net_present, replace(HOST, vhost_net=False))
    assert not found(checks.vhost_net_present, HOST)
    assert found(checks.nested_equal, HOST, replace(HOST, nested=False))
    assert not found(checks.nested_equal, HOST, HOST)
    with pytest.raises(NotApplicable):
        found(checks.nested_equal, HOST, replace(HOST, nested=None))


def test_page_size():
    small, large = PageSize("aarch64", 4096), PageSize("aarch64", 65536)
    assert not found(checks.same_page_size, small, small)
    [finding] = found(checks.same_page_size, small, large)
    assert finding.actual == "pages of 65536 bytes"
    assert checks.same_page_size.blocks is Blocks.NOTHING, "QEMU does not refuse it"
    with pytest.raises(NotApplicable):
        found(checks.same_page_size, PageSize("x86_64", None), PageSize("x86_64", None))
    with pytest.raises(Unavailable):
        found(checks.same_page_size, small, PageSize("aarch64", None))


def test_gic():
    arm, offer = GuestMachine("kvm", "aarch64", "virt-8.2", None, None, None, None), Gic(frozenset({"2", "3"}))
    assert not found(checks.gic_offered, GuestGic("3"), arm, offer)
    [finding] = found(checks.gic_offered, GuestGic("3"), arm, Gic(frozenset({"2"})))
    assert (finding.expected, finding.actual) == ("GIC version 3", "2 on the target")
    with pytest.raises(Unavailable):
        found(checks.gic_offered, GuestGic("3"), arm, Gic(None))
    for guest, machine in (
        (GuestGic(None), arm),
        (GuestGic("host"), arm),
        (GuestGic("3"), replace(arm, virttype="qemu")),
    ):
        with pytest.raises(NotApplicable):
            found(checks.gic_offered, guest, machine, Gic(None))


def test_postcopy():
    qemu, root = (
        HypervisorUser(User(name, uid, uid, frozenset()), False) for name, uid in (("qemu", 107), ("root", 0))
    )
    assert found(checks.postcopy_possible, Userfaultfd(False), qemu)
    assert not found(checks.postcopy_possible, Userfaultfd(True), qemu)
    assert not found(checks.postcopy_possible, Userfaultfd(False), root)
    with pytest.raises(NotApplicable):
        found(checks.postcopy_possible, Userfaultfd(None), qemu)


def test_firmware_settings():
    model, other = (Bios(None, None, None, None, "Dell Inc.", product) for product in ("R650", "R660"))
    here, there = (FirmwareSettings((("boost", value), ("boot", "UEFI"))) for value in ("0", "1"))
    assert not found(checks.firmware_settings_alike, here, model, here, model)
    [finding] = found(checks.firmware_settings_alike, here, model, there, model)
    assert (finding.expected, finding.actual) == ("boost: 0", "1")
    with pytest.raises(NotApplicable):
        found(checks.firmware_settings_alike, here, model, there, other)
    nobody = Bios(None, None, None, None, None, None)
    with pytest.raises(Unavailable):
        found(checks.firmware_settings_alike, here, nobody, there, nobody)
