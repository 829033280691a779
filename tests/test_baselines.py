"""A cluster's baseline: every host of it counts, one that is missing is named, and the tables say what is known."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.baselines import choose_map, cluster_baselines, cluster_sources, find_cluster
from audit.cpu import CpuDefinition, CpuError, CpuFeature, CpuMap, CpuSource, feature_set, read_cpus
from audit.cpu.crosscheck import CrossCheck
from audit.evidence import Bundle
from audit.facts.base import Facts
from audit.facts.guest_source import read_guests
from audit.guest_advice import Barrier
from audit.sidebyside import LINES, rows

NOTHING = lambda guest, target: Barrier()  # noqa: E731 - no check said anything
SAMPLES = Path(__file__).parent.parent / "sample_data"


def facts_of(fleet: str) -> tuple[Bundle, Facts, list[str]]:
    bundle = Bundle.read(SAMPLES / fleet / "bundle")
    return bundle, Facts(bundle.hosts, read_guests), sorted(bundle.hosts)


def test_each_vendor_has_a_baseline_that_all_its_hosts_can_give():
    _, facts, hosts = facts_of("mixed")
    baselines = cluster_baselines("mixed", hosts, facts, NOTHING)
    assert {(b["vendor"], tuple(b["hosts"])) for b in baselines} == {
        ("AMD", ("ep01", "ep02")),
        ("Intel", ("cl01", "cl02", "sr01", "sr02")),
    }
    cpu_map = CpuMap.carried()
    for baseline in baselines:
        [common] = read_cpus(baseline["cpu_xml"])
        [migratable] = read_cpus(baseline["migratable_cpu_xml"])
        assert "invtsc" in feature_set(common, cpu_map)
        assert feature_set(common, cpu_map) - feature_set(migratable, cpu_map) == {"invtsc"}
    [intel] = [b for b in baselines if b["vendor"] == "Intel"]
    assert intel["removed_by"]["amx-tile"] == ["cl01", "cl02"]


def test_a_host_that_did_not_tell_is_named_and_the_second_opinion_is_noted():
    _, facts, hosts = facts_of("partial")
    agreeing = lambda cpus, _: CrossCheck("agrees", "9.0.0", f"{len(cpus)} CPUs")  # noqa: E731
    [baseline] = cluster_baselines("partial", hosts, facts, NOTHING, agreeing)
    assert set(baseline["missing"]) == set(hosts) - set(baseline["hosts"])
    assert "host not reached" in baseline["missing"]["pa02"]
    assert baseline["cross_check"] == f"libvirt 9.0.0 agrees: {len(baseline['hosts'])} CPUs"


def test_a_cluster_that_tells_nothing_has_a_reason_instead_of_a_baseline():
    bundle, _, _ = facts_of("partial")
    facts = Facts({"pa02": bundle.hosts["pa02"]}, read_guests)
    [baseline] = cluster_baselines("partial", ["pa02"], facts, NOTHING)
    assert (baseline["cpu_xml"], baseline["hosts"]) == (None, [])
    assert baseline["problem"]


def test_a_bundle_with_an_untold_host_has_no_baseline_of_its_own():
    with pytest.raises(CpuError, match="pa0"):
        cluster_sources(find_cluster(facts_of("partial")[0], None))


def test_a_clusters_sources_know_their_libvirt_and_its_map():
    sources = cluster_sources(find_cluster(facts_of("mixed")[0], "mixed")).sources
    assert [source.name for source in sources] == ["cl01", "cl02", "sr01", "sr02", "ep01", "ep02"]
    assert {source.libvirt for source in sources} == {(10, 0, 0), (10, 10, 0)}
    assert all(source.cpu_map and source.cpu_map.release == source.libvirt for source in sources)
    assert all(source.hypervisor.names == frozenset(source.cpu_map.order) for source in sources)


def test_a_cluster_that_is_not_there_is_refused_with_those_that_are():
    bundle = facts_of("mixed")[0]
    with pytest.raises(CpuError, match=r"no cluster other: there is mixed \(6 hosts\)"):
        find_cluster(bundle, "other")
    two = replace(bundle, inventory={"clusters": [{"a": {"hosts": ["cl01"]}}, {"b": {"hosts": ["sr01"]}}]})
    with pytest.raises(CpuError, match="name one of the clusters: there is a"):
        find_cluster(two, None)
    assert find_cluster(two, "b").hosts == ("sr01",)
    assert find_cluster(two, None, "cl01").name == "a"
    with pytest.raises(CpuError, match="no host cl09"):
        find_cluster(two, None, "cl09")


def test_the_newest_map_is_taken_and_named():
    source = CpuSource("kvm01", CpuDefinition(model="Westmere", features=(CpuFeature("aes"),)), host_model=True)
    carried = CpuMap.carried()
    assert choose_map([source]) == (carried, f"carried CPU map ({carried.version})")
    newer = replace(source, cpu_map=replace(carried, version="libvirt 12.1.0 on kvm01"))
    assert choose_map([source, newer]) == (newer.cpu_map, "CPU map of libvirt 12.1.0 on kvm01")
    local = replace(carried, version="libvirt 12.4.0, installed here")
    assert choose_map([newer], local)[0] is local
    same = replace(source, cpu_map=replace(carried, version="libvirt 11.3.0 on kvm01"))
    assert choose_map([same])[0] is same.cpu_map


def test_hosts_that_list_features_in_an_older_maps_order_are_computed_with_that():
    old_order = CpuDefinition(model="Westmere", features=(CpuFeature("ss"), CpuFeature("vmx")))
    new_order = replace(old_order, features=old_order.features[::-1])
    old, new = (CpuSource(name, cpu, host_model=True) for name, cpu in (("old", old_order), ("new", new_order)))
    assert choose_map([old])[0] is CpuMap.carried("9.0.0")
    assert choose_map([old, new])[0] is CpuMap.carried()
    assert choose_map([replace(old, host_model=False)])[0] is CpuMap.carried()
    nowhere = replace(old, cpu=replace(old_order, features=(CpuFeature("ss"), CpuFeature("vmx"), CpuFeature("pni"))))
    assert choose_map([nowhere])[0] is CpuMap.carried()


def test_the_table_says_unknown_with_the_reason():
    _, facts, _ = facts_of("partial")
    known, unknown = (rows(facts, host) for host in ("pa01", "pa02"))
    assert len(known) == len(unknown) == len(LINES)
    assert all(row["value"] is not None for row in known)
    assert {row["why"] for row in unknown if row["value"] is None} != set()
    assert all(row["value"] is None and "host not reached" in row["why"] for row in unknown)
