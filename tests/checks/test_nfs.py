"""NFS checks, on plain values."""

from dataclasses import replace

import pytest

from audit.check import At, Blocks, NotApplicable, Severity, Unavailable
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.names import OwnAddresses
from audit.facts.network import Address
from audit.facts.nfs import CLIENT as CLIENT_PROBE
from audit.facts.nfs import Client, Export, Exports, NfsClient, NfsUse
from audit.facts.paths import Paths, PathState
from audit.facts.pools import Pools
from audit.facts.storage import MOUNTINFO, Mount, Mounts
from audit.judge import Missing
from checks import nfs as checks
from tests.asked import found

FILE = PathState(True, True, (), "file", 1024, "0:45", 99, 0x6969, 0, frozenset())
DISK = Disk("vda", "disk", "file", "/srv/a", (), True, "qcow2", "none", False, False, False, False, ())
NO_POOLS = Pools(())


def nfs(path="/srv", server="nas", export="/vm", address="10.0.0.5"):
    options = frozenset({"vers=4.2", f"addr={address}"})
    return Mount(path, "0:45", "/", "nfs4", f"{server}:{export}", False, options)


LOCAL_MOUNT = Mount("/srv", "254:1", "/", "xfs", "/dev/vdb", False, frozenset())
SHARED = Mounts((nfs(),))


def test_nfs():
    local = Mount("/srv", "0:45", "/", "nfs", "nas:/vm", False, frozenset({"vers=3", "nolock", "local_lock=all"}))
    [finding] = found(checks.locking, SHARED)
    assert finding.actual == "/srv: NFS 4.2, locks kept by the server"
    homes = Mounts(tuple(nfs(path=f"/home/{n}") for n in range(7)))
    [finding] = found(checks.locking, homes)
    assert finding.actual.endswith(" and 2 more"), "one note a host, however many mounts"
    assert not found(checks.locking, Mounts((local, LOCAL_MOUNT)))
    assert found(checks.locking_same, SHARED, Mounts((local,)))
    assert not found(checks.locking_same, SHARED, SHARED)
    assert not found(checks.same_export, SHARED, Mounts((nfs(server="nas.example"),)))
    assert found(checks.same_export, SHARED, Mounts((nfs(server="nas2", address="10.0.0.6"),)))
    assert found(checks.same_export, SHARED, Mounts((nfs(export="/other"),)))
    assert not found(checks.same_export, SHARED, Mounts((nfs(path="/other"), LOCAL_MOUNT)))
    assert checks.same_export.severity is Severity.LOW, "a folder for each host's own backups is no obstacle"


CLIENT = OwnAddresses((Address("br0", "10.0.0.1", 24),))
SERVER = OwnAddresses((Address("br0", "10.0.0.5", 24), Address("br0", "fd00::5", 64)))


def served(theirs, *, there=FILE, disk=DISK, ours=SHARED, addresses=(CLIENT, CLIENT)):
    names = ("/srv/a", "/srv/base")
    here, other = (Paths(names, (state, state)) for state in (FILE, there))
    own, their_own = addresses
    facts = (GuestDisks((disk,)), NO_POOLS, here, ours, own, NO_POOLS, other, theirs, their_own)
    return found(checks.same_server, *facts)


@pytest.mark.parametrize("itself", ["127.0.0.1", "::1", "fd00::5"])
def test_a_server_that_mounts_its_own_export_is_the_same_server(itself):
    own = Mounts((nfs(server="localhost", address=itself),))
    assert not served(own, addresses=(CLIENT, SERVER))
    assert not served(SHARED, ours=own, addresses=(SERVER, CLIENT))
    assert served(own), "the end of a tunnel, to whom is not known"


def test_one_server_by_two_addresses_is_for_somebody_to_look_at():
    elsewhere = Mounts((nfs(server="nas2", address="10.0.0.6"),))
    [finding] = served(elsewhere)
    assert (finding.expected, finding.actual) == ("/srv/a from nas on both hosts", "from nas2 on the target")
    assert len(served(elsewhere, disk=replace(DISK, backing=("/srv/base",)))) == 2
    assert checks.same_server.blocks is Blocks.NOTHING
    assert not served(SHARED)
    assert not served(Mounts((nfs(server="nas.example"),)))
    assert not served(elsewhere, there=replace(FILE, inode=7)), "another file: storage.disks_shared"
    assert not served(Mounts((LOCAL_MOUNT,)), there=replace(FILE, device="254:1"))
    assert not served(elsewhere, disk=replace(DISK, source="/nowhere", readonly=True))
    with pytest.raises(Unavailable, match="not asked about /nowhere"):
        served(elsewhere, disk=replace(DISK, source="/nowhere"))
    [finding] = served(elsewhere, disk=replace(DISK, source="/nowhere", backing=("/srv/base",)))
    assert finding.expected == "/srv/base from nas on both hosts", "what is not known comes second"


def test_options():
    def judged(*words, path="/srv"):
        theirs = replace(nfs(path), options=frozenset({"vers=4.2", "addr=10.0.0.5", *words}))
        return found(checks.options_same, SHARED, Mounts((theirs,)))

    assert not judged()
    assert not judged("hard", "sec=sys", "proto=tcp"), "the defaults"
    [finding] = judged("soft", "sec=krb5")
    assert (finding.expected, finding.actual) == ("/srv: sec=sys, hard", "sec=krb5, soft on the target")
    assert not judged("soft", path="/other")
    assert found(checks.options_same, SHARED, Mounts((replace(nfs(), read_only=True),)))
    assert not found(checks.options_same, SHARED, Mounts((LOCAL_MOUNT,)))


def test_soft_mounts():
    def judged(mount, disk=DISK):
        return found(checks.mounted_hard, GuestDisks((disk,)), NO_POOLS, Paths(("/srv/a",), (FILE,)), Mounts((mount,)))

    assert not judged(nfs())
    assert judged(replace(nfs(), options=frozenset({"soft"})))
    assert not judged(replace(nfs(), options=frozenset({"soft"})), replace(DISK, readonly=True))
    assert not judged(replace(LOCAL_MOUNT, device="0:45"))
    with pytest.raises(Unavailable):
        judged(Missing(Unavailable(MOUNTINFO, "timed out")))
    with pytest.raises(Unavailable, match="not asked"):
        judged(nfs(), replace(DISK, source="/srv/unread"))


def test_client_installed():
    def judged(client, mounts=SHARED, state=FILE):
        here = Paths(("/srv/a",), (state,))
        return found(checks.client_installed, GuestDisks((DISK,)), NO_POOLS, here, mounts, client)

    assert not judged(NfsClient(True))
    [finding] = judged(NfsClient(False))
    assert finding.because == "/srv/a lies on NFS."
    with pytest.raises(Unavailable):
        judged(Missing(Unavailable(CLIENT_PROBE, "timed out")))
    with pytest.raises(Unavailable, match="timed out"):
        judged(NfsClient(False), state="timed out")
    with pytest.raises(NotApplicable):
        judged(NfsClient(False), Mounts((LOCAL_MOUNT,)), replace(FILE, device="254:1"))


NAS = "10.0.0.5"


def host(name, address, *, exports=(), mounts=(), images=()):
    client = Client(frozenset({address}), frozenset({name}))
    return At(name, NfsUse(client, Exports(tuple(exports)), tuple((m.path, m.nfs) for m in mounts), tuple(images)))


def entry(client="*", *, read_only=False, root_squash=False):
    return Export("/vm", client, read_only, root_squash, False)


A = host("a", "10.0.0.1", mounts=[nfs()], images=[("web", "/srv/web.qcow2")])
B = host("b", "10.0.0.2", mounts=[nfs()])


def server(*exports, mounts=(), images=()):
    return host("c", NAS, exports=exports, mounts=mounts, images=images)


def test_a_server_that_is_one_of_the_hosts():
    [finding] = found(checks.third_host, (A, B, server(entry())))
    assert finding.hosts == {"a", "c"}, "nothing of b's guests lies there"
    assert finding.because == "Without c there are no disks for web."
    assert not found(checks.third_host, (A, B)), "a third host, as it should be"
    own = server(entry(), images=[("db", "/vm/db.qcow2")])
    assert {finding.hosts for finding in found(checks.third_host, (B, own))} == {frozenset({"b", "c"})}
    loop = server(entry(), mounts=[nfs()], images=[("db", "/srv/db.qcow2")])
    [finding] = found(checks.third_host, (B, loop))
    assert "db" in finding.because
    many = replace(A.fact, images=tuple((f"g{n}", "/srv/x") for n in range(7)))
    [finding] = found(checks.third_host, (At("a", many), server(entry())))
    assert finding.because.endswith("g4 and 2 more.")


def test_exports_of_a_server_that_is_one_of_the_hosts():
    run = checks.exported_writable
    assert not found(run, (A, B, server(entry())))
    assert not found(run, (A, B))
    closed = found(run, (A, B, server(entry("10.0.0.1"))))
    assert {finding.hosts for finding in closed} == {frozenset({"b", "a"}), frozenset({"b", "c"})}
    assert {finding.actual for finding in closed} == {"it does not"}
    assert {finding.actual for finding in found(run, (A, server(entry(read_only=True))))} == {"ro"}
    assert not found(run, (A, server(entry("@cluster")))), "whoever is in it may write"
    with pytest.raises(Unavailable, match="which of @cluster, a-storage holds for a"):
        found(run, (A, server(entry("@cluster", read_only=True), entry("a-storage"))))
    assert not found(run, (A, server(entry("a-storage")))), "perhaps its name on the storage network"
    assert found(run, (A, B, server(entry("b")))), "another host's name is not"
    assert not found(run, (A, server())), "NFS-Ganesha, or the like, serves it"


def test_root_squash_of_a_server_that_is_one_of_the_hosts():
    run = checks.exports_without_root_squash
    [finding] = found(run, (A, server(entry(root_squash=True))))
    assert finding.expected == "/vm on c: no_root_squash for a"
    assert not found(run, (A, server(entry())))
    assert not found(run, (A, B))
    with pytest.raises(Unavailable):
        found(run, (A, server(entry("@cluster", root_squash=True), entry("a-storage"))))
