"""Where evidence comes from: one seam, so that the rest does not care whether a host was asked over SSH.

`ssh` and `local` run the probes in the host's own shell; a `FakeTransport` answers from a table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from audit.evidence import Evidence, Probe

Records = tuple[tuple[str, ...], ...]
Secret = Callable[[str], str | None]
"""Gives the answer to a prompt ("Password of root"), or None when there is nobody to ask."""


class Asked(NamedTuple):
    """A probe to run; of a question, with its records, which it reads NUL-separated from standard input."""

    probe: Probe
    records: Records = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back. `problem` tells why nothing did; `privilege` is as in `HostEvidence`."""

    outputs: Mapping[str, Evidence] = field(default_factory=dict)
    problem: str = ""
    privilege: str = ""


class Transport(Protocol):
    """The way to one host."""

    def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
        """Run the probes one after the other, in `seconds` altogether, and never raise for what the host does.

        `connected` is called when the host is reached and the asking begins. Every probe that was asked has
        its evidence in the answer, unless the answer has a problem.
        """
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """How to log in. What is None is left to the ssh configuration."""

    address: str
    """What one would type after `ssh`: a name, an IP address, or a `Host` of the ssh configuration."""
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    jump: str | None = None
    """As for `ssh -J`: `[user@]host[:port]`, several separated by commas; `none` for a direct way."""
    sudo: bool = True


class FakeTransport:
    """Answers from a table: for tests and demonstrations."""

    def __init__(self, outputs: Mapping[str, Evidence], problem: str = "", privilege: str = "root") -> None:
        self._answers = Answers(outputs, problem, privilege)
        self.asked: list[Asked] = []

    def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:  # noqa: ARG002
        """What the table has; a probe that is not in it was not found on the host."""
        self.asked += asked
        if self._answers.problem:
            return Answers(problem=self._answers.problem)
        connected()
        missing = b"sh: 1: not found"
        outputs = {
            probe.name: self._answers.outputs.get(probe.name, Evidence(probe.name, status=127, stderr=missing))
            for probe, _ in asked
        }
        return Answers(outputs, "", self._answers.privilege)
