"""Units, daemons, the SSH server, certificates, qemu.conf."""

import contextlib
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.services import QEMU_CONF, TLS, Daemons, QemuConf, Sshd, TlsCertificates, Unit, Units, parse_conf


def block(name, active="inactive", enabled="disabled", load="loaded", names="", listen=()):
    """As systemd prints a unit, in an order that it does not promise."""
    lines = [f"LoadState={load}", *(f"Listen={address}" for address in listen), f"ActiveState={active}"]
    return "\n".join([*lines, f"Names={names or name}", "SubState=x", f"UnitFileState={enabled}", f"Id={name}"])


DAEMONS = ("virtqemud.service", "virtqemud.socket", "libvirtd.service", "libvirtd.socket")


def systemd(*given_blocks):
    """Those units, and the other daemons not found."""
    told = "\n\n".join(given_blocks)
    rest = [block(name, load="not-found", enabled="") for name in DAEMONS if f"Id={name}" not in told]
    return "\n\n".join([told, *rest]) + "\n"


MODULAR = systemd(
    block("virtqemud.service"),
    block("virtqemud.socket", "active", "enabled", listen=["/run/libvirt/virtqemud-sock (Stream)"]),
    block("virtproxyd-tls.socket", "active", "enabled", listen=["[::]:16514 (Stream)"]),
)
MONOLITHIC = systemd(block("libvirtd.service", "active", "enabled"), block("libvirtd.socket", "active", "enabled"))
NO_SYSTEMD = (1, "System has not been booted with systemd as init system (PID 1). Can't operate.")
ANSWERS = "answers\nend\n"


class TestUnits:
    def test_any_order_aliases_and_listen(self, said):
        text = systemd(
            block("chrony.service", "active", "enabled", names="chronyd.service chrony.service"),
            block("chronyd.service", load="not-found", enabled=""),
            block(
                "virtproxyd-tls.socket", "active", "enabled", listen=["0.0.0.0:16514 (Stream)", "[::]:16514 (Stream)"]
            ),
            block("virtlockd.socket", load="masked", enabled="masked"),
        )
        units = Units.parse(said({"services.units": text}))
        assert units.of("chronyd.service").running
        assert units.of("chronyd.service").name == "chrony.service"
        assert units.of("virtproxyd-tls.socket").ports == (16514,)
        assert not units.of("virtlockd.socket").exists
        assert not units.of("libvirtd.socket").exists
        assert units.running("virtlockd.socket", "chronyd.service")

    def test_a_unit_that_was_not_told_is_unknown(self, said):
        with pytest.raises(Unavailable):
            Units.parse(said({"services.units": MODULAR})).of("cockpit.socket")

    @pytest.mark.parametrize("answer", [NO_SYSTEMD, (127, "systemctl: not found"), "", "hello", "Id=x\n", "=\n\n="])
    def test_unavailable(self, said, answer):
        with pytest.raises((Unavailable, ValueError, LookupError)):
            Units.parse(said({"services.units": answer}))

    @given(st.text(max_size=200))
    def test_any_text(self, text):
        output = Evidence("services.units", status=0, stdout=text.encode("utf-8", "replace"))
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            Units.parse(Said(HostEvidence("h", {"services.units": output})))

    @pytest.mark.corpus
    def test_real(self, said, samples):
        for path in samples("systemctl-show"):
            with pytest.raises((Unavailable, LookupError)):  # none of them asked for Id
                Units.parse(said({"services.units": path.read_bytes()}))


class TestDaemons:
    def test_modular_with_idle_service_is_healthy(self, said):
        daemons = Daemons.parse(said({"services.units": MODULAR, "services.daemon": ANSWERS}))
        assert (daemons.mode, daemons.answers) == ("modular", True)
        assert daemons.socket_unit("ssh") == "virtqemud.socket"
        assert daemons.socket_unit("tls") == "virtproxyd-tls.socket"
        assert daemons.socket("tls").running

    def test_monolithic(self, said):
        daemons = Daemons.parse(said({"services.units": MONOLITHIC, "services.daemon": "process libvirtd\n" + ANSWERS}))
        assert daemons.mode == "monolithic"
        assert daemons.socket_unit("tcp") == "libvirtd-tcp.socket"

    def test_both(self, said):
        text = systemd(block("virtqemud.socket", "active"), block("libvirtd.service", "active"))
        assert Daemons.parse(said({"services.units": text, "services.daemon": ANSWERS})).mode == "both"

    def test_none_prefers_modular_where_installed(self, said):
        silent = "silent 1: error: failed to connect to the hypervisor\nerror: Failed to connect socket\nend\n"
        text = systemd(block("virtqemud.socket"), block("libvirtd.socket"))
        daemons = Daemons.parse(said({"services.units": text, "services.daemon": silent}))
        assert (daemons.mode, daemons.answers) == ("none", False)
        assert daemons.socket_unit("ssh") == "virtqemud.socket"
        bare = Daemons.parse(said({"services.units": systemd(), "services.daemon": silent}))
        assert bare.socket_unit("ssh") == "libvirtd.socket"

    @pytest.mark.parametrize(
        ("daemon", "mode"),
        [
            ("process libvirtd\nanswers\nend", "monolithic"),
            ("process virtqemud\nprocess virtproxyd\nanswers\nend", "modular"),
            ("socket /run/libvirt/libvirt-sock\nsocket /run/libvirt/virtqemud-sock\nanswers\nend", "modular"),
            ("socket /run/libvirt/libvirt-sock\nanswers\nend", "monolithic"),
            ("socket /run/libvirt/libvirt-sock\nsilent 1: Connection refused\nend", "none"),
        ],
    )
    def test_without_systemd(self, said, daemon, mode):
        daemons = Daemons.parse(said({"services.units": NO_SYSTEMD, "services.daemon": daemon}))
        assert daemons.mode == mode
        assert daemons.units is None
        assert daemons.socket("ssh") is None

    @pytest.mark.parametrize("text", ["", "end", "process libvirtd\nanswers", "socket /x\nend"])
    def test_incomplete(self, said, text):
        with pytest.raises(Unavailable):
            Daemons.parse(said({"services.units": MODULAR, "services.daemon": text}))


class TestSshd:
    def test_ports(self, said):
        assert Sshd.parse(said({"services.sshd": "port 2222\nport 22\nport 22\nend\n"})).ports == {22, 2222}
        assert Sshd.parse(said({"services.sshd": "end\n"})).ports == frozenset()

    @pytest.mark.parametrize("text", ["", "port 22\n", "port x\nend\n"])
    def test_refused(self, said, text):
        with pytest.raises((Unavailable, ValueError)):
            Sshd.parse(said({"services.sshd": text}))


class TestTls:
    def test_present_absent_unreadable(self, said):
        text = (
            "file ca /etc/pki/CA/cacert.pem\nsubject=CN = ca\nissuer=CN = ca\n"
            "notAfter=Jan  1 00:00:00 2030 GMT\nvalid 0\nvalid 7\nvalid 30\n"
            "file server /etc/pki/libvirt/servercert.pem\nsubject=CN=kvm01\nissuer=CN=ca\n"
            "notAfter=Jan  1 00:00:00 2020 GMT\nnames=DNS:kvm01.example.com, IP Address:192.0.2.1\n"
            "file client /etc/pki/libvirt/clientcert.pem\nabsent\n"
            "file key /etc/pki/libvirt/private/serverkey.pem\nunreadable no access to /etc/pki/libvirt/private\nend\n"
        )
        ca, server, client, key = TlsCertificates.parse(said({"services.tls": text})).files
        assert (ca.present, ca.valid_days, ca.subject) == (True, 30, "CN = ca")
        assert (server.valid_days, server.names) == (-1, ("DNS:kvm01.example.com", "IP Address:192.0.2.1"))
        assert not client.present
        assert key.problem.startswith("no access")

    @pytest.mark.parametrize(
        "text", ["", "absent\nend", "file ca /x\nend", "file other /x\nabsent\nend", "file ca\nend"]
    )
    def test_refused(self, said, text):
        with pytest.raises((Unavailable, ValueError, LookupError)):
            TlsCertificates.parse(said({"services.tls": text}))

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
    def test_the_probe_on_real_files(self, said, tmp_path):
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kvm01", "-days", "10"]
        make += ["-addext", "subjectAltName=DNS:kvm01.example.com,IP:192.0.2.1"]
        make += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "servercert.pem")]
        subprocess.run(make, check=True, capture_output=True)
        (tmp_path / "cacert.pem").write_text("nonsense")
        command = TLS.command.replace("$sudo ", "").replace("/etc/pki/CA/", f"{tmp_path}/")
        command = command.replace("/etc/pki/libvirt/private/", f"{tmp_path}/none/").replace(
            "/etc/pki/libvirt/", f"{tmp_path}/"
        )
        shown = subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout
        ca, server, client, key = TlsCertificates.parse(said({"services.tls": shown})).files
        assert ca.problem
        assert (server.present, server.valid_days, "CN" in server.subject) == (True, 7, True)
        assert server.names == ("DNS:kvm01.example.com", "IP Address:192.0.2.1")
        assert (client.present, key.present) == (False, False)


class TestQemuConf:
    def test_defaults_of_an_absent_file(self, said):
        gone = (1, "cat: /etc/libvirt/qemu.conf: No such file or directory")
        conf = QemuConf.parse(said({"services.qemu_conf": gone}))
        assert not conf.present
        assert (conf.migration_ports.start, conf.migration_ports.stop) == (49152, 49216)

    @pytest.mark.parametrize(
        "answer",
        [
            (1, "cat: /etc/libvirt/qemu.conf: Permission denied"),
            (1, "sudo: a password is required"),
            (127, "sh: 1: sudo: not found"),
            "migration_port_min = 50000\nmigration_port_max = 40000\n",
            'migration_port_min = "x"\n',
            "migration_host = 5\n",
            "migration_port_min = 50000\nmigration_port_min = 50001\n",
            "what is this",
            "a = [ 1",
        ],
    )
    def test_unknown(self, said, answer):
        with pytest.raises((Unavailable, ValueError)):
            QemuConf.parse(said({"services.qemu_conf": answer}))

    def test_settings(self, said):
        conf = QemuConf.parse(
            said(
                {
                    "services.qemu_conf": 'migration_host = "[2001:db8::1]"  # ours\nmigration_port_min=49152\n'
                    "migration_port_max = 49251\nmigrate_tls_force = 1\nlock_manager = 'lockd'\n"
                    'security_driver = [ "selinux", "apparmor" ]\nhugetlbfs_mount = "/dev/hugepages"\n'
                    'shared_filesystems = [\n  "/srv/a",\n  "/srv/b",\n]\nuser = ""\n'
                    'dynamic_ownership = 0\nunknown = """a\nb"""\n'
                }
            )
        )
        assert conf.migration_host == "2001:db8::1"
        assert len(conf.migration_ports) == 100
        assert (conf.migrate_tls_force, conf.dynamic_ownership) == (True, False)
        assert (conf.lock_manager, conf.user) == ("lockd", None)
        assert conf.security_driver == ("selinux", "apparmor")
        assert conf.hugetlbfs_mount == ("/dev/hugepages",)
        assert conf.shared_filesystems == ("/srv/a", "/srv/b")

    def test_passwords_stay_on_the_host(self, tmp_path):
        file = tmp_path / "qemu.conf"
        file.write_text('#vnc_password = "XYZ"\n  vnc_password = "secret"\nspice_password="secret"\nmax_queued = 0\n')
        command = QEMU_CONF.command.replace("$sudo ", "").replace("/etc/libvirt/qemu.conf", str(file))
        shown = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
        assert "secret" not in shown
        assert parse_conf(shown) == {"vnc_password": "hidden", "spice_password": "hidden", "max_queued": 0}

    @given(st.text(alphabet="ab=[]\"'#,\n 019-", max_size=60))
    def test_any_text(self, text):
        with contextlib.suppress(ValueError):
            parse_conf(text)

    @pytest.mark.corpus
    def test_real(self, said, samples):
        for path in samples("qemu-conf"):
            if "error" in path.name:
                continue
            settings = parse_conf(path.read_text())
            assert "/dev/vfio/vfio" in settings["cgroup_device_acl"]
            assert QemuConf.parse(said({"services.qemu_conf": path.read_bytes()})) == QemuConf()
        for path in (*samples("libvirtd-conf"), *samples("virtlockd-conf")):
            parse_conf(path.read_text())


def test_unit_that_is_enabled_by_a_link():
    assert Unit("x.socket", "loaded", "active", "static").at_boot
    assert not Unit("x.socket", "loaded", "active", "disabled").at_boot
