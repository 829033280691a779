"""libvirt's CPU map: which names of features and models this host's libvirt understands, and the map itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable

# The names alone tell which features this libvirt understands; the files themselves are fetched once per digest.
CPU_MAP = Probe(
    "cpu.map",
    """\
[ -e /usr/share/libvirt/cpu_map/index.xml ] || { echo absent; exit 0; }
cd /usr/share/libvirt/cpu_map || exit 1
printf 'sha256 %s\\n' "$(cat index.xml x86_*.xml | sha256sum | cut -d' ' -f1)"
sed -n "s/.*<feature name=[\\"']\\([^\\"']*\\)[\\"'].*/feature \\1/p" x86_features.xml || exit 1
sed -n "s/.*<model name=[\\"']\\([^\\"'/]*\\)[\\"']>.*/model \\1/p" x86_*.xml""",
    hand="ls /usr/share/libvirt/cpu_map",
)


@dataclass(frozen=True, slots=True)
class CpuMapFiles(HostFact):
    """libvirt's CPU map on this host."""

    probes: ClassVar[tuple[Probe, ...]]

    digest: str | None
    """sha256 over index.xml and x86_*.xml; None: there is no map where libvirt keeps it."""
    features: frozenset[str] | None
    """Names of the x86 features that this libvirt understands. None: see `digest`."""
    models: frozenset[str] | None
    """Names of the x86 models that it understands; QEMU may have fewer."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`sha256 DIGEST`, then `feature NAME` and `model NAME`."""
        lines = said.lines(CPU_MAP)
        if lines == ["absent"]:
            return cls(None, None, None)
        words = [line.split(maxsplit=1) for line in lines]
        [digest] = [rest for word, rest in words if word == "sha256"]
        features = frozenset(rest for word, rest in words if word == "feature")
        models = frozenset(rest for word, rest in words if word == "model")
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not features or not models:
            raise ValueError("neither absent nor a CPU map")
        return cls(digest, features, models)


def _first_with_map(facts: Facts, host: str, peers: Sequence[str]) -> list[tuple[str, ...]]:
    """Each distinct map is fetched once in the cluster, from the first host that has it."""
    digests = {name: fact.digest for name, fact in facts.each(sorted({host, *peers}), CpuMapFiles) if fact.digest}
    digest = digests.get(host)
    return [(digest,)] if digest and min(name for name in digests if digests[name] == digest) == host else []


CPU_MAP_FILES = Question(
    "cpu.map_files",
    """\
cat >/dev/null
cd /usr/share/libvirt/cpu_map || exit 1
for file in index.xml x86_*.xml; do
  printf '== %s\\n' "$file"
  cat "$file" || exit 1
  echo
done""",
    seconds=30,
    limit=16 * 1024 * 1024,
    ask=_first_with_map,
    maximum=1,
    hand="cat /usr/share/libvirt/cpu_map/index.xml /usr/share/libvirt/cpu_map/x86_*.xml",
)
CpuMapFiles.probes = (CPU_MAP, CPU_MAP_FILES)


def cpu_map_files(said: Said) -> dict[str, bytes]:
    """The files of this host's CPU map, for `CpuMap.from_files`. Raises `Unavailable` where they were not fetched."""
    said.text(CPU_MAP_FILES)
    text = said.evidence(CPU_MAP_FILES).stdout
    parts = re.split(rb"^== (index\.xml|x86_[A-Za-z0-9_.+-]+\.xml)\n", text, flags=re.MULTILINE)
    files = {name.decode(): content for name, content in zip(parts[1::2], parts[2::2], strict=True)}
    if "index.xml" not in files:
        raise Unavailable(CPU_MAP_FILES, "no index.xml among the files")
    return files
