"""NFS as a host serves and uses it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.nfs import CLIENT, EXPORTS, Client, Exports, NfsClient, NfsUse

TEXT = (
    "/srv/a\n\t\tnode1.example.com(rw,no_root_squash,sec=sys,rw,no_root_squash)\n"
    "/srv/a\n\t\t10.0.0.0/24(ro,root_squash)\n/srv/b *(rw,no_root_squash,root_squash)\n"
    "/srv/c <world>(rw,fsid=0)\n/srv/my\\040images 10.0.0.7(rw,no_root_squash) *.example.com(ro)\n"
)
NODE1 = Client(frozenset({"10.0.0.7"}), frozenset({"node1.example.com", "node1"}))
NODE2 = Client(frozenset({"10.0.0.8", "fd00::8"}), frozenset({"node2.example.com", "node2"}))
FAR = Client(frozenset({"192.0.2.1"}), frozenset({"far"}))


@pytest.fixture
def exports(said):
    return Exports.parse(said({EXPORTS.name: TEXT}))


def one(exports, folder, client, strangers=()):
    entries = exports.to(folder, client, frozenset(strangers))
    assert len(entries) <= 1
    return next(iter(entries), None)


def test_the_most_particular_entry_counts(exports):
    known = {"node1.example.com"}
    assert not one(exports, "/srv/a/vm", NODE1).read_only
    assert one(exports, "/srv/a", NODE2, known).read_only
    assert one(exports, "/srv/a", FAR, known) is None
    assert one(exports, "/srv", NODE1) is None
    assert one(exports, "/srv/b", FAR).root_squash
    assert one(exports, "/srv/c", FAR).root_squash, "squashed where nothing is said"
    assert one(exports, "/srv/my images", NODE2).read_only, "by the pattern of its name"
    assert not one(exports, "/srv/my images", NODE1).read_only


def test_a_name_that_may_be_the_client_s_own_leaves_it_open(exports):
    """Hosts have names on a storage network that they do not call themselves by."""
    assert {entry.client for entry in exports.to("/srv/a", NODE2)} == {"node1.example.com", "10.0.0.0/24"}


def test_the_order_of_exports_5(said):
    text = "/srv *(ro)\n/srv @all(ro)\n/srv node?(ro)\n/srv 10.0.0.0/24(ro)\n/srv node1(rw)\n"
    everything = Exports.parse(said({EXPORTS.name: text}))
    for client, expected in ((NODE1, ["node1"]), (NODE2, ["10.0.0.0/24"]), (FAR, ["*", "@all", "node?"])):
        assert [entry.client for entry in everything.to("/srv", client, frozenset({"node1"}))] == expected


def test_nfs4_clients_see_the_top_as_root(exports):
    assert exports.folder("/vm") == "/srv/c/vm"
    assert exports.folder("/srv/a/vm") == "/srv/a/vm"


def test_a_netgroup_is_not_known(said):
    exports = Exports.parse(said({EXPORTS.name: "/srv @cluster(rw)\n/srv node1(rw)\n/srv *(ro)\n"}))
    assert [entry.client for entry in exports.to("/srv", NODE1)] == ["node1"]
    assert [entry.client for entry in exports.to("/srv", NODE2, frozenset({"node1"}))] == ["*", "@cluster"]


def test_nothing_is_exported(said):
    assert Exports.parse(said({EXPORTS.name: ""})).exports == ()
    with pytest.raises(Unavailable):
        Exports.parse(said({EXPORTS.name: (1, "exportfs: could not open")}))
    with pytest.raises(Unavailable):
        Exports.parse(said({EXPORTS.name: "nonsense(rw)\n"}))


def test_client(said):
    assert NfsClient.parse(said({CLIENT.name: "yes\n"})).installed
    assert not NfsClient.parse(said({CLIENT.name: "no\n"})).installed
    with pytest.raises((Unavailable, LookupError)):
        NfsClient.parse(said({CLIENT.name: "perhaps\n"}))


MARK = "0123456789abcdef0123456789abcdef"
UUID = "9a1c0b6e-7f5d-4c1e-8a57-30a1e0a55a01"
DOMAIN = (
    f"<domain type='kvm' id='1'><name>web</name><uuid>{UUID}</uuid><devices>"
    "<disk type='file' device='disk'><source file='/vm/web.qcow2'/><target dev='vda'/></disk>"
    "<disk type='file' device='cdrom'><source file='/iso/x.iso'/><target dev='sda'/><readonly/></disk>"
    "<disk type='volume' device='disk'><source pool='fast' volume='d'/><target dev='vdb'/></disk>"
    "</devices></domain>"
)
POOL = f"<pool type='dir'><name>fast</name><uuid>{UUID}</uuid><target><path>/fast</path></target></pool>"
_ON = {"all", "running", "persistent", "no-snapshots"}
_LISTS = (*_ON, "paused", "shutoff", "other", "transient", "autostart", "snapshots")
LISTING = "".join(f"@{name}\n{UUID if name in _ON else ''}\n" for name in _LISTS)
HOST = {
    "network.addresses": '[{"ifname":"br0","addr_info":[{"local":"10.0.0.7","prefixlen":24}]}]',
    "names.hostname": "node1.example.com\n",
    "nfs.exports": "/fast *(rw)\n",
    "storage.mountinfo": "1 0 0:45 / /vm rw - nfs4 nas:/vm rw,vers=4.2,addr=10.0.0.9\n"
    "2 0 8:1 / / rw - xfs /dev/sda1 rw\n",
    "guest.list": LISTING,
    "guest.xml": f"{MARK}\n{MARK} {UUID}\n{DOMAIN}\n{MARK} end\n",
    "guest.xml_inactive": f"{MARK}\n",
    "storage.pools": f"{MARK}\n{MARK} {UUID}\n{POOL}\n{MARK} end\n",
    "storage.pools_active": f"{UUID}\n",
}


def test_use(said):
    use = NfsUse.parse(said(HOST))
    assert use.client == Client(frozenset({"10.0.0.7"}), frozenset({"node1.example.com", "node1"}))
    assert use.images == (("web", "/fast/d"), ("web", "/vm/web.qcow2"))
    assert use.guests_at("/vm") == {"web"}
    [(path, mount)] = use.mounts
    assert path == "/vm"
    assert not use.serves(mount)
    there = HOST["network.addresses"].replace("10.0.0.7", "10.0.0.9")
    server = NfsUse.parse(said(HOST | {"network.addresses": there}))
    assert server.serves(mount)
    with pytest.raises(Unavailable):
        NfsUse.parse(said(HOST | {"storage.pools": (1, "no storage driver")}))


@given(st.text(max_size=200))
def test_any_text(text):
    output = Evidence(EXPORTS.name, status=0, stdout=text.encode("utf-8", "replace"))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        Exports.parse(Said(HostEvidence("h", {EXPORTS.name: output}))).to("/srv", NODE1)


@pytest.mark.corpus
def test_real(samples, said):
    found = [Exports.parse(said({EXPORTS.name: p.read_bytes()})) for p in (*samples("exportfs"), *samples("nfs-etab"))]
    entries = [entry for exports in found for entry in exports.exports]
    assert {entry.path for entry in entries if entry.root_squash} == {"/srv/exports/data-01"}
    assert len({entry.path for entry in entries}) == 5
    assert any(entry.top for entry in entries)
