"""The reports: what stands in them, that nothing hostile gets into them, and that they are the same every time."""

import csv
import io
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pypdf
import pytest

from audit import report
from audit.report_fleet import host_section, pair_section
from audit.report_view import FIRST_PAGE_LINES
from audit.report_words import Context, command, counted, cut, lines, moment, short_names, size, some
from audit.results import Results
from tests import report_examples as examples
from tests.report_examples import CPU_XML, HOSTILE, RENDERED

ROOT = Path(__file__).parent.parent
SECTIONS = [
    "Decision", "Scope and method", "Hosts side by side", "Host pairs", "Guests and their targets", "CPU baseline",
    "Findings", "What was not checked", "Checks", "Provenance", "Words used",
]  # fmt: skip


def html(results: Results) -> str:
    return report.render_html(results, rendered=RENDERED)


def pdf(results: Results) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(report.render_pdf(results, rendered=RENDERED)))


def words(page: pypdf.PageObject) -> str:
    return " ".join(page.extract_text().split())


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "li", "summary"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


def section(text: str, start: str, end: str) -> str:
    plain = " ".join(Page(text).text.split())
    return plain[plain.index(start) : plain.index(end, plain.index(start) + len(start))]


# PDF


@pytest.fixture(scope="module")
def no_go_pdf() -> pypdf.PdfReader:
    return pdf(examples.no_go())


def test_every_page_carries_run_verdict_and_number(no_go_pdf: pypdf.PdfReader) -> None:
    for number, page in enumerate(no_go_pdf.pages, start=1):
        text = words(page)
        assert f"page {number} of {len(no_go_pdf.pages)}" in text
        assert "20270302T0911Z-7c1e" in text
        assert "NO-GO" in text


def test_the_outline_names_the_sections_in_order(no_go_pdf: pypdf.PdfReader) -> None:
    top = [entry for entry in no_go_pdf.outline if not isinstance(entry, list)]
    assert [re.sub(r"^\d+\s+", "", str(entry.title)).split(":")[0] for entry in top] == SECTIONS
    pages = [no_go_pdf.get_destination_page_number(entry) for entry in top]
    assert pages == sorted(pages)  # type: ignore[type-var]


def test_paper_is_a4_with_a_title_and_a_date(no_go_pdf: pypdf.PdfReader) -> None:
    assert no_go_pdf.metadata is not None
    assert no_go_pdf.metadata.title == "NO-GO: migration pre-flight 20270302T0911Z-7c1e"
    assert str(no_go_pdf.metadata["/CreationDate"]).startswith("D:20270302093000")
    assert {tuple(round(float(x)) for x in page.mediabox) for page in no_go_pdf.pages} == {(0, 0, 595, 842)}


def test_a_large_cluster_stays_readable_in_length(no_go_pdf: pypdf.PdfReader) -> None:
    assert 6 <= len(no_go_pdf.pages) <= 16


def crowded() -> Results:
    """More to say than the first page holds."""
    results = examples.no_go()
    long = "db-{} on kvm01 has no target: kvm02, kvm03: the target lacks avx512f; kvm05: bridge br-storage is missing"
    results["verdict"]["blocking"] = [long.format(n) for n in range(40)]
    results["verdict"]["conditions"] = [
        f"kvm{n:02} mounts the shared storage with locking: remount it." for n in range(30)
    ]
    results["run"]["change"] = {
        "ticket": "CHG1",
        "window": "w" * 200,
        "requester": "r" * 200,
        "backup": "b" * 200,
        "plan": "p" * 200,
    }
    results["run"]["drain"] = ["kvm01", "kvm02"]
    return results


@pytest.mark.parametrize("make", [*examples.ALL.values(), crowded], ids=[*examples.ALL, "crowded"])
def test_the_decision_fits_the_first_page(make: Any) -> None:
    results = make()
    reader = pdf(results)
    first, second = words(reader.pages[0]), words(reader.pages[1])
    for text in (
        results["verdict"]["word"], "two or more targets", "no target", "not known", "Blocking reasons",
        "To be done or accepted before the start", "Valid until 2027-03-09 09:11 UTC", "Ticket", "Hosts", "Guests",
        "Prepared by", "Reviewed by", "Approved by",
    ):  # fmt: skip
        assert text in first
    assert "Scope and method" in second
    assert "Prepared by" not in second


def test_what_the_first_page_leaves_out_stands_in_section_2() -> None:
    reader = pdf(crowded())
    first = words(reader.pages[0])
    assert re.search(r"and \d\d more: section 2", first)
    assert "db-39" not in first
    text = " ".join(words(page) for page in reader.pages[1:5])
    assert "All blocking reasons" in text
    assert "db-39" in text


def test_a_usual_fleet_prints_in_seconds() -> None:
    results = examples.no_go(hosts=6, guests=20)
    report.render_pdf(examples.empty(), rendered=RENDERED)  # imports and fonts
    started = time.process_time()
    report.render_pdf(results, rendered=RENDERED)
    assert time.process_time() - started < 5


# HTML


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    for make in examples.ALL.values():
        page = Page(html(make()))
        assert not {"script", "img", "link", "iframe", "object", "form", "base", "svg"} & set(page.tags)
        urls = [value for _, name, value in page.attributes if name in ("src", "href", "action", "srcset", "data")]
        assert all(value.startswith("#") for value in urls)
        assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
        policy = next(value for tag, _, value in page.attributes if tag == "meta" and "default-src" in value)
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"url\(|@import|@font-face", report._style("report.css") + report._style("paper.css"))


def test_links_lead_somewhere() -> None:
    page = Page(html(examples.no_go()))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for _, name, value in page.attributes if name == "href"} <= {f"#{value}" for value in ids}


def test_sections_stand_in_order() -> None:
    headings = re.findall(r'<h2><span class="no">(\d+)</span> ([^<]+)</h2>', html(examples.go()))
    assert headings == [(str(n), title) for n, title in enumerate(SECTIONS, start=1) if n > 1]


def test_differing_lines_are_marked_and_equal_ones_said_once() -> None:
    text = section(html(examples.no_go()), "3 Hosts side by side", "4 Host pairs")
    assert "≠ Kernel" in text
    assert "≠ Microcode" in text
    assert "≠ Vendor" not in text
    assert text.count("Red Hat Enterprise Linux 9.4") == 1
    assert "unknown: sudo: a password is required" in text


def test_an_unread_host_is_named_with_the_reason_everywhere() -> None:
    page = html(examples.cannot_say())
    why = "connection refused by 192.0.2.3 port 22"
    assert f"kvm03 was not read: {why}" in section(page, "3 Hosts", "4 Host")
    assert f"Partial: kvm03 is not in it: {why}" in section(page, "6 CPU", "7 Findings")
    assert why in section(page, "8 What", "9 Checks")
    assert f"not read – {why}" in section(page, "10 Prov", "11 Words")


def test_matrix_has_a_word_in_every_cell() -> None:
    cells = re.findall(r'<td class="(yes|conditions|no|unknown)">(.) (\S+)</td>', html(examples.no_go()))
    assert len(cells) == 12 * 11
    assert set(cells) == {("yes", "●", "yes"), ("conditions", "▲", "cond."), ("no", "×", "no")}


def test_guests_without_a_way_out_come_first() -> None:
    text = section(html(examples.no_go()), "5 Guests", "6 CPU")
    heads = ["No possible target (3)", "Not known (3)", "Two or more possible targets (52)", "Shut off (2)"]
    assert sorted(heads, key=text.index) == heads
    assert "× no every target: CD-ROM sda is /var/lib/libvirt/images/rhel-9.4-x86_64-dvd.iso" in text


def test_guests_count_as_on_the_first_page() -> None:
    for make in (examples.no_go, examples.go, examples.cannot_say, examples.conditions):
        results = make()
        text = section(html(results), "5 Guests", "6 CPU")
        counts = results["verdict"]["guests"]
        for title, key in (
            ("No possible target", "none"),
            ("Not known", "unknown"),
            ("Two or more possible targets", "two_or_more"),
        ):
            found = re.search(rf"{title} \((\d+)\)", text)
            assert int(found[1] if found else 0) == counts[key]


def test_hosts_to_be_drained_are_no_targets(tmp_path: Path) -> None:
    results = examples.go()
    results["run"]["drain"] = ["kvm01", "kvm02"]
    text = section(html(results), "5 Guests", "6 CPU")
    assert "One possible target only (4)" in text
    assert "Outside the scope (2)" in text
    guests, _ = report.write_tables(results, tmp_path)
    assert [row["possible_targets"] for row in read(guests)] == ["1", "1", "2"] * 2


def test_a_guest_with_nowhere_to_go_is_not_called_movable() -> None:
    results = examples.empty()
    results["guests"] = [examples.guest("web", "kvm01", [])]
    text = section(html(results), "5 Guests", "6 CPU")
    assert "No other host audited (1)" in text
    assert "yes" not in text


def test_baseline_recommends_the_one_that_may_migrate() -> None:
    text = section(html(examples.go()), "6 CPU", "7 Findings")
    assert "File to paste baseline-prod-migratable.xml" in text
    assert (
        "additionally has <feature policy='require' name='xsaves'/>, <feature policy='require' name='invtsc'/>" in text
    )
    text = section(html(examples.conditions()), "6 CPU", "7 Findings")
    assert "File to paste baseline-prod.xml" in text
    assert "Paste this one" not in text


def test_baseline_steps_can_be_undone() -> None:
    text = section(html(examples.go()), "How to give it to a guest", "7 Findings")
    steps = [
        "umask 077; virsh dumpxml --inactive --security-info NAME > NAME.before.xml",
        "virsh edit NAME",
        "virsh shutdown NAME && until ",
        "; done && virsh start NAME",
        "The source document says virsh reboot",
        "virsh define NAME.before.xml",
    ]
    assert sorted(steps, key=text.index) == steps


def test_findings_that_block_come_first() -> None:
    titles = re.findall(r'<article id="finding-\d+" class="finding( blocking)?">', html(examples.no_go()))
    assert titles == sorted(titles, reverse=True)
    assert len(titles) == 6


def test_one_gap_in_the_evidence_is_told_once() -> None:
    results = examples.go()
    remedy = "as root on the host: " + "\n".join(f"echo {n}" for n in range(12))
    results["outcomes"] = [
        examples.outcome(check, "unknown", {"host": host}, "firewall.nft: permission denied", remedy=remedy)
        for check in ("mellanox.firmware", "storage.nfs_locking") for host in ("kvm01", "kvm02")
    ]  # fmt: skip
    text = section(html(results), "8 What was", "9 Checks")
    assert text.count("permission denied") == 1
    assert "as root on the host: a script echo 0" in text
    assert "storage.nfs_locking kvm01, kvm02" in text
    assert "could block migration kvm01, kvm02" in text
    paper = " ".join(words(page) for page in pdf(results).pages)
    assert "a script, see report.html" in paper


def test_our_own_errors_are_said_to_be_ours() -> None:
    text = section(html(examples.cannot_say()), "Errors of this tool", "9 Checks")
    assert "our fault" in text
    assert "ValueError: not a version" in text


def test_authors_may_write_code_in_backticks() -> None:
    prose = report._shown_prose
    assert prose("use `virsh <x>` now") == "use <code>virsh &lt;x&gt;</code> now"
    assert prose("a ` alone & <b>") == "a ` alone &amp; &lt;b&gt;"
    assert prose("`a` and ` alone") == "<code>a</code> and ` alone"


# Hostile text


def test_hostile_text_is_text() -> None:
    text = html(examples.hostile())
    page = Page(text)
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\u2066" not in text
    assert "49}" not in text.replace("{{7*7}}", "")
    assert len(text) < 100_000
    assert max(map(len, page.text.split())) < 900


def test_hostile_text_does_not_blow_up_paper() -> None:
    reader = pdf(examples.hostile())
    assert len(reader.pages) <= 12
    assert "<script>alert(1)</script>" in words(reader.pages[0])


def test_commands_are_exact_or_not_shown() -> None:
    assert command("virsh list") == command("\nvirsh list\n")
    found = command("virsh change-media 'a\u202eb' sda --eject")
    assert found is not None
    assert not found.pasteable
    assert "virsh" not in found.text
    assert command("  ") is None
    prose = command("Eject the image.")
    assert prose is not None
    assert not prose.pasteable


# Determinism


def test_same_input_same_bytes_whatever_the_hash_seed() -> None:
    program = (
        "import hashlib; from audit import report; from tests import report_examples as e\n"
        "for make in (e.go, e.hostile):\n"
        "    r = make()\n"
        "    page = report.render_html(r, rendered=e.RENDERED).encode()\n"
        "    print(hashlib.sha256(page + report.render_pdf(r, rendered=e.RENDERED)).hexdigest())\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0].split()) == 2


def test_only_the_render_time_differs() -> None:
    one, other = (report.render_html(examples.go(), rendered=when) for when in (RENDERED, "2028-01-01T00:00:00Z"))
    assert one != other
    assert one.replace(RENDERED, "").replace("2027-03-02 09:30 UTC", "") == other.replace(
        "2028-01-01T00:00:00Z", ""
    ).replace("2028-01-01 00:00 UTC", "")


# Files


def test_write_report_writes_everything(tmp_path: Path) -> None:
    written = report.write_report(examples.go(), tmp_path / "new" / "folder", rendered=RENDERED)
    assert [path.name for path in written] == [
        "report.html", "report.pdf", "baseline-prod.xml", "baseline-prod-migratable.xml", "guests.csv", "pairs.csv",
    ]  # fmt: skip
    assert sorted(path.name for path in written) == sorted(
        path.name for path in (tmp_path / "new" / "folder").iterdir()
    )
    assert written[1].read_bytes().startswith(b"%PDF-")


def test_write_report_leaves_the_pdf_out_when_told(tmp_path: Path) -> None:
    names = {path.name for path in report.write_report(examples.go(), tmp_path, rendered=RENDERED, pdf=False)}
    assert "report.html" in names
    assert not (tmp_path / "report.pdf").exists()


def test_a_failed_write_leaves_nothing_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guests.csv").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        report.write_tables(examples.go(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["guests.csv"]
    assert (tmp_path / "guests.csv").read_text() == "old"


def test_baseline_files_hold_exactly_the_cpu(tmp_path: Path) -> None:
    plain, migratable = report.write_baselines(examples.go(), tmp_path)
    assert plain.read_text() == CPU_XML + "\n"
    assert "invtsc" not in migratable.read_text()
    assert report.write_baselines(examples.empty(), tmp_path / "none") == []


def test_each_vendor_of_a_cluster_has_files_of_its_own(tmp_path: Path) -> None:
    amd = examples.baseline(hosts=("kvm09",), vendor="AMD", model="EPYC", migratable_cpu_xml=None, cpu_xml="<cpu/>")
    results = examples.results("NO-GO", "", baselines=[examples.baseline(), amd])
    names = [path.name for path in report.write_baselines(results, tmp_path)]
    assert names == ["baseline-prod-Intel.xml", "baseline-prod-Intel-migratable.xml", "baseline-prod-AMD.xml"]
    text = section(html(results), "6 CPU", "7 Findings")
    assert "prod: AMD EPYC Hosts kvm09" in text
    assert "File to paste baseline-prod-AMD.xml" in text


def test_cluster_names_stay_in_the_folder(tmp_path: Path) -> None:
    names = [
        "../../etc/x",
        "a/b",
        "a_b",
        "",
        ".",
        "..",
        "A_B",
        "x",
        "x-migratable",
        "é",
        "n" * 300,
        "\udcff",
        "a\nb",
        "CON",
    ]
    results = examples.results("GO", "", baselines=[examples.baseline(name) for name in names])
    written = report.write_baselines(results, tmp_path / "out")
    assert len({path.name.lower() for path in written}) == 2 * len(names)
    assert {path.parent for path in written} == {tmp_path / "out"}
    assert all(re.fullmatch(r"baseline-[A-Za-z0-9._-]{1,110}\.xml", path.name) for path in written)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables(tmp_path: Path) -> None:
    guests, pairs = (read(path) for path in report.write_tables(examples.cannot_say(), tmp_path))
    assert guests[1] == {
        "cluster": "prod", "guest": "db01", "uuid": guests[1]["uuid"], "host": "kvm01", "state": "running",
        "active": "yes",
        "memory_kib": "16777216", "vcpus": "4", "possible_targets": "0", "yes": "", "conditions": "", "no": "kvm02",
        "unknown": "kvm03",
        "reasons": "kvm02: CD-ROM sda is /root/boot.iso, on a local disk. [disks.local_media] | kvm03: CD-ROM sda is "
        "/root/boot.iso, on a local disk. [disks.local_media]; kvm03 was not read: connection refused by 192.0.2.3 "
        "port 22 [cpu.guest_fits]",
    }  # fmt: skip
    assert [pair["verdict"] for pair in pairs] == ["yes", "unknown"] * 1 + ["yes", "unknown", "unknown", "unknown"]


def test_tables_without_rows_have_heads(tmp_path: Path) -> None:
    guests, pairs = report.write_tables(examples.empty(), tmp_path)
    assert guests.read_text().startswith("cluster,guest,uuid,host,")
    assert pairs.read_text() == "cluster,source,target,verdict,reasons\n"


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "\n=1", "＝1", '=1"\n,x']
)
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    results = examples.go()
    results["guests"][0]["name"] = name
    results["guests"][0]["uuid"] = name
    guests, _ = report.write_tables(results, tmp_path)
    rows = read(guests)
    assert len(rows) == 6
    for cell in (rows[0]["guest"], rows[0]["uuid"]):
        assert cell.startswith("'")
    for row in rows:
        assert not [cell for cell in row.values() if re.match(r"[=+\-@\t\r]", cell)]


def test_table_cells_are_harmless_on_a_terminal(tmp_path: Path) -> None:
    for path in report.write_tables(examples.hostile(), tmp_path):
        text = path.read_text()
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert max(len(cell) for row in read(path) for cell in row.values()) <= report.CELL_LIMIT + 1


# View


CONTEXT = Context({}, {}, 12)


def test_equal_hosts_share_a_column() -> None:
    section = host_section(
        "c", [examples.host("a"), examples.host("b"), examples.host("c", rows=examples.facts(kernel="6"))]
    )
    [table] = section.tables
    assert table.columns == ("a, b", "c")
    [differing] = [row for _, rows in table.domains for row in rows if row.differs]
    assert [(cell.text[:4], cell.odd) for cell in differing.cells] == [("5.14", False), ("6", True)]
    assert section.summary == "3 hosts read, 1 line differs."


def test_no_majority_no_odd_one() -> None:
    section = host_section(
        "c", [examples.host("a", rows=examples.facts(kernel="5")), examples.host("b", rows=examples.facts(kernel="6"))]
    )
    assert not [cell for _, rows in section.tables[0].domains for row in rows for cell in row.cells if cell.odd]


def test_unknown_is_not_a_difference_and_not_the_same() -> None:
    section = host_section("c", [examples.host("a"), examples.host("b", rows=examples.facts(kernel=None))])
    [row] = [row for _, rows in section.tables[0].domains for row in rows if row.same is None]
    assert (row.label, row.differs) == ("Kernel", False)
    assert not row.cells[1].known


def test_wide_clusters_break_into_blocks() -> None:
    names = [f"host{n:03}.example.org" for n in range(60)]
    section = pair_section("c", examples.pairs(names), Context(short_names(names), {}, 12))
    assert [len(block.heads) for block in section.blocks] == [26, 26, 8]
    assert section.blocks[1].heads[0] == "27"
    assert section.blocks[0].rows[1][0] == "2  host001"
    assert not any(block.words for block in section.blocks)


def test_a_pair_that_was_not_judged_is_unknown() -> None:
    section = pair_section("c", examples.pairs(["a", "b", "c"])[1:], CONTEXT)
    cells = dict(section.blocks[0].rows)
    assert "unknown" in cells["a"]


def test_words() -> None:
    assert moment("2027-03-02T10:30:00+01:00") == RENDERED[:10] + " 09:30 UTC"
    assert moment("") == "not stated"
    assert moment("soon\x1b") == "soon�"
    assert [size(kib) for kib in (512, 2048, 1536 * 1024, 3 * 1024**3)] == ["512 KiB", "2 MiB", "1.5 GiB", "3 TiB"]
    assert some(["a", "b", "c"], 2) == "a, b, c"
    assert some(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert cut([1, 2, 3, 4], 2).rest == (3, 4)
    assert counted(1, "host") == "1 host"
    assert counted(1200, "host") == "1,200 hosts"
    assert lines("", 10) == 1
    assert lines("x" * 20, 10) == 2
    assert lines("漢" * 10, 10) == 2
    assert FIRST_PAGE_LINES > 20


def test_short_names_only_where_unambiguous() -> None:
    assert short_names(["a.x", "b.x", "10.0.0.1", "fe80::1"]) == {
        "a.x": "a",
        "b.x": "b",
        "10.0.0.1": "10.0.0.1",
        "fe80::1": "fe80::1",
    }
    assert short_names(["a.x", "a.y"]) == {"a.x": "a.x", "a.y": "a.y"}


def test_hostile_example_is_hostile() -> None:
    assert all(sign in HOSTILE for sign in ("<script>", "\x1b", "\u202e", "\n", "{{", '"'))


def test_other_ways_and_how_to_move() -> None:
    """A guest with a local disk: the verdict stays no, and what else could be done stands beside it."""
    results = examples.no_go()
    guest = next(guest for guest in results["guests"] if any(t["verdict"] == "no" for t in guest["targets"]))
    for target in guest["targets"]:
        target["ways"] = [
            {"kind": "copy-storage", "verdict": "conditions", "disks": ["vda"]},
            {"kind": "offline", "verdict": "yes", "disks": []},
        ]
    page = html(results)
    assert "Other ways: live with vda copied along (--copy-storage-all --migrate-disks vda), with conditions;" in page
    assert "virsh migrate --live --persistent GUEST qemu+" in page
    assert "virsh undefine GUEST" in page
