"""Logging in over SSH, by what both sides' files say."""

import pytest

from audit.check import ANOTHER_ADDRESS, STARTED_HERE, Blocks, NotApplicable, Policy, Severity, Unavailable
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.reach import Peer
from audit.facts.ssh_setup import SERVER, RootShell, SshClient
from audit.facts.ssh_trust import SshTrust, Trust
from audit.judge import Missing
from checks import ssh
from tests.asked import found
from tests.ssh_examples import MINE, OTHER, ROUTE, login, server

PEER = Peer("kvm02", False)
OWN = OwnAddresses((Address("eth0", "192.0.2.12", 24),))
NAMES = OwnNames("kvm02", "kvm02.example.com", "kvm02.example.com", None)
NOBODY = PeerAddresses((("kvm02", ()), ("kvm02.example.com", ())))
UNTRIED = SshTrust(())
POLICY = Policy()
OTHERS = [
    Policy(transport="tls"),
    Policy(started_on="here"),
]


def client(**options):
    return SshClient((("kvm02", login(**options)),))


def tried(outcome):
    return SshTrust((("kvm02", Trust("kvm02", "root", outcome, "")),))


def known(trust=UNTRIED, peers=NOBODY, policy=POLICY, whole=None, **options):
    return found(ssh.target_known, whole or client(**options), trust, PEER, NAMES, OWN, peers, policy)


def host_key(trust=UNTRIED, there=None, policy=POLICY, **options):
    return found(ssh.host_key_known, client(**options), trust, there or server(), PEER, policy)


def key(*accepts, trust=UNTRIED, policy=POLICY, there=None, **options):
    return found(ssh.key_accepted, client(**options), trust, there or server(*accepts), OWN, PEER, policy)


def asks(trust=UNTRIED, there=None, policy=POLICY, **options):
    return found(ssh.unattended, client(**options), trust, there or server(), OWN, PEER, policy)


def test_all_is_well():
    assert [*known(), *host_key(), *key(), *asks()] == []
    blocking = (ssh.target_known, ssh.host_key_known, ssh.key_accepted, ssh.shell_quiet)
    assert {each.blocks for each in blocking} == {Blocks.MIGRATION}
    assert (ssh.unattended.blocks, ssh.unattended.severity) == (Blocks.NOTHING, Severity.MEDIUM)


@pytest.mark.parametrize("run", [known, host_key, key, asks])
def test_not_applicable(run):
    for policy in OTHERS:
        with pytest.raises(NotApplicable):
            run(policy=policy)
    for outcome in ("trusted", "no libvirt", "changed key", "silent"):
        with pytest.raises(NotApplicable, match="tried"):
            run(trust=tried(outcome))


def test_tunnelled_means_that_the_source_logs_in():
    assert key(policy=Policy(started_on="here", tunnelled=True)) == []


class TestTargetKnown:
    @pytest.mark.parametrize(
        ("routes", "says"),
        [
            ((), "does not"),
            ((Route("127.0.1.1", "lo", "127.0.0.1"),), "back to the source"),
            ((Route("192.0.2.13", "eth0", None),), "192.0.2.13"),
            ((Route("192.0.2.12", None, None),), "no route"),
        ],
    )
    def test_astray(self, routes, says):
        [finding] = known(routes=routes)
        assert says in finding.actual
        assert finding.lifted_by == (STARTED_HERE,)

    def test_another_name_leads_there(self):
        [finding] = known(routes=(), peers=PeerAddresses((("kvm02.example.com", (ROUTE,)),)))
        assert finding.lifted_by == (STARTED_HERE, ANOTHER_ADDRESS)
        assert finding.about == "qemu+ssh://kvm02.example.com/system"

    def test_no_ssh_at_all(self):
        [finding] = known(whole=SshClient((), absent=True))
        assert finding.because == "Cannot find 'ssh' in path"

    def test_not_known(self):
        with pytest.raises(Unavailable, match="no answer"):
            known(routes=None)
        with pytest.raises(Unavailable, match="told nothing"):
            known(whole=SshClient(()))
        with pytest.raises(NotApplicable, match="another host"):
            known(routes=(), proxyjump="gate")


class TestHostKey:
    def test_another_one_is_refused_whoever_is_asked(self):
        for strict in ("ask", "yes", "accept-new"):
            [finding] = host_key(known=(OTHER,), stricthostkeychecking=strict)
            assert finding.remedy.startswith("ssh-keygen -R kvm02; ssh kvm02 true")
        assert host_key(known=(OTHER,), stricthostkeychecking="no") == []

    def test_an_unknown_one_only_where_nobody_is_asked(self):
        assert len(host_key(known=(), stricthostkeychecking="true")) == 1
        assert len(host_key(known=(), batchmode="yes")) == 1
        assert host_key(known=()) == []
        assert len(asks(known=())) == 1
        assert len(asks(known=(), trust=tried("unknown key"))) == 1
        for options in ({"stricthostkeychecking": "accept-new"}, {"authority": True}):
            assert [*host_key(known=(), **options), *asks(known=(), **options)] == []

    def test_what_the_target_shows_is_not_known(self):
        assert host_key(known=(OTHER,), there=server(host_keys=())) == []


class TestKey:
    def test_refused(self):
        [finding] = key((OTHER, ""))
        assert finding.actual == "none of the source's keys is among those that root there accepts"
        assert finding.remedy.startswith("ssh-copy-id kvm02")
        assert key(keys=())[0].actual == "the source has no key"
        assert key((MINE, "198.51.100.0/24"))[0].actual == "its key may not come from 192.0.2.11"

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ({"permitrootlogin": "no"}, "PermitRootLogin no"),
            ({"pubkeyauthentication": "no"}, "PubkeyAuthentication no"),
            ({"denyusers": "root"}, "DenyUsers root"),
            ({"allowusers": "admin"}, "AllowUsers without root"),
            ({"allowusers": "root@198.51.100.*"}, "AllowUsers without root"),
        ],
    )
    def test_root_is_kept_out(self, setting, says):
        assert key(there=server(**setting))[0].actual == says

    @pytest.mark.parametrize("source", ["", "192.0.2.11", "192.0.2.*", "192.0.2.0/24", "kvm01.example.com,10.*"])
    def test_it_may_come_from_there(self, source):
        assert key((MINE, source)) == []

    def test_a_key_with_a_command_of_its_own(self):
        assert "command=" in key((MINE, "", True))[0].actual
        assert key((MINE, "", True), (MINE, "")) == []
        assert key(there=server(forcecommand="/bin/rrsync"))[0].actual.startswith("ForceCommand")

    def test_what_else_may_open(self):
        for setting in ({"trustedusercakeys": "/etc/ca"}, {"authorizedkeyscommand": "/bin/sss"}):
            assert key(there=server((OTHER, ""), **setting)) == []
        assert key(there=server((OTHER, ""), authorizedkeysfile="/etc/keys/%u")) == []
        assert key((OTHER, ""), other_keys=True) == []
        assert key((OTHER, ""), ("?", "")) == []
        tickets = server((OTHER, ""), gssapiauthentication="yes")
        assert key(there=tickets, gssapiauthentication="yes") == []
        assert len(key(there=tickets, gssapiauthentication="no")) == 1
        for allowed in ("root", "*", "root@192.0.2.*", "root@kvm01"):
            assert key(there=server(allowusers=allowed)) == []

    def test_a_password_is_a_condition(self):
        typed = server((OTHER, ""), permitrootlogin="yes")
        assert key(there=typed) == []
        assert len(asks(there=typed)) == 1
        assert len(asks(there=typed, trust=tried("denied"))) == 1
        assert len(key(there=typed, batchmode="yes")) == 1
        assert asks(there=server((OTHER, ""))) == []

    def test_not_known(self):
        elsewhere = server(address="192.0.2.99")
        with pytest.raises(NotApplicable, match="condition"):
            key(there=elsewhere)
        with pytest.raises(Unavailable, match="told nothing"):
            asks(there=elsewhere)
        with pytest.raises(NotApplicable, match="another user"):
            key(user="admin")
        with pytest.raises(NotApplicable, match="judged apart"):
            key(routes=())


def test_shell():
    assert found(ssh.shell_quiet, RootShell("", True), POLICY) == []
    [finding] = found(ssh.shell_quiet, RootShell("Welcome", True), POLICY)
    assert finding.actual == "Welcome"
    assert len(found(ssh.shell_quiet, RootShell("", False), POLICY)) == 1
    with pytest.raises(NotApplicable):
        found(ssh.shell_quiet, RootShell("Welcome", True), Policy(transport="tcp"))


def test_helper():
    assert found(ssh.helper_there, RootShell("", True, frozenset({"nc"})), POLICY) == []
    assert len(found(ssh.helper_there, RootShell("", True, frozenset()), POLICY)) == 1
    with pytest.raises(NotApplicable):
        found(ssh.helper_there, RootShell("", True, frozenset()), Policy(transport="tls"))


def test_what_could_not_be_read():
    silent = SshClient(())
    for run, *more in ((ssh.host_key_known, server()), (ssh.key_accepted, server(), OWN)):
        with pytest.raises(Unavailable, match="told nothing"):
            found(run, silent, UNTRIED, *more, PEER, POLICY)
    gone = Missing(Unavailable(SERVER, "timed out"))
    with pytest.raises(NotApplicable, match="condition"):
        found(ssh.host_key_known, client(known=(), stricthostkeychecking="yes"), UNTRIED, gone, PEER, POLICY)
    with pytest.raises(Unavailable, match="timed out"):
        found(ssh.unattended, client(known=()), UNTRIED, gone, OWN, PEER, POLICY)
