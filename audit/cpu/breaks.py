"""Known breaks: versions between which a live migration fails although the guest's CPU fits.

Data, not code: a break says which guests it concerns and between which versions it bites. Whatever a comparison of
features sees is not repeated here. How each was verified stands in its reference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from audit.cpu.definition import CpuDefinition
from audit.cpu.rules import Version

End = Literal["source", "target"]
Part = Literal["libvirt", "qemu", "system"]

_ON = ("require", "force")


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one end of a migration; None: not known."""

    libvirt: Version | None = None
    qemu: Version | None = None
    systems: frozenset[str] | None = None
    """The system's name and the names of those it is made from (os-release: ID and ID_LIKE)."""


@dataclass(frozen=True, slots=True)
class RunningCpu:
    """The CPU of a running x86 guest: its live `<cpu>`, and libvirt's `<domain type=`."""

    definition: CpuDefinition
    virttype: str

    @property
    def verified(self) -> bool:
        """Whether libvirt compares it with what QEMU gives on the target (qemu_process.c qemuProcessVerifyCPU)."""
        return self.definition.check == "full" and self.definition.model is not None

    def on(self, name: str) -> bool:
        """Whether the definition switches this feature on by name."""
        return name in self.definition.named(*_ON)

    @property
    def threads_per_socket(self) -> int:
        """More than 1 makes QEMU show the guest the feature ht; without `<topology>` every vCPU is a socket."""
        topology = self.definition.topology
        return topology.dies * topology.cores * topology.threads if topology else 1


class Bound(NamedTuple):
    """Versions of one part that a break needs: from `since` up to `before`, and not that one itself."""

    end: End
    part: Literal["libvirt", "qemu"]
    since: Version = (0, 0, 0)
    before: Version | None = None

    def holds(self, version: Version) -> bool:
        """Whether this version is in between."""
        return self.since <= version and (self.before is None or version < self.before)


class Undecided(Exception):
    """Everything that is known fits a break, and what decides is not known."""

    def __init__(self, end: End, part: Part, reason: str) -> None:
        super().__init__(reason)
        self.end = end
        self.part = part
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Break:
    """One known break."""

    id: str
    title: str
    symptom: str
    """libvirt's words."""
    repair: str
    """The first release that has it no more, on the target."""
    reference: str
    """Where it stands, and what was verified."""
    blocks: bool
    """The migration fails for certain, and is not only at risk."""
    concerns: Callable[[RunningCpu], bool]
    bounds: tuple[Bound, ...]
    repaired_unseen: frozenset[str] = field(default_factory=frozenset)
    """Systems whose libvirt may have the repair without the version number telling."""

    def applies(self, source: Side, target: Side, guest: RunningCpu) -> bool:
        """Whether it bites this guest on this way. Raises `Undecided`."""
        if not self.concerns(guest):
            return False
        sides = {"source": source, "target": target}
        doubts = []
        for bound in self.bounds:
            version: Version | None = getattr(sides[bound.end], bound.part)
            if version is None:
                doubts.append(Undecided(bound.end, bound.part, self._doubt(f"the {bound.end}'s {_NAMES[bound.part]}")))
            elif not bound.holds(version):
                return False
        if self.repaired_unseen and target.systems is None:
            doubts.append(Undecided("target", "system", self._doubt("whose build of libvirt the target has")))
        elif self.repaired_unseen & (target.systems or frozenset()):
            what = f"whether the target's libvirt has the repair of {self.repair}"
            doubts.append(Undecided("target", "system", self._doubt(what)))
        if doubts:
            raise doubts[0]
        return True

    def _doubt(self, what: str) -> str:
        return f"not known: {what}. It decides about a known break: {self.title}"


def known_breaks(
    source: Side, target: Side, guest: RunningCpu, breaks: tuple[Break, ...] | None = None
) -> tuple[Break, ...]:
    """The breaks, out of all or of `breaks`, that bite. Raises `Undecided` where none does and one may."""
    found, doubt = [], None
    for one in BREAKS if breaks is None else breaks:
        try:
            if one.applies(source, target, guest):
                found.append(one)
        except Undecided as undecided:
            doubt = doubt or undecided
    if doubt and not found:
        raise doubt
    return tuple(found)


def _lacks_ht(guest: RunningCpu) -> bool:
    # Also where it is named as disabled: QEMU 10 shows it all the same. No model of libvirt's map contains it.
    return guest.verified and guest.threads_per_socket > 1 and not guest.on("ht")


def _requires_ht(guest: RunningCpu) -> bool:
    # Emulation is left out: since which QEMU it knows ht was not looked up.
    return guest.virttype == "kvm" and guest.verified and guest.on("ht")


def _vmx_names(guest: RunningCpu, *policies: str) -> bool:
    return any(name.startswith("vmx-") for name in guest.definition.named(*policies))


def _vmx_unnamed(guest: RunningCpu) -> bool:
    return guest.verified and guest.on("vmx") and not _vmx_names(guest, *_ON, "optional", "disable", "forbid")


def _vmx_named(guest: RunningCpu) -> bool:
    return guest.verified and guest.on("vmx") and _vmx_names(guest, *_ON)


def _vmx_disabled(guest: RunningCpu) -> bool:
    return guest.verified and _vmx_names(guest, "disable", "forbid")


_NAMES = {"libvirt": "version of libvirt", "qemu": "version of QEMU"}
_MISMATCH = "operation failed: guest CPU doesn't match specification:"
_RED_HAT = frozenset({"rhel", "centos", "ol"})
# They kept libvirt 9.10 or 10.0 for years; libvirt's own notes reckon with backports.
_LONG_LIVED = _RED_HAT | {"ubuntu", "suse", "openeuler"}

BREAKS = (
    Break(
        id="ht-extra",
        title="QEMU since 10.0 lists the feature ht of guests with several threads or cores a socket, QEMU before did "
        "not, and libvirt before 11.10 takes that for a changed CPU",
        symptom=f"{_MISMATCH} extra features: ht",
        repair="libvirt 11.10",
        # Reproduced: a guest of QEMU 7.2.22 with libvirt 9.0.0, restored by QEMU 10.0.13 with libvirt 11.3.0 (Debian
        # 13, 11.3.0-3+deb13u3), under KVM and emulated. Refused: 2 cores, 2 threads, ht disabled. Taken: 2 sockets.
        # Non-Intel CPUs without cmp_legacy are refused for that one too; libvirt's notes on 11.10 do not name it.
        # What the target compares is the definition that arrives: so ht missing in it counts, not the source's QEMU,
        # which may be newer than the one that the guest still runs in.
        reference="libvirt NEWS 11.10.0, commit ba16113c; QEMU commit c6bd2dd6, issue 3153; RHEL-104216; reproduced "
        "from libvirt 9.0.0, QEMU 7.2 to libvirt 11.3.0, QEMU 10.0",
        blocks=True,
        concerns=_lacks_ht,
        bounds=(Bound("target", "qemu", since=(10, 0, 0)), Bound("target", "libvirt", before=(11, 10, 0))),
        # RHEL-104216 repaired some builds; CentOS Stream's 11.9.0 is not among them (kubevirt issue 16386).
        repaired_unseen=_RED_HAT,
    ),
    Break(
        id="ht-missing",
        title="the guest's definition requires ht, as QEMU since 10.0 lists it for several threads or cores a socket, "
        "and QEMU before 8.2 with KVM knows no such feature",
        symptom=f"{_MISMATCH} missing features: ht",
        repair="QEMU 8.2",
        # Reproduced under KVM in the direction opposite to ht-extra. Commit 83629b1 was merged on 18 October 2023,
        # between 8.1 and 8.2. What libvirt 11.10 sends or expects of ht is not known: not judged.
        reference="QEMU commit 83629b1 (8.2); reproduced from libvirt 11.3.0, QEMU 10.0 to libvirt 9.0.0, QEMU 7.2",
        blocks=True,
        concerns=_requires_ht,
        bounds=(
            Bound("target", "qemu", before=(8, 2, 0)),
            Bound("target", "libvirt", before=(11, 10, 0)),
            Bound("source", "libvirt", before=(11, 10, 0)),
        ),
    ),
    Break(
        id="vmx-unnamed",
        title="libvirt before 9.10 did not name the vmx-* features of a guest with vmx, and libvirt 9.10 to 10.1 takes "
        "them for new ones",
        symptom=f"{_MISMATCH} extra features: vmx-…",
        repair="libvirt 10.2",
        reference="libvirt NEWS 10.2.0; not reproduced",
        blocks=True,
        # The libvirt that started the guest matters, not the one that runs now: a definition without names shows it.
        concerns=_vmx_unnamed,
        bounds=(Bound("target", "libvirt", since=(9, 10, 0), before=(10, 2, 0)),),
        repaired_unseen=_LONG_LIVED,
    ),
    Break(
        id="vmx-withheld",
        title="libvirt since 10.2 may send a guest with vmx without the names of its vmx-* features, and libvirt 9.10 "
        "to 10.1 then takes them for new ones",
        symptom=f"{_MISMATCH} extra features: vmx-…",
        repair="libvirt 10.2",
        # The notes say that this way is broken; the code keeps names that were asked for, and which those are for
        # host-model was not settled. So a risk.
        reference="libvirt NEWS 10.2.0; not reproduced",
        blocks=False,
        concerns=_vmx_named,
        bounds=(
            Bound("source", "libvirt", since=(10, 2, 0)),
            Bound("target", "libvirt", since=(9, 10, 0), before=(10, 2, 0)),
        ),
        repaired_unseen=_LONG_LIVED,
    ),
    Break(
        id="vmx-disabled",
        title="the guest's definition disables vmx-* features, and libvirt before 10.5 may expect them to be on",
        symptom=f"{_MISMATCH} missing features: vmx-…",
        repair="libvirt 10.5",
        # "Could have failed", say the notes, and name no first version: 9.10 is the first that knows these names.
        reference="libvirt NEWS 10.5.0; not reproduced",
        blocks=False,
        concerns=_vmx_disabled,
        bounds=(Bound("target", "libvirt", since=(9, 10, 0), before=(10, 5, 0)),),
        repaired_unseen=_LONG_LIVED,
    ),
)
"""All known breaks."""
