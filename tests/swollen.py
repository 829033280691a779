"""Reads a megabyte of adverse text as each probe's output: `python -m tests.swollen [STRIDE]`.

Nothing is asserted but that each reading ends: one that takes a minute, which a megabyte never should, ends the process
with its traceback. STRIDE: only every so many-th text.
"""

import faulthandler
import sys
from dataclasses import replace
from itertools import islice

from audit.evidence import HostEvidence
from audit.facts.base import Facts, HostFact, Unavailable
from audit.facts.guest_source import read_guests
from tests import damage

SIZE = 1_000_000
PATIENCE = 60


def main(stride: int) -> None:
    for number, probe in enumerate(damage.PROBES):
        kinds = [kind for kind in damage.KINDS if probe in kind.probes]
        host = max(map(damage.answered, damage.real_hosts()), key=lambda host: len(host.outputs[probe.name].stdout))
        said = host.outputs[probe.name]
        for text in islice(damage.swollen(said.stdout, SIZE), number % stride, None, stride):
            outputs = {**host.outputs, probe.name: replace(said, stdout=text)}
            facts = Facts({"ill": HostEvidence("ill", outputs)}, read_guests)
            for kind in kinds:
                faulthandler.dump_traceback_later(PATIENCE, exit=True)
                if issubclass(kind, HostFact):
                    facts.of("ill", kind)
                    continue
                guests = facts.guests("ill")
                for guest in () if isinstance(guests, Unavailable) else guests:
                    facts.of_guest(guest, kind)
        print(probe.name)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
