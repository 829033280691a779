"""Images that no path tells of, on plain values."""

from dataclasses import replace

import pytest

from audit.check import COPY_WHOLE, NotApplicable, Unavailable
from audit.facts.firewall import Firewall
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.iptables import from_iptables
from audit.facts.names import Route
from audit.facts.pools import Pools
from audit.facts.portals import Portals, StorageServers
from audit.facts.samples import Samples
from audit.facts.volumes import Volumes
from checks import images as checks
from tests.checks.test_storage import RUNS
from tests.disks import DISK, FAST, NO_POOLS, VOLUME, found


def test_volumes():
    disks = GuestDisks((VOLUME, DISK))
    known, missing = Volumes((("fast", "a"),), ()), Volumes((), (("fast", "a"),))
    assert not found(checks.volumes, disks, FAST, known)
    [finding] = found(checks.volumes, disks, FAST, missing)
    assert finding.because == "Storage volume not found: no storage vol with matching name 'a'"
    assert finding.remedy == "On the target: virsh pool-refresh fast"
    assert not found(checks.volumes, disks, NO_POOLS, missing), "the pool is another check's"
    assert not found(checks.volumes, disks, Pools((replace(FAST.pools[0], active=False),)), missing)
    for there in (Volumes((), ()), Volumes((), (), "timed out")):
        with pytest.raises(Unavailable):
            found(checks.volumes, disks, FAST, there)


OPEN = Firewall(())
RULES = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -m tcp --dport {} -j DROP\nCOMMIT\n"


def test_storage_answers():
    disk = replace(DISK, type="network", source="rbd:vm/a", portals=(("mon1", 3300), ("mon1", 6789)))
    disks = GuestDisks((disk, DISK))
    way = Route("10.0.0.9", "br0", "10.0.0.12")

    def run(*problems, state=RUNS, routes=(way,), firewall=OPEN):
        tried = tuple(("mon1", port, problem) for port, problem in zip((3300, 6789), problems, strict=False))
        servers = StorageServers((("mon1", routes),))
        return found(checks.storage_answers, state, disks, servers, firewall, Portals(tried, "" if tried else "no"))

    assert not run("", "Connection refused"), "one is enough"
    [finding] = run("Connection timed out", "Connection refused")
    assert finding.actual == "Connection timed out, Connection refused"
    assert not run(), "not tried, and nothing in the way"
    assert not run("Connection refused"), "the other one was not tried"
    [finding] = run(routes=())
    assert finding.actual == "its name does not resolve there"
    [finding] = run(routes=(way._replace(device=None),))
    assert finding.actual == "no route there"
    [finding] = run(firewall=Firewall(from_iptables(RULES.format("3300:6789"), 4)))
    assert finding.actual.startswith("closed there by: ")
    assert not run(firewall=Firewall(from_iptables(RULES.format("3300"), 4))), "one is enough"
    assert not run("", firewall=Firewall(from_iptables(RULES.format("3300:6789"), 4))), "tried, which says more"
    assert not run(routes=(way._replace(device="lo"),)), "the target is the server"
    with pytest.raises(Unavailable):
        run(firewall=Firewall((), ((4, "no root"),)))
    with pytest.raises(Unavailable):
        run(routes=None)
    with pytest.raises(NotApplicable):
        run(state=GuestState("shut off", False, True))


@pytest.mark.parametrize("check", [checks.same_below, checks.same_media])
def test_what_is_only_read_is_compared(check):
    cdrom = replace(DISK, device="cdrom", readonly=True)
    disks = GuestDisks(
        (cdrom if check is checks.same_media else replace(DISK, source="/srv/top", backing=("/srv/a",)),)
    )

    def run(here, there, state=RUNS):
        return found(check, state, disks, *(Samples((("/srv/a", words),)) for words in (here, there)))

    assert not run("1 2 3 4", "1 2 3 4")
    assert run("1 2 3 4", "5 2 3 4")
    assert not run("1 2 3 4", "none"), "that it is missing is another check's"
    for there in (Samples(()), Samples((), "timed out")):
        with pytest.raises(Unavailable):
            found(check, RUNS, disks, Samples((("/srv/a", "1 2 3 4"),)), there)
    with pytest.raises(NotApplicable):
        run("1 2 3 4", "5 2 3 4", GuestState("shut off", False, True))


def test_what_is_below_is_moot_where_the_disk_is_copied_whole():
    here, there = (Samples((("/srv/a", words),)) for words in ("1 2 3 4", "5 2 3 4"))
    [below] = found(checks.same_below, RUNS, GuestDisks((replace(DISK, backing=("/srv/a",)),)), here, there)
    [alone] = found(checks.same_below, RUNS, GuestDisks((replace(DISK, readonly=True),)), here, there)
    assert (below.lifted_by, alone.lifted_by) == ((COPY_WHOLE,), ())
