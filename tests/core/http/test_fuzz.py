"""A sample of the long fuzz in tests/soak: whatever comes in gives an answer or a typed error, and shows no secret."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.answer_fuzz import CALLS, fuzz


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
async def test_any_answer_gives_a_typed_error_and_shows_no_secret(seed: int) -> None:
    result = await fuzz(seed, 150)
    assert (result.untyped, result.shown) == ([], [])
    assert sum(result.outcomes.values()) >= len(CALLS) / 2
    assert result.outcomes["answer"] < sum(result.outcomes.values())
