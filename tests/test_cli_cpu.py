"""`baseline` and `compare` as scripts and people meet them: output to the byte, libvirt's words, exit status."""

import json
from pathlib import Path

import pytest

from tests.test_cli import SAMPLES, run

IVY = """<cpu><model fallback='forbid'>IvyBridge-IBRS</model><vendor>Intel</vendor>
<feature policy='require' name='ss'/><feature policy='require' name='invtsc'/></cpu>"""
SKYLAKE = """<mode name='host-model' supported='yes'>
<model fallback='forbid'>Skylake-Client-IBRS</model><vendor>Intel</vendor>
<feature policy='require' name='ss'/><feature policy='require' name='invtsc'/><feature policy='disable' name='hle'/>
<feature policy='disable' name='rtm'/></mode>"""
ROME = "<cpu><model fallback='forbid'>EPYC-Rome</model><vendor>AMD</vendor></cpu>"

# RHEL 9 §12.4: the features of the two hosts there, and of the printed result.
SKYLAKE_HAS = """ss vmx pdcm hypervisor tsc_adjust clflushopt umip md-clear stibp arch-capabilities ssbd xsaves pdpe1gb
invtsc ibpb ibrs amd-stibp amd-ssbd rsba skip-l1dfl-vmentry pschange-mc-no"""
IVY_HAS = """ss vmx pdcm pcid hypervisor arat tsc_adjust umip md-clear stibp arch-capabilities ssbd xsaveopt pdpe1gb
invtsc ibpb amd-ssbd skip-l1dfl-vmentry pschange-mc-no"""


def cpu(model: str, requires: str, disables: str = "") -> str:
    features = "".join(f'<feature policy="require" name="{name}"/>' for name in requires.split())
    features += "".join(f'<feature policy="disable" name="{name}"/>' for name in disables.split())
    return f'<cpu><model fallback="forbid">{model}</model><vendor>Intel</vendor>{features}</cpu>\n'


EXAMPLE = cpu("Skylake-Client-IBRS", SKYLAKE_HAS, "hle rtm") + cpu("IvyBridge-IBRS", IVY_HAS)


def domcaps(model: str, *offered: str, blocked: str = "") -> str:
    """A host's `virsh domcapabilities`; `blocked`: a feature that it cannot give of its own model."""
    models = "".join(
        f"<model usable='{'no' if blocked and name == model else 'yes'}' canonical='{name}-v1'>{name}</model>"
        for name in (model, *offered)
    )
    blockers = f"<blockers model='{model}'><feature name='{blocked}'/></blockers>" if blocked else ""
    return f"""<domainCapabilities><domain>kvm</domain><arch>x86_64</arch><cpu>
<mode name='host-model' supported='yes'><model fallback='forbid'>{model}</model><vendor>Intel</vendor></mode>
<mode name='custom' supported='yes'>{models}{blockers}</mode></cpu></domainCapabilities>"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in {
        "ivy": IVY,
        "sky": SKYLAKE,
        "rome": ROME,
        "kvm01": domcaps("Westmere", "Nehalem"),
        "kvm02": domcaps("Westmere", "Nehalem", blocked="aes"),
        "kvm03": domcaps("Nehalem"),
        "s390": domcaps("gen15a-base").replace("x86_64", "s390x"),
    }.items():
        (tmp_path / f"{name}.xml").write_text(text)
    return tmp_path


def test_the_example_of_the_document_comes_out_as_printed_there():
    lines = [f"  <feature policy='require' name='{name}'/>" for name in IVY_HAS.split()]
    head = ["<cpu mode='custom' match='exact'>", "  <model fallback='forbid'>IvyBridge-IBRS</model>"]
    printed = [*head, "  <vendor>Intel</vendor>", *lines, "</cpu>", ""]
    done = run("baseline", "-", stdin=EXAMPLE)
    assert (done.returncode, done.stdout.splitlines()) == (0, printed)
    # Later libvirts list ss elsewhere; nothing else differs.
    newest = run("baseline", "--cpu-map", "11.3.0", "-", stdin=EXAMPLE).stdout.splitlines()
    without = lambda text: [line for line in text if "'ss'" not in line]  # noqa: E731
    assert sorted(newest) == sorted(printed)
    assert without(newest) == without(printed)


def test_baseline_prints_what_virsh_prints(files: Path):
    done = run("baseline", files / "ivy.xml", "-", stdin=SKYLAKE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>IvyBridge-IBRS</model>\n"
    )
    assert done.stdout.endswith("</cpu>\n\n")
    migratable = run("baseline", "--migratable", files / "ivy.xml", "-", stdin=SKYLAKE).stdout
    assert "invtsc" not in migratable
    assert "name='aes'" in run("baseline", "--features", files / "ivy.xml").stdout


def test_baseline_tells_incompatible_from_unreadable_in_libvirts_words(files: Path):
    refused = run("baseline", files / "ivy.xml", files / "rome.xml")
    assert (refused.returncode, refused.stderr) == (3, "error: operation failed: CPU vendors do not match\n")
    assert refused.stdout == ""
    unknown = run("baseline", "-", stdin="<cpu><model>No-Such</model></cpu>")
    assert (unknown.returncode, unknown.stderr) == (2, "error: internal error: Unknown CPU model No-Such\n")
    for bad in ("<cpu", "", "<!DOCTYPE a [<!ENTITY b 'c'>]><cpu/>"):
        done = run("baseline", "-", stdin=bad)
        assert (done.returncode, done.stdout) == (2, ""), bad
        assert done.stderr.count("\n") == 1
    assert run("baseline", files / "missing.xml").returncode == 2


def test_baseline_of_hosts_starts_on_all_and_says_who_would_say_otherwise(files: Path):
    done = run("baseline", files / "kvm01.xml", files / "kvm02.xml")
    assert done.returncode == 0
    assert "<feature policy='disable' name='aes'/>" in done.stdout
    assert done.stderr == ("note: virsh on kvm01.xml would not switch off aes, which QEMU on kvm02.xml cannot give\n")
    on_one = run("baseline", "--as-on", "kvm01", files / "kvm01.xml", files / "kvm02.xml")
    assert (on_one.stderr, "aes" in on_one.stdout) == ("", False)
    assert "Westmere" in on_one.stdout
    with_old = run("baseline", *(files / f"kvm0{n}.xml" for n in (1, 3)))
    assert "Nehalem" in with_old.stdout
    assert run("baseline", "--as-on", "kvm09", files / "kvm01.xml").returncode == 2


def test_other_architectures_cannot_be_said(files: Path):
    done = run("baseline", files / "s390.xml")
    assert (done.returncode, done.stdout) == (5, "")
    assert "on a host" in done.stderr
    assert run("compare", files / "s390.xml", files / "s390.xml").stdout == "identical\n"


def test_baseline_of_a_bundle_is_the_reports():
    [baseline, *_] = json.loads((SAMPLES / "uniform" / "results.json").read_text())["baselines"]
    done = run("baseline", SAMPLES / "uniform" / "bundle", "--cluster", "uniform")
    assert done.stdout.split() == baseline["cpu_xml"].split()
    told = [line.removeprefix("note: ") for line in done.stderr.splitlines()]
    assert told == baseline["notes"]
    assert run("baseline", SAMPLES / "uniform" / "bundle", "--cluster", "other").returncode == 2
    assert run("baseline", SAMPLES / "uniform" / "results.json", "--cluster", "uniform").returncode == 2
    as_on = run("baseline", SAMPLES / "uniform" / "bundle", "--as-on", "kvm01")
    assert sorted(as_on.stdout.split()) == sorted(done.stdout.split())


def test_vendors_that_differ_are_refused_and_yet_advised():
    told = run("baseline", "--explain", SAMPLES / "mixed" / "bundle")
    assert (told.returncode, told.stderr) == (3, "error: operation failed: CPU vendors do not match\n")
    assert told.stdout.count("What guests see") == 2
    found = json.loads(run("baseline", "--json", SAMPLES / "mixed" / "bundle").stdout)
    assert [one["advice"]["kinds"][0]["hosts"][0] for one in found["vendors"]] == ["ep01", "cl01"]
    report = json.loads((SAMPLES / "mixed" / "results.json").read_text())
    theirs = {b["vendor"]: b["advice"] for b in report["baselines"]}
    assert [one["advice"]["guests"] for one in found["vendors"]] == [theirs[v]["guests"] for v in ("AMD", "Intel")]


def test_one_hosts_answer_is_by_its_own_libvirts_map(files: Path):
    listed = lambda *names: "".join(f"<feature policy='require' name='{n}'/>" for n in names)  # noqa: E731
    for name, more in (("old", listed("ss", "vmx")), ("new", listed("vmx", "ss"))):
        text = domcaps("Westmere").replace("</vendor>", f"</vendor>{more}").replace(" canonical='Westmere-v1'", "")
        (files / f"{name}.xml").write_text(text)
    both = (files / "old.xml", files / "new.xml")
    order = {}
    for host in ("old", "new"):
        text = run("baseline", *both, "--as-on", host).stdout
        order[host] = text.index("'ss'") < text.index("'vmx'")
    assert order == {"old": True, "new": False}
    assert (
        run("baseline", *both, "--as-on", str(files / "old.xml")).stdout
        == run("baseline", *both, "--as-on", "old").stdout
    )
    (files / "unusable.xml").write_text(domcaps("Westmere").replace("usable='yes'", "usable='no'"))
    doubt = run("baseline", files / "unusable.xml", "--as-on", "unusable").stderr
    assert "does not list what is missing" in doubt
    (files / "silent.xml").write_text(domcaps("Westmere").replace(" canonical='Westmere-v1'", ""))
    assert "nothing tells which CPU map" in run("baseline", files / "silent.xml", "--as-on", "silent").stderr
    assert run("baseline", files / "silent.xml", "--as-on", "silent", "--cpu-map", "9.0.0").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["baseline", "-", "-"], "standard input can be given once"),
        (["baseline", "--cpu-map", "/nope", "-"], "/nope"),
        (["baseline", "/nope/a.xml"], "/nope/a.xml: No such file"),
        (["compare", "--libvirt", "x", "-", "-"], "once"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], says: str):
    done = run(*arguments, stdin=IVY)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_errors_of_definitions_are_in_libvirts_words():
    for text, words in (
        ("<cpu mode='x'><model>a</model></cpu>", "unsupported configuration: -: Invalid mode attribute 'x'"),
        ("<domainCapabilities><arch>aarch64</arch></domainCapabilities>", "Operation not supported: -: libvirt has no"),
        ("<a/>", "-: the input does not contain any <cpu> element"),
    ):
        assert run("baseline", "-", stdin=text).stderr.startswith(f"error: {words}")
    unknown = run("compare", "-", "/dev/null", stdin="<cpu><model>Bogus</model></cpu>")
    assert unknown.stderr.startswith("error: ")


def test_explain_is_for_people_and_json_for_programs(files: Path):
    told = run("baseline", "--explain", SAMPLES / "mellanox" / "bundle").stdout
    assert told.startswith("<cpu mode='custom'")
    for heading in ("What guests see", "Who costs what", "What it means for each guest"):
        assert heading in told
    assert "\x1b" not in told
    found = json.loads(run("baseline", "--json", files / "kvm01.xml", files / "kvm03.xml").stdout)
    assert found["cpu_xml"] == run("baseline", files / "kvm01.xml", files / "kvm03.xml").stdout[:-1]
    assert found["advice"]["level"] == 2
    assert found["advice"]["lost"][0]["why"][0]["cause"] == "unknown"
    assert run("baseline", "--json", "--as-on", "kvm01", files / "kvm01.xml").returncode == 2


def test_compare_says_one_word_and_what_is_missing(files: Path):
    assert run("compare", files / "ivy.xml", files / "ivy.xml").stdout == "identical\n"
    assert run("compare", files / "sky.xml", files / "ivy.xml").returncode == 0
    done = run("compare", files / "ivy.xml", files / "sky.xml")
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == "incompatible"
    assert "avx2" in done.stdout.splitlines()


def test_compare_asks_the_targets_hypervisor_by_its_libvirts_rules(files: Path):
    plain = "<cpu><model>Westmere-v1</model></cpu>"
    (files / "versioned.xml").write_text(plain)
    target = domcaps("Westmere", "Westmere-v1", blocked="aes")
    target = target.replace("<blockers", "<blockers model='Westmere-v1'><feature name='aes'/></blockers><blockers")
    target = target.replace("usable='yes' canonical='Westmere-v1-v1'", "usable='no'")
    (files / "target.xml").write_text(target)
    newer = run("compare", files / "target.xml", files / "versioned.xml")
    assert (newer.returncode, newer.stdout) == (3, "incompatible\naes\n")
    older = run("compare", "--libvirt", "10.9.0", files / "target.xml", files / "versioned.xml")
    assert older.stdout == "identical\n"
    assert run("compare", "--libvirt", "x", files / "target.xml", files / "ivy.xml").returncode == 2


def test_compare_says_what_would_pass(files: Path):
    done = run("compare", files / "kvm01.xml", "-", stdin="<cpu><model>Westmere</model><feature name='avx'/></cpu>")
    assert (done.returncode, done.stdout) == (3, "incompatible\navx\n")
    first, *proposed = done.stderr.splitlines(keepends=True)
    assert first == "to pass: switch off avx\n"
    (files / "proposed.xml").write_text("".join(proposed))
    assert run("compare", files / "kvm01.xml", files / "proposed.xml").returncode == 0
    foreign = run("compare", files / "kvm01.xml", files / "rome.xml")
    assert "no definition does: CPU vendors do not match" in foreign.stderr


def test_compare_takes_a_host_of_a_bundle(files: Path):
    bundle = SAMPLES / "mixed" / "bundle"
    assert run("compare", bundle, files / "ivy.xml").returncode == 2
    assert run("compare", bundle, files / "ivy.xml", "--host", "cl99").returncode == 2
    done = run("compare", bundle, files / "ivy.xml", "--host", "cl01")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "superset")
    assert run("compare", bundle, files / "ivy.xml", "--host", "ep01").returncode == 3


def test_compare_with_a_host_does_not_depend_on_the_others_of_its_cluster(files: Path):
    bundle = SAMPLES / "partial" / "bundle"
    assert run("compare", bundle, files / "ivy.xml", "--host", "pa01").stdout.splitlines()[0] == "superset"
    unread = run("compare", bundle, files / "ivy.xml", "--host", "pa02")
    assert (unread.returncode, unread.stdout) == (5, "")
    assert "pa02" in unread.stderr
