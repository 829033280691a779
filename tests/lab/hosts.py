"""Hosts that boot Debian's own systemd, sshd and libvirtd, on one machine, without touching it.

Each host is a systemd-nspawn container on a copy-on-write overlay of this machine's root file system, with its own
network, name, machine-id, ssh host key and host UUID. All of them live in one mount, network and PID namespace, whose
first process reads a pipe that this process holds: when it closes, however that comes, the kernel ends every process of
the lab and takes its mounts and networks away.

    lab0  10.77.0.0/24    kvmN is 10.77.0.(10+N) on its bridge br0 (eth0 in it); the administrator's desk is 10.77.0.1
    mig0  10.77.1.0/24    kvmN is 10.77.1.(10+N) on its eth1: a second network for migrations

kvm1 and kvm2 run the machine's own libvirt and QEMU, kvm3 those of the release's backports.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab import layers
from tests.lab.commands import PATH, Done, LabError, children, must, run, wait

HOSTS = ("kvm1", "kvm2", "kvm3")
NEWER = "kvm3"
SHARED = "/srv/shared"
NAMESPACE = ("--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private")
NEEDS = ("systemd-nspawn", "bindfs", "ip", "nft", "nsenter", "unshare", "setpriv", "sshd", "libvirtd", "virsh")
# What would reach past a host, to this machine's clock and kernel: no host has it.
DROPPED = ("sys_time", "sys_module", "sys_rawio", "wake_alarm")


def missing() -> str:
    """Why there can be no lab here; empty: there can."""
    if os.geteuid():
        return "needs root, for namespaces and mounts"
    if absent := [tool for tool in NEEDS if not shutil.which(tool, path=PATH)]:
        return f"needs {', '.join(absent)}: scripts/test --lab installs them"
    tried = run("unshare", *NAMESPACE, "mount", "-t", "tmpfs", "none", "/run")
    return f"no namespaces here: {tried.words}" if tried.status else ""


class Host:
    """One host. It is made fresh by every `boot`: what was done to it before is gone."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.lab, self.name = lab, name
        self.number = int(name.removeprefix("kvm"))
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def dir(self) -> Path:
        """Its layers, as this process sees them."""
        return self.lab.dir / self.name

    def boot(self) -> None:
        """Start it on an untouched disk; `ready` waits for it."""
        self.kill()
        self.lab.inside("sh", "-c", f"cd {self.lab.HOME}/{self.name} && rm -rf upper work && mkdir -p upper work root")
        lower = ":".join((*(f"{self.lab.HOME}/{layer}" for layer in self._layers()), "/"))
        home = f"{self.lab.HOME}/{self.name}"
        options = f"lowerdir={lower},upperdir={home}/upper,workdir={home}/work"
        self.lab.inside("mount", "-t", "overlay", "lab", "-o", options, f"{home}/root")
        self._nspawn = self.lab.start(
            self.name,
            *("systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--settings=no", "--link-journal=no"),
            *("--resolv-conf=off", "--timezone=off", "--console=read-only", "--capability=all"),
            "--drop-capability=" + ",".join(f"CAP_{name.upper()}" for name in DROPPED),
            *(f"--machine={self.lab.name}-{self.name}", f"--hostname={self.name}", f"--directory={home}/root"),
            *(f"--network-namespace-path=/run/netns/{self.name}", "--bind=/dev/net/tun"),
            *(f"--bind={self.lab.HOME}/shared:{SHARED}", "--boot", "--", "--unit=lab.target"),
        )

    def _layers(self) -> list[str]:
        newer = ["newer"] if self.name == NEWER else []
        return [f"{self.name}/identity", *newer]

    def ready(self) -> None:
        """Wait until systemd has started everything and libvirt answers."""
        assert self._nspawn is not None
        wait(f"{self.name} boots", self._has_init)
        wait(f"{self.name} starts its services", lambda: not self("systemctl is-active -q lab.target ssh").status)
        wait(f"{self.name}'s libvirt answers", lambda: not self("virsh -q list").status)

    def _has_init(self) -> bool:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise LabError(f"{self.name} ended while booting: {self.console()}")
        for nspawn in children(self._nspawn.pid):
            self._leader = next(iter(children(nspawn)), 0)
        return bool(self._leader)

    def console(self) -> str:
        """The last lines of what its boot printed."""
        return "\n".join(self.lab.console(self.name).read_text(errors="replace").splitlines()[-5:])

    def __call__(self, command: str, stdin: str = "", seconds: float = 120) -> Done:
        """Run a shell command inside, as root, without going over the network."""
        return run(
            *("nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", "setpriv"),
            "--bounding-set=" + ",".join(f"-{name}" for name in DROPPED),
            *("bash", "-c", command),
            stdin=stdin,
            seconds=seconds,
        )

    def must(self, command: str, stdin: str = "") -> str:
        """The same, for a command that has to work: what it prints."""
        return must(f"{self.name}: {command}", self(command, stdin))

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._nspawn is not None:
            run("kill", "-KILL", str(self._leader or self._nspawn.pid))
            with suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(10)
            self._nspawn, self._leader = None, 0
            self.lab.inside("umount", "-l", f"{self.lab.HOME}/{self.name}/root")


class Lab:
    """All hosts, and the administrator's desk beside them."""

    HOME = "/run/lab"
    """Where the lab's files are, inside its namespace: on a tmpfs, which an overlay's upper layer has to be on."""

    def __init__(self, name: str = "lab") -> None:
        self.name = f"{name}-{os.getpid()}"
        self.hosts = {host: Host(self, host) for host in HOSTS}
        self.lacks_newer = ""
        """Why kvm3 is not there; empty: it is."""
        self._keeper = 0
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def dir(self) -> Path:
        """The lab's files as this process sees them."""
        return Path(f"/proc/{self._keeper}/root{self.HOME}")

    def console(self, name: str) -> Path:
        """Where a host's boot messages go."""
        return self.dir / f"{name}.console"

    def up(self) -> None:
        """Make the namespace, the networks, the shared storage and the hosts' own layers; boot nothing yet."""
        with layers.alone():
            _sweep()
        self._holder = subprocess.Popen(
            ["unshare", *NAMESPACE, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        wait("a namespace for the lab", lambda: bool(children(self._holder.pid)))  # type: ignore[union-attr]
        self._keeper = children(self._holder.pid)[0]
        self.inside("mount", "-t", "tmpfs", "-o", "mode=755", "lab", "/run")
        self.inside("sh", "-c", f"mkdir -p {self.HOME}/shared {self.HOME}/desk && mkdir -m 711 {self.HOME}/store")
        # libvirt takes a file system for shared by its type: a FUSE pass-through bears a cluster file system's name.
        options = "subtype=glusterfs,fsname=store:/vm,allow_other,default_permissions"
        self.inside("bindfs", "-o", options, f"{self.HOME}/store", f"{self.HOME}/shared")
        self._make_networks()
        layers.make_desk(self.dir / "desk", self.dir / "hosts", HOSTS)
        self.inside("mount", "--bind", f"{self.HOME}/hosts", "/etc/hosts")
        self.inside("sh", "-c", f"mkdir -p /root/.ssh && mount --bind {self.HOME}/desk /root/.ssh")
        try:
            with layers.alone():
                layers.make_newer(self)
        except LabError as error:
            self.lacks_newer = str(error)
            del self.hosts[NEWER]
        for host in self.hosts.values():
            layers.make_identity(self.dir, host.name)
        self._remember_capabilities()

    def _make_networks(self) -> None:
        self._sh(
            "ip link set lo up; ip link add lab0 type bridge; ip link add mig0 type bridge",
            "ip addr add 10.77.0.1/24 dev lab0; ip link set lab0 up; ip link set mig0 up",
        )

    def _plug_in(self, name: str, number: int) -> None:
        """A network namespace with nothing in it but the host's two devices and its bridge."""
        into = f"ip -n {name}"
        self._sh(
            *(
                f"ip {old} 2>/dev/null || :"
                for old in (f"link del {name}-0", f"link del {name}-1", f"netns del {name}")
            ),
            f"ip netns add {name}; {into} link set lo up",
            *(
                f"ip link add {name}-{net} type veth peer name eth{net}"
                f" address 52:54:00:77:0{net}:{10 + number} netns {name}; ip link set {name}-{net} master {bridge} up"
                for net, bridge in enumerate(("lab0", "mig0"))
            ),
            f"{into} link add br0 type bridge; {into} link set eth0 master br0 up; {into} link set br0 up",
            f"{into} addr add 10.77.0.{10 + number}/24 dev br0",
            f"{into} link set eth1 up; {into} addr add 10.77.1.{10 + number}/24 dev eth1",
            # A connection to where nobody answers is given up after 7 seconds, not after two minutes.
            f"ip netns exec {name} sysctl -qw net.ipv4.tcp_syn_retries=2",
        )

    def _sh(self, *lines: str) -> None:
        self.inside("sh", "-ec", "\n".join(lines))

    def _remember_capabilities(self) -> None:
        """Let each kind of host look at its QEMU once, and find that in its cache ever after, as a host would."""
        first = [host for host in self.hosts.values() if host.name in ("kvm1", NEWER)]
        self.boot(*(host.name for host in first))
        for host in first:
            host.must("virsh -q domcapabilities >/dev/null && virsh -q capabilities >/dev/null")
            host.kill()
        for host in self.hosts.values():
            model = f"{self.HOME}/{NEWER if host.name == NEWER else 'kvm1'}/upper/var/cache/libvirt"
            cache = f"{self.HOME}/{host.name}/identity/var/cache"
            self.inside("sh", "-c", f"rm -rf {cache}/libvirt && mkdir -p {cache} && cp -a {model} {cache}/")

    def boot(self, *names: str) -> None:
        """Boot these hosts on untouched disks, all at once; shared storage is emptied, too."""
        for host in self.hosts.values():
            host.kill()
        self.inside("find", f"{self.HOME}/shared", "-mindepth", "1", "-delete")
        for name in names:
            self._plug_in(name, self.hosts[name].number)
            self.hosts[name].boot()
        for name in names:
            self.hosts[name].ready()

    def inside(self, *words: str, stdin: str = "", seconds: float = 300) -> str:
        """Run a command in the lab's namespace, which is the administrator's desk, too; it has to work."""
        return must(" ".join(words), self.desk(*words, stdin=stdin, seconds=seconds))

    def desk(self, *words: str, stdin: str = "", seconds: float = 300) -> Done:
        """Run a command where the administrator sits: names, key and known_hosts of all hosts are set up."""
        return run("nsenter", "-t", str(self._keeper), "-m", "-n", "-p", "--", *words, stdin=stdin, seconds=seconds)

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start what stays, in a control group of its own, so that hosts do not share one."""
        groups = [folder / f"{self.name}-{name}" for folder in _hierarchies()]
        for group in groups:
            group.mkdir(exist_ok=True)
        enter = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
        # /sys of the host's own network namespace, /proc/sys/net writable
        env = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "PATH": PATH}
        join = f"exec nsenter -t {self._keeper} -m -n -p --"
        with self.console(name).open("wb") as console:
            return subprocess.Popen(
                ["setsid", "sh", "-c", f'{enter}{join} "$@"', "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=env,
            )

    def down(self) -> None:
        """Let go of everything: the kernel does the rest."""
        if self._holder is None:
            return
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(30)
        self._holder = None
        wait("the hosts end", lambda: all(not _has_processes(group) for group in groups(self.name)))
        remove_groups(self.name)


def _hierarchies() -> list[Path]:
    """Where control groups are made: cgroup v2, or what a hybrid machine has."""
    folders = (Path("/sys/fs/cgroup") / name for name in ("", "unified", "systemd", "memory"))
    return [folder for folder in folders if (folder / "cgroup.procs").exists()]


def groups(name: str) -> list[Path]:
    """The control groups of the lab of that name."""
    return [group for folder in _hierarchies() for group in folder.glob(f"{name}-*")]


def remove_groups(name: str) -> None:
    """All that a lab leaves outside its namespace, once it has ended."""
    for group in groups(name):
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()


def _sweep() -> None:
    """Remove the empty control groups of labs whose process was killed."""
    for group in groups("lab*"):
        match = re.fullmatch(r".*-([0-9]+)-kvm[0-9]+", group.name)
        if match and group.exists() and not Path(f"/proc/{match[1]}").exists() and not _has_processes(group):
            remove_groups(f"lab*-{match[1]}")


def _has_processes(group: Path) -> bool:
    return any(path.read_text().strip() for path in group.rglob("cgroup.procs"))


@contextmanager
def lab(name: str = "lab") -> Iterator[Lab]:
    """A lab that is there for as long as the block lasts."""
    made = Lab(name)
    try:
        made.up()
        yield made
    finally:
        made.down()
