"""Checks of arguments that every type checker refuses, for callers who use none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, Lt

from alexnet_cli.errors import UsageError
from alexnet_cli.system import strict_json

T = TypeVar("T")

Seed = Annotated[int, Ge(0), Lt(2**63)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Probability = Annotated[float, Ge(0), Le(1)]


def check_argument(argument: str, value: object, kind: Any) -> None:
    """Raise `UsageError` with the argument's name unless `value` is None or of type `kind`."""
    try:
        if value is not None:
            strict_json.parse(kind, value)
    except strict_json.FieldError as error:
        raise UsageError(error.reason, argument=argument, value=value) from None


def as_list(argument: str, values: Iterable[T]) -> list[T]:
    """Return a list of `values`; a single text is refused, as its characters would be the items."""
    if isinstance(values, str):
        raise UsageError("must be a list", argument=argument, value=values)
    return list(values)
