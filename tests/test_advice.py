"""What the baseline of a real cluster's evidence means for its hosts and guests."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.cpu import feature_set, read_cpus
from audit.cpu.cpumap import CpuMap
from audit.evaluate import evaluate
from audit.evidence import Bundle, HostEvidence
from audit.explain import explained
from audit.guest_advice import by_weight
from audit.judge import discover
from audit.results import Advice, GuestCpuAdvice

SAMPLES = Path(__file__).parent.parent / "sample_data"


def edited(host: HostEvidence, probe: str, old: bytes, new: bytes) -> HostEvidence:
    """The same evidence, had the probe printed something else."""
    output = host.outputs[probe]
    assert old in output.stdout
    changed = replace(output, stdout=output.stdout.replace(old, new))
    return replace(host, outputs={**host.outputs, probe: changed})


def read(fleet: str) -> Bundle:
    return Bundle.read(SAMPLES / fleet / "bundle")


def advice_of(bundle: Bundle, hosts: dict[str, HostEvidence] | None = None, vendor: str | None = None) -> Advice:
    """The advice of a whole evaluation, where `hosts` said otherwise than in the bundle."""
    changed = replace(bundle, hosts={**bundle.hosts, **(hosts or {})})
    [found] = [b for b in evaluate([changed], CHECKS)["baselines"] if vendor in (None, b["vendor"])]
    assert found["advice"]
    return found["advice"]


UNIFORM = read("uniform")
CHECKS = discover()


@pytest.fixture(scope="module")
def uniform() -> dict[str, HostEvidence]:
    return UNIFORM.hosts


@pytest.fixture(scope="module")
def mixed() -> Advice:
    return advice_of(read("mixed"), vendor="Intel")


def guest(advice: Advice, name: str) -> GuestCpuAdvice:
    return next(g for g in advice["guests"] if g["guest"] == name)


def test_one_host_that_lost_a_feature_by_software_is_named_with_what_differs(uniform):
    lesser = edited(uniform["kvm02"], "cpu.domcaps_kvm", b"<feature policy='require' name='sha-ni'/>", b"")
    lesser = edited(lesser, "versions.cmdline", b"BOOT_IMAGE", b"clearcpuid=sha_ni BOOT_IMAGE")
    advice = advice_of(UNIFORM, {"kvm02": lesser})
    [lost] = [entry for entry in advice["lost"] if "sha-ni" in entry["features"]]
    assert lost["hosts"] == ["kvm02"]
    [why] = lost["why"]
    assert why["cause"] == "software"
    assert "the same processor as kvm01" in why["words"]
    assert "kernel arguments clearcpuid=sha_ni" in why["words"]
    assert [(out["hosts"], out["gained"]) for out in advice["left_out"]] == [(["kvm02"], ["sha-ni"])]
    two = next(split for split in advice["splits"] if len(split["groups"]) == 2)
    assert [group["hosts"] for group in two["groups"]] == [["kvm01", "kvm03"], ["kvm02"]]
    [row] = [row for row in advice["matrix"] if "sha-ni" in row["features"]]
    assert (row["given"], row["baseline"]) == ([True, False], False)


def test_guests_that_run_with_it_now_need_a_power_cycle_and_cannot_go_there(uniform):
    lesser = edited(uniform["kvm02"], "cpu.domcaps_kvm", b"<feature policy='require' name='sha-ni'/>", b"")
    advice = advice_of(UNIFORM, {"kvm02": lesser})
    away = [g for g in advice["guests"] if g["host"] != "kvm02" and "sha-ni" in g["loses"]]
    assert away
    for one in away:
        assert one["effect"] == "power cycle"
        assert set(one["blocked"]) == {"kvm02"}
        assert "lacks sha-ni" in one["blocked"]["kvm02"]
        assert "shutdown" in one["apply"][1]
    # A guest of kvm02 itself still runs with what its host gave it then.
    assert all("kvm02" not in g["blocked"] for g in advice["guests"] if g["host"] == "kvm02")


def test_guests_of_a_mixed_cluster(mixed):
    assert set(guest(mixed, "bi01")["blocked"]) == {"cl01", "cl02"}
    assert guest(mixed, "bi01")["loses"][:3] == ["sha-ni", "vaes", "amx-tile"]
    assert guest(mixed, "web01")["effect"] == "has it"
    assert guest(mixed, "web01")["blocked"] == {}
    stopped = next(g for g in mixed["guests"] if (g["guest"], g["host"]) == ("app01", "cl01"))
    assert stopped["effect"] == "next start"
    assert not any("shutdown" in line for line in stopped["apply"])
    clock = guest(mixed, "clock01")
    assert "invtsc" in clock["loses"]
    assert set(clock["blocked"]) == {"cl01", "sr01", "sr02"}  # its frequency is written down nowhere


def test_every_difference_makes_the_baseline_of_the_guest(mixed):
    for one in mixed["guests"]:
        added = "".join(line[1:] for line in one["diff"].splitlines(keepends=True) if line.startswith("+  "))
        kept = "".join(line[1:] for line in one["diff"].splitlines(keepends=True) if line.startswith("   "))
        assert "<model fallback='forbid'>Cascadelake-Server</model>" in added
        assert "name='invtsc'" not in added
        assert one["uuid"] in one["undo"][0]
        assert kept  # context, so that patch finds the place


def test_the_matrix_agrees_with_what_the_hosts_give():
    for baseline in evaluate([read("mixed")], CHECKS)["baselines"]:
        advice = baseline["advice"]
        [common] = read_cpus(baseline["migratable_cpu_xml"] or baseline["cpu_xml"])
        has = feature_set(common, CpuMap.carried())
        assert advice["features"] == len(has)
        for row in advice["matrix"]:
            assert all((name in has) is row["baseline"] for name in row["features"])
            assert not all(row["given"]) or not row["baseline"]
        assert sum(len(row["features"]) for row in advice["matrix"] if not row["baseline"]) == sum(
            len(lost["features"]) for lost in advice["lost"]
        )


def test_a_guest_that_sees_more_address_bits_than_the_baseline_has_must_be_restarted(uniform):
    small = edited(uniform["kvm02"], "cpu.cpuinfo", b"46 bits physical", b"39 bits physical")
    small = edited(small, "cpu.domcaps_kvm", b"limit='46'", b"limit='39'")
    advice = advice_of(UNIFORM, {"kvm02": small})
    for one in (g for g in advice["guests"] if g["host"] != "kvm02" and g["effect"] != "next start"):
        assert one["effect"] == "power cycle"
        assert "46 physical address bits" in one["blocked"]["kvm02"]


def test_what_could_not_be_read_is_named_and_counts_as_nothing(uniform):
    listing = replace(uniform["kvm01"].outputs["guest.list"], stdout=b"", status=1)
    silent = replace(uniform["kvm01"], outputs={**uniform["kvm01"].outputs, "guest.list": listing})
    advice = advice_of(UNIFORM, {"kvm01": silent})
    assert set(advice["unread"]) == {"kvm01"}
    assert {g["host"] for g in advice["guests"]} == {"kvm02", "kvm03"}
    assert all(split["movable"] is None for split in advice["splits"])
    assert "could not be listed" in "\n".join(explained(advice, []))


def test_hosts_without_a_word_on_their_cpus_leave_doubts_everywhere():
    partial = read("partial")
    advice = advice_of(partial)
    judged = [g for g in advice["guests"] if g["effect"] == "power cycle" or g["effect"] == "has it"]
    assert judged
    for one in judged:
        assert set(one["unproved"]) | set(one["blocked"]) == set(partial.hosts) - {one["host"]}
    elsewhere = [g for g in advice["guests"] if g not in judged]
    assert all(g["effect"] in ("unknown", "next start") and not g["diff"] for g in elsewhere)
    assert all(g["problem"] for g in elsewhere if g["effect"] == "unknown")


def test_a_baseline_below_v2_is_warned_of(uniform):
    offers = uniform["kvm02"].outputs["cpu.domcaps_kvm"].stdout
    old = offers[offers.index(b"<mode name='host-model'") : offers.index(b"<mode name='custom'")]
    cpu = b"<model fallback='forbid'>Conroe</model><vendor>Intel</vendor>"
    new = b"<mode name='host-model' supported='yes'>" + cpu + b"</mode>"
    advice = advice_of(UNIFORM, {"kvm02": edited(uniform["kvm02"], "cpu.domcaps_kvm", old, new)})
    assert advice["level"] == 1
    assert "x86-64-v2" in advice["warning"]


def test_a_transient_guest_has_no_definition_to_change(uniform):
    first = next(g for g in advice_of(UNIFORM)["guests"] if g["host"] == "kvm01")
    assert first["diff"]
    uuid = first["uuid"].encode() + b"\n"
    changed = edited(uniform["kvm01"], "guest.list", b"@transient\n", b"@transient\n" + uuid)
    _, persistent = changed.outputs["guest.list"].stdout.split(b"@persistent")
    kept = persistent.partition(b"@transient")[0]
    changed = edited(changed, "guest.list", b"@persistent" + kept, b"@persistent" + kept.replace(uuid, b""))
    told = next(g for g in advice_of(UNIFORM, {"kvm01": changed})["guests"] if g["uuid"] == first["uuid"])
    assert (told["diff"], told["apply"]) == ("", [])
    assert told["effect"] == "transient"


def test_explained_names_everything(mixed):
    text = "\n".join(explained(mixed, ["virsh on cl01 would refuse"]))
    for words in (
        "Note: virsh on cl01 would refuse",
        "cl01, cl02: Cascadelake-Server, ",
        "x86-64-v4",
        "Who costs what",
        "without cl01, cl02: SapphireRapids",
        "2 groups: ",
        "bi01 on sr01 needs a full power cycle",
        "its CPU keeps it from cl01: ",
        "to undo:",
    ):
        assert words in text


def test_what_matters_comes_first():
    assert by_weight(["zzz", "avx2", "abm", "aes"]) == ["aes", "avx2", "abm", "zzz"]
