"""Arguments against JSON Schemas, also those of strangers who mean harm."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.tools import validation
from listenai.tools.music import MusicTool
from listenai.tools.patterns import most_ways
from listenai.tools.validation import DIALECTS, MAX_STEPS, JsonSchemaChecker
from listenai.tools.volume import VolumeTool
from listenai.tools.weather import WeatherTool

LEVEL = {"type": "integer", "minimum": 0, "maximum": 100}
PATIENCE_SECONDS = 2.0  # of a hostile schema; the slowest takes a tenth of that


def schema(parameters: Any) -> ToolSchema:
    return ToolSchema("set_volume", "Set the volume.", parameters)


def takes(**properties: Any) -> dict[str, Any]:
    """An object schema of these properties, all required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def refusal(parameters: Any, arguments: Mapping[str, Any]) -> str:
    """What the chat model is told of wrong arguments."""
    with pytest.raises(ToolError) as caught:
        JsonSchemaChecker().check_arguments(schema(parameters), arguments)
    return str(caught.value)


def accept(parameters: Any, arguments: Mapping[str, Any]) -> None:
    JsonSchemaChecker().check_arguments(schema(parameters), arguments)


# --- arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "value", "complaint"),
    [
        (
            LEVEL,
            300,
            "level: 300 is more than the maximum of 100; it must be an integer from 0 to 100",
        ),
        (
            LEVEL,
            -1,
            "level: -1 is less than the minimum of 0; it must be an integer from 0 to 100",
        ),
        (LEVEL, "50", 'level: "50" is not allowed; it must be an integer from 0 to 100'),
        (LEVEL, 0.5, "level: 0.5 is not allowed; it must be an integer from 0 to 100"),
        (LEVEL, True, "level: true is not allowed; it must be an integer from 0 to 100"),
        (LEVEL, None, "level: null is not allowed; it must be an integer from 0 to 100"),
        (
            {"type": "number", "exclusiveMinimum": 0},
            0,
            "level: 0 is not more than 0; it must be a number more than 0",
        ),
        ({"enum": ["a", "b"]}, "c", 'level: "c" is not allowed; it must be one of "a", "b"'),
        (
            {"anyOf": [LEVEL, {"type": "null"}]},
            "x",
            'level: "x" is not allowed; it must be an integer from 0 to 100 or null',
        ),
        (
            {"type": "string", "maxLength": 2},
            "abc",
            'level: "abc" is not allowed; it must be a string with at most 2 characters',
        ),
        ({"type": "number", "multipleOf": 5}, 7, 'level: 7 is not allowed by "multipleOf": 5'),
        (
            {"type": "array", "items": takes(name={"type": "string"})},
            [{"name": "a"}, {"name": 1}],
            "level[1].name: 1 is not allowed; it must be a string",
        ),
        (
            {"type": "array", "items": takes(name={"type": "string"})},
            [{}],
            "level[0].name: it is missing; it must be a string",
        ),
        (
            takes(name={"type": "string"}),
            {"name": "a", "size": 1},
            "level.size: there is no such argument; there are: name",
        ),
        ({"type": "string"}, ["x" * 500], f'level: ["{"x" * 57}… is not allowed'),
        (False, 1, "the arguments: 1 is never allowed"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(
    allowed: Any, value: Any, complaint: str
) -> None:
    """In one line that a chat model can act on."""
    told = refusal(takes(level=allowed), {"level": value})
    assert told.startswith(f"wrong arguments of set_volume: {complaint}")
    assert "\n" not in told


def test_what_is_missing_or_too_much_is_named() -> None:
    """With what there is."""
    told = refusal(takes(city={"type": "string"}, days=LEVEL), {"town": "Rome"})
    assert "city: it is missing; it must be a string. days: it is missing" in told
    assert "town: there is no such argument; there are: city, days" in told


def test_only_a_few_wrong_arguments_are_told() -> None:
    """Four put a model right; a hundred cost it its context."""
    names = [f"level{number}" for number in range(100)]
    told = refusal(takes(**dict.fromkeys(names, LEVEL)), dict.fromkeys(names, "loud"))
    assert told.count("it must be") == 4
    assert refusal(takes(**dict.fromkeys(names, LEVEL)), {}).count("is missing") == 4


@pytest.mark.parametrize("dialect", [None, *DIALECTS, "http://json-schema.org/draft-07/schema#"])
def test_whole_numbers_may_be_written_with_a_point(dialect: str | None) -> None:
    """50.0 is an integer, whatever the draft; nothing is changed for the tool."""
    arguments = {"level": 50.0}
    accept({**takes(level=LEVEL), **({"$schema": dialect} if dialect else {})}, arguments)
    assert isinstance(arguments["level"], float)


@pytest.mark.parametrize(
    ("dialect", "is_allowed"), [("http://json-schema.org/draft-07/schema", True), (None, False)]
)
def test_the_dialect_that_a_schema_names_is_its_own(dialect: str | None, is_allowed: bool) -> None:
    """Draft 7 knows no `prefixItems`, and so ignores them."""
    pair = takes(pair={"type": "array", "prefixItems": [{"type": "string"}]})
    parameters = {**pair, **({"$schema": dialect} if dialect else {})}
    if is_allowed:
        accept(parameters, {"pair": [1]})
    else:
        assert "pair[0]: 1" in refusal(parameters, {"pair": [1]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    """NaN is below every maximum."""
    assert "are not JSON" in refusal(takes(level={}), {"level": value})


def test_arguments_are_bounded() -> None:
    """Also where the schema allows anything."""
    assert "16384 are allowed" in refusal(takes(text={}), {"text": "x" * 16_384})
    accept(takes(text={}), {"text": "天" * 16_000})


def test_what_is_told_is_short() -> None:
    """However much a schema allows, and whatever its parts are called."""
    words = [f"word {number} {'x' * 90}" for number in range(20)]
    nested_choices = {"anyOf": [{"oneOf": [{"enum": words}] * 5}, {"const": "y" * 500}]}
    assert len(refusal(takes(word=nested_choices), {"word": 1})) < 500
    assert (
        len(refusal(takes(**dict.fromkeys(words, True)), dict.fromkeys(words, 1) | {"z": 1})) < 500
    )


def test_a_long_search_does_not_use_up_the_levels() -> None:
    """Each item that does not fit is left at its first error."""
    accept(takes(items={"contains": {"allOf": [{"const": 1}]}}), {"items": [*[0] * 500, 1]})


@pytest.mark.parametrize("tool", [VolumeTool, MusicTool, WeatherTool])
def test_our_own_tools_have_usable_schemas(tool: Any) -> None:
    """As every tool must."""
    JsonSchemaChecker().check_schema(tool.schema)


# --- schemas -------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"not": inner}
    return {"type": "object", **inner}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "must be an object schema"),
        ({"type": "string"}, "must be an object schema"),
        ({"type": ["object", "null"]}, "must be an object schema"),
        (True, "must be an object schema"),
        ({"type": "object", "x": float("nan")}, "are not JSON"),
        ({"type": "object", "x": {1}}, "are not JSON"),
        ({"type": "object", "description": "x" * 65_536}, "65536 are allowed"),
        ({"type": "object", "enum": list(range(1000))}, "1002 keys; 1000 are allowed"),
        (nested(32), "deeper than 32 levels"),
        (takes(a={"type": "text"}), r'properties\.a\.type: "text" is not allowed'),
        (
            takes(a={"minimum": "low"}),
            r'properties\.a\.minimum: "low" is not allowed; it must be a',
        ),
        (
            takes(a={"items": [{}]}),
            r"properties\.a\.items: \[{}\] is not allowed; it must be an ob",
        ),
        (takes(a={"prefixItems": {}}), "prefixItems"),
        (takes(a={"$ref": 7}), r"properties\.a\.\"\$ref\": 7 is not allowed"),
        ({**takes(), "$schema": "http://example.org/own"}, "is none of https://json-schema.org/"),
        ({**takes(), "$schema": 7}, "is none of"),
        (takes(a={**takes(), "$schema": next(iter(DIALECTS))}), "only the outermost schema"),
        (takes(a={"patternProperties": {"(a+)+": {}}}), 'not supported: use "properties"'),
        (takes(a={"unevaluatedProperties": False}), 'not supported: use "additionalProperties"'),
        (takes(a={"unevaluatedItems": False}), 'not supported: use "items"'),
    ],
)
def test_a_schema_that_cannot_be_used(parameters: Any, message: str) -> None:
    """Is refused with what is allowed; a call of its tool is, too."""
    with pytest.raises(ValueError, match=message):
        JsonSchemaChecker().check_schema(schema(parameters))
    assert "set_volume cannot be called: " in refusal(parameters, {})


def test_a_schema_may_nest_as_deep_as_allowed() -> None:
    """Below hundreds of frames of others, and without coming near the recursion limit."""

    def below(frames: int) -> None:
        if frames:
            below(frames - 1)
        else:
            JsonSchemaChecker().check_schema(schema(nested(31)))
            accept(nested(30), {})

    below(300)


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.1:1/schema.json",
        "https://json-schema.org/draft/2020-12/schema",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/missing",
        "#missing",
    ],
)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_references_lead_to_the_schema_itself(keyword: str, reference: str) -> None:
    """Nothing is fetched; every draft's references are looked at, wherever they stand."""
    inside = takes(a={"anyOf": [{"items": {keyword: reference}}]})
    with pytest.raises(ValueError, match="nothing is fetched: put what it means under"):
        JsonSchemaChecker().check_schema(schema(inside))


def test_a_reference_behind_a_reference_is_looked_at() -> None:
    """Also where no keyword of JSON Schema would look for a schema."""
    parameters = {**takes(a={"$ref": "#/mine/here"}), "mine": {"here": {"$ref": "http://far/x"}}}
    with pytest.raises(ValueError, match=re.escape('the reference "http://far/x"')):
        JsonSchemaChecker().check_schema(schema(parameters))


def test_what_is_referred_to_must_be_a_schema() -> None:
    """A list of properties is none: a property may be called `minimum`."""
    parameters = takes(minimum=LEVEL, a={"$ref": "#/properties"})
    with pytest.raises(ValueError, match=re.escape("minimum: {")):
        JsonSchemaChecker().check_schema(schema(parameters))


def test_schemas_may_be_recursive() -> None:
    """A list of lists, for example."""
    node = {"type": "object", "properties": {"inner": {"type": "array", "items": {"$ref": "#n"}}}}
    parameters = {**takes(root={"$ref": "#n"}), "$defs": {"node": {"$anchor": "n", **node}}}
    accept(parameters, {"root": {"inner": [{"inner": []}]}})
    told = refusal(parameters, {"root": {"inner": [{"inner": [{"inner": 3}]}]}})
    assert "root.inner[0].inner[0].inner: 3 is not allowed; it must be an array" in told


# --- time and memory -----------------------------------------------------------------------


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers twice to the next."""
    twice = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"type": "object", "$defs": {**twice, f"d{levels}": {}}, "$ref": "#/$defs/d0"}


def deep_tree(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


HOSTILE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("circle", {"type": "object", "$ref": "#"}, {}),
    ("circle of two", {"type": "object", "allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {}),
    ("doubling", doubling(40), {}),
    ("deep", {"type": "object", "properties": {"a": {"$ref": "#"}}}, deep_tree(400)),
    ("wide", takes(a={"items": {"anyOf": [{"type": "null"}] * 450 + [{}]}}), {"a": ["x"] * 3000}),
    ("enum", takes(a={"items": {"enum": [[n] for n in range(400)]}}), {"a": [[399]] * 2000}),
    ("huge integer", takes(a={"multipleOf": 0.5}), {"a": 10**400}),
]


@pytest.mark.parametrize(
    ("parameters", "arguments"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE]
)
def test_a_schema_that_takes_too_long_is_given_up(
    parameters: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """In bounded time, with words, and without harm to the next check."""
    checker, began = JsonSchemaChecker(), time.process_time()
    with pytest.raises(ToolError, match="take too long to check"):
        checker.check_arguments(schema(parameters), arguments)
    assert time.process_time() - began < PATIENCE_SECONDS
    checker.check_arguments(schema(takes(level=LEVEL)), {"level": 1})


HARMFUL = [
    "^(a+)+$",
    "(a|a)*b",
    "a?" * 30 + "a" * 30,
    "(.*)*x",
    r"^(\w+\s?)*$",
    "(?=(a+)+b)a",
    "(?P<x>a)(a+)+$",
]
HARMLESS = [
    r"^\d{4}-\d{2}-\d{2}$",
    "^#[0-9a-fA-F]{6}$",
    "^(on|off)$",
    r"^[a-z]+@[a-z]+\.[a-z]{2,}$",
    "^(?:[0-9]{1,3})(?:,[0-9]{3})*$",
    r"^[^\]\\)(*]+$",
]


@pytest.mark.parametrize("pattern", HARMFUL)
def test_a_pattern_that_may_take_for_ever_is_left_to_its_owner(pattern: str) -> None:
    """The argument goes through, at once; the tool behind it has its own check."""
    began = time.process_time()
    accept(takes(text={"type": "string", "pattern": pattern}), {"text": "a" * 40 + "!"})
    assert time.process_time() - began < PATIENCE_SECONDS


@pytest.mark.parametrize("pattern", HARMLESS)
def test_usual_patterns_are_checked(pattern: str) -> None:
    """They are far from the budget."""
    told = refusal(takes(text={"type": "string", "pattern": pattern}), {"text": "(twenty?)" * 3})
    assert 'is not allowed by "pattern": ' in told


def test_a_pattern_that_is_none_for_python_is_left_to_its_owner() -> None:
    """JavaScript's have more classes."""
    accept(takes(text={"pattern": r"^\p{L}+$"}), {"text": "42"})
    accept(takes(text={"pattern": "x" * 257}), {"text": "42"})
    accept(takes(text={"pattern": "^x$"}), {"text": 42})


def tries(pattern: list[tuple[str, str]], text: str, at: int = 0) -> int:
    """Ways in which a backtracking search can go through all of some repeated characters."""
    if not pattern:
        return 1
    (character, times), *rest = pattern
    length = len(text) - at
    least, most = {"": (1, 1), "?": (0, 1), "*": (0, length), "+": (1, length), "{2}": (2, 2)}[
        times
    ]
    ways = 0
    for count in range(most + 1):
        if text[at : at + count] != character * count:
            break
        if count >= least:
            ways += tries(rest, text, at + count)
    return max(1, ways)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["", "?", "*", "+", "{2}"])), max_size=5
    ),
    st.text("ab", max_size=8),
)
def test_patterns_never_take_more_ways_than_reckoned(
    pattern: list[tuple[str, str]], text: str
) -> None:
    """Counted by trying them all, from every beginning."""
    counted = sum(tries(pattern, text, at) for at in range(len(text) + 1))
    assert counted <= most_ways("".join(map("".join, pattern)), text)


@pytest.mark.parametrize("pattern", HARMFUL)
def test_harmful_patterns_are_far_over_the_budget(pattern: str) -> None:
    """So that the bound need not be exact."""
    assert most_ways(pattern, "a" * 40) > 100 * MAX_STEPS


def test_a_long_list_is_not_compared_each_with_each() -> None:
    """Items of different kinds cannot be sorted, and so take the square of their number."""
    unique = takes(items={"type": "array", "uniqueItems": True})
    assert "items: [" in refusal(unique, {"items": [1, "x", 1]})
    began = time.process_time()
    accept(unique, {"items": [1, "x"] * 1500})
    assert time.process_time() - began < PATIENCE_SECONDS


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every schema that was checked afresh."""
    seen: list[Any] = []
    compile_schema: Callable[[Any], Any] = validation._compile

    def count(parameters: Any) -> Any:
        seen.append(parameters)
        return compile_schema(parameters)

    monkeypatch.setattr(validation, "_compile", count)
    return seen


def test_a_schema_is_checked_once(compiled: list[Any]) -> None:
    """Whichever device brings it."""
    checker = JsonSchemaChecker()
    for _ in range(3):
        checker.check_arguments(schema(takes(level=dict(LEVEL))), {"level": 1})
    assert len(compiled) == 1


def test_a_changed_schema_is_another_one() -> None:
    """What was checked is the content, not the object."""
    checker, parameters = JsonSchemaChecker(), takes(level=dict(LEVEL))
    checker.check_arguments(schema(parameters), {"level": 60})
    parameters["properties"]["level"]["maximum"] = 50
    with pytest.raises(ToolError, match="from 0 to 50"):
        checker.check_arguments(schema(parameters), {"level": 60})


def test_what_is_remembered_is_bounded(compiled: list[Any]) -> None:
    """The schema unused for longest is forgotten, and can be checked again."""
    checker = JsonSchemaChecker()
    big = [takes(**{f"a{number}": {"description": "x" * 60_000}}) for number in range(18)]
    first, *others = (schema(parameters) for parameters in big)
    checker.check_schema(first)
    for other in others[:-1]:
        checker.check_schema(other)
        checker.check_schema(first)  # so it is the others that are forgotten
    assert len(compiled) == 17
    checker.check_schema(others[-1])
    checker.check_schema(first)
    assert len(compiled) == 18
    checker.check_schema(others[0])
    assert len(compiled) == 19
    assert checker._characters <= validation.MAX_CACHED_CHARACTERS
