"""Whether a live migration comes to an end: numbers in, diagnosis out (RHEL 9 §12.9.1).

Pre-copy copies memory in rounds: each sends what the guest changed during the one before. With D bytes changed and B
bytes sent a second, a round is D/B times as long as the last. Below 1 the rounds shrink, until what is left can be
sent in the downtime that is allowed, with the guest stopped. At 1 and above they never do.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

MIB = 1024**2
TIB = 1024**4
GBIT = 125_000_000
"""Bytes a second of 1 Gbit/s."""
CHANNEL = 10 * GBIT
"""RHEL 9 §12.6: one of --parallel-connections for each 10 Gbit/s."""
DOWNTIME_MS = 300
"""QEMU's own limit, unless `virsh migrate-setmaxdowntime` sets another."""
MOST_DOWNTIME_MS = 2_000_000
"""QEMU takes no more."""
FACTOR = 2
"""How many times the dirty rate a "significantly higher" bandwidth is."""
TESTED = 6 * TIB
"""Memory of the largest guests that Red Hat has tested."""

Word = Literal["converges", "close", "does not converge", "cannot say"]


class Load(NamedTuple):
    """A migration under way or to come, in bytes and bytes a second. None: not known."""

    dirty: int | None
    bandwidth: int | None
    remaining: int | None
    """Of a migration to come: the whole memory."""
    total: int | None = None
    downtime_ms: int = DOWNTIME_MS
    under_way: bool = True


class Fix(NamedTuple):
    """One thing to do about it."""

    what: str
    """Sentence with the numbers of this case."""
    command: str
    """To be pasted; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the numbers mean."""

    word: Word
    because: str
    seconds: float | None = None
    """How long the rest takes, where it converges and that can be reckoned."""
    downtime_ms: int | None = None
    """Downtime that would let it end with what is left now."""
    needed: int | None = None
    """Bandwidth that is significantly higher than the dirty rate."""
    fixes: tuple[Fix, ...] = ()
    notes: tuple[str, ...] = ()


def size(count: float) -> str:
    """Bytes for people: `34.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def rate(count: float) -> str:
    """Bytes a second for people: `67.3 MiB/s`, and in Gbit/s where networks are spoken of so."""
    return f"{size(count)}/s" + (f" ({count / GBIT:.1f} Gbit/s)" if count >= GBIT else "")


def duration(seconds: float) -> str:
    """Seconds for people: `0.4 s`, `12 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def channels(bandwidth: int) -> int:
    """Parallel connections for a bandwidth of so many bytes a second: at least 2, virsh's own default."""
    return max(2, math.ceil(bandwidth / CHANNEL))


def remaining_seconds(remaining: int, dirty: int, bandwidth: int, downtime_ms: int = DOWNTIME_MS) -> float | None:
    """How long pre-copy of `remaining` bytes takes, the last round's downtime included; None: it has no end.

    The rounds' lengths are a geometric series of ratio dirty / bandwidth. It is an estimate: load and network change.
    """
    if bandwidth <= 0:
        return None
    last = bandwidth * downtime_ms / 1000
    if remaining <= last:
        return remaining / bandwidth
    if dirty >= bandwidth:
        return None
    ratio = dirty / bandwidth
    rounds = 1 if ratio == 0 else max(1, math.ceil(math.log(last / remaining) / math.log(ratio)))
    rest = remaining * ratio**rounds
    return remaining / bandwidth * (1 - ratio**rounds) / (1 - ratio) + rest / bandwidth


def downtime_needed(remaining: int, bandwidth: int) -> int:
    """Milliseconds that suffice to send what is left with the guest stopped, half as much again for what comes."""
    return max(100, math.ceil(remaining / bandwidth * 15) * 100)


def diagnose(load: Load, guest: str = "GUEST", *, factor: int = FACTOR, postcopy: bool = True) -> Diagnosis:
    """What the numbers say, and what helps in this very case. `guest` is its name as a shell takes it.

    `postcopy`: the guest may use it (one with an assigned device may not). Without dirty rate or bandwidth: cannot say.
    """
    notes = _notes(load)
    if load.dirty is None:
        return Diagnosis("cannot say", "the dirty rate is not known", notes=notes)
    needed = load.dirty * factor
    if not load.bandwidth:
        because = f"the guest changes {rate(load.dirty)} of its memory; the bandwidth is not known"
        return Diagnosis("cannot say", because, needed=needed, notes=notes)
    because = f"the guest changes {rate(load.dirty)} of its memory, the network carries {rate(load.bandwidth)}"
    seconds = (
        None
        if load.remaining is None
        else remaining_seconds(load.remaining, load.dirty, load.bandwidth, load.downtime_ms)
    )
    downtime = None if load.remaining is None else downtime_needed(load.remaining, load.bandwidth)
    word: Word = "converges"
    if load.dirty >= load.bandwidth and seconds is None:
        word = "does not converge"
    elif needed > load.bandwidth:
        word = "close"
    if word == "converges":
        return Diagnosis(word, because, seconds, downtime, needed, (), notes)
    helps = _while_it_runs if load.under_way else _before_it_starts
    fixes = (_less_load(load.dirty, load.bandwidth, factor), *helps(load, load.bandwidth, needed, guest))
    if not postcopy:
        fixes = tuple(fix for fix in fixes if "postcopy" not in fix.command)
    return Diagnosis(word, because, seconds, downtime, needed, fixes, notes)


def _notes(load: Load) -> tuple[str, ...]:
    """What is recommended and known for guests of that size."""
    if load.total is None or load.total <= TIB:
        return ()
    notes = [
        f"With {size(load.total)} of memory: a NIC of 25 Gbit/s or more on both hosts, for the migration alone, and "
        "as much --bandwidth as can be had; Red Hat asks to be consulted above 1 TiB."
    ]
    if load.total > TESTED:
        notes.append("It is larger than what Red Hat has tested, which is 6 TB.")
    return tuple(notes)


def _less_load(dirty: int, bandwidth: int, factor: int) -> Fix:
    wanted = f"from {rate(dirty)} to below {rate(bandwidth / factor)}"
    return Fix(
        f"Reduce what the guest does, its writing to memory above all, {wanted}: stop what it can do without.", ""
    )


_POSTCOPY = (
    "Every page is then copied once, so it ends; but the guest is slow meanwhile, and is lost if the network fails. "
    "Not where availability is critical or the network unstable."
)


def _while_it_runs(load: Load, bandwidth: int, needed: int, guest: str) -> list[Fix]:
    """From the least to the most that is asked of the guest."""
    fixes = []
    downtime = None if load.remaining is None else downtime_needed(load.remaining, bandwidth)
    if load.remaining is not None and downtime is not None and load.downtime_ms < downtime <= MOST_DOWNTIME_MS:
        words = (
            f"{size(load.remaining)} are left, which {rate(bandwidth)} carry in {duration(load.remaining / bandwidth)}"
        )
        fixes.append(
            Fix(
                f"Allow more downtime: {words}. With {downtime} ms it can end; the guest stands still for so long.",
                f"virsh migrate-getmaxdowntime {guest}; virsh migrate-setmaxdowntime {guest} {downtime}",
            )
        )
    fixes.append(
        Fix(
            f"Give it more bandwidth: {rate(needed)} or more. If it was started with --bandwidth, raise that limit; "
            "if not, the network itself is too slow, or shared with others.",
            f"virsh migrate-setspeed {guest} {math.ceil(needed / MIB)}",
        )
    )
    if needed > CHANNEL:
        connections = f"--parallel --parallel-connections {channels(needed)}"
        words = "One connection does not carry that much: start again with several."
        fixes.append(Fix(words, f"virsh domjobabort {guest}; virsh migrate --live {connections} …"))
    words = f"Switch to post-copy, if it was started with --postcopy. {_POSTCOPY}"
    fixes.append(Fix(words, f"virsh migrate-postcopy {guest}"))
    left = f" What is left takes {duration(load.remaining / bandwidth)}." if load.remaining else ""
    words = f"Suspend the guest, and it ends as a non-live migration; libvirt resumes it on the target.{left}"
    fixes.append(Fix(words, f"virsh suspend {guest}"))
    return fixes


def _before_it_starts(load: Load, bandwidth: int, needed: int, guest: str) -> list[Fix]:
    """What to start it with, from the least to the most that is asked of the guest."""
    words = f"Migrate over a network of {rate(needed)} or more"
    if needed > CHANNEL:
        words += ", with one connection for each 10 Gbit/s"
    connections = f" --parallel --parallel-connections {channels(needed)}" if needed > CHANNEL else ""
    fixes = [Fix(f"{words}.", f"virsh migrate --live{connections} --migrateuri tcp://ADDRESS {guest} …")]
    words = f"Start it so that it can be switched to post-copy. {_POSTCOPY}"
    fixes.append(Fix(words, f"virsh migrate --live --postcopy {guest} …; virsh migrate-postcopy {guest}"))
    takes = f" for {duration(load.remaining / bandwidth)}" if load.remaining else ""
    fixes.append(Fix(f"Migrate it without --live: the guest stands still{takes}.", f"virsh migrate {guest} …"))
    return fixes
