"""The script that a host's `sh` runs, and how its two output streams become evidence.

All probes travel as one script on standard input, behind a constant bootstrap command that every login
shell passes on unchanged (fish and csh too). Between the probes the script prints marker lines on standard
output and standard error alike, each with a random word that no probe gets to see: what lies between two
markers is the probe's, byte for byte, and what lies outside (banner, profile, motd) is nobody's.
A question's records follow the script on standard input, where they are never read as commands.
"""

import contextlib
import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from audit.evidence import Evidence
from audit.text import visible
from audit.transports import Answers, Asked, Records

STREAM_LIMIT = 64 * 1024 * 1024  # bytes of standard output, and of standard error, kept of one host and round
STDERR_LIMIT = 64 * 1024  # bytes of standard error kept of one probe; what is longer is cut
SUDO_SECONDS = 20
CHUNK = 65536

# POSIX sh that must run under dash, busybox and bash 3. $1… of `probe`: name, seconds, limit, command, bytes of input.
_PRELUDE = """\
exec 4>&1
cd / || exit
umask 077
LC_ALL=C LANGUAGE=C SYSTEMD_PAGER=cat PAGER=cat TERM=dumb
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec
export LC_ALL LANGUAGE SYSTEMD_PAGER PAGER TERM PATH
renice -n 19 -p $$ >/dev/null 2>&1
ionice -c 3 -p $$ >/dev/null 2>&1
timeout -k 2 9 true >/dev/null 2>&1 && timeout=timeout || timeout=

mark() {
  printf '\\n%s %s\\n' "$nonce" "$*" >&4 || exit
  printf '\\n%s %s\\n' "$nonce" "$*" >&2
}

clock() {
  now=-
  read -r now rest </proc/uptime
} 2>/dev/null

limited() {
  if [ "$timeout" ]; then timeout -k 2 "$1" sh -c "$2"; else sh -c "$2"; fi
} 3>&- 4>&- 5>&-

fed() {
  if [ "$1" = 0 ]; then
    limited "$2" "$3" </dev/null
  else
    # dd takes exactly its bytes, whatever becomes of the command, so that the next question finds its own.
    dd bs=1 count="$1" 2>/dev/null | (limited "$2" "$3"; s=$?; cat >/dev/null; exit "$s")
  fi
}

probe() {
  sudo= seconds=$2
  if [ "$privilege" = sudo ]; then
    # A timeout that runs as the user cannot kill what sudo started: root's own does, and the user's comes after it.
    sudo="sudo -n${timeout:+ timeout -k 2 $2}" seconds=$(($2 + 3))
  fi
  export sudo
  mark begin "$1"
  clock
  began=$now
  status=$({ { { fed "$5" "$seconds" "$4"; echo "$?" >&3; } 2>&1 1>&5 |
    { head -c STDERR_LIMIT; cat >/dev/null; } >&2; } 5>&1 |
    head -c "$(($3 + 1))" >&4; } 3>&1)
  clock
  mark end "$1" "${status:--}" "$began" "$now"
}

mark begin _privilege
if [ "$(id -u)" = 0 ]; then privilege=root
elif [ "$allowed" = 0 ]; then privilege='user: sudo not allowed by the inventory'
elif ! command -v sudo >/dev/null; then privilege='user: sudo is not installed'
elif reason=$(limited SUDO_SECONDS 'sudo -n true' </dev/null 2>&1); then privilege=sudo
else privilege="user: ${reason:-sudo -n true failed}"
fi
printf '%s' "$privilege" >&4
mark end _privilege 0 - -
""".replace("STDERR_LIMIT", str(STDERR_LIMIT)).replace("SUDO_SECONDS", str(SUDO_SECONDS))


class Deadline:
    """So many seconds from now, not counting the time that a person takes to answer a prompt."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left. Raises `TimeoutError` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(self.problem)
        return left

    def extend(self, seconds: float) -> None:
        """Do not count `seconds` that have passed."""
        self._end += seconds

    @property
    def problem(self) -> str:
        """What there is to say when it has passed."""
        return f"no answer within {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Round:
    """One exec on one host: what to send, and how to read what comes back."""

    asked: Sequence[Asked]
    sudo: bool
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def command(self) -> str:
        """The command to execute: any login shell hands it on to `sh` as it is."""
        return f"""sh -c 'eval "$(dd bs=1 count={len(self._script)} 2>/dev/null)"'"""

    @property
    def input(self) -> bytes:
        """What to send on standard input: the script, then the records of the questions in it."""
        return self._script + b"".join(_packed(asked.records) for asked in self.asked)

    @property
    def _script(self) -> bytes:
        lines = [f"nonce={self.nonce} allowed={int(self.sudo)}", _PRELUDE]
        for probe, records in self.asked:
            command = shlex.quote(probe.command.strip())
            lines.append(f"probe {probe.name} {probe.seconds} {probe.limit} {command} {len(_packed(records))}")
        return ("\n".join(lines) + "\n").encode()

    def answers(self, stdout: bytes, stderr: bytes, problem: str) -> Answers:
        """The evidence in what the host said until it ended, or until `problem`."""
        out, err = self._frames(stdout), self._frames(stderr)
        greeting = out.get("_privilege")
        if greeting is None:
            return Answers(problem=problem or _said_instead(stdout, stderr))
        outputs = {asked.probe.name: self._evidence(asked, out, err, problem) for asked in self.asked}
        return Answers(outputs, "", _last_line(greeting.data, 200))

    def _frames(self, stream: bytes) -> dict[str, "_Frame"]:
        """The stretches between `begin` and `end`, by name; the last one may lack its end."""
        frames: dict[str, _Frame] = {}
        name, start = "", 0
        for found in re.finditer(rb"\n" + self.nonce.encode() + rb" (begin|end) (\S+)([^\n]*)\n", stream):
            if found[1] == b"begin":
                name, start = found[2].decode("ascii", "replace"), found.end()
            elif name:
                frames[name] = _Frame(stream[start : found.start()], tuple(found[3].decode("ascii", "replace").split()))
                name = ""
        if name:
            frames[name] = _Frame(stream[start:])
        return frames

    def _evidence(self, asked: Asked, out: dict[str, "_Frame"], err: dict[str, "_Frame"], problem: str) -> Evidence:
        probe, records = asked
        frame = out.get(probe.name)
        if frame is None:
            return Evidence(probe.name, problem=f"not run: {problem or 'connection lost'}", arguments=records)
        stderr = err.get(probe.name, _Frame()).data[:STDERR_LIMIT]
        stdout = frame.data[: probe.limit]
        if not frame.end:
            reason = problem or "connection lost before it ended"
            return Evidence(probe.name, stdout=stdout, stderr=stderr, problem=reason, arguments=records)
        status, seconds = frame.status, frame.seconds
        return Evidence(
            probe=probe.name,
            status=status,
            stdout=stdout,
            stderr=stderr,
            seconds=seconds,
            problem=_shortfall(asked, status, seconds, len(frame.data)),
            arguments=records,
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    data: bytes = b""
    end: tuple[str, ...] = ()
    """Exit status and the host's uptime before and after; empty: it did not end."""

    @property
    def status(self) -> int | None:
        return int(self.end[0]) if self.end[0].isdecimal() else None

    @property
    def seconds(self) -> float:
        try:
            return round(float(self.end[2]) - float(self.end[1]), 3)
        except (ValueError, IndexError):
            return 0.0


def _shortfall(asked: Asked, status: int | None, seconds: float, size: int) -> str:
    """Why a probe that ended cannot be relied upon, "" if it can."""
    probe = asked.probe
    # By the clock and not by the status: within a pipeline nobody sees the 124 of a command that sudo's timeout ended.
    if seconds >= probe.seconds:
        return f"timed out after {probe.seconds} s"
    if size > probe.limit:
        return f"output cut at {probe.limit} bytes"
    return "" if status is not None else "ended without an exit status"


def _packed(records: Records) -> bytes:
    return b"".join(value.encode("utf-8", "surrogateescape") + b"\0" for record in records for value in record)


def _said_instead(stdout: bytes, stderr: bytes) -> str:
    words = _last_line(stderr, 200) or _last_line(stdout, 200)
    return "the login shell did not run the probes" + (f": {words}" if words else "")


def _last_line(data: bytes, limit: int) -> str:
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return visible(lines[-1].strip(), limit) if lines else ""


class Conversation:
    """Both output streams read and the input written at the same time, so that none of the three waits for another."""

    def __init__(self, feed: Callable[[], None], read: Callable[[], bytes], read_stderr: Callable[[], bytes]) -> None:
        self._changed = threading.Event()
        self._problem = ""
        self._buffers = (bytearray(), bytearray())
        self._readers = [
            threading.Thread(target=self._drain, args=(source, buffer), daemon=True)
            for source, buffer in zip((read, read_stderr), self._buffers, strict=True)
        ]
        self._feeder = threading.Thread(target=self._feed, args=(feed,), daemon=True)

    def hold(self, deadline: Deadline) -> tuple[bytes, bytes, str]:
        """Standard output, standard error, and why they are not all there was ("" if they are)."""
        for thread in (*self._readers, self._feeder):
            thread.start()
        try:
            while not self._problem and any(reader.is_alive() for reader in self._readers):
                self._changed.wait(deadline.left())
                self._changed.clear()
        except TimeoutError:
            self._problem = deadline.problem
        return bytes(self._buffers[0]), bytes(self._buffers[1]), self._problem

    def _drain(self, source: Callable[[], bytes], buffer: bytearray) -> None:
        try:
            while data := source():
                buffer += data
                if len(buffer) > STREAM_LIMIT:
                    self._problem = f"more than {STREAM_LIMIT // 1024**2} MiB of output"
                    break
        except (OSError, EOFError):
            pass  # the same as an end: frames tell what is missing
        finally:
            self._changed.set()

    def _feed(self, feed: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):  # the host ended before it read all: its output tells
            feed()
