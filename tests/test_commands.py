"""Commands of virsh that remedies and words name exist, as the installed virsh knows them."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"\bvirsh ((?:-[a-z] (?:qemu:///system )?)*)([a-z]+(?:-[a-z]+)*)(?![a-z-])([^;|#\n]*)")

pytestmark = pytest.mark.skipif(shutil.which("virsh") is None, reason="no virsh to ask")


def texts() -> Iterator[str]:
    """All strings of the program, what an f-string puts in left out."""
    for folder in ("audit", "checks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
                    yield "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


@cache
def helped(command: str) -> str:
    """What `virsh help COMMAND` says; "" if there is none."""
    done = subprocess.run(["virsh", "help", command], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout if done.returncode == 0 and "SYNOPSIS" in done.stdout else ""


def test_commands_and_their_options_exist():
    wrong = set()
    for text in texts():
        for _, command, rest in NAMED.findall(text):
            if not helped(command):
                if "-" in command:  # else a word: "virsh prints"
                    wrong.add(command)
                continue
            wrong |= {
                f"{command} {option}"
                for option in re.findall(r"(?<=\s)--[a-z][a-z-]*(?<!-)", rest.partition("`")[0])
                if not re.search(rf"{option}\b(?!-)", helped(command))
            }
    assert wrong == set()


@pytest.mark.parametrize(
    "words", ["migrate --live --postcopy --parallel --copy-storage-all --migrate-disks --offline", "migrate-postcopy"]
)
def test_the_installed_virsh_answers(words):
    command, *options = words.split()
    assert all(option in helped(command) for option in options)
    assert helped(command)
    assert not helped("migrate-start-postcopy"), "Red Hat's guide calls it so"
