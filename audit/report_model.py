"""What the report's templates show: plain values, counted, grouped, ordered and cut; they only loop."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cut(Generic[T]):
    """A long list: what is shown at once, and the rest, which paper leaves out and says so."""

    shown: tuple[T, ...]
    rest: tuple[T, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A remedy. `pasteable`: it is a command, shown exactly as it must be typed; else prose. `long`: a script."""

    text: str
    pasteable: bool
    long: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of the first page; `kind` is the verdict whose colour it bears, "" for none."""

    number: int
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class FirstPage:
    """What a change board reads."""

    word: str
    kind: str
    sentence: str
    tallies: tuple[Tally, ...]
    blocking: Cut[str]
    conditions: Cut[str]
    change: tuple[tuple[str, str], ...]
    scope: tuple[tuple[str, str], ...]
    valid_until: str


@dataclass(frozen=True, slots=True)
class FactCell:
    """A host's value in the side-by-side table. `odd`: not what most others have."""

    text: str
    known: bool
    odd: bool


@dataclass(frozen=True, slots=True)
class FactRow:
    """A line of it. `same`: every host has this value, said once."""

    label: str
    differs: bool
    same: FactCell | None
    cells: tuple[FactCell, ...]


@dataclass(frozen=True, slots=True)
class FactTable:
    """Some columns of it; equal hosts share one. Only a cluster's first table has the rows that are `same`."""

    columns: tuple[str, ...]
    width: int
    domains: tuple[tuple[str, tuple[FactRow, ...]], ...]


@dataclass(frozen=True, slots=True)
class HostSection:
    """The hosts of one cluster."""

    cluster: str
    summary: str
    unread: tuple[tuple[str, str], ...]
    tables: tuple[FactTable, ...]


@dataclass(frozen=True, slots=True)
class Because:
    """A reason, with what it applies to: `(from, to which)`."""

    text: str
    status: str
    check: str
    anchor: str
    routes: Cut[tuple[str, str]] = Cut(())


@dataclass(frozen=True, slots=True)
class MatrixBlock:
    """Some targets of the matrix: heads, and per source its cells' verdicts ("" on the diagonal)."""

    heads: tuple[str, ...]
    words: bool
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class PairSection:
    """The ordered pairs of one cluster."""

    cluster: str
    counts: tuple[tuple[str, int], ...]
    numbered: tuple[str, ...]
    """Host names by number, where the heads are numbers; else empty."""
    blocks: tuple[MatrixBlock, ...]
    reasons: tuple[Because, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Targets of a guest that share verdict and reasons. `verdict` is "" for what holds for all of them."""

    verdict: str
    hosts: str
    reasons: Cut[Because]


@dataclass(frozen=True, slots=True)
class GuestRow:
    """Guests of one host with the same targets and reasons: `(name, what it is)`."""

    guests: Cut[tuple[str, str]]
    host: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class GuestGroup:
    """Guests by number of proved targets."""

    title: str
    kind: str
    note: str
    rows: tuple[GuestRow, ...]


@dataclass(frozen=True, slots=True)
class BaselineSection:
    """A cluster's CPU. `xml` is the one to paste."""

    cluster: str
    hosts: str
    missing: tuple[tuple[str, str], ...]
    model: str
    virttype: str
    engine: str
    cross_check: str
    problem: str
    xml: str
    file: str
    plain_file: str
    """The same without `--migratable`, where that differs; else ""."""
    not_migratable: tuple[str, ...]
    """Lines of the plain one that the migratable one lacks."""
    removed: tuple[tuple[str, str, int], ...]
    """Hosts, the features they lack, how many."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One observation of a check and the subjects it was made on."""

    message: str
    expected: str
    actual: str
    remedy: Command | None
    subjects: Cut[tuple[str, str]]
    count: int
    evidence: Cut[str]


@dataclass(frozen=True, slots=True)
class CheckGroup:
    """A check with what it found, or what kept it from judging."""

    anchor: str
    id: str
    title: str
    why: str
    severity: str
    blocks: str
    reference: str
    remedy: Command | None
    statements: tuple[Statement, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A check that a gap in the evidence kept from judging."""

    title: str
    id: str
    blocks: str
    subjects: Cut[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that could not be read or understood, what would supply it, and what it kept from being judged."""

    message: str
    supply: Command | None
    missed: Cut[Missed]
    blocks: bool


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One line of the table of checks that judged something."""

    id: str
    title: str
    scope: str
    severity: str
    blocks: str
    reference: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The report."""

    run_id: str
    first: FirstPage
    all_blocking: tuple[str, ...]
    all_conditions: tuple[str, ...]
    method: tuple[tuple[str, str], ...]
    hosts: tuple[HostSection, ...]
    pairs: tuple[PairSection, ...]
    guests: tuple[GuestGroup, ...]
    baselines: tuple[BaselineSection, ...]
    findings: tuple[CheckGroup, ...]
    gaps: tuple[Gap, ...]
    errors: tuple[CheckGroup, ...]
    checks: tuple[CheckLine, ...]
    idle: tuple[tuple[str, str], ...]
    """Why checks had nothing to judge, and which."""
    provenance: tuple[tuple[str, str], ...]
    policy: tuple[tuple[str, str], ...]
    logins: tuple[tuple[str, ...], ...]
    rendered: str
