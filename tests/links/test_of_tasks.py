"""Which links the tasks have, and that what a task keeps is enough for all of them."""

from __future__ import annotations

import inspect
import urllib.request
from importlib import import_module
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray import get_provider_info
from airflow_provider_vertex_ray.links.base import EMULATOR_FACT, LINK_KEY
from airflow_provider_vertex_ray.links.page_address import HAS_PAGE
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayDeleteClusterOperator,
    VertexRayGetClusterOperator,
    VertexRayResizeClusterOperator,
)
from airflow_provider_vertex_ray.operators.cost import VertexRayClusterCostOperator
from airflow_provider_vertex_ray.operators.job import VertexRayStopJobOperator, VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.job_admin import (
    VertexRayDeleteJobOperator,
    VertexRayGetJobOperator,
    VertexRayListJobsOperator,
)
from airflow_provider_vertex_ray.operators.jobs import VertexRaySubmitJobsOperator
from airflow_provider_vertex_ray.operators.leases import VertexRayReleaseClusterOperator
from airflow_provider_vertex_ray.operators.monitoring import (
    VertexRayClusterLogsOperator,
    VertexRayClusterMetricsOperator,
)
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.sensors.cluster import VertexRayClusterSensor
from airflow_provider_vertex_ray.sensors.idle import VertexRayClusterIdleSensor
from airflow_provider_vertex_ray.sensors.job import VertexRayJobSensor
from airflow_provider_vertex_ray.sensors.monitoring import VertexRayMetricSensor
from tests.support.clusters import LOCATION, SPEC, jobs_of, start, submit
from tests.support.monitoring import been, measured
from tests.support.tasks import context_of, run_task

PAGE = {"Cluster in Airflow"} if HAS_PAGE else set()
OF_CLUSTER = {*PAGE, "Ray cluster", "Ray dashboard", "Cloud Logging", "Metrics"}
OF_SERVING = {"Model", "Endpoint"}
OTHER_LINKS = {
    VertexRayDeleteClusterOperator: {"Ray clusters", "Cloud Logging", "Metrics"},
    VertexRayReleaseClusterOperator: {*PAGE, "Ray cluster", "Cloud Logging", "Metrics"},
}
for _task in (
    VertexRayCreateClusterOperator,
    VertexRayGetClusterOperator,
    VertexRayResizeClusterOperator,
    VertexRayClusterCostOperator,
):
    OTHER_LINKS[_task] = {*OF_CLUSTER, "Shell on the head"}


def tasks() -> list[type]:
    """All public operators and sensors."""
    info = get_provider_info()
    modules = [name for kind in ("operators", "sensors") for entry in info[kind] for name in entry["python-modules"]]
    return [
        value
        for name in modules
        for value in vars(import_module(name)).values()
        if inspect.isclass(value) and value.__module__ == name and value.__name__.startswith("VertexRay")
    ]


def names(task: Any) -> set[str]:
    return {link.name for link in task.operator_extra_links}


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.__name__)
def test_each_has_the_links_of_what_it_names(task: Any) -> None:
    fields = set(task.template_fields)
    if "cluster_id" in fields:
        assert names(task) == OTHER_LINKS.get(task, OF_CLUSTER)
    elif fields & {"endpoint_id", "model", "model_id"}:
        assert names(task) & OF_SERVING
    told = set(get_provider_info()["extra-links"])
    assert {f"{type(link).__module__}.{type(link).__name__}" for link in task.operator_extra_links} <= told


ONE: dict[str, Any] = {"cluster_id": "shared", "location": LOCATION}
POKED: dict[str, Any] = {**ONE, "poke_interval": 0.02, "timeout": PATIENCE}
CASES: list[tuple[type, dict[str, Any]]] = [
    (VertexRayCreateClusterOperator, {**ONE, "cluster_id": "made", "spec": SPEC, "poll_interval": 0.02}),
    (VertexRayGetClusterOperator, ONE),
    (VertexRayResizeClusterOperator, {**ONE, "total_nodes": 4, "poll_interval": 0.02}),
    (VertexRayClusterCostOperator, ONE),
    (VertexRaySubmitJobOperator, {**ONE, "entrypoint": "echo hello", "poll_interval": 0.02}),
    (VertexRaySubmitJobsOperator, {**ONE, "jobs": [{"entrypoint": "echo hello"}], "poll_interval": 0.02}),
    (VertexRayGetJobOperator, {**ONE, "submission_id": "one"}),
    (VertexRayStopJobOperator, {**ONE, "submission_id": "one"}),
    (VertexRayDeleteJobOperator, {**ONE, "submission_id": "one"}),
    (VertexRayListJobsOperator, ONE),
    (VertexRayClusterLogsOperator, {**ONE, "submission_id": "one"}),
    (VertexRayClusterMetricsOperator, ONE),
    (VertexRayClusterSensor, POKED),
    (VertexRayClusterIdleSensor, {**POKED, "idle_for": 0.1}),
    (VertexRayJobSensor, {**POKED, "submission_id": "one"}),
    (VertexRayMetricSensor, {**POKED, "metric": "cpu", "comparison": "<", "threshold": 10}),
    (VertexRayReleaseClusterOperator, {**ONE, "lease_uri": "gs://leases-bucket/leases"}),
    (VertexRayDeleteClusterOperator, {**ONE, "poll_interval": 0.02}),
]


def opens(address: str) -> int:
    """The status of what a browser gets there, which has no token and follows redirects."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, headers=headers), timeout=PATIENCE) as answer:
        return int(answer.status)


def ways() -> list[Any]:
    """Each case in the worker, and deferred where that is another way."""
    return [
        pytest.param(kind, {**arguments, **more}, id=f"{kind.__name__}-{name}")
        for kind, arguments in CASES
        for name, more in (("in-worker", {"deferrable": False}), ("deferred", {"deferrable": True}), ("at-once", {}))
        if bool(more)
        == ("deferrable" in inspect.signature(kind.__init__).parameters or issubclass(kind, VertexRayBaseSensor))
    ]


@pytest.mark.parametrize(("kind", "arguments"), ways())
def test_what_a_task_keeps_is_enough_for_all_of_its_links(
    fake_emulator: EmulatorProcess,
    storage: StorageEmulator,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    arguments: dict[str, Any],
) -> None:
    start(fake_emulator)
    submit(fake_emulator, "shared", "one", "echo hello")
    until(lambda: jobs_of(fake_emulator, "shared")["one"]["status"] == "SUCCEEDED")
    measured(fake_emulator, ray_node_cpu_utilization=[been(1, 60)])
    operator = kind(task_id="task", **arguments)
    context = context_of(operator)
    run_task(operator, context)
    facts = context["ti"].xcoms[LINK_KEY]
    # On the emulator, only the dashboard and the page have an address, and the dashboard opens.
    shown = {link.name: link.address(facts) for link in operator.operator_extra_links}
    assert "/ray-clusters/" in shown.pop("Cluster in Airflow", "/ray-clusters/")
    opened = [opens(address) for address in shown.values() if address]
    assert opened == [200] * (("Ray dashboard" in shown) and "dashboard_uri" in facts)
    monkeypatch.delenv("VERTEX_RAY_EMULATOR_HOST")
    facts.pop(EMULATOR_FACT)
    addresses = {link.name: link.address(facts) for link in operator.operator_extra_links}
    addresses.pop("Cluster in Airflow", None)
    assert all(address.startswith("https://") for address in addresses.values())
    job = arguments.get("submission_id") or ("" if kind is not VertexRaySubmitJobOperator else facts["submission_id"])
    if job:
        assert addresses["Ray dashboard"].endswith(f"/#/jobs/{job}")
        assert f"job-driver-{job}.log" in addresses["Cloud Logging"]


def test_every_task_about_a_cluster_is_tried() -> None:
    about = {task for task in tasks() if "cluster_id" in task.template_fields}  # type: ignore[attr-defined]
    # A job operator like the one that is tried.
    assert about - {kind for kind, _ in CASES} == {VertexRayBigQueryOperator}
