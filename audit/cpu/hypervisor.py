"""What the hypervisors of some hosts know and can run, as far as it decides CPU answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import NamedTuple

from lxml import etree

from audit.cpu.definition import UnreadableInput
from audit.cpu.reading import parse_untrusted


class HypervisorModel(NamedTuple):
    """A model that the hypervisor offers; `usable` is yes, no or unknown.

    `blockers`: features of the hypervisor's own idea of the model that this host cannot give.
    """

    name: str
    usable: str = "yes"
    blockers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """The CPU side of one QEMU on one host, or what several have in common.

    `features`: names it knows (available or not); None = all of the map.
    `not_migratable`: of these, what it refuses to migrate; current QEMU: invtsc alone. None: it does not say, and
    libvirt goes by its own list.
    """

    models: tuple[HypervisorModel, ...]
    features: frozenset[str] | None = None
    not_migratable: frozenset[str] | None = field(default=frozenset({"invtsc"}))
    names: frozenset[str] | None = None
    """Features that its libvirt has a name for: a definition with others is refused there. None: all of the map."""

    def find(self, name: str) -> HypervisorModel | None:
        """Look up a model by name."""
        return _by_name(self.models).get(name)

    @classmethod
    def from_domcapabilities(cls, source: str | bytes | etree._Element) -> Hypervisor:
        """Read the custom mode of `virsh domcapabilities`.

        Before libvirt 10.9 an unusable model's blockers are not listed, and count as none (`unlisted_blockers`).
        Raises UnreadableInput, also when the document offers no named models.
        """
        root = source if isinstance(source, etree._Element) else parse_untrusted(source)
        custom = root.find("cpu/mode[@name='custom']") if root.tag == "domainCapabilities" else None
        if custom is None:
            raise UnreadableInput("the input does not contain any domain capabilities XML with CPU models")
        blockers = {
            node.get("model"): frozenset(feature.get("name", "") for feature in node.findall("feature"))
            for node in custom.findall("blockers")
        }
        models = tuple(
            HypervisorModel(node.text or "", usable(node), blockers.get(node.text, frozenset()))
            for node in custom.findall("model")
        )
        return cls(models)

    def unlisted_blockers(self, model: str) -> bool:
        """Whether the model cannot be used for a reason that was not told."""
        found = self.find(model)
        return found is not None and found.usable == "no" and not found.blockers

    @classmethod
    def common(cls, hypervisors: Iterable[Hypervisor]) -> Hypervisor:
        """Combine several hosts: models that all offer, blocked where any is blocked; at least one host."""
        first, *others = distinct = list(dict.fromkeys(hypervisors))  # of a large fleet most are equal
        if not others:
            return first
        tables = [_by_name(other.models) for other in others]
        offered = [model for model in first.models if all(model.name in table for table in tables)]
        return cls(
            models=tuple(_worst([model, *(table[model.name] for table in tables)]) for model in offered),
            features=reduce(_both, (one.features for one in distinct)),
            not_migratable=reduce(_either, (one.not_migratable for one in distinct)),
            names=reduce(_both, (one.names for one in distinct)),
        )


def usable(model: etree._Element) -> str:
    """yes or no; whatever else a document says is unknown."""
    said = model.get("usable", "")
    return said if said in ("yes", "no") else "unknown"


@lru_cache(maxsize=256)
def _by_name(models: tuple[HypervisorModel, ...]) -> dict[str, HypervisorModel]:
    return {model.name: model for model in reversed(models)}


def _worst(models: Sequence[HypervisorModel]) -> HypervisorModel:
    """One model as several hosts have it: usable where it is on all, blocked by what any lacks."""
    worst = min((model.usable for model in models), key=("no", "unknown", "yes").index)
    return HypervisorModel(models[0].name, worst, frozenset().union(*(model.blockers for model in models)))


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """What is in both, where None stands for everything."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _either(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """What is in either, where None says nothing."""
    return one | other if one is not None and other is not None else one if other is None else other
