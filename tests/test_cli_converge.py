"""`converge` as people meet it: a paste in, words and an exit status out."""

import json
import subprocess
import sys

import pytest

EXAMPLE = """\
# virsh domjobinfo vm-name

Job type:         Unbounded
Operation:        Outgoing migration
Time elapsed:     168286974    ms
Data processed:   26.106 TiB
Data remaining:   34.383 MiB
Data total:       10.586 TiB
Memory processed: 26.106 TiB
Memory remaining: 34.383 MiB
Memory total:     10.586 TiB
Memory bandwidth: 29.056 MiB/s
Dirty rate: 17225 pages/s
Page size: 4096 bytes
"""  # RHEL 9 §12.9.1
COPYING = """\
Job type:         Unbounded
Operation:        Outgoing migration
Time elapsed:     1286         ms
Data processed:   512.000 MiB
Data remaining:   1.500 GiB
Data total:       2.000 GiB
File processed:   512.000 MiB
File remaining:   1.500 GiB
File total:       2.000 GiB
"""  # with --copy-storage-all, before the memory's turn
MEASURED = """\
Domain: 'vm-name'
  dirtyrate.calc_status=2
  dirtyrate.calc_start_time=200942
  dirtyrate.calc_period=30
  dirtyrate.megabytes_per_second=2
"""  # RHEL 9 §12.6


def run(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "audit.cli", "converge", *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_the_example_of_the_document(tmp_path):
    done = run(EXAMPLE)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "It does not converge: the guest changes 67.3 MiB/s of its memory, the network carries 29.1 MiB/s."
    )
    assert "virsh migrate-setmaxdowntime vm-name 1800" in done.stdout
    (tmp_path / "paste").write_text(EXAMPLE)
    assert run("", str(tmp_path / "paste")).stdout == done.stdout
    assert run(EXAMPLE, "--guest", "my guest").stdout.count("'my guest'") >= 4


def test_json():
    done = run(EXAMPLE, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["word"], found["downtime_ms"]) == (3, "does not converge", 1800)
    assert found["fixes"][1]["command"].endswith("virsh migrate-setmaxdowntime vm-name 1800")


def test_it_converges():
    fast = EXAMPLE.replace("29.056 MiB/s", "1.100 GiB/s").replace("10.586 TiB", "64.000 GiB")
    done = run(fast)
    assert done.returncode == 0
    assert done.stdout.startswith("It converges: ")
    assert "What helps" not in done.stdout
    assert run(EXAMPLE.replace("29.056 MiB/s", "100.000 MiB/s")).stdout.startswith("It may converge, but not by much")


def test_a_migration_to_come():
    done = run(MEASURED)
    assert done.returncode == 5
    assert "--bandwidth" in done.stdout
    assert run(MEASURED, "--bandwidth", "100").returncode == 0
    slow = run(MEASURED, "--bandwidth", "2", "--memory", "4096")
    assert slow.returncode == 3
    assert "virsh migrate --live --postcopy vm-name" in slow.stdout
    assert run(MEASURED.replace("calc_status=2", "calc_status=1")).returncode == 5


def test_both_pasted():
    assert run(MEASURED + EXAMPLE).returncode == 3
    assert run(MEASURED + "Job type:         None\n", "--bandwidth", "100").returncode == 0


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("Job type:         None\n", 5, "No job"),
        (EXAMPLE.replace("Outgoing", "Incoming"), 5, "ask on the source"),
        (EXAMPLE.replace("Outgoing migration", "Backup"), 5, "no migration under way"),
        (EXAMPLE.replace("Unbounded", "Completed"), 0, "has completed after 46.7 h"),
        (EXAMPLE.replace("Unbounded", "Failed"), 5, "failed"),
        (EXAMPLE + "Postcopy requests: 12\n", 0, "post-copy already"),
        (EXAMPLE.replace("Dirty rate: 17225", "Dirty rate: 0"), 5, "the dirty rate is not known"),
        (COPYING, 5, "not being copied yet, 1.5 GiB of its disks are left"),
    ],
)
def test_nothing_to_reckon(text, status, words):
    done = run(text)
    assert (done.returncode, words in done.stdout) == (status, True), done.stdout
    assert run(text, "--json").returncode == status


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no line `Job type:`"),
        ("Type de tâche : Illimité\n", "LC_ALL=C"),
        (EXAMPLE.replace("Dirty rate", "Dirt"), "no line `Dirty rate:`"),
        (EXAMPLE.replace("34.383 MiB", "34,383 MiB"), "Memory remaining"),
        (EXAMPLE + "x" * 1024 * 1024, "larger than"),
    ],
)
def test_not_understood(text, words):
    done = run(text.replace("Data remaining:   34,383 MiB\n", ""))
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_no_such_file():
    assert run("", "/nonexistent").returncode == 2


def test_hostile_names_are_quoted():
    done = run(MEASURED.replace("vm-name", "a; rm -rf /\x1b[31m"), "--bandwidth", "2")
    assert "\x1b" not in done.stdout
    assert "'a; rm -rf /" in done.stdout
