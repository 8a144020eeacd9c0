"""A class that travels as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.function.class_source import class_payload
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import load

FACTOR = 3
helper_value = 4


class Scaler:
    """Multiplies."""

    kind: str = "scaler"

    def __init__(self, plus: int, sizes: list[int] | None = None) -> None:
        import math

        self.plus = math.floor(plus)
        self.sizes = sizes or []

    def __call__(self, batch: list[int], minus: int = 0) -> list[int]:
        def one(value: int) -> int:
            return value * FACTOR + self.plus - minus

        return [one(value) for value in batch]


def test_it_is_the_same_class_on_the_other_side() -> None:
    payload = json.loads(json.dumps(class_payload(Scaler)))
    kind: Any = load(payload)
    assert payload["constants"] == {"FACTOR": 3}
    assert kind.__name__ == "Scaler"
    # Ray pickles it by value.
    assert kind.__module__ == "__main__"
    assert kind(1)([1, 2], minus=2) == Scaler(1)([1, 2], minus=2)


def test_a_class_within_a_function_travels_too() -> None:
    class Inner:
        def __call__(self, batch: int) -> int:
            return batch + 1

    kind: Any = load(class_payload(Inner))
    assert kind()(1) == 2


def test_names_that_are_not_sent_are_reported() -> None:
    class Uses:
        def __call__(self, batch: Any) -> Any:
            return batch + helper_value

    class Imports:
        def __call__(self, batch: Any) -> Any:
            return json.dumps(batch)

    class Inherits(Scaler):
        pass

    for kind, text in ((Uses, "helper_value"), (Imports, "json"), (Inherits, "base class")):
        with pytest.raises(InvalidArgumentError, match=text):
            class_payload(kind)


def test_a_class_without_source_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="source cannot be read"):
        class_payload(type("Made", (), {}))
