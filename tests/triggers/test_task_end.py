"""A task that ends in the triggerer has the state, the result and the message that a worker would have given it."""

from __future__ import annotations

import datetime
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

from airflow_provider_vertex_ray.decorators.job import vertex_ray_task
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    JobFailedError,
    JobLostError,
    JobStoppedError,
    JobTimeoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.remote.values import encode
from airflow_provider_vertex_ray.sensors.cluster import VertexRayClusterSensor
from airflow_provider_vertex_ray.triggers import task_end
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.task_end import (
    FUNCTION,
    JOB,
    WAIT,
    TaskEnd,
    WorkerNeededError,
    ending_of,
)
from tests.support.tasks import context_of, round_trip

COMMON: dict[str, Any] = {"cluster_id": "shared", "location": "us-central1", "deferrable": True}
PASSED = {"cluster_id": "shared", "dashboard_url": "https://d", "adopted": False}
SKIPPING = 99


def job(result: Any = None) -> dict[str, Any]:
    return {"submission_id": "job", "status": "SUCCEEDED", "exit_code": 0, "logs_tail": ["a"], "result": result}


def done(result: Any = None, **passed: Any) -> dict[str, Any]:
    return {"status": "success", "result": job(result), "passthrough": {**PASSED, **passed}}


def wrong(error: VertexRayError, **passed: Any) -> dict[str, Any]:
    return {"status": "error", "error": error.to_dict(), "passthrough": {**PASSED, **passed}}


def failed(result: Any = None, code: int = 1) -> dict[str, Any]:
    details = {"submission_id": "job", "exit_code": code, "result": result}
    return wrong(JobFailedError(f"Ray job job failed with exit code {code}: no", details))


RAISED = {"type": "ValueError", "message": "no", "traceback": "Traceback …\nValueError: no"}
AT_ONCE = {**RAISED, "airflow": "AirflowFailException"}
VALUES = [
    *(1, 2.5, "text", True, None, [], {}, {"a": [1, None]}, [1, 2], {1, 2}, (1, "a"), b"bytes", 2**63),
    {"shape": (2, 3), "on": datetime.date(2025, 1, 1)},
    datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc),
]
ODD = [float("inf"), "a\x00b", {"__type": 1}, 2**70]
"""Values that a cluster sends, and Airflow cannot store as they are."""


def operator(kind: str) -> Any:
    if kind == JOB:
        return VertexRaySubmitJobOperator(task_id="t", entrypoint="x", skip_on_exit_code=SKIPPING, **COMMON)
    if kind == WAIT:
        return VertexRayClusterSensor(task_id="t", **COMMON)

    @vertex_ray_task(task_id="t", skip_on_exit_code=SKIPPING, **COMMON)
    def function() -> None: ...

    return function().operator


def by_worker(kind: str, payload: dict[str, Any]) -> tuple[str, Any]:
    """The state, and the result or the message, of the task that a worker resumes with a stored payload."""
    task = operator(kind)
    try:
        return "success", task.execute_complete(context_of(task), json.loads(json.dumps(payload)))
    except AirflowSkipException as skip:
        return "skipped", str(skip)
    except Exception as error:
        return "failed", error


def by_trigger(kind: str, payload: dict[str, Any], **more: Any) -> Any:
    wanted: dict[str, Any] = {"push": True, "failures": True, "skips": True, "skip_on_exit_code": (SKIPPING,), **more}
    stored = json.loads(json.dumps(TaskEnd(kind, **wanted).to_json()))
    return ending_of(json.loads(json.dumps(payload)), TaskEnd(**stored))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        *((JOB, done(value)) for value in (None, 1, {"a": 1})),
        *((FUNCTION, done({"value": encode(value, "it")})) for value in VALUES),
        *((FUNCTION, done({"value": value})) for value in ODD),
        (FUNCTION, done({"skipped": "nothing to do"})),
        *((FUNCTION, done(result)) for result in (None, 3, {}, {"value": {"__vertex_ray_type__": "what"}})),
        *((kind, failed(code=code)) for kind in (JOB, FUNCTION) for code in (1, SKIPPING)),
        (FUNCTION, failed({"error": RAISED})),
        *((JOB, wrong(kind("no", {}))) for kind in (JobStoppedError, JobLostError, JobTimeoutError)),
        *((FUNCTION, wrong(kind("no", {}))) for kind in (JobStoppedError, JobLostError, JobTimeoutError)),
        (WAIT, {"status": "success", "result": {"cluster_id": "shared", "state": "RUNNING"}}),
        (WAIT, wrong(ClusterFailedError("no", {}))),
    ],
)
def test_the_end_is_what_a_worker_makes_of_it(kind: str, payload: dict[str, Any]) -> None:
    state, found = by_worker(kind, payload)
    ending = by_trigger(kind, payload)
    assert ending.state == state
    if state == "success":
        assert ending.xcoms == ({} if found is None else {"return_value": found})
        assert repr(ending.xcoms.get("return_value")) == repr(found)
    else:
        assert ending.xcoms == {}
        assert ending.message == (found if state == "skipped" else f"{type(found).__name__}: {found}")


def test_a_worker_ends_what_only_it_can_end() -> None:
    needed = [
        # Airflow does not retry it; an event of a trigger cannot say that.
        (FUNCTION, failed({"error": AT_ONCE}), {}),
        # The next attempt has to be submitted.
        (JOB, wrong(JobStoppedError("stopped", {}), adopted=True), {}),
        (FUNCTION, wrong(JobStoppedError("stopped", {}), adopted=True), {}),
        (FUNCTION, done({"path": "gs://bucket/results/job.json"}), {}),
        # Airflow raises a TypeError.
        (FUNCTION, done({"value": 3}), {"multiple_outputs": True}),
        # The operator said that somebody has to be told.
        (JOB, failed(), {"failures": False}),
        (JOB, failed(code=SKIPPING), {"skips": False}),
        (FUNCTION, done({"skipped": "nothing to do"}), {"skips": False}),
    ]
    for kind, payload, more in needed:
        with pytest.raises(WorkerNeededError):
            by_trigger(kind, payload, **more)
    assert isinstance(by_worker(FUNCTION, failed({"error": AT_ONCE}))[1], AirflowFailException)


def test_each_output_is_pushed_where_the_task_wants_it() -> None:
    payload = done({"value": encode({"a": 1, "b": (2,)}, "it")})
    assert by_trigger(FUNCTION, payload, multiple_outputs=True).xcoms == {
        "a": 1,
        "b": (2,),
        "return_value": {"a": 1, "b": (2,)},
    }
    assert by_trigger(FUNCTION, payload, multiple_outputs=True, push=False).xcoms == {}


class Ended(WaitTrigger):
    """A wait that is over."""

    async def wait(self) -> dict[str, Any]:
        return dict(self.arguments["found"])


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What Airflow says of the task, and which XComs it is given."""
    said = SimpleNamespace(state="deferred", xcoms=[], broken=False)

    async def task_state(ti: Any) -> Any:
        return said.state

    async def push_xcom(ti: Any, key: str, value: Any) -> None:
        if said.broken:
            raise ConnectionError("the API server is gone")
        said.xcoms.append((ti.run_id, key, value))

    monkeypatch.setattr(task_end, "task_state", task_state)
    monkeypatch.setattr(task_end, "push_xcom", push_xcom)
    return said


async def event_of(end: dict[str, Any] | None, *, trigger_id: int | None = 7, result: Any = None) -> Any:
    trigger = round_trip(Ended(found=result or job({"value": 1}), passthrough=PASSED, end=end))
    trigger.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="t", map_index=-1, id="id")
    trigger.trigger_id = trigger_id
    (event,) = [each async for each in trigger.run()]
    return event


END = TaskEnd(FUNCTION, push=True, failures=True, skips=True).to_json()


async def test_the_result_is_stored_before_the_event(airflow: Any) -> None:
    event = await event_of(END)
    assert type(event) is TaskSuccessEvent
    # Airflow would store it as a JSON text.
    assert event.xcoms is None
    assert airflow.xcoms == [("run", "return_value", 1)]


async def test_a_wait_that_was_handed_over_ends_its_task_once(airflow: Any) -> None:
    """Both triggerers store the same; once the task has ended or was cleared, nothing is stored."""
    await event_of(END)
    await event_of(END)
    assert airflow.xcoms == [("run", "return_value", 1)] * 2
    for airflow.state in ("success", "failed", "running", None):
        event = await event_of(END)
        # Airflow gives it to nobody: no task is deferred with this trigger any more.
        assert event.payload["status"] == "success"
    assert len(airflow.xcoms) == 2


async def test_a_worker_resumes_the_task_otherwise(airflow: Any) -> None:
    for event in (
        await event_of(None),
        # As ``dag.test()`` runs it.
        await event_of(END, trigger_id=None),
        # Of another version of this package, during an update.
        await event_of({**END, "new": 1}),
    ):
        assert event.payload == {"status": "success", "result": job({"value": 1}), "passthrough": PASSED}
    assert airflow.xcoms == []
    airflow.broken = True
    assert (await event_of(END)).payload["status"] == "success"


async def test_failures_and_skips_end_with_their_event(airflow: Any) -> None:
    assert type(await event_of(END, result=job({"skipped": "nothing"}))) is TaskSkippedEvent
    assert type(await event_of(END, result=job(3))) is TaskFailedEvent
    assert airflow.xcoms == []


async def test_a_sensor_completes_its_links(airflow: Any) -> None:
    facts = {"project_id": "p", "location": "l", "cluster_id": "c", "nothing": None}
    end = TaskEnd(WAIT, push=True, link_facts=facts).to_json()
    await event_of(end, result={"cluster_id": "c", "dashboard_url": "https://d.example"})
    stored = {key: value for _, key, value in airflow.xcoms}
    assert stored.pop(LINK_KEY) == {
        "project_id": "p",
        "location": "l",
        "cluster_id": "c",
        "dashboard_uri": "d.example",
    }
    assert stored.pop("return_value")["cluster_id"] == "c"
    assert set(stored.values()) <= {"https://d.example/"}
