"""The commands as scripts meet them: exit status, what goes to which stream, and one clear line for a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_checks_are_listed_and_explained():
    listed = run("checks").stdout.splitlines()
    assert len(listed) > 50
    first = listed[0].split()[0]
    told = run("checks", first).stdout
    assert first in told
    assert "evidence:" in told
    assert run("checks", "no.such_check").returncode == 2


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
