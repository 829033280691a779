"""A finding about features that a target lacks, with why it does and what helps, where that is known."""

from audit.check import Finding, Unavailable
from audit.facts.cpu_fit import CpuGap
from audit.known import Ends, explain


def lacking(expected: str, gap: CpuGap, ends: Ends | None, model: str | None = None) -> Finding:
    """The finding for `gap`; `model` is the guest's, None where it is not about one.

    Why the features are missing is said where the hosts tell enough; that they are missing does not hang on it. No
    `ends`: the hosts have no part in it, as the CPU is emulated.
    """
    try:
        known = ends and explain(gap.missing, ends, model)
    except Unavailable:
        known = None
    if known is None:
        return Finding(expected, str(gap))
    enough = not gap.unknown_model and not gap.unknown_features
    return Finding(expected, str(gap), known.because, known.remedy if enough else "")
