"""50,000 odd answers at all entry points of the clients."""

from __future__ import annotations

import pytest

from tests.support.answer_fuzz import CALLS, fuzz


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_fifty_thousand_answers_give_typed_errors_and_show_no_secret() -> None:
    result = await fuzz(15, 50_000)
    print(f"{result.answers} answers at {len(CALLS)} entry points, longest {result.longest:.2f} s:", result.outcomes)
    assert (result.untyped, result.shown) == ([], [])
    assert result.answers >= 50_000
