"""Arguments of a guest's own, and whether a QEMU knows them."""

import pytest
from lxml import etree

from audit.evidence import Evidence
from audit.facts.arguments import (
    INSTALLED,
    KNOWN,
    GuestArguments,
    Known,
    KnownArguments,
    Option,
    files_of,
    options_of,
    ports_of,
)
from audit.facts.base import Guest, GuestSource, Unavailable

EMULATOR = "/usr/bin/qemu-system-x86_64"
OUTPUT = """\
1:-h or -help     display this help and exit
1:-device driver[,prop[=value][,...]]
1:-no-hpet        disable HPET
1:name "virtio-rng-pci", bus PCI, alias "virtio-rng"
1:name "edu", bus PCI
1=0
"""


def domain(*words):
    args = "".join(f'<qemu:arg value="{word}"/>' for word in words)
    return etree.fromstring(
        '<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">'
        f"<devices><emulator>{EMULATOR}</emulator></devices><qemu:commandline>{args}</qemu:commandline></domain>"
    )


def answered(said, output):
    evidence = Evidence(KNOWN.name, status=0, stdout=output.encode(), arguments=((EMULATOR,),))
    return said({KNOWN.name: evidence})


def test_options_and_their_values():
    assert options_of(domain("-device", "edu,addr=3", "--s", "stray", "-no-hpet")) == (
        Option("device", "edu,addr=3"),
        Option("s", "stray"),
        Option("no-hpet", ""),
    )
    assert options_of(domain("lost")) == ()


def test_files_that_are_read_at_the_start():
    words = ("-fw_cfg", "name=opt/x,file=/etc/a,,b", "-drive", "if=none,file=/d.raw", "-bios", "/b.bin", "-D", "/log")
    assert list(files_of(domain(*words))) == [("-fw_cfg", "/etc/a,b"), ("-drive", "/d.raw"), ("-bios", "/b.bin")]


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (("-gdb", "tcp::1235"), [("-gdb", "*", 1235)]),
        (("-s",), [("-s", "*", 1234)]),
        (("-monitor", "telnet:127.0.0.1:4444,server,nowait"), [("-monitor", "127.0.0.1", 4444)]),
        (("-qmp", "tcp:[::1]:4445,server=on"), [("-qmp", "::1", 4445)]),
        (("-serial", "tcp:log.example.com:4446"), []),
        (("-gdb", "tcp::99999"), []),
        (("-name", "tcp::80"), []),
    ],
)
def test_ports_that_are_listened_on(words, ports):
    assert list(ports_of(domain(*words))) == ports


def test_a_guests_arguments(said):
    xml = domain("-device", "edu", "-device", "{&quot;driver&quot;:&quot;rng&quot;}", "-device", "{", "-no-hpet")
    source = GuestSource(Guest("kvm01", "u", "web"), True, xml, None, said({}))
    assert GuestArguments.parse(source) == GuestArguments(EMULATOR, ("device", "no-hpet"), ("edu", "rng"))


def test_what_an_emulator_knows(said):
    found = KnownArguments.parse(answered(said, OUTPUT))
    assert found.of(EMULATOR) == Known(
        EMULATOR,
        frozenset({"h", "help", "device", "no-hpet"}),
        frozenset({"virtio-rng-pci", "virtio-rng", "edu"}),
    )
    with pytest.raises(Unavailable, match="not asked"):
        found.of("/usr/libexec/qemu-kvm")


def test_an_emulator_that_did_not_answer(said):
    broken = answered(said, "1=127\n")
    with pytest.raises(Unavailable, match="did not answer"):
        KnownArguments.parse(broken).of(EMULATOR)
    assert KnownArguments.parse(said({})).emulators == ()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (EMULATOR, True),
        ("/usr/local/bin/qemu-site", True),
        ("/opt/qemu-9.1/bin/qemu-system-x86_64", True),
        ("/usr/libexec/qemu-kvm", True),
        ("/usr/bin/reboot", False),
        ("/tmp/qemu-system-x86_64", False),
        ("/opt/../bin/qemu-x", False),
        ("/usr/bin/qemu-x; reboot", False),
    ],
)
def test_only_installed_emulators_are_asked(path, asked):
    assert bool(INSTALLED.fullmatch(path)) is asked
