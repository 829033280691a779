"""How fast a guest changes its memory, measured on request (`--measure-dirty-rate SECONDS`).

libvirt has QEMU take hashes of a sample of the guest's pages (512 for each GiB), wait, and compare them. That needs a
connection that may write, though nothing of the guest is changed by it; since libvirt 7.2 and QEMU 5.2.

A page that is written many times counts once. So the rate falls with longer periods where a guest writes to the same
pages again and again: it is the least that a migration has to cope with, and a short period tells more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, GuestFact, GuestSource, Question, Said, Unavailable, once
from audit.facts.guest import GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.guest_source import GUESTS, JOBS, XML, XML_INACTIVE
from audit.facts.virsh import DRAW_MARK, answers
from audit.jobinfo import JobInfo, JobInfoError, read_dirty_rate, read_job_info
from audit.text import visible

OPTION = "--measure-dirty-rate"
MOST_SECONDS = 60
"""libvirt takes no more."""
MOST_GUESTS = 200
"""So many are measured on one host, all at once."""


def pci_devices(nics: GuestNics, devices: GuestDevices) -> int:
    """How many PCI devices stay with the guest while it migrates; libvirt unplugs the transient one of a team."""
    return sum(nic.type == "hostdev" and nic.teaming != "transient" for nic in nics.nics) + sum(
        device.type in {"pci", "mdev"} and device.teaming != "transient" for device in devices.hostdevs
    )


def _ask(facts: Facts, host: str, _peers: object) -> Iterator[tuple[str, ...]]:
    """Number and UUID of each running guest; the rate of one with assigned devices cannot be measured."""
    number = 0
    for guest, state in facts.each_guest([host], GuestState):
        nics, devices = facts.of_guest(guest, GuestNics), facts.of_guest(guest, GuestDevices)
        if state.state != "running" or isinstance(nics, Unavailable) or isinstance(devices, Unavailable):
            continue
        if not pci_devices(nics, devices):
            yield str(number), guest.uuid
            number += 1


# All are started, then waited for once. What virsh said of the start is under the number, of the result under the UUID.
# A guest of terabytes needs some seconds more than it was asked to measure.
DIRTY_RATE = Question(
    "guest.dirty_rate",
    DRAW_MARK
    + """\
echo "$mark"
xargs -0 -x -n 600 sh -c '
begin= results= wait=
while [ $# -ge 3 ]; do
    case $1$2$3 in
    *[!0-9a-f-]*) ;;
    *)  begin="$begin echo $0 $1; domdirtyrate-calc $2 --seconds $3; " wait=$3
        results="$results echo $0 $2; domstats $2 --dirtyrate; " ;;
    esac
    shift 3
done
$sudo virsh -c qemu:///system "$begin" 2>&1
sleep "$wait"
for more in 1 2 3 4; do
    sleep 1
    said=$($sudo virsh -r -c qemu:///system "$results echo $0 end" 2>&1)
    case $said in *calc_status=1*) ;; *) break ;; esac
done
printf "%s\\n" "$said"' "$mark"
""",
    seconds=MOST_SECONDS + 60,
    ask=lambda facts, host, peers: tuple(_ask(facts, host, peers)),
    arity=3,
    maximum=MOST_GUESTS,
    option=OPTION,
    hand="virsh -c qemu:///system domdirtyrate-calc GUEST --seconds 5; sleep 6; virsh domstats GUEST --dirtyrate",
)


@dataclass(frozen=True, slots=True)
class GuestDirtyRate(GuestFact):
    """How fast a running guest changed its memory."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE, DIRTY_RATE)
    mib_per_second: int
    """Rounded down by QEMU: 0 is less than 1."""
    seconds: int
    """How long it was looked at."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `domstats --dirtyrate`; where there is no rate, from what `domdirtyrate-calc` said of it."""
        uuid = guest.guest.uuid
        said = answers(guest.said, DIRTY_RATE) if guest.said.evidence(DIRTY_RATE).arguments else {}
        numbers = _numbers(guest.said)
        if uuid not in numbers:
            raise Unavailable(DIRTY_RATE, _unasked(guest))
        words = said.get(numbers[uuid], b"").decode("utf-8", "replace")
        if "error:" in words:
            raise Unavailable(DIRTY_RATE, visible(words[words.index("error:") :].strip(), 200))
        answer = said.get(uuid)
        if answer is None:
            raise Unavailable(DIRTY_RATE, "no answer")
        text = answer.decode("utf-8", "replace")
        try:
            measured = read_dirty_rate(text)
        except JobInfoError as error:
            shown = visible(text.strip(), 200)
            raise Unavailable(DIRTY_RATE, shown if shown.startswith("error:") else str(error)) from error
        if measured.mib_per_second is None or measured.seconds is None:
            raise Unavailable(DIRTY_RATE, measured.problem)
        return cls(measured.mib_per_second, measured.seconds)


@once
def _numbers(said: Said) -> dict[str, str]:
    """By UUID: the record that asked about the guest."""
    return {uuid: number for number, uuid, _ in said.evidence(DIRTY_RATE).arguments}


def _unasked(guest: GuestSource) -> str:
    if pci_devices(GuestNics.parse(guest), GuestDevices.parse(guest)):
        return "not measured: the guest has an assigned device, with which it cannot be (RHEL 9 §12.8)"
    return f"not measured: the guest did not run, or the host has more than {MOST_GUESTS} running guests"


@dataclass(frozen=True, slots=True)
class GuestMigration(GuestFact):
    """The numbers of an outgoing migration that is under way."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, JOBS)
    under_way: JobInfo | None
    """None: nothing is under way, or something else."""

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `virsh domjobinfo`."""
        if not guest.active:
            return cls(None)
        answer = answers(guest.said, JOBS).get(guest.guest.uuid)
        if answer is None:
            raise Unavailable(JOBS, "the guest was not asked about")
        text = answer.decode("utf-8", "replace")
        try:
            job = read_job_info(text)
        except JobInfoError as error:
            shown = visible(text.strip(), 200)
            raise Unavailable(JOBS, shown if shown.startswith("error:") else str(error)) from error
        return cls(job if job.migrating else None)
