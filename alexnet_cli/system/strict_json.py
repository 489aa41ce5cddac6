"""JSON that others may have written: read with one meaning, then validated against a type.

Reading (`loads`) is ours, as pydantic accepts duplicate names. Validation (`parse`) is pydantic's,
made stricter in three ways: a default never stands in for a missing field, integers are bounded,
and the first wrong item of a list ends the validation.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from alexnet_cli.system.safe_names import printable

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import CoreConfig, SchemaValidator

T = TypeVar("T")

MOST_BYTES = 16 << 20  # of a JSON text: 100,000 classes and their recipe take a quarter of it
MOST_NAMES = 10_000  # in one JSON object: pydantic keeps an error of 1 kB for each unknown name


class FieldError(ValueError):
    """A value that its field can't hold; `reason` is the message without the field's path."""

    def __init__(self, path: str, reason: str, received: str = "") -> None:
        """Build the line `path: reason. Received: value`."""
        line = f"{path}: {reason}" if path else reason
        super().__init__(f"{line}. Received: {received}" if received else line)
        self.reason = reason


def loads(text: bytes, most: int = MOST_BYTES, *, most_names: int = MOST_NAMES) -> Any:
    """Return the JSON value that `text`, in UTF-8, holds.

    Raises `ValueError` for a text of more than `most` bytes, an object of more than `most_names`
    names or with the same name twice, NaN and infinity, and for values nested too deeply.
    """
    if len(text) > most:
        raise ValueError(f"the text has more than {most:,} bytes")

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > most_names:
            raise ValueError(f"an object has more than {most_names:,} names")
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an object has the same name twice")
        return found

    try:
        return json.loads(text.decode(), object_pairs_hook=build_object, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")


def parse(kind: type[T], data: Any) -> T:
    """Return `data`, a JSON text (bytes) or what `loads` returned, as a value of type `kind`.

    `kind` may be a scalar, an annotated type with bounds, or a frozen dataclass of these, nested to
    any depth. Each field must be present, and no other may be; integers lie within 64 bits, floats
    are finite, and neither a boolean nor a text counts as a number. Raises `FieldError` with one
    line that names the first wrong field: `recipe.convs.1.filters: must be 1 or more. Received: 0`.
    """
    from pydantic import ValidationError

    value = loads(data) if isinstance(data, bytes) else data
    hint: Any = kind  # mypy takes no `type[T]` for hashable
    try:
        parsed: T = _validator(hint).validate_python(value)
    except ValidationError as error:
        raise first_error(error) from None
    return parsed


@cache
def _validator(kind: Any) -> SchemaValidator:
    # Imported with the first validation: neither `--help` nor importing the package needs it.
    from pydantic import TypeAdapter
    from pydantic_core import CoreConfig, SchemaValidator

    config = CoreConfig(strict=True, allow_inf_nan=False, extra_fields_behavior="forbid")
    return SchemaValidator(_stricter(TypeAdapter(kind).core_schema, config), config)


def _stricter(schema: Any, config: CoreConfig) -> Any:
    """Return pydantic's schema without defaults, with bounds and with `config` in each dataclass.

    Lists and objects are what JSON has for tuples and dataclasses, so these two are not `strict`.
    """
    if isinstance(schema, list):
        return [_stricter(item, config) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "default":
        return _stricter(schema["schema"], config)
    inner = {name: _stricter(item, config) for name, item in schema.items()}
    match schema.get("type"):
        case "dataclass":
            return inner | {"config": config, "strict": False}
        case "tuple":
            return inner | {"strict": False, "fail_fast": True}
        case "int":
            return {"gt": -(2**63), "lt": 2**63} | inner
    return inner


# Where pydantic's own message names Python's types or is longer than need be.
_REASONS = {
    "missing": "is missing",
    "unexpected_keyword_argument": "is unknown",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "dataclass_type": "must be an object",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
}


def first_error(error: ValidationError) -> FieldError:
    """Return the first of pydantic's errors in our words."""
    first = error.errors(include_url=False)[0]
    reason = first["msg"].replace("Input should be", "must be")
    if first["type"] in _REASONS:
        bounds = {name: _bound(value) for name, value in first.get("ctx", {}).items()}
        reason = _REASONS[first["type"]].format(**bounds)
    path = ".".join(printable(part)[:60] for part in first["loc"])
    known = first["type"] not in ("missing", "unexpected_keyword_argument")
    return FieldError(path, reason, _short(first["input"]) if known else "")


def _bound(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else ""


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return ascii(value)[:60]
