"""The report's advice on CPU baselines: what it says, that it stays short, and that nothing hostile gets into it."""

import io
import re
import time
from pathlib import Path
from typing import Any

import pypdf
import pytest

from audit import report
from audit.report_cpu import BAR_HEIGHT, BAR_WIDTH, SHADES, advice_section
from audit.report_model import CpuAdvice
from audit.report_words import Context
from audit.results import Results
from tests import advice_examples as examples
from tests.advice_examples import advised, spiteful, split, uuid, vast
from tests.report_examples import CPU_XML, RENDERED, go
from tests.test_report import Page, html, section, words


def baseline_text(results: Results) -> str:
    return section(html(results), "6 CPU baseline", "7 Findings")


def paper_text(results: Results) -> tuple[str, int]:
    reader = pypdf.PdfReader(io.BytesIO(report.render_pdf(results, rendered=RENDERED)))
    return " ".join(words(page) for page in reader.pages), len(reader.pages)


def view(**parts: Any) -> CpuAdvice:
    [baseline] = advised(**parts)["baselines"]
    assert baseline["advice"]
    made = advice_section(baseline, ["x.diff"] * len(baseline["advice"]["guests"]), 40, Context({}, {}, 12))
    assert made
    return made


# What it says


def test_results_without_advice_are_told_as_before() -> None:
    for value in ({}, {"advice": None, "notes": []}):
        results = go()
        results["baselines"][0].update(removed_by={"avx512f": ["kvm03"]}, **value)  # type: ignore[typeddict-item]
        text = baseline_text(results)
        assert "Features the other hosts have, which the baseline gives up kvm03 (1) avx512f" in text
        assert "Who costs what" not in text
        assert report.write_differences(results, Path("/nonexistent")) == []


def test_the_parts_stand_in_order() -> None:
    text = baseline_text(advised())
    parts = [
        "Warning: The baseline reaches x86-64-v1 only", "Note: virsh on kvm01 would refuse", "Who gives what",
        "Who costs what", "What the others would gain without some hosts", "How the hosts could be grouped",
        "What it means for the guests", "The CPU to paste", "How to give it to a guest",
    ]  # fmt: skip
    assert sorted(parts, key=text.index) == parts


def test_the_heat_map_has_a_word_in_every_cell_and_names_rows_and_columns() -> None:
    page = html(advised())
    table = page[page.index('<table class="matrix heat">') :].split("</table>")[0]
    assert re.findall(r'<td class="(yes|no|unknown)( whole)?">(.+?)</td>', table) == [
        ("yes", "", "yes"), ("yes", "", "yes"), ("unknown", " whole", "–"),
        ("no", "", "–"), ("yes", "", "yes"), ("unknown", " whole", "–"),
    ]  # fmt: skip
    assert table.count("<td") == 6
    assert table.count('scope="col"') == 4
    assert table.count('scope="row"') == 2
    assert "<caption>11 features that not every one of 2 kinds of hosts gives" in table
    text = " ".join(Page(table).text.split())
    assert "kvm01, kvm02Haswell100 featuresx86-64-v3" in text
    assert "baselineCascadelake-Server99 featuresx86-64-v1" in text


def test_equal_hosts_need_no_heat_map() -> None:
    one = examples.kind(["kvm01", "kvm02"], "Haswell", 100, 3)
    made = view(kinds=[one], matrix=[{"features": ["invtsc"], "given": [True], "baseline": False}])
    assert made.heat is None
    assert made.alike == "All 2 hosts give guests the same: Haswell, 100 features, x86-64-v3."
    alone = examples.kind(["kvm01"], "Haswell", 100, 3)
    assert view(kinds=[alone], matrix=[]).alike == "kvm01 gives guests Haswell, 100 features, x86-64-v3."


def test_who_costs_what_replaces_who_lacks_it() -> None:
    text = baseline_text(advised())
    assert "10: aes, avx2, avx512f, sha-ni, vaes, amx-tile and 4 more" in text
    assert "silicon (kvm01): the processor (family 6) does not have it" in text
    assert "software (kvm02): the same processor as kvm03" in text
    assert "invtsc none: every host gives it hypervisor: QEMU does not migrate it" in text
    assert "Features the other hosts have" not in text


def test_a_reason_that_holds_for_all_hosts_does_not_name_them_again() -> None:
    lost = {
        "features": ["aes"],
        "hosts": ["a", "b"],
        "why": [{"hosts": ["a", "b"], "cause": "silicon", "words": "no"}],
    }
    [cost] = view(lost=[lost]).costs.shown
    assert cost.reasons.shown == (("", "silicon", "no"),)


def test_guests() -> None:
    text = baseline_text(advised())
    assert "5 guests: 1 barred from some host by the CPU; 1 to be shut down and started" in text
    assert "web01 kvm03 ▲ power cycle kvm01, kvm02: lacks avx512f loses 10: aes," in text
    assert "gains 2" in text
    assert "db01 kvm01 ? not judgednot told not known:kvm02: not read" in text
    assert "off01off02 kvm01 next start" in text
    assert "Nothing needs to be done now for calm01. The difference keeps it so at later starts." in text
    assert "cpu-diffs/ holds the difference that gives it to 4 guests" in text
    assert f"To undo:virsh define {uuid(1)}.before.xml" in text
    assert f"exact in cpu-diffs/kvm03/{uuid(1)}.diff" in text
    assert "+ <cpu mode='custom' match='exact'>" in text


def test_unproved_is_never_settled() -> None:
    made = view(guests=[examples.guest("a", "kvm01", 1, "has it", unproved={"kvm02": "not read"})])
    assert made.guests
    assert made.guests.settled == ""
    assert made.guests.rows[0].unproved.shown == (("kvm02", "not read"),)


def test_paper_leaves_the_differences_to_the_screen() -> None:
    text, _ = paper_text(advised())
    assert "+++" not in text
    assert f"virsh define {uuid(1)}" not in text
    assert "report.html shows it with the commands" in text
    for part in ("Who gives what", "Who costs what", "A: 99", "B: 199", "power cycle", "cpu-diffs/"):
        assert part in text


# The picture


def test_a_picture_has_words_and_needs_neither_script_nor_style() -> None:
    for make in (advised, spiteful):
        text = html(make())
        pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        assert len(pictures) == Page(text).tags.count("svg") == 2
        for picture in pictures:
            assert re.match(r'<svg class="bar" [^>]*role="img" aria-label="\d groups?: ', picture)
            assert set(re.findall(r"<(\w+)", picture)) == {"svg", "rect", "title", "text"}
            attributes = {name for _, name, _ in Page(picture).attributes}
            assert not [name for name in attributes if name.startswith("on") or "href" in name or name == "style"]
        assert "2 groups: 132.3 features and x86-64-v3.33 a host on average" in pictures[1]


def test_blocks_are_as_wide_as_they_have_hosts_and_as_high_as_they_keep_features() -> None:
    groups = [examples.group(["a", "b"], "Old", 50, 2), examples.group(["c", "d", "e", "f"], "New", 100, 4)]
    [whole, halves] = view(splits=[split([examples.group(list("abcdef"), "Old", 50, 2)]), split(groups)]).groupings
    [block] = whole.blocks
    assert (float(block.width), float(block.height)) == (BAR_WIDTH, BAR_HEIGHT / 2)
    small, large = halves.blocks
    assert float(large.height) == 2 * float(small.height) == BAR_HEIGHT
    assert float(large.width) / float(small.width) == pytest.approx(2, rel=0.05)
    assert float(large.x) + float(large.width) == pytest.approx(BAR_WIDTH, abs=0.2)
    assert float(small.y) + float(small.height) == float(large.y) + float(large.height)
    assert (small.fill, large.fill, large.shade) == (SHADES[2], SHADES[4], "v4")
    assert (small.label, large.title) == ("A: 50", "B: 4 hosts, New, 100 features, x86-64-v4")


def test_narrow_blocks_are_seen_and_bear_what_label_fits() -> None:
    groups = [examples.group([str(n) for n in range(999)], "Old", 50, 2), examples.group(["x"], None, 0, 0)]
    [_, way] = view(splits=[split([examples.group(["x"], "Old", 50, 2)]), split(groups)]).groupings
    assert float(way.blocks[1].width) >= 4
    assert float(way.blocks[1].height) >= 2
    assert [block.label for block in way.blocks] == ["A: 50", "B"]
    assert way.blocks[1].shade == "none"
    assert way.groups[1][2] == "nothing in common; alone, so none of its guests can move"


def test_one_grouping_is_no_choice() -> None:
    assert view(splits=advised()["baselines"][0]["advice"]["splits"][:1]).groupings == ()  # type: ignore[index]


# Bounds


def test_a_thousand_hosts_stay_readable_in_length() -> None:
    for results in (vast(), vast(1000, 400, 300)):
        started = time.process_time()
        page = html(results)
        text, pages = paper_text(results)
        assert time.process_time() - started < 20
        assert len(page) < 600_000
        assert pages <= 18
        assert page.count('class="matrix heat"') <= 3
        assert page.count('<tr class="how">') <= 40
        for said in ("Not shown: ", "And 50 more lines, see report.html", "guests more, see report.html"):
            assert said in text


def test_the_page_shows_some_differences_and_the_files_have_all(tmp_path: Path) -> None:
    results = vast(20, 3, 300)
    assert html(results).count("<summary>How ") == 40
    assert len(report.write_differences(results, tmp_path)) == 300


# Hostile text


def test_hostile_advice_is_text() -> None:
    text = html(spiteful())
    page = Page(text)
    assert "<script>alert(1)</script>" in page.text
    assert not {"script", "img"} & set(page.tags)
    for sign in ("\x1b", "\u202e", "\u2066"):
        assert sign not in text
    assert len(text) < 100_000
    assert max(map(len, page.text.split())) < 900
    assert "They hold characters that cannot be shown safely: see results.json." in page.text
    assert "It is too long to show." in page.text
    _, pages = paper_text(spiteful())
    assert pages <= 12


# Files


def test_differences_are_written_as_they_are(tmp_path: Path) -> None:
    written = report.write_report(advised(), tmp_path, rendered=RENDERED)
    folder = tmp_path / "cpu-diffs"
    assert folder in written
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    assert files == [
        *(f"kvm01/{uuid(n)}.diff" for n in (3, 4)),
        f"kvm02/{uuid(5)}.diff",
        f"kvm03/{uuid(1)}.diff",
    ]
    assert (folder / files[-1]).read_text() == examples.diff(1)
    assert CPU_XML.splitlines()[1] in examples.diff(1)


def test_nothing_but_a_uuid_and_a_defused_host_names_a_file(tmp_path: Path) -> None:
    [path] = report.write_differences(spiteful(), tmp_path / "out")
    assert path.name == f"{uuid(9)}.diff"
    assert path.parent.parent == tmp_path / "out" / "cpu-diffs"
    for host in ("..", ".", "/etc", "a/b", "", "\ud800"):
        results = advised(guests=[examples.guest("a", host, 1)])
        [path] = report.write_differences(results, tmp_path / "other")
        assert path.resolve().parent.parent == tmp_path / "other" / "cpu-diffs", host


def test_a_guest_on_two_hosts_has_two_files() -> None:
    guests = [examples.guest("a", host, 1) for host in ("kvm01", "kvm02", "KVM01")]
    [[one, two, three]] = report.difference_files(advised(guests=guests))
    assert (one, two) == (f"kvm01/{uuid(1)}.diff", f"kvm02/{uuid(1)}.diff")
    assert three.startswith("KVM01-")  # file systems may not tell it from kvm01


def test_hosts_whose_guests_are_not_known_are_named() -> None:
    text = Page(html(advised(unread={"kvm09": "guest.list: timed out"}))).text
    assert "The guests of kvm09 are missing here: guest.list: timed out" in text
