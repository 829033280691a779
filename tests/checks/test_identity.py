from audit.check import At
from audit.facts.identity import HostIdentity
from checks import identity as checks

ONE, TWO = HostIdentity("6f2b1d54-90c4-4b0e-9d5c-3d9f0d7ab001"), HostIdentity("6f2b1d54-90c4-4b0e-9d5c-3d9f0d7ab002")


def test_host_uuids_unique():
    judged = checks.host_uuids_unique.function
    assert not list(judged((At("a", ONE), At("b", TWO))))
    [finding] = judged((At("a", ONE), At("b", TWO), At("c", ONE)))
    assert finding.hosts == {"a", "c"}
    assert finding.actual == f"{ONE.uuid} on a, c"


def test_host_uuid_real():
    assert not list(checks.host_uuid_real.function(ONE))
    assert list(checks.host_uuid_real.function(HostIdentity("03000200-0400-0500-0006-000700080009")))
