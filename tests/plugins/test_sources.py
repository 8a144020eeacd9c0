"""What the options of the page come to; what is wrong with them is said, and never an error of the API server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.sharing.idle_policy import Policy
from airflow_provider_vertex_ray.plugins.page.sources import MOST_SOURCES, Source, configured_sources
from airflow_provider_vertex_ray.price_table import PriceTable


def _options(**values: str) -> Callable[[str], str]:
    return lambda name: values.get(name, "")


def _listed(*entries: Any) -> Any:
    return configured_sources(_options(page_sources=json.dumps(list(entries))))


def test_empty_configuration_is_valid() -> None:
    assert configured_sources(_options()) == configured_sources(_options(page_sources=" ", page_locations=" , "))
    assert configured_sources(_options()).sources == ()
    assert configured_sources(_options()).problems == ()


def test_locations_use_the_default_connection() -> None:
    found = configured_sources(_options(page_locations="us-central1, europe-west4"))
    assert found.sources == (
        Source("google_cloud_default", "us-central1"),
        Source("google_cloud_default", "europe-west4"),
    )
    assert [source.key for source in found.sources] == [
        "google_cloud_default.us-central1",
        "google_cloud_default.europe-west4",
    ]


def test_source_may_set_every_option() -> None:
    found = _listed(
        {
            "gcp_conn_id": "other",
            "location": "us-central1",
            "project_id": "my-project",
            "impersonation_chain": ["a@p.iam.gserviceaccount.com"],
            "lease_uri": "gs://bucket/leases",
            "price_table": {"currency": "USD", "regions": {}},
            "idle_for": 60,
            "max_age": 3600,
            "label_filter": {},
        }
    )
    assert found.problems == ()
    (source,) = found.sources
    assert source.policy == Policy(60.0, 3600.0)
    assert source.price_table == PriceTable("USD", {})
    assert source.key == "other.my-project.us-central1"
    assert found.find(source.key) is source
    assert found.find("else") is None
    hash(source)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("us-central1", "page_sources[0]: 'us-central1'. Use an object with a location"),
        ({}, "page_sources[0].location"),
        ({"location": "Not a region!"}, "page_sources[0].location"),
        ({"location": "us-central1", "lease": "gs://b"}, "page_sources[0]: 'lease'. Use only the keys"),
        ({"location": "us-central1", "lease_uri": "s3://b"}, "page_sources[0].lease_uri"),
        ({"location": "us-central1", "gcp_conn_id": "a b"}, "page_sources[0].gcp_conn_id"),
        ({"location": "us-central1", "project_id": "NO"}, "page_sources[0].project_id"),
        ({"location": "us-central1", "idle_for": -1}, "page_sources[0].idle_for"),
        ({"location": "us-central1", "idle_for": True}, "page_sources[0].idle_for"),
        ({"location": "us-central1", "max_age": 5}, "page_sources[0].max_age: 5.0. Set idle_for as well."),
        ({"location": "us-central1", "label_filter": []}, "page_sources[0].label_filter"),
        ({"location": "us-central1", "price_table": 3}, "page_sources[0].price_table"),
        ({"location": "us-central1", "price_table": {"currency": "x"}}, "page_sources[0].price_table['currency']"),
        ({"location": "us-central1", "impersonation_chain": 3}, "page_sources[0].impersonation_chain"),
    ],
)
def test_invalid_entry_is_named_and_others_are_shown(entry: Any, said: str) -> None:
    found = _listed(entry, {"location": "europe-west4"})
    assert [source.location for source in found.sources] == ["europe-west4"]
    (problem,) = found.problems
    assert problem.startswith("[vertex_ray] ")
    assert said in problem


def test_invalid_text_is_named() -> None:
    assert "is not valid JSON" in configured_sources(_options(page_sources="[{")).problems[0]
    assert "is not a list" in configured_sources(_options(page_sources='{"a": 1}')).problems[0]
    assert "page_locations" in configured_sources(_options(page_locations="Mars!")).problems[0]


def test_duplicate_and_excess_sources_are_named() -> None:
    found = _listed({"location": "us-central1"}, {"location": "us-central1", "idle_for": 5})
    assert len(found.sources) == 1
    assert "more than once" in found.problems[0]
    many = _listed(*({"location": "us-central1", "gcp_conn_id": f"c{place}"} for place in range(MOST_SOURCES + 3)))
    assert len(many.sources) == MOST_SOURCES
    assert f"{MOST_SOURCES + 3} entries" in many.problems[0]


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    ).map(json.dumps)
)
def test_no_text_raises(text: str) -> None:
    configured_sources(_options(page_sources=text))
    configured_sources(_options(page_locations=text))
