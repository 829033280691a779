"""A check asked with plain facts, as the engine would ask it."""

from typing import Any

from audit.check import Check, Finding, NotApplicable, Unavailable


def found(check: Check, *facts: Any) -> list[Finding]:
    """The check's findings. Raises `NotApplicable`, or the first `Unavailable` that it told where nothing is wrong."""
    findings: list[Finding] = []
    reasons: list[Unavailable] = []
    try:
        for told in check.function(*facts):
            if isinstance(told, Finding):
                findings.append(told)
            else:
                reasons.append(told)
    except Unavailable as why:
        reasons.append(why)
    except NotApplicable:
        if not reasons:
            raise
    if reasons and not findings:
        raise reasons[0]
    return findings
