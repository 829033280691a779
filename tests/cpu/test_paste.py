"""A guest's definition with another CPU: nothing else changes, whatever else stands there, or it is refused."""

import shutil
import subprocess
from pathlib import Path

import pytest

from audit.cpu import CpuDefinition, CpuError, CpuFeature, MaxPhysAddr, from_element
from audit.cpu.paste import apply_commands, difference, undo_commands, virt_xml, with_cpu
from audit.text import parse_xml

UUID = "11111111-1111-4111-8111-111111111111"
NEW = CpuDefinition(
    model="IvyBridge-IBRS",
    vendor="Intel",
    fallback="forbid",
    maxphysaddr=MaxPhysAddr("passthrough", limit=46),
    features=(CpuFeature("ss"), CpuFeature("hle", "disable")),
)
SHAPE = """    <topology sockets='1' dies='1' cores='2' threads='2'/>
    <cache level='3' mode='emulate'/>
    <numa>
      <cell id='0' cpus='0-3' memory='1048576' unit='KiB'>
        <distances>
          <sibling id='0' value='10'/>
        </distances>
      </cell>
    </numa>
"""
CPUS = {
    "none": "",
    "empty": "  <cpu mode='host-passthrough' check='none' migratable='on'/>\n",
    "host-model": "  <cpu mode='host-model' check='partial'>\n    <model fallback='allow'/>\n  </cpu>\n",
    "shaped": "  <cpu mode='custom' match='exact' check='partial'>\n    <model fallback='allow'>Nehalem</model>\n"
    f"{SHAPE}    <feature policy='require' name='vmx'/>\n  </cpu>\n",
}


def domain(cpu: str, title: str = "a &lt;cpu mode='x'/&gt; &quot;title&quot;") -> str:
    return f"""<domain type='kvm'>
  <name>web01</name>
  <uuid>{UUID}</uuid>
  <title>{title}</title>
  <memory unit='KiB'>1048576</memory>
  <vcpu placement='static'>4</vcpu>
  <cputune>
    <shares>2048</shares>
  </cputune>
  <os>
    <type arch='x86_64' machine='pc-q35-9.2'>hvm</type>
  </os>
{cpu}  <clock offset='utc'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
  </devices>
</domain>
"""


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS)
def test_only_the_cpu_changes_and_the_difference_applies(cpu: str, tmp_path: Path):
    before = domain(cpu)
    pasted = with_cpu(before, NEW)
    after = pasted.text
    [found] = parse_xml(after.encode()).findall("cpu")
    read = from_element(found, "guest")
    assert (read.model, read.features, read.maxphysaddr) == (NEW.model, NEW.features, NEW.maxphysaddr)
    (tmp_path / f"{UUID}.before.xml").write_text(before.replace("<devices>", "<!-- moved -->\n  <devices>"))
    (tmp_path / f"{UUID}.diff").write_text(difference(before, after, UUID))
    [_, patch, *_] = apply_commands(UUID, pasted, restart=False)
    subprocess.run(["sh", "-c", patch.partition(" && ")[0]], cwd=tmp_path, check=True, capture_output=True)
    patched = (tmp_path / f"{UUID}.after.xml").read_text()
    assert patched == after.replace("<devices>", "<!-- moved -->\n  <devices>")


def test_the_guests_shape_stays():
    after = with_cpu(domain(CPUS["shaped"]), NEW).text
    for line in SHAPE.splitlines(keepends=True):
        assert line in after
    assert "vmx" not in after


def test_its_own_address_bits_stay_where_the_new_cpu_has_none():
    own = "  <cpu mode='host-model'>\n    <maxphysaddr mode='emulate' bits='42'/>\n  </cpu>\n"
    after = with_cpu(domain(own), CpuDefinition(model="Nehalem")).text
    assert "<maxphysaddr mode='emulate' bits='42'/>" in after


def test_a_cache_that_only_the_hosts_own_cpu_may_have_goes():
    own = "  <cpu mode='host-passthrough'>\n    <cache mode='passthrough'/>\n  </cpu>\n"
    assert "<cache" not in with_cpu(domain(own), NEW).text


@pytest.mark.parametrize(
    "text",
    [
        domain(CPUS["empty"]).replace("  <cpu mode", "<cpu mode"),
        domain(CPUS["empty"]).replace("\n", ""),
        domain(CPUS["empty"], "<![CDATA[\n  <cpu mode='x'/>\n]]>"),
        domain("", "<![CDATA[\n  <clock/>\n]]>"),
        domain("", "<![CDATA[\n  <cpu/>\n]]>"),
        "<domain>\n  <name>a</name>\n</domain>\n",
        "no XML",
    ],
)
def test_a_definition_that_is_laid_out_otherwise_is_refused_rather_than_spoiled(text: str):
    with pytest.raises(CpuError):
        with_cpu(text, NEW)


def test_what_is_so_already_gives_no_difference():
    after = with_cpu(domain(CPUS["shaped"]), NEW).text
    assert difference(after, with_cpu(after, NEW).text, UUID) == ""


def test_a_restart_is_from_nothing_and_only_where_it_is_needed():
    pasted = with_cpu(domain(""), NEW)
    running, stopped = (apply_commands(UUID, pasted, restart=restart) for restart in (True, False))
    assert running[-1] == f"virsh start {UUID}"
    assert not any("start" in line or "shutdown" in line for line in stopped)
    assert undo_commands(UUID, restart=True)[0] == f"virsh define {UUID}.before.xml"
    assert not any("reboot" in line for line in running)


FLAT = "  <cpu mode='host-model'>\n    <topology sockets='2' dies='1' cores='2' threads='1'/>\n  </cpu>\n"


@pytest.mark.skipif(shutil.which("virt-xml") is None, reason="no virt-xml here")
@pytest.mark.parametrize("cpu", [CPUS["none"], CPUS["empty"], CPUS["host-model"], FLAT])
def test_virt_xml_makes_the_same_of_it(cpu: str):
    pasted = with_cpu(domain(cpu), NEW)
    command = virt_xml(UUID, pasted.cpu).replace(f"virt-xml {UUID}", "virt-xml --connect test:///default --print-xml")
    done = subprocess.run(["sh", "-c", command], input=domain(cpu), capture_output=True, text=True, check=True)
    made, wanted = (parse_xml(text.encode()).find("cpu") for text in (done.stdout, pasted.text))
    assert from_element(made, "guest") == from_element(wanted, "guest")


def test_virt_xml_is_not_offered_where_it_would_lose_something():
    pasted = with_cpu(domain(CPUS["shaped"]), NEW)
    assert not any("virt-xml" in line for line in apply_commands(UUID, pasted, restart=True))
