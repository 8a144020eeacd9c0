"""Base class of the extra links. An operator stores the facts for its links in XCom before it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_vertex_ray.core.cluster.state import USABLE_STATES

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cluster.state import Cluster

LINK_KEY = "vertex_ray_link"
"""XCom key of the facts from which the links are built."""


def persist_link_facts(context: Context, **facts: str | None) -> None:
    """Store the facts for the links; called before a deferral, so that the links work while the task waits.

    :param context: the task's context.
    :param facts: facts by name, such as ``cluster_id``; those that are empty are left out.
    """
    context["ti"].xcom_push(key=LINK_KEY, value={key: value for key, value in facts.items() if value})


def persist_cluster_facts(context: Context, name: ClusterName, cluster: Cluster) -> None:
    """Store the facts of a cluster for the links, with its dashboard and shell if it is RUNNING or UPDATING."""
    usable = cluster.state in USABLE_STATES
    persist_link_facts(
        context,
        project_id=name.project,
        location=name.location,
        cluster_id=name.cluster_id,
        dashboard_uri=cluster.dashboard_uri if usable else None,
        shell_uri=cluster.shell_uri if usable else None,
    )


class VertexRayLink(BaseOperatorLink):
    """Base class of the extra links, which have no address until all their facts are stored."""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, or an empty string if a fact is missing."""
        facts = XCom.get_value(key=LINK_KEY, ti_key=ti_key) or {}
        try:
            return self.url(facts)
        except KeyError:
            return ""

    def url(self, facts: dict[str, str]) -> str:
        """Return the address.

        :param facts: stored facts by name.
        :raises KeyError: a fact is missing.
        """
        raise NotImplementedError
