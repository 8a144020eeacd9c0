"""Whatever a wait ends with, its event can be sent and stored, and its errors show no repr."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings

from airflow_provider_vertex_ray.errors import JobFailedError, NotStorableError, VertexRayError
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.triggers.base import LONGEST_MESSAGE, WaitTrigger, result_of
from tests.core.test_storable import TEXT, VALUES
from tests.support.stored import stored
from tests.support.tasks import context_of, run_task


class Ends(WaitTrigger):
    def __init__(self, end: Any) -> None:
        super().__init__()
        self.end = end

    async def wait(self) -> dict[str, Any]:
        if isinstance(self.end, Exception):
            raise self.end
        return {"value": self.end}


class HeadersError(Exception):
    """As aiohttp's errors, whose repr has the request's headers."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __repr__(self) -> str:
        return "HeadersError('Authorization: Bearer ya29.secret')"

    def __str__(self) -> str:
        return self.text


class Hands(VertexRayBaseOperator):
    """Returns what it is given, in the worker or after a deferral."""

    def __init__(self, *, value: Any, deferrable: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value, self.deferrable = value, deferrable

    def execute(self, context: Any) -> Any:
        return self.value if not self.deferrable else self.execute_complete(context, {"value": self.value})

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        return event["value"]


def event_of(end: Any) -> dict[str, Any]:
    return asyncio.run(Ends(end).outcome())


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_every_result_gives_an_event_that_can_be_stored(value: Any) -> None:
    event = event_of(value)
    assert stored(event) == event
    if event["status"] == "success":
        assert set(result_of(event)) == {"value"}
    else:
        with pytest.raises(NotStorableError, match="64 bits"):
            result_of(event)


@settings(max_examples=60, deadline=None)
@given(TEXT, VALUES)
def test_every_error_gives_an_event_that_can_be_stored(text: str, value: Any) -> None:
    for error in (JobFailedError(text, {"result": value, "exit_code": 3}), ValueError(text), HeadersError(text)):
        event = event_of(error)
        assert stored(event) == event
        assert "ya29" not in str(event)
    event = event_of(JobFailedError(text, {"result": value, "exit_code": 3}))
    with pytest.raises(JobFailedError) as caught:
        result_of(event)
    assert caught.value.details["exit_code"] == 3


def test_long_messages_are_cut() -> None:
    with pytest.raises(VertexRayError) as caught:
        result_of(event_of(VertexRayError("x" * 10_000_000)))
    assert len(caught.value.message) < LONGEST_MESSAGE + 100


def test_large_results_fail_their_task_alone() -> None:
    event = event_of(["x" * 1000] * 1000)
    with pytest.raises(NotStorableError, match=r"result has more than 524,288 bytes"):
        result_of(event)


@pytest.mark.parametrize("deferrable", [False, True])
def test_what_operators_return_passes_the_same_gate(deferrable: bool) -> None:
    def run(value: Any) -> Any:
        operator = Hands(task_id="hands", value=value, deferrable=deferrable)
        return operator.execute(context_of(operator))

    assert run({"a\x00": [float("nan"), "\ud800"], "__classname__": 1}) == {
        "a\ufffd": [None, "\ufffd"],
        "_classname__": 1,
    }
    with pytest.raises(NotStorableError, match=r"result\['seed'\].*64 bits"):
        run({"seed": 2**64})
    operator = Hands(task_id="hands", value="\x00", deferrable=deferrable)
    assert run_task(operator) == "\ufffd"
