"""A read-only view of Airflow's metadata database.

States are read from the database several times a second, on Airflow 3 and 2.11 alike: requests to the REST API would
take processor time from the tasks.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import psycopg2

from devtools.dag_run_report import TaskReport


class MetadataReader:
    """Read Airflow's database while Airflow uses it.

    :param address: user, password, host, port and database, as in a URL.
    """

    def __init__(self, address: str) -> None:
        self._connection = psycopg2.connect(f"postgresql://{address}")
        self._connection.set_session(readonly=True, autocommit=True)

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def working_components(self, since: datetime) -> set[tuple[str, str]]:
        """Return job type and name of the components that were started, and have sent a heartbeat, since then."""
        sql = "SELECT job_type, hostname, latest_heartbeat FROM job WHERE state = 'running' AND start_date >= %s"
        rows = self._rows(sql, (since,))
        return {(kind, host) for kind, host, heartbeat in rows if heartbeat and heartbeat >= since}

    def trigger_holders(self) -> dict[str, str]:
        """Return the name of the triggerer that runs the trigger of a deferred task, by run id."""
        sql = (
            "SELECT i.run_id, j.hostname FROM task_instance i JOIN trigger t ON t.id = i.trigger_id"
            " JOIN job j ON j.id = t.triggerer_id WHERE i.state = 'deferred'"
        )
        return dict(self._rows(sql))

    def runs(self) -> dict[str, tuple[str, datetime | None]]:
        """Return state and end of every DAG run, by run id."""
        rows = self._rows("SELECT run_id, state, end_date FROM dag_run")
        return {run_id: (state, end) for run_id, state, end in rows}

    def instances(self) -> dict[tuple[str, str], tuple[TaskReport, int | None]]:
        """Return every task instance and the pid of its current or last process, by run id and task id."""
        sql = (
            "SELECT run_id, task_id, map_index, state, try_number, operator, start_date, end_date, pid"
            " FROM task_instance"
        )
        return {
            (run, task): (TaskReport(task, index, state, tries, kind, start, end), pid)
            for run, task, index, state, tries, kind, start, end, pid in self._rows(sql)
        }

    def transactions(self) -> int:
        """Return the number of open transactions of other connections."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
        return int(self._rows(sql + " AND backend_type = 'client backend'")[0][0])

    def dag_ids(self) -> set[str]:
        """Return the ids of the DAGs that the scheduler can run."""
        return {row[0] for row in self._rows("SELECT DISTINCT dag_id FROM serialized_dag")}

    def import_errors(self) -> list[str]:
        """Return file and traceback of each DAG file that cannot be loaded."""
        rows = self._rows("SELECT filename, stacktrace FROM import_error")
        return [f"{filename}:\n{trace}" for filename, trace in rows]

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a DAG run; None if it does not exist."""
        sql = "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s"
        rows = self._rows(sql, (dag_id, run_id))
        return rows[0][0] if rows else None

    def tasks(self, dag_id: str, run_id: str) -> list[TaskReport]:
        """Return the task instances of a run."""
        sql = (
            "SELECT task_id, map_index, state, try_number, operator, start_date, end_date FROM task_instance"
            " WHERE dag_id = %s AND run_id = %s ORDER BY start_date IS NULL, start_date, task_id, map_index"
        )
        rows = self._rows(sql, (dag_id, run_id))
        return [
            TaskReport(task_id, map_index, state, tries, operator, start, end)
            for task_id, map_index, state, tries, operator, start, end in rows
        ]

    def xcoms(self, dag_id: str, run_id: str) -> dict[tuple[str, int], Any]:
        """Return the return values of a run's task instances, by (task id, map index)."""
        sql = "SELECT task_id, map_index, value FROM xcom WHERE dag_id = %s AND run_id = %s AND key = 'return_value'"
        rows = self._rows(sql, (dag_id, run_id))
        return {(task, index): _plain(value) for task, index, value in rows if value is not None}


def _plain(value: Any) -> Any:
    """Unwrap tuples and the like from Airflow's serialisation; 2.11 stores JSON as bytes."""
    if isinstance(value, (bytes, memoryview)):
        return _plain(json.loads(bytes(value)))
    if isinstance(value, dict):
        if "__classname__" in value and "__data__" in value:
            return _plain(value["__data__"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
