"""``@task.vertex_ray`` in DAGs: parsed, mapped, serialised, and run on a cluster without Ray."""

from __future__ import annotations

import datetime
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
    setup,
    task,
    teardown,
)
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.function.module import task_module
from airflow_provider_vertex_ray.decorators.job import _VertexRayDecoratedOperator, vertex_ray_task
from airflow_provider_vertex_ray.errors import InvalidArgumentError, JobFailedError, JobStoppedError, VertexRayTaskError
from airflow_provider_vertex_ray.remote.runner import load
from airflow_provider_vertex_ray.remote.values import decode, encode
from tests.support.clusters import LOCATION, jobs_of, start
from tests.support.tasks import context_of, deferral_of, run_task

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
PATTERN = re.compile("x")
COMMON: dict[str, Any] = {"cluster_id": "shared", "location": LOCATION, "poll_interval": 0.05, "deferrable": False}


def dag(**more: Any) -> DAG:
    return DAG(dag_id="functions", schedule=None, start_date=START, **more)


def add(x: int, y: int = 2) -> int:
    """Adds."""
    return x + y


def anything(*args: Any, **kwargs: Any) -> Any:
    return [args, kwargs]


def operator(function: Any = add, *args: Any, decorator: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """The operator of a call of a decorated function."""
    arguments = {**COMMON, **(decorator or {})}
    return vertex_ray_task(**arguments)(function)(*args, **kwargs).operator  # type: ignore[operator]


def sent(task_operator: Any, **context: Any) -> dict[str, Any]:
    """The payload as it is sent, JSON included."""
    found = context_of(task_operator, **context)
    task_operator.render_template_fields(found)
    return dict(json.loads(json.dumps(task_operator._payload(found))))


# --- in a DAG -------------------------------------------------------------------------------------------------------


def test_airflow_knows_the_decorator() -> None:
    with dag() as made:

        @task.vertex_ray(**COMMON, multiple_outputs=True)
        def total(x: int) -> dict[str, int]:
            return {"total": x}

        total(1)
    (found,) = made.tasks
    assert isinstance(found, _VertexRayDecoratedOperator)
    assert (found.task_id, found.custom_operator_name, found.multiple_outputs) == ("total", "@task.vertex_ray", True)
    assert sent(found)["args"] == [1]


def test_without_arguments_and_with_the_dags_defaults() -> None:
    with dag(default_args={"cluster_id": "of-the-dag", "location": LOCATION, "retries": 3}) as made:

        @task.vertex_ray
        def total(x: int) -> int:
            return x

        total(1)
    (found,) = made.tasks
    assert (found.cluster_id, found.retries, found.multiple_outputs) == ("of-the-dag", 3, False)


on_ray = vertex_ray_task(**COMMON)


@on_ray  # type: ignore[arg-type]
@functools.singledispatch
def wrapped(x: int) -> list[int]:
    return [x]


def test_a_name_of_its_own_for_the_decorator_and_one_below_it() -> None:
    payload = sent(wrapped(1).operator)
    assert payload["imports"] == [["functools", "functools", ""]]
    assert load(payload)(1) == [1]


def test_set_up_and_teardown() -> None:
    with dag() as made:

        @setup
        @task.vertex_ray(**COMMON)
        def before() -> int:
            return 1

        @teardown
        @task.vertex_ray(**COMMON)
        def after() -> None:
            return None

        before() >> after()
    assert made.get_task("before").is_setup
    assert made.get_task("after").is_teardown
    assert load(sent(made.get_task("before")))() == 1


def test_mapped_with_partial_and_templates() -> None:
    with dag() as made:

        @task.vertex_ray(**COMMON)
        def scaled(x: int, scale: str, extra: int = 3) -> Any:
            return [x, scale, extra]

        scaled.partial(scale="{{ word }}").expand(x=[1, 2, 3])
    mapped = made.get_task("scaled")
    assert mapped.operator_class is _VertexRayDecoratedOperator
    again = mapped.unmap({"op_kwargs": {"x": 2}})
    payload = sent(again, word="twice")
    assert (payload["kwargs"], payload["defaults"]) == ({"x": 2, "scale": "twice"}, {"extra": 3})
    assert load(payload)(**payload["kwargs"]) == [2, "twice", 3]


def test_another_tasks_result_as_argument() -> None:
    with dag() as made:

        @task
        def upstream() -> int:
            return 1

        first = vertex_ray_task(**COMMON)(add)(upstream(), y=upstream.override(task_id="other")())  # type: ignore
        vertex_ray_task(**COMMON, task_id="third")(add).expand(x=upstream.override(task_id="many")())  # type: ignore
    assert made.get_task("add").upstream_task_ids == {"upstream", "other"}
    assert made.get_task("third").upstream_task_ids == {"many"}
    assert first.operator.task_id == "add"


def test_a_dag_with_it_is_serialised() -> None:
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized  # type: ignore
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized

    with dag() as made:
        operator(add, 1, decorator={"result_path": "gs://bucket/{{ ds }}"})
        vertex_ray_task(**COMMON, task_id="mapped")(add).expand(x=[1, 2])  # type: ignore[attr-defined]
    data = json.dumps(Serialized.to_dict(made))
    assert "@task.vertex_ray" in data
    again = Serialized.from_dict(json.loads(data))
    assert set(again.task_ids) == {"add", "mapped"}
    assert "op_kwargs" in again.get_task("add").template_fields
    assert again.get_task("add").operator_extra_links


# --- arguments ------------------------------------------------------------------------------------------------------


def test_arguments_are_rendered_and_made_json() -> None:
    found = operator(
        anything, (1, "{{ word }}"), when=START, deep={"a": ["{{ word }}", {"b": START.date()}]}, none=None
    )
    payload = sent(found, word="rendered")
    assert decode(payload["args"]) == [(1, "rendered")]
    # The function takes everything, so it gets what there is of the context.
    assert decode(payload["kwargs"]) == {
        "when": START,
        "deep": {"a": ["rendered", {"b": START.date()}]},
        "none": None,
    }


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((object(),), {}, "Invalid value for argument args[0]: 'object'"),
        ((1, [float("nan")]), {}, "Invalid value for argument args[1][0]: 'float'"),
        ((), {"rows": [{"x": PATTERN}]}, "Invalid value for argument rows[0]['x']: 're.Pattern'"),
    ],
)
def test_what_is_no_json_fails_the_dag(args: Any, kwargs: Any, path: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        operator(anything, *args, **kwargs)
    assert path in str(caught.value)


def test_what_turns_out_to_be_no_json_fails_the_task() -> None:
    found = operator(anything, value="{{ thing }}")
    found.op_kwargs = {"value": [object()]}
    with pytest.raises(InvalidArgumentError, match=r"Invalid value for argument value\[0\]: 'object'"):
        found._payload(context_of(found))


def named(ds: Any, run_id: Any = None, *, params: Any = None, logical_date: Any = None, x: int = 1) -> Any:
    return [ds, run_id, params, logical_date, x]


def test_airflows_context_where_it_is_json() -> None:
    context = {"ds": "2026-01-01", "run_id": "r", "params": {"n": 1}, "logical_date": START, "ti": object()}
    context.pop("ti")
    payload = sent(operator(named), **context)
    assert decode(payload["kwargs"]) == {"ds": "2026-01-01", "run_id": "r", "params": {"n": 1}, "logical_date": START}
    assert sent(operator(named, "own", run_id="mine"))["kwargs"] == {
        "run_id": "mine",
        "params": None,
        "logical_date": None,
    }
    # A function that takes everything gets all that can be sent.
    assert decode(sent(operator(anything, a=1, run_id="mine"), **context)["kwargs"]) == {
        **context,
        "a": 1,
        "run_id": "mine",
    }


def test_the_rest_of_airflows_context_does_not_leave_it() -> None:
    def with_ti(ti: Any = None) -> Any:
        return ti

    with pytest.raises(InvalidArgumentError, match="'ti'. This key of Airflow's context cannot be sent to the cluster"):
        operator(with_ti)


def test_the_number_of_arguments_is_airflows_to_judge() -> None:
    with pytest.raises(TypeError, match="too many positional"):
        operator(add, 1, 2, 3)
    with pytest.raises(TypeError, match="missing"):
        operator(add)


def test_entrypoint_is_not_for_the_user() -> None:
    with pytest.raises(InvalidArgumentError, match="entrypoint"):
        operator(add, 1, decorator={"entrypoint": "true"})


@pytest.mark.parametrize("path", ["results", "/tmp/results", "gs://", "://x", 3, ""])
def test_a_wrong_result_path(path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="result_path"):
        operator(add, 1, decorator={"result_path": path})


def test_a_result_path_is_rendered_and_then_judged() -> None:
    found = operator(add, 1, decorator={"result_path": "{{ folder }}"})
    assert sent(found, folder="gs://bucket/x")["result_path"] == "gs://bucket/x"
    found = operator(add, 1, decorator={"result_path": "{{ folder }}"})
    with pytest.raises(InvalidArgumentError, match="result_path"):
        sent(found, folder="nowhere")


def test_what_can_not_travel_fails_the_dag() -> None:
    def broken() -> Any:
        return START

    def closed() -> Any:
        return common

    common = object()
    with pytest.raises(InvalidArgumentError, match="UPPER_CASE") as caught:
        operator(closed)
    assert f"{__file__}:" in str(caught.value)
    # A date is a constant that can.
    assert decode(sent(operator(broken))["constants"]) == {"START": START}


# --- the job --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With a running cluster ``shared``, whose jobs do nothing."""
    start(fake_emulator)
    return fake_emulator


@pytest.mark.parametrize("deferrable", [False, True])
def test_what_is_submitted(shared: EmulatorProcess, tmp_path: Path, deferrable: bool) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    found = operator(
        add,
        1,
        decorator={
            "deferrable": deferrable,
            "runtime_env": {"py_modules": [str(tmp_path / "mine")], "env_vars": {"A": "1"}},
            # Is for folders, not for what is sent of the function.
            "excludes": ["*.py"],
            "wait_for_completion": False,
        },
    )
    run_task(found)
    (job,) = jobs_of(shared, "shared").values()
    name, _ = task_module(found._payload(context_of(found)))
    assert job["entrypoint"] == f"python -m {name}"
    environment = job["runtime_env"]
    assert environment["env_vars"] == {"A": "1"}
    assert [uri.partition("://")[0] for uri in environment["py_modules"]] == ["gcs", "gcs"]
    assert (found.py_modules, list(found.runtime_env)) == (None, ["py_modules", "env_vars"])


def test_it_defers(shared: EmulatorProcess) -> None:
    deferral = deferral_of(operator(add, 1, decorator={"deferrable": True}))
    assert deferral.method_name == "execute_complete"


def done(result: Any, **more: Any) -> dict[str, Any]:
    return {"status": "success", "result": {"submission_id": "job", "result": result, **more}, "passthrough": {}}


def failed(result: Any) -> dict[str, Any]:
    error = JobFailedError("failed", {"submission_id": "job", "result": result, "exit_code": 1})
    return {"status": "error", "error": error.to_dict(), "passthrough": {}}


def complete(event: dict[str, Any], **decorator: Any) -> Any:
    found = operator(add, 1, decorator=decorator)
    return found.execute_complete(context_of(found), json.loads(json.dumps(event)))


@pytest.mark.parametrize("value", [1, None, [1], {"value": 2}, {"error": 3}, "text"])
def test_the_value_is_what_the_task_returns(value: Any) -> None:
    assert complete(done({"value": value})) == value


def test_types_of_the_result_are_those_of_the_function() -> None:
    value = {"shape": (2, 3), "on": START, "seen": {1}}
    assert complete(done({"value": encode(value, "it")})) == value
    with pytest.raises(VertexRayTaskError, match="cannot be read"):
        complete(done({"value": {"__vertex_ray_type__": "function", "value": 1}}))


def test_skip_and_fail_of_the_function() -> None:
    with pytest.raises(AirflowSkipException, match="nothing to do"):
        complete(done({"skipped": "nothing to do"}))
    error = {"type": "AirflowFailException", "message": "no", "traceback": "tb: no", "airflow": "AirflowFailException"}
    with pytest.raises(AirflowFailException, match="tb: no"):
        complete(failed({"error": error}))
    with pytest.raises(AirflowSkipException, match="exit code 1"):
        complete(failed(None), skip_on_exit_code=[1, 2])


@pytest.mark.parametrize("code", ["99", 0, 256, True, [1, "2"], {"a": 1}])
def test_wrong_exit_code_fails_the_dag(code: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="skip_on_exit_code"):
        operator(add, 1, decorator={"skip_on_exit_code": code})


@pytest.mark.parametrize("result", [None, 3, {}, {"other": 1}, {"path": 3}])
def test_a_job_without_the_functions_result(result: Any) -> None:
    with pytest.raises(VertexRayTaskError, match="without returning the function's result"):
        complete(done(result))


def test_a_stored_result_is_read(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"a": [1]}')
    event = done({"path": f"file://{tmp_path}/job.json"})
    assert complete(event, result_path=f"file://{tmp_path}") == {"a": [1]}
    assert complete(event, result_path=f"file://{tmp_path}/") == {"a": [1]}


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/hostname.json", "{}/../x.json", "{}/a/../../x", "{}x/a.json"])
def test_the_cluster_does_not_choose_what_is_read_here(tmp_path: Path, path: str) -> None:
    with pytest.raises(VertexRayTaskError, match="not directly below result_path"):
        complete(done({"path": "file://" + path.format(tmp_path)}), result_path=f"file://{tmp_path}")
    with pytest.raises(VertexRayTaskError, match="not directly below result_path"):
        complete(done({"path": f"file://{tmp_path}/x.json"}))


def test_the_functions_error_is_the_tasks() -> None:
    told = {"type": "ValueError", "message": "no", "traceback": "Traceback …\nValueError: no\n"}
    with pytest.raises(VertexRayTaskError) as caught:
        complete(failed({"error": told}))
    assert str(caught.value) == "The function failed on the cluster (Ray job job):\nTraceback …\nValueError: no"
    assert caught.value.details == {"submission_id": "job", "exit_code": 1, **told}
    assert isinstance(caught.value, JobFailedError)


@pytest.mark.parametrize("result", [None, 1, {"value": 1}])
def test_other_failures_stay_what_they_are(result: Any) -> None:
    with pytest.raises(JobFailedError) as caught:
        complete(failed(result))
    assert type(caught.value) is JobFailedError
    stopped = {"status": "error", "error": JobStoppedError("stopped").to_dict(), "passthrough": {}}
    with pytest.raises(JobStoppedError):
        complete(stopped)


@pytest.mark.parametrize("deferrable", [False, True])
def test_next_attempt_runs_the_function_when_an_adopted_job_was_stopped(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    found = operator(add, 1, decorator={"deferrable": deferrable})
    again: list[dict[str, Any]] = []

    def wait(self: Any, context: Any, trigger: Any, deferrable: bool, method: str = "execute_complete") -> Any:
        again.append(trigger.serialize()[1])
        assert self.py_modules
        if deferrable:
            raise TaskDeferred(trigger=trigger, method_name=method)
        return self.execute_complete(context, done({"value": {"value": 7}}))

    monkeypatch.setattr(_VertexRayDecoratedOperator, "_wait", wait)
    event = {
        "status": "error",
        "error": JobStoppedError("stopped").to_dict(),
        "passthrough": {"adopted": True},
    }
    if deferrable:
        with pytest.raises(TaskDeferred):
            found.execute_complete(context_of(found), event)
    else:
        assert found.execute_complete(context_of(found), event) == {"value": 7}
    assert [arguments["passthrough"]["adopted"] for arguments in again] == [False]
    (job,) = jobs_of(shared, "shared").values()
    assert job["entrypoint"].startswith("python -m vertex_ray_task_")


def test_nothing_is_left_behind(shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(TaskDeferred):
        found = operator(add, 1, decorator={"deferrable": True})
        found.execute(context_of(found))
    with pytest.raises(Exception, match="nowhere"):
        run_task(operator(add, 1, decorator={"cluster_id": "nowhere"}))
    assert list(tmp_path.iterdir()) == []
