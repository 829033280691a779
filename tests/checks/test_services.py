"""libvirt's daemons and the way into them."""

from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Policy, Unavailable
from audit.facts.clock import Clock
from audit.facts.confinement import GuestLabels, SecurityDrivers
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestName, HostGuestNames
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import Peer
from audit.facts.services import Daemons, Sshd, Unit, Units
from audit.facts.tls import Certificate, QemuCertificates, TlsCertificates
from audit.facts.versions import Packages
from checks import services
from tests.asked import found

SSH, TLS, TCP = Policy(), Policy(transport="tls"), Policy(transport="tcp")
SSHD = Sshd(frozenset({22}))
LISTENING = Listening(frozenset({Socket("*", 22)}))


def unit(name, active="inactive", enabled="disabled", load="loaded", listen=()):
    return Unit(name, load, active, enabled, tuple(listen))


def units(*running, enabled=True, **loads):
    """All units that matter, those `running` active."""
    names = [f"{d}.{k}" for d in ("virtqemud", "libvirtd") for k in ("service", "socket")]
    names += [f"{d}-{t}.socket" for d in ("virtproxyd", "libvirtd") for t in ("tls", "tcp")]
    made = {n: unit(n, "active" if n in running else "inactive", "enabled" if enabled else "disabled") for n in names}
    return Units(tuple(made.items()))


def daemons(mode="modular", running=("virtqemud.socket",), **more):
    return Daemons(mode, True, "", units(*running, **more), frozenset())


def transport(d, policy=SSH, listening=LISTENING, sshd=SSHD):
    return list(services.transport_ready.function(d, sshd, listening, policy))


def test_modular_and_monolithic_are_ready_for_ssh():
    assert transport(daemons()) == []
    assert transport(daemons("monolithic", ("libvirtd.socket",))) == []


@pytest.mark.parametrize(
    ("mode", "running", "policy", "socket", "port"),
    [
        ("modular", ("virtqemud.socket",), TLS, "virtproxyd-tls.socket", "16514"),
        ("modular", ("virtqemud.socket",), TCP, "virtproxyd-tcp.socket", "16509"),
        ("monolithic", ("libvirtd.socket",), TLS, "libvirtd-tls.socket", "16514"),
        ("monolithic", ("libvirtd.socket",), TCP, "libvirtd-tcp.socket", "16509"),
    ],
)
def test_network_transports_need_their_own_socket(mode, running, policy, socket, port):
    [finding] = transport(daemons(mode, running), policy)
    assert port in finding.expected
    assert finding.remedy == f"systemctl enable --now {socket}"
    assert transport(daemons(mode, (*running, socket)), policy) == []


def test_a_daemon_that_listens_by_itself_is_ready_too():
    listening = Listening(frozenset({Socket("0.0.0.0", 16514)}))
    assert transport(daemons("monolithic", ("libvirtd.service",)), TLS, listening) == []
    loopback = Listening(frozenset({Socket("127.0.0.1", 16514)}))
    assert len(transport(daemons("monolithic", ("libvirtd.service",)), TLS, loopback)) == 1


def test_an_ssh_server_that_others_do_not_reach():
    [finding] = transport(daemons(), listening=Listening(frozenset({Socket("127.0.0.1", 22)})))
    assert finding.actual == "one listens on the loopback alone"
    assert "ListenAddress" in finding.remedy
    [finding] = transport(daemons(), listening=Listening(frozenset({Socket("*", 25)})))
    assert (finding.actual, finding.remedy) == ("nothing listens there", "systemctl enable --now sshd.service")


def test_no_daemon():
    [finding] = transport(daemons("none", ()))
    assert finding.remedy == "systemctl enable --now virtqemud.socket"
    masked = Units(tuple({**dict(units().units), "virtqemud.socket": unit("virtqemud.socket", load="masked")}.items()))
    [finding] = transport(Daemons("modular", True, "", None, frozenset()), TLS)
    assert finding.remedy == ""
    [finding] = transport(replace(daemons("none", ()), units=masked))
    assert finding.remedy.startswith("systemctl")


def test_no_ssh_server():
    nobody = Listening(frozenset())
    [finding] = transport(daemons(), listening=nobody)
    assert "22" in finding.expected
    assert (
        transport(daemons(), listening=Listening(frozenset({Socket("::", 2222)})), sshd=Sshd(frozenset({2222}))) == []
    )
    assert len(transport(daemons(), listening=nobody, sshd=Sshd(frozenset()))) == 1


def test_without_systemd_the_daemon_must_answer():
    assert transport(Daemons("monolithic", True, "", None, frozenset({"libvirtd"}))) == []
    with pytest.raises(Unavailable, match="not found"):
        transport(Daemons("monolithic", False, "127: sh: virsh: not found", None, frozenset({"libvirtd"})))


def test_enabled_at_boot():
    run = services.enabled_at_boot.function
    assert list(run(daemons(), SSH)) == []
    [finding] = run(daemons(enabled=False), SSH)
    assert finding.remedy == "systemctl enable virtqemud.socket"
    both = daemons(running=("virtqemud.socket", "virtproxyd-tls.socket"), enabled=False)
    assert [f.expected for f in run(both, TLS)] == ["virtqemud.socket is enabled", "virtproxyd-tls.socket is enabled"]
    for nothing in (Daemons("modular", True, "", None, frozenset()), daemons("none", ())):
        with pytest.raises(NotApplicable):
            list(run(nothing, SSH))
    with pytest.raises(Unavailable, match="virtqemud"):
        list(run(replace(daemons(), units=Units(())), SSH))


def test_mixed_daemons():
    assert list(services.daemons_not_mixed.function(daemons())) == []
    [finding] = services.daemons_not_mixed.function(daemons("both"))
    assert "libvirtd.socket" in finding.remedy


def files(**changes):
    roles = ("ca", "server", "client", "key")
    made = {r: Certificate(r, f"/etc/pki/{r}.pem", present=True, valid_days=30) for r in roles}
    return TlsCertificates(tuple(replace(made[r], **changes.get(r, {})) for r in roles))


def test_certificates():
    run = services.tls_certificates.function
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
    [finding] = found(services.tls_certificates, broken, TLS)
    assert "server" in finding.expected
    with pytest.raises(Unavailable, match="no access"):
        found(services.tls_certificates, files(key={"problem": "no access"}), TLS)
    with pytest.raises(Unavailable, match="no access"):
        found(services.tls_client_certificates, files(client={"problem": "no access"}), TLS)


def test_client_certificates_and_their_end():
    assert list(services.tls_client_certificates.function(files(server={"present": False}), TLS)) == []
    assert len(list(services.tls_client_certificates.function(files(client={"present": False}), TLS))) == 1
    assert list(services.tls_certificates_last.function(files(), TLS)) == []
    assert len(list(services.tls_certificates_last.function(files(server={"valid_days": 0}), TLS))) == 1
    assert list(services.tls_certificates_last.function(files(server={"valid_days": 7}), TLS)) == []
    for check in (services.tls_client_certificates, services.tls_certificates_last):
        with pytest.raises(NotApplicable):
            list(check.function(files(), SSH))


OWN = OwnAddresses((Address("eth0", "192.0.2.12", 24), Address("eth1", "2001:db8::12", 64)))
NAMES = OwnNames("kvm02", "kvm02.example.com", "kvm02.example.com", None)
NOWHERE = PeerAddresses((("mig-kvm02", ()), ("kvm09", (Route("192.0.2.19", "eth0", None),))))


def names_of(certificate, policy=TLS, peer="kvm02", peers=NOWHERE):
    target = certificate if isinstance(certificate, TlsCertificates) else files(server={"names": certificate})
    none = list(services.tls_certificate_names.function(target, Peer(peer, False), NAMES, OWN, peers, policy))
    other = list(services.tls_certificate_inventory_name.function(target, Peer(peer, False), NAMES, OWN, policy))
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
    for check, more in ((services.tls_certificate_names, [NOWHERE]), (services.tls_certificate_inventory_name, [])):

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
    run = services.migrate_tls_certificates.function
    assert list(run(qemu(), QemuConf(), TLS)) == []
    [finding] = run(qemu(key={"present": False}), QemuConf(), TLS)
    assert finding.expected == "/etc/pki/key.pem exists"
    [finding] = run(qemu(**{role: {"present": False} for role in ("ca", "server", "client", "key")}), QemuConf(), TLS)
    assert (finding.expected, finding.actual) == ("QEMU's certificates in /etc/pki", "there are none")
    with pytest.raises(NotApplicable, match="does not use"):
        list(run(qemu(), QemuConf(), SSH))
    with pytest.raises(NotApplicable, match="insists"):
        list(run(qemu(), QemuConf(migrate_tls_force=True), TLS))
    with pytest.raises(Unavailable, match="no access"):
        found(services.migrate_tls_certificates, qemu(ca={"problem": "no access"}), QemuConf(), TLS)


def test_tls_force_needs_certificates_of_qemu():
    run, force, free = services.migrate_tls_possible.function, QemuConf(migrate_tls_force=True), QemuConf()
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
        found(services.migrate_tls_possible, qemu(), force, qemu(ca={"problem": "no access"}), free)


def test_tls_force():
    assert list(services.migrate_tls_force.function(QemuConf())) == []
    [finding] = services.migrate_tls_force.function(QemuConf(migrate_tls_force=True))
    assert "--tls" in finding.remedy


@pytest.mark.parametrize(
    ("here", "there", "differ"),
    [(None, None, 0), (None, "nop", 0), ("lockd", "lockd", 0), ("lockd", None, 1), (None, "sanlock", 1)],
)
def test_lock_managers(here, there, differ):
    run = services.same_lock_manager.function
    assert len(list(run(QemuConf(lock_manager=here), QemuConf(lock_manager=there)))) == differ
    assert services.same_lock_manager.blocks is Blocks.MIGRATION


def test_security_driver():
    run = services.security_driver_present.function
    confined, selinux = GuestLabels(frozenset({"selinux"})), SecurityDrivers(frozenset({"selinux", "dac"}))
    assert list(run(confined, selinux)) == []
    [finding] = run(confined, SecurityDrivers(frozenset({"dac", "apparmor"})))
    assert (finding.expected, finding.actual) == ("security driver selinux", "the target has apparmor, dac")
    with pytest.raises(NotApplicable):
        list(run(GuestLabels(frozenset()), SecurityDrivers(frozenset({"none"}))))
    assert services.security_driver_present.blocks is Blocks.NOTHING


def test_what_blocks():
    assert services.transport_ready.blocks is Blocks.MIGRATION
    assert services.transport_ready.offline
    assert services.migrate_tls_force.blocks is Blocks.NOTHING


def test_many_moves_at_once():
    def judged(running, startups=10, conf=None, policy=SSH):
        guests = HostGuestNames(tuple(GuestName(f"g{n}", f"u{n}", n < running) for n in range(99)), frozenset())
        sshd = Sshd(frozenset({22}), startups)
        return list(services.moves_at_once.function(guests, sshd, conf or QemuConf(), policy))

    assert judged(10) == []
    [finding] = judged(11)
    assert (finding.expected, finding.actual) == ("11 logins by SSH at once", "MaxStartups 10")
    assert judged(11, policy=TLS) == []
    assert judged(11, 0) == [], "no limit"
    assert len(judged(70)) == 2
    [finding] = judged(70, policy=TLS)
    assert finding.actual == "64"
    with pytest.raises(Unavailable):
        judged(5, None)
    with pytest.raises(NotApplicable):
        judged(0)


def test_web_console():
    socket = Units((("cockpit.socket", unit("cockpit.socket", "active")),))
    idle = Units((("cockpit.socket", unit("cockpit.socket")),))

    def judged(*names, units=socket):
        packages = Packages("rpm", tuple((name, "300-1") for name in names))
        return [finding.expected for finding in services.web_console.function(packages, units)]

    assert judged("cockpit", "cockpit-machines") == []
    assert judged("cockpit-ws", "cockpit-bridge") == ["cockpit-machines installed"]
    assert judged("cockpit-machines", "cockpit-bridge") == ["cockpit-ws installed"]
    assert judged("cockpit", "cockpit-machines", units=idle) == ["cockpit.socket is active"]
    with pytest.raises(NotApplicable):
        judged("libvirt-client")
    with pytest.raises(Unavailable):
        judged("cockpit", "cockpit-machines", units=Units(()))


def test_clock():
    def judged(*facts):
        return [finding.actual for finding in services.clock_synchronized.function(Clock(*facts))]

    assert judged(True, None) == []
    assert judged(True, 0.02) == []
    assert judged(False, None) == ["not synchronized"]
    assert judged(True, 3.5) == ["3.5 s"]
