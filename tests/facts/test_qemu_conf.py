"""qemu.conf, and the syntax of libvirt's configuration files."""

import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.qemu_conf import CONF_AGE, QEMU_CONF, ConfInForce, QemuConf, parse_conf


def test_defaults_of_an_absent_file(said):
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
def test_unknown(said, answer):
    with pytest.raises((Unavailable, ValueError)):
        QemuConf.parse(said({"services.qemu_conf": answer}))


def test_settings(said):
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


def test_passwords_stay_on_the_host(tmp_path):
    file = tmp_path / "qemu.conf"
    file.write_text('#vnc_password = "XYZ"\n  vnc_password = "secret"\nspice_password="secret"\nmax_queued = 0\n')
    command = QEMU_CONF.command.replace("$sudo ", "").replace("/etc/libvirt/qemu.conf", str(file))
    shown = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    assert "secret" not in shown
    assert parse_conf(shown) == {"vnc_password": "hidden", "spice_password": "hidden", "max_queued": 0}


@given(st.text(alphabet="ab=[]\"'#,\n 019-", max_size=60))
def test_any_text(text):
    with contextlib.suppress(ValueError):
        parse_conf(text)


@pytest.mark.corpus
def test_real(said, samples):
    for path in samples("qemu-conf"):
        if "error" in path.name:
            continue
        settings = parse_conf(path.read_text())
        assert "/dev/vfio/vfio" in settings["cgroup_device_acl"]
        assert QemuConf.parse(said({"services.qemu_conf": path.read_bytes()})) == QemuConf()
    for path in (*samples("libvirtd-conf"), *samples("virtlockd-conf")):
        parse_conf(path.read_text())


@pytest.mark.parametrize(
    ("lines", "stale"),
    [
        ("", False),
        ("conf 2000.5 1000.5\n", False),
        ("conf 2000.5 1000.5\ndaemon 5000.00 400000 100\n", False),
        ("conf 2000.5 1000.5\ndaemon 5000.00 390000 100\n", True),
        ("conf 2000.5 1000.5\ndaemon 5000.00 400000 100\ndaemon 5000.00 390000 100\n", True),
        ("daemon 5000.00 390000 100\n", False),
    ],
)
def test_whether_it_holds(lines, stale):
    evidence = Evidence(CONF_AGE.name, status=0, stdout=f"{lines}end\n".encode())
    found = ConfInForce.parse(Said(HostEvidence("h", {CONF_AGE.name: evidence})))
    assert found.stale is stale
    if stale:
        with pytest.raises(Unavailable, match="was changed after"):
            found.settled()
    else:
        found.settled()


def test_whether_it_holds_is_not_known():
    for text in ("", "conf 1 2\n"):
        with pytest.raises(Unavailable):
            ConfInForce.parse(
                Said(HostEvidence("h", {CONF_AGE.name: Evidence(CONF_AGE.name, status=0, stdout=text.encode())}))
            )
    with pytest.raises(ValueError, match="convert"):
        ConfInForce.parse(
            Said(HostEvidence("h", {CONF_AGE.name: Evidence(CONF_AGE.name, status=0, stdout=b"conf %.Y 1\nend\n")}))
        )
