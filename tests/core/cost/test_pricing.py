"""Node-hours and money, against cases that were figured by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.cluster_spec import AutoscalingSpec, ClusterSpec, Resources
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.cost.price_table import machine_size
from airflow_provider_vertex_ray.core.cost.pricing import (
    Sample,
    check_budget,
    cost_of,
    cost_so_far,
    node_hours,
)
from airflow_provider_vertex_ray.errors import BudgetExceededError, InvalidArgumentError
from airflow_provider_vertex_ray.price_table import NodeKind, PriceTable

LOCATION = "us-central1"
HEAD, WORKER, GPU = (
    NodeKind("n1-standard-16"),
    NodeKind("n1-standard-8"),
    NodeKind("n1-standard-8", "NVIDIA_TESLA_T4", 2),
)
RUNNING, UPDATING = ClusterState.RUNNING, ClusterState.UPDATING
T0 = 1_800_000_000.0
H = 3600.0
TABLE = PriceTable.from_value(
    {
        "currency": "USD",
        "regions": {
            LOCATION: {
                "machines": {"n1-standard-16": 1.0},
                "vcpu": {"n1": 0.05},
                "gib": {"n1": 0.01},
                "accelerators": {"NVIDIA_TESLA_T4": 0.35},
            }
        },
    }
)


def cluster(state: str = "RUNNING", started: str | None = "2027-01-15T08:00:00Z", **more: Any) -> Cluster:
    spec = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8", node_count=2)])
    body = {**spec.to_persistent_resource(LOCATION), "state": state, **more}
    name = f"projects/p/locations/{LOCATION}/persistentResources/c"
    return Cluster.from_resource({**body, "name": name, **({"startTime": started} if started else {})})


STARTED = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def test_partial_hours() -> None:
    # 90 minutes of one head and two workers.
    samples = [Sample(T0, RUNNING, {HEAD: 1, WORKER: 2})]
    assert node_hours(samples, T0 + 1.5 * H) == {HEAD: 1.5, WORKER: 3.0}


def test_a_resize_in_the_middle() -> None:
    # One hour of 2 workers, six minutes of UPDATING with 2, two hours of 5.
    samples = [
        Sample(T0 + 1.1 * H, RUNNING, {HEAD: 1, WORKER: 5}),
        Sample(T0, RUNNING, {HEAD: 1, WORKER: 2}),
        Sample(T0 + 1.0 * H, UPDATING, {HEAD: 1, WORKER: 2}),
    ]
    found = node_hours(samples, T0 + 3.1 * H)
    assert found == pytest.approx({HEAD: 3.1, WORKER: 2 * 1.1 + 5 * 2.0})


def test_unbilled_states_count_nothing() -> None:
    nodes = {HEAD: 1}
    samples = [
        Sample(T0, ClusterState.PROVISIONING, nodes),
        Sample(T0 + 1 * H, RUNNING, nodes),
        Sample(T0 + 3 * H, ClusterState.ERROR, nodes),
        Sample(T0 + 5 * H, ClusterState.STOPPING, nodes),
        Sample(T0 + 6 * H, ClusterState.REBOOTING, nodes),
    ]
    assert node_hours(samples, T0 + 9 * H) == {HEAD: 2.0}
    assert node_hours([], T0) == {}


def test_cost_by_machine_type_and_by_its_parts() -> None:
    # 1.0 an hour; and 8 vCPU x 0.05 + 30 GiB x 0.01 + 2 x 0.35 = 1.40 an hour.
    found = cost_of({HEAD: 2.0, GPU: 3.0}, TABLE, LOCATION)
    assert (found.amount, found.currency) == (pytest.approx(2.0 + 4.2), "USD")


def test_missing_price_is_never_guessed() -> None:
    hours = {HEAD: 1.0, NodeKind("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1): 1.0}
    found = cost_of(hours, TABLE, LOCATION)
    assert found.amount is None
    assert found.unpriced == ("NVIDIA_TESLA_A100 in us-central1", "a2-highgpu-1g in us-central1")
    assert cost_of(hours, TABLE, "europe-west4").unpriced[0].endswith("in europe-west4")
    assert cost_of(hours, None, LOCATION).amount is None


def test_cost_of_running_cluster() -> None:
    found = cost_so_far(cluster(), STARTED + 2 * H, TABLE)
    # 2 h of a head at 1.0 and of two workers at 8 x 0.05 + 30 x 0.01 = 0.70.
    assert found == {
        "node_hours": {"n1-standard-16": 2.0, "n1-standard-8": 4.0},
        "total_node_hours": 6.0,
        "cost": 4.8,
        "currency": "USD",
        "unpriced": [],
        "since": "2027-01-15T08:00:00+00:00",
        "basis": "current size since start",
    }


def test_cost_of_failed_or_stopping_cluster_ends_at_last_change() -> None:
    for state in ("ERROR", "STOPPING"):
        found = cost_so_far(cluster(state, updateTime="2027-01-15T08:30:00.5Z"), STARTED + 100 * H, TABLE)
        assert found["total_node_hours"] == pytest.approx(1.5, abs=0.001)


def test_cost_of_cluster_that_never_ran_is_zero() -> None:
    found = cost_so_far(cluster("PROVISIONING", None), STARTED + H, TABLE)
    assert (found["total_node_hours"], found["cost"], found["since"]) == (0.0, 0, None)


def test_an_autoscaling_pool_by_the_nodes_that_it_uses() -> None:
    scaling = AutoscalingSpec(min_replica_count=1, max_replica_count=8)
    spec = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8", autoscaling_spec=scaling)])
    body = spec.to_persistent_resource(LOCATION)
    body["resourcePools"][1]["usedReplicaCount"] = "5"
    found = cost_so_far(cluster(resourcePools=body["resourcePools"]), STARTED + H)
    assert found["node_hours"] == {"n1-standard-16": 1.0, "n1-standard-8": 5.0}


def test_samples_take_precedence_over_the_assumption() -> None:
    samples = [Sample(STARTED, RUNNING, {HEAD: 1}), Sample(STARTED + H, RUNNING, {HEAD: 1, WORKER: 1})]
    found = cost_so_far(cluster(), STARTED + 2 * H, None, samples)
    assert (found["total_node_hours"], found["basis"], found["cost"]) == (3.0, "observed", None)


def test_budget_rejects_cluster_that_cost_more() -> None:
    check_budget(cluster(), None, None, STARTED + 100 * H)
    check_budget(cluster(), 4.9, TABLE, STARTED + 2 * H)
    with pytest.raises(BudgetExceededError, match=r"has cost 4\.80 USD in 6\.0 node-hours, more than max_cost=4\.7"):
        check_budget(cluster(), 4.7, TABLE, STARTED + 2 * H)
    with pytest.raises(InvalidArgumentError, match="Set a price for n1-standard-16 in us-central1"):
        check_budget(cluster(), 4.7, PriceTable("USD"), STARTED + 2 * H)


@pytest.mark.parametrize(
    ("machine", "size"),
    [
        ("n1-standard-8", (8, 30.0)),
        ("n1-highmem-16", (16, 104.0)),
        ("n2-highcpu-4", (4, 4.0)),
        ("a2-highgpu-1g", (12, 85)),
        ("a2-highgpu-9g", None),
    ],
)
def test_sizes(machine: str, size: Any) -> None:
    assert machine_size(machine) == size


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "price_table"),
        ({"currency": "dollars", "regions": {}}, "currency"),
        ({"currency": "USD"}, "regions"),
        ({"currency": "USD", "regions": {}, "region": {}}, "region"),
        ({"currency": "USD", "regions": {"r": []}}, r"\['r'\]"),
        ({"currency": "USD", "regions": {"r": {"cores": {}}}}, "cores"),
        ({"currency": "USD", "regions": {"r": {"vcpu": 1}}}, r"\['vcpu'\]"),
        ({"currency": "USD", "regions": {"r": {"vcpu": {"n1": -1}}}}, r"\['n1'\]"),
        ({"currency": "USD", "regions": {"r": {"vcpu": {"n1": True}}}}, r"\['n1'\]"),
        ({"currency": "USD", "regions": {"r": {"vcpu": {"n1": float("nan")}}}}, r"\['n1'\]"),
        ({"currency": "USD", "regions": {"r": {"vcpu": {"n1": "0.1"}}}}, r"\['n1'\]"),
    ],
)
def test_malformed_price_tables_are_rejected(value: Any, place: str) -> None:
    with pytest.raises(InvalidArgumentError, match=place):
        PriceTable.from_value(value)


def test_price_table_survives_json() -> None:
    assert PriceTable.from_value(TABLE.to_json()) == TABLE


samples_ = st.lists(
    st.builds(
        Sample,
        st.floats(T0, T0 + 100 * H),
        st.sampled_from(list(ClusterState)),
        st.dictionaries(st.sampled_from([HEAD, WORKER, GPU]), st.integers(0, 100)),
    ),
    max_size=8,
)


@given(samples_, st.floats(T0, T0 + 100 * H), st.floats(0, 50 * H))
def test_time_adds_up(samples: list[Sample], until: float, more: float) -> None:
    earlier, later = node_hours(samples, until), node_hours(samples, until + more)
    for kind, hours in earlier.items():
        assert later.get(kind, 0.0) >= hours - 1e-9
    # What comes after a moment is the rest: the same samples, with the one that holds then cut in two.
    before = [sample for sample in samples if sample.time <= until]
    current = max(before, key=lambda sample: sample.time, default=None)
    rest = [sample for sample in samples if sample.time > until]
    if current is not None and sum(sample.time == current.time for sample in samples) == 1:
        rest.append(Sample(until, current.state, current.nodes))
        found = node_hours(rest, until + more)
        for kind in {*later, *earlier, *found}:
            assert later.get(kind, 0.0) == pytest.approx(earlier.get(kind, 0.0) + found.get(kind, 0.0), abs=1e-6)
