"""Tries all scenarios and compares. `scripts/truth` calls it and installs what it needs before."""

import argparse
import queue
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.lab.commands import LabError
from tests.lab.hosts import Lab, lab, missing
from tests.lab.scenarios import Scenario, load
from tests.lab.trial import Trial, attempt

PAGE = Path(__file__).parents[2] / "docs" / "truth.md"
BEGIN, END = "<!-- written by scripts/truth: begin -->", "<!-- written by scripts/truth: end -->"
MOST_UNKNOWN, LEAST_AGREEING = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class NotTried:
    """A scenario that the lab could not prepare or try."""

    scenario: Scenario
    why: str


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all targets are reached; 1: some are not; 2: there can be no lab here."""
    parser = argparse.ArgumentParser(description="Is the verdict true? Each scenario: predicted, then really migrated.")
    parser.add_argument("wanted", nargs="*", metavar="FAMILY|NAME", help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="so many labs at once (default: 1)")
    parser.add_argument("--write", action="store_true", help="write the table into docs/truth.md")
    options = parser.parse_args(arguments)
    if why := missing():
        print(f"no lab here: {why}", file=sys.stderr)
        return 2
    wanted = set(options.wanted)
    chosen = [one for one in load() if not wanted or wanted & {one.family, one.name}]
    trials, untried = run(chosen, options.jobs)
    page = "\n".join(table(trials, untried))
    print(f"\n{page}")
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{page}\n\n{END}{rest.partition(END)[2]}")
    return 1 if untried or failures(trials) else 0


def run(chosen: Sequence[Scenario], jobs: int) -> tuple[list[Trial], list[NotTried]]:
    """Try them, in so many labs at once; both lists are in the scenarios' order."""
    waiting: queue.SimpleQueue[Scenario] = queue.SimpleQueue()
    for scenario in chosen:
        waiting.put(scenario)
    ended: dict[str, Trial | NotTried] = {}

    def work(number: int) -> None:
        with lab(f"lab{number}") as made:
            while not waiting.empty():
                scenario = waiting.get()
                ended[scenario.name] = _try(made, scenario)
                print(line(ended[scenario.name]), flush=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(min(jobs, len(chosen)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = [ended.get(one.name) or NotTried(one, "the lab did not come up") for one in chosen]
    return [one for one in results if isinstance(one, Trial)], [one for one in results if isinstance(one, NotTried)]


def _try(made: Lab, scenario: Scenario) -> Trial | NotTried:
    try:
        if made.lacks_newer and "kvm3" in scenario.hosts:
            return NotTried(scenario, made.lacks_newer)
        return attempt(made, scenario)
    except LabError as error:
        return NotTried(scenario, str(error))
    except Exception:  # noqa: BLE001, a bug of the lab's own must not end the run
        return NotTried(scenario, traceback.format_exc())


def line(one: Trial | NotTried) -> str:
    """One scenario, for whoever watches."""
    name = f"{one.scenario.family}/{one.scenario.name}"
    if isinstance(one, NotTried):
        return f"{name:44} NOT TRIED: {one.why}"
    flaw = one.miss or ("" if one.reason_agrees is not False else "another reason")
    first = "; ".join(f"{check}: {message}" for check, message in one.predicted.reasons[:1])
    shown = f"{name:44} {one.predicted.verdict:10} {one.happened.real:8} {flaw}"
    return shown + (f"\n    said:     {first}\n    happened: {one.happened.words}" if flaw else "")


def failures(trials: Sequence[Trial]) -> list[str]:
    """Which targets are missed, in words."""
    misses = Counter(trial.miss for trial in trials)
    judged = [trial.reason_agrees for trial in trials if trial.reason_agrees is not None]
    missed = [f"{misses[kind]} × {kind}" for kind in ("false GO", "false NO-GO") if misses[kind]]
    if misses["unknown"] > MOST_UNKNOWN * len(trials):
        missed.append(f"{misses['unknown']} of {len(trials)} unknown")
    if sum(judged) < LEAST_AGREEING * len(judged):
        missed.append(f"libvirt's reason put first in {sum(judged)} of {len(judged)} refusals")
    return missed


def table(trials: Sequence[Trial], untried: Sequence[NotTried]) -> list[str]:
    """Matrix and list, as Markdown."""
    families = {trial.scenario.family for trial in trials}
    cells = Counter((_word(trial), trial.happened.real) for trial in trials)
    judged = [trial.reason_agrees for trial in trials if trial.reason_agrees is not None]
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}: {len(trials)} scenarios in {len(families)} families.",
        "",
        "| predicted | moved | refused | moved, but the guest was harmed |",
        "|---|---|---|---|",
        *(
            f"| {word} | {cells[word, 'moved']} | {cells[word, 'refused']} | {cells[word, 'harmed']} |"
            for word in ("possible", "impossible", "unknown")
        ),
        "",
        f"libvirt's reason was put first in {sum(judged)} of {len(judged)} refusals that were predicted.",
        *(f"**Target missed**: {words}." for words in failures(trials)),
        *(f"**Not tried**: {one.scenario.name}: {_cell(one.why)}" for one in untried),
        "",
        "| scenario | what is unusual | predicted | happened | the reason put first | libvirt's words |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        scenario, reasons = trial.scenario, trial.predicted.reasons
        first = f"{'' if trial.reason_agrees is not False else '(another) '}{reasons[0][0]}" if reasons else ""
        cells_of = (f"{scenario.family}/{scenario.name}", scenario.about, trial.predicted.verdict, trial.happened.real)
        lines.append("| " + " | ".join(_cell(cell) for cell in (*cells_of, first, trial.happened.words)) + " |")
    return lines


def _word(trial: Trial) -> str:
    return {"no": "impossible", "unknown": "unknown"}.get(trial.predicted.verdict, "possible")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:300]


if __name__ == "__main__":
    sys.exit(main())
