"""The sample fleets asked for what active probes do: as they answer, and where every attempt is in vain."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from audit.evidence import Bundle, Evidence
from audit.facts import dirty_rate, reach
from scripts.sample_fleets.answers import bundle
from scripts.sample_fleets.fleets import FLEETS

ACTIVE: Mapping[str, str] = {reach.OPTION: "", dirty_rate.OPTION: "5"}

_IN_VAIN = {
    "firewall.nft": (rb'\{"jump": \{"target": "filter_INPUT_ZONES"\}\}', rb'{"drop": null}'),
    "guest.dirty_rate": (rb"megabytes_per_second=12", rb"megabytes_per_second=99999"),
    "reach.mtu": (rb" 0 0 -$", rb" 0 1 -"),
    "reach.ports": (rb"^(\d+) .*$", rb"\1 124 "),
    "reach.ssh": (rb"^(\d+) 0 (\S+ \S+) .*$", rb"\1 255 \2 root@there: Permission denied (publickey)."),
}
"""By probe: what it says in the samples, and what it says where rules let nobody in, and guests are too busy."""


@cache
def tried(fleet: str) -> Bundle:
    """The fleet's evidence, with all active probes."""
    return bundle(next(one for one in FLEETS if one.name == fleet), ACTIVE)


@cache
def in_vain(fleet: str) -> Bundle:
    """The same where nothing gets through, no login is accepted, and guests change more than a network carries."""
    whole = tried(fleet)
    hosts = {
        name: replace(host, outputs={probe: _altered(output) for probe, output in host.outputs.items()})
        for name, host in whole.hosts.items()
    }
    return replace(whole, hosts=hosts)


def _altered(output: Evidence) -> Evidence:
    if output.probe not in _IN_VAIN:
        return output
    pattern, instead = _IN_VAIN[output.probe]
    stdout = re.sub(pattern, instead, output.stdout, flags=re.MULTILINE)
    assert stdout != output.stdout, f"{output.probe} says something else now"
    return replace(output, stdout=stdout)
