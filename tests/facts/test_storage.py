"""Paths, mounts, pools and what makes a file on two hosts the same file."""

# ruff: noqa: E501 - XML and tables are read as they are written

import contextlib
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Said, Unavailable
from audit.facts.guest_devices import Disk
from audit.facts.guest_source import read_guests
from audit.facts.paths import MOUNTS_MARK, PATHS, Paths, PathState
from audit.facts.pools import POOLS, POOLS_ACTIVE, SECRETS, Pool, Pools, Secrets
from audit.facts.qemu_conf import QEMU_CONF
from audit.facts.storage import (
    MOUNTINFO,
    SELINUX,
    USERS,
    HypervisorUser,
    Mount,
    Mounts,
    Place,
    Selinux,
    SharedFilesystems,
    read_booleans,
    same_file,
)
from audit.facts.vfio import VFIO, VfioDevices, migrates

MARK = "0123456789abcdef0123456789abcdef"


def answered(answer, *paths, status=0, problem=""):
    arguments = tuple((str(number), path) for number, path in enumerate(paths))
    return Evidence(PATHS.name, status, answer.encode(), problem=problem, arguments=arguments)


FOLDERS = "41ed 0 0 4096 64768 2\n41ed 0 0 4096 64768 11\n"


def test_paths(said):
    text = (
        f"record 0\n{FOLDERS}81a4 107 107 1024 45 99\n= whole\nfs 6969 0\n"
        f"record 1\n{FOLDERS}= missing\n"
        "record 2\n41ed 0 0 4096 64768 2\n= missing\n"
        "record 3\n41ed 0 0 4096 64768 2\n41c0 0 0 4096 64768 3\n= denied\n"
        "record 4\n41ed 0 0 4096 64768 2\n= failed\n"
        "record 5\n41ed 0 0 4096 64768 2\n= denied\nagain\n41ed 0 0 4096 64768 2\n41ed 0 0 4096 46 3\n81a4 1 1 5 46 7\n= whole\n"
        "fs 6969 0\n"
    )
    paths = Paths.parse(said({PATHS.name: answered(text, "/v/a", "/v/b", "/w/b", "/x/c", "/y/d", "/z/e", "/cut")}))
    found = paths.at("/v/a")
    assert (found.exists, found.kind, found.size, found.device, found.inode) == (True, "file", 1024, "0:45", 99)
    assert [component.mode for component in found.components] == [0o755, 0o755, 0o644]
    assert (paths.at("/v/b").exists, paths.at("/v/b").folder_exists) == (False, True)
    assert (paths.at("/w/b").exists, paths.at("/w/b").folder_exists) == (False, False)
    assert paths.at("/z/e").inode == 7
    for path, why in {"/x/c": "denied", "/y/d": "could not look", "/cut": "no answer", "/other": "not asked"}.items():
        with pytest.raises(Unavailable, match=why):
            paths.at(path)


@pytest.mark.parametrize(
    "text",
    [
        f"record 0\n{FOLDERS}81a4 0 0 1 45 99\n= whole\n",
        f"record 0\n{FOLDERS}= whole\nfs 6969 0\n",
        f"record 0\n{FOLDERS}81a4 0 0 1 45 99\n",
        f"record 0\n{FOLDERS}81a4 0 0 1\n= whole\nfs 1 1\n",
        "record 0\n= missing\n",
        "",
    ],
)
def test_an_answer_that_broke_off_tells_nothing(said, text):
    assert isinstance(Paths.parse(said({PATHS.name: answered(text, "/v/a")})).find("/v/a"), Unavailable)


def test_paths_that_were_not_asked_are_unknown_one_by_one(said):
    for answers in ({}, {PATHS.name: answered("", "/v/a", status=None, problem="timed out after 180 s")}):
        with pytest.raises(Unavailable):
            Paths.parse(said(answers)).at("/v/a")


@pytest.mark.parametrize(
    ("lines", "identity"),
    [
        (["id 0 0 0 naa.600a0b80"], {"naa.600a0b80#0"}),
        (["id 0 3 0 naa.600a0b80"], {"naa.600a0b80#3"}),
        (["id 0 0 0 -"], set()),
        (["id 0 0 0 t10.ATAQEMUHARDDISKQM00001"], set()),
        (["id 0 0 2 mpath-360014051234567890", "id 1 0 0 naa.1", "id 1 0 0 -"], {"naa.60014051234567890#0"}),
        (["id 0 0 2 mpath-20017380012345678", "id 1 0 0 -"], {"eui.0017380012345678#0"}),
        (["id 0 0 2 mpath-eui.0017380012345678"], {"eui.0017380012345678#0"}),
        (
            ["id 0 0 1 part2-mpath-360014051234567890", "id 1 0 1 mpath-36001", "id 2 0 0 -"],
            {"naa.60014051234567890#2"},
        ),
        (["id 0 0 1 mpath-0QEMU_QEMU_HARDDISK_drive-scsi0"], set()),
        (["id 0 0 1 LVM-abc", "id 1 0 0 naa.1"], {"LVM-abc#0", "naa.1#0"}),
        (["id 0 0 1 LVM-abc", "id 1 0 0 -"], set()),
    ],
)
def test_block_devices_are_known_by_their_hardware(said, lines, identity):
    text = f"record 0\n{FOLDERS}6180 0 6 0 6 99\n= whole\nfs 1021994 1\n" + "\n".join(lines) + "\n"
    assert Paths.parse(said({PATHS.name: answered(text, "/dev/x")})).at("/dev/x").identity == identity


def test_searchable():
    folders = [(0o755, 0, 0), (0o710, 0, 36), (0o700, 107, 107)]
    state = file(components=tuple(map(_component, [*folders, (0o600, 0, 0)])))
    assert state.searchable(107, frozenset({36, 107}))
    assert not state.searchable(107, frozenset({107}))
    assert not state.searchable(108, frozenset({36}))
    assert state.searchable(0, frozenset())


def _component(values):
    from audit.facts.paths import Component

    return Component(*values)


def file(**changes):
    plain = PathState(True, True, (), "file", 1024, "0:45", 99, 0x6969, 0, frozenset())
    return replace(plain, **changes)


def run_question(*paths, user=None):
    data = b"".join(part.encode() + b"\0" for number, path in enumerate(paths) for part in (str(number), path))
    command = ["sh", "-c", PATHS.command.replace("$sudo ", "")]
    ran = subprocess.run(
        [*(["setpriv", "--reuid", "65534", "--clear-groups"] if user else []), *command],
        input=data,
        capture_output=True,
    )
    return ran.returncode, ran.stdout.decode(), ran.stderr


def test_the_question_answers_truly(tmp_path, said):
    """Run for real: hostile names, links, what is missing."""
    hostile = tmp_path / "a b\n= whole\nfs 6969 0"
    hostile.write_text("12345")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("/nowhere")
    inner = tmp_path / "$(touch pwned)'\""
    inner.mkdir()
    asked = [str(p) for p in (hostile, tmp_path / "link" / hostile.name, tmp_path / "dangling", inner, hostile / "x")]
    status, text, errors = run_question(*asked, "/", "/nope/x/y")
    assert (status, errors) == (0, b"")
    assert text.partition(MOUNTS_MARK)[2] == Path("/proc/self/mountinfo").read_text()
    paths = Paths.parse(said({PATHS.name: answered(text, *asked, "/", "/nope/x/y")}))
    real = hostile.stat()
    for path in asked[:2]:
        state = paths.at(path)
        assert (state.size, state.inode, state.kind) == (5, real.st_ino, "file")
        assert state.device == f"{os.major(real.st_dev)}:{os.minor(real.st_dev)}"
    assert not paths.at(asked[2]).exists
    assert paths.at(asked[2]).folder_exists
    assert paths.at(asked[3]).kind == "folder"
    assert not paths.at(asked[4]).exists
    assert not paths.at(asked[4]).folder_exists
    assert paths.at("/").kind == "folder"
    assert not paths.at("/nope/x/y").folder_exists
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("lines", "rights", "image"),
    [
        ("may 107 -erw\nimage -\n", (107, True, True, True), ("other", 0)),
        ("may 107 -e\n", (107, True, False, False), None),
        ("may 107 -\n", (107, False, False, False), None),
        ("may 107 rw\nimage 5146\n", None, None),
        (f"image 514649fb00000003{'0' * 32}{2**24:016x}\n", None, ("qcow2", 2**24)),
        (f"image 514649fb00000001{'0' * 48}\n", None, None),
        ("", None, None),
    ],
)
def test_rights_and_heads_of_images(said, lines, rights, image):
    text = f"record 0\n{FOLDERS}81a4 107 107 1024 45 99\n= whole\nfs 6969 0\n{lines}"
    state = Paths.parse(said({PATHS.name: answered(text, "/v/a")})).at("/v/a")
    assert (state.rights, state.image) == (rights, image)


def test_the_question_reads_an_image_s_head(tmp_path, said):
    image, plain = tmp_path / "a.qcow2", tmp_path / "a.raw"
    image.write_bytes(bytes.fromhex("514649fb00000003") + bytes(16) + (2**30).to_bytes(8, "big") + bytes(99))
    plain.write_bytes(b"x" * 99)
    _, text, errors = run_question(str(image), str(plain))
    assert errors == b""
    paths = Paths.parse(said({PATHS.name: answered(text, str(image), str(plain))}))
    assert paths.at(str(image)).image == ("qcow2", 2**30)
    assert paths.at(str(plain)).image == ("other", 0)


def test_long_paths_do_not_tear_records(said):
    asked = [f"/nope/{number}" + "/é" * 60 + "x" * 1800 for number in range(120)]
    _, text, errors = run_question(*asked)
    assert errors == b""
    paths = Paths.parse(said({PATHS.name: answered(text, *asked)}))
    assert all(isinstance(paths.find(path), (PathState, Unavailable)) for path in asked)
    assert text.count("record ") == 120


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_what_may_not_be_looked_at_is_not_missing(tmp_path, said):
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    (locked / "disk").touch()
    asked = [str(locked / "disk"), str(tmp_path / "other")]
    _, text, _ = run_question(*asked, user="nobody")
    paths = Paths.parse(said({PATHS.name: answered(text, *asked)}))
    with pytest.raises(Unavailable, match="permission denied"):
        paths.at(asked[0])
    assert not paths.at(asked[1]).exists


def test_the_cluster_s_guests_raise_the_question(said):
    def host(name, xml, uuid):
        lists = dict.fromkeys(("all", "shutoff", "persistent", "no-snapshots"), f"{uuid}\n")
        order = ("all", "running", "paused", "shutoff", "other", "persistent", "transient", "autostart", "snapshots")
        listing = "".join(f"@{key}\n{lists.get(key, '')}" for key in (*order, "no-snapshots"))
        return said(
            {"guest.list": listing, "guest.xml": f"{MARK}\n{MARK} {uuid}\n{xml}\n", "guest.xml_inactive": f"{MARK}\n"},
            host=name,
        ).host

    def guest(uuid, source):
        return (
            f"<domain type='kvm'><name>g</name><uuid>{uuid}</uuid><os><type arch='x86_64' machine='q35'>hvm</type>"
            f"<kernel>/boot/k</kernel><nvram>/vars/{uuid[0]}</nvram></os><devices><emulator>/usr/bin/qemu</emulator><disk type='file'>"
            f"<source file='{source}'/><target dev='vda'/></disk></devices></domain>"
        )

    a, b = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "ab")
    facts = Facts(
        {"h1": host("h1", guest(a, "/srv/x"), a), "h2": host("h2", guest(b, "/srv/../etc/shadow"), b)}, read_guests
    )
    asked = PATHS.ask(facts, "h1", ("h2",))
    assert asked == (("0", "/usr/bin/qemu"), ("1", "/srv/x"), ("2", "/vars/a"), ("3", "/vars/b"), ("4", "/boot/k"))


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
60 27 0:45 / /srv/a\\040b rw,relatime shared:2 master:3 - nfs4 nas:/vol/vm rw,vers=4.2,local_lock=none,addr=10.0.0.5
61 27 0:46 / /srv/v3 rw,relatime - nfs 10.0.0.5:/vol/v3 rw,vers=3,nolock,local_lock=all,addr=10.0.0.5
62 27 254:1 / /srv/top rw,relatime - xfs /dev/vdb rw
63 27 0:47 / /srv/top ro,relatime - nfs4 [fd00::5]:/ rw,vers=4.1
64 27 0:48 / /srv/q rw,relatime - fuse.quobyte quobyte rw,user_id=0
"""


def test_mounts(said):
    mounts = Mounts.parse(said({MOUNTINFO.name: MOUNTS}))
    by_path = {mount.path: mount for mount in mounts.mounts}
    assert sorted(by_path) == ["/", "/srv/a b", "/srv/q", "/srv/top", "/srv/v3"]
    nfs = by_path["/srv/a b"].nfs
    assert (nfs.server, nfs.export, nfs.address, nfs.version) == ("nas", "/vol/vm", "10.0.0.5", "4.2")
    assert (nfs.locks, by_path["/srv/v3"].nfs.locks) == ("server", "local")
    top = by_path["/srv/top"]
    assert (top.type, top.read_only, top.nfs.server, top.nfs.export) == ("nfs4", True, "fd00::5", "/")
    assert [mount.path for mount in mounts.shared] == ["/srv/a b", "/srv/q", "/srv/top", "/srv/v3"]
    assert mounts.of(file(device="0:48")).type == "fuse.quobyte"


def test_what_looking_at_the_paths_has_mounted(said):
    """autofs mounts what is asked for, and NFS 4 what lies within another export: after the mounts were listed."""
    before = "21 1 253:1 / / rw - ext4 /dev/x rw\n22 21 0:40 / /net rw - autofs auto.net rw\n"
    after = "23 22 0:57 / /net/nas rw - nfs4 nas:/vm rw,vers=4.2,addr=10.0.0.5\n24 21 0:58 / /run/x rw - tmpfs x rw\n"
    looked = answered(f"record 0\n{FOLDERS}= missing\nmounts\n{before}{after}", "/net/nas")
    answers = {MOUNTINFO.name: before, PATHS.name: looked}
    mounts = Mounts.parse(said(answers))
    assert mounts.of(file(device="0:57")).nfs.server == "nas"
    assert mounts.of(file(device="0:58")) is None, "of local ones the first list counts"
    assert not Paths.parse(said(answers)).at("/net/nas").exists
    assert Mounts.parse(said({MOUNTINFO.name: before})).of(file(device="0:57")) is None
    broken = {MOUNTINFO.name: before, PATHS.name: answered("x", "/net/nas", status=1)}
    assert Mounts.parse(said(broken)).of(file(device="253:1")) is not None


@pytest.mark.parametrize("text", ["", "21 1 253:1 / / rw  ext4 /dev/x rw\n", "a b c / / rw - ext4 /dev/x rw\n"])
def test_mounts_not_understood(said, text):
    with pytest.raises(Unavailable):
        Mounts.parse(said({MOUNTINFO.name: text}))


def nfs_place(server="nas", export="/vm", address="10.0.0.5", inode=99, root="/", size=1024):
    options = frozenset({"vers=4.2", f"addr={address}"})
    return Place(
        file(inode=inode, size=size), Mount("/srv", "0:45", root, "nfs4", f"{server}:{export}", False, options)
    )


@pytest.mark.parametrize(
    ("there", "same"),
    [
        (nfs_place(), True),
        (nfs_place(server="nas.example"), True),
        (nfs_place(server="nas2", address="10.0.0.6"), True),
        (nfs_place(server="nas2", address="10.0.0.6", export="/other"), None),
        (nfs_place(server="nas2", address="10.0.0.6", inode=7), False),
        (nfs_place(export="/other", inode=7), False),
        (nfs_place(export="/other"), None),
        (nfs_place(export="/"), True),
        (nfs_place(export="/vm/a"), True),
        (nfs_place(export="/vm2"), None),
        (nfs_place(export="/", size=7), None),
        (nfs_place(size=7), True),
        (nfs_place(server="nas2", address="10.0.0.6", size=7), None),
        (nfs_place(root="/sub"), True),
        (nfs_place(inode=7), None),
        (Place(file(magic=0xEF53), None), None),
    ],
)
def test_same_file_by_nfs(there, same):
    assert same_file(nfs_place(), there) is same


def test_a_tunnel_s_end_names_no_server():
    here, there = (nfs_place("127.0.0.1", address="127.0.0.1", size=size) for size in (1024, 7))
    assert not here.mount.nfs.same_server(there.mount.nfs)
    assert same_file(here, there) is None


def test_of_several_mounts_of_one_file_system_the_path_decides(said):
    text = (
        "27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 254:0 /x /a ro - ext4 /dev/vda rw\n"
        "29 27 254:0 /y /srv/ro ro - ext4 /dev/vda rw\n"
    )
    mounts, state = Mounts.parse(said({MOUNTINFO.name: text})), file(device="254:0")
    assert [mounts.of(state, path).path for path in ("/srv/ro/x", "/srv/rox", "/a", "/b")] == [
        "/srv/ro",
        "/",
        "/a",
        "/",
    ]


def cluster_place(magic, kind, source="vm", inode=99, fsid=5):
    mount = Mount("/srv", "0:45", "/", kind, source, False, frozenset())
    return Place(file(magic=magic, inode=inode, fsid=fsid), mount)


def test_same_file_by_cluster_file_systems():
    gfs = cluster_place(0x01161970, "gfs2", "/dev/mapper/vm")
    assert same_file(gfs, gfs) is True
    assert same_file(gfs, cluster_place(0x01161970, "gfs2", "/dev/mapper/vm", fsid=6)) is None
    quobyte = cluster_place(0x65735546, "fuse.quobyte", "/exports")
    assert quobyte.shared == "Quobyte"
    assert same_file(quobyte, quobyte) is True
    assert same_file(quobyte, cluster_place(0x65735546, "fuse.quobyte", "/exports", inode=7)) is False
    assert same_file(quobyte, cluster_place(0x65735546, "fuse.quobyte", "/exports", inode=2**40)) is None, "folded?"
    assert same_file(quobyte, cluster_place(0x65735546, "fuse.quobyte", "other", inode=7)) is None
    assert cluster_place(0x65735546, "fuse.sshfs").shared is None
    ceph = cluster_place(0x00C36400, "ceph", "mon1,mon2:/")
    assert same_file(ceph, cluster_place(0x00C36400, "ceph", "mon1:/")) is True, "the same cluster by its own identity"
    assert same_file(ceph, cluster_place(0x00C36400, "ceph", "mon9:/", fsid=6)) is None
    cifs, other = (cluster_place(0xFF534D42, "cifs", source, fsid=0) for source in ("//nas/vm", "//nas2/vm"))
    assert same_file(cifs, other) is None, "a file of that number is everywhere"
    own_numbers = frozenset({"noserverino"})
    first, second = (
        Place(replace(cifs.state, inode=inode), replace(cifs.mount, options=own_numbers)) for inode in (7, 8)
    )
    assert same_file(first, second) is True
    assert same_file(first, Place(replace(second.state, size=1), second.mount)) is None
    assert Place(file(magic=0x58465342), None).fs == "xfs"


def test_shared_filesystems_are_asked_for_only_where_needed(said):
    conf = SharedFilesystems.parse(said({QEMU_CONF.name: 'shared_filesystems = [ "/srv/x" ]\n'}))
    assert conf.declare("/srv/x/y")
    assert not conf.declare("/srv/xy")
    with pytest.raises(Unavailable):
        SharedFilesystems.parse(said({QEMU_CONF.name: (1, "sudo: a password is required")})).declare("/a")


def test_selinux(said):
    text = "enforce 1\nvirt_use_nfs --> off\nvirt_use_samba 1 1\nvirt_use_fusefs \n"
    selinux = Selinux.parse(said({SELINUX.name: text}))
    assert selinux.enforcing
    assert (selinux.allows("virt_use_nfs"), selinux.allows("virt_use_samba")) == (False, True)
    with pytest.raises(Unavailable):
        selinux.allows("virt_use_fusefs")
    assert not Selinux.parse(said({SELINUX.name: "absent\n"})).enforcing
    with pytest.raises(Unavailable):
        Selinux.parse(said({SELINUX.name: "enforce \n"}))


def test_hypervisor_user(said):
    users = (
        "libvirt-qemu uid=64055(libvirt-qemu) gid=107(kvm) groups=107(kvm),64055(libvirt-qemu)\n"
        "root uid=0(root) gid=0(root) groups=0(root)\n"
    )
    unreadable = {QEMU_CONF.name: (1, "cat: /etc/libvirt/qemu.conf: Permission denied")}
    default = HypervisorUser.parse(said({USERS.name: users, **unreadable}))
    assert (default.user.uid, default.user.gid, default.user.groups) == (64055, 107, {107, 64055})
    assert not default.configured
    assert HypervisorUser.parse(said({USERS.name: users, QEMU_CONF.name: 'user = "+0"\n'})).user.name == "root"
    for conf in ('user = "kvm-user"\n', 'user = "+99"\n'):
        with pytest.raises(Unavailable):
            HypervisorUser.parse(said({USERS.name: users, QEMU_CONF.name: conf}))
    with pytest.raises(Unavailable):
        HypervisorUser.parse(said({USERS.name: users.splitlines()[1], **unreadable}))


P = "52d4de35-abd9-4264-a7bc-f6f2d846cea3"


def test_pools(said):
    xml = f"<pool type='dir'><name>fast</name><uuid>{P}</uuid><target><path>/srv/fast</path></target></pool>"
    answers = {POOLS.name: f"{MARK}\n{MARK} {P}\n{xml}\n\n{MARK} end\n", POOLS_ACTIVE.name: f"{P}\n"}
    pools = Pools.parse(said(answers))
    assert pools.find("fast") == Pool("fast", "dir", True, "/srv/fast")
    assert pools.find("slow") is None
    assert not Pools.parse(said(answers | {POOLS_ACTIVE.name: "\n"})).find("fast").active
    broken = f"{MARK}\n{MARK} {P}\nerror: Storage pool not found\n"
    for unread in (Pools.parse(said({})), Pools.parse(said(answers | {POOLS.name: broken}))):
        with pytest.raises(Unavailable):
            unread.find("slow")


def volume(source):
    return Disk("vda", "disk", "volume", source, (), True, "raw", None, False, False, False, False, ())


def test_where_volumes_lie():
    kinds = {"d": "dir", "v": "logical", "r": "rbd", "i": "iscsi", "s": "scsi", "m": "mpath", "k": "disk"}
    pools = Pools(tuple(Pool(name, kind, True, "/dev/disk/by-path") for name, kind in kinds.items()))
    assert pools.path_of(volume("d/a.img")) == "/dev/disk/by-path/a.img"
    assert pools.path_of(volume("v/lv")) == "/dev/disk/by-path/lv"
    assert pools.path_of(volume("r/image")) is None
    assert pools.path_of(volume("gone/x")) is None
    for source in ("i/unit:0:0:1", "s/unit:0:0:1", "m/dm-3", "k/sdb1"):
        with pytest.raises(Unavailable):
            pools.path_of(volume(source))
    with pytest.raises(Unavailable):
        Pools((), "not collected").path_of(volume("d/a.img"))


def test_secrets(said):
    text = (
        " 99999999-1111-4111-8111-111111111111   ceph client.x secret\n 99999999-1111-4111-8111-111111111112   Unused\n"
    )
    secrets = Secrets.parse(said({SECRETS.name: text}))
    assert secrets.has("client.x secret")
    assert secrets.storage == {"99999999-1111-4111-8111-111111111111"}
    assert secrets.has("99999999-1111-4111-8111-111111111112")
    assert not secrets.has("other")
    with pytest.raises(Unavailable):
        Secrets.parse(said({})).has("other")
    with pytest.raises(Unavailable):
        Secrets.parse(said({SECRETS.name: "nonsense\n"}))


def test_vfio(said):
    devices = VfioDevices.parse(said({VFIO.name: "mlx5_vfio_pci 0000:e1:00.1\nvfio-pci 0000:3b:00.0\n"}))
    assert migrates(devices.driver("0000:e1:00.1"))
    assert not migrates(devices.driver("0000:3b:00.0"))
    assert devices.driver("0000:00:00.0") is None
    assert VfioDevices.parse(said({VFIO.name: "absent\n"})).bound == ()
    with pytest.raises(Unavailable):
        VfioDevices.parse(said({})).driver("0000:00:00.0")


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_is_either_read_or_refused(text):
    data = text.encode("utf-8", "surrogatepass")
    names = (MOUNTINFO, SELINUX, USERS, POOLS, POOLS_ACTIVE, SECRETS, VFIO, QEMU_CONF)
    outputs = {probe.name: Evidence(probe.name, 0, data) for probe in names}
    outputs[PATHS.name] = Evidence(PATHS.name, 0, b"record 0\n" + data, arguments=(("0", "/a"),))
    said = Said(HostEvidence("h", outputs))
    for kind in (Mounts, Selinux, HypervisorUser, Pools, Secrets, VfioDevices, SharedFilesystems, Paths):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            kind.parse(said)


@pytest.mark.corpus
def test_real_mounts(samples, said):
    counts = {}
    for path in samples("mountinfo"):
        try:
            counts[path.name] = len(Mounts.parse(said({MOUNTINFO.name: path.read_bytes()})).mounts)
        except Unavailable:
            counts[path.name] = None
    assert counts.pop("mountinfo__malformed-insights__1.txt") is None
    assert all(counts.values())
    assert len(counts) == 2


@pytest.mark.corpus
def test_real_nfs_mounts(samples, said):
    """`mount` prints the same options as mountinfo."""
    found = []
    for path in samples("mount"):
        for line in path.read_text().splitlines():
            match = re.fullmatch(r"(\S+) on (\S+) type (nfs4?) \((.*)\)", line)
            if match and ":/" in match[1]:
                text = f"1 0 0:45 / {match[2]} rw - {match[3]} {match[1]} {match[4]}\n"
                [mount] = Mounts.parse(said({MOUNTINFO.name: text})).mounts
                found.append((mount.nfs.server, mount.nfs.export, mount.nfs.version, mount.nfs.locks))
    assert ("192.168.10.100", "/NFSS", "4.2", "server") in found
    assert ("192.168.0.103", "/volume3/nfs", "3", "local") in found


@pytest.mark.corpus
def test_real_booleans(samples):
    booleans = {path.name: dict(read_booleans(path.read_text().splitlines())) for path in samples("getsebool")}
    assert booleans["getsebool__insights__1.txt"]["virt_use_nfs"] is True
    assert booleans["getsebool__error-insights__1.txt"] == {}
