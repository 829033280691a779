"""What the attempts of a source prove."""

import pytest

from audit.check import STARTED_HERE, Blocks, NotApplicable, Policy, Severity, Unavailable
from audit.facts.base import NotAsked
from audit.facts.firewall import Firewall
from audit.facts.iptables import from_iptables
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import Path, PathMtu, Peer, Reach, Try
from audit.facts.services import Daemons, Sshd
from audit.facts.ssh_setup import SshClient
from audit.facts.ssh_trust import SshTrust, Trust
from checks import reach
from tests.ssh_examples import OTHER, login, server

PEER = Peer("kvm02", True)
SERVER = server()
FIRST, SECOND = "192.0.2.12", "198.51.100.12"
OWN = OwnAddresses((Address("eth0", FIRST, 24), Address("eth1", SECOND, 24)))
SOURCE = OwnAddresses((Address("eth0", "192.0.2.11", 24), Address("eth1", "198.51.100.11", 24)))
NAMES = OwnNames("kvm02.example.com", "kvm02.example.com", None, None)
DAEMONS = Daemons("modular", True, "", None, frozenset())
SSHD = Sshd(frozenset({22}))
OPEN = Firewall(())
CLOSED = Firewall(from_iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", 4))
UNREAD = Firewall((), ((4, "no root"),))
PARTED = Firewall(
    from_iptables("*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 49152:49155 -j ACCEPT\nCOMMIT\n", 4)
)


def tries(*found):
    return Reach((("kvm02", tuple(Try(*one) for one in found)),))


def control(*states, port=22):
    return tries(
        *(
            ("control", address, port, *state.split(":"))
            for address, state in zip((FIRST, SECOND), states, strict=False)
        )
    )


def data(*states):
    """Each state "MIGRATION/COMPARE"."""
    found = []
    for address, state in zip((FIRST, SECOND), states, strict=False):
        migration, _, compare = state.partition("/")
        found.append(("migration", address, 49215, migration, "why"))
        found += [("compare", address, 49216, compare)] if compare else []
    return tries(*found)


def leads(*addresses, name="kvm02.example.com"):
    return PeerAddresses(((name, tuple(Route(address, "eth0", None) for address in addresses)),))


def answers(found, wall=OPEN, policy=None, source=SOURCE):
    run = reach.control_port_answers.function
    return list(run(found, PEER, OWN, source, DAEMONS, SSHD, wall, policy or Policy()))


def answers_by_name(found, peers):
    run = reach.control_port_answers_by_name.function
    return list(run(found, PEER, OWN, SOURCE, DAEMONS, SSHD, NAMES, peers, Policy()))


def reached(found, wall=OPEN, conf=None):
    run = reach.migration_port_reached.function
    return list(run(found, PEER, wall, conf or QemuConf(), OWN, SOURCE, Policy()))


def reached_by_name(found, peers, conf=None, wall=OPEN):
    run = reach.migration_port_reached_by_name.function
    return list(run(found, PEER, wall, conf or QemuConf(), OWN, SOURCE, NAMES, peers, Policy()))


class TestControlPort:
    @pytest.mark.parametrize("states", [("open", "open"), ("silent", "open"), ("unsaid:slow", "open"), ("open",)])
    def test_one_open_address_is_enough(self, states):
        assert answers(control(*states)) == []

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            ("silent", "no answer in time"),
            ("unreachable", "no route to host, which is what a firewall says"),
            ("prohibited", "rejected by a firewall"),
            ("refused", "refused"),
            ("unrouted", "the source has no route there"),
        ],
    )
    def test_none_open_blocks(self, state, says):
        [finding] = answers(control(state, state))
        assert finding.actual.startswith(f"{FIRST}, {SECOND}: {says}")
        assert "22" in finding.expected
        assert "look between the hosts" in finding.because
        assert reach.control_port_answers.blocks is Blocks.MIGRATION

    def test_the_target_s_own_rules_are_the_remedy_where_they_may_be_at_fault(self):
        [finding] = answers(control("silent", "silent"), CLOSED)
        assert finding.remedy == "iptables -I INPUT -p tcp --dport 22 -j ACCEPT"
        assert answers(control("silent", "silent"), UNREAD)[0].remedy == ""

    @pytest.mark.parametrize("states", [("silent",), ("silent", "unsaid:slow"), ("unsaid:slow", "refused")])
    def test_not_all_ways_known(self, states):
        with pytest.raises(Unavailable, match=r"not tried|slow"):
            answers(control(*states))

    def test_an_address_of_both_hosts_is_no_way(self):
        source = OwnAddresses((*SOURCE.addresses, Address("lxcbr0", SECOND, 24)))
        assert len(answers(control("silent"), source=source)) == 1

    def test_other_transports(self):
        tls = Policy(transport="tls")
        assert answers(control("open", "open", port=16514), policy=tls) == []
        with pytest.raises(NotApplicable, match="nothing on the target listens"):
            answers(control("open", "open"), policy=tls)

    def test_a_peer_that_was_not_tried(self):
        with pytest.raises(Unavailable, match="not tried"):
            answers(Reach(()))

    def test_by_name(self):
        assert answers_by_name(control("open", "silent"), leads(FIRST)) == []
        assert answers_by_name(control("open", "silent"), leads(SECOND, FIRST)) == []
        [finding] = answers_by_name(control("silent", "open"), leads(FIRST))
        assert finding.remedy == f"virsh migrate … qemu+ssh://{SECOND}/system"
        assert answers_by_name(control("refused", "open"), leads(FIRST)) != []
        # the inventory's name counts, where it is known there
        both = PeerAddresses((*leads(SECOND, name="kvm02").answers, *leads(FIRST).answers))
        assert answers_by_name(control("silent", "open"), both) == []
        for peers in (leads(), PeerAddresses(()), leads("127.0.0.1")):
            with pytest.raises(NotApplicable, match="leads nowhere"):
                answers_by_name(control("silent", "open"), peers)
        with pytest.raises(NotApplicable, match="no way"):
            answers_by_name(control("silent", "silent"), leads(FIRST))
        for found, peers in (
            (control("silent", "open"), leads("203.0.113.9")),
            (control("unsaid:x", "open"), leads(FIRST)),
        ):
            with pytest.raises(Unavailable, match="leads"):
                answers_by_name(found, peers)


class TestMigrationPort:
    @pytest.mark.parametrize("state", ["refused/silent", "refused/unreachable", "refused/prohibited", "open/refused"])
    @pytest.mark.parametrize("wall", [OPEN, CLOSED, UNREAD])
    def test_reached_if_refused_where_others_are_kept_off(self, state, wall):
        assert reached(data(state, "silent/silent"), wall) == []

    @pytest.mark.parametrize("state", ["refused/refused", "refused/open", "refused/unsaid", "refused"])
    def test_a_refusal_alone_proves_nothing(self, state):
        with pytest.raises(NotApplicable, match="only rules tell"):
            reached(data(state, "silent/silent"))

    @pytest.mark.parametrize("state", ["silent/silent", "unreachable", "prohibited/silent", "unrouted/refused"])
    def test_kept_off_blocks(self, state):
        [finding] = reached(data(state, state))
        assert "49215, of 49152-49215" in finding.expected
        assert "look between" in finding.because
        [finding] = reached(data(state, state), CLOSED)
        assert "49152:49215" in finding.remedy
        assert reach.migration_port_reached.blocks is Blocks.MIGRATION

    def test_kept_off_where_the_lower_ports_may_be_open_is_unknown(self):
        with pytest.raises(Unavailable, match="lower ones"):
            reached(data("silent", "silent"), UNREAD)
        with pytest.raises(NotApplicable, match="part the range"):
            reached(data("silent", "silent"), PARTED)
        with pytest.raises(NotApplicable, match="part the range"):
            reached(data("refused/silent", "silent"), PARTED)

    def test_not_tried(self):
        with pytest.raises(NotApplicable, match="too near"):
            reached(control("open"))
        for found in (data("silent"), data("silent", "unsaid")):
            with pytest.raises(Unavailable):
                reached(found)

    def test_only_the_address_that_qemu_listens_on_counts(self):
        bound = QemuConf(migration_address=SECOND)
        assert len(reached(data("refused/silent", "silent/silent"), conf=bound)) == 1
        assert reached(data("silent/silent", "refused/silent"), conf=bound) == []

    def test_by_name(self):
        found = data("silent/silent", "refused/silent")
        assert reached_by_name(found, leads(SECOND)) == []
        [finding] = reached_by_name(found, leads(FIRST))
        assert finding.remedy == f"virsh migrate --migrateuri tcp://{SECOND} …"
        assert reached_by_name(data("refused/refused", "refused/silent"), leads(FIRST)) == []  # may be open
        named = QemuConf(migration_host="mig02")
        assert len(reached_by_name(found, leads(FIRST, name="mig02"), named)) == 1
        with pytest.raises(NotApplicable, match="no way"):
            reached_by_name(data("silent/silent", "silent/silent"), leads(FIRST))
        with pytest.raises(NotApplicable, match="nowhere"):
            reached_by_name(found, leads())
        with pytest.raises(Unavailable):
            reached_by_name(found, leads("203.0.113.9"))


def path(address=FIRST, answers=True, carries=True, reported=None):
    return Path(address, "eth0", 9000, answers, carries, reported)


def full(*paths, peers=None):
    mtu = PathMtu((("kvm02", paths),))
    return list(reach.full_packets_arrive.function(mtu, PEER, QemuConf(), NAMES, peers or leads(FIRST)))


class TestFullPackets:
    def test_carried_or_reported(self):
        assert full(path()) == []
        assert full(path(carries=False, reported=1400)) == []
        assert full(path(), path(SECOND, carries=False)) == []  # not where the guests' data goes

    def test_swallowed(self):
        [finding] = full(path(carries=False))
        assert finding.expected == f"a packet of 9000 bytes gets to {FIRST}"
        assert f"ping -M do -c 3 -s 8972 {FIRST}" in finding.remedy
        six = "2001:db8::12"
        [finding] = full(path(six, carries=False), peers=leads(six))
        assert "-s 8952" in finding.remedy
        assert reach.full_packets_arrive.severity is Severity.MEDIUM
        assert reach.full_packets_arrive.blocks is Blocks.NOTHING

    def test_a_name_that_leads_nowhere_leaves_all_paths(self):
        assert len(full(path(), path(SECOND, carries=False), peers=leads())) == 1
        unnamed = OwnNames("kvm02", None, None, None)
        mtu = PathMtu((("kvm02", (path(),)),))
        assert list(reach.full_packets_arrive.function(mtu, PEER, QemuConf(), unnamed, leads(FIRST))) == []

    def test_a_peer_that_was_asked_about_and_not_tried_is_unknown(self):
        for tries, kind in ((True, Unavailable), (False, NotAsked)):
            with pytest.raises(kind, match="addresses unknown") as why:
                list(
                    reach.full_packets_arrive.function(
                        PathMtu(()), Peer("kvm02", tries), QemuConf(), NAMES, leads(FIRST)
                    )
                )
            assert type(why.value) is kind

    @pytest.mark.parametrize(
        "found", [path(answers=False, carries=None), path(answers=None, carries=None), path(carries=None)]
    )
    def test_without_an_answer_nothing_is_known(self, found):
        with pytest.raises(Unavailable, match="ping"):
            full(found)


NO_CLIENT = SshClient(())
SERVER_WITH_PASSWORD = server((OTHER, ""), permitrootlogin="yes")


def trust(outcome="trusted", words="", hostname="kvm02.example.com", policy=None, client=NO_CLIENT, server=SERVER):
    made = SshTrust((("kvm02", Trust("kvm02", "root", outcome, words, "root", hostname)),))
    return list(reach.ssh_trusted.function(made, PEER, NAMES, OWN, client, server, policy or Policy()))


class TestSshTrust:
    def test_trusted(self):
        assert trust() == []

    @pytest.mark.parametrize(
        ("outcome", "remedy"),
        [
            ("unknown key", "ssh kvm02 true"),
            ("changed key", "ssh-keygen -R kvm02; ssh kvm02 true"),
            ("denied", "ssh-copy-id kvm02"),
            *((outcome, "") for outcome in ("unresolved", "refused", "silent", "unreachable", "closed")),
        ],
    )
    def test_not_trusted_blocks_what_is_started_on_the_source(self, outcome, remedy):
        [finding] = trust(outcome, "words of ssh")
        assert "words of ssh" in finding.actual
        assert finding.expected == "root on the source may log in to kvm02"
        assert finding.remedy.startswith(remedy)
        assert reach.ssh_trusted.blocks is Blocks.MIGRATION
        assert finding.lifted_by == (STARTED_HERE,)

    def test_what_somebody_at_a_terminal_answers_does_not(self):
        asks = SshClient((("kvm02", login(known=())),))
        with pytest.raises(NotApplicable, match="asks"):
            trust("unknown key", client=asks)
        assert len(trust("changed key", client=asks)) == 1
        assert (
            len(trust("unknown key", client=SshClient((("kvm02", login(known=(), stricthostkeychecking="yes")),)))) == 1
        )
        assert len(trust("unknown key", client=SshClient(()))) == 1, "what is not known excuses nothing"
        words = SERVER_WITH_PASSWORD
        with pytest.raises(NotApplicable, match="asks"):
            trust("denied", client=asks, server=words)
        assert len(trust("denied", client=SshClient((("kvm02", login(batchmode="yes")),)), server=words)) == 1

    def test_another_host_answers(self):
        for outcome in ("trusted", "no libvirt"):
            [finding] = trust(outcome, hostname="db7")
            assert "db7" in finding.actual

    def test_no_libvirt(self):
        [finding] = trust("no libvirt", "error: failed to connect to the hypervisor")
        assert finding.actual == "error: failed to connect to the hypervisor"

    def test_unknown_and_not_applicable(self):
        with pytest.raises(Unavailable, match="odd"):
            trust("unsaid", "odd")
        with pytest.raises(NotApplicable):
            trust(policy=Policy(transport="tls"))
        with pytest.raises(Unavailable, match="not tried") as why:
            list(reach.ssh_trusted.function(SshTrust(()), PEER, NAMES, OWN, NO_CLIENT, SERVER, Policy()))
        assert not isinstance(why.value, NotAsked), "it was asked for"
        with pytest.raises(NotAsked):
            list(
                reach.ssh_trusted.function(SshTrust(()), Peer("kvm02", False), NAMES, OWN, NO_CLIENT, SERVER, Policy())
            )
