"""libvirt's CPU arithmetic: definitions, the map, baseline, comparison, and what a running guest needs."""

from audit.cpu.arithmetic import as_host, decode, expand, feature_set
from audit.cpu.baselines import baseline, hypervisor_baseline, plain_baseline, who_removed
from audit.cpu.comparison import Comparison, Verdict, compare, hypervisor_compare
from audit.cpu.cpumap import CpuMap, MapModel
from audit.cpu.crosscheck import CrossCheck, cross_check
from audit.cpu.definition import (
    CpuDefinition,
    CpuError,
    CpuFeature,
    CpuSignature,
    IncompatibleCpus,
    Kind,
    MaxPhysAddr,
    Topology,
    UnknownCpuName,
    UnreadableInput,
    from_element,
    read_cpus,
)
from audit.cpu.guest import (
    NotPortable,
    NotProvable,
    Portability,
    Portable,
    missing_on,
    psabi_level,
    required_features,
)
from audit.cpu.hypervisor import Hypervisor, HypervisorModel

__all__ = [
    "Comparison",
    "CpuDefinition",
    "CpuError",
    "CpuFeature",
    "CpuMap",
    "CpuSignature",
    "CrossCheck",
    "Hypervisor",
    "HypervisorModel",
    "IncompatibleCpus",
    "Kind",
    "MapModel",
    "MaxPhysAddr",
    "NotPortable",
    "NotProvable",
    "Portability",
    "Portable",
    "Topology",
    "UnknownCpuName",
    "UnreadableInput",
    "Verdict",
    "as_host",
    "baseline",
    "compare",
    "cross_check",
    "decode",
    "expand",
    "feature_set",
    "from_element",
    "hypervisor_baseline",
    "hypervisor_compare",
    "missing_on",
    "plain_baseline",
    "psabi_level",
    "read_cpus",
    "required_features",
    "who_removed",
]
