"""What is being done to a guest or its disks right now, by libvirt's word."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, GuestFact, GuestSource, Question, Said, Unavailable, once
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDisks
from audit.facts.guest_source import GUESTS, JOBS, XML, XML_INACTIVE
from audit.facts.virsh import DRAW_MARK, answers
from audit.text import visible


@dataclass(frozen=True, slots=True)
class GuestJob(GuestFact):
    """What is being done to the guest right now (`virsh domjobinfo`)."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, JOBS)
    job: str
    """`none`, or the operation in libvirt's words: backup, outgoing migration, dump, …"""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `Job type: None`, or another type and `Operation: …`."""
        if not guest.active:
            return cls("none")
        answer = answers(guest.said, JOBS).get(guest.guest.uuid)
        if answer is None:
            raise Unavailable(JOBS, "the guest was not asked about")
        text = answer.decode("utf-8", "replace")
        said = dict(re.findall(r"^([A-Z][A-Za-z ]*):\s+(\S.*?)\s*$", text, re.MULTILINE))
        kind = said.get("Job type")
        if kind is None:
            raise Unavailable(JOBS, visible(text.strip(), 200) or "no answer")
        return cls("none" if kind == "None" else str(said.get("Operation", kind)).lower())


_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _ask_block_jobs(facts: Facts, host: str, _peers: object) -> Iterator[tuple[str, ...]]:
    number = 0
    for guest, disks in facts.each_guest([host], GuestDisks):
        state = facts.of_guest(guest, GuestState)
        if isinstance(state, Unavailable) or not state.active:
            continue
        for disk in disks.disks:
            if disk.source is not None and _TARGET.fullmatch(disk.target):
                yield str(number), guest.uuid, disk.target
                number += 1


_NO_BLOCK_NODE = frozenset({"vhostuser", "vhostvdpa"})
"""Disks that another process drives: QEMU copies nothing of them, and libvirt may not answer for them."""

BLOCK_JOBS = Question(
    "guest.block_jobs",
    DRAW_MARK
    + """\
echo "$mark"
xargs -0 -x -n 300 sh -c '
commands=
while [ $# -ge 3 ]; do
    case $1$2$3 in *[!A-Za-z0-9_.-]*) ;; *) commands="$commands echo $0 $1; blockjob $2 $3 --info; " ;; esac
    shift 3
done
virsh -r -c qemu:///system "$commands echo $0 end" 2>&1' "$mark"
""",
    seconds=60,
    ask=lambda facts, host, peers: tuple(_ask_block_jobs(facts, host, peers)),
    arity=3,
    maximum=6000,
    hand="virsh -r -c qemu:///system blockjob GUEST TARGET --info",
)


@dataclass(frozen=True, slots=True)
class GuestBlockJobs(GuestFact):
    """Copy, commit, pull and backup jobs that run on the disks of an active guest."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE, BLOCK_JOBS)
    jobs: tuple[tuple[str, str], ...]
    """Disk and what libvirt says of its job."""
    unknown: tuple[tuple[str, str], ...] = ()
    """Disk and why nothing is known of it."""

    def complete(self) -> None:
        """Raise `Unavailable` if some disk could not be asked about."""
        for disk, why in self.unknown:
            raise Unavailable(BLOCK_JOBS, f"disk {visible(disk, 40)}: {why}")

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """A `<mirror>` in the XML is a job too, and what there is of it when it was not asked about."""
        disks = [disk for disk in GuestDisks.parse(guest).disks if disk.source is not None]
        if not guest.active:
            return cls(())
        jobs = {disk.target: "copy or active commit" for disk in disks if disk.mirror}
        unknown = {}
        asked = _block_job_answers(guest)
        for disk in disks:
            said = asked.get(disk.target)
            if isinstance(said, Unavailable) or said is None:
                if disk.type not in _NO_BLOCK_NODE:
                    unknown[disk.target] = said.reason if said else "not asked about"
            elif said:
                jobs[disk.target] = said
        return cls(tuple(sorted(jobs.items())), tuple(sorted((t, w) for t, w in unknown.items() if t not in jobs)))


def _block_job_answers(guest: GuestSource) -> dict[str, str | Unavailable]:
    """By disk: "" for no job, its description, or why nothing is known."""
    try:
        asked = _all_block_jobs(guest.said)
    except Unavailable as reason:
        return {disk.target: reason for disk in GuestDisks.parse(guest).disks}
    found: dict[str, str | Unavailable] = {}
    for target, words in asked.get(guest.guest.uuid, ()):
        if words == f"No current block job for {target}":
            found[target] = ""
        elif words and not words.startswith("error:"):
            found[target] = visible(words, 100)
        else:
            found[target] = Unavailable(BLOCK_JOBS, visible(words, 200) or "no answer")
    return found


@once
def _all_block_jobs(said: Said) -> dict[str, list[tuple[str, str]]]:
    """By guest: each disk asked about, and virsh's words."""
    words = answers(said, BLOCK_JOBS)
    found: dict[str, list[tuple[str, str]]] = {}
    for number, uuid, target in said.evidence(BLOCK_JOBS).arguments:
        if number in words:
            found.setdefault(uuid, []).append((target, words[number].decode("utf-8", "replace").strip()))
    return found
