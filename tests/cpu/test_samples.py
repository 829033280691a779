"""Real outputs of many systems go through the readers."""

import re
from pathlib import Path

import pytest

from audit.cpu import (
    CpuMap,
    NotComputable,
    UnreadableInput,
    Verdict,
    compare,
    compare_with,
    feature_set,
    hypervisor_baseline,
    read_cpus,
    read_sources,
)
from tests.cpu import corpus

pytestmark = [pytest.mark.corpus, corpus.needs_corpus]
MAP = CpuMap.carried()


def samples(*patterns: str) -> list:
    folder = Path(corpus.FOLDER or "/nowhere") / "samples"
    return [pytest.param(file, id=file.stem) for pattern in patterns for file in sorted(folder.glob(pattern))]


@pytest.mark.parametrize(
    "file", samples("domcapabilities__*", "virsh-capabilities__*", "cpu-baseline__*", "dumpxml__*")
)
def test_every_sample_is_read_or_refused(file: Path):
    cpus, refusal = [], ""
    try:
        cpus = read_cpus(file.read_bytes())
    except (UnreadableInput, NotComputable) as error:
        refusal = str(error)
    # Failed commands, documents without a CPU, and hosts whose CPU libvirt could not name.
    assert cpus or re.match(
        "not well-formed|the input does not contain|Missing CPU model name|libvirt has no host-model for", refusal
    )
    for cpu in cpus:
        assert read_cpus(cpu.to_xml()) == [cpu]


def host_models() -> list:
    """Yield x86 host-models of the samples that are libvirt's own reports, not somebody's shortened example."""
    return [sample for sample in samples("domcapabilities__libvirt-qemu-*x86*") if "tcg" not in sample.id]


@pytest.mark.parametrize("file", host_models())
def test_a_host_model_runs_at_home(file: Path):
    [source] = read_sources(file.read_bytes(), file.name, MAP)
    reported = source.cpu
    assert compare_with(source, reported, MAP).verdict in (Verdict.IDENTICAL, Verdict.SUPERSET)
    again = hypervisor_baseline([reported], MAP)
    assert compare(reported, again, MAP).verdict == Verdict.IDENTICAL
    assert feature_set(again, MAP) == feature_set(reported, MAP)
