"""The host's processor: what it is, its microcode, how it is hardened.

libvirt names it in `capabilities`; the kernel's /proc/cpuinfo fills the gaps.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from lxml import etree

from audit.cpu import X86 as X86  # checks take it from here
from audit.cpu import CpuSignature
from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.versions import KERNEL, VIRSH, Kernel, Qemu, Version
from audit.text import visible

CAPABILITIES = Probe("cpu.capabilities", "virsh -r -c qemu:///system capabilities", limit=16 * 1024 * 1024)

# One processor's block stands for all (a host of 500 CPUs prints a megabyte); what may differ among them follows.
CPUINFO = Probe(
    "cpu.cpuinfo",
    """\
sed '/^$/q' /proc/cpuinfo || exit 1
echo
echo '== processors'
grep -c '^processor' /proc/cpuinfo
echo '== microcode'
grep '^microcode' /proc/cpuinfo | sort -u
:""",
    hand="cat /proc/cpuinfo",
)

VULNERABILITIES = Probe(
    "cpu.vulnerabilities",
    """\
[ -d /sys/devices/system/cpu/vulnerabilities ] || { echo absent; exit 0; }
cd /sys/devices/system/cpu/vulnerabilities && grep -H . ./*""",
    hand="grep -H . /sys/devices/system/cpu/vulnerabilities/*",
)

SMT = Probe(
    "cpu.smt",
    """\
[ -d /sys/devices/system/cpu/smt ] || { echo absent; exit 0; }
cd /sys/devices/system/cpu/smt && printf 'active=%s\\ncontrol=%s\\n' "$(cat active)" "$(cat control)" """,
    hand="grep -H . /sys/devices/system/cpu/smt/active /sys/devices/system/cpu/smt/control",
)

_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon", "IBM/S390": "IBM"}


@dataclass(frozen=True, slots=True)
class HostCpu(HostFact):
    """The host's processor as libvirt names it; what `capabilities` leaves out comes from /proc/cpuinfo."""

    probes: ClassVar[tuple[Probe, ...]] = (CAPABILITIES, CPUINFO)

    arch: str
    model: str | None
    """The closest model libvirt knows; it need not resemble the product's name. None: libvirt names none."""
    vendor: str | None
    signature: CpuSignature | None
    """Family, model, stepping; None on other than x86."""
    features: frozenset[str]
    """What the processor has beyond the model."""
    microcode: int | None
    tsc_frequency_hz: int | None
    tsc_scaling: bool | None
    """Whether the processor can give a guest another TSC frequency than its own. None: not stated."""
    address_bits: int | None
    """Physical address bits that are usable (memory encryption takes some away)."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`/capabilities/host/cpu`."""
        root = said.xml(CAPABILITIES)
        cpu = root.find("host/cpu")
        if root.tag != "capabilities" or cpu is None:
            raise Unavailable(CAPABILITIES, "no <host><cpu> in what libvirt printed")
        try:
            processor = Processor.parse(said)
        except (Unavailable, ValueError, LookupError):
            processor = None
        arch = cpu.findtext("arch")
        if not arch:
            raise Unavailable(CAPABILITIES, "libvirt does not name the host's architecture")
        tsc = cpu.find("counter[@name='tsc']")
        bits = _integer(cpu.find("maxphysaddr"), "bits")
        return cls(
            arch=arch,
            model=cpu.findtext("model") or None,
            vendor=cpu.findtext("vendor") or (processor.vendor if processor else None),
            signature=_signature(cpu) or (processor.signature if processor else None),
            features=frozenset(node.get("name", "") for node in cpu.findall("feature")),
            microcode=_integer(cpu.find("microcode"), "version"),
            tsc_frequency_hz=_integer(tsc, "frequency"),
            tsc_scaling={"yes": True, "no": False}.get(tsc.get("scaling", "")) if tsc is not None else None,
            address_bits=(processor.address_bits if processor else None) or bits,
        )


@dataclass(frozen=True, slots=True)
class Processor(HostFact):
    """The processor as the kernel tells it in /proc/cpuinfo."""

    probes: ClassVar[tuple[Probe, ...]] = (CPUINFO,)

    identity: str
    """Equal for processors of the same design and stepping: `Intel family 6 model 85 stepping 7`."""
    name: str
    vendor: str | None
    """By libvirt's name (Intel, AMD, …); None where the kernel tells none."""
    signature: CpuSignature | None
    flags: frozenset[str]
    """The kernel's names; they are not always libvirt's."""
    address_bits: int | None
    processors: int

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The first processor's block, and the number of processors."""
        sections = _sections(said.lines(CPUINFO))
        block = _pairs(sections[""])
        [count] = sections["processors"] or [""]
        raw = block.get("vendor_id")
        vendor = _VENDORS.get(raw, raw) if raw else "ARM" if block.get("cpu implementer") == "0x41" else None
        signature = None
        if "cpu family" in block:
            signature = CpuSignature(int(block["cpu family"]), int(block["model"]), int(block["stepping"]))
        bits = re.match(r"(\d+) bits physical", block.get("address sizes", ""))
        identity = _identity(block, vendor, signature)
        return cls(
            identity=identity,
            name=block.get("model name") or block.get("cpu") or identity,
            vendor=vendor,
            signature=signature,
            flags=frozenset((block.get("flags") or block.get("features") or "").split()),
            address_bits=int(bits[1]) if bits else None,
            processors=int(count),
        )


@dataclass(frozen=True, slots=True)
class Microcode(HostFact):
    """The microcode revisions of all the host's processors."""

    probes: ClassVar[tuple[Probe, ...]] = (CPUINFO,)

    revisions: tuple[int, ...]
    """Distinct ones, ascending; more than one is trouble. Empty: the kernel shows none (ARM, s390x, POWER)."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`microcode : 0x2b000590`, once per distinct value."""
        lines = _sections(said.lines(CPUINFO))["microcode"]
        return cls(tuple(sorted({int(line.partition(":")[2], 16) for line in lines})))

    def __str__(self) -> str:
        return ", ".join(hex(revision) for revision in self.revisions) or "none shown"


@dataclass(frozen=True, slots=True)
class Vulnerabilities(HostFact):
    """The kernel's opinion on each known processor vulnerability."""

    probes: ClassVar[tuple[Probe, ...]] = (VULNERABILITIES,)

    states: tuple[tuple[str, str], ...]
    """Name and text, by name. Empty: this kernel tells nothing about vulnerabilities."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`./l1tf:Mitigation: PTE Inversion`, a line each."""
        lines = said.lines(VULNERABILITIES)
        if lines == ["absent"]:
            return cls(())
        states = []
        for line in lines:
            path, colon, text = line.partition(":")
            if not colon or not text.strip():
                raise ValueError(f"not a vulnerability: {visible(line, 80)}")
            states.append((path.rpartition("/")[2], text.strip()))
        return cls(tuple(sorted(states)))

    @property
    def vulnerable(self) -> frozenset[str]:
        """Those that the kernel calls vulnerable, also behind a prefix such as `KVM: `."""
        return frozenset(name for name, text in self.states if re.match(r"(\w+: )?Vulnerable\b", text))


@dataclass(frozen=True, slots=True)
class Smt(HostFact):
    """Simultaneous multithreading."""

    probes: ClassVar[tuple[Probe, ...]] = (SMT,)

    active: bool | None
    """None: this kernel does not tell."""
    control: str | None
    """on, off, forceoff, notsupported, notimplemented, or a number of threads."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`active=1`, `control=on`."""
        lines = said.lines(SMT)
        if lines == ["absent"]:
            return cls(None, None)
        values = dict(line.split("=", 1) for line in lines)
        return cls({"0": False, "1": True}[values["active"]], values["control"])


@dataclass(frozen=True, slots=True)
class CpuIdentity(HostFact):
    """All that decides what a host-passthrough guest sees beyond the features that have names."""

    probes: ClassVar[tuple[Probe, ...]] = (CPUINFO, KERNEL, VIRSH)

    family: str
    """What no guest survives a change of: vendor and family, or the ARM part."""
    processor: str
    microcode: tuple[int, ...]
    kernel: str
    qemu: Version | None

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the facts of the same names."""
        identity = Processor.parse(said).identity
        return cls(
            re.split(r" model | variant | revision ", identity)[0],
            identity,
            Microcode.parse(said).revisions,
            Kernel.parse(said).release,
            Qemu.parse(said).version,
        )

    def differences(self, other: "CpuIdentity") -> tuple[str, ...]:
        """In words, `mine → theirs`."""
        return _unequal(
            ("processor", self.processor, other.processor),
            ("microcode", _hex(self.microcode), _hex(other.microcode)),
            ("kernel", self.kernel, other.kernel),
            ("QEMU", str(self.qemu), str(other.qemu)),
        )

    def software_differences(self, other: "CpuIdentity") -> tuple[str, ...]:
        """The same for an emulated CPU, which is QEMU's work alone."""
        return _unequal(("QEMU", str(self.qemu), str(other.qemu)))


def _unequal(*pairs: tuple[str, str, str]) -> tuple[str, ...]:
    return tuple(f"{what} {mine} → {theirs}" for what, mine, theirs in pairs if mine != theirs)


def _hex(revisions: Sequence[int]) -> str:
    return ", ".join(map(hex, revisions)) or "none shown"


def _integer(node: etree._Element | None, attribute: str) -> int | None:
    value = node.get(attribute) if node is not None else None
    return int(value) if value else None


def _signature(cpu: etree._Element) -> CpuSignature | None:
    node = cpu.find("signature")
    family, model = _integer(node, "family"), _integer(node, "model")
    if family is None or model is None:
        return None
    return CpuSignature(family, model, _integer(node, "stepping") or 0)


def _sections(lines: Sequence[str]) -> dict[str, list[str]]:
    """The lines before the first `== name`, under "", and those behind each."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in lines:
        if line.startswith("== "):
            name = line[3:]
            sections[name] = []
        else:
            sections[name].append(line)
    return sections


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    """`model name : Intel …` by its name in lower case; of repeated names the first counts."""
    pairs: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            pairs.setdefault(name.strip().lower(), value.strip())
    return pairs


def _identity(block: dict[str, str], vendor: str | None, signature: CpuSignature | None) -> str:
    """What two processors must share to be the same; the words differ by architecture."""
    if signature:
        return f"{vendor} family {signature.family} model {signature.model} stepping {signature.stepping}"
    if "cpu implementer" in block:
        part = (block.get(f"cpu {name}", "?") for name in ("implementer", "part", "variant", "revision"))
        return "ARM implementer {} part {} variant {} revision {}".format(*part)
    if "processor 0" in block:  # s390x: version = FF, identification = 1E41E8, machine = 3906
        machine = re.search(r"machine = (\w+)", block["processor 0"])
        return f"IBM/S390 machine {machine[1] if machine else '?'}"
    if "cpu" in block:
        return f"{block['cpu']} revision {block.get('revision', '?')}"
    raise ValueError("no processor that this program knows")
