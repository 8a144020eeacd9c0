"""Cloud Monitoring: Prometheus' query API over metrics that tests set, and the usage of quotas."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from emulator_support.cloud_clients import discovery
from emulator_support.process import EmulatorProcess

BASE = "/v1/projects/demo-project/location/global/prometheus/api/v1"
USAGE = "serviceruntime.googleapis.com/quota/allocation/usage"


def query(emulator: EmulatorProcess, text: str, path: str = "query", **more: Any) -> tuple[int, Any]:
    parameters = urlencode({"query": text, **more})
    return emulator.request("GET", f"{BASE}/{path}?{parameters}", token=emulator.token())


def values(answer: tuple[int, Any]) -> dict[str, str]:
    status, body = answer
    assert status == 200, body
    assert body["status"] == "success"
    return {each["metric"].get("cluster", ""): each["value"][1] for each in body["data"]["result"]}


def set_metrics(emulator: EmulatorProcess, cluster: str, metrics: Any) -> tuple[int, Any]:
    return emulator.request("PUT", f"/emulator/clusters/{cluster}/metrics", metrics)


@pytest.fixture
def measured(emulator: EmulatorProcess) -> EmulatorProcess:
    emulator.admin("DELETE", "telemetry")
    for name, busy in (("one", 12.5), ("two", 80)):
        emulator.create(name)
        tasks = [{"labels": {"State": state}, "value": value} for state, value in (("RUNNING", 3), ("FINISHED", 4))]
        assert set_metrics(emulator, name, {"ray_node_cpu_utilization": busy, "ray_tasks": tasks})[0] == 200
    return emulator


def test_instant_queries(measured: EmulatorProcess) -> None:
    status, body = query(measured, 'ray_node_cpu_utilization{cluster="one"}')
    assert status == 200
    assert body["data"]["resultType"] == "vector"
    (found,) = body["data"]["result"]
    assert found["metric"] == {
        "__name__": "ray_node_cpu_utilization",
        "cluster": "one",
        "job": "ray",
        "location": "us-central1",
        "namespace": "ray",
        "project_id": "demo-project",
    }
    assert found["value"][1] == "12.5"
    assert abs(found["value"][0] - time.time()) < 60
    assert values(query(measured, "sum by (cluster) (ray_tasks)")) == {"one": "7", "two": "7"}
    assert values(query(measured, 'ray_tasks{State="RUNNING"} > 2')) == {"one": "3", "two": "3"}
    assert values(query(measured, "avg(ray_node_cpu_utilization)")) == {"": "46.25"}
    assert query(measured, "1 + 1")[1]["data"]["resultType"] == "scalar"
    assert query(measured, "ray_tasks", time=time.time() - 3600)[1]["data"]["result"] == []


def test_query_accepts_get_and_post_with_form_or_json(measured: EmulatorProcess) -> None:
    text = "max(ray_node_cpu_utilization)"
    assert values(measured.request("POST", f"{BASE}/query", {"query": text}, token=measured.token())) == {"": "80"}
    request = discovery(measured, "monitoring", "v1").projects().location().prometheus().api().v1().query(
        name="projects/demo-project", location="global", body={"query": text}
    )  # fmt: skip
    assert values((200, request.execute())) == {"": "80"}


def test_for_seconds_fills_the_past(measured: EmulatorProcess) -> None:
    now = time.time()
    idle = {"ray_node_cpu_utilization": [{"value": 0.5, "for_seconds": 3600}]}
    assert set_metrics(measured, "one", idle)[0] == 200
    assert values(query(measured, "avg_over_time(ray_node_cpu_utilization[30m])"))["one"] == "0.5"
    status, body = query(
        measured, 'ray_node_cpu_utilization{cluster="one"}', "query_range", start=now - 1800, end=now, step="10m"
    )
    assert status == 200
    assert body["data"]["resultType"] == "matrix"
    ((found,),) = ([each["values"] for each in body["data"]["result"]],)
    assert [value for _, value in found] == ["0.5"] * 4
    assert found[1][0] - found[0][0] == 600
    # At a time in the filled past: how often the emulator has measured since depends on the machine.
    ranged = query(measured, 'ray_node_cpu_utilization{cluster="one"}[1m]', time=now)[1]["data"]
    assert ranged["resultType"] == "matrix"
    assert len(ranged["result"][0]["values"]) >= 10


def test_metrics_of_a_deleted_cluster_are_kept(measured: EmulatorProcess) -> None:
    measured.wait(measured.api("DELETE", "persistentResources/one")[1])
    assert values(query(measured, "ray_node_cpu_utilization")) == {"two": "80"}
    assert set(values(query(measured, "max_over_time(ray_node_cpu_utilization[5m])"))) == {"one", "two"}


def test_metrics_set_by_hand_are_returned_and_can_be_unset(measured: EmulatorProcess) -> None:
    found = measured.admin("GET", "clusters/one/metrics")["metrics"]
    assert found["ray_node_cpu_utilization"] == [{"labels": {}, "value": 12.5}]
    measured.admin("DELETE", "clusters/one/metrics")
    assert values(query(measured, "ray_node_cpu_utilization")) == {"two": "80"}


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"a b": 1}, "a b"),
        ({"x": "1"}, "x.value: '1'"),
        ({"x": True}, "x.value"),
        ({"x": [{"labels": {}}]}, "x[0]"),
        ({"x": [{"value": 1, "label": {}}]}, "x[0]"),
        ({"x": [{"value": 1, "labels": {"a": 1}}]}, "x[0].labels"),
        ({"x": [{"value": 1}, {"value": 2}]}, "x[1].labels"),
        ({"x": [{"value": 1, "for_seconds": -1}]}, "x[0].for_seconds"),
    ],
)
def test_invalid_metrics_are_rejected(measured: EmulatorProcess, metrics: Any, words: str) -> None:
    status, body = set_metrics(measured, "one", metrics)
    assert status == 400
    assert words in body["error"]["message"]
    assert set_metrics(measured, "none", {})[0] == 404


@pytest.mark.parametrize(
    ("path", "parameters", "words"),
    [
        ("query", {"query": "sum("}, "parenthesis"),
        ("query", {"query": ""}, "query"),
        ("query", {"query": "x", "time": "noon"}, "time"),
        ("query", {"query": "topk(1, x)"}, "topk"),
        ("query_range", {"query": "x", "start": 0, "end": 100, "step": "0"}, "step"),
        ("query_range", {"query": "x", "start": 100, "end": 0, "step": "1"}, "end"),
        ("query_range", {"query": "x", "start": 0, "end": 100_000, "step": "1"}, "11,000"),
        ("query_range", {"query": "x[5m]", "start": 0, "end": 100, "step": "1"}, "range vector"),
    ],
)
def test_errors_have_the_format_of_prometheus(
    emulator: EmulatorProcess, path: str, parameters: dict[str, Any], words: str
) -> None:
    status, body = query(emulator, parameters.pop("query"), path, **parameters)
    assert (status, body["status"], body["errorType"]) == (400, "error", "bad_data")
    assert words in body["error"]


def test_tokens_and_faults_apply(emulator: EmulatorProcess) -> None:
    assert emulator.request("GET", f"{BASE}/query?query=1")[0] == 401
    with emulator.fault(scope="control_plane", method="QueryPrometheus", status=429):
        assert query(emulator, "1")[0] == 429
    with emulator.fault(scope="control_plane", method="QueryRangePrometheus", status=503):
        assert query(emulator, "1", "query_range", start=0, end=1, step=1)[0] == 503


def usage(emulator: EmulatorProcess, metric: str, region: str = "us-central1") -> int | None:
    """Return the latest reading of a quota's use; None for a region of which nothing is known."""
    text = (
        f'metric.type="{USAGE}" AND resource.labels.service="aiplatform.googleapis.com" AND '
        f'metric.labels.quota_metric="aiplatform.googleapis.com/{metric}" AND resource.labels.location="{region}"'
    )
    series = discovery(emulator, "monitoring", "v3").projects().timeSeries()
    found = series.list(
        name="projects/demo-project",
        filter=text,
        interval_startTime="2026-01-01T00:00:00Z",
        interval_endTime="2026-01-02T00:00:00Z",
    ).execute()
    series_points = [each["points"] for each in found.get("timeSeries", [])]
    if not series_points:
        return None
    ((point,),) = series_points
    return int(point["value"]["int64Value"])


@pytest.mark.sdk
def test_quota_usage_follows_the_clusters(emulator: EmulatorProcess) -> None:
    assert usage(emulator, "custom_model_training_cpus") is None
    emulator.create("one")  # two n1-standard-16
    assert usage(emulator, "custom_model_training_cpus") == 32
    assert usage(emulator, "custom_model_training_cpus", "europe-west4") is None
    assert usage(emulator, "custom_model_training_nvidia_t4_gpus") == 0
    emulator.admin("PUT", "project", {"quota": {"custom_model_training_cpus": {"us-central1": {"used": 5}}}})
    try:
        assert usage(emulator, "custom_model_training_cpus") == 37
        emulator.admin("POST", "clusters/one/state", {"state": "ERROR"})
        assert usage(emulator, "custom_model_training_cpus") == 5
    finally:
        emulator.admin("DELETE", "project")


@pytest.mark.parametrize("parameters", ["", "filter=x", f"filter={quote(f'metric.type={chr(34)}{USAGE}{chr(34)}')}"])
def test_time_series_without_filter_or_interval_are_rejected(emulator: EmulatorProcess, parameters: str) -> None:
    status, body = emulator.request("GET", f"/v3/projects/demo-project/timeSeries?{parameters}", token=emulator.token())
    assert (status, body["error"]["status"]) == (400, "INVALID_ARGUMENT")
