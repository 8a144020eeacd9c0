"""Access to Airflow's own database: owners of clusters, and the audit log. Blocks."""

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
"""Number of a DAG's newest runs among which a cluster's run is searched."""

MISSED_SECONDS = 60.0
"""Seconds after which a cluster whose run was not found is looked up again."""

MOST_KEPT = 1_000
"""Maximum number of remembered owners."""


def option(name: str) -> str:
    """Return an option of ``[vertex_ray]``; an empty text if it is not set."""
    return conf.get(SECTION, name, fallback="") or ""


class ClusterOwners:
    """Look up and remember the task instances that created clusters."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str], tuple[Owner | None, float]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, cluster: Cluster) -> Owner | None:
        """Return the task instance that created a cluster; None if there is none, or Airflow no longer knows it."""
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
            # The page is useful without it.
            log.warning(
                "Could not look up the owner of cluster %s; the page shows its labels instead",
                cluster.name,
                exc_info=True,
            )
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
    """A row of Airflow's audit log, written before an action and completed with its outcome.

    :param event: name of the event, such as ``vertex_ray.delete_cluster``.
    :param user: name of the user, as Airflow logs it.
    :param owner: the task instance that the action concerns, if it is known.
    :param facts: details of the action.
    """

    def __init__(self, event: str, user: str, owner: Owner | None, facts: dict[str, Any]) -> None:
        from airflow.models.log import Log
        from airflow.utils.session import create_session

        about: dict[str, Any] = (
            {} if owner is None else {"dag_id": owner.dag_id, "run_id": owner.run_id, "task_id": owner.task_id}
        )
        self._facts = facts
        with create_session() as session:
            # Raises if the row cannot be written: then nothing is done.
            row = Log(event=event, owner=user, owner_display_name=user, extra=json.dumps(facts), **about)
            session.add(row)
            session.flush()
            self._id = row.id

    def outcome(self, message: str) -> None:
        """Add the outcome of the action."""
        from airflow.models.log import Log
        from airflow.utils.session import create_session
        from sqlalchemy import update

        extra = json.dumps({**self._facts, "outcome": message})
        try:
            with create_session() as session:
                session.execute(update(Log).where(Log.id == self._id).values(extra=extra))
        except Exception:
            log.exception("Could not write the outcome of an action to the audit log: %s", extra)
