"""The files beside a guest's disks."""

from dataclasses import replace

import pytest

from audit.check import Unavailable
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestIdentity, GuestMachine
from audit.facts.guest_devices import GuestDevices, GuestFiles, HostFile
from audit.facts.names import OwnAddresses
from audit.facts.network import Address
from audit.facts.paths import Component
from audit.facts.taken import GuestNumbers
from checks import files as checks
from tests.disks import FILE, GONE, found, paths

WEB = GuestIdentity("web", "11111111-2222-4333-8444-555555555555", None)
MACHINE = GuestMachine("kvm", "x86_64", "pc-q35-9.0", "/usr/libexec/qemu-kvm", "efi", "/fw/code.fd", "/vars/web.fd")


def test_emulator():
    there = paths(**{"/usr/libexec/qemu-kvm": FILE})
    assert not found(checks.emulator, MACHINE, WEB, there)
    [finding] = found(checks.emulator, MACHINE, WEB, paths(**{"/usr/libexec/qemu-kvm": GONE}))
    assert finding.because == "Cannot check QEMU binary /usr/libexec/qemu-kvm: No such file or directory"
    assert checks.emulator.offline
    for mode, actual in ((0o100755, []), (0o100644, ["mode 0644"])):
        there = paths(**{"/usr/libexec/qemu-kvm": replace(FILE, kind="file", components=(Component(mode, 0, 0),))})
        assert [f.actual for f in found(checks.emulator, MACHINE, WEB, there)] == actual
    with pytest.raises(Unavailable):
        found(checks.emulator, MACHINE, WEB, paths())


def test_what_else_the_guest_names():
    kernel, socket = HostFile("kernel", "/srv/vmlinuz", False), HostFile("vhost-user socket", "/srv/ovs", True)
    files = GuestFiles((kernel, socket))
    assert not found(checks.present, files, paths(vmlinuz=FILE, ovs=GONE))
    first, second = found(checks.present, files, paths(vmlinuz=GONE, ovs=replace(GONE, folder_exists=False)))
    assert (first.expected, second.expected) == ("/srv/vmlinuz on the target", "/srv on the target")
    with pytest.raises(Unavailable):
        found(checks.present, files, paths(ovs=GONE))
    assert not found(checks.present, GuestFiles(()), paths())


def serial(*serial_paths, tpm_secret=None):
    return GuestDevices((), (), (), None, tpm_secret, False, False, None, (), serial_paths, False, False)


def test_serial_paths():
    there = paths(log=GONE, **{"/x/log": replace(GONE, folder_exists=False), "/dev/ttyS1": GONE})
    assert not found(checks.serial, serial(("file", "/srv/log")), there)
    assert found(checks.serial, serial(("file", "/x/log")), there)[0].remedy == "On the target: mkdir -p /x"
    assert found(checks.serial, serial(("dev", "/dev/ttyS1")), there)
    with pytest.raises(Unavailable):
        found(checks.serial, serial(("file", "/y")), there)


@pytest.mark.parametrize(
    ("host", "socket", "missing"),
    [
        ("127.0.0.1", Socket("127.0.0.1", 4555), False),
        ("127.0.0.1", Socket("*", 4555), False),
        ("127.0.0.1", Socket("10.77.0.12", 4555), True),
        ("127.0.0.1", Socket("*", 22), True),
        ("localhost", Socket("::1", 4555), False),
        ("localhost", Socket("*", 22), True),
        ("10.77.0.12", Socket("*", 22), True),
    ],
)
def test_servers_of_serial_lines_on_the_host_itself(host, socket, missing):
    line = GuestNumbers(None, False, (), (("serial", host, 4555),))
    own = OwnAddresses((Address("br0", "10.77.0.12", 24),))
    assert bool(found(checks.serial_server, line, Listening(frozenset({socket})), own)) is missing
    assert not found(checks.remote_server, line, own)


def test_servers_of_serial_lines_elsewhere():
    own = OwnAddresses((Address("br0", "10.77.0.12", 24),))
    nothing = Listening(frozenset({Socket("*", 22)}))
    for host in ("10.77.0.99", "console.example"):
        line = GuestNumbers(None, False, (), (("serial", host, 4555),))
        assert not found(checks.serial_server, line, nothing, own)
        [finding] = found(checks.remote_server, line, own)
        assert host in finding.expected
