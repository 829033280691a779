"""Every probe and question that a collection runs, and who renders the answer; a transport that gives them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from audit.collect import NOTHING, collect, probes_of
from audit.evaluate import needed_facts
from audit.evidence import Bundle, Evidence
from audit.facts.base import Question
from audit.facts.guest_source import read_guests
from audit.inventory import Inventory
from audit.judge import discover
from audit.transports import Answers, Asked, Records
from scripts.sample_fleets import devices, guests, machines, network, processors, storage
from scripts.sample_fleets.description import Answer, Fleet, Host

STARTED, FINISHED = "2026-03-07T06:00:00Z", "2026-03-07T06:00:21Z"

_PROBES: Mapping[str, Callable[[Host], Answer]] = {
    "access.identity": machines.identity,
    "clock.synchronized": machines.clock,
    "cpu.capabilities": machines.capabilities,
    "cpu.cpuinfo": processors.cpuinfo,
    "cpu.domcaps_kvm": lambda host: machines.domcapabilities(host, "kvm", "q35"),
    "cpu.domcaps_kvm_default": lambda host: machines.domcapabilities(host, "kvm"),
    "cpu.domcaps_qemu": lambda host: machines.domcapabilities(host, "qemu", "q35"),
    "cpu.domcaps_qemu_default": lambda host: machines.domcapabilities(host, "qemu"),
    "cpu.map": processors.cpu_map,
    "cpu.smt": machines.smt,
    "cpu.vulnerabilities": machines.vulnerabilities,
    "firewall.ip6tables": network.iptables,
    "firewall.iptables": network.iptables,
    "firmware.roms": devices.roms,
    "firewall.legacy": lambda _host: Answer("# end\n"),
    "firewall.listening": network.listening,
    "firewall.nf_tables": lambda _host: network.NF_TABLES,
    "firewall.nft": network.nft,
    "guest.jobs": guests.jobs,
    "guest.list": guests.listing,
    "guest.memory_statistics": guests.memory_statistics,
    "guest.snapshots": guests.snapshots,
    "guest.xml": guests.xml,
    "guest.xml_inactive": guests.xml_inactive,
    "hostdev.mdev": devices.mdev,
    "kvm.host": machines.kvm,
    "mellanox.devlink_info": network.devlink_info,
    "mellanox.eswitch": network.eswitch,
    "mellanox.ethtool": network.ethtool,
    "mellanox.iommu": machines.iommu,
    "mellanox.mstconfig": network.mstconfig,
    "mellanox.mstflint": network.mstflint,
    "mellanox.ports": network.devlink_ports,
    "mellanox.sysfs": network.mellanox_sysfs,
    "mellanox.tools": network.mellanox_tools,
    "mellanox.vfio_module": network.vfio_module,
    "memory.cgroup": machines.cgroup,
    "memory.hugepages": machines.hugepages,
    "memory.meminfo": machines.meminfo,
    "memory.nodes": machines.nodes,
    "memory.overcommit": lambda _host: Answer("0\n"),
    "names.fqdn": network.hostname,
    "names.hostname": network.hostname,
    "names.libvirt": network.virsh_hostname,
    "names.self": network.own_resolution,
    "network.addresses": network.addresses,
    "network.default_route": network.default_route,
    "network.filters": network.filters,
    "network.libvirt": network.networks,
    "network.libvirt_active": network.networks_active,
    "network.links": network.links,
    "network.neighbours": network.neighbours,
    "network.speeds": network.speeds,
    "network.stations": network.stations,
    "network.vlans": lambda _host: Answer("[]\n"),
    "nfs.client": lambda _host: Answer("yes\n"),
    "nfs.exports": lambda _host: Answer(""),
    "openvswitch.database": network.ovs_database,
    "openvswitch.installed": network.ovs_installed,
    "services.daemon": machines.daemon,
    "services.qemu_conf": machines.qemu_conf,
    "services.sshd": machines.sshd,
    "services.tls": machines.tls,
    "services.units": machines.units,
    "sessions.processes": machines.processes,
    "settings.firmware": machines.firmware_settings,
    "settings.page_size": lambda _host: Answer("x86_64\n4096\n"),
    "settings.userfaultfd": lambda _host: Answer("1\n"),
    "storage.mountinfo": storage.mountinfo,
    "storage.pools": storage.pools,
    "storage.pools_active": storage.pools_active,
    "storage.secrets": storage.secrets,
    "storage.selinux": storage.selinux,
    "services.conf_age": lambda _host: Answer("conf 2000.0 1000.0\ndaemon 500.0 1000 100\nend\n"),
    "services.daemon_conf": lambda _host: Answer("file libvirtd\nend\n"),
    "ssh.shell": lambda _host: Answer("reached\n# has virt-ssh-helper\n# end\n"),
    "storage.users": storage.users,
    "tpm.swtpm": devices.swtpm,
    "versions.bios": machines.bios,
    "versions.cmdline": machines.kernel_arguments,
    "versions.kernel": machines.kernel,
    "versions.os_release": machines.os_release,
    "versions.packages": machines.packages,
    "versions.virsh": machines.virsh_version,
    "vfio.bound": network.vfio,
    "virtiofs.daemons": devices.virtiofs,
}

_QUESTIONS: Mapping[str, Callable[[Host, Fleet, Records], Answer]] = {
    "cpu.domcaps_machines": lambda host, _fleet, records: machines.domcapabilities_asked(host, records),
    "cpu.map_files": lambda host, _fleet, _records: processors.cpu_map_content(host),
    "guest.block_jobs": lambda host, _fleet, records: guests.block_jobs(host, records),
    "guest.dirty_rate": lambda host, _fleet, records: guests.dirty_rate(host, records),
    "hostdev.pci": devices.pci,
    "guest.known_arguments": lambda _host, _fleet, records: guests.known_arguments(records),
    "hostdev.usb": devices.usb,
    "names.peers": network.peers,
    "reach.mtu": network.tried_mtu,
    "reach.ports": network.tried_ports,
    "reach.ssh": network.tried_ssh,
    "ssh.client": network.ssh_client,
    "ssh.server": network.ssh_server,
    "storage.disk_sizes": lambda host, _fleet, records: guests.disk_sizes(host, records),
    "storage.free": lambda _host, _fleet, records: storage.free(records),
    "storage.paths": storage.paths,
    "storage.portals": storage.portals,
    "storage.samples": storage.samples,
    "storage.servers": network.storage_servers,
    "storage.volumes": storage.volumes,
}


class Undescribed(Exception):
    """The program asks something that no sample host has an answer to."""


class _Described:
    """A transport that answers as the description says."""

    def __init__(self, host: Host, fleet: Fleet) -> None:
        self._host = host
        self._fleet = fleet

    def ask(self, asked: Sequence[Asked], _seconds: float, connected: Callable[[], None]) -> Answers:
        """Every probe's answer, in next to no time."""
        if self._host.problem:
            return Answers(problem=self._host.problem)
        connected()
        return Answers({each.probe.name: self._evidence(each) for each in asked}, "", self._host.privilege)

    def _evidence(self, asked: Asked) -> Evidence:
        name = asked.probe.name
        answer = self._host.garbage.get(name)
        if answer is None and isinstance(asked.probe, Question):
            answer = _QUESTIONS[name](self._host, self._fleet, asked.records)
        elif answer is None:
            answer = _PROBES[name](self._host)
        stdout = answer.stdout if isinstance(answer.stdout, bytes) else answer.stdout.encode()
        seconds = 0.08 if "virsh" in asked.probe.command else 0.01
        return Evidence(name, answer.status, stdout, answer.stderr.encode(), seconds, "", asked.records)


def bundle(fleet: Fleet, active: Mapping[str, str] = NOTHING) -> Bundle:
    """What collecting the fleet's evidence gives, with these options for active probes.

    Raises `Undescribed` for a probe that has no answer here.
    """
    probes = probes_of(needed_facts(discover()))
    asked = {probe.name for probe in probes}
    if unanswered := sorted(asked - _PROBES.keys() - _QUESTIONS.keys()):
        raise Undescribed(f"no sample answer to {', '.join(unanswered)}: add it to {__file__}")
    if unasked := sorted((_PROBES.keys() | _QUESTIONS.keys()) - asked):
        raise Undescribed(f"nobody asks {', '.join(unasked)} any more: remove it from {__file__}")
    hosts = {host.name: host for host in fleet.hosts}
    collected = collect(
        Inventory.parse(fleet.inventory, f"{fleet.name}/inventory.yaml"),
        probes,
        read_guests=read_guests,
        tool="virt-preflight sample data",
        active=active,
        workers=1,
        open_transport=lambda host: _Described(hosts[host.name], fleet),
    )
    for evidence in collected.hosts.values():
        for problem in (evidence.problem, *(output.problem for output in evidence.outputs.values())):
            if "failure of this program" in problem:
                raise Undescribed(f"{fleet.name}, {evidence.host}: {problem}")
    at = {name: replace(said, started=STARTED, finished=FINISHED) for name, said in collected.hosts.items()}
    return replace(collected, run_id=f"sample-{fleet.name}", started=STARTED, finished=FINISHED, hosts=at)
