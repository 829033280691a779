"""How both sides of a login over SSH are set up."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Said, Unavailable
from audit.facts.names import Route
from audit.facts.ssh_setup import CLIENT, SERVER, SHELL, Key, RootShell, SshClient, SshServer

SHOWN = "SHA256:OZiDVa3kNOrqvAf053UCx9Ko/7VgWaJI4wHDvyb1pz8"
OWN = "SHA256:LKixVnWOy1qHCTB1TO6bjqBIdlMTbYNI55pREe9Kfjg"
KNOWN = f"""\
= 0
me root
set user root
set hostname kvm2
set stricthostkeychecking true
set batchmode yes
known # Host kvm2 found: line 2
known kvm2 ED25519 {SHOWN}
key 256 {OWN} lab (ED25519)
resolved 0
address 10.77.0.12 br0 10.77.0.11
"""
SERVED = f"""\
= 0 10.77.0.11
set permitrootlogin without-password
set authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2
hostkey /etc/ssh/ssh_host_ed25519_key
= 255 10.77.1.11
# keys
home /root
host /etc/ssh/ssh_host_ecdsa_key 256 SHA256:qKMQjrn0kQ6fh8UG8EsezWIyy0IKGRhBrDwLs0PZWx0 root@vm (ECDSA)
host /etc/ssh/ssh_host_ed25519_key 256 {SHOWN} root@kvm2 (ED25519)
accepts {OWN}
accepts ? 10.0.0.0/8
accepts-forced {OWN}
# end
"""


def said(question, text, *records, status=0):
    evidence = Evidence(question.name, status=status, stdout=text.encode(), arguments=records)
    return Said(HostEvidence("kvm1", {question.name: evidence}))


class TestClient:
    def test_answers_in_the_order_of_the_questions(self):
        text = KNOWN + "= 255\nme root\nresolved 2\n= 0\nme root\nresolved 2\n"
        client = SshClient.parse(said(CLIENT, text, ("kvm2",), ("bad",), ("kvm3",)))
        login = client.to("kvm2")
        assert (login.me, login.known, login.keys) == ("root", {SHOWN}, {OWN})
        assert login.alone
        assert not login.proxied
        assert login.routes == (Route("10.77.0.12", "br0", "10.77.0.11"),)
        assert client.to("kvm3").routes == ()
        for name in ("bad", "kvm9"):
            with pytest.raises(Unavailable, match="told nothing"):
                client.to(name)

    @pytest.mark.parametrize(
        ("line", "attribute"),
        [
            ("known # Host kvm2 found: line 1 CA", "authority"),
            ("set knownhostscommand /bin/keys", "authority"),
            ("set verifyhostkeydns yes", "authority"),
            ("key ?", "other_keys"),
            ("set proxyjump gate", "proxied"),
        ],
    )
    def test_what_cannot_be_compared(self, line, attribute):
        login = SshClient.parse(said(CLIENT, f"{KNOWN}{line}\n", ("kvm2",))).to("kvm2")
        assert getattr(login, attribute) is True

    def test_no_answer_of_the_resolver(self):
        text = KNOWN.replace("resolved 0", "resolved 124")
        assert SshClient.parse(said(CLIENT, text, ("kvm2",))).to("kvm2").routes is None

    def test_no_ssh_and_nothing_asked(self):
        assert SshClient.parse(said(CLIENT, "", ("kvm2",), status=127)).absent
        assert SshClient.parse(said(CLIENT, "")) == SshClient(())
        with pytest.raises(ValueError, match="more answers"):
            SshClient.parse(said(CLIENT, KNOWN + KNOWN, ("kvm2",)))
        with pytest.raises(Unavailable):
            SshClient.parse(said(CLIENT, KNOWN, ("kvm2",), status=1))


class TestServer:
    def test_settings_and_keys(self):
        server = SshServer.parse(said(SERVER, SERVED, ("kvm1", "10.77.0.11"), ("kvm1", "10.77.1.11")))
        assert server.of("10.77.0.11")["permitrootlogin"] == "without-password"
        assert server.host_keys == {SHOWN}, "of those that sshd shows"
        assert server.accepts == (Key(OWN, ""), Key("?", "10.0.0.0/8"), Key(OWN, "", True))
        with pytest.raises(Unavailable, match="told nothing"):
            server.of("10.77.1.11")

    def test_incomplete(self):
        with pytest.raises(Unavailable, match="incomplete"):
            SshServer.parse(said(SERVER, SERVED.replace("# end\n", ""), ("kvm1", "10.77.0.11")))
        assert SshServer.parse(said(SERVER, "")).accepts == ()

    def test_what_is_asked(self):
        text = '[{"ifname": "eth0", "addr_info": [{"local": "192.0.2.12", "prefixlen": 24}]}]'
        hosts = {
            name: HostEvidence(name, {"network.addresses": Evidence("network.addresses", 0, text.encode())})
            for name in ("kvm1", "kvm2")
        }
        facts = Facts(hosts, lambda _: [])
        assert SERVER.ask(facts, "kvm1", ["kvm2"]) == [("kvm2", "192.0.2.12")]
        assert CLIENT.ask(facts, "kvm1", ["kvm2", "-oProxyCommand=x"]) == [("kvm2",)]


def test_shell():
    both = frozenset({"nc", "virt-ssh-helper"})
    text = "reached\n# has virt-ssh-helper\n# has nc\n# end\n"
    assert RootShell.parse(said(SHELL, text)) == RootShell("", True, both)
    assert RootShell.parse(said(SHELL, f"Welcome\nto kvm2\n{text}")) == RootShell("Welcome", True, both)
    assert RootShell.parse(said(SHELL, "reached\n# end\n")).helpers == frozenset()
    assert RootShell.parse(said(SHELL, "This account is not available.\n# end\n")).runs is False
    with pytest.raises(Unavailable):
        RootShell.parse(said(SHELL, "reached\n"))


@given(st.text(), st.sampled_from([CLIENT, SERVER, SHELL]))
def test_any_text(text, probe):
    records = {CLIENT: [("kvm2",)], SERVER: [("kvm1", "10.77.0.11")]}.get(probe, [])
    kind = {CLIENT: SshClient, SERVER: SshServer, SHELL: RootShell}[probe]
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        kind.parse(said(probe, text, *records))
