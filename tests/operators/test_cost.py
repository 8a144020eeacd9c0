"""What a cluster costs, as a task; where its prices come from; and budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.core.cost import catalog
from airflow_provider_vertex_ray.errors import BudgetExceededError, InvalidArgumentError, VertexRayError
from airflow_provider_vertex_ray.operators import cluster_create
from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayGetClusterOperator,
    VertexRayListClustersOperator,
)
from airflow_provider_vertex_ray.operators.cost import VertexRayClusterCostOperator
from airflow_provider_vertex_ray.price_table import PriceTable
from tests.operators.builders import COMMON, submit_job
from tests.support.clusters import LOCATION, SPEC, cluster_ids, jobs_of, start
from tests.support.tasks import run_task

# So dear that a moment is seen.
PRICES = {"currency": "EUR", "regions": {LOCATION: {"machines": {"n1-standard-16": 1e6, "n1-standard-8": 1e6}}}}


def cost(price_table: Any = None, **more: Any) -> dict[str, Any]:
    operator = VertexRayClusterCostOperator(
        task_id="cost", cluster_id="shared", location=LOCATION, price_table=price_table, **more
    )
    result: dict[str, Any] = run_task(operator)
    return result


def test_node_hours_without_prices(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    result = cost()
    assert (result["cluster_id"], result["state"], result["cost"]) == ("shared", "RUNNING", None)
    assert set(result["node_hours"]) <= {"n1-standard-16", "n1-standard-8"}


def test_prices_of_every_kind(fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(fake_emulator)
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(PRICES))
    monkeypatch.setenv("AIRFLOW_VAR_RAY_PRICES", json.dumps(PRICES))
    for table in (PRICES, str(file), "variable:RAY_PRICES"):
        result = cost(table)
        assert result["currency"] == "EUR"
        assert result["cost"] > 0


@pytest.mark.parametrize(
    ("table", "said"),
    [("/no/such/file", "cannot be read"), ("variable:NOT_THERE", "NOT_THERE"), ({"currency": "E"}, "currency")],
)
def test_prices_that_can_not_be_had(fake_emulator: EmulatorProcess, table: Any, said: str) -> None:
    start(fake_emulator)
    with pytest.raises(InvalidArgumentError, match=said):
        cost(table)


def test_a_file_without_json(fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text("{")
    with pytest.raises(InvalidArgumentError, match="not valid JSON"):
        cost(str(tmp_path / "prices.json"))


def test_get_and_list_have_it_too(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    common = {"location": LOCATION, "price_table": PRICES}
    got = run_task(VertexRayGetClusterOperator(task_id="get", cluster_id="shared", **common))
    (listed,) = run_task(VertexRayListClustersOperator(task_id="list", **common))
    assert got["cost_so_far"]["cost"] > 0
    assert listed["cost_so_far"]["cost"] > 0


def test_a_budget_refuses_new_work(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    with pytest.raises(BudgetExceededError, match="max_cost=1"):
        run_task(submit_job("true", deferrable=deferrable, max_cost=1.0, price_table=PRICES))
    assert jobs_of(fake_emulator, "shared") == {}
    run_task(submit_job("true", deferrable=deferrable, max_cost=1e9, price_table=PRICES))


def ensure(**more: Any) -> Any:
    return run_task(
        VertexRayCreateClusterOperator(**{"task_id": "ensure", "shared_name": "etl", "spec": SPEC, **COMMON, **more})
    )


def test_a_budget_of_a_shared_cluster(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    ensure(deferrable=deferrable)
    with pytest.raises(BudgetExceededError, match="etl-g1"):
        ensure(max_cost=0.01, price_table=PRICES, deferrable=deferrable)


def without_workers() -> dict[str, Any]:
    """Prices of the head only."""
    return {"currency": "EUR", "regions": {LOCATION: {"machines": {"n1-standard-16": 1.0}}}}


@pytest.mark.parametrize(
    ("prices", "places", "missing"),
    [
        (without_workers(), [LOCATION], f"n1-standard-8 in {LOCATION}"),
        (PRICES, [LOCATION, "us-east1"], "n1-standard-16 in us-east1, n1-standard-8 in us-east1"),
    ],
)
def test_a_budget_without_all_prices_fails_before_a_cluster_is_created(
    fake_emulator: EmulatorProcess, deferrable: bool, prices: dict[str, Any], places: list[str], missing: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=missing):
        ensure(max_cost=1e9, price_table=prices, locations=places, deferrable=deferrable)
    assert fake_emulator.calls("CreatePersistentResource") == []


def test_a_cluster_of_unknown_cost_is_cleaned_up_by_its_maker_only(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, storage: StorageEmulator, deferrable: bool
) -> None:
    budget = {"max_cost": 1e9, "price_table": PRICES, "lease_uri": storage.uri, "deferrable": deferrable}
    other = ClusterSpec(worker_node_types=[Resources(machine_type="n2-standard-8")])
    unknown = r"cost of cluster etl-g1 is unknown.*n2-standard-8 in us-central1"
    # Only the trigger learns what a cluster of others consists of.
    made = ensure(spec=other, deferrable=deferrable)
    with pytest.raises(VertexRayError, match=unknown):
        ensure(**budget)
    assert cluster_ids(fake_emulator) == [made["cluster_id"]]
    monkeypatch.setattr(cluster_create, "check_prices", lambda *_: None)
    with pytest.raises(VertexRayError, match=unknown.replace("etl", "another")):
        ensure(spec=other, shared_name="another", **budget)
    assert cluster_ids(fake_emulator) == [made["cluster_id"]]


def test_the_catalog_is_read_for_all_regions(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    async def catalog_prices(transport: Any, region: str) -> PriceTable:
        read.append(region)
        return PriceTable("USD", {region: {"machines": {"n1-standard-16": 1.0, "n1-standard-8": 1.0}}})

    monkeypatch.setattr(catalog, "catalog_prices", catalog_prices)
    places = ["us-east1", LOCATION]
    budget = {"max_cost": 1e9, "price_table": "catalog", "deferrable": False}
    # Without a location of the task's own, too.
    assert ensure(locations=places, location=None, **budget)["location"] == "us-east1"
    assert read == places


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"max_cost": 1.0}, "price_table"),
        ({"max_cost": 0, "price_table": PRICES}, "max_cost"),
        ({"max_cost": True, "price_table": PRICES}, "max_cost"),
        ({"price_table": 5}, "price_table"),
        ({"price_table": {"currency": "EUR"}}, "regions"),
    ],
)
def test_wrong_input_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        submit_job("true", **arguments)
