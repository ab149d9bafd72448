"""Arguments of tools against their JSON Schemas, which may come from strangers.

A schema that a device sends is a program that we run: references can be fetched, can lead in
circles or double at every step, and a regular expression can take longer than the universe is
old, with the GIL held.  So nothing is ever fetched, and every check has a budget of steps, and of
levels, that each keyword draws on.  What a `pattern` or `uniqueItems` takes at worst is reckoned
before it runs; when that is more than the budget has left, it is not run: the tool's owner, who
wrote it, checks it too.  (To refuse such schemas would cost whole tools, for one e-mail address.)
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice
from typing import Any

import attrs
import referencing.jsonschema
from jsonschema import validators
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.tools.complaints import MAX_TOLD, brief, complaint, path, tell
from listenai.tools.patterns import most_ways

MAX_SCHEMA_CHARACTERS = 64 * 1024  # as JSON; a chat model is sent it with every turn
MAX_SCHEMA_DEPTH = 32  # of nested JSON: as much as dialects let through
MAX_SCHEMA_KEYS = 1000  # the check of a schema takes some 20 µs a key
MAX_ARGUMENT_CHARACTERS = 16 * 1024  # as JSON: twice what the longest reply of a model holds
MAX_CACHED_CHARACTERS = 1024 * 1024  # of schemas, as JSON: some thousand usual ones
MAX_STEPS = 50_000  # of one check: some 100 ms at worst
MAX_LEVELS = 120  # of keywords within keywords, three Python frames each; 1000 end in a panic
KEYWORD_STEPS = 10  # a keyword takes as long as ten ways of a regular expression

DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": validators.Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": validators.Draft201909Validator,
    "http://json-schema.org/draft-07/schema": validators.Draft7Validator,
    "http://json-schema.org/draft-06/schema": validators.Draft6Validator,
    "http://json-schema.org/draft-04/schema": validators.Draft4Validator,
}
DEFAULT_DIALECT = next(iter(DIALECTS))
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# What jsonschema does for them happens out of the budget's sight.
_UNBOUNDED = {
    "patternProperties": "properties",
    "unevaluatedProperties": "additionalProperties",
    "unevaluatedItems": "items",
}


class JsonSchemaChecker:
    """An ArgumentChecker; remembers checked schemas by their content, the latest 1 MiB of them.

    By content, because a thousand devices of one kind each bring their own copy.
    """

    def __init__(self) -> None:
        self._checked: OrderedDict[str, Validator] = OrderedDict()
        self._characters = 0

    def check_schema(self, schema: ToolSchema) -> None:
        """Accepts an object schema of at most 64 KiB and 1000 keys that refers to itself alone.

        Raises ValueError that says what is wrong and what is allowed.
        """
        self._validator(schema)

    def check_arguments(self, schema: ToolSchema, arguments: Mapping[str, Any]) -> None:
        """Changes nothing: 50.0 is an integer for JSON Schema, "50" is not.

        Raises ToolError that names the first four wrong arguments and what is allowed, or says why
        the schema cannot be used.
        """
        try:
            validator = self._validator(schema)
        except ValueError as error:
            raise ToolError(f"{schema.name} cannot be called: {error}") from error
        try:
            size = len(json.dumps(dict(arguments), ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(f"the arguments of {schema.name} are not JSON: {error}") from error
        if size > MAX_ARGUMENT_CHARACTERS:
            raise ToolError(
                f"the arguments of {schema.name} have {size} characters;"
                f" {MAX_ARGUMENT_CHARACTERS} are allowed"
            )
        token = _budget.set(_Budget())
        try:
            errors = list(islice(validator.iter_errors(dict(arguments)), MAX_TOLD))
        except (_BudgetSpent, ArithmeticError) as error:
            raise ToolError(
                f"the arguments of {schema.name} take too long to check: give fewer or simpler ones"
            ) from error
        finally:
            _budget.reset(token)
        if errors:
            told = ". ".join(dict.fromkeys(map(tell, errors)))
            raise ToolError(f"wrong arguments of {schema.name}: {told}")

    def _validator(self, schema: ToolSchema) -> Validator:
        """The schema's validator, made and checked at the first sight of its content."""
        content = _as_json(schema.parameters)
        if content in self._checked:
            self._checked.move_to_end(content)
            return self._checked[content]
        # Our own copy: what the caller does to its schema later was not checked.
        validator = self._checked[content] = _compile(json.loads(content))
        self._characters += len(content)
        while self._characters > MAX_CACHED_CHARACTERS:
            self._characters -= len(self._checked.popitem(last=False)[0])
        return validator


# --- schemas -------------------------------------------------------------------------------


def _as_json(parameters: Any) -> str:
    try:
        content = json.dumps(parameters, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the parameters are not JSON: {error}") from error
    if len(content) > MAX_SCHEMA_CHARACTERS:
        raise ValueError(
            f"the parameters have {len(content)} characters as JSON;"
            f" {MAX_SCHEMA_CHARACTERS} are allowed"
        )
    return content


def _compile(parameters: Any) -> Validator:
    """The validator of an object schema; raises ValueError."""
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        raise ValueError('the parameters must be an object schema: {"type": "object", …}')
    _check_shape(parameters)
    dialect = parameters.pop("$schema", DEFAULT_DIALECT)
    if not isinstance(dialect, str) or dialect.removesuffix("#") not in DIALECTS:
        raise ValueError(f"the $schema {brief(dialect)} is none of {', '.join(DIALECTS)}")
    dialect = dialect.removesuffix("#")
    _check_meaning(dialect, parameters)
    _check_references(dialect, parameters)
    return _counting(dialect)(parameters, registry=Registry())


def _check_shape(parameters: Any) -> None:
    keys, level, depth = 0, [parameters], 0
    while level:
        depth += 1
        inner = []
        for value in level:
            children = value.values() if isinstance(value, dict) else value
            keys += len(children)
            inner += [child for child in children if isinstance(child, dict | list)]
        level = inner
        if depth > MAX_SCHEMA_DEPTH:
            raise ValueError(f"the parameters nest deeper than {MAX_SCHEMA_DEPTH} levels")
    if keys > MAX_SCHEMA_KEYS:
        raise ValueError(f"the parameters have {keys} keys; {MAX_SCHEMA_KEYS} are allowed")


def _check_meaning(dialect: str, schema: Any) -> None:
    # Formats are not looked at: a `pattern` that is none for Python may be one for its owner.
    for error in _of_schemas(dialect).iter_errors(schema):
        where = path(error) or "the parameters"
        raise ValueError(f"{where}: {complaint(error)}")


@cache
def _of_schemas(dialect: str) -> Validator:
    """What validates schemas.

    The schemas of schemas of the two latest drafts go through seven vocabularies at every step,
    which takes 200 µs a key; draft 7's with what was added to it takes a tenth of that.
    """
    if not DIALECTS[dialect].META_SCHEMA.get("$vocabulary"):
        return DIALECTS[dialect](DIALECTS[dialect].META_SCHEMA, registry=Registry())
    draft_7 = validators.Draft7Validator.META_SCHEMA
    schema, text, size = {"$ref": "#"}, {"type": "string"}, {"type": "integer", "minimum": 0}
    by_name = {"type": "object", "additionalProperties": schema}
    names = {"type": "array", "items": text}
    added = {
        "$anchor": text,
        "$defs": by_name,
        "dependentRequired": {"type": "object", "additionalProperties": names},
        "dependentSchemas": by_name,
        "maxContains": size,
        "minContains": size,
        **dict.fromkeys(_REFERENCES, text),
    }
    if dialect == DEFAULT_DIALECT:
        added |= {"items": schema, "prefixItems": {"type": "array", "items": schema, "minItems": 1}}
    merged = {**draft_7, "properties": {**draft_7["properties"], **added}}
    return validators.Draft7Validator(merged, registry=Registry())


def _check_references(dialect: str, parameters: Any) -> None:
    """Looks at every schema inside, and at what they refer to, which may be anywhere."""
    specification = referencing.jsonschema.specification_with(dialect)
    root: Resource[Any] = specification.create_resource(parameters)
    found = [(Registry().resolver_with_root(root), root)]
    seen = set()
    while found:
        resolver, resource = found.pop()
        schema = resource.contents
        if id(schema) in seen or not isinstance(schema, dict):
            continue
        seen.add(id(schema))
        _check_keywords(schema)
        found += [(resolver.in_subresource(inner), inner) for inner in resource.subresources()]
        for reference in (schema[keyword] for keyword in _REFERENCES if keyword in schema):
            try:
                target = resolver.lookup(reference)
            except Unresolvable as error:
                raise ValueError(
                    f"the reference {brief(reference)} leads to nothing in the parameters, and"
                    " nothing is fetched: put what it means under $defs"
                ) from error
            if id(target.contents) not in seen:
                _check_meaning(dialect, target.contents)
                found.append((target.resolver, specification.create_resource(target.contents)))


def _check_keywords(schema: Mapping[str, Any]) -> None:
    if "$schema" in schema:  # jsonschema would leave our counting validator for its own
        raise ValueError("only the outermost schema may name its $schema")
    for keyword, instead in _UNBOUNDED.items():
        if keyword in schema:
            raise ValueError(f'"{keyword}" is not supported: use "{instead}"')


# --- the budget ----------------------------------------------------------------------------


class _BudgetSpent(Exception):
    """The check takes too long."""


@attrs.define
class _Budget:
    left: float = MAX_STEPS
    level: int = 0

    def spend(self, steps: float) -> None:
        self.left -= steps
        if self.left < 0:
            raise _BudgetSpent

    @contextmanager
    def deeper(self) -> Iterator[None]:
        if self.level == MAX_LEVELS:
            raise _BudgetSpent
        self.level += 1
        try:
            yield
        finally:  # who only wants to know whether there are errors leaves at the first
            self.level -= 1


_budget: ContextVar[_Budget] = ContextVar("budget")


@cache
def _counting(dialect: str) -> type[Validator]:
    """jsonschema's validator, with each keyword drawing on the budget."""
    draft = DIALECTS[dialect]
    counted = {keyword: _counted(keyword, check) for keyword, check in draft.VALIDATORS.items()}
    # Draft 4 thinks that 50.0 is no integer; models that write it do not care for drafts.
    integers = validators.Draft202012Validator.TYPE_CHECKER
    counting: type[Validator] = validators.extend(draft, validators=counted, type_checker=integers)
    return counting


_Check = Callable[[Validator, Any, Any, Any], Iterator[ValidationError] | None]


def _counted(keyword: str, check: _Check) -> _Check:
    def counted(
        validator: Validator, value: Any, instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        budget = _budget.get()
        budget.spend(KEYWORD_STEPS + (len(value) if isinstance(value, dict | list) else 0))
        if at_worst := _AT_WORST.get(keyword):
            steps = at_worst(value, instance)
            if steps > budget.left:
                return
            budget.spend(steps)
        with budget.deeper():
            for error in check(validator, value, instance, schema) or ():
                error.message = keyword  # theirs repeats the whole value, and we do not use it
                yield error

    return counted


_AT_WORST: Mapping[str, Callable[[Any, Any], float]] = {
    "pattern": lambda pattern, text: most_ways(pattern, text) if isinstance(text, str) else 0,
    # Items of several kinds are compared each with each.
    "uniqueItems": lambda _, items: len(items) ** 2 if isinstance(items, list) else 0,
}
