"""Some hundreds of the questions that `python -m tests.cpu.differential` asks a live libvirt by the ten thousand."""

from collections import Counter

import pytest

from tests.cpu.differential import differences, told
from tests.cpu.oracle import NoOracle, oracle


@pytest.fixture(scope="module")
def asked():
    try:
        with oracle() as live:
            yield live
    except NoOracle as reason:
        pytest.skip(str(reason))


def test_this_engine_answers_as_libvirt_does(asked):
    try:
        outcome = differences(asked, seed=20, cases=800)
    except NoOracle as reason:
        pytest.skip(str(reason))
    assert not outcome.differences, told(outcome.differences[0])
    answered = Counter({kind: count for kind, count in outcome.counts.items() if kind.endswith("answered")})
    assert len(answered) == 5
    assert answered.total() > 600
