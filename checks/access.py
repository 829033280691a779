"""Whether QEMU on the target may open the guest's images: SELinux, permissions, the user that it runs as."""

import shlex
from collections.abc import Generator, Iterable, Iterator

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
from audit.facts.paths import Paths, PathState, Rights
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
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt drvqemu: POSIX users and groups",
    remedy="On the target: chmod a+x the folder, or setfacl -m u:USER:x, for QEMU's user",
    covers=("12.5/root-squash", "12.5/uid", "failure 46", "failure 51"),
)
def permissions(disks: GuestDisks, pools: Target[Pools], there: Target[Paths], user: Target[HypervisorUser]) -> Told:
    """The target's hypervisor user may pass every folder on the way to the guest's images.

    libvirt changes the owner of images, never of folders. What the modes refuse an access list may allow: that is
    tried as that user, where the audit may.
    """
    for path, _, state in (yield from _images(disks, pools, there)):
        if user.user.uid == 0 or state.searchable(user.user.uid, user.user.groups | {user.user.gid}):
            continue
        tried = _tried(state, user.user)
        if tried is None:
            yield Unavailable(Paths.probes[0], f"{path}: whether an access list opens its folders to {user.user.name}")
        elif not tried.reach:
            yield Finding(
                expected=f"{user.user.name} (uid {user.user.uid}) may search all folders of {path}",
                actual=" ".join(f"{part.mode:04o} {part.uid}:{part.gid}" for part in state.components[:-1]),
                because=f"Could not open '{path}': Permission denied",
            )


def _images(
    disks: GuestDisks, pools: Pools, there: Paths
) -> Generator[Unavailable, None, list[tuple[str, bool, PathState]]]:
    """The guest's images that are there, those below others, too: path, whether the guest writes to it, state."""
    found = []
    for disk in disks.disks:
        path = yield from path_of(disk, pools)
        for image in (path, *disk.backing):
            state = None if image is None else (yield from if_known(there.find(image)))
            if image is not None and state is not None and state.exists:
                found.append((image, image == path and not disk.readonly, state))
    return found


def _tried(state: PathState, user: User) -> Rights | None:
    """What that user was seen to be allowed; None: it was not tried, or as somebody else."""
    return state.rights if state.rights is not None and state.rights.uid == user.uid else None


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt qemu.conf: dynamic_ownership",
    covers=("12.5/uid", "failure 46", "failure 51"),
)
def images_owned(
    guest: GuestState,
    disks: GuestDisks,
    pools: Target[Pools],
    there: Target[Paths],
    user: Target[HypervisorUser],
    conf: Target[QemuConf],
    own: Source[HypervisorUser],
) -> Told:
    """Where the target's libvirt leaves images to their owners, QEMU's user may open those of the guest.

    With `dynamic_ownership = 0` in qemu.conf libvirt does not give images to the user that QEMU runs as. Whoever
    made them must have let that user in.
    """
    if conf.dynamic_ownership:
        raise NotApplicable("the target's libvirt gives images to QEMU's user")
    if not guest.active:
        raise NotApplicable("shut off: its images may change hands until it starts")
    for path, written, state in (yield from _images(disks, pools, there)):
        if user.user.uid == 0 or _may(state, user.user, write=written):
            continue
        tried, file = _tried(state, user.user), state.components[-1]
        if tried is None:
            yield Unavailable(Paths.probes[0], f"{path}: whether an access list opens it to {user.user.name}")
        elif tried.reach and not (tried.read and (tried.write or not written)):
            yield Finding(
                expected=f"{path} open to {user.user.name} ({user.user.uid}:{user.user.gid})",
                actual=f"{file.mode:04o} {file.uid}:{file.gid}",
                because=f"dynamic_ownership = 0: Could not open '{path}': Permission denied",
                remedy=_remedy(path, user.user, own),
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
