"""Instances of predictions as JSON that the service reads."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.serving.instances import encode
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.ids import case_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[1, 2.5, None, True, "a"]], [[1, 2.5, None, True, "a"]]),
        (np.array([[1.5, 2.5]]), [[1.5, 2.5]]),
        ([np.array([1, 2]), [np.float32(0.5), np.int64(3), np.bool_(True)]], [[1, 2], [0.5, 3, True]]),
        ([{"when": datetime.date(2024, 5, 1)}], [{"when": "2024-05-01"}]),
        ([np.array(["2024-05-01"], "datetime64[D]")], [["2024-05-01"]]),
        ([2**53], [2**53]),
    ],
    ids=case_id,
)
def test_values_become_json(value: Any, expected: Any) -> None:
    assert encode(value, "instances") == expected


def test_a_list_that_contains_itself() -> None:
    value: list[Any] = [1.0]
    value.append(value)
    with pytest.raises(InvalidArgumentError, match="contains itself"):
        encode(value, "instances")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([[1.0], [float("nan")]], r"instances\[1\]\[0\]"),
        ([np.array([1.0, np.inf])], r"instances\[0\]\[1\]"),
        ([{"price": decimal.Decimal("1.5")}], r"instances\[0\]\['price'\]"),
        ([b"bytes"], r"instances\[0\]"),
        ([2**53 + 1], r"instances\[0\]"),
        ([pd.NaT], r"instances\[0\]"),
        ([pd.NA], r"instances\[0\]"),
        ([{1: 2}], r"instances\[0\]"),
        ([pd.DataFrame({"a": [1]})], r"instances\[0\]"),
        ([{1, 2}], r"instances\[0\]"),
        (["\ud800"], r"instances\[0\]"),
        ([np.datetime64("NaT")], r"instances\[0\]"),
    ],
    ids=case_id,
)
def test_what_json_has_no_value_for_is_named(value: Any, place: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^Invalid value for {place}"):
        encode(value, "instances")


LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary() | st.decimals() | st.dates()


@given(
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_any_value_is_either_json_or_refused(value: Any) -> None:
    try:
        found = encode(value, "instances")
    except InvalidArgumentError:
        return
    assert json.loads(json.dumps(found, allow_nan=False)) == found
