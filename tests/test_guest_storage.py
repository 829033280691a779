"""Where guests' disks lie, as the results tell it."""

from pathlib import Path

from audit.evidence import Bundle, HostEvidence
from audit.facts.base import Facts, Guest, GuestSource, Unavailable
from audit.facts.guest_source import read_guests
from audit.guest_storage import disk_results
from audit.text import parse_xml

SAMPLES = Path(__file__).parent.parent / "sample_data"


def by_guest(fleet):
    bundle = Bundle.read(SAMPLES / fleet / "bundle")
    facts = Facts(bundle.hosts, read_guests)
    guests = [guest for host in bundle.hosts if not bundle.hosts[host].problem for guest in listed(facts, host)]
    return {guest.name: disk_results(facts, guest) for guest in guests}


def listed(facts, host):
    guests = facts.guests(host)
    return [] if isinstance(guests, Unavailable) else guests


def test_files_on_shared_and_local_file_systems_and_luns():
    found = by_guest("mixed")
    assert found["web01"] == [
        {"target": "vda", "kind": "shared", "where": "nfs4 nas01.example.com:/export/vmstore"},
    ]
    assert found["build01"] == [{"target": "vda", "kind": "local", "where": "ext4"}]
    assert [disk["kind"] for disk in found["install01"]] == ["shared", "local"]
    lun = found["db01"][1]
    assert (lun["kind"], lun["where"]) == ("block", "/dev/mapper/oradata naa.60002ac0000000000000021f0001e5a2")


def test_what_is_not_known_says_why():
    [disk] = by_guest("partial")["jobs01"]
    assert disk["kind"] == "unknown"
    assert "not understood" in disk["where"]


def of_xml(devices: str):
    """The disks of a guest on a host that told nothing else."""
    xml = parse_xml(f"<domain type='kvm'><name>g</name><devices>{devices}</devices></domain>".encode())
    host = HostEvidence("h1")
    guest = Guest("h1", "u", "g")
    return disk_results(Facts({"h1": host}, lambda said: [GuestSource(guest, True, xml, None, said)]), guest)


def test_disks_without_a_path_need_nothing_of_the_host_and_files_do():
    ceph = "<disk type='network' device='disk'><source protocol='rbd' name='vms/g'/><target dev='vda'/></disk>"
    iscsi = "<disk type='network' device='disk'><source protocol='iscsi' name='iqn.x/1'/><target dev='vdb'/></disk>"
    nvme = "<disk type='nvme' device='disk'><source type='pci' namespace='1'><address domain='0x0000' bus='0x01' "
    nvme += "slot='0x00' function='0x0'/></source><target dev='vdc'/></disk>"
    empty = "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
    file = "<disk type='file' device='disk'><source file='/images/a'/><target dev='vdd'/></disk>"
    found = of_xml(ceph + iscsi + empty + file)
    assert [(disk["target"], disk["kind"]) for disk in found] == [
        ("vda", "network"),
        ("vdb", "network"),
        ("vdd", "unknown"),
    ]
    assert found[0]["where"] == "Ceph vms/g"
    assert [disk["kind"] for disk in of_xml(nvme)] == ["host"]
