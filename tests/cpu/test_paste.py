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
    (tmp_path / f"{UUID}.diff").write_text(difference(before, pasted, UUID))
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
    assert difference(after, with_cpu(after, NEW), UUID) == ""


@pytest.mark.parametrize(
    "topology",
    [
        "<topology sockets='1' dies='1' clusters='1' cores='2' threads='2'/>",
        "<topology sockets='1' cores='2' threads='2'/>",
    ],
)
def test_a_topology_as_other_libvirts_print_it_stays(topology: str):
    pasted = with_cpu(domain(f"  <cpu mode='host-model'>\n    {topology}\n  </cpu>\n"), NEW)
    assert f"    {topology}\n" in pasted.text
    assert pasted.whole is ("clusters" not in topology)


def test_the_vendor_that_the_guest_is_told_stays():
    own = "  <cpu mode='custom'>\n    <model fallback='allow' vendor_id='KVMKVMKVMKVM'>Nehalem</model>\n  </cpu>\n"
    assert "vendor_id='KVMKVMKVMKVM'>IvyBridge-IBRS</model>" in with_cpu(domain(own), NEW).text


def test_line_separators_in_text_are_no_lines(tmp_path: Path):
    before = domain(CPUS["empty"]).replace("<clock offset='utc'/>", "<clock offset='utc'/>\n  <x>a\u2028b\u0085c</x>")
    pasted = with_cpu(before, NEW)
    (tmp_path / "before").write_text(before)
    change = difference(before, pasted, UUID)
    subprocess.run(["patch", "before"], input=change, text=True, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "before").read_text() == pasted.text


VIRSH = """#!/bin/sh
# A libvirt with one guest, whose shutdown takes a second.
[ "$1" = -c ] && shift 2
echo "$*" >> log
case $1 in
dumpxml) cat guest.xml ;;
define) cp "$2" guest.xml ;;
domstate) [ -e stopping ] && { rm stopping; echo running; } || cat state ;;
shutdown) touch stopping; echo "shut off" > state ;;
start) [ "$(cat state)" = "shut off" ] && [ ! -e stopping ] && echo running > state ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder in which the commands run, with a libvirt of its own."""
    for name, text in {"virsh": VIRSH, "sleep": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "guest.xml").write_text(domain(CPUS["host-model"]))
    (tmp_path / "state").write_text("running\n")
    return tmp_path


def paste(commands: list[str], folder: Path) -> None:
    """As into a terminal: a line that fails does not keep the next from being run."""
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    subprocess.run(["sh"], input="\n".join(commands), text=True, cwd=folder, env=environment, capture_output=True)


def test_what_is_pasted_changes_restarts_and_takes_it_back(host: Path):
    before = (host / "guest.xml").read_text()
    pasted = with_cpu(before, NEW)
    (host / f"{UUID}.diff").write_text(difference(before, pasted, UUID))
    commands = apply_commands(UUID, pasted, restart=True)
    paste(commands, host)
    assert (host / "guest.xml").read_text() == pasted.text
    assert (host / "state").read_text() == "running\n"
    assert (host / f"{UUID}.before.xml").stat().st_mode & 0o077 == 0  # passwords of displays are in it
    paste(commands, host)  # once more, by mistake: what was there first is still kept
    assert (host / f"{UUID}.before.xml").read_text() == before
    paste(undo_commands(UUID, restart=True), host)
    assert (host / "guest.xml").read_text() == before
    assert (host / "state").read_text() == "running\n"


def test_nothing_is_stopped_unless_the_new_definition_was_taken(host: Path):
    before = (host / "guest.xml").read_text()
    paste(apply_commands(UUID, with_cpu(before, NEW), restart=True), host)  # without the file of the difference
    assert (host / "guest.xml").read_text() == before
    assert "shutdown" not in (host / "log").read_text()


def test_what_needs_no_restart_gets_none():
    pasted = with_cpu(domain(""), NEW)
    commands = [*apply_commands(UUID, pasted, restart=False), *undo_commands(UUID, restart=False)]
    assert not any(word in line for line in commands for word in (" start ", "shutdown", "reboot"))
    assert "resume" in apply_commands(UUID, pasted, restart=True, paused=True)[-1]


FLAT = "  <cpu mode='host-model'>\n    <topology sockets='2' dies='1' cores='2' threads='1'/>\n  </cpu>\n"


@pytest.mark.skipif(shutil.which("virt-xml") is None, reason="no virt-xml here")
@pytest.mark.parametrize("cpu", [CPUS["none"], CPUS["empty"], CPUS["host-model"], FLAT])
def test_virt_xml_makes_the_same_of_it(cpu: str):
    pasted = with_cpu(domain(cpu), NEW)
    command = virt_xml(UUID, pasted.cpu).replace(f"qemu:///system {UUID}", "test:///default --print-xml")
    done = subprocess.run(["sh", "-c", command], input=domain(cpu), capture_output=True, text=True, check=True)
    made, wanted = (parse_xml(text.encode()).find("cpu") for text in (done.stdout, pasted.text))
    assert from_element(made, "guest") == from_element(wanted, "guest")


def test_virt_xml_is_not_offered_where_it_would_lose_something():
    pasted = with_cpu(domain(CPUS["shaped"]), NEW)
    assert not any("virt-xml" in line for line in apply_commands(UUID, pasted, restart=True))
