"""Bundles put together: what may be judged in one go, what may not, and that the same bytes come out."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.evaluate import EvaluationError, evaluate
from audit.evidence import Bundle
from audit.judge import discover
from audit.results import dumps

SAMPLES = Path(__file__).parent.parent / "sample_data"
CHECKS = discover()


def sample(fleet: str) -> Bundle:
    return Bundle.read(SAMPLES / fleet / "bundle")


def test_two_bundles_are_two_clusters_of_one_run():
    uniform, mellanox = sample("uniform"), sample("mellanox")
    results = evaluate([uniform, mellanox], CHECKS)
    assert {host["cluster"] for host in results["hosts"]} == {"uniform", "mellanox"}
    assert results["verdict"]["word"] == "GO WITH CONDITIONS"
    assert results["verdict"]["guests"]["total"] == 12
    assert {(p["source"] in uniform.hosts) == (p["target"] in uniform.hosts) for p in results["pairs"]} == {True}


def test_the_same_bundle_gives_the_same_bytes():
    assert dumps(evaluate([sample("mixed")], CHECKS)) == dumps(evaluate([sample("mixed")], CHECKS))


def test_a_drain_narrows_the_verdict():
    results = evaluate([sample("mixed")], CHECKS, ["sr02"])
    assert results["run"]["drain"] == ["sr02"]
    assert results["verdict"]["sentence"].startswith("Draining sr02: ")
    assert results["verdict"]["guests"]["total"] == len(
        [g for g in results["guests"] if g["host"] == "sr02" and g["active"]]
    )


def test_what_cannot_be_judged_together_is_refused():
    uniform, mixed = sample("uniform"), sample("mixed")
    with pytest.raises(EvaluationError, match="more than one bundle"):
        evaluate([uniform, uniform], CHECKS)
    with pytest.raises(EvaluationError, match="different policies"):
        evaluate([uniform, mixed], CHECKS)
    with pytest.raises(EvaluationError, match="not among the audited hosts: nobody"):
        evaluate([uniform], CHECKS, ["nobody"])
    with pytest.raises(EvaluationError, match="no evidence of kvm03"):
        evaluate([replace(uniform, hosts={n: h for n, h in uniform.hosts.items() if n != "kvm03"})], CHECKS)


def test_a_host_whose_guests_could_not_be_listed_is_not_green():
    uniform = sample("uniform")
    host = uniform.hosts["kvm02"]
    outputs = {name: output for name, output in host.outputs.items() if name != "guest.list"}
    results = evaluate([replace(uniform, hosts={**uniform.hosts, "kvm02": replace(host, outputs=outputs)})], CHECKS)
    assert results["verdict"]["word"] == "CANNOT SAY"
    assert any("guests could not be listed" in why for why in results["verdict"]["blocking"])


def test_no_lost_probe_makes_a_route_better():
    """Unknown is never green: take any one probe's evidence away, and no route of the fleet becomes freer."""
    rank = {"no": 0, "unknown": 1, "conditions": 2, "yes": 3}
    whole = sample("mixed")
    best = _routes(whole)
    for probe in sorted({name for host in whole.hosts.values() for name in host.outputs}):
        if probe.startswith("guest."):
            continue  # without these the guests themselves are not there to compare
        hosts = {
            name: replace(host, outputs={n: o for n, o in host.outputs.items() if n != probe})
            for name, host in whole.hosts.items()
        }
        for route, verdict in _routes(replace(whole, hosts=hosts)).items():
            assert rank[verdict] <= max(rank[best[route]], rank["unknown"]), (probe, route, best[route], verdict)


def _routes(bundle: Bundle) -> dict[tuple[str, str], str]:
    results = evaluate([bundle], CHECKS)
    return {(g["uuid"] + g["host"], t["host"]): t["verdict"] for g in results["guests"] for t in g["targets"]}
