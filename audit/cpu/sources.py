"""Where CPU definitions come from: files that virsh reads, libvirt's cache of QEMU's capabilities, audited hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from lxml import etree

from audit.cpu import qemucaps
from audit.cpu.cpumap import CpuMap
from audit.cpu.definition import CpuDefinition, CpuError, NotComputable, UnreadableInput
from audit.cpu.hypervisor import Hypervisor
from audit.cpu.reading import X86, find_places, from_place
from audit.cpu.rules import Rules, Version, rules_of
from audit.text import some_of


@dataclass(frozen=True, slots=True)
class CpuSource:
    """One CPU and what is known of the host that it stands for."""

    name: str
    """The host's name, or the file's, numbered where a file has several."""
    cpu: CpuDefinition
    hypervisor: Hypervisor | None = None
    """Its QEMU's models; None: a bare `<cpu>`, of a hypervisor that knows every model and blocks none."""
    arch: str = "x86_64"
    libvirt: Version | None = None
    """The version of its libvirt, or the oldest that prints such a document."""
    cpu_map: CpuMap | None = None
    """Its libvirt's own map, where there is evidence of it."""
    host_model: bool = False
    """`cpu` is a host-model as libvirt printed it, so that its features stand in the order of that libvirt's map."""
    doubt: str = ""
    """What the source leaves open, for whoever relies on it."""

    @property
    def rules(self) -> Rules:
        """The rules that its libvirt goes by."""
        return rules_of(self.libvirt)


def read_sources(text: str | bytes, name: str, cpu_map: CpuMap, maps: Sequence[CpuMap] = ()) -> list[CpuSource]:
    """Read every CPU of a file, in document order, each with its hypervisor where the document tells of one.

    `maps`: those at hand, the newest first; where a source shows which of them its libvirt goes by, that is noted.
    Else `cpu_map` decodes the host-models of capabilities caches. Raises CpuError, naming the file.
    """
    try:
        found = [_source(place, name, cpu_map, maps) for place in find_places(text)]
    except CpuError as error:
        raise error.about(name) from error
    if len(found) == 1:
        return found
    return [replace(source, name=f"{name}#{number}") for number, source in enumerate(found, 1)]


def find_source(sources: Sequence[CpuSource], wanted: str) -> CpuSource:
    """The one that is meant by a host's name, a file's name, or that without `.xml`; of equal ones the first.

    Raises UnreadableInput when it is none or more than one.
    """
    spellings = (lambda name: name, lambda name: PurePath(name).name, lambda name: PurePath(name).stem)
    for spelled in spellings:
        found = [source for source in sources if spelled(source.name) == wanted]
        if len({replace(source, name="") for source in found}) == 1:
            return found[0]
        if found:
            raise UnreadableInput(f"{wanted} is more than one of the sources: {_names(found)}")
    raise UnreadableInput(f"{wanted} is none of the sources: {_names(sources)}")


def fitting_map(maps: Sequence[CpuMap], sources: Sequence[CpuSource]) -> CpuMap:
    """The newest of the maps; but where the sources show that their libvirts go by older ones, the newest of those.

    libvirt lists a host-model's features in the order of its map, which later releases changed. A map that no source's
    list follows is no source's map, and what it gives is in no virsh's order. Maps that cannot read every source are
    left aside. Of equally new maps the first.
    """
    by_age = sorted(maps, key=lambda one: one.release, reverse=True)
    x86 = [source for source in sources if source.arch in X86]
    readable = [one for one in by_age if all(_reads(one, source.cpu) for source in x86)] or by_age
    evidence = [source.cpu for source in x86 if source.host_model]
    return next((one for one in readable if any(_follows(cpu, one) for cpu in evidence)), readable[0])


def named_by(hypervisor: Hypervisor, cpu_map: CpuMap) -> Hypervisor:
    """The same, whose libvirt understands the names of that map and no others."""
    return replace(hypervisor, names=frozenset(cpu_map.order))


def _reads(cpu_map: CpuMap, cpu: CpuDefinition) -> bool:
    return (not cpu.model or cpu.model in cpu_map) and all(
        feature.name in cpu_map.order for feature in cpu.features if feature.policy != "optional"
    )


def _follows(cpu: CpuDefinition, cpu_map: CpuMap) -> bool:
    places = [cpu_map.order.get(feature.name, -1) for feature in cpu.features if feature.policy == "require"]
    return -1 not in places and places == sorted(places)


def _older_map(cpu: CpuDefinition, maps: Sequence[CpuMap]) -> CpuMap | None:
    """The map whose order a host-model follows; None where that is the newest, or none of them."""
    if not maps or _follows(cpu, maps[0]):
        return None
    return next((one for one in maps[1:] if _reads(one, cpu) and _follows(cpu, one)), None)


def _names(sources: Sequence[CpuSource]) -> str:
    shown = [
        name if count == 1 else f"{name} ({count} times)" for name, count in Counter(s.name for s in sources).items()
    ]
    return some_of(shown, 12)


def _source(place: etree._Element, name: str, cpu_map: CpuMap, maps: Sequence[CpuMap]) -> CpuSource:
    if place.tag == "qemuCaps":
        return _of_cache(place, name, cpu_map, maps)
    cpu = from_place(place)
    host_model = _is_host_model(place, cpu)
    own = _older_map(cpu, maps) if host_model else None
    document = _document(place)
    if document is None:
        return CpuSource(name, cpu, arch=_arch_of(place, cpu), cpu_map=own, host_model=host_model)
    named_models = document.find("cpu/mode[@name='custom']") is not None
    offered = Hypervisor.from_domcapabilities(document) if named_models else None
    return CpuSource(
        name,
        cpu,
        named_by(offered, own) if offered and own else offered,
        document.findtext("arch") or "x86_64",
        _oldest_libvirt(document),
        own,
        host_model,
    )


def _document(place: etree._Element) -> etree._Element | None:
    """The domain capabilities that a `<mode>` stands in."""
    parent = place.getparent()
    return parent.getparent() if place.tag == "mode" and parent is not None and parent.tag == "cpu" else None


def _is_host_model(place: etree._Element, cpu: CpuDefinition) -> bool:
    """A `<mode>`, or what RHEL 9 §12.4 has made a `<cpu>` of it: no attributes, and the model cannot be replaced."""
    return place.tag == "mode" or (not place.attrib and cpu.kind == "guest" and cpu.fallback == "forbid")


def _of_cache(caps: etree._Element, name: str, cpu_map: CpuMap, maps: Sequence[CpuMap]) -> CpuSource:
    version, arch = qemucaps.libvirt_version(caps), caps.findtext("arch") or ""
    if arch not in X86 and arch != "s390x":
        raise NotComputable(f"libvirt has no host-model for {arch}, or none that is in its cache")
    accel = qemucaps.accelerator(caps)
    own = next((one for one in maps if one.release == version), None)
    cpu = qemucaps.host_model(caps, accel, own or cpu_map, rules_of(version))
    offered = qemucaps.hypervisor(caps, accel)
    says_bits = accel == "kvm" and arch in X86 and rules_of(version).baseline_has_address_bits
    return CpuSource(
        name,
        cpu,
        named_by(offered, own) if own else offered,
        arch,
        version,
        own,
        host_model=own is not None,
        doubt="the cache does not hold the host's physical address bits: virsh adds <maxphysaddr>" if says_bits else "",
    )


def _arch_of(place: etree._Element, cpu: CpuDefinition) -> str:
    """A guest's `<cpu>` names no architecture, its domain does; alone it is taken for x86, as most are."""
    domain = place.getparent()
    kind = domain.find("os/type") if domain is not None and domain.tag == "domain" else None
    return cpu.arch or (kind.get("arch", "") if kind is not None else "") or "x86_64"


def _oldest_libvirt(domcapabilities: etree._Element) -> Version | None:
    """What a document gives away of the libvirt that printed it; None: older than any that matters here, or QEMU is."""
    custom = domcapabilities.find("cpu/mode[@name='custom']")
    if custom is None:
        return None
    if custom.find("model[@canonical]") is not None:
        return (10, 10, 0)
    if custom.find("blockers") is not None:
        return (10, 9, 0)
    if domcapabilities.find("cpu/mode[@name='host-model']/maxphysaddr") is not None:
        return (9, 5, 0)
    return (8, 9, 0) if custom.find("model[@vendor]") is not None else (8, 4, 0)
