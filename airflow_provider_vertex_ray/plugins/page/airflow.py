"""What the page asks and writes in Airflow's own database. Blocks: for the threads that serve requests."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from typing import Any

from airflow.configuration import conf

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.plugins.page.owners import Labels, Owner
from airflow_provider_vertex_ray.plugins.page.sources import SECTION

log = logging.getLogger(__name__)

MOST_RUNS = 1_000
"""Runs of a DAG, the newest, among which a cluster's run is looked for."""

MISSED_SECONDS = 60.0
"""For so long a cluster whose run was not found is not looked for again."""

MOST_KEPT = 1_000


def option(name: str) -> str:
    """An option of ``[vertex_ray]``; empty where it is not set."""
    return conf.get(SECTION, name, fallback="") or ""


class ClusterOwners:
    """Finds the task instance that created a cluster; remembers what it found."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str], tuple[Owner | None, float]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, cluster: Cluster) -> Owner | None:
        """The task instance; None where there is none, or it is not in Airflow's database any more."""
        labels = Labels.of(cluster)
        if labels is None:
            return None
        key = (cluster.name, labels.key)
        with self._lock:
            owner, until = self._found.get(key, (None, 0.0))
        if owner is not None or time.monotonic() < until:
            return owner
        try:
            owner = _look_up(labels)
        except Exception:
            # The page is of use without it.
            log.warning("The owner of %s could not be looked up", cluster.name, exc_info=True)
        with self._lock:
            self._found[key] = (owner, time.monotonic() + MISSED_SECONDS)
            while len(self._found) > MOST_KEPT:
                self._found.popitem(last=False)
        return owner


def _look_up(labels: Labels) -> Owner | None:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for dag_id in labels.dags(session.scalars(select(DagModel.dag_id))):
            newest = select(DagRun.run_id).where(DagRun.dag_id == dag_id).order_by(DagRun.id.desc()).limit(MOST_RUNS)
            for run_id in labels.runs(session.scalars(newest)):
                tasks = select(TaskInstance.task_id, TaskInstance.map_index).where(
                    TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id
                )
                found = [(task_id, map_index) for task_id, map_index in session.execute(tasks)]
                if owner := labels.owner(dag_id, run_id, found):
                    return owner
    return None


class Audit:
    """One row of Airflow's audit log: written before something is done, completed with what came of it.

    :param event: Such as ``vertex_ray.delete_cluster``.
    :param user: Who does it: the name by which Airflow logs.
    :param owner: The task instance that it is about, where that is known.
    :param facts: What is done to what.
    """

    def __init__(self, event: str, user: str, owner: Owner | None, facts: dict[str, Any]) -> None:
        from airflow.models.log import Log
        from airflow.utils.session import create_session

        about: dict[str, Any] = (
            {} if owner is None else {"dag_id": owner.dag_id, "run_id": owner.run_id, "task_id": owner.task_id}
        )
        self._facts = facts
        with create_session() as session:
            # It raises when it can not be written: then nothing is done.
            row = Log(event=event, owner=user, owner_display_name=user, extra=json.dumps(facts), **about)
            session.add(row)
            session.flush()
            self._id = row.id

    def outcome(self, said: str) -> None:
        """What came of it."""
        from airflow.models.log import Log
        from airflow.utils.session import create_session
        from sqlalchemy import update

        extra = json.dumps({**self._facts, "outcome": said})
        try:
            with create_session() as session:
                session.execute(update(Log).where(Log.id == self._id).values(extra=extra))
        except Exception:
            log.exception("The outcome could not be written to the audit log: %s", extra)
