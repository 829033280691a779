#!/usr/bin/env python3
"""Write the sample fleets: an inventory, a bundle and the results that follow from it, a folder each.

    python3 scripts/make_sample_data.py [FOLDER]

FOLDER is sample_data. The same input gives the same bytes. It stops when the program asks a host something that
scripts/sample_fleets has no answer to: add the answer there, and look at what changes in the results.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from audit.evaluate import evaluate  # noqa: E402
from audit.evidence import Bundle  # noqa: E402
from audit.judge import discover  # noqa: E402
from audit.results import dumps  # noqa: E402
from scripts.sample_fleets.answers import Undescribed, bundle  # noqa: E402
from scripts.sample_fleets.fleets import FLEETS  # noqa: E402


def write(folder: Path) -> None:
    """Write all fleets below `folder`, in place of what was there. Raises `Undescribed`."""
    bundles = {fleet.name: bundle(fleet) for fleet in FLEETS}  # all of them first: nothing is half replaced
    for fleet in FLEETS:
        place = folder / fleet.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "inventory.yaml").write_text(fleet.inventory, "utf-8")
        bundles[fleet.name].write(place / "bundle")
        results = evaluate([Bundle.read(place / "bundle")], discover())
        (place / "results.json").write_text(dumps(results), "utf-8")
        print(f"{place}: {results['verdict']['word']}: {results['verdict']['sentence']}")


def main() -> None:
    """Take the folder from the command line."""
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    try:
        write(Path(sys.argv[1]) if len(sys.argv) == 2 else ROOT / "sample_data")
    except Undescribed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
