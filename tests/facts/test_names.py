"""Names, addresses, and what peers' names resolve to."""

import contextlib
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Said, Unavailable
from audit.facts.names import PEERS, OwnAddresses, OwnNames, PeerAddresses, Route, is_loopback
from audit.facts.network import ADDRESSES, Address

OWN = {
    "names.hostname": "kvm01\n",
    "names.libvirt": "kvm01.example.com\n\n",
    "names.fqdn": "kvm01.example.com\n",
    "names.self": "127.0.1.1       STREAM kvm01.example.com\n127.0.1.1       DGRAM\n127.0.1.1       RAW\n",
}


class TestOwnNames:
    def test_all(self, said):
        own = OwnNames.parse(said(OWN))
        assert own == OwnNames("kvm01", "kvm01.example.com", "kvm01.example.com", ("127.0.1.1",))
        assert own.name_for_migration == "kvm01.example.com"

    def test_what_cannot_be_had_is_none(self, said):
        own = OwnNames.parse(
            said(
                {
                    "names.hostname": "kvm01",
                    "names.libvirt": (1, "error: failed to connect to the hypervisor"),
                    "names.fqdn": (1, "hostname: Name or service not known"),
                    "names.self": (2, ""),
                }
            )
        )
        assert (own.libvirt, own.fqdn, own.resolves_to) == (None, None, ())
        with pytest.raises(Unavailable):
            _ = own.name_for_migration  # libvirt might complete a short name

    def test_full_names_and_localhost_are_what_libvirt_takes(self):
        assert OwnNames("kvm01.example.com", None, None, None).name_for_migration == "kvm01.example.com"
        assert OwnNames("localhost", None, None, None).name_for_migration == "localhost"

    @pytest.mark.parametrize("name", ["", "a b", "x\ny", "-x", "$(id)", "é", "a" * 300])
    def test_not_a_name(self, said, name):
        with pytest.raises(ValueError, match="host name"):
            OwnNames.parse(said({**OWN, "names.hostname": name}))

    @pytest.mark.corpus
    def test_real(self, said, samples):
        for path in samples("hostname-f"):
            assert OwnNames.parse(said({**OWN, "names.fqdn": path.read_bytes()})).fqdn == "rhel7.example.com"


def addresses(**interfaces):
    """What `ip -j addr` prints."""
    return json.dumps(
        [
            {"ifname": name, "addr_info": [{"local": ip, "prefixlen": int(prefix), **more}]}
            for name, (network, more) in interfaces.items()
            for ip, _, prefix in [network.partition("/")]
        ]
    )


class TestOwnAddresses:
    def test_all(self, said):
        text = addresses(
            lo=("127.0.0.1/8", {}),
            eth0=("192.0.2.11/24", {}),
            eth1=("fe80::1/64", {}),
            virbr0=("192.168.122.1/24", {}),
            tun0=("10.0.0.1/32", {"address": "10.0.0.2"}),  # point-to-point: the other end is not ours
            bond0=("2001:db8::1/64", {}),
        )
        own = OwnAddresses.parse(said({ADDRESSES.name: text}))
        assert Address("bond0", "2001:db8::1", 64) in own.addresses
        assert [a.ip for a in own.reachable] == ["2001:db8::1", "192.0.2.11", "10.0.0.1"]
        assert own.families == {4, 6}
        assert own.interface_of("192.168.122.1") == "virbr0"
        assert own.interface_of("192.0.2.99") is None

    @pytest.mark.parametrize(
        "text",
        [
            *("", "hello", "[]", "[{}]", "{}", "[1]", '[{"ifname": "eth0", "addr_info": [{"local": "192.0.2.1"}]}]'),
            addresses(eth0=("nonsense/24", {})),
            addresses(eth0=("192.0.2.1/240", {})),
            addresses(lo=("127.0.0.1/8", {})),
            (255, 'Option "-j" is unknown, try "ip -help".'),
        ],
    )
    def test_refused(self, said, text):
        with pytest.raises((Unavailable, ValueError)):
            OwnAddresses.parse(said({ADDRESSES.name: text}))

    @pytest.mark.corpus
    def test_real(self, said, samples):
        [path] = samples("ip-addr-json")
        own = OwnAddresses.parse(said({ADDRESSES.name: path.read_bytes()}))
        assert {a.interface for a in own.addresses} >= {"br0", "eno1"}
        assert own.families == {4, 6}


def answered(text, *names):
    output = Evidence(PEERS.name, status=0, stdout=text.encode(), arguments=tuple((name,) for name in names))
    return Said(HostEvidence("kvm01", {PEERS.name: output}))


class TestPeerAddresses:
    def test_answers_follow_the_order_of_questions(self):
        text = "= 0\n192.0.2.12 eth0 192.0.2.11\n2001:db8::2 - -\n= 2\n= 0\n127.0.1.1 lo 127.0.0.1\n= 124\n"
        peers = PeerAddresses.parse(answered(text, "kvm02", "gone", "kvm04", "slow"))
        assert peers.of("kvm02") == (Route("192.0.2.12", "eth0", "192.0.2.11"), Route("2001:db8::2", None, None))
        assert peers.of("gone") == ()
        assert peers.of("kvm04")[0].leads_here
        for name in ("slow", "never asked"):
            with pytest.raises(Unavailable):
                peers.of(name)

    def test_missing_answers_are_unknown(self):
        peers = PeerAddresses.parse(answered("= 2\n", "a", "b"))
        assert peers.of("a") == ()
        with pytest.raises(Unavailable):
            peers.of("b")

    def test_without_questions_there_is_nothing_to_know(self):
        assert PeerAddresses.parse(answered("")) == PeerAddresses(())

    @pytest.mark.parametrize("text", ["192.0.2.1 eth0 x", "= x", "= 0\nx y z\n", "= 0\n= 0\n", "= 0\n192.0.2.1\n"])
    def test_refused(self, text):
        with pytest.raises((Unavailable, ValueError, LookupError)):
            PeerAddresses.parse(answered(text, "a"))

    def test_records_of_another_shape_are_another_version_s(self):
        output = Evidence(PEERS.name, status=0, stdout=b"= 2\n", arguments=(("a", "b"),))
        with pytest.raises(Unavailable, match="another version"):
            PeerAddresses.parse(Said(HostEvidence("kvm01", {PEERS.name: output})))

    @given(st.text(alphabet="=0129. \nabc:-", max_size=60))
    def test_any_text(self, text):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            PeerAddresses.parse(answered(text, "a", "b"))

    def test_what_is_asked(self):
        def host(name, libvirt, conf):
            outputs = {**OWN, "names.hostname": name, "names.libvirt": libvirt, "services.qemu_conf": conf}
            return HostEvidence(name, {k: Evidence(k, status=0, stdout=v.encode()) for k, v in outputs.items()})

        hosts = {
            "kvm01": host("kvm01", "kvm01.example.com", ""),
            "kvm02": host("kvm02", "kvm02.example.com", 'migration_host = "mig02"\n'),
            "kvm03": HostEvidence("kvm03", problem="timed out"),
        }
        asked = PEERS.ask(Facts(hosts, lambda _: []), "kvm01", ["kvm01", "kvm02", "kvm03"])
        names = [name for (name,) in asked]
        assert {"kvm02", "kvm02.example.com", "mig02", "kvm03"} <= set(names)
        assert "kvm01" not in names
        assert len(names) == len(set(names))

    def test_the_probe_cannot_be_talked_into_anything(self):
        names = (
            "localhost",
            "-s",
            "$(echo 6.6.6.6)",
            "x'; echo = 0; echo '",
            "= 0\n192.0.2.9 eth0 192.0.2.8",
            "127.0.0.1",
        )
        stdin = b"".join(name.encode() + b"\0" for name in names)
        done = subprocess.run(["sh", "-c", PEERS.command], input=stdin, capture_output=True)
        peers = PeerAddresses.parse(answered(done.stdout.decode(), *names))
        assert all(route.leads_here for route in peers.of("localhost"))
        assert [route.address for route in peers.of("127.0.0.1")] == ["127.0.0.1"]
        assert all(peers.of(name) == () for name in names[1:5])


def test_loopback():
    assert [is_loopback(a) for a in ("127.0.1.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "192.0.2.1")] == [True] * 4 + [
        False
    ]
