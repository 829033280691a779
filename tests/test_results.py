"""The contract: results.json, its loader, and its published schema."""

import json
import types
from pathlib import Path
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

import jsonschema
import pytest

from audit import results
from audit.results import EXIT_STATUS, FORMAT, Results, ResultsError, dumps, load
from tests import report_examples

SCHEMA: dict[str, Any] = json.loads(Path(results.__file__).with_name("results.schema.json").read_text())
SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema that says the same as the typed dictionary `kind`."""
    defs: dict[str, Any] = {}
    return {**_schema(kind, defs), "$defs": defs}


def _schema(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in SIMPLE:
        return SIMPLE[kind]
    if origin in (NotRequired, Required):
        return _schema(arguments[0], defs)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument, defs) for argument in arguments]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], defs)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], defs)}
    assert is_typeddict(kind), kind
    if kind.__name__ not in defs:
        defs[kind.__name__] = {}
        properties = {name: _schema(hint, defs) for name, hint in get_type_hints(kind, include_extras=True).items()}
        required = sorted(kind.__required_keys__)
        defs[kind.__name__] = {"type": "object", "properties": properties, "required": required}
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _without_descriptions(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _without_descriptions(v) for k, v in value.items() if not (k == "description" and isinstance(v, str))
        }
    return [_without_descriptions(v) for v in value] if isinstance(value, list) else value


def test_schema_says_what_the_types_say() -> None:
    published = {key: value for key, value in SCHEMA.items() if key in ("$ref", "$defs")}
    typed = schema_of(Results)
    typed["$defs"]["Results"]["properties"]["format"] = {"const": FORMAT}  # the one thing the types do not say
    assert _without_descriptions(published) == typed


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", report_examples.ALL)
def test_examples_follow_the_schema(name: str) -> None:
    jsonschema.validate(json.loads(dumps(report_examples.ALL[name]())), SCHEMA)


@pytest.mark.parametrize(
    "broken",
    [
        {"verdict": {}},
        {"hosts": [{"name": "kvm01"}]},
        {"pairs": [{"cluster": "a", "source": "b", "target": "c", "verdict": "maybe", "reasons": []}]},
    ],
)
def test_schema_refuses(broken: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report_examples.go(), **broken}, SCHEMA)


def test_every_verdict_has_an_exit_status_of_its_own() -> None:
    assert set(EXIT_STATUS) == set(get_args(results.Verdict))
    assert sorted(EXIT_STATUS.values()) == [0, 3, 4, 5]


def test_load_gives_what_was_dumped(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(dumps(report_examples.no_go()))
    assert load(path) == report_examples.no_go()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", f"not a {FORMAT} file"),
        ('{"format": "virt-preflight/results/2"}', f"not a {FORMAT} file"),
        (json.dumps({"format": FORMAT}), "lacks baselines, checks"),
        ("\udcff".encode(errors="surrogateescape"), "not JSON"),
    ],
)
def test_load_refuses_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ResultsError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_load_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="No such file"):
        load(tmp_path / "none.json")
