"""Base class of the extra links. An operator stores the facts for its links in XCom before it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_vertex_ray.core.cluster.state import USABLE_STATES
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cluster.state import Cluster

LINK_KEY = "vertex_ray_link"
"""XCom key of the facts from which the links are built."""

EMULATOR_FACT = "emulator"
"""Fact with the ``host:port`` of the emulator; missing for the real service."""

_begun: list[tuple[Any, dict[str, str]]] = []
"""The task that this process has begun, if any, and the facts that it has stored since."""


def begin_link_facts(context: Context) -> None:
    """Note that a task begins, so that it has no facts yet.

    Airflow 3 builds a task's links in the task's own process. Without this, each link of a task that failed before it
    stored its facts would ask for them, and Airflow would log an error, "XCom not found", for each.

    :param context: the task's context.
    """
    _begun[:] = [(_key(context["ti"]), {})]


def persist_link_facts(context: Context, **facts: str | None) -> None:
    """Store the facts for the links; called before a deferral, so that the links work while the task waits.

    :param context: the task's context.
    :param facts: facts by name, such as ``cluster_id``; those that are empty are left out.
    """
    kept = {key: value for key, value in {**facts, EMULATOR_FACT: emulator_host()}.items() if value}
    context["ti"].xcom_push(key=LINK_KEY, value=kept)
    _begun[:] = [(_key(context["ti"]), kept)]


def emulator_host() -> str | None:
    """Return the ``host:port`` of the emulator that this process uses; None for the real service."""
    return Addresses.from_environment().emulator_host


def _key(ti: Any) -> Any:
    names = ("dag_id", "run_id", "task_id", "map_index")
    return tuple(getattr(ti, name, None) for name in names) if hasattr(ti, "dag_id") else ti


def _facts_of(ti: Any) -> dict[str, str]:
    if _begun and _begun[0][0] == _key(ti):
        return _begun[0][1]
    return XCom.get_value(key=LINK_KEY, ti_key=ti) or {}


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

    leads_to_google: ClassVar[bool] = False
    """Whether the link leads to a page of Google's, which knows nothing of a cluster of the emulator."""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, or an empty string if there is none."""
        return self.address({**_facts_of(ti_key), **self.facts_of(ti_key)})

    def address(self, facts: dict[str, str]) -> str:
        """Return the address; an empty string if a fact is missing or unusable, or if the page would not exist.

        :param facts: facts by name, such as ``cluster_id``.
        """
        if self.leads_to_google and (facts.get(EMULATOR_FACT) or emulator_host()):
            return ""
        try:
            return self.url(facts)
        except (KeyError, InvalidArgumentError):
            return ""

    def facts_of(self, ti_key: Any) -> dict[str, str]:
        """Return facts that the task need not store, because its own names are enough."""
        return {}

    def url(self, facts: dict[str, str]) -> str:
        """Return the address.

        :param facts: stored facts by name.
        :raises KeyError: a fact is missing.
        :raises InvalidArgumentError: a fact cannot be part of an address.
        """
        raise NotImplementedError
