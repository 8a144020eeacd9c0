"""What a cluster costs, as a task; where its prices come from; and budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.errors import BudgetExceededError, InvalidArgumentError
from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayGetClusterOperator,
    VertexRayListClustersOperator,
)
from airflow_provider_vertex_ray.operators.cost import VertexRayClusterCostOperator
from tests.operators.builders import COMMON, submit_job
from tests.support.clusters import LOCATION, SPEC, jobs_of, start
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


def test_a_budget_of_a_shared_cluster(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    def ensure(**more: Any) -> Any:
        return run_task(
            VertexRayCreateClusterOperator(
                task_id="ensure", shared_name="etl", spec=SPEC, deferrable=deferrable, **COMMON, **more
            )
        )

    ensure()
    with pytest.raises(BudgetExceededError, match="etl-g1"):
        ensure(max_cost=0.01, price_table=PRICES)


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
