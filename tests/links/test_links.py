"""The addresses beside a task, from what the operator kept."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from airflow_provider_vertex_ray import get_provider_info
from airflow_provider_vertex_ray.links import base, page_address
from airflow_provider_vertex_ray.links.base import LINK_KEY, VertexRayLink
from airflow_provider_vertex_ray.links.cluster import (
    VertexRayClusterLink,
    VertexRayClusterListLink,
    VertexRayDashboardLink,
    VertexRayLogsLink,
    VertexRayShellLink,
)
from airflow_provider_vertex_ray.links.monitoring import VertexRayMetricsLink
from airflow_provider_vertex_ray.links.page import VertexRayPageLink
from airflow_provider_vertex_ray.links.quota import VertexRayQuotaLink
from airflow_provider_vertex_ray.links.serving import VertexRayEndpointLink, VertexRayModelLink
from tests.support.tasks import TaskInstance

CLUSTER = {"project_id": "p1", "location": "us-central1", "cluster_id": "shared"}
DASHBOARD = {"dashboard_uri": "abc-dot-us-central1.aiplatform-training.googleusercontent.com"}
JOB = {"submission_id": "af-job/1"}
TASK = SimpleNamespace(dag_id="etl daily", run_id="manual__2026-11-25T06:00:00+00:00", task_id="ray.load", map_index=3)
LINKS = [
    VertexRayQuotaLink(),
    VertexRayClusterLink(),
    VertexRayClusterListLink(),
    VertexRayDashboardLink(),
    VertexRayLogsLink(),
    VertexRayShellLink(),
    VertexRayMetricsLink(),
    VertexRayPageLink(),
    VertexRayModelLink(),
    VertexRayEndpointLink(),
]


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a link's address for facts that a task kept; None for a task that kept none."""

    def address(link: VertexRayLink, facts: dict[str, str] | None) -> str:
        class Kept:
            @staticmethod
            def get_value(*, key: str, ti_key: Any) -> Any:
                assert (key, ti_key) == (LINK_KEY, TASK)
                return facts

        monkeypatch.setattr(base, "XCom", Kept)
        return link.get_link(None, ti_key=TASK)

    return address


def test_the_console_s_page_of_the_cluster(link: Any) -> None:
    assert link(VertexRayClusterLink(), CLUSTER) == (
        "https://console.cloud.google.com/vertex-ai/locations/us-central1/ray-clusters/shared?project=p1"
    )


def test_the_console_s_list(link: Any) -> None:
    assert link(VertexRayClusterListLink(), {"project_id": "p1"}) == (
        "https://console.cloud.google.com/vertex-ai/ray?project=p1"
    )


def test_the_dashboard(link: Any) -> None:
    address = "https://abc-dot-us-central1.aiplatform-training.googleusercontent.com"
    assert link(VertexRayDashboardLink(), {**CLUSTER, **DASHBOARD}) == f"{address}/"
    assert link(VertexRayDashboardLink(), {**CLUSTER, **DASHBOARD, **JOB}) == f"{address}/#/jobs/af-job%2F1"


def test_the_cluster_on_the_page_in_airflow(link: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_address, "airflow_version", "3.3.2")
    came = "from_dag=etl%20daily&from_run=manual__2026-11-25T06%3A00%3A00%2B00%3A00&from_task=ray.load&from_map=3"
    path = "/plugin/ray-clusters/ray-clusters/projects/p1/locations/us-central1/persistentResources/shared"
    assert link(VertexRayPageLink(), CLUSTER) == f"{path}?{came}"
    assert link(VertexRayPageLink(), {**CLUSTER, **JOB}) == f"{path}?{came}&job=af-job%2F1"
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    assert link(VertexRayPageLink(), CLUSTER) == f"/airflow{path}?{came}"
    # An older Airflow shows only the start of a page within its navigation.
    monkeypatch.setattr(page_address, "airflow_version", "3.1.8")
    assert link(VertexRayPageLink(), CLUSTER) == f"/airflow{path.removeprefix('/plugin/ray-clusters')}?{came}"


def test_the_logs_of_a_job_whose_id_no_log_can_have(link: Any) -> None:
    assert link(VertexRayLogsLink(), {**CLUSTER, "submission_id": "two\nlines"}) == ""


def test_the_shell_on_the_head(link: Any) -> None:
    for address in (f"{DASHBOARD['dashboard_uri']}/shell", f"https://{DASHBOARD['dashboard_uri']}/shell"):
        wanted = f"https://{DASHBOARD['dashboard_uri']}/shell"
        assert link(VertexRayShellLink(), {**CLUSTER, "shell_uri": address}) == wanted
    assert link(VertexRayShellLink(), CLUSTER) == ""


def test_the_logs(link: Any) -> None:
    start, query = link(VertexRayLogsLink(), CLUSTER).split(";query=")
    assert start == "https://console.cloud.google.com/logs/query"
    text, _, project = query.partition("?project=")
    assert project == "p1"
    lines = [
        'resource.labels.task_name="ray-cluster-logs"',
        'labels."ml.googleapis.com/ray_cluster_id"="shared"',
    ]
    assert unquote(text).splitlines() == lines
    of_job = unquote(link(VertexRayLogsLink(), {**CLUSTER, **JOB}).split(";query=")[1].partition("?")[0])
    assert of_job.splitlines() == [*lines, 'jsonPayload.tailed_path:"job-driver-af-job/1.log"']


def test_the_logs_of_a_task_s_own_filter(link: Any) -> None:
    address = link(VertexRayLogsLink(), {**CLUSTER, "log_filter": 'severity>=ERROR\ntext:"a&b"'})
    assert unquote(address.split(";query=")[1].partition("?")[0]) == 'severity>=ERROR\ntext:"a&b"'
    assert address.endswith("?project=p1")


def queries_of(address: str) -> list[str]:
    """The queries in a Metrics Explorer's address, which must be one that a browser reads as it was meant."""
    parts = urlsplit(address)
    assert parts.path == "/monitoring/metrics-explorer;duration=PT6H"
    found = parse_qs(parts.query, strict_parsing=True)
    assert found.pop("project") == ["p1"]
    (state,) = found.pop("pageState")
    assert found == {}
    return [each["prometheusQuery"] for each in json.loads(state)["xyChart"]["dataSets"]]


def test_the_metrics(link: Any) -> None:
    assert queries_of(link(VertexRayMetricsLink(), CLUSTER)) == [
        'avg(ray_node_cpu_utilization{cluster="shared"})',
        '100 * sum(ray_node_mem_used{cluster="shared"}) / sum(ray_node_mem_total{cluster="shared"})',
        'avg(ray_node_gpus_utilization{cluster="shared"})',
    ]
    own = 'sum(rate(x{a="b&c=d"}[5m])) + 1'
    assert queries_of(link(VertexRayMetricsLink(), {**CLUSTER, "promql": f"{own}\nup"})) == [own, "up"]


def test_a_model_s_and_an_endpoint_s_page(link: Any) -> None:
    facts = {"project_id": "p1", "location": "us-central1", "model_id": "7", "version_id": "2", "endpoint_id": "9"}
    console = "https://console.cloud.google.com/vertex-ai"
    assert link(VertexRayModelLink(), facts) == (
        f"{console}/models/locations/us-central1/models/7/versions/2/properties?project=p1"
    )
    assert link(VertexRayEndpointLink(), facts) == (
        f"{console}/online-prediction/locations/us-central1/endpoints/9?project=p1"
    )


def test_the_page_of_the_quotas(link: Any) -> None:
    assert link(VertexRayQuotaLink(), {"project_id": "p1"}) == (
        "https://console.cloud.google.com/apis/api/aiplatform.googleapis.com/quotas?project=p1"
    )


@pytest.mark.parametrize("kind", LINKS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("facts", [None, {}, {"unknown": "fact"}])
def test_no_address_without_the_facts(link: Any, kind: VertexRayLink, facts: dict[str, str] | None) -> None:
    assert link(kind, facts) == ""


def test_only_what_is_known_is_kept() -> None:
    ti = TaskInstance()
    context: Any = {"ti": ti}
    base.persist_link_facts(context, project_id="p1", dashboard_uri=None, submission_id="")
    assert ti.xcoms == {LINK_KEY: {"project_id": "p1"}}


def test_airflow_knows_them_all() -> None:
    known = get_provider_info()["extra-links"]
    assert set(known) == {f"{type(each).__module__}.{type(each).__qualname__}" for each in LINKS}
    assert len({each.name for each in LINKS}) == len(LINKS)


EMULATOR: dict[str, Any] = {"emulator": "127.0.0.1:8787"}


def test_on_the_emulator_no_link_leads_to_google(link: Any) -> None:
    facts = {**CLUSTER, **DASHBOARD, **JOB, **EMULATOR, "model_id": "7", "endpoint_id": "9", "shell_uri": "x/shell"}
    found = {each.name: link(each, facts) for each in LINKS}
    dashboard = f"http://127.0.0.1:8787/emulator/dashboards/{DASHBOARD['dashboard_uri']}/#/jobs/af-job%2F1"
    page = link(VertexRayPageLink(), {**CLUSTER, **JOB})
    shown = {name: address for name, address in found.items() if address}
    assert shown == {"Ray dashboard": dashboard, "Cluster in Airflow": page}


def test_a_task_that_failed_before_it_stored_facts_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3 logs an error for each that is not found."""
    asked: list[Any] = []

    class Asked:
        @staticmethod
        def get_value(*, key: str, ti_key: Any) -> Any:
            asked.append(ti_key)

    monkeypatch.setattr(base, "XCom", Asked)
    ti: Any = TaskInstance("job", map_index=3)
    base.begin_link_facts({"ti": ti})  # type: ignore[typeddict-item]
    assert {link.get_link(None, ti_key=ti) for link in LINKS} == {""}
    base.persist_link_facts({"ti": ti}, **CLUSTER)  # type: ignore[typeddict-item]
    assert VertexRayClusterLink().get_link(None, ti_key=ti).startswith("https://")
    assert asked == []
    # What another process has stored, before a deferral, has to be asked for.
    other: Any = TaskInstance("job", map_index=4)
    assert VertexRayClusterLink().get_link(None, ti_key=other) == ""
    assert asked == [other]
