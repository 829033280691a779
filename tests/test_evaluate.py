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
