"""Sessions: guests that users run for themselves (`qemu:///session`), out of the system daemon's sight."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

# A line for each QEMU process: PID UID KIND NAME. The name comes from a command line that its owner chose; it is
# the last word, and `tr` has made one line of every argument, so that it cannot look like a line of its own.
PROCESSES = Probe(
    "sessions.processes",
    """
cat /proc/1/cmdline >/dev/null 2>&1 || { echo hidden; exit 0; }
for folder in /proc/[0-9]*; do
    read -r name <"$folder/comm" || continue
    case $name in *qemu*|kvm) ;; *) continue ;; esac
    arguments=$(tr '\\000' '\\n' <"$folder/cmdline") || continue
    [ -n "$arguments" ] || continue
    uid=$(sed -n 's/^Uid:[^0-9]*\\([0-9]*\\).*/\\1/p' "$folder/status") || continue
    guest=$(printf '%s\\n' "$arguments" | sed -n 's/^guest=//p' | sed -n '1s/,debug-threads=.*//;1s/,process=.*//;1p')
    case $arguments in
        */.config/libvirt/*|*/.cache/libvirt/*|*/.local/share/libvirt/*|*/run/user/[0-9]*/libvirt/*) kind=session ;;
        */var/lib/libvirt/qemu/*|*/run/libvirt/qemu/*) kind=system ;;
        *) kind=other ;;
    esac
    printf '%s %s %s %.200s\\n' "${folder#/proc/}" "$uid" "$kind" "$guest"
done 2>/dev/null
echo end
""",
    hand="ps -eo uid,user,args | grep qemu",
)


class SessionGuest(NamedTuple):
    """A running guest of a user's own libvirt."""

    uid: int
    name: str
    """Untrusted; empty where the process does not tell."""


@dataclass(frozen=True, slots=True)
class Sessions(HostFact):
    """QEMU processes that `qemu:///system` does not know."""

    probes: ClassVar[tuple[Probe, ...]] = (PROCESSES,)
    guests: tuple[SessionGuest, ...]
    """Of session connections."""
    foreign: int
    """QEMU processes that show no sign of libvirt at all (started by hand or by something else)."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From one line a process. Processes that the login may not see make it unavailable."""
        lines = said.lines(PROCESSES)
        if lines == ["hidden"]:
            raise Unavailable(PROCESSES, "the processes of others are hidden from this login (hidepid)")
        if not lines or lines[-1] != "end":
            raise Unavailable(PROCESSES, "answer is incomplete")
        guests, foreign = [], 0
        for line in lines[:-1]:
            pid, uid, kind, *name = line.split(" ", 3)
            if kind not in {"session", "system", "other"}:
                raise ValueError(f"process {int(pid)} is of no known kind")
            foreign += kind == "other"
            if kind == "session":
                guests.append(SessionGuest(int(uid), visible(name[0] if name else "", 200)))
        return cls(tuple(sorted(guests)), foreign)
