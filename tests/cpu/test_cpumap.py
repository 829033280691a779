"""The CPU map: from libvirt's files, from the carried table, and what is refused."""

import importlib.util
from pathlib import Path

import pytest

from audit.cpu import CpuMap, CpuSignature, UnknownCpuName, UnreadableInput
from audit.cpu.cpumap import CARRIED
from tests.cpu import corpus

INDEX = (
    b"<cpus><arch name='ppc64'><include filename='p.xml'/></arch><arch name='x86'>"
    b"<include filename='v.xml'/><group name='g'><include filename='m.xml'/></group></arch></cpus>"
)
VENDORS_AND_FEATURES = b"""<cpus>
  <vendor name='Intel' string='GenuineIntel'/>
  <feature name='fpu'><cpuid eax_in='0x1' edx='0x1'/></feature>
  <feature name='aes'><alias name='AES' source='qemu'/><cpuid eax_in='0x01' ecx='0x02000000'/></feature>
  <feature name='hle'><cpuid eax_in='0x7' ecx_in='0x0' ebx='0x10'/></feature>
  <feature name='mpx'><cpuid eax_in='0x7' ebx='0x4000'/></feature>
  <feature name='invtsc' migratable='no'><cpuid eax_in='0x80000007' edx='0x100'/></feature>
  <feature name='rdctl-no'><msr index='0x10a' edx='0x0' eax='0x1'/></feature>
</cpus>"""
MODELS = b"""<cpus>
  <model name='Old'><check partial='compat'/><decode host='on' guest='on'/>
    <signature family='6' model='85' stepping='0-3,5'/><vendor name='Intel'/>
    <feature name='fpu'/><feature name='mpx'/></model>
  <model name='Old-v1'><decode host='on' guest='off'/><model name='Old'/></model>
  <model name='New'><decode host='on' guest='on'/><model name='Old'/><signature family='6' model='106'/>
    <feature name='aes'/><feature name='hle' removed='yes'/><feature name='rdctl-no' added='yes'/></model>
  <model name='Newer'><decode host='off' guest='on'/><model name='New'/><feature name='hle'/></model>
</cpus>"""
FILES = {"index.xml": INDEX, "v.xml": VENDORS_AND_FEATURES, "m.xml": MODELS}


def test_models_inherit_as_in_libvirt():
    cpu_map = CpuMap.from_files(FILES, "ours")
    old, new, newer = (cpu_map.model(name) for name in ("Old", "New", "Newer"))
    assert old.features == {"fpu", "mpx"}
    assert old.canonical == "Old-v1"
    assert old.compat_check
    assert new.features == {"fpu", "mpx", "aes"}
    assert (new.removed, new.added, new.ancestor) == (("hle",), {"rdctl-no"}, "Old")
    assert (new.vendor, new.compat_check, new.canonical) == ("Intel", False, None)
    assert newer.features == {"fpu", "mpx", "aes", "hle"}
    assert newer.removed == ()
    assert newer.signatures == new.signatures
    assert [feature.name for feature in cpu_map.features if not feature.migratable] == ["invtsc"]


def test_signatures_match_listed_steppings_or_all():
    cpu_map = CpuMap.from_files(FILES)
    [listed], [any_stepping] = cpu_map.model("Old").signatures, cpu_map.model("New").signatures
    assert [listed.matches(CpuSignature(6, 85, stepping)) for stepping in (3, 4, 5)] == [True, False, True]
    assert any_stepping.matches(CpuSignature(6, 106, 9))
    assert not any_stepping.matches(CpuSignature(6, 85, 9))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.xml", b"name='x86'", b"name='x68'", "no x86 part"),
        ("index.xml", b"'m.xml'", b"'other.xml'", "lacks the file 'other.xml'"),
        ("v.xml", b"edx='0x1'", b"edx='0x3'", "fpu is not one bit, but 2"),
        ("v.xml", b"edx='0x1'", b"edx='0x0'", "fpu is not one bit, but 0"),
        ("v.xml", b"edx='0x1'", b"edx='one'", "Invalid CPU edx"),
        ("v.xml", b"ecx_in='0x0' ebx='0x10'", b"ebx='0x4000'", "share a bit"),
        ("v.xml", b"</cpus>", b"", "not well-formed XML"),
        ("m.xml", b"<model name='Old'/>", b"<model name='Ancient'/>", "Ancestor model Ancient not found"),
        ("m.xml", b"<decode host='on' guest='off'/>", b"", "Missing decode in CPU model Old-v1"),
        ("m.xml", b"<feature name='aes'/>", b"<feature name='sea'/>", "Unknown CPU feature sea"),
        ("m.xml", b"0-3,5", b"0-x", "stepping"),
        ("m.xml", b"0-3,5", b"0-99999999999", "stepping"),
        ("v.xml", b"'mpx'", b"'hle'", "defined twice"),
        ("m.xml", b"<feature name='aes'/>", b"<feature/>", "Missing CPU feature name"),
    ],
)
def test_a_broken_map_is_refused(file: str, old: bytes, new: bytes, message: str):
    assert old in FILES[file]
    with pytest.raises(UnreadableInput, match=message):
        CpuMap.from_files(FILES | {file: FILES[file].replace(old, new)})


def test_a_folder_without_map_is_refused(tmp_path: Path):
    with pytest.raises(UnreadableInput, match=r"no index\.xml"):
        CpuMap.from_folder(tmp_path)


def test_unknown_names_are_told_in_libvirts_words():
    cpu_map = CpuMap.from_files(FILES)
    for look_up, message in (
        (cpu_map.model, "Unknown CPU model X"),
        (cpu_map.require_feature, "Unknown CPU feature X"),
        (cpu_map.require_vendor, "Unknown CPU vendor X"),
    ):
        with pytest.raises(UnknownCpuName, match=message):
            look_up("X")


def test_the_carried_map_has_all_of_libvirt_11_3():
    carried = CpuMap.carried()
    assert carried.version == "libvirt 11.3.0"
    assert (len(carried.features), len(carried.models), len(carried.vendors)) == (364, 150, 3)
    assert carried.model("Skylake-Client").canonical == "Skylake-Client-v1"
    assert "Skylake-Client-v4" in carried
    assert not any(model.decode_guest for model in carried.models if model.name[-3:-1] == "-v")
    assert CpuMap.carried() is carried


def _generator():
    path = Path(__file__).resolve().parents[2] / "scripts" / "make_cpu_table.py"
    spec = importlib.util.spec_from_file_location("make_cpu_table", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("release", CARRIED)
def test_the_generator_gives_the_carried_table_again(release: str):
    generator = _generator()
    table = (generator.TABLES / f"x86_map_{release}.json").read_text("utf-8")
    assert generator.table_text(CpuMap.carried(release)) == table


@pytest.mark.corpus
@corpus.needs_corpus
@pytest.mark.parametrize("release", CARRIED)
def test_the_carried_map_is_libvirts(release: str):
    theirs = corpus.load_map(release)
    assert CpuMap.carried(release) == theirs
    assert CpuMap.carried(release).version == theirs.version == f"libvirt {release}"
