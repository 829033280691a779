"""Reading `<cpu>` elements as libvirt does, out of all the documents that virsh takes."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import cast

from lxml import etree

from audit.cpu.definition import (
    CpuDefinition,
    CpuFeature,
    CpuSignature,
    Kind,
    MaxPhysAddr,
    NotComputable,
    Topology,
    UnreadableInput,
)
from audit.text import NotXml, parse_xml

X86 = frozenset({"x86_64", "i686"})

_MODES = ("custom", "host-model", "host-passthrough", "maximum")
_MATCHES = ("minimum", "exact", "strict")
_CHECKS = ("none", "partial", "full")
_POLICIES = ("force", "require", "optional", "disable", "forbid")
_VENDOR_ID_LENGTH = 12
_ARCHITECTURES = re.compile(
    r"aarch64|alpha|armv6l|armv7[bl]|cris|i686|ia64|itanium|lm32|loongarch64|m68k|microblaze(el)?|mips(64)?(el)?"
    r"|openrisc|parisc(64)?|ppc(64)?(le)?|ppcemb|riscv(32|64)|s390x?|sh4(eb)?|sparc(64)?|unicore32|x86_64|xtensa(eb)?"
)

_UNSUPPORTED = "unsupported configuration"  # libvirt's category of some refusals, which are not to be told apart
_NUMBER = re.compile(r"[0-9]{1,10}")
_XML_DECLARATION = re.compile(r"<[?]xml\s[^>]{0,200}[?]>")

# What virsh looks for, and a bare <mode>: step 1 of the Red Hat procedure produces one.
_CPU_PLACES = (
    "/container/cpu|/container/domain/cpu|/container/capabilities/host/cpu"
    "|/container/domainCapabilities/cpu/mode[@name='host-model' and @supported='yes']"
    "|/container/mode[@name='host-model' and not(@supported='no')]"
)


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
            raise UnreadableInput(f"Unknown architecture {arch}", _UNSUPPORTED)
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
    return [from_place(place, kind) for place in find_places(source, _CPU_PLACES)]


def find_places(source: str | bytes, places: str = f"{_CPU_PLACES}|/container/qemuCaps") -> list[etree._Element]:
    """The elements of a file that state a CPU, in document order; by default also a capabilities cache's.

    Raises UnreadableInput, also where there is none; NotComputable for an architecture whose libvirt has none.
    """
    try:
        text = source.decode("utf-8-sig") if isinstance(source, bytes) else source
    except UnicodeError as error:
        raise UnreadableInput(f"the input is not UTF-8 text: {error}") from error
    root = parse_untrusted(f"<container>{_XML_DECLARATION.sub('', text)}</container>")
    found = cast(list[etree._Element], root.xpath(places))
    if not found:
        foreign = {node.text or "" for node in root.iterfind("domainCapabilities/arch")} - X86
        if foreign:
            raise NotComputable(f"libvirt has no host-model for {min(foreign)} there")
        raise UnreadableInput(
            "the input does not contain any <cpu> element or valid domain XML, host capabilities XML, "
            "or domain capabilities XML",
            None,
        )
    return found


def from_place(place: etree._Element, kind: Kind | None = None) -> CpuDefinition:
    """Read a `<cpu>`, or a `<mode>` as the guest's `<cpu>` that it stands for. Raises UnreadableInput."""
    if place.tag == "mode":
        place = copy.copy(place)
        place.tag = "cpu"
        place.attrib.clear()
    return from_element(place, kind)


def parse_untrusted(source: str | bytes) -> etree._Element:
    """Parse XML that somebody else wrote, as `parse_xml` does. Raises UnreadableInput."""
    try:
        return parse_xml(source.encode() if isinstance(source, str) else source)
    except (NotXml, UnicodeError) as error:
        raise UnreadableInput(str(error)) from error


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
        raise UnreadableInput("Attribute mode is only allowed for guest CPU", _UNSUPPORTED)
    if mode not in _MODES:
        raise UnreadableInput(f"Invalid mode attribute '{mode}'", _UNSUPPORTED)
    return mode


def _migratable(cpu: etree._Element, mode: str) -> str | None:
    value = _choice(cpu, "migratable", ("on", "off"))
    if value and mode not in ("host-passthrough", "maximum"):
        words = "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode"
        raise UnreadableInput(words, _UNSUPPORTED)
    return value


def _fallback(cpu: etree._Element) -> str:
    fallback = cast(str, cpu.xpath("string(./model[1]/@fallback)")) or "allow"
    if fallback not in ("allow", "forbid"):
        raise UnreadableInput("Invalid fallback attribute", _UNSUPPORTED)
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
        raise UnreadableInput("invalid microcode version", _UNSUPPORTED)
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
    bits = _number(element, "bits", "integer")
    limit = None if element.get("limit") is None else _counted(element, "limit")
    if limit is not None and mode != "passthrough":
        words = "attribute 'limit' is only supported for maxphysaddr mode 'passthrough'"
        raise UnreadableInput(words, _UNSUPPORTED)
    return MaxPhysAddr(mode, bits, limit)


def _features(cpu: etree._Element, kind: Kind, *, needs_model: bool) -> tuple[CpuFeature, ...]:
    features: dict[str, CpuFeature] = {}
    for element in cpu.findall("feature"):
        if needs_model:
            raise UnreadableInput("Non-empty feature list specified without CPU model")
        policy = element.get("policy", "require") if kind == "guest" else "require"
        if policy not in _POLICIES:
            raise UnreadableInput("Invalid CPU feature policy", _UNSUPPORTED)
        name = element.get("name")
        if not name:
            raise UnreadableInput("Invalid CPU feature name")
        if name in features:
            raise UnreadableInput(f"CPU feature '{name}' specified more than once")
        features[name] = CpuFeature(name, policy)
    return tuple(features.values())
