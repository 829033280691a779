"""Against a real sshd on loopback, with real users, shells and keys."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from audit.collect import collect
from audit.evidence import Probe
from audit.facts.base import Question
from audit.inventory import Inventory
from audit.transports import Connection
from audit.transports.ssh_config import SshError, resolve
from audit.transports.ssh_trust import known_keys
from tests.sshd import Server, run

PASSWORD = "correct horse: battery 'staple'"
HELLO = Probe("hello", "echo hello")


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="module")
def user() -> Iterator[Callable[..., str]]:
    """`user(shell)`: a throw-away user with that login shell and `PASSWORD`; removed afterwards."""
    made: list[tuple[str, Path]] = []

    def make(shell: str = "/bin/sh", **files: str) -> str:
        name = f"vpf{os.getpid()}x{len(made)}"
        home = Path(tempfile.mkdtemp(prefix="vpf-home-"))
        run("useradd", "--no-create-home", "--home-dir", home, "--shell", shell, name)
        made.append((name, home))
        run("chpasswd", input=f"{name}:{PASSWORD}\n")
        for file, text in files.items():
            (home / f".{file}").write_text(text)
        shutil.chown(home, name)
        return name

    yield make
    for name, home in made:
        subprocess.run(["pkill", "-9", "-u", name], check=False)
        subprocess.run(["userdel", "--force", name], capture_output=True, check=False)
        shutil.rmtree(home)
        Path(f"/etc/sudoers.d/{name}").unlink(missing_ok=True)


@pytest.mark.root
class TestLogin:
    def test_key_file(self, server: Server) -> None:
        answers = server.ask(Probe("who", "id -un; echo $0 >&2; exit 3"))
        assert answers.problem == ""
        assert answers.privilege == "root"
        who = answers.outputs["who"]
        assert (who.status, who.stdout, who.stderr, who.problem) == (3, b"root\n", b"sh\n", "")

    def test_password_is_asked_for_once_keys_have_failed(self, server: Server, user: Callable[..., str]) -> None:
        prompts = []

        def secret(prompt: str) -> str:
            prompts.append(prompt)
            return PASSWORD

        config = server.configured(
            "password",
            f"IdentityFile none\nUserKnownHostsFile {server.folder}/known_hosts\nGlobalKnownHostsFile none\n",
        )
        to = Connection("127.0.0.1", port=server.port, user=user(), sudo=False)
        answers = server.ask(HELLO, to=to, secret=secret, config=config)
        assert answers.problem == ""
        assert answers.outputs["hello"].stdout == b"hello\n"
        assert prompts == [f"Password of {to.user}"]
        assert answers.privilege == "user: sudo not allowed by the inventory"

        wrong = server.ask(HELLO, to=to, secret=lambda _: "wrong", config=config)
        assert wrong.problem.startswith(f"ssh: authentication failed for user {to.user} (tried: password); it takes: ")
        nobody = server.ask(HELLO, to=to, config=config)
        assert nobody.problem.startswith(f"ssh: authentication failed for user {to.user} (tried: nothing to try)")
        assert "password" in nobody.problem

    def test_encrypted_key(self, server: Server) -> None:
        config = server.configured("locked", server.config.read_text().replace("user_key", "locked_key"))
        prompts = []
        answers = server.ask(HELLO, config=config, secret=lambda prompt: prompts.append(prompt) or "open sesame")
        assert answers.problem == ""
        assert prompts == [f"Passphrase of {server.folder}/locked_key"]
        wrong = server.ask(HELLO, config=config, secret=lambda prompt: "no" if "Passphrase" in prompt else None)
        assert "locked_key (wrong passphrase)" in wrong.problem
        nobody = server.ask(HELLO, config=config)
        assert "locked_key (encrypted, no passphrase given)" in nobody.problem

    def test_agent(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        if not shutil.which("ssh-agent") or not shutil.which("ssh-add"):
            pytest.skip("needs ssh-agent and ssh-add")
        path = server.folder / "agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 5
            while not path.exists() and time.monotonic() < end:
                time.sleep(0.02)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            run("ssh-add", server.folder / "user_key")
            config = server.configured("agent_config", server.config.read_text().replace("user_key", "absent"))
            assert server.ask(HELLO, config=config).problem == ""
        finally:
            agent.terminate()
            agent.wait()

    def test_identity_file_of_the_inventory(self, server: Server) -> None:
        config = server.configured("no_identity", server.config.read_text().replace("user_key", "absent"))
        to = Connection("kvm01", identity_file=str(server.folder / "user_key"))
        assert server.ask(HELLO, to=to, config=config).problem == ""
        missing = server.ask(HELLO, to=replace(to, identity_file="/nowhere/key"), config=config)
        assert missing.problem == "ssh: identity file /nowhere/key: no such file"

    def test_nobody_listens(self, server: Server) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert server.ask(HELLO, to=Connection("127.0.0.1", port=port)).problem == (
            f"ssh: connection refused by 127.0.0.1 port {port}"
        )

    def test_nothing_answers(self, server: Server) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            began = time.monotonic()
            answers = server.ask(HELLO, to=Connection("127.0.0.1", port=silent.getsockname()[1]), seconds=1)
        assert answers.problem == "ssh: no answer within 1 s"
        assert time.monotonic() - began < 5

    def test_no_such_name(self, server: Server) -> None:
        answers = server.ask(HELLO, to=Connection("kvm99.invalid"))
        assert answers.problem.startswith("ssh: ")
        assert answers.problem.endswith(": kvm99.invalid")


@pytest.mark.root
class TestHostKey:
    def _config(self, server: Server, known_hosts: str) -> Path:
        server.configured("other_known_hosts", known_hosts)
        return server.configured("other", server.config.read_text().replace("/known_hosts", "/other_known_hosts"))

    def test_unknown(self, server: Server) -> None:
        answers = server.ask(HELLO, config=self._config(server, ""))
        digest = run("ssh-keygen", "-lf", server.folder / "host_key.pub").split()[1]
        assert answers.problem.startswith(
            f"ssh: host key unknown: [127.0.0.1]:{server.port} shows ssh-ed25519 {digest}."
        )
        assert f"ssh-keyscan -p {server.port} 127.0.0.1 >> ~/.ssh/known_hosts" in answers.problem
        assert not answers.outputs

    def test_not_the_known_one(self, server: Server) -> None:
        other = " ".join((server.folder / "user_key.pub").read_text().split()[:2])
        answers = server.ask(HELLO, config=self._config(server, f"# a comment\n[127.0.0.1]:{server.port} {other}\n"))
        assert answers.problem.startswith("ssh: host key is not the known one: ")
        assert f"{server.folder}/other_known_hosts:2 has another" in answers.problem
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in answers.problem

    def test_a_known_rsa_key_is_asked_for_though_the_host_has_an_ed25519_key(self, server: Server) -> None:
        key = " ".join((server.folder / "rsa_host_key.pub").read_text().split()[:2])
        assert server.ask(HELLO, config=self._config(server, f"[127.0.0.1]:{server.port} {key}\n")).problem == ""

    def test_hashed(self, server: Server) -> None:
        config = self._config(server, (server.folder / "known_hosts").read_text())
        run("ssh-keygen", "-H", "-f", server.folder / "other_known_hosts")
        assert "127.0.0.1" not in (server.folder / "other_known_hosts").read_text()
        assert server.ask(HELLO, config=config).problem == ""

    def test_revoked(self, server: Server) -> None:
        line = (server.folder / "known_hosts").read_text()
        answers = server.ask(HELLO, config=self._config(server, f"{line}@revoked {line}"))
        assert answers.problem.startswith("ssh: host key unknown: ")


@pytest.mark.root
class TestCommand:
    def test_hanging_command_ends_by_its_own_limit(self, server: Server) -> None:
        answers = server.ask(Probe("hang", "echo before; sleep 60", seconds=1), HELLO)
        hang = answers.outputs["hang"]
        assert (hang.problem, hang.stdout) == ("timed out after 1 s", b"before\n")
        assert answers.outputs["hello"].stdout == b"hello\n"

    def test_command_that_ignores_the_limit_ends_by_the_deadline(self, server: Server) -> None:
        began = time.monotonic()
        stubborn = Probe("stubborn", "trap '' TERM; echo on; sleep 20", seconds=15)
        answers = server.ask(HELLO, stubborn, Probe("later", "echo later"), seconds=2)
        assert time.monotonic() - began < 6
        assert answers.problem == ""
        assert answers.outputs["hello"].stdout == b"hello\n"
        assert answers.outputs["stubborn"].problem == "no answer within 2 s"
        assert answers.outputs["later"].problem == "not run: no answer within 2 s"

    def test_fifty_megabytes_on_both_streams(self, server: Server) -> None:
        size = 50 * 1024 * 1024
        flood = Probe("flood", f"head -c {size} /dev/zero | tr '\\0' x; head -c {size} /dev/zero >&2", limit=size)
        answers = server.ask(flood, HELLO, seconds=60)
        output = answers.outputs["flood"]
        assert (output.problem, output.status) == ("", 0)
        assert output.stdout == b"x" * size
        assert output.stderr == b"\0" * 65536
        assert answers.outputs["hello"].stdout == b"hello\n"

    def test_output_beyond_the_limit_is_cut_on_the_host(self, server: Server) -> None:
        answers = server.ask(Probe("flood", "yes", limit=1000), HELLO)
        assert answers.outputs["flood"].problem == "output cut at 1000 bytes"
        assert answers.outputs["flood"].stdout == b"y\n" * 500
        assert answers.outputs["hello"].stdout == b"hello\n"

    def test_dying_midway(self, server: Server) -> None:
        die = (
            "echo dying; p=$$; while :; do read -r comm </proc/$p/comm; case $comm in sshd*) break;; esac;"
            " p=$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' /proc/$p/stat); done; sleep 0.2; kill -9 $p; sleep 5"
        )
        answers = server.ask(HELLO, Probe("die", die), Probe("later", "echo later"))
        assert answers.problem == ""
        assert answers.outputs["hello"].stdout == b"hello\n"
        assert answers.outputs["hello"].problem == ""
        assert answers.outputs["die"].problem == "connection lost before it ended"
        assert answers.outputs["later"].problem == "not run: connection lost"

    def test_server_gone_for_good(self, server: Server, user: Callable[..., str]) -> None:
        name = user("/usr/sbin/nologin")
        answers = server.ask(HELLO, to=Connection("kvm01", user=name))
        assert answers.problem.startswith("the login shell did not run the probes: ")
        assert "not available" in answers.problem


NOISE = "echo welcome; echo complaint >&2; printf 'no newline'\n"


@pytest.mark.root
class TestShells:
    @pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh", "/usr/bin/fish", "/bin/csh", "/bin/tcsh", "/bin/zsh"])
    def test_login_shells_with_noise(self, server: Server, user: Callable[..., str], shell: str) -> None:
        if not Path(shell).exists():
            pytest.skip(f"no {shell} here")
        name = user(shell, profile=NOISE, bashrc=NOISE, zshenv=NOISE, cshrc=NOISE.replace(">&2", ""))
        quotes = Probe("quotes", """printf '%s|' "it's" '$HOME' "a!b" 'x\\y'; printf e >&2""")
        eat = Probe("eat", "cat; echo $LC_ALL; case $PATH in */usr/sbin*) echo sbin;; esac")
        answers = server.ask(quotes, eat, HELLO, to=Connection("kvm01", user=name))
        assert answers.problem == ""
        assert answers.outputs["quotes"].stdout == b"it's|$HOME|a!b|x\\y|"
        assert answers.outputs["quotes"].stderr == b"e"
        assert answers.outputs["eat"].stdout == b"C\nsbin\n"
        assert answers.outputs["hello"].stdout == b"hello\n"

    def test_no_terminal_low_priority_nothing_inherited(self, server: Server) -> None:
        probe = Probe("at", "nice; tty; ls /proc/self/fd | tr '\\n' ' '")
        out = server.ask(probe).outputs["at"].stdout
        assert out == b"19\nnot a tty\n0 1 2 3 "  # 3 is ls reading its folder


@pytest.mark.root
class TestSudo:
    PROBE = Probe("who", "$sudo id -un; $sudo cat /etc/shadow | wc -l")

    def test_refused(self, server: Server, user: Callable[..., str]) -> None:
        if not shutil.which("sudo"):
            pytest.skip("needs sudo")
        name = user()
        answers = server.ask(self.PROBE, to=Connection("kvm01", user=name))
        assert answers.privilege.startswith("user: sudo: ")
        assert "password is required" in answers.privilege
        assert answers.outputs["who"].stdout == f"{name}\n0\n".encode()
        assert b"denied" in answers.outputs["who"].stderr

    def test_allowed_and_its_time_limit_reaches_roots_processes(self, server: Server, user: Callable[..., str]) -> None:
        if not shutil.which("sudo"):
            pytest.skip("needs sudo")
        name = user()
        rule = Path(f"/etc/sudoers.d/{name}")
        rule.write_text(f"{name} ALL=(root) NOPASSWD: ALL\n")
        rule.chmod(0o440)
        long = Probe("long", "$sudo sleep 4321.5 | cat; echo still here", seconds=1)
        answers = server.ask(self.PROBE, long, HELLO, to=Connection("kvm01", user=name))
        assert answers.privilege == "sudo"
        assert answers.outputs["who"].stdout.startswith(b"root\n")
        assert int(answers.outputs["who"].stdout.split()[1]) > 1
        assert answers.outputs["long"].problem == "timed out after 1 s"
        assert answers.outputs["hello"].stdout == b"hello\n"
        assert not subprocess.run(["pgrep", "-f", "^sleep 4321.5"], capture_output=True).stdout
        kept = server.ask(self.PROBE, to=Connection("kvm01", user=name, sudo=False))
        assert kept.privilege == "user: sudo not allowed by the inventory"
        assert kept.outputs["who"].stdout.startswith(name.encode())


@pytest.mark.root
class TestConfiguration:
    def test_include_jump_and_inventory_first(self, server: Server) -> None:
        (server.folder / "conf.d").mkdir(exist_ok=True)
        (server.folder / "conf.d" / "a.conf").write_text(
            f"Host kvm0?\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityFile {server.folder}/user_key\n"
            "Host kvm02\n  ProxyJump root@kvm01\n"
        )
        config = server.configured(
            "including",
            f"Include {server.folder}/conf.d/*.conf\nUser nobody-here\n"
            f"UserKnownHostsFile {server.folder}/known_hosts\nGlobalKnownHostsFile none\n",
        )
        direct = resolve(Connection("kvm01", user="root"), config)
        assert (direct.hostname, direct.port, direct.user, direct.jump) == ("127.0.0.1", server.port, "root", "")
        peers = Probe("peers", "echo $SSH_CONNECTION")
        assert server.ask(peers, to=Connection("kvm01", user="root"), config=config).problem == ""
        assert server.ask(peers, to=Connection("kvm02", user="root"), config=config).problem == ""
        assert server.ask(peers, to=Connection("kvm01"), config=config).problem.startswith(
            "ssh: authentication failed for user nobody-here"
        )

    def test_chain_of_jumps_and_their_problems(self, server: Server) -> None:
        two = Connection("127.0.0.1", port=server.port, user="root", jump="jump,root@kvm01")
        assert server.ask(HELLO, to=two).problem == ""
        lost = server.ask(HELLO, to=Connection("127.0.0.1", port=1, jump="jump")).problem
        assert lost.startswith("ssh: jump host jump: 127.0.0.1 port 1: ")
        refused = server.ask(HELLO, to=Connection("kvm01", jump="127.0.0.1:1")).problem
        assert refused == "ssh: jump host [127.0.0.1]:1: connection refused by 127.0.0.1 port 1"

    def test_loop_of_jumps(self, server: Server) -> None:
        config = server.configured("loop", "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
        began = time.monotonic()
        assert "jump" in server.ask(HELLO, to=Connection("a"), config=config).problem
        assert time.monotonic() - began < 5

    def test_proxy_command(self, server: Server) -> None:
        config = server.configured(
            "proxied",
            server.config.read_text().replace(
                "User root", f"User root\n  ProxyCommand ssh -F {server.config} -W %h:%p jump"
            ),
        )
        config.write_text(config.read_text().replace("Host kvm01 jump", "Host kvm01"))
        assert server.ask(HELLO, config=config).problem == ""

    def test_broken_configuration(self, server: Server) -> None:
        config = server.configured("broken", "Nonsense yes\n")
        assert server.ask(HELLO, config=config).problem.startswith("ssh: ssh configuration: ")


@pytest.mark.root
def test_a_run_over_many_hosts_behind_one_jump_host(server: Server) -> None:
    config = server.configured(
        "fleet",
        f"Host h*\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump jump\n" + server.config.read_text(),
    )
    ask = Question("peers", "xargs -0 echo", ask=lambda _facts, _host, peers: [(peer,) for peer in peers])
    inventory = Inventory.of_hosts([f"root@h{number}" for number in range(12)] + ["root@127.0.0.1:1"])
    bundle = collect(inventory, [HELLO, ask], read_guests=lambda _: [], tool="test", ssh_config=config)
    lost = bundle.hosts.pop("127.0.0.1")  # type: ignore[attr-defined]
    assert lost.problem == "ssh: connection refused by 127.0.0.1 port 1"
    for host in bundle.hosts.values():
        assert (host.problem, host.privilege) == ("", "root")
        assert host.outputs["hello"].stdout == b"hello\n"
        assert len(host.outputs["peers"].stdout.split()) == 12
    assert PASSWORD not in str(bundle)


def test_known_hosts_patterns(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(
        "*.example.com,!bad.example.com ssh-ed25519 YWFh\nkvm01 ssh-rsa YmJi comment\nbroken\nkvm01 ssh-rsa %%%\n"
        "@cert-authority * ssh-rsa Y2Nj\n[kvm01]:2222 ssh-ed25519 ZGRk\n"
    )

    def blobs(name: str) -> list[bytes]:
        return [key.blob for key in known_keys([str(tmp_path / "absent"), str(file)], name)]

    assert blobs("a.example.com") == [b"aaa"]
    assert blobs("bad.example.com") == []
    assert blobs("kvm01") == [b"bbb"]
    assert blobs("[kvm01]:2222") == [b"ddd"]
    assert blobs("k") == []


def test_without_the_ssh_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SshError, match="install openssh-client"):
        resolve(Connection("kvm01", user=getpass.getuser()))
