"""The whole way for real: `audit` of this machine over a real sshd, against a real libvirtd with guests in it.

libvirt-python is the oracle: what the facts say is compared with what libvirt itself says.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from audit.evaluate import evaluate
from audit.evidence import Bundle
from audit.facts.base import Facts, Unavailable
from audit.facts.cpu import HostCpu
from audit.facts.disk_sizes import GuestDiskSizes
from audit.facts.guest import GuestMachine, GuestMemory, GuestSnapshots, GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.guest_source import read_guests
from audit.facts.host_models import HostModels
from audit.facts.machines import MachineTypes
from audit.facts.versions import Kernel, Libvirt, Qemu
from audit.judge import discover
from audit.results import dumps
from tests.sshd import Server

pytestmark = pytest.mark.root
HOST = "kvm01"


@pytest.fixture(scope="module")
def run(
    server: Server, live_guests: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """`virt-preflight audit kvm01`, where ssh knows this machine by that name; the folder, and what it said."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(server.config.read_text())
    out = home / "out"
    wrapper = home / "bin"
    wrapper.mkdir()
    # ssh reads the configuration of the account, not of $HOME: tell it which one.
    (wrapper / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {home}/.ssh/config "$@"\n')
    (wrapper / "ssh").chmod(0o755)
    environment = {**os.environ, "HOME": str(home), "PATH": f"{wrapper}:{os.environ['PATH']}"}
    environment.pop("SSH_AUTH_SOCK", None)
    done = subprocess.run(
        [sys.executable, "-m", "audit.cli", "audit", HOST, "-o", str(out)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return out, done


@pytest.fixture(scope="module")
def facts(run: tuple[Path, Any]) -> Facts:
    return Facts(Bundle.read(run[0] / "bundle").hosts, read_guests)


@pytest.fixture(scope="module")
def oracle(libvirtd: str) -> Iterator[Any]:
    libvirt = pytest.importorskip("libvirt")
    connection = libvirt.open(libvirtd)
    yield connection
    connection.close()


def test_it_ends_with_a_verdict_and_the_files(run):
    out, done = run
    assert done.returncode in (3, 5), done.stderr  # one host: no target was audited, or a guest cannot leave
    assert done.stdout.startswith(("NO-GO", "CANNOT SAY"))
    assert "Traceback" not in done.stderr
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "report.pdf", "results.json", "guests.csv", "pairs.csv", "bundle"} <= names
    assert any(name.startswith("baseline-") for name in names)


def test_every_probe_ran_and_none_was_cut(run):
    [host] = Bundle.read(run[0] / "bundle").hosts.values()
    assert host.problem == ""
    assert host.privilege == "root"
    assert {name: o.problem for name, o in host.outputs.items() if o.problem} == {}


def test_replay_equals_live(run):
    out, _ = run
    live = json.loads((out / "results.json").read_text())
    replayed = json.loads(dumps(evaluate([Bundle.read(out / "bundle")], discover())))
    for result in (live, replayed):
        for baseline in result["baselines"]:
            del baseline["cross_check"]  # the one thing that this machine's libvirt adds
    assert replayed == live


def test_the_snapshot_keeps_its_guest_from_leaving(run, live_guests):
    out, done = run
    result = json.loads((out / "results.json").read_text())
    [reason] = [text for text in result["verdict"]["blocking"] if live_guests["snapped"].name in text]
    assert "snapshot" in reason
    assert result["verdict"]["word"] == "NO-GO"
    assert done.returncode == 3


def test_versions_are_what_libvirt_says(facts, oracle):
    daemon = facts.of(HOST, Libvirt).daemon
    assert daemon.major * 1_000_000 + daemon.minor * 1000 + daemon.micro == oracle.getLibVersion()
    qemu = facts.of(HOST, Qemu).version
    assert qemu.major * 1_000_000 + qemu.minor * 1000 + qemu.micro == oracle.getVersion()
    assert facts.of(HOST, Kernel).release == os.uname().release


def test_the_host_cpu_and_models_are_what_libvirt_says(facts, oracle):
    host = etree.fromstring(oracle.getCapabilities()).find("host/cpu")
    cpu = facts.of(HOST, HostCpu)
    assert (cpu.arch, cpu.model, cpu.vendor) == (host.findtext("arch"), host.findtext("model"), host.findtext("vendor"))
    assert cpu.features == {feature.get("name") for feature in host.findall("feature")}
    caps = etree.fromstring(oracle.getDomainCapabilities(None, "x86_64", "q35", "qemu"))
    mode = caps.find("cpu/mode[@name='host-model']")
    model = facts.of(HOST, HostModels).host_model("qemu", "x86_64", caps.findtext("machine"))
    assert model.model == mode.findtext("model")
    wanted = [(feature.get("name"), feature.get("policy")) for feature in mode.findall("feature")]
    assert [(feature.name, feature.policy) for feature in model.features] == wanted


def test_machine_types_are_what_libvirt_says(facts, oracle):
    root = etree.fromstring(oracle.getCapabilities())
    offered = facts.of(HOST, MachineTypes).of("qemu", "x86_64")
    theirs = {node.text for node in root.findall("guest/arch[@name='x86_64']/machine")}
    assert {machine.name for machine in offered.machines} == theirs


def test_guests_are_what_libvirt_says(facts, oracle, live_guests):
    guests = facts.guests(HOST)
    assert not isinstance(guests, Unavailable)
    domains = {domain.UUIDString(): domain for domain in oracle.listAllDomains()}
    assert {guest.uuid for guest in guests} == set(domains)
    for guest in (guest for guest in guests if guest.uuid in {made.uuid for made in live_guests.values()}):
        domain = domains[guest.uuid]
        root = etree.fromstring(domain.XMLDesc())
        assert guest.name == domain.name()
        assert facts.of_guest(guest, GuestState).active == bool(domain.isActive())
        assert facts.of_guest(guest, GuestMemory).max_memory_kib == domain.maxMemory()
        assert facts.of_guest(guest, GuestMachine).machine == root.find("os/type").get("machine")
        assert facts.of_guest(guest, GuestSnapshots).snapshots == domain.snapshotNum()
        sources = {node.get("file") for node in root.findall("devices/disk/source")}
        assert {disk.source for disk in facts.of_guest(guest, GuestDisks).disks} == sources
        if domain.isActive():
            capacity, _, _ = domain.blockInfo("vda")
            assert facts.of_guest(guest, GuestDiskSizes).of("vda").capacity == capacity


def test_the_hostile_name_reaches_neither_markup_nor_the_terminal(run):
    out, done = run
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "\x1b" not in done.stdout


def test_the_baseline_is_what_virsh_prints(run, oracle):
    caps = {
        kind: oracle.getDomainCapabilities(None, "x86_64", "q35", kind)
        for kind in ("kvm", "qemu")
        if _usable(oracle, kind)
    }
    kind = "kvm" if "kvm" in caps else "qemu"
    result = json.loads((run[0] / "results.json").read_text())
    [baseline] = result["baselines"]
    assert baseline["virttype"] == kind
    mode = etree.fromstring(caps[kind]).find("cpu/mode[@name='host-model']")
    mode.tag = "cpu"
    mode.attrib.clear()
    xml = etree.tostring(mode).decode()
    assert baseline["cpu_xml"] == oracle.baselineHypervisorCPU(None, "x86_64", "q35", kind, [xml], 0)
    assert "agrees" in baseline["cross_check"]


def test_virsh_takes_the_difference_and_takes_it_back(run, oracle, live_guests, tmp_path):
    """The commands of the advice, typed as they stand, on a guest that nothing else here looks at."""
    result = json.loads((run[0] / "results.json").read_text())
    uuid = live_guests["hostile"].uuid
    [baseline] = result["baselines"]
    [advice] = [g for g in baseline["advice"]["guests"] if g["uuid"] == uuid]
    (tmp_path / f"{uuid}.diff").write_text(advice["diff"])
    domain = oracle.lookupByUUIDString(uuid)
    before = domain.XMLDesc()
    for commands, wanted in ((advice["apply"], _cpu_of(baseline)), (advice["undo"], _cpu(before))):
        for command in commands:
            subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True, timeout=60)
        assert _cpu(domain.XMLDesc()) == wanted
    assert domain.XMLDesc() == before


def _cpu(xml: str) -> dict[str, Any]:
    """What a domain's `<cpu>` asks for; libvirt adds its own check=."""
    cpu = etree.fromstring(xml).find("cpu")
    features = {(node.get("policy"), node.get("name")) for node in cpu.findall("feature")}
    return {"mode": cpu.get("mode"), "model": cpu.findtext("model"), "features": features}


def _cpu_of(baseline: dict[str, Any]) -> dict[str, Any]:
    return _cpu(f"<domain>{baseline['migratable_cpu_xml'] or baseline['cpu_xml']}</domain>")


def _usable(oracle: Any, kind: str) -> bool:
    import libvirt

    try:
        caps = etree.fromstring(oracle.getDomainCapabilities(None, "x86_64", "q35", kind))
    except libvirt.libvirtError:
        return False
    return caps.find("cpu/mode[@name='host-model'][@supported='yes']") is not None


def test_the_live_guest_ticks_on(live_guests, oracle):
    """Read-only means read-only: the guests are as they were."""
    assert oracle.lookupByUUIDString(live_guests["runs"].uuid).isActive()
    assert oracle.lookupByUUIDString(live_guests["snapped"].uuid).snapshotNum() == 1
