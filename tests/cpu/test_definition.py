"""Reading and printing `<cpu>`; the refusals are libvirt's, word for word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from audit.cpu import CpuDefinition, CpuFeature, MaxPhysAddr, Topology, UnreadableInput, from_element, read_cpus

WESTMERE = "<model>Westmere</model>"
HOST = "<arch>x86_64</arch>" + WESTMERE


def parse(xml: str, kind=None) -> CpuDefinition:
    return from_element(etree.fromstring(xml), kind)


def test_a_guest_has_libvirts_defaults():
    cpu = parse(f"<cpu>{WESTMERE}<feature name='aes'/></cpu>")
    assert cpu == CpuDefinition(model="Westmere", features=(CpuFeature("aes", "require"),))
    assert (cpu.kind, cpu.mode, cpu.match, cpu.fallback, cpu.check) == ("guest", "custom", "exact", "allow", None)


def test_an_architecture_makes_a_host_whose_policies_do_not_count():
    cpu = parse(f"<cpu>{HOST}<signature family='6' model='44'/><feature policy='disable' name='aes'/></cpu>")
    assert cpu.kind == "host"
    assert cpu.features == (CpuFeature("aes", "require"),)
    assert cpu.signature
    assert (cpu.signature.family, cpu.signature.model, cpu.signature.stepping) == (6, 44, 0)


def test_definitions_are_hashable():
    assert len({parse(f"<cpu>{WESTMERE}</cpu>"), parse(f"<cpu>{WESTMERE}</cpu>")}) == 1


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("<cpu><feature name='aes'/></cpu>", "Non-empty feature list specified without CPU model"),
        ("<cpu><vendor>Intel</vendor></cpu>", "CPU vendor specified without CPU model"),
        (f"<cpu mode='foo'>{WESTMERE}</cpu>", "unsupported configuration: Invalid mode attribute 'foo'"),
        (f"<cpu match='foo'>{WESTMERE}</cpu>", "Invalid value for attribute 'match' in element 'cpu': 'foo'."),
        (f"<cpu check='foo'>{WESTMERE}</cpu>", "Invalid value for attribute 'check' in element 'cpu': 'foo'."),
        (
            f"<cpu migratable='on'>{WESTMERE}</cpu>",
            "unsupported configuration: "
            "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode",
        ),
        (f"<cpu>{WESTMERE}<feature name=''/></cpu>", "Invalid CPU feature name"),
        (f"<cpu>{WESTMERE}<feature/></cpu>", "Invalid CPU feature name"),
        (
            f"<cpu>{WESTMERE}<feature name='aes' policy='x'/></cpu>",
            "unsupported configuration: Invalid CPU feature policy",
        ),
        (
            f"<cpu>{WESTMERE}<feature name='aes'/><feature name='aes' policy='disable'/></cpu>",
            "CPU feature 'aes' specified more than once",
        ),
        ("<cpu><model fallback='x'>Westmere</model></cpu>", "unsupported configuration: Invalid fallback attribute"),
        ("<cpu><model vendor_id='x'>Westmere</model></cpu>", "vendor_id must be exactly 12 characters long"),
        ("<cpu><model vendor_id='Genu,neIntel'>Westmere</model></cpu>", "vendor id is invalid"),
        (
            f"<cpu match='exact'>{HOST}</cpu>",
            "'arch' element cannot be used inside 'cpu' element with 'match' attribute'",
        ),
        (f"<cpu mode='custom'>{HOST}</cpu>", "unsupported configuration: Attribute mode is only allowed for guest CPU"),
        (f"<cpu><arch>bogus</arch>{WESTMERE}</cpu>", "unsupported configuration: Unknown architecture bogus"),
        (f"<cpu><arch/>{WESTMERE}</cpu>", "Missing CPU architecture"),
        ("<cpu><arch>x86_64</arch></cpu>", "Missing CPU model name"),
        (f"<cpu>{HOST}<signature/></cpu>", "Missing required attribute 'family' in element 'signature'"),
        (f"<cpu>{HOST}<microcode version='x'/></cpu>", "unsupported configuration: invalid microcode version"),
        (
            f"<cpu>{WESTMERE}<topology sockets='1'/></cpu>",
            "Missing required attribute 'cores' in element 'topology'",
        ),
        (
            f"<cpu>{WESTMERE}<topology sockets='0' cores='1' threads='1'/></cpu>",
            "Invalid value for attribute 'sockets' in element 'topology': Zero is not permitted",
        ),
        (
            f"<cpu>{WESTMERE}<topology sockets='a' cores='1' threads='1'/></cpu>",
            "Invalid value for attribute 'sockets' in element 'topology': 'a'. Expected non-negative integer value",
        ),
        (f"<cpu>{WESTMERE}<maxphysaddr/></cpu>", "Missing required attribute 'mode' in element 'maxphysaddr'"),
        (
            f"<cpu>{WESTMERE}<maxphysaddr mode='emulate' bits='40' limit='46'/></cpu>",
            "unsupported configuration: attribute 'limit' is only supported for maxphysaddr mode 'passthrough'",
        ),
        (
            f"<cpu>{WESTMERE}<maxphysaddr mode='passthrough' limit='0'/></cpu>",
            "Invalid value for attribute 'limit' in element 'maxphysaddr': Zero is not permitted",
        ),
        (
            f"<cpu>{WESTMERE}<maxphysaddr mode='emulate' bits='x'/></cpu>",
            "Invalid value for attribute 'bits' in element 'maxphysaddr': 'x'. Expected integer value",
        ),
        (
            f"<cpu>{WESTMERE}<topology sockets='{'9' * 5000}' cores='1' threads='1'/></cpu>",
            f"Invalid value for attribute 'sockets' in element 'topology': '{'9' * 5000}'. "
            "Expected non-negative integer value",
        ),
        ("<foo/>", "XML does not contain expected 'cpu' element"),
    ],
)
def test_refusals_are_libvirts(inside: str, message: str):
    with pytest.raises(UnreadableInput) as refusal:
        parse(inside)
    assert refusal.value.words.removeprefix("XML error: ") == message


def test_cpu_baseline_wants_hosts():
    with pytest.raises(UnreadableInput, match="Missing CPU architecture"):
        parse(f"<cpu>{WESTMERE}</cpu>", "host")


def test_a_model_is_taken_as_it_stands():
    assert parse("<cpu><model> Westmere </model></cpu>").model == " Westmere "
    assert parse("<cpu><model/></cpu>").model is None


def test_printing_escapes_and_orders_as_libvirt():
    cpu = CpuDefinition(
        model="a<b>&'\"",
        fallback="forbid",
        vendor="Intel",
        maxphysaddr=MaxPhysAddr("passthrough", limit=46),
        topology=Topology(2, 1, 4, 2),
        features=(CpuFeature("aes"), CpuFeature("hle", "disable")),
    )
    assert cpu.to_xml() == (
        "<cpu mode='custom' match='exact'>\n"
        "  <model fallback='forbid'>a&lt;b&gt;&amp;&apos;&quot;</model>\n"
        "  <vendor>Intel</vendor>\n"
        "  <topology sockets='2' dies='1' cores='4' threads='2'/>\n"
        "  <maxphysaddr mode='passthrough' limit='46'/>\n"
        "  <feature policy='require' name='aes'/>\n"
        "  <feature policy='disable' name='hle'/>\n"
        "</cpu>\n"
    )


@pytest.mark.parametrize(
    "xml",
    [
        "<cpu mode='host-passthrough' check='none' migratable='on'/>\n",
        "<cpu mode='host-model' check='partial'>\n  <model fallback='allow'/>\n</cpu>\n",
        "<cpu mode='custom' match='strict' check='full'>\n  <model fallback='forbid'>Westmere</model>\n</cpu>\n",
        "<cpu>\n  <arch>x86_64</arch>\n  <model>Westmere</model>\n  <vendor>Intel</vendor>\n"
        "  <microcode version='33'/>\n  <signature family='6' model='44' stepping='2'/>\n"
        "  <feature name='vme'/>\n</cpu>\n",
    ],
)
def test_printing_what_was_read_changes_nothing(xml: str):
    assert parse(xml).to_xml() == xml


MODE = "<mode name='host-model' supported='yes'><model fallback='forbid'>Westmere</model></mode>"
CPU = f"<cpu>{WESTMERE}</cpu>"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (CPU, 1),
        (CPU + "\n" + CPU, 2),
        (MODE, 1),
        (f"<domainCapabilities><cpu>{MODE}</cpu></domainCapabilities>", 1),
        (f"<capabilities><host><cpu>{HOST}</cpu></host></capabilities>", 1),
        (f"<domain>{CPU}</domain>{CPU}<domainCapabilities><cpu>{MODE}</cpu></domainCapabilities>", 3),
        (f"<?xml version='1.0' encoding='UTF-8'?>\n{CPU}\n<?xml version='1.0'?>\n{CPU}", 2),
        (f"<!-- a <cpu> in a comment -->{CPU}<domain/>", 1),
    ],
)
def test_reads_what_virsh_reads(source: str, count: int):
    for form in (source, source.encode(), b"\xef\xbb\xbf" + source.encode()):
        cpus = read_cpus(form)
        assert [cpu.model for cpu in cpus] == ["Westmere"] * count


def test_a_mode_becomes_a_guest_without_attributes():
    [cpu] = read_cpus(MODE)
    assert (cpu.kind, cpu.mode, cpu.fallback) == ("guest", "custom", "forbid")


BOMB = "<!DOCTYPE cpu [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {name} '{('&' + before + ';') * 10}'>" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "   \n",
        "error: failed to connect to the hypervisor",
        CPU[:-3],
        f"{CPU}<cpu>",
        BOMB + "]><cpu><model>&i;</model></cpu>",
        "<!DOCTYPE cpu SYSTEM 'file:///etc/passwd'>" + CPU,
        "<cpu><model>&undefined;</model></cpu>",
        "<domain/>",
        "<domainCapabilities><cpu><mode name='host-model' supported='no'/></cpu></domainCapabilities>",
        "<mode name='host-model' supported='no'/>",
        f"<cpuTest>{CPU}</cpuTest>",
        CPU + "\x00",
        "<a>" * 5000 + "</a>" * 5000,
        b"\xff\xfe<\x00c\x00",
        "<cpu>\udc80</cpu>",
    ],
)
def test_unreadable_input_is_refused_and_nothing_else_happens(source):
    with pytest.raises(UnreadableInput):
        read_cpus(source)


@given(st.text() | st.binary())
def test_no_input_breaks_the_reader(source):
    with pytest.raises(UnreadableInput):
        read_cpus(source)
