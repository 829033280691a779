"""Every sample of real output is read right, refused for the right reason, or of a kind that nothing here reads.

What is expected of each stands in `corpus_expected.txt`: its salient values, looked up in the sample, or the beginning
of the reason why it is refused.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.corpus_samples import NOT_READ, READERS, load, read

EXPECTED = dict(
    line.split(" | ", 1)
    for line in (Path(__file__).parent / "corpus_expected.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
)
pytestmark = pytest.mark.corpus


@pytest.fixture
def index(corpus: Path) -> list[dict[str, Any]]:
    """What the corpus says of its samples."""
    lines = (corpus / "samples" / "index.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", EXPECTED)
def test_sample(corpus: Path, name: str) -> None:
    found = read(load(corpus / "samples" / f"{name}.txt"))
    assert found == EXPECTED[name] or (EXPECTED[name].startswith("refused: ") and found.startswith(EXPECTED[name]))


def test_no_sample_is_left_out(index: list[dict[str, Any]], record_property: Callable[[str, object], None]) -> None:
    unread = {fact for facts in NOT_READ.values() for fact in facts}
    assert not unread & READERS.keys()
    names = {Path(entry["file"]).stem: entry["fact"] for entry in index}
    assert {name for name, fact in names.items() if fact in READERS} == EXPECTED.keys()
    assert {fact for fact in names.values() if fact not in READERS} == unread
    counts = Counter(
        "not read" if name not in EXPECTED else "refused" if EXPECTED[name].startswith("refused: ") else "parsed"
        for name in names
    )
    print(dict(counts))
    record_property("samples", dict(counts))
    assert sum(counts.values()) == len(index)
