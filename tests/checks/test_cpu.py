from dataclasses import replace

import pytest

from audit.check import NotApplicable, Unavailable
from audit.cpu import CpuDefinition, CpuFeature, CpuSignature, Hypervisor, HypervisorModel, MaxPhysAddr
from audit.facts.cpu import CPUINFO, CpuIdentity, HostCpu, Microcode, Processor, Smt, Vulnerabilities
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.host_models import DomainCapabilities, HostModels, Refusal, Request
from audit.facts.versions import Libvirt, Version
from audit.judge import Missing
from checks import cpu as checks
from tests.asked import found

INTEL = HostCpu("x86_64", "Westmere", "Intel", CpuSignature(6, 85, 7), frozenset(), 1, 2_400_000_000, False, 46)
AMD = replace(INTEL, vendor="AMD", signature=CpuSignature(25, 1, 1))
ARM = replace(INTEL, arch="aarch64", vendor=None, signature=None)
PROCESSOR = Processor("Intel family 6 model 85 stepping 7", "Xeon", "Intel", None, frozenset({"nonstop_tsc"}), 46, 8)
IDENTITY = CpuIdentity("Intel family 6", "Intel family 6 model 85 stepping 7", (7,), "5.14.0-427", Version(8, 2))
V10 = Libvirt(Version(10), Version(10))
SAME = (IDENTITY, IDENTITY, V10, V10)
APART = (IDENTITY, replace(IDENTITY, processor="Intel family 6 model 106 stepping 6"), V10, V10)
NAMES = CpuMapFiles("ab", frozenset({"vmx", "aes", "hle"}), frozenset({"Westmere", "qemu64", "SandyBridge"}))
Q35 = GuestMachine("kvm", "x86_64", "pc-q35-8.2", None, None, None, None)
TCG = replace(Q35, virttype="qemu")


def cpu(model="Westmere", plus="", **more):
    features = tuple(CpuFeature(name) for name in plus.split())
    return CpuDefinition(**{"model": model, "features": features, "check": "full", "fallback": "forbid"} | more)


def guest(definition, *, active=True, tsc=None, hyperv=()):
    return GuestCpu(active, definition, None, tsc, frozenset(hyperv))


def models(*host_models, virttype="kvm", refused="", arch="x86_64"):
    hypervisor = Hypervisor(tuple(HypervisorModel(name) for name in ("Westmere", "SandyBridge", "qemu64")))
    natives = tuple(
        DomainCapabilities(
            virttype, arch, "pc-q35-8.2", "/usr/bin/qemu", one, frozenset(), hypervisor, frozenset(), frozenset()
        )
        for one in host_models
    )
    refusals = (Refusal(Request(refused, "", ""), "virttype", "no accel"),) if refused else ()
    return HostModels(natives, (), frozenset({"/usr/bin/qemu"}), refusals, ())


KNOW_ALL = replace(NAMES, features=NAMES.features | {"umip"})
NO_KVM = models(refused="kvm")
UNREAD = HostModels((), (), frozenset(), (), ((Request("kvm", "", ""), "no permission"),))


def test_microcode_same_on_all_cpus():
    assert not found(checks.microcode_same_on_all_cpus, Microcode((7,)))
    assert not found(checks.microcode_same_on_all_cpus, Microcode(()))
    [finding] = found(checks.microcode_same_on_all_cpus, Microcode((6, 7)))
    assert finding.actual == "0x6, 0x7"


def test_same_architecture_and_vendor():
    assert not found(checks.same_architecture, INTEL, AMD)
    assert found(checks.same_architecture, INTEL, ARM)
    assert not found(checks.same_vendor, INTEL, INTEL)
    [finding] = found(checks.same_vendor, INTEL, AMD)
    assert (finding.expected, finding.actual) == ("Intel", "AMD")
    with pytest.raises(NotApplicable):
        found(checks.same_vendor, INTEL, ARM)
    with pytest.raises(NotApplicable):
        found(checks.same_vendor, ARM, ARM)
    with pytest.raises(Unavailable):
        found(checks.same_vendor, INTEL, replace(INTEL, vendor=None))


def test_host_model_fits():
    rich, poor = models(cpu("Westmere", "vmx invtsc")), models(cpu("Westmere"))
    assert not found(checks.host_model_fits, poor, rich, NAMES, *SAME)
    assert not found(checks.host_model_fits, rich, rich, NAMES, *SAME)
    [finding] = found(checks.host_model_fits, rich, poor, NAMES, *SAME)
    assert finding.actual == "lacks vmx", "invtsc is not among what a host-model guest gets"
    assert "The processors are the same" in finding.because
    assert not finding.remedy, "the check's own is about the hosts"
    [finding] = found(checks.host_model_fits, rich, poor, NAMES, *APART)
    assert "same" not in finding.because


def test_host_model_needs_kvm_and_an_answer():
    some = models(cpu())
    for source, target in ((NO_KVM, some), (some, NO_KVM), (models(None, arch="aarch64"), some)):
        with pytest.raises(NotApplicable):
            found(checks.host_model_fits, source, target, NAMES, *SAME)
    for source, target in ((UNREAD, some), (some, UNREAD)):
        with pytest.raises(Unavailable, match="no permission"):
            found(checks.host_model_fits, source, target, NAMES, *SAME)


def test_same_processor_without_models():
    arm = models(None, arch="aarch64")
    assert not found(checks.same_processor_without_models, arm, IDENTITY, IDENTITY)
    assert found(checks.same_processor_without_models, arm, IDENTITY, replace(IDENTITY, processor="other"))
    with pytest.raises(NotApplicable):
        found(checks.same_processor_without_models, models(cpu()), IDENTITY, IDENTITY)
    with pytest.raises(Unavailable):
        found(checks.same_processor_without_models, UNREAD, IDENTITY, IDENTITY)


def test_guest_cpu_fits():
    mine = guest(cpu("Westmere", "vmx"))
    assert not found(checks.guest_cpu_fits, mine, Q35, models(cpu("Westmere", "vmx")), NAMES, *APART)
    [finding] = found(checks.guest_cpu_fits, mine, Q35, models(cpu("Westmere")), NAMES, *APART)
    assert finding.actual == "lacks vmx"
    [finding] = found(checks.guest_cpu_fits, guest(cpu("SapphireRapids")), Q35, models(cpu()), NAMES, *APART)
    assert "SapphireRapids" in finding.actual


def test_why_features_are_missing_is_told_with_a_fitted_remedy():
    [finding] = found(checks.guest_cpu_fits, guest(cpu("Westmere", "vmx")), Q35, models(cpu()), NAMES, *APART)
    assert "hypervisors themselves" in finding.because
    assert "<feature policy='disable' name='vmx'/>" in finding.remedy
    updated = (IDENTITY, replace(IDENTITY, kernel="5.14.0-503"), V10, V10)
    [finding] = found(checks.guest_cpu_fits, guest(cpu("Westmere", "umip")), Q35, models(cpu()), KNOW_ALL, *updated)
    assert "kernel 5.14.0-427 → 5.14.0-503" in finding.because
    assert not finding.remedy, "the check's own"
    unknown = guest(cpu("Westmere", "vmx unheard-of"))
    [finding] = found(checks.guest_cpu_fits, unknown, Q35, models(cpu()), NAMES, *APART)
    assert not finding.remedy, "a name that libvirt does not know is not helped by it"


def test_missing_features_are_found_even_if_nothing_tells_why():
    gone = Missing(Unavailable(CPUINFO, "gone"))
    subject, there = guest(cpu("Westmere", "vmx")), models(cpu())
    [finding] = found(checks.guest_cpu_fits, subject, Q35, there, NAMES, gone, gone, gone, gone)
    assert (finding.actual, finding.because) == ("lacks vmx", "")


def test_a_model_that_the_target_calls_unusable():
    """A baseline that an upgraded host can give no more: libvirt says usable='no', and its host-model lacks it."""
    upgraded = models(cpu("Westmere", features=(CpuFeature("aes", "disable"),)))
    [finding] = found(checks.guest_cpu_fits, guest(cpu("Westmere")), Q35, upgraded, NAMES, *SAME)
    assert finding.actual == "lacks aes"


def test_a_guest_is_judged_by_its_own_virttype():
    emulated = models(cpu("Westmere", "vmx"), virttype="qemu", refused="kvm")
    assert not found(checks.guest_cpu_fits, guest(cpu("Westmere", "vmx")), TCG, emulated, NAMES, *APART)
    with pytest.raises(NotApplicable, match="no accel"):
        found(checks.guest_cpu_fits, guest(cpu("Westmere", "vmx")), Q35, emulated, NAMES, *APART)
    with pytest.raises(Unavailable):
        found(checks.guest_cpu_fits, guest(cpu()), Q35, UNREAD, NAMES, *APART)


@pytest.mark.parametrize(
    "subject",
    [
        guest(cpu(), active=False),
        guest(CpuDefinition(mode="host-passthrough")),
        guest(cpu(check="none")),
        guest(None),
    ],
)
def test_guest_cpu_fits_is_about_checked_cpus_of_running_guests(subject):
    with pytest.raises(NotApplicable):
        found(checks.guest_cpu_fits, subject, Q35, models(cpu()), NAMES, *APART)


def test_unchecked_cpu_fits():
    intel, amd = models(cpu("Westmere"), virttype="qemu"), models(cpu("Westmere", "svm"), virttype="qemu")
    for subject in (guest(cpu("qemu64", check="none")), guest(None)):
        assert not found(checks.unchecked_cpu_fits, subject, TCG, intel, intel, NAMES, *APART)
        assert not found(checks.unchecked_cpu_fits, subject, TCG, intel, amd, NAMES, *APART)
        [finding] = found(checks.unchecked_cpu_fits, subject, TCG, amd, intel, NAMES, *APART)
        assert finding.actual == "lacks svm"
    with pytest.raises(NotApplicable):
        found(checks.unchecked_cpu_fits, guest(cpu()), TCG, intel, intel, NAMES, *APART)
    for own, target in ((UNREAD, intel), (intel, UNREAD)):
        with pytest.raises(Unavailable):
            found(checks.unchecked_cpu_fits, guest(None), TCG, own, target, NAMES, *APART)


def passthrough(here=IDENTITY, there=IDENTITY, own="vmx", target="vmx", machine=Q35, mode="host-passthrough"):
    own, target = (models(cpu("Westmere", plus), virttype=machine.virttype) for plus in (own, target))
    subject = guest(CpuDefinition(mode=mode, check="none"))
    return found(checks.passthrough_provable, subject, machine, here, there, own, target, NAMES)


def test_passthrough_provable():
    assert not passthrough()
    assert not passthrough(target="vmx aes"), "more than the guest has is no obstacle where all else is equal"
    [finding] = passthrough(target="aes")
    assert finding.actual == "lacks vmx"
    [finding] = passthrough(there=replace(IDENTITY, family="AMD family 25", processor="AMD family 25 model 1"))
    assert finding.actual.startswith("AMD")
    for other in (
        replace(IDENTITY, microcode=(8,)),
        replace(IDENTITY, kernel="5.14.0-503"),
        replace(IDENTITY, qemu=Version(9, 0)),
        replace(IDENTITY, processor="Intel family 6 model 106 stepping 6"),
    ):
        with pytest.raises(Unavailable, match="not provable"):
            passthrough(there=other)
    with pytest.raises(NotApplicable):
        found(checks.passthrough_provable, guest(cpu()), Q35, IDENTITY, IDENTITY, models(), models(), NAMES)


def test_an_emulated_maximum_is_qemus_work_alone():
    other = replace(IDENTITY, kernel="6.1", microcode=(), processor="AMD", family="AMD")
    assert not passthrough(there=other, machine=TCG, mode="maximum")
    with pytest.raises(Unavailable, match="QEMU 8"):
        passthrough(there=replace(other, qemu=Version(10)), machine=TCG, mode="maximum")


def test_guest_same_vendor():
    assert not found(checks.guest_same_vendor, guest(cpu()), Q35, INTEL, INTEL)
    assert found(checks.guest_same_vendor, guest(None), Q35, INTEL, AMD)
    with pytest.raises(NotApplicable, match="emulated"):
        found(checks.guest_same_vendor, guest(cpu()), TCG, INTEL, AMD)
    with pytest.raises(NotApplicable):
        found(checks.guest_same_vendor, guest(cpu()), Q35, ARM, ARM)
    with pytest.raises(Unavailable):
        found(checks.guest_same_vendor, guest(cpu()), Q35, INTEL, replace(INTEL, vendor=None))


def test_invtsc_has_frequency():
    asked = cpu("Westmere", "invtsc")
    assert found(checks.invtsc_has_frequency, guest(asked), PROCESSOR)
    assert not found(checks.invtsc_has_frequency, guest(asked, tsc=2_400_000_000), PROCESSOR)
    assert not found(checks.invtsc_has_frequency, guest(cpu()), PROCESSOR)
    whole = CpuDefinition(mode="host-passthrough", migratable="off")
    assert found(checks.invtsc_has_frequency, guest(whole), PROCESSOR)
    assert not found(checks.invtsc_has_frequency, guest(whole), replace(PROCESSOR, flags=frozenset()))
    with pytest.raises(NotApplicable):
        found(checks.invtsc_has_frequency, guest(asked, active=False), PROCESSOR)


def test_tsc_frequency_within_tolerance():
    def judged(hz, host, machine=Q35):
        return found(checks.tsc_frequency_within_tolerance, guest(cpu(), tsc=hz), machine, host)

    assert not judged(2_400_500_000, INTEL), "some kHz apart is the rule"
    assert judged(2_401_000_000, INTEL)
    assert not judged(1_000_000_000, replace(INTEL, tsc_scaling=True))
    for unknown in (replace(INTEL, tsc_scaling=None), replace(INTEL, tsc_frequency_hz=None)):
        with pytest.raises(Unavailable):
            judged(1_000_000_000, unknown)
    for hz, machine in ((None, Q35), (1, TCG)):
        with pytest.raises(NotApplicable):
            judged(hz, INTEL, machine)


def test_reenlightenment_has_frequency():
    assert found(checks.reenlightenment_has_frequency, guest(cpu(), hyperv=["reenlightenment"]))
    assert not found(checks.reenlightenment_has_frequency, guest(cpu(), hyperv=["reenlightenment"], tsc=1))
    assert not found(checks.reenlightenment_has_frequency, guest(cpu(), hyperv=["relaxed"]))


SMALL = replace(INTEL, address_bits=39)


def test_address_bits_of_a_guest():
    told = guest(cpu(maxphysaddr=MaxPhysAddr("passthrough", limit=46)))
    assert not found(checks.guest_address_bits_fit, told, Q35, INTEL, INTEL)
    assert not found(checks.guest_address_bits_fit, told, Q35, SMALL, SMALL)
    [finding] = found(checks.guest_address_bits_fit, told, Q35, INTEL, SMALL)
    assert (finding.expected, finding.actual) == ("46 physical address bits", "39 on the target")
    with pytest.raises(Unavailable):
        found(checks.guest_address_bits_fit, told, Q35, INTEL, replace(INTEL, address_bits=None))
    for subject, machine in ((guest(cpu()), Q35), (told, TCG), (replace(told, active=False), Q35)):
        with pytest.raises(NotApplicable):
            found(checks.guest_address_bits_fit, subject, machine, INTEL, SMALL)
    assert found(checks.default_address_bits_fit, guest(cpu()), Q35, INTEL, SMALL)
    assert found(checks.default_address_bits_fit, guest(None), Q35, INTEL, SMALL)
    assert not found(checks.default_address_bits_fit, guest(cpu()), Q35, SMALL, SMALL)
    with pytest.raises(NotApplicable):
        found(checks.default_address_bits_fit, told, Q35, INTEL, SMALL)
    with pytest.raises(Unavailable):
        found(checks.default_address_bits_fit, guest(cpu()), Q35, INTEL, replace(INTEL, address_bits=None))


def test_address_bits_of_a_host_model():
    told = models(cpu(maxphysaddr=MaxPhysAddr("passthrough", limit=46)))
    assert found(checks.address_bits_fit, told, INTEL, SMALL)
    assert not found(checks.address_bits_fit, told, SMALL, INTEL)
    with pytest.raises(NotApplicable):
        found(checks.address_bits_fit, models(cpu()), INTEL, SMALL)
    with pytest.raises(Unavailable):
        found(checks.address_bits_fit, told, INTEL, replace(INTEL, address_bits=None))


def test_notes():
    one, other = PROCESSOR, replace(PROCESSOR, identity="Intel family 6 model 106 stepping 6")
    assert not found(checks.microcode_equal, one, one, Microcode((7,)), Microcode((7,)))
    assert found(checks.microcode_equal, one, one, Microcode((7,)), Microcode((8,)))
    with pytest.raises(NotApplicable):
        found(checks.microcode_equal, one, other, Microcode((7,)), Microcode((8,)))
    safe = Vulnerabilities((("l1tf", "Mitigation: PTE Inversion"), ("mds", "Vulnerable")))
    worse = Vulnerabilities((("l1tf", "Vulnerable"), ("mds", "Vulnerable"), ("tsa", "Vulnerable")))
    [finding] = found(checks.no_more_vulnerable, safe, worse)
    assert finding.actual == "l1tf", "an older kernel does not know tsa, which says nothing about its processor"
    assert not found(checks.no_more_vulnerable, worse, safe)
    on, off, untold = Smt(True, "on"), Smt(False, "off"), Smt(None, None)
    assert found(checks.threads_equal, on, off)
    assert not found(checks.threads_equal, on, untold)
    assert not found(checks.tsc_alike, INTEL, replace(INTEL, tsc_frequency_hz=2_400_300_000))
    assert found(checks.tsc_alike, INTEL, replace(INTEL, tsc_frequency_hz=2_500_000_000))
    assert not found(checks.tsc_alike, INTEL, replace(INTEL, tsc_frequency_hz=2_500_000_000, tsc_scaling=True))
    with pytest.raises(NotApplicable):
        found(checks.tsc_alike, INTEL, replace(INTEL, tsc_frequency_hz=None))
