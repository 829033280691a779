"""Devices and enlightenments that the guest has: the target's QEMU and libvirt must know how to build them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Told, Unavailable, check
from audit.facts.blockers import GuestSpice
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.guest_devices import GuestDevices
from audit.facts.host_models import DOMCAPS_KVM, DomainCapabilities, HostModels, Refusal, Request
from audit.facts.novelties import GuestNovelties
from audit.facts.versions import Kernel, Libvirt, OsRelease, Packages, Qemu, Version

_SWTPM = "dnf install swtpm swtpm-tools || apt-get install swtpm swtpm-tools; then restart libvirt's daemon"
_OPTIONAL = frozenset({"relaxed", "vapic"})  # QEMU goes on without them, with a warning


def _offer(models: HostModels, machine: GuestMachine) -> DomainCapabilities:
    """What the target's libvirt says of such guests; devices are the emulator's, whatever the machine type."""
    offer = models.offer(Request.of(machine))
    if isinstance(offer, Refusal):
        raise NotApplicable("the target refuses such guests as a whole, which is judged apart")
    return offer


def _lacking(what: str, wanted: Sequence[str], listed: frozenset[str] | None) -> Iterator[Finding]:
    if listed is None:
        raise Unavailable(DOMCAPS_KVM, f"this libvirt does not list which {what} it offers")
    if lacking := [one for one in dict.fromkeys(wanted) if one not in listed]:
        yield Finding(f"{what} {', '.join(lacking)}", f"the target offers {', '.join(sorted(listed)) or 'none'}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt: graphics are not supported with this QEMU; RHEL 9 has no SPICE",
    remedy="Give the guest another type of <graphics>, vnc as a rule, with virsh edit, and restart it.",
)
def graphics_offered(devices: GuestDevices, machine: GuestMachine, target: Target[HostModels]) -> Iterator[Finding]:
    """The target's QEMU offers the guest's graphics: VNC, SPICE or another.

    The screen's protocol is built into QEMU, and not into everyone: RHEL 9 and its kin have dropped SPICE. libvirt
    refuses a guest whose graphics its QEMU lacks.
    """
    if not devices.graphics:
        raise NotApplicable("the guest has no graphics")
    yield from _lacking("graphics", [kind for kind, _ in devices.graphics], _offer(target, machine).graphics)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU chardev/spice.c, audio/spiceaudio.c: built with SPICE only; RHEL 9 has no SPICE",
    remedy="virsh detach-device GUEST DEVICE.xml --live --config; or remove them with virsh edit, and restart it",
)
def spice_offered(spice: GuestSpice, machine: GuestMachine, target: Target[HostModels]) -> Iterator[Finding]:
    """The target's QEMU knows SPICE, where devices of the guest speak it.

    A guest whose screen was changed from SPICE to VNC often keeps its channel for the SPICE agent, USB redirection or
    sound by SPICE. A QEMU without it knows none of them.
    """
    if not spice.devices:
        raise NotApplicable("no device that speaks SPICE")
    listed = _offer(target, machine).graphics
    if listed is None:
        raise Unavailable(DOMCAPS_KVM, "this libvirt does not list whether it offers SPICE")
    if "spice" not in listed:
        yield Finding("a QEMU with SPICE", f"one without; the guest has {', '.join(spice.devices)} of SPICE's")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,  # libvirt looks at video devices before it looks at graphics
    reference="libvirt: domain configuration does not support video model",
    remedy="Give the guest another video model, virtio or vga as a rule, with virsh edit, and restart it.",
)
def video_offered(devices: GuestDevices, machine: GuestMachine, target: Target[HostModels]) -> Iterator[Finding]:
    """The target's QEMU offers the guest's graphics card: virtio, vga, qxl or another.

    qxl belongs to SPICE and went with it from RHEL 9. libvirt refuses a guest whose video model its QEMU lacks.
    """
    if not devices.videos:
        raise NotApplicable("the guest has no graphics card")
    yield from _lacking("video model", devices.videos, _offer(target, machine).videos)


_VIDEO_RECORDED = Version(12, 5, 0)


def _vga(packages: Packages) -> str | None:
    """QEMU's part for virtio-vga; "" where only that for virtio-gpu is there. None: not packed in such parts."""
    parts = [name for name, _ in packages.packages if re.fullmatch(r"qemu-.*-display-virtio-(vga|gpu|gpu-pci)", name)]
    return next((name for name in parts if name.endswith("vga")), "" if parts else None)


@check(
    severity=Severity.HIGH,
    stage=Stage.START,
    reference="libvirt NEWS 12.5.0: record selected virtio video device model; qemuDeviceVideoGetModel",
)
def virtio_screen_alike(
    devices: GuestDevices,
    machine: GuestMachine,
    source: Source[Packages],
    target: Target[Packages],
    libvirt: Source[Libvirt],
    their_libvirt: Target[Libvirt],
) -> Iterator[Finding]:
    """libvirt makes the same device of the guest's virtio screen on both hosts.

    With QEMU's part for virtio-vga it makes that of the first screen, without it virtio-gpu; it records which since
    12.5 only. The one device does not understand the other's state. (A guest that was started before the part came, or
    went, has what was made then.)
    """
    if devices.videos[:1] != ("virtio",) or machine.arch not in {"x86_64", "i686"}:
        raise NotApplicable("the guest's first screen is not virtio, or it is no PC")
    if min(libvirt.daemon, their_libvirt.daemon) >= _VIDEO_RECORDED:
        raise NotApplicable("libvirt records which device it is")
    ours, theirs = _vga(source), _vga(target)
    if ours is None or theirs is None:
        raise NotApplicable("QEMU is not packed in parts, of which one could be missing")
    if bool(ours) != bool(theirs):
        part = ours or theirs
        yield Finding(
            f"{part} installed on both hosts, or on none",
            f"it is on the {'source' if ours else 'target'} only",
            remedy=f"dnf install {part} || zypper install {part}; guests that run there have to be restarted then",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt: TPM emulator; swtpm",
    covers=("failure 72",),
)
def tpm_offered(devices: GuestDevices, machine: GuestMachine, target: Target[HostModels]) -> Iterator[Finding]:
    """The target can run the guest's TPM.

    An emulated TPM is a program of its own, swtpm, beside QEMU. Where it is not installed, libvirt does not start
    the guest.
    """
    if devices.tpm is None:
        raise NotApplicable("the guest has no TPM")
    offer = _offer(target, machine)
    for finding in _lacking("TPM backend", [devices.tpm], offer.tpm_backends):
        yield replace(finding, remedy=_SWTPM) if devices.tpm == "emulator" else finding
    if devices.tpm_model:
        yield from _lacking("TPM model", [devices.tpm_model], offer.tpm_models)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt: host doesn't support hyperv feature",
    remedy="Choose a target with a newer kernel and QEMU, or turn the enlightenment off and restart the guest.",
)
def hyperv_offered(
    cpu: GuestCpu,
    machine: GuestMachine,
    target: Target[HostModels],
    here: Source[OsRelease],
    there: Target[OsRelease],
    qemu: Source[Qemu],
    qemu_there: Target[Qemu],
    kernel: Source[Kernel],
    kernel_there: Target[Kernel],
) -> Iterator[Finding]:
    """The target offers the Hyper-V enlightenments that the guest runs with.

    Windows guests use them to work faster under KVM; they come from QEMU and the kernel. libvirt stops a guest that
    would lose one. Before 9.0 libvirt does not list them; then QEMU and a kernel of the same system that are not
    older than the source's are the proof.
    """
    wanted = sorted(cpu.hyperv - _OPTIONAL)
    if not wanted:
        raise NotApplicable("the guest has no enlightenments that must be there")
    listed = _offer(target, machine).hyperv
    if listed is None and here.id == there.id and qemu.version and qemu_there.version:
        newer = qemu_there.version >= qemu.version and _numbers(kernel_there) >= _numbers(kernel)
        if newer:
            return
    yield from _lacking("enlightenment", wanted, listed)


def _numbers(kernel: Kernel) -> list[int]:
    """The numbers of a release, up to the name of the system: 5.14.0-427.42.1.el9_4 → 5, 14, 0, 427, 42, 1."""
    return [int(number) for number in re.findall(r"\d+", re.split(r"[a-zA-Z]", kernel.release)[0])]


# By libvirt's release notes. Those newer than 9.0 were tried: 9.0 refuses or drops them, 11.3 takes them. What keeps a
# guest in any case (sound of model virtio, …) is not among them, nor the iTCO watchdog, which libvirt does not send.
_LIBVIRT_KNOWS = {
    "panic of model pvpanic": Version(9, 1, 0),
    "audio of type pipewire": Version(9, 10, 0),
    "channel of type qemu-vdagent": Version(8, 4, 0),
    "channel of type dbus": Version(8, 4, 0),
    "iommu of model virtio": Version(8, 3, 0),
    "memory of model sgx-epc": Version(8, 10, 0),
    "memory of model virtio-mem": Version(7, 9, 0),
    "memory of model virtio-pmem": Version(7, 1, 0),
    "clock with offset absolute": Version(8, 4, 0),
    "feature ps2": Version(10, 7, 0),
    "feature async-teardown": Version(9, 6, 0),
    "pstore": Version(10, 6, 0),
}
_QEMU_KNOWS = {
    "NIC of model igb": Version(8, 0, 0),
    "pstore": Version(6, 1, 0),
    "channel of type qemu-vdagent": Version(6, 1, 0),
    "channel of type dbus": Version(7, 0, 0),
}


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt NEWS, by release",
    remedy="Update libvirt on the target; or take the device out of the guest, with virsh edit, and restart it",
    offline=True,
)
def known_to_libvirt(guest: GuestNovelties, there: Target[Libvirt]) -> Told:
    """The target's libvirt knows the devices and features of the guest's definition.

    An older libvirt refuses a value that it does not know. An element that it does not know it drops, and the guest
    would lack that device.
    """
    for name in guest.names:
        since = _LIBVIRT_KNOWS.get(name)
        if since is None or there.daemon >= since:
            continue
        yield Finding(f"libvirt {since} or newer on the target, for the guest's {name}", f"libvirt {there.daemon}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="QEMU's change log, by release",
    remedy="Update QEMU on the target; or take the device out of the guest, with virsh edit, and restart it",
)
def known_to_qemu(guest: GuestNovelties, there: Target[Qemu]) -> Told:
    """The target's QEMU knows the guest's devices that came with a newer release.

    libvirt hands their names on; a QEMU that does not know one does not start.
    """
    for name in guest.names:
        since = _QEMU_KNOWS.get(name)
        if since is None:
            continue
        if there.version is None:
            yield Unavailable(there.probes[0], f"whether that QEMU knows the guest's {name}")
        elif there.version < since:
            yield Finding(f"QEMU {since} or newer on the target, for the guest's {name}", f"QEMU {there.version}")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt 11.3 virQEMUCapsFillDomainDeviceRedirdevCaps and the like; qemu_validate.c",
    remedy="Install what QEMU lacks on the target; or take the device out of the guest (virsh edit), and restart it",
)
def kinds_offered(guest: GuestNovelties, machine: GuestMachine, target: Target[HostModels]) -> Iterator[Finding]:
    """The target's QEMU offers the guest's USB redirection, random numbers, shared folders and channels.

    Distributions build QEMU without some, or pack them apart. Where libvirt does not list them, older releases, every
    QEMU is taken to have them.
    """
    if not guest.kinds:
        raise NotApplicable("no such device")
    offer = _offer(target, machine)
    for device, kind in guest.kinds:
        if offer.offers(device, kind) is False:
            yield Finding(f"a QEMU with {device} of kind {kind}", "one without")
