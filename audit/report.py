"""Results → files: report.html, report.pdf, tables for spreadsheets, baselines ready to paste.

Pure but for the writing: the same results and the same `rendered` time give the same bytes. Everything in the results
is other people's text. The templates' door (`_shown`) escapes and defuses all of it; nothing is marked safe but our own
style sheets. The HTML loads nothing, runs no script, and forbids both to itself.
"""

import base64
import hashlib
import os
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from audit.report_view import Files, build
from audit.results import Baseline, GuestCpuAdvice, GuestResult, Pair, Reason, Results, dumps
from audit.text import visible

TEXT_LIMIT = 2000  # characters of any one text, whatever the view model let through
DIFFS = "cpu-diffs"  # the folder of the guests' differences
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
CELL_LIMIT = 32_000  # characters; spreadsheets take 32,767 a cell


def render_html(results: Results, *, rendered: str) -> str:
    """The report as one self-contained page. `rendered`: now, UTC, ISO 8601."""
    return _page(results, rendered, "report.css")


def render_pdf(results: Results, *, rendered: str) -> bytes:
    """The report on A4. `rendered`: now, UTC, ISO 8601."""
    from weasyprint import HTML  # costs half a second, which only those who print should pay

    html = HTML(string=_page(results, rendered, "report.css", "paper.css"), url_fetcher=_fetch_nothing)
    pdf: bytes = html.write_pdf(pdf_tags=True)
    return pdf


def write_report(results: Results, folder: Path, *, rendered: str, pdf: bool = True) -> list[Path]:
    """Write all files into `folder`, each complete or not at all; their paths, in the order people want them.

    Without `pdf` there is no report.pdf, which takes most of the time. For the guests' differences, which may be
    hundreds, stands the path of their folder.
    """
    pages = {"report.html": render_html(results, rendered=rendered).encode()}
    if pdf:
        pages["report.pdf"] = render_pdf(results, rendered=rendered)
    written = [write_whole(folder / name, content) for name, content in pages.items()]
    differences = [folder / DIFFS] if write_differences(results, folder) else []
    return [*written, *write_baselines(results, folder), *differences, *write_tables(results, folder)]


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write guests.csv and pairs.csv."""
    import pandas as pd  # costs half a second, see above

    tables = {
        "guests.csv": ([_guest_line(guest, results["run"]["drain"]) for guest in results["guests"]], GUEST_COLUMNS),
        "pairs.csv": ([_pair_line(pair) for pair in results["pairs"]], PAIR_COLUMNS),
    }
    written = []
    for name, (lines, columns) in tables.items():
        frame = pd.DataFrame([{key: _cell(value) for key, value in line.items()} for line in lines], columns=columns)
        content = frame.to_csv(index=False, lineterminator="\r\n").encode()
        written.append(write_whole(folder / name, content))
    return written


def write_baselines(results: Results, folder: Path) -> list[Path]:
    """Write each `<cpu>` exactly as computed, and the migratable one where that differs."""
    written = []
    for baseline, names in zip(results["baselines"], baseline_files(results), strict=True):
        texts = (baseline["cpu_xml"], baseline["migratable_cpu_xml"])
        for name, xml in zip(names, texts, strict=True):
            if xml is not None:
                written.append(write_whole(folder / name, f"{xml}\n".encode()))
    return written


def baseline_files(results: Results) -> list[tuple[str, str]]:
    """The file names of each baseline, plain and migratable: by cluster, and by vendor where a cluster has several.

    A cluster's name may be anything; what is no plain file name, or is taken already, gets a digest of the name.
    """
    clusters = [baseline["cluster"] for baseline in results["baselines"]]
    taken: set[str] = set()
    names = []
    for number, baseline in enumerate(results["baselines"]):
        several = clusters.count(baseline["cluster"]) > 1
        wanted = f"{baseline['cluster']}-{baseline['vendor'] or number}" if several else baseline["cluster"]
        stem = _plain(wanted)
        pair = _file_names(stem)
        if stem != wanted or taken & {name.lower() for name in pair}:
            pair = _file_names(f"{stem}-{_digest(f'{number} {wanted}')}")
        taken |= {name.lower() for name in pair}
        names.append(pair)
    return names


def write_differences(results: Results, folder: Path) -> list[Path]:
    """Write each guest's difference exactly as computed: `patch` is to take it."""
    written = []
    for baseline, names in zip(results["baselines"], difference_files(results), strict=True):
        for guest, name in zip(_advised(baseline), names, strict=True):
            if name:
                written.append(write_whole(folder / DIFFS / name, guest["diff"].encode()))
    return written


def difference_files(results: Results) -> list[list[str]]:
    """Per baseline and guest the name of its difference's file in `cpu-diffs`, "" for none: `HOST/UUID.diff`.

    By host, because the commands run there and a guest may stand on two (once moved, its old definition left behind).
    """
    folders: dict[str, str] = {}
    names: list[list[str]] = []
    for baseline in results["baselines"]:
        names.append([])
        for guest in _advised(baseline):
            if not guest["diff"] or not _UUID.fullmatch(guest["uuid"].lower()) or not _encodable(guest["diff"]):
                names[-1].append("")
                continue
            host = guest["host"]
            if host not in folders:
                plain = _plain(host)
                taken = {folder.lower() for folder in folders.values()}
                folders[host] = plain if plain == host and plain.lower() not in taken else f"{plain}-{_digest(host)}"
            names[-1].append(f"{folders[host]}/{guest['uuid'].lower()}.diff")
    return names


def _plain(name: str) -> str:
    """What of the name may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+|^[.]+", "_", name)[:80] or "_"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def _advised(baseline: Baseline) -> list[GuestCpuAdvice]:
    advice = baseline.get("advice")
    return advice["guests"] if advice else []


def _encodable(text: str) -> bool:
    """Half a character, which JSON can hold, is no text for a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_names(stem: str) -> tuple[str, str]:
    return f"baseline-{stem}.xml", f"baseline-{stem}-migratable.xml"


# Pages


def _page(results: Results, rendered: str, *sheets: str) -> str:
    paper = "paper.css" in sheets
    digest = hashlib.sha256(dumps(results).encode(errors="surrogatepass")).hexdigest()
    files = Files(baseline_files(results), difference_files(results))
    view = build(results, rendered=rendered, digest=digest, files=files, paper=paper)
    style = "\n".join(_style(sheet) for sheet in sheets)
    # The page's security policy admits this one style sheet, by its digest.
    style_digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _environment().get_template("report.html.j2")
    return template.render(view=view, style=Markup(style), style_digest=style_digest, paper=paper)  # noqa: S704 - ours


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("report_templates", ""),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["lines"] = _shown_lines
    environment.filters["prose"] = _shown_prose
    return environment


@lru_cache
def _style(name: str) -> str:
    return resources.files("report_templates").joinpath(name).read_text("utf-8")


def _shown(value: Any) -> Any:
    """The templates' door: every `{{ text }}` leaves on one line, defused and of bounded length; then it is escaped."""
    return visible(value, TEXT_LIMIT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shown_lines(text: str) -> Markup:
    """The same for text of several lines: XML and commands."""
    return Markup("\n").join(visible(line, TEXT_LIMIT * 2) for line in text.split("\n"))


def _shown_prose(text: str) -> Markup:
    """The same for what authors of checks write: `words` in backticks are code."""
    parts = [escape(part) for part in visible(text, TEXT_LIMIT).split("`")]
    if len(parts) % 2 == 0:  # a backtick without its pair is just that
        parts[-2:] = [parts[-2] + "`" + parts[-1]]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _fetch_nothing(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError(f"the report refers to nothing outside itself, yet to {visible(url)}")


# Tables

GUEST_COLUMNS = [
    "cluster", "guest", "uuid", "host", "state", "active", "memory_kib", "vcpus",
    "possible_targets", "yes", "conditions", "no", "unknown", "reasons",
]  # fmt: skip
PAIR_COLUMNS = ["cluster", "source", "target", "verdict", "reasons"]


def _guest_line(guest: GuestResult, drain: list[str]) -> dict[str, Any]:
    """One guest; when its host is to be drained, the others that are do not count as targets."""
    excluded = drain if guest["host"] in drain else []
    targets = [target for target in guest["targets"] if target["host"] not in excluded]
    by_verdict: dict[str, list[str]] = {"yes": [], "conditions": [], "no": [], "unknown": []}
    for target in targets:
        by_verdict[target["verdict"]].append(target["host"])
    return {
        "cluster": guest["cluster"],
        "guest": guest["name"],
        "uuid": guest["uuid"],
        "host": guest["host"],
        "state": guest["state"],
        "active": "yes" if guest["active"] else "no",
        "memory_kib": "" if guest["memory_kib"] is None else guest["memory_kib"],
        "vcpus": "" if guest["vcpus"] is None else guest["vcpus"],
        "possible_targets": len(by_verdict["yes"]) + len(by_verdict["conditions"]),
        **{verdict: " ".join(hosts) for verdict, hosts in by_verdict.items()},
        "reasons": " | ".join(f"{t['host']}: {_reasons(t['reasons'])}" for t in targets if t["reasons"]),
    }


def _pair_line(pair: Pair) -> dict[str, Any]:
    ends = {key: pair[key] for key in ("cluster", "source", "target", "verdict")}
    return {**ends, "reasons": _reasons(pair["reasons"])}


def _reasons(reasons: list[Reason]) -> str:
    return "; ".join(f"{reason['message']} [{reason['check']}]" for reason in reasons)


def _cell(value: str | int) -> str | int:
    """Text that no spreadsheet takes for a formula, on one line."""
    if isinstance(value, int):
        return value
    text = visible(value, CELL_LIMIT)
    return f"'{text}" if re.match(r"[\s']*[=+\-@＝＋－＠]|[\t\r]", value) else text


# Files


def write_whole(path: Path, content: bytes) -> Path:
    """Write under another name and rename: what bears the name is complete. Makes the folder; gives the path back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
