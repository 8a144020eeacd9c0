"""Links beside a task in the Airflow UI. What they show, the operator puts into XCom before it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_vertex_ray.core.cluster.state import ClusterState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cluster.state import Cluster

LINK_KEY = "vertex_ray_link"
"""XCom key of the facts that the links are made of."""


def persist_link_facts(context: Context, **facts: str | None) -> None:
    """Keep what the links need. Before a deferral, so that they work while the task waits."""
    context["ti"].xcom_push(key=LINK_KEY, value={key: value for key, value in facts.items() if value})


def persist_cluster_facts(context: Context, name: ClusterName, cluster: Cluster) -> None:
    """Keep the facts of a cluster for the links; without a dashboard while it has none."""
    usable = cluster.state in (ClusterState.RUNNING, ClusterState.UPDATING)
    persist_link_facts(
        context,
        project_id=name.project,
        location=name.location,
        cluster_id=name.cluster_id,
        dashboard_uri=cluster.dashboard_uri if usable else None,
    )


class VertexRayLink(BaseOperatorLink):
    """Base: reads the facts, and gives no address while they are not all there."""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address, or an empty string."""
        facts = XCom.get_value(key=LINK_KEY, ti_key=ti_key) or {}
        try:
            return self.url(facts)
        except KeyError:
            return ""

    def url(self, facts: dict[str, str]) -> str:
        """The address from the facts; KeyError when one is missing."""
        raise NotImplementedError
