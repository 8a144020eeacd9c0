"""What clusters cost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_cluster_facts
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.operators.base import ConnectionMixin

VARIABLE = "variable:"
CATALOG = "catalog"


class VertexRayClusterCostOperator(VertexRayBaseOperator):
    """Figures what a cluster has cost so far: node-hours, and money where prices are given.

    Returns ``cluster_id``, ``name``, ``state`` and what ``cost_so_far`` gives: ``node_hours`` by kind of node,
    ``total_node_hours``, ``cost`` (None when something has no price), ``currency``, ``unpriced``, ``since``, ``basis``.
    It is an estimate: the service does not tell what size a cluster had when, and disks are left out.

    :param cluster_id: Id or full resource name. (templated)
    :param price_table: Prices per hour: a dict (see ``PriceTable``), the path of a JSON file, ``variable:NAME`` for an
        Airflow Variable with that JSON, or ``catalog`` for the Cloud Billing Catalog. None: node-hours only.
        (templated)

    Raises ClusterNotFoundError, NotARayClusterError, InvalidArgumentError for a malformed table.
    """

    template_fields: Sequence[str] = ("cluster_id", "price_table", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = CLUSTER_LINKS

    def __init__(self, *, cluster_id: str | None = None, price_table: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_price_table(price_table)
        self.cluster_id = cluster_id
        self.price_table = price_table

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the service, and figure."""
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        table = load_price_table(self, self.price_table, name.location)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name.full)).require_ray()
        persist_cluster_facts(context, name, cluster)
        found = cost_so_far(cluster, time.time(), table)
        self.log.info("%s: %s node-hours, cost %s %s", cluster.cluster_id, *map(found.get, _SHOWN))
        return {"cluster_id": cluster.cluster_id, "name": cluster.name, "state": cluster.state.value, **found}


_SHOWN = ("total_node_hours", "cost", "currency")


def check_price_table(value: Any) -> None:
    """At DAG parse: refuse what can not be a price table.

    :raises InvalidArgumentError: Names the place in it.
    """
    if isinstance(value, dict) and not has_template(value):
        PriceTable.from_value(value)
    elif value is not None and not isinstance(value, (dict, str, Path)) and not hasattr(value, "iter_references"):
        raise InvalidArgumentError(
            "price_table", value, "give a dict, the path of a JSON file, variable:NAME or catalog"
        )


def check_budget_input(max_cost: float | None, price_table: Any) -> None:
    """At DAG parse: refuse a limit that is none, or that nothing can be compared with.

    :raises InvalidArgumentError: Names the field.
    """
    check_price_table(price_table)
    if max_cost is None:
        return
    if isinstance(max_cost, bool) or not isinstance(max_cost, (int, float)) or max_cost <= 0:
        raise InvalidArgumentError("max_cost", max_cost, "give an amount above 0, or None")
    if price_table is None:
        raise InvalidArgumentError("price_table", price_table, "max_cost needs prices")


def load_price_table(owner: ConnectionMixin, value: Any, location: str | None = None) -> PriceTable | None:
    """The prices that a task was given; None for none.

    :param owner: The task, for its connection.
    :param location: The region whose prices are needed.
    :raises InvalidArgumentError: They can not be read.
    """
    if value is None or value == "":
        return None
    if value == CATALOG:
        return _from_catalog(owner, location or owner.location)
    if isinstance(value, str) and value.startswith(VARIABLE):
        from airflow.providers.common.compat.sdk import Variable

        name = value.removeprefix(VARIABLE)
        text = Variable.get(name, None)
        if text is None:
            raise InvalidArgumentError("price_table", value, f"there is no Airflow Variable {name!r}")
        return PriceTable.from_value(_parsed(text, value))
    if isinstance(value, (str, Path)):
        try:
            return PriceTable.from_value(_parsed(Path(value).read_text("utf-8"), value))
        except OSError as error:
            raise InvalidArgumentError("price_table", str(value), f"the file can not be read: {error}") from error
    return PriceTable.from_value(value)


def _parsed(text: str, value: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError("price_table", str(value), f"it holds no JSON: {error}") from error


def _from_catalog(owner: ConnectionMixin, location: str | None) -> PriceTable:
    from airflow_provider_vertex_ray.core.cluster.name import validate_location
    from airflow_provider_vertex_ray.core.cost.catalog import catalog_prices
    from airflow_provider_vertex_ray.hooks.base import run_sync

    region = validate_location(location)

    async def ask() -> PriceTable:
        async with owner.cluster_hook.session() as (transport, _):
            return await catalog_prices(transport, region)

    return run_sync(ask)
