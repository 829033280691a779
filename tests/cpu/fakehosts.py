"""Processors that nobody built: random, plausible, and told as a QEMU would tell them to libvirt.

A `FakeHost` becomes a `<qemuCaps>` document, which this engine reads and a live libvirt takes for its own cache.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from audit.cpu import CpuMap, CpuSignature, MapModel
from audit.cpu.qemucaps import QEMU_NAMES

TO_QEMU = {libvirts: qemus for qemus, libvirts in QEMU_NAMES.items()}
# Intel processors with a broken TSX, and the first sane stepping of one.
_TSX = [CpuSignature(6, 60, 3), CpuSignature(6, 63, 2), CpuSignature(6, 63, 4), CpuSignature(6, 69, 1)]
# What real caches have beside features of the map: models of QEMU alone, properties of other kinds.
_QEMUS_OWN = ("base", "max", "Nobody-v1")
_NOISE = {"kvmclock": "true", "hv-relaxed": "true", "hv-vapic": "false", "x-no-feature": "true", "pmu": "false"}


@dataclass(frozen=True)
class Offer:
    """One named model of a fake host's QEMU; blockers in libvirt's names."""

    name: str
    usable: str
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True)
class FakeHost:
    """A processor and its QEMU; names of features are libvirt's.

    `lacks`: features that QEMU knows and cannot give here; what is in neither list it has no name for. `local`: what it
    refuses to migrate; it says so for none unless `migratability`.
    """

    vendor: str
    signature: CpuSignature
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    local: tuple[str, ...]
    migratability: bool
    offers: tuple[Offer, ...]

    def caps(self, accelerator: str, selfvers: int = 0) -> etree._Element:
        """Tell it as libvirt's cache of QEMU's capabilities, shortened to what decides about CPUs."""
        root = etree.Element("qemuCaps")
        etree.SubElement(root, "selfvers").text = str(selfvers)
        etree.SubElement(root, "arch").text = "x86_64"
        ability = "yes" if self.migratability else "no"
        cpu = etree.SubElement(root, "hostCPU", type=accelerator, model="base", migratability=ability)
        for name in self.has:
            moves = {"migratable": "no" if name in self.local else "yes"} if self.migratability else {}
            _property(cpu, _qemus(name), "boolean", "true", **moves)
        for name in self.lacks:
            _property(cpu, _qemus(name), "boolean", "false")
        for name, value in _NOISE.items():
            _property(cpu, name, "boolean", value)
        for name in ("family", "model", "stepping"):
            _property(cpu, name, "number", str(getattr(self.signature, name)))
        _property(cpu, "vendor", "string", self.vendor)
        for offer in self.offers:
            typename = f"{offer.name}-x86_64-cpu"
            node = etree.SubElement(
                root, "cpu", type=accelerator, name=offer.name, typename=typename, usable=offer.usable
            )
            for blocker in offer.blockers:
                etree.SubElement(node, "blocker", name=_qemus(blocker))
        return root


def random_hosts(rng: random.Random, cpu_map: CpuMap, count: int) -> list[FakeHost]:
    """Make some hosts: most of the vendor that most machines are of, none like another."""
    return [
        _random_host(rng, cpu_map, rng.choice(["Intel", "Intel", "Intel", "AMD", "AMD", "Hygon"])) for _ in range(count)
    ]


def _random_host(rng: random.Random, cpu_map: CpuMap, vendor: str) -> FakeHost:
    model = rng.choice([model for model in cpu_map.models if model.vendor == vendor])
    everything = list(cpu_map.order)
    broken = rng.choice([0, 0, 2, 8])
    has = set(model.features) - set(few(rng, sorted(model.features), broken)) | set(few(rng, everything, 60))
    if rng.random() < 0.5:
        has.add("invtsc")
    signature = _signature(rng, model)
    if signature in _TSX:
        has |= {"hle", "rtm"}
    nameless = set(few(rng, everything, 20))
    return FakeHost(
        vendor=dict(cpu_map.vendors)[vendor] if rng.random() < 0.96 else "CentaurHauls",
        signature=signature,
        has=tuple(shuffled(rng, has - nameless)),
        lacks=tuple(shuffled(rng, set(everything) - has - nameless)),
        local=tuple(sorted({"invtsc", *few(rng, everything, 6)} & has)),
        migratability=rng.random() < 0.85,
        offers=tuple(_offers(rng, cpu_map, frozenset(has))),
    )


def _signature(rng: random.Random, model: MapModel) -> CpuSignature:
    """Most often one that the model was made for."""
    if model.vendor == "Intel" and rng.random() < 0.2:
        return rng.choice(_TSX)
    if not model.signatures or rng.random() < 0.1:
        return CpuSignature(rng.choice([0, 6, 25]), rng.randrange(256), rng.randrange(16))
    meant = rng.choice(model.signatures)
    return CpuSignature(meant.family, meant.model, rng.choice(sorted(meant.steppings) or range(16)))


def _offers(rng: random.Random, cpu_map: CpuMap, has: frozenset[str]) -> Iterable[Offer]:
    """Offer some or all models: usable where the processor has all of the model, or QEMU says otherwise."""
    share = rng.choice([0.2, 0.6, 0.9, 1.0])
    for name in _QEMUS_OWN:
        yield Offer(name, "yes")
    for model in rng.sample(cpu_map.models, len(cpu_map.models)):
        if rng.random() > share:
            continue
        blockers = set(model.features - has)
        if rng.random() < 0.2:
            blockers ^= set(few(rng, list(cpu_map.order), 4)) | ({"not-in-the-map"} if rng.random() < 0.2 else set())
        if rng.random() < 0.03:
            yield Offer(model.name, "unknown")
        else:
            yield Offer(model.name, "no" if blockers else "yes", tuple(shuffled(rng, blockers)))


def few(rng: random.Random, names: list[str], most: int) -> list[str]:
    """Take some of the names, fewer more often than many."""
    return rng.sample(names, min(len(names), rng.randint(0, rng.randint(0, most))))


def shuffled(rng: random.Random, names: Iterable[str]) -> list[str]:
    """Bring them into some order that depends on `rng` alone."""
    ordered = sorted(names)
    rng.shuffle(ordered)
    return ordered


def _qemus(name: str) -> str:
    return TO_QEMU.get(name, name)


def _property(cpu: etree._Element, name: str, kind: str, value: str, **more: str) -> None:
    etree.SubElement(cpu, "property", name=name, type=kind, value=value, **more)
