"""Emulated TPMs: their state must be readable for the target's emulator, wherever it lies.

That the target has an emulator at all is judged by `offered.tpm_offered`, the secret by `storage.secrets`.
"""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.paths import Paths
from audit.facts.storage import SHARED_TYPES, Mount, Mounts, SharedFilesystems, within
from audit.facts.tpm import GuestTpmState, Swtpm
from audit.facts.versions import Libvirt, Version

SHARES_STATE = Version(8, 10, 0)
"""Since then libvirt knows that a TPM's state may lie on storage that the target sees too."""


def _path(state: GuestTpmState) -> str:
    if state.path is None:
        raise NotApplicable("no emulated TPM of libvirt's")
    return state.path


def _shared(path: str, places: Paths, mounts: Mounts, declared: SharedFilesystems) -> Mount | None:
    """The mount that the state lies on, if libvirt takes it for shared. Symbolic links are followed where it is there.

    Raises `Unavailable`.
    """
    state = places.at(path)
    through = [mount for mount in mounts.mounts if within(path, mount.path)]
    mount = mounts.of(state, path) if state.exists else None
    mount = mount or max(through, key=lambda mount: len(mount.path), default=None)
    return mount if mount is not None and (mount.type in SHARED_TYPES or declared.declare(path)) else None


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.ALLOWED,
    reference="libvirt 11.3 qemuTPMCanMigrateSharedStorage; swtpm 0.8 --migration",
    remedy="Install swtpm 0.8 or newer, and restart the guest",
    covers=("failure 72",),
)
def shared_state(
    state: GuestTpmState,
    swtpm: Swtpm,
    libvirt: Libvirt,
    places: Paths,
    mounts: Mounts,
    declared: SharedFilesystems,
) -> Iterator[Finding]:
    """An emulator whose TPM's state lies on shared storage knows how to hand it over there.

    Two emulators must not have the state open at once. swtpm releases its lock for a migration since 0.8; libvirt
    refuses with older ones.
    """
    mount = _cannot_share(_path(state), swtpm, libvirt, places, mounts, declared)
    if mount is not None:
        yield Finding(
            expected="swtpm 0.8 or newer",
            actual=f"{_numbers(swtpm.version)}, state on {mount.type} at {mount.path}",
            because="the running swtpm does not support migration with shared storage",
        )


def _cannot_share(
    path: str, swtpm: Swtpm, libvirt: Libvirt, places: Paths, mounts: Mounts, declared: SharedFilesystems
) -> Mount | None:
    """The shared mount of the state whose lock this swtpm does not hand over; None: it does. Raises `Unavailable`."""
    if libvirt.daemon < SHARES_STATE:
        raise NotApplicable("this libvirt does not look; judged apart")
    if "cmdarg-migration" in (swtpm.features or ()):
        return None
    mount = _shared(path, places, mounts, declared)
    if mount is None:
        raise NotApplicable("the TPM's state is on storage of its host, and travels along")
    if not swtpm.known().present or swtpm.features is None:
        raise Unavailable(swtpm.probes[0], "whether swtpm knows --migration")
    return mount


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 9.0 qemu_tpm.c: --migration on the destination side; swtpm 0.8",
    remedy="On the target: install swtpm 0.8 or newer",
    covers=("failure 72",),
)
def shared_state_taken(
    state: GuestTpmState,
    swtpm: Target[Swtpm],
    libvirt: Target[Libvirt],
    places: Target[Paths],
    mounts: Target[Mounts],
    declared: Target[SharedFilesystems],
) -> Iterator[Finding]:
    """The target's emulator knows how to take over a TPM's state that lies on shared storage.

    It has to wait until the source's emulator has let go. libvirt does not start the guest with one that cannot.
    """
    mount = _cannot_share(_path(state), swtpm, libvirt, places, mounts, declared)
    if mount is not None:
        yield Finding(
            expected="swtpm 0.8 or newer on the target",
            actual=f"{_numbers(swtpm.version)}, state on {mount.type} at {mount.path}",
            because="swtpm (on destination side) does not support the --migration option needed for migration with "
            "shared storage",
        )


@check(
    severity=Severity.HIGH,
    stage=Stage.AFTER,
    reference="libvirt 8.10.0 release notes: vTPM migration with shared storage",
    remedy="Upgrade libvirt; or keep the TPM's state on the host's own storage",
    covers=("failure 72",),
)
def shared_state_known(
    state: GuestTpmState,
    here: Source[Libvirt],
    there: Target[Libvirt],
    places: Source[Paths],
    mounts: Source[Mounts],
    declared: Source[SharedFilesystems],
) -> Iterator[Finding]:
    """libvirt is 8.10 or newer on both hosts where a TPM's state lies on shared storage.

    An older one takes the state for its own: two emulators open it, and undefining the guest on the source removes it
    under the running one.
    """
    path = _path(state)
    old = [(side, libvirt.daemon) for side, libvirt in (("source", here), ("target", there))]
    old = [(side, version) for side, version in old if version < SHARES_STATE]
    if old and _shared(path, places, mounts, declared) is not None:
        for side, version in old:
            yield Finding(f"{side}: libvirt 8.10 or newer", f"libvirt {version}")


@check(
    severity=Severity.MEDIUM,
    stage=Stage.TRANSFER,
    reference="libtpms: state formats; swtpm: TPM2 state blobs carry a version and the least one that reads them",
    remedy="On the target: dnf upgrade swtpm libtpms || apt-get install --only-upgrade swtpm libtpms0",
    covers=("failure 72",),
)
def emulator_not_older(state: GuestTpmState, here: Source[Swtpm], there: Target[Swtpm]) -> Iterator[Finding]:
    """The target's TPM emulator and its library are not older than the source's.

    The TPM's state is written in the library's format. An older one may not know it, and then ends the migration.
    """
    _path(state)
    ours, theirs = here.known(), there.known()
    if not ours.present or not theirs.present:
        raise NotApplicable("no swtpm on one of them, which is judged apart")
    for what, one, other in (("swtpm", ours.version, theirs.version), ("libtpms", ours.library, theirs.library)):
        if one is not None and other is not None and other[:2] < one[:2]:
            yield Finding(f"{what} {_numbers(one)} or newer on the target", f"{what} {_numbers(other)}")


def _numbers(version: tuple[int, ...] | None) -> str:
    return ".".join(str(number) for number in version or ())
