"""CPUs: what a host has, what it can give to guests, and whether that is enough for a given guest.

libvirt answers from three places: `capabilities` (the processor as libvirt names it), `domcapabilities` (what QEMU
can give to a guest of some virttype and machine type) and its CPU map. The kernel's /proc/cpuinfo fills the gaps.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from lxml import etree

from audit.cpu import CpuDefinition as CpuDefinition  # checks take it from here
from audit.cpu import CpuError, CpuSignature, Hypervisor, from_element
from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.guest import GuestMachine
from audit.facts.versions import KERNEL, VIRSH, Kernel, Qemu, Version
from audit.text import NotXml, parse_xml, visible

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

# The names alone tell which features this libvirt understands; the files themselves are fetched once per digest.
CPU_MAP = Probe(
    "cpu.map",
    """\
[ -e /usr/share/libvirt/cpu_map/index.xml ] || { echo absent; exit 0; }
cd /usr/share/libvirt/cpu_map || exit 1
printf 'sha256 %s\\n' "$(cat index.xml x86_*.xml | sha256sum | cut -d' ' -f1)"
sed -n "s/.*<feature name=[\\"']\\([^\\"']*\\)[\\"'].*/feature \\1/p" x86_features.xml || exit 1
sed -n "s/.*<model name=[\\"']\\([^\\"'/]*\\)[\\"']>.*/model \\1/p" x86_*.xml""",
    hand="ls /usr/share/libvirt/cpu_map",
)

_MACHINE = """\
case $(uname -m) in
x86_64 | i?86) machine=q35 ;;
s390*) machine=s390-ccw-virtio ;;
ppc64*) machine=pseries ;;
*) machine=virt ;;
esac
"""
_DOMCAPABILITIES = "$sudo virsh -c qemu:///system domcapabilities --virttype"
DOMCAPS_KVM = Probe(
    "cpu.domcaps_kvm",
    f'{_MACHINE}{_DOMCAPABILITIES} kvm --machine "$machine"',
    hand="virsh -c qemu:///system domcapabilities --virttype kvm --machine q35",
)
DOMCAPS_KVM_DEFAULT = Probe("cpu.domcaps_kvm_default", f"{_DOMCAPABILITIES} kvm")
DOMCAPS_QEMU = Probe(
    "cpu.domcaps_qemu",
    f'{_MACHINE}{_DOMCAPABILITIES} qemu --machine "$machine"',
    hand="virsh -c qemu:///system domcapabilities --virttype qemu --machine q35",
)
DOMCAPS_QEMU_DEFAULT = Probe("cpu.domcaps_qemu_default", f"{_DOMCAPABILITIES} qemu")
_FIRST_ROUND = (
    (DOMCAPS_KVM, "kvm"),
    (DOMCAPS_KVM_DEFAULT, "kvm"),
    (DOMCAPS_QEMU, "qemu"),
    (DOMCAPS_QEMU_DEFAULT, "qemu"),
)

_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon", "IBM/S390": "IBM"}
X86 = frozenset({"x86_64", "i686"})


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


class Request(NamedTuple):
    """What a guest needs of a hypervisor; "" = not stated (the default of the host)."""

    virttype: str
    arch: str
    machine: str
    emulator: str = ""


@dataclass(frozen=True, slots=True)
class DomainCapabilities:
    """What one QEMU offers to guests of one virttype, architecture and machine type."""

    virttype: str
    arch: str
    machine: str
    """Canonical: q35 → pc-q35-9.2."""
    emulator: str
    host_model: CpuDefinition | None
    """The CPU that `host-model` stands for, features included that do not migrate. None: not offered."""
    modes: frozenset[str]
    """CPU modes that are supported: host-passthrough, maximum, host-model, custom."""
    hypervisor: Hypervisor | None
    """The named models, each usable or not and what blocks it. None: no named models."""
    deprecated: frozenset[str]
    """Those of the models that QEMU calls deprecated."""
    features: frozenset[str]
    """Hypervisor features that are supported: sev, tdx, sgx, hyperv, genid, …"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """libvirt's definite no to a request."""

    request: Request
    what: Literal["virttype", "arch", "machine", "emulator"]
    words: str


# Definite answers. Everything else that fails (no permission, no daemon, translated text) leaves the question open.
_REFUSALS: tuple[tuple[re.Pattern[str], Literal["virttype", "arch", "machine", "emulator"]], ...] = (
    (re.compile(r"the accel '[^']*' is not supported by "), "virttype"),
    (re.compile(r"KVM is not supported by '"), "virttype"),
    (re.compile(r" does not support virt type '"), "virttype"),
    (re.compile(r"unknown virttype: "), "virttype"),
    (re.compile(r"unable to find any emulator to serve "), "arch"),
    (re.compile(r"unknown architecture: "), "arch"),
    (re.compile(r"the machine '.*' is not supported by emulator ", re.DOTALL), "machine"),
    (re.compile(r"Cannot check QEMU binary .*: No such file or directory", re.DOTALL), "emulator"),
)

# Asking makes libvirt start the emulator. So only what a distribution installs as QEMU is asked about, and the path
# that a guest on another host names is not taken at its word.
_EMULATOR = re.compile(r"/usr/(?:bin|libexec)/(?:qemu-[a-z0-9_-]{1,40}|kvm(?:-spice)?)")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_MACHINES = 60


def _unanswered(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, ...]]:
    """What the cluster's guests need that this host was not asked in the first round."""
    models = facts.of(host, HostModels)
    if isinstance(models, Unavailable):
        return []
    requests = set()
    for _, guest in facts.each_guest(sorted({host, *peers}), GuestMachine):
        request = models.normal(Request(guest.virttype, guest.arch, guest.machine, guest.emulator or ""))
        harmless = all(_NAME.fullmatch(name) for name in request[:3])
        if harmless and (not request.emulator or _EMULATOR.fullmatch(request.emulator)):
            requests.add(request)
    return [tuple(request) for request in sorted(requests) if models.find(request) is None]


# The records are few and short, so that xargs starts one sh, whose counting is the records' number. Every line of an
# answer carries that number, put there by sed: no answer can pass for another's.
DOMCAPS_MACHINES = Question(
    "cpu.domcaps_machines",
    """\
xargs -0 sh -c '
record=0
while [ $# -ge 4 ]; do
  record=$((record + 1))
  answer=$($sudo virsh -c qemu:///system domcapabilities --virttype "$1" --arch "$2" --machine "$3" \\
    ${4:+--emulatorbin "$4"} 2>&1)
  status=$?
  printf "%s\\n" "$answer" | sed "s/^/$record:/"
  echo "$record=$status"
  shift 4
done' sh""",
    seconds=120,
    limit=16 * 1024 * 1024,
    ask=_unanswered,
    arity=4,
    maximum=_MOST_MACHINES,
    hand="virsh -c qemu:///system domcapabilities --virttype VIRTTYPE --arch ARCH --machine MACHINE",
)


@dataclass(frozen=True, slots=True)
class HostModels(HostFact):
    """What this host can give to guests: the native machine type, the default one, and those that guests use."""

    probes: ClassVar[tuple[Probe, ...]] = (*(probe for probe, _ in _FIRST_ROUND), DOMCAPS_MACHINES)

    natives: tuple[DomainCapabilities, ...]
    """For guests of the host's own architecture: kvm, then qemu; of the usual machine type, then the default one."""
    others: tuple[DomainCapabilities, ...]
    """For what the cluster's guests need beyond that."""
    emulators: frozenset[str]
    """Those that libvirt takes for a guest that names none."""
    refusals: tuple[Refusal, ...]
    unanswered: tuple[tuple[Request, str], ...]
    """What was asked and not answered, and why."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Each answer for itself: one that is missing leaves the others standing."""
        first = _first_round(said)
        lost = next((answer for _, answer in first if isinstance(answer, Unavailable)), None)
        if lost and all(isinstance(answer, Unavailable) for _, answer in first):
            raise lost
        second = _second_round(said)
        natives = [answer for _, answer in first if isinstance(answer, DomainCapabilities)]
        others = [(request, answer) for request, answer in second if isinstance(answer, DomainCapabilities)]
        usual = [answer for request, answer in others if not request.emulator]
        refusals = [answer for _, answer in first + second if isinstance(answer, Refusal)]
        unanswered = [(request, reason.reason) for request, reason in first + second if isinstance(reason, Unavailable)]
        return cls(
            natives=tuple(dict.fromkeys(natives)),
            others=tuple(dict.fromkeys(answer for _, answer in others)),
            emulators=frozenset(answer.emulator for answer in natives + usual),
            refusals=tuple(dict.fromkeys(refusals)),
            unanswered=tuple(dict.fromkeys(unanswered)),
        )

    def find(self, request: Request) -> DomainCapabilities | Refusal | None:
        """What libvirt says to this very request; None: it was not asked, or did not answer."""
        wanted = self.normal(request)
        for answer in self.natives + self.others:
            if self.normal(_request(answer)) == wanted:
                return answer
        for refusal in self.refusals:
            asked = refusal.request
            no_such_virttype = asked == Request(wanted.virttype, "", "") and refusal.what == "virttype"
            if asked == wanted or (no_such_virttype and not wanted.emulator):
                return refusal
        return None

    def offer(self, request: Request) -> DomainCapabilities | Refusal:
        """What is offered to such a guest, as far as its CPU is concerned.

        libvirt computes CPUs per emulator and virttype, whatever the machine type; so where this very machine type
        was not answered for, another's answer serves. Raises `Unavailable` when nothing was answered.
        """
        exact = self.find(request)
        if exact is not None and not (isinstance(exact, Refusal) and exact.what == "machine"):
            return exact
        wanted = self.normal(request)._replace(machine="")
        for answer in self.natives + self.others:
            if self.normal(_request(answer))._replace(machine="") == wanted:
                return answer
        if exact is not None:
            return exact
        raise Unavailable(DOMCAPS_MACHINES, self._why(wanted))

    def native(self, virttype: str) -> DomainCapabilities | Refusal:
        """What is offered to a guest of the host's own architecture and the usual machine type."""
        for answer in self.natives:
            if answer.virttype == virttype:
                return answer
        for refusal in self.refusals:
            if refusal.request == Request(virttype, "", ""):
                return refusal
        probe = next(probe for probe, asked in _FIRST_ROUND if asked == virttype)
        raise Unavailable(probe, self._why(Request(virttype, "", "")))

    def normal(self, request: Request) -> Request:
        """The request without its emulator, where that is the one this host takes by itself."""
        return request._replace(emulator="") if request.emulator in self.emulators else request

    def host_model(self, virttype: str, arch: str, machine: str, emulator: str = "") -> CpuDefinition:
        """The host-model for such a guest. Raises `Unavailable` when libvirt did not say."""
        offer = self.offer(Request(virttype, arch, machine, emulator))
        if isinstance(offer, Refusal):
            raise Unavailable(DOMCAPS_MACHINES, f"libvirt refuses: {offer.words}")
        if offer.host_model is None:
            raise Unavailable(DOMCAPS_MACHINES, f"{offer.emulator} offers no host-model for {virttype} {arch}")
        return offer.host_model

    def _why(self, wanted: Request) -> str:
        for request, reason in self.unanswered:
            if request.virttype == wanted.virttype and request.arch in ("", wanted.arch):
                return reason
        if wanted.emulator:
            return f"not asked about the emulator {visible(wanted.emulator, 100)} here"
        return f"not asked about {visible(wanted.virttype, 20)} guests of {visible(wanted.arch, 20)}"


def _request(answer: DomainCapabilities) -> Request:
    return Request(answer.virttype, answer.arch, answer.machine, answer.emulator)


Answer = DomainCapabilities | Refusal | Unavailable


def _first_round(said: Said) -> list[tuple[Request, Answer]]:
    answers: list[tuple[Request, Answer]] = []
    for probe, virttype in _FIRST_ROUND:
        request = Request(virttype, "", "")
        try:
            output = said.evidence(probe)
            answers.append((request, _answer(probe, request, output.status, output.stdout, output.stderr)))
        except Unavailable as reason:
            answers.append((request, reason))
    return answers


def _answer(
    probe: Probe, request: Request, status: int | None, stdout: bytes, stderr: bytes
) -> DomainCapabilities | Refusal:
    """One run of virsh domcapabilities; raises `Unavailable`."""
    if status == 0:
        try:
            return _domain_capabilities(parse_xml(stdout), stdout)
        except (NotXml, CpuError, LookupError, ValueError) as error:
            raise Unavailable(probe, f"not understood: {visible(str(error), 200)}") from error
    words = [line.removeprefix("error: ") for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    for line in words:
        for pattern, what in _REFUSALS:
            if pattern.search(line):
                return Refusal(request, what, visible(line, 300))
    raise Unavailable(probe, f"exit status {status}" + (f": {visible(words[-1], 200)}" if words else ""))


def _domain_capabilities(root: etree._Element, source: bytes) -> DomainCapabilities:
    if root.tag != "domainCapabilities":
        raise ValueError(f"<{root.tag}> where <domainCapabilities> was expected")
    modes = {node.get("name", ""): node for node in root.findall("cpu/mode") if node.get("supported") == "yes"}
    features = root.find("features")
    supported = [] if features is None else [node for node in features if node.get("supported") == "yes"]
    return DomainCapabilities(
        virttype=_required(root, "domain"),
        arch=_required(root, "arch"),
        machine=root.findtext("machine") or "",
        emulator=_required(root, "path"),
        host_model=_host_model(modes["host-model"]) if "host-model" in modes else None,
        modes=frozenset(modes),
        hypervisor=Hypervisor.from_domcapabilities(source) if "custom" in modes else None,
        deprecated=frozenset(node.text or "" for node in root.iterfind("cpu/mode/model[@deprecated='yes']")),
        features=frozenset(str(node.tag) for node in supported),
    )


def _host_model(mode: etree._Element) -> CpuDefinition | None:
    """A `<mode>` is a guest's `<cpu>` under another name; an old libvirt prints it empty where it knows none."""
    cpu = copy.deepcopy(mode)
    cpu.tag = "cpu"
    cpu.attrib.clear()
    definition = from_element(cpu, "guest")
    return definition if definition.model else None


def _second_round(said: Said) -> list[tuple[Request, Answer]]:
    """The answers to the question, in order of its records."""
    output = said.host.outputs.get(DOMCAPS_MACHINES.name)
    if output is None:
        return []  # nothing had to be asked
    answers: list[tuple[Request, Answer]] = []
    for number, record in enumerate(output.arguments, 1):
        request = Request(*record[: len(Request._fields)])
        try:
            said.evidence(DOMCAPS_MACHINES)
            answers.append((request, _second_answer(output.stdout, number, request)))
        except Unavailable as reason:
            answers.append((request, reason))
    return answers


def _second_answer(stdout: bytes, number: int, request: Request) -> DomainCapabilities | Refusal:
    """Lines `NUMBER:text` are what virsh printed, `NUMBER=status` ends them. Raises `Unavailable`."""
    status = re.findall(rb"^%d=(\d+)$" % number, stdout, re.MULTILINE)
    if len(status) != 1:
        raise Unavailable(DOMCAPS_MACHINES, "not answered")
    text = b"\n".join(re.findall(rb"^%d:(.*)$" % number, stdout, re.MULTILINE))
    document = re.search(rb"<domainCapabilities>.*</domainCapabilities>", text, re.DOTALL)
    return _answer(DOMCAPS_MACHINES, request, int(status[0]), document[0] if document else b"", text)


@dataclass(frozen=True, slots=True)
class CpuMapFiles(HostFact):
    """libvirt's CPU map on this host."""

    probes: ClassVar[tuple[Probe, ...]]

    digest: str | None
    """sha256 over index.xml and x86_*.xml; None: there is no map where libvirt keeps it."""
    features: frozenset[str] | None
    """Names of the x86 features that this libvirt understands. None: see `digest`."""
    models: frozenset[str] | None
    """Names of the x86 models that it understands; QEMU may have fewer."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`sha256 DIGEST`, then `feature NAME` and `model NAME`."""
        lines = said.lines(CPU_MAP)
        if lines == ["absent"]:
            return cls(None, None, None)
        words = [line.split(maxsplit=1) for line in lines]
        [digest] = [rest for word, rest in words if word == "sha256"]
        features = frozenset(rest for word, rest in words if word == "feature")
        models = frozenset(rest for word, rest in words if word == "model")
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not features or not models:
            raise ValueError("neither absent nor a CPU map")
        return cls(digest, features, models)


def _first_with_map(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, ...]]:
    """Each distinct map is fetched once in the cluster, from the first host that has it."""
    digests = {name: fact.digest for name, fact in facts.each(sorted({host, *peers}), CpuMapFiles) if fact.digest}
    digest = digests.get(host)
    return [(digest,)] if digest and min(name for name in digests if digests[name] == digest) == host else []


CPU_MAP_FILES = Question(
    "cpu.map_files",
    """\
cat >/dev/null
cd /usr/share/libvirt/cpu_map || exit 1
for file in index.xml x86_*.xml; do
  printf '== %s\\n' "$file"
  cat "$file" || exit 1
  echo
done""",
    seconds=30,
    limit=16 * 1024 * 1024,
    ask=_first_with_map,
    maximum=1,
    hand="cat /usr/share/libvirt/cpu_map/index.xml /usr/share/libvirt/cpu_map/x86_*.xml",
)
CpuMapFiles.probes = (CPU_MAP, CPU_MAP_FILES)


def cpu_map_files(said: Said) -> dict[str, bytes]:
    """The files of this host's CPU map, for `CpuMap.from_files`. Raises `Unavailable` where they were not fetched."""
    said.text(CPU_MAP_FILES)
    text = said.evidence(CPU_MAP_FILES).stdout
    parts = re.split(rb"^== (index\.xml|x86_[A-Za-z0-9_.+-]+\.xml)\n", text, flags=re.MULTILINE)
    files = {name.decode(): content for name, content in zip(parts[1::2], parts[2::2], strict=True)}
    if "index.xml" not in files:
        raise Unavailable(CPU_MAP_FILES, "no index.xml among the files")
    return files


def _required(node: etree._Element, child: str) -> str:
    text = node.findtext(child)
    if not text:
        raise ValueError(f"<{node.tag}> without <{child}>")
    return text


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
