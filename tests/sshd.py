"""A real sshd on loopback, with keys and an ssh configuration of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit.evidence import Probe
from audit.transports import Answers, Asked, Connection, Secret
from audit.transports.ssh import Ssh


@dataclass(frozen=True)
class Server:
    """A running sshd, and an ssh configuration that knows it as `kvm01`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    def configured(self, name: str, text: str) -> Path:
        """Another ssh configuration."""
        path = self.folder / name
        path.write_text(text)
        return path

    def ask(
        self,
        *probes: Probe | Asked,
        to: Connection = Connection("kvm01"),  # noqa: B008  # frozen
        seconds: float = 30,
        secret: Secret | None = None,
        config: Path | None = None,
    ) -> Answers:
        ssh = Ssh(secret, config or self.config)
        try:
            asked = [probe if isinstance(probe, Asked) else Asked(probe) for probe in probes]
            return ssh.to(to).ask(asked, seconds, lambda: None)
        finally:
            ssh.close()


def run(*words: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if os.geteuid() or not sshd or not shutil.which("ssh-keygen"):
        pytest.skip("needs root, sshd and ssh-keygen")
    folder = Path(tempfile.mkdtemp(prefix="vpf-sshd-"))
    folder.chmod(0o755)
    for key in ("host_key", "user_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", folder / "rsa_host_key")
    run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "open sesame", "-f", folder / "locked_key")
    keys = "".join((folder / f"{key}.pub").read_text() for key in ("user_key", "locked_key"))
    (folder / "authorized_keys").write_text(keys)
    (folder / "banner").write_text("#### Authorised use only ####\nsh: 1: not found\n" * 20)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nHostKey {folder}/rsa_host_key\n"
        f"PidFile none\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\n"
        f"UsePAM no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\nBanner {folder}/banner\n"
        "PrintMotd yes\nAllowTcpForwarding yes\nMaxStartups 100\n"
    )
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "ssh_config").write_text(
        f"Host kvm01 jump\n  HostName 127.0.0.1\n  Port {port}\n  User root\nHost *\n  IdentityFile {folder}/user_key\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield Server(folder, port, process)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("sshd does not listen")
