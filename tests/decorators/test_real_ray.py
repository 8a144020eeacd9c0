"""``@task.vertex_ray`` on a real Ray: what the stand-in of the other tests can not prove."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from emulator_support.process import PATIENCE, EmulatorProcess

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.decorators.job import vertex_ray_task
from airflow_provider_vertex_ray.errors import JobFailedError, VertexRayTaskError
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator
from tests.conftest import use
from tests.support.clusters import LOCATION, jobs_of
from tests.support.modules import load_module
from tests.support.tasks import TaskInstance, context_of, deferral_of, first_event, round_trip, run_task

pytestmark = pytest.mark.ray

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"
SPEC = ClusterSpec(
    head_node_type=Resources("n1-standard-16"), worker_node_types=[Resources("n1-standard-4", node_count=2)]
)
COMMON: dict[str, Any] = {"cluster_id": "real", "location": LOCATION, "deferrable": False, "poll_interval": 0.5}
INPUTS = 6


@pytest.fixture(scope="module")
def cluster(ray_process: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """With a running cluster ``real``."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(ray_process, monkeypatch)
        run_task(VertexRayCreateClusterOperator(task_id="create", spec=SPEC, **COMMON))
        yield ray_process


def run(function: Any, *args: Any, **decorator: Any) -> Any:
    """Decorate, call and run."""
    called: Any = vertex_ray_task(**{**COMMON, "job_timeout": PATIENCE, **decorator})(function)
    return run_task(called(*args).operator)


def line_of(text: str) -> int:
    (found,) = [n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.strip() == text]
    return found


def example(name: str) -> ModuleType:
    return load_module(name, EXAMPLES / f"{name}.py", register=False)


def squares(count: int, word: str = "ü") -> dict[str, Any]:
    import os
    from dataclasses import dataclass

    import ray

    @dataclass
    class Box:
        number: int

    def doubled(box: Box) -> int:
        return 2 * box.number

    @ray.remote
    def square(box: Box) -> Box:
        return Box(doubled(box) ** 2 // 4)

    @ray.remote
    class Adder:
        def __init__(self) -> None:
            self.total = 0

        def add(self, *boxes: Box) -> int:
            self.total += sum(box.number for box in boxes)
            return self.total

    adder = Adder.remote()  # type: ignore[attr-defined]
    total = ray.get(adder.add.remote(*[square.remote(Box(n)) for n in range(count)]))
    print("as in any job")
    return {"total": total, "word": word, "variable": os.environ["A_VARIABLE"], "nodes": len(ray.nodes())}


def prints_latin_1() -> int:
    import subprocess

    subprocess.run(["printf", r"caf\351\n"], check=True)
    return 42


def test_output_that_is_not_utf8_does_not_lose_the_result(cluster: EmulatorProcess) -> None:
    assert run(prints_latin_1) == 42


def large_seed() -> dict[str, int]:
    return {"seed": 2**127 + 1}


def test_a_result_that_airflow_cannot_store_is_refused_on_the_cluster(cluster: EmulatorProcess) -> None:
    with pytest.raises(VertexRayTaskError, match=r"(?s)seed.*64 bits"):
        run(large_seed)


def test_ray_is_there_and_takes_what_is_defined_inside(cluster: EmulatorProcess) -> None:
    result = run(squares, 10, env_vars={"A_VARIABLE": "set"})
    assert result == {"total": 285, "word": "ü", "variable": "set", "nodes": 3}


SHAPE = (2, 3)


def as_people_write_it(shape: tuple[int, int], **context: Any) -> Any:
    """Connects again, leaves its output closed, and goes by the types of its values."""
    import sys

    import ray
    from airflow.exceptions import AirflowSkipException

    ray.init()

    @ray.remote
    def skips() -> None:
        raise AirflowSkipException("not today")

    try:
        ray.get(skips.remote())
    except Exception as error:
        reason = str(error.cause)  # type: ignore[attr-defined]
    sys.stdout.close()
    return {"same": shape == SHAPE, "size": (*shape, len(ray.nodes()) > 0), "reason": reason, "run": context["run_id"]}


def test_function_as_people_write_it(cluster: EmulatorProcess) -> None:
    called: Any = vertex_ray_task(**{**COMMON, "job_timeout": PATIENCE})(as_people_write_it)
    operator = called((2, 3)).operator
    found = run_task(operator, context_of(operator, TaskInstance("odd"), run_id="manual"))
    assert found == {"same": True, "size": (2, 3, True), "reason": "not today", "run": "manual"}


def skips() -> None:
    from airflow.exceptions import AirflowSkipException

    raise AirflowSkipException("nothing to do")


def leaves_with_code() -> None:
    import sys

    sys.exit(99)


def test_skips(cluster: EmulatorProcess) -> None:
    with pytest.raises(AirflowSkipException, match="nothing to do"):
        run(skips)
    with pytest.raises(AirflowSkipException, match="exit code 99"):
        run(leaves_with_code, skip_on_exit_code=99)


def uses_helper(n: int) -> Any:
    import helper_of_the_job  # type: ignore[import-not-found]

    return [helper_of_the_job.twice(n), helper_of_the_job.__file__.rpartition("/")[2]]


@pytest.mark.parametrize("way", ["working_dir", "py_modules"])
def test_modules_travel_with_it(cluster: EmulatorProcess, tmp_path: Path, way: str) -> None:
    folder = tmp_path / ("helper_of_the_job" if way == "py_modules" else "work")
    folder.mkdir()
    file = folder / ("__init__.py" if way == "py_modules" else "helper_of_the_job.py")
    file.write_text("def twice(n):\n    return 2 * n\n")
    given = {"working_dir": str(folder)} if way == "working_dir" else {"py_modules": [str(folder)]}
    assert run(uses_helper, 4, **given) == [8, file.name]


def fails_on_a_worker(n: int) -> None:
    import ray

    @ray.remote
    def divide(k: int) -> float:
        return n / k  # on a worker

    ray.get(divide.remote(0))  # in the driver


def test_the_remote_traceback_has_the_dags_lines(cluster: EmulatorProcess) -> None:
    with pytest.raises(VertexRayTaskError) as caught:
        run(fails_on_a_worker, 3)
    error = caught.value
    assert (error.details["type"], error.details["message"]) == ("ZeroDivisionError", "division by zero")
    text = str(error)
    for function, line in (("fails_on_a_worker", "ray.get(divide.remote(0))  # in the driver"),
                           ("divide", "return n / k  # on a worker")):  # fmt: skip
        assert f'File "{__file__}", line {line_of(line)}, in {function}\n    {line}' in text
    # Nothing of Ray's own, nor of ours.
    assert text.count('  File "') == 2
    assert text.endswith("ZeroDivisionError: division by zero")
    assert error.details["exit_code"] == 1


def large(size: int) -> list[str]:
    return ["é" * size]


@pytest.mark.soak
def test_a_large_result(cluster: EmulatorProcess, tmp_path: Path) -> None:
    with pytest.raises(VertexRayTaskError, match=r"600,015 bytes as JSON, and at most 49,152 .*\s*Set result_path"):
        run(large, 100_000)
    assert run(large, 100_000, result_path=f"file://{tmp_path}/results") == ["é" * 100_000]
    (file,) = (tmp_path / "results").iterdir()
    # Named as the job.
    assert file.name.removesuffix(".json") in jobs_of(cluster, "real")
    assert json.loads(file.read_bytes()) == ["é" * 100_000]


def test_a_result_that_just_fits_a_line(cluster: EmulatorProcess) -> None:
    size = 48 * 1024 - len('{"value": [""]}')
    fits: list[str] = run(_letters, size)
    assert fits == ["x" * size]


def _letters(size: int) -> list[str]:
    return ["x" * size]


def leaves() -> None:
    import os

    os._exit(0)


def test_a_function_that_never_returns(cluster: EmulatorProcess) -> None:
    with pytest.raises(VertexRayTaskError, match="without returning the function's result"):
        run(leaves)


def never_runs() -> None:
    return None


def test_an_environment_that_can_not_be_made(cluster: EmulatorProcess) -> None:
    with pytest.raises(JobFailedError) as caught:
        run(never_runs, runtime_env={"conda": "no-such-environment"})
    assert not isinstance(caught.value, VertexRayTaskError)


@pytest.mark.soak  # In the ordinary tests a real Airflow runs it.
def test_the_example_mapped_over_several_inputs(cluster: EmulatorProcess) -> None:
    """All wait at once, as in a triggerer, and each goes on in an operator that knows nothing of the first."""
    module = example("example_vertex_ray_functions")
    ranges = module.make_ranges.function(params={"limit": 10_000, "inputs": INPUTS})
    assert len(ranges) == INPUTS
    mapped = module.dag.get_task("longest_chain")

    def instance(place: int) -> tuple[Any, Any]:
        operator = mapped.unmap({"op_kwargs": {"numbers": ranges[place]}})
        operator.cluster_id, operator.location, operator.poll_interval = "real", LOCATION, 2.0
        return operator, context_of(operator, TaskInstance("longest_chain", map_index=place))

    waiting = [deferral_of(*instance(place)) for place in range(INPUTS)]

    async def events() -> list[dict[str, Any]]:
        return await asyncio.gather(*(first_event(round_trip(each.trigger)) for each in waiting))

    found = []
    for place, event in enumerate(asyncio.run(events())):
        operator, context = instance(place)
        found.append(operator.execute_complete(context, event))
    assert len(found) == INPUTS

    summary = module.dag.get_task("summarize")
    assert summary.multiple_outputs
    answer = run(summary.python_callable, found, "10000")
    assert answer == {"number": 6_171, "steps": 261, "limit": 10_000, "run_id": None}
    module.check.function(answer["number"], answer["steps"], params={"limit": 10_000})


@pytest.mark.soak  # In the ordinary tests a real Airflow runs it.
def test_the_training_example(cluster: EmulatorProcess) -> None:
    module = example("example_vertex_ray_train_branch")
    train = module.dag.get_task("train")
    train.cluster_id, train.location, train.deferrable = "real", LOCATION, False
    params = {"least_accuracy": 0.9, "epochs": 5}
    job = run_task(train, context_of(train, params=params))
    assert job["result"]["flowers"] == 150
    assert job["result"]["learning_rate"] == 0.03
    assert 0.9 < job["result"]["accuracy"] <= 1
    assert module.judge.function(job, params=params) == "accept_model"
    assert module.judge.function(job, params={"least_accuracy": 0.99}) == "reject_model"
    assert module.accept_model.function(job)["accepted"]
    assert not module.reject_model.function(job)["accepted"]
