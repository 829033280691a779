"""The commands as scripts meet them: exit status, what goes to which stream, and one clear line for a mistake."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from audit import cli_checks
from audit.check import Check, Parameter, Role
from audit.cli import commands
from audit.evidence import Probe
from audit.facts.base import HostFact
from audit.judge import discover

SAMPLES = Path(__file__).parent.parent / "sample_data"


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "audit.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parent.parent,
    )


@pytest.mark.parametrize(("fleet", "status"), [("uniform", 0), ("mixed", 3), ("mellanox", None), ("partial", 5)])
def test_evaluate_exits_with_the_verdict(tmp_path: Path, fleet: str, status: int | None):
    done = run("evaluate", SAMPLES / fleet / "bundle", "-o", tmp_path / "r.json")
    word = json.loads((tmp_path / "r.json").read_text())["verdict"]["word"]
    assert done.stdout.startswith(word)
    assert done.returncode == {"GO": 0, "NO-GO": 3, "GO WITH CONDITIONS": 4, "CANNOT SAY": 5}[word]
    assert status in (None, done.returncode)


def test_report_writes_what_it_is_asked_for(tmp_path: Path):
    results = SAMPLES / "uniform" / "results.json"
    assert run("report", results, "-o", tmp_path / "out").returncode == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "report.pdf", "guests.csv", "pairs.csv"} < names
    assert run("report", results, "--html", tmp_path / "one.html").stdout.strip() == str(tmp_path / "one.html")
    assert run("report", results).returncode == 2


def test_checks_are_listed_by_domain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "72")
    lines = run("checks").stdout.splitlines()
    first = lines.index("  memory.fits  (placement, critical, blocks migration)")
    assert re.sub(r"\d+", "N", "\n".join(lines[first - 2 : first + 3])) == (
        "memory (N): Memory: does the guest find room on the target, of the kind\n"
        "and in the place that it asks for?\n"
        "  memory.fits  (placement, critical, blocks migration)\n"
        "      The target has the memory for what the guest has in use, swap\n"
        "      space included."
    )
    listed = [line.split()[0] for line in lines if re.match(r"  [a-z]", line)]
    assert listed == [check.id for check in discover()]
    assert lines[-2].startswith(f"{len(listed)} checks in ")
    assert max(map(len, lines)) <= 72


def test_a_check_is_told_in_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    told = run("checks", "storage.secrets").stdout
    for part in (
        "The secrets that open the guest's disks and TPM are known on the target.",
        "Ceph users, iSCSI passwords and encryption keys do not travel with the guest.",
        "judged      for each guest and each target (placement)",
        "severity    high\nblocks      migration\nwould show  when the target starts the guest's QEMU",
        "remedy      virsh secret-dumpxml UUID > secret.xml",
        "            storage.secrets; by hand:\n              virsh -r -q -c qemu:///system secret-list\n",
        "failure 49: no secret matches uuid",
    ):
        assert part in told
    assert max(map(len, told.splitlines())) <= 100


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("storage.disks_shared", "Neither can be waived"),
        (
            "memory.reserve_kept",
            "who signs there accepts it, for that report. The exit status stays 4. Thresholds can be",
        ),
        ("cpu.microcode_equal", "there is nothing to accept"),
    ],
)
def test_how_a_risk_is_accepted_is_told_as_it_is(check: str, says: str):
    assert says in " ".join(run("checks", check).stdout.split())


@pytest.mark.parametrize("check", discover(), ids=lambda check: check.id)
def test_every_check_can_be_told(check: Check, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(commands, ["checks", check.id])
    assert done.exit_code == 0, done.output
    commands_by_hand = {line for probe in check.probes for line in probe.by_hand.splitlines()}
    wide = [line for line in done.output.splitlines() if len(line) > 80 and line.strip() not in commands_by_hand]
    assert wide == []
    assert "not a row" not in done.output


def test_an_active_probe_is_told_with_its_option(monkeypatch: pytest.MonkeyPatch):
    tried = Probe("test.tried", "$sudo true", option="--try", hand="true")
    made = replace(discover()[0], id="test.tried", parameters=(Parameter(Role.OWN, tried_fact(tried)),))
    monkeypatch.setattr(cli_checks, "discover", lambda: (made,))
    told = CliRunner().invoke(commands, ["checks", "test.tried"]).output
    assert "evidence    test.tried, as root, active: asked only with --try; by hand:" in told


def tried_fact(probe: Probe) -> type[HostFact]:
    class Tried(HostFact):
        probes = (probe,)

    return Tried


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("guest_cpu_fits", "cpu.guest_cpu_fits"),
        ("cpu.guest_cpu_fit", "cpu.guest_cpu_fits"),
        ("cpu.gest-cpu_fits", "cpu.guest_cpu_fits"),
        ("storage.disk_shared", "storage.disks_shared"),
    ],
)
def test_a_check_that_does_not_exist_is_a_mistake_with_a_suggestion(asked: str, meant: str):
    done = run("checks", asked)
    assert done.returncode == 2
    assert f"Did you mean {meant}" in done.stderr


def test_one_domain_s_checks_are_listed():
    told = run("checks", "taken").stdout
    assert "taken.vsock_cid" in told
    assert "storage." not in told
    assert "2 checks. " in told


def test_nothing_is_suggested_where_nothing_is_near():
    assert "Did you mean" not in run("checks", "\x1b[31mzzz").stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "/nonexistent"], "manifest.json"),
        (["report", "/nonexistent", "-o", "/tmp"], "No such file"),
        (["audit", "-i", "/nonexistent", "-o", "/tmp/vpf-none"], "No such file"),
        (["audit", "bad name!", "-o", "/tmp/vpf-none"], "host name"),
        (["audit", "kvm01", "--drain", "kvm10", "-o", "/tmp/vpf-none"], "kvm10"),
        (["evaluate"], "BUNDLE"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_a_clear_line_and_status_2(arguments: list[str], says: str):
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_is_never_overwritten(tmp_path: Path):
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    done = run("audit", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
