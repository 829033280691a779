"""What QEMU does not migrate."""

from audit.check import Blocks
from audit.facts.blockers import GuestFormats
from checks import blockers as checks

PLAIN = GuestFormats((("vda", "qcow2"), ("vdb", "raw")), (), (), False)


def found(check, fact):
    return [finding.actual for finding in check.function(fact)]


def test_formats_of_other_hypervisors():
    assert found(checks.disk_format, GuestFormats((("vda", "qcow2"), ("vda", "vmdk")), (), (), False)) == ["vda: vmdk"]
    assert found(checks.disk_format, PLAIN) == []
    for kind in ("qcow", "vdi", "vpc", "vhdx"):
        assert found(checks.disk_format, GuestFormats((("sda", kind),), (), (), False))
    assert checks.disk_format.blocks is Blocks.MIGRATION


def test_what_stays_on_the_host():
    assert found(checks.writable_folder, GuestFormats((), ("fda",), (), False)) == ["fda"]
    assert found(checks.persistent_reservations, GuestFormats((), (), ("sda",), False)) == ["sda has <reservations>"]
    assert found(checks.host_smartcard, GuestFormats((), (), (), True))
    for check in (checks.writable_folder, checks.persistent_reservations, checks.host_smartcard):
        assert found(check, PLAIN) == []
    assert checks.persistent_reservations.blocks is Blocks.NOTHING
