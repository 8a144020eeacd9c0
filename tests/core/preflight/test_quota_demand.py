"""What a cluster asks of the quotas: by hand, as a law, and beside what the emulator counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.cluster_spec import AutoscalingSpec, ClusterSpec, Resources
from airflow_provider_vertex_ray.core.preflight.quota_demand import (
    Demand,
    QuotaStatus,
    demand_of,
    quota_demand,
    unknown_machines,
    vcpus,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.specs import spec_fields

CPUS = "custom_model_training_cpus"
T4 = "custom_model_training_nvidia_t4_gpus"
LOCATION = "us-central1"


def spec_of(fields: dict[str, Any]) -> ClusterSpec:
    try:
        return ClusterSpec(**fields)
    except InvalidArgumentError:
        assume(False)
        raise


SPECS = spec_fields().map(spec_of)


def amounts(spec: ClusterSpec) -> dict[str, tuple[int, int]]:
    return {demand.metric: (demand.least, demand.most) for demand in quota_demand(spec)}


@pytest.mark.parametrize(
    ("head", "workers", "wanted"),
    [
        (Resources(), [Resources()], {CPUS: (32, 32)}),
        (Resources(), [Resources("e2-standard-8", 3)], {CPUS: (16 + 24, 16 + 24)}),
        (
            Resources(),
            [Resources("n1-standard-8", 2, "NVIDIA_TESLA_T4", 4)],
            {CPUS: (32, 32), T4: (8, 8)},
        ),
        (
            Resources("n2-standard-16"),
            [Resources("a2-highgpu-1g", 2, "NVIDIA_TESLA_A100", 1)],
            {
                "custom_model_training_n2_cpus": (16, 16),
                "custom_model_training_a2_cpus": (24, 24),
                "custom_model_training_nvidia_a100_gpus": (2, 2),
            },
        ),
        (
            Resources(),
            [Resources("g2-standard-12", accelerator_type="NVIDIA_L4", accelerator_count=1),
             Resources("a2-ultragpu-1g", accelerator_type="NVIDIA_A100_80GB", accelerator_count=1)],
            {
                CPUS: (16, 16),
                "custom_model_training_g2_cpus": (12, 12),
                "custom_model_training_nvidia_l4_gpus": (1, 1),
                "custom_model_training_a2_cpus": (12, 12),
                "custom_model_training_nvidia_a100_80gb_gpus": (1, 1),
            },
        ),
        # In the head's pool the bounds count the head.
        (Resources(), [Resources(autoscaling_spec=AutoscalingSpec(2, 5))], {CPUS: (32, 80)}),
        (
            Resources(),
            [Resources("n1-standard-8", autoscaling_spec=AutoscalingSpec(1, 10))],
            {CPUS: (16 + 8, 16 + 80)},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_examples_worked_out_by_hand(
    head: Resources, workers: list[Resources], wanted: dict[str, tuple[int, int]]
) -> None:
    assert amounts(ClusterSpec(head_node_type=head, worker_node_types=workers)) == wanted


@given(SPECS)
def test_it_is_the_sum_over_the_pools(spec: ClusterSpec) -> None:
    summed: dict[str, tuple[int, int]] = {}
    for pool in spec.pools():
        for demand in demand_of([pool]):
            least, most = summed.get(demand.metric, (0, 0))
            summed[demand.metric] = (least + demand.least, most + demand.most)
    assert amounts(spec) == summed
    cpus = sum(most for metric, (_, most) in summed.items() if metric.endswith("_cpus"))
    assert cpus == sum(pool.largest * (vcpus(pool.machine.machine_type) or 0) for pool in spec.pools())
    assert all(least <= most for least, most in summed.values())


@given(SPECS, st.data())
def test_more_nodes_never_demand_less(spec: ClusterSpec, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(spec.worker_node_types) - 1))
    worker = spec.worker_node_types[place]
    more = data.draw(st.integers(1, 5))
    bounds = worker.autoscaling_spec
    if bounds:
        grown = AutoscalingSpec(bounds.min_replica_count + more, bounds.max_replica_count + more)
        bigger = dataclasses.replace(worker, autoscaling_spec=grown)
    else:
        bigger = dataclasses.replace(worker, node_count=worker.node_count + more)
    workers = [*spec.worker_node_types[:place], bigger, *spec.worker_node_types[place + 1 :]]
    after = amounts(dataclasses.replace(spec, worker_node_types=workers))
    before = amounts(spec)
    assert set(after) == set(before)
    assert all(after[metric][0] >= before[metric][0] and after[metric][1] >= before[metric][1] for metric in before)
    # A worker that joins the head's autoscaling pool adds nothing: that pool's bounds stand for all of it.
    if not worker.shares_machine(spec.head_node_type):
        assert sum(most for _, most in after.values()) > sum(most for _, most in before.values())


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(SPECS)
def test_the_emulator_counts_the_same(fake_emulator: EmulatorProcess, spec: ClusterSpec) -> None:
    # Limits that are one less than the demand refuse the cluster, and those that equal it do not.
    assume(len({worker.autoscaling_spec is None for worker in spec.worker_node_types}) == 1)
    plain = dataclasses.replace(spec, network=None, reserved_ip_ranges=(), labels={})
    body = plain.to_persistent_resource(LOCATION)
    wanted = quota_demand(plain)
    fake_emulator.admin("DELETE", "clusters")
    for demand in wanted:
        tight = {each.metric: {LOCATION: {"limit": each.least - (each is demand)}} for each in wanted}
        fake_emulator.admin("PUT", "project", {"quota": tight})
        found = fake_emulator.create(f"tight-{demand.metric[22:].replace('_', '-')}-{id(body) % 10**8}", body)
        assert found["state"] == "ERROR", (demand, found)
        # CustomModelTrainingT4GPUsPerProjectPerRegion for custom_model_training_nvidia_t4_gpus
        named = demand.metric.replace("nvidia_", "").replace("_", "")
        assert named in found["error"]["message"].lower()
        fake_emulator.admin("DELETE", "clusters")
    fake_emulator.admin(
        "PUT", "project", {"quota": {each.metric: {LOCATION: {"limit": each.least}} for each in wanted}}
    )
    assert fake_emulator.create(f"fits-{id(body) % 10**8}", body)["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("machine", "size"),
    [
        ("n1-highcpu-96", 96),
        ("c3-standard-176-lssd", 176),
        ("a3-megagpu-8g", 208),
        ("m1-megamem-96", 96),
        ("e2-micro", None),
        ("a9-hugegpu-8g", None),
    ],
)
def test_vcpus(machine: str, size: int | None) -> None:
    assert vcpus(machine) == size


def test_a_machine_of_unknown_size_is_named() -> None:
    spec = ClusterSpec(worker_node_types=[Resources("a9-hugegpu-8g", 2, "NVIDIA_B200", 8)])
    assert unknown_machines(spec) == ("a9-hugegpu-8g",)
    assert amounts(spec) == {CPUS: (16, 16), "custom_model_training_nvidia_b200_gpus": (16, 16)}


def test_a_template_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        quota_demand(ClusterSpec(worker_node_types=[Resources("{{ machine }}")]))


@pytest.mark.parametrize(
    ("limit", "used", "free", "never", "is_free"),
    [
        (None, None, None, (False, False), (True, True)),
        (100, 0, 100, (False, False), (True, True)),
        (100, 60, 40, (False, False), (True, False)),
        (100, 90, 10, (False, False), (False, False)),
        (100, 200, 0, (False, False), (False, False)),
        (50, 0, 50, (False, True), (True, False)),
        (8, 0, 8, (True, True), (False, False)),
        (0, 0, 0, (True, True), (False, False)),
        (100, None, 100, (False, False), (True, True)),
    ],
)
def test_quota_status_compares_demand_with_limit_and_use(
    limit: int | None, used: int | None, free: int | None, never: tuple[bool, bool], is_free: tuple[bool, bool]
) -> None:
    standing = QuotaStatus(Demand(CPUS, 32, 80), limit, used)
    assert standing.free == free
    assert (standing.can_never(), standing.can_never(full_size=True)) == never
    assert (standing.is_free(), standing.is_free(full_size=True)) == is_free
