"""What libvirt, QEMU and ssh say is known again, whatever stands around it; and is told without harm."""

import ast
import inspect
import re
import shlex
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from audit.check import Check
from audit.judge import discover
from audit.messages import LIMIT, MOST, Depth, Message, compiled, explain, foreseen, messages, plain

FOUND = discover()
CHECKS = {check.id for check in FOUND}
ALL = pytest.mark.parametrize("message", messages(), ids=lambda message: message.id)
REAL = (  # refusals of real migrations (libvirt 9.0 and 11.3), and the check that foresees each best
    ("Cannot access storage file '/srv/shared/f1.raw': No such file or directory", "storage.disks_reachable"),
    ("Cannot get interface MTU on 'br-prod': No such device", "network.sources_present"),
    ("Requested operation is not valid: network 'prod' is not active", "network.sources_present"),
    ("Network not found: no network with matching name 'prod'", "network.sources_present"),
    ("unsupported configuration: unknown CPU feature: cmpccxadd", "cpu.guest_cpu_fits"),
    ("operation failed: guest CPU doesn't match specification: missing features: pcommit", "cpu.guest_cpu_fits"),
    ("operation failed: guest CPU doesn't match specification: extra features: ht", "breaks.no_known_break"),
    (
        "unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support machine type 'pc-q35-10.0'",
        "machines.machine_offered",
    ),
    ("unable to connect to server at 'kvm2.lab.test:49152': Connection refused", "firewall.migration_ports_open"),
    ("unable to connect to server at 'kvm2.lab.test:49152': No route to host", "firewall.migration_ports_open"),
    ("unable to connect to server at 'kvm2.lab.test:49152': Connection timed out", "firewall.migration_ports_open"),
    ("unable to connect to server at 'kvm2:16509': Connection refused", "services.transport_ready"),
    (
        "Cannot recv data: ssh: Could not resolve hostname kvm9: Temporary failure in name resolution: "
        "Connection reset by peer",
        "ssh.target_known",
    ),
    (
        "Cannot recv data: ssh: connect to host kvm2 port 22: Connection timed out: Connection reset by peer",
        "firewall.control_port_open",
    ),
    (
        "Cannot recv data: ssh: connect to host kvm2 port 22: Connection refused: Connection reset by peer",
        "services.transport_ready",
    ),
    (
        "Cannot recv data: root@kvm2: Permission denied (publickey,password).: Connection reset by peer",
        "ssh.key_accepted",
    ),
    ("Cannot recv data: Host key verification failed.: Connection reset by peer", "ssh.host_key_known"),
    ("Requested operation is not valid: domain has active block job", "guest.no_block_job"),
    (
        "Requested operation is not valid: cannot migrate domain: non-migratable device: "
        "0000:00:01.0:00.0/vhost-user-fs",
        "devices.no_virtiofs",
    ),
    (
        "cannot migrate domain: State blocked by non-migratable device '0000:00:01.0:00.0/vhost-user-fs'",
        "devices.no_virtiofs",
    ),
    ("unsupported configuration: spice graphics are not supported with this QEMU", "offered.graphics_offered"),
    ("cannot migrate domain: non-migratable device: 0000:00:10.0/nvme", "blockers.unsaved_devices"),
    (
        "Requested operation is not valid: cannot migrate domain: Migration is disabled when using feature "
        "'peer mode' in device 'ivshmem'",
        "devices.shmem_role",
    ),
    ("operation failed: domain 'f8' already exists with uuid 91111111-2222-4333-8444-555555555555", "guest.name_free"),
    ("Requested operation is not valid: domain 'f8' is already active", "guest.name_free"),
    (
        "operation failed: domain 'f8x' is already defined with uuid 11111111-2222-4333-8444-555555555555",
        "guest.name_free",
    ),
    (
        "Storage pool not found: no storage pool with matching target path '/var/lib/libvirt/images'",
        "copying.image_made",
    ),
    ("Unsafe migration: Migration without shared storage is unsafe", "storage.disks_shared"),
    (
        "internal error: process exited while connecting to monitor: 2026-11-22T23:54:21.213215Z qemu-system-x86_64: "
        "-vnc 10.77.0.11:0,audiodev=audio1: Failed to bind socket: Cannot assign requested address",
        "devices.graphics_listen",
    ),
    (
        "internal error: unable to execute QEMU command 'blockdev-add': Failed to connect to 'kvm2:49153': "
        "No route to host",
        "firewall.migration_ports_open",
    ),
    (
        "unable to set user and group to '107:107' on '/srv/nfs/a.raw': Read-only file system",
        "storage.disks_shared",
    ),
    (
        "operation failed: job 'migration out' failed: load of migration failed: Invalid argument",
        "versions.qemu_not_older",
    ),
    ("Cannot find 'ovs-vsctl' in path: No such file or directory", "nic.openvswitch_bridge"),
)


def ids(text: str) -> list[str]:
    return [one.message.id for one in explain(text)]


@ALL
def test_a_message_is_known_by_its_example_first(message: Message):
    assert ids(message.example)[0] == message.id


@ALL
def test_what_stands_around_it_does_not_matter(message: Message):
    example = " ".join(message.example.split())
    for variant in (
        f"[root@kvm1 ~]# virsh migrate --live web1 qemu+ssh://kvm2/system\n{message.example}\n\n[root@kvm1 ~]# ",
        f"Nov 22 23:54:21 kvm1 libvirtd[812]: 2026-11-22 23:54:21.213+0000: 815: error : doIt:123 : {example}",
        f"\x1b[31m{example}\x1b[0m",
        example.replace(" ", "\n"),
        example.replace("'", "‘"),
        example.replace("'", '"'),
        example.replace('"', "\\x22"),
        example.upper(),
    ):
        assert ids(variant)[0] == message.id, variant


@ALL
def test_a_message_is_complete(message: Message):
    assert set(message.checks) <= CHECKS
    assert len(set(message.checks)) == len(message.checks)
    assert bool(message.checks) != bool(message.why_not)
    assert all((message.cause, message.remedy, message.run, message.seen))
    values = {name.partition("__")[0] for pattern in message.says for name in pattern.groupindex}
    named = {
        name for text in (message.cause, message.remedy, *message.run) for name in re.findall(r"\{([a-z_]+)\}", text)
    }
    assert named <= values


@ALL
def test_patterns_are_bounded(message: Message):
    """Whatever may match much is limited, and a text made of the message itself costs little."""
    for pattern in message.says:
        assert not re.search(r"\.[*+]|\][*]|\)[*+]|\{[0-9]+,\}|\\[sw][*+]", pattern.pattern)
    said = plain(f"{message.example} " * (LIMIT // len(message.example)))
    begin = time.process_time()
    for pattern in message.says:
        sum(1 for _ in pattern.finditer(said))
    assert time.process_time() - begin < 5


def test_ids_are_distinct():
    assert [id_ for id_, times in Counter(message.id for message in messages()).items() if times > 1] == []


def quoted(function: Callable[..., object]) -> Iterator[str]:
    """The sentences that a check says, with NAME for what it fills in."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "NAME" for part in parts)


@pytest.mark.parametrize("check", FOUND, ids=lambda check: check.id)
def test_a_check_that_quotes_a_message_is_among_those_that_foresee_it(check: Check):
    for sentence in quoted(check.function):
        if " " in sentence and (found := explain(sentence)):
            assert check.id in found[0].checks, (sentence, found[0].message.id)


@pytest.mark.parametrize(("text", "check"), REAL)
def test_real_refusals_lead_to_the_check_that_foresees_them(text: str, check: str):
    assert explain(f"error: {text}")[0].checks[0] == check


def test_the_root_of_the_trouble_comes_first():
    log = """
2026-11-22T23:54:20Z qemu-kvm: warning: something unimportant
2026-11-22T23:54:21Z qemu-kvm: load of migration failed: Invalid argument
2026-11-22T23:54:21Z qemu-kvm: error while loading state for instance 0x0 of device '0000:00:03.0/virtio-net'
2026-11-22T23:54:21Z qemu-kvm: Features 0x1c0010130afffa7 unsupported. Allowed features: 0x10179bfffe7
error: internal error: QEMU unexpectedly closed the monitor (vm='web1')
"""
    assert ids(log) == ["virtio-features", "load-failed", "device-state"]


def test_all_that_was_said_in_a_session_is_told_once_and_in_order():
    session = """
# virsh migrate --live web1 qemu+ssh://kvm2/system
error: Network not found: no network with matching name 'prod'
# virsh migrate --live web1 qemu+ssh://kvm2/system
error: Network not found: no network with matching name 'prod'
# virsh migrate --live db1 qemu+ssh://kvm2/system
error: Cannot access storage file '/a.raw': No such file or directory
# virsh migrate --live db2 qemu+ssh://kvm2/system
error: Cannot access storage file '/b.raw': No such file or directory
"""
    assert ids(session) == ["network-missing", "image-missing", "image-missing"]
    assert [one.cause.split(",")[0] for one in explain(session)[1:]] == [
        "The target has no /a.raw",
        "The target has no /b.raw",
    ]


def test_a_wrapper_is_told_only_where_nothing_else_is():
    alone = explain("error: operation failed: job 'migration out' unexpectedly failed")
    assert [one.message.depth for one in alone] == [Depth.WRAPPER]
    assert not alone[0].tells_cause
    assert ids(
        "job 'migration out' failed: Cannot recv data: Host key verification failed.: Connection reset by peer"
    ) == ["ssh-host-key-unknown"]


def test_nothing_is_made_of_what_is_not_known():
    assert explain("") == explain("all is well") == explain("\x00\ud800" * 100) == ()


def test_values_from_the_text_are_quoted_where_they_are_to_be_pasted():
    found = explain("error: Cannot access storage file '/a b; $(reboot)': No such file or directory")[0]
    assert found.commands[0] == "ls -ld '/a b; $(reboot)'"
    assert "/a b; $(reboot)," in found.cause
    dashed = explain("error: Cannot access storage file '-rf': No such file or directory")[0]
    assert dashed.commands[0] == "ls -ld PATH"


def test_values_with_quotes_are_still_understood():
    found = explain("error: operation failed: domain 'joe's vm' already exists with uuid 9-1")[0]
    assert "joe's vm" in found.cause


@pytest.mark.parametrize("evil", ["\x1b]0;x\x07", "\u202eevil", "\x00", "\u2028"])
def test_nothing_of_the_text_can_harm_a_terminal(evil: str):
    found = explain(f"error: Cannot access storage file '/a{evil}b': No such file or directory")[0]
    for text in (found.words, found.cause, found.remedy, *found.commands):
        assert text.isprintable()


def test_where_the_words_name_nothing_a_word_in_capitals_stands_for_it():
    found = explain("error: unable to find any master var store for loader")[0]
    assert not any("{" in text for text in (found.cause, *found.commands))
    assert explain("error: no network with matching name 'prod'")[0].commands[0] == "virsh net-dumpxml prod"
    assert "FEATURES" in explain("the CPU is incompatible with host CPU")[0].cause


@ALL
def test_commands_can_be_pasted(message: Message):
    for one in explain(message.example):
        for command in one.commands:
            shlex.split(command)
            assert "\n" not in command


def test_the_end_of_a_long_text_counts():
    early = "error: Requested operation is not valid: domain is not running\n"
    late = "error: Network not found: no network with matching name 'prod'\n"
    assert ids(early + "nothing known here\n" * LIMIT + late) == ["network-missing"]


def test_a_text_with_very_many_messages_is_told_in_part():
    many = "\n".join(f"error: Cannot access storage file '/{n}': No such file or directory" for n in range(100))
    assert len(explain(many)) == MOST


@pytest.mark.parametrize("nasty", ["'", "' ", "/a", "could not open '"])
def test_no_text_takes_long(nasty: str):
    begin = time.process_time()
    explain(nasty * (LIMIT // len(nasty)))
    assert time.process_time() - begin < 20


def test_patterns_may_name_a_value_in_several_alternatives():
    pattern = compiled("no (?:bridge <name>|network '?(?P<name>[a-z]+)'?)")
    assert [match.groups() for match in map(pattern.search, ("no bridge 'a b'", "no network x")) if match] == [
        ("a b", None),
        (None, "x"),
    ]


def test_a_check_tells_the_message_that_fits_best_first():
    assert foreseen("network.sources_present")[0].id == "bridge-missing"
    assert foreseen("versions.bios_equal") == ()
