import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.cpu import CpuMap
from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Said, Unavailable
from audit.facts.cpu_map import CPU_MAP, CPU_MAP_FILES, CpuMapFiles, cpu_map_files

MAP = f"sha256 {'ab' * 32}\nfeature fpu\nfeature vme\nmodel qemu64\n"


def test_cpu_map(said):
    assert CpuMapFiles.parse(said({CPU_MAP.name: MAP})) == CpuMapFiles(
        "ab" * 32, frozenset({"fpu", "vme"}), frozenset({"qemu64"})
    )
    assert CpuMapFiles.parse(said({CPU_MAP.name: "absent\n"})) == CpuMapFiles(None, None, None)
    for broken in ("", "sha256 \nfeature fpu\nmodel m", MAP.replace("feature", "f"), "sha256"):
        with pytest.raises((ValueError, LookupError, Unavailable)):
            CpuMapFiles.parse(said({CPU_MAP.name: broken}))


def test_each_map_is_fetched_once(said):
    other = MAP.replace("ab", "cd")
    hosts = {
        name: said({CPU_MAP.name: text}, name).host
        for name, text in zip("cabd", (MAP, MAP, other, "absent"), strict=True)
    }
    facts = Facts(hosts, lambda _: [])
    asks = {host: CPU_MAP_FILES.ask(facts, host, [h for h in hosts if h != host]) for host in hosts}
    assert asks == {"a": [("ab" * 32,)], "b": [("cd" * 32,)], "c": [], "d": []}


def test_map_files_by_name(said):
    text = b"== index.xml\n<cpus/>\n\n== x86_features.xml\n<cpus>\n== nonsense\n</cpus>\n"
    files = cpu_map_files(said({CPU_MAP_FILES.name: text}))
    assert files == {"index.xml": b"<cpus/>\n\n", "x86_features.xml": b"<cpus>\n== nonsense\n</cpus>\n"}
    with pytest.raises(Unavailable, match="index"):
        cpu_map_files(said({CPU_MAP_FILES.name: "== x86_vendors.xml\n"}))
    with pytest.raises(Unavailable):
        cpu_map_files(said({}))


@given(st.text(max_size=400) | st.just(MAP[:-20]))
def test_no_parser_raises_anything_else(text):
    data = text.encode("utf-8", "surrogatepass")
    said = Said(HostEvidence("h", {probe.name: Evidence(probe.name, 0, data) for probe in CpuMapFiles.probes}))
    for parse in (CpuMapFiles.parse, cpu_map_files):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            parse(said)


@pytest.mark.corpus
def test_real_map(corpus, said):
    folder = corpus / "libvirt-11.3.0" / "cpu_map"
    command = CPU_MAP.command.replace("/usr/share/libvirt/cpu_map", str(folder))
    fact = CpuMapFiles.parse(said({CPU_MAP.name: subprocess.run(["sh", "-c", command], capture_output=True).stdout}))
    command = CPU_MAP_FILES.command.replace("/usr/share/libvirt/cpu_map", str(folder))
    out = subprocess.run(["sh", "-c", command], input=b"", capture_output=True).stdout
    cpu_map = CpuMap.from_files(cpu_map_files(said({CPU_MAP_FILES.name: out})))
    assert cpu_map == CpuMap.from_folder(folder)
    assert fact.features == {feature.name for feature in cpu_map.features}
    assert fact.models == {model.name for model in cpu_map.models}
