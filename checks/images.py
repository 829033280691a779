"""What no path tells of a guest's images: what pools know, whether storage in the network answers, what copies hold."""

import shlex
from contextlib import suppress

from audit.check import (
    COPY_WHOLE,
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
)
from audit.facts.disk_sizes import copyable
from audit.facts.firewall import NFT, Firewall
from audit.facts.guest import GuestState
from audit.facts.guest_devices import Disk, GuestDisks
from audit.facts.netfilter import Packet
from audit.facts.pools import Pools
from audit.facts.portals import Portals, StorageServers
from audit.facts.samples import Samples
from audit.facts.volumes import Volumes
from checks._paths import answers_to, rules_of, states_of


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virDomainDiskTranslateSourcePool",
    covers=("failure 47",),
)
def volumes(disks: GuestDisks, pools: Target[Pools], there: Target[Volumes]) -> Told:
    """The target's pools know the guest's volumes.

    A pool lists its folder or volume group when it is started or refreshed. What came there by another way, or from
    another host, it does not know until then, and libvirt does not find the volume, though its file is there.
    """
    for disk in disks.disks:
        if disk.pool is None or disk.source is None:
            continue
        name, volume = disk.pool, disk.source.partition("/")[2]
        try:
            pool = pools.find(name)
            if pool is None or not pool.active or there.has(name, volume):
                continue  # a missing pool is another check's
        except Unavailable as why:
            yield why
            continue
        yield Finding(
            expected=f"a volume {volume} in the target's pool {name}",
            actual="none",
            because=f"Storage volume not found: no storage vol with matching name '{volume}'",
            remedy=f"On the target: virsh pool-refresh {shlex.quote(name)}",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU block/nbd.c, iscsi.c, rbd.c: what it connects to at its start",
    remedy="Open the storage's network and port for the target, and let its name resolve there",
    covers=("12.6/storage-ceph", "failure 49"),
)
def storage_answers(
    state: GuestState,
    disks: GuestDisks,
    servers: Target[StorageServers],
    firewall: Target[Firewall],
    there: Target[Portals],
) -> Told:
    """The target finds the network storage of the guest's disks, and may connect to it.

    QEMU on the target connects to it by itself. Of several servers of one disk, as Ceph's monitors, one is enough.
    Known are what the storage's name leads to there, and the target's own rules; with --probe-network it is tried.
    Whether the storage lets the target in, only QEMU's own attempt would show.
    """
    if not state.active:
        raise NotApplicable("shut off: its storage is not spoken to")
    for disk in disks.disks:
        try:
            problems = {f"{host}:{port}": _problem(host, port, servers, firewall, there) for host, port in disk.portals}
        except Unavailable as why:
            yield why
            continue
        if problems and all(problems.values()):
            yield Finding(
                expected=f"a connection from the target to {', '.join(problems)}",
                actual=", ".join(dict.fromkeys(problems.values())),
                because=f"the storage of {disk.target}",
            )


def _problem(host: str, port: int, servers: StorageServers, firewall: Firewall, there: Portals) -> str:
    """Why there is no connection to it from the target; "": none is known. Raises `Unavailable`."""
    with suppress(Unavailable):
        return there.problem(host, port)
    routes = servers.of(host)
    if not routes:
        return "its name does not resolve there"
    if any(route.leads_here for route in routes):
        return ""
    ways = [
        Packet(6 if ":" in route.address else 4, port, route.source, route.address, route.device, leaving=True)
        for route in routes
        if route.device
    ]
    if not ways:
        return "no route there"
    answers = answers_to(firewall, range(port, port + 1), ways)
    if "open" in states_of(answers):
        return ""
    if states_of(answers) != {"closed"}:
        raise Unavailable(NFT, f"whether the target lets out TCP to {host}:{port}: {rules_of(answers)}")
    return f"closed there by: {rules_of(answers)}"


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.AFTER,
    reference="RHEL 9 §12.5",
    remedy="Copy the image to the target: no guest writes to it",
)
def same_below(state: GuestState, disks: GuestDisks, here: Source[Samples], there: Target[Samples]) -> Told:
    """What the guest only reads below its disks, or as a read-only disk, begins and ends alike on the target.

    libvirt does not compare it. With another image below an overlay, or in place of a read-only disk, the guest finds
    somebody else's data.
    """
    if not state.active:
        raise NotApplicable("shut off: nothing of its images is in use")
    for disk in disks.disks:
        read = [disk.source] if _read_only_file(disk) and disk.device not in _MEDIA else []
        whole = (COPY_WHOLE,) if copyable(disk) else ()
        for path in (*read, *disk.backing):
            try:
                differs = path is not None and _differs(path, here, there)
            except Unavailable as why:
                yield why
                continue
            if differs:
                yield Finding(
                    expected=f"{path}: the same content on both hosts",
                    actual="other checksums of its first or last MiB",
                    because=f"the guest would find another content on {disk.target}",
                    lifted_by=whole if path in disk.backing else (),
                    about=disk.target,
                )


_MEDIA = frozenset({"cdrom", "floppy"})


def _read_only_file(disk: Disk) -> bool:
    return disk.readonly and disk.type == "file"


def _differs(path: str, here: Samples, there: Samples) -> bool:
    """Both have the file, and the samples differ. Raises `Unavailable`."""
    ours, theirs = here.of(path), there.of(path)
    return None not in (ours, theirs) and ours != theirs


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="libvirt formatdomain: <disk device='cdrom'>",
    remedy="Eject it, or copy the image to the target",
)
def same_media(state: GuestState, disks: GuestDisks, here: Source[Samples], there: Target[Samples]) -> Told:
    """What is in the guest's CD-ROM and floppy drives is the same on the target.

    Where the guest has it mounted, it reads from another disk in the middle of things.
    """
    if not state.active:
        raise NotApplicable("shut off: nothing is in use")
    for disk in disks.disks:
        path = disk.source if _read_only_file(disk) and disk.device in _MEDIA else None
        try:
            differs = path is not None and _differs(path, here, there)
        except Unavailable as why:
            yield why
            continue
        if differs:
            yield Finding(f"{path}: the same content on both hosts", f"another image in {disk.target} on the target")
