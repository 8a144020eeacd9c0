"""What passes the gate can be carried by Airflow's own encoders and stored by Postgres; what cannot pass says why."""

from __future__ import annotations

import json
import math
import sys
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.storable import (
    LARGEST_WHOLE,
    MAX_DEPTH,
    RESERVED_KEYS,
    SMALLEST_WHOLE,
    parse_json,
    storable,
    storable_details,
)
from airflow_provider_vertex_ray.errors import NotStorableError, VertexRayError, storable_text
from tests.support.stored import stored

TEXT = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\ufffe\x1b\u2028"), max_size=12)
KEYS = TEXT | st.sampled_from([*sorted(RESERVED_KEYS), "__dict__", "__class__", "__airflow__", ""])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([LARGEST_WHOLE, SMALLEST_WHOLE, LARGEST_WHOLE + 1, SMALLEST_WHOLE - 1, 10**400])
    | st.floats(allow_nan=True, allow_infinity=True)
    | TEXT
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


def numbers_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers_of(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_of(item)]
    return [value] if isinstance(value, int) else []


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_what_passes_can_be_carried_and_stored(value: Any) -> None:
    notes: list[str] = []
    in_range = all(SMALLEST_WHOLE <= number <= LARGEST_WHOLE for number in numbers_of(value))
    if not in_range:
        with pytest.raises(NotStorableError, match="64 bits") as caught:
            storable(value, "result")
        assert stored(caught.value.to_dict()) == caught.value.to_dict()
        return
    passed = storable(value, "result", notify=notes.append)
    assert stored(passed) == passed
    # As an event has it, and unchanged by a second gate.
    assert stored({"status": "success", "result": {"result": passed}})["result"] == {"result": passed}
    assert storable(passed, "result", notify=lambda note: pytest.fail(note)) == passed
    assert stored(notes) == notes


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_details_of_an_error_always_pass(value: Any) -> None:
    details = storable_details({"result": value, "submission_id": "one", "__id__": value})
    assert details["submission_id"] == "one"
    assert stored(details) == details


@given(st.recursive(st.none() | st.integers(-9, 9) | st.text("aä", max_size=3), st.lists, max_leaves=9))
def test_what_is_harmless_is_unchanged(value: Any) -> None:
    assert storable(value, "result") == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, float("1e999")])
def test_floats_that_are_not_finite_are_named(value: float) -> None:
    notes: list[str] = []
    assert storable({"a": [{"loss": value}]}, "result", notify=notes.append) == {"a": [{"loss": None}]}
    assert notes == [f"result['a'][0]['loss'] is {value}, which Airflow cannot store; it is None instead."]


def test_numbers_out_of_range_are_named() -> None:
    for number in (2**64, -(2**63) - 1, 10**5000):
        with pytest.raises(NotStorableError, match=r"^result\['seeds'\]\[1\] is the whole number .*64 bits.*string\.$"):
            storable({"seeds": [1, number]}, "result")


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_depth_is_bounded(make: Any) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = make(value)
    assert stored(storable(value, "result")) == value
    with pytest.raises(NotStorableError, match=f"more than {MAX_DEPTH} levels"):
        storable(make(value), "result")
    for _ in range(sys.getrecursionlimit() * 3):
        value = make(value)
    with pytest.raises(NotStorableError, match=f"more than {MAX_DEPTH} levels"):
        storable(value, "result")


@pytest.mark.parametrize("value", ["x" * 1001, "ä" * 501, ["x"] * 501, {str(n): 1 for n in range(200)}, [1.5] * 500])
def test_size_is_bounded(value: Any) -> None:
    with pytest.raises(NotStorableError, match="^result has more than 1,000 bytes"):
        storable({"a": value}, "result", max_bytes=1000)
    assert storable(value, "result", max_bytes=10_000) == value


@given(VALUES.filter(lambda value: not numbers_of(value)))
def test_the_size_is_about_that_of_json(value: Any) -> None:
    passed = storable(value, "result")
    size = len(json.dumps(passed, ensure_ascii=False).encode())
    assert storable(value, "result", max_bytes=2 * size + 10) == passed


def test_members_of_enums_become_plain_texts() -> None:
    class Colour(str, Enum):
        RED = "red"

    found = storable({Colour.RED: [Colour.RED]}, "result")
    assert found == {"red": ["red"]}
    assert (type(found["red"][0]), type(next(iter(found)))) == (str, str)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "9" * 100_000, "-" + "1" * 5000])
def test_hostile_json_gives_a_typed_error(text: str) -> None:
    with pytest.raises((NotStorableError, ValueError)) as caught:
        storable(parse_json(text, "result"), "result")
    assert not isinstance(caught.value, RecursionError)


@given(TEXT)
def test_messages_of_errors_can_be_stored(text: str) -> None:
    error = VertexRayError(text)
    assert stored(str(error)) == storable_text(text).strip()
