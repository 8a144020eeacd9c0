from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.cluster.name import (
    ClusterName,
    parse_cluster_name,
    validate_cluster_id,
    validate_location,
    validate_project,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

IDS = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(cluster_id=IDS)
def test_an_id_is_completed_and_its_full_name_reads_back(cluster_id: str) -> None:
    name = parse_cluster_name(cluster_id, "my-project", "us-central1")
    assert name == ClusterName("my-project", "us-central1", cluster_id)
    assert name.full == f"projects/my-project/locations/us-central1/persistentResources/{cluster_id}"
    assert name.full == str(name)
    assert name.full.startswith(f"{name.parent}/")
    assert parse_cluster_name(name.full) == name


def test_full_name_takes_precedence_over_project_and_location() -> None:
    full = "projects/123456789012/locations/europe-west4/persistentResources/etl"
    name = parse_cluster_name(full, "my-project", "us-central1")
    assert name == ClusterName("123456789012", "europe-west4", "etl")


@pytest.mark.parametrize(
    ("project_id", "location", "field"),
    [(None, "us-central1", "project_id"), ("", "us-central1", "project_id"), ("my-project", None, "location")],
)
def test_what_is_missing_is_named(project_id: str | None, location: str | None, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_cluster_name("etl", project_id, location)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Etl",
        "1etl",
        "-etl",
        "etl-",
        "etl_1",
        "a" * 64,
        "etl\n",
        "étl",
        "projects/p/locations/us-central1/persistentResources/",
        "projects/p/locations/us-central1/persistentResources/Etl",
        "projects/p/locations/us-central1/persistentResources/a/b",
        "projects/p/locations/us-central1/endpoints/a",
        "projects//locations/us-central1/persistentResources/a",
        "projects/p/locations/evil.example.com#/persistentResources/a",
        "locations/us-central1/persistentResources/a",
    ],
)
def test_a_bad_name_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_cluster_name(value, "my-project", "us-central1")
    assert caught.value.field == "cluster_id"


@pytest.mark.parametrize("value", [None, 7])
def test_an_id_must_be_a_text(value: object) -> None:
    with pytest.raises(InvalidArgumentError):
        validate_cluster_id(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("location", ["us-central1", "europe-west12", "northamerica-northeast1"])
def test_regions_pass(location: str) -> None:
    assert validate_location(location) == location


# A location becomes part of a host that gets a token.
@pytest.mark.parametrize(
    "location", ["us", "global", "us-central1-a", "evil.com/", "us-central1.evil.com", "us-central1\n", ""]
)
def test_only_a_region_passes_as_location(location: str) -> None:
    with pytest.raises(InvalidArgumentError):
        validate_location(location)


@pytest.mark.parametrize("project", ["my-project", "123456789012", "example.com:my-project"])
def test_projects_pass(project: str) -> None:
    assert validate_project(project) == project


@pytest.mark.parametrize("project", ["a/b", "a b", "A", "../x", None])
def test_other_texts_are_no_projects(project: str | None) -> None:
    with pytest.raises(InvalidArgumentError):
        validate_project(project)


def test_the_error_names_field_value_and_rule_and_travels_between_processes() -> None:
    error = InvalidArgumentError("worker_node_types[0].node_count", 0, "Use a whole number of at least 1.")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "Invalid value for worker_node_types[0].node_count: 0. Use a whole number of at least 1."
    assert (copy.field, copy.value, copy.rule) == (error.field, error.value, error.rule)
    assert isinstance(copy, ValueError)
    assert len(str(InvalidArgumentError("labels", "x" * 5_000, "Shorten it."))) < 300
