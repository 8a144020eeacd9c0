"""The arithmetic of the benchmarks, against cases that were worked out by hand."""

from __future__ import annotations

from airflow_provider_vertex_ray.price_table import NodeKind
from benchmarks.amortisation import MeasuredJob, amortised


def test_amortised_counts_billed_time_and_waiting_of_both_ways() -> None:
    jobs = [MeasuredJob(run_seconds=60, start_seconds=600, billed_start_seconds=30)] * 20
    nodes = {NodeKind("n1-standard-16"): 1, NodeKind("n1-standard-8"): 2}
    found = amortised(jobs, nodes, shared_seconds=1800, shared_start_seconds=600)
    assert found["shared"] == {"node_hours": 1.5, "waiting_seconds": 600, "overhead": 1.5}
    assert found["ephemeral"] == {"node_hours": 1.5, "waiting_seconds": 12_000, "overhead": 1.5}
