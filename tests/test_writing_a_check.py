"""docs/writing-a-check.md is true: its package builds, installs, is found, judges; and its code works within, too."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "writing-a-check.md").read_text("utf-8")
FILES: dict[str, str] = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CHECK = "maintenance.not_marked"


def setuptools_builds_wheels() -> bool:
    """By itself, since 70.1; without a network nothing newer can be had."""
    try:
        return [int(part) for part in version("setuptools").split(".")[:2]] >= [70, 1]
    except (PackageNotFoundError, ValueError):
        return False


def run(folder: Path, *arguments: object, path: list[Path]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "100"},
    )
    assert done.returncode in (0, 3, 4, 5), done.stderr + done.stdout
    return done


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The package's folder, and the path on which it is installed together with this very tree."""
    if not setuptools_builds_wheels():
        pytest.skip("setuptools 70.1 or newer builds the package, and is not installed here")
    folder = written(tmp_path_factory.mktemp("outside") / "site-preflight", FILES)
    place = folder.parent / "installed"
    pip = ("-m", "pip", "-q", "install", "--no-index", "--no-build-isolation", "--no-deps", "--target", place, ".")
    assert run(folder, *pip, path=[]).returncode == 0
    return folder, [place, ROOT]


def test_the_page_has_all_files_of_the_package():
    assert set(FILES) == {
        "pyproject.toml",
        "site_preflight/__init__.py",
        "site_preflight/facts.py",
        "site_preflight/maintenance.py",
        "tests/test_maintenance.py",
    }


def test_the_package_is_found_and_told(installed):
    folder, path = installed
    told = run(folder, "-m", "audit.cli", "checks", CHECK, path=path).stdout
    assert "The target is not marked for maintenance." in told
    assert "cat /etc/maintenance" in told
    assert "maintenance (1): Maintenance: work on a host" in run(folder, "-m", "audit.cli", "checks", path=path).stdout


def test_the_package_s_own_test_passes(installed):
    folder, path = installed
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", path=path)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_the_package_judges_this_machine(installed, tmp_path: Path):
    folder, path = installed
    run(folder, "-m", "audit.cli", "collect", "-o", tmp_path / "here", path=path)
    assert judged(run(folder, "-m", "audit.cli", "evaluate", tmp_path / "here", path=path)) == "pass"


@pytest.mark.parametrize(
    ("note", "status"), [("open\n", "pass"), ("closed new fans\n", "fail"), ("closing\n", "unknown"), (None, "unknown")]
)
def test_the_code_works_within(tmp_path: Path, note: str | None, status: str):
    """In a copy of the tree, on a sample whose hosts have answered."""
    for name in ("audit", "checks", "report_templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    moved = {
        "audit/facts/maintenance.py": "site_preflight/facts.py",
        "checks/maintenance.py": "site_preflight/maintenance.py",
    }
    written(
        tmp_path,
        {to: FILES[name].replace("site_preflight.facts", "audit.facts.maintenance") for to, name in moved.items()},
    )
    (tmp_path / "judge.py").write_text(WITHIN)
    arguments = (ROOT / "sample_data" / "uniform" / "bundle", *((note,) if note is not None else ()))
    done = run(tmp_path, "judge.py", *arguments, path=[tmp_path])
    assert judged(done) == status


WITHIN = """
import sys
from dataclasses import replace
from pathlib import Path

from audit.evaluate import evaluate
from audit.evidence import Bundle, Evidence
from audit.judge import discover
from audit.results import dumps

bundle = Bundle.read(Path(sys.argv[1]))
said = {"site.maintenance": Evidence("site.maintenance", 0, sys.argv[2].encode())} if sys.argv[2:] else {}
hosts = {name: replace(host, outputs={**host.outputs, **said}) for name, host in bundle.hosts.items()}
sys.stdout.write(dumps(evaluate([replace(bundle, hosts=hosts)], discover())))
"""


def judged(done: subprocess.CompletedProcess[str]) -> str:
    """The one status that the check came to, for however many hosts."""
    [check] = [check for check in json.loads(done.stdout)["checks"] if check["id"] == CHECK]
    [status] = [status for status, times in check["counts"].items() if times]
    return status
