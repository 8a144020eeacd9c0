"""20,000 odd arguments for all operators and sensors, and a sample of them in the ordinary tests."""

from __future__ import annotations

import pytest

from tests.support.input_fuzz import InputFuzz, connected
from tests.test_operator_contract import CLASSES, MINIMAL, build, parameters


@pytest.mark.parametrize("inputs", [150, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_odd_arguments_give_typed_errors_before_any_call(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {name: sorted(parameters(kind)) for name, kind in CLASSES.items()}
    templated = {name: list(kind.template_fields) for name, kind in CLASSES.items()}
    with connected(monkeypatch) as service:
        result = InputFuzz(inputs, build, fields, templated, MINIMAL).run(service, inputs)
    print(f"{result.inputs} inputs of {len(CLASSES)} classes:", result.outcomes)
    assert (result.untyped, result.late, result.unserialisable, result.shown) == ([], [], [], [])
    assert result.outcomes["InvalidArgumentError"] > inputs / 3
