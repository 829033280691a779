"""Hosts made of network namespaces, with real packet filters between them. Needs root, ip and nft."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

SOURCE, ROUTER, TARGET = (f"vpf-{os.getpid()}-{name}" for name in ("source", "router", "target"))
LISTENS = (22, 16514)


def run(*words: str, stdin: str = "") -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def inside(namespace: str, *words: str, stdin: str = "") -> str:
    return run("ip", "netns", "exec", namespace, *words, stdin=stdin)


@dataclass(frozen=True)
class Network:
    """A source 10.99.1.1, a router and a target 10.99.2.2 = fd99:2::2; jumbo frames end at the router's far side.

    The target listens on the ports of `LISTENS`.
    """

    listeners: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, command: str, records: Sequence[Sequence[str]], shell: Sequence[str] = ("sh",)) -> str:
        """What the question prints on the source."""
        stdin = "".join(f"{value}\0" for record in records for value in record)
        return inside(SOURCE, "env", "LC_ALL=C", *shell, "-c", command, stdin=stdin)

    def listen(self, port: int) -> None:
        code = (
            "import socket, sys\n"
            "s = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)\n"
            "print('ready', flush=True)\n"
            "while True: s.accept()[0].close()\n"
        )
        words = ["ip", "netns", "exec", TARGET, sys.executable, "-c", code, str(port)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        self.listeners.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def rules(self, namespace: str, *rules: str, hook: str = "input") -> None:
        """Replaces all rules there; each is one of nft's."""
        lines = ["flush ruleset", f"table inet t {{ chain c {{ type filter hook {hook} priority 0; policy accept; "]
        inside(namespace, "nft", "-f", "-", stdin="\n".join([*lines, *rules, "}", "}", ""]))


def _build() -> None:
    for name in (SOURCE, ROUTER, TARGET):
        run("ip", "netns", "add", name)
        inside(name, "ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "left", "netns", SOURCE, "type", "veth", "peer", "name", "right", "netns", ROUTER)
    run("ip", "link", "add", "left", "netns", ROUTER, "type", "veth", "peer", "name", "right", "netns", TARGET)
    for name, device, number, mtu in (
        *((SOURCE, "left", "1", "9000"), (ROUTER, "right", "1", "9000")),
        *((ROUTER, "left", "2", "1400"), (TARGET, "right", "2", "9000")),
    ):
        host = "2" if name == TARGET else "1" if (name, device) != (ROUTER, "right") else "254"
        inside(name, "ip", "link", "set", device, "mtu", mtu, "up")
        inside(name, "ip", "addr", "add", f"10.99.{number}.{host}/24", "dev", device)
        inside(name, "ip", "addr", "add", f"fd99:{number}::{host}/64", "dev", device, "nodad")
    inside(SOURCE, "ip", "route", "add", "10.99.2.0/24", "via", "10.99.1.254")
    inside(SOURCE, "ip", "route", "add", "fd99:2::/64", "via", "fd99:1::254")
    inside(TARGET, "ip", "route", "add", "10.99.1.0/24", "via", "10.99.2.1")
    inside(TARGET, "ip", "route", "add", "fd99:1::/64", "via", "fd99:2::1")
    inside(ROUTER, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")


def _remove() -> None:
    for name in (SOURCE, ROUTER, TARGET):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [tool for tool in ("ip", "nft", "ping", "bash") if not shutil.which(tool, path=path)]:
        pytest.skip(f"needs {', '.join(missing)}")
    if os.geteuid():
        pytest.skip("needs root for network namespaces")
    try:
        _build()
    except AssertionError as error:
        _remove()
        pytest.skip(f"no network namespaces here: {error}")
    made = Network()
    try:
        for port in LISTENS:
            made.listen(port)
        time.sleep(0.2)
        yield made
    finally:
        for process in made.listeners:
            process.kill()
            process.wait()
        _remove()
