"""The way that a migration takes: over the migration network where there is one, else by the default route."""

import json

import pytest

from audit.evidence import Evidence
from audit.facts.base import Unavailable
from audit.facts.names import HOSTNAME, LIBVIRT_NAME, PEERS
from audit.facts.network import ADDRESSES, LINKS, ROUTES, SPEEDS
from audit.facts.qemu_conf import QEMU_CONF
from audit.facts.ways import MigrationWays, Way


def link(name, kind=None, **more):
    return {"ifname": name, "flags": ["UP"], "mtu": 1500, **({"linkinfo": {"info_kind": kind}} if kind else {}), **more}


LINK_LIST = [link("br0", "bridge"), link("eno1", master="br0"), link("eno2"), link("vnet0", "tun", master="br0")]


def ways(said, number, conf="", peers=None, **changes):
    """Host kvmN: br0 is 10.0.0.N over eno1 of 10 Gbit/s, eno2 is 10.9.0.N of 25 Gbit/s."""
    addresses = [
        {"ifname": device, "addr_info": [{"local": f"{net}.{number}", "prefixlen": 24}]}
        for device, net in (("br0", "10.0.0"), ("eno2", "10.9.0"))
    ]
    other = 3 - number
    answers = peers or {
        f"kvm{other}": f"10.0.0.{other} br0 10.0.0.{number}",
        f"kvm{other}-mig": f"10.9.0.{other} eno2 10.9.0.{number}",
    }
    text = "".join(f"= 0\n{route}\n" for route in answers.values())
    return MigrationWays.parse(
        said(
            {
                PEERS.name: Evidence(PEERS.name, 0, text.encode(), arguments=tuple((name,) for name in answers)),
                HOSTNAME.name: f"kvm{number}\n",
                LIBVIRT_NAME.name: f"kvm{number}\n",
                QEMU_CONF.name: conf,
                ADDRESSES.name: json.dumps(addresses),
                ROUTES.name: '[{"dst": "default", "dev": "br0"}]',
                LINKS.name: json.dumps(LINK_LIST),
                SPEEDS.name: "br0 \neno1 10000\neno2 25000\nvnet0 10000\n",
            }
            | changes
        )
    )


def test_by_the_name_of_the_target(said):
    one, two = ways(said, 1), ways(said, 2)
    assert one.way(two) == Way("br0", "br0", 10000)
    assert one.bridged == {"br0", "eno1"}


def test_by_the_migration_network(said):
    one, two = ways(said, 1), ways(said, 2, conf='migration_host = "kvm2-mig"\n')
    assert one.way(two) == Way("eno2", "eno2", 25000)
    assert two.way(one) == Way("br0", "br0", 10000)


@pytest.mark.parametrize("leads", ["127.0.1.1 lo 127.0.0.1", "", "203.0.113.9 br0 10.0.0.1"])
def test_by_the_default_route_where_the_name_leads_not_to_the_target(said, leads):
    assert ways(said, 1, peers={"kvm2": leads}).way(ways(said, 2)) == Way("br0", "br0", 10000)


def test_the_default_route_is_no_stand_in_for_what_was_not_read(said):
    """A slow migration network must not be taken for the fast default route."""
    unread = (
        (ways(said, 1, **{PEERS.name: (1, "no")}), ways(said, 2)),
        (ways(said, 1, peers={"kvm9": "10.0.0.9 br0 10.0.0.1"}), ways(said, 2)),
        (ways(said, 1), ways(said, 2, **{QEMU_CONF.name: (1, "Permission denied")})),
        (ways(said, 1), ways(said, 2, **{HOSTNAME.name: (1, "no"), LIBVIRT_NAME.name: (1, "no")})),
        (ways(said, 1), ways(said, 2, **{ADDRESSES.name: (1, "no")})),
    )
    for one, two in unread:
        assert None in one.to(two)
        with pytest.raises(Unavailable, match="not known"):
            one.way(two)
    assert ways(said, 1, **{LINKS.name: (1, "no")}).bridged is None


def test_not_known(said):
    silent = ways(said, 1, **{SPEEDS.name: "eno2 25000\n"})
    assert silent.devices(ways(said, 2)) == ("br0", "br0")
    with pytest.raises(Unavailable, match="says its speed"):
        silent.way(ways(said, 2))
    with pytest.raises(Unavailable, match="not known"):
        ways(said, 1, **{PEERS.name: (1, "no"), ROUTES.name: "[]"}).way(ways(said, 2))


def test_ten_thousand_devices_are_looked_through_at_once(said):
    """Each device is not compared with each other one; a host of many containers or VLANs has that many."""
    many = [link("br0", "bridge"), *(link(f"p{n}", master="br0") for n in range(5000))]
    many += [link(f"v{n}", "vlan", link=f"p{n}") for n in range(5000)]
    found = ways(said, 1, **{LINKS.name: json.dumps(many)}).bridged
    assert found == {entry["ifname"] for entry in many}
