import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.cpu import CpuSignature
from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.cpu import (
    CAPABILITIES,
    CPUINFO,
    SMT,
    VULNERABILITIES,
    CpuIdentity,
    HostCpu,
    Microcode,
    Processor,
    Smt,
    Vulnerabilities,
)
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


@given(st.text(max_size=400) | st.sampled_from([CAPS, INFO]).map(lambda text: text[:-20]))
def test_no_parser_raises_anything_else(text):
    data = text.encode("utf-8", "surrogatepass")
    outputs = {
        probe.name: Evidence(probe.name, 0, data)
        for probe in (CAPABILITIES, CPUINFO, VULNERABILITIES, SMT, KERNEL, VIRSH)
    }
    said = Said(HostEvidence("h", outputs))
    for kind in (HostCpu, Processor, Microcode, Vulnerabilities, Smt, CpuIdentity):
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
