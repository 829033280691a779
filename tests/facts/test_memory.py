"""Memory, huge pages, NUMA."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.facts.base import Unavailable
from audit.facts.memory import Cell, Cgroup, HugePages, Memory, NumaTopology, Overcommit, Pool, cpu_list, meminfo

MEMINFO = """\
MemTotal:       65535992 kB
MemFree:         1000000 kB
MemAvailable:   40000000 kB
SwapTotal:       8388604 kB
SwapFree:        8388600 kB
Active(anon):     123456 kB
HugePages_Total:       4
Hugepagesize:       2048 kB
"""


class TestMemory:
    def test_numbers(self, said):
        assert Memory.parse(said({"memory.meminfo": MEMINFO})) == Memory(65535992, 40000000, 8388604, 8388600)

    @pytest.mark.parametrize("text", ["", "hello", MEMINFO.replace("MemAvailable", "Other"), "MemAvailable: 5 kB\n"])
    def test_refused(self, said, text):
        with pytest.raises((Unavailable, LookupError)):
            Memory.parse(said({"memory.meminfo": text}))

    @pytest.mark.corpus
    def test_real(self, said, samples):
        for path in samples("meminfo"):  # both from kernels or tools that tell no MemAvailable
            with pytest.raises((Unavailable, LookupError)):
                Memory.parse(said({"memory.meminfo": path.read_bytes()}))


def pages(folder, **counts):
    return "".join(f"{folder}/{name}_hugepages:{count}\n" for name, count in counts.items())


HUGE = (
    pages("kernel/mm/hugepages/hugepages-2048kB", free=900, nr=1024, resv=100, surplus=3, nr_overcommit=10)
    + pages("kernel/mm/hugepages/hugepages-1048576kB", free=0, nr=0, resv=0, surplus=0, nr_overcommit=0)
    + pages("devices/system/node/node0/hugepages/hugepages-2048kB", free=400, nr=512, surplus=0)
    + pages("devices/system/node/node1/hugepages/hugepages-2048kB", free=500, nr=512, surplus=0)
    + "end\n"
)


class TestHugePages:
    def test_pools(self, said):
        huge = HugePages.parse(said({"memory.hugepages": HUGE, "memory.meminfo": MEMINFO}))
        assert huge.default_kib == 2048
        assert huge.sizes_kib == (2048, 1048576)
        assert huge.pool(2048) == Pool(2048, None, 1024, 900, 100, 7)
        assert huge.pool(2048, 1) == Pool(2048, 1, 512, 500, 0, 0)
        assert huge.pool(16384) is None

    def test_kernel_without(self, said):
        answers = {"memory.hugepages": "end\n", "memory.meminfo": MEMINFO.replace("Hugepagesize", "Other")}
        assert HugePages.parse(said(answers)) == HugePages(None, ())

    @pytest.mark.parametrize("text", ["", HUGE.removesuffix("end\n"), "end\n", "hello\nend\n"])
    def test_refused(self, said, text):
        with pytest.raises((Unavailable, ValueError)):
            HugePages.parse(said({"memory.hugepages": text, "memory.meminfo": MEMINFO}))

    @pytest.mark.corpus
    def test_real(self, said, samples):
        for path in samples("hugepages"):
            lines = [line for line in path.read_text().splitlines() if line.startswith("/sys")]
            text = "\n".join([*lines, "end"])
            huge = HugePages.parse(said({"memory.hugepages": text, "memory.meminfo": MEMINFO}))
            assert huge.sizes_kib == (2048, 1048576)
            assert huge.pool(2048).free == 0


CAPABILITIES = """\
<capabilities><host><topology><cells num='2'>
 <cell id='0'><memory unit='KiB'>1000</memory>
  <distances><sibling id='0' value='10'/><sibling id='1' value='21'/></distances>
  <cpus num='2'><cpu id='0' socket_id='0' core_id='0' siblings='0'/><cpu id='2'/></cpus></cell>
 <cell id='1'><memory unit='KiB'>2000</memory><cpus num='2'><cpu id='1'/><cpu id='3'/></cpus></cell>
</cells></topology></host></capabilities>
"""
NODES = """\
node0/cpulist:0,2
node1/cpulist:1,3
node0/distance:10 21
node1/distance:21 10
node0/meminfo:1000 kB
node1/meminfo:2000 kB
end
"""


class TestNumaTopology:
    def test_from_capabilities(self, said):
        numa = NumaTopology.parse(said({"cpu.capabilities": CAPABILITIES, "memory.nodes": NODES}))
        assert numa.cells[0] == Cell(0, 1000, frozenset({0, 2}), ((0, 10), (1, 21)))
        assert (numa.nodes, numa.cpus) == ({0, 1}, {0, 1, 2, 3})

    @pytest.mark.parametrize("capabilities", [(1, "failed to connect"), "<capabilities/>", "nonsense"])
    def test_from_sysfs_where_libvirt_is_silent(self, said, capabilities):
        numa = NumaTopology.parse(said({"cpu.capabilities": capabilities, "memory.nodes": NODES}))
        assert numa.cells[1] == Cell(1, 2000, frozenset({1, 3}), ((0, 21), (1, 10)))

    @pytest.mark.parametrize(
        "nodes", ["absent\n", "", "node0/cpulist:0\nend\n", "hello\nend\n", NODES.replace("10 21", "10")]
    )
    def test_refused(self, said, nodes):
        with pytest.raises((Unavailable, ValueError, LookupError)):
            NumaTopology.parse(said({"cpu.capabilities": (1, "failed"), "memory.nodes": nodes}))

    @pytest.mark.corpus
    def test_real(self, said, samples):
        seen = {}
        for path in samples("virsh-capabilities"):
            try:
                seen[path.name] = NumaTopology.parse(
                    said({"cpu.capabilities": path.read_bytes(), "memory.nodes": "absent\n"})
                )
            except (Unavailable, ValueError, LookupError):
                seen[path.name] = None
        assert sum(numa is not None for numa in seen.values()) >= 10
        skx = seen["virsh-capabilities__vdsm-intel-E5649__1.txt"]
        assert len(skx.cpus) == 24
        assert skx.nodes == {0, 1}


class TestCpuList:
    def test_forms(self):
        assert cpu_list("0-3,8,10-11") == {0, 1, 2, 3, 8, 10, 11}
        assert cpu_list("") == frozenset()

    @pytest.mark.parametrize("text", ["x", "3-1", "-1", "0-99999999", "1,,2"])
    def test_refused(self, text):
        with pytest.raises(ValueError, match=r"."):
            cpu_list(text)

    @given(st.text(max_size=40))
    def test_any_text(self, text):
        meminfo(text)
        with contextlib.suppress(ValueError):
            cpu_list(text)

    @pytest.mark.corpus
    def test_real(self, samples):
        assert [len(cpu_list(path.read_text().strip())) for path in samples("numa-cpulist")] == [24, 24]


def test_cgroup(said):
    assert Cgroup.parse(said({"memory.cgroup": "cgroup2fs\n"})).version == 2
    assert Cgroup.parse(said({"memory.cgroup": "tmpfs\n"})).version == 1
    for answer in ("ext4\n", (1, "stat: cannot read")):
        with pytest.raises(Unavailable):
            Cgroup.parse(said({"memory.cgroup": answer}))


class TestOvercommit:
    LIMITS = MEMINFO + "CommitLimit: 1000 kB\nCommitted_AS: 400 kB\n"

    @pytest.mark.parametrize(("mode", "most"), [("0", 65535992 + 8388604), ("1", None), ("2", 600)])
    def test_modes(self, said, mode, most):
        told = said({"memory.meminfo": self.LIMITS, "memory.overcommit": f"{mode}\n"})
        assert Overcommit.parse(told) == Overcommit(int(mode), most)

    @pytest.mark.parametrize("text", ["", "3\n", "none\n"])
    def test_refused(self, said, text):
        with pytest.raises((Unavailable, ValueError)):
            Overcommit.parse(said({"memory.meminfo": self.LIMITS, "memory.overcommit": text}))
