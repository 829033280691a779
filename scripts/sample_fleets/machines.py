"""What a host says of itself: versions, capabilities, memory, services. RHEL 9 with modular daemons."""

from audit.facts.services import UNITS
from audit.transports import Records
from scripts.sample_fleets.description import GIB, Answer, Host, Processor, Software, stable_uuid
from scripts.sample_fleets.processors import domcapabilities_cpu, host_cpu

QEMU = "/usr/libexec/qemu-kvm"
_EL8 = ("pc-q35-rhel8.6.0", "pc-q35-rhel8.5.0", "pc-q35-rhel8.4.0", "pc-q35-rhel8.3.0", "pc-q35-rhel8.2.0")
_OLD = (*_EL8, "pc-q35-rhel8.1.0", "pc-q35-rhel8.0.0", "pc-q35-rhel7.6.0")
I440FX = "pc-i440fx-rhel7.6.0"

RHEL_9_4 = Software(
    version="9.4", kernel="5.14.0-427.42.1.el9_4.x86_64", libvirt="10.0.0", qemu="8.2.0",
    packages="libvirt-daemon=10.0.0-6.7.el9_4 qemu-kvm=17:8.2.0-11.el9_4.6 edk2-ovmf=20231122-6.el9_4.3 "
             "seabios-bin=1.16.3-2.el9 ipxe-roms-qemu=20200823-9.git4bd064de.el9 swtpm=0.8.0-2.el9_4",
    machines=("pc-q35-rhel9.4.0", "pc-q35-rhel9.2.0", "pc-q35-rhel9.0.0"),
    unknown_features="sha512 sm3 sm4 intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no rfds-no rfds-clear lam "
                     "fred lkgs wrmsrns avx10 avx10-128 avx10-256 avx10-512 avx-vnni-int16 eraps sbpb ibpb-brtype "
                     "srso-no srso-user-kernel-no perfmon-v2 vmx-entry-load-fred vmx-nested-exception "
                     "vmx-exit-secondary-ctls",
)  # fmt: skip
RHEL_9_6 = Software(
    version="9.6", kernel="5.14.0-570.21.1.el9_6.x86_64", libvirt="10.10.0", qemu="9.1.0",
    packages="libvirt-daemon=10.10.0-7.4.el9_6 qemu-kvm=17:9.1.0-15.el9_6.4 edk2-ovmf=20241117-2.el9 "
             "seabios-bin=1.16.3-4.el9 ipxe-roms-qemu=20200823-9.git4bd064de.el9 swtpm=0.8.0-2.el9_4",
    machines=("pc-q35-rhel9.6.0", "pc-q35-rhel9.4.0", "pc-q35-rhel9.2.0", "pc-q35-rhel9.0.0"),
)  # fmt: skip


def os_release(host: Host) -> Answer:
    """/etc/os-release."""
    version, name, code = host.software.version, host.software.os_name, host.software.codename
    return Answer(
        f'NAME="{name}"\nVERSION="{version} ({code})"\nID="rhel"\nID_LIKE="fedora"\nVERSION_ID="{version}"\n'
        f'PLATFORM_ID="platform:el9"\nPRETTY_NAME="{name} {version} ({code})"\nANSI_COLOR="0;31"\n'
        'LOGO="fedora-logo-icon"\nCPE_NAME="cpe:/o:redhat:enterprise_linux:9::baseos"\n'
        f'HOME_URL="https://www.redhat.com/"\n\nREDHAT_SUPPORT_PRODUCT="{name}"\n'
        f'REDHAT_SUPPORT_PRODUCT_VERSION="{version}"\n'
    )


def kernel(host: Host) -> Answer:
    """`uname -r -m`, then `uname -v`."""
    return Answer(f"{host.software.kernel} x86_64\n#1 SMP PREEMPT_DYNAMIC Wed Sep 11 18:02:00 EDT 2024\n")


def kernel_arguments(host: Host) -> Answer:
    """/proc/cmdline."""
    return Answer(_command_line(host))


def _command_line(host: Host) -> str:
    iommu = "intel_iommu=on iommu=pt" if host.processor.vendor == "Intel" else "iommu=pt"
    return (
        f"BOOT_IMAGE=(hd0,gpt2)/vmlinuz-{host.software.kernel} root=/dev/mapper/rhel-root ro crashkernel=1G-4G:192M "
        f"rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap {iommu}\n"
    )


def virsh_version(host: Host) -> Answer:
    """`virsh version --daemon`."""
    libvirt = host.software.libvirt
    return Answer(
        f"Compiled against library: libvirt {libvirt}\nUsing library: libvirt {libvirt}\nUsing API: QEMU {libvirt}\n"
        f"Running hypervisor: QEMU {host.software.qemu}\nRunning against daemon: {libvirt}\n\n"
    )


def packages(host: Host) -> Answer:
    """`rpm -qa`, what virtualization consists of."""
    pairs = [word.split("=") for word in host.software.packages.split()]
    libvirt, qemu = dict(pairs)["libvirt-daemon"], dict(pairs)["qemu-kvm"]
    pairs += [[f"libvirt-daemon-{part}", libvirt] for part in ("common", "driver-qemu", "driver-network", "lock")]
    pairs += [["libvirt-client", libvirt], ["libvirt-libs", libvirt], ["qemu-kvm-core", qemu], ["qemu-img", qemu]]
    pairs += [["swtpm-libs", dict(pairs)["swtpm"]], ["swtpm-tools", dict(pairs)["swtpm"]]]
    pairs += [["cockpit", "311.1-1.el9"], ["cockpit-bridge", "311.1-1.el9"], ["cockpit-machines", "308-1.el9"]]
    if host.cards:
        pairs.append(["mstflint", "4.26.0-1.el9"])
    if host.open_vswitch:
        pairs.append(["openvswitch3.3", "3.3.0-62.el9fdp"])
    return Answer("rpm\n" + "".join(f"{name} {version} ii\n" for name, version in sorted(pairs)))


def bios(host: Host) -> Answer:
    """The SMBIOS strings that everybody may read."""
    vendor, _, product = host.system.partition(" Inc. ")
    return Answer(
        f"bios_vendor={vendor} Inc.\nbios_version={host.bios}\nbios_date=03/14/2025\n"
        f"bios_release={'.'.join(host.bios.split('.')[:2])}\nsys_vendor={vendor} Inc.\nproduct_name={product}\n"
    )


def kvm(host: Host) -> Answer:
    """Devices and nested virtualization."""
    nested = "Y" if host.processor.vendor == "Intel" else "1"
    return Answer(f"device /dev/kvm\ndevice /dev/vhost-net\ndevice /dev/net/tun\nnested {nested}\nend\n")


def _groups(host: Host) -> int:
    return 137 + sum(card.vfs for card in host.cards)


def iommu(host: Host) -> Answer:
    """IOMMU groups, ACPI tables, and the kernel's command line."""
    table = "DMAR" if host.processor.vendor == "Intel" else "IVRS"
    return Answer(f"groups {_groups(host)}\ntable {table}\ncmdline {_command_line(host)}")


_VULNERABILITIES = {
    "gather_data_sampling": "Not affected",
    "itlb_multihit": "Not affected",
    "l1tf": "Not affected",
    "mds": "Not affected",
    "meltdown": "Not affected",
    "mmio_stale_data": "Not affected",
    "reg_file_data_sampling": "Not affected",
    "retbleed": "Not affected",
    "spec_rstack_overflow": "Not affected",
    "spec_store_bypass": "Mitigation: Speculative Store Bypass disabled via prctl",
    "spectre_v1": "Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    "srbds": "Not affected",
    "tsx_async_abort": "Not affected",
}


def vulnerabilities(host: Host) -> Answer:
    """The kernel's opinion, a file each."""
    states = dict(_VULNERABILITIES)
    match host.processor.like:
        case "EPYC-Milan":
            states["spec_rstack_overflow"] = "Mitigation: Safe RET"
            states["spectre_v2"] = "Mitigation: Retpolines; IBPB: conditional; IBRS_FW; STIBP: always-on; RSB filling"
        case "Cascadelake-Server":
            states["gather_data_sampling"] = "Mitigation: Microcode"
            states["itlb_multihit"] = "KVM: Mitigation: Split huge pages"
            states["mmio_stale_data"] = "Mitigation: Clear CPU buffers; SMT vulnerable"
            states["retbleed"] = "Mitigation: Enhanced IBRS"
            states["tsx_async_abort"] = "Mitigation: TSX disabled"
            states["spectre_v2"] = "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; RSB filling; BHI: SW loop"
        case _:
            if host.processor.like == "Icelake-Server":
                states["gather_data_sampling"] = "Mitigation: Microcode"
                states["mmio_stale_data"] = "Mitigation: Clear CPU buffers; SMT vulnerable"
            states["spectre_v2"] = "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; RSB filling; BHI: SW loop"
    return Answer("".join(f"./{name}:{text}\n" for name, text in sorted(states.items())))


def smt(host: Host) -> Answer:
    """Simultaneous multithreading."""
    on = host.processor.threads > 1
    return Answer(f"active={int(on)}\ncontrol={'on' if on else 'off'}\n")


# libvirt's capabilities ----------------------------------------------------------------------------------------


def cells(processor: Processor) -> list[list[int]]:
    """CPU numbers by NUMA node: one node a socket, cores first, then their second threads."""
    per = processor.sockets * processor.cores
    return [
        [t * per + s * processor.cores + c for t in range(processor.threads) for c in range(processor.cores)]
        for s in range(processor.sockets)
    ]


def node_kib(host: Host) -> int:
    """Memory of one NUMA node, less what the firmware keeps."""
    return host.memory_gib * GIB // host.processor.sockets - 1_572_864


def capabilities(host: Host) -> Answer:
    """`virsh capabilities`."""
    return Answer(
        f"<capabilities>\n\n  <host>\n    <uuid>{stable_uuid('host', host.fqdn)}</uuid>\n{host_cpu(host, '    ')}"
        f"    <power_management>\n      <suspend_mem/>\n    </power_management>\n    <iommu support='yes'/>\n"
        "    <migration_features>\n      <live/>\n      <uri_transports>\n"
        "        <uri_transport>tcp</uri_transport>\n        <uri_transport>rdma</uri_transport>\n"
        "      </uri_transports>\n    </migration_features>\n"
        f"{_topology(host)}    <secmodel>\n      <model>selinux</model>\n      <doi>0</doi>\n"
        "      <baselabel type='kvm'>system_u:system_r:svirt_t:s0</baselabel>\n"
        "      <baselabel type='qemu'>system_u:system_r:svirt_tcg_t:s0</baselabel>\n    </secmodel>\n"
        "    <secmodel>\n      <model>dac</model>\n      <doi>0</doi>\n"
        "      <baselabel type='kvm'>+107:+107</baselabel>\n      <baselabel type='qemu'>+107:+107</baselabel>\n"
        f"    </secmodel>\n  </host>\n\n{_offers(host.software)}\n</capabilities>\n\n"
    )


def _topology(host: Host) -> str:
    cpu = host.processor
    nodes = cells(cpu)
    lines = ["<topology>", f"  <cells num='{len(nodes)}'>"]
    for node, cpus in enumerate(nodes):
        kib = node_kib(host)
        lines += [f"    <cell id='{node}'>", f"      <memory unit='KiB'>{kib}</memory>"]
        pages = {size: total // cpu.sockets for size, (total, _) in host.hugepages.items()}
        small = kib // 4 - sum(size // 4 * total for size, total in pages.items())
        for size, number in ((4, small), (2048, pages.get(2048, 0)), (1048576, pages.get(1048576, 0))):
            lines.append(f"      <pages unit='KiB' size='{size}'>{number}</pages>")
        lines += ["      <distances>"]
        lines += [f"        <sibling id='{n}' value='{10 if n == node else 20}'/>" for n in range(len(nodes))]
        lines += ["      </distances>", f"      <cpus num='{len(cpus)}'>"]
        for core, number in enumerate(sorted(cpus)):
            core %= cpu.cores
            siblings = [c for at, c in enumerate(sorted(cpus)) if at % cpu.cores == core]
            place = f"socket_id='{node}' die_id='0' cluster_id='0' core_id='{core}'"
            lines.append(f"        <cpu id='{number}' {place} siblings='{','.join(map(str, siblings))}'/>")
        lines += ["      </cpus>", "    </cell>"]
    lines += ["  </cells>", "</topology>"]
    return "".join(f"    {line}\n" for line in lines)


def _offers(software: Software) -> str:
    """`<guest>` with the machine types; libvirt names aliases by `canonical`."""
    newest = software.machines[0]
    machines = [
        f"<machine maxCpus='240' deprecated='yes'>{I440FX}</machine>",
        f"<machine canonical='{I440FX}' maxCpus='240' deprecated='yes'>pc</machine>",
        *(f"<machine maxCpus='{_most_cpus(name)}'>{name}</machine>" for name in software.machines),
        f"<machine canonical='{newest}' maxCpus='{_most_cpus(newest)}'>q35</machine>",
        *(f"<machine maxCpus='384' deprecated='yes'>{name}</machine>" for name in _OLD),
    ]
    listed = "".join(f"      {line}\n" for line in machines)
    return (
        "  <guest>\n    <os_type>hvm</os_type>\n    <arch name='x86_64'>\n      <wordsize>64</wordsize>\n"
        f"      <emulator>{QEMU}</emulator>\n{listed}      <domain type='qemu'/>\n      <domain type='kvm'/>\n"
        "    </arch>\n    <features>\n      <acpi default='on' toggle='yes'/>\n"
        "      <apic default='on' toggle='no'/>\n      <cpuselection/>\n      <deviceboot/>\n"
        "      <disksnapshot default='on' toggle='no'/>\n      <externalSnapshot/>\n    </features>\n  </guest>\n"
    )


def _most_cpus(machine: str) -> int:
    return 4096 if machine in ("pc-q35-rhel9.4.0", "pc-q35-rhel9.6.0") else 710


# Domain capabilities --------------------------------------------------------------------------------------------

_DEVICES = {
    "disk": {"diskDevice": "disk cdrom floppy lun", "bus": "fdc scsi virtio usb sata",
             "model": "virtio virtio-transitional virtio-non-transitional"},
    "graphics": {"type": "vnc egl-headless"},
    "video": {"modelType": "vga virtio none bochs ramfb"},
    "hostdev": {"mode": "subsystem", "startupPolicy": "default mandatory requisite optional",
                "subsysType": "usb pci scsi", "capsType": "", "pciBackend": "vfio"},
    "rng": {"model": "virtio virtio-transitional virtio-non-transitional", "backendModel": "random egd builtin"},
    "filesystem": {"driverType": "path handle virtiofs"},
    "tpm": {"model": "tpm-tis tpm-crb", "backendModel": "passthrough emulator external", "backendVersion": "2.0"},
    "redirdev": {"bus": "usb"},
    "channel": {"type": "pty unix"},
    "crypto": {"model": "", "type": "qemu", "backendModel": "builtin"},
}  # fmt: skip


_HYPERV = (
    "relaxed vapic spinlocks vpindex runtime synic stimer reset vendor_id frequencies reenlightenment tlbflush ipi "
    "avic emsr_bitmap xmm_input"
)


def domcapabilities(host: Host, virttype: str, machine: str = "") -> Answer:
    """`virsh domcapabilities`, which needs a writable connection."""
    if not host.root:
        return Answer("", 1, _no_polkit("org.libvirt.unix.manage"))
    software = host.software
    canonical = {"": I440FX, "pc": I440FX, "q35": software.machines[0]}.get(machine, machine)
    if canonical not in (*software.machines, *_OLD, I440FX):
        words = f"error: failed to get emulator capabilities\nerror: invalid argument: the machine '{machine}' is not "
        return Answer("", 1, f"{words}supported by emulator '{QEMU}'\n")
    efi = "" if canonical == I440FX else "      <value>efi</value>\n"
    devices = "".join(
        f"    <{name} supported='yes'>\n{''.join(_enum(*enum) for enum in enums.items())}    </{name}>\n"
        for name, enums in _DEVICES.items()
    )
    return Answer(
        f"<domainCapabilities>\n  <path>{QEMU}</path>\n  <domain>{virttype}</domain>\n"
        f"  <machine>{canonical}</machine>\n"
        f"  <arch>x86_64</arch>\n  <vcpu max='{_most_cpus(canonical)}'/>\n  <iothreads supported='yes'/>\n"
        "  <os supported='yes'>\n    <enum name='firmware'>\n      <value>bios</value>\n"
        f"{efi}    </enum>\n    <loader supported='yes'>\n"
        "      <value>/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd</value>\n"
        "      <value>/usr/share/edk2/ovmf/OVMF_CODE.fd</value>\n"
        f"{_enum('type', 'rom pflash')}{_enum('readonly', 'yes no')}{_enum('secure', 'yes no')}    </loader>\n  </os>\n"
        f"{domcapabilities_cpu(host, virttype)}"
        "  <memoryBacking supported='yes'>\n    <enum name='sourceType'>\n      <value>file</value>\n"
        "      <value>anonymous</value>\n      <value>memfd</value>\n    </enum>\n  </memoryBacking>\n"
        f"  <devices>\n{devices}  </devices>\n  <features>\n    <gic supported='no'/>\n"
        "    <vmcoreinfo supported='yes'/>\n    <genid supported='yes'/>\n    <backingStoreInput supported='yes'/>\n"
        "    <backup supported='yes'/>\n    <async-teardown supported='yes'/>\n    <sev supported='no'/>\n"
        "    <sgx supported='no'/>\n    <hyperv supported='yes'>\n"
        f"{_enum('features', _HYPERV)}"
        "    </hyperv>\n  </features>\n</domainCapabilities>\n\n"
    )


def _enum(name: str, values: str) -> str:
    if not values:
        return f"      <enum name='{name}'/>\n"
    listed = "".join(f"        <value>{value}</value>\n" for value in values.split())
    return f"      <enum name='{name}'>\n{listed}      </enum>\n"


def _no_polkit(action: str) -> str:
    return (
        "error: failed to connect to the hypervisor\nerror: authentication unavailable: no polkit agent available to "
        f"authenticate action '{action}'\n"
    )


# Memory -------------------------------------------------------------------------------------------------------


def meminfo(host: Host) -> Answer:
    """/proc/meminfo, the lines that matter and some more."""
    total = node_kib(host) * host.processor.sockets
    pools = sum(size * number for size, (number, _) in host.hugepages.items())
    available = total - pools - host.used_gib * GIB
    pages, free = host.hugepages.get(2048, (0, 0))
    rows = {
        "MemTotal": total, "MemFree": available - 3 * GIB, "MemAvailable": available, "Buffers": 5284,
        "Cached": 3 * GIB, "SwapCached": 0, "SwapTotal": 33554428, "SwapFree": 33554428, "Dirty": 1204,
        "Shmem": 310_280, "CommitLimit": 33554428 + (total - pools) // 2, "AnonHugePages": (host.used_gib - 9) * GIB,
    }  # fmt: skip
    lines = [f"{name + ':':<16}{value:>8} kB" for name, value in rows.items()]
    lines += [f"{name + ':':<16}{value:>8}" for name, value in (("HugePages_Total", pages), ("HugePages_Free", free))]
    lines += [f"{name + ':':<16}{0:>8}" for name in ("HugePages_Rsvd", "HugePages_Surp")]
    lines += [f"{'Hugepagesize:':<16}{2048:>8} kB", f"{'Hugetlb:':<16}{pools:>8} kB"]
    return Answer("\n".join(lines) + "\n")


def hugepages(host: Host) -> Answer:
    """Every pool's counters."""
    lines = []
    for size in (1048576, 2048):
        pages, free = host.hugepages.get(size, (0, 0))
        folder = f"kernel/mm/hugepages/hugepages-{size}kB"
        counters = {"free": free, "nr": pages, "nr_overcommit": 0, "resv": 0, "surplus": 0}
        lines += [f"{folder}/{name}_hugepages:{value}" for name, value in counters.items()]
    for node in range(host.processor.sockets):
        for size in (1048576, 2048):
            pages, free = (number // host.processor.sockets for number in host.hugepages.get(size, (0, 0)))
            folder = f"devices/system/node/node{node}/hugepages/hugepages-{size}kB"
            counters = {"free": free, "nr": pages, "surplus": 0}
            lines += [f"{folder}/{name}_hugepages:{value}" for name, value in counters.items()]
    return Answer("\n".join([*lines, "end"]) + "\n")


def nodes(host: Host) -> Answer:
    """NUMA nodes as the kernel tells them."""
    places = cells(host.processor)
    lines = []
    for node, cpus in enumerate(places):
        lines.append(f"node{node}/cpulist:{_ranges(cpus)}")
    for node in range(len(places)):
        lines.append(f"node{node}/distance:{' '.join('10' if n == node else '20' for n in range(len(places)))}")
    lines += [f"node{node}/meminfo:{node_kib(host)} kB" for node in range(len(places))]
    return Answer("\n".join([*lines, "end"]) + "\n")


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{low}-{high}" for low, high in runs)


def identity(host: Host) -> Answer:
    """Who the audit is there."""
    return Answer(f"root {0 if host.root else ''}\nuser audit audit\n")


def clock(host: Host) -> Answer:
    """chrony, synchronized."""
    server, offset = "C0000201,192.0.2.1,3", f"0.0000{host.number:02}418"
    rest = "-0.000011,0.000035,-8.214,0.001,0.028,0.000412,0.000631,1036.2,Normal"
    return Answer(f"NTPSynchronized=yes\nchrony {server},1772863190.114563,{offset},{rest}\nend\n")


def firmware_settings(host: Host) -> Answer:
    """What the settings of the firmware left behind."""
    intel = host.processor.vendor == "Intel"
    nodes = "".join(f"node node{node}\n" for node in range(len(cells(host.processor))))
    return Answer(
        f"boot UEFI\nIOMMU table {'DMAR' if intel else 'IVRS'}\n{nodes}"
        + ("cpu/intel_pstate/no_turbo 0\n" if intel else "cpu/cpufreq/boost 1\n")
        + f"cpu/cpu0/cpufreq/scaling_driver {'intel_pstate' if intel else 'acpi-cpufreq'}\nend\n"
    )


def cgroup(_host: Host) -> Answer:
    """Version 2 on RHEL 9."""
    return Answer("cgroup2fs\n")


# Services -----------------------------------------------------------------------------------------------------

_ACTIVE = {
    "virtqemud.service": "running", "virtqemud.socket": "running", "virtqemud-ro.socket": "running",
    "virtqemud-admin.socket": "running", "virtproxyd.socket": "listening", "virtproxyd-tls.socket": "listening",
    "virtnetworkd.socket": "running", "virtnetworkd.service": "running", "virtstoraged.socket": "listening",
    "virtnodedevd.socket": "listening", "virtsecretd.socket": "listening", "virtnwfilterd.socket": "listening",
    "virtlogd.socket": "running", "virtlogd.service": "running", "virtlockd.socket": "listening",
    "sshd.service": "running", "rpc-statd.service": "running", "rpcbind.service": "running",
    "rpcbind.socket": "running", "nfs-client.target": "active", "chronyd.service": "running",
    "firewalld.service": "running", "cockpit.socket": "listening",
}  # fmt: skip
_STATIC = {"rpc-statd.service", "virtlogd.service", "virtlockd.service", "ovs-vswitchd.service"}
_IDLE = {
    "virtproxyd.service", "virtproxyd-tcp.socket", "virtstoraged.service", "virtlockd.service", "nftables.service",
    "sshd.socket", "systemd-timesyncd.service", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket",
    "libvirtd-tls.socket", "libvirtd-tcp.socket",
}  # fmt: skip
_LISTEN = {
    "virtqemud.socket": ("/run/libvirt/virtqemud-sock (Stream)",),
    "virtqemud-ro.socket": ("/run/libvirt/virtqemud-sock-ro (Stream)",),
    "virtqemud-admin.socket": ("/run/libvirt/virtqemud-admin-sock (Stream)",),
    "virtproxyd.socket": ("/run/libvirt/libvirt-sock (Stream)",),
    "virtproxyd-tls.socket": ("[::]:16514 (Stream)",),
    "virtproxyd-tcp.socket": ("[::]:16509 (Stream)",),
    "virtnetworkd.socket": ("/run/libvirt/virtnetworkd-sock (Stream)",),
    "virtstoraged.socket": ("/run/libvirt/virtstoraged-sock (Stream)",),
    "virtnodedevd.socket": ("/run/libvirt/virtnodedevd-sock (Stream)",),
    "virtsecretd.socket": ("/run/libvirt/virtsecretd-sock (Stream)",),
    "virtnwfilterd.socket": ("/run/libvirt/virtnwfilterd-sock (Stream)",),
    "virtlogd.socket": ("/run/libvirt/virtlogd-sock (Stream)",),
    "virtlockd.socket": ("/run/libvirt/virtlockd-sock (Stream)",),
    "libvirtd.socket": ("/run/libvirt/libvirt-sock (Stream)",),
    "libvirtd-tls.socket": ("[::]:16514 (Stream)",),
    "libvirtd-tcp.socket": ("[::]:16509 (Stream)",),
    "sshd.socket": ("[::]:22 (Stream)",),
    "cockpit.socket": ("[::]:9090 (Stream)",),
    "rpcbind.socket": ("/run/rpcbind.sock (Stream)", "0.0.0.0:111 (Stream)", "0.0.0.0:111 (Datagram)",
                       "[::]:111 (Stream)", "[::]:111 (Datagram)"),
}  # fmt: skip


def units(host: Host) -> Answer:
    """`systemctl show` of the units that were asked about, in that order."""
    active = dict(_ACTIVE)
    if host.open_vswitch:
        active |= {"openvswitch.service": "exited", "ovs-vswitchd.service": "running"}
    asked = UNITS.command.split("Listen ", 1)[1].split()
    return Answer("\n".join(_unit(name, active) for name in asked))


def _unit(name: str, active: dict[str, str]) -> str:
    # systemd prints the properties in its own order, whatever the order asked for
    listen = "".join(f"Listen={address}\n" for address in _LISTEN.get(name, ()))
    if name in active:
        state = f"LoadState=loaded\nActiveState=active\nSubState={active[name]}\n"
        enabled = "static" if name in _STATIC else "enabled"
    elif name in _IDLE:
        state, enabled = "LoadState=loaded\nActiveState=inactive\nSubState=dead\n", "disabled"
    else:
        return f"Id={name}\nNames={name}\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n"
    return f"{listen}Id={name}\nNames={name}\n{state}UnitFileState={enabled}\n"


def daemon(_host: Host) -> Answer:
    """Sockets, processes, and whether qemu:///system answers."""
    names = [
        *("libvirt", "libvirt-admin", "virtinterfaced", "virtlockd", "virtlogd", "virtnetworkd", "virtnodedevd"),
        *("virtnwfilterd", "virtproxyd-admin", "virtqemud-admin", "virtqemud", "virtsecretd", "virtstoraged"),
    ]
    sockets = "".join(f"socket /run/libvirt/{name}-sock\n" for name in names)
    return Answer(f"{sockets}process virtqemud\nanswers\nend\n")


def sshd(host: Host) -> Answer:
    """The port of this very connection; what sshd itself says is root's."""
    own = "port 22\nstartups 10\n" if host.root else ""
    return Answer(f"port 22\n{own}end\n")


def qemu_conf(host: Host) -> Answer:
    """qemu.conf as RHEL ships it has comments only."""
    if not host.root:
        return Answer("", 1, "cat: /etc/libvirt/qemu.conf: Permission denied\n")
    return Answer("")


def tls(host: Host) -> Answer:
    """The files behind qemu+tls."""
    authority = "CN = Example Virtualization CA"
    valid = "valid 0\nvalid 7\nvalid 30\n"
    lines = [
        "file ca /etc/pki/CA/cacert.pem",
        f"subject={authority}\nissuer={authority}\nnotAfter=Feb  1 09:00:00 2031 GMT\n{valid}",
    ]
    ends = {"server": host.certificate_ends, "client": "Feb  1 09:00:00 2028 GMT"}
    for role, end in ends.items():
        current = host.certificate_valid or role == "client"
        lines += [
            f"file {role} /etc/pki/libvirt/{role}cert.pem",
            f"subject=O = Example, CN = {host.fqdn}\nissuer={authority}\nnotAfter={end}",
            f"names=DNS:{host.fqdn}, DNS:{host.name}, IP Address:{host.address}\n{valid if current else ''}",
        ]
    lines.append("file key /etc/pki/libvirt/private/serverkey.pem")
    lines.append("present" if host.root else "unreadable no access to /etc/pki/libvirt/private")
    for file in ("qemu-ca /etc/pki/qemu/ca-cert", "qemu-server /etc/pki/qemu/server-cert",
                 "qemu-client /etc/pki/qemu/client-cert", "qemu-key /etc/pki/qemu/server-key"):  # fmt: skip
        lines += [f"file {file}.pem", "absent"]
    return Answer("\n".join(line.rstrip("\n") for line in lines) + "\nend\n")


def processes(host: Host) -> Answer:
    """QEMU's processes: PID, user, whose, which guest."""
    running = sorted(guest.name for guest in host.guests if guest.active)
    lines = [f"{4100 + 217 * at} 107 system {name}" for at, name in enumerate(running)]
    if host.session_guest:
        lines.append(f"48211 1003 session {host.session_guest}")
    return Answer("\n".join([*lines, "end"]) + "\n")


def domcapabilities_asked(host: Host, records: Records) -> Answer:
    """Domain capabilities for what the cluster's guests need, every line with the record's number."""
    lines = []
    for number, (virttype, _arch, machine, _emulator) in enumerate(records, 1):
        said = domcapabilities(host, virttype, machine)
        words = said.stderr if said.status else str(said.stdout)
        lines += [f"{number}:{line}" for line in words.rstrip("\n").split("\n")]
        lines.append(f"{number}={said.status}")
    return Answer("\n".join(lines) + "\n")
