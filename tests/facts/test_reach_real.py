"""The questions of `--probe-network` against real packet filters, routers and an SSH server."""

import subprocess
from pathlib import Path

import pytest

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said
from audit.facts.reach import MTU, PORTS, PathMtu, Reach
from audit.facts.ssh_trust import TRUST, SshTrust
from audit.transports import Asked
from audit.transports.local import LocalTransport
from tests.netns import ROUTER, SOURCE, TARGET, Network, inside
from tests.netns import network as network
from tests.sshd import Server

pytestmark = pytest.mark.root
FOUR, SIX = "10.99.2.2", "fd99:2::2"


def _said(question, text, records):
    evidence = Evidence(question.name, status=0, stdout=text.encode(), arguments=tuple(records))
    return Said(HostEvidence("source", {question.name: evidence}))


def _connect(network: Network, *ways: tuple[str, int], shell=("sh",)) -> list[str]:
    records = [(str(number), "target", address, str(port), "control") for number, (address, port) in enumerate(ways)]
    text = network.ask(PORTS.command, records, shell)
    return [one.state for one in Reach.parse(_said(PORTS, text, records)).of("target", "control")]


def _path(network: Network, *ways: tuple[str, int]):
    records = [(str(number), "target", address, str(mtu)) for number, (address, mtu) in enumerate(ways)]
    return PathMtu.parse(_said(MTU, network.ask(MTU.command, records), records)).of("target")


@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")], ids=lambda shell: shell[0])
def test_ports(network: Network, shell):
    if subprocess.run(["sh", "-c", f"command -v {shell[0]}"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {shell[0]} here")
    network.rules(
        TARGET,
        "tcp dport 16514 drop",
        "tcp dport 1001 reject with icmpx admin-prohibited",
        "ip version 4 tcp dport 1002 reject with icmp host-prohibited",
        "tcp dport 1003 reject",
        "tcp dport 1004 reject with tcp reset",
    )
    ports = (22, 16514, 1000, 1001, 1002, 1003, 1004)
    # what firewalld says, old and new; that a plain `reject` cannot be told from a port without a listener is why
    # a port that nobody opened is tried beside
    four = ["open", "silent", "refused", "unreachable", "unreachable", "refused", "refused"]
    six = ["open", "silent", "refused", "prohibited", "refused", "refused", "refused"]
    elsewhere = [("10.99.1.77", 22), ("fd99:1::77", 22), ("203.0.113.9", 22), ("2001:db8::9", 22)]
    ways = [*((FOUR, port) for port in ports), *((SIX, port) for port in ports), *elsewhere]
    assert _connect(network, *ways, shell=shell) == [*four, *six, "unreachable", "unreachable", "unrouted", "unrouted"]


def test_what_is_between_the_hosts(network: Network):
    network.rules(TARGET)
    network.rules(ROUTER, "tcp dport 49215 drop", "tcp dport 49216 reject with icmpx admin-prohibited", hook="forward")
    assert _connect(network, (FOUR, 22), (FOUR, 49215), (SIX, 49216)) == ["open", "silent", "prohibited"]
    network.rules(ROUTER)


def test_an_open_connection_is_closed_again(network: Network):
    network.rules(TARGET)
    assert _connect(network, (FOUR, 22)) == ["open"]
    assert inside(SOURCE, "ss", "-H", "-tn", "state", "established") == ""


def test_within_the_script_that_travels():
    ports = tuple((str(at), "here", address, "1", "control") for at, address in enumerate(("127.0.0.1", "::1")))
    sizes = (("0", "here", "127.0.0.1", "1500"),)
    answers = LocalTransport().ask([Asked(PORTS, ports), Asked(MTU, sizes), Asked(PORTS, ports)], 60, lambda: None)
    said = Said(HostEvidence("here", answers.outputs))
    assert {one.state for one in Reach.parse(said).of("here", "control")} <= {"refused", "unrouted"}
    [path] = PathMtu.parse(said).of("here")
    assert (path.device, path.size, path.carries) == ("lo", 1500, True)


def test_without_bash(network: Network, tmp_path: Path):
    for tool in ("sh", "xargs", "timeout"):
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    done = subprocess.run(["/bin/sh", "-c", PORTS.command], capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (127, "")
    done = subprocess.run(["/bin/sh", "-c", MTU.command], capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (127, "")


class TestPathMtu:
    """The router's far side carries 1400 bytes, both hosts say 9000."""

    @pytest.fixture(autouse=True)
    def _afresh(self, network: Network):
        network.rules(ROUTER)
        network.rules(TARGET)
        for version in ("-4", "-6"):
            inside(SOURCE, "ip", version, "route", "flush", "cache")

    def test_a_smaller_mtu_that_is_reported(self, network: Network):
        for path in _path(network, (FOUR, 9000), (SIX, 9000)):
            assert (path.device, path.size, path.answers, path.carries) == ("left", 9000, True, False)
            assert path.reported == 1400
            assert not path.swallows

    def test_a_smaller_mtu_that_nobody_reports(self, network: Network):
        network.rules(
            ROUTER, "icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop", hook="output"
        )
        for path in _path(network, (FOUR, 9000), (SIX, 9000)):
            assert path.swallows

    def test_all_that_both_ends_allow(self, network: Network):
        near, small = _path(network, ("10.99.1.254", 9000), (FOUR, 1400))
        assert (near.size, near.carries) == (9000, True)
        assert (small.size, small.carries) == (1400, True)

    def test_no_answer(self, network: Network):
        network.rules(TARGET, "icmp type echo-request drop")
        silent, nobody, nowhere = _path(network, (FOUR, 1500), ("10.99.1.77", 1500), ("203.0.113.9", 1500))
        assert (silent.answers, silent.carries) == (False, None)
        assert (nobody.answers, nobody.carries) == (False, None)
        assert (nowhere.device, nowhere.answers, nowhere.carries) == (None, None, None)


HOSTS = """\
Host *
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {folder}/{key}
  IdentitiesOnly yes
  HostKeyAlias {alias}
  UserKnownHostsFile /root/.ssh/known_hosts
  GlobalKnownHostsFile none
"""


@pytest.fixture
def login(server: Server, tmp_path: Path):
    """`login(alias="known", key="user_key", port=…)`: what comes of it, where root's home is a folder of our own."""
    key = " ".join((server.folder / "host_key.pub").read_text().split()[:2])
    other = " ".join((server.folder / "user_key.pub").read_text().split()[:2])
    for name in ("own_key", "forced_key"):
        if not (server.folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", server.folder / name], check=True)
    forced = (server.folder / "forced_key.pub").read_text()
    said = "echo virt-preflight; id -un; uname -n; echo qemu:///system"
    users = server.folder / "authorized_keys"
    if "command=" not in users.read_text():
        users.write_text(f'{users.read_text()}command="{said}" {forced}')

    def run(alias="known", key_file="user_key", port=None, names=("kvm02", "kvm02"), home=True, config=""):
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        if home:
            ssh = root / ".ssh"
            ssh.mkdir(mode=0o700, exist_ok=True)
            (ssh / "known_hosts").write_text(f"known {key}\nchanged {other}\n")
            words = {"port": port or server.port, "folder": server.folder, "key": key_file, "alias": alias}
            (ssh / "config").write_text(config or HOSTS.format(**words))
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        records = [("0", "peer", *names)]
        at_home = 'mount --bind "$1" /root && sudo= exec dash -c "$2"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", at_home, "sh", root, TRUST.command],
            input="".join(f"{value}\0" for value in records[0]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )  # fmt: skip
        if "unshare failed" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no mount namespace here: {done.stderr}")
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before, "it wrote"
        [(_, trust)] = SshTrust.parse(_said(TRUST, done.stdout, records)).peers
        return trust

    return run


class TestSshTrust:
    def test_trusted(self, login):
        trust = login(key_file="forced_key")
        here = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
        assert (trust.outcome, trust.login, trust.hostname, trust.user) == ("trusted", "root", here, "root")

    def test_what_there_is_of_libvirt_is_told(self, login):
        trust = login()
        assert trust.outcome in {"trusted", "no libvirt"}
        assert trust.login == "root"

    @pytest.mark.parametrize(
        ("how", "outcome"),
        [
            ({"alias": "unknown"}, "unknown key"),
            ({"alias": "changed"}, "changed key"),
            ({"key_file": "own_key"}, "denied"),
            ({"key_file": "locked_key"}, "denied"),  # nobody is there to type its passphrase
            ({"port": 1}, "refused"),
            ({"config": "Host other\n", "names": ("nonexistent.invalid", "nowhere.invalid")}, "unresolved"),
            ({"config": "Nonsense yes\n"}, "unsaid"),
        ],
    )
    def test_not_trusted(self, login, how, outcome):
        assert login(**how).outcome == outcome

    def test_the_second_name_where_the_first_is_not_known(self, login, server: Server):
        known = HOSTS.format(port=server.port, folder=server.folder, key="forced_key", alias="known")
        config = known.replace("Host *", "Host kvm02.lan")
        trust = login(config=config, names=("nonexistent.invalid", "kvm02.lan"))
        assert (trust.outcome, trust.name) == ("trusted", "kvm02.lan")

    def test_no_folder_is_made(self, login):
        assert login(home=False, names=("nonexistent.invalid", "nonexistent.invalid")).outcome == "unresolved"
