"""Collection: every host asked in two rounds, many hosts at once. It judges nothing.

The first round asks each host the same probes; the second asks the questions that the first round's facts raise,
after all hosts have been through the first. A host that cannot be reached is evidence, too.
"""

import queue
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TypeVar

from audit.evidence import Bundle, Evidence, HostEvidence, Probe
from audit.facts.base import Facts, GuestFact, GuestReader, HostFact, Question
from audit.inventory import Host, Inventory
from audit.text import visible
from audit.transports import Answers, Asked, Connection, Records, Secret, Transport
from audit.transports.local import LocalTransport
from audit.transports.ssh import Ssh

WORKERS = 32
SECONDS = 120.0
NOTHING: Mapping[str, str] = {}
ARGUMENT_LIMIT = 256 * 1024  # bytes of one question's records to one host; what is cut is not answered

Progress = Callable[[str, str], None]
"""`progress(host, what)`: connecting, asking 60 probes, asking 4 questions, done, or the host's problem."""
Open = Callable[[Host], Transport]
T = TypeVar("T")
R = TypeVar("R")


def probes_of(kinds: Iterable[type[HostFact] | type[GuestFact]]) -> tuple[Probe, ...]:
    """The union of the probes and questions that facts of these kinds are parsed from.

    Raises `ValueError` when two of them share a name.
    """
    union: dict[str, Probe] = {}
    for kind in kinds:
        for probe in kind.probes:
            if union.setdefault(probe.name, probe) != probe:
                raise ValueError(f"two probes are named {probe.name}")
    return tuple(union.values())


def collect(
    inventory: Inventory,
    probes: Sequence[Probe],
    *,
    read_guests: GuestReader,
    tool: str,
    secret: Secret | None = None,
    active: Mapping[str, str] = NOTHING,
    progress: Progress = lambda _host, _what: None,
    workers: int = WORKERS,
    seconds: float = SECONDS,
    ssh_config: Path | None = None,
    open_transport: Open | None = None,
) -> Bundle:
    """The evidence of all hosts of the inventory; `probes` may have questions among them.

    `active`: the options that were given for active probes, with their values ("" for none); others are not run.
    `seconds` bounds each round on each host, the time limits of the active probes added. `secret` answers a prompt
    ("Password of root: "), each at most once; it and `progress` are called in the caller's thread only. `ssh_config` is
    read instead of the user's and the system's files; `open_transport` replaces SSH and the local shell altogether.
    """
    started = now()
    desk = _Desk(progress, secret)
    ssh = Ssh(desk.secret if secret else None, ssh_config)
    opened = open_transport or (lambda host: _transport(host, ssh))
    wanted = [probe for probe in probes if not probe.option or probe.option in active]
    fixed = [Asked(probe) for probe in wanted if not isinstance(probe, Question)]
    # Active ones last: where they take all the time there is, nothing else is lost.
    questions = sorted((p for p in wanted if isinstance(p, Question)), key=lambda question: bool(question.option))
    hosts = inventory.hosts
    try:
        first = desk.each(hosts, lambda host: _first(host, opened, fixed, seconds, desk), workers)
        found = {evidence.host: evidence for evidence in first}
        asked = _questions(inventory, found, questions, read_guests, active)
        second = desk.each(
            hosts, lambda host: _second(found[host.name], host, opened, asked[host.name], seconds, desk), workers
        )
    finally:
        ssh.close()
    return Bundle(
        run_id=secrets.token_hex(8),
        tool=tool,
        started=started,
        finished=now(),
        inventory=inventory.to_json(),
        hosts={evidence.host: evidence for evidence in second},
        active=dict(active),
    )


def _transport(host: Host, ssh: Ssh) -> Transport:
    if host.local:
        return LocalTransport(sudo=host.sudo)
    return ssh.to(Connection(host.address or host.name, host.port, host.user, host.identity_file, host.jump, host.sudo))


def _ask(host: Host, opened: Open, asked: Sequence[Asked], what: str, seconds: float, desk: "_Desk") -> Answers:
    desk.say(host.name, "connecting")
    try:
        return opened(host).ask(asked, seconds, lambda: desk.say(host.name, f"asking {len(asked)} {what}"))
    except Exception as error:  # noqa: BLE001  # our bug with one host must not cost the evidence of the others
        return Answers(problem=f"failure of this program: {visible(repr(error))}")


def _first(host: Host, opened: Open, asked: Sequence[Asked], seconds: float, desk: "_Desk") -> HostEvidence:
    started = now()
    answers = _ask(host, opened, asked, "probes", seconds, desk)
    desk.say(host.name, answers.problem or "asked")
    return HostEvidence(host.name, answers.outputs, answers.problem, answers.privilege, started, now())


def _second(
    first: HostEvidence, host: Host, opened: Open, questions: Sequence[Asked | Evidence], seconds: float, desk: "_Desk"
) -> HostEvidence:
    """The first round's evidence with the answers to the questions."""
    if first.problem:
        return first
    outputs = {ready.probe: ready for ready in questions if isinstance(ready, Evidence)}
    asked = [question for question in questions if isinstance(question, Asked)]
    if asked:
        longer = sum(question.probe.seconds for question in asked if question.probe.option)
        answers = _ask(host, opened, asked, "questions", seconds + longer, desk)
        for probe, records in asked:
            unasked = Evidence(probe.name, problem=f"not run: {answers.problem}", arguments=records)
            outputs[probe.name] = answers.outputs.get(probe.name, unasked)
    desk.say(host.name, "done")
    return replace(first, outputs={**first.outputs, **outputs}, finished=now())


def _questions(
    inventory: Inventory,
    found: Mapping[str, HostEvidence],
    questions: Sequence[Question],
    read_guests: GuestReader,
    active: Mapping[str, str],
) -> dict[str, list[Asked | Evidence]]:
    """What to ask of each host in the second round, or the evidence where there is nothing to ask."""
    asked: dict[str, list[Asked | Evidence]] = {}
    for cluster in inventory.clusters:
        names = [host.name for host in cluster.hosts]
        facts = Facts({name: found[name] for name in names}, read_guests)
        for name in names:
            peers = [peer for peer in names if peer != name]
            asked[name] = [
                _asked(question, facts, name, peers, active.get(question.option, "")) for question in questions
            ]
    return asked


def _asked(question: Question, facts: Facts, host: str, peers: Sequence[str], value: str) -> Asked | Evidence:
    try:
        records = _records(question, facts, host, peers, value)
    except Exception as error:  # noqa: BLE001  # our bug with one question must not cost the evidence there is
        return Evidence(question.name, problem=f"not asked: failure of this program: {visible(repr(error))}")
    return Asked(question, records) if records else Evidence(question.name, status=0)


def _records(question: Question, facts: Facts, host: str, peers: Sequence[str], value: str) -> Records:
    """The question's records within its bounds, without those that cannot be told to a host."""
    records: list[tuple[str, ...]] = []
    size = 0
    for record in question.ask(facts, host, peers):
        record = (*record, value) if value else record
        if len(record) != question.arity:
            raise ValueError(f"{question.name}: a record of {len(record)} values, not {question.arity}")
        try:
            length = sum(len(value.encode("utf-8", "surrogateescape")) + 1 for value in record)
        except UnicodeEncodeError:
            continue
        if any("\0" in value for value in record) or size + length > ARGUMENT_LIMIT:
            continue
        records.append(tuple(record))
        size += length
        if len(records) == question.maximum:
            break
    return tuple(records)


def now() -> str:
    """The time as evidence, results and reports state it: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Desk:
    """Where worker threads bring what concerns the person: it is dealt with in the thread that collects."""

    def __init__(self, progress: Progress, secret: Secret | None) -> None:
        self._progress = progress
        self._secret = secret
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._known: dict[str, str | None] = {}
        self._waiting: Future[str | None] | None = None
        self._lock = Lock()

    def say(self, host: str, what: str) -> None:
        """Tell the progress of a host."""
        self._jobs.put(lambda: self._progress(host, visible(what)))

    def secret(self, prompt: str) -> str | None:
        """The answer to a prompt, asked for once and kept in memory until the run ends."""
        with self._lock:
            if prompt not in self._known:
                answer: Future[str | None] = Future()
                self._waiting = answer
                self._jobs.put(lambda: answer.set_result(self._secret(f"{prompt}: ") if self._secret else None))
                self._known[prompt] = answer.result()
            return self._known[prompt]

    def each(self, items: Sequence[T], work: Callable[[T], R], workers: int) -> list[R]:
        """`work` on all items, `workers` at a time, their words dealt with meanwhile."""
        pool = ThreadPoolExecutor(max(1, workers))
        futures = [pool.submit(work, item) for item in items]
        left = [len(futures)]

        def one_less() -> None:
            left[0] -= 1

        for future in futures:
            future.add_done_callback(lambda _: self._jobs.put(one_less))
        try:
            while left[0]:
                self._jobs.get()()
            return [future.result() for future in futures]
        except BaseException:  # an interrupt, too: let go of the threads, or the program would not end
            if self._waiting and not self._waiting.done():
                self._waiting.set_result(None)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
