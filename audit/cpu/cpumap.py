"""libvirt's CPU map: which features exist, and which of them each named model has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from lxml import etree

from audit.cpu.definition import CpuSignature, UnknownCpuName, UnreadableInput
from audit.cpu.reading import parse_untrusted
from audit.cpu.rules import Version

CARRIED = ("11.3.0", "9.0.0")
"""The libvirt releases whose maps come with this package, the newest first."""
_LOCAL = Path("/usr/share/libvirt/cpu_map")
_LIBRARY = re.compile(r"libvirt\.so\.0\.(\d+)\.(\d+)")  # 0.11003.0 is libvirt 11.3.0
_LIBRARIES = (Path("/usr/lib64"), *Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib"))
_LAST_STEPPING = 15
_ARCH_CAPABILITIES = 0x10A
_REGISTERS = ("eax", "ebx", "ecx", "edx")


class Bit(NamedTuple):
    """Where the processor reports a feature: a register bit of a CPUID leaf, or of an MSR (`leaf` = its index)."""

    source: str
    leaf: int
    subleaf: int
    register: str
    number: int


@dataclass(frozen=True, slots=True)
class MapFeature:
    """A feature that the map knows."""

    name: str
    bit: Bit
    migratable: bool = True


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A processor that a model was made for; no steppings = any."""

    family: int
    model: int
    steppings: frozenset[int] = frozenset()

    def matches(self, cpu: CpuSignature) -> bool:
        """Whether a processor with this signature is meant."""
        return (self.family, self.model) == (cpu.family, cpu.model) and (
            not self.steppings or cpu.stepping in self.steppings
        )


@dataclass(frozen=True, slots=True)
class MapModel:
    """A named model, its ancestor's part already worked in.

    `removed`: features it had once; a guest's definition names them as disabled (in file order).
    `added`: features it got later; older guests may lack them. `canonical`: the versioned name of the same model.
    """

    name: str
    decode_host: bool
    decode_guest: bool
    features: frozenset[str]
    vendor: str | None = None
    signatures: tuple[ModelSignature, ...] = ()
    removed: tuple[str, ...] = ()
    added: frozenset[str] = frozenset()
    compat_check: bool = False
    ancestor: str | None = None
    canonical: str | None = None


@dataclass(frozen=True)
class CpuMap:
    """Vendors (name, CPUID string), features and models in load order: both orders decide answers.

    Every feature is one bit of its own, so that sets of names behave as libvirt's CPUID data; a map that
    breaks this is refused.
    """

    vendors: tuple[tuple[str, str], ...]
    features: tuple[MapFeature, ...]
    models: tuple[MapModel, ...]
    version: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if len(self.order) != len(self.features):
            raise UnreadableInput("a CPU feature of this map is defined twice")
        if len({feature.bit for feature in self.features}) != len(self.features):
            raise UnreadableInput("two CPU features of this map share a bit")
        unknown = frozenset[str]().union(*(model.features for model in self.models)) - self.order.keys()
        if unknown:
            raise UnreadableInput(f"Unknown CPU feature {min(unknown)}")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # a map is part of many memoised questions
        return hash((self.vendors, self.features, self.models))

    @cached_property
    def order(self) -> dict[str, int]:
        """Feature name → place in load order."""
        return {feature.name: place for place, feature in enumerate(self.features)}

    @cached_property
    def arch_capabilities(self) -> frozenset[str]:
        """What IA32_ARCH_CAPABILITIES says, and the bit that says there is such a register."""
        in_register = {f.name for f in self.features if (f.bit.source, f.bit.leaf) == ("msr", _ARCH_CAPABILITIES)}
        return frozenset(in_register | {"arch-capabilities"})

    @cached_property
    def _models(self) -> dict[str, MapModel]:
        return {model.name: model for model in self.models}

    def __contains__(self, model: str) -> bool:
        return model in self._models

    def model(self, name: str) -> MapModel:
        """Look up a model; raises UnknownCpuName."""
        try:
            return self._models[name]
        except KeyError:
            raise UnknownCpuName(f"Unknown CPU model {name}") from None

    def require_feature(self, name: str) -> str:
        """Return the name if the map knows this feature; raises UnknownCpuName."""
        if name not in self.order:
            raise UnknownCpuName(f"Unknown CPU feature {name}")
        return name

    def require_vendor(self, name: str) -> str:
        """Return the name if the map knows this vendor; raises UnknownCpuName."""
        if name not in dict(self.vendors):
            raise UnknownCpuName(f"Unknown CPU vendor {name}", "operation failed")
        return name

    def sorted(self, names: Iterable[str]) -> list[str]:
        """Put feature names into load order, as libvirt lists them."""
        return sorted(names, key=self.order.__getitem__)

    @classmethod
    def from_files(cls, contents: Mapping[str, bytes], version: str = "") -> CpuMap:
        """Read a cpu_map folder given as file name → content (libvirt 11.3 cpu_map.c, cpu_x86.c).

        Raises UnreadableInput: no index, a file missing or broken, or a map that this arithmetic cannot hold.
        """
        vendors: list[tuple[str, str]] = []
        features: list[MapFeature] = []
        models: dict[str, MapModel] = {}
        for root in _included(contents):
            vendors += [(_name(node), node.get("string", "")) for node in root.findall("vendor")]
            features += [_feature(node) for node in root.findall("feature")]
            for node in root.findall("model"):
                _add_model(node, models)
        return cls(tuple(vendors), tuple(features), tuple(models.values()), version)

    @classmethod
    def from_folder(cls, folder: Path | str, version: str = "") -> CpuMap:
        """Read an installed libvirt's map, usually /usr/share/libvirt/cpu_map. Raises UnreadableInput."""
        try:
            contents = {file.name: file.read_bytes() for file in Path(folder).glob("*.xml")}
        except OSError as error:
            raise UnreadableInput(f"cannot read CPU map: {error}") from error
        return cls.from_files(contents, version)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> CpuMap:
        """Read the compact table that scripts/make_cpu_table.py writes."""
        features = [_feature_of_row(*row.split()) for row in table["features"]]
        models: dict[str, MapModel] = {}
        for name, row in table["models"].items():
            models[name] = _model_of_row(name, row, models.get(row.get("like")))
        return cls(tuple(table["vendors"].items()), tuple(features), tuple(models.values()), table["version"])

    @classmethod
    def carried(cls, release: str = CARRIED[0]) -> CpuMap:
        """Give a map that comes with this package; `release` is one of CARRIED."""
        return _carried(release)

    @classmethod
    def local(cls) -> CpuMap | None:
        """Give the map of the libvirt that is installed on this machine; None where there is none that can be read."""
        found = [_LIBRARY.fullmatch(file.name) for folder in _LIBRARIES for file in folder.glob("libvirt.so.0.*")]
        releases = [(*divmod(int(match[1]), 1000), int(match[2])) for match in found if match]
        if not releases:
            return None
        release = ".".join(map(str, max(releases)))
        try:
            return cls.from_folder(_LOCAL, f"libvirt {release}, installed here")
        except UnreadableInput:
            return None

    @property
    def release(self) -> Version:
        """The libvirt release that the map's `version` names; zeros where it names none."""
        found = re.search(r"libvirt (\d+)\.(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


@cache
def _carried(release: str) -> CpuMap:
    text = files("audit.cpu").joinpath(f"x86_map_{release}.json").read_text("utf-8")
    return CpuMap.from_table(json.loads(text))


def _included(contents: Mapping[str, bytes]) -> Iterable[etree._Element]:
    """Yield the index's x86 part, then each file that it includes, in document order."""
    if "index.xml" not in contents:
        raise UnreadableInput("the CPU map has no index.xml")
    arch = parse_untrusted(contents["index.xml"]).find("arch[@name='x86']")
    if arch is None:
        raise UnreadableInput("the CPU map has no x86 part")
    yield arch
    for include in arch.iter("include"):
        filename = include.get("filename", "")
        if filename not in contents:
            raise UnreadableInput(f"the CPU map lacks the file '{filename}'")
        yield parse_untrusted(contents[filename])


def _name(node: etree._Element) -> str:
    name = node.get("name")
    if not name:
        raise UnreadableInput(f"Missing CPU {node.tag} name")
    return name


def _integer(node: etree._Element, attribute: str) -> int:
    try:
        return int(node.get(attribute, "0"), 0)
    except ValueError as error:
        raise UnreadableInput(f"Invalid CPU {attribute} in <{node.tag}>: {error}") from error


def _feature(node: etree._Element) -> MapFeature:
    bits = []
    for word in node.iterchildren("cpuid", "msr"):
        leaf = _integer(word, "eax_in" if word.tag == "cpuid" else "index")
        for register in _REGISTERS:
            mask = _integer(word, register)
            numbers = (number for number in range(32) if mask >> number & 1)
            bits += [Bit(str(word.tag), leaf, _integer(word, "ecx_in"), register, number) for number in numbers]
    if len(bits) != 1:
        raise UnreadableInput(f"CPU feature {_name(node)} is not one bit, but {len(bits)}")
    return MapFeature(_name(node), bits[0], node.get("migratable") != "no")


def _steppings(text: str | None) -> frozenset[int]:
    steppings: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        if int(last or first) > _LAST_STEPPING:
            raise ValueError(part)
        steppings |= set(range(int(first), int(last or first) + 1))
    return frozenset(steppings)


def _signature(node: etree._Element) -> ModelSignature:
    try:
        steppings = _steppings(node.get("stepping"))
    except ValueError as error:
        raise UnreadableInput(f"Invalid CPU signature stepping: {error}") from error
    return ModelSignature(_integer(node, "family"), _integer(node, "model"), steppings)


def _add_model(node: etree._Element, models: dict[str, MapModel]) -> None:
    """Read a model; what it does not say itself comes from its ancestor (libvirt 11.3 cpu_x86.c x86ModelParse)."""
    name = _name(node)
    decode = node.find("decode")
    if decode is None:
        raise UnreadableInput(f"Missing decode in CPU model {name}")
    ancestor = _ancestor(node, models)
    own: dict[str, list[str]] = {"": [], "removed": [], "added": []}
    for feature in node.findall("feature"):
        how = next((how for how in ("removed", "added") if feature.get(how) == "yes"), "")
        own[how].append(_name(feature))
    inherited = ancestor.features.difference(ancestor.removed) if ancestor else frozenset()
    signatures = tuple(_signature(signature) for signature in node.findall("signature"))
    vendor = node.find("vendor")
    check = node.find("check")
    models[name] = MapModel(
        name=name,
        decode_host=decode.get("host") == "on",
        decode_guest=decode.get("guest") == "on",
        features=inherited.union(own[""]),
        vendor=_name(vendor) if vendor is not None else ancestor.vendor if ancestor else None,
        signatures=signatures or (ancestor.signatures if ancestor else ()),
        removed=tuple(own["removed"]),
        added=frozenset(own["added"]),
        compat_check=check is not None and check.get("partial") == "compat",
        ancestor=ancestor.name if ancestor else None,
    )
    if ancestor and not signatures and vendor is None and not any(own.values()):
        models[ancestor.name] = replace(ancestor, canonical=name)


def _ancestor(node: etree._Element, models: Mapping[str, MapModel]) -> MapModel | None:
    parent = node.find("model")
    if parent is None:
        return None
    name = _name(parent)
    if name not in models:
        raise UnreadableInput(f"Ancestor model {name} not found for CPU model {_name(node)}")
    return models[name]


def _feature_of_row(
    name: str, source: str, leaf: str, subleaf: str, register: str, number: str, migratable: str = "migratable"
) -> MapFeature:
    bit = Bit(source, int(leaf, 16), int(subleaf, 16), register, int(number))
    return MapFeature(name, bit, migratable == "migratable")


def _changed(base: frozenset[str], changes: str) -> frozenset[str]:
    """Apply "+gained -lost" names to a set."""
    names = changes.split()
    gained = {name[1:] for name in names if name[0] == "+"}
    return base.difference(name[1:] for name in names if name[0] == "-") | gained


def _model_of_row(name: str, row: Mapping[str, Any], like: MapModel | None) -> MapModel:
    signatures = []
    for text in row.get("made_for", "").split():
        family, model, *steppings = text.split("/")
        signatures.append(ModelSignature(int(family), int(model), _steppings(*steppings or [None])))
    return MapModel(
        name=name,
        decode_host="host" in row["decode"],
        decode_guest="guest" in row["decode"],
        features=_changed(like.features if like else frozenset(), row["has"]),
        vendor=row.get("vendor"),
        signatures=tuple(signatures),
        removed=tuple(row.get("removed", "").split()),
        added=_changed(like.added if like else frozenset(), row.get("added", "")),
        compat_check=row.get("compat", False),
        ancestor=row.get("ancestor"),
        canonical=row.get("canonical"),
    )
