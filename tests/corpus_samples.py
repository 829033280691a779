"""Samples of the corpus, and how each kind of them is brought before its reader.

Where a probe prints more than the sample has (marks, several files at once), the rest is put around it as the probe
would print it.
"""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from audit.cpu import NotComputable, UnreadableInput, read_cpus
from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, GuestFact, HostFact, Unavailable
from audit.facts.clock import Clock
from audit.facts.confinement import SecurityDrivers
from audit.facts.cpu import CPUINFO, HostCpu, Microcode, Processor, Smt, Vulnerabilities
from audit.facts.dirty_rate import GuestDirtyRate
from audit.facts.firewall import Firewall, Firewalld, Listening
from audit.facts.guest import GuestCpu, GuestMachine, GuestMemory, GuestState
from audit.facts.guest_devices import GuestDisks, GuestNics
from audit.facts.guest_jobs import GuestJob
from audit.facts.guest_source import _SECTIONS, read_guests
from audit.facts.host_models import HostModels
from audit.facts.identity import HostIdentity
from audit.facts.kvm import Kvm
from audit.facts.layer2 import Segments
from audit.facts.machines import MachineTypes
from audit.facts.mellanox import MellanoxDevices, Pf
from audit.facts.memory import HugePages, Memory, NumaTopology
from audit.facts.names import OwnAddresses, OwnNames
from audit.facts.netfilter import Family, Packet
from audit.facts.network import LibvirtNetworks, Links, Speeds, Subnets, WayOut
from audit.facts.nfs import Exports
from audit.facts.openvswitch import OpenVswitch
from audit.facts.qemu_conf import QemuConf, parse_conf
from audit.facts.reach import Reach
from audit.facts.services import Units
from audit.facts.storage import Mounts, Selinux
from audit.facts.versions import Kernel, KernelArguments, Libvirt, OsRelease, Packages, Qemu

MARK = "0123456789abcdef0123456789abcdef"
UUID = "00000000-0000-4000-8000-000000000001"


class Sample(NamedTuple):
    """One file of the corpus: a command's output, or what a document quotes of one."""

    name: str
    path: Path
    status: int
    out: str
    err: str


def load(path: Path) -> Sample:
    """Some files tell exit status and both outputs apart, others are standard output alone."""
    text = path.read_text("utf-8", "replace")
    match = re.fullmatch(r"### rc=(\d+)\n### stdout\n(.*?)### stderr\n(.*)", text, re.DOTALL)
    if not match:
        return Sample(path.stem, path, 0, text, "")
    return Sample(path.stem, path, int(match[1]), match[2], match[3])


H = TypeVar("H", bound=HostFact)
G = TypeVar("G", bound=GuestFact)
Answers = Mapping[str, str | Evidence | Sample]


def _facts(answers: Answers) -> Facts:
    outputs = {}
    for probe, answer in answers.items():
        match answer:
            case Evidence():
                outputs[probe] = answer
            case Sample():
                outputs[probe] = Evidence(probe, answer.status, answer.out.encode(), answer.err.encode())
            case str():
                outputs[probe] = Evidence(probe, 0, answer.encode())
    return Facts({"h": HostEvidence("h", outputs)}, read_guests)


def fact(kind: type[H], answers: Answers) -> H:
    """The host's fact. Raises `Unavailable`."""
    return _facts(answers).told("h", kind)


def _shown(*values: Any) -> str:
    words = (",".join(sorted(map(str, v))) if isinstance(v, frozenset | set | tuple | list) else str(v) for v in values)
    return " ".join(word if word else "-" for word in words)


# --- processors and what libvirt makes of them


def _cpuinfo(sample: Sample) -> str:
    """What the probe prints on a host whose /proc/cpuinfo is that file."""
    lines = [line for line in sample.out.splitlines() if not line.startswith("#") or "processors" in line]
    copy = "cat <<'EOF' | sed '/./,$!d' >\"$file\"\n" + "\n".join(lines) + "\nEOF\n"
    command = "file=$(mktemp); " + copy + CPUINFO.command.replace("/proc/cpuinfo", '"$file"') + '\nrm -f "$file"'
    printed = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout
    answers = {"cpu.cpuinfo": printed}
    processor, microcode = fact(Processor, answers), fact(Microcode, answers)
    return f"{processor.identity}, {processor.processors} processors, {processor.address_bits} bits, {microcode}"


def _vulnerabilities(sample: Sample) -> str:
    text = sample.out if re.match(r"\S+/\w+:", sample.out) else f"./one:{sample.out}"
    found = fact(Vulnerabilities, {"cpu.vulnerabilities": text})
    return f"{len(found.states)}, vulnerable: {_shown(found.vulnerable)}"


def _smt(sample: Sample) -> str:
    active, _, control = sample.out.strip().partition("\n")
    found = fact(Smt, {"cpu.smt": f"active={active}\ncontrol={control}\n"})
    return f"{found.active} {found.control or '-'}"


def _capabilities(sample: Sample) -> str:
    answers: Answers = {"cpu.capabilities": sample, "memory.nodes": "absent\n"}
    cpu, machines = fact(HostCpu, answers), fact(MachineTypes, answers)
    facts = _facts(answers)
    uuid, nodes = facts.of("h", HostIdentity), facts.of("h", NumaTopology)
    drivers = facts.of("h", SecurityDrivers)
    return "; ".join(
        [
            f"{cpu.arch} {cpu.model} {cpu.vendor} +{len(cpu.features)}",
            f"{machines.usual('kvm') or machines.usual('qemu')}",
            "no uuid" if isinstance(uuid, Unavailable) else uuid.uuid,
            "no nodes" if isinstance(nodes, Unavailable) else f"{len(nodes.nodes)} nodes, {len(nodes.cpus)} CPUs",
            "no drivers" if isinstance(drivers, Unavailable) else _shown(drivers.models),
        ]
    )


def _domcapabilities(sample: Sample) -> str:
    text = sample.out[max(sample.out.find("<domainCapabilities>"), 0) :]
    models = fact(HostModels, {"cpu.domcaps_kvm": sample._replace(out=text)})
    for refusal in models.refusals:
        return f"refuses the {refusal.what}"
    [offer] = models.natives
    known = offer.hypervisor.models if offer.hypervisor else ()
    return "; ".join(
        [
            f"{offer.virttype} {offer.arch} {offer.machine}",
            f"host-model {offer.host_model.model if offer.host_model else None}",
            f"{len(known)} models",
            _shown(offer.features),
        ]
    )


def _cpus(sample: Sample) -> str:
    try:
        [cpu] = read_cpus(sample.out.encode())
    except (UnreadableInput, NotComputable) as error:
        return f"refused: {error}"
    return f"{cpu.model} +{len(cpu.features)}"


# --- guests


def _guests(xml: str, **answers: str) -> Facts:
    """The facts of a host with that one guest, whatever its UUID; one without is given one."""
    match = re.search(r"<uuid>([0-9a-f-]{36})</uuid>", xml)
    uuid = match[1] if match else UUID
    runs = re.search(r"<domain[^>]*\sid=", xml) is not None
    lists = {"all", "running" if runs else "shutoff", "persistent", "no-snapshots"}
    listing = "".join(f"@{name}\n" + (f"{uuid}\n" if name in lists else "") for name in _SECTIONS)
    whole = f"{MARK}\n{MARK} {uuid}\n{xml.strip()}\n{MARK} end\n"
    marked = {f"guest.{name}": f"{MARK}\n{MARK} {uuid}\n{text}\n{MARK} end\n" for name, text in answers.items()}
    return _facts({"guest.list": listing, "guest.xml": whole, "guest.xml_inactive": whole, **marked})


def _domain(sample: Sample) -> str:
    facts = _guests(sample.out if sample.status == 0 else sample.err)
    guests = facts.guests("h")
    if isinstance(guests, Unavailable):
        raise guests
    [guest] = guests
    machine, cpu = facts.told_of_guest(guest, GuestMachine), facts.of_guest(guest, GuestCpu)
    memory = facts.of_guest(guest, GuestMemory)
    disks, nics = facts.told_of_guest(guest, GuestDisks), facts.told_of_guest(guest, GuestNics)
    model = (
        cpu.definition and (cpu.definition.model or cpu.definition.mode) if isinstance(cpu, GuestCpu) else cpu.reason
    )
    return "; ".join(
        [
            guest.name,
            f"{machine.virttype} {machine.arch} {machine.machine}",
            f"{model}",
            f"{memory.memory_kib} KiB" if isinstance(memory, GuestMemory) else memory.reason,
            _shown([disk.source or "empty" for disk in disks.disks]),
            _shown([nic.source or nic.pci_address or nic.type for nic in nics.nics]),
            facts.told_of_guest(guest, GuestState).state,
        ]
    )


def _job(sample: Sample) -> str:
    facts = _guests(f"<domain id='1'><name>g</name><uuid>{UUID}</uuid></domain>", jobs=sample.err)
    guests = facts.guests("h")
    assert not isinstance(guests, Unavailable)
    return facts.told_of_guest(guests[0], GuestJob).job


def _dirty_rate(begun: str, told: str) -> str:
    """What is read of a running guest where virsh said this of the start, and this of the result."""
    facts = _guests(f"<domain id='1'><name>g</name><uuid>{UUID}</uuid></domain>")
    marked = f"{MARK}\n{MARK} 0\n{begun}\n{MARK} {UUID}\n{told}\n{MARK} end\n"
    said = Evidence("guest.dirty_rate", 0, marked.encode(), arguments=(("0", UUID, "5"),))
    facts = Facts({"h": HostEvidence("h", {**facts.said("h").host.outputs, "guest.dirty_rate": said})}, read_guests)
    guests = facts.guests("h")
    assert not isinstance(guests, Unavailable)
    rate = facts.told_of_guest(guests[0], GuestDirtyRate)
    return f"{rate.mib_per_second} MiB/s in {rate.seconds} s"


def _listing(sample: Sample) -> str:
    guests = _facts({"guest.list": sample}).guests("h")
    if isinstance(guests, Unavailable):
        raise guests
    return str(len(guests))


# --- memory


def _hugepages(sample: Sample) -> str:
    lines = "".join(f"{line}\n" for line in sample.out.splitlines() if line.startswith("/sys"))
    meminfo = "MemTotal: 1 kB\nMemAvailable: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nHugepagesize: 2048 kB\n"
    huge = fact(HugePages, {"memory.hugepages": f"{lines}end\n", "memory.meminfo": meminfo})
    return _shown(*(f"{size}:{huge.pool(size).free}" for size in huge.sizes_kib))


def _meminfo(sample: Sample) -> str:
    memory = fact(Memory, {"memory.meminfo": sample})
    return f"{memory.available_kib} of {memory.total_kib}"


def _node(sample: Sample) -> str:
    """One node's file; the other files of the node are made up."""
    files = {"cpulist": "0", "distance": "10", "meminfo": "1 kB"}
    what = sample.name.partition("__")[0].rpartition("-")[2]
    total = re.search(r"MemTotal: *(.*)", sample.out)
    files[what] = total[1] if total else sample.out.strip()
    text = "".join(f"node0/{name}:{value}\n" for name, value in files.items())
    [cell] = fact(NumaTopology, {"cpu.capabilities": "", "memory.nodes": f"{text}end\n"}).cells
    return f"{len(cell.cpus)} CPUs, {cell.memory_kib} KiB, {dict(cell.distances)}"


# --- network


def _firewall(nft: str, v4: str, v6: str, family: Family) -> str:
    answers = {"firewall.nft": nft, "firewall.iptables": v4, "firewall.ip6tables": v6, "firewall.legacy": "# end\n"}
    # What the kernel of a host whose iptables makes rules of nftables tells of it, or an older host's.
    used = "nf_tables 303104 40 nft_compat, Live 0x0\n" if "(nf_tables)" in v4 + v6 or not (v4 + v6).strip() else ""
    answers["firewall.nf_tables"] = f"{used}kernel 162114 0\nend\n"
    firewall = fact(Firewall, {name: _status(name, text) for name, text in answers.items()})
    ports = (22, 16509, 16514, 49152, 49216)
    words = [
        f"{port} {answer.state}"
        for port in ports
        for _, answer in firewall.answers(range(port, port + 1), Packet(family, 0))
    ]
    return ", ".join(words)


def _status(name: str, text: str) -> Evidence:
    return Evidence(name, 127, b"", b"sh: nft: not found") if text == "none" else Evidence(name, 0, text.encode())


def _iptables(sample: Sample) -> str:
    if sample.status:
        firewall = fact(
            Firewall,
            {
                "firewall.nft": _status("firewall.nft", "none"),
                "firewall.iptables": sample,
                "firewall.ip6tables": "",
                "firewall.legacy": "# end\n",
            },
        )
        firewall.answers(range(1, 2), Packet(4, 0))
    six = "IP6TABLES" in sample.out or "ip6tables" in sample.out
    return _firewall("none", "" if six else sample.out, sample.out if six else "", 6 if six else 4)


def _nft(sample: Sample) -> str:
    return _firewall(sample.out, "", "", 4)


def _firewalld(sample: Sample) -> str:
    found = fact(Firewalld, {"firewall.firewalld": sample})
    active = [
        f"{z.name}: {_shown(z.services, z.ports)} {len(z.rich_rules)} rich"
        for z in found.zones
        if z.active or z.default
    ]
    return f"{len(found.zones)} zones; " + "; ".join(active)


def _listening(sample: Sample) -> str:
    sockets = fact(Listening, {"firewall.listening": sample}).sockets
    return _shown([f"{socket.address}:{socket.port}" for socket in sockets])


def _links(sample: Sample) -> str:
    found = fact(Links, {"network.links": sample})
    return _shown([f"{link.name}/{link.kind}/{link.mtu}/{link.master}" for link in found.links])


def _addresses(sample: Sample) -> str:
    answers = {"network.addresses": sample}
    own, subnets = fact(OwnAddresses, answers), fact(Subnets, answers)
    return _shown(
        [f"{a.interface}:{a.ip}/{a.prefix}" for a in own.addresses], [n for _, nets in subnets.subnets for n in nets]
    )


def _routes(sample: Sample) -> str:
    routes = [route for route in json.loads(sample.out) if route["dst"] == "default"]  # as the probe asks
    link = [
        {"ifname": "br0", "mtu": 1500, "flags": ["UP"], "linkinfo": {"info_kind": "bridge"}},
        {"ifname": "eno1", "mtu": 1500, "flags": ["UP"], "master": "br0"},
    ]
    answers = {
        "network.default_route": json.dumps(routes),
        "network.links": json.dumps(link),
        "network.speeds": "eno1 25000\n",
    }
    way = fact(WayOut, answers)
    return f"{way.device} {fact(Speeds, answers).of(way.device)}"


def _vlans(sample: Sample) -> str:
    """On a host with one bridge that filters them."""
    links = [
        {
            "ifname": "br0",
            "mtu": 1500,
            "flags": ["UP"],
            "linkinfo": {"info_kind": "bridge", "info_data": {"vlan_filtering": 1}},
        },
        {"ifname": "eno1", "mtu": 1500, "flags": ["UP"], "master": "br0"},
    ]
    empty = dict.fromkeys(("network.default_route", "network.neighbours", "network.addresses"), "[]")
    found = fact(Segments, {"network.links": json.dumps(links), "network.vlans": sample, **empty})
    bridge = found.find("br0")
    assert bridge is not None
    return f"filtering {bridge.filtering}, lets out {_shown(found.carried(bridge))}"


def _attempt(sample: Sample) -> str:
    """As the probe ends such an attempt: exit status, and what bash said last."""
    said, _, status = (sample.out.strip() or sample.err.strip()).partition("\nrc=")
    code = int(status) if status else sample.status
    line = f"0 {code} {said.rpartition(': ')[2] if code else ''}\n"
    record = ("0", "peer", "192.0.2.1", "16509", "control")
    output = Evidence("reach.ports", 0, line.encode(), arguments=(record,))
    [attempt] = fact(Reach, {"reach.ports": output}).of("peer", "control")
    return _shown(attempt.state, attempt.words)


def _network(sample: Sample) -> str:
    match = re.search(r"<uuid>(.*)</uuid>", sample.out)
    assert match
    text = f"{MARK}\n{MARK} {match[1]}\n{sample.out.strip()}\n{MARK} end\n"
    [network] = fact(LibvirtNetworks, {"network.libvirt": text, "network.libvirt_active": "autostart\n"}).networks
    return f"{network.name} {network.forward} {network.bridge}"


def _fqdn(sample: Sample) -> str:
    answers: Answers = {"names.hostname": "h\n", "names.libvirt": "h\n", "names.fqdn": sample, "names.self": ""}
    return str(fact(OwnNames, answers).fqdn)


def _ovs(sample: Sample) -> str:
    """Real answers hold one table: put in the place of the first of those that the probe asks for."""
    others = [
        {"data": [["br0", ["uuid", "p"]]], "headings": ["name", "ports"]},
        {"data": [[["uuid", "p"], ["uuid", "i"]]], "headings": ["_uuid", "interfaces"]},
        {"data": [[["uuid", "i"], "br0"]], "headings": ["_uuid", "name"]},
    ]
    units = "Id=ovs-vswitchd.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
    database = "\n".join([sample.out.strip(), *map(json.dumps, others)])
    answers: Answers = {
        "openvswitch.installed": "yes\n",
        "services.units": units,
        "openvswitch.database": sample._replace(out=database) if sample.status == 0 else sample,
    }
    found = fact(OpenVswitch, answers).database
    return f"hw-offload {found.setting('hw-offload')}"


# --- cards


def _pf(**tools: Sample) -> Pf:
    """A card about which one tool says this, and the others nothing."""
    address = "0000:e1:00.0"
    names = ("devlink_info", "ethtool", "mstflint", "mstconfig", "eswitch", "ports", "tools")
    probes: dict[str, str] = {}
    for name in names:
        sample = tools.get(name)
        status, text = (sample.status, sample.out + sample.err) if sample else (1, "none")
        block = "all" if name in {"ports", "tools"} else address
        probes[f"mellanox.{name}"] = (
            f"== {block} {status}\n" + "".join(f" {line}\n" for line in text.splitlines()) + "end\n"
        )
    sysfs = (
        f"== {address}\ndevice 0x1021\nclass 0x020000\nsriov_numvfs 1\nsriov_totalvfs 8\ndriver mlx5_core\n"
        f"virtfn0 0000:e1:00.1\ngroup {address}\nnet enp225s0np0 p0 up ovs-system\n"
        f"== 0000:e1:00.1\ndevice 0x101e\nclass 0x020000\ndriver mlx5_vfio_pci\nphysfn {address}\n"
        "group 0000:e1:00.1\nend\n"
    )
    listing = "".join(f"@{name}\n" for name in _SECTIONS)
    answers = {
        "mellanox.sysfs": sysfs,
        "mellanox.vfio_module": "end\n",
        "guest.list": listing,
        "guest.xml": f"{MARK}\n",
        "guest.xml_inactive": f"{MARK}\n",
        **probes,
    }
    [pf] = fact(MellanoxDevices, answers).pfs
    return pf


def _firmware(tool: str) -> Callable[[Sample], str]:
    def read(sample: Sample) -> str:
        text = re.sub(r"0000:af:00\.0", "0000:e1:00.0", sample.out)
        firmware = _pf(**{tool: sample._replace(out=text)}).firmware
        return f"{firmware.running} {firmware.stored} {firmware.psid}"

    return read


def _mstconfig(sample: Sample) -> str:
    mode = _pf(mstconfig=sample).vf_migration
    return f"supported {mode.supported}, now {mode.current}, next {mode.next_boot}"


def _ports(sample: Sample) -> str:
    return str(_pf(ports=sample).vfs[0].port.migratable)


# --- storage and services


def _mounts(sample: Sample) -> str:
    mounts = fact(Mounts, {"storage.mountinfo": sample})
    return f"{len(mounts.mounts)}; {_shown([mount.path for mount in mounts.shared])}"


def _mount(sample: Sample) -> str:
    """`mount` prints of NFS the same options as mountinfo."""
    found = []
    for line in sample.out.splitlines():
        match = re.fullmatch(r"(\S+:/\S*) on (\S+) type (nfs4?) \((.*)\)", line)
        if match:
            text = f"1 0 0:45 / {match[2]} rw - {match[3]} {match[1]} {match[4]}\n"
            [mount] = fact(Mounts, {"storage.mountinfo": text}).mounts
            assert mount.nfs
            found.append(f"{mount.nfs.server}:{mount.nfs.export} {mount.nfs.version} {mount.nfs.locks}")
    return "; ".join(found) or "no NFS"


def _exports(sample: Sample) -> str:
    return "; ".join(
        f"{export.path} to {export.client}, {'ro' if export.read_only else 'rw'}"
        + (", root squashed" if export.root_squash else "")
        + (", top" if export.top else "")
        for export in fact(Exports, {"nfs.exports": sample}).exports
    )


def _booleans(sample: Sample) -> str:
    selinux = fact(Selinux, {"storage.selinux": f"enforce 1\n{sample.out}"})
    return f"virt_use_nfs {selinux.allows('virt_use_nfs')}"


def _conf(sample: Sample) -> str:
    return f"{len(parse_conf(sample.out))} settings"


def _qemu_conf(sample: Sample) -> str:
    conf = fact(QemuConf, {"services.qemu_conf": sample})
    return f"{'defaults' if conf == QemuConf() else conf}; {_conf(sample)}"


def _chrony(sample: Sample) -> str:
    """The probe tells of it where it succeeds."""
    return _clock(f"chrony {sample.out.strip()}\n" if sample.status == 0 else "")


def _timedatectl(sample: Sample) -> str:
    """The probe takes the line about it."""
    return _clock("".join(f"{line}\n" for line in sample.out.splitlines() if "synchronized" in line.lower()))


def _clock(lines: str) -> str:
    clock = fact(Clock, {"clock.synchronized": f"{lines}end\n"})
    return f"synchronized {clock.synchronized}, off by {clock.offset_seconds}"


def _nested(sample: Sample) -> str:
    """What grep finds of these files; the devices are asked about beside them."""
    lines = "".join(f"nested {line.rpartition(':')[2]}\n" for line in sample.out.splitlines())
    kvm = fact(Kvm, {"kvm.host": f"{lines}end\n"})
    return f"nested {kvm.nested}"


def _units(sample: Sample) -> str:
    return str(len(fact(Units, {"services.units": sample}).units))


# --- versions


def _os(sample: Sample) -> str:
    found = fact(OsRelease, {"versions.os_release": sample})
    return f"{found.id} {found.major} {found.minor} {_shown(found.id_like)} {found.variant or '-'}"


def _kernel(sample: Sample) -> str:
    """The probe asks for the release and the machine (`uname -rm`), and on a second line for the build (`uname -v`)."""
    words = sample.out.strip().splitlines()[-1].split()
    machine = words[-2:-1] if words[-1:] == ["GNU/Linux"] else []
    kernel = fact(Kernel, {"versions.kernel": " ".join([*words[2:3], *machine]) + "\n" + " ".join(words[3:-4])})
    return f"{kernel.release} {kernel.version} {'.'.join(map(str, kernel.numbers))}"


def _arguments(sample: Sample) -> str:
    return _shown(fact(KernelArguments, {"versions.cmdline": sample}).words)


def _virsh(sample: Sample) -> str:
    answers = {"versions.virsh": sample}
    return f"libvirt {fact(Libvirt, answers).daemon}, QEMU {fact(Qemu, answers).version}"


def _packages(sample: Sample) -> str:
    packages = fact(Packages, {"versions.packages": "dpkg\n" + sample.out})
    return f"{packages.version('qemu-system-x86')} {packages.version('libvirt-daemon')} {packages.version('nosuchpkg')}"


def _refusing(kind: type[HostFact], probe: str) -> Callable[[Sample], str]:
    """For commands that fail: whichever probe runs them, what they complain of is told."""
    return lambda sample: repr(fact(kind, {probe: sample}))


READERS: dict[str, Callable[[Sample], str]] = {
    "bash-tcp": _attempt,
    "bridge-vlan-json": _vlans,
    "chronyc-tracking": _chrony,
    "cmd-missing": _refusing(Memory, "memory.meminfo"),
    "cpu-baseline": _cpus,
    "cpu-vulns": _vulnerabilities,
    "cpuinfo": _cpuinfo,
    "devlink-eswitch": lambda sample: _pf(eswitch=sample).eswitch,
    "devlink-info": _firmware("devlink_info"),
    "devlink-info-json": _firmware("devlink_info"),
    "devlink-port": _ports,
    "devlink-port-json": _ports,
    "domcapabilities": _domcapabilities,
    "domdirtyrate": lambda sample: _dirty_rate(sample.err, ""),
    "domjobinfo": _job,
    "domstats": lambda sample: _dirty_rate("", sample.out),
    "dpkg-query": _packages,
    "dumpxml": _domain,
    "ethtool-i": _firmware("ethtool"),
    "exportfs": _exports,
    "firewall-cmd": _firewalld,
    "getsebool": _booleans,
    "hostname-f": _fqdn,
    "hugepages": _hugepages,
    "ip-addr-json": _addresses,
    "ip-link-json": _links,
    "ip-route-json": _routes,
    "iptables-save": _iptables,
    "kvm-nested": _nested,
    "libvirtd-conf": _conf,
    "meminfo": _meminfo,
    "mount": _mount,
    "mountinfo": _mounts,
    "mstconfig": _mstconfig,
    "mstflint": _firmware("mstflint"),
    "net-dumpxml": _network,
    "netstat-proc": _listening,
    "nfs-etab": _exports,
    "nft": _nft,
    "nft-json": _nft,
    "node-distance": _node,
    "node-meminfo": _node,
    "numa-cpulist": _node,
    "os-release": _os,
    "ovs-vsctl": _ovs,
    "proc-cmdline": _arguments,
    "qemu-conf": _qemu_conf,
    "selinux": _refusing(Selinux, "storage.selinux"),
    "smt": _smt,
    "ss": _listening,
    "systemctl-show": _units,
    "timedatectl": _timedatectl,
    "uname": _kernel,
    "virsh-capabilities": _capabilities,
    "virsh-connect": _refusing(HostCpu, "cpu.capabilities"),
    "virsh-list-all": _listing,
    "virsh-unknown": _refusing(HostCpu, "cpu.capabilities"),
    "virsh-version": _virsh,
    "virtlockd-conf": _conf,
}


NOT_READ = {
    reason: facts.split()
    for reason, facts in {
        "libvirt, QEMU and the kernel tell the same in a form made for programs, which is asked instead": "brctl-show "
        "bridge-link-json findmnt proc-mounts fstab ip-addr ip-addr-o ip-link ip-route-get iptables-L "
        "lscpu lscpu-json lscpu-p lsmem net-list pool-list netstat networkctl nmcli nodecpumap nodeinfo nodememstats "
        "numa-caps numactl-H numactl-show numastat-m freecell freepages nfsstat-m dominfo domstate daemon-uri "
        "virsh-domblklist virsh-domiflist vcpuinfo qemu-version libvirtd-help redhat-release hostnamectl dmi-id "
        "dmidecode sysinfo nodedev-xml qemu-machine-help ovs-other-config systemctl-is-active systemctl-is-enabled "
        "systemctl-list kvm-dev ethtool lspci lspci-tv lsmod modinfo mst-status cpu-models dpkg-l rpm-qa "
        "rpm-qi sestatus selinux-config etc-exports firewalld-conf ufw bonding",
        "what is at a path is asked of stat and sysfs": "blkid lsblk lsblk-json lsblk-pairs multipath-ll "
        "multipath-conf iscsiadm-iface iscsiadm-session libvirt-ls sys-firmware",
        "no check depends on it": "apparmor-status clocksource crypto-policy fips machine-id mokutil-sb nfs-conf "
        "nfsconf rpcinfo sysctl-a thp nodesevinfo mellanox-other",
        "`chronyc tracking` tells the outcome": "chronyc-activity chronyc-sources",
        "of a migration that runs or ran, not of hosts before one": "migrate-error migrate-getmaxdowntime qemu-log",
        "of the machine that this program runs on, where paramiko and ssh read it": "ssh-config",
    }.items()
}


def read(sample: Sample) -> str:
    """What the project makes of it: its salient values, or `refused: ` and why."""
    try:
        return READERS[sample.name.partition("__")[0]](sample)
    except (Unavailable, ValueError, LookupError) as reason:
        return f"refused: {reason}"
