"""What is run on other people's hosts: constants that only read, by name and by nature."""

import re
import shlex
import subprocess

import pytest

from audit.collect import probes_of
from audit.evaluate import needed_facts
from audit.evidence import Probe
from audit.judge import discover

PROBES = probes_of(needed_facts(discover()))

READS = {  # virsh's subcommands that change nothing
    *(
        "blockjob",
        "capabilities",
        "domblkinfo",
        "domcapabilities",
        "domjobinfo",
        "dommemstat",
        "dumpxml",
        "echo",
        "hostname",
        "list",
        "net-dumpxml",
    ),
    *("vol-path", "net-list", "nwfilter-dumpxml", "nwfilter-list", "pool-dumpxml", "pool-list", "secret-list"),
    *("snapshot-list", "uri", "version"),
}
CHANGES = {  # and some words that no probe has any business with
    *("rm", "mv", "cp", "ln", "touch", "mkdir", "rmdir", "chmod", "chown", "tee", "truncate", "dd", "mount", "umount"),
    *(
        "kill",
        "pkill",
        "reboot",
        "shutdown",
        "modprobe",
        "insmod",
        "rmmod",
        "sysctl",
        "curl",
        "wget",
        "nc",
        "ssh",
        "scp",
        "ping",
        "bash",
        "eval",
    ),
    *(
        "start",
        "stop",
        "restart",
        "enable",
        "disable",
        "destroy",
        "undefine",
        "define",
        "create",
        "migrate",
        "burn",
    ),
}


ASKED_FOR = {  # but for these, which are run when an option asks for them only
    "reach.ports": {"bash"},
    "storage.portals": {"bash"},
    "reach.mtu": {"ping"},
    "reach.ssh": {"ssh"},
}


def test_what_an_option_asks_for_is_listed():
    assert {probe.name for probe in PROBES if probe.option} >= ASKED_FOR.keys()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probe_is_posix_sh(probe: Probe):
    assert subprocess.run(["sh", "-n", "-c", probe.command], capture_output=True, check=False).stderr == b""


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probe_only_reads(probe: Probe):
    # `ssh -G` prints how ssh is set up, and connects to nobody.
    command = re.sub(r"\bssh -G\b|command -v \S+|\bssh: not found", "", re.sub(r"#.*", "", probe.command))
    words = set(re.findall(r"(?<![\w./=$@{-])[a-z][a-z0-9-]*(?![\w.=/(-])", command))
    assert words & CHANGES == (ASKED_FOR.get(probe.name, set()) if probe.option else set())
    assert ("/dev/tcp" in probe.command) == (probe.name in {"reach.ports", "storage.portals"})
    written = {target for target in re.findall(r"(?<=[\s\d])>+\s*([^\s;|)&]+)", probe.command) if target != "/dev/null"}
    assert written == set()


@pytest.mark.parametrize("probe", [p for p in PROBES if "virsh" in p.command], ids=lambda probe: probe.name)
def test_virsh_is_read_only_but_where_libvirt_forbids_it(probe: Probe):
    for call in re.findall(r"virsh\s[^|;\n]*", probe.command):
        measures = probe.option == "--measure-dirty-rate" and '"$begin"' in call
        assert " -r " in call or "domcapabilities" in call or measures, call
    for text in re.findall(r"qemu:///system\s+(.*)", probe.command):
        first = re.match(r"[\"'\\]*([a-z-]+)", text)
        assert first is None or first[1] in READS, text


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_what_to_type_by_hand_is_one_line(probe: Probe):
    assert "\n" not in probe.by_hand
    assert "$sudo" not in probe.by_hand
    shlex.split(probe.by_hand)
