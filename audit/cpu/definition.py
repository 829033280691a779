"""What a `<cpu>` element says: read it, hold it, print it as libvirt does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from lxml import etree

from audit.text import NotXml, parse_xml

Kind = Literal["host", "guest"]

_MODES = ("custom", "host-model", "host-passthrough", "maximum")
_MATCHES = ("minimum", "exact", "strict")
_CHECKS = ("none", "partial", "full")
_POLICIES = ("force", "require", "optional", "disable", "forbid")
_VENDOR_ID_LENGTH = 12
_ARCHITECTURES = re.compile(
    r"aarch64|alpha|armv6l|armv7[bl]|cris|i686|ia64|itanium|lm32|loongarch64|m68k|microblaze(el)?|mips(64)?(el)?"
    r"|openrisc|parisc(64)?|ppc(64)?(le)?|ppcemb|riscv(32|64)|s390x?|sh4(eb)?|sparc(64)?|unicore32|x86_64|xtensa(eb)?"
)

_NUMBER = re.compile(r"[0-9]{1,10}")
_XML_DECLARATION = re.compile(r"<[?]xml\s[^>]*[?]>")

# What virsh looks for, and a bare <mode>: step 1 of the Red Hat procedure produces one.
_CPU_PLACES = (
    "/container/cpu|/container/domain/cpu|/container/capabilities/host/cpu"
    "|/container/domainCapabilities/cpu/mode[@name='host-model' and @supported='yes']"
    "|/container/mode[@name='host-model' and not(@supported='no')]"
)


class CpuError(Exception):
    """Libvirt would refuse; the text is libvirt's own wherever it has one."""


class UnreadableInput(CpuError):
    """The input is no well-formed CPU definition, capabilities document or CPU map."""


class UnknownCpuName(CpuError):
    """A model, feature or vendor that the CPU map in use does not have."""


class IncompatibleCpus(CpuError):
    """The CPUs are readable, but have nothing in common that a guest could run on."""


@dataclass(frozen=True, slots=True)
class CpuFeature:
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


def from_element(cpu: etree._Element, kind: Kind | None = None) -> CpuDefinition:
    """Read a `<cpu>` element (libvirt 11.3 cpu_conf.c virCPUDefParseXML).

    Without `kind` a definition that names an architecture is a host's, every other a guest's, as for
    `virsh hypervisor-cpu-baseline`; `kind="host"` is what `virsh cpu-baseline` asks for.
    Raises UnreadableInput in libvirt's words.
    """
    if cpu.tag != "cpu":
        raise UnreadableInput("XML does not contain expected 'cpu' element")
    if kind is None:
        kind = "guest" if cpu.find("arch") is None else "host"
        if kind == "host" and cpu.get("match") is not None:
            raise UnreadableInput("'arch' element cannot be used inside 'cpu' element with 'match' attribute'")
    host = kind == "host"
    mode = _mode(cpu, kind)
    model = _text(cpu, "model")
    if host:
        arch = _text(cpu, "arch")
        if arch is None:
            raise UnreadableInput("Missing CPU architecture")
        if not _ARCHITECTURES.fullmatch(arch):
            raise UnreadableInput(f"Unknown architecture {arch}")
        if model is None:
            raise UnreadableInput("Missing CPU model name")
    vendor = _text(cpu, "vendor")
    if vendor and not model:
        raise UnreadableInput("CPU vendor specified without CPU model")
    named_model = not host and mode in ("custom", "host-model")
    return CpuDefinition(
        kind=kind,
        mode=mode,
        match="exact" if host else _choice(cpu, "match", _MATCHES) or "exact",
        check=None if host else _choice(cpu, "check", _CHECKS),
        migratable=None if host else _migratable(cpu, mode),
        arch=arch if host else None,
        model=model,
        fallback=_fallback(cpu) if named_model else "allow",
        vendor=vendor,
        vendor_id=_vendor_id(cpu) if named_model else None,
        microcode=_microcode(cpu) if host else None,
        signature=_signature(cpu) if host else None,
        topology=_topology(cpu),
        maxphysaddr=_maxphysaddr(cpu),
        features=_features(cpu, kind, needs_model=mode == "custom" and not model),
    )


def read_cpus(source: str | bytes, kind: Kind | None = None) -> list[CpuDefinition]:
    """Read every CPU of a file that virsh would take, in document order.

    Takes any number of `<cpu>`, `<domain>`, `<capabilities>`, `<domainCapabilities>` and
    `<mode name='host-model'>` elements one after the other; a `<mode>` counts as a guest's `<cpu>`.
    Beyond virsh, the XML declarations of files that were joined may stand anywhere.
    Raises UnreadableInput. Source: libvirt 11.3 virsh-host.c vshExtractCPUDefXMLs.
    """
    try:
        text = source.decode("utf-8-sig") if isinstance(source, bytes) else source
    except UnicodeError as error:
        raise UnreadableInput(f"the input is not UTF-8 text: {error}") from error
    root = parse_untrusted(f"<container>{_XML_DECLARATION.sub('', text)}</container>")
    places = cast(Sequence[etree._Element], root.xpath(_CPU_PLACES))
    if not places:
        raise UnreadableInput(
            "the input does not contain any <cpu> element or valid domain XML, host capabilities XML, "
            "or domain capabilities XML"
        )
    for place in places:
        if place.tag == "mode":
            place.tag = "cpu"
            place.attrib.clear()
    return [from_element(place, kind) for place in places]


def parse_untrusted(source: str | bytes) -> etree._Element:
    """Parse XML that somebody else wrote, as `parse_xml` does. Raises UnreadableInput."""
    try:
        return parse_xml(source.encode() if isinstance(source, str) else source)
    except (NotXml, UnicodeError) as error:
        raise UnreadableInput(str(error)) from error


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


def _text(cpu: etree._Element, child: str) -> str | None:
    """Text of the first such child; libvirt does not strip it, and takes an empty one as absent."""
    return cast(str, cpu.xpath(f"string(./{child}[1])")) or None


def _choice(element: etree._Element, name: str, values: Sequence[str]) -> str | None:
    value = element.get(name)
    if value is not None and value not in values:
        raise UnreadableInput(f"Invalid value for attribute '{name}' in element '{element.tag}': '{value}'.")
    return value


def _number(element: etree._Element, name: str, expected: str = "non-negative integer") -> int | None:
    value = element.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise UnreadableInput(
            f"Invalid value for attribute '{name}' in element '{element.tag}': '{value}'. Expected {expected} value"
        )
    return int(value)


def _required_number(element: etree._Element, name: str) -> int:
    value = _number(element, name)
    if value is None:
        raise UnreadableInput(f"Missing required attribute '{name}' in element '{element.tag}'")
    return value


def _mode(cpu: etree._Element, kind: Kind) -> str:
    mode = cpu.get("mode")
    if mode is None:
        return "custom"
    if kind == "host":
        raise UnreadableInput("Attribute mode is only allowed for guest CPU")
    if mode not in _MODES:
        raise UnreadableInput(f"Invalid mode attribute '{mode}'")
    return mode


def _migratable(cpu: etree._Element, mode: str) -> str | None:
    value = _choice(cpu, "migratable", ("on", "off"))
    if value and mode not in ("host-passthrough", "maximum"):
        raise UnreadableInput("Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode")
    return value


def _fallback(cpu: etree._Element) -> str:
    fallback = cast(str, cpu.xpath("string(./model[1]/@fallback)")) or "allow"
    if fallback not in ("allow", "forbid"):
        raise UnreadableInput("Invalid fallback attribute")
    return fallback


def _vendor_id(cpu: etree._Element) -> str | None:
    vendor_id = cast(str, cpu.xpath("string(./model[1]/@vendor_id)"))
    if not vendor_id:
        return None
    if len(vendor_id.encode()) != _VENDOR_ID_LENGTH:
        raise UnreadableInput(f"vendor_id must be exactly {_VENDOR_ID_LENGTH} characters long")
    if "," in vendor_id:  # QEMU's command line separates with commas
        raise UnreadableInput("vendor id is invalid")
    return vendor_id


def _microcode(cpu: etree._Element) -> int | None:
    version = cast(str, cpu.xpath("string(./microcode[1]/@version)"))
    if not version:
        return None
    if not _NUMBER.fullmatch(version):
        raise UnreadableInput("invalid microcode version")
    return int(version)


def _signature(cpu: etree._Element) -> CpuSignature | None:
    element = cpu.find("signature")
    if element is None:
        return None
    family = _required_number(element, "family")
    return CpuSignature(family, _required_number(element, "model"), _number(element, "stepping") or 0)


def _topology(cpu: etree._Element) -> Topology | None:
    element = cpu.find("topology")
    if element is None:
        return None
    sockets = _counted(element, "sockets")
    dies = 1 if element.get("dies") is None else _counted(element, "dies")
    return Topology(sockets, dies, _counted(element, "cores"), _counted(element, "threads"))


def _counted(element: etree._Element, name: str) -> int:
    number = _required_number(element, name)
    if number == 0:
        raise UnreadableInput(f"Invalid value for attribute '{name}' in element '{element.tag}': Zero is not permitted")
    return number


def _maxphysaddr(cpu: etree._Element) -> MaxPhysAddr | None:
    element = cpu.find("maxphysaddr")
    if element is None:
        return None
    mode = _choice(element, "mode", ("passthrough", "emulate"))
    if mode is None:
        raise UnreadableInput("Missing required attribute 'mode' in element 'maxphysaddr'")
    return MaxPhysAddr(mode, _number(element, "bits", "integer"), _number(element, "limit"))


def _features(cpu: etree._Element, kind: Kind, *, needs_model: bool) -> tuple[CpuFeature, ...]:
    features: dict[str, CpuFeature] = {}
    for element in cpu.findall("feature"):
        if needs_model:
            raise UnreadableInput("Non-empty feature list specified without CPU model")
        policy = element.get("policy", "require") if kind == "guest" else "require"
        if policy not in _POLICIES:
            raise UnreadableInput("Invalid CPU feature policy")
        name = element.get("name")
        if not name:
            raise UnreadableInput("Invalid CPU feature name")
        if name in features:
            raise UnreadableInput(f"CPU feature '{name}' specified more than once")
        features[name] = CpuFeature(name, policy)
    return tuple(features.values())
