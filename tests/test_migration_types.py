"""The ways of moving a guest, as a report tells them."""

import shlex

from audit.migration_types import migration_types, other_way, target_uri


def test_commands_are_whole_and_quoted():
    ways = {way.name: way.command for way in migration_types("tls", "my guest", "kvm02.example.com")}
    assert ways["live"] == "virsh migrate --live --persistent 'my guest' qemu+tls://kvm02.example.com/system"
    assert ways["non-live"] == "virsh migrate --persistent 'my guest' qemu+tls://kvm02.example.com/system"
    assert "--live" not in ways["offline"]
    assert "--offline --persistent --undefinesource" in ways["offline"]
    assert "--migrate-disks" in ways["live, disks copied"]
    for command in ways.values():
        assert "my guest" in shlex.split(command)


def test_transports():
    assert [target_uri("h", name) for name in ("ssh", "tls", "tcp", "?")] == [
        "qemu+ssh://h/system",
        "qemu+tls://h/system",
        "qemu+tcp://h/system",
        "qemu+ssh://h/system",
    ]


def test_other_ways():
    copied = other_way({"kind": "copy-storage", "verdict": "conditions", "disks": ["vda", "vdb"]})
    assert copied == "live with vda,vdb copied along (--copy-storage-all --migrate-disks vda,vdb), with conditions"
    assert other_way({"kind": "offline", "verdict": "yes", "disks": []}) == "offline: its definition only"
    address = {"kind": "another-address", "verdict": "yes", "disks": [], "options": ["--migrateuri tcp://192.0.2.1"]}
    assert other_way(address) == "live, to another address (--migrateuri tcp://192.0.2.1)"
    assert "started here" in other_way({"kind": "started-here", "verdict": "yes", "disks": []})
    assert "--tunnelled" in other_way({"kind": "tunnelled", "verdict": "unknown", "disks": []})
    hostile = other_way({"kind": "copy-storage", "verdict": "unknown", "disks": ["a; rm -rf /\x1b"]})
    assert "'a; rm -rf /" in hostile
    assert "\x1b" not in hostile


def test_closed_ways_are_told_where_one_command_opens_them():
    reason = {"check": "copying.image_made", "status": "fail", "message": "expected an image"}
    closed = {"kind": "copy-storage", "verdict": "no", "disks": ["vda"], "reasons": [reason]}
    assert other_way(closed).endswith(", not before this: expected an image")
    assert other_way({**closed, "reasons": [{**reason, "check": "cpu.fits"}]}) == ""
    assert other_way({"kind": "offline", "verdict": "no", "disks": []}) == ""
    assert other_way({"kind": "copy-storage-inc", "verdict": "yes", "disks": ["vda"]}) == ""
