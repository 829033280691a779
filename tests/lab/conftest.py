"""The lab, started once for all of its tests."""

import os
from collections.abc import Iterator

import pytest

from tests.lab import hosts

REQUIRED = "VIRT_PREFLIGHT_LAB"
"""`required`: without a lab its tests fail. `scripts/test --lab` sets it."""


def _absent(why: str) -> None:
    (pytest.fail if os.environ.get(REQUIRED) == "required" else pytest.skip)(f"no lab here: {why}")


@pytest.fixture(scope="package")
def lab() -> Iterator[hosts.Lab]:
    """Real hosts; skipped, or failed where the lab is required, with the reason why there are none."""
    if why := hosts.missing():
        _absent(why)
    made = hosts.Lab()
    try:
        made.up()
    except hosts.LabError as error:
        made.down()
        _absent(str(error))
    try:
        yield made
    finally:
        made.down()
