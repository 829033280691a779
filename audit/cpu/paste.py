"""Giving a guest another `<cpu>`: its definition with that element exchanged, the difference, and the commands.

Nothing here touches a host. What the guest's `<cpu>` says of its shape (`<topology>`, `<numa>`, an emulated
`<cache>`) stays: another CPU is no reason for another number of sockets.
"""

from __future__ import annotations

import copy
import difflib
import re
import shlex
from dataclasses import replace
from typing import NamedTuple

from lxml import etree

from audit.cpu.definition import CpuDefinition, CpuError
from audit.cpu.reading import from_element, parse_untrusted

# As virsh prints definitions: children of <domain> are indented by two spaces, each on lines of its own.
_CPU = re.compile(r"^  <cpu(?=[\s/>])(?:[^>]*/>|.*?^  </cpu>|[^\n]*</cpu>)\n", re.MULTILINE | re.DOTALL)
_AFTER = re.compile(r"^  <(?:clock|on_poweroff|devices)[\s/>]", re.MULTILINE)  # what follows <cpu> where there is none
_SHAPE = ("topology", "cache", "numa")


class Pasted(NamedTuple):
    """A domain with its new CPU."""

    text: str
    cpu: CpuDefinition
    """In the guest's own shape."""
    whole: bool
    """Nothing of the old `<cpu>` stays but what `cpu` says: no NUMA cells, no cache."""


def with_cpu(domain: str, cpu: CpuDefinition) -> Pasted:
    """The domain's XML, as virsh printed it, with `cpu` instead of what it has.

    Raises CpuError when that cannot be done and proved: the result is read again, and all else must be as before.
    """
    before = parse_untrusted(domain)
    old = before.find("cpu")
    block = _block(old, cpu)
    matches = _CPU.findall(domain)
    if len(matches) > 1 or (old is None) != (not matches):
        raise CpuError("the definition is not laid out as virsh prints it")
    if old is not None:
        after = _CPU.sub(lambda _: block, domain, count=1)
    else:
        place = _AFTER.search(domain)
        if place is None:
            raise CpuError("the definition is not laid out as virsh prints it")
        after = domain[: place.start()] + block + domain[place.start() :]
    wanted = _wanted(old, cpu)
    _prove(before, after, wanted)
    return Pasted(after, wanted, whole=block == _indented(wanted))


def difference(before: str, after: str, name: str) -> str:
    """A unified diff that `patch` takes; `name` goes into the names of the two files."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"{name}.before.xml", f"{name}.after.xml"
    )
    return "".join(lines)


def apply_commands(uuid: str, pasted: Pasted, *, restart: bool) -> list[str]:
    """What to type on the guest's host so that it has the CPU from its next start, beside the difference itself.

    --security-info: without it the saved definition would lack the passwords of displays.
    """
    by_virt_xml = [f"# or, without the difference: {virt_xml(uuid, pasted.cpu)}"] if pasted.whole else []
    return [
        f"virsh dumpxml --inactive --security-info {uuid} > {uuid}.before.xml",
        f"patch -o {uuid}.after.xml {uuid}.before.xml {uuid}.diff && virsh define {uuid}.after.xml",
        *by_virt_xml,
        *(_restart(uuid) if restart else []),
    ]


def undo_commands(uuid: str, *, restart: bool) -> list[str]:
    """What takes it back: the saved definition, and a start from nothing."""
    return [f"virsh define {uuid}.before.xml", *(_restart(uuid) if restart else [])]


def _restart(uuid: str) -> list[str]:
    """A reboot would keep the QEMU process, and with it the CPU."""
    return [f"virsh shutdown {uuid}", f"virsh domstate {uuid}  # until it says: shut off", f"virsh start {uuid}"]


def virt_xml(uuid: str, cpu: CpuDefinition) -> str:
    """The same change by virt-xml (virt-install 4.0 or later), for a guest whose `<cpu>` has nothing else to keep."""
    options = ["clearxml=yes", "mode=custom", "match=exact", f"model={cpu.model}", f"model.fallback={cpu.fallback}"]
    if cpu.vendor:
        options += [f"vendor={cpu.vendor}"]
    if cpu.topology:
        shape = ("sockets", "dies", "cores", "threads")
        options += [f"topology.{name}={getattr(cpu.topology, name)}" for name in shape]
    if cpu.maxphysaddr:  # for which virt-xml has no option of its own
        width = (("mode", cpu.maxphysaddr.mode), ("bits", cpu.maxphysaddr.bits), ("limit", cpu.maxphysaddr.limit))
        for place, (name, value) in enumerate((n, v) for n, v in width if v):
            options += [f"xpath{place}.set=./maxphysaddr/@{name}", f"xpath{place}.value={value}"]
    options += [f"{feature.policy}={feature.name}" for feature in cpu.features]
    return f"virt-xml {uuid} --edit --cpu {shlex.quote(','.join(options))}"


def _wanted(old: etree._Element | None, cpu: CpuDefinition) -> CpuDefinition:
    """What the guest shall have: `cpu` in the guest's own shape, with its own address bits where `cpu` states none."""
    if old is None:
        return cpu
    had = from_element(old, "guest")
    return replace(cpu, topology=had.topology, maxphysaddr=cpu.maxphysaddr or had.maxphysaddr)


def _block(old: etree._Element | None, cpu: CpuDefinition) -> str:
    """The new element's lines, indented as a child of `<domain>`; newline at the end."""
    lines = _indented(_wanted(old, cpu)).splitlines(keepends=True)
    if old is None:
        return "".join(lines)
    kept = {name: _kept(old, name) for name in ("cache", "numa")}
    inside = [number for number, line in enumerate(lines) if line.startswith(("    <maxphysaddr", "    <feature"))]
    first = inside[0] if inside else len(lines) - 1
    return "".join([*lines[:first], *kept["cache"], *lines[first:-1], *kept["numa"], lines[-1]])


def _indented(cpu: CpuDefinition) -> str:
    return "".join(f"  {line}\n" for line in cpu.to_xml().splitlines())


def _kept(old: etree._Element, name: str) -> list[str]:
    """Lines of a child that says what shape the guest has."""
    child = old.find(name)
    if child is None or (name == "cache" and child.get("mode") == "passthrough"):  # that is for the host's own CPU only
        return []
    child = copy.deepcopy(child)
    child.tail = None
    text = etree.tostring(child, encoding="unicode")
    # virsh quotes with apostrophes; neither quote stands for itself within an attribute or text of these elements.
    first, *more = text.replace('"', "'").split("\n")
    return [f"    {first}\n", *(f"{line}\n" for line in more)]


def _prove(before: etree._Element, after: str, wanted: CpuDefinition) -> None:
    """Nothing but the CPU changed, and that is as wanted. Raises CpuError."""
    root = parse_untrusted(after)
    new = root.find("cpu")
    if new is None or replace(from_element(new, "guest"), check=None) != replace(wanted, check=None):
        raise CpuError("the definition would not have the CPU that it should")
    old = before.find("cpu")
    for name in _SHAPE:
        was = None if old is None else old.find(name)
        keeps = was is not None and not (name == "cache" and was.get("mode") == "passthrough")
        if keeps and _canonical(was) != _canonical(new.find(name)):
            raise CpuError(f"the guest's <{name}> would not stay as it is")
    for tree in (before, root):
        for cpu in tree.findall("cpu"):
            tree.remove(cpu)
    if _canonical(before) != _canonical(root):
        raise CpuError("more than the CPU would change")


def _canonical(element: etree._Element | None) -> bytes:
    """The element without the blanks that only lay it out."""
    if element is None:
        return b""
    element = copy.deepcopy(element)
    element.tail = None
    for node in element.iter():
        node.tail = None if node.tail is None or not node.tail.strip() else node.tail
        node.text = None if node.text is None or (len(node) and not node.text.strip()) else node.text
    return etree.tostring(element, method="c14n")
