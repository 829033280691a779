"""MAC addresses in use on a host: whose, on what, and whether that leads out."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.guest_devices import KeptDevices
from audit.facts.guest_source import _SECTIONS, GUESTS, XML, XML_INACTIVE
from audit.facts.macs import MacsInUse, Plugged
from audit.facts.network import ADDRESSES, LINKS

UUIDS = [f"6c1a5b8e-3b0f-4c56-8a44-0d2f6b1f2a1{n}" for n in range(3)]
MARK = "0123456789abcdef" * 2
NICS = """
<interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan' bridge='br0'/></interface>
<interface type='network'><mac address='52:54:00:00:00:02'/><source network='default' bridge='virbr0'/></interface>
<interface type='bridge'><mac address='52:54:00:00:00:0A'/><source bridge='ovsbr'/>
  <vlan><tag id='42'/></vlan></interface>
<interface type='bridge'><mac address='52:54:00:00:00:04'/><source bridge='br-int'/></interface>
<interface type='direct'><mac address='52:54:00:00:00:05'/><source dev='eno1' mode='bridge'/></interface>
<interface type='hostdev'><mac address='52:54:00:00:00:06'/>
  <source><address type='pci' domain='0' bus='1' slot='0' function='1'/></source></interface>
<interface type='user'><mac address='52:54:00:00:00:07'/></interface>
<interface type='bridge'><source bridge='br0'/></interface>
"""


def entry(name, kind=None, mac=None, **more):
    info = {"linkinfo": {"info_kind": kind}} if kind else {}
    return {"ifname": name, "flags": ["UP"], "mtu": 1500, "address": mac, **info, **more}


LINK_LIST = [
    entry("lo", mac="00:00:00:00:00:00"),
    entry("br0", "bridge", "3C:EC:EF:00:00:01"),
    entry("eno1", mac="3c:ec:ef:00:00:01", master="br0"),
    entry("virbr0", "bridge", "52:54:00:aa:aa:aa"),
    entry("ovsbr", "openvswitch", "3c:ec:ef:00:00:02"),
    entry("br-int", "openvswitch", "3c:ec:ef:00:00:03"),
    entry("ens1v0", mac="52:54:00:00:00:06"),
]
ADDRESS_LIST = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
    {"ifname": "br0", "addr_info": [{"local": "10.0.0.1", "prefixlen": 24}]},
    {"ifname": "eno1", "addr_info": []},
]


def answers(*, running=UUIDS[:1], stopped=UUIDS[1:2], nics=NICS):
    known = sorted([*running, *stopped])
    lists = dict.fromkeys(_SECTIONS, ()) | {"all": known, "persistent": known, "no-snapshots": known}
    lists |= {"running": running, "shutoff": stopped}
    domain = f"<name>g</name><uuid>{{}}</uuid><devices>{nics}</devices></domain>"
    saved = {u: "<domain type='kvm'>" + domain.format(u) for u in known}
    live = saved | {u: saved[u].replace("<domain ", "<domain id='3' ") for u in running}
    return {
        GUESTS.name: "".join(f"@{name}\n" + "".join(f"{u}\n" for u in uuids) for name, uuids in lists.items()),
        XML.name: f"{MARK}\n" + "".join(f"{MARK} {u}\n{xml}\n" for u, xml in live.items()) + f"{MARK} end\n",
        XML_INACTIVE.name: f"{MARK}\n" + "".join(f"{MARK} {u}\n{saved[u]}\n" for u in running) + f"{MARK} end\n",
        LINKS.name: json.dumps(LINK_LIST),
        ADDRESSES.name: json.dumps(ADDRESS_LIST),
    }


def test_where_the_running_guests_are_plugged_in(said):
    fact = MacsInUse.parse(said(answers()))

    def plugged(number, where, *, network=None, vlans=(), wire):
        return Plugged(f"52:54:00:00:00:0{number}", UUIDS[0], "g", where, network, vlans, wire)

    assert set(fact.nics) == {
        plugged(1, "br0", network="lan", wire=True),
        plugged(2, "virbr0", network="default", wire=False),
        plugged("a", "ovsbr", vlans=("42",), wire=True),
        plugged(4, "br-int", wire=False),
        plugged(5, "eno1", wire=True),
        plugged(6, "", wire=True),
    }
    assert fact.macs == {nic.mac for nic in fact.nics}
    assert fact.own == {"3c:ec:ef:00:00:01"}  # neither the VF's nor the loopback's
    assert fact.unread == 0
    assert hash(fact) == hash(MacsInUse.parse(said(answers())))


def test_a_guest_that_cannot_be_read(said):
    fact = MacsInUse.parse(said(answers(nics="<interface/>")))
    assert (fact.nics, fact.unread) == ((), 1)
    assert "1 running guests" in str(fact.missing())
    assert MacsInUse.parse(said(answers(running=[], stopped=UUIDS[:1], nics="<interface/>"))).unread == 0


@pytest.mark.parametrize("probe", [LINKS, ADDRESSES, GUESTS, XML])
@pytest.mark.parametrize("text", ["", "{}", "[1]", "null"])
def test_malformed(said, probe, text):
    with pytest.raises(Unavailable):
        MacsInUse.parse(said(answers() | {probe.name: text}))


@settings(max_examples=50)
@given(st.sampled_from([LINKS, ADDRESSES, GUESTS, XML, XML_INACTIVE]), st.binary(max_size=200))
def test_any_bytes_are_a_fact_or_refused(probe, data):
    outputs = {name: Evidence(name, 0, text.encode()) for name, text in answers().items()}
    outputs[probe.name] = Evidence(probe.name, 0, data)
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        MacsInUse.parse(Said(HostEvidence("kvm01", outputs)))


def test_what_the_saved_definition_keeps(guest_source):
    domain = "<domain id='1'><devices>{}</devices></domain>"
    pci = "<source><address type='pci' domain='0' bus='0xe1' slot='0' function='1'/></source>"
    hostdev = f"<hostdev mode='subsystem' type='pci'>{pci}</hostdev>"
    inner = f"<interface type='hostdev'><mac address='52:54:00:AA:00:01'/>{pci}</interface>"
    kept = KeptDevices.parse(guest_source(domain.format(inner), inactive=domain.format(inner)))
    assert kept == KeptDevices(frozenset({"52:54:00:aa:00:01"}), frozenset({"0000:e1:00.1"}))
    nothing = KeptDevices.parse(guest_source(domain.format(inner), inactive=domain.format("")))
    assert nothing == KeptDevices(frozenset(), frozenset())
    other = KeptDevices.parse(guest_source(domain.format(""), inactive=domain.format(hostdev)))
    assert other.pci_addresses == {"0000:e1:00.1"}
    with pytest.raises(Unavailable):
        KeptDevices.parse(guest_source(domain.format(inner)))
