"""Volumes that pools know, storage in the network, samples of images, and who uses which: parsing."""

import subprocess

import pytest

from audit.evidence import Evidence
from audit.facts.base import Unavailable
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.guest_source import read_guests
from audit.facts.image_users import ImageUsers
from audit.facts.portals import PORTALS, SERVERS, Portals, StorageServers
from audit.facts.samples import SAMPLES, Samples
from audit.facts.volumes import VOLUMES, Volumes
from audit.text import parse_xml

MARK = "0123456789abcdef0123456789abcdef"
CASES = [(PORTALS, Portals), (SAMPLES, Samples), (VOLUMES, Volumes)]


def answered(probe, text, *records, status=0):
    arguments = tuple((str(number), *record) for number, record in enumerate(records))
    return {probe.name: Evidence(probe.name, status, text.encode(), arguments=arguments)}


def test_volumes(said):
    text = (
        f"{MARK}\n{MARK} 0\n/srv/a\n\n"
        f"{MARK} 1\nerror: Storage volume not found: no storage vol with matching name 'b'\n\n"
        f"{MARK} 2\nerror: Requested operation is not valid: storage pool 'fast' is not active\n{MARK} end\n"
    )
    volumes = Volumes.parse(said(answered(VOLUMES, text, ("fast", "a"), ("fast", "b"), ("slow", "c"))))
    assert volumes.has("fast", "a")
    assert not volumes.has("fast", "b")
    for pool, volume in (("slow", "c"), ("fast", "z")):
        with pytest.raises(Unavailable):
            volumes.has(pool, volume)
    assert Volumes.parse(said(answered(VOLUMES, ""))).unread == ""


def test_portals(said):
    text = (
        "0 0 \n1 1 bash: connect: Connection refused bash: line 1: /dev/tcp/10.0.0.9/3260: Connection refused\n2 124 \n"
        "3 1 bash: nas: Name or service not known bash: line 1: /dev/tcp/nas/3260: Invalid argument\n4 1 bash: what?\n"
    )
    records = [(host, "3260") for host in ("10.0.0.8", "10.0.0.9", "10.0.0.10", "nas", "odd")]
    portals = Portals.parse(said(answered(PORTALS, text, *records)))
    assert [portals.problem(host, 3260) for host, _ in records[:4]] == [
        "",
        "Connection refused",
        "Connection timed out",
        "Name or service not known",
    ]
    with pytest.raises(Unavailable):
        portals.problem("odd", 3260)
    with pytest.raises(Unavailable):
        Portals.parse(said(answered(PORTALS, "9 0 \n", *records)))
    servers = StorageServers.parse(
        said(
            {
                SERVERS.name: Evidence(
                    SERVERS.name, 0, b"= 0\n10.0.0.9 br0 10.0.0.1\n= 2\n", arguments=(("nas",), ("x",))
                )
            }
        )
    )
    assert servers.of("nas") == (("10.0.0.9", "br0", "10.0.0.1"),)
    assert servers.of("x") == ()
    for name in ("y",):
        with pytest.raises(Unavailable):
            servers.of(name)
    with pytest.raises(Unavailable):
        StorageServers.parse(said({}))
    without = Portals.parse(said(answered(PORTALS, "", *records, status=127)))
    assert "command not found" in without.unread


def test_portals_are_tried(said):
    """Run for real: nothing listens there, and no name is passed to a shell."""
    records = [("127.0.0.1", "1"), ("$(echo 127.0.0.1)", "1")]
    data = b"".join(f"{number}\0{host}\0{port}\0".encode() for number, (host, port) in enumerate(records))
    ran = subprocess.run(["sh", "-c", PORTALS.command], input=data, capture_output=True, check=True)
    portals = Portals.parse(said(answered(PORTALS, ran.stdout.decode(), *records)))
    assert portals.problem("127.0.0.1", 1) == "Connection refused"
    assert portals.tried[0][0] == "127.0.0.1" or portals.tried[0][2] != ""


def test_samples(tmp_path, said):
    for name, content in {"a": b"x" * 3_000_000, "b": b"y" + b"x" * 2_999_999, "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
    asked = [str(tmp_path / name) for name in ("a", "b", "empty", "none")]
    data = b"".join(f"{number}\0{path}\0".encode() for number, path in enumerate(asked))
    ran = subprocess.run(["sh", "-c", SAMPLES.command.replace("$sudo ", "")], input=data, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")
    samples = Samples.parse(said(answered(SAMPLES, ran.stdout.decode(), *((path,) for path in asked))))
    first, second = (samples.of(path) for path in asked[:2])
    assert first != second
    assert samples.of(asked[3]) is None
    with pytest.raises(Unavailable):
        samples.of(asked[2])
    with pytest.raises(Unavailable):
        Samples.parse(said(answered(SAMPLES, "0 what\n", ("/a",))))


@pytest.mark.parametrize(("probe", "kind"), CASES)
def test_not_collected_is_told_where_it_matters(said, probe, kind):
    assert kind.parse(said({})).unread in {"not collected", "not tried: --probe-network does"}


@pytest.mark.parametrize(
    ("source", "portals"),
    [
        ("<source protocol='nbd' name='x'><host name='store'/></source>", (("store", 10809),)),
        ("<source protocol='rbd' name='p/x'><host name='m1'/><host name='m2' port='6789'/></source>",
         (("m1", 3300), ("m1", 6789), ("m2", 6789))),
        ("<source protocol='rbd' name='p/x'/>", ()),
        ("<source protocol='nbd'><host transport='unix' socket='/run/nbd'/></source>", ()),
        ("<source protocol='unheard' name='x'><host name='store'/></source>", ()),
    ],
)  # fmt: skip
def test_where_a_network_disk_s_storage_listens(said, source, portals):
    xml = f"<domain><devices><disk type='network'>{source}<target dev='vda'/></disk></devices></domain>"
    assert _disks(said, xml)[0].portals == portals


def _disks(said, xml) -> tuple[Disk, ...]:
    from audit.facts.base import Guest, GuestSource

    return GuestDisks.parse(GuestSource(Guest("h", "u", "n"), True, parse_xml(xml.encode()), None, said({}))).disks


def test_image_users(said):
    with pytest.raises(Unavailable):
        ImageUsers.parse(said({}))
    with pytest.raises(Unavailable):
        read_guests(said({}))
    users = ImageUsers((("/a", "u1", "web"),), 1)
    assert users.of("/a", but="u2") == ("web",)
    with pytest.raises(Unavailable):
        users.of("/b", but="u2")
    assert ImageUsers((("/a", "u1", "web"),)).of("/a", but="u1") == ()
