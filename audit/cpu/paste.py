"""Giving a guest another `<cpu>`: its definition with that element exchanged, the difference, and the commands.

Nothing here touches a host. What the guest's `<cpu>` says of its shape and name (`<topology>`, `<numa>`, an emulated
`<cache>`, `vendor_id=`) stays: another CPU is no reason for another number of sockets.
"""

from __future__ import annotations

import copy
import re
import shlex
from dataclasses import replace
from typing import NamedTuple

from lxml import etree

from audit.cpu.definition import CpuDefinition, CpuError
from audit.cpu.reading import from_element, parse_untrusted

# As virsh prints definitions: children of <domain> are indented by two spaces, each on lines of its own.
_START = re.compile(r"  <cpu[\s/>]")
_END = "  </cpu>"
_AFTER = re.compile(r"  <(?:clock|on_poweroff|devices)[\s/>]")  # what follows <cpu> where there is none
_SHAPE = ("topology", "cache", "numa")
_CONTEXT = 3  # lines around a difference, as `diff -u` has them
_TOPOLOGY = ("sockets", "dies", "cores", "threads")  # what every virt-xml knows


class Pasted(NamedTuple):
    """A domain with its new CPU."""

    text: str
    cpu: CpuDefinition
    """In the guest's own shape."""
    first: int
    """Where the new `<cpu>` begins, in lines from 0; and how many lines went and came."""
    gone: int
    came: int
    whole: bool
    """virt-xml can say it: nothing of the old `<cpu>` stays that it has no word for."""


def with_cpu(domain: str, cpu: CpuDefinition) -> Pasted:
    """The domain's XML, as virsh printed it, with `cpu` instead of what it has.

    Raises CpuError when that cannot be done and proved: the result is read again, and all else must be as before.
    """
    root = parse_untrusted(domain)
    old = root.find("cpu")
    lines = domain.split("\n")
    first, gone = _place(lines, there=old is not None)
    wanted = _wanted(old, cpu)
    block = _block(old, wanted)
    text = "\n".join([*lines[:first], *block, *lines[first + gone :]])
    _prove(root, text, wanted)
    topology = None if old is None else old.find("topology")
    whole = not any(line.startswith(("    <numa", "    <cache")) for line in block)
    whole = whole and (topology is None or set(topology.attrib) <= set(_TOPOLOGY))
    return Pasted(text, wanted, first, gone, len(block), whole)


def difference(before: str, pasted: Pasted, name: str) -> str:
    """A unified diff that `patch` takes, "" where nothing changes; `name` goes into the names of the two files."""
    old, new = (text.removesuffix("\n").split("\n") for text in (before, pasted.text))
    if old == new:
        return ""
    start = max(0, pasted.first - _CONTEXT)
    tail = old[pasted.first + pasted.gone :][:_CONTEXT]
    head = old[start : pasted.first]
    went = old[pasted.first :][: pasted.gone]
    came = new[pasted.first :][: pasted.came]
    around = len(head) + len(tail)
    lines = [
        f"--- {name}.before.xml",
        f"+++ {name}.after.xml",
        f"@@ -{start + 1},{around + len(went)} +{start + 1},{around + len(came)} @@",
        *(f" {line}" for line in head),
        *(f"-{line}" for line in went),
        *(f"+{line}" for line in came),
        *(f" {line}" for line in tail),
    ]
    return "\n".join(lines) + "\n"


def apply_commands(uuid: str, pasted: Pasted, *, restart: bool, paused: bool = False) -> list[str]:
    """What to type on the guest's host so that it has the CPU from its next start, beside the difference itself.

    Each line may be pasted on its own, and again: the definition that was there first is kept, and nothing is stopped
    unless the new one was taken. --security-info, for its owner's eyes only: without it the saved definition would lack
    the passwords of displays.
    """
    by_virt_xml = [f"# or, instead of the line above: {virt_xml(uuid, pasted.cpu)}"] if pasted.whole else []
    return [
        f"umask 077; [ -s {uuid}.before.xml ] || {{ {_VIRSH} dumpxml --inactive --security-info {uuid} "
        f"> {uuid}.saved && mv {uuid}.saved {uuid}.before.xml; }}",
        f"patch -o {uuid}.after.xml {uuid}.before.xml {uuid}.diff && {_VIRSH} define {uuid}.after.xml"
        + (f" && {restart_command(uuid)}" if restart else ""),
        *by_virt_xml,
        *([f"# it is paused and cannot shut down before: {_VIRSH} resume {uuid}"] if restart and paused else []),
    ]


def undo_commands(uuid: str, *, restart: bool) -> list[str]:
    """What takes it back: the saved definition, and a start from nothing."""
    return [f"{_VIRSH} define {uuid}.before.xml" + (f" && {restart_command(uuid)}" if restart else "")]


_VIRSH = "virsh -c qemu:///system"


def restart_command(uuid: str) -> str:
    """Stop the guest wholly, then start it. A reboot would keep the QEMU process, and with it the CPU.

    It waits for the guest for as long as that takes.
    """
    off = f'[ "$(LC_ALL=C {_VIRSH} domstate {uuid})" = "shut off" ]'
    return f"{_VIRSH} shutdown {uuid} && until {off}; do sleep 5; done && {_VIRSH} start {uuid}"


def virt_xml(uuid: str, cpu: CpuDefinition) -> str:
    """The same change by virt-xml (virt-install 4.0 or later), for a guest whose `<cpu>` has nothing else to keep."""
    options = ["clearxml=yes", "mode=custom", "match=exact", f"model={cpu.model}", f"model.fallback={cpu.fallback}"]
    options += [f"model.vendor_id={cpu.vendor_id}"] if cpu.vendor_id else []
    options += [f"vendor={cpu.vendor}"] if cpu.vendor else []
    if cpu.topology:
        options += [f"topology.{name}={getattr(cpu.topology, name)}" for name in _TOPOLOGY]
    if cpu.maxphysaddr:  # for which virt-xml has no option of its own
        width = (("mode", cpu.maxphysaddr.mode), ("bits", cpu.maxphysaddr.bits), ("limit", cpu.maxphysaddr.limit))
        for place, (name, value) in enumerate((n, v) for n, v in width if v):
            options += [f"xpath{place}.set=./maxphysaddr/@{name}", f"xpath{place}.value={value}"]
    options += [f"{feature.policy}={feature.name}" for feature in cpu.features]
    return f"virt-xml --connect qemu:///system {uuid} --edit --cpu {shlex.quote(','.join(options))}"


def _place(lines: list[str], *, there: bool) -> tuple[int, int]:
    """The first line of the old `<cpu>` and how many it has; where there is none, the line before which it belongs."""
    starts = [number for number, line in enumerate(lines) if _START.match(line)]
    if len(starts) == 1 and there:
        first = starts[0]
        if lines[first].endswith(("/>", "</cpu>")):
            return first, 1
        if _END in lines[first:]:
            return first, lines.index(_END, first) - first + 1
    elif not starts and not there:
        before = next((number for number, line in enumerate(lines) if _AFTER.match(line)), None)
        if before is not None:
            return before, 0
    raise CpuError("the definition is not laid out as virsh prints it")


def _wanted(old: etree._Element | None, cpu: CpuDefinition) -> CpuDefinition:
    """What the guest shall have: `cpu` in the guest's own shape, with its own address bits where `cpu` states none."""
    if old is None:
        return cpu
    had = from_element(old, "guest")
    width = cpu.maxphysaddr or had.maxphysaddr
    return replace(cpu, topology=had.topology, maxphysaddr=width, vendor_id=had.vendor_id)


def _block(old: etree._Element | None, wanted: CpuDefinition) -> list[str]:
    """The new element's lines, indented as a child of `<domain>`, in libvirt's order."""
    lines = [f"  {line}" for line in replace(wanted, topology=None).to_xml().splitlines()]
    if old is None:
        return lines
    kept = {name: _kept(old, name) for name in _SHAPE}
    inside = [number for number, line in enumerate(lines) if line.startswith(("    <maxphysaddr", "    <feature"))]
    first = inside[0] if inside else len(lines) - 1
    return [*lines[:first], *kept["topology"], *kept["cache"], *lines[first:-1], *kept["numa"], lines[-1]]


def _kept(old: etree._Element, name: str) -> list[str]:
    """Lines of a child that says what shape the guest has."""
    child = old.find(name)
    if child is None or not _stays(child):
        return []
    child = copy.deepcopy(child)
    child.tail = None
    # virsh quotes with apostrophes; neither quote stands for itself within an attribute or text of these elements.
    first, *more = etree.tostring(child, encoding="unicode").replace('"', "'").split("\n")
    return [f"    {first}", *more]


def _stays(child: etree._Element) -> bool:
    """All shape stays but a cache that is for the host's own CPU only."""
    return child.tag != "cache" or child.get("mode") != "passthrough"


def _prove(before: etree._Element, after: str, wanted: CpuDefinition) -> None:
    """Nothing but the CPU changed, and that is as wanted. Raises CpuError. Takes the trees apart."""
    root = parse_untrusted(after)
    new = root.find("cpu")
    if new is None or replace(from_element(new, "guest"), check=None) != replace(wanted, check=None):
        raise CpuError("the definition would not have the CPU that it should")
    old = before.find("cpu")
    for name in _SHAPE:
        was = None if old is None else old.find(name)
        if was is not None and _stays(was) and _canonical(was) != _canonical(new.find(name)):
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
