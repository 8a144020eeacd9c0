"""Limits of the package that are shorter than a busy machine may need."""

from __future__ import annotations

import pytest
from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.core import polling
from airflow_provider_vertex_ray.core.job import batch_client, log_client
from airflow_provider_vertex_ray.operators import job_kill, jobs_start, monitoring_base
from airflow_provider_vertex_ray.sensors import monitoring
from airflow_provider_vertex_ray.triggers import base, job, job_cluster, jobs, kill_deletion, kill_lease, serving

LIMITS = (
    # For a poll that is in flight at the deadline: many tests let that pass at once, and ask what was seen until then.
    (polling, "SHORTEST_LOOK"),
    (batch_client, "LIST_SECONDS"),
    (log_client, "HANDSHAKE_SECONDS"),
    # What a killed task has for its clean-up.
    (base, "END_SECONDS"),
    *((module, "KILL_SECONDS") for module in (base, job, job_cluster, jobs, jobs_start)),
    *((module, "KILL_SECONDS") for module in (kill_deletion, kill_lease, serving)),
    *((module, "ANSWER_SECONDS") for module in (job_kill, jobs_start)),
    (jobs_start, "CANCELLED_SECONDS"),
    *((module, "LINKS_SECONDS") for module in (monitoring_base, monitoring)),
)


@pytest.fixture(autouse=True)
def limits_for_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are far; a test that is about one sets it again."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, PATIENCE)
