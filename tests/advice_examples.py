"""Advice on CPU baselines made by hand, for the tests of what reads it."""

from typing import Any

from audit.results import (
    Advice,
    FeatureRow,
    GroupResult,
    GuestCpuAdvice,
    HostKindResult,
    LeftOutResult,
    LostFeatures,
    Results,
    SplitResult,
)
from tests.report_examples import CPU_XML, HOSTILE, baseline, go, host, hostile, results

GOOD = ["aes", "avx2", "avx512f", "sha-ni", "vaes", "amx-tile", "amx-bf16", "amx-int8", "avx-vnni", "gfni"]


def uuid(number: int) -> str:
    return f"4dea22b3-1d52-d8f3-2516-{number:012x}"


def diff(number: int, cpu: str = CPU_XML) -> str:
    """As `audit.cpu.paste.difference` makes it."""
    lines = "".join(f"+  {line}\n" for line in cpu.splitlines())
    hunk = f"@@ -10,3 +10,{len(cpu.splitlines()) + 2} @@\n   <os/>\n-  <cpu mode='host-model'/>\n{lines}   <clock/>\n"
    return f"--- {uuid(number)}.before.xml\n+++ {uuid(number)}.after.xml\n{hunk}"


def guest(name: str, on: str, number: int = 1, effect: str = "power cycle", **more: Any) -> GuestCpuAdvice:
    made: dict[str, Any] = {
        "guest": name,
        "uuid": uuid(number),
        "host": on,
        "effect": effect,
        "blocked": {},
        "unproved": {},
        "loses": [],
        "gains": [],
        "problem": "",
        "diff": diff(number),
        "apply": [
            f"virsh dumpxml --inactive --security-info {uuid(number)} > {uuid(number)}.before.xml",
            f"# or, without the difference: virt-xml {uuid(number)} --edit --cpu 'model=Haswell'",
            f"virsh shutdown {uuid(number)}",
        ],
        "undo": [f"virsh define {uuid(number)}.before.xml"],
        **more,
    }
    return made  # type: ignore[return-value]


def kind(hosts: list[str], model: str, features: int, level: int) -> HostKindResult:
    return {"hosts": hosts, "model": model, "features": features, "level": level}


def group(hosts: list[str], model: str | None, features: int, level: int) -> GroupResult:
    return {"hosts": hosts, "model": model, "features": features, "level": level, "cpu_xml": CPU_XML if model else None}


def split(groups: list[GroupResult], movable: int | None = None, *best_by: str, exact: bool = True) -> SplitResult:
    hosts = sum(len(each["hosts"]) for each in groups)
    return {
        "groups": groups,
        "features": round(sum(each["features"] * len(each["hosts"]) for each in groups) / hosts, 1),
        "level": round(sum(each["level"] * len(each["hosts"]) for each in groups) / hosts, 2),
        "movable": movable,
        "best_by": list(best_by or ("features", "level", "guests")),
        "exact": exact,
    }


def advice(**parts: Any) -> Advice:
    """Two old hosts cost a new one what they lack; four guests, one of each effect."""
    old, new = ["kvm01", "kvm02"], ["kvm03"]
    lost: LostFeatures = {
        "features": GOOD,
        "hosts": old,
        "why": [
            {"hosts": ["kvm01"], "cause": "silicon", "words": "the processor (family 6) does not have it"},
            {"hosts": ["kvm02"], "cause": "software", "words": "the same processor as kvm03: kernel 5.14 (there 6.1)"},
        ],
    }
    held: LostFeatures = {
        "features": ["invtsc"],
        "hosts": [],
        "why": [{"hosts": [], "cause": "hypervisor", "words": "QEMU does not migrate it"}],
    }
    rows: list[FeatureRow] = [
        {"features": ["invtsc"], "given": [True, True], "baseline": False},
        {"features": GOOD, "given": [False, True], "baseline": False},
    ]
    gain: LeftOutResult = {"hosts": old, "model": "SapphireRapids", "level": 4, "gained": GOOD}
    made: dict[str, Any] = {
        "features": 99,
        "level": 1,
        "warning": "The baseline reaches x86-64-v1 only: systems built for x86-64-v2 do not start on it.",
        "kinds": [kind(old, "Haswell", 100, 3), kind(new, "SapphireRapids", 200, 4)],
        "matrix": rows,
        "lost": [lost, held],
        "left_out": [gain],
        "splits": [
            split([group(old + new, "Haswell", 99, 3)], 2),
            split([group(old, "Haswell", 99, 3), group(new, "SapphireRapids", 199, 4)], 2),
        ],
        "guests": [
            guest(
                "web01",
                "kvm03",
                1,
                blocked={"kvm01": "lacks avx512f", "kvm02": "lacks avx512f"},
                loses=GOOD,
                gains=["ibrs", "ibpb"],
            ),
            guest("db01", "kvm01", 2, "unknown", unproved={"kvm02": "not read"}, problem="not told", diff="", apply=[]),
            guest("off01", "kvm01", 3, "next start"),
            guest("off02", "kvm01", 4, "next start"),
            guest("calm01", "kvm02", 5, "has it"),
        ],
        "unread": {},
        **parts,
    }
    return made  # type: ignore[return-value]


def advised(**parts: Any) -> Results:
    made = go()
    made["baselines"] = [
        {**baseline(), "notes": ["virsh on kvm01 would refuse: Unknown CPU feature gfni"], "advice": advice(**parts)}
    ]
    return made


def vast(hosts: int = 1000, kinds: int = 12, guests: int = 300) -> Results:
    """A thousand hosts of a dozen kinds, whose guests all differ."""
    models = ["Westmere", "SandyBridge", "Haswell-noTSX-IBRS", "Skylake-Server-noTSX-IBRS", "Cascadelake-Server"]
    names = [f"node{number:04}.rack{number % 40:02}.example.org" for number in range(hosts)]
    parts = [names[number::kinds] for number in range(kinds)]
    features = [[f"feature-{row}-{n}" for n in range(1 + row * 7 % 40)] for row in range(60)]
    groups = [group(part, models[n % 5], 90 + 9 * n, min(4, 1 + n // 3)) for n, part in enumerate(parts)]
    splits = [split([group(names, "Westmere", 90, 1)], 40, "features", "level", "guests", exact=False)]
    for number in (2, 3, 4):
        for goal, cuts in (("features", 1), ("level", 2), ("guests", 3)):
            kept = [g["hosts"] for g in groups[: number - 1 + cuts][-(number - 1) :]]
            rest = [name for name in names if not any(name in part for part in kept)]
            joint = [group(rest, "Westmere", 90, 1)] + [group(k, "Haswell", 150 + 9 * cuts, 3) for k in kept]
            splits.append(split(joint, 40 + cuts, goal, exact=False))
    blocked = {name: f"lacks {', '.join(features[n % 7][:16])}" for n, name in enumerate(names[:400])}
    made = results("GO", "Large.", hosts=[host(name) for name in names])
    made["baselines"] = [
        {
            **baseline(hosts=tuple(names)),
            "notes": [
                f"virsh on {', '.join(part[:8])} and {len(part) - 8} more would refuse: feature x{n}"
                for n, part in enumerate(parts)
            ],
            "advice": {
                "features": 90,
                "level": 1,
                "warning": advice()["warning"],
                "kinds": [kind(part, models[n % 5], 90 + 9 * n, min(4, 1 + n // 3)) for n, part in enumerate(parts)],
                "matrix": [
                    {"features": row, "given": [(n * 7 + m) % 5 > 1 for m in range(kinds)], "baseline": False}
                    for n, row in enumerate(features)
                ],
                "lost": [
                    {
                        "features": row,
                        "hosts": parts[n % kinds] + parts[(n + 1) % kinds],
                        "why": [
                            {
                                "hosts": part,
                                "cause": "silicon",
                                "words": f"the processor (stepping {m}) lacks it",
                            }
                            for m, part in enumerate((parts[n % kinds], parts[(n + 1) % kinds]))
                        ],
                    }
                    for n, row in enumerate(features)
                ],
                "left_out": [
                    {"hosts": part, "model": models[n % 5], "level": 2, "gained": features[n % 60]}
                    for n, part in enumerate(parts)
                ],
                "splits": splits,
                "guests": [
                    guest(
                        f"vm{n:04}",
                        names[n % hosts],
                        n,
                        blocked=blocked if n % 3 else {},
                        loses=features[n % 60],
                        gains=features[3][: n % 9],
                    )
                    for n in range(guests)
                ],
                "unread": {},
            },
        }
    ]
    return made


def spiteful() -> Results:
    """Every text of the advice that a host or a guest could choose is an attack."""
    long = HOSTILE + "A" * 10_000
    parts = advice()
    attacked = guest(long, long, 9, blocked={long: long}, unproved={HOSTILE: long}, loses=[long, HOSTILE], problem=long)
    attacked.update(diff=f"+{HOSTILE}\n" + "B" * 30_000, apply=[f"virsh define '{HOSTILE}'"], undo=[long])
    made = hostile()
    made["baselines"] = [
        {
            **baseline(),
            "notes": [long, HOSTILE],
            "advice": advice(
                warning=long,
                kinds=[kind([long, HOSTILE], long, 3, 4), kind([HOSTILE], HOSTILE, 0, 0)],
                matrix=[{"features": [long, HOSTILE], "given": [True, False], "baseline": False}],
                lost=[
                    {"features": [long], "hosts": [long], "why": [{"hosts": [long], "cause": "silicon", "words": long}]}
                ],
                left_out=[{"hosts": [long], "model": HOSTILE, "level": 1, "gained": [long]}],
                splits=[
                    split([group([long], None, 0, 0), group([HOSTILE], HOSTILE, 0, 0)]),
                    parts["splits"][1],
                ],
                guests=[attacked, guest(HOSTILE, "kvm01", 10, diff="\ud800", effect="has it"), *_forged()],
            ),
        }
    ]
    return made


def _forged() -> list[GuestCpuAdvice]:
    """What is no UUID names no file."""
    names = ["../../etc/passwd", "", "a/b", f"{uuid(1)}\n", f"{uuid(1)}/x", "CON", uuid(1).replace("-", "")]
    return [{**guest(f"forged{n}", "kvm01", 1), "uuid": name} for n, name in enumerate(names)]
