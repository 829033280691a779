"""CPU generations, and what the kernel, libvirt and QEMU say of them."""

import re
from functools import cache
from hashlib import sha256

from audit.cpu import CpuDefinition, CpuMap, CpuSignature, MapModel, decode
from audit.cpu.cpumap import MapFeature
from scripts.sample_fleets.description import Answer, Host, Processor, Software

_VMX = """
vmx-ins-outs vmx-true-ctls vmx-store-lma vmx-activity-hlt vmx-activity-wait-sipi vmx-vmwrite-vmexit-fields
vmx-apicv-xapic vmx-ept vmx-desc-exit vmx-rdtscp-exit vmx-apicv-x2apic vmx-vpid vmx-wbinvd-exit
vmx-unrestricted-guest vmx-apicv-register vmx-apicv-vid vmx-rdrand-exit vmx-invpcid-exit vmx-vmfunc vmx-shadow-vmcs
vmx-rdseed-exit vmx-pml vmx-xsaves vmx-tsc-scaling vmx-ept-execonly vmx-page-walk-4 vmx-ept-2mb vmx-ept-1gb vmx-invept
vmx-eptad vmx-invept-single-context vmx-invept-all-context vmx-invvpid vmx-invvpid-single-addr
vmx-invvpid-all-context vmx-invvpid-single-context-noglobals vmx-intr-exit vmx-nmi-exit vmx-vnmi
vmx-preemption-timer vmx-posted-intr vmx-vintr-pending vmx-tsc-offset vmx-hlt-exit vmx-invlpg-exit vmx-mwait-exit
vmx-rdpmc-exit vmx-rdtsc-exit vmx-cr3-load-noexit vmx-cr3-store-noexit vmx-cr8-load-exit vmx-cr8-store-exit
vmx-flexpriority vmx-vnmi-pending vmx-movdr-exit vmx-io-exit vmx-io-bitmap vmx-mtf vmx-msr-bitmap vmx-monitor-exit
vmx-pause-exit vmx-secondary-ctls vmx-exit-nosave-debugctl vmx-exit-load-perf-global-ctrl vmx-exit-ack-intr
vmx-exit-save-pat vmx-exit-load-pat vmx-exit-save-efer vmx-exit-load-efer vmx-exit-save-preemption-timer
vmx-entry-noload-debugctl vmx-entry-ia32e-mode vmx-entry-load-perf-global-ctrl vmx-entry-load-pat
vmx-entry-load-efer vmx-eptp-switching vmx-invvpid-single-context
"""
_INTEL = """
ss vmx pdcm hypervisor tsc_adjust umip md-clear stibp flush-l1d arch-capabilities xsaves invtsc ibpb ibrs amd-stibp
amd-ssbd rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no
"""
_INTEL_HOST = "dtes64 monitor ds_cpl smx est tm2 xtpr dca osxsave ds acpi ht tm pbe intel-pt cmt mbm_total mbm_local"
_INTEL_KERNEL = (
    "constant_tsc art arch_perfmon pebs bts rep_good nopl xtopology nonstop_tsc cpuid aperfmperf epb cat_l3 cdp_l3 "
    "tpr_shadow flexpriority ept vpid ept_ad rdt_a cqm cqm_llc cqm_occup_llc dtherm ida pln pts"
)
_AMD = """
tsc-deadline hypervisor tsc_adjust x2apic cmp_legacy stibp arch-capabilities ssbd virt-ssbd lbrv tsc-scale vmcb-clean
flushbyasid pause-filter pfthreshold v-vmsave-vmload vgif rdctl-no skip-l1dfl-vmentry mds-no pschange-mc-no gds-no
rfds-no invtsc topoext
"""
_AMD_HOST = "monitor osxsave ht extapic ibs skinit wdt tce nodeid_msr perfctr_nb overflow-recov succor svm-lock avic"
_AMD_KERNEL = (
    "constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid aperfmperf rapl bpext perfctr_llc mwaitx cpb cat_l3 "
    "cdp_l3 hw_pstate vmmcall rdt_a cqm irperf rdpru cppc"
)

CASCADE_LAKE = Processor(
    "Intel(R) Xeon(R) Gold 6248R CPU @ 3.00GHz", "Intel", 6, 85, 7, 0x5003707, 2_992_968_000, 46, 48,
    like="Cascadelake-Server", without="hle rtm", plus=f"{_INTEL} pku tsx-ctrl {_VMX}",
    host_only=_INTEL_HOST, kernel_only=_INTEL_KERNEL, cores=24,
)  # fmt: skip
ICE_LAKE = Processor(
    "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", "Intel", 6, 106, 6, 0xD0003F5, 1_995_312_000, 46, 57,
    like="Icelake-Server", without="hle rtm intel-pt",
    plus=f"{_INTEL} fsrm rdpid sha-ni avx512ifma tsx-ctrl {_VMX}",
    host_only=_INTEL_HOST, kernel_only=_INTEL_KERNEL, cores=32,
)  # fmt: skip
SAPPHIRE_RAPIDS = Processor(
    "Intel(R) Xeon(R) Gold 6430", "Intel", 6, 143, 8, 0x2B000620, 2_100_000_000, 46, 57,
    like="SapphireRapids", without="hle rtm taa-no",
    plus=f"{_INTEL} tsx-ctrl waitpkg cldemote movdiri movdir64b intel-psfd rrsba-ctrl bhi-ctrl sbdr-ssdp-no fbsdp-no "
         f"psdp-no pbrsb-no gds-no rfds-no {_VMX} vmx-enable-user-wait-pause",
    host_only=_INTEL_HOST, kernel_only=_INTEL_KERNEL, cores=32,
)  # fmt: skip
MILAN = Processor(
    "AMD EPYC 7543 32-Core Processor", "AMD", 25, 1, 1, 0xA0011D7, 2_794_748_000, 48, 48,
    like="EPYC-Milan", plus=f"{_AMD} vaes vpclmulqdq", host_only=_AMD_HOST, kernel_only=_AMD_KERNEL, cores=32,
)  # fmt: skip

# What QEMU's own translator gives to emulated guests, on whatever host.
_EMULATED_PLUS = """
monitor x2apic hypervisor acpi ss erms mpx clwb umip pku vaes la57 rdpid pks fsrm 3dnowext 3dnow xsaveerptr wbnoinvd npt
vgif svme-addr-chk sha-ni tsc-deadline pcid invpcid adx rdseed
"""
_EMULATED_WITHOUT = "vme xsavec xsaves osvw topoext fxsr_opt nrip-save misalignsse perfctr_core"

# A real list is three times as long; these stand for it.
_DEPRECATED = ("qemu64", "kvm64")
_FAMILIES = (
    *_DEPRECATED,
    *("Nehalem", "Westmere", "Haswell", "Broadwell", "Skylake-Server", "Cascadelake-Server", "Icelake-Server"),
    *("SapphireRapids", "EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"),
)
_SUFFIXES = ("", "-IBRS", "-noTSX", "-noTSX-IBRS", "-IBPB")


@cache
def models(software: Software) -> tuple[str, ...]:
    """The named models that this release's libvirt and QEMU share; versioned names since libvirt 10.10."""
    cpu_map = CpuMap.carried()
    versioned = tuple(int(part) for part in software.libvirt.split(".")[:2]) >= (10, 10)
    found = []
    for model in cpu_map.models:
        family, dash, version = model.name.rpartition("-v")
        plain = next((f for f in _FAMILIES for s in _SUFFIXES if model.name == f + s), None)
        if plain or (versioned and dash and version.isdigit() and family in _FAMILIES):
            found.append(model.name)
    return tuple(sorted(found))


@cache
def given(processor: Processor, software: Software) -> frozenset[str]:
    """What KVM gives to guests on such a host, in libvirt's names."""
    base = CpuMap.carried().model(processor.like).features - set(processor.without.split())
    return _known(base | set(processor.plus.split()), software)


def _known(features: frozenset[str], software: Software) -> frozenset[str]:
    unknown = set(software.unknown_features.split())
    assert features <= CpuMap.carried().order.keys(), features - CpuMap.carried().order.keys()
    return features - unknown


@cache
def host_model(processor: Processor, software: Software) -> CpuDefinition:
    """The CPU that host-model stands for."""
    signature = CpuSignature(processor.family, processor.model, processor.stepping)
    return decode(given(processor, software), own_map(software), vendor=processor.vendor, signature=signature)


def _emulated(software: Software) -> frozenset[str]:
    base = CpuMap.carried().model("EPYC-Rome").features - set(_EMULATED_WITHOUT.split())
    return _known(base | set(_EMULATED_PLUS.split()), software)


def feature_lines(cpu: CpuDefinition, indent: str) -> str:
    """`<feature>` elements of a guest's definition."""
    return "".join(f"{indent}<feature policy='{f.policy}' name='{f.name}'/>\n" for f in cpu.features)


def cpuinfo(host: Host) -> Answer:
    """/proc/cpuinfo of one processor, their number and their microcode."""
    cpu = host.processor
    mhz = cpu.tsc_hz / 1e6
    rows = {
        "processor\t": 0,
        "vendor_id\t": {"Intel": "GenuineIntel", "AMD": "AuthenticAMD"}[cpu.vendor],
        "cpu family\t": cpu.family,
        "model\t\t": cpu.model,
        "model name\t": cpu.name,
        "stepping\t": cpu.stepping,
        "microcode\t": hex(cpu.microcode),
        "cpu MHz\t\t": f"{mhz:.3f}",
        "cache size\t": "36608 KB" if cpu.vendor == "Intel" else "512 KB",
        "physical id\t": 0,
        "siblings\t": cpu.cores * cpu.threads,
        "core id\t\t": 0,
        "cpu cores\t": cpu.cores,
        "apicid\t\t": 0,
        "initial apicid\t": 0,
        "fpu\t\t": "yes",
        "fpu_exception\t": "yes",
        "cpuid level\t": 22 if cpu.vendor == "Intel" else 16,
        "wp\t\t": "yes",
        "flags\t\t": " ".join(_kernel_flags(host)),
    }
    if cpu.vendor == "Intel":
        rows["vmx flags\t"] = "vnmi preemption_timer posted_intr invvpid ept_x_only ept_ad ept_1gb flexpriority apicv"
        rows["bugs\t\t"] = "spectre_v1 spectre_v2 spec_store_bypass swapgs eibrs_pbrsb bhi"
    else:
        rows["bugs\t\t"] = "sysret_ss_attrs spectre_v1 spectre_v2 spec_store_bypass srso"
    rows |= {
        "bogomips\t": f"{2 * mhz:.2f}",
        "clflush size\t": 64,
        "cache_alignment\t": 64,
        "address sizes\t": f"{cpu.address_bits} bits physical, {cpu.virtual_bits} bits virtual",
    }
    lines = [f"{name}: {value}" for name, value in rows.items()] + ["power management:", "", ""]
    tail = ["== processors", str(cpu.cpus), "== microcode", f"microcode\t: {cpu.microcode:#x}"]
    return Answer("\n".join([*lines, *tail]) + "\n")


# The kernel's names where they are not libvirt's with dashes and dots made underscores.
_KERNEL_NAMES = {
    "pclmuldq": "pclmulqdq", "tsc-deadline": "tsc_deadline_timer", "spec-ctrl": "ibrs ibpb", "nrip-save": "nrip_save",
    "cmp_legacy": "cmp_legacy", "pause-filter": "pausefilter", "sgxlc": "sgx_lc", "cmt": "cqm",
    "mbm_total": "cqm_mbm_total", "mbm_local": "cqm_mbm_local", "avx512vbmi2": "avx512_vbmi2", "est": "est",
    "avx512vnni": "avx512_vnni", "avx512bitalg": "avx512_bitalg", "avx512-bf16": "avx512_bf16", "tce": "tce",
    "avx512-vpopcntdq": "avx512_vpopcntdq", "lm": "lm", "ds": "dts", "arch-capabilities": "arch_capabilities",
}  # fmt: skip
_NO_FLAG = {"hypervisor", "invtsc", "ss", "xgetbv1", "cr8legacy", "tsc-scale", "amd-ssbd", "amd-stibp", "virt-ssbd"}


def _kernel_flags(host: Host) -> list[str]:
    """In the order of the bits, as the kernel prints them; bits of MSRs have no flag."""
    cpu_map = CpuMap.carried()
    bits = {feature.name: feature.bit for feature in cpu_map.features}
    cpu = host.processor
    names = set(given(cpu, host.software)) - _NO_FLAG | set(cpu.host_only.split())
    if cpu.vendor == "AMD":
        names -= {"tsc_adjust", "arch-capabilities", "tsc-deadline"}
    cpuid = sorted((n for n in names if bits[n].source == "cpuid"), key=lambda n: (bits[n].leaf, bits[n][2:], n))
    flags = [_KERNEL_NAMES.get(name, name.replace("-", "_").replace(".", "_")) for name in cpuid]
    return list(dict.fromkeys(" ".join([*flags, cpu.kernel_only]).split()))


def host_cpu(host: Host, indent: str) -> str:
    """`<cpu>` of libvirt's capabilities."""
    cpu = host.processor
    features = given(cpu, host.software) | set(cpu.host_only.split())
    features = frozenset(f for f in features if not f.startswith("vmx-")) - {"hypervisor", "arch-capabilities"}
    signature = CpuSignature(cpu.family, cpu.model, cpu.stepping)
    named = decode(features, own_map(host.software), kind="host", vendor=cpu.vendor, signature=signature)
    topology = f"sockets='1' dies='1' clusters='1' cores='{cpu.cores}' threads='{cpu.threads}'"
    lines = [
        "<cpu>",
        "  <arch>x86_64</arch>",
        f"  <model>{named.model}</model>",
        f"  <vendor>{cpu.vendor}</vendor>",
        f"  <microcode version='{cpu.microcode}'/>",
        f"  <signature family='{cpu.family}' model='{cpu.model}' stepping='{cpu.stepping}'/>",
        f"  <counter name='tsc' frequency='{cpu.tsc_hz}' scaling='yes'/>",
        f"  <topology {topology}/>",
        f"  <maxphysaddr mode='emulate' bits='{cpu.address_bits}'/>",
        *(f"  <feature name='{feature.name}'/>" for feature in named.features),
        "  <pages unit='KiB' size='4'/>",
        "  <pages unit='KiB' size='2048'/>",
        "  <pages unit='KiB' size='1048576'/>",
        "</cpu>",
    ]
    return "".join(f"{indent}{line}\n" for line in lines)


def domcapabilities_cpu(host: Host, virttype: str) -> str:
    """`<cpu>` of domain capabilities: modes, the host-model, the named models and what blocks them."""
    if virttype == "kvm":
        cpu = host_model(host.processor, host.software)
        features = given(host.processor, host.software)
        passthrough = _mode("host-passthrough", "hostPassthroughMigratable")
        width = f"      <maxphysaddr mode='passthrough' limit='{host.processor.address_bits}'/>\n"
    else:
        features = _emulated(host.software)
        cpu = decode(features, own_map(host.software), vendor="AMD")
        passthrough, width = "    <mode name='host-passthrough' supported='no'/>\n", ""
    return (
        f"  <cpu>\n{passthrough}{_mode('maximum', 'maximumMigratable')}"
        f"    <mode name='host-model' supported='yes'>\n      <model fallback='forbid'>{cpu.model}</model>\n"
        f"      <vendor>{cpu.vendor}</vendor>\n{width}{feature_lines(cpu, '      ')}    </mode>\n"
        f"    <mode name='custom' supported='yes'>\n"
        f"{''.join(_named_model(name, features, host.software) for name in models(host.software))}"
        f"    </mode>\n  </cpu>\n"
    )


def _mode(name: str, enum: str) -> str:
    return (
        f"    <mode name='{name}' supported='yes'>\n      <enum name='{enum}'>\n        <value>on</value>\n"
        "        <value>off</value>\n      </enum>\n    </mode>\n"
    )


def _named_model(name: str, features: frozenset[str], software: Software) -> str:
    """One named model; what blocks it since libvirt 10.9."""
    model = CpuMap.carried().model(name)
    quiet = {"mpx", "intel-pt", *(("svm",) if name.startswith("qemu64") else ())}  # QEMU does not insist on these
    blockers = sorted(_known(model.features, software) - features - quiet)
    newer = tuple(int(part) for part in software.libvirt.split(".")[:2]) >= (10, 9)
    old = " deprecated='yes'" if name.split("-v")[0] in _DEPRECATED else ""
    canonical = f" canonical='{model.canonical}'" if newer and model.canonical else ""
    line = (
        f"      <model usable='{'no' if blockers else 'yes'}'{old} vendor='{model.vendor or 'unknown'}'{canonical}>"
        f"{name}</model>\n"
    )
    if not blockers or not newer:
        return line
    listed = "".join(f"        <feature name='{feature}'/>\n" for feature in blockers)
    return f"{line}      <blockers model='{name}'>\n{listed}      </blockers>\n"


# libvirt's CPU map on the host: the models above and every feature that this libvirt knows ------------------------


@cache
def cpu_map_files(software: Software) -> dict[str, str]:
    """The folder's files, by name."""
    unknown = set(software.unknown_features.split())
    cpu_map = CpuMap.carried()
    features = "".join(_map_feature(f) for f in cpu_map.features if f.name not in unknown)
    wanted = [model for model in cpu_map.models if model.name in models(software)]
    files = {
        "x86_vendors.xml": "".join(f"  <vendor name='{n}' string='{string}'/>\n" for n, string in cpu_map.vendors),
        "x86_features.xml": features,
        **{f"x86_{model.name}.xml": _map_model(model, unknown) for model in wanted},
    }
    includes = "".join(f"    <include filename='{name}'/>\n" for name in files)
    files = {name: f"<cpus>\n{text}</cpus>\n" for name, text in files.items()}
    return {"index.xml": f"<cpus>\n  <arch name='x86'>\n{includes}  </arch>\n</cpus>\n", **dict(sorted(files.items()))}


@cache
def own_map(software: Software) -> CpuMap:
    """The map as libvirt reads it there."""
    return CpuMap.from_files({name: text.encode() for name, text in cpu_map_files(software).items()})


def _map_feature(feature: MapFeature) -> str:
    bit = feature.bit
    place = f"eax_in='{bit.leaf:#010x}'" if bit.source == "cpuid" else f"index='{bit.leaf:#x}'"
    if bit.source == "cpuid" and bit.subleaf:
        place += f" ecx_in='{bit.subleaf:#04x}'"
    local = "" if feature.migratable else " migratable='no'"
    return (
        f"  <feature name='{feature.name}'{local}>\n"
        f"    <{bit.source} {place} {bit.register}='{1 << bit.number:#010x}'/>\n  </feature>\n"
    )


def _map_model(model: MapModel, unknown: set[str]) -> str:
    decode_host, decode_guest = ("on" if able else "off" for able in (model.decode_host, model.decode_guest))
    lines = [f"<decode host='{decode_host}' guest='{decode_guest}'/>"]
    for made_for in model.signatures:
        steppings = ",".join(map(str, sorted(made_for.steppings)))
        only = f" stepping='{steppings}'" if steppings else ""
        lines.append(f"<signature family='{made_for.family}' model='{made_for.model}'{only}/>")
    if model.vendor:
        lines.append(f"<vendor name='{model.vendor}'/>")
    for names, how in ((model.features, ""), (model.added, " added='yes'"), (model.removed, " removed='yes'")):
        lines += [f"<feature name='{name}'{how}/>" for name in sorted(names) if name not in unknown]
    return f"  <model name='{model.name}'>\n" + "".join(f"    {line}\n" for line in lines) + "  </model>\n"


def cpu_map(host: Host) -> Answer:
    """The map's digest, and the names in it."""
    files = cpu_map_files(host.software)
    digest = sha256("".join(text for _, text in sorted(files.items())).encode()).hexdigest()
    features = re.findall(r"<feature name='([^']*)'", files["x86_features.xml"])
    lines = [f"sha256 {digest}", *(f"feature {name}" for name in features)]
    lines += [f"model {name}" for name in sorted(models(host.software))]
    return Answer("\n".join(lines) + "\n")


def cpu_map_content(host: Host) -> Answer:
    """The map's files one after the other."""
    files = sorted(cpu_map_files(host.software).items(), key=lambda entry: (entry[0] != "index.xml", entry[0]))
    return Answer("".join(f"== {name}\n{text}\n" for name, text in files))
