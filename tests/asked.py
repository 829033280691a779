"""A check asked with plain facts, as the engine would ask it."""

from typing import Any

from audit.check import Check, Finding, NotApplicable, Unavailable


def found(check: Check, *facts: Any) -> list[Finding]:
    """The check's findings. Where there are none, raises the first `Unavailable` that it told, else `NotApplicable`."""
    findings: list[Finding] = []
    reasons: list[Unavailable | NotApplicable] = []
    try:
        for told in check.function(*facts):
            if isinstance(told, Finding):
                findings.append(told)
            else:
                reasons.append(told)
    except (Unavailable, NotApplicable) as why:
        reasons.append(why)
    if reasons and not findings:
        raise next((reason for reason in reasons if isinstance(reason, Unavailable)), reasons[0])
    return findings
