"""What `virsh domjobinfo` and `virsh domstats --dirtyrate` print, read strictly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from audit.text import visible

PASTE_LIMIT = 1024 * 1024  # bytes; a domjobinfo has some two thousand

_UNITS = {"B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4, "PiB": 5, "EiB": 6}
_KINDS = ("None", "Bounded", "Unbounded", "Completed", "Failed", "Cancelled")  # virDomainJobType
_OPERATIONS = (  # virDomainJobOperation
    *("unknown", "start", "save", "restore", "incoming migration", "outgoing migration"),
    *("snapshot", "snapshot revert", "dump", "backup", "snapshot delete"),
)
_RAW = {  # libvirt's names of what the labels show, in the same units: bytes, milliseconds, pages
    "time_elapsed": "Time elapsed",
    "downtime": "Expected downtime",
    "memory_total": "Memory total",
    "memory_remaining": "Memory remaining",
    "memory_bps": "Memory bandwidth",
    "memory_dirty_rate": "Dirty rate",
    "memory_page_size": "Page size",
    "memory_iteration": "Iteration",
    "memory_postcopy_requests": "Postcopy requests",
    "disk_remaining": "File remaining",
    "disk_total": "File total",
    "auto_converge_throttle": "Auto converge throttle",
}


class JobInfoError(ValueError):
    """The text is not what virsh prints, or something in it is missing or not understood."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One `virsh domjobinfo`. None: virsh did not say."""

    kind: str
    """None, Bounded, Unbounded, Completed, Failed, Cancelled."""
    operation: str
    """In small letters: outgoing migration, backup, …; "" where an old libvirt does not say."""
    elapsed_ms: int | None = None
    memory_total: int | None = None
    """Bytes."""
    memory_remaining: int | None = None
    """Bytes."""
    disks_remaining: int | None = None
    """Bytes of images that --copy-storage-all still has to copy, where they are told apart."""
    bandwidth: int | None = None
    """Bytes of memory a second."""
    dirty_pages: int | None = None
    """A second."""
    page_bytes: int | None = None
    iteration: int | None = None
    downtime_ms: int | None = None
    """Expected, of a job under way; the real one of a completed job."""
    throttle_percent: int | None = None
    postcopy_requests: int | None = None

    @property
    def migrating(self) -> bool:
        """An outgoing migration is under way."""
        return self.kind in {"Bounded", "Unbounded"} and self.operation in {"outgoing migration", ""}

    @property
    def dirty(self) -> int | None:
        """Bytes of memory that the guest changes a second; None: not known, as in the first round, which says 0."""
        first_round = self.dirty_pages == 0 and (self.iteration or 1) < 2
        if self.dirty_pages is None or self.page_bytes is None or first_round:
            return None
        return self.dirty_pages * self.page_bytes


def read_job_info(text: str) -> JobInfo:
    """One guest's `virsh domjobinfo`, with --rawstats or without, the prompt before it included.

    Raises `JobInfoError`: no job type (another language than LC_ALL=C, another command's output), more than one
    guest's, or a value that is not written as virsh writes it.
    """
    found = _lines(text)
    if "Job type" not in found:
        raise JobInfoError(
            "no line `Job type:`: not the whole output of `virsh domjobinfo GUEST`, or not in English (LC_ALL=C)"
        )
    kind = found["Job type"]
    if kind.isdigit():
        kind = _named(kind, _KINDS, "job type")
    elif kind not in _KINDS:
        raise JobInfoError(f"job type {visible(kind, 60)} is none that virsh prints with LC_ALL=C")
    disks = _bytes(found, "File remaining")
    others = ("Data total", "Data remaining") if disks is None else ("", "")  # which are memory and disks together
    operation = found.get("Operation", "")
    operation = _named(operation, _OPERATIONS, "operation") if operation.isdigit() else operation.lower()
    return JobInfo(
        kind=kind,
        operation=operation,
        elapsed_ms=_count(found, "Time elapsed", "ms"),
        memory_total=_bytes(found, "Memory total", others[0]),
        memory_remaining=_bytes(found, "Memory remaining", others[1]),
        disks_remaining=disks,
        bandwidth=_bytes(found, "Memory bandwidth", per_second=True),
        dirty_pages=_count(found, "Dirty rate", "pages/s"),
        page_bytes=_count(found, "Page size", "bytes"),
        iteration=_count(found, "Iteration", ""),
        downtime_ms=_count(found, "Total downtime" if "Total downtime" in found else "Expected downtime", "ms"),
        throttle_percent=_count(found, "Auto converge throttle", "%"),
        postcopy_requests=_count(found, "Postcopy requests", ""),
    )


def _lines(text: str) -> dict[str, str]:
    """Label and value of each line that has both; names of --rawstats as their labels."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*([A-Z][A-Za-z/ ]{2,40}):\s+(\S.*?)\s*", line)
        raw = re.fullmatch(r"\s*([a-z][a-z_]{2,40})(?:\s*[:=]\s*|\s+)(\S+)\s*", line)
        if match:
            label, value = match[1], match[2]
        elif raw and (raw[1] in _RAW or raw[1] == "operation"):
            label, value = _RAW.get(raw[1], "Operation"), raw[2]
        else:
            continue
        if found.setdefault(label, value) != value:
            raise JobInfoError(f"two lines `{label}:` that differ: paste the output about one guest, once")
    return found


def _named(number: str, names: tuple[str, ...], what: str) -> str:
    if int(number[:4]) >= len(names):
        raise JobInfoError(f"{what} {number[:20]} is not known")
    return names[int(number[:4])]


def _count(found: Mapping[str, str], label: str, unit: str) -> int | None:
    text = found.get(label)
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,20})(?:\s*(\S+))?", text)
    if not match or match[2] not in {None, unit}:
        raise JobInfoError(f"{label}: {visible(text, 60)} is not a number of {unit or 'this kind'} as virsh prints it")
    return int(match[1])


def _bytes(found: Mapping[str, str], *labels: str, per_second: bool = False) -> int | None:
    """The first of these lines: `34.383 MiB`, or plain bytes as --rawstats has them."""
    label = next((label for label in labels if label in found), None)
    if label is None:
        return None
    text = found[label]
    match = re.fullmatch(r"([0-9]{1,20})(\.[0-9]{1,6})?(?:\s+([KMGTPE]?i?B)(/s)?)?", text)
    if not match or (match[3] or "B") not in _UNITS or (match[3] and bool(match[4]) != per_second):
        raise JobInfoError(
            f"{label}: {visible(text, 60)} is not a size as virsh prints it with LC_ALL=C, such as 29.056 MiB"
        )
    return round(float(match[1] + (match[2] or "")) * float(1024 ** _UNITS[match[3] or "B"]))


# Dirty rates -------------------------------------------------------------------------------------------------

_STATUSES = {"0": "nothing has been measured", "1": "it is still being measured"}


@dataclass(frozen=True, slots=True)
class DirtyRate:
    """One guest's `virsh domstats --dirtyrate`."""

    mib_per_second: int | None
    """Rounded down by QEMU, so 0 means less than 1; None: not measured."""
    seconds: int | None
    problem: str = ""
    """Why there is no rate."""


def read_dirty_rate(text: str) -> DirtyRate:
    """The rate that a `domdirtyrate-calc` came to. Raises `JobInfoError` for any other text."""
    pairs = re.findall(r"^\s*dirtyrate\.([a-z_]{3,40})=([0-9a-z-]{1,20})\s*$", text, re.MULTILINE)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JobInfoError("a line is there twice: paste the output about one guest, once")
    status = found.get("calc_status")
    if status is None:
        raise JobInfoError("no line `dirtyrate.calc_status=`: not the output of `virsh domstats GUEST --dirtyrate`")
    if status != "2":
        return DirtyRate(None, None, _STATUSES.get(status, f"status {status} is not known"))
    rate, seconds = found.get("megabytes_per_second", ""), found.get("calc_period", "")
    if not rate.isdigit() or not seconds.isdigit():
        raise JobInfoError("measured, but without dirtyrate.megabytes_per_second and dirtyrate.calc_period")
    return DirtyRate(int(rate), int(seconds))
