"""Sizes of disks and free space, strictly read."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Guest, GuestSource, Said, Unavailable
from audit.facts.disk_sizes import FREE, SIZES, DiskSize, FreeSpace, GuestDiskSizes, Room
from audit.facts.guest_source import read_guests
from audit.text import parse_xml
from audit.transports import Asked
from audit.transports.local import LocalTransport
from tests.facts.test_guest import MARK, A, B, domain, host, marked, off

INFO = """\
 Target   Capacity      Allocation    Physical
-------------------------------------------------
 vda      16777216      1048576       2097152
 sda      -             -             -
 vdb      10737418240   0             10737418240

"""
DISK = "<disk type='file' device='disk'><driver type='qcow2'/><source file='/srv/{0}'/><target dev='vda'/>{1}</disk>"


def sizes(said, answer, arguments=((A,),)):
    evidence = Evidence(SIZES.name, 0, answer.encode(), arguments=arguments)
    return GuestDiskSizes.parse(read_guests(host(said, **{SIZES.name: evidence}))[0])


def test_sizes(said):
    found = sizes(said, marked({A: INFO}))
    assert found.of("vda") == DiskSize("vda", 16777216, 1048576)
    assert found.of("vdb").capacity == 10 * 1024**3
    with pytest.raises(Unavailable):
        found.of("sda")


def test_no_sizes(said):
    for answer, arguments in (
        (marked({A: "error: failed to get domain"}), ((A,),)),
        (marked({}), ((A,),)),
        (marked({B: INFO}), ((B,),)),
        ("", ()),
    ):
        with pytest.raises(Unavailable):
            sizes(said, answer, arguments)


def test_asked_of_running_guests_with_images_of_their_own(said):
    def asked(*disks):
        answers = {"guest.xml": marked({A: domain(body="".join(disks)), B: off(body=DISK.format("b", ""))})}
        facts = Facts({"kvm01": host(said, **answers).host}, read_guests)
        return SIZES.ask(facts, "kvm01", ()), FREE.ask(facts, "kvm02", ["kvm01"])

    assert asked(DISK.format("web/a", "")) == (((A,),), (("0", "/srv"), ("1", "/srv/web")))
    assert asked(DISK.format("web/a", "<readonly/>"))[0] == ()
    assert asked(DISK.format("web/a", "<shareable/>"))[0] == ()


def test_free_space_in_a_real_shell(tmp_path, said):
    folder = tmp_path / "a folder; with words"
    folder.mkdir()
    asked = (("0", str(folder)), ("1", "/nonexistent/folder"), ("2", "/proc"))
    output = LocalTransport().ask([Asked(FREE, asked)], 30, lambda: None).outputs[FREE.name]
    assert (output.status, output.problem) == (0, "")
    free = FreeSpace.parse(said({FREE.name: output}))
    assert free.of(str(folder)).free_kib > 0
    assert free.of("/proc").free_kib == 0
    for unknown in ("/nonexistent/folder", "/never/asked"):
        with pytest.raises(Unavailable):
            free.of(unknown)


def test_mounts_with_spaces_and_broken_answers(said):
    text = "record 0\nFilesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 9 1 8 12% /srv/vm images\n"
    broken = "record 1\nFilesystem 1024-blocks\nrecord 2\nrecord 3\nhead\n/dev/x 1 2 lots 3% /y\n"
    arguments = tuple((str(n), f"/f{n}") for n in range(4))
    free = FreeSpace.parse(said({FREE.name: Evidence(FREE.name, 0, (text + broken).encode(), arguments=arguments)}))
    assert free.folders == (("/f0", Room("/srv/vm images", 8)),)
    unread = FreeSpace.parse(said({FREE.name: Evidence(FREE.name, 1, b"", b"no", arguments=arguments)}))
    with pytest.raises(Unavailable):
        unread.of("/f0")
    assert FreeSpace.parse(said({FREE.name: Evidence(FREE.name, 0)})).folders == ()
    with pytest.raises(Unavailable):
        FreeSpace.parse(said({})).of("/f0")


@settings(max_examples=50)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes(data):
    answers = {
        SIZES.name: Evidence(SIZES.name, 0, f"{MARK}\n{MARK} {A}\n".encode() + data, arguments=((A,),)),
        FREE.name: Evidence(FREE.name, 0, b"record 0\n" + data, arguments=(("0", "/f"),)),
    }
    said = Said(HostEvidence("h", answers))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        GuestDiskSizes.parse(GuestSource(Guest("h", A, "x"), True, parse_xml(b"<x/>"), None, said))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        FreeSpace.parse(said)
