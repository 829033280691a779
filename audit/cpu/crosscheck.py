"""Ask a libvirt on this machine the same question, and see whether it gives the same answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audit.cpu.arithmetic import decode, feature_set
from audit.cpu.baselines import never_in_qemu, plain_baseline
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError
from audit.cpu.reading import read_cpus

# The test driver computes with the library's own code, and needs no daemon.
_CONNECTIONS = ("qemu:///system", "test:///default")
_LOCAL_MAP = Path("/usr/share/libvirt/cpu_map")


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Outcome; `detail` says what was compared, what differs, or why nothing could be."""

    status: Literal["agrees", "differs", "not available"]
    libvirt_version: str | None
    detail: str


def cross_check(cpus: Sequence[CpuDefinition], cpu_map: CpuMap, local_map_folder: Path = _LOCAL_MAP) -> CrossCheck:
    """Compare this engine's baseline with a local libvirt's, both by that libvirt's CPU map. Never raises.

    The CPUs (of `cpu_map`) go to libvirt as hosts' definitions of the same features, whose baseline depends on no
    host (virConnectBaselineCPU). Features that the local map does not know stay out of the comparison.
    """
    try:
        import libvirt
    except ImportError as error:
        return CrossCheck("not available", None, f"libvirt-python cannot be used: {error}")
    libvirt.registerErrorHandler(lambda *_: None, None)  # else libvirt prints to stderr what it also raises
    try:
        local = CpuMap.from_folder(local_map_folder)
        hosts = [_as_local_host(cpu, cpu_map, local) for cpu in cpus]
        connection = _connect(libvirt)
        version = _version_text(connection.getLibVersion())
    except (CpuError, libvirt.libvirtError) as error:
        return CrossCheck("not available", None, str(error))
    documents = [host.to_xml() for host in hosts]
    spelled_out = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    theirs = _answer(lambda: connection.baselineCPU(documents, spelled_out), libvirt.libvirtError)
    mine = _answer(lambda: plain_baseline(hosts, local, features=True).to_xml(), CpuError)
    connection.close()
    return _judge(mine, theirs, version, len(hosts))


@dataclass(frozen=True, slots=True)
class _Answer:
    """A baseline, or the refusal to give one."""

    model: str | None = None
    features: frozenset[str] = frozenset()
    refusal: str | None = None


def _connect(libvirt: Any) -> Any:
    """Open the first connection that works; raises libvirtError when none does."""
    *others, last = _CONNECTIONS
    for uri in others:
        try:
            return libvirt.openReadOnly(uri)
        except libvirt.libvirtError:
            continue
    return libvirt.openReadOnly(last)


def _version_text(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _as_local_host(cpu: CpuDefinition, cpu_map: CpuMap, local: CpuMap) -> CpuDefinition:
    known = feature_set(cpu, cpu_map) & local.order.keys()
    return decode(known, local, kind="host", vendor=cpu.vendor)


def _answer(ask: Callable[[], str], refused: type[Exception]) -> _Answer:
    try:
        [cpu] = read_cpus(ask())
    except refused as error:
        return _Answer(refusal=str(error))
    # The test driver keeps features that QEMU's driver, and this engine, leave out.
    return _Answer(cpu.model, cpu.named("require") - never_in_qemu())


def _judge(mine: _Answer, theirs: _Answer, version: str, count: int) -> CrossCheck:
    if mine.refusal and theirs.refusal:
        return CrossCheck("agrees", version, f"both refuse: {theirs.refusal}")
    if mine == theirs:
        size = len(mine.features)
        return CrossCheck("agrees", version, f"{count} CPUs: {mine.model}, {size} features")
    if mine.refusal or theirs.refusal:
        refusal = f"we refuse: {mine.refusal}" if mine.refusal else f"libvirt refuses: {theirs.refusal}"
        return CrossCheck("differs", version, refusal)
    only_mine, only_theirs = sorted(mine.features - theirs.features), sorted(theirs.features - mine.features)
    return CrossCheck(
        "differs",
        version,
        f"ours: {mine.model}, libvirt's: {theirs.model}; "
        f"only ours: {', '.join(only_mine) or 'none'}; only libvirt's: {', '.join(only_theirs) or 'none'}",
    )
