"""Permissions of users, as Airflow's auth manager decides them. Blocks, as auth managers do.

- Every route requires a login and the view ``CLUSTER_ACTIVITY``.
- What belongs to a DAG (its name, a job's entrypoint) is shown to users who may read that DAG; a job's output to users
  who may read its task logs, or those of all DAGs if the job's DAG is unknown.
- Actions require the permission to trigger a run of the DAG, or of all DAGs if the DAG is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request

VIEW = AccessView.CLUSTER_ACTIVITY

MayView = Depends(requires_access_view(VIEW))
"""The dependency of every route."""

ACTING_HEADER = "X-Vertex-Ray-Page"
"""A header that a form of another site cannot send, and its script only if CORS allows it."""


class Viewer:
    """What one user may see and do; each permission is checked once per request.

    :param user: the user, as Airflow's auth manager knows them.
    """

    def __init__(self, user: Any) -> None:
        self.user = user
        self._answers: dict[tuple[str, str | None], bool] = {}

    @property
    def name(self) -> str:
        """The name for the audit log."""
        return str(self.user.get_name())

    def may_read(self, dag_id: str) -> bool:
        """Check whether the DAG may be shown."""
        return self._ask("read", dag_id, "GET", None)

    def may_read_logs(self, dag_id: str | None) -> bool:
        """Check whether the task logs of a DAG may be shown; None stands for all DAGs."""
        return self._ask("logs", dag_id, "GET", DagAccessEntity.TASK_LOGS)

    def may_act(self, dag_ids: Iterable[str | None]) -> bool:
        """Check whether runs of all these DAGs may be triggered; None, or an empty list, stands for all DAGs."""
        return all(self._ask("act", dag_id, "POST", DagAccessEntity.RUN) for dag_id in (set(dag_ids) or {None}))

    def _ask(self, what: str, dag_id: str | None, method: Any, entity: DagAccessEntity | None) -> bool:
        key = (what, dag_id)
        if key not in self._answers:
            self._answers[key] = get_auth_manager().is_authorized_dag(
                method=method, access_entity=entity, details=_details(dag_id), user=self.user
            )
        return self._answers[key]


def _details(dag_id: str | None) -> DagDetails | None:
    if dag_id is None:
        return None
    if not conf.getboolean("core", "multi_team", fallback=False):
        return DagDetails(id=dag_id)
    from airflow.models.dag import DagModel

    return DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))


def viewer_of(user: GetUserDep) -> Viewer:
    """Return the user of a request; a FastAPI dependency."""
    return Viewer(user)


def check_same_site(request: Request) -> None:
    """Validate that a POST comes from this page.

    Airflow's login is a cookie, which browsers send automatically, so another site could act in a user's name. The
    cookie is ``SameSite=Lax``, which prevents such a POST; this check does not rely on that. A browser names the origin
    of a request in ``Sec-Fetch-Site`` (on https and localhost) and in ``Origin``, and scripts cannot set either. The
    page's own header can be sent across sites only after the API server has allowed it (CORS). An additional token
    would add nothing. A program without a browser sends its credentials in ``Authorization``, and so cannot be tricked
    into a request; it needs the header as well.

    :raises HTTPException: the request does not come from this page (403).
    """
    if request.headers.get(ACTING_HEADER) != "1":
        raise HTTPException(403, f"The header {ACTING_HEADER}: 1 is missing.")
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        same = site == "same-origin"
    elif origin is not None:
        same = origin in _own_origins(request)
    else:
        same = request.headers.get("authorization", "").lower().startswith("bearer ")
    if not same:
        raise HTTPException(403, "The request comes from another site.")


def _own_origins(request: Request) -> set[str]:
    """Return the origins by which a browser may name this server: that of the request, and the configured one."""
    base = urlsplit(conf.get("api", "base_url", fallback="") or "")
    found = {f"{request.url.scheme}://{request.headers.get('host', '')}"}
    if base.scheme and base.netloc:
        found.add(f"{base.scheme}://{base.netloc}")
    return found
