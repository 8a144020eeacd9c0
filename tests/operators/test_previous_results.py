"""Results that a task reads back from XCom, with Airflow 3's own code for ``xcom_pull``."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from airflow_provider_vertex_ray.operators.idle import VertexRayDeleteIdleClustersOperator
from tests.operators.builders import COMMON

runner = pytest.importorskip("airflow.sdk.execution_time.task_runner", reason="Airflow 2 pulls XComs differently")


class Supervisor:
    """The XComs of a task in the database, newest run first, as the API server answers for them."""

    def __init__(self, *runs: dict[int, Any]) -> None:
        self.runs = runs
        """For each run, the result by map index; the current run comes first."""

    def send(self, msg: Any = None) -> Any:
        from airflow.sdk.execution_time import comms

        asked = self.runs if msg.include_prior_dates else self.runs[:1]
        if isinstance(msg, comms.GetXComSequenceSlice):
            return comms.XComSequenceSliceResult(root=[value for run in asked for value in run.values()])
        assert isinstance(msg, comms.GetXCom)
        index = -1 if msg.map_index is None else msg.map_index
        found = next((run[index] for run in asked if index in run), None)
        return comms.XComResult(key=msg.key, value=found)


def pulling(monkeypatch: pytest.MonkeyPatch, task_id: str, map_index: int, *runs: dict[int, Any]) -> Any:
    """A task instance of Airflow 3 whose XComs these are."""
    monkeypatch.setattr(runner, "SUPERVISOR_COMMS", Supervisor(*runs), raising=False)
    return runner.RuntimeTaskInstance.model_construct(
        dag_id="dag", run_id="run-3", task_id=task_id, map_index=map_index, try_number=1, max_tries=0
    )


def unreadable(since: float) -> dict[str, Any]:
    return {"unreadable": {"dead": [since, since + 1.0]}}


@pytest.mark.parametrize(
    ("map_index", "runs"),
    [
        (-1, [{}]),
        (-1, [{}, {-1: unreadable(1.0)}]),
        (-1, [{}, {-1: unreadable(1.0)}, {-1: unreadable(5.0)}, {-1: {"unreadable": {}}}]),
        (1, [{}, {0: unreadable(5.0), 1: unreadable(1.0)}]),
        (1, [{0: unreadable(9.0)}, {0: unreadable(5.0), 1: unreadable(1.0)}, {0: {}, 1: {}}]),
    ],
    ids=["first run", "second run", "fourth run", "mapped", "mapped, third run"],
)
def test_reaper_knows_since_when_a_cluster_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, map_index: int, runs: list[dict[int, Any]]
) -> None:
    operator = VertexRayDeleteIdleClustersOperator(task_id="reap", unreadable_for=3600.0, **COMMON)
    ti = pulling(monkeypatch, "reap", map_index, *runs)
    found = operator._unreadable_before({"ti": ti})  # type: ignore[typeddict-item]
    assert found == ({"dead": [1.0, 2.0]} if len(runs) > 1 else {})


@pytest.mark.parametrize("map_index", [-1, 1])
def test_lineage_of_a_mapped_task_has_its_own_tables(monkeypatch: pytest.MonkeyPatch, map_index: int) -> None:
    names = {
        "airflow.providers.common.compat.openlineage.facet": {"Dataset": lambda **given: given["name"]},
        "airflow.providers.openlineage.extractors": {"OperatorLineage": lambda **given: given},
    }
    for name, content in names.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    results = {index: {"source_tables": [f"from-{index}"], "target_table": f"to-{index}"} for index in (0, 1)}
    runs = {-1: results[1]} if map_index < 0 else results
    ti = pulling(monkeypatch, "read", map_index, runs)
    lineage = VertexRayBigQueryOperator.get_openlineage_facets_on_complete(None, ti)  # type: ignore[arg-type]
    assert lineage == {"inputs": ["from-1"], "outputs": ["to-1"]}
