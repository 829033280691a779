"""Random questions about CPUs: what virsh could be asked, mostly sensible, and now and then what nobody should ask."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from audit.cpu import CpuDefinition, CpuError, CpuFeature, CpuMap, MapModel, MaxPhysAddr, decode
from audit.cpu.qemucaps import host_model
from audit.cpu.rules import Rules
from tests.cpu.fakehosts import FakeHost, few

Asked = Literal["plain", "baseline", "compare", "host-model", "models"]
_POLICIES = ("require", "require", "require", "disable", "disable", "force", "optional", "forbid")


@dataclass(frozen=True)
class Question:
    """What is asked, of which fake host (plain baselines: of none), with which CPUs and flags."""

    asked: Asked
    host: int | None = None
    cpus: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


def random_questions(
    rng: random.Random, cpu_map: CpuMap, rules: Rules, hosts: Sequence[FakeHost], count: int
) -> Iterator[Question]:
    """Make some questions; every host is asked for its host-model and its models first."""
    everyone = [Question(asked, number) for number in range(len(hosts)) for asked in ("host-model", "models")]
    yield from everyone[:count]
    maker = _Maker(rng, cpu_map, rules, hosts)
    for _ in range(count - len(everyone)):
        yield maker.question()


def _model_of(host: FakeHost, cpu_map: CpuMap, rules: Rules) -> CpuDefinition | None:
    try:
        return host_model(host.caps("tcg"), "tcg", cpu_map, rules)
    except CpuError:
        return None


class _Maker:
    def __init__(self, rng: random.Random, cpu_map: CpuMap, rules: Rules, hosts: Sequence[FakeHost]) -> None:
        self.rng, self.cpu_map = rng, cpu_map
        self.host_models = [_model_of(host, cpu_map, rules) for host in hosts]
        self.features = list(cpu_map.order)
        # Before 9.3 libvirt does not read the limit at all; this engine reads as a current one does.
        self.spoilt = _SPOILT + (_SPOILT_LIMITS if rules.baseline_has_address_bits else [])

    def question(self) -> Question:
        asked = self.rng.choice(["plain", "baseline", "baseline", "baseline", "compare", "compare"])
        host = None if asked == "plain" else self.rng.randrange(len(self.host_models))
        if asked == "compare":
            cpus, flags = [self._fitting(self.host_models[host])], self._some("fail")
        else:
            vendor = self.rng.choice(["Intel", "Intel", "AMD", "AMD", "Hygon"])
            size = self.rng.choice([1, 1, 2, 2, 2, 3, 4]) if self.rng.random() > 0.01 else 0
            make = self._host if asked == "plain" else self._cpu
            cpus, flags = [make(vendor) for _ in range(size)], self._some("expand", "migratable")
        return Question(asked, host, tuple(map(self._spoilt, cpus)), flags)

    def _some(self, *flags: str) -> frozenset[str]:
        return frozenset(flag for flag in flags if self.rng.random() < 0.5)

    def _fitting(self, host: CpuDefinition | None) -> CpuDefinition:
        """Make what the host may be able to run: in half of the cases its own CPU, or another model with less."""
        if host is None or self.rng.random() < 0.5:
            return self._cpu(self.rng.choice(["Intel", "AMD"]))
        kept = [feature for feature in host.features if self.rng.random() < 0.95]
        if self.rng.random() < 0.3:
            kept += [CpuFeature(name, self.rng.choice(_POLICIES)) for name in few(self.rng, self.features, 4)]
            kept = list({feature.name: feature for feature in kept}.values())
        if self.rng.random() < 0.6:
            models = [model.name for model in self.cpu_map.models if model.vendor in (host.vendor, None)]
            kept = kept if self.rng.random() < 0.5 else []
            return replace(host, model=self.rng.choice(models), features=tuple(kept))
        return replace(host, features=tuple(kept), match=self.rng.choice(["exact", "strict"]))

    def _cpu(self, vendor: str) -> CpuDefinition:
        """Make what `virsh hypervisor-cpu-baseline` takes."""
        alike = [cpu for cpu in self.host_models if cpu and cpu.vendor in (vendor, None)]
        if alike and self.rng.random() < 0.5:
            cpu = self.rng.choice(alike)
        else:
            cpu = self._host(vendor) if self.rng.random() < 0.3 else self._guest(vendor)
        if self.rng.random() < 0.3:
            limit = self.rng.choice([None, 0, 36, 39, 46, 46, 48, 52])
            width = MaxPhysAddr("emulate", 40) if self.rng.random() < 0.1 else MaxPhysAddr("passthrough", limit=limit)
            cpu = replace(cpu, maxphysaddr=width)
        return cpu

    def _host(self, vendor: str) -> CpuDefinition:
        if self.rng.random() < 0.3:  # as libvirt would tell a processor
            model = self._model(vendor)
            has = model.features ^ frozenset(few(self.rng, self.features, 30))
            try:
                return decode(has, self.cpu_map, kind="host", vendor=model.vendor)
            except CpuError:
                pass
        cpu = self._guest(vendor)
        return replace(cpu, kind="host", arch="x86_64", match="exact", fallback="allow", check=None)

    def _guest(self, vendor: str) -> CpuDefinition:
        model = self._model(vendor)
        names = few(self.rng, self.features, 40) + few(self.rng, sorted(model.features), 6) + list(model.removed)[:2]
        features = tuple(CpuFeature(name, self.rng.choice(_POLICIES)) for name in dict.fromkeys(names))
        return CpuDefinition(
            match=self.rng.choice(["exact", "exact", "exact", "strict", "minimum"]),
            model=model.name,
            fallback=self.rng.choice(["allow", "forbid"]),
            vendor=self.rng.choice([model.vendor, model.vendor, vendor, None]),
            features=features,
        )

    def _model(self, vendor: str) -> MapModel:
        stranger = self.rng.random() < 0.03
        return self.rng.choice([model for model in self.cpu_map.models if stranger or model.vendor in (vendor, None)])

    def _spoilt(self, cpu: CpuDefinition) -> str:
        """Print it; a few are no longer what libvirt can work with."""
        if self.rng.random() < 0.94:
            return cpu.to_xml()
        spoil = self.rng.choice(self.spoilt)
        return spoil(cpu.to_xml())


def _swap(old: str, new: str) -> Callable[[str], str]:
    return lambda xml: xml.replace(old, new, 1)


def _twice(xml: str) -> str:
    feature = "  <feature name='aes'/>\n"
    return xml.replace("</cpu>", f"{feature}{feature}</cpu>")


_SPOILT: list[Callable[[str], str]] = [
    _twice,
    _swap("</model>", "-v99</model>"),
    _swap("</vendor>", "ish</vendor>"),
    _swap("<vendor>Intel", "<vendor>AMD"),
    _swap(" name='", " name='un"),
    _swap(" name='", " nom='"),
    _swap("policy='require'", "policy='prefer'"),
    _swap("policy='require'", "policy='optional'"),
    _swap("match='exact'", "match='roughly'"),
    _swap("mode='custom'", "mode='host-passthrough'"),
    _swap("mode='custom'", "mode='host-model'"),
    _swap("mode='custom'", "mode='bespoke'"),
    _swap("mode='custom' match='exact'", "mode='custom' match='exact' check='full' migratable='on'"),
    lambda xml: xml.replace("<model", "<modell").replace("</model", "</modell"),
    _swap("<model>", "<model> "),
    _swap("<model", "<model vendor_id='short'"),
    _swap("fallback='forbid'", "fallback='never'"),
    _swap("<arch>x86_64", "<arch>i686"),
    _swap("<arch>x86_64", "<arch>s390x"),
    _swap("<arch>x86_64", "<arch>pdp11"),
    _swap("x86_64", ""),
    _swap("<cpu>", "<cpu match='exact'>"),
    _swap("<cpu mode='custom' match='exact'>", "<cpu><arch>x86_64</arch>"),
    _swap("</cpu>", "  <topology sockets='0' cores='1' threads='1'/>\n</cpu>"),
    _swap("</cpu>", "  <topology sockets='1' cores='two' threads='1'/>\n</cpu>"),
    _swap("</cpu>", "  <maxphysaddr bits='40'/>\n</cpu>"),
    _swap("  <feature", "  <maxphysaddr mode='emulate' bits='wide'/>\n  <feature"),
    _swap("</cpu>", "  <microcode version='x'/>\n  <signature family='6'/>\n</cpu>"),
    lambda xml: xml.replace("cpu>", "cpus>").replace("<cpu ", "<cpus "),
]
_SPOILT_LIMITS = [
    _swap("  <feature", "  <maxphysaddr mode='emulate' bits='40' limit='46'/>\n  <feature"),
    _swap("  <feature", "  <maxphysaddr mode='passthrough' limit='0'/>\n  <feature"),
    _swap("  <feature", "  <maxphysaddr mode='passthrough' limit='-1'/>\n  <feature"),
]
