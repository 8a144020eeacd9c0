"""Run many short jobs in a real Airflow with two worker slots, and measure what Airflow itself costs for each.

The jobs sleep on an emulator without Ray, so that all the processor time is Airflow's. Beside them: as many empty
tasks and as many that only wait in the triggerer, which is what Airflow itself costs, many jobs as one task, and the
Google provider's operator. Fewer of its jobs are run, as each holds its slot until it ends. The variable
``BENCH_JOBS`` sets the number of jobs.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.clusters import INSTANT, Bench, bench
from benchmarks.report import Figure, print_figures
from devtools.airflow_stack import AirflowStack
from devtools.dag_run_report import RUNNING, DagRunReport
from tests.support.registered import registered

JOBS = int(os.environ.get("BENCH_JOBS", "40"))
PEER_JOBS = max(JOBS // 4, 1)
JOBS_OF_ONE_TASK = 200
ACTIVE_AT_ONCE = 50
JOB_SECONDS = 2
SLOTS = 2
TIMEOUT = 120.0 + 10.0 * JOBS
REST_SECONDS = 8.0
REPOSITORY = Path(__file__).resolve().parent.parent
GOAL_SLOTS = 3.5
"""Seconds for which a job may hold a worker slot."""

GOAL_END = 1.5
"""Seconds from a job's end to its task's success."""

DAGS = """
import datetime
import time

from benchmarks.bare_trigger import BareTrigger

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.jobs import VertexRaySubmitJobsOperator

START = datetime.datetime(2026, 1, 1)


class Empty(BaseOperator):
    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context):
        pass


class Bare(Empty):
    def execute(self, context):
        end = time.time() + {seconds}
        context["ti"].xcom_push(key="return_value", value=dict(end_time=end * 1000))
        self.defer(trigger=BareTrigger(end), method_name="never")


with DAG("bench_bare", schedule=None, start_date=START):
    Bare.partial(task_id="job").expand(number=list(range({jobs})))

with DAG("bench_empty", schedule=None, start_date=START):
    Empty.partial(task_id="job").expand(number=list(range({jobs})))

with DAG("bench_ours", schedule=None, start_date=START):
    VertexRaySubmitJobOperator.partial(
        task_id="job", cluster_id={cluster!r}, poll_interval=2, deferrable=True
    ).expand(entrypoint=["sleep {seconds}"] * {jobs})

with DAG("bench_one_task", schedule=None, start_date=START):
    VertexRaySubmitJobsOperator(
        task_id="job", cluster_id={cluster!r}, poll_interval=2, deferrable=True, max_active={active},
        jobs=[dict(entrypoint="sleep {seconds}")] * {jobs_of_one_task},
    )
"""
PEER_DAG = """
import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator

with DAG("bench_google", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    RaySubmitJobOperator.partial(
        task_id="job", cluster_address={dashboard!r}, wait_for_job_done=True
    ).expand(entrypoint=["sleep {seconds}"] * {jobs})
"""


@dataclass(frozen=True)
class Cost:
    """What the jobs of one DAG run cost.

    :param jobs: number of jobs.
    :param seconds: seconds that the run took.
    :param slot_seconds: seconds for which a job held a worker slot.
    :param cpu: processor seconds of Airflow's processes for each job, what they do at rest left out.
    :param ends: seconds from each job's end to its task's success.
    """

    jobs: int
    seconds: float
    slot_seconds: float
    cpu: float
    ends: tuple[float, ...] = ()

    @property
    def per_minute(self) -> float:
        """Tasks a minute."""
        return 60 * self.jobs / self.seconds


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time of processes, and of those of their children that have ended."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        # utime, stime, and both of the children that were waited for.
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _airflow_cpu(airflow: AirflowStack) -> float:
    return sum(cpu_seconds(airflow.processes(each.name)) for each in airflow.settings.components)


def at_rest_of(airflow: AirflowStack) -> float:
    """Return the processor seconds that Airflow uses each second without any task."""
    before, begun = _airflow_cpu(airflow), time.monotonic()
    time.sleep(REST_SECONDS)
    return (_airflow_cpu(airflow) - before) / (time.monotonic() - begun)


def measure(airflow: AirflowStack, dag_id: str, jobs: int, at_rest: float) -> Cost:
    """Run one DAG to its end.

    :param airflow: a running Airflow.
    :param dag_id: the DAG; its task ``job`` runs the jobs.
    :param jobs: number of jobs.
    :param at_rest: processor seconds that this Airflow uses each second without any task.
    :raises RuntimeError: if the run does not succeed.
    """
    airflow.wait_for_dags([dag_id], TIMEOUT)
    before, begun = _airflow_cpu(airflow), time.monotonic()
    report = airflow.run_dag(dag_id, timeout=TIMEOUT)
    cpu = _airflow_cpu(airflow) - before - at_rest * (time.monotonic() - begun)
    if report.state != "success":
        raise RuntimeError(f"{dag_id} ended as {report.state}:\n{report.log_text('job', 0)[-3000:]}")
    return Cost(jobs, report.seconds, report.seconds_in(RUNNING, ["job"]) / jobs, cpu / jobs, _ends(report))


def _ends(report: DagRunReport) -> tuple[float, ...]:
    found = []
    for task in report.instances("job"):
        result = report.xcoms.get(("job", task.map_index))
        if isinstance(result, dict) and result.get("end_time") and task.end is not None:
            end = task.end if task.end.tzinfo else task.end.replace(tzinfo=timezone.utc)
            found.append((end - datetime.fromtimestamp(result["end_time"] / 1000, timezone.utc)).total_seconds())
    return tuple(found)


def run() -> Iterator[Figure]:
    """Run the empty tasks, ours in both ways, and the Google provider's, one after the other in one Airflow."""
    # The Google provider recognises a Vertex AI address by its bare host name.
    with bench((*INSTANT, "--dashboard-addresses", "google")) as where, _airflow(where) as airflow:
        airflow.wait_for_dags(["bench_empty", "bench_bare", "bench_ours", "bench_one_task"], TIMEOUT)
        at_rest = at_rest_of(airflow)
        bare = measure(airflow, "bench_bare", JOBS, at_rest)
        empty = measure(airflow, "bench_empty", JOBS, at_rest)
        ours = measure(airflow, "bench_ours", JOBS, at_rest)
        beside = "an empty task"
        yield Figure("slot seconds of a job", ours.slot_seconds, "s", "goal", GOAL_SLOTS, 1.0)
        yield Figure("slot seconds of a job", ours.slot_seconds, "s", beside, empty.slot_seconds)
        yield Figure("CPU seconds of Airflow for a job", ours.cpu, "s", beside, empty.cpu)
        what = f"tasks a minute with {SLOTS} slots"
        yield Figure(what, ours.per_minute, "", "empty tasks", empty.per_minute, more_is_better=True)
        if not ours.ends:
            raise RuntimeError("The tasks did not return when their jobs ended.")
        ends, what_ends = statistics.median(ours.ends), "end of a job to its task's success, median"
        yield Figure(what_ends, ends, "s", "goal", GOAL_END, 1.0)
        yield Figure(what_ends, ends, "s", "a bare trigger", statistics.median(bare.ends))
        beside = "a task with a bare trigger"
        yield Figure("slot seconds of a job", ours.slot_seconds, "s", beside, bare.slot_seconds)
        yield Figure("CPU seconds of Airflow for a job", ours.cpu, "s", beside, bare.cpu)
        one_task = measure(airflow, "bench_one_task", JOBS_OF_ONE_TASK, at_rest)
        many, beside = f"{JOBS_OF_ONE_TASK} jobs as one task: ", "a mapped task each"
        yield Figure(f"{many}slot seconds of a job", one_task.slot_seconds, "s", beside, ours.slot_seconds, 1.0)
        yield Figure(f"{many}CPU seconds of Airflow for a job", one_task.cpu, "s", beside, ours.cpu, 1.0)
        yield Figure(f"{many}jobs a minute", one_task.per_minute, "", beside, ours.per_minute, 1.0, more_is_better=True)
        google = measure(airflow, "bench_google", PEER_JOBS, at_rest)
        beside = "Google provider's"
        yield Figure("slot seconds of a job", ours.slot_seconds, "s", beside, google.slot_seconds, 1.0)
        yield Figure("CPU seconds of Airflow for a job", ours.cpu, "s", beside, google.cpu, 1.0)
        yield Figure(what, ours.per_minute, "", beside, google.per_minute, 1.0, more_is_better=True)


@contextmanager
def _airflow(where: Bench) -> Iterator[AirflowStack]:
    # What leads the Google provider's SDK to the emulator; our hooks need only the address.
    variables = {**where.emulator.sdk_environment, **where.emulator.airflow_environment}
    with airflow_with(where.folder, dag_files(where.cluster, where.dashboard_uri), variables) as airflow:
        yield airflow


@contextmanager
def airflow_with(folder: Path, files: Mapping[str, str], variables: Mapping[str, str]) -> Iterator[AirflowStack]:
    """Start an Airflow of this environment with two worker slots.

    :param folder: a folder for everything that it writes.
    :param files: content of each DAG file by its name.
    :param variables: variables for its processes.
    """
    dags = folder / "bench_dags"
    dags.mkdir()
    for name, text in files.items():
        (dags / name).write_text(text)
    path = registered(folder / "registered")
    airflow = AirflowStack(
        folder / "stack",
        dag_folders=[dags],
        slots=SLOTS,
        environment=variables,
        python_path=[REPOSITORY, *filter(None, [path])],
    )
    airflow.start(timeout=TIMEOUT)
    try:
        yield airflow
    finally:
        airflow.stop()


def dag_files(cluster: str, dashboard_uri: str) -> dict[str, str]:
    """Return the DAG files of the empty tasks, of our operators and of the Google provider's."""
    sizes = {"jobs": JOBS, "jobs_of_one_task": JOBS_OF_ONE_TASK, "active": ACTIVE_AT_ONCE}
    return {
        "ours.py": DAGS.format(**sizes, seconds=JOB_SECONDS, cluster=cluster),
        "google.py": PEER_DAG.format(jobs=PEER_JOBS, seconds=JOB_SECONDS, dashboard=dashboard_uri),
    }


def main() -> int:
    """Measure and print the figures."""
    print(f"{JOBS} jobs of {JOB_SECONDS} s in a real Airflow with {SLOTS} slots; {PEER_JOBS} of the Google provider's.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
