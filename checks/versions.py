"""Versions: operating systems, QEMU, libvirt, kernel, firmware; and what the vendors support between them."""

from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.guest import GuestMachine
from audit.facts.machines import MachineTypes
from audit.facts.versions import (
    BIOS,
    Bios,
    Kernel,
    KernelArguments,
    Libvirt,
    OsRelease,
    Qemu,
    stated_majors,
    support_path,
)


@check(severity=Severity.INFO, reference="RHEL 9 §12.10", covers=("12.6/os",))
def supported_os(system: OsRelease) -> Iterator[Finding]:
    """The vendor of the host's operating system says which live migrations it supports.

    Where no vendor does, it is for you to try the way in both directions before you rely on it.
    """
    majors = stated_majors(system)
    if system.major not in majors:
        known = ", ".join(map(str, sorted(majors))) or "none"
        yield Finding("a release with a statement on live migration", system.pretty, f"Releases: {known}.")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    reference="RHEL 9 §12.6",
    remedy="dnf install qemu-kvm || apt-get install qemu-system",
    offline=True,
    covers=("12.4/installed",),
)
def qemu_present(machines: Target[MachineTypes]) -> Iterator[Finding]:
    """libvirt finds QEMU on this host.

    No guest can come to a host without it.
    """
    if not machines.lists:
        yield Finding("QEMU", "libvirt knows no emulator here")


@check(
    severity=Severity.MEDIUM,
    reference="QEMU migration compatibility",
    stage=Stage.TRANSFER,
    covers=("12.3/qemu", "failure 26"),
)
def qemu_not_older(
    source: Source[Qemu], target: Target[Qemu], here: Source[OsRelease], there: Target[OsRelease]
) -> Iterator[Finding]:
    """The target's QEMU is not older than the source's, or the vendor supports the way back.

    From old to new is what QEMU promises. The other way usually works with an old machine type, but is little tested:
    try it with a guest that may fail. It fails on arrival, and the guest then goes on running on the source.
    """
    if source.version is None or target.version is None:
        raise NotApplicable("no QEMU on one of them")
    if support_path(here, there).status == "supported":
        return
    if target.version[:2] < source.version[:2]:
        yield Finding(f"QEMU {source.version} or later", f"QEMU {target.version}")


@check(severity=Severity.LOW, reference="libvirt migration cookies")
def libvirt_not_older(source: Source[Libvirt], target: Target[Libvirt]) -> Iterator[Finding]:
    """The target's libvirt is not older than the source's.

    An older libvirt may not know what a newer one tells it about the guest; it then refuses, with the reason.
    """
    if target.daemon[:2] < source.daemon[:2]:
        yield Finding(f"libvirt {source.daemon} or later", f"libvirt {target.daemon}")


@check(
    severity=Severity.MEDIUM,
    reference="RHEL 9 §12.10, table 12.2; vendors' support tables",
    remedy="Choose a target whose release is supported, or have somebody accept the risk.",
    covers=("12.6/os", "12.10/forward", "12.10/backward"),
)
def os_path_supported(source: Source[OsRelease], target: Target[OsRelease]) -> Iterator[Finding]:
    """The vendor does not exclude live migration from the source's release to the target's.

    It may well work. When it does not, the vendor will not help.
    """
    path = support_path(source, target)
    if path.status == "unsupported":
        yield Finding("a supported path", f"{_route(source, target)}: {path.words}", path.note)


@check(
    severity=Severity.INFO,
    reference="RHEL 9 §12.10, table 12.2; vendors' support tables",
    covers=("12.6/os", "12.10/forward", "12.10/backward"),
)
def os_path_stated(source: Source[OsRelease], target: Target[OsRelease]) -> Iterator[Finding]:
    """The vendor says that it supports live migration from the source's release to the target's.

    Silence is no objection; what is only recollected here should be looked up in the vendor's pages.
    """
    if source.id == target.id and not stated_majors(source):
        raise NotApplicable("the vendor states nothing about any release, which is said of each host")
    path = support_path(source, target)
    if path.status in ("best effort", "no statement") or (path.status == "supported" and not path.certain):
        yield Finding("a stated, confirmed path", f"{_route(source, target)}: {path.words}", path.note)


def _route(source: OsRelease, target: OsRelease) -> str:
    return f"{source.id} {source.version_id} → {target.id} {target.version_id}"


@check(
    severity=Severity.MEDIUM,
    reference="RHEL 9 §12.10, table 12.2",
    remedy="Recreate the guest with machine type q35 at its next planned restart.",
    covers=("12.6/machine", "12.10/forward", "12.10/backward"),
)
def machine_supported(machine: GuestMachine, source: Source[OsRelease], target: Target[OsRelease]) -> Iterator[Finding]:
    """The vendor supports moving guests of this machine type.

    Red Hat supports live migration on RHEL 9 for guests with machine type q35. Others usually move as well.
    """
    path = support_path(source, target)
    if not path.machines or machine.arch not in ("x86_64", "i686"):
        raise NotApplicable("the vendor does not tell machine types apart")
    if not any(kind in machine.machine for kind in path.machines):
        yield Finding(" or ".join(path.machines), machine.machine, f"Stated in {path.reference}.")


@check(severity=Severity.INFO, reference="RHEL 9 §12.3", covers=("12.3/kernel",))
def kernel_equal(source: Source[Kernel], target: Target[Kernel]) -> Iterator[Finding]:
    """Source and target run the same kernel.

    Different kernels are normal during an update, and may give guests other CPU features, which the CPU checks see.
    """
    if source.release != target.release:
        yield Finding(source.release, target.release)


@check(severity=Severity.INFO, reference="kernel-parameters", covers=("12.3/kernel", "failure 5"))
def kernel_arguments_equal(source: Source[KernelArguments], target: Target[KernelArguments]) -> Iterator[Finding]:
    """Source and target were booted with the same arguments about CPUs and KVM.

    tsx=, mitigations=, kvm parameters and their like explain why equal processors give guests unequal features.
    """
    if source.cpu_words != target.cpu_words:
        words = [" ".join(sorted(one.cpu_words)) or "none" for one in (source, target)]
        yield Finding(words[0], words[1])


@check(severity=Severity.INFO, reference="RHEL 9 §12.3", covers=("12.3/bios-version",))
def bios_equal(source: Source[Bios], target: Target[Bios]) -> Iterator[Finding]:
    """Source and target of the same model have the same firmware version.

    The settings in the firmware cannot be read from outside; equal versions make equal settings more likely.
    """
    if (source.system_vendor, source.product) != (target.system_vendor, target.product):
        raise NotApplicable("different server models")
    if source.product is None or None in (source.version, target.version):
        raise Unavailable(BIOS, "the hosts do not say their model, or the version of their firmware")
    if (source.version, source.date) != (target.version, target.date):
        yield Finding(f"{source.version} of {source.date}", f"{target.version} of {target.date}")
