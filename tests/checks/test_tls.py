"""TLS: whose certificates there are, for how long, and whether they are the right ones."""

from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Policy, Unavailable
from audit.facts.daemon_conf import DaemonConf
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import Peer
from audit.facts.services import Daemons, Units
from audit.facts.tls import Certificate, QemuCertificates, TlsCertificates
from checks import tls
from tests.asked import found

CONF = DaemonConf((), (), frozenset())
NOT_ASKED = DaemonConf((("libvirtd", "tls_no_verify_certificate", "1"),), (), frozenset())
DAEMONS = Daemons("monolithic", True, "", None, frozenset())
SSH, TLS, TCP = Policy(), Policy(transport="tls"), Policy(transport="tcp")


def files(**changes):
    roles = ("ca", "server", "client", "key", "clientkey")
    made = {r: Certificate(r, f"/etc/pki/{r}.pem", present=True, valid_days=30) for r in roles}
    return TlsCertificates(tuple(replace(made[r], **changes.get(r, {})) for r in roles))


def test_certificates():
    run = tls.certificates.function
    assert list(run(files(), TLS)) == []
    [finding] = run(files(server={"present": False}), TLS)
    assert finding.expected == "/etc/pki/server.pem exists"
    [finding] = run(files(ca={"valid_days": -1, "not_after": "Jan 1"}), TLS)
    assert "expired" in finding.actual
    assert list(run(files(client={"present": False}), TLS)) == []
    with pytest.raises(NotApplicable):
        list(run(files(), SSH))


def test_definite_faults_come_before_what_is_unknown():
    broken = files(ca={"problem": "no access"}, server={"present": False})
    [finding] = found(tls.certificates, broken, TLS)
    assert "server" in finding.expected
    with pytest.raises(Unavailable, match="no access"):
        found(tls.certificates, files(key={"problem": "no access"}), TLS)
    with pytest.raises(Unavailable, match="no access"):
        found(tls.client_certificates, files(client={"problem": "no access"}), CONF, DAEMONS, TLS)


def test_client_certificates_and_their_end():
    run = tls.client_certificates.function
    assert list(run(files(server={"present": False}), CONF, DAEMONS, TLS)) == []
    assert len(list(run(files(client={"present": False}), CONF, DAEMONS, TLS))) == 1
    none = files(client={"present": False}, clientkey={"present": False})
    assert list(run(none, NOT_ASKED, DAEMONS, TLS)) == []
    assert len(list(run(none, CONF, DAEMONS, TLS))) == 2
    assert tls.client_certificates.blocks is Blocks.MIGRATION
    with pytest.raises(NotApplicable):
        list(run(none, CONF, DAEMONS, Policy(transport="tls", started_on="here")))
    assert list(tls.certificates_last.function(files(), TLS)) == []
    assert len(list(tls.certificates_last.function(files(server={"valid_days": 0}), TLS))) == 1
    assert list(tls.certificates_last.function(files(server={"valid_days": 7}), TLS)) == []
    with pytest.raises(NotApplicable):
        list(run(files(), CONF, DAEMONS, SSH))
    with pytest.raises(NotApplicable):
        list(tls.certificates_last.function(files(), SSH))


SIGNED = {"own_id": "AA", "authority_id": "AA"}


def test_one_authority_signs_for_both():
    run = tls.same_authority.function
    one = files(ca=SIGNED, server={"authority_id": "AA"}, client={"authority_id": "AA"})
    other = files(ca={"own_id": "BB"}, server={"authority_id": "BB"}, client={"authority_id": "BB"})
    assert list(run(one, one, CONF, DAEMONS, TLS)) == []
    assert len(list(run(one, other, CONF, DAEMONS, TLS))) == 2
    assert len(list(run(one, other, NOT_ASKED, DAEMONS, TLS))) == 1
    assert list(run(one, files(), CONF, DAEMONS, TLS)) == [], "nothing is told that could differ"
    # without identifiers, names are compared; of bundles only the first certificate is known
    named = files(ca={"subject": "CN=a"}, server={"issuer": "CN=a"}, client={"issuer": "CN=b"})
    assert len(list(run(named, named, CONF, DAEMONS, TLS))) == 1
    assert list(run(named, files(ca={"subject": "CN=a", "several": True}), CONF, DAEMONS, TLS)) == []
    with pytest.raises(NotApplicable):
        list(run(one, other, CONF, DAEMONS, SSH))
    with pytest.raises(Unavailable, match="nothing said"):
        list(run(one, one, CONF, Daemons("none", False, "", Units(()), frozenset()), TLS))


def test_a_certificate_must_be_made_for_its_use():
    run = tls.certificates.function
    fit = {
        "usage": ("critical", "Digital Signature", "Key Encipherment"),
        "purposes": ("critical", "TLS Web Server Authentication"),
    }
    assert list(run(files(server=fit), TLS)) == []
    assert list(run(files(server={"purposes": ("TLS Web Client Authentication",)}), TLS)) == [], "not to be heeded"
    [finding] = run(files(server={"purposes": ("critical", "TLS Web Client Authentication")}), TLS)
    assert finding.actual == "TLS Web Client Authentication"
    [finding] = run(files(server={"usage": ("critical", "Digital Signature")}), TLS)
    assert finding.expected.endswith("Key Encipherment"), "certificates of elliptic curves lack it, as a rule"
    [finding] = run(files(ca={"usage": ("critical", "Digital Signature")}), TLS)
    assert finding.expected.endswith("Certificate Sign")
    [finding] = run(files(server={"vouched": False}), TLS)
    assert "authority" in finding.expected


OWN = OwnAddresses((Address("eth0", "192.0.2.12", 24), Address("eth1", "2001:db8::12", 64)))
NAMES = OwnNames("kvm02", "kvm02.example.com", "kvm02.example.com", None)
NOWHERE = PeerAddresses((("mig-kvm02", ()), ("kvm09", (Route("192.0.2.19", "eth0", None),))))


def names_of(certificate, policy=TLS, peer="kvm02", peers=NOWHERE):
    target = certificate if isinstance(certificate, TlsCertificates) else files(server={"names": certificate})
    none = list(tls.certificate_names.function(target, Peer(peer, False), NAMES, OWN, peers, policy))
    other = list(tls.certificate_inventory_name.function(target, Peer(peer, False), NAMES, OWN, policy))
    return none, other


def test_whose_certificate_the_target_shows():
    assert names_of(("DNS:kvm02", "DNS:kvm02.example.com")) == ([], [])
    none, [other] = names_of(("DNS:kvm02.example.com",))
    assert none == []
    assert other.remedy == "virsh migrate … qemu+tls://kvm02.example.com/system"
    none, [other] = names_of(("IP Address:2001:DB8:0:0:0:0:0:12",))
    assert none == []
    assert other.remedy == "virsh migrate … 'qemu+tls://[2001:db8::12]/system'"
    for strange in ("DNS:kvm09", "DNS:mig-kvm02", "DNS:*.example.org", "IP Address:192.0.2.19"):
        [finding], other = names_of((strange,))
        assert other == []
        assert strange.partition(":")[2] in finding.actual
        assert finding.expected == "a certificate of kvm02"
    # a name of the target that only the source's resolver knows
    leads = PeerAddresses((("mig-kvm02", (Route("192.0.2.12", "eth0", None),)),))
    assert names_of(("DNS:mig-kvm02",), peers=leads) == ([], [])
    with pytest.raises(Unavailable, match="not asked about"):
        names_of(("DNS:mig-kvm02",), peers=PeerAddresses(()))
    for check, more in ((tls.certificate_names, [NOWHERE]), (tls.certificate_inventory_name, [])):

        def run(target, policy, check=check, more=more):
            return list(check.function(target, Peer("kvm02", False), NAMES, OWN, *more, policy))

        with pytest.raises(NotApplicable, match="does not use"):
            run(files(), SSH)
        with pytest.raises(NotApplicable, match="no server certificate"):
            run(files(server={"present": False}), TLS)
        with pytest.raises(Unavailable, match="no access"):
            run(files(server={"problem": "no access"}), TLS)


def qemu(**changes):
    return QemuCertificates(files(**changes).files)


def test_certificates_of_qemu():
    run = tls.migrate_certificates.function
    assert list(run(qemu(), QemuConf(), TLS)) == []
    [finding] = run(qemu(key={"present": False}), QemuConf(), TLS)
    assert finding.expected == "/etc/pki/key.pem exists"
    [finding] = run(
        qemu(**{role: {"present": False} for role in ("ca", "server", "client", "key", "clientkey")}), QemuConf(), TLS
    )
    assert (finding.expected, finding.actual) == ("QEMU's certificates in /etc/pki", "there are none")
    with pytest.raises(NotApplicable, match="does not use"):
        list(run(qemu(), QemuConf(), SSH))
    with pytest.raises(NotApplicable, match="insists"):
        list(run(qemu(), QemuConf(migrate_tls_force=True), TLS))
    with pytest.raises(Unavailable, match="no access"):
        found(tls.migrate_certificates, qemu(ca={"problem": "no access"}), QemuConf(), TLS)


def test_tls_force_needs_certificates_of_qemu():
    run, force, free = tls.migrate_possible.function, QemuConf(migrate_tls_force=True), QemuConf()
    bare = qemu(server={"present": False}, key={"present": False}, client={"present": False})
    assert list(run(bare, force, qemu(), free)) == []
    for here, there in ((force, free), (free, force)):
        assert [f.expected for f in run(qemu(), here, bare, there)] == [
            "/etc/pki/server.pem exists",
            "/etc/pki/key.pem exists",
        ]
    assert len(list(run(qemu(ca={"present": False}), force, qemu(), free))) == 1
    with pytest.raises(NotApplicable):
        list(run(bare, free, bare, free))
    with pytest.raises(Unavailable, match="no access"):
        found(tls.migrate_possible, qemu(), force, qemu(ca={"problem": "no access"}), free)


def test_tls_force():
    assert list(tls.migrate_force.function(QemuConf())) == []
    [finding] = tls.migrate_force.function(QemuConf(migrate_tls_force=True))
    assert "--tls" in finding.remedy
    assert tls.migrate_force.blocks is Blocks.NOTHING
