"""What a `<cpu>` element says: hold it, and print it as libvirt does (`reading` reads it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

Kind = Literal["host", "guest"]


class CpuError(Exception):
    """Libvirt would refuse; the text is libvirt's own wherever it has one.

    `category` is what libvirt puts in front of it, and so does `virsh`; None: nothing.
    """

    category: str | None = "invalid argument"

    def __init__(self, message: str, category: str | None = "") -> None:
        super().__init__(message)
        if category != "":
            self.category = category

    @property
    def words(self) -> str:
        """What virsh prints behind `error: `."""
        return f"{self.category}: {self}" if self.category else str(self)

    def about(self, name: str) -> Self:
        """The same, naming the source that it is about."""
        return type(self)(f"{name}: {self}", self.category)


class UnreadableInput(CpuError):
    """The input is no well-formed CPU definition, capabilities document or CPU map."""

    category = "XML error"


class UnknownCpuName(CpuError):
    """A model, feature or vendor that the CPU map in use does not have."""

    category = "internal error"


class IncompatibleCpus(CpuError):
    """The CPUs are readable, but have nothing in common that a guest could run on."""

    category = "operation failed"


class NotComputable(CpuError):
    """libvirt has no answer either, or has it from QEMU alone: nothing is known, and nothing is guessed."""

    category = "Operation not supported"


class CpuFeature(NamedTuple):
    """One `<feature>`; a host's features have no policy and count as required."""

    name: str
    policy: str = "require"


@dataclass(frozen=True, slots=True)
class MaxPhysAddr:
    """`<maxphysaddr>`: how many physical address bits the guest sees."""

    mode: str
    bits: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """`<topology>`."""

    sockets: int
    dies: int
    cores: int
    threads: int


@dataclass(frozen=True, slots=True)
class CpuSignature:
    """Family, model and stepping, as CPUID leaf 1 reports them."""

    family: int
    model: int
    stepping: int = 0


@dataclass(frozen=True, slots=True)
class CpuDefinition:
    """A `<cpu>` element: a host's (`<arch>`, features without policy) or a guest's (mode, match, policies)."""

    kind: Kind = "guest"
    mode: str = "custom"
    match: str = "exact"
    check: str | None = None
    migratable: str | None = None
    arch: str | None = None
    model: str | None = None
    fallback: str = "allow"
    vendor: str | None = None
    vendor_id: str | None = None
    microcode: int | None = None
    signature: CpuSignature | None = None
    topology: Topology | None = None
    maxphysaddr: MaxPhysAddr | None = None
    features: tuple[CpuFeature, ...] = ()

    def named(self, *policies: str) -> frozenset[str]:
        """Names of the listed features that have one of these policies."""
        return frozenset(feature.name for feature in self.features if feature.policy in policies)

    def to_xml(self) -> str:
        """Print byte for byte what virsh prints, newline at the end.

        Source: libvirt 11.3 cpu_conf.c virCPUDefFormatBufFull.
        """
        lines = [*_model_lines(self)]
        if self.kind == "host":
            if self.arch:
                lines.insert(0, f"<arch>{_escape(self.arch)}</arch>")
            if self.microcode is not None:
                lines.append(f"<microcode version='{self.microcode}'/>")
            if self.signature:
                s = self.signature
                lines.append(f"<signature family='{s.family}' model='{s.model}' stepping='{s.stepping}'/>")
        if self.topology:
            t = self.topology
            numbers = f"sockets='{t.sockets}' dies='{t.dies}' cores='{t.cores}' threads='{t.threads}'"
            lines.append(f"<topology {numbers}/>")
        if self.maxphysaddr:
            lines.append(_maxphysaddr_line(self.maxphysaddr))
        for feature in self.features:
            policy = f" policy='{feature.policy}'" if self.kind == "guest" else ""
            lines.append(f"<feature{policy} name='{_escape(feature.name)}'/>")
        attributes = _attributes(self)
        if not lines:
            return f"<cpu{attributes}/>\n"
        return "".join((f"<cpu{attributes}>\n", *(f"  {line}\n" for line in lines), "</cpu>\n"))


def _escape(text: str) -> str:
    for raw, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&apos;")):
        text = text.replace(raw, escaped)
    return text


def _attributes(cpu: CpuDefinition) -> str:
    if cpu.kind == "host":
        return ""
    pairs = (
        ("mode", cpu.mode if cpu.model or cpu.mode != "custom" else None),
        ("match", cpu.match if cpu.model and cpu.mode == "custom" else None),
        ("check", cpu.check),
        ("migratable", cpu.migratable),
    )
    return "".join(f" {name}='{value}'" for name, value in pairs if value)


def _model_lines(cpu: CpuDefinition) -> list[str]:
    if cpu.mode not in ("custom", "host-model"):
        return []
    lines = []
    attributes = ""
    if cpu.kind == "guest" and (cpu.model or cpu.mode == "host-model"):
        attributes = f" fallback='{cpu.fallback}'"
        if cpu.vendor_id:
            attributes += f" vendor_id='{_escape(cpu.vendor_id)}'"
    if cpu.model:
        lines.append(f"<model{attributes}>{_escape(cpu.model)}</model>")
    elif attributes:
        lines.append(f"<model{attributes}/>")
    if cpu.vendor:
        lines.append(f"<vendor>{_escape(cpu.vendor)}</vendor>")
    return lines


def _maxphysaddr_line(width: MaxPhysAddr) -> str:
    bits = "" if width.bits is None else f" bits='{width.bits}'"
    limit = f" limit='{width.limit}'" if width.limit else ""
    return f"<maxphysaddr mode='{width.mode}'{bits}{limit}/>"
