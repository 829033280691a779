"""Why features are missing on a target, where that is known, and what helps.

Which ones are missing a comparison has found; here is what people need an hour for: that they all belong to nested
virtualization, that microcode took them away, that the processors are equal and software makes the difference.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from audit.cpu import CpuMap
from audit.facts.cpu import CpuIdentity
from audit.facts.versions import Kernel, Libvirt


class Ends(NamedTuple):
    """The two hosts. Looking at a fact that cannot be had raises `Unavailable`."""

    here: CpuIdentity
    there: CpuIdentity
    libvirt_here: Libvirt
    libvirt_there: Libvirt

    @property
    def same_processor(self) -> bool:
        """Whether family, model and stepping are equal."""
        return self.here.processor == self.there.processor

    @property
    def differences(self) -> tuple[str, ...]:
        """Microcode, kernel, QEMU and libvirt where they differ, `mine → theirs`."""
        mine, theirs = self.libvirt_here.daemon, self.libvirt_there.daemon
        return (*self.here.differences(self.there), *((f"libvirt {mine} → {theirs}",) if mine != theirs else ()))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why features go missing that were there before."""

    id: str
    title: str
    """What took them away, a sentence without its full stop."""
    remedy: str
    """What helps if nothing else is missing. `{disable}` stands for the elements that switch them off."""
    reference: str
    explains: Callable[[str], bool]
    """Whether it explains that a feature of this name is missing."""
    holds: Callable[[Ends], bool] = lambda _: True
    """Whether the hosts are such ones."""


class Explanation(NamedTuple):
    """Of missing features."""

    because: str
    remedy: str
    """Only where everything that is missing is explained."""


def explain(missing: Collection[str], ends: Ends, model: str | None = None) -> Explanation | None:
    """What is known of why they are missing on the target; None: nothing. Raises `Unavailable`.

    Of unequal processors only what explains everything is told. `model` is the guest's, None where the advice is not
    about one guest.
    """
    names = set(missing)
    sentences, remedies = [], []
    for cause in CAUSES:
        explained = {name for name in names if cause.explains(name)}
        if explained and cause.holds(ends):
            sentences.append(f"{cause.title} ({cause.reference}).")
            remedies.append(cause.remedy.format(disable=_disable(cause, explained)) + _instead(explained, model))
            names -= explained
    if names and not ends.same_processor:
        return None  # another processor lacks this and that: no cause of a part of it is worth telling
    if ends.same_processor:
        different = "; ".join(ends.differences)
        if different:
            sentences.append(f"The processors are the same, so software makes the difference: {different}.")
        else:
            sentences.append("The processors are the same; compare kernel arguments and firmware settings.")
    return Explanation(" ".join(sentences), "" if names else " ".join(remedies)) if sentences else None


def _disable(cause: Cause, explained: Collection[str]) -> str:
    whole = {"nested-vmx": ["vmx"], "nested-svm": ["svm"]}.get(cause.id, sorted(explained))
    return "".join(f"<feature policy='disable' name='{name}'/>" for name in whole)


def _instead(explained: Collection[str], model: str | None) -> str:
    """The model without TSX, where libvirt has one."""
    if model and _TSX.issuperset(explained):
        plain, ibrs, _ = model.partition("-IBRS")
        for name in (f"{plain}-noTSX{ibrs}", f"{plain}-noTSX-IBRS"):
            if name in CpuMap.carried():
                return f" Or use the model {name}."
    return ""


def _amx_too_old(ends: Ends) -> bool:
    return ends.same_processor and Kernel(ends.there.kernel, "").numbers < (5, 17, 0)


_RESTART = "with virsh edit, then shut it down and start it again"
_TSX = frozenset({"hle", "rtm"})
# CPUID 8000000A: what QEMU drops by itself with svm (its table of dependent features).
_SVM = frozenset({"svm", "npt", "lbrv", "svm-lock", "nrip-save", "tsc-scale", "vmcb-clean", "flushbyasid"}) | {
    *("decodeassists", "pause-filter", "pfthreshold", "avic", "v-vmsave-vmload", "vgif", "vnmi", "svme-addr-chk")
}

CAUSES: Sequence[Cause] = (
    Cause(
        id="nested-vmx",
        title="The vmx features serve guests that are hypervisors themselves; host-model gives them to every guest, "
        "and which there are changes with processor, microcode and kernel",
        remedy="If the guest is no hypervisor itself, add {disable} to its <cpu> " + _RESTART + ". If it is one, allow "
        "nested virtualization on the target (kvm_intel nested=1), or move it to a host like its own.",
        reference="kubevirt issue 12519, harvester issue 7965",
        explains=lambda name: name == "vmx" or name.startswith("vmx-"),
    ),
    Cause(
        id="nested-svm",
        title="These features serve guests that are hypervisors themselves; host-model gives them to every guest",
        remedy="If the guest is no hypervisor itself, add {disable} to its <cpu> " + _RESTART + ". If it is one, allow "
        "nested virtualization on the target (kvm_amd nested=1).",
        reference="QEMU's feature dependencies of svm",
        explains=lambda name: name in _SVM,
    ),
    Cause(
        id="tsx",
        title="hle and rtm (TSX) are taken away by microcode, and by kernels that are not booted with tsx=on",
        remedy="Add {disable} to the guest's <cpu> " + _RESTART + ".",
        reference="Linux admin guide, TSX Async Abort; innogames/igvm pull 193",
        explains=lambda name: name in _TSX,
    ),
    Cause(
        id="xsaves-zen",
        title="On AMD family 23 (Zen 1 and 2) kernels since 6.3, their stable branches and newer microcode switch "
        "xsaves off for an erratum",
        remedy="Add {disable} to the guest's <cpu> " + _RESTART + ".",
        reference="AMD erratum 1386; Linux commit b0563468eeac; openzfs issue 14557",
        explains=lambda name: name == "xsaves",
        holds=lambda ends: ends.there.family == "AMD family 23",
    ),
    Cause(
        id="amx-kernel",
        title="KVM gives AMX to guests since kernel 5.17, and the target's is older",
        remedy="Boot the target with kernel 5.17 or later.",
        reference="Linux 5.17, QEMU 7.0; cloud-hypervisor issue 5800",
        explains=lambda name: name.startswith("amx-"),
        holds=_amx_too_old,
    ),
)
"""Known causes; the first that explains a feature is told."""
