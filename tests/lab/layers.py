"""What makes a host differ from this machine and from the others: the lower layers of its disk, made once for a lab."""

import fcntl
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.lab.commands import PATH, LabError, must, run

if TYPE_CHECKING:
    from tests.lab.hosts import Lab

DOMAIN = "lab.test"
CACHE = Path(os.environ.get("VIRT_PREFLIGHT_LAB_CACHE", "/var/cache/virt-preflight-lab"))
"""Packages of the backports, kept from run to run."""
# What of this machine's own a host does not get to see: it begins empty there.
EMPTIED = (
    "home",
    "root",
    "mnt",
    "media",
    "etc/libvirt/qemu",
    "etc/libvirt/storage",
    "etc/libvirt/secrets",
    "etc/libvirt/nwfilter",
    "etc/openvswitch",
    "var/lib/libvirt",
    "var/cache/libvirt",
    "var/log/libvirt",
    "var/log/journal",
    "var/lib/openvswitch",
)
FOLDERS = (
    "etc/libvirt/qemu/networks",
    "var/lib/libvirt/images",
    "var/lib/libvirt/boot",
    "var/lib/libvirt/qemu/nvram",
    "var/log/libvirt/qemu",
    "srv/shared",
)
# Units that are no business of a host that shares this machine's kernel, devices and clock.
MASKED = (
    "timers.target",
    "avahi-daemon.socket",
    "avahi-daemon.service",
    "postgresql.service",
    "docker.socket",
    "docker.service",
    "tgt.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-modules-load.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "libvirt-guests.service",
)
UNIT = """[Unit]
Description=A KVM host of the lab
Requires=basic.target
Wants=dbus.service ssh.service libvirtd.service systemd-logind.service systemd-user-sessions.service
AllowIsolate=yes
"""
SSH_CONFIG = """Host *
    User root
    StrictHostKeyChecking yes
    ConnectTimeout 10
    BatchMode yes
"""


def make_desk(desk: Path, names: Path, hosts: tuple[str, ...]) -> None:
    """The administrator's key, known hosts and host names; hosts' own keys lie beside, in `desk`."""
    desk.chmod(0o700)
    keys = {"id_ed25519": "lab", **{f"{host}.key": f"root@{host}" for host in hosts}}
    for file, comment in keys.items():
        must("ssh-keygen", run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(desk / file)))
    known, lines = [], ["127.0.0.1 localhost", f"10.77.0.1 desk.{DOMAIN} desk"]
    for number, host in enumerate(hosts, 11):
        key = " ".join((desk / f"{host}.key.pub").read_text().split()[:2])
        known.append(f"{host},{host}.{DOMAIN},10.77.0.{number},10.77.1.{number} {key}")
        lines.append(f"10.77.0.{number} {host}.{DOMAIN} {host}")
    (desk / "config").write_text(SSH_CONFIG)
    (desk / "known_hosts").write_text("\n".join((*known, "")))
    names.write_text("\n".join((*lines, "")))


def make_identity(lab: Path, host: str) -> None:
    """The uppermost of a host's lower layers: who it is, who may come in, what runs there."""
    root = lab / host / "identity"
    for folder in EMPTIED:
        (root / folder).mkdir(parents=True, exist_ok=True)
        os.setxattr(root / folder, "trusted.overlay.opaque", b"y")
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    desk = lab / "desk"
    files = {
        "etc/hostname": f"{host}\n",
        "etc/machine-id": f"{uuid4().hex}\n",
        "etc/hosts": (lab / "hosts").read_text(),
        "etc/resolv.conf": "",
        "etc/fstab": "",
        "etc/ssh/ssh_host_ed25519_key": (desk / f"{host}.key").read_text(),
        "etc/ssh/ssh_host_ed25519_key.pub": (desk / f"{host}.key.pub").read_text(),
        "etc/ssh/sshd_config.d/lab.conf": (
            "PermitRootLogin prohibit-password\nUseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\n"
        ),
        "etc/libvirt/libvirtd.conf": 'host_uuid_source = "machine-id"\n',
        "etc/systemd/system/lab.target": UNIT,
        "root/.ssh/authorized_keys": (desk / "id_ed25519.pub").read_text(),
        **{f"root/.ssh/{name}": (desk / name).read_text() for name in ("id_ed25519", "config", "known_hosts")},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600 if "key" in name or "id_" in name else 0o644)
    (root / "etc/machine-id").chmod(0o444)
    for folder in ("root", "root/.ssh"):
        (root / folder).chmod(0o700)
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")


@contextmanager
def alone() -> Iterator[None]:
    """Several labs may start at once; what lies outside their namespaces is seen to by one at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_newer(lab: "Lab") -> None:
    """The layer with the backports' QEMU and libvirt; kept from run to run, as long as this machine's packages stay.

    A LabError, where there are none or they cannot be had.
    """
    key = hashlib.sha256(Path("/var/lib/dpkg/status").read_bytes()).hexdigest()[:16] if _has_apt() else ""
    kept = CACHE / f"newer-{key}.tar"
    pack = ("tar", "--xattrs", "--xattrs-include=trusted.*", "--numeric-owner", "-C", f"{lab.HOME}/newer")
    lab.inside("mkdir", "-p", f"{lab.HOME}/newer")
    if kept.exists():
        lab.inside(*pack, "-xf", str(kept))
        return
    _install_newer(lab)
    for old in CACHE.glob("newer-*"):
        old.unlink()
    half = kept.with_suffix(f".{os.getpid()}")
    lab.inside(*pack, "-cf", str(half), ".")
    half.rename(kept)


def _has_apt() -> bool:
    if shutil.which("apt-get", path=PATH) is None:
        raise LabError("no apt-get here: a second version of QEMU needs Debian's backports")
    return True


def _install_newer(lab: "Lab") -> None:
    """Install into the layer what this release's own mirror has; nothing is started, and no network is there."""
    apt = _apt_configuration()
    env = ("env", f"APT_CONFIG={apt}", "DEBIAN_FRONTEND=noninteractive")
    words = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "install"]
    words += ["qemu-system-x86", "libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu"]
    must("apt-get update", run(*env, "apt-get", "-qq", "update", seconds=600))
    must("fetching the backports' packages", run(*env, *words, "--download-only", seconds=600))
    home, root = lab.HOME, f"{lab.HOME}/newer-root"
    lab.inside("mkdir", f"{home}/newer-work", root)
    options = f"lowerdir=/,upperdir={home}/newer,workdir={home}/newer-work"
    lab.inside("mount", "-t", "overlay", "lab", "-o", options, root)
    no_service = f"{root}/usr/sbin/policy-rc.d"
    lab.inside("sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' >{no_service} && chmod 755 {no_service}")
    lab.inside(
        *("systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--settings=no", "--resolv-conf=off"),
        *("--timezone=off", "--pipe", "--private-network", f"--directory={root}", f"--bind={CACHE}"),
        *(f"--setenv=APT_CONFIG={apt}", "--setenv=DEBIAN_FRONTEND=noninteractive", *words, "--no-download"),
    )
    lab.inside("sh", "-c", f"rm {no_service} && umount {root}")


def _mirror() -> str:
    """The mirror that this machine uses already."""
    listed = must("apt-get indextargets", run("apt-get", "indextargets", "--format", "$(REPO_URI)"))
    mirrors = [line for line in listed.splitlines() if line.endswith("/debian/")]
    if not mirrors:
        raise LabError("no Debian mirror among this machine's apt sources")
    return mirrors[0]


def _apt_configuration() -> Path:
    """An apt of the lab's own, so that the machine's sources stay as they are: the file for APT_CONFIG."""
    mirror, release = _mirror(), platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for folder in ("lists/partial", "archives/partial"):
        (CACHE / folder).mkdir(parents=True, exist_ok=True)
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    suites = (release, f"{release}-backports")
    (CACHE / "sources.list").write_text("".join(f"deb {key} {mirror} {suite} main\n" for suite in suites))
    path = CACHE / "apt.conf"
    path.write_text(
        f'Dir::Etc::sourcelist "{CACHE}/sources.list"; Dir::Etc::sourceparts "/nonexistent";\n'
        f'Dir::State::lists "{CACHE}/lists"; Dir::Cache "{CACHE}"; APT::Default-Release "{release}-backports";\n'
        'APT::Sandbox::User "root"; Debug::NoLocking "true";\n'
    )
    return path
