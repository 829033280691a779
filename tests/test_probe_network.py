"""`--probe-network` from the option to the verdict: what was tried decides, both ways, and only when asked for."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from audit.collect import collect
from audit.evaluate import evaluate
from audit.evidence import Bundle, Evidence, Probe
from audit.facts.base import Question
from audit.facts.reach import OPTION
from audit.inventory import Inventory
from audit.judge import discover
from audit.report import render_html
from audit.results import Results
from audit.transports import Answers, FakeTransport
from scripts.sample_fleets.answers import bundle
from scripts.sample_fleets.fleets import FLEETS
from tests.test_cli import run

CHECKS = discover()


@cache
def tried() -> Bundle:
    """The uniform fleet, asked to try the network."""
    return bundle(next(fleet for fleet in FLEETS if fleet.name == "uniform"), {OPTION: ""})


def untried() -> Bundle:
    hosts = {
        name: replace(host, outputs={probe: said for probe, said in host.outputs.items() if "reach." not in probe})
        for name, host in tried().hosts.items()
    }
    return replace(tried(), hosts=hosts, active={})


def altered(run: Bundle, probe: str, alter) -> Bundle:
    hosts = {
        name: replace(host, outputs={**host.outputs, probe: alter(host.outputs[probe])})
        for name, host in run.hosts.items()
    }
    return replace(run, hosts=hosts)


def without_root(output: Evidence) -> Evidence:
    return replace(output, status=1, stdout=b"", stderr=b"netlink: Operation not permitted\n")


def judged(run: Bundle) -> Results:
    return evaluate([run], CHECKS)


def word(run: Bundle) -> str:
    return judged(run)["verdict"]["word"]


def test_what_is_proved_and_that_it_was_asked_for():
    results = judged(tried())
    assert results["verdict"]["word"] == "GO"
    assert results["run"]["active"] == [OPTION]
    assert "Active probes" in render_html(results, rendered="2026-01-01T00:00:00Z")
    counts = {check["id"]: check["counts"] for check in results["checks"] if check["id"].startswith("reach.")}
    assert len(counts) == 6
    assert all(count["pass"] == 6 for count in counts.values())


def test_without_the_option_nothing_is_tried_and_nothing_is_unknown():
    results = judged(untried())
    assert results["verdict"]["word"] == "GO"
    assert results["run"]["active"] == []
    assert "Active probes" not in render_html(results, rendered="2026-01-01T00:00:00Z")
    for check in results["checks"]:
        if check["id"].startswith("reach."):
            assert check["counts"]["skip"] == 6
            assert all(OPTION in reason for reason in check["skipped"])
    assert not any(ref["probe"].startswith("reach.") for outcome in results["outcomes"] for ref in outcome["evidence"])


def test_rules_that_nobody_could_read_are_not_needed_where_the_ways_were_tried():
    # but whether all ports of the range are open is not proved by one of them
    assert word(altered(untried(), "firewall.nft", without_root)) == "CANNOT SAY"
    assert word(altered(tried(), "firewall.nft", without_root)) == "GO WITH CONDITIONS"


@pytest.mark.parametrize("answer", [b"124 ", b"1 No route to host"])
def test_open_rules_are_no_comfort_where_nothing_gets_through(answer: bytes):
    for use in ("migration", "control"):

        def kept_off(output: Evidence, use: str = use) -> Evidence:
            wanted = {record[0].encode() for record in output.arguments if record[-1] == use}
            lines = [
                b"%s %s" % (line.split()[0], answer) if line.split()[0] in wanted else line
                for line in output.stdout.splitlines()
            ]
            return replace(output, stdout=b"\n".join(lines) + b"\n")

        results = judged(altered(tried(), "reach.ports", kept_off))
        assert results["verdict"]["word"] == "NO-GO"
        running = [guest for guest in results["guests"] if guest["active"]]
        reasons = {target["reasons"][0]["check"] for guest in running for target in guest["targets"]}
        assert reasons == {"reach.migration_port_reached" if use == "migration" else "reach.control_port_answers"}


def test_an_attempt_that_failed_for_us_is_unknown():
    assert word(altered(tried(), "reach.ports", lambda o: replace(o, status=127, stdout=b""))) == "CANNOT SAY"
    assert word(altered(tried(), "reach.ssh", lambda o: replace(o, problem="timed out"))) == "CANNOT SAY"


def test_active_questions_come_last_and_have_time_of_their_own():
    asked: list[tuple[str, float]] = []

    class Watching(FakeTransport):
        def ask(self, probes, seconds, connected) -> Answers:
            asked.extend((each.probe.name, seconds) for each in probes)
            return super().ask(probes, seconds, connected)

    slow = Question("slow", "true", ask=lambda *_: [("x",)], seconds=75, option="--slow")
    plain = Question("plain", "true", ask=lambda *_: [("x",)])
    options = {"read_guests": lambda _: [], "tool": "t", "seconds": 10, "open_transport": lambda _: Watching({})}
    inventory = Inventory.of_hosts(["a"])
    assert collect(inventory, [slow, plain], active={"--slow": ""}, **options).active == {"--slow": ""}
    assert asked == [("plain", 85), ("slow", 85)]
    asked.clear()
    assert "slow" not in collect(inventory, [slow, Probe("p", "true"), plain], **options).hosts["a"].outputs
    assert asked == [("p", 10), ("plain", 10)]


def test_it_is_told_before_it_is_done(tmp_path: Path):
    done = run("collect", OPTION, "a.invalid", "b.invalid", "-o", tmp_path / "with")
    assert done.stderr.startswith(f"{OPTION}: 2 hosts try each other, within their cluster only, 2 ways.")
    assert json.loads((tmp_path / "with/manifest.json").read_text())["active"] == {OPTION: ""}
    assert Bundle.read(tmp_path / "with").active == {OPTION: ""}
    done = run("collect", "a.invalid", "-o", tmp_path / "without")
    assert OPTION not in done.stderr
    manifest = json.loads((tmp_path / "without/manifest.json").read_text())
    assert manifest.pop("active") == {}
    (tmp_path / "without/manifest.json").write_text(json.dumps(manifest))  # as before there were such probes
    assert Bundle.read(tmp_path / "without").active == {}
