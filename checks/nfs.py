"""NFS: locking, exports, and whether two hosts mean the same server."""

from collections.abc import Generator, Iterator

from audit.check import (
    At,
    Cluster,
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
from audit.facts.guest_devices import GuestDisks
from audit.facts.names import OwnAddresses, is_loopback
from audit.facts.nfs import EXPORTS, Export, NfsClient, NfsUse
from audit.facts.paths import Paths
from audit.facts.pools import Pools
from audit.facts.storage import Mount, Mounts, Nfs, Place, same_file
from audit.text import some_of
from checks._storage import path_of


@check(
    severity=Severity.INFO,
    stage=Stage.TRANSFER,
    reference="RHEL 9 §12.5",
    remedy="mount -o nolock (NFS 3 only), or keep QEMU's own image locks: do not run one image twice",
    covers=("12.5/locking", "failure 52"),
)
def locking(mounts: Mounts) -> Iterator[Finding]:
    """NFS file locking is not used.

    The procedure asks for it, because libvirt's lock managers are not supported on NFS. QEMU's image locks
    are let go by the source and taken by the target, so migration works with them; NFS 4 cannot be without locks.
    """
    kept = [(mount.path, mount.nfs) for mount in mounts.mounts if mount.nfs and mount.nfs.locks != "local"]
    if kept:
        told = [
            f"{path}: NFS {nfs.version or 'of unknown version'}, "
            + ("locks kept by the server" if nfs.locks == "server" else "locking unknown")
            for path, nfs in kept
        ]
        yield Finding(expected="NFS mounts without file locking", actual=some_of(told, 5))


@check(
    severity=Severity.HIGH,
    stage=Stage.TRANSFER,
    reference="nfs(5) local_lock; RHEL 9 §12.5",
    remedy="Mount it with the same options on both hosts",
    covers=("12.5/locking", "12.5/options", "failure 52"),
)
def locking_same(source: Source[Mounts], target: Target[Mounts]) -> Iterator[Finding]:
    """Both hosts keep the locks of a common NFS mount in the same place.

    Where one host locks locally and the other on the server, neither sees that the other has an image open.
    """
    theirs = {mount.path: mount.nfs for mount in target.mounts}
    for mount in source.mounts:
        here, there = mount.nfs, theirs.get(mount.path)
        if here and there and here.export == there.export and {here.locks, there.locks} == {"server", "local"}:
            yield Finding(
                expected=f"{mount.path}: the same kind of locking",
                actual=f"{here.locks} here, {there.locks} on the target",
            )


@check(
    severity=Severity.LOW,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    plain_guest=True,
    remedy="Mount the same export at this path on both hosts, if guests have images there",
    covers=("12.5/same-path", "12.6/storage-shared"),
)
def same_export(source: Source[Mounts], target: Target[Mounts]) -> Iterator[Finding]:
    """What is mounted by NFS at the same path comes from the same export.

    Two exports at one path look alike and hold different images. Where no guest has any, as in a folder for each
    host's own backups, it does not matter: guests are judged by the files that they have.
    """
    theirs = {mount.path: mount.nfs for mount in target.mounts}
    for mount in source.mounts:
        here, there = mount.nfs, theirs.get(mount.path)
        if here is None or there is None:
            continue
        if here.export != there.export or not here.same_server(there):
            yield Finding(
                expected=f"{mount.path}: {here.server}:{here.export} on both",
                actual=f"{there.server}:{there.export} on the target",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    remedy="Make sure that it is one server: touch a file from one host and look from the other; or mount it alike",
    covers=("12.5/same-path",),
)
def same_server(
    disks: GuestDisks,
    pools: Source[Pools],
    here: Source[Paths],
    here_mounts: Source[Mounts],
    our_addresses: Source[OwnAddresses],
    their_pools: Target[Pools],
    there: Target[Paths],
    there_mounts: Target[Mounts],
    their_addresses: Target[OwnAddresses],
) -> Told:
    """Both hosts reach the guest's images at the same NFS server's name or address.

    A server may have several addresses. A replica has the same exports, and the same files in them, too.
    """
    paths: list[tuple[str, str]] = []
    for disk in (disk for disk in disks.disks if not disk.readonly):
        own, its = (yield from path_of(disk, pools)), (yield from path_of(disk, their_pools))
        paths += [(own, its)] if own and its else []
    paths += [(path, path) for disk in disks.disks for path in disk.backing]
    for path, their_path in paths:
        ours = yield from if_known(here.find(path))
        mount = here_mounts.of(ours, path) if ours and ours.exists else None
        if ours is None or mount is None or mount.nfs is None:
            continue
        theirs = yield from if_known(there.find(their_path))
        other = there_mounts.of(theirs, their_path) if theirs and theirs.exists else None
        if theirs is None or other is None or other.nfs is None or mount.nfs.same_server(other.nfs):
            continue
        if _is_server(their_addresses, mount.nfs, other.nfs) or _is_server(our_addresses, other.nfs, mount.nfs):
            continue
        if same_file(Place(ours, mount), Place(theirs, other)):
            yield Finding(
                expected=f"{path} from {mount.nfs.server} on both hosts",
                actual=f"from {other.nfs.server} on the target",
                because="the same export, file number and size: one server of several addresses, or a replica",
            )


def _is_server(host: OwnAddresses, mounted: Nfs, by_itself: Nfs) -> bool:
    """The host whose addresses these are is the server that the other one mounts, and it mounts itself."""
    at, own = mounted.address, by_itself.address
    if at is None or own is None or host.interface_of(at) is None:
        return False
    return is_loopback(own) or host.interface_of(own) is not None


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="nfs(5); RHEL 9 §12.5",
    remedy="Mount it with the same options on both hosts",
    covers=("12.5/options",),
)
def options_same(source: Source[Mounts], target: Target[Mounts]) -> Iterator[Finding]:
    """Both hosts mount a common NFS export with options that agree.

    Writable or not, the protocol's version, its security, and whether errors are returned when the server is silent:
    a guest meets the target's options after the move. What has to do with locks is judged apart.
    """
    theirs = {mount.path: mount for mount in target.mounts}
    for mount in source.mounts:
        other = theirs.get(mount.path)
        if mount.nfs is None or other is None or other.nfs is None or mount.nfs.export != other.nfs.export:
            continue
        ours, its = _options(mount), _options(other)
        if differ := [at for at in range(len(ours)) if ours[at] != its[at]]:
            yield Finding(
                expected=f"{mount.path}: {', '.join(ours[at] for at in differ)}",
                actual=f"{', '.join(its[at] for at in differ)} on the target",
            )


def _options(mount: Mount) -> tuple[str, ...]:
    """What a guest notices, in words."""
    return (
        "ro" if mount.read_only else "rw",
        f"vers={mount.option('vers') or '?'}",
        f"sec={mount.option('sec') or 'sys'}",
        "soft" if mount.options & _SOFT else "hard",
        f"proto={mount.option('proto') or 'tcp'}",
    )


_SOFT = frozenset({"soft", "softerr"})


def _nfs_disks(
    disks: GuestDisks, pools: Pools, paths: Paths, mounts: Mounts
) -> Generator[Unavailable, None, list[tuple[str, Mount]]]:
    """`found = yield from _nfs_disks(…)`: the written disks' paths that lie on NFS, with their mounts."""
    found = []
    for disk in (disk for disk in disks.disks if not disk.readonly):
        path = yield from path_of(disk, pools)
        state = (yield from if_known(paths.find(path))) if path else None
        mount = mounts.of(state, path) if path and state and state.exists else None
        if path and mount and mount.nfs:
            found.append((path, mount))
    return found


@check(
    severity=Severity.LOW,
    stage=Stage.AFTER,
    reference="nfs(5) soft",
    remedy="Mount it hard, which is the default: without soft and softerr",
    covers=("12.5/options",),
)
def mounted_hard(disks: GuestDisks, pools: Target[Pools], there: Target[Paths], mounts: Target[Mounts]) -> Told:
    """On the target the guest's images lie on NFS mounts that wait for their server.

    A soft mount gives up after a while: the guest gets an error for what it wrote, and may lose it. A hard one holds
    the guest still until the server is back.
    """
    for path, mount in (yield from _nfs_disks(disks, pools, there, mounts)):
        if soft := mount.options & _SOFT:
            yield Finding(expected=f"{mount.path} mounted hard on the target", actual=", ".join(soft), because=path)


@check(
    severity=Severity.LOW,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    remedy="On the target: dnf install nfs-utils || zypper install nfs-client || apt-get install nfs-common",
    covers=("12.5/nfs-installed",),
)
def client_installed(
    disks: GuestDisks,
    pools: Source[Pools],
    here: Source[Paths],
    mounts: Source[Mounts],
    client: Target[NfsClient],
) -> Told:
    """Where the guest's images lie on NFS, the target can mount NFS.

    mount(8) needs the helper mount.nfs of the package with the client. A target that is itself the server may do
    without.
    """
    on_nfs = yield from _nfs_disks(disks, pools, here, mounts)
    if not on_nfs:
        raise NotApplicable("no image on NFS")
    if not client.installed:
        yield Finding("mount.nfs on the target", "not installed", f"{on_nfs[0][0]} lies on NFS.")


def _between(hosts: Cluster[NfsUse]) -> Iterator[tuple[At[NfsUse], At[NfsUse], str, Nfs]]:
    """Server, client, where the client mounts it and what, for all audited hosts that serve NFS to another one."""
    for server in hosts:
        for client in hosts:
            for path, mount in client.fact.mounts if client.host != server.host else ():
                if server.fact.serves(mount):
                    yield server, client, path, mount


@check(
    severity=Severity.MEDIUM,
    stage=Stage.SAFE,
    reference="RHEL 9 §12.5",
    remedy="Move the images to a server that is none of these hosts; or do not shut the serving host down",
    covers=("12.5/third-host",),
)
def third_host(hosts: Cluster[NfsUse]) -> Iterator[Finding]:
    """The images of running guests are served by none of the audited hosts.

    Where one of them is the NFS server, guests that are moved away from it still depend on it: they stop when it is
    shut down, and so do those on other hosts.
    """
    for server, client, path, mount in _between(hosts):
        folder = server.fact.exports.folder(mount.export)
        own = server.fact.guests_at(folder)
        for own_path, own_mount in server.fact.mounts:  # its own export, mounted by itself
            own |= server.fact.guests_at(own_path) if server.fact.serves(own_mount) else frozenset()
        guests = sorted(client.fact.guests_at(path) | own)
        if guests:
            yield Finding(
                expected=f"{path} on {client.host} from a host that is neither source nor target",
                actual=f"from {server.host}:{mount.export}",
                because=f"Without {server.host} there are no disks for {some_of(guests, 5)}.",
                hosts=frozenset({server.host, client.host}),
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.START,
    reference="exports(5); RHEL 9 §12.5",
    remedy="On the server, in /etc/exports: PATH CLIENT(rw,no_root_squash), then: exportfs -ra",
    covers=("12.5/root-squash", "failure 51"),
)
def exported_writable(hosts: Cluster[NfsUse]) -> Told:
    """An audited host that serves NFS exports what the others mount to all of them, writable.

    A mount does not show it: the server refuses each write, or all access since its exports were changed. Looked at are
    the kernel's exports; a server such as NFS-Ganesha has others.
    """
    for server, client, path, mount in _between(hosts):
        entries = _entries(server, client, mount, hosts)
        if entries is None or (entries and not any(entry.read_only for entry in entries)):
            continue
        if not all(entry.read_only for entry in entries):
            yield _undecided(client, entries)
            continue
        for other in hosts:  # one finding for each way that leads to this client or from it
            if other.host != client.host:
                yield Finding(
                    expected=f"{server.host} exports {mount.export} to {client.host}, rw",
                    actual="ro" if entries else "it does not",
                    because=f"{client.host} has it at {path}.",
                    hosts=frozenset({client.host, other.host}),
                )


def _entries(server: At[NfsUse], client: At[NfsUse], mount: Nfs, hosts: Cluster[NfsUse]) -> tuple[Export, ...] | None:
    """How the server exports the mount to the client. None: its kernel exports nothing, something else serves it."""
    exports = server.fact.exports
    if not exports.exports:
        return None
    others = frozenset(name for host in hosts if host.host != client.host for name in host.fact.client.names)
    return exports.to(exports.folder(mount.export), client.fact.client, others)


def _undecided(client: At[NfsUse], entries: tuple[Export, ...]) -> Unavailable:
    told = ", ".join(sorted({entry.client for entry in entries}))
    return Unavailable(EXPORTS, f"which of {told} holds for {client.host} is not known, and they differ")


@check(
    severity=Severity.INFO,
    stage=Stage.START,
    reference="RHEL 9 §12.5",
    remedy="On the server, in /etc/exports: PATH CLIENT(rw,no_root_squash), then: exportfs -ra",
    covers=("12.5/root-squash", "failure 51"),
)
def exports_without_root_squash(hosts: Cluster[NfsUse]) -> Told:
    """What an audited host exports to the others lets root be root.

    libvirt gives images to QEMU's user as root, which a squashing server refuses, and before 10.4 it also looks at
    them as root. It does no harm where the images already belong to that user (access.images_open).
    """
    for server, client, path, mount in _between(hosts):
        entries = _entries(server, client, mount, hosts) or ()
        if not any(entry.root_squash for entry in entries):
            continue
        if not all(entry.root_squash for entry in entries):
            yield _undecided(client, entries)
        else:
            yield Finding(
                expected=f"{entries[0].path} on {server.host}: no_root_squash for {client.host}",
                actual=f"root_squash for {entries[0].client}",
                because=f"{client.host} has it at {path}.",
                hosts=frozenset({server.host, client.host}),
            )
