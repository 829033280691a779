"""libvirt's CPU arithmetic: definitions, the map, baseline, comparison, and what a running guest needs."""

from audit.cpu.arithmetic import as_host, decode, expand, feature_set
from audit.cpu.baselines import baseline, hypervisor_baseline, plain_baseline
from audit.cpu.comparison import (
    Comparison,
    Remedy,
    Verdict,
    compare,
    compare_by_lists,
    compare_with,
    hypervisor_compare,
    remedy,
)
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
    NotComputable,
    Topology,
    UnknownCpuName,
    UnreadableInput,
)
from audit.cpu.guest import (
    psabi_level,
    required_features,
)
from audit.cpu.hypervisor import Hypervisor, HypervisorModel
from audit.cpu.joint import joint_baseline, lost_features, notes_on
from audit.cpu.reading import X86, from_element, read_cpus
from audit.cpu.rules import NEWEST, Rules, rules_of
from audit.cpu.sources import CpuSource, find_source, read_sources

__all__ = [
    "NEWEST",
    "X86",
    "Comparison",
    "CpuDefinition",
    "CpuError",
    "CpuFeature",
    "CpuMap",
    "CpuSignature",
    "CpuSource",
    "CrossCheck",
    "Hypervisor",
    "HypervisorModel",
    "IncompatibleCpus",
    "Kind",
    "MapModel",
    "MaxPhysAddr",
    "NotComputable",
    "Remedy",
    "Rules",
    "Topology",
    "UnknownCpuName",
    "UnreadableInput",
    "Verdict",
    "as_host",
    "baseline",
    "compare",
    "compare_by_lists",
    "compare_with",
    "cross_check",
    "decode",
    "expand",
    "feature_set",
    "find_source",
    "from_element",
    "hypervisor_baseline",
    "hypervisor_compare",
    "joint_baseline",
    "lost_features",
    "notes_on",
    "plain_baseline",
    "psabi_level",
    "read_cpus",
    "read_sources",
    "remedy",
    "required_features",
    "rules_of",
]
