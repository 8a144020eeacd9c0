"""The checks of arguments: which values pass, and what the error says about the others."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.checks import (
    LONGEST_SECONDS,
    check_duration,
    check_flag,
    check_match,
    check_text,
    check_whole,
    everything_known,
    is_number,
    is_one_of,
    is_whole,
    known_at_run_time,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

TEMPLATE = "{{ params.value }}"
HUGE = 10**400
NOT_NUMBERS: list[Any] = [True, False, None, "1", [], math.nan, math.inf, -math.inf, 1j]
# Templates are for tests of their own: they pass, whatever the rule.
TEXTS = st.text().filter(lambda text: not known_at_run_time(text))
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(HUGE), st.floats(), TEXTS, st.lists(st.integers())
)


class Reference:
    """Stands for a reference to an XCom, as Airflow recognises one."""

    def iter_references(self) -> list[object]:
        return []


@pytest.mark.parametrize(
    ("value", "known_later"),
    [
        (TEMPLATE, True),
        ("{% if x %}1{% endif %}", True),
        (Reference(), True),
        ("text", False),
        ("{ }", False),
        (None, False),
        ([TEMPLATE], False),
        (1, False),
    ],
)
def test_templates_and_references_are_known_at_run_time(value: object, known_later: bool) -> None:
    assert known_at_run_time(value) is known_later


@given(ANYTHING)
def test_a_number_is_finite_and_not_a_boolean(value: object) -> None:
    whole = type(value) is int and -(2**63) <= value < 2**63
    assert is_whole(value) is whole
    assert is_number(value) is (whole or (type(value) is float and math.isfinite(value)))


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_not_a_number(value: object) -> None:
    assert not is_number(value)
    assert not is_whole(value)


@pytest.mark.parametrize(
    ("value", "fits"),
    [*((each, True) for each in (0, -1, 1, 2**63 - 1, -(2**63))), *((each, False) for each in (2**63, HUGE, -HUGE))],
)
def test_whole_numbers_have_64_bits(value: int, fits: bool) -> None:
    assert is_number(value) is fits
    assert is_whole(value) is fits


def test_nothing_is_a_template_while_the_task_runs() -> None:
    with everything_known():
        assert not known_at_run_time(TEMPLATE)
        assert not known_at_run_time(Reference())
    assert known_at_run_time(TEMPLATE)


@given(ANYTHING)
def test_durations_are_positive_numbers_or_none(value: object) -> None:
    fits = is_number(value) and 0 < value <= LONGEST_SECONDS
    for none_allowed in (True, False):
        if fits or (value is None and none_allowed):
            check_duration("timeout", value, none_allowed=none_allowed)
            continue
        with pytest.raises(InvalidArgumentError) as caught:
            check_duration("timeout", value, none_allowed=none_allowed)
        assert (caught.value.field, caught.value.value) == ("timeout", value) or value != value
        rule = "Use a positive number of seconds up to 1,000,000,000"
        assert caught.value.rule == rule + (", or None." if none_allowed else ".")


@pytest.mark.parametrize("value", [0, 0.0, -1, 10**9 + 1, 1e300, HUGE, *NOT_NUMBERS])
def test_what_is_not_a_duration(value: object) -> None:
    with pytest.raises(InvalidArgumentError):
        check_duration("timeout", value, none_allowed=False)


def test_flags_are_true_or_false() -> None:
    check_flag("force", True)
    check_flag("force", False)
    for value in (0, 1, None, "True", TEMPLATE):
        with pytest.raises(InvalidArgumentError, match=r"^Invalid value for force: .*\. Use True or False\.$"):
            check_flag("force", value)


@given(ANYTHING, st.integers(-5, 5), st.one_of(st.none(), st.integers(-5, 5)))
def test_whole_numbers_are_within_their_bounds(value: object, low: int, high: int | None) -> None:
    if is_whole(value) and low <= value and (high is None or value <= high):
        check_whole("count", value, low, high, "Use another number.")
        return
    with pytest.raises(InvalidArgumentError) as caught:
        check_whole("count", value, low, high, "Use another number.")
    assert (caught.value.field, caught.value.rule) == ("count", "Use another number.")


def test_whole_numbers_may_be_templates() -> None:
    check_whole("count", TEMPLATE, 1, 2, "Use 1 or 2.")


@pytest.mark.parametrize("value", ["", "   ", "\n", 1, b"text", ["text"]])
def test_texts_are_non_empty_strings(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Use a non-empty string\.$"):
        check_text("name", value)


def test_texts_may_be_missing_unless_required() -> None:
    check_text("name", "text", required=True)
    check_text("name", TEMPLATE, required=True)
    check_text("name", None)
    with pytest.raises(InvalidArgumentError, match="^Invalid value for name: None"):
        check_text("name", None, required=True)


@pytest.mark.parametrize("value", ["", "B", "ab", "a\n", 1, ["a"]])
def test_texts_match_their_pattern_as_a_whole(value: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_match("name", value, re.compile("[a-z]"), "Use a letter.")
    assert (caught.value.field, caught.value.value, caught.value.rule) == ("name", value, "Use a letter.")


def test_matched_texts_may_be_missing_unless_required() -> None:
    pattern = re.compile("[a-z]")
    check_match("name", "a", pattern, "Use a letter.", required=True)
    check_match("name", TEMPLATE, pattern, "Use a letter.", required=True)
    check_match("name", None, pattern, "Use a letter.")
    with pytest.raises(InvalidArgumentError):
        check_match("name", None, pattern, "Use a letter.", required=True)


def test_only_a_string_is_one_of_several() -> None:
    choices = {"low": 1, "high": 2}
    assert is_one_of("low", choices)
    assert not any(is_one_of(value, choices) for value in ("LOW", "", None, 1, ["low"], {"low": 1}, {"low"}, object()))
