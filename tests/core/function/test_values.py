"""Values between Airflow and the cluster: what arrives as it is, what is refused, and where an error points."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
import math
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.remote.values import TYPE_KEY, NotPlainError, decode, encode

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=20)


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = collections.namedtuple("Point", "x y")


KEYS = SCALARS | st.tuples(SCALARS) | st.dates()
TYPED = st.recursive(
    SCALARS
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc) | st.timezones())
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.binary(max_size=5)
    | st.builds(bytearray, st.binary(max_size=5))
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
        | st.dictionaries(KEYS | st.just(TYPE_KEY), inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(collections.OrderedDict)
        | st.dictionaries(KEYS, st.integers(), max_size=3).map(collections.Counter)
        | st.builds(collections.deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 9))
    ),
    max_leaves=15,
)


def travelled(value: Any, **how: bool) -> Any:
    return decode(json.loads(json.dumps(encode(value, "it", **how), allow_nan=False)))


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types, and in the same order."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, (list, tuple, collections.deque)):
        limits = getattr(one, "maxlen", None) == getattr(other, "maxlen", None)
        return limits and all(map(same, one, other))
    if isinstance(one, dict):
        return all(same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True))
    if isinstance(one, datetime.datetime):
        return (one.utcoffset(), one.fold, str(one.tzinfo)) == (other.utcoffset(), other.fold, str(other.tzinfo))
    return True


@given(JSON)
def test_json_stays_as_it_is(value: Any) -> None:
    found = encode(value, "it")
    assert found == value
    assert json.loads(json.dumps(found, allow_nan=False)) == value


@settings(max_examples=300, deadline=None)
@given(TYPED, st.booleans())
def test_value_arrives_as_it_is(value: Any, exact: bool) -> None:
    assert same(travelled(value, exact=exact), value)


@given(st.lists(st.sampled_from(["list", "dict", "tuple"]), max_size=8))
def test_an_error_names_the_place(shape: list[str]) -> None:
    value: Any = object()
    for kind in shape:
        value = {"list": [0, value], "dict": {"key": value}, "tuple": (0, value)}[kind]
    with pytest.raises(NotPlainError) as caught:
        encode(value, "it")
    # The path, as Python, leads to the culprit.
    assert eval(caught.value.path, {"it": value}).__class__ is object
    assert str(caught.value).startswith(
        f"{caught.value.path} (object) cannot be sent between Airflow and the cluster. "
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pd.Timestamp("2026-01-31 12:00"), datetime.datetime.fromisoformat("2026-01-31T12:00")),
        (pendulum.datetime(2026, 1, 31, tz="Europe/Paris"), pendulum.datetime(2026, 1, 31, tz="Europe/Paris")),
        (pendulum.date(2026, 1, 31), datetime.date(2026, 1, 31)),
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(5), 5),
        (np.datetime64("2026-01-31T12:00"), datetime.datetime.fromisoformat("2026-01-31T12:00")),
        (np.datetime64("2026-01-31"), datetime.date(2026, 1, 31)),
    ],
)
def test_what_is_changed_in_arguments_and_results_and_refused_in_constants(value: Any, expected: Any) -> None:
    found = travelled(value)
    assert found == expected
    assert type(found).__module__ in ("builtins", "datetime")
    with pytest.raises(NotPlainError):
        encode(value, "it", exact=True)


@pytest.mark.parametrize(("value", "expected"), [(Colour.RED, "red"), ({Colour.RED: Level.HIGH}, {"red": 3})])
def test_enumerations_become_their_values(value: Any, expected: Any) -> None:
    assert same(travelled(value), expected)
    assert same(travelled(value, exact=True), expected)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (math.nan, "neither NaN nor infinity"),
        (-math.inf, "neither NaN nor infinity"),
        (np.float64("nan"), "neither NaN nor infinity"),
        (np.float32("inf"), "neither NaN nor infinity"),
        (memoryview(b"bytes"), "Use a string"),
        (pd.NaT, "Use None instead of NaT"),
        (pd.Timestamp(1), "without nanoseconds"),
        (np.datetime64("NaT"), "other NumPy scalars"),
        (np.datetime64(1, "ns"), "without nanoseconds"),
        (np.complex128(1), "other NumPy scalars"),
        (np.arange(3), "tolist()"),
        (pd.DataFrame({"a": [1]}), "to_dict"),
        (Point(1, 2), "tuple(...) or _asdict()"),
        (collections.defaultdict(list), "Use dict(...) of it"),
        (collections.UserList([1]), "Use None, booleans"),
        (uuid.UUID(int=1), "str("),
        (fractions.Fraction(1, 2), "str("),
        (Path("/tmp"), "str("),
        (object(), "Use None, booleans"),
        (iter([1]), "Use None, booleans"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({object(): 1}, "Use None, booleans"),
        pytest.param(1 << 20_000, "at most 10000 bits", id="huge"),
    ],
)
def test_what_is_refused(value: Any, advice: str) -> None:
    for wrapped, path in ((value, "it"), ([{"in": value}], "it[0]['in']")):
        with pytest.raises(NotPlainError) as caught:
            encode(wrapped, "it")
        assert caught.value.path.startswith(path)
        assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (b"bytes", "Use a string"),
        (range(3), "Use list(...)"),
        (collections.deque([1]), "Use list(...)"),
        (collections.OrderedDict(a=1), "Use dict(...)"),
        (datetime.time(1), "Use str(...)"),
        (1j, "Use str(...)"),
        ({1: "one"}, "keys of an XCom are strings"),
        (2**63, "64 bits"),
        ("a\0b", "NUL"),
    ],
)
def test_what_airflow_cannot_store_is_no_result(value: Any, advice: str) -> None:
    assert same(travelled(value), value)
    with pytest.raises(NotPlainError, match=re.escape(advice)):
        encode({"x": [value]}, "it", result=True)


@pytest.mark.parametrize("value", [(1, (2,)), {1}, datetime.date(2026, 1, 1), decimal.Decimal("1.50"), {"a": (1,)}])
def test_what_airflow_stores_with_its_type_is_a_result(value: Any) -> None:
    from airflow.providers.common.compat.sdk import XCom

    found = travelled(value, result=True)
    assert same(found, value)
    try:
        from airflow.sdk.serde import deserialize, serialize
    except ImportError:
        from airflow.serialization.serde import deserialize, serialize  # type: ignore[no-redef]
    assert same(deserialize(json.loads(json.dumps(serialize(found)))), value)
    assert XCom is not None


@pytest.mark.parametrize(
    "told",
    [
        {TYPE_KEY: "function", "value": 1},
        {TYPE_KEY: ["tuple"], "value": 1},
        {TYPE_KEY: "tuple", "value": 1},
        {TYPE_KEY: "set", "value": [[1]]},
        {TYPE_KEY: "datetime", "value": ["2026-01-01", "No/Where", 0]},
        {TYPE_KEY: "date", "value": "yesterday"},
        {TYPE_KEY: "range", "value": [1, 2, 0]},
        {TYPE_KEY: "Decimal", "value": "x"},
        {TYPE_KEY: "dict", "value": [[1]]},
        {TYPE_KEY: "deque", "value": []},
        {TYPE_KEY: "bytes", "value": "ä"},
    ],
    ids=str,
)
def test_what_was_not_encoded_is_an_error_of_one_type(told: Any) -> None:
    with pytest.raises(ValueError, match="type"):
        decode([{"in": told}])


def test_value_that_contains_itself_is_rejected() -> None:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    with pytest.raises(NotPlainError, match=r"it\[1\]\['again'\] \(list\) .* Remove the reference to itself"):
        encode(loop, "it")
    twice = [1]
    assert encode([twice, twice], "it") == [[1], [1]]


def test_what_is_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert encode(deep, "it") == deep
    with pytest.raises(NotPlainError, match="at most 100 levels"):
        encode([deep], "it")


def test_values_that_come_later_are_passed_over() -> None:
    later = object()
    assert encode({"a": [later, 1]}, "it", lambda value: value is later) == {"a": [None, 1]}
