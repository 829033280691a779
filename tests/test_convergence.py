"""The arithmetic of pre-copy, and what is advised."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.convergence import (
    GBIT,
    MIB,
    MOST_DOWNTIME_MS,
    TIB,
    Load,
    channels,
    diagnose,
    downtime_needed,
    duration,
    rate,
    remaining_seconds,
    size,
)

# RHEL 9 §12.9.1: 17225 pages/s of 4096 bytes against 29.056 MiB/s; 34.383 MiB left of 10.586 TiB.
STALLED = Load(17225 * 4096, int(29.056 * MIB), int(34.383 * MIB), int(10.586 * TIB))


def test_the_example_of_the_document():
    found = diagnose(STALLED, "vm-name")
    assert found.word == "does not converge"
    assert found.because == "the guest changes 67.3 MiB/s of its memory, the network carries 29.1 MiB/s"
    assert found.seconds is None
    assert found.downtime_ms == 1800  # 34.383 / 29.056 = 1.18 s, and half as much again
    commands = "\n".join(fix.command for fix in found.fixes)
    for command in (
        "virsh migrate-setmaxdowntime vm-name 1800",
        "virsh migrate-setspeed vm-name 135",
        "virsh migrate-postcopy vm-name",
        "virsh suspend vm-name",
    ):
        assert command in commands
    assert "--parallel" not in commands, "1.1 Gbit/s need no second connection"
    assert "below 14.5 MiB/s" in found.fixes[0].what
    assert "25 Gbit/s" in found.notes[0]
    assert "6 TB" in found.notes[1]


def test_with_more_downtime_it_ends():
    assert diagnose(STALLED._replace(downtime_ms=1800)).word == "close"


def test_no_more_downtime_is_advised_than_is_allowed_already():
    commands = [fix.command for fix in diagnose(STALLED._replace(downtime_ms=1800)).fixes]
    assert commands
    assert not [command for command in commands if "setmaxdowntime" in command]


def test_words():
    def word(dirty, bandwidth, remaining=1024 * MIB):
        return diagnose(Load(dirty, bandwidth, remaining)).word

    assert word(10, 100 * MIB) == "converges"
    assert word(60 * MIB, 100 * MIB) == "close"
    assert word(100 * MIB, 100 * MIB) == "does not converge"
    assert word(None, 100 * MIB) == "cannot say"
    assert word(10, None) == "cannot say"
    assert word(10, 0) == "cannot say"
    assert diagnose(Load(10 * MIB, 15 * MIB, None)).seconds is None
    assert diagnose(Load(10 * MIB, 15 * MIB, None), factor=1).word == "converges"


def test_fast_guests_get_several_connections():
    found = diagnose(Load(12 * GBIT, 10 * GBIT, TIB), "g")
    assert "--parallel-connections 3" in "\n".join(fix.command for fix in found.fixes)
    assert "setmaxdowntime g 1319500" in "\n".join(fix.command for fix in found.fixes)


def test_no_more_downtime_than_qemu_takes():
    found = diagnose(Load(12 * MIB, 10 * MIB, TIB), "g")
    assert "setmaxdowntime" not in "\n".join(fix.command for fix in found.fixes)
    assert found.downtime_ms > MOST_DOWNTIME_MS


def test_no_postcopy_with_an_assigned_device():
    commands = "\n".join(fix.command for fix in diagnose(STALLED, postcopy=False).fixes)
    assert "postcopy" not in commands
    assert "virsh suspend" in commands


def test_before_it_starts():
    found = diagnose(Load(200 * MIB, 100 * MIB, 4096 * MIB, 4096 * MIB, under_way=False), "g")
    commands = "\n".join(fix.command for fix in found.fixes)
    assert "setmaxdowntime" not in commands
    assert "setspeed" not in commands
    assert "virsh migrate --live --postcopy g" in commands
    assert "stands still for 41 s" in found.fixes[-1].what


def test_remaining_seconds():
    assert remaining_seconds(300 * MIB, 0, 100 * MIB) == pytest.approx(3)
    assert remaining_seconds(10 * MIB, 500 * MIB, 100 * MIB) == pytest.approx(0.1)  # fits into the downtime
    halves = 10 + 5 + 2.5 + 1.25 + 0.625 + 0.3125 + 0.15625
    assert remaining_seconds(1000 * MIB, 50 * MIB, 100 * MIB) == pytest.approx(halves)
    assert remaining_seconds(1000 * MIB, 100 * MIB, 100 * MIB) is None
    assert remaining_seconds(1, 0, 0) is None


@given(st.integers(1, 2**44), st.integers(0, 2**36), st.integers(1, 2**36), st.integers(1, 10_000))
def test_never_shorter_than_one_copy_nor_longer_than_the_whole_series(remaining, dirty, bandwidth, downtime):
    seconds = remaining_seconds(remaining, dirty, bandwidth, downtime)
    if seconds is None:
        assert dirty >= bandwidth
    else:
        assert math.isfinite(seconds)
        assert seconds >= remaining / bandwidth * 0.999
        if dirty < bandwidth:
            assert seconds <= remaining / (bandwidth - dirty) * 1.001 or remaining <= bandwidth * downtime / 1000


@given(st.integers(0, 2**50), st.integers(0, 2**40), st.integers(0, 2**40))
def test_any_numbers_have_a_diagnosis(remaining, dirty, bandwidth):
    for under_way in (True, False):
        found = diagnose(Load(dirty, bandwidth, remaining, remaining, under_way=under_way))
        assert found.because
        assert bool(found.fixes) == (found.word in {"close", "does not converge"})


def test_units():
    assert (size(512), size(36053189), size(10.5 * TIB)) == ("512 B", "34.4 MiB", "10.5 TiB")
    assert (rate(70 * MIB), rate(1250 * GBIT / 1000)) == ("70.0 MiB/s", "149.0 MiB/s (1.2 Gbit/s)")
    assert (duration(0.44), duration(41), duration(700), duration(9000)) == ("0.4 s", "41 s", "12 min", "2.5 h")
    assert [channels(n * GBIT) for n in (1, 10, 25, 100)] == [2, 2, 3, 10]
    assert downtime_needed(1, 10**9) == 100
