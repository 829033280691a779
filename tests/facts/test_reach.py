"""What hosts try among themselves: what is asked, and how the answers are read."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, NotAsked, Said, Unavailable
from audit.facts.reach import MTU, PORTS, PathMtu, Peer, Reach, announcement, in_turn
from audit.facts.ssh_trust import TRUST, SshTrust

ROUND = ["kvm01", "kvm02", "kvm03"]
SS = "LISTEN 0 128 {}:{} *:*\n"
CONF = "migration_port_min = {}\nmigration_port_max = {}\n"


def answered(question, text, *records, status=0, problem=""):
    evidence = Evidence(question.name, status=status, stdout=text.encode(), problem=problem, arguments=records)
    return Said(HostEvidence("kvm01", {question.name: evidence}))


def host(name, *addresses, ports=(22,), conf="", mtu=1500, **more):
    """`addresses`: of eth0, eth1, …"""
    found = [{"ifname": f"eth{at}", "addr_info": [{"local": ip, "prefixlen": 24}]} for at, ip in enumerate(addresses)]
    links = [{"ifname": f"eth{at}", "mtu": mtu, "flags": ["UP"]} for at in range(len(addresses))]
    outputs = {
        "network.addresses": json.dumps(found),
        "network.links": json.dumps(links),
        "firewall.listening": "".join(SS.format("*" if port > 0 else "127.0.0.1", abs(port)) for port in ports),
        "services.qemu_conf": conf,
        "services.sshd": "port 22\nend\n",
        "names.hostname": f"{name}\n",
        "names.libvirt": f"{name}.example.com\n",
        **more,
    }
    said = {k: Evidence(k, status=0, stdout=v.encode()) for k, v in outputs.items() if v is not None}
    return HostEvidence(name, said)


def asked(question, *hosts, of="kvm01"):
    facts = Facts({each.host: each for each in hosts}, lambda _: [])
    return [record[1:] for record in question.ask(facts, of, [each.host for each in hosts if each.host != of])]


ME = host("kvm01", "192.0.2.11")


class TestWhatIsAsked:
    def test_ports(self):
        found = asked(PORTS, ME, host("kvm02", "192.0.2.12", ports=(22, 16514)))
        assert found == [
            ("kvm02", "192.0.2.12", "22", "control"),
            ("kvm02", "192.0.2.12", "16514", "control"),
            ("kvm02", "192.0.2.12", "49215", "migration"),
            ("kvm02", "192.0.2.12", "49216", "compare"),
        ]

    def test_numbers_tell_the_records_apart(self):
        facts = Facts({"kvm01": ME, "kvm02": host("kvm02", "192.0.2.12")}, lambda _: [])
        for question in (PORTS, MTU, TRUST):
            records = question.ask(facts, "kvm01", ["kvm02"])
            assert [record[0] for record in records] == [str(number) for number in range(len(records))]
            assert all(len(record) == question.arity for record in records)

    @pytest.mark.parametrize(
        ("ports", "conf", "tried"),
        [
            ((22, 49152, 49153), "", "49215"),
            ((22, 49199), "", "49215"),
            ((22, 49200), "", None),  # libvirt may come to it meanwhile
            ((22, 49215), "", None),  # somebody waits there
            ((22, -49215), "", None),
            ((22, 49216), "", "49215"),
            ((22,), CONF.format(60000, 60015), "60015"),
            ((22,), CONF.format(60000, 60014), None),
            ((22,), CONF.format(65000, 65535), "65535"),
            ((22,), CONF.format(49152, 49152), None),
        ],
    )
    def test_no_port_that_a_migration_has_or_gets(self, ports, conf, tried):
        found = asked(PORTS, ME, host("kvm02", "192.0.2.12", ports=ports, conf=conf))
        assert [port for _, _, port, use in found if use == "migration"] == ([tried] if tried else [])

    def test_an_ssh_server_within_the_range_is_left_alone(self):
        sshd = {"services.sshd": "port 22\nport 49160\nend\n"}
        for conf in ("", None):
            found = asked(PORTS, ME, host("kvm02", "192.0.2.12", ports=(22, 49160), **sshd, conf=conf))
            assert [port for _, _, port, use in found if use == "control"] == ["22"]

    def test_the_port_to_compare_with_is_one_that_nobody_has(self):
        found = asked(PORTS, ME, host("kvm02", "192.0.2.12", ports=(22, 49216, -49217)))
        assert [port for _, _, port, use in found if use == "compare"] == ["49218"]
        found = asked(PORTS, ME, host("kvm02", "192.0.2.12", conf=CONF.format(65000, 65535)))
        assert [port for _, _, port, use in found if use == "compare"] == []

    def test_the_range_is_left_alone_where_listeners_or_qemu_conf_are_not_known(self):
        for unread in ({"firewall.listening": None}, {"services.qemu_conf": None}):
            found = asked(PORTS, ME, host("kvm02", "192.0.2.12", **unread))
            assert {use for *_, use in found} == {"control"}
        found = asked(PORTS, ME, host("kvm02", "192.0.2.12", **{"firewall.listening": None}))
        assert [port for _, _, port, _ in found] == ["22", "16514", "16509"]

    def test_addresses_of_the_cluster_s_hosts_only_and_near_ones_first(self):
        far = [f"198.51.{number}.12" for number in range(6)]
        found = asked(MTU, ME, host("kvm02", *far, "192.0.2.12"))
        assert [address for _, address, _ in found] == ["192.0.2.12", *far[:3]]

    def test_an_address_that_two_hosts_have_is_left_out(self):
        hosts = (host("kvm02", "192.0.2.12", "10.0.3.1"), host("kvm03", "192.0.2.13", "10.0.3.1"))
        found = asked(MTU, ME, *hosts)
        assert [address for _, address, _ in found] == ["192.0.2.12", "192.0.2.13"]
        assert [a for _, a, _ in asked(MTU, ME, host("kvm02", "192.0.2.11", "192.0.2.12"))] == ["192.0.2.12"]

    def test_peers_that_told_nothing_are_left_out(self):
        silent = HostEvidence("kvm02", problem="timed out")
        assert asked(PORTS, ME, silent) == []
        assert asked(MTU, ME, host("kvm02", "192.0.2.12", **{"network.links": None})) == []
        # but for ssh, by the inventory's name
        assert asked(TRUST, ME, silent) == [("kvm02", "kvm02", "kvm02")]

    def test_not_all_begin_with_the_same(self):
        assert in_turn("kvm01", ["kvm02", "kvm03"]) == ["kvm02", "kvm03"]
        assert in_turn("kvm02", ["kvm01", "kvm03"]) == ["kvm03", "kvm01"]

    def test_mtu_of_the_peer_s_device(self):
        assert asked(MTU, ME, host("kvm02", "192.0.2.12", mtu=9000)) == [("kvm02", "192.0.2.12", "9000")]

    def test_ssh_names(self):
        found = asked(TRUST, ME, host("kvm02", "192.0.2.12"))
        assert found == [("kvm02", "kvm02", "kvm02.example.com")]
        odd = host("[x]y", "192.0.2.12", **{"names.libvirt": "-oProxyCommand=x\n"})
        assert asked(TRUST, ME, odd) == []
        local = host("kvm02", "192.0.2.12", **{"names.libvirt": "localhost\n"})
        assert asked(TRUST, ME, local) == [("kvm02", "kvm02", "kvm02")]


def ports(text, count=1, **more):
    records = [(str(number), "kvm02", f"192.0.2.{number}", "22", "control") for number in range(count)]
    return Reach.parse(answered(PORTS, text, *records, **more))


class TestReach:
    @pytest.mark.parametrize(
        ("answer", "state"),
        [
            ("0 0 ", "open"),
            ("0 1 Connection refused", "refused"),
            ("0 124 ", "silent"),
            ("0 137 ", "silent"),
            ("0 1 Connection timed out", "silent"),
            ("0 1 No route to host", "unreachable"),
            ("0 1 Permission denied", "prohibited"),
            ("0 1 Network is unreachable", "unrouted"),
            ("0 1 Address family not supported by protocol", "unrouted"),
            ("0 1 Operation not permitted", "unsaid"),
            ("0 1 No such file or directory", "unsaid"),  # a bash without /dev/tcp
            ("0 127 not found", "unsaid"),
            ("0 1", "unsaid"),
            ("", "unsaid"),
        ],
    )
    def test_states(self, answer, state):
        [one] = ports(f"{answer}\n").of("kvm02", "control")
        assert one.state == state
        assert bool(one.words) == (state == "unsaid")

    def test_answers_come_in_any_order(self):
        found = ports("2 0 \n0 124 \n", 3).of("kvm02", "control")
        assert [(one.address, one.state) for one in found] == [
            *(("192.0.2.0", "silent"), ("192.0.2.1", "unsaid"), ("192.0.2.2", "open"))
        ]
        assert ports("0 0 \n").of("kvm02", "migration") == ()

    def test_not_tried(self):
        nothing = Reach.parse(answered(PORTS, ""))
        assert nothing == Reach(())
        with pytest.raises(NotAsked):
            nothing.of("kvm02", "control")
        with pytest.raises(NotAsked, match="--probe-network"):
            Reach.parse(Said(HostEvidence("kvm01")))

    @pytest.mark.parametrize("text", ["1 0 ", "0 0 \n0 0 ", "0", "x", "0 x", "kvm02 0"])
    def test_refused(self, text):
        with pytest.raises((Unavailable, ValueError)):
            ports(text)

    def test_no_bash(self):
        evidence = Evidence(PORTS.name, status=127, stderr=b"bash: not found\n", arguments=(("0", *"abcd"),))
        with pytest.raises(Unavailable, match="command not found"):
            Reach.parse(Said(HostEvidence("kvm01", {PORTS.name: evidence})))
        with pytest.raises(Unavailable, match="timed out"):
            ports("0 0 ", problem="timed out after 75 s")

    @given(st.text(alphabet="012 -.:Conectirfusdax\n", max_size=60))
    def test_any_text(self, text):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            ports(text, 2)


class TestPeer:
    def test_tries(self):
        assert Peer.parse(answered(PORTS, "")) == Peer("kvm01", True)
        assert Peer.parse(answered(PORTS, "x", problem="timed out")) == Peer("kvm01", True)
        assert Peer.parse(Said(HostEvidence("kvm01"))) == Peer("kvm01", False)


def mtu(text, count=1):
    records = [(str(number), "kvm02", f"192.0.2.{number}", "9000") for number in range(count)]
    return PathMtu.parse(answered(MTU, text, *records)).of("kvm02")


class TestPathMtu:
    def test_all(self):
        lines = (
            "1 eth0 9000 0 1 1400",
            "0 eth0 1500 0 0 -",
            "2 eth0 9000 0 1 -",
            "3 eth0 9000 1 - -",
            "4 - 9000 2 - -",
        )
        full, reported, lost, silent, failed, old, late = mtu("\n".join([*lines, "5 eth0 9000 0 2 -"]), 7)
        assert (full.size, full.carries, full.swallows) == (1500, True, False)
        assert (reported.carries, reported.reported, reported.swallows) == (False, 1400, False)
        assert lost.swallows
        assert (silent.answers, silent.carries, silent.swallows) == (False, None, False)
        assert (failed.answers, failed.device) == (None, None)
        assert (old.answers, old.carries, old.swallows) == (True, None, False)
        assert (late.answers, late.carries) == (None, None)

    @pytest.mark.parametrize(
        "text", ["0 eth0 9000 0 0", "0 eth0 x 0 0 -", "0 e 1 0 0 - x", "7 e 1 0 0 -", "0 e 1 0 1 x"]
    )
    def test_refused(self, text):
        with pytest.raises((Unavailable, ValueError)):
            mtu(text)

    def test_not_asked(self):
        with pytest.raises(NotAsked):
            PathMtu.parse(Said(HostEvidence("kvm01")))
        with pytest.raises(NotAsked):
            PathMtu(()).of("kvm02")

    @given(st.text(alphabet="012 -eth9\n", max_size=60))
    def test_any_text(self, text):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            mtu(text, 2)


CHANGED = (
    "@@@@|@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @|@@@@|Host key for kvm02 has changed and you have "
    "requested strict checking.|Host key verification failed.|"
)


def trust(text, count=1):
    records = [(str(number), f"kvm0{number}", f"kvm0{number}", f"kvm0{number}.lan") for number in range(count)]
    return SshTrust.parse(answered(TRUST, text, *records))


class TestSshTrust:
    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            ("0 root kvm00 virt-preflight|root|kvm02|qemu:///system|", "trusted"),
            ("0 root kvm00.lan banner|virt-preflight|root|kvm02||qemu:///system||", "trusted"),
            ("127 root kvm00 virt-preflight|root|kvm02|sh: 1: virsh: not found|", "no libvirt"),
            ("1 root kvm00 virt-preflight|root|kvm02|error: failed to connect to the hypervisor|", "no libvirt"),
            ("0 root kvm00 virt-preflight|root|kvm02|qemu:///session|", "no libvirt"),
            ("0 root kvm00 virt-preflight|", "unsaid"),
            ("0 root kvm00 This account is not available.|", "unsaid"),
            ("0 root kvm00 ", "unsaid"),
            ("255 root kvm00 No ED25519 host key is known for kvm02 and you have requested strict checking.|Host key "
             "verification failed.|", "unknown key"),
            (f"255 root kvm00 {CHANGED}", "changed key"),
            ("255 root kvm00 root@kvm02: Permission denied (publickey,password).|", "denied"),
            ("1 root kvm00 This account is currently not available.|", "denied"),
            ("255 root kvm00 ssh: connect to host kvm02 port 22: Connection refused|", "refused"),
            ("255 root kvm00 ssh: connect to host kvm02 port 22: Connection timed out|", "silent"),
            ("255 root kvm00 Connection timed out during banner exchange|", "silent"),
            ("124 root kvm00 ", "silent"),
            ("255 root kvm00 ssh: connect to host kvm02 port 22: No route to host|", "unreachable"),
            ("255 root kvm00 ssh: Could not resolve hostname kvm02: Name or service not known|", "unresolved"),
            ("255 root kvm00 kex_exchange_identification: Connection closed by remote host|", "closed"),
            ("255 root kvm00 /root/.ssh/config: line 1: Bad configuration option: nonsense|", "unsaid"),
            ("1 root kvm00 Permission denied (publickey)|", "unsaid"),  # not ssh's own words
        ],
    )  # fmt: skip
    def test_outcomes(self, answer, outcome):
        found = trust(f"0 {answer}\n")
        if outcome == "unsaid":
            with pytest.raises(Unavailable):
                found.of("kvm00")
        else:
            assert found.of("kvm00").outcome == outcome
            assert found.of("kvm00").user == "root"
        assert bool(found.peers[0][1].words) == (outcome != "trusted")

    def test_who_answered(self):
        one = trust("0 0 admin kvm00 virt-preflight|root|kvm02.lan|qemu:///system|\n").of("kvm00")
        assert (one.name, one.user, one.login, one.hostname) == ("kvm00", "admin", "root", "kvm02.lan")

    def test_not_told_of(self):
        found = trust("1 124 root kvm01 \n", 2)
        assert found.of("kvm01").outcome == "silent"
        with pytest.raises(Unavailable, match="no time"):
            found.of("kvm00")
        with pytest.raises(NotAsked):
            found.of("kvm09")
        with pytest.raises(NotAsked):
            SshTrust.parse(Said(HostEvidence("kvm01")))

    @pytest.mark.parametrize(
        "text", ["7 0 root kvm00 x", "0 0 root other x", "0 0 root", "0 x root kvm00 x", "0 0 r kvm00 \n0 0 r kvm00 "]
    )
    def test_refused(self, text):
        with pytest.raises((Unavailable, ValueError, LookupError)):
            trust(text)

    @given(st.text(alphabet="012 kvmro.lan|\n5", max_size=60))
    def test_any_text(self, text):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            trust(text, 2)


def test_announcement():
    assert announcement([1, 1]).endswith("nothing to try.")
    told = announcement([3, 2])
    assert "5 hosts" in told
    assert "8 ways" in told
