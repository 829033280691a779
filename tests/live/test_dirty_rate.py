"""`--measure-dirty-rate` for real: a guest that writes all the time, and one that does nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from audit.evidence import Bundle
from audit.facts.base import Facts
from audit.facts.dirty_rate import DIRTY_RATE, GuestDirtyRate
from audit.facts.guest_source import read_guests
from tests.live.conftest import LiveGuest

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def run(writing_guest: LiveGuest, live_guests: dict[str, LiveGuest], tmp_path_factory: pytest.TempPathFactory):
    """`virt-preflight collect` of this machine; the bundle's facts, and what it said."""
    out = tmp_path_factory.mktemp("measured") / "bundle"
    command = [sys.executable, "-m", "audit.cli", "collect", "--measure-dirty-rate", "1", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return Facts(Bundle.read(out).hosts, read_guests), done


def _rate(facts: Facts, uuid: str) -> object:
    [host] = facts._said
    [guest] = [guest for guest in facts.guests(host) if guest.uuid == uuid]
    return facts.of_guest(guest, GuestDirtyRate)


def test_it_is_announced_and_kept_as_evidence(run, writing_guest):
    facts, done = run
    assert "--measure-dirty-rate: libvirt measures running guests for 1 s" in done.stderr
    [host] = facts._said
    evidence = facts.said(host).evidence(DIRTY_RATE)
    assert writing_guest.uuid in {uuid for _, uuid, _ in evidence.arguments}
    assert evidence.problem == ""


def test_rates(run, writing_guest, live_guests):
    facts, _ = run
    assert _rate(facts, writing_guest.uuid).mib_per_second >= 2
    assert _rate(facts, live_guests["runs"].uuid) == GuestDirtyRate(0, 1)
    assert "did not run" in _rate(facts, live_guests["hostile"].uuid).reason


def test_the_guest_runs_on(run, writing_guest):
    command = ["virsh", "-r", "-c", "qemu:///system", "domstate", writing_guest.uuid]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip() == "running"


def test_what_virsh_prints_is_what_converge_reads(run: tuple[Facts, object], writing_guest: LiveGuest, tmp_path: Path):
    command = ["virsh", "-r", "-c", "qemu:///system", "domstats", writing_guest.uuid, "--dirtyrate"]
    (tmp_path / "said").write_bytes(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    told = [sys.executable, "-m", "audit.cli", "converge", str(tmp_path / "said"), "--bandwidth", "1"]
    done = subprocess.run(told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert f"--postcopy {writing_guest.name}" in done.stdout
