"""Numbers that a guest keeps."""

import pytest

from audit.check import NotApplicable, Unavailable
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestIdentity
from audit.facts.names import OwnAddresses
from audit.facts.network import Address
from audit.facts.taken import GuestNumbers, HostCids
from checks import taken as checks
from tests.asked import found

GUEST = GuestIdentity("db 01", "11111111-2222-4333-8444-555555555555", None)
OWN = OwnAddresses((Address("br0", "10.77.0.12", 24),))


def test_a_fixed_cid_must_be_free():
    fixed = GuestNumbers(7, True, ())
    [finding] = found(checks.vsock_cid, fixed, HostCids(((7, "web01"),)), GUEST)
    assert (finding.actual, finding.remedy[:18]) == ("taken by web01", "virsh edit 'db 01'")
    assert not found(checks.vsock_cid, fixed, HostCids(((8, "web01"),)), GUEST)
    with pytest.raises(Unavailable):
        found(checks.vsock_cid, fixed, HostCids((), 1), GUEST)
    for free in (GuestNumbers(7, False, ()), GuestNumbers(None, False, ())):
        with pytest.raises(NotApplicable):
            found(checks.vsock_cid, free, HostCids(((7, "web01"),)), GUEST)


@pytest.mark.parametrize(
    ("address", "socket", "because"),
    [
        ("0.0.0.0", Socket("10.0.0.1", 4555), "Address already in use"),
        ("127.0.0.1", Socket("*", 4555), "Address already in use"),
        ("127.0.0.1", Socket("*", 4556), None),
        ("10.77.0.12", Socket("*", 4556), None),
        ("10.77.0.11", Socket("*", 4556), "Cannot assign requested address"),
        ("console.example", Socket("*", 4556), None),
    ],
)
def test_a_serial_lines_port(address, socket, because):
    numbers = GuestNumbers(None, False, (("serial", address, 4555),))
    findings = found(checks.serial_port, numbers, Listening(frozenset({socket})), OWN, GUEST)
    assert [f.because for f in findings] == ([f"serial: Failed to bind socket: {because}"] if because else [])


@pytest.mark.parametrize(
    ("held", "fails"),
    [(("0.0.0.0",), False), (("::",), False), (("*",), True), (("0.0.0.0", "::"), True), ((), False)],
)
def test_a_port_without_an_address(held, fails):
    numbers = GuestNumbers(None, False, (("-s", "*", 1234),))
    there = Listening(frozenset(Socket(address, 1234) for address in held))
    assert bool(found(checks.serial_port, numbers, there, OWN, GUEST)) is fails


def test_no_port():
    with pytest.raises(NotApplicable):
        found(checks.serial_port, GuestNumbers(None, False, ()), Listening(frozenset()), OWN, GUEST)
