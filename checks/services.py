"""libvirt's daemons and the way into them: can a source reach the target's libvirt by the transport planned?"""

from collections.abc import Iterator

from audit.check import (
    Blocks,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Stage,
    Target,
    Unavailable,
    check,
)
from audit.facts.clock import Clock
from audit.facts.confinement import GuestLabels, SecurityDrivers
from audit.facts.daemon_conf import DaemonConf
from audit.facts.firewall import Listening
from audit.facts.guest import HostGuestNames
from audit.facts.qemu_conf import QemuConf
from audit.facts.services import (
    DAEMON,
    SSH_PORT,
    SSHD,
    TCP_PORT,
    TLS_PORT,
    Daemons,
    Sshd,
    Unit,
    Units,
)
from audit.facts.versions import Packages


def _start(unit: Unit) -> str:
    unmask = f"systemctl unmask {unit.name} && " if unit.load == "masked" else ""
    return f"{unmask}systemctl enable --now {unit.name}"


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.4/installed", "12.6/socket-ssh", "12.6/socket-tls", "12.6/socket-tcp"),
)
def transport_ready(
    daemons: Target[Daemons], sshd: Target[Sshd], listening: Target[Listening], policy: Policy
) -> Iterator[Finding]:
    """The target's libvirt can be reached by the transport that the migration will use.

    Before anything moves, the source asks the libvirt daemon of the target to prepare. systemd listens for that
    daemon: `virtqemud.socket` on modular hosts, `libvirtd.socket` on monolithic ones, and another socket for each
    network transport: TLS on port 16514, unencrypted TCP on port 16509. A stopped service beside a listening
    socket is healthy; it starts when it is asked.
    """
    if daemons.mode == "none":
        unit = daemons.socket("ssh")
        yield Finding(
            expected=f"{daemons.socket_unit('ssh')} is active",
            actual="no libvirt daemon runs and no socket listens for one",
            because="Nobody on the target would answer the source.",
            remedy=_start(unit) if unit else "",
        )
    elif daemons.units is None and not daemons.answers:
        raise Unavailable(DAEMON, daemons.silence)
    if policy.transport == "ssh":
        yield from _ssh_listens(sshd.ports or frozenset({SSH_PORT}), listening)
        return
    port = TLS_PORT if policy.transport == "tls" else TCP_PORT
    unit = daemons.socket(policy.transport)
    if not (unit and unit.running) and not listening.reachable(port):
        yield Finding(
            expected=f"{daemons.socket_unit(policy.transport)} listens on port {port}",
            actual=f"it is {unit.active if unit.exists else unit.load}" if unit else f"nothing listens on port {port}",
            because=f"qemu+{policy.transport} connects to port {port} of the target.",
            remedy=_start(unit) if unit else "",
        )


def _ssh_listens(ports: frozenset[int], listening: Listening) -> Iterator[Finding]:
    if any(listening.reachable(port) for port in ports):
        return
    loopback = bool(ports & listening.ports)
    yield Finding(
        expected=f"an SSH server listens on port {_list(ports)}",
        actual="one listens on the loopback alone" if loopback else "nothing listens there",
        because="qemu+ssh connects through the target's SSH server.",
        remedy="Set ListenAddress in /etc/ssh/sshd_config to an address that the source reaches, and restart sshd"
        if loopback
        else "systemctl enable --now sshd.service",
    )


def _list(ports: frozenset[int] | set[int]) -> str:
    return " or ".join(map(str, sorted(ports)))


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="libvirt: authentication; libvirtd.conf auth_tcp, auth_tls",
    offline=True,
    covers=("12.6/socket-tcp", "12.6/socket-tls"),
)
def authentication_possible(conf: Target[DaemonConf], daemons: Target[Daemons], policy: Policy) -> Iterator[Finding]:
    """Where the target asks for SASL over qemu+tcp or qemu+tls, somebody can pass.

    Over TCP that is the default, with Kerberos as the only method and no key table for it: nobody passes then.
    """
    if _sasl(conf, daemons, policy) and not conf.has_accounts:
        yield Finding(
            expected=f"an account for SASL ({', '.join(conf.mechanisms)})",
            actual="the file that would hold them is not there",
            because="authentication failed",
            remedy="On the target: saslpasswd2 -a libvirt NAME, with mech_list and sasldb_path in "
            f'/etc/sasl2/libvirt.conf; or auth_{policy.transport} = "none", where the network is closed to others',
        )


def _sasl(conf: DaemonConf, daemons: Daemons, policy: Policy) -> bool:
    """The target asks for it. `NotApplicable` if the migration logs in by SSH."""
    if policy.transport == "ssh":
        raise NotApplicable("the migration uses qemu+ssh")
    return conf.authentication(policy.transport, modular=daemons.modular) == "sasl"


@check(
    severity=Severity.MEDIUM,
    stage=Stage.CONNECT,
    reference="libvirt: authentication; virsh(1): auth.conf",
    offline=True,
)
def authentication_unattended(conf: Target[DaemonConf], daemons: Target[Daemons], policy: Policy) -> Iterator[Finding]:
    """The target asks nobody for a name and a password over qemu+tcp or qemu+tls.

    With SASL somebody has to have a Kerberos ticket, or types a password, or has it in ~/.config/libvirt/auth.conf.
    """
    if _sasl(conf, daemons, policy) and conf.has_accounts:
        methods = ", ".join(conf.mechanisms) or "its default methods"
        yield Finding("no more than the connection is asked for", f"SASL: {methods}")


@check(
    severity=Severity.LOW,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.6",
    offline=True,
    covers=("12.6/socket-ssh", "12.6/socket-tls", "12.6/socket-tcp"),
)
def enabled_at_boot(daemons: Target[Daemons], policy: Policy) -> Iterator[Finding]:
    """The sockets that migrations need come back after a reboot.

    A socket that was started but not enabled is gone after the next reboot, which is often the very maintenance
    that guests are moved away for. They then cannot come back.
    """
    if daemons.units is None:
        raise NotApplicable("there is no systemd on this host")
    if daemons.mode == "none":
        raise NotApplicable("no libvirt daemon is active")
    for transport in dict.fromkeys(("ssh", policy.transport)):
        unit = daemons.socket(transport)
        service = daemons.units.of(daemons.socket_unit("ssh").replace(".socket", ".service"))
        started_by_service = transport == "ssh" and service.at_boot
        if unit and unit.running and not unit.at_boot and not started_by_service:
            yield Finding(
                expected=f"{unit.name} is enabled",
                actual=f"{unit.enabled or 'no unit file'}, though active now",
                remedy=f"systemctl enable {unit.name}",
            )


@check(
    severity=Severity.HIGH, stage=Stage.CONNECT, reference="libvirt: daemons", offline=True, covers=("12.6/socket-ssh",)
)
def daemons_not_mixed(daemons: Daemons) -> Iterator[Finding]:
    """Either modular or monolithic libvirt daemons serve QEMU guests, not both.

    `virtqemud` and `libvirtd` would both manage the same guests without knowing of each other. Which one answers a
    migration, and which of them knows the guest, is then a matter of chance.
    """
    if daemons.mode == "both":
        yield Finding(
            expected="virtqemud or libvirtd",
            actual="both are active",
            remedy="systemctl disable --now libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket "
            "libvirtd-tls.socket libvirtd-tcp.socket",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt qemu.conf: lock_manager",
    remedy="Set the same lock_manager in /etc/libvirt/qemu.conf on both, and restart libvirt's daemon.",
)
def same_lock_manager(source: Source[QemuConf], target: Target[QemuConf]) -> Iterator[Finding]:
    """Source and target lock the guests' disks by the same means.

    The leases of a lock manager (lockd, sanlock) are handed over with the guest. Where the target has another one, or
    none, libvirt refuses: "Source host lock driver X different from target Y".
    """
    here, there = source.lock_manager or "nop", target.lock_manager or "nop"
    if here != there:
        yield Finding(f"lock_manager = {here}", f"lock_manager = {there}", "nop means that disks are not locked.")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt virSecurityManagerCheckModel",
    remedy="Turn the security driver on there, in the kernel and in /etc/libvirt/qemu.conf; restart libvirt's daemon.",
    covers=("failure 62",),
)
def security_driver_present(guest: GuestLabels, target: Target[SecurityDrivers]) -> Iterator[Finding]:
    """The target's libvirt has the security driver that the guest's label is of.

    A guest that runs confined by SELinux or AppArmor brings its label. A target whose libvirt lacks that driver may
    refuse it ("Unable to find security driver for model selinux"); if it does not, the guest runs there unconfined.
    """
    if not guest.models:
        raise NotApplicable("the guest has no label of SELinux or AppArmor")
    if lacking := guest.models - target.models:
        yield Finding(
            expected=f"security driver {', '.join(sorted(lacking))}",
            actual=f"the target has {', '.join(sorted(target.models))}",
        )


@check(
    severity=Severity.INFO,
    stage=Stage.CONNECT,
    reference="sshd_config(5) MaxStartups; libvirt qemu.conf: migration_port_min",
    remedy="Move a few guests at a time; or raise MaxStartups in the target's sshd_config, and migration_port_max",
    covers=("failure 38",),
)
def moves_at_once(
    guests: Source[HostGuestNames], sshd: Target[Sshd], conf: Target[QemuConf], policy: Policy
) -> Iterator[Finding]:
    """All running guests of the source could be moved to the target at the same time.

    Each `virsh migrate` logs in to the target's SSH server, which drops some when too many do at once, and takes a
    port of the migration range, one more if disks are copied. Who moves guests one after the other is not concerned.
    """
    running = sum(guest.active for guest in guests.guests)
    if not running:
        raise NotApplicable("no guest is running")
    if policy.transport == "ssh" and sshd.startups and sshd.startups < running:
        yield Finding(
            f"{running} logins by SSH at once", f"MaxStartups {sshd.startups}", "Above that the server drops some."
        )
    if len(conf.migration_ports) < running:
        yield Finding(f"{running} ports for migrations", str(len(conf.migration_ports)), "Others are refused.")
    if policy.transport == "ssh" and sshd.startups is None:
        raise Unavailable(SSHD, "sshd -T did not tell MaxStartups")


@check(
    severity=Severity.INFO,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.7",
    covers=("12.7/console", "12.7/plugin"),
)
def web_console(packages: Packages, units: Units) -> Iterator[Finding]:
    """A web console (Cockpit) that is installed here can move guests.

    It needs the plug-in for virtual machines, and its socket. virsh needs neither.
    """
    installed = {name for name, _ in packages.packages}
    if not installed & {"cockpit", "cockpit-ws", "cockpit-bridge", "cockpit-machines"}:
        raise NotApplicable("no web console (Cockpit) is installed; guests are moved with virsh")
    if "cockpit-machines" not in installed:
        yield Finding(
            "cockpit-machines installed",
            "it is not",
            remedy="dnf install cockpit-machines || apt-get install cockpit-machines",
        )
    if not installed & {"cockpit", "cockpit-ws"}:
        yield Finding("cockpit-ws installed", "it is not", remedy="dnf install cockpit || apt-get install cockpit")
    elif not units.of("cockpit.socket").running:
        yield Finding(
            "cockpit.socket is active",
            units.of("cockpit.socket").active,
            remedy="systemctl enable --now cockpit.socket",
        )


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="chronyc(1) tracking",
    remedy="timedatectl set-ntp true",
    covers=("failure 78",),
)
def clock_synchronized(clock: Clock) -> Iterator[Finding]:
    """The host's clock is kept right.

    A guest that waited during its move is set by its host's clock, where its agent or its hypervisor's clock source
    does that; certificates are judged by it too.
    """
    if not clock.synchronized:
        yield Finding("a synchronized clock", "not synchronized")
    elif clock.offset_seconds is not None and clock.offset_seconds > _OFFSET_SECONDS:
        yield Finding(f"less than {_OFFSET_SECONDS} s off", f"{clock.offset_seconds:.1f} s")


_OFFSET_SECONDS = 1
