"""What jobs print on a real Ray, with websockets and without: it reaches the task, or one task fails, and no more."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, cluster_body

from airflow_provider_vertex_ray.core.job.client import JobRequest
from airflow_provider_vertex_ray.errors import JobFailedError, NotStorableError
from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.conftest import WITH_WEBSOCKETS, use
from tests.support.clusters import LOCATION, full_name
from tests.support.stored import stored
from tests.support.tasks import run_task

pytestmark = pytest.mark.ray

TAIL = "GET /api/jobs/*/logs/tail"


@pytest.fixture(scope="module")
def process() -> Iterator[EmulatorProcess]:
    """An emulator with websockets and a cluster."""
    with (
        tempfile.TemporaryDirectory(prefix="vre-") as folder,
        EmulatorProcess(Path(folder), WITH_WEBSOCKETS) as process,
    ):
        assert process.create("real", cluster_body(workers=1))["state"] == "RUNNING"
        yield process


@pytest.fixture
def cluster(process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> EmulatorProcess:
    use(process, monkeypatch)
    return process


@pytest.fixture(params=["websocket", "no websocket"])
def emulator(request: pytest.FixtureRequest, cluster: EmulatorProcess) -> Iterator[EmulatorProcess]:
    with ExitStack() as stack:
        if request.param == "no websocket":
            stack.enter_context(cluster.fault(scope="dashboard", method=TAIL, status=400, times=None))
        yield cluster


def outcome(entrypoint: str, **more: Any) -> tuple[dict[str, Any], list[str]]:
    """Run a job as a deferred task does; return its event and the lines of the task's log."""
    lines: list[str] = []

    async def run() -> dict[str, Any]:
        hook = VertexRayJobAsyncHook()
        job = f"job-{time.time_ns()}"
        async with hook.session():
            await hook.submit_job(full_name("real"), JobRequest(entrypoint, job, **more))
            trigger = VertexRayJobTrigger(cluster_name=full_name("real"), submission_id=job, poll_interval=1.0)
            trigger._emit = lines.append  # type: ignore[method-assign]
            return await trigger.outcome()

    return asyncio.run(run()), lines


def in_worker(entrypoint: str) -> dict[str, Any]:
    operator = VertexRaySubmitJobOperator(
        task_id=f"task-{time.time_ns()}",
        cluster_id="real",
        location=LOCATION,
        entrypoint=entrypoint,
        poll_interval=1.0,
        deferrable=False,
    )
    return dict(run_task(operator))


PRINTED = [
    pytest.param(r"printf 'a\0b\n'; echo 'VERTEX_RAY_RESULT 1'", 1, ["a\ufffdb"], id="01-nul"),
    pytest.param(r"""echo 'VERTEX_RAY_RESULT "a\u0000b"'""", "a\ufffdb", [], id="02-nul-in-result"),
    pytest.param(r"""echo 'VERTEX_RAY_RESULT "\ud800"'""", "\ufffd", [], id="lone-surrogate"),
    pytest.param(
        """echo 'VERTEX_RAY_RESULT {"loss": NaN, "best": Infinity, "far": 1e999, "n": 0.5}'""",
        {"loss": None, "best": None, "far": None, "n": 0.5},
        [],
        id="06-nan",
    ),
    pytest.param(
        """echo 'VERTEX_RAY_RESULT {"__classname__": "x.Y", "__version__": 1, "__data__": {"__type": "datetime"}}'""",
        {"_classname__": "x.Y", "_version__": 1, "_data__": {"_type": "datetime"}},
        [],
        id="classname",
    ),
    pytest.param(
        r"""printf 'one\ncaf\351\ntwo\n'; echo 'VERTEX_RAY_RESULT {"a": 1}'""",
        {"a": 1},
        ["one", "caf\ufffd", "two"],
        id="07-latin-1",
    ),
]


@pytest.mark.parametrize(("entrypoint", "result", "lines"), PRINTED)
def test_what_is_printed_arrives(emulator: EmulatorProcess, entrypoint: str, result: Any, lines: list[str]) -> None:
    event, shown = outcome(entrypoint)
    found = result_of(stored(event))
    assert found["result"] == result
    for place in (found["logs_tail"], shown):
        own = [line for line in place if "job_manager.py" not in line and not line.startswith("VERTEX_RAY")]
        assert own == lines


UNSTORABLE = [
    pytest.param(
        """echo 'VERTEX_RAY_RESULT {"seed": 18446744073709551616}'""", r"\['seed'\].*64 bits", id="03-64-bits"
    ),
    pytest.param(f"echo 'VERTEX_RAY_RESULT {'9' * 5000}'", "64 bits", id="5000-digits"),
    pytest.param(f"echo 'VERTEX_RAY_RESULT {'[' * 20_000}{']' * 20_000}'", "levels", id="deep"),
    pytest.param("python -c \"print('VERTEX_RAY_RESULT', '[' + '0,' * 30000 + '0]')\"", "bytes", id="large"),
]


@pytest.mark.parametrize(("entrypoint", "reason"), UNSTORABLE)
def test_what_cannot_be_stored_fails_its_task_alone(cluster: EmulatorProcess, entrypoint: str, reason: str) -> None:
    event, _ = outcome(entrypoint)
    with pytest.raises(NotStorableError, match=f"(?s)succeeded.*{reason}"):
        result_of(stored(event))
    with pytest.raises(NotStorableError, match=f"(?s)succeeded.*{reason}"):
        in_worker(entrypoint)


def test_a_failed_job_whose_output_is_not_utf8(emulator: EmulatorProcess) -> None:
    event, shown = outcome(r"printf 'one\ncaf\351\ntwo\n'; exit 3")
    with pytest.raises(JobFailedError, match=r"(?s)exit code 3.*one\n.*caf\ufffd\n.*two") as caught:
        result_of(stored(event))
    assert caught.value.details["exit_code"] == 3
    assert "caf\ufffd" in shown


# One of them among the ordinary tests, as most of the way is the same.
IN_WORKER = [*(pytest.param(*each.values, id=each.id, marks=pytest.mark.soak) for each in PRINTED[:-1]), PRINTED[-1]]


@pytest.mark.parametrize(("entrypoint", "result", "lines"), IN_WORKER)
def test_the_same_in_the_worker(cluster: EmulatorProcess, entrypoint: str, result: Any, lines: list[str]) -> None:
    found = in_worker(entrypoint)
    assert stored(found) == found
    assert found["result"] == result


NUMBERED = """python -c "
import sys, time
begin = time.time()
for number in range({count}):
    print('line %07d ' % number + 'x' * 105)
    while number / {count} > (time.time() - begin) / {seconds}:
        sys.stdout.flush()
        time.sleep(0.1)
print('VERTEX_RAY_RESULT', {count})
"
"""


@pytest.mark.parametrize(
    ("seconds", "identical"),
    [(0, False), *(pytest.param(*more, marks=pytest.mark.soak) for more in [(0, True), (20, False), (20, True)])],
)
def test_ninety_mebibytes_without_websockets(cluster: EmulatorProcess, seconds: int, identical: bool) -> None:
    count = 800_000
    entrypoint = NUMBERED.format(count=count, seconds=seconds or 0.001)
    if identical:
        entrypoint = entrypoint.replace(" % number", " % 0")
    cluster.admin("DELETE", "calls")
    with cluster.fault(scope="dashboard", method=TAIL, status=400, times=None):
        event, shown = outcome(entrypoint)
    found = result_of(stored(event))
    late = time.time() - found["end_time"] / 1000
    calls = Counter(call["method"].replace(found["submission_id"], "*") for call in cluster.calls())
    print(f"seconds {seconds}, identical {identical}: event {late:.2f} s after the end; {dict(calls)}")
    assert found["result"] == count
    own = [line for line in shown if line.startswith("line ")]
    assert len(own) == count
    assert identical or all(line.startswith(f"line {number:07} ") for number, line in enumerate(own))
    # Much of it was shown while the job ran, and the rest soon after; on a busy machine later.
    assert late < 250
