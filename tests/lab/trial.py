"""One scenario tried: what virt-preflight says of it, and what libvirt then really does."""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import yaml

from audit import messages
from tests.lab import weaker
from tests.lab.commands import Done, LabError
from tests.lab.guests import MAKE_DISK
from tests.lab.hosts import Lab
from tests.lab.scenarios import Scenario

Real = Literal["moved", "harmed", "refused"]
_RUN = "import sys; from audit.cli import main; sys.exit(main())"
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Predicted:
    """What virt-preflight said: `yes`, `conditions`, `no`, `unknown`, and why, the first reason first."""

    verdict: str
    reasons: tuple[tuple[str, str], ...]
    """Check and message."""


@dataclass(frozen=True, slots=True)
class Happened:
    """What libvirt did, with its words."""

    real: Real
    status: int
    words: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario with both."""

    scenario: Scenario
    predicted: Predicted
    happened: Happened

    @property
    def miss(self) -> str:
        """What is wrong with the prediction; empty: nothing."""
        refused = self.happened.real != "moved"
        match self.predicted.verdict:
            case "unknown":
                return "unknown"
            case "no":
                return "" if refused else "false NO-GO"
            case _:
                return "false GO" if refused else ""

    @property
    def foreseen_by(self) -> tuple[str, ...]:
        """The checks that, by libvirt's words, should have been named; where none foresees them, the message itself."""
        if self.happened.real != "refused":
            return ()
        found = messages.explain(self.happened.words)
        return (found[0].checks or (found[0].message.id,)) if found else ()

    @property
    def reason_agrees(self) -> bool | None:
        """Whether the reason put first is libvirt's; None where nothing was refused, or "no" was not said."""
        if self.happened.real != "refused" or self.predicted.verdict != "no":
            return None
        return bool(self.predicted.reasons) and self.predicted.reasons[0][0] in self.foreseen_by


def attempt(lab: Lab, scenario: Scenario) -> Trial:
    """Prepare, predict, migrate: on hosts that nothing was done to before."""
    lab.boot(*scenario.hosts)
    _prepare(lab, scenario)
    predicted = predict(lab, scenario)
    return Trial(scenario, predicted, _migrate(lab, scenario))


def _at(lab: Lab, where: str, command: str) -> Done:
    return lab.desk("bash", "-c", command) if where == "desk" else lab.hosts[where](command)


def _all(lab: Lab, commands: Mapping[str, str]) -> None:
    for where, command in commands.items():
        done = _at(lab, where, f"set -e\n{MAKE_DISK}\n{command}")
        if done.status:
            raise LabError(f"{where}: {command}: exit status {done.status}: {done.words}")


def _prepare(lab: Lab, scenario: Scenario) -> None:
    guest, source = scenario.guest, lab.hosts[scenario.source]
    for host, features in scenario.lacks.items():
        lab.hosts[host].must("python3 -", stdin=weaker.program(features))
    _all(lab, scenario.before)
    if guest.disk_path:
        source.must(f"{MAKE_DISK}\nmake_disk {quote(guest.disk_path)}")
    source.must("cat >/run/guest.xml", stdin=guest.xml())
    source.must(f"virsh -q {'create' if guest.transient else 'define'} /run/guest.xml")
    if guest.start and not guest.transient:
        source.must(f"virsh -q start --domain {quote(guest.name)}")
    if guest.start:
        time.sleep(1)
    _all(lab, scenario.after)


def predict(lab: Lab, scenario: Scenario) -> Predicted:
    """Call `virt-preflight audit` at the desk as its user would, and read what it says of the guest and the target."""
    with tempfile.TemporaryDirectory() as folder:
        inventory = {"clusters": {"lab": list(scenario.hosts)}, "policy": dict(scenario.policy)}
        (Path(folder) / "inventory.yaml").write_text(yaml.safe_dump(inventory))
        words = (
            sys.executable,
            "-c",
            _RUN,
            "audit",
            "-i",
            f"{folder}/inventory.yaml",
            "-o",
            folder,
            "--no-pdf",
            *scenario.options,
        )
        done = lab.desk("env", "-C", str(CHECKOUT), *words)
        results = Path(folder) / "results.json"
        if not results.exists():
            raise LabError(f"virt-preflight audit: exit status {done.status}: {done.words}")
        return read(json.loads(results.read_text()), scenario)


def read(results: dict[str, Any], scenario: Scenario) -> Predicted:
    """What results.json says of this guest and this target, for the way that the scenario takes."""
    for guest in results["guests"]:
        if (guest["name"], guest["host"]) != (scenario.guest.name, scenario.source):
            continue
        if not guest["active"] and scenario.way != "offline":
            # The report says so: such a guest is judged for an offline migration, and no other is offered.
            return Predicted("no", (("not-running", f"{guest['state']}: judged for an offline migration only"),))
        for target in guest["targets"]:
            if target["host"] != scenario.target:
                continue
            return _of_way(target, scenario)
    unread = (("host.reached", host["problem"]) for host in results["hosts"] if host["problem"])
    return Predicted("unknown", tuple(unread))


def _of_way(target: Mapping[str, Any], scenario: Scenario) -> Predicted:
    """What is said of the scenario's way to the target. Of copying, results say which disks are to be named."""
    ways = {way["kind"]: way for way in target.get("ways", ())}
    way = ways.get(scenario.way, target)
    reasons = tuple((reason["check"], reason["message"]) for reason in way.get("reasons", ()))
    if scenario.way.startswith("copy"):
        own = [reason for reason in reasons if reason[0] == _ONLY_OWN]
        if way is target and way["verdict"] in ("yes", "conditions"):
            own = [(_ONLY_OWN, "all disks are shared, and none is offered to be copied")]
        if own and not (scenario.copied and scenario.copied <= set(way.get("disks", ()))):
            return Predicted("no", tuple(own))
    return Predicted(way["verdict"], reasons)


_ONLY_OWN = "copying.only_own"


def _migrate(lab: Lab, scenario: Scenario) -> Happened:
    before, content = _cpu(lab, scenario, scenario.source), _content(lab, scenario, scenario.source)
    counts = "!BCD" in lab.hosts[scenario.source](f"cat {quote(scenario.guest.log)}").out
    begin = time.monotonic()
    done = _at(lab, scenario.at or scenario.source, scenario.command)
    seconds = time.monotonic() - begin
    harm = "" if done.status else _harm(lab, scenario, before, content) or _stopped(lab, scenario, counts)
    real: Real = "refused" if done.status else "harmed" if harm else "moved"
    return Happened(real, done.status, harm or done.words if real != "moved" else "", seconds)


def _harm(lab: Lab, scenario: Scenario, cpu: Any, content: Mapping[str, str]) -> str:
    """What is wrong with a guest that libvirt says has moved; empty: nothing."""
    target, guest = lab.hosts[scenario.target], scenario.guest
    if scenario.way == "offline":
        return (
            ""
            if not target(f"virsh -q dominfo --domain {quote(guest.name)}").status
            else "it is not defined on the target"
        )
    state = target(f"virsh -q domstate --domain {quote(guest.name)}").out.strip()
    if state == "paused":
        return ""
    if state != "running":
        return f"its state on the target is {state or 'unknown'}"
    if lab.hosts[scenario.source](f"virsh -q domstate --domain {quote(guest.name)}").out.strip() == "running":
        return "it runs on both hosts"
    now = _cpu(lab, scenario, scenario.target) or {}
    if cpu and any(features & ~now.get(word, 0) for word, features in cpu.items()):
        return "it lost features of its CPU"
    for disk, hashed in _content(lab, scenario, scenario.target).items():
        if content.get(disk, hashed) != hashed:
            return f"{disk} has another content there"
    return ""


def _stopped(lab: Lab, scenario: Scenario, counts: bool) -> str:
    """What is wrong with what a guest prints that was seen to count on the source: `counts`; empty: nothing.

    With UEFI, or a disk of the scenario's own, it has nothing to boot.
    """
    target, guest = lab.hosts[scenario.target], scenario.guest
    if scenario.way == "offline" or not counts:
        return ""
    if target(f"virsh -q domstate --domain {quote(guest.name)}").out.strip() == "paused":
        return ""
    time.sleep(0.5)
    printed = target(f"cat {quote(guest.log)}").out
    if "!" in printed:
        return "it started anew"
    return "" if printed else "it does not run on"


def _cpu(lab: Lab, scenario: Scenario, host: str) -> Any:
    """The guest's CPUID feature words as QEMU keeps them, by register; None where it does not run."""
    monitor = f"virsh -q qemu-monitor-command --domain {quote(scenario.guest.name)} --cmd"

    def ask(**request: object) -> Any:
        done = lab.hosts[host](f"{monitor} '{json.dumps(request)}'")
        return None if done.status else json.loads(done.out)["return"]

    cpus = ask(execute="query-cpus-fast")
    asked = {"path": cpus[0]["qom-path"], "property": "feature-words"} if cpus else {}
    words = ask(execute="qom-get", arguments=asked) if cpus else None
    key = ("cpuid-input-eax", "cpuid-input-ecx", "cpuid-register")
    return words and {tuple(word.get(part) for part in key): word["features"] for word in words}


_HASH = r"""
virsh -q domblklist --details --domain GUEST | while read -r type device target path; do
    [ "$device" = disk ] || continue
    path=$(virsh -q domstats --block GUEST | sed -n "/[.]name=$target\$/,/[.]path=/s/.*[.]path=//p")
    [ ! -e "$path" ] || echo "$target $(qemu-io -U -r -c 'read -v 0 512' "$path" 2>&1 | grep '^[0-9a-f]*: ' | md5sum)"
done
"""


def _content(lab: Lab, scenario: Scenario, host: str) -> dict[str, str]:
    """By disk: what the guest's images begin with, as far as they are files."""
    done = lab.hosts[host](_HASH.replace("GUEST", quote(scenario.guest.name)))
    return {line.split()[0]: line.split()[1] for line in done.out.splitlines()}
