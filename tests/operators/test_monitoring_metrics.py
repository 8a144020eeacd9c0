"""A cluster's metrics as a task: figures, series, plots."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.errors import InvalidArgumentError, InvalidRequestError, MetricsNotAuthorisedError
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.monitoring import VertexRayClusterMetricsOperator
from airflow_provider_vertex_ray.operators.plots import draw
from tests.support.clusters import LOCATION, start
from tests.support.monitoring import been, measured
from tests.support.tasks import context_of, run_task

RANGE = "QueryRangePrometheus"


def measure(**more: Any) -> VertexRayClusterMetricsOperator:
    return VertexRayClusterMetricsOperator(
        **{"task_id": "metrics", "cluster_id": "shared", "location": LOCATION, "window": 300, **more}
    )


@pytest.fixture
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """Two nodes that have been at 20 % and at 40 % for ten minutes, with half of their memory in use, and no GPU."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    measured(
        fake_emulator,
        ray_node_cpu_utilization=[been(20, 600, ip="1"), been(40, 600, ip="2")],
        ray_node_mem_used=[been(5e9, 600)],
        ray_node_mem_total=[been(1e10, 600)],
        ray_tasks=[been(3, 600, State="RUNNING"), been(7, 600, State="FINISHED")],
    )
    return fake_emulator


def test_the_named_metrics(shared: EmulatorProcess, task_log: list[str]) -> None:
    operator = measure(metrics=["cpu", "memory", "gpu", "tasks", "actors", "nodes"])
    context = context_of(operator)
    result = run_task(operator, context)
    found = {name: (each["min"], each["avg"], each["max"], each["last"]) for name, each in result["metrics"].items()}
    assert found == {
        "cpu": (30, 30, 30, 30),
        "memory": (50, 50, 50, 50),
        "gpu": (None, None, None, None),
        "tasks": (3, 3, 3, 3),
        "actors": (0, 0, 0, 0),
        "nodes": (2, 2, 2, 2),
    }
    assert (result["step"], result["end"] - result["start"]) == (1.0, 300)
    assert result["metrics"]["gpu"]["series"] == []
    (series,) = result["metrics"]["cpu"]["series"]
    assert (series["labels"], series["count"]) == ({}, 301)
    assert 2 <= len(series["points"]) <= 301
    assert series["points"][0] == [pytest.approx(result["start"], abs=0.01), 30]
    assert "cpu: min 30 avg 30 max 30 last 30" in task_log
    assert any(line.startswith("gpu: no data") for line in task_log)
    facts = context["ti"].xcoms[LINK_KEY]
    assert facts["promql"].splitlines()[0] == 'avg(ray_node_cpu_utilization{cluster="shared"})'
    assert facts["dashboard_uri"]


def test_a_query_of_one_s_own(shared: EmulatorProcess) -> None:
    operator = measure(metrics=[], queries={"nodes": 'ray_node_cpu_utilization{cluster="{{ name }}"}'}, step=30)
    result = run_task(operator, context_of(operator, name="shared"))
    nodes = result["metrics"]["nodes"]
    assert nodes["query"] == 'ray_node_cpu_utilization{cluster="shared"}'
    assert (nodes["min"], nodes["avg"], nodes["max"], nodes["count"]) == (20, 30, 40, 22)
    assert {each["labels"]["ip"]: each["last"] for each in nodes["series"]} == {"1": 20, "2": 40}


def test_the_result_is_bounded(shared: EmulatorProcess) -> None:
    nodes = [been(k, 600, ip=str(k)) for k in range(50)]
    measured(shared, ray_node_cpu_utilization=nodes)
    result = run_task(measure(metrics=["cpu"], queries={"each": "ray_node_cpu_utilization"}, step=1))
    each = result["metrics"]["each"]
    assert (each["max"], each["count"], len(each["series"]), each["more_series"]) == (49, 50 * 301, 20, 30)
    assert len(json.dumps(result)) < 60_000


def test_rate_limits_and_an_expired_token(shared: EmulatorProcess, revoked_once: None) -> None:
    with shared.fault(scope="control_plane", method=RANGE, status=429, times=2):
        assert run_task(measure(metrics=["cpu"]))["metrics"]["cpu"]["last"] == 30
    assert [call["status"] for call in shared.calls(RANGE)] == [429, 401, 429, 200]


def test_what_the_service_refuses(shared: EmulatorProcess) -> None:
    with pytest.raises(InvalidRequestError, match=r"The query was: avg\("):
        run_task(measure(queries={"wrong": "avg("}))
    shared.admin("PUT", "project", {"denied_permissions": ["monitoring.timeSeries.list"]})
    try:
        with pytest.raises(MetricsNotAuthorisedError, match=r"roles/monitoring\.viewer"):
            run_task(measure())
    finally:
        shared.admin("DELETE", "project")


def size_of(png: bytes) -> tuple[int, ...]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def texts_of(svg: bytes) -> str:
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return svg.decode()


def test_a_plot_as_png(shared: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    operator = measure(plot_path="file://{{ folder }}/new/plot.png")
    result = run_task(operator, context_of(operator, folder=tmp_path))
    assert result["plot_path"] == f"file://{tmp_path}/new/plot.png"
    width, height = size_of((tmp_path / "new" / "plot.png").read_bytes())
    assert (width, height) == (1100, 1320)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_plot_as_svg_in_cloud_storage(shared: EmulatorProcess, storage: StorageEmulator) -> None:
    run_task(measure(metrics=["cpu"], plot_path=f"gs://{storage.bucket}/report/plot.svg"))
    texts_of(storage.read("report/plot.svg"))


def test_a_plot_of_gaps_and_of_nothing() -> None:
    now = time.time()
    points = [(now - 60 + k, float("nan") if k == 7 else k) for k in range(60) if not 20 <= k < 40]
    labels = {"ip": "_1", "$name": "a$b_{"}
    for suffix in (".svg", ".png"):
        metrics: Any = {"cpu $x": [(labels, points), ({}, [])], "gpu": [], "one": [({}, points[:1])]}
        assert draw("a $title_{", metrics, (now - 60, now), 1, suffix, {"gpu": "%"})


def test_without_matplotlib_nothing_is_asked(
    shared: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.admin("DELETE", "calls")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidArgumentError, match=r"Install airflow-provider-vertex-ray\[plots\]"):
        run_task(measure(plot_path=f"file://{tmp_path}/plot.png"))
    assert shared.calls() == []
    assert run_task(measure())["plot_path"] is None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cluster_id": "Bad_Id"}, "cluster_id"),
        ({"metrics": ["disk"]}, "metrics"),
        ({"metrics": "cpu"}, "metrics"),
        ({"metrics": []}, "metrics"),
        ({"queries": "up"}, "queries"),
        ({"queries": {"a": ""}}, "queries['a']"),
        ({"step": 0}, "step"),
        ({"window": -1}, "window"),
        ({"start": 5, "window": 5}, "window"),
        ({"plot_path": "/tmp/x.png"}, "plot_path"),
        ({"plot_path": "gs://b/x.pdf"}, "plot_path"),
    ],
    ids=str,
)
def test_wrong_input_is_refused_at_parse(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        measure(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("arguments", "given", "field"),
    [
        ({"plot_path": "{{ given }}"}, "x.png", "plot_path"),
        ({"window": None, "start": "{{ given }}"}, "soon", "start"),
        ({"window": 86_400, "step": 1, "queries": {"a": "{{ given }}"}}, "up", "step"),
        ({"queries": {"a": "{{ given }}"}}, "", "queries['a']"),
        ({"queries": {"cpu": "{{ given }}"}}, "up", "queries"),
    ],
)
def test_what_templates_give_is_judged_before_any_call(
    fake_emulator: EmulatorProcess, arguments: dict[str, Any], given: str, field: str
) -> None:
    operator = measure(**arguments)
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(operator, context_of(operator, given=given))
    assert caught.value.field == field
    assert fake_emulator.calls() == []
