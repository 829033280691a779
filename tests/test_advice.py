"""What the baseline of a real cluster's evidence means for its hosts and guests."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.baselines import cluster_baselines
from audit.cpu import feature_set, read_cpus
from audit.cpu.cpumap import CpuMap
from audit.evidence import Bundle, HostEvidence
from audit.explain import explained
from audit.facts.base import Facts
from audit.facts.guest_source import read_guests
from audit.guest_advice import by_weight
from audit.results import Advice, GuestCpuAdvice

SAMPLES = Path(__file__).parent.parent / "sample_data"


def edited(host: HostEvidence, probe: str, old: bytes, new: bytes) -> HostEvidence:
    """The same evidence, had the probe printed something else."""
    output = host.outputs[probe]
    assert old in output.stdout
    changed = replace(output, stdout=output.stdout.replace(old, new))
    return replace(host, outputs={**host.outputs, probe: changed})


def advice_of(hosts: dict[str, HostEvidence], vendor: str | None = None) -> Advice:
    facts = Facts(hosts, read_guests)
    [found] = [b for b in cluster_baselines("c", sorted(hosts), facts) if vendor in (None, b["vendor"])]
    assert found["advice"]
    return found["advice"]


@pytest.fixture(scope="module")
def uniform() -> dict[str, HostEvidence]:
    return Bundle.read(SAMPLES / "uniform" / "bundle").hosts


@pytest.fixture(scope="module")
def mixed() -> Advice:
    return advice_of(Bundle.read(SAMPLES / "mixed" / "bundle").hosts, "Intel")


def guest(advice: Advice, name: str) -> GuestCpuAdvice:
    return next(g for g in advice["guests"] if g["guest"] == name)


def test_one_host_that_lost_a_feature_by_software_is_named_with_what_differs(uniform):
    lesser = edited(uniform["kvm02"], "cpu.domcaps_kvm", b"<feature policy='require' name='sha-ni'/>", b"")
    lesser = edited(lesser, "versions.cmdline", b"BOOT_IMAGE", b"clearcpuid=sha_ni BOOT_IMAGE")
    advice = advice_of({**uniform, "kvm02": lesser})
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
    advice = advice_of({**uniform, "kvm02": lesser})
    away = [g for g in advice["guests"] if g["host"] != "kvm02" and "sha-ni" in g["loses"]]
    assert away
    for one in away:
        assert one["effect"] == "power cycle"
        assert one["blocked"] == {"kvm02": "lacks sha-ni"}
        assert one["apply"][-1] == f"virsh start {one['uuid']}"
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
    assert "invtsc" in guest(mixed, "clock01")["loses"]


def test_every_difference_makes_the_baseline_of_the_guest(mixed):
    for one in mixed["guests"]:
        added = "".join(line[1:] for line in one["diff"].splitlines(keepends=True) if line.startswith("+  "))
        kept = "".join(line[1:] for line in one["diff"].splitlines(keepends=True) if line.startswith("   "))
        assert "<model fallback='forbid'>Cascadelake-Server</model>" in added
        assert "name='invtsc'" not in added
        assert one["uuid"] in one["undo"][0]
        assert kept  # context, so that patch finds the place


def test_the_matrix_agrees_with_what_the_hosts_give():
    bundle = Bundle.read(SAMPLES / "mixed" / "bundle")
    facts = Facts(bundle.hosts, read_guests)
    for baseline in cluster_baselines("mixed", sorted(bundle.hosts), facts):
        advice = baseline["advice"]
        [common] = read_cpus(baseline["migratable_cpu_xml"] or baseline["cpu_xml"])
        has = feature_set(common, CpuMap.carried())
        for row in advice["matrix"]:
            assert all((name in has) is row["baseline"] for name in row["features"])
            assert not all(row["given"]) or not row["baseline"]
        assert sum(len(row["features"]) for row in advice["matrix"] if not row["baseline"]) == sum(
            len(lost["features"]) for lost in advice["lost"]
        )


def test_a_baseline_below_v2_is_warned_of(uniform):
    offers = uniform["kvm02"].outputs["cpu.domcaps_kvm"].stdout
    old = offers[offers.index(b"<mode name='host-model'") : offers.index(b"<mode name='custom'")]
    cpu = b"<model fallback='forbid'>Conroe</model><vendor>Intel</vendor>"
    new = b"<mode name='host-model' supported='yes'>" + cpu + b"</mode>"
    advice = advice_of({**uniform, "kvm02": edited(uniform["kvm02"], "cpu.domcaps_kvm", old, new)})
    assert advice["level"] == 1
    assert "x86-64-v2" in advice["warning"]


def test_a_transient_guest_has_no_definition_to_change(uniform):
    first = next(g for g in advice_of(uniform)["guests"] if g["host"] == "kvm01")
    assert first["diff"]
    uuid = first["uuid"].encode() + b"\n"
    changed = edited(uniform["kvm01"], "guest.list", b"@transient\n", b"@transient\n" + uuid)
    _, persistent = changed.outputs["guest.list"].stdout.split(b"@persistent")
    kept = persistent.partition(b"@transient")[0]
    changed = edited(changed, "guest.list", b"@persistent" + kept, b"@persistent" + kept.replace(uuid, b""))
    told = next(g for g in advice_of({**uniform, "kvm01": changed})["guests"] if g["uuid"] == first["uuid"])
    assert (told["diff"], told["apply"]) == ("", [])
    assert told["problem"].startswith("transient")


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
        "cannot move to cl01: lacks ",
        "to undo:",
    ):
        assert words in text


def test_what_matters_comes_first():
    assert by_weight(["zzz", "avx2", "abm", "aes"]) == ["aes", "avx2", "abm", "zzz"]
