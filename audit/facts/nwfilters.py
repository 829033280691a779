"""Network filters: which of them guests' NICs name, and what a host has of them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import GuestFact, GuestSource, HostFact, Said, Unavailable
from audit.facts.guest_source import GUESTS, XML, XML_INACTIVE
from audit.facts.virsh import answers, document, for_each
from audit.text import visible

FILTERS = Probe(
    "network.filters",
    for_each("nwfilter-list", "nwfilter-dumpxml $u", first_column=True),
    seconds=60,
    hand="virsh -r -c qemu:///system nwfilter-dumpxml FILTER",
)
_MOST = 1000


class Reference(NamedTuple):
    """One `<filterref>`: the filter that it names, and the parameters that it gives."""

    filter: str
    parameters: frozenset[str]
    learning: str = "any"
    """How libvirt finds out the guest's address where none is given: any, dhcp or none (`CTRL_IP_LEARNING`)."""


def _reference(node: etree._Element) -> Reference:
    given = {child.get("name", ""): child.get("value", "") for child in node.iterfind("parameter")}
    return Reference(node.get("filter", ""), frozenset(given), given.get("CTRL_IP_LEARNING", "any").lower())


@dataclass(frozen=True, slots=True)
class GuestFilters(GuestFact):
    """The network filters that the guest's NICs name."""

    probes: ClassVar[tuple[Probe, ...]] = (GUESTS, XML, XML_INACTIVE)
    references: tuple[Reference, ...]

    @classmethod
    def parse(cls, guest: GuestSource) -> Self:
        """From `<filterref>` of each `<interface>`."""
        nodes = guest.xml.iterfind("devices/interface/filterref")
        return cls(tuple(dict.fromkeys(_reference(node) for node in nodes)))


@dataclass(frozen=True, slots=True)
class Filter:
    """One `virsh nwfilter-list` filter."""

    name: str
    rules: str
    """Of all that it says but its UUID: equal where it does the same."""
    variables: frozenset[str]
    """Parameters that its own rules use."""
    references: tuple[Reference, ...]


@dataclass(frozen=True)  # not slotted: it keeps what it is asked for most
class Filters(HostFact):
    """Every network filter of a host."""

    probes: ClassVar[tuple[Probe, ...]] = (FILTERS,)
    filters: tuple[Filter, ...]
    unread: str = ""
    """Why one of them, or all, could not be read. Only guests that use filters depend on it."""

    @cached_property
    def _named(self) -> Mapping[str, Filter]:
        return {one.name: one for one in self.filters}

    def find(self, name: str) -> Filter | None:
        """The filter of that name. Raises `Unavailable` if it might be one that could not be read."""
        found = self._named.get(name)
        if found is None and self.unread:
            raise Unavailable(FILTERS, self.unread)
        return found

    def below(self, name: str) -> Iterator[tuple[str, Filter | None]]:
        """The filter and all that it includes, each once; None for one that is not there. Raises `Unavailable`."""
        todo, seen = [name], {name}
        while todo:
            current = todo.pop()
            found = self.find(current)
            yield current, found
            for reference in found.references if found else ():
                if reference.filter not in seen:
                    seen.add(reference.filter)
                    todo.append(reference.filter)

    def wanting(self, reference: Reference) -> frozenset[str]:
        """Parameters that the filter's rules use, and those of the filters in it, and that nobody gives.

        Raises `Unavailable`; filters that are not there want nothing.
        """
        first = (reference.filter, reference.parameters | {"MAC"})
        todo, seen, wanted = [first], {first}, set[str]()
        while todo:
            name, given = todo.pop()
            found = self.find(name)
            if found is None:
                continue
            wanted |= found.variables - given
            inner = {(one.filter, given | one.parameters) for one in found.references} - seen
            if len(seen) + len(inner) > _MOST:
                raise Unavailable(FILTERS, f"{visible(reference.filter, 60)} includes too many filters to follow")
            seen |= inner
            todo.extend(inner)
        return frozenset(wanted)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From each filter's XML. A host without the driver for filters has none that could be read."""
        try:
            found = answers(said, FILTERS)
        except Unavailable as why:
            return cls((), why.reason)
        filters, unread = [], ""
        for uuid, answer in found.items():
            try:
                filters.append(_filter(document(FILTERS, "filter", uuid, answer)))
            except Unavailable as why:
                unread = why.reason
        return cls(tuple(sorted(filters, key=lambda one: one.name)), unread)


_VARIABLE = re.compile(r"\$([A-Za-z0-9_]+)")


def _filter(root: etree._Element) -> Filter:
    said = [value for node in root.iterfind("rule//*") for value in map(str, node.attrib.values())]
    text = b"".join(
        etree.tostring(node, method="c14n", with_tail=False)
        for node in root
        if isinstance(node.tag, str) and node.tag != "uuid"
    )
    shape = f"{root.get('chain')} {root.get('priority')}\n".encode() + b"".join(text.split())
    return Filter(
        name=root.get("name", ""),
        rules=hashlib.sha256(shape).hexdigest()[:16],
        variables=frozenset(name for value in said for name in _VARIABLE.findall(value)),
        references=tuple(_reference(node) for node in root.iterfind("filterref")),
    )
