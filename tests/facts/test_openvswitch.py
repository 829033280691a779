"""Open vSwitch: installed, running, settings, bridges; good answers and broken ones."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.openvswitch import DATABASE, INSTALLED, Bridge, OpenVswitch
from audit.facts.services import UNITS

# As ovs-vsctl 3.1.0 prints it for a bridge with an uplink, a representor and a bond of two.
DATABASE_TEXT = """\
{"data":[[["map",[["hw-offload","true"],["max-idle","300000"]]]]],"headings":["other_config"]}
{"data":[["br0",["set",[["uuid","p-br0"],["uuid","p-up"],["uuid","p-bond"]]]],["br1",["uuid","p-br1"]]],"headings":["name","ports"]}
{"data":[[["uuid","p-br0"],["uuid","i-br0"]],[["uuid","p-up"],["uuid","i-up"]],[["uuid","p-br1"],["uuid","i-br1"]],\
[["uuid","p-bond"],["set",[["uuid","i-0"],["uuid","i-1"]]]]],"headings":["_uuid","interfaces"]}
{"data":[[["uuid","i-up"],"enp225s0np0"],[["uuid","i-br0"],"br0"],[["uuid","i-br1"],"br1"],[["uuid","i-0"],"p0"],\
[["uuid","i-1"],"p1"]],"headings":["_uuid","name"]}
"""


def units(state: str, load: str = "loaded") -> str:
    return f"Id=ovs-vswitchd.service\nNames=ovs-vswitchd.service\nLoadState={load}\nActiveState={state}\nSubState=x\n"


def answers(**changes: str | tuple[int, str]) -> dict[str, str | tuple[int, str]]:
    good: dict[str, str | tuple[int, str]] = {
        INSTALLED.name: "yes\n",
        DATABASE.name: DATABASE_TEXT,
        UNITS.name: units("active"),
    }
    names = {"installed": INSTALLED.name, "database": DATABASE.name, "units": UNITS.name}
    return good | {names[name]: answer for name, answer in changes.items()}


def test_a_switch_in_order(said: Callable[..., Said]) -> None:
    ovs = OpenVswitch.parse(said(answers()))
    assert ovs.installed
    assert ovs.running
    assert ovs.database.setting("hw-offload") == "true"
    assert ovs.database.setting("dpdk-init") is None
    assert ovs.database.bridges == (
        Bridge("br0", frozenset({"br0", "enp225s0np0", "p0", "p1"})),
        Bridge("br1", frozenset({"br1"})),
    )
    assert ovs.bridge_of("p1") == "br0"
    assert ovs.bridge_of("eth7") is None


def test_not_installed(said: Callable[..., Said]) -> None:
    ovs = OpenVswitch.parse(said(answers(installed="no\n", database="not installed\n")))
    assert (ovs.installed, ovs.running, ovs.bridge_of("p1")) == (False, False, None)


def test_stopped(said: Callable[..., Said]) -> None:
    failed = "ovs-vsctl: unix:/var/run/openvswitch/db.sock: database connection failed (No such file or directory)"
    ovs = OpenVswitch.parse(said(answers(units=units("inactive"), database=(1, failed))))
    assert not ovs.running
    with pytest.raises(Unavailable, match="database connection failed"):
        ovs.bridge_of("p1")


@pytest.mark.parametrize(
    "answer", [units("inactive", "not-found"), (1, "System has not been booted with systemd"), "garbage", ""]
)
def test_not_known_whether_it_runs(said: Callable[..., Said], answer: str | tuple[int, str]) -> None:
    ovs = OpenVswitch.parse(said(answers(units=answer)))
    with pytest.raises(Unavailable):
        _ = ovs.running
    assert ovs.bridge_of("p0") == "br0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]\n[]\n[]\n[]",
        DATABASE_TEXT.rsplit("\n", 2)[0],  # a table is missing
        DATABASE_TEXT.replace('"map"', '"set"'),
        DATABASE_TEXT.replace('["uuid","i-1"],"p1"', '["uuid","i-9"],"p1"'),  # a port without its interface
        DATABASE_TEXT.replace('[[["map",[["hw-offload","true"],["max-idle","300000"]]]]]', "[]"),
        "[" * 100_000,
    ],
)
def test_broken_database_is_unknown(said: Callable[..., Said], text: str) -> None:
    with pytest.raises(Unavailable):
        _ = OpenVswitch.parse(said(answers(database=text))).database


@pytest.mark.parametrize("text", ["", "maybe\n", "yes\nno\n"])
def test_broken_installed_is_refused(said: Callable[..., Said], text: str) -> None:
    with pytest.raises(ValueError, match="neither yes nor no"):
        OpenVswitch.parse(said(answers(installed=text)))


@given(st.sampled_from([INSTALLED, DATABASE, UNITS]), st.binary(max_size=300))
def test_any_bytes_are_a_fact_or_refused(probe: object, data: bytes) -> None:
    outputs = {n: Evidence(n, 0, str(text).encode()) for n, text in answers().items()}
    outputs |= {p.name: Evidence(p.name, 0, data) for p in (INSTALLED, DATABASE, UNITS) if p is probe}
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        OpenVswitch.parse(Said(HostEvidence("kvm01", outputs)))


@pytest.mark.corpus
def test_real_tables(said: Callable[..., Said], samples: Callable[[str], list[Path]]) -> None:
    """Real answers hold one table each, with other columns: put in the place of the one they resemble."""
    tables = DATABASE_TEXT.splitlines()
    read, refused = [], []
    for path in samples("ovs-vsctl"):
        text = path.read_text().strip()
        database = "\n".join([text, *tables[1:]])
        try:
            read.append((path.name, OpenVswitch.parse(said(answers(database=database))).database.setting("hw-offload")))
        except Unavailable:
            refused.append(path.name)
    assert read == [
        ("ovs-vsctl__debian12-lab__3.txt", None),  # a table of bridges, which have an other_config too
        ("ovs-vsctl__debian12-lab__4.txt", None),
        ("ovs-vsctl__debian12-lab__8.txt", "true"),
    ]
    assert len(refused) == 8


@pytest.mark.corpus
@pytest.mark.parametrize("fact", ["ovs-other-config", "ovs-vsctl"])
def test_real_answers_in_any_place_are_understood_or_refused(
    fact: str, said: Callable[..., Said], samples: Callable[[str], list[Path]]
) -> None:
    tables = DATABASE_TEXT.splitlines()
    for path in samples(fact):
        text = path.read_text(errors="replace").strip()
        for place in range(4):
            database = "\n".join([*tables[:place], text, *tables[place + 1 :]])
            for answer in (database, text, (1, text)):
                ovs = OpenVswitch.parse(said(answers(database=answer)))
                with contextlib.suppress(Unavailable):
                    hash(ovs.database)
    for path in samples("ovs-other-config"):  # the map alone, as `ovs-vsctl get` prints it, is no table
        with pytest.raises(Unavailable):
            _ = OpenVswitch.parse(said(answers(database="\n".join([path.read_text().strip(), *tables[1:]])))).database
