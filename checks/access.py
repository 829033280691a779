"""Whether QEMU on the target may open the guest's images: SELinux, permissions, the user that it runs as."""

import shlex
from collections.abc import Iterable, Iterator

from audit.check import (
    Blocks,
    Finding,
    NotApplicable,
    Severity,
    Source,
    Stage,
    Target,
    Told,
    Unavailable,
    check,
    if_known,
)
from audit.facts.administrator import Administrator
from audit.facts.confinement import GuestLabels, SecurityDrivers
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.paths import Paths, PathState
from audit.facts.pools import Pools, disk_path
from audit.facts.qemu_conf import QemuConf
from audit.facts.storage import HypervisorUser, Mounts, Place, Selinux, User
from checks._storage import path_of

_BOOLEANS = {"NFS": "virt_use_nfs", "CIFS": "virt_use_samba", "SMB": "virt_use_samba", "SMB2": "virt_use_samba"}


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="virt_selinux(8)",
    covers=("12.5/selinux", "failure 60"),
)
def selinux_nfs(
    disks: GuestDisks,
    pools: Target[Pools],
    there: Target[Paths],
    mounts: Target[Mounts],
    selinux: Target[Selinux],
    labels: GuestLabels,
    drivers: Target[SecurityDrivers],
) -> Told:
    """SELinux on the target lets guests use images on network file systems.

    NFS, SMB and FUSE carry no labels of their own, so one boolean each opens them to all guests.
    """
    needs = list(_booleans(disks, pools, there, mounts))
    if needs and not selinux.enforcing:
        raise NotApplicable("SELinux is not enforcing on the target")
    wanted: dict[str, str] = {}
    for need in needs:
        if isinstance(need, Unavailable):
            yield need
        else:
            wanted.setdefault(*need)
    off = {boolean: path for boolean, path in wanted.items() if not selinux.allows(boolean)}
    if off and (labels.unconfined or "selinux" not in drivers.models):
        raise NotApplicable("libvirt does not confine the guest by SELinux on the target")
    for boolean, path in off.items():
        yield Finding(
            expected=f"{boolean} on",
            actual="off",
            because=f"QEMU may not open {path}",
            remedy=f"On the target: setsebool -P {boolean} on",
        )


def _booleans(disks: GuestDisks, pools: Pools, there: Paths, mounts: Mounts) -> Iterator[tuple[str, str] | Unavailable]:
    """Per disk on a file system without labels: the boolean that opens it, and the path."""
    for disk in disks.disks:
        path = yield from path_of(disk, pools)
        state = None if path is None else (yield from if_known(there.find(path)))
        if path is None or state is None or not state.exists:
            continue
        place = Place(state, mounts.of(state, path))
        boolean = "virt_use_fusefs" if place.fuse else _BOOLEANS.get(place.shared or "")
        if boolean is not None and not _labelled(place):
            yield boolean, path


def _labelled(place: Place) -> bool:
    """Mounted with a label for all its files, or with the server's own labels."""
    options: Iterable[str] = place.mount.options if place.mount else ()
    return any(option == "seclabel" or option.startswith("context=") for option in options)


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt drvqemu: POSIX users and groups",
    covers=("12.5/root-squash", "12.5/uid", "failure 46", "failure 51"),
)
def permissions(disks: GuestDisks, there: Target[Paths], user: Target[HypervisorUser]) -> Told:
    """The target's hypervisor user may pass every folder on the way to the guest's images.

    libvirt changes the owner of images, never of folders. Access lists may allow what the mode does not show.
    """
    gids = user.user.groups | {user.user.gid}
    for disk in disks.disks:
        if not disk.local or not disk.source:
            continue
        state = yield from if_known(there.find(disk.source))
        if state is not None and state.exists and not state.searchable(user.user.uid, gids):
            yield Finding(
                expected=f"{user.user.name} (uid {user.user.uid}) may search all folders of {disk.source}",
                actual=" ".join(f"{part.mode:04o} {part.uid}:{part.gid}" for part in state.components[:-1]),
                because="Cannot access storage file: Permission denied, unless an access list allows it",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt drvqemu: POSIX users and groups",
    plain_guest=True,
    remedy="Give the hypervisor's account the same uid on all hosts",
    covers=("12.5/uid", "failure 46", "failure 51"),
)
def qemu_uid_same(
    source: Source[HypervisorUser],
    target: Target[HypervisorUser],
    here: Source[Mounts],
    there: Target[Mounts],
) -> Iterator[Finding]:
    """QEMU has the same uid on hosts that share images by NFS.

    The target's libvirt gives the images to its own user. Under another number, the source loses access to them,
    or the server refuses the change. The group may differ: the owner needs none. Guests are judged by their own
    images (access.images_open).
    """
    common = {m.path for m in here.mounts if m.nfs} & {m.path for m in there.mounts if m.nfs}
    ours, theirs = source.user, target.user
    if common and ours.uid != 0 and theirs.uid != 0 and ours.uid != theirs.uid:
        yield Finding(expected=f"{ours.name} {ours.uid} on both", actual=f"{theirs.name} {theirs.uid}")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt drvqemu: POSIX users and groups; RHEL 9 §12.5",
    covers=("12.5/root-squash", "12.5/uid", "failure 46", "failure 51"),
)
def images_open(
    guest: GuestState,
    disks: GuestDisks,
    pools: Target[Pools],
    there: Target[Paths],
    mounts: Target[Mounts],
    user: Target[HypervisorUser],
    conf: Target[QemuConf],
    own: Source[HypervisorUser],
) -> Iterator[Finding]:
    """The target's hypervisor user may open the guest's images on NFS as they are.

    QEMU does not run as root. Before it starts, libvirt makes its user the owner of the images; on NFS that takes a
    server that lets root be root, and `dynamic_ownership` in qemu.conf. Otherwise the user must be the owner already,
    or the mode let it in. Access lists may allow more than the mode shows.
    """
    if not guest.active:
        raise NotApplicable("shut off: its images are given to QEMU's user when it starts")
    unknown: Unavailable | None = None
    for disk in disks.disks:
        try:
            path = disk_path(disk, pools)
            state = there.at(path) if path else None
        except Unavailable as why:
            unknown = why
            continue
        mount = mounts.of(state, path) if path and state and state.exists else None
        if path is None or state is None or mount is None or mount.nfs is None:
            continue
        if user.user.uid == 0 or _may(state, user.user, write=not disk.readonly):
            continue
        file = state.components[-1]
        yield Finding(
            expected=f"{path} open to {user.user.name} ({user.user.uid}:{user.user.gid})",
            actual=f"{file.mode:04o} {file.uid}:{file.gid}",
            because=_ownership(conf),
            remedy=_remedy(path, user.user, own),
        )
    if unknown:
        raise unknown


def _may(state: PathState, user: User, *, write: bool) -> bool:
    file = state.components[-1]
    shift = 6 if file.uid == user.uid else 3 if file.gid in user.groups | {user.gid} else 0
    wanted = 6 if write else 4
    return file.mode >> shift & wanted == wanted


def _remedy(path: str, user: User, here: HypervisorUser) -> str:
    """A running guest's image must never be given to anybody but the user that its own host's QEMU runs as."""
    try:
        own = here.user
    except Unavailable:
        return "Give the hypervisor's account the same uid on both hosts"
    if own.uid not in {0, user.uid}:
        return (
            f"Give {user.name} on the target the uid that {own.name} has here ({own.uid}); not chown while the guest "
            "runs here: its QEMU would lose the image"
        )
    return f"chown {user.uid}:{user.gid} {shlex.quote(path)}; or export it with no_root_squash"


def _ownership(conf: QemuConf) -> str:
    try:
        changes = conf.dynamic_ownership
    except Unavailable:
        return "libvirt can change that only with dynamic_ownership, and where the server does not squash root."
    if changes:
        return "libvirt will try to change that, which a server that squashes root refuses: Permission denied."
    return "dynamic_ownership = 0: libvirt will not change that. Could not open: Permission denied."


@check(
    severity=Severity.LOW,
    stage=Stage.CONNECT,
    reference="RHEL 9 §12.4",
    remedy="Allow the audit's login to become root with sudo, without a password; or audit as root",
    covers=("12.4/access",),
)
def administrator(login: Administrator) -> Iterator[Finding]:
    """The audit had administrator's access to the host.

    Moving guests needs it (root, or the group libvirt for libvirt's own part), and much of what decides about it is
    only shown to root: what could not be read is unknown in this report.
    """
    if not login.root:
        member = "libvirt" in login.groups
        yield Finding("root, or sudo without a password", f"{login.user}{', in group libvirt' if member else ''}")
