"""The sample fleets: results as committed, the verdicts and reasons that an engineer would expect, made anew alike."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from audit.evaluate import evaluate
from audit.evidence import Bundle
from audit.inventory import Inventory
from audit.judge import discover
from audit.results import dumps, load
from scripts.make_sample_data import write

SAMPLES = Path(__file__).resolve().parent.parent / "sample_data"
WORDS = {"uniform": "GO", "mixed": "NO-GO", "partial": "CANNOT SAY", "mellanox": "GO WITH CONDITIONS"}
GARBAGE = {"partial/bundle/hosts/pa04/cpu.domcaps_kvm.out", "partial/bundle/hosts/pa04/versions.os_release.out"}
MEBIBYTE = 1024 * 1024

_VENDOR = "cpu.guest_same_vendor"
_TLS = "tls.certificates"  # cl01's certificate has expired: that is as far as anybody gets

# For each guest and target what libvirt and QEMU would do: let it go, or the first thing that stops it.
MIXED = {
    "web01 cl01": {"cl02": "yes", "sr01": "yes", "sr02": "yes", "ep01": _VENDOR, "ep02": _VENDOR},
    # the target's libvirt looks for the image in the drive
    "install01 cl01": {
        "cl02": "storage.disks_reachable",
        "sr01": "storage.disks_reachable",
        "sr02": "storage.disks_reachable",
        "ep01": _VENDOR,
        "ep02": _VENDOR,
    },
    # the source's libvirt refuses before it asks any target
    "render01 cl01": dict.fromkeys(("cl02", "sr01", "sr02", "ep01", "ep02"), "devices.no_passthrough"),
    "build01 cl01": dict.fromkeys(("cl02", "sr01", "sr02", "ep01", "ep02"), "storage.disks_shared"),
    # pinned to CPUs that exist everywhere, but in another node on sr
    "rt01 cl01": {
        "cl02": "yes",
        "sr01": "conditions: memory.topology_similar",
        "sr02": "conditions: memory.topology_similar",
        "ep01": _VENDOR,
        "ep02": _VENDOR,
    },
    # shut off: only its configuration moves
    "app01 cl01": {"cl02": "yes", "sr01": "yes", "sr02": "guest.name_free", "ep01": "yes", "ep02": "yes"},
    "huge01 cl02": {"cl01": _TLS, "sr01": "memory.hugepages_fit", "sr02": "yes", "ep01": _VENDOR, "ep02": _VENDOR},
    "clock01 cl02": {
        "cl01": _TLS,
        **dict.fromkeys(("sr01", "sr02", "ep01", "ep02"), "cpu.invtsc_has_frequency"),
    },
    "win11 cl02": {"cl01": _TLS, "sr01": "yes", "sr02": "yes", "ep01": _VENDOR, "ep02": _VENDOR},
    "db01 cl02": {"cl01": _TLS, "sr01": "yes", "sr02": "storage.disks_reachable", "ep01": _VENDOR, "ep02": _VENDOR},
    "hana01 sr01": {
        "cl01": _TLS,
        "cl02": "machines.machine_offered",
        "sr02": "memory.fits",
        "ep01": _VENDOR,
        "ep02": _VENDOR,
    },
    "bi01 sr01": {
        "cl01": _TLS,
        "cl02": "machines.machine_offered",
        "sr02": "yes",
        "ep01": _VENDOR,
        "ep02": _VENDOR,
    },
    "new01 sr01": {
        "cl01": _TLS,
        "cl02": "machines.machine_offered",
        "sr02": "yes",
        "ep01": _VENDOR,
        "ep02": _VENDOR,
    },
    "app01 sr02": {"cl01": _TLS, "cl02": "yes", "sr01": "yes", "ep01": _VENDOR, "ep02": _VENDOR},
    "backup01 sr02": {"cl01": _TLS, **dict.fromkeys(("cl02", "sr01", "ep01", "ep02"), "guest.no_block_job")},
    # the same processor, microcode, kernel and QEMU: proof enough
    "calc01 ep01": {"cl01": _TLS, "cl02": _VENDOR, "sr01": _VENDOR, "sr02": _VENDOR, "ep02": "yes"},
    "test01 ep01": {"cl01": _TLS, **dict.fromkeys(("cl02", "sr01", "sr02", "ep02"), "guest.no_snapshots")},
    "dmz01 ep01": {
        "cl01": _TLS,
        "cl02": _VENDOR,
        "sr01": _VENDOR,
        "sr02": _VENDOR,
        "ep02": "network.sources_present",
    },
    "share01 ep02": {"cl01": _TLS, **dict.fromkeys(("cl02", "sr01", "sr02", "ep01"), "devices.no_virtiofs")},
    # a session guest on ep02 would be left behind: somebody has to know
    "idle01 ep02": {
        "cl01": _TLS,
        "cl02": _VENDOR,
        "sr01": _VENDOR,
        "sr02": _VENDOR,
        "ep01": "conditions: sessions.no_session_guests",
    },
}
# What else must be among a target's reasons, though something comes before it.
MIXED_TOO = {
    ("bi01 sr01", "cl02", "cpu.guest_cpu_fits"),
    ("hana01 sr01", "cl02", "memory.fits"),
    ("huge01 cl02", "cl01", "memory.hugepages_fit"),
    ("app01 sr02", "cl01", "guest.name_free"),
    ("dmz01 ep01", "cl02", "network.sources_present"),
    ("build01 cl01", "cl02", "storage.disks_reachable"),
    ("render01 cl01", "ep01", _VENDOR),
    ("calc01 ep01", "sr01", "cpu.passthrough_provable"),
}
MELLANOX = {
    "nfv01 mx01": {
        "mx02": "conditions: vf.technology_preview",
        "mx03": "vf.firmware",
        "mx04": "vf.migration_mode",
    },
    "nfv02 mx02": {
        "mx01": "conditions: vf.technology_preview",
        "mx03": "vf.firmware",
        "mx04": "vf.migration_mode",
    },
    "web11 mx01": {"mx02": "yes", "mx03": "yes", "mx04": "yes"},
    "web12 mx02": {"mx01": "yes", "mx03": "yes", "mx04": "yes"},
    "web13 mx03": {"mx01": "yes", "mx02": "yes", "mx04": "yes"},
    "web14 mx04": {"mx01": "yes", "mx02": "yes", "mx03": "yes"},
}


def _results(fleet: str) -> Any:
    return load(SAMPLES / fleet / "results.json")


def _first(target: Any) -> str:
    """`yes`, the check that stops it, or `conditions: ` and the first one."""
    if target["verdict"] == "yes":
        return "yes"
    first = target["reasons"][0]["check"]
    return str(first) if target["verdict"] == "no" else f"{target['verdict']}: {first}"


def _routes(fleet: str) -> dict[str, dict[str, str]]:
    return {
        f"{guest['name']} {guest['host']}": {target["host"]: _first(target) for target in guest["targets"]}
        for guest in _results(fleet)["guests"]
    }


@pytest.mark.parametrize("fleet", WORDS)
def test_results_follow_from_the_bundle(fleet: str) -> None:
    results = evaluate([Bundle.read(SAMPLES / fleet / "bundle")], discover())
    assert dumps(results) == (SAMPLES / fleet / "results.json").read_text("utf-8")


@pytest.mark.parametrize(("fleet", "word"), WORDS.items())
def test_verdict(fleet: str, word: str) -> None:
    assert _results(fleet)["verdict"]["word"] == word


@pytest.mark.parametrize("fleet", WORDS)
def test_no_check_fails_of_itself(fleet: str) -> None:
    assert [o for o in _results(fleet)["outcomes"] if o["status"] == "error"] == []


@pytest.mark.parametrize("fleet", WORDS)
def test_inventory_is_the_one_that_was_collected(fleet: str) -> None:
    read = Inventory.read(SAMPLES / fleet / "inventory.yaml")
    assert read.to_json() == Bundle.read(SAMPLES / fleet / "bundle").inventory


def test_uniform_every_guest_can_go_everywhere() -> None:
    assert all(set(targets.values()) == {"yes"} for targets in _routes("uniform").values())
    assert _results("uniform")["verdict"]["guests"]["two_or_more"] == 6


@pytest.mark.parametrize("fleet", ["uniform", "mixed", "mellanox"])
def test_nothing_is_unknown_where_everything_was_read(fleet: str) -> None:
    assert [o for o in _results(fleet)["outcomes"] if o["status"] == "unknown"] == []


def test_mixed_guests_have_the_targets_and_reasons_expected() -> None:
    assert _routes("mixed") == MIXED


def test_mixed_further_reasons() -> None:
    found = {
        (f"{guest['name']} {guest['host']}", target["host"], reason["check"])
        for guest in _results("mixed")["guests"]
        for target in guest["targets"]
        for reason in target["reasons"]
    }
    assert MIXED_TOO - found == set()


def test_mixed_names_every_guest_without_a_target() -> None:
    verdict = _results("mixed")["verdict"]
    stuck = {
        name.split()[0]
        for name, targets in MIXED.items()
        if not any(way == "yes" or way.startswith("conditions") for way in targets.values())
    }
    assert {why.split()[0] for why in verdict["blocking"]} == stuck
    assert verdict["guests"] == {"two_or_more": 4, "one": 6, "none": 9, "unknown": 0, "total": 19}


def test_partial_tells_why_each_host_leaves_it_open() -> None:
    results = _results("partial")
    problems = {host["name"]: (host["problem"], host["privilege"]) for host in results["hosts"]}
    assert problems == {
        "pa01": ("", "sudo"),
        "pa02": ("ssh: connection refused by pa02 port 22", ""),
        "pa03": ("", "user: sudo: a password is required"),
        "pa04": ("", "sudo"),
    }
    assert not [o for o in results["outcomes"] if o["status"] == "fail" and o["blocks"] == "migration"]
    # Nothing that pa04 printed must pass for knowledge: no guest is sent there or proved to come from there.
    routes = _routes("partial")
    assert all(way.startswith("unknown") for name in routes for target, way in routes[name].items() if target == "pa04")
    assert all(way.startswith("unknown") for way in routes["jobs01 pa04"].values())


def test_mellanox_only_the_guests_with_a_vf_are_held() -> None:
    assert _routes("mellanox") == MELLANOX


def test_made_anew_alike(tmp_path: Path) -> None:
    write(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(SAMPLES): path.read_bytes() for path in SAMPLES.glob("*/**/*") if path.is_file()}
    assert sorted(made) == sorted(kept)
    assert [str(path) for path in made if made[path] != kept[path]] == []


def test_evidence_is_text_and_small() -> None:
    files = [path for path in SAMPLES.rglob("*") if path.is_file()]
    unreadable = {str(path.relative_to(SAMPLES)) for path in files if not _is_text(path.read_bytes())}
    assert unreadable == GARBAGE
    assert sum(path.stat().st_size for path in files) < 7 * MEBIBYTE


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(char in "\n\t" or unicodedata.category(char) != "Cc" for char in text)
