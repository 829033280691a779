"""results.json: the judgement of a run as plain JSON values, the contract between `evaluate` and whoever reads it.

The published schema is `audit/results.schema.json`; `format` changes when a reader would break. Everything that
came from a host (names, messages, values) is untrusted text: escape it where you show it (`audit.text.visible`).
"""

import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

FORMAT = "virt-preflight/results/1"

Verdict = Literal["GO", "GO WITH CONDITIONS", "NO-GO", "CANNOT SAY"]
RouteVerdict = Literal["yes", "conditions", "no", "unknown"]
WayKind = Literal["copy-storage", "copy-storage-inc", "another-address", "started-here", "tunnelled", "offline"]
Status = Literal["fail", "unknown", "error"]

EXIT_STATUS: dict[str, int] = {"GO": 0, "NO-GO": 3, "GO WITH CONDITIONS": 4, "CANNOT SAY": 5}


class ResultsError(Exception):
    """The file is not a results.json that this version reads."""


class Change(TypedDict, total=False):
    """The inventory's `change` section, as the report prints it."""

    ticket: str
    window: str
    requester: str


class Run(TypedDict):
    """Where the judgement comes from. Times are UTC, ISO 8601."""

    id: str
    tool: str
    started: str
    finished: str
    valid_until: str
    change: dict[str, str]
    policy: dict[str, Any]
    drain: list[str]
    """Hosts that the verdict was narrowed to; empty: all."""
    active: list[str]
    """Options that were given for active probes, as `--probe-network`."""
    bundle_sha256: str
    """Over the digests of all evidence: two runs on the same evidence agree in it."""


class Reason(TypedDict):
    """Why a route is not a plain yes."""

    check: str
    status: Status
    message: str


class VerdictSummary(TypedDict):
    """The first page."""

    word: Verdict
    sentence: str
    guests: dict[str, int]
    """Running guests in scope by number of proved targets: `two_or_more`, `one`, `none`, `unknown`, `total`."""
    blocking: list[str]
    """Sentences: why it is NO-GO or CANNOT SAY."""
    conditions: list[str]
    """Sentences: what must be done or accepted first."""


class Row(TypedDict):
    """One line of the side-by-side table. `value` is null when unknown, and `why` says why."""

    domain: str
    label: str
    value: str | None
    why: NotRequired[str]


class HostResult(TypedDict):
    """One audited host."""

    name: str
    cluster: str
    reached: bool
    problem: str
    privilege: str
    rows: list[Row]


class CheckResult(TypedDict):
    """One check and how often it came to which status."""

    id: str
    title: str
    why: str
    scope: str
    severity: str
    blocks: str
    reference: str
    remedy: str
    counts: dict[str, int]
    """Outcomes by status: pass, fail, skip, unknown, error."""
    skipped: dict[str, int]
    """Why it did not apply, and how often; skips are counted here, not listed among the outcomes."""


class EvidenceRef(TypedDict):
    """Which raw output a statement rests on."""

    host: str
    probe: str
    sha256: str | None
    """None: there is no output."""


class Subject(TypedDict, total=False):
    """A host; a source and a target; a guest (on its host) and perhaps a target; a cluster."""

    host: str
    source: str
    target: str
    guest: str
    guest_uuid: str
    cluster: str


class Outcome(TypedDict):
    """A fail, an unknown or an error. `expected` and `actual` are empty unless it is a fail."""

    check: str
    status: Status
    subject: Subject
    severity: str
    blocks: str
    message: str
    expected: str
    actual: str
    evidence: list[EvidenceRef]
    remedy: str
    waiver: None


class Pair(TypedDict):
    """One ordered pair, for a plain host-model guest."""

    cluster: str
    source: str
    target: str
    verdict: RouteVerdict
    reasons: list[Reason]


class WayResult(TypedDict):
    """Another way to a target, where the usual one is not open: live with `disks` copied along, whole or their top
    images only (`copy-storage-inc`), or offline.

    Or live, too: to `another-address`, by `options` or the URIs that it gives; started on the machine that audited
    (`started-here`); or `tunnelled` through libvirt's own connection.
    """

    kind: WayKind
    verdict: RouteVerdict
    disks: list[str]
    options: NotRequired[list[str]]
    """Of `another-address`."""
    reasons: NotRequired[list[Reason]]
    """Why it is closed, or open with conditions only, the decisive one first; the first few. Absent: there are none."""


class TargetResult(TypedDict):
    """Where a guest can go. `verdict` is that of the usual command: live, disks shared; `ways` do not change it."""

    host: str
    verdict: RouteVerdict
    reasons: list[Reason]
    ways: NotRequired[list[WayResult]]
    """Absent where there are none."""


class DiskResult(TypedDict):
    """One disk that holds something, and where that lies on the guest's host.

    `shared`: a file on a network or cluster file system. `block`: a device, a SAN's LUN or a local one. `network`: QEMU
    speaks to the storage itself (Ceph, iSCSI, NBD). `local`: a file on the host's own file system. `host`: a device or
    folder of the host in another way. `unknown`: `where` says why.
    """

    target: str
    kind: Literal["shared", "block", "network", "local", "host", "unknown"]
    where: str


class GuestResult(TypedDict):
    """One guest and its targets; a shut-off one is judged for offline migration."""

    name: str
    uuid: str
    host: str
    cluster: str
    state: str
    active: bool
    memory_kib: int | None
    vcpus: int | None
    disks: NotRequired[list[DiskResult]]
    """Absent where they could not be listed."""
    targets: list[TargetResult]


class WhyLost(TypedDict):
    """Why some hosts do not give a feature. No hosts: all give it, and yet guests cannot have it."""

    hosts: list[str]
    cause: Literal["silicon", "software", "hypervisor", "unknown"]
    words: str


class LostFeatures(TypedDict):
    """Features that the baseline lacks because the same hosts lack them for the same reasons."""

    features: list[str]
    hosts: list[str]
    why: list[WhyLost]


class LeftOutResult(TypedDict):
    """What the baseline of the rest gains without these hosts, which are equal."""

    hosts: list[str]
    model: str
    level: int
    gained: list[str]


class GroupResult(TypedDict):
    """Hosts that would be a cluster of their own. `model` is null when they have no baseline."""

    hosts: list[str]
    model: str | None
    features: int
    level: int
    cpu_xml: str | None


class SplitResult(TypedDict):
    """A way to group the hosts. `features` and `level` are averages over the hosts."""

    groups: list[GroupResult]
    features: float
    level: float
    movable: int | None
    """Guests that could move within their group as they run now; null when not all guests are known."""
    best_by: list[str]
    """features, level, guests: by which it is the best with that many groups."""
    exact: bool


class FeatureRow(TypedDict):
    """Features that the same hosts give: one row of the picture of who gives what."""

    features: list[str]
    given: list[bool]
    """Per kind of hosts, in the order of `kinds`."""
    baseline: bool


class HostKindResult(TypedDict):
    """Hosts that give guests the same."""

    hosts: list[str]
    model: str
    features: int
    level: int
    """The x86-64 level, 1 to 4; 0: below the first."""


class GuestCpuAdvice(TypedDict):
    """What the baseline means for one guest."""

    guest: str
    uuid: str
    host: str
    effect: Literal["has it", "next start", "power cycle", "transient", "unknown"]
    """What it takes until the guest runs with the baseline: nothing (it sees just these features now, and the
    difference keeps it so at later starts), its next start, or to be shut down and started. A transient guest has no
    definition that could be changed: it is gone once it stops."""
    blocked: dict[str, str]
    """Other hosts of the cluster that its CPU keeps it from as it runs now, and why."""
    unproved: dict[str, str]
    """Hosts of which that cannot be said, and why."""
    loses: list[str]
    gains: list[str]
    """Features, those that matter most first."""
    problem: str
    """Why some of this cannot be said, or why there is no difference to apply."""
    diff: str
    """A unified diff of the guest's inactive XML; "" when there is none to apply."""
    apply: list[str]
    undo: list[str]
    """Commands for the guest's host; nothing here runs them."""


class Advice(TypedDict):
    """What the baseline costs, and what to do about it."""

    features: int
    level: int
    """The baseline's features, and the x86-64 level that they reach."""
    warning: str
    kinds: list[HostKindResult]
    matrix: list[FeatureRow]
    """Features that not all hosts give."""
    lost: list[LostFeatures]
    left_out: list[LeftOutResult]
    splits: list[SplitResult]
    guests: list[GuestCpuAdvice]
    unread: dict[str, str]
    """Hosts whose guests could not be listed, and why: they are missing above."""


class Baseline(TypedDict):
    """The CPU that every host of a cluster can give. `cpu_xml` is what `virsh hypervisor-cpu-baseline` prints."""

    cluster: str
    hosts: list[str]
    missing: dict[str, str]
    """Hosts of the cluster that are not in it, and why: the baseline is partial."""
    virttype: str
    cpu_xml: str | None
    migratable_cpu_xml: str | None
    """The same with `--migratable`; null when that changes nothing."""
    model: str | None
    vendor: str | None
    problem: str
    """Why there is none, in libvirt's words."""
    engine: str
    """Which CPU map it was computed with."""
    removed_by: dict[str, list[str]]
    cross_check: str
    notes: NotRequired[list[str]]
    """Where virsh on one of the hosts would say otherwise, and what is not certain."""
    advice: NotRequired[Advice | None]


class Results(TypedDict):
    """The whole file."""

    format: str
    run: Run
    verdict: VerdictSummary
    hosts: list[HostResult]
    checks: list[CheckResult]
    outcomes: list[Outcome]
    pairs: list[Pair]
    guests: list[GuestResult]
    baselines: list[Baseline]


def dumps(results: Results) -> str:
    """The file's text: stable order, no float noise, one value a line so that two runs diff well."""
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def load(path: Path) -> Results:
    """The results in `path`. Raises `ResultsError` with one clear line."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ResultsError(f"{path}: not a {FORMAT} file")
    missing = [key for key in Results.__required_keys__ if key not in value]
    if missing:
        raise ResultsError(f"{path}: lacks {', '.join(sorted(missing))}")
    return value  # type: ignore[return-value]
