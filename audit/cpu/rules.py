"""What changed between libvirt's releases in how it answers questions about CPUs.

Every difference is a row of `_CHANGES`: since when, and what. `rules_of` makes of a version the rules that it goes by;
the code asks the rules, never the version. Verified against libvirt 9.0.0 and 11.3.0 themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rules:
    """How one libvirt decides; all true: the newest that is known here (11.3)."""

    disabling_costs_extra: bool = True
    """A model is the worse a choice, the more of it must be switched off (cpu_x86.c x86DecodeUseCandidate)."""
    blockers_are_disabled: bool = True
    """A baseline switches off what QEMU cannot give of a model, though the processors have it."""
    baseline_has_address_bits: bool = True
    """`virsh hypervisor-cpu-baseline` states `<maxphysaddr>` where every input does."""
    blockers_decide: bool = True
    """Models without `<check partial='compat'/>` are compared by what QEMU cannot give of them."""
    three_more_unsupported: bool = True
    """`virsh cpu-baseline` leaves out three vmx features that no QEMU has."""


_CHANGES: dict[str, Version] = {
    "disabling_costs_extra": (8, 4, 0),
    "blockers_are_disabled": (8, 9, 0),
    "baseline_has_address_bits": (9, 5, 0),
    "three_more_unsupported": (9, 10, 0),
    "blockers_decide": (10, 10, 0),
}

NEWEST = Rules()


@cache
def rules_of(version: Version | None) -> Rules:
    """The rules of that libvirt; of one whose version is not known, the newest ones."""
    if version is None:
        return NEWEST
    return Rules(**{field.name: version >= _CHANGES[field.name] for field in fields(Rules)})
