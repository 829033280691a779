#!/usr/bin/env python3
"""Ask the libvirt of this machine about random CPUs, and record its answers: tests/cpu/recorded/libvirt-VERSION.json.

    python3 scripts/record_cpu_cases.py [--seed 5] [--cases 150] [--hosts 4] [FOLDER]

Needs libvirt-python, libvirt's QEMU driver and QEMU, and nothing of either in action (tests/cpu/oracle.py). The same
seed and libvirt give the same file. What it holds, in JSON:

    libvirt   the version that answered
    hosts     the fake hosts that were asked: `vendor` as CPUID spells it, `signature` (family, model, stepping), and
              names of features in libvirt's spelling: `has`, `lacks` (QEMU knows it, this host cannot give it), `local`
              (QEMU does not migrate it, and says so if `migratability`); `offers`: a model of QEMU's each, "name usable
              blocker blocker …"
    cases     `asked`: plain (virsh cpu-baseline), baseline, compare (virsh hypervisor-cpu-…) or host-model (of virsh
              domcapabilities); `host`: the number of the one that was asked; `flags`; `cpus`: their XML;
              `answer`: libvirt's XML, word or "error: …"

In XML a run of <feature> lines is one line "[policy:name policy:name …]". tests/cpu/recording.py reads it.
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from audit.cpu import rules_of
from tests.cpu.differential import Live
from tests.cpu.fakehosts import random_hosts
from tests.cpu.oracle import NoOracle, Oracle, oracle
from tests.cpu.questions import random_questions
from tests.cpu.recording import FOLDER, Recording, read, text


def record(asked: Oracle, seed: int, hosts: int, cases: int) -> Recording:
    """Plant random hosts and ask."""
    rng = random.Random(seed)
    fakes = random_hosts(rng, asked.cpu_map, hosts)
    asked.plant(fakes)
    live = Live(asked)
    questions = random_questions(rng, asked.cpu_map, rules_of(asked.version), fakes, cases)
    # What a host offers is in the recording once, and need not be in it twice.
    answers = tuple((question, live.answer(question)) for question in questions if question.asked != "models")
    return Recording(".".join(map(str, asked.version)), tuple(fakes), answers)


def main() -> None:
    """Record, and make sure that nothing got lost in writing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    options = parser.parse_args()
    try:
        with oracle() as asked:
            recording = record(asked, options.seed, options.hosts, options.cases)
    except NoOracle as reason:
        sys.exit(str(reason))
    options.folder.mkdir(exist_ok=True)
    file = options.folder / f"libvirt-{recording.libvirt}.json"
    file.write_text(text(recording), "utf-8")
    if read(file) != recording:
        sys.exit(f"{file} does not hold what was recorded")
    print(f"{file}: {len(recording.cases)} cases, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
