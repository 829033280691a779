import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Guest, Said, Unavailable
from audit.facts.guest import GuestMachine
from audit.facts.host_models import (
    DOMCAPS_KVM,
    DOMCAPS_KVM_DEFAULT,
    DOMCAPS_MACHINES,
    DOMCAPS_QEMU,
    DOMCAPS_QEMU_DEFAULT,
    DomainCapabilities,
    HostModels,
    Refusal,
    Request,
)

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


def test_devices_that_are_offered(said):
    def offer(devices="", features=""):
        text = domcaps().replace("<features>", f"<devices>{devices}</devices><features>{features}")
        return HostModels.parse(said(hosts_answers(kvm=text))).native("kvm")

    def enum(name, *values):
        return f"<enum name='{name}'>{''.join(f'<value>{value}</value>' for value in values)}</enum>"

    silent = offer()
    assert {silent.graphics, silent.videos, silent.tpm_backends, silent.tpm_models, silent.hyperv} == {None}
    full = offer(
        f"<graphics supported='yes'>{enum('type', 'vnc', 'spice')}</graphics>"
        f"<video supported='yes'>{enum('modelType', 'qxl')}</video>"
        f"<tpm supported='yes'>{enum('model', 'tpm-crb')}{enum('backendModel', 'emulator')}</tpm>",
        f"<hyperv supported='yes'>{enum('features', 'relaxed', 'vpindex')}</hyperv>",
    )
    assert (full.graphics, full.videos) == ({"vnc", "spice"}, {"qxl"})
    assert (full.tpm_backends, full.tpm_models, full.hyperv) == ({"emulator"}, {"tpm-crb"}, {"relaxed", "vpindex"})
    none = offer("<tpm supported='no'/>", "<hyperv supported='no'/>")
    assert (none.tpm_backends, none.tpm_models, none.hyperv) == (frozenset(), frozenset(), None)
    unasked = offer(features=f"<hyperv supported='yes'>{enum('features', 'spinlocks', 'vendor_id')}</hyperv>")
    assert unasked.hyperv is None


@pytest.mark.corpus
def test_devices_that_real_hosts_offer(said, samples):
    found = {}
    for path in samples("domcapabilities"):
        text = path.read_bytes()
        if b"<domainCapabilities>" in text:
            answers = hosts_answers(kvm=text[text.index(b"<domainCapabilities>") :])
            [offer, *_] = HostModels.parse(said(answers)).natives
            assert offer.graphics, path.name
            assert offer.videos, path.name
            found[path.name.split("__")[1] + path.name[-5]] = offer
    assert found["kubevirt8"].graphics == {"vnc"}
    assert found["kubevirt8"].videos == {"virtio", "none"}
    assert found["kubevirt8"].tpm_backends == frozenset()
    assert found["kubevirt4"].tpm_backends is None
    assert found["debian12-local2"].tpm_backends == {"passthrough"}
    assert found["debian12-local2"].hyperv is None
    assert {"spice", "qxl"} <= found["debian12-local2"].graphics | found["debian12-local2"].videos
    assert "reenlightenment" in found["libvirt-qemu-10.0.0-q35.x86-641"].hyperv


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


@given(st.text(max_size=400) | st.just(domcaps()[:-20]))
def test_no_parser_raises_anything_else(text):
    data = text.encode("utf-8", "surrogatepass")
    records = (("kvm", "a", "b", ""),)
    outputs = {probe.name: Evidence(probe.name, 0, data, arguments=records) for probe in HostModels.probes}
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        hash(HostModels.parse(Said(HostEvidence("h", outputs))))


def test_records_of_another_version_were_not_asked(said):
    models = HostModels.parse(said({**hosts_answers(), **asked((), ("kvm", "x86_64"), out="")}))
    assert models.unanswered == ()


# --- real outputs


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
