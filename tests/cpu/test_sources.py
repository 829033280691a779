"""Everything that may be given as a source of CPUs, and what of it is a hypervisor's."""

import pytest

from audit.cpu import CpuMap, NotComputable, UnreadableInput, find_source, read_sources, rules_of
from audit.cpu.cpumap import CARRIED

MAP = CpuMap.carried()
BARE = "<cpu><model>Westmere</model><vendor>Intel</vendor></cpu>"


def domcaps(model: str, *, arch: str = "x86_64", models: str = "", more: str = "") -> str:
    """What `virsh domcapabilities` prints, as far as CPUs go."""
    return f"""<domainCapabilities><arch>{arch}</arch><cpu>
<mode name='host-model' supported='yes'><model fallback='forbid'>{model}</model><vendor>Intel</vendor>{more}</mode>
<mode name='custom' supported='yes'>{models}</mode></cpu></domainCapabilities>"""


def cache(arch: str = "x86_64", version: int = 11_003_000, **properties: str) -> str:
    """libvirt's cache of a QEMU that knows Westmere and Nehalem."""
    said = "".join(f"<property name='{n.replace('_', '-')}' value='{v}'/>" for n, v in properties.items())
    return f"""<qemuCaps><selfvers>{version}</selfvers><arch>{arch}</arch>
<hostCPU type='kvm' model='base' migratability='yes'>{said}
<property name='invtsc' type='boolean' value='true' migratable='no'/>
<property name='vendor' type='string' value='GenuineIntel'/></hostCPU>
<cpu type='kvm' name='Nehalem' usable='yes'/>
<cpu type='kvm' name='Westmere' usable='no'><blocker name='aes'/><blocker name='lahf-lm'/></cpu></qemuCaps>"""


def all_of(model: str) -> dict[str, str]:
    """QEMU's properties of a processor that has what the model has."""
    return dict.fromkeys(MAP.model(model).features, "true")


def test_each_document_stands_for_its_host_in_order():
    one, two, three = read_sources(
        BARE + domcaps("Nehalem", models="<model usable='yes'>Nehalem</model>") + BARE, "f", MAP
    )
    assert [source.cpu.model for source in (one, two, three)] == ["Westmere", "Nehalem", "Westmere"]
    assert [source.name for source in (one, two, three)] == ["f#1", "f#2", "f#3"]
    assert one.hypervisor is three.hypervisor is None
    assert [model.name for model in two.hypervisor.models] == ["Nehalem"]


WIDTH = "<maxphysaddr mode='passthrough' limit='46'/>"
BLOCKERS = "<blockers model='Westmere'><feature name='aes'/></blockers>"


@pytest.mark.parametrize(
    ("models", "more", "oldest"),
    [
        ("<model usable='yes'>Nehalem</model>", "", (8, 4, 0)),
        ("<model usable='yes' vendor='Intel'>Nehalem</model>", "", (8, 9, 0)),
        (
            "<model usable='yes' vendor='Intel'>Nehalem</model>",
            "<maxphysaddr mode='passthrough' limit='46'/>",
            (9, 5, 0),
        ),
        (
            "<model usable='no'>Westmere</model><blockers model='Westmere'><feature name='aes'/></blockers>",
            "",
            (10, 9, 0),
        ),
        ("<model usable='yes' canonical='Nehalem-v1'>Nehalem</model>", "", (10, 10, 0)),
    ],
)
def test_domcapabilities_give_their_libvirt_away(models: str, more: str, oldest: tuple[int, int, int]):
    [source] = read_sources(domcaps("Nehalem", models=models, more=more), "f", MAP)
    assert source.libvirt == oldest
    assert source.rules == rules_of(oldest)


def test_a_capabilities_cache_is_decoded_to_its_host_model():
    [source] = read_sources(cache(**all_of("Nehalem")), "f", MAP)
    assert (source.cpu.model, source.cpu.vendor, source.cpu.fallback) == ("Nehalem", "Intel", "forbid")
    assert [feature.name for feature in source.cpu.features] == ["invtsc"]
    assert source.libvirt == (11, 3, 0)
    assert source.hypervisor.not_migratable == {"invtsc"}
    assert source.hypervisor.find("Westmere").blockers == {"aes", "lahf_lm"}  # libvirt's spelling
    assert "sse4.2" in source.hypervisor.features


def test_a_cache_of_an_s390x_host_lists_what_qemu_said():
    [source] = read_sources(cache("s390x", te="true", vx="false"), "f", MAP)
    assert source.arch == "s390x"
    assert {(f.name, f.policy) for f in source.cpu.features} >= {("te", "require"), ("vx", "disable")}


def test_a_domain_tells_its_architecture():
    domain = "<domain><os><type arch='s390x'>hvm</type></os><cpu><model>gen15a-base</model></cpu></domain>"
    assert read_sources(domain, "f", MAP)[0].arch == "s390x"
    assert read_sources("<cpu><arch>aarch64</arch><model>cortex-a57</model></cpu>", "f", MAP)[0].arch == "aarch64"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<cpu",
        "<other/>",
        domcaps("Nehalem").replace("supported='yes'", "supported='no'"),
        "<qemuCaps><arch>x86_64</arch></qemuCaps>",
        "<cpu><model>Westmere</model><feature name='a'/><feature name='a'/></cpu>",
    ],
)
def test_what_cannot_be_read_is_refused_with_the_files_name(text: str):
    with pytest.raises(UnreadableInput, match=r"^that/file: "):
        read_sources(text, "that/file", MAP)


@pytest.mark.parametrize("text", [cache("aarch64"), domcaps("x", arch="aarch64").replace("='yes'", "='no'")])
def test_what_only_other_architectures_have_is_not_computable(text: str):
    with pytest.raises(NotComputable, match=r"^that/file: libvirt has no host-model for aarch64"):
        read_sources(text, "that/file", MAP)


def test_a_cache_is_decoded_with_the_map_of_the_libvirt_that_wrote_it():
    maps = [CpuMap.carried(release) for release in CARRIED]
    has = {**all_of("Nehalem"), "vmx_ins_outs": "true", "vme": "true", "ss": "true"}
    [old] = read_sources(cache(version=9_000_000, **has), "f", MAP, maps)
    [new] = read_sources(cache(version=11_003_000, **has), "f", MAP, maps)
    assert [f.name for f in old.cpu.features] == ["vme", "ss", "invtsc"]
    assert [f.name for f in new.cpu.features] == ["vme", "ss", "invtsc", "vmx-ins-outs"]
    assert (old.cpu_map, new.cpu_map) == (maps[1], maps[0])
    assert "vmx-ins-outs" not in old.hypervisor.names
    assert ("maxphysaddr" in old.doubt, "maxphysaddr" in new.doubt) == (False, True)


def test_the_order_of_a_host_model_gives_its_map_away():
    maps = [CpuMap.carried(release) for release in CARRIED]
    listed = lambda *names: "".join(f"<feature policy='require' name='{n}'/>" for n in names)  # noqa: E731
    [old] = read_sources(domcaps("Nehalem", more=listed("ss", "vmx")), "f", MAP, maps)
    [new] = read_sources(domcaps("Nehalem", more=listed("vmx", "ss")), "f", MAP, maps)
    assert (old.cpu_map, new.cpu_map) == (maps[1], None)
    assert old.hypervisor.names == frozenset(maps[1].order)
    assert new.hypervisor.names is None


def test_an_unheard_of_usability_is_unknown():
    [source] = read_sources(domcaps("Nehalem", models="<model usable='maybe'>Nehalem</model>"), "f", MAP)
    assert source.hypervisor.models[0].usable == "unknown"


def test_a_source_is_found_by_its_name_or_stem():
    models = {"a/kvm01.xml": "Nehalem", "b/kvm01.xml": "Westmere", "kvm02.xml": "Westmere"}
    sources = [read_sources(f"<cpu><model>{model}</model></cpu>", name, MAP)[0] for name, model in models.items()]
    assert find_source(sources, "a/kvm01.xml") is sources[0]
    assert find_source(sources, "kvm02") is sources[2]
    with pytest.raises(UnreadableInput, match="more than one"):
        find_source(sources, "kvm01")
    assert find_source([sources[0]] * 2, "kvm01") is sources[0]  # the same file twice
    with pytest.raises(UnreadableInput, match=r"none of the sources: a/kvm01\.xml"):
        find_source(sources, "kvm03")
