#!/usr/bin/env python3
"""Write audit/cpu/x86_map_VERSION.json from an installed libvirt's CPU map.

    python3 scripts/make_cpu_table.py FOLDER VERSION [TABLE]

FOLDER is a libvirt's cpu_map folder, VERSION that libvirt's version. The table states facts in a form of our own:
a feature by name and bit; a model by what tells it from the earlier model that it is most like.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from audit.cpu.cpumap import CpuMap, MapFeature, MapModel, ModelSignature

TABLES = Path(__file__).resolve().parent.parent / "audit" / "cpu"


def feature_row(feature: MapFeature) -> str:
    """Write `name source leaf subleaf register bit`, leaves in hexadecimal."""
    bit = feature.bit
    row = f"{feature.name} {bit.source} {bit.leaf:x} {bit.subleaf:x} {bit.register} {bit.number}"
    return row if feature.migratable else row + " local"


def changes(base: frozenset[str], names: frozenset[str]) -> str:
    """Write what has to be added to and taken from the base."""
    return " ".join([f"+{name}" for name in sorted(names - base)] + [f"-{name}" for name in sorted(base - names)])


def signature_text(signature: ModelSignature) -> str:
    """Write `family/model` or `family/model/stepping,stepping`."""
    text = f"{signature.family}/{signature.model}"
    return text + ("/" + ",".join(map(str, sorted(signature.steppings))) if signature.steppings else "")


def model_row(model: MapModel, earlier: list[MapModel]) -> dict[str, object]:
    """Write a model as its difference from the earlier one with the fewest differences."""

    def distance(other: MapModel) -> int:
        return len(model.features ^ other.features) + len(model.added ^ other.added)

    like = min(earlier, key=distance, default=None)
    nothing: frozenset[str] = frozenset()
    row = {
        "like": like.name if like else None,
        "has": changes(like.features if like else nothing, model.features),
        "added": changes(like.added if like else nothing, model.added),
        "removed": " ".join(model.removed),
        "vendor": model.vendor,
        "made_for": " ".join(map(signature_text, model.signatures)),
        "decode": " ".join(who for who, able in (("host", model.decode_host), ("guest", model.decode_guest)) if able),
        "compat": model.compat_check,
        "ancestor": model.ancestor,
        "canonical": model.canonical,
    }
    return {key: value for key, value in row.items() if value or key in ("has", "decode")}


def table_text(cpu_map: CpuMap) -> str:
    """Write the whole table, one feature or model a line, so that a new libvirt shows as a readable difference."""
    features = ",\n".join(f"  {json.dumps(feature_row(feature))}" for feature in cpu_map.features)
    models = ",\n".join(
        f"  {json.dumps(model.name)}: {json.dumps(model_row(model, list(cpu_map.models[:place])))}"
        for place, model in enumerate(cpu_map.models)
    )
    return (
        f'{{\n "version": {json.dumps(cpu_map.version)},\n "vendors": {json.dumps(dict(cpu_map.vendors))},\n'
        f' "features": [\n{features}\n ],\n "models": {{\n{models}\n }}\n}}\n'
    )


def main() -> None:
    """Read the folder, write the table."""
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    folder, version, *table = sys.argv[1:]
    target = Path(table[0]) if table else TABLES / f"x86_map_{version}.json"
    target.write_text(table_text(CpuMap.from_folder(folder, f"libvirt {version}")), "utf-8")


if __name__ == "__main__":
    main()
