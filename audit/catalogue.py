"""What is asked of a migration and what goes wrong with it, which checks answer that, and how a check is told.

The rows stand in `audit/data`: `requirements.yaml` (the document) and `failures.yaml` (what people have met). A check
names the rows that it answers (`covers=`); a row that none answers says what else does, or why nothing can.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import yaml

from audit.check import Blocks, Check, Role, Scope, Severity, Stage
from audit.policy import Policy


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is asked, or that has gone wrong somewhere."""

    id: str
    """`12.6/kvm`, `failure 42`, `false alarm 3`."""
    section: str
    kind: str
    """requirement, limitation, prerequisite, step, verification, diagnosis, fix, fact; failure, false alarm."""
    says: str
    cause: str = ""
    """Of a failure: what is behind it. Of a false alarm: what was true."""
    cites: tuple[str, ...] = ()
    same_as: tuple[str, ...] = ()
    """Ids of rows that ask for the same."""
    feature: str = ""
    """What answers it where it is no check, or beside the checks."""
    limit: str = ""
    """Why it, or part of it, cannot be seen from a host."""
    open: str = ""
    """What of it nothing looks at yet; no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A row with all that answers it, what answers the rows that it is the same as included."""

    row: Row
    checks: tuple[Check, ...]
    features: tuple[str, ...]
    limits: tuple[str, ...]
    open: tuple[str, ...]

    def __bool__(self) -> bool:
        """Something answers it: a check, a feature, or the reason why nothing can."""
        return bool(self.checks or self.features or self.limits)


@dataclass(frozen=True, slots=True)
class Domain:
    """The checks of one module, whose docstring's first line is the heading."""

    name: str
    heading: str
    checks: tuple[Check, ...]


@cache
def requirements() -> tuple[Row, ...]:
    """What the document asks, in its order."""
    return _rows("requirements")


@cache
def failures() -> tuple[Row, ...]:
    """What people have met, and what other tools got wrong."""
    return _rows("failures")


def _rows(name: str) -> tuple[Row, ...]:
    text = files("audit").joinpath("data", f"{name}.yaml").read_text("utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    if data["format"] != f"virt-preflight/{name}/1":
        raise ValueError(f"{name}.yaml: format {data['format']!r}")
    return tuple(_row(section["title"], entry) for section in data["sections"] for entry in section["rows"])


def _row(section: str, entry: dict[str, Any]) -> Row:
    kind = entry.pop("kind", None) or entry["id"].rpartition(" ")[0]
    cites, same_as = (tuple(entry.pop(key, ())) for key in ("cites", "same_as"))
    return Row(section=section, kind=kind, cites=cites, same_as=same_as, **entry)


def answers(checks: Iterable[Check]) -> tuple[Answer, ...]:
    """All rows, each with its answers. Raises `KeyError` for a `same_as` that is no row."""
    rows = {row.id: row for row in (*requirements(), *failures())}
    covering: dict[str, list[Check]] = {}
    for check in checks:
        for id_ in check.covers:
            covering.setdefault(id_, []).append(check)
    return tuple(_answer(row, rows, covering) for row in rows.values())


def _answer(row: Row, rows: dict[str, Row], covering: dict[str, list[Check]]) -> Answer:
    alike = _alike(row, rows)
    return Answer(
        row,
        tuple(dict.fromkeys(check for one in alike for check in covering.get(one.id, ()))),
        tuple(dict.fromkeys(one.feature for one in alike if one.feature)),
        tuple(dict.fromkeys(one.limit for one in alike if one.limit)),
        tuple(dict.fromkeys(one.open for one in alike if one.open)),
    )


def _alike(row: Row, rows: dict[str, Row]) -> list[Row]:
    """The row, and what it is the same as, and so on."""
    found = [row]
    for one in found:
        found += [rows[id_] for id_ in one.same_as if rows[id_] not in found]
    return found


def strangers(checks: Iterable[Check]) -> tuple[tuple[str, str], ...]:
    """Check and id, where the id that a check says it answers is no row."""
    rows = {row.id for row in (*requirements(), *failures())}
    return tuple((check.id, id_) for check in checks for id_ in check.covers if id_ not in rows)


def domains(checks: Iterable[Check]) -> tuple[Domain, ...]:
    """The checks by domain, both in order."""
    ordered = sorted(checks, key=lambda check: (check.domain, check.id))
    grouped = ((name, tuple(found)) for name, found in groupby(ordered, key=lambda check: check.domain))
    return tuple(Domain(name, _heading(found), found) for name, found in grouped)


def _heading(checks: Sequence[Check]) -> str:
    doc = sys.modules[checks[0].function.__module__].__doc__ or ""
    return doc.strip().partition("\n")[0]


# How a check is told ----------------------------------------------------------------------------------------

_SCOPES = {
    Scope.PAIR: "for each pair of hosts, source → target",
    Scope.GUEST: "for each guest, whatever the target",
    Scope.PLACEMENT: "for each guest and each target",
    Scope.CLUSTER: "once a cluster, over all its hosts or guests",
}
_ROLES = {
    Role.OWN: "for each host, as a source and as a target",
    Role.SOURCE: "for each host, as a source",
    Role.TARGET: "for each host, as a target",
}
_STAGES = {
    Stage.SET_OUT: "when virsh sets out for the target: names, its own certificates, the way there",
    Stage.LOG_IN: "when ssh logs in to the target",
    Stage.CONNECT: "when the source connects to the target's libvirt",
    Stage.ALLOWED: "when libvirt asks itself whether the guest may leave",
    Stage.SAFE: "when libvirt asks itself whether the guest's disks are safe",
    Stage.PREPARE: "when the target prepares for the guest",
    Stage.START: "when the target starts the guest's QEMU",
    Stage.TRANSFER: "while the guest's state is sent",
    Stage.AFTER: "after the move, without an error",
}


def judged(check: Check) -> str:
    """What the check is made for, once each."""
    return _SCOPES.get(check.scope) or _ROLES[check.role]


def shows(check: Check) -> str:
    """At which point of a migration the fault would show."""
    return _STAGES[check.stage]


def applies(check: Check) -> str:
    """To which guests' ways it counts."""
    if check.plain_guest:
        return "the pair's own verdict, made for a plain host-model guest; real guests are judged by what they have"
    return "running guests and shut-off ones" if check.offline else "running guests; not the move of a shut-off one"


def acceptance(check: Check) -> str:
    """What a finding makes of the verdict, and how somebody accepts the risk as things are."""
    if check.blocks is Blocks.MIGRATION:
        return (
            "A finding closes the way, and where it is not known whether there is one, the way is UNKNOWN. Neither can "
            "be waived: remove the cause, supply the evidence, or take another target."
        )
    if check.severity < Severity.MEDIUM and check.blocks is Blocks.NOTHING:
        return "A finding is a note, and changes no verdict: there is nothing to accept."
    words = (
        "A finding is a condition, and so is not knowing. Page 1 of the report lists it under “To be done or accepted "
        "before the start”; who signs there accepts it, for that report. The exit status stays 4."
    )
    thresholds = " Thresholds can be set in the inventory's policy section." if _asks_policy(check) else ""
    return words + thresholds


def _asks_policy(check: Check) -> bool:
    return any(parameter.kind is Policy for parameter in check.parameters)
