"""The source's own rules for what it sends."""

import pytest

from audit.check import ANOTHER_ADDRESS, STARTED_HERE, TUNNELLED, Blocks, NotApplicable, Policy, Unavailable
from audit.facts.firewall import Firewall, Listening, Socket
from audit.facts.iptables import from_iptables
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.qemu_conf import ConfInForce, QemuConf
from audit.facts.reach import Peer, Reach, Try
from audit.facts.services import Daemons, Sshd
from checks import outgoing
from tests.asked import found

OWN = OwnAddresses((Address("eth0", "192.0.2.12", 24), Address("eth1", "198.51.100.12", 24)))
SOURCE = OwnAddresses((Address("eth0", "192.0.2.11", 24), Address("eth1", "198.51.100.11", 24)))
PEERS = PeerAddresses((("kvm02", (Route("192.0.2.12", "eth0", "192.0.2.11"),)),))
NAMES = OwnNames("kvm02", "kvm02", None, None)
DAEMONS = Daemons("modular", True, "", None, frozenset())
SSHD = Sshd(frozenset({22}))
PEER = Peer("kvm02", False)
UNTRIED = Reach(())
FRESH = ConfInForce(False)
OPEN = Firewall(())
IDLE = Listening(frozenset({Socket("*", 22)}))


def rules(*lines, policy="DROP"):
    text = "\n".join([f"*filter\n:OUTPUT {policy} [0:0]", *(f"-A OUTPUT {line}" for line in lines), "COMMIT\n"])
    return Firewall(from_iptables(text, 4))


def control(wall, peers=PEERS, policy=None, reach=UNTRIED):
    arguments = (wall, SOURCE, peers, NAMES, OWN, DAEMONS, SSHD, reach, PEER, policy or Policy())
    return found(outgoing.control_port, *arguments)


def data(wall, peers=PEERS, policy=None, listening=IDLE, conf=None, reach=UNTRIED):
    conf = conf or QemuConf()
    arguments = (wall, SOURCE, peers, NAMES, OWN, conf, FRESH, listening, reach, OPEN, PEER, policy or Policy())
    return found(outgoing.migration_ports, *arguments)


def test_open():
    for wall in (OPEN, rules(policy="ACCEPT"), rules("-d 192.0.2.0/24 -j ACCEPT"), rules("-o eth0 -j ACCEPT")):
        assert [*control(wall), *data(wall)] == []


def test_closed():
    ssh = rules("-p tcp --dport 22 -j ACCEPT")
    assert control(ssh) == []
    [finding] = data(ssh)
    assert finding.lifted_by == (TUNNELLED,)
    assert finding.remedy == "On the source: iptables -I OUTPUT -p tcp --dport 49152 -j ACCEPT"
    [finding] = control(rules())
    assert finding.lifted_by == (STARTED_HERE,)
    assert outgoing.control_port.blocks is outgoing.migration_ports.blocks is Blocks.MIGRATION


def test_another_network_is_open():
    other = rules("-o eth1 -j ACCEPT")
    assert data(other)[0].lifted_by == (TUNNELLED, ANOTHER_ADDRESS)
    assert data(other)[0].about == "--migrateuri tcp://198.51.100.12"
    assert control(other)[0].about == "qemu+ssh://198.51.100.12/system"
    assert data(other, policy=Policy(migration_network="198.51.100.0/24")) == []
    assert len(data(rules("-o eth0 -j ACCEPT"), policy=Policy(migration_network="198.51.100.0/24"))) == 1


def test_rules_for_what_comes_in_are_others():
    wall = Firewall(from_iptables("*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n", 4))
    assert [*control(wall), *data(wall)] == []
    wall = rules("-i eth0 -j DROP", "-m addrtype --dst-type LOCAL -j DROP", policy="ACCEPT")
    assert [*control(wall), *data(wall)] == []


def test_the_first_port_that_is_free():
    first = rules("-p tcp --dport 49152 -j ACCEPT")
    assert data(first) == []
    assert len(data(first, listening=Listening(frozenset({Socket("*", 49152)})))) == 1


def test_not_known_and_not_applicable():
    doubtful = rules("-m owner --uid-owner 0 -j ACCEPT")
    for run in (control, data):
        with pytest.raises(Unavailable):
            run(doubtful)
        with pytest.raises(Unavailable):
            run(rules(), peers=PeerAddresses(()))
    with pytest.raises(NotApplicable, match="started here"):
        control(rules(), policy=Policy(started_on="here"))
    with pytest.raises(NotApplicable, match="own connection"):
        data(rules(), policy=Policy(tunnelled=True))
    tried = Reach(
        (("kvm02", (Try("control", "192.0.2.12", 22, "open"), Try("migration", "192.0.2.12", 49215, "open"))),)
    )
    for run in (control, data, replies):
        with pytest.raises(NotApplicable, match="tried"):
            run(rules(), reach=tried)
    assert data(rules(), peers=PeerAddresses((("kvm02", ()),))) == [], "where the name leads is judged apart"


def replies(wall, policy=None, peers=PEERS, reach=UNTRIED):
    arguments = (wall, SOURCE, peers, NAMES, OWN, QemuConf(), FRESH, IDLE, reach, PEER, policy or Policy())
    return found(outgoing.answers, *arguments)


def test_answers():
    established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for wall in (
        OPEN,
        rules(established),
        rules("-p tcp --sport 49152:49215 -j ACCEPT"),
        rules("-d 192.0.2.11 -j ACCEPT"),
    ):
        assert replies(wall) == []
    ssh = rules("-p tcp --sport 22 -j ACCEPT", "-p tcp --dport 22 -j ACCEPT")
    [finding] = replies(ssh)
    assert finding.expected == "the target answers from TCP port 49152"
    assert finding.lifted_by == (TUNNELLED,)
    assert len(replies(rules("-p tcp --sport 49152:49215 -j DROP", policy="ACCEPT"))) == 1
    with pytest.raises(Unavailable, match="answers from"):
        replies(rules("-m owner --uid-owner 0 -j ACCEPT"))
    with pytest.raises(NotApplicable):
        replies(ssh, policy=Policy(tunnelled=True))
    assert replies(ssh, peers=PeerAddresses((("kvm02", ()),))) == []
