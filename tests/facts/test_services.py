"""Units, daemons, the SSH server, certificates."""

import contextlib
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.services import Daemons, Sshd, Unit, Units
from audit.facts.tls import TLS, Certificate, QemuCertificates, TlsCertificates


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
        assert Sshd.parse(said({"services.sshd": "port 22\nend\n"})).startups is None
        told = Sshd.parse(said({"services.sshd": "port 22\nport 22\nstartups 10\nend\n"}))
        assert (told.ports, told.startups) == ({22}, 10)

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

    def test_the_server_certificate(self, said):
        def server(text):
            return TlsCertificates.parse(said({"services.tls": f"file server /s.pem\n{text}\nend\n"})).server

        assert server("subject=CN=a").subject == "CN=a"
        assert server("absent") is None
        with pytest.raises(Unavailable, match="no access"):
            server("unreadable no access")
        with pytest.raises(Unavailable, match="nothing said"):
            _ = TlsCertificates(()).server

    @pytest.mark.parametrize(
        ("subject", "names", "proved", "others"),
        [
            ("CN = kvm01", (), ["kvm01", "KVM01"], ["kvm01.example.com", "kvm0", ""]),
            ("O = Ex, CN = kvm01.example.com", (), ["kvm01.example.com"], ["kvm01", "Ex"]),
            ('O = "Ex, CN = other, Inc", CN = kvm01', (), [], ["other, Inc"]),
            ("CN=kvm01,O=Ex", (), ["kvm01"], []),
            ("/O=Ex/CN=kvm01", (), ["kvm01"], []),
            ("CN = a, CN = b", (), [], ["a", "b"]),
            ("CN = kvm01", ("DNS:kvm02",), ["kvm02"], ["kvm01"]),
            ("CN = kvm01", ("IP Address:192.0.2.1", "email:a@b.c"), ["kvm01", "192.0.2.1"], ["192.0.2.2"]),
            ("", ("IP Address:2001:DB8:0:0:0:0:0:12",), ["2001:db8::12"], ["2001:db8::13"]),
            ("CN = 192.0.2.1", ("DNS:192.0.2.1",), [], ["192.0.2.1"]),
            ("", ("DNS:*.example.com",), ["kvm01.example.com"], ["example.com", "a.b.example.com", ".example.com"]),
            ("", ("DNS:*.com",), [], ["example.com"]),
        ],
    )
    def test_whose_certificate(self, subject, names, proved, others):
        certificate = Certificate("server", "/s.pem", present=True, subject=subject, names=names)
        assert [name for name in [*proved, *others] if certificate.proves(name)] == proved

    def test_certificates_of_qemu(self, said):
        text = "file ca /ca\nsubject=CN=x\nfile qemu-ca /q/ca-cert.pem\nabsent\n"
        text += "file qemu-key /q/server-key.pem\npresent\nend"
        files = QemuCertificates.parse(said({"services.tls": text})).files
        assert [(file.role, file.present) for file in files] == [("ca", False), ("key", True)]
        assert [file.path for file in TlsCertificates.parse(said({"services.tls": text})).files] == ["/ca"]
        with pytest.raises(Unavailable, match="QEMU"):
            QemuCertificates.parse(said({"services.tls": "file ca /ca\nsubject=CN=x\nend"}))
        with pytest.raises(ValueError, match="not a certificate"):
            QemuCertificates.parse(said({"services.tls": "file qemu-other /ca\nabsent\nend"}))

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
        (tmp_path / "qemu.conf").write_text(f'default_tls_x509_cert_dir = "{tmp_path}/qemu"\n')
        (tmp_path / "qemu").mkdir()
        shutil.copy(tmp_path / "servercert.pem", tmp_path / "qemu" / "server-cert.pem")
        (tmp_path / "qemu" / "server-key.pem").touch()
        command = command.replace("/etc/libvirt/", f"{tmp_path}/").replace("/etc/pki/libvirt-migrate", f"{tmp_path}/no")
        shown = subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout
        ca, server, client, key, own_key = TlsCertificates.parse(said({"services.tls": shown})).files
        assert ca.problem
        assert (server.present, server.valid_days, "CN" in server.subject) == (True, 7, True)
        assert server.names == ("DNS:kvm01.example.com", "IP Address:192.0.2.1")
        assert (client.present, key.present, own_key.present) == (False, False, False)
        assert server.own_id == server.authority_id != ""
        assert (server.several, server.vouched) == (False, False), "that authority is none"
        assert server.proves("kvm01.example.com")
        qemu = QemuCertificates.parse(said({"services.tls": shown})).files
        assert [(file.role, file.present) for file in qemu] == [
            ("ca", False),
            ("server", True),
            ("client", False),
            ("key", True),
        ]
        assert qemu[1].names == server.names


def test_unit_that_is_enabled_by_a_link():
    assert Unit("x.socket", "loaded", "active", "static").at_boot
    assert not Unit("x.socket", "loaded", "active", "disabled").at_boot
