"""Real outputs of probes, and ways to damage them: what tests of "whatever a host says" are made from."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from audit.collect import probes_of
from audit.evaluate import needed_facts
from audit.evidence import Bundle, Evidence, HostEvidence, Probe
from audit.facts.base import Question
from audit.judge import discover
from tests.tried import in_vain, tried

SAMPLE_DATA = Path(__file__).resolve().parent.parent / "sample_data"
KINDS = needed_facts(discover())
PROBES: tuple[Probe, ...] = probes_of(KINDS)
STATUSES = (0, 0, 0, 0, 1, 2, 3, 4, 123, 127, 255, None)

JUNK = (
    *(b"", b"-1", b"0", b"1", b"9" * 30, b"9" * 5000, b"1e400", b"-1e-400", b"NaN", b"0x10", b"1_0", b" 7 "),
    *("²".encode(), "١٢".encode(), "\u2028".encode(), "\u202e".encode(), b"\xff\xfe", b"\x00", b"\x1b[31m", b"\x85"),
    *(b"null", b"true", b"[]", b"{}", b'"', b"'", b"<", b"&", b"</", b"=", b":", b"/", b",", b" ", b"\t", b"\n", b"\r"),
    *(b"..", b"%s", b"{0}", b"(" * 50, b"\\", b"*", b"-", b"0-4294967296", b"1.2.3.4/99", b"::/0", b"[::1]:22", b"@"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", "9" * 5000, "\x1b[31m", "\ud800"),
    *([], {}, [[]], [None], [{}], {"": None}, {"x": [1]}, [["x", 1]]),
)
_TOKEN = re.compile(rb"\"[^\"\n]*\"|'[^'\n]*'|>[^<>]*<|[0-9]+|[A-Za-z_]+|<[^<>]*>|[^\sA-Za-z0-9_]")


@lru_cache(maxsize=1)
def real_hosts() -> tuple[HostEvidence, ...]:
    """The hosts of the sample fleets that were reached, some of them asked for what active probes do."""
    read = (Bundle.read(path.parent) for path in sorted(SAMPLE_DATA.glob("*/bundle/manifest.json")))
    bundles = (*read, *(ask(fleet) for fleet in ("uniform", "mellanox") for ask in (tried, in_vain)))
    return tuple(host for bundle in bundles for host in bundle.hosts.values() if not host.problem)


def answered(host: HostEvidence) -> HostEvidence:
    """The host, with an empty answer to each probe that its bundle knows nothing of."""
    missing = {probe.name: Evidence(probe.name, status=0) for probe in PROBES if probe.name not in host.outputs}
    return HostEvidence(host.host, {**missing, **host.outputs}, "", host.privilege)


_CORPUS = {  # probes that print what a sample holds, as it stands
    "cpu.capabilities": "virsh-capabilities",
    "cpu.domcaps_kvm": "domcapabilities",
    "cpu.domcaps_qemu": "domcapabilities",
    "cpu.vulnerabilities": "cpu-vulns",
    "firewall.ip6tables": "iptables-save",
    "firewall.iptables": "iptables-save",
    "firewall.listening": "ss",
    "firewall.nft": "nft-json",
    "memory.meminfo": "meminfo",
    "network.addresses": "ip-addr-json",
    "network.links": "ip-link-json",
    "nfs.exports": "exportfs",
    "services.qemu_conf": "qemu-conf",
    "services.units": "systemctl-show",
    "storage.mountinfo": "mountinfo",
    "versions.cmdline": "proc-cmdline",
    "versions.os_release": "os-release",
    "versions.virsh": "virsh-version",
}


@cache
def corpus_texts(probe: str) -> tuple[bytes, ...]:
    """What real hosts printed, where there is a corpus and it has that."""
    folder = os.environ.get("VIRT_PREFLIGHT_CORPUS")
    if not folder or probe not in _CORPUS:
        return ()
    return tuple(path.read_bytes() for path in sorted(Path(folder, "samples").glob(f"{_CORPUS[probe]}__*")))


def _lines(data: bytes, first: float, last: float) -> tuple[list[bytes], int, int]:
    lines = data.splitlines(keepends=True)
    low, high = sorted((int(first * len(lines)), int(last * len(lines))))
    return lines, low, min(high, low + 50)


def _cut(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    return data[: int(first * len(data))]


def _behead(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    return data[int(first * len(data)) :]


def _delete(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    lines, low, high = _lines(data, first, last)
    return b"".join(lines[:low] + lines[high + 1 :])


def _double(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    lines, low, high = _lines(data, first, last)
    return b"".join(lines[: high + 1] + lines[low:])


def _swap(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        one, other = (min(int(where * len(lines)), len(lines) - 1) for where in (first, last))
        lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _insert(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    where = int(first * len(data))
    return data[:where] + junk + data[where:]


def _token(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    """One word, number or quoted value becomes another; its quotes or brackets stay, or go where `last` is high."""
    found = list(_TOKEN.finditer(data))
    if not found:
        return junk
    match = found[min(int(first * len(found)), len(found) - 1)]
    whole = match[0]
    kept = last < 0.7 and len(whole) > 1 and whole[:1] in b"\"'><"
    return data[: match.start()] + (whole[:1] + junk + whole[-1:] if kept else junk) + data[match.end() :]


def _number(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return data
    match = found[min(int(first * len(found)), len(found) - 1)]
    return data[: match.start()] + junk + data[match.end() :]


def _element(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    """An XML element goes, with all that is in it."""
    found = list(re.finditer(rb"<(\w+)(?: [^<>]*)?(?:/>|>)", data))
    if not found:
        return data
    match = found[min(int(first * len(found)), len(found) - 1)]
    end = match.end()
    if not match[0].endswith(b"/>"):
        closing = b"</" + match[1] + b">"
        end = data.find(closing, match.end())
        end = end + len(closing) if end >= 0 else match.end()
    return data[: match.start()] + data[end:]


def _attribute(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    """An attribute (or anything that looks like one) goes."""
    found = list(re.finditer(rb" [\w:-]+=(?:\"[^\"]*\"|'[^']*')", data))
    if not found:
        return data
    match = found[min(int(first * len(found)), len(found) - 1)]
    return data[: match.start()] + data[match.end() :]


def _deep(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    depth = 100_000
    nested = (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"<a>" * 300 + b"</a>" * 300)
    where = int(first * len(data))
    return data[:where] + nested[int(last * 2.99)] + data[where:]


def _json(data: bytes, first: float, last: float, junk: bytes) -> bytes:
    """One value in the document (or in each line that is one) becomes a value of another type."""
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        inner = len(lines) > 1
        return b"\n".join(
            _json(line, first, last, junk) if inner and line[:1] in (b"{", b"[") else line for line in lines
        )
    places: list[tuple[Any, Any]] = []

    def walk(container: Any) -> None:
        for key in list(container.keys() if isinstance(container, dict) else range(len(container))):
            places.append((container, key))
            if isinstance(container[key], dict | list):
                walk(container[key])

    try:
        walk(root)
    except RecursionError:
        return data
    container, key = places[min(int(first * len(places)), len(places) - 1)]
    if junk == b"" and isinstance(container, dict):
        del container[key]
    else:
        container[key] = VALUES[min(int(last * len(VALUES)), len(VALUES) - 1)]
    return json.dumps(root[0]).encode() if root else b""


Damage = Callable[[bytes, float, float, bytes], bytes]
DAMAGES: tuple[Damage, ...] = (
    *(_cut, _behead, _delete, _double, _swap, _insert, _token, _token, _token, _number, _number),
    *(_element, _attribute, _json, _json, _deep),
)

_part = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
_step = st.tuples(st.sampled_from(DAMAGES), _part, _part, st.sampled_from(JUNK))


def damaged(data: bytes, steps: Sequence[tuple[Damage, float, float, bytes]]) -> bytes:
    """`data` after all these damages."""
    for damage, first, last, junk in steps:
        data = damage(data, first, last, junk)
    return data


@st.composite
def outputs(draw: st.DrawFn, probe: Probe, real: Evidence) -> Evidence:
    """What a probe might have said: anything at all, or something like what it really said."""
    if draw(st.integers(0, 7)) == 0:
        stdout = draw(st.binary(max_size=200) | st.sampled_from(JUNK))
    else:
        texts = (real.stdout, *corpus_texts(probe.name))
        stdout = damaged(texts[draw(st.integers(0, len(texts) - 1))], draw(st.lists(_step, min_size=1, max_size=4)))
    status = draw(st.sampled_from((real.status, real.status, real.status, *STATUSES)))
    stderr = draw(st.sampled_from((real.stderr, b"", b"error: \x1b[31mno\xff\n", b"\x00\n\n")))
    arguments = real.arguments
    if isinstance(probe, Question) and draw(st.integers(0, 3)) == 0:
        arity = draw(st.sampled_from((probe.arity, probe.arity, 0, probe.arity + 1)))
        record = st.tuples(*[st.text(max_size=8)] * arity)
        arguments = tuple(draw(st.lists(record, max_size=4))) + arguments[: draw(st.integers(0, 3))]
    return Evidence(probe.name, status, stdout, stderr, 0.1, "", arguments)


class Ill:
    """A host with some answers damaged; a failed test shows only these."""

    def __init__(self, host: HostEvidence, broken: dict[str, Evidence]) -> None:
        self.host = HostEvidence(host.host, {**host.outputs, **broken}, "", host.privilege)
        self.broken = broken

    def __repr__(self) -> str:
        said = (f"{n}: {e.status} {e.stdout!r} {e.stderr!r} {e.arguments!r}" for n, e in self.broken.items())
        return f"{self.host.host}: " + "; ".join(text[:2000] for text in said)


@st.composite
def ill_hosts(draw: st.DrawFn, probes: Sequence[Probe], host: HostEvidence | None = None, most: int = 3) -> Ill:
    """A host (of the sample fleets, unless one is given) some of whose answers to these probes are damaged."""
    host = answered(host or real_hosts()[draw(st.integers(0, len(real_hosts()) - 1))])
    ill = draw(st.lists(st.integers(0, len(probes) - 1), min_size=1, max_size=most, unique=True))
    return Ill(host, {probes[n].name: draw(outputs(probes[n], host.outputs[probes[n].name])) for n in ill})


def _long_lists(data: bytes, size: int) -> Iterator[bytes]:
    """JSON, one of whose lists has its values many times."""
    try:
        root = json.loads(data)
    except ValueError:
        return
    todo = [root]
    while todo:
        value = todo.pop()
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, list) and value:
            kept = list(value)
            value *= size // len(json.dumps(value)) + 1
            yield json.dumps(root).encode()
            value[:] = kept


def swollen(data: bytes, size: int) -> Iterator[bytes]:
    """Outputs of about that many bytes, made to cost a reader as much as they can."""
    lines = data.splitlines(keepends=True) or [b"x\n"]
    yield data * (size // (len(data) + 1) + 1)
    for unit in (
        b"a",
        b" ",
        b"0",
        b"\n",
        b"[",
        b"a=",
        b"a,",
        b"1-2,",
        b": ",
        b"<a>",
        b"<a/>",
        b'{"a":',
        b"\\",
        b"(",
        b"a.b/",
    ):
        yield unit * (size // len(unit))
    yield from _long_lists(data, size)
    for match in list(re.finditer(rb"<(\w+)(?: [^<>]*)?(?:/>|>[^<>]*</\1>)", data))[::40]:  # many of one element
        yield data[: match.start()] + match[0] * (size // len(match[0])) + data[match.end() :]
    for part in range(8):  # one line many times, and one value very long, amid what is right
        at = min(part * len(lines) // 8, len(lines) - 1)
        before, line, after = b"".join(lines[:at]), lines[at], b"".join(lines[at + 1 :])
        yield before + line * (size // len(line) + 1) + after
        found = list(re.finditer(rb"[A-Za-z0-9]+|[^A-Za-z0-9\s]", line))
        for match in found[:: max(1, len(found) // 3)]:
            yield before + line[: match.start()] + match[0] * (size // len(match[0])) + line[match.end() :] + after
