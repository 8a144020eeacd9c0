"""Owners of jobs and clusters. Pure; the data of Airflow's database is passed in.

A job's metadata and a cluster's labels can contain anything. Both have a hash of DAG, run, task and map index: names
that do not match the hash are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, Job, owner_key
from airflow_provider_vertex_ray.operators.owner_labels import OWNER_LABEL, label_value

DAG_LABEL, RUN_LABEL, TASK_LABEL = "airflow-dag", "airflow-run", "airflow-task"


@dataclass(frozen=True)
class Owner:
    """A task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def key(self) -> str:
        """The hash of the task instance."""
        return owner_key(self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def dag_path(self) -> str:
        """The DAG's page in Airflow."""
        return f"/dags/{quote(self.dag_id, safe='')}"

    @property
    def run_path(self) -> str:
        """The run's page in Airflow."""
        return f"{self.dag_path}/runs/{quote(self.run_id, safe='')}"

    @property
    def task_path(self) -> str:
        """The task instance's page in Airflow."""
        mapped = f"/mapped/{self.map_index}" if self.map_index >= 0 else ""
        return f"{self.run_path}/tasks/{quote(self.task_id, safe='')}{mapped}"


def owner_of_job(job: Job) -> Owner | None:
    """Return the task instance that submitted a job; None if its metadata name none, or do not match their hash."""
    metadata = job.metadata
    try:
        index = int(metadata.get("airflow_map_index", "-1"))
    except ValueError:
        return None
    owner = Owner(
        metadata.get("airflow_dag_id", ""),
        metadata.get("airflow_run_id", ""),
        metadata.get("airflow_task_id", ""),
        index,
    )
    return owner if owner.dag_id and metadata.get(OWNER_KEY) == owner.key else None


@dataclass(frozen=True)
class Labels:
    """A cluster's labels about its creator; the names are shortened and in lower case."""

    key: str
    dag: str
    run: str
    task: str

    @classmethod
    def of(cls, cluster: Cluster) -> Labels | None:
        """Return the labels of a cluster; None if no task of this package created it."""
        key = cluster.labels.get(OWNER_LABEL, "")
        parts: Mapping[str, str] = cluster.labels
        return cls(key, parts.get(DAG_LABEL, ""), parts.get(RUN_LABEL, ""), parts.get(TASK_LABEL, "")) if key else None

    def dags(self, dag_ids: Iterable[str]) -> list[str]:
        """Return the DAGs that match the labels."""
        return [dag_id for dag_id in dag_ids if label_value(dag_id) == self.dag]

    def runs(self, run_ids: Iterable[str]) -> list[str]:
        """Return the runs that match the labels."""
        return [run_id for run_id in run_ids if label_value(run_id) == self.run]

    def owner(self, dag_id: str, run_id: str, tasks: Iterable[tuple[str, int]]) -> Owner | None:
        """Return the task instance that matches the labels, if it is one of the given tasks (id and map index)."""
        for task_id, map_index in tasks:
            found = Owner(dag_id, run_id, task_id, map_index)
            if found.key == self.key:
                return found
        return None
