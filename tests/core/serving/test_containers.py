"""Serving containers as data: which are left, until when, and how to add one."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from airflow_provider_vertex_ray.core.serving.containers import (
    FRAMEWORKS,
    container_for_model,
    container_versions,
    container_warning,
    serving_container,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

VARIABLE = "AIRFLOW__VERTEX_RAY__SERVING_CONTAINERS"
LEFT = {
    "sklearn": ["1.4", "1.5", "1.6"],
    "xgboost": ["2.0", "2.1"],
    "pytorch": ["2.2", "2.3", "2.4"],
    "tensorflow": ["2.14", "2.15"],
}


def test_containers_that_are_left() -> None:
    for framework in FRAMEWORKS:
        known = container_versions(framework)
        assert [row.version for row in known.values() if not row.ended] == LEFT[framework]
    assert sum(len(container_versions(framework)) for framework in FRAMEWORKS) == 44


@pytest.mark.parametrize("framework", LEFT)
def test_default_is_the_newest(framework: str) -> None:
    newest = LEFT[framework][-1].replace(".", "-")
    assert serving_container(framework, None, "us-central1").endswith(f".{newest}:latest")


@pytest.mark.parametrize(
    ("framework", "version"), [("sklearn", "1.3"), ("xgboost", "1.7"), ("pytorch", "2.1"), ("tensorflow", "2.9")]
)
def test_container_that_has_ended_is_rejected(framework: str, version: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no longer available") as caught:
        serving_container(framework, version, "us-central1")
    assert LEFT[framework][-1] in caught.value.rule


@pytest.mark.parametrize("version", ["new", "1", "1.6.1", "1-6"])
def test_malformed_version_is_rejected(version: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not a version"):
        serving_container("sklearn", version, "us-central1")


@pytest.mark.parametrize(("framework", "version"), [("sklearn", "1.6"), ("xgboost", None), ("pytorch", "2.2")])
def test_warning_starts_90_days_before_the_end(framework: str, version: str | None) -> None:
    end = container_versions(framework)[version or LEFT[framework][-1]].ends
    assert end is not None
    assert container_warning(framework, version, end - timedelta(days=91)) is None
    assert f"ends on {end}, in 90 days" in str(container_warning(framework, version, end - timedelta(days=90)))
    assert f"ended on {end}" in str(container_warning(framework, version, end))


def test_unknown_version_warns_and_one_row_makes_it_known(monkeypatch: pytest.MonkeyPatch) -> None:
    today = date(2026, 11, 29)
    assert serving_container("sklearn", "1.9", "europe-west4").endswith("sklearn-cpu.1-9:latest")
    assert "does not know a prebuilt container of sklearn 1.9" in str(container_warning("sklearn", "1.9", today))
    monkeypatch.setenv(VARIABLE, json.dumps([{"framework": "sklearn", "version": "1.9", "ends": "2029-01-01"}]))
    assert container_warning("sklearn", "1.9", today) is None
    assert serving_container("sklearn", None, "us-central1").endswith("sklearn-cpu.1-9:latest")


@pytest.mark.parametrize(
    ("framework", "version", "trained", "chosen"),
    [
        ("sklearn", None, "1.5.2", "1.5"),
        ("sklearn", "1.5", "1.5.0", "1.5"),
        ("xgboost", None, "2.0.3", "2.0"),
        ("pytorch", None, "2.4.1+cpu", "2.4"),
        # XGBoost and PyTorch load what older versions have written.
        ("xgboost", None, "1.7.6", None),
        ("xgboost", "2.1", "2.0.3", "2.1"),
        ("pytorch", "2.4", "2.2.0", "2.4"),
        ("sklearn", "1.10", "1.10.1", "1.10"),
        ("sklearn", None, "", None),
        ("sklearn", "1.6", "unknown", "1.6"),
    ],
)
def test_container_of_the_models_version(framework: str, version: str | None, trained: str, chosen: str | None) -> None:
    assert container_for_model(framework, version, trained) == (chosen, None)


@pytest.mark.parametrize(
    ("framework", "version", "trained"),
    [("sklearn", None, "1.9.1"), ("sklearn", None, "1.10.0"), ("xgboost", None, "3.2.0"), ("sklearn", "1.6", "1.5.2")],
)
def test_container_of_another_version_warns(framework: str, version: str | None, trained: str) -> None:
    chosen, warning = container_for_model(framework, version, trained)
    assert chosen == version
    assert f"made with {framework} {trained}, and the container has {framework} {LEFT[framework][-1]}" in str(warning)


@pytest.mark.parametrize(
    ("framework", "version", "trained"),
    [("sklearn", "1.6", "1.9.1"), ("sklearn", "1.9", "1.10.0"), ("xgboost", "2.1", "3.0"), ("pytorch", "2.2", "2.4.0")],
)
def test_model_newer_than_its_container_is_rejected(framework: str, version: str, trained: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"framework_version: .*made with {framework} {trained}"):
        container_for_model(framework, version, trained)


@pytest.mark.parametrize("row", [{"framework": "keras", "version": "1.9"}, {"framework": "sklearn", "version": "new"}])
def test_malformed_rows_are_rejected(row: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps([row]))
    with pytest.raises(InvalidArgumentError, match=r"\[vertex_ray\] serving_containers"):
        serving_container("sklearn", None, "us-central1")
