"""The host's clock: whether anything keeps it right."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

# `timedatectl show` came with systemd 239; older ones have the same in their table.
CLOCK = Probe(
    "clock.synchronized",
    """\
if said=$(timedatectl show -p NTPSynchronized 2>/dev/null) && [ -n "$said" ]; then echo "$said"
else timedatectl 2>/dev/null | grep -i synchronized
fi
if said=$(chronyc -n -c tracking 2>&1); then echo "chrony $said"; fi
echo end""",
    seconds=30,
    hand="timedatectl; chronyc tracking",
)


@dataclass(frozen=True, slots=True)
class Clock(HostFact):
    """Whether the clock is synchronized, and how far it is off where chrony tells."""

    probes: ClassVar[tuple[Probe, ...]] = (CLOCK,)
    synchronized: bool
    offset_seconds: float | None
    """Between the clock and what chrony takes for the time, without direction. None: not told."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """chrony's CSV, whose fifth field is the offset and whose last one is the leap status; else systemd's word."""
        *lines, end = said.lines(CLOCK)
        if end != "end":
            raise ValueError("cut off")
        for line in lines:
            if line.startswith("chrony "):
                fields = line.removeprefix("chrony ").split(",")
                if len(fields) < 14:
                    raise ValueError(f"not chrony's answer: {visible(line, 120)}")
                synchronized = fields[-1] != "Not synchronised"
                return cls(synchronized, abs(float(fields[4])) if synchronized else None)
        for line in lines:
            if match := re.fullmatch(r"\s*(?:NTPSynchronized=|[\w ]*synchronized: )(yes|no)\s*", line):
                return cls(match[1] == "yes", None)
        raise Unavailable(CLOCK, "neither chrony nor systemd tells")
