"""Guests are listed and read without trust; what could not be read stays visible and is never taken for nothing."""

# ruff: noqa: E501 - XML is read as it is written
import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Guest, GuestSource, Said, Unavailable
from audit.facts.guest import (
    GuestCpu,
    GuestIdentity,
    GuestMachine,
    GuestMemory,
    GuestName,
    GuestPinning,
    GuestSnapshots,
    GuestState,
    HostGuestNames,
    number_set,
)
from audit.facts.guest_devices import GuestDevices, GuestDisks, GuestFiles, GuestNics
from audit.facts.guest_jobs import BLOCK_JOBS, GuestBlockJobs, GuestJob
from audit.facts.guest_source import GUESTS, JOBS, SNAPSHOTS, XML, XML_INACTIVE, read_guests
from audit.facts.resident import GuestResident
from audit.text import NotXml, parse_xml

A, B, C = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "abc")
MARK = "0123456789abcdef0123456789abcdef"
KINDS = (
    GuestFiles,
    GuestIdentity,
    GuestMachine,
    GuestCpu,
    GuestMemory,
    GuestPinning,
    GuestDisks,
    GuestNics,
    GuestDevices,
)


def listing(**changes):
    lists = {
        "all": [A, B],
        "running": [A],
        "paused": [],
        "shutoff": [B],
        "other": [],
        "persistent": [B],
        "transient": [A],
        "autostart": [],
        "snapshots": [B],
        "no-snapshots": [A],
    } | changes
    return "".join(f"@{name}\n" + "".join(f"{uuid}\n" for uuid in uuids) + "\n" for name, uuids in lists.items())


def marked(answers):
    return f"{MARK}\n" + "".join(f"{MARK} {name}\n{text}\n" for name, text in answers.items()) + f"{MARK} end\n"


def domain(uuid=A, name="web", body="", head="", attributes="id='3' type='kvm'"):
    return (
        f"<domain {attributes}><name>{name}</name><uuid>{uuid}</uuid>{head}<memory unit='GiB'>2</memory>"
        "<vcpu placement='static'>2</vcpu><os><type arch='x86_64' machine='pc-q35-9.0'>hvm</type></os>"
        f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{body}</devices></domain>"
    )


def off(uuid=B, name="db", **kwargs):
    return domain(uuid, name, attributes="type='kvm'", **kwargs)


def host(said, **changes):
    answers = {
        "guest.list": listing(),
        "guest.xml": marked({A: domain(), B: off()}),
        "guest.xml_inactive": marked({A: off(A, "web")}),
        "guest.jobs": marked({A: "Job type:         None        \n"}),
        "guest.snapshots": marked({B: "before\nafter\n"}),
    }
    return said(answers | changes)


def test_reads_every_guest(said):
    web, db = read_guests(host(said))
    assert web.guest == Guest("kvm01", A, "web")
    assert (web.active, db.active) == (True, False)
    assert web.inactive.get("id") is None
    assert GuestState.parse(web) == GuestState("running", active=True, persistent=False)
    assert GuestState.parse(db) == GuestState("shut off", active=False, persistent=True)
    assert GuestSnapshots.parse(web).snapshots == 0
    assert GuestSnapshots.parse(db).snapshots == 2
    assert GuestJob.parse(web).job == "none"
    assert GuestJob.parse(db).job == "none"


def test_a_host_without_guests(said):
    empty = {name: [] for name in ("all", "running", "shutoff", "persistent", "transient", "snapshots", "no-snapshots")}
    nothing = {"guest.xml": f"{MARK}\n", "guest.xml_inactive": f"{MARK}\n"}
    assert list(read_guests(host(said, **{"guest.list": listing(**empty)}, **nothing))) == []


@pytest.mark.parametrize(
    "broken",
    [
        "",
        listing().replace("@shutoff\n", ""),
        listing() + "rm -rf\n",
        listing() + "@all\n",
        (1, "error: failed to connect to the hypervisor"),
        Evidence("guest.list", 0, listing().encode(), b"error: Failed to list domains"),
        Evidence("guest.list", None, listing().encode(), problem="timed out after 40 s"),
    ],
)
def test_a_list_that_cannot_be_relied_on_is_no_list(said, broken):
    with pytest.raises(Unavailable):
        read_guests(host(said, **{"guest.list": broken}))


def test_a_guest_without_xml_stays_visible(said):
    answers = {A: f"error: failed to get domain '{A}'\n", B: off()}
    facts = Facts({"kvm01": host(said, **{"guest.xml": marked(answers)}).host}, read_guests)
    guests = facts.guests("kvm01")
    assert [guest.name for guest in guests] == [A, "db"]
    for kind in (*KINDS, GuestState):
        fact = facts.of_guest(guests[0], kind)
        assert isinstance(fact, Unavailable), kind
        assert "failed to get domain" in fact.reason
    assert isinstance(facts.of_guest(guests[1], GuestMachine), GuestMachine)
    names = facts.of("kvm01", HostGuestNames)
    assert names.unread == {A}
    assert names.clashing("db", C) == (GuestName("db", B, active=False),)
    with pytest.raises(Unavailable):
        names.complete()


def test_what_appeared_while_reading_is_a_guest_of_unknown_state(said):
    source = read_guests(host(said, **{"guest.xml": marked({A: domain(), B: off(), C: off(C, "new")})}))[-1]
    assert source.guest.name == "new"
    with pytest.raises(Unavailable):
        GuestState.parse(source)
    with pytest.raises(Unavailable):
        GuestSnapshots.parse(source)


def test_a_guest_started_while_reading_has_no_state(said):
    source = read_guests(host(said, **{"guest.xml": marked({A: domain(), B: domain(B, "db")})}))[1]
    assert source.active
    with pytest.raises(Unavailable):
        GuestState.parse(source)


@pytest.mark.parametrize(
    "metadata",
    [
        f"<description>x\n{C} end\n</description>",
        f"<metadata><a:x xmlns:a='urn:a'><![CDATA[</domain>\n{'f' * 32} {B}\n<domain>]]></a:x></metadata>",
        "<title>\x1e\x01\x1b[31m</title>",
        f"<title>{'x' * 10240}</title>",
    ],
)
def test_no_text_of_a_guest_becomes_another_guest(said, metadata):
    web, db = read_guests(host(said, **{"guest.xml": marked({A: domain(head=metadata), B: off()})}))
    assert (web.guest.name, db.guest.name) == ("web", "db")
    assert GuestMachine.parse(web).machine == "pc-q35-9.0"


def test_xml_that_is_another_guests_is_refused(said):
    web = read_guests(host(said, **{"guest.xml": marked({A: domain(C), B: off()})}))[0]
    with pytest.raises(Unavailable, match="another"):
        GuestMachine.parse(web)


def test_a_virsh_that_died_leaves_its_guests_unread(said):
    died = Evidence("guest.xml", 123, f"{MARK}\n{MARK} {A}\n{domain()}\n".encode())
    web, db = read_guests(host(said, **{"guest.xml": died}))
    assert GuestMachine.parse(web).arch == "x86_64"
    with pytest.raises(Unavailable):
        GuestMachine.parse(db)


def test_inactive_xml_that_is_missing_spoils_only_what_needs_it(said):
    web = read_guests(host(said, **{"guest.xml_inactive": marked({})}))[0]
    assert GuestMemory.parse(web).memory_kib == 2 * 1024**2
    with pytest.raises(Unavailable):
        GuestCpu.parse(web)


def test_jobs(said):
    running = "Job type:         Unbounded   \nOperation:        Backup      \nTime elapsed:     1 ms\n"
    web = read_guests(host(said, **{"guest.jobs": marked({A: running})}))[0]
    assert GuestJob.parse(web).job == "backup"
    for answers in ({A: "error: Timed out during operation\n"}, {}):
        web = read_guests(host(said, **{"guest.jobs": marked(answers)}))[0]
        with pytest.raises(Unavailable):
            GuestJob.parse(web)


def test_snapshots_that_cannot_be_counted_are_not_none(said):
    db = read_guests(host(said, **{"guest.snapshots": (1, "error: no")}))[1]
    with pytest.raises(Unavailable):
        GuestSnapshots.parse(db)
    db = read_guests(host(said, **{"guest.snapshots": marked({B: ""})}))[1]
    assert GuestSnapshots.parse(db).snapshots == 1


DISKS = """
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/srv/a b.qcow2'/>
 <backingStore type='file'><format type='raw'/><source file='/srv/base.img'/><backingStore/></backingStore>
 <target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><source file='/iso/cd.iso' startupPolicy='optional'/><target dev='sda'/><readonly/></disk>
<disk type='file' device='floppy'><target dev='fda'/></disk>
<disk type='network' device='disk'><source protocol='rbd' name='pool/img'><auth username='x'>
 <secret type='ceph' uuid='11111111-2222-4333-8444-555555555555'/></auth></source><target dev='vdb'/></disk>
<disk type='volume' device='disk'><driver type='qcow2'/><source pool='fast' volume='v1'/><target dev='vdc'/></disk>
<disk type='block' device='lun'><source dev='/dev/mapper/x'/><target dev='sdb'/><shareable/></disk>
<disk type='nvme'><source type='pci'><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>
 <target dev='vdd'/><transient/><mirror type='file'/></disk>
"""


def test_disks(guest_source):
    disks = {disk.target: disk for disk in GuestDisks.parse(guest_source(domain(body=DISKS))).disks}
    assert disks["vda"].source == "/srv/a b.qcow2"
    assert (disks["vda"].backing, disks["vda"].backing_known) == (("/srv/base.img",), True)
    assert (disks["sda"].readonly, disks["sda"].startup_policy) == (True, "optional")
    assert disks["fda"].source is None
    assert (disks["vdb"].source, disks["vdb"].local) == ("rbd:pool/img", False)
    assert disks["vdb"].secrets == ("11111111-2222-4333-8444-555555555555",)
    assert (disks["vdc"].pool, disks["vdc"].backing_known) == ("fast", False)
    assert (disks["sdb"].device, disks["sdb"].shareable, disks["sdb"].local) == ("lun", True, True)
    assert (disks["vdd"].source, disks["vdd"].transient, disks["vdd"].mirror) == ("0000:01:00.0", True, True)


NICS = """
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source network='prod' portid='x' bridge='br0'/>
 <model type='virtio'/><mtu size='9000'/></interface>
<interface type='bridge'><source bridge='ovsbr'/><virtualport type='openvswitch'/></interface>
<interface type='direct'><source dev='eno1' mode='bridge'/></interface>
<interface type='hostdev' managed='yes'><driver name='vfio' model='mlx5_vfio_pci'/><teaming type='transient'/>
 <source><address type='pci' domain='0x0000' bus='0xe1' slot='0x00' function='0x1'/></source></interface>
<interface type='user'/>
"""


def test_nics(guest_source):
    source = guest_source(domain(body=NICS))
    network, switch, direct, hostdev, user = GuestNics.parse(source).nics
    assert (network.type, network.network, network.bridge, network.mtu) == ("bridge", "prod", "br0", 9000)
    assert (switch.source, switch.network, switch.virtualport) == ("ovsbr", None, "openvswitch")
    assert direct.source == "eno1"
    assert (hostdev.pci_address, hostdev.driver, hostdev.teaming) == ("0000:e1:00.1", "mlx5_vfio_pci", "transient")
    assert user.source is None
    assert GuestDevices.parse(source).user_net


DEVICES = """
<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source></hostdev>
<hostdev mode='subsystem' type='usb'><source startupPolicy='optional'><vendor id='0x0951'/><product id='0x1666'/></source></hostdev>
<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>
<filesystem type='mount'><source dir='/a'/><target dir='a'/></filesystem>
<filesystem type='mount'><driver type='virtiofs'/><source socket='/run/x'/><target dir='b'/></filesystem>
<shmem name='s'><model type='ivshmem-plain'/></shmem>
<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption secret='6dd3e4a5-1d76-44ce-961f-f119f5aad935'/></backend></tpm>
<graphics type='vnc' port='5900' listen='10.0.0.11'><listen type='address' address='10.0.0.11'/></graphics>
<graphics type='spice'><listen type='socket'/></graphics>
<serial type='file'><source path='/var/log/g.log'/></serial><console type='file'><source path='/var/log/g.log'/></console>
<channel type='unix'><source mode='bind' path='/run/libvirt/auto'/></channel>
<parallel type='pty'><log file='/var/log/p.log'/></parallel>
<iommu model='intel'/>
"""


def test_devices(guest_source):
    inactive = DEVICES.replace(" listen='10.0.0.11'", "").replace(" address='10.0.0.11'", "")
    inactive = inactive.replace("<source mode='bind' path='/run/libvirt/auto'/>", "")
    found = GuestDevices.parse(guest_source(domain(body=DEVICES), inactive=off(A, "web", body=inactive)))
    assert [device.address for device in found.hostdevs] == [
        "0000:3b:00.0",
        "0x0951:0x1666",
        "c2177883-f1bb-47f0-914d-32a22e3a8804",
    ]
    assert [device.dropped_when_missing for device in found.hostdevs] == [False, True, False]
    assert found.filesystems == ("path", "virtiofs")
    assert found.shmems == (("s", "ivshmem-plain", "peer"),)
    assert (found.tpm, found.tpm_secret) == ("emulator", "6dd3e4a5-1d76-44ce-961f-f119f5aad935")
    assert found.graphics == (("vnc", None), ("spice", None)), "an address of qemu.conf's stands in the live XML only"
    assert found.serial_paths == (("file", "/var/log/g.log"), ("log", "/var/log/p.log"))
    assert found.viommu
    assert not found.vsock
    configured = GuestDevices.parse(guest_source(domain(body=DEVICES), inactive=off(A, "web", body=DEVICES)))
    assert configured.graphics[0] == ("vnc", "10.0.0.11")
    assert ("unix", "/run/libvirt/auto") in configured.serial_paths


FILES = """
<memory model='nvdimm'><source><path>/pmem/a</path></source><target><size unit='MiB'>64</size></target></memory>
<memory model='dimm'><target><size unit='KiB'>1</size></target></memory>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng>
<filesystem type='mount'><source dir='/projects'/><target dir='a'/></filesystem>
<filesystem type='mount'><driver type='virtiofs'/><source socket='/run/fs.sock'/><target dir='b'/></filesystem>
<disk type='vhostuser'><source type='unix' path='/run/spdk'/><target dev='vda'/></disk>
<interface type='vhostuser'><source type='unix' path='/run/ovs1' mode='server'/></interface>
<interface type='vhostuser'><source type='unix' path='/run/ovs2' mode='client'/></interface>
"""


def test_files(guest_source):
    xml = domain(body=FILES).replace("hvm</type>", "hvm</type><kernel>/boot/k</kernel><initrd>/boot/i</initrd>")
    assert [(file.path, file.made) for file in GuestFiles.parse(guest_source(xml)).files] == [
        ("/boot/k", False),
        ("/boot/i", False),
        ("/pmem/a", False),
        ("/dev/hwrng", False),
        ("/projects", False),
        ("/run/fs.sock", False),
        ("/run/spdk", False),
        ("/run/ovs1", True),
        ("/run/ovs2", False),
    ]
    assert GuestFiles.parse(guest_source(domain())).files == ()


def test_fixed_ports_of_displays(guest_source):
    body = (
        "<graphics type='vnc' port='5905' autoport='no' listen='10.0.0.11'/><graphics type='vnc' port='-1'/>"
        "<graphics type='spice' port='5900' tlsPort='5910' autoport='yes'/>"
        "<graphics type='spice' port='5901' tlsPort='5911' autoport='no'/>"
    )
    ports = GuestDevices.parse(guest_source(domain(body=body), inactive=off(A, "web", body=body))).graphics_ports
    assert ports == (("vnc", "10.0.0.11", 5905), ("spice", None, 5901), ("spice", None, 5911))


def test_memory_and_pinning(guest_source):
    xml = domain(
        head="<memoryBacking><hugepages><page size='1' unit='GiB' nodeset='0'/></hugepages><locked/></memoryBacking>"
        "<numatune><memory mode='strict' nodeset='0-1'/></numatune><maxMemory slots='4' unit='GiB'>8</maxMemory>"
        "<cputune><vcpupin vcpu='0' cpuset='4-6,^5'/><emulatorpin cpuset='8'/></cputune>",
        body="<memory model='dimm'><target><size unit='KiB'>1</size></target></memory>",
    )
    memory = GuestMemory.parse(guest_source(xml))
    assert (memory.memory_kib, memory.max_memory_kib) == (2 * 1024**2, 8 * 1024**2)
    assert memory.hugepage_kib == (1024**2,)
    assert (memory.nodeset, memory.strict, memory.locked) == ({0, 1}, True, True)
    assert memory.dimms_without_address
    assert GuestPinning.parse(guest_source(xml)) == GuestPinning(2, frozenset({4, 6, 8}))


def test_machine_and_cpu(guest_source):
    xml = domain(head="<clock offset='utc'><timer name='tsc' frequency='2100000000'/></clock>"
                 "<features><hyperv><relaxed state='on'/><vapic state='off'/></hyperv></features>"
                 "<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>EPYC</model></cpu>")  # fmt: skip
    xml = xml.replace("hvm</type>", "hvm</type><loader type='pflash'>/fw/code.fd</loader><nvram>/vars/g.fd</nvram>")
    machine = GuestMachine.parse(guest_source(xml))
    assert (machine.firmware, machine.loader, machine.nvram) == ("efi", "/fw/code.fd", "/vars/g.fd")
    assert machine.loader_format == "raw"
    named = GuestMachine.parse(guest_source(xml.replace("/fw/code.fd", "/fw/code.qcow2")))
    stated = GuestMachine.parse(guest_source(xml.replace("<loader ", "<loader format='qcow2' ")))
    assert (named.loader_format, stated.loader_format) == ("qcow2", "qcow2")
    cpu = GuestCpu.parse(guest_source(xml))
    assert (cpu.definition.model, cpu.tsc_frequency_hz, cpu.hyperv) == ("EPYC", 2_100_000_000, {"relaxed"})
    with pytest.raises(Unavailable):
        GuestCpu.parse(guest_source(domain(head="<cpu mode='nonsense'/>")))


@pytest.mark.parametrize("text", ["1-", "a", "0-99999999", "99999999999999999999", "1 2", "-1"])
def test_hostile_number_sets(text):
    with pytest.raises(ValueError, match="not a list"):
        number_set(text)


def block_jobs(said, answer, arguments=(("0", A, "vda"),), problem=""):
    evidence = Evidence(BLOCK_JOBS.name, 0, answer.encode(), problem=problem, arguments=arguments)
    disk = "<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
    xml = marked({A: domain(body=disk), B: off()})
    return GuestBlockJobs.parse(read_guests(host(said, **{"guest.xml": xml, BLOCK_JOBS.name: evidence}))[0])


def test_block_jobs(said):
    none = block_jobs(said, marked({"0": "No current block job for vda"}))
    assert none == GuestBlockJobs(())
    none.complete()
    assert block_jobs(said, marked({"0": "Block Copy: [100 %]"})).jobs == (("vda", "Block Copy: [100 %]"),)
    for unknown in (
        block_jobs(said, marked({"0": "error: cannot acquire state change lock"})),
        block_jobs(said, marked({"0": ""})),
        block_jobs(said, marked({})),
        block_jobs(said, marked({}), arguments=()),
        block_jobs(said, "", problem="timed out after 60 s"),
    ):
        assert unknown.jobs == ()
        with pytest.raises(Unavailable):
            unknown.complete()


def test_a_disk_that_qemu_does_not_drive_has_no_block_jobs(said):
    for kind, unknown in (("vhostuser", ()), ("file", (("vda", "not asked about"),))):
        disk = f"<disk type='{kind}'><source path='/run/s' file='/a'/><target dev='vda'/></disk>"
        answers = {"guest.xml": marked({A: domain(body=disk), B: off()}), BLOCK_JOBS.name: (1, "error")}
        found = GuestBlockJobs.parse(read_guests(host(said, **answers))[0])
        assert [target for target, _ in found.unknown] == [target for target, _ in unknown]


def test_block_jobs_are_asked_of_running_guests_with_harmless_disk_names(said):
    disks = "".join(
        f"<disk type='file'><source file='/a'/><target dev='{dev}'/></disk>" for dev in ("vda", "vd;b", "$(x)")
    )
    xml = marked({A: domain(body=disks), B: off(body=disks)})
    facts = Facts({"kvm01": host(said, **{"guest.xml": xml}).host}, read_guests)
    assert BLOCK_JOBS.ask(facts, "kvm01", ()) == (("0", A, "vda"),)


@given(st.text(), st.binary())
@settings(max_examples=60, deadline=None)
def test_any_text_is_either_read_or_refused(text, data):
    answers = {
        GUESTS.name: Evidence(GUESTS.name, 0, listing().encode()),
        XML.name: Evidence(XML.name, 0, f"{MARK}\n{MARK} {A}\n".encode() + data),
        XML_INACTIVE.name: Evidence(XML_INACTIVE.name, 0, text.encode("utf-8", "replace")),
        SNAPSHOTS.name: Evidence(SNAPSHOTS.name, 0, data),
        JOBS.name: Evidence(JOBS.name, 0, f"{MARK}\n{MARK} {A}\n".encode() + data),
    }
    for said in (
        Said(HostEvidence("h", answers)),
        Said(HostEvidence("h", answers | {GUESTS.name: Evidence(GUESTS.name, 0, data)})),
    ):
        try:
            sources = read_guests(said)
        except Unavailable:
            continue
        for source in sources:
            for kind in (*KINDS, GuestState, GuestSnapshots, GuestJob, GuestBlockJobs):
                with contextlib.suppress(Unavailable, ValueError, LookupError):
                    kind.parse(source)


_ATTRIBUTES = st.sampled_from(["type", "file", "dev", "name", "uuid", "size", "unit", "bus", "cpuset", "id", "nodeset"])
_TAGS = st.sampled_from(
    [
        "disk",
        "source",
        "target",
        "backingStore",
        "interface",
        "hostdev",
        "memory",
        "vcpu",
        "os",
        "cpu",
        "tpm",
        "driver",
        "address",
    ]
)


@st.composite
def _elements(draw, depth=3):
    tag = draw(_TAGS)
    attributes = draw(
        st.dictionaries(_ATTRIBUTES, st.sampled_from(["", "x", "file", "pci", "-1", "0x", "9" * 30]), max_size=3)
    )
    inner = (
        "".join(draw(st.lists(_elements(depth - 1), max_size=3)))
        if depth
        else draw(st.sampled_from(["", "7", "-", "é"]))
    )
    return f"<{tag} " + " ".join(f'{k}="{v}"' for k, v in attributes.items()) + f">{inner}</{tag}>"


@given(_elements(), _elements())
@settings(max_examples=150, deadline=None)
def test_any_domain_is_either_read_or_refused(head, body):
    root = parse_xml(domain(head=head, body=body).encode())
    source = GuestSource(Guest("h", A, "web"), True, root, None, Said(HostEvidence("h")))
    for kind in KINDS:
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            kind.parse(source)


@pytest.mark.corpus
def test_real_domains(samples, said):
    refused = []
    for path in samples("dumpxml"):
        try:
            root = parse_xml(path.read_bytes().strip())
        except NotXml:
            refused.append(path.name)
            continue
        source = GuestSource(Guest("h", A, "x"), root.get("id") is not None, root, None, said({}))
        facts = {
            kind: kind.parse(source)
            for kind in (GuestMemory, GuestPinning, GuestCpu)
            if root.find("memory") is not None and root.find("vcpu") is not None
        }
        if root.find("devices") is not None:
            facts |= {kind: kind.parse(source) for kind in (GuestDisks, GuestNics, GuestDevices)}
        if path.name == "dumpxml__vdsm__1.txt":
            assert any(nic.type == "hostdev" and nic.pci_address for nic in facts[GuestNics].nics)
            assert facts[GuestMemory].memory_kib == 262144
        if path.name == "dumpxml__vdsm__2.txt":
            assert GuestMachine.parse(source).machine == "pc-i440fx-rhel7.4.0"
            assert facts[GuestCpu].definition.model == "SandyBridge"
        if path.name == "dumpxml__vdsm__3.txt":
            assert GuestMachine.parse(source).arch == "x86_64"
            assert facts[GuestDisks].disks
    assert refused == ["dumpxml__error-local__1.txt", "dumpxml__malformed-kubevirt__1.txt"]


def _fake_virsh(folder: Path, script: str) -> dict[str, str]:
    virsh = folder / "virsh"
    virsh.write_text(f"#!/bin/sh\n{script}\n")
    virsh.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "LC_ALL": "C"}


def test_the_probe_survives_a_virsh_that_fails(tmp_path):
    environment = _fake_virsh(tmp_path, "echo 'error: failed to connect to the hypervisor' >&2; exit 1")
    ran = subprocess.run(["sh", "-c", XML.command], env=environment, capture_output=True)
    assert ran.returncode == 1
    assert ran.stdout == b""


def test_the_probe_asks_many_guests_in_few_processes(tmp_path, said):
    uuids = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(250)]
    (tmp_path / "uuids").write_text("\n".join(uuids))
    environment = _fake_virsh(
        tmp_path,
        f'echo x >>{tmp_path}/starts\ncase "$*" in *" list "*) cat {tmp_path}/uuids; exit ;; esac\n'
        'for last; do :; done\necho "$last" | tr ";" "\\n" | while read -r word rest; do\n'
        'case $word in echo) echo "$rest" ;; dumpxml) echo "<domain/>" ;; esac; done',
    )
    ran = subprocess.run(["sh", "-c", XML.command], env=environment, capture_output=True)
    assert ran.returncode == 0
    assert len((tmp_path / "starts").read_text().split()) == 1 + 3
    from audit.facts.virsh import answers

    assert sorted(answers(said({XML.name: ran.stdout}), XML)) == uuids


@pytest.mark.parametrize(
    ("answer", "resident", "why"),
    [
        ("actual 2097152\nrss 131073\n", 196608, ""),
        ("actual 2097152\n", None, "actual 2097152"),
        ("error: timed out", None, "error: timed out"),
        ("rss many\n", None, "rss many"),
        (None, None, "not asked"),
    ],
)
def test_memory_in_use(said, answer, resident, why):
    answers = marked({} if answer is None else {A: answer})
    web, db = read_guests(host(said, **{"guest.memory_statistics": answers}))
    found = GuestResident.parse(web)
    assert found.resident_kib == resident
    assert why in found.unread
    assert GuestResident.parse(db).resident_kib is None
    if resident is None:
        with pytest.raises(Unavailable):
            found.known_kib()


def test_memory_in_use_not_collected(said):
    web, _ = read_guests(host(said))
    assert GuestResident.parse(web).unread == "not collected"


def test_pieces_of_memory(said):
    nodes = "<numa><cell id='0' memory='1' unit='GiB'/><cell id='1' memory='512' unit='MiB'/></numa>"
    dimm = "<memory model='dimm'><target><size unit='MiB'>1536</size></target></memory>"
    for body, head, most in (
        ("", "", 2048),
        ("", f"<cpu>{nodes}</cpu>", 1024),
        (dimm, f"<cpu>{nodes}</cpu>", 1536),
    ):
        xml = marked({A: domain(body=body, head=head), B: off()})
        web, _ = read_guests(host(said, **{"guest.xml": xml}))
        assert GuestMemory.parse(web).block_kib == most * 1024
    head = "<memoryBacking><allocation mode='immediate'/></memoryBacking>"
    web, _ = read_guests(host(said, **{"guest.xml": marked({A: domain(head=head), B: off()})}))
    assert GuestMemory.parse(web).immediate
