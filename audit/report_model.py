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
class Few(Generic[T]):
    """A long list of which only some is shown, on screen and on paper; `more`: how much that leaves out."""

    shown: tuple[T, ...]
    more: int = 0


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
    ways: tuple[str, ...] = ()
    """Other ways to them, where this one is not open."""


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
class HeatHead:
    """A column of the heat map: equal hosts, and what they give guests."""

    hosts: str
    model: str
    features: str
    level: str


@dataclass(frozen=True, slots=True)
class HeatRow:
    """Features that the same hosts give; which columns, and whether the baseline has them."""

    features: Cut[str]
    count: int
    given: tuple[bool, ...]
    baseline: bool


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Who gives what: blocks of columns with all rows each. `left_out`: what would not fit, in words."""

    caption: str
    blocks: tuple[tuple[tuple[HeatHead, ...], tuple[HeatRow, ...]], ...]
    baseline: HeatHead
    left_out: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Features that the baseline lacks, the hosts to blame, and per reason: hosts, cause, words."""

    features: Cut[str]
    count: int
    hosts: str
    reasons: Few[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Gain:
    """What the other hosts would gain without some."""

    hosts: str
    rest: str
    """The CPU that the others would have."""
    features: Cut[str]
    count: int


@dataclass(frozen=True, slots=True)
class BarBlock:
    """A group in the picture of a grouping; lengths in the units of its view box, `shade` a class, `fill` for paper."""

    x: str
    y: str
    width: str
    height: str
    shade: str
    fill: str
    label: str
    label_x: str
    title: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """A way to group the hosts: what it keeps, its picture, and per group: letter, hosts, what they would have."""

    number: str
    features: str
    level: str
    movable: str
    best_by: str
    sentence: str
    blocks: tuple[BarBlock, ...]
    groups: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class GuestChange:
    """How one guest gets the baseline. `diff` is "" when it is too long to show."""

    guest: str
    file: str
    diff: str
    apply: Command
    undo: Command


@dataclass(frozen=True, slots=True)
class GuestCpu:
    """Guests of one host that the baseline means the same for. `kind` is the verdict whose colour the effect bears."""

    guests: Cut[str]
    host: str
    kind: str
    effect: str
    blocked: Few[tuple[str, str]]
    unproved: Few[tuple[str, str]]
    loses: Cut[str]
    lost: int
    gained: int
    problem: str
    changes: tuple[GuestChange, ...]


@dataclass(frozen=True, slots=True)
class GuestCpus:
    """The guests: all of them in a sentence, those with something to do in lines, the others in a sentence."""

    summary: str
    rows: tuple[GuestCpu, ...]
    left_out: str
    settled: str


@dataclass(frozen=True, slots=True)
class CpuAdvice:
    """What a baseline costs, and what to do about it."""

    level: str
    warning: str
    alike: str
    """All hosts give guests the same: said in words, then there is no heat map."""
    heat: HeatMap | None
    costs: Few[Cost]
    gains: Few[Gain]
    groupings: tuple[Grouping, ...]
    counts_guests: bool
    guests: GuestCpus | None
    unread: Few[tuple[str, str]]
    """Hosts whose guests could not be listed, and why."""
    files: str


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
    """Hosts, the features they lack, how many; of results without advice, which tells the same and why."""
    notes: Few[str]
    advice: CpuAdvice | None


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
    ways: tuple[tuple[str, str, str, str], ...]
    """Of each type of migration: name, what it does, what storage it needs, the command."""
    afterwards: str
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
