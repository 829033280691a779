"""This machine, asked without SSH: the same script, the same frames."""

import subprocess
from collections.abc import Callable, Sequence

from audit.transports import Answers, Asked
from audit.transports.shell import CHUNK, Conversation, Deadline, Round


class LocalTransport:
    """Runs the probes in a shell of this machine, as the user who runs this program."""

    def __init__(self, *, sudo: bool = True) -> None:
        self._sudo = sudo

    def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
        """See `Transport.ask`."""
        this = Round(asked, self._sudo)
        try:
            process = subprocess.Popen(  # noqa: S603  # a constant command of this project
                ["sh", "-c", this.command],  # noqa: S607  # the shell that PATH finds, as over SSH
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            return Answers(problem=f"sh: {error.strerror}")
        connected()
        try:
            said = _converse(process, this.input, Deadline(seconds))
        finally:
            process.kill()  # the probe that it may be running ends by its own time limit
            process.wait()
        return this.answers(*said)


def _converse(process: subprocess.Popen[bytes], data: bytes, deadline: Deadline) -> tuple[bytes, bytes, str]:
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None

    def feed() -> None:
        with stdin:
            rest = memoryview(data)
            while rest:
                rest = rest[stdin.write(rest) :]

    said = Conversation(feed, lambda: stdout.read(CHUNK), lambda: stderr.read(CHUNK)).hold(deadline)
    if not said[2]:  # else a reader may still be at it
        stdout.close()
        stderr.close()
    return said
