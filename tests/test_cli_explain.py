"""`explain` as people meet it: an error message in, plain words and an exit status out."""

import json
import subprocess
import sys

import pytest

REFUSED = "error: Cannot access storage file '/srv/shared/f1.raw': No such file or directory"


def run(*arguments: str, pasted: bytes | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "audit.cli", "explain", *arguments],
        input=pasted or b"",
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_message_is_explained():
    status, out, _ = run(REFUSED)
    assert status == 0
    assert out.startswith("“Cannot access storage file '/srv/shared/f1.raw': No such file”\ncause ")
    assert "\n              ls -ld /srv/shared/f1.raw\n" in out
    assert "\nforeseen by storage.disks_reachable: Every disk, CD-ROM and floppy image exists" in out
    assert out.endswith("\nsee         virt-preflight checks storage.disks_reachable\n")


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_session_is_pasted(arguments: tuple[str, ...]):
    status, out, _ = run(*arguments, pasted=f"# virsh migrate …\n{REFUSED}\n".encode() + b"\xff\xfe")
    assert status == 0
    assert "storage.disks_reachable" in out


def test_words_need_no_quotes():
    assert run("error:", "domain", "has", "active", "block", "job")[0] == 0
    assert run("-vnc 0.0.0.0:5: Failed to bind socket: Address already in use")[0] == 0


def test_what_no_check_foresees_says_why():
    status, out, _ = run("error: operation aborted: migration out job: canceled by client")
    assert status == 0
    assert "\nunforeseen  Somebody or something ended the migration" in out


def test_what_is_not_known_says_where_to_look():
    status, out, _ = run("error: out of cheese")
    assert status == 5
    assert out.startswith("Nothing in this text is known.")
    assert "/var/log/libvirt/qemu/GUEST.log" in out


def test_news_that_something_failed_is_no_explanation():
    status, out, _ = run("error: internal error: QEMU unexpectedly closed the monitor (vm='web1')")
    assert status == 5
    assert "That says only that something failed." in out
    assert "unforeseen  It says that QEMU ended, not why." in out


@pytest.mark.parametrize("pasted", [b"", b" \n"])
def test_no_text_is_a_mistake(pasted: bytes):
    status, out, err = run(pasted=pasted)
    assert (status, out) == (2, "")
    assert "no text" in err


def test_the_same_as_json():
    status, out, _ = run("--json", REFUSED)
    told = json.loads(out)
    assert status == 0
    assert told["format"] == "virt-preflight/explanations/1"
    [one] = told["explanations"]
    assert set(one) == {"id", "depth", "words", "cause", "remedy", "commands", "checks", "why_not", "seen"}
    assert (one["id"], one["depth"], one["commands"][0]) == ("image-missing", "cause", "ls -ld /srv/shared/f1.raw")
    assert one["checks"][0]["id"] == "storage.disks_reachable"
    assert json.loads(run("--json", "out of cheese")[1])["explanations"] == []


def test_a_log_is_read_from_its_end():
    status, out, _ = run(pasted=b"nothing known\n" * 10_000 + REFUSED.encode())
    assert status == 0
    assert out.startswith("Only the last 64 KiB were looked at.\n")


def test_a_check_tells_what_would_be_said():
    done = subprocess.run(
        [sys.executable, "-m", "audit.cli", "checks", "storage.cache_mode"], capture_output=True, text=True, timeout=60
    )
    assert "would say   error: Unsafe migration: Migration may lead to data corruption" in done.stdout
