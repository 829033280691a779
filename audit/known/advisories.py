"""The known issues: versions, hosts and guests between which a live migration fails, or harms the guest.

Data, not code: an entry says which guests it concerns and where it bites. Whatever a comparison of CPU features sees is
not repeated here, nor what the machine types and the order of versions tell. How each was verified stands beside it.
"""

import re

from audit.known.advisory import Advisory, BootedWith, Bound, GuestView, ProcessorHas


def _lacks_ht(guest: GuestView) -> bool:
    # Also where it is named as disabled: QEMU 10 shows it all the same. No model of libvirt's map contains it.
    return guest.verified and guest.threads_per_socket > 1 and not guest.on("ht")


def _requires_ht(guest: GuestView) -> bool:
    # Emulation is left out: since which QEMU it knows ht was not looked up.
    return guest.kvm and guest.verified and guest.on("ht")


def _vmx_names(guest: GuestView, *policies: str) -> bool:
    return any(name.startswith("vmx-") for name in guest.definition.named(*policies))


def _vmx_unnamed(guest: GuestView) -> bool:
    return guest.verified and guest.on("vmx") and not _vmx_names(guest, *_ON, "optional", "disable", "forbid")


def _vmx_named(guest: GuestView) -> bool:
    return guest.verified and guest.on("vmx") and _vmx_names(guest, *_ON)


def _vmx_disabled(guest: GuestView) -> bool:
    return guest.verified and _vmx_names(guest, "disable", "forbid")


def _vmx(guest: GuestView) -> bool:
    return guest.x86 and guest.kvm and guest.on("vmx")


def _svm(guest: GuestView) -> bool:
    return guest.x86 and guest.kvm and guest.on("svm")


def _lacks_pku(guest: GuestView) -> bool:
    return guest.x86 and guest.kvm and not guest.has("pku")


def _tsx(guest: GuestView) -> bool:
    return guest.x86 and guest.kvm and (guest.has("hle") or guest.has("rtm"))


def _udp_offload(guest: GuestView) -> bool:
    # QEMU's own names tell the release, Ubuntu's are code names, Proxmox adds +pve0. Red Hat's switch USO off or have
    # it by build, not by number (RHEL-80313), and its kernels 5.14 have none: not judged.
    assert guest.offloads is not None
    name = guest.machine.machine
    release = re.search(r"-(\d{1,3})\.(\d{1,3})(?:\+pve\d+)?$", name)
    new = (int(release[1]), int(release[2])) >= (8, 2) if release else name.rpartition("-")[2] in _UBUNTU_SINCE_8_2
    return new and guest.offloads.from_kernel


_ON = ("require", "force")
_UBUNTU_SINCE_8_2 = frozenset({"noble", "oracular", "plucky", "questing"})
_MISMATCH = "libvirt says: operation failed: guest CPU doesn't match specification:"
_RED_HAT = frozenset({"rhel", "centos", "ol"})
# They kept libvirt 9.10 or 10.0, and their kernels, for years; libvirt's own notes reckon with backports.
_LONG_LIVED = _RED_HAT | {"ubuntu", "suse", "openeuler"}
# Ubuntu's kernels do not tell the stable release; Debian's own do, but Proxmox (ID=debian) has a repair of its own.
_KERNEL_UNTOLD = _LONG_LIVED | {"debian"}

ADVISORIES = (
    Advisory(
        id="ht-extra",
        level="break",
        title="QEMU since 10.0 lists the feature ht of guests with several threads or cores a socket, QEMU before did "
        "not, and libvirt before 11.10 takes that for a changed CPU",
        symptom=f"{_MISMATCH} extra features: ht",
        repair="libvirt 11.10 or later on the target",
        # Reproduced: a guest of QEMU 7.2.22 with libvirt 9.0.0, restored by QEMU 10.0.13 with libvirt 11.3.0 (Debian
        # 13, 11.3.0-3+deb13u3), under KVM and emulated. Refused: 2 cores, 2 threads, ht disabled. Taken: 2 sockets.
        # Non-Intel CPUs without cmp_legacy are refused for that one too; libvirt's notes on 11.10 do not name it.
        # What the target compares is the definition that arrives: so ht missing in it counts, not the source's QEMU,
        # which may be newer than the one that the guest still runs in.
        reference="libvirt NEWS 11.10.0, commit ba16113c; QEMU commit c6bd2dd6, issue 3153; RHEL-104216; reproduced "
        "from libvirt 9.0.0, QEMU 7.2 to libvirt 11.3.0, QEMU 10.0",
        concerns=_lacks_ht,
        conditions=(
            # RHEL-104216 repaired some builds; CentOS Stream's 11.9.0 is not among them (kubevirt issue 16386).
            Bound("target", "libvirt", before=(11, 10, 0), unseen=_RED_HAT),
            Bound("target", "qemu", since=(10, 0, 0)),
        ),
    ),
    Advisory(
        id="ht-missing",
        level="break",
        title="the guest's definition requires ht, as QEMU since 10.0 lists it for several threads or cores a socket, "
        "and QEMU before 8.2 with KVM knows no such feature",
        symptom=f"{_MISMATCH} missing features: ht",
        repair="QEMU 8.2 or later on the target",
        # Reproduced under KVM in the direction opposite to ht-extra. Commit 83629b1 was merged on 18 October 2023,
        # between 8.1 and 8.2. What libvirt 11.10 sends or expects of ht is not known: not judged.
        reference="QEMU commit 83629b1 (8.2); reproduced from libvirt 11.3.0, QEMU 10.0 to libvirt 9.0.0, QEMU 7.2",
        concerns=_requires_ht,
        conditions=(
            Bound("target", "libvirt", before=(11, 10, 0)),
            Bound("target", "qemu", before=(8, 2, 0)),
            Bound("source", "libvirt", before=(11, 10, 0)),
        ),
    ),
    Advisory(
        id="vmx-unnamed",
        level="break",
        title="libvirt before 9.10 did not name the vmx-* features of a guest with vmx, and libvirt 9.10 to 10.1 takes "
        "them for new ones",
        symptom=f"{_MISMATCH} extra features: vmx-…",
        repair="libvirt 10.2 or later on the target",
        reference="libvirt NEWS 10.2.0; not reproduced",
        # The libvirt that started the guest matters, not the one that runs now: a definition without names shows it.
        concerns=_vmx_unnamed,
        conditions=(Bound("target", "libvirt", since=(9, 10, 0), before=(10, 2, 0), unseen=_LONG_LIVED),),
    ),
    Advisory(
        id="vmx-withheld",
        level="risk",
        title="libvirt since 10.2 may send a guest with vmx without the names of its vmx-* features, and libvirt 9.10 "
        "to 10.1 then takes them for new ones",
        symptom=f"{_MISMATCH} extra features: vmx-…",
        repair="libvirt 10.2 or later on the target",
        # The notes say that this way is broken; the code keeps names that were asked for, and which those are for
        # host-model was not settled. So a risk.
        reference="libvirt NEWS 10.2.0; not reproduced",
        concerns=_vmx_named,
        conditions=(
            Bound("target", "libvirt", since=(9, 10, 0), before=(10, 2, 0), unseen=_LONG_LIVED),
            Bound("source", "libvirt", since=(10, 2, 0)),
        ),
    ),
    Advisory(
        id="vmx-disabled",
        level="risk",
        title="the guest's definition disables vmx-* features, and libvirt before 10.5 may expect them to be on",
        symptom=f"{_MISMATCH} missing features: vmx-…",
        repair="libvirt 10.5 or later on the target",
        # "Could have failed", say the notes, and name no first version: 9.10 is the first that knows these names.
        reference="libvirt NEWS 10.5.0; not reproduced",
        concerns=_vmx_disabled,
        conditions=(Bound("target", "libvirt", since=(9, 10, 0), before=(10, 5, 0), unseen=_LONG_LIVED),),
    ),
    Advisory(
        id="vmx-blocked",
        level="risk",
        title="QEMU 3.1 to 4.0 refuses to migrate any guest that has vmx, be it a hypervisor or not",
        symptom="QEMU says: Nested VMX virtualization does not support live migration yet",
        repair="QEMU 4.1 or later under the guest",
        # A risk: a guest that was started before the source was updated to such a QEMU has no blocker.
        reference="QEMU commits d98f26073beb (3.1) and 12604092e26c (4.1); kata-containers/runtime issue 1747",
        concerns=_vmx,
        conditions=(Bound("source", "qemu", since=(3, 1, 0), before=(4, 1, 0), unseen=_LONG_LIVED),),
        remedy="Without vmx the guest can go: add <feature policy='disable' name='vmx'/> to its <cpu> with virsh edit, "
        "then shut it down and start it again.",
    ),
    Advisory(
        id="pkru",
        level="risk",
        title="kernels before 5.17 save a register (PKRU) that the guest's CPU model hides; kernels 5.17 to 6.5 refuse "
        "it, QEMU does not notice, and the guest arrives with a part of its state",
        symptom="the migration succeeds, and the guest hangs with its vCPUs at 100 %",
        repair="kernel 6.6, 6.5.9 or 6.1.60 or later on the target, or 5.17 or later on the source",
        # The leak: ad856280ddea, first in 5.17-rc6, proposed for 5.16 and no older stable series. The repair:
        # 8647c52e9504 in 6.6, in stable 6.5.9 and 6.1.60 of 25 October 2023. 5.16 is taken to leak: it is long dead.
        # That the register alone shows it, and not avx512, follows from its being kept outside of the guest's XCR0.
        # Red Hat's 4.18 and 5.14 have some of both, and no number tells: as a target they are not judged.
        reference="Linux commits ad856280ddea (5.17) and 8647c52e9504 (6.6, 6.5.9, 6.1.60); Proxmox VE kernel patch "
        "0008 'mask out PKRU bit'; bloomberg/chef-bcpc pull 2278",
        concerns=_lacks_pku,
        conditions=(
            Bound(
                "target",
                "kernel",
                since=(5, 17, 0),
                before=(6, 6, 0),
                mended=((6, 1, 60), (6, 5, 9)),
                unseen=_KERNEL_UNTOLD,
            ),
            Bound("source", "kernel", before=(5, 17, 0), unseen=_LONG_LIVED),
            ProcessorHas("source", "pku"),
        ),
        remedy="Update the target's kernel and reboot it, or shut the guest down and start it there.",
    ),
    Advisory(
        id="udp-offload",
        level="risk",
        title="kernels since 6.2 offer UDP segmentation offload (USO), QEMU since 8.2 hands it on to virtio NICs, and "
        "a guest that took it cannot go to a kernel without",
        symptom="QEMU says on the target: Features 0x1c0… unsupported. Allowed features: 0x…; Failed to load "
        "virtio-net:virtio",
        repair="kernel 6.2 or later on the target",
        # A risk: only Linux guests since 6.2 and recent Windows drivers take it, and only if they came up (or were
        # last reset) on a kernel that has it. hw_compat_8_1 switches it off; QEMU 8.2.0 to 9.0.0 left it on for machine
        # types 8.1 as well, which is not judged. libvirt's <driver><guest/></driver> has no switch for it.
        reference="Linux commit 399e0827642f (6.2); QEMU commit 53da8b5a99 (8.2) and hw_compat_8_1; qemu-devel "
        "'virtio-net: Add support for USO features' (2024-05, 2025-11); kubevirt issue 16386",
        concerns=_udp_offload,
        conditions=(
            Bound("target", "kernel", before=(6, 2, 0), unseen=_RED_HAT | {"suse"}),
            Bound("source", "kernel", since=(6, 2, 0)),
            Bound("source", "qemu", since=(8, 2, 0)),
        ),
        remedy="Boot the target with kernel 6.2 or later, or shut the guest down and start it there.",
    ),
    Advisory(
        id="tsx-by-choice",
        level="note",
        title="the guest was given TSX (hle, rtm), which the kernel leaves on as it was booted with tsx=on or "
        "tsx=auto: a host without this word, or with newer microcode, cannot take the guest",
        symptom=f"{_MISMATCH} missing features: hle,rtm",
        repair="a guest without TSX",
        reference="Linux admin guide, TSX Async Abort: tsx=off is the default since 5.4, RHEL 8.3; xapi-project/"
        "xenopsd pull 758",
        concerns=_tsx,
        conditions=(BootedWith("source", frozenset({"tsx=on", "tsx=auto"})),),
        remedy="Give the guest a model without TSX (…-noTSX) at its next planned restart.",
    ),
    Advisory(
        id="svm-state",
        level="note",
        title="the guest could be a hypervisor (it has svm), and kernels before 5.8 do not save the state of guests "
        "inside an AMD guest",
        symptom="what runs inside the guest crashes once the guest has moved; the guest itself does not",
        repair="kernel 5.8 or later on the source",
        # host-model gives svm to every guest of an AMD host, and few are hypervisors: a note. The same for vmx needs
        # kernel 4.20; that vmx is passed on at all is told once a host (kvm.nested_off).
        reference="QEMU commit b16c0e20c742 (5.1): nested migration on AMD needs Linux 5.8",
        concerns=_svm,
        conditions=(Bound("source", "kernel", before=(5, 8, 0), unseen=_LONG_LIVED),),
        remedy="Shut down what runs inside the guest before moving it.",
    ),
)
"""All known issues."""
