"""Which task a job or a cluster is of. Pure; what Airflow's database knows is passed in.

A job's metadata and a cluster's labels are what somebody wrote there. Both have a hash over dag, run, task and map
index: names that do not fit their hash are nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, Job, owner_key
from airflow_provider_vertex_ray.operators.cluster_create import OWNER_LABEL, label_value

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
        """The hash of it."""
        return owner_key(self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def dag_path(self) -> str:
        """The DAG's page in Airflow."""
        return f"/dags/{quote(self.dag_id, safe='')}"

    @property
    def run_path(self) -> str:
        """The run's page."""
        return f"{self.dag_path}/runs/{quote(self.run_id, safe='')}"

    @property
    def task_path(self) -> str:
        """The task instance's page."""
        mapped = f"/mapped/{self.map_index}" if self.map_index >= 0 else ""
        return f"{self.run_path}/tasks/{quote(self.task_id, safe='')}{mapped}"


def owner_of_job(job: Job) -> Owner | None:
    """The task instance that submitted a job; None where the metadata do not say so, or contradict themselves."""
    said = job.metadata
    try:
        index = int(said.get("airflow_map_index", "-1"))
    except ValueError:
        return None
    owner = Owner(
        said.get("airflow_dag_id", ""), said.get("airflow_run_id", ""), said.get("airflow_task_id", ""), index
    )
    return owner if owner.dag_id and said.get(OWNER_KEY) == owner.key else None


@dataclass(frozen=True)
class Labels:
    """What a cluster's labels say of who created it; the names are cut and in lower case."""

    key: str
    dag: str
    run: str
    task: str

    @classmethod
    def of(cls, cluster: Cluster) -> Labels | None:
        """The labels; None for a cluster that no task of this package has created."""
        key = cluster.labels.get(OWNER_LABEL, "")
        parts: Mapping[str, str] = cluster.labels
        return cls(key, parts.get(DAG_LABEL, ""), parts.get(RUN_LABEL, ""), parts.get(TASK_LABEL, "")) if key else None

    def dags(self, dag_ids: Iterable[str]) -> list[str]:
        """Those of the DAGs that it may be."""
        return [dag_id for dag_id in dag_ids if label_value(dag_id) == self.dag]

    def runs(self, run_ids: Iterable[str]) -> list[str]:
        """Those of the runs that it may be."""
        return [run_id for run_id in run_ids if label_value(run_id) == self.run]

    def owner(self, dag_id: str, run_id: str, tasks: Iterable[tuple[str, int]]) -> Owner | None:
        """The task instance, if it is one of these (task id and map index) of a run."""
        for task_id, map_index in tasks:
            found = Owner(dag_id, run_id, task_id, map_index)
            if found.key == self.key:
                return found
        return None
