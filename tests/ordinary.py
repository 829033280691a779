"""Guests as virt-manager, virt-install, Nova and oVirt make them, on two hosts that are alike in everything.

The guests are files: `ordinary_guests/NAME.xml`, the live XML. The configuration that belongs to it follows from it
as libvirt prints it: without what each start decides anew. The hosts are those of the sample fleet `uniform`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lxml import etree

from audit.evaluate import evaluate
from audit.judge import discover
from audit.text import parse_xml
from scripts.sample_fleets.answers import bundle
from scripts.sample_fleets.description import Answer, Disk, Fleet, Guest, Host
from scripts.sample_fleets.fleets import UNIFORM
from scripts.sample_fleets.guests import domain

GUESTS = Path(__file__).parent / "ordinary_guests"
CHECKS = discover()
HOST = replace(UNIFORM.hosts[0], guests=())
_MARK = "0123456789abcdef0123456789abcdef"
_ORIGINAL = Guest("original")
_BY_START = ("alias", "seclabel", "resource")
"""Elements that a running guest's XML has beyond its configuration."""


def live_xml(name: str, guest: Guest, host: Host) -> str:
    """The guest's live XML; `@CPU@` stands for what host-model came to on that host."""
    running = replace(host, guests=(_ORIGINAL,))
    cpu = etree.tostring(parse_xml(domain(_ORIGINAL, running, live=True).encode()).find("cpu"), encoding="unicode")
    text = (GUESTS / f"{name}.xml").read_text("utf-8")
    return text.replace("@UUID@", guest.uuid).replace("@CPU@", cpu.strip())


def configured(live: str) -> str:
    """What `virsh dumpxml --inactive` prints of the guest."""
    root = parse_xml(live.encode())
    root.attrib.pop("id")
    for node in [node for tag in _BY_START for node in root.iter(tag)]:
        node.getparent().remove(node)
    cpu = root.find("cpu")
    if cpu is not None and cpu.find("maxphysaddr[@mode='passthrough']") is not None:  # what host-model came to
        root.replace(cpu, etree.fromstring("<cpu mode='host-model' check='partial'/>"))
    for source in list(root.iterfind("devices/*/source")):
        _configured_source(source.getparent(), source)
    for node in [*root.iterfind("devices/disk/backingStore"), *root.iterfind("devices/interface/target")]:
        node.getparent().remove(node)
    for node in root.iterfind("devices/channel/target"):
        node.attrib.pop("state", None)
    for node in root.iterfind("devices/graphics[@autoport='yes']"):
        node.set("port", "-1")
        if node.attrib.pop("listen", None) == "127.0.0.1":  # nobody asked for it: qemu.conf has none else
            node.find("listen").attrib.pop("address")
        for listen in node.iterfind("listen[@type='network']"):
            listen.attrib.pop("address")
    return etree.tostring(root, encoding="unicode")


def _configured_source(device: Any, source: Any) -> None:
    for attribute in ("index", "portid"):
        source.attrib.pop(attribute, None)
    own = (source.get("path") or "").startswith(("/run/libvirt/qemu/channel/", "/dev/pts/"))
    if own:
        device.attrib.pop("tty", None)
        device.remove(source)
    elif device.tag == "interface" and source.get("network"):
        device.set("type", "network")
        for attribute in ("bridge", "dev", "mode"):
            source.attrib.pop(attribute, None)


def results(
    name: str,
    *,
    files: tuple[str, ...] = (),
    own_files: tuple[str, ...] = (),
    edit: Callable[[str], str] = lambda xml: xml,
    both: Mapping[str, bytes] | None = None,
    answers: Mapping[str, Answer] | None = None,
    **host: Any,
) -> Any:
    """What is judged where the guest runs on kvm01 and may go to kvm02.

    `files` are on both hosts, `own_files` on the first. `edit` changes the live XML. `both` maps words of both hosts'
    domain capabilities to others, `answers` gives other answers of both hosts. The rest describes the hosts.
    """
    alike = replace(HOST, **host)
    owned = tuple(Disk(path) for path in files)  # libvirt has given the running guest's images to qemu
    guest = Guest(name, disks=owned, nics=())
    live = edit(live_xml(name, guest, alike))
    told = {
        "guest.xml": Answer(f"{_MARK}\n{_MARK} {guest.uuid}\n{live}\n{_MARK} end\n\n"),
        "guest.xml_inactive": Answer(f"{_MARK}\n{_MARK} {guest.uuid}\n{configured(live)}\n{_MARK} end\n\n"),
    }
    first = replace(alike, files=frozenset({*files, *own_files}), guests=(guest,), garbage={**(answers or {}), **told})
    second = replace(alike, name="kvm02", number=12, files=frozenset(files), garbage=answers or {})
    inventory = UNIFORM.inventory.replace("      - kvm03\n", "")
    made = bundle(Fleet("uniform", inventory, (first, second)))
    for old, new in (both or {}).items():
        made = replace(made, hosts={at: _reworded(evidence, old.encode(), new) for at, evidence in made.hosts.items()})
    return evaluate([made], CHECKS)


def _reworded(evidence: Any, old: bytes, new: bytes) -> Any:
    outputs = {
        name: replace(said, stdout=said.stdout.replace(old, new)) if name.startswith("cpu.domcaps") else said
        for name, said in evidence.outputs.items()
    }
    assert outputs != evidence.outputs, "an edit that edits"
    return replace(evidence, outputs=outputs)


def verdict(judged: Any) -> tuple[str, dict[str, str]]:
    """The route's verdict, and its reasons: check and message."""
    [guest] = judged["guests"]
    [target] = guest["targets"]
    assert target["host"] == "kvm02"
    by_id = {one["check"]: one for one in target["reasons"]}
    return target["verdict"], {check: str(one.get("message") or one) for check, one in by_id.items()}


def told_of(judged: Any, *statuses: str) -> dict[str, str]:
    """Outcomes of the guest with one of these statuses: check and message."""
    return {
        one["check"]: one["message"]
        for one in judged["outcomes"]
        if one["status"] in statuses and "guest" in one["subject"]
    }
