"""A real Airflow for the demo and the system tests: scheduler, triggerer, DAG processor and API server.

It runs the Airflow of this environment (3.x or 2.11), with Postgres and the LocalExecutor, in a folder of its own, on
127.0.0.1 only, and it cannot outlive this process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from devtools.airflow_api import OPENER, AirflowApi
from devtools.airflow_hostname import VARIABLE
from devtools.airflow_settings import AirflowSettings, Component
from devtools.dag_run_report import DagRunReport, count_states
from devtools.metadata_reader import MetadataReader
from devtools.postgres import Postgres
from devtools.process_group import freeze, kill_all, thaw
from devtools.process_keeper import ProcessKeeper
from devtools.process_tree import descendants

ProgressCallback = Callable[[DagRunReport], None]

_POLL_SECONDS = 0.25
# Airflow binds its port seconds after it was chosen. Linux gives these to no connection; the emulator's own end below
# them, and Ray Client's begin above. Each process begins somewhere else.
_PORTS = range(20_000, 23_000)
_chosen = itertools.count()


class AirflowStackError(RuntimeError):
    """Airflow did not do what was requested; the message has the end of the relevant log."""


class AirflowStack:
    """Start an Airflow, run DAGs in it, and end all of its processes.

    :param home: folder for everything it writes; its content is removed at the start.
    :param dag_folders: folders of DAG files.
    :param slots: number of tasks that may run at once; deferred tasks do not count.
    :param environment: variables for Airflow's processes, in addition to this process's own, such as
        ``AIRFLOW_CONN_…``.
    :param python_path: folders to import from in Airflow's processes.
    :param triggerers: number of triggerers: ``triggerer``, ``triggerer-2``, …
    :param health_seconds: seconds without a heartbeat after which a triggerer counts as dead; None: Airflow's 30 s.
    :param only: names of the components to run; None: all of them.
    :param users: role and password of each user by name, on Airflow 3; None: everybody is admin, without a login.
    """

    def __init__(
        self,
        home: Path,
        *,
        dag_folders: Sequence[Path],
        slots: int = 4,
        environment: Mapping[str, str] | None = None,
        python_path: Sequence[Path] = (),
        triggerers: int = 1,
        health_seconds: int | None = None,
        only: Sequence[str] | None = None,
        users: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self.settings = AirflowSettings(
            home.resolve(),
            slots,
            _free_port(),
            triggerers,
            health_seconds,
            only=None if only is None else tuple(only),
            users=users,
        )
        self._dag_folders = list(dag_folders)
        self._extra = dict(environment or {})
        self._python_path = list(python_path)
        self._environment: dict[str, str] = {}
        self._postgres: Postgres | None = None
        self._keeper: ProcessKeeper | None = None
        self._reader: MetadataReader | None = None
        self._pids: dict[str, int] = {}
        self._down: set[str] = set()
        self._once: set[str] = set()
        self._frozen: dict[str, list[int]] = {}
        self.api = AirflowApi(self.settings.web_url, self.settings.major)

    @property
    def web_url(self) -> str:
        """Address of the user interface; without ``users``, everybody on this machine is admin there."""
        return self.settings.web_url

    def start(self, timeout: float = 300.0) -> float:
        """Start all components and wait until they work; return the seconds that it took.

        :raises AirflowStackError: if a component ends, or does not work within ``timeout`` seconds.
        """
        begun, since = time.monotonic(), datetime.now(timezone.utc)
        shutil.rmtree(self.settings.home, ignore_errors=True)
        self.settings.write_files(self._dag_folders)
        self._keeper = ProcessKeeper()
        try:
            self._reader = MetadataReader(self._create_database(timeout))
            for component in self.settings.components:
                self._launch(component.name, component.arguments, component.grace)
            self._wait_until_healthy(self.settings.components, since, begun + timeout)
        except BaseException:
            self.stop()
            raise
        return time.monotonic() - begun

    def stop(self) -> None:
        """End every process. May be called again.

        :raises LeftoverProcessesError: if a process survived.
        """
        for name in list(self._frozen):
            self.thaw(name)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            try:
                keeper.close()
            finally:
                if self._postgres is not None:
                    self._postgres.remove()

    def __enter__(self) -> AirflowStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run_dag(
        self,
        dag_id: str,
        *,
        conf: Mapping[str, Any] | None = None,
        timeout: float,
        on_progress: ProgressCallback | None = None,
    ) -> DagRunReport:
        """Trigger a DAG and follow it to its end.

        :param conf: the run's parameters.
        :param timeout: seconds for the whole call, including the wait for the DAG to be parsed.
        :param on_progress: called with the report so far, several times a second.
        :return: the report, whether the run succeeded or failed.
        :raises AirflowStackError: if the DAG does not appear or cannot be loaded, if the run does not end in time, or
            if a component of Airflow ends.
        """
        deadline = time.monotonic() + timeout
        self._wait_for_dag(dag_id, deadline)
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        report = DagRunReport(dag_id, run_id, self.settings.logs)
        begun = time.monotonic()
        self.api.trigger(dag_id, run_id, dict(conf or {}))
        while True:
            self._update(report, time.monotonic() - begun)
            if on_progress is not None:
                on_progress(report)
            if report.finished:
                return report
            if time.monotonic() > deadline:
                states = {task.name: task.state for task in report.tasks}
                raise AirflowStackError(f"{dag_id} did not end within {timeout:.0f} s: {states}\n{self._log_tails()}")
            self._check_components()
            time.sleep(_POLL_SECONDS)

    @property
    def reader(self) -> MetadataReader:
        """The reader of the running Airflow's metadata database."""
        return self._read()

    def wait_for_dags(self, dag_ids: Sequence[str], timeout: float) -> None:
        """Wait until these DAGs can be run.

        :raises AirflowStackError: if they cannot be run in time, or a DAG file cannot be loaded.
        """
        deadline = time.monotonic() + timeout
        for dag_id in dag_ids:
            self._wait_for_dag(dag_id, deadline)

    def processes(self, name: str) -> list[int]:
        """Return the pids of a component and of everything that it started and that is alive."""
        return sorted([self._pids[name], *descendants(self._pids[name])])

    def kill(self, name: str) -> None:
        """Send SIGKILL to a component and everything that it started, including the tasks of a scheduler."""
        self._down.add(name)
        self._frozen.pop(name, None)
        kill_all(self._pids[name])

    def freeze(self, name: str) -> None:
        """Send SIGSTOP to a component and everything that it started, while it has no open transaction."""
        for _ in range(50):
            pids = freeze(self._pids[name])
            if self._all_transactions_end():
                self._frozen[name] = pids
                return
            thaw(pids)
            time.sleep(0.1)
        raise AirflowStackError(f"{name} could not be frozen: it had an open transaction at every attempt")

    def thaw(self, name: str) -> None:
        """Send SIGCONT to a frozen component."""
        thaw(self._frozen.pop(name))

    def restart(self, name: str, timeout: float = 300.0) -> None:
        """Start a component that was killed, and wait until it works.

        :raises AirflowStackError: if it does not work in time.
        """
        (component,) = (c for c in self.settings.components if c.name == name)
        since = datetime.now(timezone.utc)
        deadline = time.monotonic() + timeout
        while self._kept().exit_codes()[name] is None:
            if time.monotonic() > deadline:
                raise AirflowStackError(f"{name} is still running")
            time.sleep(0.05)
        self._launch(component.name, component.arguments, component.grace)
        self._down.discard(name)
        self._wait_until_healthy([component], since, deadline)

    def command(self, name: str, arguments: Sequence[str], timeout: float) -> None:
        """Run an ``airflow`` command to its end.

        :param name: name of the process and of its log file.
        :raises AirflowStackError: if it fails, or does not end in time.
        """
        self._launch(name, ("airflow", *arguments), 5)
        self._once.add(name)
        deadline = time.monotonic() + timeout
        while (code := self._kept().exit_codes()[name]) is None:
            if time.monotonic() > deadline:
                raise AirflowStackError(f"{name} did not end within {timeout:.0f} s\n{self._tail(name)}")
            time.sleep(0.1)
        if code != 0:
            raise AirflowStackError(f"{name} ended with {code}\n{self._tail(name)}")

    def log_file(self, component: str) -> Path:
        """Return the log file of a component."""
        return self.settings.home / f"{component}.log"

    def _create_database(self, timeout: float) -> str:
        self._postgres = Postgres(self._kept(), self.log_file("postgres"), _free_port())
        self._postgres.start(timeout)
        address = self._postgres.address
        self._environment = self.settings.environment(address, self._extra, self._python_path)
        self.command("db-migrate", ("db", "migrate"), timeout)
        return address

    def _all_transactions_end(self, seconds: float = 2.0) -> bool:
        """Return whether no connection has an open transaction at some moment: then no frozen process has one."""
        deadline = time.monotonic() + seconds
        while self._read().transactions():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _launch(self, name: str, arguments: Sequence[str], grace: float) -> None:
        self._pids[name] = self._kept().start(
            name,
            [sys.executable, "-m", *arguments],
            env={**self._environment, VARIABLE: name},
            log=self.log_file(name),
            cwd=self.settings.home,
            grace=grace,
        )

    def _wait_until_healthy(self, components: Sequence[Component], since: datetime, deadline: float) -> None:
        wanted = {(c.job_type, c.name) for c in components if c.job_type is not None}
        while True:
            self._check_components()
            missing = wanted - self._read().working_components(since)
            if not missing and self._answers():
                return
            if time.monotonic() > deadline:
                what = sorted(missing) or self.settings.health_url
                raise AirflowStackError(f"Airflow did not become healthy in time: {what}\n{self._log_tails()}")
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            with OPENER.open(self.settings.health_url, timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _wait_for_dag(self, dag_id: str, deadline: float) -> None:
        while dag_id not in self._read().dag_ids():
            self._check_components()
            errors = "\n".join(self._read().import_errors())
            if errors:
                raise AirflowStackError(f"DAG files cannot be loaded:\n{errors}")
            if time.monotonic() > deadline:
                raise AirflowStackError(f"DAG {dag_id} was not found\n{self._log_tails()}")
            time.sleep(_POLL_SECONDS)

    def _update(self, report: DagRunReport, seconds: float) -> None:
        # In this order: once the run is over, the states of its tasks are final.
        state = self._read().run_state(report.dag_id, report.run_id)
        report.tasks = self._read().tasks(report.dag_id, report.run_id)
        report.samples.append(count_states(seconds, report.tasks))
        report.seconds = seconds
        if state in ("success", "failed"):
            report.xcoms = self._read().xcoms(report.dag_id, report.run_id)
        report.state = state or report.state

    def _check_components(self) -> None:
        for name, code in self._kept().exit_codes().items():
            if code is not None and name not in self._once and name not in self._down:
                raise AirflowStackError(f"Airflow's {name} ended with code {code}\n{self._tail(name)}")

    def _log_tails(self) -> str:
        return "\n".join(self._tail(component.name) for component in self.settings.components)

    def _tail(self, name: str, lines: int = 30) -> str:
        file = self.log_file(name)
        text = file.read_text(errors="replace") if file.exists() else ""
        return f"--- end of {file}\n" + "\n".join(text.splitlines()[-lines:])

    def _kept(self) -> ProcessKeeper:
        if self._keeper is None:
            raise AirflowStackError("This Airflow is not running.")
        return self._keeper

    def _read(self) -> MetadataReader:
        if self._reader is None:
            raise AirflowStackError("This Airflow is not running.")
        return self._reader


def _free_port() -> int:
    """Return a free port; Airflow itself cannot choose one.

    :raises AirflowStackError: if there is none.
    """
    for _ in _PORTS:
        port = _PORTS[(os.getpid() * 20 + next(_chosen)) % len(_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AirflowStackError(f"There is no free port from {_PORTS[0]} to {_PORTS[-1]}.")
