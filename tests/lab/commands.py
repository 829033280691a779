"""How the lab runs commands: always with an end, never by a name that others may bear."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C", "HOME": "/root", "TERM": "dumb"}
NO_END = 124


class LabError(Exception):
    """The lab did not do what it was asked to; the message has the command's own words."""


@dataclass(frozen=True)
class Done:
    """A command that ended, or had to (124, as of `timeout`)."""

    status: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it said about its failure."""
        return self.err.strip() or self.out.strip()


def run(*words: str, stdin: str = "", seconds: float = 120) -> Done:
    """Run a command to its end. What is no UTF-8 in its output is replaced."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
        start_new_session=True,
    )
    late = ""
    try:
        out, err = process.communicate(stdin.encode(), seconds)
    except subprocess.TimeoutExpired:
        late = f"\nno end after {seconds:.0f} s"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    status = NO_END if late else process.returncode
    return Done(status, out.decode(errors="replace"), err.decode(errors="replace") + late)


def must(what: str, done: Done) -> str:
    """What a command printed that has to work; a LabError with its words otherwise."""
    if done.status:
        raise LabError(f"{what}: exit status {done.status}: {done.words}")
    return done.out


def children(pid: int) -> list[int]:
    """The processes whose parent this one is."""
    return [int(word) for word in run("ps", "-o", "pid=", "--ppid", str(pid)).out.split()]


def wait(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so; a LabError, if it does not come."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
