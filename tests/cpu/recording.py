"""Cases that a live libvirt computed, kept in the repository: `recorded/libvirt-VERSION.json`.

scripts/record_cpu_cases.py says what such a file holds; here it is read and written.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from audit.cpu import CpuSignature
from tests.cpu.fakehosts import FakeHost, Offer
from tests.cpu.questions import Question

FOLDER = Path(__file__).parent / "recorded"
_FEATURE = re.compile(r"<feature(?: policy='([a-z]+)')? name='([^' ]+)'/>")
_FEATURES = re.compile(r"(?:  <feature(?: policy='[a-z]+')? name='[^' ]+'/>\n)+")
_SHORT = re.compile(r"  \[(.+)\]\n")


@dataclass(frozen=True)
class Recording:
    """One libvirt's answers."""

    libvirt: str
    hosts: tuple[FakeHost, ...]
    cases: tuple[tuple[Question, str], ...]


def read(file: Path) -> Recording:
    """Read a recording."""
    data = json.loads(file.read_text("utf-8"))
    cases = ((_question(case), _long(case["answer"])) for case in data["cases"])
    return Recording(data["libvirt"], tuple(map(_host, data["hosts"])), tuple(cases))


def text(recording: Recording) -> str:
    """Write a recording, a host or a case a line."""
    hosts, cases = map(_host_row, recording.hosts), (_case_row(*case) for case in recording.cases)
    return (
        f'{{\n "libvirt": {json.dumps(recording.libvirt)},\n'
        f' "hosts": [\n{_lines(hosts)}\n ],\n "cases": [\n{_lines(cases)}\n ]\n}}\n'
    )


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return ",\n".join(f"  {json.dumps(row)}" for row in rows)


def _case_row(question: Question, answer: str) -> dict[str, Any]:
    row = {
        "asked": question.asked,
        "host": question.host,
        "flags": " ".join(sorted(question.flags)),
        "cpus": [_shortened(cpu) for cpu in question.cpus],
        "answer": _shortened(answer),
    }
    return {name: value for name, value in row.items() if value not in (None, "", [])}


def _question(row: dict[str, Any]) -> Question:
    cpus = tuple(map(_long, row.get("cpus", [])))
    return Question(row["asked"], row.get("host"), cpus, frozenset(row.get("flags", "").split()))


def _shortened(printed: str) -> str:
    """Write every run of `<feature>` lines as one: `[require:aes disable:hle]`, `[aes]` where there is no policy."""

    def one(run: re.Match[str]) -> str:
        return f"  [{' '.join(':'.join(filter(None, pair)) for pair in _FEATURE.findall(run[0]))}]\n"

    return _FEATURES.sub(one, printed)


def _long(short: str) -> str:
    return _SHORT.sub(lambda run: "".join(map(_line, run[1].split(" "))), short)


def _line(word: str) -> str:
    policy, _, name = word.rpartition(":")
    attribute = f" policy='{policy}'" if policy else ""
    return f"  <feature{attribute} name='{name}'/>\n"


def _host_row(host: FakeHost) -> dict[str, Any]:
    return {
        "vendor": host.vendor,
        "signature": list(astuple(host.signature)),
        "has": " ".join(host.has),
        "lacks": " ".join(host.lacks),
        "local": " ".join(host.local),
        "migratability": host.migratability,
        "offers": [" ".join([offer.name, offer.usable, *offer.blockers]) for offer in host.offers],
    }


def _host(row: dict[str, Any]) -> FakeHost:
    offers = (_offer(*offer.split(" ")) for offer in row["offers"])
    has, lacks, local = (tuple(row[name].split()) for name in ("has", "lacks", "local"))
    signature = CpuSignature(*row["signature"])
    return FakeHost(row["vendor"], signature, has, lacks, local, row["migratability"], tuple(offers))


def _offer(name: str, usable: str, *blockers: str) -> Offer:
    return Offer(name, usable, blockers)
