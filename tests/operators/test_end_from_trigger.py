"""Which deferred tasks end in the triggerer, which in a worker, and what their logs say about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.decorators.job import vertex_ray_task
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators import end_from_trigger
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from airflow_provider_vertex_ray.operators.end_from_trigger import TRIED_FROM, task_end
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.sensors.cluster import VertexRayClusterSensor
from tests.operators.builders import submit_job
from tests.support.clusters import start
from tests.support.tasks import TaskInstance, context_of, deferral_of, round_trip, run_task

COMMON: dict[str, Any] = {"task_id": "t", "cluster_id": "shared", "location": "us-central1", "deferrable": True}
TRIED = end_from_trigger._version() >= TRIED_FROM
BY_WORKER = "A worker ends this task"


pytestmark = pytest.mark.skipif(not TRIED, reason="There, workers end tasks unless the user wants it otherwise.")


def nothing(*arguments: Any, **more: Any) -> None: ...


def submit(**more: Any) -> VertexRaySubmitJobOperator:
    return VertexRaySubmitJobOperator(entrypoint="true", **{**COMMON, **more})


def decided(task: Any, *, map_index: int = -1) -> dict[str, Any] | None:
    return task._task_end(context_of(task, TaskInstance(task.task_id, map_index=map_index)))  # type: ignore[no-any-return]


def test_a_job_ends_in_the_triggerer(task_log: list[str]) -> None:
    assert decided(submit()) == {
        "returns": "job",
        "push": True,
        "multiple_outputs": False,
        "failures": True,
        "skips": True,
        "skip_on_exit_code": [],
        "link_facts": None,
    }
    found = decided(submit(do_xcom_push=False, skip_on_exit_code=[3]))
    assert found is not None
    assert (found["push"], found["skip_on_exit_code"]) == (False, [3])
    assert task_log == []


def test_a_function_ends_in_the_triggerer(task_log: list[str]) -> None:
    @vertex_ray_task(**COMMON)
    def one() -> int:
        return 1

    @vertex_ray_task(**{**COMMON, "task_id": "several"})
    def several() -> dict[str, int]:
        return {"a": 1}

    for function, multiple in ((one, False), (several, True)):
        found = decided(function().operator)
        assert found is not None
        assert (found["returns"], found["multiple_outputs"]) == ("function", multiple)
    assert task_log == []


class OwnEnd(VertexRaySubmitJobOperator):
    def execute_complete(self, context: Any, event: Any = None) -> Any:
        return super().execute_complete(context, event)["result"]


class OwnPostExecute(VertexRaySubmitJobOperator):
    def post_execute(self, context: Any, result: Any = None) -> None: ...


class OwnStart(VertexRaySubmitJobOperator):
    def execute(self, context: Any) -> Any:
        return super().execute(context)


def own(kind: type, **more: Any) -> Callable[[], Any]:
    return lambda **given: kind(**{"entrypoint": "true", **COMMON, **more, **given})  # type: ignore[misc]


def bigquery(**more: Any) -> VertexRayBigQueryOperator:
    return VertexRayBigQueryOperator(source_table="p.d.s", target_table="d.t", **{**COMMON, **more})


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (own(OwnEnd), "OwnEnd finishes its tasks with code of its own"),
        (bigquery, "VertexRayBigQueryOperator finishes its tasks with code of its own"),
        (own(OwnPostExecute), "post_execute"),
        (lambda **more: submit(post_execute=nothing, **more), "post_execute"),
    ],
)
def test_a_worker_runs_the_code_of_the_task(made: Any, reason: str, task_log: list[str]) -> None:
    for wanted in (None, True):
        assert decided(made(end_from_trigger=wanted)) is None
    assert len(task_log) == 2
    assert all(line.startswith(BY_WORKER) and reason in line for line in task_log)


def test_a_subclass_with_another_start_ends_in_the_triggerer() -> None:
    assert decided(own(OwnStart)()) is not None


def test_a_worker_counts_the_result_that_another_task_is_expanded_over(task_log: list[str]) -> None:
    with DAG("dag", schedule=None) as dag:
        shards = submit()
        submit_each = VertexRaySubmitJobOperator.partial(**{**COMMON, "task_id": "each"})
        submit_each.expand(entrypoint=shards.output)
    assert decided(dag.get_task("t"), map_index=-1) is None
    assert "expanded" in task_log[0]
    # The tasks that are expanded themselves, and what follows them, are not counted by their results.
    assert decided(dag.get_task("t"), map_index=3) is not None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"outlets": [Asset("gs://bucket/x")]}, "outlets"),
        ({"on_success_callback": nothing}, "on_success_callback"),
    ],
)
def test_a_worker_does_what_airflow_does_only_there(more: dict[str, Any], reason: str, task_log: list[str]) -> None:
    assert decided(submit(**more)) is None
    assert [line.startswith(BY_WORKER) and reason in line for line in task_log] == [True]
    assert decided(submit(end_from_trigger=True, **more)) is not None
    assert "end_from_trigger is True" in task_log[1]
    assert reason in task_log[1]
    assert decided(submit(end_from_trigger=False, **more)) is None
    assert len(task_log) == 2


def listener(name: str) -> Any:
    try:
        from airflow.sdk._shared.listeners import hookimpl
    except ImportError:
        from airflow.listeners import hookimpl

    def called(previous_state: Any, task_instance: Any) -> None: ...

    called.__name__ = name
    return type("Lineage", (), {name: staticmethod(hookimpl(called))})()


@pytest.mark.parametrize(("name", "matters"), [("on_task_instance_success", True), ("on_task_instance_running", False)])
def test_a_worker_notifies_listeners(name: str, matters: bool, task_log: list[str]) -> None:
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:
        from airflow.listeners.listener import get_listener_manager
    manager = get_listener_manager()
    made = listener(name)
    manager.add_listener(made)
    try:
        assert (decided(submit()) is None) is matters
    finally:
        manager.pm.unregister(made)
    assert ["listener" in line for line in task_log] == [True] * matters
    assert decided(submit()) is not None


def test_a_custom_xcom_backend_stays_in_workers(monkeypatch: pytest.MonkeyPatch, task_log: list[str]) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "company.xcom.BucketXCom")
    assert decided(submit()) is None
    assert "company.xcom.BucketXCom" in task_log[0]


@pytest.mark.parametrize(
    "more",
    [
        {"on_failure_callback": nothing},
        {"on_retry_callback": nothing},
        {"email": "somebody@example.com"},
        pytest.param({"fail": True}, id="a DAG that fails fast"),
    ],
)
def test_a_worker_ends_failed_tasks_that_somebody_hears_of(more: dict[str, Any], task_log: list[str]) -> None:
    fails_fast = more.pop("fail", False)
    name = "fail_fast" if hasattr(DAG("other", schedule=None), "fail_fast") else "fail_stop"
    with DAG("dag", schedule=None, **({name: True} if fails_fast else {})):
        found = decided(submit(**more))
    assert found is not None
    assert found["failures"] is False
    assert task_log == []


def test_a_worker_skips_where_a_callback_wants_to_know() -> None:
    found = decided(submit(on_skipped_callback=nothing))
    assert found is not None
    assert found["skips"] is False


def test_sensors_succeed_in_the_triggerer_and_fail_in_a_worker() -> None:
    sensor = VertexRayClusterSensor(**COMMON)
    found = task_end(sensor, context_of(sensor), None, failures=False)
    assert found is not None
    assert (found["returns"], found["failures"]) == ("wait", False)


@pytest.mark.parametrize("made", [submit, lambda **more: VertexRayClusterSensor(**COMMON, **more)])
def test_a_malformed_wish_is_refused(made: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="end_from_trigger"):
        made(end_from_trigger="yes")


def test_the_trigger_carries_the_decision(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    trigger = deferral_of(submit_job("sleep 600", deferrable=True)).trigger
    assert round_trip(trigger).serialize()[1]["end"]["returns"] == "job"
    without = deferral_of(submit_job("sleep 600", task_id="other", deferrable=True, end_from_trigger=False)).trigger
    assert round_trip(without).serialize()[1]["end"] is None


def test_a_job_that_nobody_waits_for_says_nothing(fake_emulator: EmulatorProcess, task_log: list[str]) -> None:
    start(fake_emulator)
    run_task(submit_job(deferrable=False, outlets=[Asset("gs://bucket/x")]))
    assert not [line for line in task_log if BY_WORKER in line]
