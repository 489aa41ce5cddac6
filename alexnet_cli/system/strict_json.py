"""JSON that others may have written: one meaning for every text, and every value of its type."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

MOST_BYTES = 16 << 20  # of a JSON text: 100,000 classes and their recipe take a quarter of it


def loads(text: bytes, most: int = MOST_BYTES) -> Any:
    """Parse JSON in UTF-8; raises `ValueError`, also for a name that is given twice, and for NaN."""
    if len(text) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    try:
        return _DECODER.decode(text.decode())
    except RecursionError:
        raise ValueError("it is nested without end") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it gives a name twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)


def as_type(hint: Any, value: Any) -> Any:
    """Turn parsed JSON into what `hint` says: a dataclass of ours, a tuple, a dictionary or a scalar.

    Every field of a dataclass must be there and none besides: a default must not stand in for what
    is missing, but for what came `late`, after files had been written without it. Numbers are
    finite, whole ones below 2⁶³. Raises `ValueError` that names the field.
    """
    inner = get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        late = {field.name for field in fields(hint) if field.metadata.get("late")}
        odd = (value.keys() ^ {field.name for field in fields(hint)}) - late
        if odd:
            raise ValueError(f"{min(odd)} is missing or unknown in {_name(hint)}")
        hints = get_type_hints(hint)
        return hint(**{name: _field(name, hints[name], item) for name, item in value.items()})
    if get_origin(hint) is UnionType:  # of a type and None
        return None if value is None and NoneType in inner else as_type(inner[0], value)
    if get_origin(hint) is dict and isinstance(value, dict):
        return {name: _field(name, inner[1], item) for name, item in value.items()}
    if get_origin(hint) is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(map(as_type, kinds, value))
    number = hint in (int, float) and type(value) in (int, hint)
    most = sys.float_info.max if hint is float else 2**63 - 1
    if (number and -most <= value <= most) or (hint in (str, bool) and type(value) is hint):
        return value
    raise ValueError(f"expected {_name(hint)}. Received: {_short(value)}")


def _field(name: str, hint: Any, value: Any) -> Any:
    try:
        return as_type(hint, value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return f"{value:.3g}" if isinstance(value, float) else ascii(value)[:60]
