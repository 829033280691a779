"""What libvirt says of a host's guests: lists, XML, snapshots, jobs."""

import re
from itertools import count
from xml.sax.saxutils import quoteattr

from audit.cpu import CpuMap
from audit.transports import Records
from scripts.sample_fleets.description import GIB, Answer, Disk, Guest, Host, Nic
from scripts.sample_fleets.machines import QEMU
from scripts.sample_fleets.network import mac, mark, network_bridge
from scripts.sample_fleets.processors import feature_lines, given, host_model
from scripts.sample_fleets.storage import NVRAM, OVMF


def listing(host: Host) -> Answer:
    """UUIDs by state and property, section by section."""
    guests = sorted(host.guests, key=lambda guest: guest.name)

    def uuids(wanted: list[Guest]) -> str:
        return "".join(f"{guest.uuid}\n" for guest in wanted) + "\n"

    sections = {
        "all": guests,
        "running": [guest for guest in guests if guest.state == "running"],
        "paused": [guest for guest in guests if guest.state == "paused"],
        "shutoff": [guest for guest in guests if not guest.active],
        "other": [],
        "persistent": guests,
        "transient": [],
        "autostart": [guest for guest in guests if guest.active],
        "snapshots": [guest for guest in guests if guest.snapshots],
        "no-snapshots": [guest for guest in guests if not guest.snapshots],
    }
    return Answer("".join(f"@{name}\n{uuids(wanted)}" for name, wanted in sections.items()) + "\n")


def _each(host: Host, probe: str, guests: list[Guest], words: dict[str, str]) -> Answer:
    """What virsh printed about each guest, between lines with a mark."""
    stamp = mark(host, probe)
    if not guests:
        return Answer(f"{stamp}\n")
    return Answer(f"{stamp}\n" + "".join(f"{stamp} {g.uuid}\n{words[g.uuid]}\n" for g in guests) + f"{stamp} end\n\n")


def _sorted(host: Host, *, active: bool = False) -> list[Guest]:
    return sorted((g for g in host.guests if g.active or not active), key=lambda g: g.name)


def xml(host: Host) -> Answer:
    """Live XML of the running, the configuration of the others."""
    guests = _sorted(host)
    return _each(host, "guest.xml", guests, {g.uuid: domain(g, host, live=g.active) for g in guests})


def xml_inactive(host: Host) -> Answer:
    """The configuration of the running."""
    guests = _sorted(host, active=True)
    return _each(host, "guest.xml_inactive", guests, {g.uuid: domain(g, host, live=False) for g in guests})


def snapshots(host: Host) -> Answer:
    """`snapshot-list --name`."""
    guests = [guest for guest in _sorted(host) if guest.snapshots]
    words = {guest.uuid: "".join(f"{name}\n" for name in guest.snapshots) for guest in guests}
    return _each(host, "guest.snapshots", guests, words)


def jobs(host: Host) -> Answer:
    """`domjobinfo`."""
    guests = _sorted(host, active=True)
    return _each(
        host, "guest.jobs", guests, dict.fromkeys((g.uuid for g in guests), "Job type:         None        \n")
    )


def memory_statistics(host: Host) -> Answer:
    """`dommemstat`: guests have touched most of their memory."""
    guests = _sorted(host, active=True)

    def words(guest: Guest) -> str:
        whole = guest.memory_gib * GIB
        used = 210_000 if guest.hugepage_kib else whole * 9 // 10 + 210_000
        return f"actual {whole}\nlast_update 1755164400\nrss {used}\n"

    return _each(host, "guest.memory_statistics", guests, {guest.uuid: words(guest) for guest in guests})


def known_arguments(records: Records) -> Answer:
    """`-help` and `-device help`, the lines that are kept."""
    options = (
        "-h or -help     display this help and exit",
        "-device driver[,prop[=value][,...]]",
        "-set group.id.arg=value",
    )
    devices = ('name "pcie-root-port", bus PCI', 'name "virtio-rng-pci", bus PCI, alias "virtio-rng"')
    answers = (
        "".join(f"{number}:{line}\n" for line in (*options, *devices)) + f"{number}=0\n"
        for number in range(1, len(records) + 1)
    )
    return Answer("".join(answers))


def block_jobs(host: Host, records: Records) -> Answer:
    """`blockjob --info` of every disk."""
    stamp = mark(host, "guest.block_jobs")
    lines = [stamp]
    for number, uuid, target in records:
        guest = next(guest for guest in host.guests if guest.uuid == uuid)
        first = guest.block_job and f"{_prefix(guest.disks[0])}a" == target
        words = guest.block_job if first else f"No current block job for {target}"
        lines += [f"{stamp} {number}", words, ""]
    return Answer("\n".join([*lines, f"{stamp} end", "", ""]))


def dirty_rate(host: Host, records: Records) -> Answer:
    """`domdirtyrate-calc`, then `domstats --dirtyrate`, of guests that have little to do."""
    stamp = mark(host, "guest.dirty_rate")
    lines = [stamp]
    for number, _, _ in records:
        lines += [f"{stamp} {number}", "Start to calculate domain's memory dirty rate successfully.", ""]
    for _, uuid, seconds in records:
        name = next(guest.name for guest in host.guests if guest.uuid == uuid)
        lines += [
            f"{stamp} {uuid}",
            f"Domain: '{name}'",
            "  dirtyrate.calc_status=2",
            "  dirtyrate.calc_start_time=4711",
        ]
        lines += [f"  dirtyrate.calc_period={seconds}", "  dirtyrate.calc_mode=page-sampling"]
        lines += ["  dirtyrate.megabytes_per_second=12", ""]
    return Answer("\n".join([*lines, f"{stamp} end", "", ""]))


def disk_sizes(host: Host, records: Records) -> Answer:
    """`domblkinfo --all`: 20 GiB each, half of them in use."""
    stamp = mark(host, "storage.disk_sizes")
    lines = [stamp]
    for (uuid,) in records:
        guest = next(guest for guest in host.guests if guest.uuid == uuid)
        lines += [f"{stamp} {uuid}", " Target   Capacity      Allocation    Physical", "-" * 48]
        for number, disk in enumerate(guest.disks):
            target = f"{_prefix(disk)}{chr(ord('a') + number)}"
            lines.append(f" {target}      {20 * 1024**3}   {10 * 1024**3}   {10 * 1024**3}")
        lines.append("")
    return Answer("\n".join([*lines, f"{stamp} end", "", ""]))


# One guest's XML -----------------------------------------------------------------------------------------------


def domain(guest: Guest, host: Host, *, live: bool) -> str:
    """The `<domain>`: as it runs, or as it would be started."""
    machine = guest.machine or (guest.started_with or host.software).machines[0]
    number = 1 + sorted(g.name for g in host.guests if g.active).index(guest.name) if live else 0
    lines = [
        f"<domain type='kvm' id='{number}'>" if live else "<domain type='kvm'>",
        f"  <name>{guest.name}</name>",
        f"  <uuid>{guest.uuid}</uuid>",
        "  <metadata>",
        '    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">',
        '      <libosinfo:os id="http://redhat.com/rhel/9.4"/>',
        "    </libosinfo:libosinfo>",
        "  </metadata>",
        f"  <memory unit='KiB'>{guest.memory_gib * GIB}</memory>",
        f"  <currentMemory unit='KiB'>{guest.memory_gib * GIB}</currentMemory>",
        *_memory_backing(guest),
        f"  <vcpu placement='static'>{guest.vcpus}</vcpu>",
        *_pinning(guest),
        *(["  <resource>", "    <partition>/machine</partition>", "  </resource>"] if live else []),
        *_os(guest, machine),
        "  <features>",
        "    <acpi/>",
        "    <apic/>",
        *(["    <smm state='on'/>"] if guest.uefi else []),
        "  </features>",
        *_cpu(guest, host, live=live),
        "  <clock offset='utc'>",
        "    <timer name='rtc' tickpolicy='catchup'/>",
        "    <timer name='pit' tickpolicy='delay'/>",
        "    <timer name='hpet' present='no'/>",
        *([f"    <timer name='tsc' frequency='{guest.tsc_hz}' mode='native'/>"] if guest.tsc_hz else []),
        "  </clock>",
        "  <on_poweroff>destroy</on_poweroff>",
        "  <on_reboot>restart</on_reboot>",
        "  <on_crash>destroy</on_crash>",
        "  <pm>",
        "    <suspend-to-mem enabled='no'/>",
        "    <suspend-to-disk enabled='no'/>",
        "  </pm>",
        "  <devices>",
        *_devices(guest, host, live=live),
        "  </devices>",
    ]
    if live:
        label = f"system_u:system_r:svirt_t:s0:c{100 + number},c{500 + number}"
        lines += [
            "  <seclabel type='dynamic' model='selinux' relabel='yes'>",
            f"    <label>{label}</label>",
            f"    <imagelabel>{label.replace('system_r:svirt_t', 'object_r:svirt_image_t')}</imagelabel>",
            "  </seclabel>",
            "  <seclabel type='dynamic' model='dac' relabel='yes'>",
            "    <label>+107:+107</label>",
            "    <imagelabel>+107:+107</imagelabel>",
            "  </seclabel>",
        ]
    return "\n".join([*lines, "</domain>", ""])


def _memory_backing(guest: Guest) -> list[str]:
    inner = []
    if guest.hugepage_kib:
        inner += ["    <hugepages>", f"      <page size='{guest.hugepage_kib}' unit='KiB'/>", "    </hugepages>"]
    if guest.shared_memory:
        inner += ["    <source type='memfd'/>", "    <access mode='shared'/>"]
    return ["  <memoryBacking>", *inner, "  </memoryBacking>"] if inner else []


def _pinning(guest: Guest) -> list[str]:
    lines = []
    if guest.cpuset:
        first = int(guest.cpuset.split("-")[0])
        pins = [f"    <vcpupin vcpu='{vcpu}' cpuset='{first + vcpu}'/>" for vcpu in range(guest.vcpus)]
        lines += ["  <cputune>", *pins, "  </cputune>"]
    if guest.nodeset:
        lines += ["  <numatune>", f"    <memory mode='strict' nodeset='{guest.nodeset}'/>", "  </numatune>"]
    return lines


def _os(guest: Guest, machine: str) -> list[str]:
    lines = [
        "  <os firmware='efi'>" if guest.uefi else "  <os>",
        f"    <type arch='x86_64' machine='{machine}'>hvm</type>",
    ]
    if guest.uefi:
        template = f"{OVMF}/OVMF_VARS.secboot.fd"
        lines += [
            "    <firmware>",
            "      <feature enabled='yes' name='enrolled-keys'/>",
            "      <feature enabled='yes' name='secure-boot'/>",
            "    </firmware>",
            f"    <loader readonly='yes' secure='yes' type='pflash'>{OVMF}/OVMF_CODE.secboot.fd</loader>",
            f"    <nvram template='{template}'>{NVRAM}/{guest.name}_VARS.fd</nvram>",
        ]
    return [*lines, "    <boot dev='hd'/>", "  </os>"]


def _cpu(guest: Guest, host: Host, *, live: bool) -> list[str]:
    mode, *changes = guest.cpu.split()
    if mode == "host-passthrough":
        return ["  <cpu mode='host-passthrough' check='none' migratable='on'/>"]
    if mode == "host-model":
        if not live:
            return ["  <cpu mode='host-model' check='partial'/>"]
        processor = guest.started_as or host.processor
        cpu = host_model(processor, guest.started_with or host.software)
        features = feature_lines(cpu, "    ").replace("    <feature policy='require' name='invtsc'/>\n", "")
        width = f"    <maxphysaddr mode='passthrough' limit='{processor.address_bits}'/>"
        return [*_custom(cpu.model or "", "full", "forbid"), f"    <vendor>{cpu.vendor}</vendor>", width,
                *features.splitlines(), "  </cpu>"]  # fmt: skip
    lines = [f"    <feature policy='{_POLICY[change[0]]}' name='{change[1:]}'/>" for change in changes]
    if not live:
        return [*_custom(mode, "partial", "allow"), *lines, "  </cpu>"]
    # What QEMU adds of itself, and what libvirt's model has and QEMU's has lost.
    lines.append("    <feature policy='require' name='hypervisor'/>")
    model = CpuMap.carried().model(mode)
    have = given(host.processor, host.software)
    mentioned = {change[1:] for change in changes}
    left_out = sorted({*model.removed, *(model.features - have)} - mentioned)
    lines += [f"    <feature policy='disable' name='{name}'/>" for name in left_out]
    return [*_custom(mode, "full", "forbid"), *lines, "  </cpu>"]


_POLICY = {"+": "require", "-": "disable"}


def _custom(model: str, check: str, fallback: str) -> list[str]:
    return [f"  <cpu mode='custom' match='exact' check='{check}'>", f"    <model fallback='{fallback}'>{model}</model>"]


def _prefix(disk: Disk) -> str:
    return {"virtio": "vd", "sata": "sd", "scsi": "sd"}[disk.bus]


def _devices(guest: Guest, host: Host, *, live: bool) -> list[str]:
    lines = [f"    <emulator>{QEMU}</emulator>"]
    buses = count(1)
    used: dict[str, int] = {}
    for disk in guest.disks:
        prefix = _prefix(disk)
        target = f"{prefix}{'abcdefgh'[used.setdefault(prefix, 0)]}"
        used[prefix] += 1
        lines += _disk(disk, target, next(buses) if disk.bus == "virtio" else 0, live=live)
    for index in range(1, 11):
        lines += [
            f"    <controller type='pci' index='{index}' model='pcie-root-port'>",
            f"      <target chassis='{index}' port='{0xF + index:#x}'/>",
            f"      <address type='pci' domain='0x0000' bus='0x00' slot='{2 + index // 8:#04x}' "
            f"function='{index % 8:#x}'/>",
            "    </controller>",
        ]
    lines += ["    <controller type='pci' index='0' model='pcie-root'/>"]
    for number, nic in enumerate(guest.nics):
        lines += _nic(nic, guest, number, next(buses), _tap(guest, host, number), live=live)
    lines += ["    <serial type='pty'>", *_pty(live), "      <target type='isa-serial' port='0'/>", "    </serial>"]
    lines += ["    <console type='pty'>", *_pty(live), "      <target type='serial' port='0'/>", "    </console>"]
    channel = "    <channel type='unix'>"
    if live:
        folder = f"/run/libvirt/qemu/channel/{1 + sorted(g.name for g in host.guests if g.active).index(guest.name)}-"
        lines += [channel, f"      <source mode='bind' path='{folder}{guest.name[:20]}/org.qemu.guest_agent.0'/>"]
        state = " state='connected'"
    else:
        lines, state = [*lines, channel], ""
    lines += [f"      <target type='virtio' name='org.qemu.guest_agent.0'{state}/>", "    </channel>"]
    lines += ["    <input type='tablet' bus='usb'/>", "    <input type='mouse' bus='ps2'/>"]
    port = " port='5900' autoport='yes' listen='127.0.0.1'" if live else " port='-1' autoport='yes'"
    address = " address='127.0.0.1'" if live else ""
    lines += [f"    <graphics type='vnc'{port}>", f"      <listen type='address'{address}/>", "    </graphics>"]
    lines += [f"    {line}" for device in guest.devices for line in device.strip().splitlines()]
    lines += ["    <video>", "      <model type='virtio' heads='1' primary='yes'/>", "    </video>"]
    lines += ["    <memballoon model='virtio'>", *_pci(next(buses)), "    </memballoon>"]
    lines += ["    <rng model='virtio'>", "      <backend model='random'>/dev/urandom</backend>", *_pci(next(buses))]
    return [*lines, "    </rng>"]


def _pty(live: bool) -> list[str]:
    return ["      <source path='/dev/pts/2'/>"] if live else []


def _pci(bus: int) -> list[str]:
    return [f"      <address type='pci' domain='0x0000' bus='{bus:#04x}' slot='0x00' function='0x0'/>"]


_ATTRIBUTE = {"file": "file", "block": "dev"}


def _disk(disk: Disk, target: str, bus: int, *, live: bool) -> list[str]:
    lines = [f"    <disk type='{disk.kind}' device='{disk.device}'>"]
    cache = f" cache='{disk.cache}' io='native'" if disk.device == "disk" and disk.cache else ""
    discard = " discard='unmap'" if disk.device == "disk" else ""
    lines.append(f"      <driver name='qemu' type='{disk.image}'{cache}{discard}/>")
    if disk.source is not None:
        index = " index='1'" if live else ""
        lines.append(f"      <source {_ATTRIBUTE[disk.kind]}={quoteattr(disk.source)}{index}/>")
        if live and disk.backing:
            lines += [
                "      <backingStore type='file' index='3'>",
                "        <format type='qcow2'/>",
                f"        <source file={quoteattr(disk.backing)}/>",
                "        <backingStore/>",
                "      </backingStore>",
            ]
        elif live:
            lines.append("      <backingStore/>")
    lines.append(f"      <target dev='{target}' bus='{disk.bus}'/>")
    if disk.device == "cdrom":
        lines.append("      <readonly/>")
    if live:
        alias = f"virtio-disk{bus - 1}" if bus else "sata0-0-0"
        lines.append(f"      <alias name='{alias}'/>")
    lines += _pci(bus) if bus else ["      <address type='drive' controller='0' bus='0' target='0' unit='0'/>"]
    return [*lines, "    </disk>"]


def _tap(guest: Guest, host: Host, number: int) -> str:
    taps = [(g.name, n) for g in host.guests if g.active for n, nic in enumerate(g.nics) if nic.kind != "hostdev"]
    return f"vnet{taps.index((guest.name, number))}" if (guest.name, number) in taps else ""


def _nic(nic: Nic, guest: Guest, number: int, bus: int, tap: str, *, live: bool) -> list[str]:
    address = mac(guest.name, str(number))
    if nic.kind == "hostdev":
        parts = re.fullmatch(r"(\w+):(\w+):(\w+)\.(\w)", nic.source)
        assert parts, nic.source
        place = "domain='0x{}' bus='0x{}' slot='0x{}' function='0x{}'".format(*parts.groups())
        alias = [f"      <alias name='hostdev{number}'/>"] if live else []
        driver = ["      <driver name='vfio'/>"] if live else []
        return ["    <interface type='hostdev' managed='yes'>", f"      <mac address='{address}'/>", *driver,
                "      <source>", f"        <address type='pci' {place}/>", "      </source>", *alias, *_pci(bus),
                "    </interface>"]  # fmt: skip
    if nic.kind == "network" and live:
        source = (
            f"network='{nic.source}' portid='{guest.uuid[:-4]}0a{number:02x}' bridge='{network_bridge(nic.source)}'"
        )
    else:
        source = f"{nic.kind}='{nic.source}'"
    lines = [f"    <interface type='{nic.kind}'>", f"      <mac address='{address}'/>", f"      <source {source}/>"]
    if live:
        lines.append(f"      <target dev='{tap}'/>")
    lines.append("      <model type='virtio'/>")
    if live:
        lines.append(f"      <alias name='net{number}'/>")
    return [*lines, *_pci(bus), "    </interface>"]
