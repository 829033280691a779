#!/usr/bin/env python3
"""How long a baseline of many hosts takes, beside libvirt's own on the same CPUs.

    .venv/bin/python benchmarks/cpu_baseline.py [HOSTS]

The hosts are of 12 kinds, as fleets are; and, the worst case, all different. libvirt's call is virConnectBaselineCPU of
the test driver, which parses the documents too: so it is compared with reading and computing together.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from audit.advice import advice_on
from audit.cpu import (
    CpuDefinition,
    CpuMap,
    CpuSource,
    as_host,
    feature_set,
    joint_baseline,
    notes_on,
    read_cpus,
    read_sources,
)

MAP = CpuMap.carried()
ROUNDS = 7
MODELS = ("Skylake-Server-IBRS", "Cascadelake-Server", "Icelake-Server", "Icelake-Server-noTSX")  # old maps have them


def document(kind: int) -> str:
    """One host's domain capabilities; equal kinds give equal documents."""
    rng = random.Random(kind)
    names = [name for name in MAP.order if name not in MAP.arch_capabilities]
    features = "".join(f"<feature policy='require' name='{name}'/>" for name in sorted(rng.sample(names, 60)))
    models = "".join(f"<model usable='yes' vendor='unknown'>{model.name}</model>" for model in MAP.models)
    return f"""<domainCapabilities><path>/usr/bin/qemu-kvm</path><domain>kvm</domain><arch>x86_64</arch><cpu>
<mode name='host-model' supported='yes'><model fallback='forbid'>{rng.choice(MODELS)}</model><vendor>Intel</vendor>
<maxphysaddr mode='passthrough' limit='46'/>{features}</mode>
<mode name='custom' supported='yes'>{models}</mode></cpu></domainCapabilities>"""


def milliseconds(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The median of some rounds."""
    times = []
    for _ in range(ROUNDS):
        before()
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def read(documents: list[str]) -> list[CpuSource]:
    """As the command line reads files."""
    return [source for number, text in enumerate(documents) for source in read_sources(text, f"h{number}", MAP)]


def libvirts(cpus: list[CpuDefinition]) -> float | None:
    """libvirt's own time for the same CPUs, as far as its map knows them; None where it cannot be asked."""
    local = CpuMap.local()
    if local is None:
        return None
    try:
        import libvirt

        connection = libvirt.openReadOnly("test:///default")
    except (ImportError, libvirt.libvirtError) as error:
        print(f"libvirt cannot be asked: {error}")
        return None
    known = [replace(cpu, features=tuple(f for f in cpu.features if f.name in local.order)) for cpu in cpus]
    hosts = [as_host(cpu, local).to_xml() for cpu in known]
    return milliseconds(lambda: connection.baselineCPU(hosts, 0))


def measure(documents: list[str], *, advised: bool) -> None:
    """Print one fleet's table."""
    reading = milliseconds(lambda: read(documents))
    sources = read(documents)
    cold = milliseconds(lambda: joint_baseline(sources, MAP), feature_set.cache_clear)
    warm = milliseconds(lambda: joint_baseline(sources, MAP))
    joint = joint_baseline(sources, MAP)
    notes = milliseconds(lambda: notes_on(sources, MAP, joint, migratable=False))
    print(f"  reading the documents     {reading:9.1f} ms")
    print(f"  baseline, nothing cached  {cold:9.1f} ms   {cold / reading:.3f} of reading")
    print(f"  baseline, cached          {warm:9.1f} ms   {cold / warm:.1f} times faster")
    print(f"  what virsh on each says   {notes:9.1f} ms")
    if advised:
        advice = milliseconds(lambda: advice_on(sources, joint, MAP))
        print(f"  all advice                {advice:9.1f} ms")
    texts = [source.cpu.to_xml() for source in sources]
    theirs = libvirts([source.cpu for source in sources])
    if theirs:
        ours = milliseconds(lambda: [read_cpus(text) for text in texts]) + cold
        print(f"  libvirt, reading too      {theirs:9.1f} ms   ours {ours:.1f} ms: {theirs / ours:.2f} times as fast")


def main() -> None:
    """Measure both fleets."""
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for title, kinds in (("12 kinds", 12), ("all different", hosts)):
        print(f"{hosts} hosts, {title}")
        measure([document(number % kinds) for number in range(hosts)], advised=kinds < hosts)


if __name__ == "__main__":
    main()
