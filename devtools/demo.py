"""``make demo``: run an example DAG with a real Airflow on the emulator with a real Ray cluster, from create to delete.

The exit code is 0 only if the run and each of its tasks succeeded, the answer matches the published one, the cluster
was deleted, and no process is left.
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
from devtools.demo_report import Progress, cluster_life, task_table, write_line
from devtools.emulator_process import Emulator, EmulatorError
from devtools.process_keeper import LeftoverProcessesError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from devtools.dag_run_report import DagRunReport

REPOSITORY = Path(__file__).resolve().parent.parent
LOCATION = "us-central1"
"""Region of the example DAGs; the page shows its clusters."""

SLOTS = 2
RUN_SECONDS = 600.0
# BigQuery's emulator is installed at its first use.
EMULATOR_SECONDS = 600.0


def problems(demo: Demo, report: DagRunReport, left: Sequence[str], *, deleted: bool) -> list[str]:
    """Return everything that went wrong; empty if the demo succeeded.

    :param left: clusters and endpoints that still exist in the emulator.
    :param deleted: whether the cluster should have been deleted.
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
        found.append(f"not deleted: {', '.join(left)}")
    if deleted and not any(t.task_id == "delete_cluster" and t.state == "success" for t in report.tasks):
        found.append("the cluster's deletion did not succeed")
    return found


def summarise(demo: Demo, report: DagRunReport, emulator: Emulator, *, keep: bool) -> list[str]:
    """Print the summary; return everything that went wrong."""
    left = [*(cluster["id"] for cluster in emulator.clusters()), *emulator.serving()]
    write_line(f"\n== Summary: the DAG run is {report.state} after {report.seconds:.0f} s\n")
    for line in task_table(report):
        write_line(line)
    write_line()
    for line in demo.preflight(report):
        write_line(line)
    write_line()
    for line in [*demo.slots(report, SLOTS), *demo.answer(report)]:
        write_line(line)
    created = report.xcoms.get(("create_cluster", -1))
    if created:
        life = cluster_life(created, emulator.calls("DeletePersistentResource"))
        if life.seconds is not None and life.node_hours is not None:
            write_line(
                f"Cluster {life.cluster_id}: {life.nodes} nodes for {life.seconds:.0f} s"
                f" = {life.node_hours:.4f} node-hours."
            )
        else:
            write_line(f"Cluster {life.cluster_id}: {life.nodes} nodes, not deleted.")
    write_line("Left in the emulator: " + (", ".join(left) or "nothing"))
    wrong = problems(demo, report, left, deleted=not keep)
    for task in report.tasks:
        if task.state == "failed":
            write_line(f"\n-- End of the log of {task.name}:")
            write_line(report.log_text(task.task_id, task.map_index)[-3000:])
    return wrong


def hold(demo: Demo, emulator: Emulator, airflow: AirflowStack, home: Path) -> None:
    """Print the addresses of all services and wait for Ctrl-C."""
    write_line("\n== Kept running")
    write_line(f"Airflow:        {airflow.web_url}/dags/{demo.dag_id}   (no login; everybody on this machine is admin)")
    if airflow.settings.major >= 3:
        write_line(f"Ray clusters:   {airflow.web_url}/plugin/ray-clusters")
    for cluster in emulator.clusters():
        write_line(f"Ray dashboard:  {cluster['dashboard_url']}   (cluster {cluster['id']})")
    write_line(f"Emulator:       VERTEX_RAY_EMULATOR_HOST={emulator.host}")
    write_line(f"Logs and state: {home}")
    write_line("Press Ctrl-C to stop everything.")
    while True:
        signal.pause()


def run(demo: Demo, keep: bool, home: Path) -> list[str]:
    """Start both services, run the DAG, and stop everything; return everything that went wrong."""
    begun = time.monotonic()
    shutil.rmtree(home, ignore_errors=True)
    emulator = Emulator(home / "emulator", demo.emulator_arguments)
    airflow: AirflowStack | None = None
    wrong: list[str] = []
    try:
        seconds = emulator.start(EMULATOR_SECONDS)
        write_line(f"Emulator of Vertex AI on {emulator.host}, ready after {seconds:.1f} s")
        write_line("Starting Airflow: API server, scheduler, triggerer (20 to 40 s on two cores) ...")
        airflow = AirflowStack(
            home / "airflow",
            dag_folders=[REPOSITORY / "example_dags"],
            slots=SLOTS,
            environment={**emulator.airflow_environment, "AIRFLOW__VERTEX_RAY__PAGE_LOCATIONS": LOCATION},
            python_path=[REPOSITORY],
        )
        seconds = airflow.start()
        write_line(f"Airflow with {SLOTS} worker slots on {airflow.web_url}, healthy after {seconds:.0f} s")
        write_line(f"\n== DAG {demo.dag_id}\n")
        conf: dict[str, Any] = {"delete_cluster": not keep} if demo.can_keep else {}
        report = airflow.run_dag(demo.dag_id, conf=conf, timeout=RUN_SECONDS, on_progress=Progress())
        wrong += summarise(demo, report, emulator, keep=keep and demo.can_keep)
        if keep and not wrong:
            with contextlib.suppress(KeyboardInterrupt):
                hold(demo, emulator, airflow, home)
    except (AirflowStackError, EmulatorError) as error:
        wrong.append(str(error))
    finally:
        write_line("\nStopping everything ...")
        for service in (airflow, emulator):
            try:
                if service is not None:
                    service.stop()
            except LeftoverProcessesError as error:
                wrong.append(str(error))
    write_line(f"All processes have ended after {time.monotonic() - begun:.0f} s in total. Logs and state: {home}")
    return wrong


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; return 0 on success, 1 on failure, 130 after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m devtools.demo", description=__doc__)
    parser.add_argument("--dag", choices=sorted(DEMOS), default=next(iter(DEMOS)), help="DAG to run")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".demo", help="folder for logs and state")
    arguments = parser.parse_args()
    # SIGTERM, as sent by CI, must clean up like Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        wrong = run(DEMOS[arguments.dag], arguments.keep, arguments.home.resolve())
    except KeyboardInterrupt:
        write_line("Interrupted.")
        return 130
    for problem in wrong:
        write_line(f"FAILED: {problem}")
    write_line("The demo failed." if wrong else "The demo succeeded.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
