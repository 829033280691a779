"""What live libvirts answered, recorded by scripts/record_cpu_cases.py, is what this engine answers."""

from collections import Counter

import pytest

from audit.cpu import CpuMap
from audit.cpu.cpumap import CARRIED
from tests.cpu import recording
from tests.cpu.differential import Engine, comparable, told


@pytest.mark.parametrize("release", CARRIED)
def test_recorded_answers_are_given_again(release: str):
    recorded = recording.read(recording.FOLDER / f"libvirt-{release}.json")
    assert recorded.libvirt == release
    engine = Engine(CpuMap.carried(release), CpuMap.carried(release).release, recorded.hosts)
    for question, answer in recorded.cases:
        mine, theirs = engine.answer(question), comparable(answer, engine.version)
        assert mine == theirs, told((question, mine, theirs))
    counts = Counter(question.asked for question, _ in recorded.cases)
    assert min(counts[asked] for asked in ("plain", "baseline", "compare")) > 15
    assert counts["host-model"] == len(recorded.hosts)


@pytest.mark.parametrize("release", CARRIED)
def test_a_recording_is_written_as_it_was_read(release: str):
    file = recording.FOLDER / f"libvirt-{release}.json"
    assert recording.text(recording.read(file)) == file.read_text("utf-8")
