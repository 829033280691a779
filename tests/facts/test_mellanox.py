"""Mellanox devices: probes run on a made-up sysfs with made-up tools, parsers on good and broken answers."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence, Probe
from audit.facts.base import Said, Unavailable
from audit.facts.guest_source import _SECTIONS, GUESTS, XML, XML_INACTIVE
from audit.facts.mellanox import IOMMU, SYSFS, Iommu, MellanoxDevices, Netdev
from audit.facts.mellanox_tools import (
    DEVLINK_INFO,
    ESWITCH,
    ETHTOOL,
    MODULE,
    MSTCONFIG,
    MSTFLINT,
    PORTS,
    TOOLS,
    DevlinkPort,
    Firmware,
    VfMigrationMode,
    version_key,
)
from audit.facts.vfio import VFIO, VfioDevices

PF = "0000:e1:00.0"
SYSFS_TEXT = f"""\
== {PF}
device 0x1021
class 0x020000
sriov_numvfs 2
sriov_totalvfs 16
numa_node 1
driver mlx5_core
virtfn0 0000:e1:00.1
virtfn1 0000:e1:00.2
group {PF}
net enp225s0np0 p0 up ovs-system
net enp225s0npf0vf0 pf0vf0 up ovs-system
== 0000:e1:00.1
device 0x101e
class 0x020000
numa_node 1
driver mlx5_vfio_pci
physfn {PF}
group 0000:e1:00.1
== 0000:e1:00.2
device 0x101e
class 0x020000
numa_node 1
physfn {PF}
end
"""


def blocks(**answers: tuple[int, str] | str) -> str:
    """What a per-device probe prints; the key is the device, `pf` for the one above."""
    text = ""
    for device, answer in answers.items():
        status, words = answer if isinstance(answer, tuple) else (0, answer)
        text += f"== {PF if device == 'pf' else device} {status}\n"
        text += "".join(f" {line}\n" for line in words.splitlines())
    return text + "end\n"


INFO = json.dumps(
    {
        "info": {
            f"pci/{PF}": {
                "driver": "mlx5_core",
                "versions": {
                    "fixed": {"fw.psid": "MT_0000000844"},
                    "running": {"fw.version": "28.41.1000", "fw": "28.41.1000"},
                    "stored": {"fw.version": "28.43.1014", "fw": "28.43.1014"},
                },
            }
        }
    }
)
MSTCONFIG_TEXT = f"""\

Device #1:
----------

Device type:        ConnectX7
Name:               MCX75310AAS-NEA_Ax
Description:        NVIDIA ConnectX-7 adapter card (default mode); single-port OSFP
Device:             {PF}

Configurations:                                          Default             Current             Next Boot
*       VF_MIGRATION_MODE                           DEVICE_DEFAULT(0)   MIGRATION_DISABLED(1) MIGRATION_ENABLED(2)
The '*' shows parameters with next value different from default/current value.
"""
PORTS_TEXT = json.dumps(
    {
        "port": {
            f"pci/{PF}/65535": {"type": "eth", "netdev": "enp225s0np0", "flavour": "physical", "port": 0},
            f"pci/{PF}/1": {"flavour": "pcivf", "pfnum": 0, "vfnum": 0, "function": {"migratable": "enable"}},
            f"pci/{PF}/2": {"flavour": "pcivf", "pfnum": 0, "vfnum": 1, "function": {"migratable": "disable"}},
            "pci/0000:e1:00.01/1": {"flavour": "pcivf", "pfnum": 0, "vfnum": 0, "function": {"migratable": "disable"}},
        }
    }
)
ESWITCH_TEXT = json.dumps({"dev": {f"pci/{PF}": {"mode": "switchdev", "inline-mode": "none", "encap-mode": "basic"}}})

Answers = dict[str, str | tuple[int, str]]


def answers(**changes: str | tuple[int, str]) -> Answers:
    """A host with one PF in order; a change names a probe without its domain."""
    good: Answers = {
        SYSFS.name: SYSFS_TEXT,
        DEVLINK_INFO.name: blocks(pf=INFO),
        ETHTOOL.name: blocks(pf="driver: mlx5_core\nfirmware-version: 28.40.1000 (MT_0000000833)\nbus-info: " + PF),
        MSTFLINT.name: blocks(pf="FW Version:            28.43.1014\nPSID:                  MT_0000000844"),
        MSTCONFIG.name: blocks(pf=MSTCONFIG_TEXT),
        ESWITCH.name: blocks(pf=ESWITCH_TEXT),
        PORTS.name: blocks(all=PORTS_TEXT),
        TOOLS.name: blocks(all="/usr/bin/mstconfig"),
        MODULE.name: blocks(all="loaded"),
    }
    return good | {f"mellanox.{name}": answer for name, answer in changes.items()}


def test_a_host_in_order(said: Callable[..., Said]) -> None:
    devices = MellanoxDevices.parse(said(answers()))
    [pf] = devices.pfs
    assert (pf.address, pf.model, pf.ethernet, pf.driver, pf.total_vfs) == (PF, "ConnectX-7", True, "mlx5_core", 16)
    assert pf.uplink == Netdev("enp225s0np0", "p0", "up", "ovs-system")
    assert pf.firmware == Firmware("28.41.1000", "28.43.1014", "MT_0000000844")
    assert pf.vf_migration == VfMigrationMode(supported=True, current=1, next_boot=2)
    assert pf.eswitch == "switchdev"
    assert devices.mstflint
    assert devices.vfio_module
    first, second = pf.vfs
    assert (first.address, first.number, first.driver, first.isolated, first.port) == (
        "0000:e1:00.1",
        0,
        "mlx5_vfio_pci",
        True,
        DevlinkPort(f"pci/{PF}/1", migratable=True),
    )
    assert first.representor == Netdev("enp225s0npf0vf0", "pf0vf0", "up", "ovs-system")
    assert (second.driver, second.isolated, second.representor, second.port.migratable) == (None, None, None, False)
    assert devices.vf("0000:e1:00.2") == second
    assert devices.pf(second) == pf
    assert devices.vf(PF) is None
    assert devices.vf("0000:00:02.0") is None
    assert hash(devices) == hash(MellanoxDevices.parse(said(answers())))


def test_no_device_needs_no_tool(said: Callable[..., Said]) -> None:
    for text in ("end\n", "no PCI bus\n"):
        devices = MellanoxDevices.parse(said({SYSFS.name: text, TOOLS.name: "end\n"}))
        assert devices.pfs == ()
        with pytest.raises(Unavailable, match="not asked"):
            _ = devices.mstflint


def test_a_vf_inside_a_virtual_machine_is_not_a_card(said: Callable[..., Said]) -> None:
    text = "== 0000:05:00.0\ndevice 0x101e\nclass 0x020000\ndriver mlx5_core\nnet eth1 - up -\nend\n"
    assert MellanoxDevices.parse(said({SYSFS.name: text})).pfs == ()


def test_functions_that_are_no_network_card_are_left_out(said: Callable[..., Said]) -> None:
    text = "== 0000:03:00.2\ndevice 0xc2d5\nclass 0x080100\nend\n"
    assert MellanoxDevices.parse(said({SYSFS.name: text})).pfs == ()


@pytest.mark.parametrize(
    ("device", "model", "too_old"),
    [
        ("0x1021", "ConnectX-7", False),
        ("0x101d", "ConnectX-6 Dx", True),
        ("0xa2dc", "BlueField-3", False),
        ("0x1099", "device 15b3:1099", False),
    ],
)
def test_models(said: Callable[..., Said], device: str, model: str, too_old: bool) -> None:
    text = f"== 0001:03:00.0\ndevice {device}\nclass 0x020700\nend\n"
    [pf] = MellanoxDevices.parse(said({SYSFS.name: text})).pfs
    assert (pf.model, pf.too_old, pf.ethernet, pf.uplink, pf.vfs) == (model, too_old, False, None, ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "== 0000:e1:00.0\ndevice 0x1021\nclass 0x020000\n",  # cut off
        "device 0x1021\nend\n",
        "== ../../etc\ndevice 0x1021\nclass 0x020000\nend\n",
        "== 0000:e1:00.0\nclass 0x020000\nend\n",
        "== 0000:e1:00.0\ndevice 0x1021\nclass 0x020000\nsriov_numvfs 1\nend\n",  # told, but not listed
        "== 0000:e1:00.0\ndevice 0x1021\nclass 0x020000\nnet eth0 p0\nend\n",
        "== 0000:e1:00.0\ndevice 0x1021\nclass 0x020000\nsriov_numvfs 1\nvirtfn0 0000:e1:00.1\nend\n",
    ],
)
def test_broken_sysfs_is_refused(said: Callable[..., Said], text: str) -> None:
    devices = MellanoxDevices.parse(said({SYSFS.name: text}))
    with pytest.raises(Unavailable):
        devices.vf("0000:e1:00.1")


def test_each_tool_fails_for_itself(said: Callable[..., Said]) -> None:
    refused = (1, "sudo: a password is required")
    [pf] = MellanoxDevices.parse(
        said(answers(mstconfig=blocks(pf=refused), eswitch=blocks(pf=refused), ports=(124, "")))
    ).pfs
    for read in (lambda: pf.vf_migration, lambda: pf.eswitch):
        with pytest.raises(Unavailable, match="a password is required"):
            read()
    with pytest.raises(Unavailable, match="exit status 124"):
        _ = pf.vfs[0].port
    assert pf.firmware.running == "28.41.1000"


def test_one_device_failing_leaves_the_other(said: Callable[..., Said]) -> None:
    other = "0000:c1:00.0"
    sysfs = f"== {other}\ndevice 0x1021\nclass 0x020000\n{SYSFS_TEXT}"
    table = "Configurations:   Next Boot\n   VF_MIGRATION_MODE   2\n"
    both = blocks(**{other: (3, "-E- Failed to open the device"), "pf": table})
    first, second = MellanoxDevices.parse(said(answers(sysfs=sysfs, mstconfig=both))).pfs
    with pytest.raises(Unavailable, match="Failed to open the device"):
        _ = first.vf_migration
    assert second.vf_migration == VfMigrationMode(supported=True, current=None, next_boot=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Configurations:      Next Boot\n        VF_MIGRATION_MODE         DEVICE_DEFAULT(0)\n", (None, 0)),
        (
            "Configurations:   Default   Next Boot\n VF_MIGRATION_MODE  DEVICE_DEFAULT(0)  MIGRATION_ENABLED(2)\n",
            (None, 2),
        ),
        (
            "Configurations: Default Current Next Boot\n*  RO  VF_MIGRATION_MODE  DEVICE_DEFAULT(0)"
            " MIGRATION_ENABLED(2) MIGRATION_DISABLED(1)\n",
            (2, 1),
        ),
    ],
)
def test_columns_of_mstconfig(said: Callable[..., Said], text: str, expected: tuple[int | None, int]) -> None:
    [pf] = MellanoxDevices.parse(said(answers(mstconfig=blocks(pf=text)))).pfs
    assert (pf.vf_migration.current, pf.vf_migration.next_boot) == expected


def test_firmware_that_knows_no_such_parameter(said: Callable[..., Said]) -> None:
    words = "-E- The Device doesn't support VF_MIGRATION_MODE parameter"
    [pf] = MellanoxDevices.parse(said(answers(mstconfig=blocks(pf=(3, words))))).pfs
    assert pf.vf_migration == VfMigrationMode(supported=False, current=None, next_boot=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "VF_MIGRATION_MODE  MIGRATION_ENABLED(2)",  # no header: which column?
        "Configurations:  Default  Current  Next Boot\n VF_MIGRATION_MODE  MIGRATION_ENABLED(2)",
        "Configurations:  Next Boot\n VF_MIGRATION_MODE  Array[0..7]",
        "Configurations:  Next Boot\n VF_MIGRATION_MODE_EXTRA  2",
    ],
)
def test_broken_mstconfig_is_unknown(said: Callable[..., Said], text: str) -> None:
    [pf] = MellanoxDevices.parse(said(answers(mstconfig=blocks(pf=text)))).pfs
    with pytest.raises(Unavailable):
        _ = pf.vf_migration


@pytest.mark.parametrize(
    ("devlink", "ethtool", "expected"),
    [
        ((1, "kernel answers: No such device"), None, Firmware("28.40.1000", None, "MT_0000000833")),
        (f'{{"info":{{"pci/{PF}":{{"driver":"mlx5_core"}}}}}}', None, Firmware("28.40.1000", None, "MT_0000000833")),
        ("warning\n" + INFO, None, Firmware("28.41.1000", "28.43.1014", "MT_0000000844")),
        ("[]", "firmware-version: N/A", Firmware("28.43.1014", "28.43.1014", "MT_0000000844")),
        ("{", (71, "Cannot get driver information"), Firmware("28.43.1014", "28.43.1014", "MT_0000000844")),
    ],
)
def test_firmware_from_the_first_tool_that_tells(
    said: Callable[..., Said], devlink: str | tuple[int, str], ethtool: str | tuple[int, str] | None, expected: Firmware
) -> None:
    changes = {"devlink_info": blocks(pf=devlink)} | ({"ethtool": blocks(pf=ethtool)} if ethtool else {})
    assert MellanoxDevices.parse(said(answers(**changes))).pfs[0].firmware == expected


def test_running_firmware_behind_the_flash(said: Callable[..., Said]) -> None:
    flash = "FW Version:            28.43.1014\nFW Version(Running):   28.41.1000\nPSID:   MT_0000000844\n"
    none = (1, "Failed to connect to devlink Netlink")
    changes = {"devlink_info": blocks(pf=none), "ethtool": blocks(pf=none), "mstflint": blocks(pf=flash)}
    [pf] = MellanoxDevices.parse(said(answers(**changes))).pfs
    assert pf.firmware == Firmware("28.41.1000", "28.43.1014", "MT_0000000844")


def test_no_tool_tells_the_firmware(said: Callable[..., Said]) -> None:
    none = blocks(pf=(127, "sh: 1: devlink: not found"))
    [pf] = MellanoxDevices.parse(said(answers(devlink_info=none, ethtool=none, mstflint=none))).pfs
    with pytest.raises(Unavailable, match="command not found"):
        _ = pf.firmware


def test_no_psid_is_unknown(said: Callable[..., Said]) -> None:
    info = json.dumps({"info": {f"pci/{PF}": {"versions": {"running": {"fw": "28.41.1000"}}}}})
    [pf] = MellanoxDevices.parse(said(answers(devlink_info=blocks(pf=info)))).pfs
    assert pf.firmware.running == "28.41.1000"
    with pytest.raises(Unavailable, match="PSID"):
        _ = pf.psid


@pytest.mark.parametrize(
    "port",
    [
        {"flavour": "pcivf", "vfnum": 0, "function": {"hw_addr": "00:00:00:00:00:00"}},  # an older kernel
        {"flavour": "pcivf", "vfnum": 0},
        {"flavour": "pcivf", "vfnum": 0, "external": True, "function": {"migratable": "enable"}},
        {"flavour": "physical", "port": 0},
        {"flavour": "pcivf", "vfnum": 0, "function": []},
        [],
    ],
)
def test_migratable_not_told_is_unknown(said: Callable[..., Said], port: object) -> None:
    text = json.dumps({"port": {f"pci/{PF}/1": port}})
    [pf] = MellanoxDevices.parse(said(answers(ports=blocks(all=text)))).pfs
    with pytest.raises(Unavailable):
        _ = pf.vfs[0].port


@pytest.mark.parametrize("text", ["", "{}", '{"dev":{}}', f'{{"dev":{{"pci/{PF}":{{"mode":"other"}}}}}}'])
def test_broken_eswitch_is_unknown(said: Callable[..., Said], text: str) -> None:
    [pf] = MellanoxDevices.parse(said(answers(eswitch=blocks(pf=text)))).pfs
    with pytest.raises(Unavailable):
        _ = pf.eswitch


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((0, "/lib/modules/6.12/kernel/drivers/vfio/pci/mlx5/mlx5-vfio-pci.ko.xz"), True),
        ((1, "modinfo: ERROR: Module mlx5_vfio_pci not found."), False),
        ((127, "sh: 1: modinfo: not found"), None),
        ((1, "modinfo: unrecognized option: n"), None),
    ],
)
def test_module(said: Callable[..., Said], answer: tuple[int, str], expected: bool | None) -> None:
    devices = MellanoxDevices.parse(said(answers(vfio_module=blocks(all=answer))))
    if expected is None:
        with pytest.raises(Unavailable):
            _ = devices.vfio_module
    else:
        assert devices.vfio_module is expected


def test_mstflint_absent(said: Callable[..., Said]) -> None:
    assert not MellanoxDevices.parse(said(answers(tools=blocks(all=(127, ""))))).mstflint


def test_a_vf_that_a_running_guest_has(said: Callable[..., Said]) -> None:
    uuid, mark = "6c1a5b8e-3b0f-4c56-8a44-0d2f6b1f2a10", "0123456789abcdef" * 2
    source = "<source><address type='pci' domain='0x0000' bus='0xe1' slot='0x00' function='0x1'/></source>"
    devices = f"<devices><interface type='hostdev'><mac address='52:54:00:00:00:01'/>{source}</interface></devices>"
    head = f"<name>db</name><uuid>{uuid}</uuid>"
    lists = dict.fromkeys(_SECTIONS, "") | dict.fromkeys(["all", "running", "persistent", "no-snapshots"], uuid + "\n")
    guests = {
        GUESTS.name: "".join(f"@{name}\n{uuids}" for name, uuids in lists.items()),
        XML.name: f"{mark}\n{mark} {uuid}\n<domain type='kvm' id='3'>{head}{devices}</domain>\n{mark} end\n",
        XML_INACTIVE.name: f"{mark}\n{mark} {uuid}\n<domain type='kvm'>{head}{devices}</domain>\n{mark} end\n",
    }
    first, second = MellanoxDevices.parse(said(answers() | guests)).pfs[0].vfs
    assert (first.held, second.held) == (True, False)
    nobody_knows, _ = MellanoxDevices.parse(said(answers())).pfs[0].vfs
    with pytest.raises(Unavailable):
        _ = nobody_knows.held


def test_a_vf_in_one_group_with_its_pf_is_not_isolated(said: Callable[..., Said]) -> None:
    text = SYSFS_TEXT.replace("group 0000:e1:00.1\n", f"group 0000:e1:00.1\ngroup {PF}\ngroup 0000:e0:01.0\n")
    assert MellanoxDevices.parse(said(answers(sysfs=text))).pfs[0].vfs[0].isolated is False
    bridge_only = SYSFS_TEXT.replace("group 0000:e1:00.1\n", "group 0000:e1:00.1\ngroup 0000:e0:01.0\n")
    assert MellanoxDevices.parse(said(answers(sysfs=bridge_only))).pfs[0].vfs[0].isolated is True


def test_versions_compare_as_numbers() -> None:
    assert version_key("28.36.1010") < version_key("28.41.1000") < version_key("28.100.0002")
    assert version_key("16.26.0100") == version_key("16.26.100")
    with pytest.raises(ValueError, match="invalid literal"):
        version_key("N/A")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "groups 97\ntable DMAR\ncmdline BOOT_IMAGE=/vmlinuz ro intel_iommu=on iommu=pt quiet\n",
            Iommu(97, frozenset({"DMAR"}), ("intel_iommu=on", "iommu=pt")),
        ),
        ("groups 0\ncmdline ro\nroot=/dev/sda1 amd_iommu=off\n", Iommu(0, frozenset(), ("amd_iommu=off",))),
        ("groups none\ncmdline ro\n", Iommu(0, frozenset(), ())),
    ],
)
def test_iommu(said: Callable[..., Said], text: str, expected: Iommu) -> None:
    assert Iommu.parse(said({IOMMU.name: text})) == expected


@pytest.mark.parametrize("text", ["", "groups 3\n", "cmdline ro\n", "groups many\ncmdline ro\n", "oops\ncmdline ro\n"])
def test_broken_iommu_is_refused(said: Callable[..., Said], text: str) -> None:
    with pytest.raises((Unavailable, ValueError)):
        Iommu.parse(said({IOMMU.name: text}))


@given(
    probe=st.sampled_from([SYSFS, DEVLINK_INFO, ETHTOOL, MSTFLINT, MSTCONFIG, ESWITCH, PORTS, TOOLS, MODULE]),
    words=st.text(max_size=200)
    | st.recursive(
        st.none() | st.text(max_size=8),
        lambda c: (
            st.lists(c)
            | st.dictionaries(
                st.sampled_from(["info", "dev", "port", f"pci/{PF}", f"pci/{PF}/1", "versions", "running", "fw"]), c
            )
        ),
    ).map(json.dumps),
    framed=st.booleans(),
)
def test_any_text_is_a_fact_or_refused(probe: Probe, words: str, framed: bool) -> None:
    text = f"== {PF} 0\n {words}\nend\n" if framed else words
    raw = {name: value for name, value in answers().items() if isinstance(value, str)} | {probe.name: text}
    host = HostEvidence("kvm01", {n: Evidence(n, 0, v.encode("utf-8", "replace")) for n, v in raw.items()})
    with contextlib.suppress(Unavailable):
        [pf] = MellanoxDevices.parse(Said(host)).pfs
        for read in (lambda: pf.firmware, lambda: pf.psid, lambda: pf.vf_migration, lambda: pf.eswitch):
            with contextlib.suppress(Unavailable):
                read()


def everything(devices: MellanoxDevices) -> int:
    """Asks a fact all that it can be asked; how many of the answers there were."""
    told = 0
    reads: list[Callable[[], object]] = [lambda: devices.mstflint, lambda: devices.vfio_module, lambda: devices.pfs]
    pfs = devices.pfs_state if isinstance(devices.pfs_state, tuple) else ()
    for pf in pfs:
        reads += [lambda p=pf: p.firmware, lambda p=pf: p.psid, lambda p=pf: p.vf_migration.enabled]  # type: ignore[misc]
        reads += [lambda p=pf: str(p.vf_migration), lambda p=pf: p.eswitch, lambda p=pf: p.model]  # type: ignore[misc]
        reads += [lambda v=vf: v.port for vf in pf.vfs] + [lambda v=vf: v.held for vf in pf.vfs]  # type: ignore[misc]
    for read in reads:
        with contextlib.suppress(Unavailable):
            hash(read())
            told += 1
    return told


DOMAIN = [probe for probe in MellanoxDevices.probes if probe.name.startswith("mellanox.")]


@given(
    probe=st.sampled_from(MellanoxDevices.probes), data=st.binary(max_size=300), status=st.sampled_from([0, 0, 1, 127])
)
def test_any_bytes_of_any_probe_are_told_or_refused(probe: Probe, data: bytes, status: int) -> None:
    raw = {name: value for name, value in answers().items() if isinstance(value, str)}
    outputs = {name: Evidence(name, 0, value.encode()) for name, value in raw.items()}
    for text in (data, f"== {PF} {status}\n ".encode() + data.replace(b"\n", b"\n ") + b"\nend\n"):
        outputs[probe.name] = Evidence(probe.name, status, text)
        everything(MellanoxDevices.parse(Said(HostEvidence("kvm01", outputs))))


@given(st.binary(max_size=200), st.sampled_from([0, 1]))
def test_any_bytes_are_bound_devices_or_refused(data: bytes, status: int) -> None:
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        VfioDevices.parse(Said(HostEvidence("kvm01", {VFIO.name: Evidence(VFIO.name, status, data)}))).driver(PF)


def test_devices_that_vfio_holds(said: Callable[..., Said]) -> None:
    bound = VfioDevices.parse(said({VFIO.name: "vfio-pci 0000:3b:00.0\nmlx5_vfio_pci 0000:e1:00.1\n"}))
    assert (bound.driver("0000:e1:00.1"), bound.driver("0000:3b:00.0")) == ("mlx5_vfio_pci", "vfio-pci")
    assert bound.driver(PF) is None
    assert VfioDevices.parse(said({VFIO.name: "absent\n"})).driver(PF) is None
    with pytest.raises(Unavailable):
        VfioDevices.parse(said({VFIO.name: (1, "denied")})).driver(PF)
    for broken in ("vfio-pci\n", "vfio-pci somewhere\n", "0000:3b:00.0\n"):
        with pytest.raises(Unavailable):
            VfioDevices.parse(said({VFIO.name: broken}))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_iommu_or_refused(data: bytes) -> None:
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        Iommu.parse(Said(HostEvidence("kvm01", {IOMMU.name: Evidence(IOMMU.name, 0, data)})))


# The probes themselves, on a made-up /sys with made-up tools.


@pytest.fixture
def host(tmp_path: Path) -> Callable[[Probe], Evidence]:
    """Runs a probe on a host with one ConnectX-7, one VF of it, and a NIC of somebody else."""
    devices = tmp_path / "sys/bus/pci/devices"
    for address, vendor, device in (
        (PF, "0x15b3", "0x1021"),
        ("0000:e1:00.1", "0x15b3", "0x101e"),
        ("0000:01:00.0", "0x8086", "0x1572"),
    ):
        files = {"vendor": vendor, "device": device, "class": "0x020000", "numa_node": "1"}
        (devices / address).mkdir(parents=True)
        for name, value in files.items():
            (devices / address / name).write_text(value + "\n")
    pf, vf = devices / PF, devices / "0000:e1:00.1"
    (pf / "sriov_numvfs").write_text("1\n")
    (pf / "sriov_totalvfs").write_text("8\n")
    (pf / "virtfn0").symlink_to("../0000:e1:00.1")
    (vf / "physfn").symlink_to(f"../{PF}")
    (pf / "driver").symlink_to("../../../bus/pci/drivers/mlx5_core")
    (vf / "iommu_group/devices/0000:e1:00.1").mkdir(parents=True)
    for name, port in (("enp225s0np0", "p0"), ("enp225s0npf0vf0", "pf0vf0")):
        (pf / "net" / name).mkdir(parents=True)
        (pf / "net" / name / "operstate").write_text("up\n")
        (pf / "net" / name / "phys_port_name").write_text(port + "\n")
    (pf / "net/enp225s0np0/master").symlink_to("../../ovs-system")
    (tmp_path / "sys/kernel/iommu_groups/7").mkdir(parents=True)
    tools = {
        "devlink": f"case $* in *info*) echo '{INFO}';; *port*) echo '{PORTS_TEXT}';; *) echo denied; exit 1;; esac",
        "ethtool": 'echo "firmware-version: 28.41.1000 (MT_0000000844)"; echo "netdev: $2"',
        "mstconfig": 'echo "-E- Failed to open the device"; echo "== 0000:e1:00.0 0"; exit 3',
        "modinfo": 'echo "modinfo: ERROR: Module mlx5_vfio_pci not found." >&2; exit 1',
    }
    for name, script in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def run(probe: Probe) -> Evidence:
        command = probe.command.replace("$sudo ", "").replace("/sys/", f"{tmp_path}/sys/")
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "C", "net": "x", "said": "x"}
        done = subprocess.run(["sh", "-c", command], capture_output=True, env=env, stdin=subprocess.DEVNULL)
        assert done.stderr == b""
        return Evidence(probe.name, done.returncode, done.stdout)

    return run


def test_the_probes_ask_each_function(host: Callable[[Probe], Evidence], said: Callable[..., Said]) -> None:
    devices = MellanoxDevices.parse(
        said({p.name: host(p) for p in MellanoxDevices.probes if p.name.startswith("mellanox.")})
    )
    [pf] = devices.pfs
    assert (pf.model, pf.driver, pf.total_vfs) == ("ConnectX-7", "mlx5_core", 8)
    assert pf.uplink == Netdev("enp225s0np0", "p0", "up", "ovs-system")
    assert pf.firmware == Firmware("28.41.1000", "28.43.1014", "MT_0000000844")
    with pytest.raises(Unavailable, match="denied"):
        _ = pf.eswitch
    with pytest.raises(Unavailable, match=r"exit status 3: == 0000:e1:00\.0 0"):  # the forged header is mere text
        _ = pf.vf_migration
    [vf] = pf.vfs
    assert (vf.address, vf.port.migratable, vf.isolated) == ("0000:e1:00.1", True, True)
    assert vf.representor == Netdev("enp225s0npf0vf0", "pf0vf0", "up", None)
    assert devices.mstflint
    assert not devices.vfio_module
    assert Iommu.parse(said({IOMMU.name: host(IOMMU)})).groups == 1


def test_probes_without_such_a_device_run_no_tool(tmp_path: Path, said: Callable[..., Said]) -> None:
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    for probe in (p for p in MellanoxDevices.probes if p.name.startswith("mellanox.")):
        command = probe.command.replace("/sys/", f"{tmp_path}/sys/")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# Real outputs.


@pytest.mark.corpus
def test_real_firmware_answers(said: Callable[..., Said], samples: Callable[[str], list[Path]]) -> None:
    text = {path.name: path.read_text() for fact in ("mstflint", "ethtool-i") for path in samples(fact)}
    none = (1, "none")
    read = {}
    for name, answer in text.items():
        tool = "mstflint" if name.startswith("mstflint") else "ethtool"
        status = int(match[1]) if (match := re.search(r"### rc=(\d+)", answer)) else 0
        changes = {"devlink_info": none, "ethtool": none, "mstflint": none} | {tool: (status, answer)}
        [pf] = MellanoxDevices.parse(said(answers(**{tool: blocks(pf=said) for tool, said in changes.items()}))).pfs
        try:
            read[name] = pf.firmware
        except Unavailable:
            continue
    assert read == {
        "mstflint__cx3-fs2__1.txt": Firmware("2.40.5030", "2.40.5030", "ISL1090110018"),
        "mstflint__cx7-rhel__1.txt": Firmware("28.43.1014", "28.43.1014", "MT_0000001244"),
        "mstflint__cx7-rhel__2.txt": Firmware("28.42.1000", "28.42.1000", "MT_0000001244"),
        "ethtool-i__mlx5-el94__1.txt": Firmware("32.43.1014", None, "MT_0000000884"),
    }


@pytest.mark.corpus
def test_real_mstconfig_answers(said: Callable[..., Said], samples: Callable[[str], list[Path]]) -> None:
    read = {}
    for path in samples("mstconfig"):
        text = path.read_text()
        status = 127 if text.startswith("### rc=127") else 0
        [pf] = MellanoxDevices.parse(said(answers(mstconfig=blocks(pf=(status, text))))).pfs
        try:
            read[path.name] = pf.vf_migration
        except Unavailable:
            continue
    assert read == {"mstconfig__bf3-rhel94__1.txt": VfMigrationMode(supported=True, current=None, next_boot=0)}


@pytest.mark.corpus
def test_real_columns_with_another_parameter(said: Callable[..., Said], samples: Callable[[str], list[Path]]) -> None:
    """No real three-column answer with VF_MIGRATION_MODE is at hand: the same rows under its name."""
    names = r"PCI_DOWNSTREAM_PORT_OWNER\[1\]|SRIOV_IB_ROUTING_MODE_P1|INTERNAL_CPU_OFFLOAD_ENGINE|LOG_BAR_SIZE"
    read = set()
    for path in samples("mstconfig"):
        text = re.sub(names, "VF_MIGRATION_MODE", path.read_text())
        [pf] = MellanoxDevices.parse(said(answers(mstconfig=blocks(pf=text)))).pfs
        if pf.vf_migration_state.__class__ is VfMigrationMode:
            read.add((path.name, pf.vf_migration.current, pf.vf_migration.next_boot))
    assert read >= {
        ("mstconfig__cx-current-next__1.txt", 1, 0),
        ("mstconfig__cx3pro-e__1.txt", None, 5),
        ("mstconfig__nic-conf-operator__3.txt", 0, 0),
    }


@pytest.mark.corpus
def test_real_devlink_answers(said: Callable[..., Said], samples: Callable[[str], list[Path]]) -> None:
    [bluefield] = samples("devlink-port-json")
    [pf] = MellanoxDevices.parse(said(answers(ports=blocks(all=bluefield.read_text())))).pfs
    with pytest.raises(Unavailable, match="no port of VF 0"):
        _ = pf.vfs[0].port
    [broadcom] = samples("devlink-info-json")
    text = broadcom.read_text().replace("0000:af:00.0", PF)
    [pf] = MellanoxDevices.parse(said(answers(devlink_info=blocks(pf=text)))).pfs
    assert pf.firmware == Firmware("216.1.216.0", None, "0.0.0")


@pytest.mark.corpus
@pytest.mark.parametrize("probe", DOMAIN, ids=lambda p: p.name)
def test_real_answers_of_every_tool_are_understood_or_refused(
    probe: Probe, said: Callable[..., Said], samples: Callable[[str], list[Path]]
) -> None:
    """Whatever a tool prints, also where it is another's or another version's: text instead of JSON, errors, help."""
    facts = ("devlink-eswitch", "devlink-info", "devlink-info-json", "devlink-port", "devlink-port-json", "ethtool-i")
    for fact in (*facts, "mellanox-other", "mstconfig", "mstflint", "lspci"):
        for path in samples(fact):
            text = path.read_text(errors="replace")
            for status in (0, 1):
                answer = blocks(pf=(status, text), all=(status, text))
                everything(MellanoxDevices.parse(said(answers(**{probe.name.partition(".")[2]: answer}))))


@pytest.mark.corpus
@pytest.mark.parametrize("fact", ["devlink-eswitch", "devlink-info", "devlink-port"])
def test_real_devlink_text_is_not_taken_for_its_json(
    fact: str, said: Callable[..., Said], samples: Callable[[str], list[Path]]
) -> None:
    for path in samples(fact):
        text = path.read_text()
        none = blocks(pf=(1, "none"))
        tools = answers(eswitch=blocks(pf=text), ports=blocks(all=text), devlink_info=blocks(pf=text), ethtool=none)
        [pf] = MellanoxDevices.parse(said(tools | {MSTFLINT.name: none})).pfs
        for read in (lambda pf=pf: pf.eswitch, lambda pf=pf: pf.vfs[0].port, lambda pf=pf: pf.firmware):
            with pytest.raises(Unavailable):
                read()


@pytest.mark.corpus
def test_real_command_lines(said: Callable[..., Said], samples: Callable[[str], list[Path]]) -> None:
    for path in samples("proc-cmdline"):
        assert Iommu.parse(said({IOMMU.name: f"groups 0\ncmdline {path.read_text()}"})) == Iommu(0, frozenset(), ())
