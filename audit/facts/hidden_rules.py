"""Rules of nftables on a host without `nft`: iptables-save does not show them, not even that there are any.

It prints what iptables made itself. So without `nft` an empty answer is a proof of nothing, unless the kernel tells
that nobody uses nf_tables, or that nobody uses it for anything but what iptables does.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from audit.evidence import Probe
from audit.facts.base import Said, Unavailable
from audit.text import visible

NF_TABLES = Probe(
    "firewall.nf_tables",
    """
grep -E '^nf' /proc/modules 2>/dev/null
echo "kernel $(grep -c . /proc/kallsyms 2>/dev/null) $(grep -c ' nf_tables_' /proc/kallsyms 2>/dev/null)"
echo end
""",
    hand="grep ^nf /proc/modules; grep -c ' nf_tables_' /proc/kallsyms",
)
INSTALL = "install it: apt-get install nftables || dnf install nftables"

# What iptables-nft's own rules need. Rules of anybody else look at the connection's state, reject, masquerade, …: by
# expressions of modules that iptables never uses. Rules of plain comparisons only would not be told apart.
_OF_IPTABLES = re.compile(
    r"nft_(compat|counter|limit|log|chain_(nat|route)(_ipv[46])?)|nf_tables_(set|ipv[46]|arp|bridge)"
)
_FEWEST_SYMBOLS = 10_000  # of any kernel that shows its symbols at all


class _Module(NamedTuple):
    uses: int
    by: frozenset[str]


def hidden_rules(said: Said, saves: Iterable[str]) -> str:
    """Why rules may be in force that only `nft` could show; "": there are none.

    `saves`: what iptables-save and ip6tables-save printed. Raises `Unavailable` if the kernel could not be asked.
    """
    lines = said.lines(NF_TABLES)
    if not lines or lines[-1] != "end" or len(lines) < 2:
        raise Unavailable(NF_TABLES, "answer is incomplete")
    mark, *counts = lines[-2].split()
    if mark != "kernel":
        raise ValueError(f"not understood: {visible(lines[-2], 80)}")
    modules = dict(_module(line) for line in lines[:-2])
    nf_tables = modules.get("nf_tables")
    if nf_tables is None:
        symbols, own = map(int, counts) if len(counts) == 2 else (0, 0)
        unable = symbols >= _FEWEST_SYMBOLS and own == 0
        return "" if unable else f"nftables is built into the kernel, or may be, and nft is not installed ({INSTALL})"
    others = sorted(name for name in nf_tables.by if _used(modules, name) and not _OF_IPTABLES.fullmatch(name))
    if others:
        used = ", ".join(others)
        return f"the kernel has rules that only nft can show ({used}), and it is not installed ({INSTALL})"
    # Each module that builds on nf_tables counts as one use. All others are rules: their comparisons and verdicts.
    if nf_tables.uses <= len(nf_tables.by):
        return ""
    if any(_made_by_iptables_nft(save) for save in saves):
        return ""
    return f"the kernel's nftables has rules that iptables-save does not show, and nft is not installed ({INSTALL})"


def _made_by_iptables_nft(save: str) -> bool:
    return re.search(r"\(nf_tables\)|xtables-save", save) is not None and re.search("^(-A|\\[)", save, re.M) is not None


def _module(line: str) -> tuple[str, _Module]:
    """One of /proc/modules: name, size, uses, users (`-` or `a,b,`), …"""
    name, _, uses, users, *_ = line.split()
    return name, _Module(int(uses), frozenset(users.split(",")) - {"-", ""})


def _used(modules: dict[str, _Module], name: str) -> bool:
    return name not in modules or modules[name].uses > 0
