"""Results made by hand, for the tests of what reads them."""

from itertools import product
from typing import Any

from audit.results import (
    FORMAT,
    Baseline,
    CheckResult,
    GuestResult,
    HostResult,
    Outcome,
    Pair,
    Reason,
    Results,
    RouteVerdict,
    Row,
    TargetResult,
    Verdict,
)

RENDERED = "2027-03-02T09:30:00Z"
HOSTILE = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)>\n\x1b[31mred\x1b[0m\u202egnp.exe\u2066{{7*7}}{% raw %}'
)

CPU_XML = """<cpu mode='custom' match='exact'>
  <model fallback='forbid'>Cascadelake-Server</model>
  <vendor>Intel</vendor>
  <feature policy='require' name='ss'/>
  <feature policy='require' name='vmx'/>
  <feature policy='require' name='hypervisor'/>
  <feature policy='require' name='tsc_adjust'/>
  <feature policy='require' name='umip'/>
  <feature policy='require' name='md-clear'/>
  <feature policy='require' name='stibp'/>
  <feature policy='require' name='arch-capabilities'/>
  <feature policy='require' name='xsaves'/>
  <feature policy='require' name='invtsc'/>
  <feature policy='require' name='ibpb'/>
  <feature policy='require' name='amd-ssbd'/>
  <feature policy='require' name='rdctl-no'/>
  <feature policy='require' name='ibrs-all'/>
  <feature policy='require' name='skip-l1dfl-vmentry'/>
  <feature policy='require' name='mds-no'/>
  <feature policy='require' name='pschange-mc-no'/>
  <feature policy='disable' name='hle'/>
  <feature policy='disable' name='rtm'/>
</cpu>"""

CHECKS: dict[str, tuple[str, str, str, str, str, str, str]] = {
    # id: title, why, scope, severity, blocks, reference, remedy
    "cpu.host_model_fits": (
        "The target can give the CPU that a host-model guest of the source runs with.",
        "A host-model guest takes every feature of the host it was started on. A target that lacks one of them refuses "
        "the guest before the first page is copied.",
        "pair",
        "high",
        "migration",
        "RHEL 9 §12.4",
        "Give the guests the baseline of section 6, then stop and start them.",
    ),
    "cpu.guest_fits": (
        "The target can give every CPU feature the guest runs with.",
        "Features are fixed when the guest starts. libvirt compares them on the target.",
        "placement",
        "high",
        "migration",
        "RHEL 9 §12.4",
        "Give the guest the baseline of section 6, then stop and start it.",
    ),
    "disks.local_media": (
        "Every CD-ROM and floppy image is reachable on the target.",
        "A forgotten installation image is the most common reason why a drain stops half-way.",
        "placement",
        "high",
        "migration",
        "RHEL 9 §12.6",
        "Eject the image, or put it on the shared storage.",
    ),
    "machine.type_known": (
        "The target offers the guest’s machine type.",
        "A running guest keeps its versioned machine type; a QEMU that does not know it refuses the guest.",
        "placement",
        "high",
        "migration",
        "RHEL 9 §12.10",
        "Upgrade QEMU on the target.",
    ),
    "kernel.same_release": (
        "Source and target run the same kernel release.",
        "Differences are usually harmless; they explain CPU features that come and go with a kernel.",
        "pair",
        "low",
        "nothing",
        "RHEL 9 §12.3",
        "",
    ),
    "network.bridge_present": (
        "Every bridge of the guest exists on the target.",
        "QEMU cannot connect the guest’s NIC otherwise.",
        "placement",
        "high",
        "migration",
        "RHEL 9 §12.6",
        "",
    ),
    "memory.huge_pages_free": (
        "The target has enough free huge pages of the size that the guest asks for.",
        "They cannot be taken from ordinary memory once that is fragmented.",
        "placement",
        "medium",
        "nothing",
        "libvirt 11.3 qemuProcessStart",
        "",
    ),
    "storage.nfs_locking": (
        "NFS mounts that hold disk images do not use NFS file locking.",
        "Locks are held by the source’s client; the target cannot take them over.",
        "host",
        "medium",
        "nothing",
        "RHEL 9 §12.5",
        "",
    ),
    "mellanox.firmware": (
        "The firmware of each ConnectX-7 is at least the version that migration of its VFs needs.",
        "Older firmware cannot save the state of a virtual function.",
        "host",
        "high",
        "migration",
        "RHEL 9 §12.8",
        "Update the firmware.",
    ),
}


def check(check_id: str, **counts: int) -> CheckResult:
    title, why, scope, severity, blocks, reference, remedy = CHECKS[check_id]
    return {
        "id": check_id,
        "title": title,
        "why": why,
        "scope": scope,
        "severity": severity,
        "blocks": blocks,
        "reference": reference,
        "remedy": remedy,
        "counts": {"pass": 0, "fail": 0, "skip": 0, "unknown": 0, "error": 0, **counts},
        "skipped": {"no Mellanox device": counts["skip"]} if counts.get("skip") else {},
    }


def outcome(check_id: str, status: str, subject: dict[str, str], message: str, **more: Any) -> Outcome:
    host = subject.get("target") or subject.get("host") or "kvm01"
    made: dict[str, Any] = {
        "check": check_id,
        "status": status,
        "subject": subject,
        "severity": CHECKS[check_id][3],
        "blocks": CHECKS[check_id][4],
        "message": message,
        "expected": "",
        "actual": "",
        "evidence": [{"host": host, "probe": "cpu.capabilities", "sha256": "9f86d081884c7d65" * 4}],
        "remedy": "",
        "waiver": None,
        **more,
    }
    return made  # type: ignore[return-value]


def host(name: str, cluster: str = "prod", *, rows: list[Row] | None = None, problem: str = "") -> HostResult:
    return {
        "name": name,
        "cluster": cluster,
        "reached": not problem,
        "problem": problem,
        "privilege": "" if problem else "sudo",
        "rows": [] if problem else (rows or facts()),
    }


def facts(**changed: str | None) -> list[Row]:
    """Rows of a host; `facts(kernel="…")` changes one, None makes it unknown."""
    values: dict[str, tuple[str, str, str | None]] = {
        "vendor": ("CPU", "Vendor", "Intel"),
        "model": ("CPU", "Host-model", "Cascadelake-Server"),
        "features": (
            "CPU",
            "Features beyond the model",
            "ss vmx hypervisor tsc_adjust umip md-clear stibp xsaves invtsc",
        ),
        "microcode": ("CPU", "Microcode", "0x5003604"),
        "tsc": ("CPU", "TSC frequency", "2 194 843 kHz, scaling"),
        "phys": ("CPU", "Physical address bits", "46"),
        "bios": ("Firmware", "BIOS", "Dell Inc. 2.19.1 (2023-06-04)"),
        "os": ("Software", "Operating system", "Red Hat Enterprise Linux 9.4"),
        "kernel": ("Software", "Kernel", "5.14.0-427.13.1.el9_4.x86_64"),
        "libvirt": ("Software", "libvirt", "10.0.0"),
        "qemu": ("Software", "QEMU", "8.2.0"),
        "machines": ("Software", "Newest machine type", "pc-q35-rhel9.4.0"),
        "memory": ("Memory", "Memory", "754 GiB in 2 nodes"),
        "pages": ("Memory", "Huge pages", "1 GiB: 512, of which 96 free"),
        "nfs": ("Storage", "Shared", "/var/lib/libvirt/images from nfs01:/export/vms, NFS 4.2"),
        "bridges": ("Network", "Bridges", "br0, br-storage"),
        "ports": ("Network", "Migration ports", "49152–49215 open"),
    }
    for key, value in changed.items():
        domain, label, _ = values[key]
        values[key] = (domain, label, value)
    return [
        {"domain": domain, "label": label, "value": value}
        if value is not None
        else {"domain": domain, "label": label, "value": None, "why": "sudo: a password is required"}
        for domain, label, value in values.values()
    ]


def guest(
    name: str, on: str, targets: list[TargetResult], *, cluster: str = "prod", active: bool = True
) -> GuestResult:
    return {
        "name": name,
        "uuid": f"00000000-0000-4000-8000-{abs(hash_of(name)):012d}",
        "host": on,
        "cluster": cluster,
        "state": "running" if active else "shut off",
        "active": active,
        "memory_kib": 16 * 1024**2,
        "vcpus": 4,
        "targets": targets,
    }


def hash_of(name: str) -> int:
    return sum(ord(char) * 31**position for position, char in enumerate(name[:8])) % 10**12


def target(name: str, verdict: RouteVerdict = "yes", *reasons: Reason) -> TargetResult:
    return {"host": name, "verdict": verdict, "reasons": list(reasons)}


def reason(check_id: str, message: str, status: str = "fail") -> Reason:
    return {"check": check_id, "status": status, "message": message}  # type: ignore[typeddict-item]


def baseline(cluster: str = "prod", hosts: tuple[str, ...] = ("kvm01", "kvm02", "kvm03"), **more: Any) -> Baseline:
    made: dict[str, Any] = {
        "cluster": cluster,
        "hosts": list(hosts),
        "missing": {},
        "virttype": "kvm",
        "cpu_xml": CPU_XML,
        "migratable_cpu_xml": "\n".join(
            line for line in CPU_XML.splitlines() if "invtsc" not in line and "xsaves" not in line
        ),
        "model": "Cascadelake-Server",
        "vendor": "Intel",
        "problem": "",
        "engine": "the CPU map of libvirt 10.0.0 on kvm01",
        "removed_by": {},
        "cross_check": "libvirt 9.0.0 on this machine prints the same",
        **more,
    }
    return made  # type: ignore[return-value]


def results(word: Verdict, sentence: str, **parts: Any) -> Results:
    made: dict[str, Any] = {
        "format": FORMAT,
        "run": {
            "id": "20270302T0911Z-7c1e",
            "tool": "virt-preflight 0.1.0",
            "started": "2027-03-02T09:11:04Z",
            "finished": "2027-03-02T09:11:31Z",
            "valid_until": "2027-03-09T09:11:31Z",
            "change": {
                "ticket": "CHG0042",
                "window": "2027-03-07 22:00 to 02:00 UTC",
                "requester": "Storage operations",
            },
            "policy": {"transport": "tls", "mellanox_min_firmware": "28.36.1010", "validity_days": 7},
            "drain": [],
            "active": [],
            "bundle_sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        },
        "verdict": {
            "word": word,
            "sentence": sentence,
            "blocking": parts.pop("blocking", []),
            "conditions": parts.pop("conditions", []),
            "guests": counts(parts.get("guests", [])),
        },
        "hosts": [],
        "checks": [],
        "outcomes": [],
        "pairs": [],
        "guests": [],
        "baselines": [],
        **parts,
    }
    return made  # type: ignore[return-value]


def counts(guests: list[GuestResult]) -> dict[str, int]:
    found = {"two_or_more": 0, "one": 0, "none": 0, "unknown": 0, "total": 0}
    for running in (g for g in guests if g["active"]):
        verdicts = [t["verdict"] for t in running["targets"]]
        proved = sum(v in ("yes", "conditions") for v in verdicts)
        without = "unknown" if "unknown" in verdicts else "none"
        found["two_or_more" if proved > 1 else "one" if proved else without] += 1
        found["total"] += 1
    return found


def pairs(
    names: list[str],
    cluster: str = "prod",
    verdicts: dict[tuple[str, str], tuple[RouteVerdict, list[Reason]]] | None = None,
) -> list[Pair]:
    made: list[Pair] = []
    for source, to in product(names, names):
        if source != to:
            verdict, reasons = (verdicts or {}).get((source, to), ("yes", []))
            made.append({"cluster": cluster, "source": source, "target": to, "verdict": verdict, "reasons": reasons})
    return made


def go() -> Results:
    """Three like hosts, six guests, nothing found."""
    names = ["kvm01", "kvm02", "kvm03"]
    guests = [guest(f"web{n:02}", names[n % 3], [target(t) for t in names if t != names[n % 3]]) for n in range(6)]
    return results(
        "GO",
        "All 6 running guests can go to two or more hosts.",
        hosts=[host(name) for name in names],
        checks=[check("cpu.guest_fits", **{"pass": 12}), check("mellanox.firmware", skip=3)],
        pairs=pairs(names),
        guests=guests,
        baselines=[baseline()],
    )


ISO = reason("disks.local_media", "CD-ROM sda is /var/lib/libvirt/images/rhel-9.4-x86_64-dvd.iso, on a local disk.")
LACKS = reason("cpu.guest_fits", "Missing on the target: avx512_vnni, avx512f, avx512dq, pku.")
UNREAD_BRIDGES = reason("network.bridge_present", "The bridges of the target were not read.", "unknown")
FEW_PAGES = reason("memory.huge_pages_free", "16 pages of 1 GiB asked for, 4 are free.")
HOST_LACKS = reason("cpu.host_model_fits", "The host’s CPU lacks avx512f, avx512dq, pku; a plain guest has them.")
KERNELS = reason("kernel.same_release", "5.14.0-427.13.1.el9_4.x86_64 here, 5.14.0-503.11.1.el9_5.x86_64 there.")
LOCKS = reason("storage.nfs_locking", "/var/lib/libvirt/images is mounted without nolock.")


def no_go(hosts: int = 12, guests: int = 60) -> Results:
    """A mixed cluster with the classic blockers: the last quarter of the hosts is old, the second one locks."""
    names = [f"kvm{n:02}" for n in range(1, hosts + 1)]
    old, odd = names[-hosts // 4 :], names[1]
    verdicts: dict[tuple[str, str], tuple[RouteVerdict, list[Reason]]] = {}
    for source, to in product(names, names):
        if to in old and source not in old:
            verdicts[source, to] = ("no", [HOST_LACKS, KERNELS])
        elif to == odd != source:
            verdicts[source, to] = ("conditions", [LOCKS])
    made = [_classic_guest(number, names, old, odd) for number in range(guests)]
    outcomes = [_about_guest(g, t["host"], r) for g in made for t in g["targets"] for r in t["reasons"]]
    for (source, to), (_, reasons) in verdicts.items():
        subject = {"source": source, "target": to}
        outcomes += [outcome(r["check"], "fail", subject, r["message"]) for r in reasons]
    outcomes.append(
        outcome(
            "mellanox.firmware", "unknown", {"host": names[2]}, "mstflint: not found", remedy="dnf install mstflint"
        )
    )
    stuck = [g["name"] for g in made if g["active"] and all(t["verdict"] == "no" for t in g["targets"])]
    lost = dict.fromkeys(("avx512f", "avx512dq", "avx512_vnni", "pku", "clwb"), old)
    return results(
        "NO-GO",
        f"{len(stuck)} of {sum(g['active'] for g in made)} running guests cannot move anywhere: {', '.join(stuck)}.",
        blocking=[f"{name} has no target: its CD-ROM holds an image on a local disk of its host." for name in stuck]
        + [f"{name} cannot take the plain guest of any newer host: avx512f is missing." for name in old],
        conditions=[f"{odd} mounts the shared storage with NFS locking: remount with nolock or accept."]
        + [f"Free 12 huge pages of 1 GiB on {odd} before app-{n:02} comes." for n in range(9)],
        hosts=[host(name, rows=_classic_rows(number, name, names, old)) for number, name in enumerate(names)],
        checks=[check(check_id, **{"pass": 400, "fail": 12, "skip": 3}) for check_id in CHECKS],
        outcomes=outcomes,
        pairs=pairs(names, verdicts=verdicts),
        guests=made,
        baselines=[
            baseline(
                hosts=tuple(names),
                model="Haswell-noTSX-IBRS",
                removed_by=lost | {"hle": [names[0]], "rtm": [names[0]]},
            )
        ],
    )


def _classic_rows(number: int, name: str, names: list[str], old: list[str]) -> list[Row]:
    if name in old:
        release = "5.14.0-503.11.1.el9_5.x86_64"
        return facts(model="Haswell-noTSX-IBRS", microcode="0x49", kernel=release, features="ss vmx pdcm")
    if name == names[1]:
        return facts(nfs="/var/lib/libvirt/images from nfs01:/export/vms, NFS 3, local locking")
    return facts(microcode=None if name == names[2] else f"0x50036{number:02x}")


def _classic_guest(number: int, names: list[str], old: list[str], odd: str) -> GuestResult:
    name, on = f"{['web', 'db', 'app', 'cache', 'ci'][number % 5]}-{number:02}", names[number % len(names)]
    targets = []
    for to in names:
        refused = [ISO] * (number % 19 == 3) + [LACKS] * (to in old and on not in old and number % 3 > 0)
        unknown = [UNREAD_BRIDGES] * (number % 23 == 7)
        noted = [FEW_PAGES] * (to == odd)
        verdict: RouteVerdict = "unknown" if unknown else "no" if refused else "conditions" if noted else "yes"
        if to != on:
            targets.append(target(to, verdict, *refused, *unknown, *noted))
    return guest(name, on, targets, active=number % 29 != 28)


def _about_guest(of: GuestResult, to: str, because: Reason) -> Outcome:
    subject = {"guest": of["name"], "guest_uuid": of["uuid"], "host": of["host"], "target": to}
    more: dict[str, str] = {}
    if because["status"] == "fail":
        more = {"expected": "what the guest has", "actual": "not there"}
    if because is ISO:
        more["remedy"] = f"virsh change-media {of['name']} sda --eject --live --config"
    return outcome(because["check"], because["status"], subject, because["message"], **more)


def cannot_say() -> Results:
    """A host down, one without sudo."""
    why = "connection refused by 192.0.2.3 port 22"
    unknown = reason("cpu.host_model_fits", f"kvm03 was not read: {why}", "unknown")
    verdicts: dict[tuple[str, str], tuple[RouteVerdict, list[Reason]]] = {
        (a, b): ("unknown", [unknown]) for a, b in product(["kvm01", "kvm02", "kvm03"], repeat=2) if "kvm03" in (a, b)
    }
    cut_off = reason("cpu.guest_fits", f"kvm03 was not read: {why}", "unknown")
    iso = reason("disks.local_media", "CD-ROM sda is /root/boot.iso, on a local disk.")
    return results(
        "CANNOT SAY",
        "1 of 3 hosts could not be read, and 1 of 2 running guests has no proved target.",
        blocking=[f"kvm03 was not read: {why}."],
        conditions=["web01 has one possible target only."],
        hosts=[host("kvm01"), host("kvm02", rows=facts(microcode=None, pages=None)), host("kvm03", problem=why)],
        checks=[
            check("cpu.guest_fits", **{"pass": 1, "unknown": 2}),
            check("cpu.host_model_fits", **{"pass": 2, "unknown": 4}),
        ],
        outcomes=[
            outcome(
                "cpu.host_model_fits",
                "unknown",
                {"source": s, "target": t},
                unknown["message"],
                remedy="ssh root@kvm03 virsh domcapabilities",
                evidence=[{"host": "kvm03", "probe": "cpu.domcapabilities", "sha256": None}],
            )
            for s, t in verdicts
            if s != t
        ]
        + [
            outcome(
                "kernel.same_release", "error", {"source": "kvm01", "target": "kvm02"}, "ValueError: not a version: ''"
            )
        ],
        pairs=pairs(["kvm01", "kvm02", "kvm03"], verdicts=verdicts),
        guests=[
            guest("web01", "kvm01", [target("kvm02"), target("kvm03", "unknown", cut_off)]),
            guest("db01", "kvm01", [target("kvm02", "no", iso), target("kvm03", "unknown", iso, cut_off)]),
        ],
        baselines=[baseline(hosts=("kvm01", "kvm02"), missing={"kvm03": why}, migratable_cpu_xml=None, cross_check="")],
    )


def conditions() -> Results:
    """Two hosts: every guest has one target."""
    names = ["node-a.example.org", "node-b.example.org"]
    full = reason("memory.huge_pages_free", "16 pages of 1 GiB asked for, 4 are free.")
    return results(
        "GO WITH CONDITIONS",
        "Both running guests have a target, but only one each.",
        conditions=[
            "db01 needs 12 more huge pages of 1 GiB on node-b.example.org.",
            "Each guest has one possible target only.",
        ],
        hosts=[host(name) for name in names],
        checks=[check("memory.huge_pages_free", **{"pass": 1, "fail": 1})],
        outcomes=[
            outcome(
                "memory.huge_pages_free",
                "fail",
                {"guest": "db01", "host": names[0], "target": names[1]},
                "",
                expected="16 free",
                actual="4 free",
                remedy="echo 16 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
            )
        ],
        pairs=pairs(names),
        guests=[
            guest("db01", names[0], [target(names[1], "conditions", full)]),
            guest("web01", names[1], [target(names[0])]),
        ],
        baselines=[baseline(hosts=tuple(names), migratable_cpu_xml=None)],
    )


def empty() -> Results:
    """One host, no guests, nothing judged."""
    return results(
        "CANNOT SAY",
        "One host alone: there is nowhere to go.",
        hosts=[host("kvm01")],
        baselines=[
            baseline(
                hosts=("kvm01",),
                cpu_xml=None,
                migratable_cpu_xml=None,
                model=None,
                vendor=None,
                problem="no CPU in the evidence",
            )
        ],
    )


def hostile() -> Results:
    """Every text that a host could choose is an attack."""
    long = HOSTILE + "A" * 10_000
    attack = reason("disks.local_media", HOSTILE)
    made = results(
        "NO-GO",
        f"{long} has no target.",
        blocking=[f"{long} has no target."] * 3,
        conditions=[HOSTILE],
        hosts=[
            host("kvm01", HOSTILE, rows=facts(kernel=long)),
            host("kvm02", HOSTILE, rows=facts(os=HOSTILE)),
            host("kvm03", HOSTILE, problem=long),
        ],
        checks=[check("disks.local_media", fail=1)],
        outcomes=[
            outcome(
                "disks.local_media",
                "fail",
                {"guest": long, "host": "kvm01", "target": "kvm02"},
                long,
                expected=HOSTILE,
                actual=long,
                remedy=f"virsh change-media '{HOSTILE}' sda --eject",
            ),
            outcome("disks.local_media", "unknown", {"guest": HOSTILE, "host": "kvm01"}, HOSTILE, remedy=long),
        ],
        pairs=pairs(["kvm01", "kvm02"], HOSTILE, {("kvm01", "kvm02"): ("no", [attack])}),
        guests=[
            guest(long, "kvm01", [target("kvm02", "no", attack)], cluster=HOSTILE),
            guest("=cmd|'/C calc'!A0", "kvm02", [target("kvm01")], cluster=HOSTILE),
        ],
        baselines=[baseline("../../etc/cron.d/x", missing={"kvm03": long}), baseline("prod")],
    )
    made["run"]["change"] = {"ticket": HOSTILE, "window": long, "requester": "", long: HOSTILE}
    made["run"]["drain"] = ["kvm01", long]
    return made


ALL = {"go": go, "no_go": no_go, "cannot_say": cannot_say, "conditions": conditions, "empty": empty, "hostile": hostile}
