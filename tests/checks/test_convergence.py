"""Checks of convergence, on plain values."""

from dataclasses import replace

import pytest

from audit.check import At, Blocks, NotApplicable, Policy, Severity, Unavailable
from audit.facts.base import NotAsked
from audit.facts.dirty_rate import DIRTY_RATE, GuestDirtyRate, GuestMigration
from audit.facts.guest import GuestIdentity, GuestMemory, GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.names import Route
from audit.facts.ways import MigrationWays
from audit.jobinfo import JobInfo
from audit.judge import Missing
from checks import convergence as checks
from tests.asked import found
from tests.checks.test_network import nic

GIB = 1024**2
RUNNING, OFF = GuestState("running", True, True), GuestState("shut off", False, True)
PAUSED = GuestState("paused", True, True)
GUEST = GuestIdentity("db 1", "u", None)


def memory(gib):
    return GuestMemory(gib * GIB, gib * GIB, (), frozenset(), False, False, False, False, False, None)


def host(number=1, mbps=10000, shared=("br0",), device="br0"):
    speeds = ((device, mbps),) if mbps else ()
    peers = tuple((f"kvm{n}", Route(f"10.0.0.{n}", device, None)) for n in (1, 2, 3) if n != number)
    own = ((f"10.0.0.{number}", device),)
    return MigrationWays(f"kvm{number}", peers, own, "br0", speeds, frozenset(shared))


HERE, THERE = host(1), host(2)


def bandwidth(mib, there=THERE, state=RUNNING):
    return found(checks.bandwidth, state, GuestDirtyRate(mib, 5), memory(8), GUEST, HERE, there)


def test_bandwidth():
    assert (checks.bandwidth.severity, checks.bandwidth.blocks) == (Severity.MEDIUM, Blocks.NOTHING)
    assert not bandwidth(0)
    assert not bandwidth(1192)  # 10 Gbit/s are 1192.09 MiB/s
    [finding] = bandwidth(1193)
    assert finding.expected == "a network that carries more than 1.2 GiB/s (10.0 Gbit/s), measured for 5 s"
    assert finding.actual == "1.2 GiB/s (10.0 Gbit/s) at most, over br0 here and br0 on the target"
    assert "virsh migrate 'db 1'" in finding.remedy
    assert "stands still for 6.9 s" in finding.remedy
    assert bandwidth(200, host(2, 1000)), "the slower end counts"


def test_bandwidth_not_known():
    with pytest.raises(Unavailable):
        bandwidth(200, host(2, None))
    with pytest.raises(Unavailable):
        found(
            checks.bandwidth,
            RUNNING,
            Missing(Unavailable(DIRTY_RATE, "assigned device")),
            memory(8),
            GUEST,
            HERE,
            THERE,
        )
    not_tried = Missing(NotAsked(DIRTY_RATE, "not tried"))
    with pytest.raises(NotAsked):
        found(checks.bandwidth, RUNNING, not_tried, memory(8), GUEST, HERE, THERE)
    for state in (OFF, PAUSED):
        with pytest.raises(NotApplicable):
            found(checks.bandwidth, state, not_tried, memory(8), GUEST, HERE, THERE)


def test_ample():
    def ample(mib, policy=None):
        rate = GuestDirtyRate(mib, 5)
        return found(checks.bandwidth_ample, RUNNING, rate, memory(8), HERE, THERE, policy or Policy())

    assert checks.bandwidth_ample.severity is Severity.LOW
    assert not ample(596)
    [finding] = ample(597)
    assert finding.because.startswith("It takes about 14 s")
    assert not ample(597, Policy(dirty_rate_factor=1))
    assert not ample(1193), "that is for the other check"
    with pytest.raises(Unavailable):
        found(checks.bandwidth_ample, RUNNING, GuestDirtyRate(597, 5), memory(8), HERE, host(2, None), Policy())
    paused = replace(RUNNING, state="paused")
    with pytest.raises(NotApplicable):
        found(checks.bandwidth_ample, paused, GuestDirtyRate(597, 5), memory(8), HERE, THERE, Policy())


def test_copied_in_time():
    def judged(gib, mbps=1000, state=RUNNING):
        return found(checks.copied_in_time, state, memory(gib), HERE, host(2, mbps), Policy())

    with pytest.raises(NotApplicable):
        judged(64, None)
    [finding] = judged(128)
    assert finding.actual == "18 min"
    assert not judged(128, 10000)
    with pytest.raises(Unavailable):
        judged(128, None)
    with pytest.raises(NotApplicable):
        judged(128, state=OFF)


JOB = JobInfo(
    "Unbounded", "outgoing migration", memory_remaining=2**30, bandwidth=2**24, dirty_pages=2**14, page_bytes=4096
)
NICS, NO_NICS = GuestNics((nic(type="hostdev"),)), GuestNics(())
DEVICES = GuestDevices((), (), (), None, None, False, False, None, (), (), False, False)


def test_under_way():
    def judged(job, nics=NO_NICS):
        return found(checks.under_way, GuestMigration(job), GUEST, nics, DEVICES, Policy())

    with pytest.raises(NotApplicable):
        judged(None)
    [finding] = judged(JOB)
    assert "does not: the guest changes 64.0 MiB/s" in finding.actual
    assert "virsh migrate-setmaxdowntime 'db 1'" in finding.remedy
    assert "migrate-postcopy" in finding.remedy
    assert "migrate-postcopy" not in judged(JOB, NICS)[0].remedy
    assert not judged(replace(JOB, dirty_pages=10))
    assert not judged(replace(JOB, bandwidth=None))
    assert not judged(replace(JOB, postcopy_requests=5))


def test_large_guest():
    def judged(gib, state=RUNNING):
        return found(checks.large_guest, memory(gib), state, Policy())

    assert not judged(1024)
    [finding] = judged(1025)
    assert "Red Hat has tested" not in finding.because
    assert "--parallel-connections 3" in finding.remedy
    assert "beyond it" in judged(6145)[0].because
    with pytest.raises(NotApplicable):
        judged(1025, OFF)


def test_large_guest_nic():
    def judged(gib, there):
        return found(checks.large_guest_nic, memory(gib), host(1, 25000), there, Policy())

    assert not judged(2048, host(2, 25000))
    [finding] = judged(2048, THERE)
    assert finding.actual == "10000 Mbit/s on the target (br0)"
    with pytest.raises(Unavailable):
        judged(2048, host(2, None))
    with pytest.raises(NotApplicable):
        judged(1024, THERE)


def cluster(*ways):
    return tuple(At(f"kvm{number}", way) for number, way in enumerate(ways, 1))


def test_dedicated_nic():
    [finding] = found(checks.dedicated_nic, cluster(host(1), host(2), host(3, shared=())))
    assert finding.hosts == {"kvm1", "kvm2"}
    assert not found(checks.dedicated_nic, cluster(host(1, shared=()), host(2, shared=())))
    unread = replace(host(2, shared=()), bridged=None)
    with pytest.raises(Unavailable, match="bridges"):
        found(checks.dedicated_nic, cluster(host(1, shared=()), unread))
    assert found(checks.dedicated_nic, cluster(host(1), unread))
    lost = replace(host(1, shared=()), peers=(), default=None)
    with pytest.raises(Unavailable):
        found(checks.dedicated_nic, cluster(lost, host(2, shared=())))
    with pytest.raises(NotApplicable):
        found(checks.dedicated_nic, cluster(host(1)))


def test_parallel():
    fast = [host(number, 25000) for number in (1, 2)]
    [finding] = found(checks.parallel, cluster(*fast, host(3)))
    assert finding.hosts == {"kvm1", "kvm2"}, "the slower end counts"
    assert "--parallel-connections 3" in finding.remedy
    assert not found(checks.parallel, cluster(HERE, THERE))
    with pytest.raises(Unavailable):
        found(checks.parallel, cluster(HERE, host(2, None)))
    with pytest.raises(NotApplicable):
        found(checks.parallel, cluster(HERE))
