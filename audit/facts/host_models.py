"""What a host can give to guests: libvirt's `domcapabilities`, by virttype, architecture, machine type and emulator.

The first round asks for guests of the host's own architecture, the second for what the cluster's guests need beyond.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from lxml import etree

from audit.cpu import CpuDefinition, CpuError, Hypervisor, from_element
from audit.evidence import Probe
from audit.facts.arguments import INSTALLED
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.guest import GuestMachine
from audit.text import NotXml, parse_xml, visible

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


class Request(NamedTuple):
    """What a guest needs of a hypervisor; "" = not stated (the default of the host)."""

    virttype: str
    arch: str
    machine: str
    emulator: str = ""

    @classmethod
    def of(cls, guest: GuestMachine) -> "Request":
        """What this guest needs."""
        return cls(guest.virttype, guest.arch, guest.machine, guest.emulator or "")


_KINDS = (("redirdev", "bus"), ("rng", "backendModel"), ("filesystem", "driverType"), ("channel", "type"))
"""Devices in domain capabilities, and the list that tells of which kinds they may be."""


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
    # What devices may be, where this libvirt lists it. None: it does not list them (too old); empty: none.
    graphics: frozenset[str] | None = None
    """vnc, spice, …"""
    videos: frozenset[str] | None = None
    """virtio, qxl, none, …"""
    tpm_backends: frozenset[str] | None = None
    """passthrough, emulator (only where there is swtpm), external."""
    tpm_models: frozenset[str] | None = None
    hyperv: frozenset[str] | None = None
    """Enlightenments; listed since libvirt 9.0."""
    kinds: tuple[tuple[str, frozenset[str]], ...] = ()
    """Of other devices that it lists: the element and the kinds that it may be of; none, where it is not supported."""

    def offers(self, device: str, kind: str) -> bool | None:
        """Whether a device of the kind is among those listed; None: such devices are not listed."""
        listed = dict(self.kinds).get(device)
        return None if listed is None else kind in listed


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
    (re.compile(r"QEMU binary .* is not executable", re.DOTALL), "emulator"),
)

# Asking makes libvirt start the emulator. So only what is installed as QEMU, by a distribution or below /usr/local and
# /opt, is asked about, and the path that a guest on another host names is not taken at its word.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_MACHINES = 60


def _unanswered(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, ...]]:
    """What the cluster's guests need that this host was not asked in the first round."""
    models = facts.of(host, HostModels)
    if isinstance(models, Unavailable):
        return []
    requests = set()
    for _, guest in facts.each_guest(sorted({host, *peers}), GuestMachine):
        request = models.normal(Request.of(guest))
        harmless = all(_NAME.fullmatch(name) for name in request[:3])
        if harmless and (not request.emulator or INSTALLED.fullmatch(request.emulator)):
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
        graphics=_values(root, "devices/graphics", "type"),
        videos=_values(root, "devices/video", "modelType"),
        tpm_backends=_values(root, "devices/tpm", "backendModel"),
        kinds=tuple(
            (device, kinds)
            for device, enum in _KINDS
            if (kinds := _values(root, f"devices/{device}", enum)) is not None
        ),
        tpm_models=_values(root, "devices/tpm", "model"),
        hyperv=_hyperv(_values(root, "features/hyperv", "features") or frozenset()),
    )


def _hyperv(listed: frozenset[str]) -> frozenset[str] | None:
    """Of a QEMU that cannot be asked libvirt says "no", or lists the two that it need not ask about."""
    return listed if listed - {"spinlocks", "vendor_id"} else None


def _values(root: etree._Element, path: str, name: str) -> frozenset[str] | None:
    """The values of an `<enum>`; none where the element is there and says that it is not supported."""
    node = root.find(path)
    if node is None:
        return None
    if node.get("supported") == "no":
        return frozenset()
    values = node.find(f"enum[@name='{name}']")
    return None if values is None else frozenset(value.text or "" for value in values.iterfind("value"))


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
        if len(record) != DOMCAPS_MACHINES.arity:
            continue  # that was asked by another version of this program, in other words
        request = Request(*record)
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


def _required(node: etree._Element, child: str) -> str:
    text = node.findtext(child)
    if not text:
        raise ValueError(f"<{node.tag}> without <{child}>")
    return text
