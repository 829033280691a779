"""Every row of the document and every known failure is answered, by what is really there; and the documents tell it."""

import re
from collections import Counter
from pathlib import Path

import click
import pytest

from audit.catalogue import Row, answers, domains, failures, requirements, strangers
from audit.cli import commands
from audit.judge import discover
from scripts.make_docs import ROOT, documents

CHECKS = discover()
ROWS = (*requirements(), *failures())
KINDS = {"requirement", "limitation", "prerequisite", "step", "verification", "diagnosis", "fix", "fact"}


def test_every_row_is_answered():
    assert [answer.row.id for answer in answers(CHECKS) if not answer] == []


def test_checks_answer_rows_that_exist():
    assert strangers(CHECKS) == ()


def test_rows_have_ids_of_their_own_and_stand_in_their_section():
    assert [id_ for id_, times in Counter(row.id for row in ROWS).items() if times > 1] == []
    assert [row.id for row in requirements() if not row.section.startswith(row.id.partition("/")[0] + " ")] == []
    assert {row.kind for row in requirements()} == KINDS
    assert {row.kind for row in failures()} == {"failure", "false alarm"}


def test_no_failure_and_no_false_alarm_is_missing():
    expected = [f"failure {n}" for n in range(1, 87)] + [f"false alarm {n}" for n in range(1, 12)]
    assert [row.id for row in failures()] == expected
    assert all(row.cause and row.cites for row in failures())


def test_a_row_is_answered_by_what_answers_its_like():
    by_id = {answer.row.id: answer for answer in answers(CHECKS)}
    assert set(by_id["12.6/kvm"].checks) == set(by_id["12.8/kvm"].checks) != set()


def named(row: Row) -> list[str]:
    return re.findall(r"`([^`]+)`", row.feature)


@pytest.mark.parametrize("row", [row for row in ROWS if row.feature], ids=lambda row: row.id)
def test_a_feature_names_a_command_or_a_file_that_exists(row: Row):
    assert named(row), "names neither"
    for name in named(row):
        if not name.startswith("virt-preflight "):
            assert (ROOT / name).exists(), name
            continue
        _, command, *words = name.split()
        assert command in commands.commands, name
        options = {text for parameter in commands.commands[command].params for text in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, name


def test_commands_are_what_the_test_above_takes_them_for():
    assert isinstance(commands, click.Group)


@pytest.mark.parametrize("path", documents(CHECKS), ids=lambda path: path.name)
def test_documents_are_not_stale(path: Path):
    assert path.read_text("utf-8") == documents(CHECKS)[path], "run scripts/make_docs.py"


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (path.parent / target).exists(), target


def test_domains_have_a_heading_and_all_checks():
    found = domains(CHECKS)
    assert all(domain.heading.endswith((".", "?")) for domain in found)
    assert sorted(check.id for domain in found for check in domain.checks) == [check.id for check in CHECKS]
