"""Wrong input of a create: refused with field, value and rule, at DAG parse or else before any call."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.operators.builders import create
from tests.support.tasks import context_of, run_task

WORKERS = [{"machine_type": "n1-standard-8"}]

AT_PARSE: list[tuple[dict[str, Any], str, Any]] = [
    ({"cluster_id": "Bad_Id"}, "cluster_id", "Bad_Id"),
    ({"cluster_id": "ends-"}, "cluster_id", "ends-"),
    ({"cluster_id": ""}, "cluster_id", ""),
    ({"cluster_id": "made", "shared_name": "etl"}, "cluster_id", "made"),
    ({"cluster_id": "made", "cluster_name": "made"}, "cluster_name", "made"),
    ({"network": "x"}, "network", "x"),
    ({"cluster_id": "projects/p/persistentResources/c"}, "cluster_id", "projects/p/persistentResources/c"),
    ({"spec": {"worker_node_types": []}}, "worker_node_types", []),
    ({"spec": {"worker_node_types": [{"node_count": 0}]}}, "worker_node_types[0].node_count", 0),
    ({"spec": {"head_node_type": {"node_count": 2}}}, "head_node_type.node_count", 2),
    ({"spec": {"worker_node_types": WORKERS, "ray_version": "1.13"}}, "ray_version", "1.13"),
    ({"spec": "two workers"}, "spec", "two workers"),
    ({"provision_timeout": 0}, "provision_timeout", 0),
    ({"dashboard_timeout": -1}, "dashboard_timeout", -1),
    ({"poll_interval": "often"}, "poll_interval", "often"),
]


@pytest.mark.parametrize(("arguments", "field", "value"), AT_PARSE, ids=lambda item: str(item)[:40])
def test_at_dag_parse(fake_emulator: EmulatorProcess, arguments: dict[str, Any], field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        create(**arguments)
    assert (caught.value.field, caught.value.value) == (field, value)
    assert caught.value.rule
    assert str(caught.value).startswith(f"Invalid value for {field}: ")
    assert fake_emulator.calls() == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"labels": {"Team": "tea"}}, "labels"),
        ({"worker_node_types": [{"accelerator_type": "NVIDIA_TESLA_T4"}]}, "accelerator_count"),
        ({"worker_node_types": [{"boot_disk_size_gb": 10}]}, "boot_disk_size_gb"),
        ({"wokers": 2}, "wokers"),
    ],
)
def test_a_wrong_part_of_the_spec_is_named(fake_emulator: EmulatorProcess, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        create(spec=spec)
    assert field in str(caught.value)
    assert fake_emulator.calls() == []


RENDERED: list[tuple[dict[str, Any], str]] = [
    ({"cluster_id": "run-{{ bad }}"}, "cluster_id"),
    ({"location": "{{ nothing }}"}, "location"),
    ({"spec": {"worker_node_types": [{"machine_type": "n1-standard-8", "node_count": "{{ bad }}"}]}}, "node_count"),
    ({"spec": {"worker_node_types": WORKERS, "labels": {"run": "{{ bad }}"}}}, "labels"),
    ({"spec": {"worker_node_types": WORKERS, "network": "{{ bad }}"}}, "network"),
]


@pytest.mark.parametrize(("arguments", "field"), RENDERED, ids=lambda item: str(item)[:40])
def test_after_rendering_before_any_call(
    fake_emulator: EmulatorProcess, deferrable: bool, arguments: dict[str, Any], field: str
) -> None:
    operator = create(**arguments, deferrable=deferrable)
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(operator, context_of(operator, bad="Not Good", nothing=""))
    assert field in caught.value.field
    assert caught.value.rule
    assert fake_emulator.calls() == []


def test_a_full_name_needs_neither(
    fake_emulator: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")
    full = f"projects/{fake_emulator.project}/locations/europe-west4/persistentResources/made"
    result = run_task(create(full, location=None, deferrable=deferrable))
    assert (result["cluster_id"], result["location"]) == ("made", "europe-west4")
