"""The scenarios as data; no lab is needed."""

from collections import Counter
from dataclasses import fields

import pytest

from audit.text import parse_xml
from tests.lab.guests import Guest
from tests.lab.hosts import HOSTS
from tests.lab.scenarios import Scenario, load

ALL = load()


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(ALL) >= 60
    assert [name for name, count in Counter(one.name for one in ALL).items() if count > 1] == []


@pytest.mark.parametrize("scenario", ALL, ids=lambda one: f"{one.family}/{one.name}")
def test_a_scenario_says_what_to_do_and_not_what_comes_of_it(scenario: Scenario) -> None:
    assert scenario.about
    assert set(scenario.hosts) <= set(HOSTS)
    assert {*scenario.before, *scenario.after} <= {*scenario.hosts, "desk"}
    assert scenario.source != scenario.target
    assert parse_xml(scenario.guest.xml().encode()).findtext("name") == scenario.guest.name
    assert "{" not in scenario.command


def test_no_field_could_hold_an_expected_outcome() -> None:
    names = {field.name for kind in (Scenario, Guest) for field in fields(kind)}
    assert not {name for name in names if any(word in name for word in ("expect", "verdict", "outcome", "result"))}


def test_the_short_selection_has_something_of_every_family() -> None:
    assert {one.family for one in ALL if one.short} == {one.family for one in ALL}
