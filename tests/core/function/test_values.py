"""The JSON rule of arguments and results: what passes, as what, and where an error points."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.remote.runner import NotPlainError, plain

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=20)


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = collections.namedtuple("Point", "x y")


@given(JSON)
def test_json_stays_as_it_is(value: Any) -> None:
    found = plain(value, "it")
    assert found == value
    assert json.loads(json.dumps(found, allow_nan=False)) == value


@given(JSON)
def test_applying_a_step_twice_changes_nothing(value: Any) -> None:
    once = plain((value, {"inner": (value,)}), "it")
    assert plain(once, "it") == once == [value, {"inner": [value]}]


@given(st.lists(st.sampled_from(["list", "dict"]), max_size=8))
def test_an_error_names_the_place(shape: list[str]) -> None:
    value: Any = object()
    for kind in shape:
        value = [0, value] if kind == "list" else {"key": value}
    with pytest.raises(NotPlainError) as caught:
        plain(value, "it")
    # The path, as Python, leads to the culprit.
    assert eval(caught.value.path, {"it": value}).__class__ is object
    assert str(caught.value).startswith(f"{caught.value.path} (object) cannot be represented as JSON. ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (range(3), [0, 1, 2]),
        (collections.deque([1]), [1]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (Point(1, 2), [1, 2]),
        (Colour.RED, "red"),
        ({Colour.RED: Level.HIGH}, {"red": 3}),
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (datetime.time(12, 30), "12:30:00"),
        (datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc), "2026-01-31T12:00:00+00:00"),
        (pd.Timestamp("2026-01-31 12:00"), "2026-01-31T12:00:00"),
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(5), 5),
        (np.datetime64("2026-01-31T12:00"), "2026-01-31T12:00"),
        ("\u2028ß😀", "\u2028ß😀"),
        (2**4000, 2**4000),
    ],
)
def test_what_is_changed(value: Any, expected: Any) -> None:
    found = plain(value, "it")
    assert (found, type(found)) == (expected, type(expected))
    assert json.loads(json.dumps(found)) == expected


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (math.nan, "neither NaN nor infinity"),
        (-math.inf, "neither NaN nor infinity"),
        (np.float64("nan"), "neither NaN nor infinity"),
        (np.float32("inf"), "neither NaN nor infinity"),
        (b"bytes", "Use a string"),
        (bytearray(b"bytes"), "Use a string"),
        (memoryview(b"bytes"), "Use a string"),
        ({1, 2}, "sorted"),
        (datetime.timedelta(1), "total_seconds"),
        (pd.NaT, "Use None instead of NaT"),
        (np.datetime64("NaT"), "other NumPy scalars"),
        (np.complex128(1), "other NumPy scalars"),
        (np.arange(3), "tolist()"),
        (pd.DataFrame({"a": [1]}), "to_dict"),
        (decimal.Decimal("1.5"), "str("),
        (uuid.UUID(int=1), "str("),
        (object(), "Use None, booleans"),
        (1j, "Use None, booleans"),
        (iter([1]), "Use None, booleans"),
        ({1: "one"}, "keys must be strings"),
        ({None: "none"}, "keys must be strings"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        pytest.param(1 << 20_000, "at most 10000 bits", id="huge"),
    ],
)
def test_what_is_refused(value: Any, advice: str) -> None:
    for wrapped, path in ((value, "it"), ([{"in": value}], "it[0]['in']")):
        with pytest.raises(NotPlainError) as caught:
            plain(wrapped, "it")
        assert caught.value.path.startswith(path)
        assert advice in str(caught.value)


def test_value_that_contains_itself_is_rejected() -> None:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    with pytest.raises(
        NotPlainError,
        match=r"it\[1\]\['again'\] \(list\) cannot be represented as JSON\. Remove the reference to itself",
    ):
        plain(loop, "it")
    twice = [1]
    assert plain([twice, twice], "it") == [[1], [1]]


def test_what_is_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert plain(deep, "it") == deep
    with pytest.raises(NotPlainError, match="at most 100 levels"):
        plain([deep], "it")


def test_values_that_come_later_are_passed_over() -> None:
    later = object()
    assert plain({"a": [later, (1,)]}, "it", lambda value: value is later) == {"a": [None, [1]]}
