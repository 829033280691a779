"""libvirt's daemons and the way into them."""

from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Policy, Unavailable
from audit.facts.clock import Clock
from audit.facts.confinement import GuestLabels, SecurityDrivers
from audit.facts.daemon_conf import DaemonConf
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestName, HostGuestNames
from audit.facts.qemu_conf import QemuConf
from audit.facts.services import Daemons, Sshd, Unit, Units
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


def test_sasl():
    d = daemons("monolithic", ("libvirtd.socket",))
    nobody = DaemonConf((), ("gssapi",), frozenset())
    somebody = DaemonConf((), ("gssapi",), frozenset({"keytab"}))
    free = DaemonConf((("libvirtd", "auth_tcp", "none"),), ("gssapi",), frozenset())
    possible, unattended = services.authentication_possible, services.authentication_unattended
    assert found(possible, nobody, d, TCP)[0].because == "authentication failed"
    assert found(unattended, nobody, d, TCP) == []
    assert found(possible, somebody, d, TCP) == []
    assert len(found(unattended, somebody, d, TCP)) == 1
    for run in (possible, unattended):
        assert found(run, free, d, TCP) == []
        assert found(run, nobody, d, TLS) == []
        with pytest.raises(NotApplicable):
            found(run, nobody, d, SSH)
        with pytest.raises(Unavailable, match="nothing said"):
            found(run, nobody, Daemons("none", False, "", Units(()), frozenset()), TCP)
