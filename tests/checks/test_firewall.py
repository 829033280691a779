"""The way through the target's firewall."""

import pytest

from audit.check import ANOTHER_ADDRESS, STARTED_HERE, TUNNELLED, Blocks, NotApplicable, Policy, Unavailable
from audit.facts.firewall import Firewall, Listening, Socket
from audit.facts.iptables import from_iptables
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.qemu_conf import ConfInForce, QemuConf
from audit.facts.reach import Peer, Reach, Try
from audit.facts.services import Daemons, Sshd
from checks import firewall

TARGET = OwnAddresses((Address("eth0", "192.0.2.12", 24),))
SOURCE = OwnAddresses((Address("eth0", "192.0.2.11", 24), Address("virbr0", "192.168.122.1", 24)))
FAR = OwnAddresses((Address("eth0", "198.51.100.11", 24),))
NAMES = OwnNames("kvm02", "kvm02", None, None)
DAEMONS = Daemons("modular", True, "", None, frozenset())
SSHD = Sshd(frozenset({22}))
PEER = Peer("kvm02", False)
PROBED = Peer("kvm02", True)
UNTRIED = Reach(())
FRESH = ConfInForce(False)
IDLE = Listening(frozenset({Socket("*", 22)}))
NO_NAME = PeerAddresses((("kvm02", ()),))


def rules(*lines, policy="DROP"):
    text = "\n".join([f"*filter\n:INPUT {policy} [0:0]", *(f"-A INPUT {line}" for line in lines), "COMMIT\n"])
    return Firewall(from_iptables(text, 4))


def way(source="192.0.2.11", address="192.0.2.12"):
    return PeerAddresses((("kvm02", (Route(address, "eth0", source),)),))


BOTH = OwnAddresses((*SOURCE.addresses, *FAR.addresses))
TWO = OwnAddresses((*TARGET.addresses, Address("eth1", "198.51.100.12", 24)))
STORAGE_ONLY = rules("-s 198.51.100.0/24 -p tcp -j ACCEPT")
OPEN = Firewall(())
SUBNET = rules(
    "-s 192.0.2.0/24 -p tcp -m tcp --dport 49152:49215 -j ACCEPT", "-s 192.0.2.0/24 -p tcp -m tcp --dport 22 -j ACCEPT"
)


def data(wall, own=TARGET, conf=None, peer=PEER, listening=IDLE, policy=None):
    run = firewall.migration_ports_open.function
    return list(run(wall, own, conf or QemuConf(), FRESH, listening, peer, policy or Policy()))


def data_pair(wall, source=SOURCE, peers=None, conf=None, own=TARGET, reach=UNTRIED, peer=PEER, policy=None):
    run = firewall.migration_ports_open_to_source.function
    return list(
        run(wall, own, conf or QemuConf(), FRESH, NAMES, source, peers or way(), reach, IDLE, peer, policy or Policy())
    )


def by_name(wall, peers, conf=None, reach=UNTRIED, own=TWO, source=BOTH, policy=None):
    run = firewall.migration_ports_open_by_name.function
    return list(run(wall, own, conf or QemuConf(), FRESH, NAMES, source, peers, reach, IDLE, PEER, policy or Policy()))


def control(wall, policy=None, sshd=SSHD, peer=PEER):
    return list(firewall.control_port_open.function(wall, TARGET, DAEMONS, sshd, peer, policy or Policy()))


def control_pair(wall, source=SOURCE, peers=None, own=TARGET, reach=UNTRIED, peer=PEER, sshd=SSHD):
    run = firewall.control_port_open_to_source.function
    return list(run(wall, own, DAEMONS, sshd, NAMES, source, peers or way(), reach, peer, Policy()))


def test_open_for_all():
    assert data(OPEN) == []
    assert control(OPEN) == []


def test_closed_for_all():
    [finding] = data(rules("-p tcp --dport 22 -j ACCEPT"))
    assert finding.expected == "TCP port 49152-49215 is open"
    assert "policy drop" in finding.actual
    assert finding.remedy == "iptables -I INPUT -p tcp --dport 49152:49215 -j ACCEPT"


def test_range_of_qemu_conf():
    conf = QemuConf(migration_port_min=60000, migration_port_max=60099)
    assert data(rules("-p tcp --dport 60000:60099 -j ACCEPT"), conf=conf) == []
    assert "60000-60099" in data(rules("-p tcp --dport 49152:49215 -j ACCEPT"), conf=conf)[0].expected


@pytest.mark.parametrize(("transport", "port"), [("ssh", 22), ("tls", 16514), ("tcp", 16509)])
def test_control_ports(transport, port):
    policy = Policy(transport=transport)
    assert control(rules(f"-p tcp --dport {port} -j ACCEPT"), policy) == []
    [finding] = control(rules(f"-p tcp --dport {port + 1} -j ACCEPT"), policy)
    assert str(port) in finding.expected


def test_one_open_port_of_the_ssh_server_is_enough():
    assert control(rules("-p tcp --dport 2222 -j ACCEPT"), sshd=Sshd(frozenset({22, 2222}))) == []


def test_what_depends_on_the_source_is_judged_for_the_pair():
    for run in (data, control):
        with pytest.raises(NotApplicable, match="each pair"):
            run(SUBNET)
    for run in (data_pair, control_pair):
        assert run(SUBNET) == []
        [finding] = run(SUBNET, FAR, way("198.51.100.11"))
        assert "policy drop" in finding.actual
        with pytest.raises(NotApplicable, match="every source"):
            run(OPEN)


def test_a_name_that_does_not_resolve_leaves_all_ways():
    assert data_pair(SUBNET, SOURCE, NO_NAME) == []
    assert len(data_pair(SUBNET, FAR, NO_NAME)) == 1
    for run in (data_pair, control_pair):
        assert run(SUBNET, BOTH, NO_NAME) == []  # it takes the network that it shares with the target
    distant = OwnAddresses((Address("eth0", "198.51.100.11", 24), Address("eth1", "203.0.113.11", 24)))
    half = rules("-s 203.0.113.0/24 -p tcp -j ACCEPT")
    with pytest.raises(Unavailable, match="cannot be told"):
        data_pair(half, distant, NO_NAME)  # by which of its addresses it would come is not known


def test_of_two_networks_one_is_enough_where_the_name_leads_nowhere():
    assert data_pair(STORAGE_ONLY, BOTH, NO_NAME, own=TWO) == []
    with pytest.raises(NotApplicable, match="leads nowhere"):
        by_name(STORAGE_ONLY, NO_NAME)


def test_a_closed_name_with_another_way_open_needs_an_option_only():
    peers = way(address="192.0.2.12")
    assert data_pair(STORAGE_ONLY, BOTH, peers, own=TWO) == []
    [finding] = by_name(STORAGE_ONLY, peers)
    assert finding.remedy == "virsh migrate --migrateuri tcp://198.51.100.12 …"
    assert "policy drop" in finding.actual
    assert firewall.migration_ports_open_by_name.blocks is Blocks.MIGRATION
    assert finding.lifted_by == (TUNNELLED, ANOTHER_ADDRESS)
    assert finding.about == "--migrateuri tcp://198.51.100.12"
    # QEMU on the target listens on one address only, and the way to that one is closed
    bound = QemuConf(migration_address="192.0.2.12")
    assert len(data_pair(STORAGE_ONLY, BOTH, peers, bound, TWO)) == 1
    assert by_name(STORAGE_ONLY, peers, bound) == []
    # nothing to add where all ways are closed, or where the name's is open
    assert by_name(rules("-s 203.0.113.9 -p tcp -j ACCEPT"), peers) == []
    assert by_name(rules("-s 192.0.2.0/24 -p tcp -j ACCEPT"), peers) == []
    # a way of which nothing is known is no proof
    marked = rules("-d 198.51.100.12 -m mark --mark 0x1 -j ACCEPT")
    with pytest.raises(Unavailable, match="mark"):
        data_pair(marked, BOTH, peers, own=TWO)


def test_a_name_that_the_source_has_no_route_to():
    nowhere = PeerAddresses((("kvm02", (Route("203.0.113.12", None, None),)),))
    assert data_pair(STORAGE_ONLY, BOTH, nowhere, own=TWO) == []
    [finding] = by_name(STORAGE_ONLY, nowhere)
    assert finding.actual == "the source has no route there"


def test_one_open_address_of_the_name_is_enough():
    two = OwnAddresses((*TARGET.addresses, Address("eth0", "2001:db8::12", 64)))
    here = OwnAddresses((*SOURCE.addresses, Address("eth0", "2001:db8::11", 64)))
    routes = (Route("2001:db8::12", "eth0", "2001:db8::11"), Route("192.0.2.12", "eth0", "192.0.2.11"))
    peers = PeerAddresses((("kvm02", routes),))
    closed6 = Firewall(from_iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", 6))
    assert data_pair(closed6, here, peers, own=two) == []
    assert control_pair(closed6, here, peers, own=two) == []
    assert by_name(closed6, peers, own=two, source=here) == []


def test_libvirt_is_reached_by_another_address():
    arguments = (TWO, DAEMONS, SSHD, NAMES, BOTH, way(), UNTRIED, PEER, Policy())
    assert list(firewall.control_port_open_to_source.function(STORAGE_ONLY, *arguments)) == []
    [finding] = firewall.control_port_open_by_name.function(STORAGE_ONLY, *arguments)
    assert finding.remedy == "virsh migrate … qemu+ssh://198.51.100.12/system"
    assert firewall.control_port_open_by_name.blocks is Blocks.MIGRATION
    assert finding.lifted_by == (STARTED_HERE, ANOTHER_ADDRESS)
    everywhere = rules("-p tcp -s 192.0.2.0/24 -j ACCEPT")
    assert list(firewall.control_port_open_by_name.function(everywhere, *arguments)) == []
    for nothing, wall in ((OPEN, arguments), (STORAGE_ONLY, (*arguments[:5], NO_NAME, *arguments[6:]))):
        with pytest.raises(NotApplicable):
            list(firewall.control_port_open_by_name.function(nothing, *wall))


def test_unanswered_name_is_unknown():
    with pytest.raises(Unavailable):
        data_pair(SUBNET, SOURCE, PeerAddresses(()))
    with pytest.raises(Unavailable):
        by_name(SUBNET, PeerAddresses(()))
    run = firewall.control_port_open_by_name.function
    with pytest.raises(Unavailable):
        list(run(STORAGE_ONLY, TWO, DAEMONS, SSHD, NAMES, BOTH, PeerAddresses(()), UNTRIED, PEER, Policy()))


def test_rules_not_understood_are_unknown():
    marked = rules("-m mark --mark 0x1 -j DROP", policy="ACCEPT")
    with pytest.raises(NotApplicable):
        data(marked)
    with pytest.raises(Unavailable, match="mark"):
        data_pair(marked)
    with pytest.raises(Unavailable, match="mark"):
        control_pair(marked)


def test_rules_that_could_not_be_read_are_unknown():
    unread = Firewall((), ((4, "no root"),))
    for run in (data, control, lambda wall: list(firewall.migration_range_open.function(wall, TARGET, QemuConf()))):
        with pytest.raises(Unavailable, match="no root"):
            run(unread)


def test_ipv6_counts_only_where_the_target_has_it():
    wall = Firewall(from_iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", 6))
    assert data(wall) == []
    two = OwnAddresses((*TARGET.addresses, Address("eth0", "2001:db8::12", 64)))
    with pytest.raises(NotApplicable):
        data(wall, two)


def test_range_open_in_part():
    run = firewall.migration_range_open.function
    narrow = rules("-p tcp --dport 49152:49155 -j ACCEPT")
    assert data(narrow) == []
    [finding] = run(narrow, TARGET, QemuConf())
    assert finding.actual == "closed: 49156-49215"
    assert "4 migrations" in finding.because
    assert list(run(OPEN, TARGET, QemuConf())) == []
    assert list(run(rules(), TARGET, QemuConf())) == []  # said by migration_ports_open
    marked = rules("-p tcp --dport 49152 -j ACCEPT", "-m mark --mark 0x1 -j DROP", policy="ACCEPT")
    assert data(marked) == []
    with pytest.raises(Unavailable, match="mark"):
        list(run(marked, TARGET, QemuConf()))


def test_width():
    assert list(firewall.migration_range_width.function(QemuConf())) == []
    assert len(list(firewall.migration_range_width.function(QemuConf(migration_port_max=49160)))) == 1


def tried(control="open", migration="refused", compare="silent", port=22, address="192.0.2.12"):
    return Reach(
        (
            (
                "kvm02",
                (
                    Try("control", address, port, control),
                    Try("migration", address, 49215, migration),
                    Try("compare", address, 49216, compare),
                ),
            ),
        )
    )


class TestTried:
    """Where the ways were tried, what came of it decides, and rules where nothing came of it."""

    def test_nothing_is_said_of_a_host_as_a_whole(self):
        for run in (data, control):
            with pytest.raises(NotApplicable, match="each pair"):
                run(rules(), peer=PROBED)

    @pytest.mark.parametrize("wall", [rules(), OPEN, SUBNET, Firewall((), ((4, "no root"),))])
    @pytest.mark.parametrize("reach", [tried(), tried("silent", "open"), tried("refused", "refused", "prohibited")])
    def test_an_attempt_that_tells_settles_it(self, wall, reach):
        for run in (data_pair, control_pair):
            with pytest.raises(NotApplicable, match="tried from the source"):
                run(wall, reach=reach, peer=PROBED)
        with pytest.raises(NotApplicable, match="tried from the source"):
            by_name(wall, way(), reach=reach, own=TARGET, source=SOURCE)

    @pytest.mark.parametrize("reach", [UNTRIED, tried("unsaid", "unsaid"), tried("unsaid", "refused", "refused")])
    def test_where_attempts_tell_nothing_the_rules_do(self, reach):
        for run in (data_pair, control_pair):
            assert run(OPEN, reach=reach, peer=PROBED) == []
            [finding] = run(rules(), reach=reach, peer=PROBED)
            assert "policy drop" in finding.actual
            with pytest.raises(Unavailable, match="no root"):
                run(Firewall((), ((4, "no root"),)), reach=reach, peer=PROBED)
            with pytest.raises(NotApplicable, match="every source"):
                run(OPEN, reach=reach)

    def test_a_refusal_that_a_firewall_may_have_sent_opens_nothing(self):
        assert len(data_pair(rules(), reach=tried(migration="refused", compare="refused"), peer=PROBED)) == 1

    def test_one_port_does_not_stand_for_a_range_that_the_rules_part(self):
        first_ones = rules("-p tcp --dport 49152:49155 -j ACCEPT")
        assert data_pair(first_ones, reach=tried(migration="silent"), peer=PROBED) == []
        last_ones = rules("-p tcp --dport 49200:49215 -j ACCEPT")
        assert len(data_pair(last_ones, reach=tried(), peer=PROBED)) == 1


def test_no_port_falls_between_host_and_pair():
    # one port is closed to all, the other depends on the source: the host is not judged, so the pair must be
    wall, two_ports = rules("-s 192.0.2.0/24 -p tcp --dport 2222 -j ACCEPT"), Sshd(frozenset({22, 2222}))
    with pytest.raises(NotApplicable, match="each pair"):
        control(wall, sshd=two_ports)
    assert control_pair(wall, sshd=two_ports) == []
    assert len(control_pair(wall, FAR, way("198.51.100.11"), sshd=two_ports)) == 1


def test_an_address_that_both_have_is_no_way():
    # each host has a bridge of its own of the same address
    same = Address("lxcbr0", "10.0.3.1", 24)
    here, there = OwnAddresses((*SOURCE.addresses, same)), OwnAddresses((*TARGET.addresses, same))
    assert len(data_pair(rules("-d 10.0.3.1 -j ACCEPT"), here, own=there)) == 1


def test_rules_that_only_nft_could_show_leave_open_ports_unknown():
    why = "nft is not installed"
    with pytest.raises(Unavailable, match=why):
        data(Firewall((), hidden=why))
    closed = rules("-p tcp --dport 22 -j ACCEPT")
    hidden = Firewall(closed.tables, hidden=why)
    assert data(hidden) == data(closed)
    with pytest.raises(Unavailable, match=why):
        control(hidden)


def test_the_first_port_that_is_free_is_the_one_that_counts():
    taken = Listening(frozenset({Socket("*", 49152)}))
    second = rules("-p tcp --dport 49153 -j DROP", policy="ACCEPT")
    assert data(second) == []
    assert data(second, listening=taken)[0].expected == "TCP port 49153 is open"
    assert data(rules("-p tcp --dport 49152 -j DROP", policy="ACCEPT"), listening=taken) == []


def test_a_port_is_free():
    conf = QemuConf(migration_port_min=49152, migration_port_max=49153)
    taken = Listening(frozenset({Socket("*", 49152), Socket("127.0.0.1", 49153)}))
    run = firewall.migration_port_free.function
    assert list(run(conf, FRESH, IDLE, Policy())) == []
    assert len(list(run(conf, FRESH, taken, Policy()))) == 1
    with pytest.raises(NotApplicable):
        list(run(conf, FRESH, taken, Policy(tunnelled=True)))


def test_a_range_that_may_not_hold_yet_is_not_known():
    run, stale = firewall.migration_port_free.function, ConfInForce(True)
    with pytest.raises(Unavailable, match="was changed after"):
        list(run(QemuConf(migration_port_min=50000), stale, IDLE, Policy()))
    assert list(run(QemuConf(vnc_listen="::"), stale, IDLE, Policy())) == []


def test_the_network_that_the_policy_names():
    closed_by_name = rules("-d 198.51.100.12 -p tcp -j ACCEPT")
    assert len(by_name(closed_by_name, way())) == 1
    policy = Policy(migration_network="198.51.100.0/24")
    assert by_name(closed_by_name, way(), policy=policy) == []
    assert data_pair(closed_by_name, BOTH, way(), own=TWO, policy=policy) == []
    other = Policy(migration_network="192.0.2.0/24")
    assert len(data_pair(closed_by_name, BOTH, way(), own=TWO, policy=other)) == 1
    with pytest.raises(NotApplicable, match="no address"):
        data_pair(closed_by_name, BOTH, way(), own=TWO, policy=Policy(migration_network="10.0.0.0/8"))


def test_what_the_policy_makes_needless():
    for run in (data, data_pair):
        with pytest.raises(NotApplicable, match="own connection"):
            run(rules(), policy=Policy(tunnelled=True))
    arguments = (TWO, DAEMONS, SSHD, NAMES, BOTH, way(), UNTRIED, PEER, Policy(started_on="here"))
    with pytest.raises(NotApplicable, match="started here"):
        list(firewall.control_port_open_to_source.function(STORAGE_ONLY, *arguments))


def test_a_closed_name_is_closed_though_other_ways_are_not_known():
    doubtful = rules("-d 198.51.100.12 -m owner --uid-owner 0 -j ACCEPT")
    [finding] = by_name(doubtful, way())
    assert (finding.lifted_by, finding.about) == ((TUNNELLED,), "")
    assert "not known" in finding.because
