"""A short selection of the scenarios, predicted and really tried; `scripts/truth` tries them all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import hosts
from tests.lab.commands import wait
from tests.lab.scenarios import Scenario, load
from tests.lab.trial import attempt

_HOLDS_A_LAB = """
import sys
from tests.lab.hosts import Lab
made = Lab("lab-left")
made.up()
made.boot("kvm1")
print(made.name, flush=True)
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.parametrize("scenario", [one for one in load() if one.short], ids=lambda one: f"{one.family}/{one.name}")
def test_what_is_predicted_happens(lab: hosts.Lab, scenario: Scenario) -> None:
    if lab.lacks_newer and hosts.NEWER in scenario.hosts:
        pytest.skip(lab.lacks_newer)
    trial = attempt(lab, scenario)
    assert not trial.miss, f"{trial.predicted} but {trial.happened}"
    assert trial.reason_agrees is not False, f"{trial.predicted} for another reason than {trial.happened}"


@pytest.mark.root
def test_a_lab_ends_with_its_process_however_that_ends(lab: hosts.Lab) -> None:
    words = [sys.executable, "-c", _HOLDS_A_LAB]
    with subprocess.Popen(
        words, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        name = holder.stdout.readline().strip()
        assert _processes_of(name)
        os.kill(holder.pid, signal.SIGKILL)
    wait("the lab ends", lambda: not _processes_of(name))
    assert name not in Path("/proc/mounts").read_text()
    hosts.remove_groups(name)


def _processes_of(name: str) -> list[int]:
    """The processes in the control groups of a lab."""
    return [
        int(pid)
        for group in hosts.groups(name)
        for path in group.rglob("cgroup.procs")
        for pid in path.read_text().split()
    ]
