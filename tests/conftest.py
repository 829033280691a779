"""What tests of all rooms share: evidence made by hand, and the corpus of real outputs where there is one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Guest, GuestSource, Said
from audit.text import parse_xml
from tests import statuses
from tests.sshd import server as server

Answer = str | bytes | tuple[int, str] | Evidence


def pytest_configure() -> None:
    """Watch the checks before any test module takes their functions."""
    statuses.watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at the whole run comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note whether all tests of checks will run, so that what they have not seen is not seen at all."""
    files = set((Path(__file__).parent / "checks").glob("test_*.py"))
    chosen = any("::" in argument for argument in session.config.args)
    option = session.config.option
    again = getattr(option, "lf", False)  # of a plugin that may be off
    narrowed = chosen or option.keyword or option.markexpr or again
    statuses.ALL_CHECK_TESTS_RUN = not narrowed and files <= {item.path for item in session.items}


@pytest.fixture
def corpus() -> Path:
    """The folder that VIRT_PREFLIGHT_CORPUS names; the test is skipped without."""
    folder = os.environ.get("VIRT_PREFLIGHT_CORPUS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VIRT_PREFLIGHT_CORPUS names no folder of real outputs")
    return Path(folder)


@pytest.fixture
def samples(corpus: Path) -> Callable[[str], list[Path]]:
    """`samples("lscpu-json")`: the real outputs of that fact, by file name."""

    def find(fact: str) -> list[Path]:
        found = sorted((corpus / "samples").glob(f"{fact}__*"))
        assert found, f"the corpus has no samples of {fact}"
        return found

    return find


@pytest.fixture
def said() -> Callable[..., Said]:
    """`said({"os_release": "ID=debian", "nft": (1, "Operation not permitted")})`: a host's answers.

    A tuple is exit status and standard error; an `Evidence` is taken as it is.
    """

    def make(answers: dict[str, Answer], host: str = "kvm01", problem: str = "") -> Said:
        return Said(HostEvidence(host, {name: _evidence(name, answer) for name, answer in answers.items()}, problem))

    return make


def _evidence(probe: str, answer: Answer) -> Evidence:
    match answer:
        case Evidence():
            return answer
        case (status, stderr):
            return Evidence(probe, status=status, stderr=stderr.encode())
        case str():
            return Evidence(probe, status=0, stdout=answer.encode())
        case _:
            return Evidence(probe, status=0, stdout=answer)


@pytest.fixture
def guest_source(said: Callable[..., Said]) -> Callable[..., GuestSource]:
    """`guest_source("<domain>…</domain>", active=True, answers={…})`: what a guest fact is parsed from."""

    def make(
        xml: str, *, active: bool = True, inactive: str | None = None, answers: dict[str, Answer] | None = None
    ) -> GuestSource:
        root = parse_xml(xml.encode())
        guest = Guest(
            "kvm01", root.findtext("uuid") or "00000000-0000-4000-8000-000000000001", root.findtext("name") or "g"
        )
        other = parse_xml(inactive.encode()) if inactive else None
        return GuestSource(guest, active, root, other, said(answers or {}))

    return make
