"""Guests of session connections."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.sessions import PROCESSES, SessionGuest, Sessions


def test_kinds(said):
    text = "10 107 system web01\n11 1000 session my guest\n12 1000 session \n13 0 other \nend\n"
    sessions = Sessions.parse(said({PROCESSES.name: text}))
    assert sessions.guests == (SessionGuest(1000, ""), SessionGuest(1000, "my guest"))
    assert sessions.foreign == 1


def test_none(said):
    assert Sessions.parse(said({PROCESSES.name: "end\n"})) == Sessions((), 0)


@pytest.mark.parametrize("text", ["", "hidden\n", "10 107 system x\n", "10 107 strange x\nend\n", "x\nend\n"])
def test_unknown(said, text):
    with pytest.raises((Unavailable, ValueError, LookupError)):
        Sessions.parse(said({PROCESSES.name: text}))


@given(st.text(max_size=80))
def test_any_text(text):
    output = Evidence(PROCESSES.name, status=0, stdout=text.encode("utf-8", "replace"))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        Sessions.parse(Said(HostEvidence("h", {PROCESSES.name: output})))


def test_the_probe_finds_a_process_that_looks_like_a_session_guest(said, tmp_path):
    """A stand-in for QEMU with a hostile name: what counts is how the probe reads command lines."""
    fake = tmp_path / "qemu-system-x86"
    shutil.copy("/bin/sleep", fake)
    name = "guest=evil\n99 0 system forged,debug-threads=on"
    arguments = ["30", "-name", name, str(Path("/home/u/.config/libvirt/qemu/lib/domain-1-evil"))]
    # sleep refuses to run with these arguments, so a shell keeps the process alive under that name
    shutil.copy("/bin/sh", fake)
    process = subprocess.Popen([str(fake), "-c", "read -r line", *arguments], stdin=subprocess.PIPE)
    try:
        time.sleep(0.2)
        done = subprocess.run(["sh", "-c", PROCESSES.command], capture_output=True)
        sessions = Sessions.parse(said({PROCESSES.name: done.stdout}))
    finally:
        process.communicate(b"\n")
    assert SessionGuest(os.getuid(), "evil") in sessions.guests
    assert b"forged" not in done.stdout
