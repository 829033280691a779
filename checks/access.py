"""Whether QEMU on the target may open the guest's images: SELinux, permissions, the user that it runs as."""

from collections.abc import Iterable, Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, check
from audit.facts.guest_devices import GuestDisks
from audit.facts.paths import Paths
from audit.facts.pools import Pools
from audit.facts.storage import HypervisorUser, Mounts, Place, Selinux
from checks._storage import Unknown

_BOOLEANS = {"NFS": "virt_use_nfs", "CIFS": "virt_use_samba", "SMB": "virt_use_samba", "SMB2": "virt_use_samba"}


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="virt_selinux(8)",
)
def selinux_nfs(
    disks: GuestDisks,
    pools: Target[Pools],
    there: Target[Paths],
    mounts: Target[Mounts],
    selinux: Target[Selinux],
) -> Iterator[Finding]:
    """SELinux on the target lets guests use images on network file systems.

    NFS, SMB and FUSE carry no labels of their own, so one boolean each opens them to all guests.
    """
    unknown = Unknown()
    wanted: dict[str, str] = {}
    for disk in disks.disks:
        path = unknown.path(disk, pools)
        state = None if path is None else unknown.known(there.find(path))
        if path is None or state is None or not state.exists:
            continue
        place = Place(state, mounts.of(state, path))
        boolean = "virt_use_fusefs" if place.fuse else _BOOLEANS.get(place.shared or "")
        if boolean is not None and not _labelled(place):
            wanted.setdefault(boolean, path)
    if not wanted and not unknown:
        return
    if not selinux.enforcing:
        raise NotApplicable("SELinux is not enforcing on the target")
    for boolean, path in wanted.items():
        if not selinux.allows(boolean):
            yield Finding(
                expected=f"{boolean} on",
                actual="off",
                because=f"QEMU may not open {path}",
                remedy=f"On the target: setsebool -P {boolean} on",
            )
    unknown.end()


def _labelled(place: Place) -> bool:
    """Mounted with a label for all its files, or with the server's own labels."""
    options: Iterable[str] = place.mount.options if place.mount else ()
    return any(option == "seclabel" or option.startswith("context=") for option in options)


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt drvqemu: POSIX users and groups",
)
def permissions(disks: GuestDisks, there: Target[Paths], user: Target[HypervisorUser]) -> Iterator[Finding]:
    """The target's hypervisor user may pass every folder on the way to the guest's images.

    libvirt changes the owner of images, never of folders. Access lists may allow what the mode does not show.
    """
    unknown = Unknown()
    gids = user.user.groups | {user.user.gid}
    for disk in disks.disks:
        if not disk.local or not disk.source:
            continue
        state = unknown.known(there.find(disk.source))
        if state is not None and state.exists and not state.searchable(user.user.uid, gids):
            yield Finding(
                expected=f"{user.user.name} (uid {user.user.uid}) may search all folders of {disk.source}",
                actual=" ".join(f"{part.mode:04o} {part.uid}:{part.gid}" for part in state.components[:-1]),
                because="Cannot access storage file: Permission denied, unless an access list allows it",
            )
    unknown.end()


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="libvirt drvqemu: POSIX users and groups",
    remedy="Give the hypervisor's account the same uid on all hosts",
)
def qemu_uid_same(
    source: Source[HypervisorUser],
    target: Target[HypervisorUser],
    here: Source[Mounts],
    there: Target[Mounts],
) -> Iterator[Finding]:
    """QEMU has the same uid on hosts that share images by NFS.

    The target's libvirt gives the images to its own user. Under another number, the source loses access to them,
    or the server refuses the change. The group may differ: the owner needs none.
    """
    common = {m.path for m in here.mounts if m.nfs} & {m.path for m in there.mounts if m.nfs}
    ours, theirs = source.user, target.user
    if common and ours.uid != 0 and theirs.uid != 0 and ours.uid != theirs.uid:
        yield Finding(expected=f"{ours.name} {ours.uid} on both", actual=f"{theirs.name} {theirs.uid}")
