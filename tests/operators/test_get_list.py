"""Reading one cluster and all of them."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.errors import ClusterNotFoundError, NotARayClusterError
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.cluster import VertexRayGetClusterOperator, VertexRayListClustersOperator
from tests.support.clusters import BODY, LOCATION, page_of, start
from tests.support.tasks import context_of, run_task


def get(cluster_id: Any = "shared", **more: Any) -> VertexRayGetClusterOperator:
    return VertexRayGetClusterOperator(**{"task_id": "get", "cluster_id": cluster_id, "location": LOCATION, **more})


def listing(**more: Any) -> VertexRayListClustersOperator:
    return VertexRayListClustersOperator(**{"task_id": "list", "location": LOCATION, **more})


def test_a_cluster_is_read(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, labels={"team": "tea"})
    operator = get("{{ name }}")
    context = context_of(operator, name="shared")
    result = run_task(operator, context)
    assert (result["cluster_id"], result["state"], result["node_count"]) == ("shared", "RUNNING", 3)
    assert result["labels"] == {"team": "tea"}
    facts = context["ti"].xcoms[LINK_KEY]
    assert result["dashboard_url"] == page_of(fake_emulator, "shared")
    assert result["dashboard_url"].endswith(facts["dashboard_uri"].rsplit("/", 1)[-1])
    assert facts["project_id"] == fake_emulator.project


def test_one_that_is_not_up_has_no_dashboard_link(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    error = {"code": 13, "message": "It broke."}
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "ERROR", "error": error})
    operator = get()
    context = context_of(operator)
    result = run_task(operator, context)
    assert (result["state"], result["error"]) == ("ERROR", "It broke.")
    assert "dashboard_uri" not in context["ti"].xcoms[LINK_KEY]


def test_there_is_none(fake_emulator: EmulatorProcess) -> None:
    with pytest.raises(ClusterNotFoundError, match="shared"):
        run_task(get())


def test_one_without_ray(fake_emulator: EmulatorProcess) -> None:
    fake_emulator.create("shared", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError, match="cluster_id='shared'"):
        run_task(get())


def test_all_of_a_region(fake_emulator: EmulatorProcess) -> None:
    assert run_task(listing()) == []
    start(fake_emulator, "one", labels={"team": "tea", "stage": "test"})
    start(fake_emulator, "two", labels={"team": "tea"})
    start(fake_emulator, "three")
    fake_emulator.create("no-ray", {"resourcePools": BODY["resourcePools"]})
    operator = listing()
    context = context_of(operator)
    assert {cluster["cluster_id"] for cluster in run_task(operator, context)} == {"one", "two", "three"}
    assert context["ti"].xcoms[LINK_KEY] == {"project_id": fake_emulator.project, "emulator": fake_emulator.host}
    assert run_task(listing(location="europe-west4")) == []


def test_all_with_some_labels(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "one", labels={"team": "tea", "stage": "test"})
    start(fake_emulator, "two", labels={"team": "tea"})
    start(fake_emulator, "three")

    def ids(**labels: str) -> set[str]:
        operator = listing(labels=labels)
        return {cluster["cluster_id"] for cluster in run_task(operator, context_of(operator, team="tea"))}

    assert ids(team="{{ team }}") == {"one", "two"}
    assert ids(team="tea", stage="test") == {"one"}
    assert ids(team="coffee") == set()
