import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.cpu import CpuMap, CpuSignature
from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Guest, Said, Unavailable
from audit.facts.cpu import (
    CAPABILITIES,
    CPU_MAP,
    CPU_MAP_FILES,
    CPUINFO,
    DOMCAPS_KVM,
    DOMCAPS_KVM_DEFAULT,
    DOMCAPS_MACHINES,
    DOMCAPS_QEMU,
    DOMCAPS_QEMU_DEFAULT,
    SMT,
    VULNERABILITIES,
    CpuIdentity,
    CpuMapFiles,
    DomainCapabilities,
    HostCpu,
    HostModels,
    Microcode,
    Processor,
    Refusal,
    Request,
    Smt,
    Vulnerabilities,
    cpu_map_files,
)
from audit.facts.guest import GuestMachine
from audit.facts.versions import KERNEL, VIRSH

CAPS = """<capabilities><host><uuid>6f2b1d54-90c4-4b0e-9d5c-3d9f0d7ab001</uuid>
<cpu><arch>x86_64</arch><model>Cascadelake-Server</model><vendor>Intel</vendor><microcode version='83899147'/>
<signature family='6' model='85' stepping='7'/><counter name='tsc' frequency='2394374000' scaling='yes'/>
<maxphysaddr mode='emulate' bits='46'/><feature name='pdcm'/><feature name='vmx'/></cpu></host></capabilities>"""

INFO = """processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 85
model name	: Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz
stepping	: 7
flags		: fpu vme vmx nonstop_tsc
address sizes	: 46 bits physical, 48 bits virtual

== processors
80
== microcode
microcode	: 0x5003707
"""

KVM_NO = (
    1,
    "error: failed to get emulator capabilities\nerror: invalid argument: the accel 'kvm' is not supported by "
    "'/usr/bin/qemu-system-x86_64' on this host\n",
)
READ_ONLY = (1, "error: operation forbidden: read only access prevents virConnectGetDomainCapabilities\n")
POLKIT = (
    1,
    "error: failed to connect to the hypervisor\nerror: authentication unavailable: no polkit agent available\n",
)


def domcaps(virttype="kvm", machine="pc-q35-9.0", arch="x86_64", path="/usr/bin/qemu-system-x86_64", cpu=None):
    cpu = (
        cpu
        or """<mode name='host-passthrough' supported='yes'/><mode name='maximum' supported='yes'/>
      <mode name='host-model' supported='yes'><model fallback='forbid'>Skylake-Server-IBRS</model><vendor>Intel</vendor>
      <maxphysaddr mode='passthrough' limit='46'/><feature policy='require' name='invtsc'/>
      <feature policy='disable' name='hle'/></mode>
      <mode name='custom' supported='yes'><model usable='yes' deprecated='yes' vendor='unknown'>qemu64</model>
      <model usable='no' vendor='Intel'>Skylake-Server-IBRS</model>
      <blockers model='Skylake-Server-IBRS'><feature name='hle'/></blockers></mode>"""
    )
    return (
        f"<domainCapabilities><path>{path}</path><domain>{virttype}</domain><machine>{machine}</machine>"
        f"<arch>{arch}</arch><cpu>{cpu}</cpu><features><genid supported='yes'/><sev supported='no'/></features>"
        "</domainCapabilities>"
    )


def hosts_answers(kvm=None, kvm_pc=None, qemu=None, qemu_pc=None, **more):
    return {
        DOMCAPS_KVM.name: kvm or domcaps(),
        DOMCAPS_KVM_DEFAULT.name: kvm_pc or domcaps(machine="pc-i440fx-9.0"),
        DOMCAPS_QEMU.name: qemu or domcaps("qemu"),
        DOMCAPS_QEMU_DEFAULT.name: qemu_pc or domcaps("qemu", "pc-i440fx-9.0"),
        **more,
    }


def asked(*records, out):
    return {DOMCAPS_MACHINES.name: Evidence(DOMCAPS_MACHINES.name, 0, out.encode(), arguments=records)}


def test_host_cpu(said):
    cpu = HostCpu.parse(said({CAPABILITIES.name: CAPS, CPUINFO.name: INFO}))
    assert (cpu.arch, cpu.model, cpu.vendor) == ("x86_64", "Cascadelake-Server", "Intel")
    assert cpu.signature == CpuSignature(6, 85, 7)
    assert (cpu.microcode, cpu.tsc_frequency_hz, cpu.tsc_scaling, cpu.address_bits) == (83899147, 2394374000, True, 46)
    assert cpu.features == {"pdcm", "vmx"}


def test_what_an_old_libvirt_leaves_out_comes_from_the_kernel(said):
    old = "<capabilities><host><cpu><arch>x86_64</arch><model>SandyBridge</model></cpu></host></capabilities>"
    cpu = HostCpu.parse(said({CAPABILITIES.name: old, CPUINFO.name: INFO}))
    assert (cpu.vendor, cpu.signature, cpu.address_bits) == ("Intel", CpuSignature(6, 85, 7), 46)
    assert (cpu.microcode, cpu.tsc_frequency_hz, cpu.tsc_scaling) == (None, None, None)
    alone = HostCpu.parse(said({CAPABILITIES.name: old}))
    assert (alone.vendor, alone.signature, alone.address_bits) == (None, None, None)


def test_the_kernel_knows_which_address_bits_memory_encryption_took(said):
    info = INFO.replace("46 bits physical", "43 bits physical")
    assert HostCpu.parse(said({CAPABILITIES.name: CAPS, CPUINFO.name: info})).address_bits == 43


@pytest.mark.parametrize(
    "caps", ["", "<capabilities/>", "<domain/>", "<capabilities><host><cpu/></host></capabilities>", (1, "no daemon")]
)
def test_capabilities_without_a_cpu_are_no_fact(said, caps):
    with pytest.raises(Unavailable):
        HostCpu.parse(said({CAPABILITIES.name: caps, CPUINFO.name: INFO}))


def test_processor_and_microcode(said):
    answers = said({CPUINFO.name: INFO})
    processor = Processor.parse(answers)
    assert processor.identity == "Intel family 6 model 85 stepping 7"
    assert processor.name.startswith("Intel(R) Xeon(R) Gold 6248")
    assert processor.flags == {"fpu", "vme", "vmx", "nonstop_tsc"}
    assert (processor.address_bits, processor.processors) == (46, 80)
    assert Microcode.parse(answers).revisions == (0x5003707,)
    mixed = INFO + "microcode	: 0x5003605\n"
    assert str(Microcode.parse(said({CPUINFO.name: mixed}))) == "0x5003605, 0x5003707"
    none = INFO.partition("microcode	:")[0]
    assert Microcode.parse(said({CPUINFO.name: none})).revisions == ()


def test_an_arm_processor(said):
    info = """processor	: 0
Features	: fp asimd
CPU implementer	: 0x41
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1
== processors
64
== microcode
"""
    processor = Processor.parse(said({CPUINFO.name: info}))
    assert processor.identity == "ARM implementer 0x41 part 0xd0c variant 0x3 revision 1"
    assert (processor.vendor, processor.signature, processor.address_bits) == ("ARM", None, None)


def test_identity_is_what_a_passthrough_guest_stands_on(said):
    answers = {
        CPUINFO.name: INFO,
        KERNEL.name: "5.14.0-427.el9.x86_64 x86_64",
        VIRSH.name: "Running hypervisor: QEMU 8.2.0",
    }
    one = CpuIdentity.parse(said(answers))
    assert one.family == "Intel family 6"
    other = CpuIdentity.parse(said(answers | {KERNEL.name: "5.14.0-503.el9.x86_64 x86_64"}))
    assert one.differences(other) == ("kernel 5.14.0-427.el9.x86_64 → 5.14.0-503.el9.x86_64",)
    assert one.software_differences(other) == ()


def test_vulnerabilities(said):
    text = "./l1tf:Mitigation: PTE Inversion\n./mds:Vulnerable: Clear buffers\n./itlb_multihit:KVM: Vulnerable\n"
    fact = Vulnerabilities.parse(said({VULNERABILITIES.name: text}))
    assert fact.vulnerable == {"mds", "itlb_multihit"}
    assert Vulnerabilities.parse(said({VULNERABILITIES.name: "absent\n"})).states == ()
    with pytest.raises(ValueError, match="vulnerability"):
        Vulnerabilities.parse(said({VULNERABILITIES.name: "l1tf"}))


def test_smt(said):
    assert Smt.parse(said({SMT.name: "active=1\ncontrol=on\n"})) == Smt(active=True, control="on")
    assert Smt.parse(said({SMT.name: "absent\n"})) == Smt(active=None, control=None)
    with pytest.raises(LookupError):
        Smt.parse(said({SMT.name: "active=\ncontrol=\n"}))


def test_host_models(said):
    models = HostModels.parse(said(hosts_answers()))
    offer = models.native("kvm")
    assert isinstance(offer, DomainCapabilities)
    assert (offer.machine, offer.emulator) == ("pc-q35-9.0", "/usr/bin/qemu-system-x86_64")
    assert offer.modes == {"host-passthrough", "maximum", "host-model", "custom"}
    assert offer.host_model
    assert offer.host_model.model == "Skylake-Server-IBRS"
    assert offer.host_model.named("disable") == {"hle"}
    assert offer.hypervisor
    assert offer.hypervisor.find("Skylake-Server-IBRS").blockers == {"hle"}
    assert offer.deprecated == {"qemu64"}
    assert offer.features == {"genid"}
    assert models.host_model("qemu", "x86_64", "pc-q35-9.0") == offer.host_model


def test_no_kvm_is_a_definite_answer(said):
    models = HostModels.parse(said(hosts_answers(kvm=KVM_NO, kvm_pc=KVM_NO)))
    refusal = models.native("kvm")
    assert isinstance(refusal, Refusal)
    assert refusal.what == "virttype"
    assert isinstance(models.offer(Request("kvm", "x86_64", "pc-q35-9.0")), Refusal)
    assert isinstance(models.native("qemu"), DomainCapabilities)
    with pytest.raises(Unavailable, match="accel 'kvm'"):
        models.host_model("kvm", "x86_64", "pc-q35-9.0")


@pytest.mark.parametrize("failure", [READ_ONLY, POLKIT, (124, ""), (127, "sh: 1: virsh: not found"), "<html/>"])
def test_everything_else_leaves_the_question_open(said, failure):
    models = HostModels.parse(said(hosts_answers(kvm=failure, kvm_pc=failure)))
    with pytest.raises(Unavailable):
        models.native("kvm")
    with pytest.raises(Unavailable):
        models.offer(Request("kvm", "x86_64", "pc-q35-9.0"))
    with pytest.raises(Unavailable):
        HostModels.parse(said(dict.fromkeys(hosts_answers(), failure)))


def test_second_round_answers(said):
    out = "\n".join(
        [
            *("1:" + line for line in domcaps(machine="pc-q35-8.0").splitlines()),
            "1=0",
            "2:error: failed to get emulator capabilities",
            "2:error: invalid argument: the machine 'pc-q35-10.0' is not supported by emulator '/usr/bin/qemu'",
            "2=1",
            "3:error: failed to connect to the hypervisor",
            "3=1",
            "4:error: Cannot check QEMU binary /usr/libexec/qemu-kvm: No such file or directory",
            "4=1",
            "",
        ]
    )
    old, new = Request("kvm", "x86_64", "pc-q35-8.0"), Request("kvm", "x86_64", "pc-q35-10.0")
    arm = Request("qemu", "aarch64", "virt-9.0")
    foreign = Request("kvm", "x86_64", "pc-q35-rhel9.4.0", "/usr/libexec/qemu-kvm")
    models = HostModels.parse(said(hosts_answers(**asked(old, new, arm, foreign, out=out))))
    answer = models.find(old)
    assert isinstance(answer, DomainCapabilities)
    assert answer.machine == "pc-q35-8.0"
    refusal = models.find(new)
    assert isinstance(refusal, Refusal)
    assert refusal.what == "machine"
    assert models.offer(new).machine == "pc-q35-9.0", "the CPU does not depend on the machine type"
    with pytest.raises(Unavailable, match="failed to connect"):
        models.offer(arm)
    refused = models.offer(foreign)
    assert isinstance(refused, Refusal)
    assert refused.what == "emulator"
    with pytest.raises(Unavailable, match="not asked about the emulator /opt/qemu"):
        models.offer(Request("kvm", "x86_64", "pc-q35-9.0", "/opt/qemu"))


def test_a_missing_or_forged_second_answer_is_none(said):
    record = Request("kvm", "x86_64", "pc-q35-8.0", "/usr/bin/kvm")
    for out in ("", "1:<domainCapabilities>", "2=0\n", "1=0\n1=0\n", "1:x\n1=0\n"):
        models = HostModels.parse(said(hosts_answers(**asked(record, out=out))))
        assert models.find(record) is None
        with pytest.raises(Unavailable):
            models.offer(record)
    cut = {DOMCAPS_MACHINES.name: Evidence(DOMCAPS_MACHINES.name, problem="timed out after 120 s", arguments=(record,))}
    with pytest.raises(Unavailable, match="timed out"):
        HostModels.parse(said(hosts_answers(**cut))).offer(record)


def test_the_question_asks_what_the_first_round_left_open(said, monkeypatch):
    machines = [
        GuestMachine("kvm", "x86_64", "pc-q35-9.0", "/usr/bin/qemu-system-x86_64", None, None, None),
        GuestMachine("kvm", "x86_64", "pc-q35-8.1", "/usr/bin/qemu-system-x86_64", None, None, None),
        GuestMachine("kvm", "x86_64", "pc-q35-8.1", "/usr/libexec/qemu-kvm", None, None, None),
        GuestMachine("kvm", "x86_64", "pc-q35-8.1", "/tmp/run-me", None, None, None),
        GuestMachine("kvm", "x86_64", "q35;reboot", None, None, None, None),
        GuestMachine("xen", "x86_64", "pc", None, None, None, None),
    ]
    facts = Facts({"a": said(hosts_answers(), "a").host, "b": HostEvidence("b", {})}, lambda _: [])
    guests = [(Guest("b", str(number), "g"), machine) for number, machine in enumerate(machines)]
    monkeypatch.setattr(facts, "each_guest", lambda hosts, kind: iter(guests))
    assert DOMCAPS_MACHINES.ask(facts, "a", ["b"]) == [
        ("kvm", "x86_64", "pc-q35-8.1", ""),
        ("kvm", "x86_64", "pc-q35-8.1", "/usr/libexec/qemu-kvm"),
        ("xen", "x86_64", "pc", ""),
    ]
    assert DOMCAPS_MACHINES.ask(facts, "b", ["a"]) == [], "it answered nothing in the first round"


def test_the_question_runs_and_numbers_its_answers(tmp_path):
    (tmp_path / "virsh").write_text('#!/bin/sh\necho "$*"\necho "2=0" >&2\n[ "$9" != none ]\n')
    (tmp_path / "virsh").chmod(0o755)
    records = [("kvm", "x86_64", "pc-q35-8.0", ""), ("qemu", "i686", "none", "/usr/bin/kvm")]
    done = subprocess.run(
        ["sh", "-c", DOMCAPS_MACHINES.command],
        input="".join(f"{text}\0" for record in records for text in record).encode(),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "sudo": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines() == [
        "1:-c qemu:///system domcapabilities --virttype kvm --arch x86_64 --machine pc-q35-8.0",
        "1:2=0",
        "1=0",
        "2:-c qemu:///system domcapabilities --virttype qemu --arch i686 --machine none --emulatorbin /usr/bin/kvm",
        "2:2=0",
        "2=1",
    ]


MAP = f"sha256 {'ab' * 32}\nfeature fpu\nfeature vme\nmodel qemu64\n"


def test_cpu_map(said):
    assert CpuMapFiles.parse(said({CPU_MAP.name: MAP})) == CpuMapFiles(
        "ab" * 32, frozenset({"fpu", "vme"}), frozenset({"qemu64"})
    )
    assert CpuMapFiles.parse(said({CPU_MAP.name: "absent\n"})) == CpuMapFiles(None, None, None)
    for broken in ("", "sha256 \nfeature fpu\nmodel m", MAP.replace("feature", "f"), "sha256"):
        with pytest.raises((ValueError, LookupError, Unavailable)):
            CpuMapFiles.parse(said({CPU_MAP.name: broken}))


def test_each_map_is_fetched_once(said):
    other = MAP.replace("ab", "cd")
    hosts = {
        name: said({CPU_MAP.name: text}, name).host
        for name, text in zip("cabd", (MAP, MAP, other, "absent"), strict=True)
    }
    facts = Facts(hosts, lambda _: [])
    asks = {host: CPU_MAP_FILES.ask(facts, host, [h for h in hosts if h != host]) for host in hosts}
    assert asks == {"a": [("ab" * 32,)], "b": [("cd" * 32,)], "c": [], "d": []}


def test_map_files_by_name(said):
    text = b"== index.xml\n<cpus/>\n\n== x86_features.xml\n<cpus>\n== nonsense\n</cpus>\n"
    files = cpu_map_files(said({CPU_MAP_FILES.name: text}))
    assert files == {"index.xml": b"<cpus/>\n\n", "x86_features.xml": b"<cpus>\n== nonsense\n</cpus>\n"}
    with pytest.raises(Unavailable, match="index"):
        cpu_map_files(said({CPU_MAP_FILES.name: "== x86_vendors.xml\n"}))
    with pytest.raises(Unavailable):
        cpu_map_files(said({}))


@given(st.text(max_size=400) | st.sampled_from([CAPS, INFO, domcaps(), MAP]).map(lambda text: text[:-20]))
def test_no_parser_raises_anything_else(text):
    probes = (CAPABILITIES, CPUINFO, VULNERABILITIES, SMT, KERNEL, VIRSH, *HostModels.probes, *CpuMapFiles.probes)
    outputs = {
        probe.name: Evidence(probe.name, 0, text.encode("utf-8", "surrogatepass"), arguments=(("kvm", "a", "b", ""),))
        for probe in probes
    }
    said = Said(HostEvidence("h", outputs))
    for kind in (HostCpu, Processor, Microcode, Vulnerabilities, Smt, CpuIdentity, HostModels, CpuMapFiles):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            hash(kind.parse(said))


# --- real outputs


def _cpuinfo(path: Path) -> bytes:
    """What the probe prints on a host whose /proc/cpuinfo is that file."""
    real = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#") or "processors" in line)
    copy = f"cat <<'EOF' | sed '/./,$!d' >\"$file\"\n{real}\nEOF\n"
    command = "file=$(mktemp); " + copy + CPUINFO.command.replace("/proc/cpuinfo", '"$file"') + '\nrm -f "$file"'
    return subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout


@pytest.mark.corpus
def test_real_cpuinfo(samples, corpus, said):
    found = {
        p.name.split("__", 1)[1][:-4]: Processor.parse(said({CPUINFO.name: _cpuinfo(p)})) for p in samples("cpuinfo")
    }
    assert len(found) == 17
    assert found["insights__1"].identity == "Intel family 6 model 45 stepping 7"
    assert found["insights__1"].address_bits == 46
    assert found["vdsm-E5649-x86-64__1"].processors == 24
    assert found["libvirt-aarch64-gigabyte__1"].identity == "ARM implementer 0x43 part 0x0a1 variant 0x1 revision 1"
    assert found["insights__7"].identity == "IBM/S390 machine 3906"
    assert found["ohai__3"].identity == "POWER9, altivec supported revision 2.2 (pvr 004e 1202)"
    assert Microcode.parse(
        said({CPUINFO.name: _cpuinfo(corpus / "samples" / "cpuinfo__insights__1.txt")})
    ).revisions == (0x718,)


@pytest.mark.corpus
def test_real_capabilities(samples, said):
    found, refused = {}, set()
    for path in samples("virsh-capabilities"):
        name = path.name.split("__", 1)[1][:-4]
        try:
            found[name] = HostCpu.parse(said({CAPABILITIES.name: path.read_bytes()}))
        except Unavailable:
            refused.add(name)
    assert refused == {"libvirt-cpu__2"}, "a <cpu> alone is no capabilities document"
    assert found["debian12-local__1"].tsc_frequency_hz == 2596140000
    assert found["debian12-local__1"].tsc_scaling is False
    assert found["debian12-local__1"].signature == CpuSignature(25, 17, 1)
    assert found["debian12-local__1"].address_bits == 48
    assert found["virt-manager__1"].microcode == 234
    assert found["vdsm-s390x__1"].model is None


@pytest.mark.corpus
def test_real_vulnerabilities(samples, corpus, said):
    facts = [Vulnerabilities.parse(said({VULNERABILITIES.name: _each_a_line(p)})) for p in samples("cpu-vulns")]
    assert len(facts) == 17
    assert any(fact.vulnerable for fact in facts)
    local = Vulnerabilities.parse(
        said({VULNERABILITIES.name: (corpus / "samples" / "cpu-vulns__debian12-local__1.txt").read_bytes()})
    )
    assert dict(local.states)["l1tf"] == "Not affected"


def _each_a_line(path: Path) -> str:
    """Some samples are one file's text alone."""
    text = path.read_text()
    return text if re.match(r"\S+/\w+:", text) else f"./one:{text}"


@pytest.mark.corpus
def test_real_domain_capabilities(samples, corpus, said):
    paths = [
        *samples("domcapabilities"),
        *sorted(corpus.glob("libvirt-*/domaincapsdata/*.xml")),
    ]
    offers, refusals = {}, {}
    for path in paths:
        name = f"{path.parent.parent.name}/{path.name}"
        text = path.read_text()
        answer = (1, text.partition("### stderr")[2]) if text.startswith("### rc=1") else text
        try:
            models = HostModels.parse(said({DOMCAPS_KVM.name: answer}))
        except Unavailable as reason:
            refusals[path.name] = reason.reason
            continue
        if models.natives:
            offers[name] = models.natives[0]
        else:
            refusals[path.name] = models.refusals[0].what
    assert refusals["domcapabilities__error-local__4.txt"] == "virttype"
    assert "not supported by the connection driver" in refusals["domcapabilities__error-libvirt-test-driver__1.txt"]
    assert len(refusals) == 2, refusals
    tdx = offers["data/domcapabilities__kubevirt__7.txt"]
    assert tdx.host_model.model == "GraniteRapids"
    assert {"tdx", "sgx"} <= tdx.features
    assert "sev" not in tdx.features
    assert offers["data/domcapabilities__debian12-local__2.txt"].virttype == "qemu"
    arm = [
        offer for name, offer in offers.items() if "aarch64" in name and "hvf" not in name and offer.virttype == "kvm"
    ]
    assert arm
    assert all(offer.host_model is None for offer in arm)
    assert offers["data/domcapabilities__libvirt-qemu-8.2.0.s390x__1.txt"].host_model.model == "gen15a-base"


@pytest.mark.corpus
def test_host_models_do_not_depend_on_the_machine_type(corpus, said):
    """What `HostModels.offer` relies upon."""
    compared = 0
    for q35 in sorted(corpus.glob("libvirt-*/domaincapsdata/*-q35.x86_64.xml")):
        default = q35.with_name(q35.name.replace("-q35", ""))
        if not default.exists():
            continue
        one, other = (
            HostModels.parse(said({DOMCAPS_KVM.name: path.read_bytes()})).natives[0] for path in (q35, default)
        )
        assert (one.host_model, one.modes) == (other.host_model, other.modes)
        compared += 1
    assert compared >= 10


@pytest.mark.corpus
def test_real_map(corpus, said):
    folder = corpus / "libvirt-11.3.0" / "cpu_map"
    command = CPU_MAP.command.replace("/usr/share/libvirt/cpu_map", str(folder))
    fact = CpuMapFiles.parse(said({CPU_MAP.name: subprocess.run(["sh", "-c", command], capture_output=True).stdout}))
    command = CPU_MAP_FILES.command.replace("/usr/share/libvirt/cpu_map", str(folder))
    out = subprocess.run(["sh", "-c", command], input=b"", capture_output=True).stdout
    cpu_map = CpuMap.from_files(cpu_map_files(said({CPU_MAP_FILES.name: out})))
    assert cpu_map == CpuMap.from_folder(folder)
    assert fact.features == {feature.name for feature in cpu_map.features}
    assert fact.models == {model.name for model in cpu_map.models}
