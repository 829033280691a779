"""The same questions to the libvirt of this machine: its test driver computes baselines without a daemon."""

import builtins
import random
from pathlib import Path

import pytest

from audit.cpu import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuMap,
    baseline,
    cross_check,
    expand,
    hypervisor_baseline,
)

MAP = CpuMap.carried()
LOCAL_MAP = Path("/usr/share/libvirt/cpu_map")
SKYLAKE, IVYBRIDGE = (CpuDefinition(model=m, vendor="Intel") for m in ("Skylake-Client-IBRS", "IvyBridge-IBRS"))


@pytest.fixture(scope="module")
def live():
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    if not (LOCAL_MAP / "index.xml").exists():
        pytest.skip("no libvirt CPU map on this machine")
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.openReadOnly("test:///default")
        connection.baselineCPU(["<cpu><arch>x86_64</arch><model>486</model></cpu>"], 0)
    except libvirt.libvirtError as error:
        pytest.skip(f"libvirt's test driver computes no baselines here: {error}")
    yield connection
    connection.close()


def _hosts(rng: random.Random, cpu_map: CpuMap) -> list[CpuDefinition]:
    """Make one to four hosts: mostly alike, now and then a stranger."""
    vendor = rng.choice(["Intel", "AMD"])
    models = [model for model in cpu_map.models if model.vendor in (vendor, None) or rng.random() < 0.02]
    features = [feature.name for feature in cpu_map.features]
    return [
        CpuDefinition(
            kind="host",
            arch="x86_64",
            model=model.name,
            vendor=rng.choice([model.vendor, model.vendor, vendor, None]),
            features=tuple(map(CpuFeature, rng.sample(features, rng.choice([0, 2, 8, 40])))),
        )
        for model in rng.choices(models, k=rng.randint(1, 4))
    ]


def test_baselines_are_libvirts_byte_for_byte(live):
    import libvirt

    local = CpuMap.from_folder(LOCAL_MAP)
    rng = random.Random(20)
    answers = 0
    for _ in range(400):
        hosts, spelled_out = _hosts(rng, local), rng.random() < 0.5
        flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES if spelled_out else 0
        try:
            theirs = live.baselineCPU([host.to_xml() for host in hosts], flags)
            answers += 1
        except libvirt.libvirtError as error:
            theirs = str(error).partition(": ")[2]
        try:
            mine = baseline(hosts, local)
            mine = (expand(mine, local) if spelled_out else mine).to_xml()
        except CpuError as error:
            mine = str(error)
        assert mine == theirs, [host.to_xml() for host in hosts]
    assert answers > 200


def test_cross_check_agrees(live):
    check = cross_check([SKYLAKE, IVYBRIDGE], MAP)
    assert check.status == "agrees", check.detail
    assert check.libvirt_version
    assert cross_check([IVYBRIDGE, CpuDefinition(model="EPYC", vendor="AMD")], MAP).detail.startswith("both refuse")


def test_cross_check_tells_a_difference(live, tmp_path: Path):
    for file in LOCAL_MAP.glob("*.xml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = tmp_path / "x86_Westmere.xml"
    model.write_text(model.read_text().replace("<feature name='sse4.2'/>", ""))
    check = cross_check([CpuDefinition(model="Westmere", vendor="Intel")], CpuMap.from_folder(tmp_path), tmp_path)
    assert check.status == "differs"
    assert "sse4.2" in check.detail


def test_cross_check_without_map_or_library_is_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cross_check([IVYBRIDGE], MAP, tmp_path).status == "not available"
    real = builtins.__import__

    def without_libvirt(name, *rest, **more):
        if name == "libvirt":
            raise ImportError("no libvirt here")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_libvirt)
    check = cross_check([IVYBRIDGE], MAP)
    assert (check.status, check.libvirt_version) == ("not available", None)
    assert hypervisor_baseline([IVYBRIDGE], MAP).model == "IvyBridge-IBRS"
