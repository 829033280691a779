"""The same questions to this engine and to a live libvirt; whatever they answer differently is an error of ours.

    python -m tests.cpu.differential [--cases 10000] [--seed 1] [--show 3]

prints how many questions of which kind were asked and answered, and the first differences. Status 1: there are some.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuMap,
    Hypervisor,
    IncompatibleCpus,
    Verdict,
    from_element,
    hypervisor_baseline,
    hypervisor_compare,
    plain_baseline,
    rules_of,
)
from audit.cpu.qemucaps import host_model, hypervisor
from audit.cpu.reading import parse_untrusted
from audit.cpu.rules import Version
from tests.cpu.fakehosts import FakeHost, random_hosts
from tests.cpu.oracle import NoOracle, Oracle, oracle
from tests.cpu.questions import Question, random_questions

NO_HOST_MODEL = "no host-model"
_HOST_MODEL = re.compile(r"    <mode name='host-model' supported='yes'>\n(.*?)    </mode>\n", re.DOTALL)
_NO_REPORT = "QEMU does not support reporting CPU model for hypervisor"
_WHOSE_QEMU = re.compile(r"QEMU '.*' does not support reporting CPU model for virttype '.*'")
_ADDRESS_BITS = re.compile(r"\n *<maxphysaddr [^>]*>(?=\n)")


class Engine:
    """This engine, asked as libvirt would be."""

    def __init__(self, cpu_map: CpuMap, version: Version, hosts: Sequence[FakeHost]) -> None:
        self.cpu_map, self.version, self.rules = cpu_map, version, rules_of(version)
        # What a cache says does not depend on the accelerator that it says it for.
        self._caps = [host.caps("tcg") for host in hosts]

    def answer(self, question: Question) -> str:
        """Give the printed CPU, or libvirt's word, or "error: " and its whole text."""
        try:
            return self._answer(question)
        except CpuError as error:
            return f"error: {error.words}"

    def _answer(self, question: Question) -> str:
        if question.asked == "plain":
            cpus = [from_element(parse_untrusted(cpu), "host") for cpu in question.cpus]
            return plain_baseline(cpus, self.cpu_map, rules=self.rules, **_options(question)).to_xml()
        assert question.host is not None
        caps = self._caps[question.host]
        offered = hypervisor(caps, "tcg")
        if question.asked == "models":
            return _listed(offered, self.version, self.cpu_map)
        if question.asked == "host-model":
            host = self._host_model(question.host)
            return host.to_xml() if host else NO_HOST_MODEL
        host = self._host_model(question.host) or CpuDefinition()
        if question.asked == "compare" and host.fallback != "forbid":
            return f"error: Operation not supported: {_NO_REPORT}"  # said before the CPU is read
        cpus = [from_element(parse_untrusted(cpu)) for cpu in question.cpus]
        if question.asked == "baseline":
            options = _options(question)
            return hypervisor_baseline(cpus, self.cpu_map, offered, rules=self.rules, **options).to_xml()
        compared = hypervisor_compare(host, cpus[0], self.cpu_map, offered, self.rules)
        if compared.verdict == Verdict.INCOMPATIBLE and "fail" in question.flags:
            return comparable(f"error: the CPU is incompatible with host CPU: {compared.reason}", self.version)
        return compared.verdict.value

    def _host_model(self, number: int) -> CpuDefinition | None:
        try:
            return host_model(self._caps[number], "tcg", self.cpu_map, self.rules)
        except IncompatibleCpus:
            return None


class Live:
    """The libvirt of an oracle whose fake hosts are planted."""

    def __init__(self, asked: Oracle) -> None:
        self._oracle, self._libvirt = asked, asked.libvirt
        self.version = asked.version

    def answer(self, question: Question) -> str:
        """Give the same as `Engine.answer`."""
        try:
            return self._answer(question)
        except self._libvirt.libvirtError as error:
            return f"error: {error}"

    def _answer(self, question: Question) -> str:
        connection, flags = self._oracle.connection, self._flags(question)
        if question.asked == "plain":
            return connection.baselineCPU(list(question.cpus), flags)
        assert question.host is not None
        emulator, domain_type = self._oracle.emulator(question.host), self._oracle.domain_type(question.host)
        host = (emulator, "x86_64", None, domain_type)
        if question.asked == "baseline":
            return connection.baselineHypervisorCPU(*host, list(question.cpus), flags)
        if question.asked == "compare":
            return self._word(connection.compareHypervisorCPU(*host, question.cpus[0], flags))
        shown = connection.getDomainCapabilities(*host)
        if question.asked == "models":
            return _listed(Hypervisor.from_domcapabilities(shown), self.version)
        found = _HOST_MODEL.search(shown)
        if found is None:
            return NO_HOST_MODEL
        # The address bits are those of the machine that libvirt runs on.
        printed = _ADDRESS_BITS.sub("", "\n" + found[1].replace("\n    ", "\n").removeprefix("    "))
        return f"<cpu mode='custom' match='exact'>{printed}</cpu>\n"

    def _flags(self, question: Question) -> int:
        values = {
            "expand": self._libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
            "migratable": self._libvirt.VIR_CONNECT_BASELINE_CPU_MIGRATABLE,
            "fail": self._libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
        }
        return sum(values[flag] for flag in question.flags)

    def _word(self, number: int) -> str:
        return {
            self._libvirt.VIR_CPU_COMPARE_INCOMPATIBLE: "incompatible",
            self._libvirt.VIR_CPU_COMPARE_IDENTICAL: "identical",
            self._libvirt.VIR_CPU_COMPARE_SUPERSET: "superset",
        }[number]


def comparable(answer: str, version: Version) -> str:
    """Take out of libvirt's answer what this engine knows no better, and says in libvirt 11.3's words.

    Since 10.10 the features that a host lacks may come in the order of QEMU's list of blockers, and twice. Domain
    capabilities, which are all that there is to go by, have them sorted.
    """
    answer = _WHOSE_QEMU.sub(_NO_REPORT, answer)
    head, lacking, names = answer.partition("Host CPU does not provide required features: ")
    if not lacking or version < (10, 10, 0):
        return answer
    return head + lacking + ", ".join(sorted(set(names.split(", "))))


def _options(question: Question) -> dict[str, bool]:
    return {"features": "expand" in question.flags, "migratable": "migratable" in question.flags}


def _listed(offered: Hypervisor, version: Version, cpu_map: CpuMap | None = None) -> str:
    """List models with their blockers, as far as domain capabilities tell them: of models in the map, since 10.9."""
    lines = []
    for model in offered.models:
        blockers = sorted(model.blockers) if version >= (10, 9, 0) else []
        if cpu_map is None or model.name in cpu_map:
            lines.append(" ".join([model.name, model.usable, *blockers]))
    return "\n".join(sorted(lines))


@dataclass
class Outcome:
    """How many questions were asked, and what was answered differently: question, ours, libvirt's."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[tuple[Question, str, str]] = field(default_factory=list)


def differences(asked: Oracle, seed: int, cases: int) -> Outcome:
    """Plant fake hosts and ask both sides the same `cases` questions. Raises NoOracle."""
    rng, rules = random.Random(seed), rules_of(asked.version)
    hosts = random_hosts(rng, asked.cpu_map, max(6, cases // 100))
    asked.plant(hosts)
    engine, live, outcome = Engine(asked.cpu_map, asked.version, hosts), Live(asked), Outcome()
    for question in random_questions(rng, asked.cpu_map, rules, hosts, cases):
        mine, theirs = engine.answer(question), live.answer(question)
        refused = theirs.startswith("error:") or theirs == NO_HOST_MODEL
        outcome.counts[f"{question.asked}, {'refused' if refused else 'answered'}"] += 1
        if mine != comparable(theirs, asked.version):
            outcome.differences.append((question, mine, theirs))
    return outcome


def told(difference: tuple[Question, str, str]) -> str:
    """Show a difference so that one can look for the reason."""
    question, mine, theirs = difference
    cpus = "".join(question.cpus)
    head = f"{question.asked} of fake host {question.host}, flags {sorted(question.flags)}"
    return f"{head}\n{cpus}  ours: {mine}\n  libvirt's: {theirs}"


NOT_ASKED = 77
"""Exit status where there is no libvirt that could be asked; 1: there are differences."""


def main() -> None:
    """Ask, count, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=3)
    options = parser.parse_args()
    start = time.monotonic()
    try:
        with oracle() as asked:
            outcome = differences(asked, options.seed, options.cases)
            name, accelerators = ".".join(map(str, asked.version)), " and ".join(asked.accelerators)
    except NoOracle as reason:
        print(reason, file=sys.stderr)
        sys.exit(NOT_ASKED)
    print(f"libvirt {name} ({accelerators}), seed {options.seed}: {options.cases} cases")
    for kind, count in sorted(outcome.counts.items()):
        print(f"  {kind}: {count}")
    print(f"{len(outcome.differences)} differences, {time.monotonic() - start:.0f} s")
    for difference in outcome.differences[: options.show]:
        print(told(difference))
    sys.exit(bool(outcome.differences))


if __name__ == "__main__":
    main()
