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
            for finding in findings:
                if not isinstance(finding, Unavailable):
                    status = "fail"
                elif status == "pass":
                    status = "unknown"
                if status == "fail":
                    SEEN[name].add(status)
                yield finding
        except (NotApplicable, Unavailable) as reason:
            if status == "pass":
                SEEN[name].add("skip" if isinstance(reason, NotApplicable) else "unknown")
            elif status == "unknown":
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
    raised, _, attributes = _tree(function)
    return error in raised or bool(attributes & methods)


@functools.cache
def _tree(function: Function) -> tuple[set[str], set[str], set[str]]:
    """What the function raises or tells, the names and the attributes in it."""
    nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    thrown = [node.exc for node in nodes if isinstance(node, ast.Raise)]
    raised = {node.id for exc in thrown if exc for node in ast.walk(exc) if isinstance(node, ast.Name)}
    # `raise self[0]`, `raise why`: what was caught or kept before
    kept = any(isinstance(exc, ast.Subscript) or (isinstance(exc, ast.Name) and exc.id.islower()) for exc in thrown)
    # `yield Unavailable(…)`; `yield why` of what was caught, or found to be one
    told = [node.value for node in nodes if isinstance(node, ast.Yield)]
    raised |= {value.func.id for value in told if isinstance(value, ast.Call) and isinstance(value.func, ast.Name)}
    reasons = {node.name for node in nodes if isinstance(node, ast.ExceptHandler)} | {
        node.args[0].id
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("isinstance(") and "Unavailable" in _names(node)
        if isinstance(node.args[0], ast.Name)
    }
    kept |= any(isinstance(value, ast.Name) and value.id in reasons for value in told)
    # `yield fact.missing()`, where that is no finding by name; `raise`: what was caught
    may_tell = "Unavailable" in str(inspect.signature(function).return_annotation)
    kept |= may_tell and any(isinstance(v, ast.Call) and ast.unparse(v.func) != "Finding" for v in told)
    kept |= any(isinstance(node, ast.Raise) and node.exc is None for node in nodes)
    return (
        raised | ({"Unavailable"} if kept else set()),
        {node.id for node in nodes if isinstance(node, ast.Name)},
        {node.attr for node in nodes if isinstance(node, ast.Attribute)},
    )


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
