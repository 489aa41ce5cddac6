"""JSON from others: what is read, what is refused, and how little an answer takes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from alexnet_cli.system import strict_json


@dataclass(frozen=True)
class Inner:
    """Part of another dataclass."""

    n: Annotated[int, Ge(1)] = 1
    word: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    """A field of each kind that our files hold, with defaults that must not be used."""

    count: int
    share: float = 0.5
    maybe: float | None = None
    yes: bool = True
    text: str = "x"
    items: tuple[Inner, ...] = (Inner(),)
    pair: tuple[float, float] = (0.0, 1.0)
    reasons: dict[str, str] = field(default_factory=dict)


def sound(**changes):
    """What JSON has for an `Outer`, with other values in some fields."""
    plain = {"count": 3, "share": 0.25, "maybe": None, "yes": False, "text": "é"}
    plain |= {"items": [{"n": 2, "word": "b"}], "pair": [1, 2.5], "reasons": {"k": "v"}}
    return plain | changes


def test_a_sound_value_becomes_its_dataclass():
    """Oracle: the object, built by hand; from text and from what `loads` returns."""
    expected = Outer(3, 0.25, None, False, "é", (Inner(2, "b"),), (1.0, 2.5), {"k": "v"})
    assert strict_json.parse(Outer, sound()) == expected
    assert strict_json.parse(Outer, json.dumps(sound()).encode()) == expected
    again = strict_json.parse(tuple[Outer, ...], [sound(), sound(maybe=1)])
    assert [outer.maybe for outer in again] == [None, 1.0]
    assert strict_json.parse(int, 7) == 7


@pytest.mark.parametrize("name", sound())
def test_a_default_never_stands_in_for_a_missing_field(name):
    """Oracle: every field, taken away one at a time."""
    plain = sound()
    del plain[name]
    with pytest.raises(ValueError, match=f"^{name}: is missing$"):
        strict_json.parse(Outer, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": True}, "count: must be a whole number. Received: True"),
        ({"count": 1.0}, "count: must be a whole number. Received: 1.0"),
        ({"count": "1"}, "count: must be a whole number. Received: '1'"),
        (
            {"count": 2**63},
            "count: must be less than 9,223,372,036,854,775,808. Received: 9223372036854775808",
        ),
        (
            {"count": -(2**63)},
            "count: must be more than -9,223,372,036,854,775,808. Received: -9223372036854775808",
        ),
        ({"count": 10**26}, "count: must be less than 9,223,372,036,854,775,808. Received: 1000"),
        ({"share": math.inf}, "share: must be a finite number. Received: inf"),
        ({"share": math.nan}, "share: must be a finite number. Received: nan"),
        ({"share": 10**400}, "share: must be a number. Received: 1000"),
        ({"share": True}, "share: must be a number. Received: True"),
        ({"share": "0.5"}, "share: must be a number. Received: '0.5'"),
        ({"share": None}, "share: must be a number. Received: None"),
        ({"maybe": "none"}, "maybe: must be a number. Received: 'none'"),
        ({"yes": 1}, "yes: must be true or false. Received: 1"),
        ({"yes": "true"}, "yes: must be true or false. Received: 'true'"),
        ({"text": 3}, "text: must be text. Received: 3"),
        ({"items": "ab"}, "items: must be a list. Received: 'ab'"),
        ({"items": {"n": 2, "word": "b"}}, "items: must be a list. Received: an object of 2"),
        ({"items": [[1, "a"]]}, "items.0: must be an object. Received: a list of 2"),
        ({"items": [{"n": 0, "word": "a"}]}, "items.0.n: must be 1 or more. Received: 0"),
        ({"items": [{"n": 1, "word": "c"}]}, "items.0.word: must be 'a' or 'b'. Received: 'c'"),
        ({"items": [{"n": 1, "word": "a", "m": 1}]}, "items.0.m: is unknown"),
        ({"pair": [1]}, "pair.1: is missing"),
        ({"pair": [1, 2, 3]}, "pair: .*at most 2 items"),
        ({"reasons": {"a": 1}}, "reasons.a: must be text. Received: 1"),
        ({"reasons": []}, "reasons: must be an object. Received: a list of 0"),
        ({"more": 1}, "more: is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(change, message):
    """Oracle: the field, what it may hold and what it got, in one line without links."""
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        strict_json.parse(Outer, sound(**change))
    assert "\n" not in str(refused.value)
    assert "http" not in str(refused.value)


@pytest.mark.parametrize("value", [None, 3, [], "x", {}])
def test_another_kind_of_value_is_refused(value):
    with pytest.raises(ValueError, match=r"^must be an object|^count: is missing"):
        strict_json.parse(Outer, value)


def test_the_bounds_of_64_bits_are_inside():
    """Oracle: the largest and the smallest integer that are taken."""
    for count in (2**63 - 1, 1 - 2**63):
        assert strict_json.parse(Outer, sound(count=count)).count == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 1}', "an object has the same name twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', "an object has the same name twice"),
        (b"[NaN]", "NaN is not a number in JSON"),
        (b"[-Infinity]", "-Infinity is not a number in JSON"),
        (b"[" * 10**6, "the values are nested too deeply"),
        (b" " * 101, "the text has more than 100 bytes"),
        (b'{"a": 1, "b": 2, "c": 3, "d": 4}', "an object has more than 3 names"),
        (b"\xff", "invalid start byte"),
        (b"1" * 5000, "Exceeds the limit"),
        (b"{", "Expecting property name"),
        (b"1 1", "Extra data"),
    ],
)
def test_a_text_without_one_meaning_is_refused(text, message):
    """Oracle: the reason."""
    most = 100 if text.isspace() else 1 << 21
    with pytest.raises(ValueError, match=message):
        strict_json.loads(text, most, most_names=3)


def test_text_is_read_strictly_before_it_is_validated():
    """Oracle: the duplicate name, which pydantic alone accepts."""
    text = json.dumps(sound()).replace('"count": 3', '"count": 3, "count": 4')
    with pytest.raises(ValueError, match="an object has the same name twice"):
        strict_json.parse(Outer, text.encode())


def test_names_from_others_can_not_break_the_line():
    """Oracle: one printable line, and short."""
    name = "a\n\x1b[2J\u202e" + "x" * 10_000
    with pytest.raises(ValueError, match=r"^a\\n\\x1b\[2J\\u202ex+: is unknown$") as refused:
        strict_json.parse(Outer, sound(**{name: 1}))
    assert len(str(refused.value)) < 100
    with pytest.raises(ValueError, match=r"^text: must be text. Received: a list of 1000000$"):
        strict_json.parse(Outer, sound(text=[1] * 10**6))


@pytest.mark.parametrize(
    "text",
    [
        b'{"items": [' + b"3," * 5_000_000 + b"3]}",
        b'{"reasons": {' + b",".join(b'"%x": 1' % n for n in range(1_000_000)) + b"}}",
        b"{" + b",".join(b'"%x": 1' % n for n in range(1_000_000)) + b"}",
    ],
    ids=["wrong items", "wrong values", "unknown names"],
)
def test_millions_of_errors_take_little_memory(text):
    """Oracle: a process that may take 1 GB of address space; each error would take 1 kB."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
    code += "sys.path.insert(0, sys.argv[1]); from test_strict_json import Outer, strict_json\n"
    code += "try: strict_json.parse(Outer, sys.stdin.buffer.read())\n"
    code += "except ValueError as error: print(error)"
    place = __file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", code, place], input=text, capture_output=True, check=True
    )
    (line,) = done.stdout.decode().splitlines()
    assert line in ("an object has more than 10,000 names", "count: is missing")
