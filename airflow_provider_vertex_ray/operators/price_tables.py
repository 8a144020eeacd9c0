"""Price tables as users give them: a dict, a JSON file, an Airflow Variable or the Cloud Billing Catalog."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import is_number, known_at_run_time
from airflow_provider_vertex_ray.core.cost.price_table import NodeKind, PriceTable
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
    from airflow_provider_vertex_ray.operators.base import ConnectionMixin

VARIABLE = "variable:"
"""Prefix of the name of an Airflow Variable that holds a price table as JSON."""

CATALOG = "catalog"
"""Value that stands for the Cloud Billing Catalog."""


def check_price_table(value: Any) -> None:
    """Validate the form of a price table at DAG parse; files, Variables and the catalog are not read.

    :param value: the ``price_table`` argument of an operator.
    :raises InvalidArgumentError: the value cannot be a price table; names the invalid part.
    """
    if isinstance(value, (dict, PriceTable)):
        PriceTable.from_value(value)
    elif value is not None and not isinstance(value, (str, Path)) and not known_at_run_time(value):
        raise InvalidArgumentError(
            "price_table", value, 'Use a dict, the path of a JSON file, "variable:NAME" or "catalog".'
        )


def check_cost_limit(max_cost: Any, price_table: Any) -> None:
    """Validate a cost limit and its prices at DAG parse.

    :param max_cost: the ``max_cost`` argument of an operator; None means no limit.
    :param price_table: the ``price_table`` argument of the same operator.
    :raises InvalidArgumentError: the limit is not a positive number, or has no prices to compare with.
    """
    check_price_table(price_table)
    if max_cost is None:
        return
    if not is_number(max_cost) or max_cost <= 0:
        raise InvalidArgumentError("max_cost", max_cost, "Use a positive amount or None.")
    if price_table is None:
        raise InvalidArgumentError("price_table", price_table, "max_cost requires prices.")


def read_price_table(value: Any) -> PriceTable | None:
    """Return the price table that a dict, a JSON file or an Airflow Variable holds; None for no value.

    :param value: a dict, the path of a JSON file, or ``variable:NAME``.
    :raises InvalidArgumentError: the table cannot be read, or is malformed.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.startswith(VARIABLE):
        return PriceTable.from_value(_parse_json(_read_variable(value), value))
    if isinstance(value, (str, Path)):
        try:
            text = Path(value).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise InvalidArgumentError("price_table", str(value), f"The file cannot be read: {error}.") from error
        return PriceTable.from_value(_parse_json(text, value))
    return PriceTable.from_value(value)


def load_price_table(task: ConnectionMixin, value: Any, *locations: str) -> PriceTable | None:
    """Return the prices of a task, from the Cloud Billing Catalog too; None for no value.

    :param task: the task, whose connection reads the catalog.
    :param value: what ``read_price_table`` accepts, or ``catalog``.
    :param locations: regions whose prices are needed; default: the task's.
    :raises InvalidArgumentError: the table cannot be read, or is malformed.
    """
    # A template may have been rendered to anything.
    check_price_table(value)
    if isinstance(value, str) and value == CATALOG:
        return _read_catalog(task, locations or (task.location,))
    return read_price_table(value)


def check_prices(spec: ClusterSpec, table: PriceTable | None, locations: Iterable[str]) -> None:
    """Validate that each node of a cluster has a price in each region, so that its cost can be compared with a limit.

    :param spec: spec of the cluster.
    :param table: the prices.
    :param locations: regions in which the cluster may be created.
    :raises InvalidArgumentError: something has no price; the rule names it.
    """
    if table is None:
        raise InvalidArgumentError("price_table", None, "max_cost requires prices.")
    machines = [pool.machine for pool in spec.pools()]
    kinds = {NodeKind(each.machine_type, each.accelerator_type or "", each.accelerator_count) for each in machines}
    missing = {name for place in locations for kind in kinds for name in table.price(kind, place).missing}
    if missing:
        rule = f"Set a price for {', '.join(sorted(missing))}, which max_cost requires."
        raise InvalidArgumentError("price_table", table.to_json(), rule)


def _read_variable(value: str) -> str:
    from airflow.providers.common.compat.sdk import Variable

    name = value.removeprefix(VARIABLE)
    text = Variable.get(name, None)
    if text is None:
        raise InvalidArgumentError("price_table", value, f"The Airflow Variable {name!r} does not exist.")
    return str(text)


def _parse_json(text: str, value: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError("price_table", str(value), f"The content is not valid JSON: {error}.") from error


def _read_catalog(task: ConnectionMixin, locations: Sequence[str | None]) -> PriceTable:
    from airflow_provider_vertex_ray.core.cluster.name import validate_location
    from airflow_provider_vertex_ray.core.cost.catalog import catalog_prices
    from airflow_provider_vertex_ray.core.threads import run_sync

    regions = list(dict.fromkeys(validate_location(each) for each in locations))

    async def read() -> PriceTable:
        async with task.cluster_hook.session() as (transport, _):
            tables = [await catalog_prices(transport, region) for region in regions]
        merged = {region: sections for table in tables for region, sections in table.regions.items()}
        return PriceTable(tables[0].currency, merged)

    return run_sync(read)
