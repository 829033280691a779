import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.cpu import CAPABILITIES
from audit.facts.machines import Machine, MachineTypes

CAPS = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
<guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
  <machine maxCpus='255' deprecated='yes'>pc-i440fx-6.2</machine>
  <machine canonical='pc-i440fx-6.2' maxCpus='255'>pc</machine>
  <machine maxCpus='288'>pc-q35-9.0</machine>
  <machine canonical='pc-q35-9.0' maxCpus='288'>q35</machine>
  <domain type='qemu'/>
  <domain type='kvm'><emulator>/usr/libexec/qemu-kvm</emulator>
    <machine>pc-q35-rhel9.4.0</machine><machine canonical='pc-q35-rhel9.4.0'>q35</machine></domain>
</arch></guest>
<guest><os_type>xen</os_type><arch name='x86_64'><machine>xenpv</machine><domain type='xen'/></arch></guest>
</capabilities>"""


@pytest.fixture
def machines(said):
    return MachineTypes.parse(said({CAPABILITIES.name: CAPS}))


def test_a_domain_with_machines_of_its_own_has_only_those(machines):
    assert machines.native_arch == "x86_64"
    kvm = machines.of("kvm", "x86_64")
    assert kvm.emulator == "/usr/libexec/qemu-kvm"
    assert [machine.name for machine in kvm.machines] == ["pc-q35-rhel9.4.0", "q35"]
    assert machines.find("qemu", "x86_64", "pc") == Machine("pc", "pc-i440fx-6.2", False, 255)
    assert machines.find("kvm", "x86_64", "pc") is None
    assert machines.virttypes("x86_64") == {"qemu", "kvm"}, "Xen is none of ours"


def test_names(machines):
    assert machines.resolve("qemu", "x86_64", "q35") == "pc-q35-9.0"
    assert machines.resolve("qemu", "x86_64", "pc-q35-9.0") == "pc-q35-9.0"
    assert machines.resolve("qemu", "x86_64", "pc-q35-10.0") is None
    assert machines.resolve("qemu", "aarch64", "virt") is None
    assert machines.usual("kvm") == "pc-q35-rhel9.4.0"
    assert machines.deprecated("qemu", "x86_64", "pc-i440fx-6.2")
    assert machines.deprecated("qemu", "x86_64", "pc"), "an alias goes with what it stands for"
    assert not machines.deprecated("qemu", "x86_64", "pc-q35-9.0")
    assert not machines.deprecated("qemu", "x86_64", "no such")


def test_no_emulator_is_a_definite_none(said):
    alone = "<capabilities><host><cpu><arch>x86_64</arch></cpu></host></capabilities>"
    assert MachineTypes.parse(said({CAPABILITIES.name: alone})).lists == ()


@pytest.mark.parametrize("text", ["", "<capabilities/>", "<x/>", CAPS.replace("'255'", "'many'"), (1, "no daemon")])
def test_text_that_is_not_understood(said, text):
    with pytest.raises((Unavailable, ValueError)):
        MachineTypes.parse(said({CAPABILITIES.name: text}))


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_parser_raises_anything_else(new, old):
    text = CAPS.replace(old, new, 3) if old else new
    evidence = Evidence(CAPABILITIES.name, 0, text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        MachineTypes.parse(Said(HostEvidence("h", {CAPABILITIES.name: evidence})))


@pytest.mark.corpus
def test_real_capabilities(samples, said):
    found, refused = {}, set()
    for path in samples("virsh-capabilities"):
        name = path.name.split("__", 1)[1][:-4]
        try:
            found[name] = MachineTypes.parse(said({CAPABILITIES.name: path.read_bytes()}))
        except Unavailable:
            refused.add(name)
    assert refused == {"libvirt-cpu__2"}
    debian = found["debian12-local__1"]
    assert debian.usual("qemu") == "pc-q35-7.2"
    assert debian.of("qemu", "x86_64").machines[0].name == "pc-i440fx-7.2"
    assert debian.deprecated("qemu", "x86_64", "pc-i440fx-1.5")
    mixed = found["vdsm-multiqemu__1"]
    assert mixed.resolve("kvm", "x86_64", "pc") == "pc-i440fx-rhel7.1.0"
    assert mixed.resolve("qemu", "x86_64", "pc") == "pc-i440fx-2.0"
    assert found["virt-manager__2"].usual("kvm") == "virt-8.2"
    assert found["vdsm-s390x__1"].usual("kvm") == "s390-ccw-virtio-2.11"
    assert found["vdsm-ibm-S822L-le__1"].native_arch == "ppc64le"
