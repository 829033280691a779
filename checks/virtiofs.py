"""Folders shared by virtiofs: what QEMU, the daemon and the folder itself must be for them to move with the guest.

Whether libvirt lets such a guest go at all is judged by `devices.no_virtiofs`.
"""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.paths import Paths
from audit.facts.storage import Mounts, Place, same_file
from audit.facts.versions import Qemu, Version
from audit.facts.virtiofs import GuestShares, Share, VirtiofsDaemons

MIGRATES = Version(8, 2, 0)
"""Since then QEMU's vhost-user-fs is not marked as non-migratable (vhost-user-fs: Implement internal migration)."""


def _shares(shares: GuestShares) -> tuple[Share, ...]:
    if not shares.shares:
        raise NotApplicable("no virtiofs")
    return shares.shares


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="QEMU 8.2 hw/virtio/vhost-user-fs.c",
    remedy="Unmount it in the guest and detach it: virsh detach-device GUEST FILESYSTEM.xml --live",
    covers=("failure 63",),
)
def qemu(shares: GuestShares, here: Source[Qemu], there: Target[Qemu]) -> Iterator[Finding]:
    """QEMU is 8.2 or newer on both hosts of a guest with virtiofs.

    Older ones do not know how to ask the daemon for its state, and do not migrate the device.
    """
    _shares(shares)
    for side, version in (("source", here.version), ("target", there.version)):
        if version is not None and version < MIGRATES:
            yield Finding(f"{side}: QEMU 8.2 or newer", f"QEMU {version}", "vhost-user-fs is a non-migratable device")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.TRANSFER,
    reference="virtiofsd 1.11 doc/migration.md; QEMU vhost_save_backend_state",
    remedy="Install virtiofsd 1.11 or newer on the target",
    covers=("failure 63",),
)
def daemon_on_target(shares: GuestShares, there: Target[VirtiofsDaemons]) -> Iterator[Finding]:
    """The target's virtiofsd can take over what the guest has open.

    The daemon's state travels within the guest's; one that knows nothing of it ends the migration.
    """
    unknown = None
    for share in _shares(shares):
        if share.socket is not None:
            continue
        able = there.can_migrate(share.binary)
        if able is None:
            able = there.can_migrate(None)
        if able is None:
            unknown = Unavailable(there.probes[0], f"no description of {share.binary or 'one virtiofsd'} on the target")
        elif not able:
            yield Finding("a virtiofsd with migrate-precopy on the target", f"one without, for {share.tag}")
    if unknown:
        raise unknown


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="virtiofsd 1.11 doc/migration.md: filesystem state requirements",
    remedy="Put the folder on storage that both hosts mount at the same path",
    covers=("failure 63",),
)
def same_folder(
    shares: GuestShares,
    here: Source[Paths],
    here_mounts: Source[Mounts],
    there: Target[Paths],
    there_mounts: Target[Mounts],
) -> Iterator[Finding]:
    """A folder that the guest shares is the same on the target, not a copy of it.

    Only which files are open travels along. Where the target's daemon does not find one, the migration ends without
    success; where it finds an older one, the guest goes on with that.
    """
    for share in _shares(shares):
        if share.folder is None:
            yield Finding(
                expected="a daemon of the target's that serves the same folder",
                actual=f"{share.tag} is served by a daemon of the administrator's own",
            )
            continue
        ours, theirs = here.at(share.folder), there.at(share.folder)
        if not ours.exists or not theirs.exists:
            continue
        place = Place(theirs, there_mounts.of(theirs, share.folder))
        if not same_file(Place(ours, here_mounts.of(ours, share.folder)), place):
            yield Finding(f"{share.folder} on storage shared with the target", f"{share.tag}: perhaps another folder")
