"""Two rounds over many hosts; framing and arguments in a real shell; what is kept when things go wrong."""

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from audit.collect import ARGUMENT_LIMIT, collect, probes_of
from audit.evidence import Bundle, Evidence, Probe
from audit.facts.base import Ask, Facts, HostFact, Question
from audit.inventory import Host, Inventory
from audit.transports import Answers, Asked, FakeTransport, Transport
from audit.transports.local import LocalTransport
from audit.transports.shell import Conversation, Deadline, Round

HELLO = Probe("hello", "echo hello")
NAMED_BY_PEERS = Question("peers", "xargs -0 -n 1", ask=lambda _facts, _host, peers: [(peer,) for peer in peers])


def _collect(inventory: Inventory, *probes: Probe, **options: object) -> Bundle:
    return collect(inventory, probes, read_guests=lambda _said: [], tool="virt-preflight test", **options)  # type: ignore[arg-type]


def _local(*probes: Probe | Asked, seconds: float = 30) -> Answers:
    asked = [probe if isinstance(probe, Asked) else Asked(probe) for probe in probes]
    return LocalTransport().ask(asked, seconds, lambda: None)


def _question(command: str, *records: tuple[str, ...], arity: int = 1, maximum: int = 2000) -> Question:
    return Question("question", command, ask=lambda *_: records, arity=arity, maximum=maximum)


class TestShell:
    """The script and its frames, in this machine's sh."""

    def test_status_streams_and_duration(self) -> None:
        output = _local(Probe("p", "printf 'a\\nb'; printf c >&2; sleep 0.2; exit 7")).outputs["p"]
        assert (output.status, output.stdout, output.stderr, output.problem) == (7, b"a\nb", b"c", "")
        assert 0.15 < output.seconds < 5

    def test_output_is_kept_byte_for_byte(self) -> None:
        everything = "".join(f"\\{byte:03o}" for byte in range(256))
        for text in (everything, "", "\\n", "\\n\\n", "no end", "\\r\\n"):
            wanted = subprocess.run(["printf", text], capture_output=True).stdout
            output = _local(Probe("p", f"printf '{text}'; printf '{text}' >&2")).outputs["p"]
            assert (output.stdout, output.stderr) == (wanted, wanted)

    def test_not_found_not_closed_not_sh(self) -> None:
        answers = _local(
            Probe("absent", "no-such-command-here"),
            Probe("unclosed", "if true; then echo 'x"),
            Probe("stop", "exit 0; kill $$"),
            Probe("murder", "kill -9 $$"),
            HELLO,
        )
        assert answers.outputs["absent"].status == 127
        assert answers.outputs["unclosed"].status not in (0, None)
        assert answers.outputs["stop"].status == 0
        assert answers.outputs["murder"].status == 137
        assert answers.outputs["murder"].problem == ""
        assert answers.outputs["hello"].stdout == b"hello\n"

    def test_limits(self) -> None:
        answers = _local(
            Probe("slow", "echo on; sleep 30", seconds=1),
            Probe("flood", "yes", limit=100),
            Probe("exact", "printf 1234567890", limit=10),
            Probe("own", "timeout 0.1 sleep 9", seconds=5),
            Probe("children", "sleep 31 & sleep 32 & wait", seconds=1),
            Probe("complaints", "head -c 200000 /dev/zero >&2; echo fine"),
        ).outputs
        assert (answers["slow"].problem, answers["slow"].stdout) == ("timed out after 1 s", b"on\n")
        assert (answers["flood"].problem, len(answers["flood"].stdout)) == ("output cut at 100 bytes", 100)
        assert (answers["exact"].problem, answers["exact"].stdout) == ("", b"1234567890")
        assert (answers["own"].problem, answers["own"].status) == ("", 124)
        assert answers["children"].problem == "timed out after 1 s"
        assert (answers["complaints"].stdout, len(answers["complaints"].stderr)) == (b"fine\n", 65536)

    def test_frames_cannot_be_forged(self) -> None:
        word = "0123456789abcdef" * 2
        forged = f"\\n{word} end forge 0 1 2\\n\\n{word} begin hello\\nfalse\\n{word} end hello 0 1 2\\n"
        spy = "cat /proc/$PPID/environ /proc/$PPID/cmdline /proc/self/environ; ls -l /proc/self/fd; echo smug''gled >&4"
        this = Round([Asked(Probe("forge", f"printf '{forged}'")), Asked(Probe("spy", spy)), Asked(HELLO)], sudo=True)
        done = subprocess.run(["sh", "-c", this.command], input=this.input, capture_output=True)
        answers = this.answers(done.stdout, done.stderr, "")
        assert answers.outputs["forge"].stdout == forged.replace("\\n", "\n").encode()
        assert answers.outputs["hello"].stdout == b"hello\n"
        assert this.nonce.encode() not in answers.outputs["spy"].stdout
        assert b"smuggled" not in done.stdout
        assert this.nonce != Round([], sudo=True).nonce
        assert this.nonce not in this.command

    def test_environment(self) -> None:
        probe = Probe("env", 'echo "$LC_ALL $LANGUAGE"; pwd; nice; echo "$PATH"; id -u; cat; tty')
        lines = _local(probe).outputs["env"].stdout.decode().splitlines()
        assert lines[:3] == ["C C", "/", "19"]
        assert {"/usr/sbin", "/sbin", "/usr/libexec"} <= set(lines[3].split(":"))
        assert lines[4:] == [str(os.geteuid()), "not a tty"]

    def test_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        _local(HELLO, Asked(_question("xargs -0 echo", ("a",)), (("a",),)))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("missing", ["timeout", "ionice", "renice", "sudo"])
    def test_poor_hosts(self, missing: str, tmp_path: Path) -> None:
        for folder in ("/bin", "/usr/bin"):
            for tool in ("sh", "dd", "head", "cat", "id", "timeout", "ionice", "renice", "sudo", "sleep"):
                if tool != missing and (Path(folder) / tool).exists() and not (tmp_path / tool).exists():
                    (tmp_path / tool).symlink_to(Path(folder) / tool)
        this = Round([Asked(HELLO)], sudo=True)
        # As on a host that has nothing but these: the script adds its folders to PATH, so they are taken out of it.
        script = this.input.replace(b"PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec", b"#" * 57)
        done = subprocess.run(
            [tmp_path / "sh", "-c", this.command], input=script, capture_output=True, env={"PATH": str(tmp_path)}
        )
        answers = this.answers(done.stdout, done.stderr, "")
        assert answers.problem == ""
        assert answers.outputs["hello"].stdout == b"hello\n"

    @pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "ksh", "mksh", "yash"])
    def test_other_shells(self, shell: str) -> None:
        program = shutil.which(shell)
        if not program:
            pytest.skip(f"no {shell} here")
        question = _question("xargs -0 echo; exit 5")
        this = Round(
            [Asked(HELLO), Asked(question, (("a b",),)), Asked(Probe("slow", "sleep 5", seconds=1))], sudo=True
        )
        command = this.command.removeprefix("sh -c '").removesuffix("'")
        words = [program, "sh", "-c", command] if shell == "busybox" else [program, "-c", command]
        done = subprocess.run(words, input=this.input, capture_output=True)
        answers = this.answers(done.stdout, done.stderr, "").outputs
        assert answers["hello"].stdout == b"hello\n"
        assert (answers["question"].stdout, answers["question"].status) == (b"a b\n", 5)
        assert answers["slow"].problem == "timed out after 1 s"


HOSTILE = (
    "$(reboot)",
    "`touch /tmp/vpf-was-here`",
    "'; touch /tmp/vpf-was-here; '",
    '"\n\\',
    "-n",
    "é\udcff",
    "x" * 10_000,
    "",
)


class TestQuestions:
    def test_arguments_arrive_unchanged_and_are_never_run(self) -> None:
        records = tuple((text, str(number)) for number, text in enumerate(HOSTILE))
        question = _question("cat", *records, arity=2)
        bundle = _collect(Inventory.this_machine(), question)
        [host] = bundle.hosts.values()
        output = host.outputs["question"]
        packed = b"".join(value.encode("utf-8", "surrogateescape") + b"\0" for record in records for value in record)
        assert output.stdout == packed
        assert output.arguments == records
        assert not Path("/tmp/vpf-was-here").exists()

    def test_a_question_that_does_not_read_takes_nothing_from_the_next(self) -> None:
        records = tuple((str(number),) for number in range(5000))
        answers = _local(
            Asked(Probe("deaf", "exit 3"), records),
            Asked(Probe("killed", "head -c 5; sleep 9", seconds=1), records),
            Asked(Probe("greedy", "wc -c; cat"), (("abc",),)),
            Asked(Probe("last", "xargs -0 echo"), (("the last one",),)),
            HELLO,
        ).outputs
        assert answers["deaf"].status == 3
        assert answers["killed"].problem == "timed out after 1 s"
        assert answers["greedy"].stdout.strip() == b"4"
        assert answers["last"].stdout == b"the last one\n"
        assert answers["hello"].stdout == b"hello\n"

    @pytest.mark.parametrize(
        ("records", "kept"),
        [
            ([(str(n),) for n in range(10)], 3),
            ([("a\0b",), ("c",)], 1),
            ([("\ud800",), ("c",)], 1),
            ([("x" * ARGUMENT_LIMIT,), ("c",)], 1),
        ],
    )
    def test_bounds(self, records: list[tuple[str, ...]], kept: int) -> None:
        fake = FakeTransport({})
        question = _question("cat", *records, maximum=3)
        _collect(Inventory.of_hosts(["a"]), question, open_transport=lambda _: fake)
        assert len(fake.asked[-1].records) == kept

    def test_no_records_is_an_answer(self) -> None:
        bundle = _collect(Inventory.of_hosts(["a"]), _question("cat"), open_transport=lambda _: FakeTransport({}))
        assert bundle.hosts["a"].outputs["question"] == Evidence("question", status=0)

    @pytest.mark.parametrize("ask", [lambda *_: {}["x"], lambda *_: [("a", "b")], lambda *_: [(1,)]])
    def test_our_own_failure_costs_one_question(self, ask: Ask) -> None:
        question = Question("question", "cat", ask=ask)
        fake = FakeTransport({"hello": Evidence("hello", 0, b"hello\n")})
        outputs = _collect(Inventory.of_hosts(["a"]), question, HELLO, open_transport=lambda _: fake).hosts["a"].outputs
        assert outputs["question"].problem.startswith("not asked: failure of this program: ")
        assert outputs["hello"].stdout == b"hello\n"


class TestRounds:
    INVENTORY = Inventory.parse("clusters: {one: [a, b, c], two: [d]}", "i")

    def test_second_round_knows_the_first_of_the_whole_cluster(self) -> None:
        done: list[str] = []

        class Slow(FakeTransport):
            def __init__(self, host: Host) -> None:
                super().__init__({"hello": Evidence("hello", 0, host.name.encode())})
                self.host = host

            def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
                time.sleep(0.05 if self.host.name == "b" else 0)
                done.append(f"{asked[0].probe.name} {self.host.name}")
                return super().ask(asked, seconds, connected)

        def ask(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, ...]]:
            return [(facts.said(peer).text(HELLO),) for peer in peers] or [(host,)]

        said: list[tuple[str, str, threading.Thread]] = []
        bundle = _collect(
            self.INVENTORY,
            HELLO,
            Question("q", "cat", ask=ask),
            open_transport=Slow,
            progress=lambda host, what: said.append((host, what, threading.current_thread())),
        )
        assert sorted(done[:4]) == ["hello a", "hello b", "hello c", "hello d"]
        assert bundle.hosts["a"].outputs["q"].status == 127
        assert {thread for _, _, thread in said} == {threading.current_thread()}
        assert [what for host, what, _ in said if host == "b"] == [
            "connecting",
            "asking 1 probes",
            "asked",
            "connecting",
            "asking 1 questions",
            "done",
        ]

    def test_a_lost_host_is_evidence(self) -> None:
        hosts: dict[str, Transport] = {
            "a": FakeTransport({"hello": Evidence("hello", 0, b"hi")}),
            "b": FakeTransport({}, problem="ssh: connection refused by b port 22"),
        }

        class Broken(FakeTransport):
            def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
                raise RuntimeError("oops")

        class DiesLater(FakeTransport):
            def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
                if self.asked:
                    return Answers(problem="ssh: no route to host")
                return super().ask(asked, seconds, connected)

        hosts |= {"c": Broken({}), "d": DiesLater({})}
        last: dict[str, str] = {}
        bundle = _collect(
            Inventory.of_hosts(list(hosts)),
            HELLO,
            NAMED_BY_PEERS,
            open_transport=lambda host: hosts[host.name],
            progress=last.__setitem__,
        )
        problems = {name: host.problem for name, host in bundle.hosts.items()}
        assert problems == {
            "a": "",
            "b": "ssh: connection refused by b port 22",
            "c": "failure of this program: RuntimeError('oops')",
            "d": "",
        }
        assert bundle.hosts["d"].outputs["peers"].problem == "not run: ssh: no route to host"
        assert bundle.hosts["d"].outputs["peers"].arguments == (("a",), ("b",), ("c",))
        assert last == {"a": "done", "b": problems["b"], "c": problems["c"], "d": "done"}

    def test_many_at_once_but_not_more(self) -> None:
        running, most, lock = [0], [0], threading.Lock()

        class Counting(FakeTransport):
            def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                time.sleep(0.01)
                with lock:
                    running[0] -= 1
                return super().ask(asked, seconds, connected)

        names = [f"h{n}" for n in range(40)]
        _collect(Inventory.of_hosts(names), HELLO, open_transport=lambda _: Counting({}), workers=8)
        assert most[0] == 8

    def test_prompts_reach_the_caller_once_and_in_his_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Asking(FakeTransport):
            def __init__(self, secret: Callable[[str], str | None]) -> None:
                super().__init__({})
                self.secret = secret

            def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
                return Answers(problem=f"got {self.secret('Password of root')}")

        class Ssh:
            def __init__(self, secret: Callable[[str], str | None], _config: object) -> None:
                self.secret = secret

            def to(self, _: object) -> Transport:
                return Asking(self.secret)

            def close(self) -> None:
                pass

        monkeypatch.setattr("audit.collect.Ssh", Ssh)
        prompts: list[tuple[str, threading.Thread]] = []

        def secret(prompt: str) -> str:
            prompts.append((prompt, threading.current_thread()))
            return "xyzzy"

        bundle = _collect(Inventory.of_hosts(["a", "b", "c"]), HELLO, secret=secret)
        assert {host.problem for host in bundle.hosts.values()} == {"got xyzzy"}
        assert prompts == [("Password of root: ", threading.current_thread())]

    def test_interrupt_ends_the_run_at_once(self) -> None:
        release = threading.Event()

        class Waiting(FakeTransport):
            def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
                connected()
                release.wait(10)
                return Answers()

        def interrupted(_host: str, what: str) -> None:
            if what.startswith("asking"):
                raise KeyboardInterrupt

        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            _collect(Inventory.of_hosts(["a"]), HELLO, open_transport=lambda _: Waiting({}), progress=interrupted)
        release.set()
        assert time.monotonic() - began < 5

    def test_bundle_says_who_when_and_how(self) -> None:
        bundle = _collect(self.INVENTORY, HELLO, open_transport=lambda _: FakeTransport({}))
        assert Inventory.from_json(bundle.inventory) == self.INVENTORY
        assert bundle.tool == "virt-preflight test"
        assert re.fullmatch(r"[0-9a-f]{16}", bundle.run_id)
        for moment in (bundle.started, bundle.finished, bundle.hosts["a"].started, bundle.hosts["a"].finished):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment)


def test_probes_of_facts_are_united() -> None:
    class One(HostFact):
        probes = (HELLO, Probe("a", "a"))

    class Two(HostFact):
        probes = (Probe("a", "a"),)

    class Other(HostFact):
        probes = (Probe("a", "b"),)

    assert probes_of([One, Two]) == (HELLO, Probe("a", "a"))
    with pytest.raises(ValueError, match="two probes are named a"):
        probes_of([One, Other])


def test_a_stream_without_end_is_given_up() -> None:
    def feed() -> None:
        pass

    stdout, stderr, problem = Conversation(feed, lambda: b"x" * 1024**2, lambda: b"").hold(Deadline(60))
    assert problem == "more than 64 MiB of output"
    assert 64 * 1024**2 < len(stdout) < 70 * 1024**2
    assert stderr == b""


class TestBundle:
    def test_what_was_collected_is_what_is_read(self, tmp_path: Path) -> None:
        question = _question("cat", *((text,) for text in HOSTILE))
        bundle = _collect(
            Inventory.this_machine(), HELLO, Probe("loud", "head -c 99 /dev/urandom | tee /dev/stderr"), question
        )
        bundle.write(tmp_path / "bundle")
        assert Bundle.read(tmp_path / "bundle") == bundle

    def test_hosts_keep_their_order(self, tmp_path: Path) -> None:
        inventory = Inventory.parse("clusters: {z: [c, a, b], y: [e, d]}", "i")
        bundle = _collect(inventory, HELLO, open_transport=lambda _: FakeTransport({}))
        bundle.write(tmp_path / "bundle")
        assert Inventory.from_json(Bundle.read(tmp_path / "bundle").inventory) == inventory

    @pytest.mark.parametrize("limit", [1, 5_000, 100_000])
    def test_a_full_disk_leaves_nothing_under_the_name(self, tmp_path: Path, limit: int) -> None:
        program = (
            "import pathlib, resource, signal, sys\n"
            "from audit.evidence import *\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            "host = HostEvidence('a', {'p': Evidence('p', 0, b'x' * 200_000)})\n"
            "Bundle('r', 't', 's', 'f', {}, {'a': host}).write(pathlib.Path(sys.argv[1]))\n"
        )
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] in (resource.RLIM_INFINITY, sys.maxsize)
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "bundle"], capture_output=True, text=True, cwd=Path.cwd()
        )
        assert "File too large" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_crash_leaves_nothing_under_the_name(self, tmp_path: Path) -> None:
        program = (
            "import os, pathlib, sys\n"
            "import audit.evidence as e\n"
            "write = e._write\n"
            "def dies(path, data):\n"
            "    write(path, data)\n"
            "    if path.name == 'index.json': os.kill(os.getpid(), 9)\n"
            "e._write = dies\n"
            "host = e.HostEvidence('a', {'p': e.Evidence('p', 0, b'x')})\n"
            "e.Bundle('r', 't', 's', 'f', {}, {'a': host}).write(pathlib.Path(sys.argv[1]))\n"
        )
        assert subprocess.run([sys.executable, "-c", program, tmp_path / "bundle"], cwd=Path.cwd()).returncode == -9
        assert not (tmp_path / "bundle").exists()
