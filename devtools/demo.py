"""``make demo``: the emulator with a real Ray, a real Airflow, and an example DAG from create to delete.

Exit code 0 only when all is right: the run and each of its tasks succeeded, the answer is the published one, the
cluster is deleted, and no process is left.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.airflow_stack import AirflowStack, AirflowStackError
from devtools.demo_dags import DEMOS, Demo
from devtools.demo_report import Progress, cluster_life, say, task_table
from devtools.emulator_process import Emulator, EmulatorError
from devtools.process_keeper import LeftoverProcessesError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from devtools.dag_run_report import DagRunReport

REPOSITORY = Path(__file__).resolve().parent.parent
LOCATION = "us-central1"
"""The region of the example DAGs, whose clusters the page shows."""

SLOTS = 2
RUN_SECONDS = 600.0
# The first time that BigQuery is asked for, its emulator is installed.
EMULATOR_SECONDS = 600.0


def problems(demo: Demo, report: DagRunReport, left: Sequence[str], *, deleted: bool) -> list[str]:
    """Everything that is not as it should be; empty when all is right.

    :param left: what the emulator still has of clusters and endpoints.
    :param deleted: whether the cluster was to be deleted.
    """
    found = []
    if report.state != "success":
        found.append(f"the DAG run is {report.state}")
    allowed = {"success"} if deleted else {"success", "skipped"}
    found += [
        f"{task.name} is {task.state}"
        for task in report.tasks
        if task.state not in allowed and not (task.task_id in demo.not_taken and task.state == "skipped")
    ]
    found += [f"{task} ran no job" for task in demo.job_tasks if not report.instances(task)]
    found += demo.wrong(report)
    if deleted and left:
        found.append(f"these were not deleted: {', '.join(left)}")
    if deleted and not any(t.task_id == "delete_cluster" and t.state == "success" for t in report.tasks):
        found.append("the cluster's deletion did not succeed")
    return found


def summarise(demo: Demo, report: DagRunReport, emulator: Emulator, *, keep: bool) -> list[str]:
    """Print the summary; return what is wrong."""
    left = [*(cluster["id"] for cluster in emulator.clusters()), *emulator.serving()]
    say(f"\n== Summary: the DAG run is {report.state} after {report.seconds:.0f} s\n")
    for line in task_table(report):
        say(line)
    say()
    for line in demo.preflight(report):
        say(line)
    say()
    for line in [*demo.slots(report, SLOTS), *demo.answer(report)]:
        say(line)
    created = report.xcoms.get(("create_cluster", -1))
    if created:
        life = cluster_life(created, emulator.calls("DeletePersistentResource"))
        if life.seconds is not None and life.node_hours is not None:
            say(
                f"Cluster {life.cluster_id}: {life.nodes} nodes for {life.seconds:.0f} s"
                f" = {life.node_hours:.4f} node-hours."
            )
        else:
            say(f"Cluster {life.cluster_id}: {life.nodes} nodes, not deleted.")
    say("Left in the emulator: " + (", ".join(left) or "nothing"))
    wrong = problems(demo, report, left, deleted=not keep)
    for task in report.tasks:
        if task.state == "failed":
            say(f"\n-- Log of {task.name}, its end:")
            say(report.log_text(task.task_id, task.map_index)[-3000:])
    return wrong


def hold(demo: Demo, emulator: Emulator, airflow: AirflowStack, home: Path) -> None:
    """Print the addresses and wait for Ctrl-C."""
    say("\n== Kept running")
    say(f"Airflow:        {airflow.web_url}/dags/{demo.dag_id}   (no login: everybody on this machine is admin)")
    if airflow.settings.major >= 3:
        say(f"Ray clusters:   {airflow.web_url}/plugin/ray-clusters")
    for cluster in emulator.clusters():
        say(f"Ray dashboard:  {cluster['dashboard_url']}   (cluster {cluster['id']})")
    say(f"Emulator:       VERTEX_RAY_EMULATOR_HOST={emulator.host}")
    say(f"Logs and state: {home}")
    say("Stop everything with Ctrl-C.")
    while True:
        signal.pause()


def run(demo: Demo, keep: bool, home: Path) -> list[str]:
    """Start both services, run the DAG, and stop everything; return what is wrong."""
    begun = time.monotonic()
    shutil.rmtree(home, ignore_errors=True)
    emulator = Emulator(home / "emulator", demo.emulator_arguments)
    airflow: AirflowStack | None = None
    wrong: list[str] = []
    try:
        seconds = emulator.start(EMULATOR_SECONDS)
        say(f"Emulator of Vertex AI on {emulator.host}, ready after {seconds:.1f} s")
        say("Starting Airflow: API server, scheduler, triggerer (20 to 40 s on two processors) ...")
        airflow = AirflowStack(
            home / "airflow",
            dag_folders=[REPOSITORY / "example_dags"],
            slots=SLOTS,
            environment={**emulator.airflow_environment, "AIRFLOW__VERTEX_RAY__PAGE_LOCATIONS": LOCATION},
            python_path=[REPOSITORY],
        )
        seconds = airflow.start()
        say(f"Airflow with {SLOTS} worker slots on {airflow.web_url}, healthy after {seconds:.0f} s")
        say(f"\n== DAG {demo.dag_id}\n")
        conf: dict[str, Any] = {"delete_cluster": not keep} if demo.can_keep else {}
        report = airflow.run_dag(demo.dag_id, conf=conf, timeout=RUN_SECONDS, on_progress=Progress())
        wrong += summarise(demo, report, emulator, keep=keep and demo.can_keep)
        if keep and not wrong:
            with contextlib.suppress(KeyboardInterrupt):
                hold(demo, emulator, airflow, home)
    except (AirflowStackError, EmulatorError) as error:
        wrong.append(str(error))
    finally:
        say("\nStopping everything ...")
        for service in (airflow, emulator):
            try:
                if service is not None:
                    service.stop()
            except LeftoverProcessesError as error:
                wrong.append(str(error))
    say(f"All processes have ended; {time.monotonic() - begun:.0f} s in all. Logs and state: {home}")
    return wrong


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; the exit code is 0 when all is right, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m devtools.demo", description=__doc__)
    parser.add_argument("--dag", choices=sorted(DEMOS), default=next(iter(DEMOS)), help="the DAG that is run")
    parser.add_argument("--keep", action="store_true", help="leave everything up until Ctrl-C")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".demo", help="folder for logs and state")
    arguments = parser.parse_args()
    # To be ended by SIGTERM, as CI does it, must clean up just like Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        wrong = run(DEMOS[arguments.dag], arguments.keep, arguments.home.resolve())
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    for problem in wrong:
        say(f"WRONG: {problem}")
    say("The demo has failed." if wrong else "All is right.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
