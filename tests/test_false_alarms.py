"""What other tools say and should not: eleven false alarms and false greens, known from their issue trackers.

Numbered as in the list of peers' mistakes: 1 Nova, 2 oVirt, 3 cloudpods, 4 and 5 KubeVirt, 6 XAPI, 7 CloudStack,
8 Incus, 9 ProxCLMC, 10 Proxmox VE, 11 virt-host-validate.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from audit.check import Blocks, Unavailable
from audit.cpu import (
    CpuDefinition,
    CpuFeature,
    CpuSignature,
    Hypervisor,
    HypervisorModel,
    MaxPhysAddr,
    Topology,
)
from audit.evaluate import evaluate
from audit.evidence import Bundle
from audit.facts.cpu import CpuIdentity, HostCpu, Processor
from audit.facts.cpu_map import CpuMapFiles
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.host_models import DomainCapabilities, HostModels
from audit.facts.kvm import Kvm
from audit.facts.machines import MachineList, MachineTypes
from audit.facts.versions import Libvirt, OsRelease, Qemu, Version
from audit.judge import discover
from checks import breaks, cpu, kvm
from tests.asked import found

SAMPLES = Path(__file__).parent.parent / "sample_data"
CHECKS = discover()
HOST = HostCpu("x86_64", "Westmere", "Intel", CpuSignature(6, 85, 7), frozenset(), 1, 2_400_000_000, False, 46)
IDENTITY = CpuIdentity("Intel family 6", "Intel family 6 model 85 stepping 7", (7,), "6.1.0-37", Version(8, 2))
V10 = Libvirt(Version(10, 3), Version(10, 3))
ENDS = (IDENTITY, replace(IDENTITY, processor="Intel family 6 model 106 stepping 6"), V10, V10)
NAMES = CpuMapFiles("ab", frozenset({"vmx", "vmx-vmfunc", "aes", "avx", "ht"}), frozenset({"Westmere", "SandyBridge"}))
Q35 = GuestMachine("kvm", "x86_64", "pc-q35-8.2", None, None, None, None)
ARCH = OsRelease("arch", "", None, None, "Arch Linux", (), "")


def definition(plus="", model="Westmere", **more):
    features = tuple(CpuFeature(name) for name in plus.split())
    return CpuDefinition(**{"model": model, "features": features, "check": "full", "fallback": "forbid"} | more)


def guest(cpu_definition, tsc=None):
    return GuestCpu(True, cpu_definition, None, tsc, frozenset())


def models(plus="", model="Westmere"):
    hypervisor = Hypervisor(tuple(HypervisorModel(name) for name in ("Westmere", "SandyBridge")))
    qemu = "/usr/bin/qemu-system-x86_64"
    offer = definition(plus, model)
    none = frozenset()
    native = DomainCapabilities("kvm", "x86_64", "pc-q35-8.2", qemu, offer, none, hypervisor, none, none)
    return HostModels((native,), (), frozenset({qemu}), (), ())


@cache
def uniform() -> Bundle:
    return Bundle.read(SAMPLES / "uniform" / "bundle")


def changed(host, *edits, problem=""):
    """The uniform fleet with other words in one host's evidence. Each edit: the beginning of probes' names, and what
    makes the new output of the old."""
    bundle = uniform()
    evidence = bundle.hosts[host]
    outputs = dict(evidence.outputs)
    for probes, edit in edits:
        edited = {n: replace(old, stdout=edit(old.stdout)) for n, old in outputs.items() if n.startswith(probes)}
        assert any(new.stdout != outputs[name].stdout for name, new in edited.items()), "an edit that edits"
        outputs |= edited
    if problem:
        outputs = {}
    made = replace(evidence, outputs=outputs, problem=problem)
    return evaluate([replace(bundle, hosts={**bundle.hosts, host: made})], CHECKS)


def routes(results):
    running = (one for one in results["guests"] if one["active"])
    return {(one["name"], target["host"]): target["verdict"] for one in running for target in one["targets"]}


def test_1_nova_a_cpu_is_compared_with_what_the_hypervisor_gives_and_never_with_raw_cpuid():
    """false alarm 1: the target's CPUID, as `virsh capabilities` shows it, may lack what QEMU gives, or have more."""
    assert not found(cpu.guest_cpu_fits, guest(definition("avx")), Q35, models("avx"), NAMES, *ENDS)
    assert HostCpu not in {parameter.kind for parameter in cpu.guest_cpu_fits.parameters}
    poorer = [("cpu.capabilities", lambda text: text.replace(b"<feature name='", b"<feature name='no-"))]
    assert routes(changed("kvm02", *poorer)) == routes(evaluate([uniform()], CHECKS))


def test_2_ovirt_a_target_with_more_flags_is_no_obstacle_to_host_passthrough():
    """false alarm 2: oVirt wanted equal sets of flags."""
    subject = guest(CpuDefinition(mode="host-passthrough", check="none"))
    superset = (models("vmx"), models("vmx aes avx"), NAMES)
    assert not found(cpu.passthrough_provable, subject, Q35, IDENTITY, IDENTITY, *superset)
    with pytest.raises(Unavailable, match="not provable"):
        found(cpu.passthrough_provable, subject, Q35, ENDS[0], ENDS[1], *superset)  # unknown, and not refused
    more = guest(definition("vmx"))
    assert not found(cpu.guest_cpu_fits, more, Q35, models("vmx aes", "SandyBridge"), NAMES, *ENDS)


def test_3_cloudpods_another_microcode_alone_is_no_condition():
    """false alarm 3: revisions differ during every rolling update."""
    results = changed("kvm02", ("cpu.", lambda text: text.replace(b"0xd0003f5", b"0xd0003e7")))
    [note, *_] = [one for one in results["outcomes"] if one["check"] == "cpu.microcode_equal"]
    assert note["status"] == "fail", "it is noted"
    assert set(routes(results).values()) == {"yes"}
    assert results["verdict"]["word"] == "GO"


def test_4_kubevirt_a_tsc_some_khz_off_is_no_obstacle():
    """false alarm 4: equal servers measure frequencies a kHz apart; libvirt tolerates 250 ppm."""
    for hertz in (2_400_001_000, 2_399_999_000, 2_400_500_000):
        assert not found(cpu.tsc_frequency_within_tolerance, guest(definition(), hertz), Q35, HOST)
        assert not found(cpu.tsc_alike, HOST, replace(HOST, tsc_frequency_hz=hertz))
    assert found(cpu.tsc_frequency_within_tolerance, guest(definition(), 2_401_000_000), Q35, HOST)


def test_5_kubevirt_missing_vmx_features_and_an_extra_ht_are_found():
    """false alarm 5, a false green: the node's labels fit, and libvirt refuses."""
    [finding] = found(cpu.guest_cpu_fits, guest(definition("vmx vmx-vmfunc")), Q35, models("vmx"), NAMES, *ENDS)
    assert finding.actual == "lacks vmx-vmfunc"
    threads = guest(definition(topology=Topology(1, 1, 2, 1)))
    old, new = Libvirt(Version(9), Version(9)), Libvirt(Version(11, 9), Version(11, 9))
    [finding] = found(breaks.no_known_break, threads, Q35, old, new, Qemu(Version(10, 1)), ARCH, ARCH)
    assert "extra features: ht" in finding.because


def test_6_xapi_a_guest_that_one_target_misfits_can_go_to_another():
    """false alarm 6: not evacuable, said XAPI, as soon as one host of the pool did not do."""
    results = changed("kvm02", ("cpu.domcaps", lambda text: text.replace(b"name='vmx'", b"name='no-vmx'")))
    ways = routes(results)
    assert ways["web01", "kvm02"] == "no"
    assert ways["web01", "kvm03"] == "yes"
    assert results["verdict"]["word"] == "GO WITH CONDITIONS"
    assert results["verdict"]["guests"]["none"] == 0


@pytest.mark.parametrize("words", [b"", b"\n", b"  \n\n"])
def test_7_cloudstack_blank_output_is_unknown_and_never_compatible(words):
    """false alarm 7, a false green: virsh printed nothing and ended well."""
    results = changed("kvm02", ("cpu.domcaps", lambda _: words))
    ways = routes(results)
    assert {verdict for (_, target), verdict in ways.items() if target == "kvm02"} == {"unknown"}
    assert ways["web01", "kvm03"] == "yes"


def test_8_incus_a_member_that_was_not_read_leaves_the_baseline_partial_and_the_run_open():
    """false alarm 8, a false green: the flags of those who answered were taken for the cluster's."""
    results = changed("kvm03", problem="ssh: connection refused")
    [baseline] = results["baselines"]
    assert baseline["hosts"] == ["kvm01", "kvm02"]
    assert "connection refused" in baseline["missing"]["kvm03"]
    assert results["verdict"]["word"] == "CANNOT SAY"
    assert routes(results)["web01", "kvm03"] == "unknown"


def test_9_proxclmc_fewer_address_bits_are_found():
    """false alarm 9, a false green: the flags fit, and the guest panics minutes later."""
    small = replace(HOST, address_bits=39)
    assert found(cpu.default_address_bits_fit, guest(definition()), Q35, HOST, small)
    told = guest(definition(maxphysaddr=MaxPhysAddr("passthrough", limit=46)))
    [finding] = found(cpu.guest_address_bits_fit, told, Q35, HOST, small)
    assert finding.actual == "39 on the target"
    assert cpu.guest_address_bits_fit.blocks is Blocks.MIGRATION


def test_10_proxmox_a_cpu_that_does_not_fit_is_no_allowed_node():
    """false alarm 10, a false green: its preconditions look at storage and passed-through devices alone."""
    [finding] = found(cpu.guest_cpu_fits, guest(definition("avx", "SandyBridge")), Q35, models(), NAMES, *ENDS)
    assert "avx" in finding.actual
    assert cpu.guest_cpu_fits.blocks is Blocks.MIGRATION
    assert found(cpu.guest_same_vendor, guest(definition()), Q35, HOST, replace(HOST, vendor="AMD"))


def test_11_virt_host_validate_two_sound_hosts_may_be_no_pair():
    """false alarm 11, a false green: all that it looks at passes on either host; what does not fit is the two."""
    sound = Kvm(device=True, vhost_net=True, tun=True, nested=True)
    machines = MachineTypes("x86_64", (MachineList("kvm", "x86_64", "/usr/bin/qemu-system-x86_64", ()),))
    processor = Processor("Intel family 6", "Xeon", "Intel", None, frozenset({"vmx"}), 46, 8)
    assert not found(kvm.virtualization_usable, machines, sound, processor)
    assert not found(kvm.tun_present, sound)
    assert not found(kvm.vhost_net_present, sound)
    assert found(cpu.host_model_fits, models("aes avx"), models(), NAMES, *ENDS)
