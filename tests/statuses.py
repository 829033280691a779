"""Which statuses of which check the tests have seen: every check is watched, and what called it is told apart.

Only plain calls count, those of a test on facts that it made: what the engine asks over whole bundles does not.
"""

import ast
import functools
import inspect
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, get_args, get_type_hints

from audit.check import Check, Finding, NotApplicable, Unavailable
from audit.judge import discover

Function = Callable[..., Any]
SEEN: dict[str, set[str]] = defaultdict(set)
"""Check id → pass, fail, skip, unknown."""
ALL_CHECK_TESTS_RUN = False
UNCOUNTED = {"audit.judge", "tests.test_statuses"}


def watch() -> None:
    """Let every check tell in `SEEN` what became of each plain call."""
    for check in discover():
        object.__setattr__(check, "function", _watched(check.id, check.function))


def _watched(name: str, function: Callable[..., Iterator[Finding]]) -> Callable[..., Iterator[Finding]]:
    @functools.wraps(function)
    def watched(*arguments: Any, **named: Any) -> Iterator[Finding]:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return function(*arguments, **named) if caller in UNCOUNTED else told(function(*arguments, **named))

    def told(findings: Iterator[Finding]) -> Iterator[Finding]:
        status = "pass"
        try:
            for finding in findings:  # or what could not be seen: it counts where nothing is found wrong
                status = "unknown" if isinstance(finding, Unavailable) and status != "fail" else "fail"
                if status == "fail":
                    SEEN[name].add(status)
                yield finding
        except (NotApplicable, Unavailable) as reason:
            if status == "pass":
                status = "skip" if isinstance(reason, NotApplicable) else "unknown"
            SEEN[name].add(status)
            raise
        SEEN[name].add(status)

    return watched


def source(check: Check) -> Callable[..., Iterator[Finding]]:
    """The check's own function, unwatched."""
    return inspect.unwrap(check.function)


def possible(check: Check) -> set[str]:
    """What may become of a call of the check with facts that are there, as its source and that of its facts say."""
    return {"pass", "fail"} | {
        status for status, name in (("skip", "NotApplicable"), ("unknown", "Unavailable")) if _may_raise(check, name)
    }


def _may_raise(check: Check, error: str) -> bool:
    classes = set().union(*(_classes(kind) for kind in check.facts))
    raising = _raising_methods(frozenset(classes), error)
    return any(_raises(function, error, raising) for function in _called(source(check)))


@functools.cache
def _raising_methods(classes: frozenset[type], error: str) -> frozenset[str]:
    """The names of the methods and properties of these classes that may raise it."""
    methods = [(name, method) for kind in classes for name, method in _methods(kind)]
    found: frozenset[str] = frozenset()
    while True:
        more = {n for n, m in methods if any(_raises(function, error, found) for function in _called(m))}
        more |= {n for n, m in methods if error in _kinds(m)}
        if more == found:
            return found
        found = frozenset(more)


def _methods(kind: type) -> Iterator[tuple[str, Function]]:
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else value
        if isinstance(function, FunctionType) and not name.startswith("__"):
            yield name, function


def _classes(kind: Any) -> set[type]:
    """The project's classes that a value of this kind may give access to."""
    found: set[type] = set()
    todo = [kind]
    while todo:
        hint = todo.pop()
        todo.extend(get_args(hint))
        if isinstance(hint, type) and hint not in found and hint.__module__.startswith("audit."):
            found.add(hint)
            todo.extend(value for name, value in get_type_hints(hint).items() if name != "probes")
            todo.extend(get_type_hints(method).get("return") for _, method in _methods(hint))
    return found


def _called(function: Function) -> set[Function]:
    """The function and those of the project that it names, and they, and so on."""
    found: set[Function] = set()
    todo = [function]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            for named in (one.__globals__.get(name) for name in _tree(one)[1]):
                if isinstance(named, FunctionType) and named.__module__.startswith(("audit.", "checks.")):
                    todo.append(named)
                elif isinstance(named, type) and named.__module__.startswith("checks."):
                    todo.extend(method for _, method in _methods(named))
    return found


def _raises(function: Function, error: str, methods: frozenset[str]) -> bool:
    """The function raises or yields the error, or one of its kind, or names a method that does."""
    told, _, attributes = _tree(function)
    kinds = {kind for name in told for kind in _kinds(function.__globals__.get(name))}
    return error in told | kinds or bool(attributes & methods)


def _kinds(called: Any) -> set[str]:
    """The classes of what a call of it gives, where it is a class or says what it returns."""
    given = get_type_hints(called).get("return") if isinstance(called, FunctionType) else called
    return {base.__name__ for base in getattr(given, "__mro__", ())}


@functools.cache
def _tree(function: Function) -> tuple[set[str], set[str], set[str]]:
    """What the function raises or yields that is no finding, the names and the attributes in it."""
    nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    thrown = [node.exc for node in nodes if isinstance(node, ast.Raise)]
    told = {name for exc in thrown if exc for name in _names(exc)}
    # `raise self[0]`, `raise why`: what was caught or kept before
    kept = any(isinstance(exc, ast.Subscript) or (isinstance(exc, ast.Name) and exc.id.islower()) for exc in thrown)
    caught = {name for node in nodes for name in _caught(node)}
    for node in nodes:
        if isinstance(node, ast.Yield) and node.value is not None:
            if isinstance(node.value, ast.Name):
                kept |= node.value.id in caught
            elif isinstance(node.value, ast.Call):
                told |= set(_names(node.value.func))
    return (
        told | ({"Unavailable"} if kept else set()),
        {node.id for node in nodes if isinstance(node, ast.Name)},
        {node.attr for node in nodes if isinstance(node, ast.Attribute)},
    )


def _names(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _caught(node: ast.AST) -> Iterator[str]:
    """The names that hold an `Unavailable` after this: `except … as why`, `isinstance(value, Unavailable)`."""
    if isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        yield from (name for name in _names(node.args[0]) if "Unavailable" in _names(node.args[1]))
