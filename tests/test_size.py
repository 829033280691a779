"""Functions that fit on a screen, checks that fit into a head."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGER = {
    "checks/storage.py disks_shared": "what is known of a disk on two hosts, gathered before it is judged once",
}


def _lengths(folder: str) -> Iterator[tuple[str, int]]:
    """Every function of a package with the lines of its body, docstring left out."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                yield f"{path.relative_to(ROOT)} {node.name}", lines


def test_checks_are_short() -> None:
    assert {name: lines for name, lines in _lengths("checks") if lines > 30 and name not in LARGER} == {}


def test_functions_fit_on_a_screen() -> None:
    assert {name: lines for name, lines in _lengths("audit") if lines > 45} == {}


def test_exceptions_are_needed() -> None:
    assert {name for name, lines in _lengths("checks") if lines > 30} == LARGER.keys()
