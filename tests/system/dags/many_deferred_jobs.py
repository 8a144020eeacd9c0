"""Many jobs on one cluster: more wait than Airflow has worker slots."""

from __future__ import annotations

from tests.support.job_dags import jobs_on_one_cluster

COUNT = 50
# Longer than it takes to submit a few jobs through two slots, so that they wait together.
JOB_SECONDS = 20

# The driver does not use Ray: the test is about waiting, and this costs next to nothing.
dag = jobs_on_one_cluster(
    "deferred_jobs",
    "many-jobs-{{ run_id }}",
    [f"sleep {JOB_SECONDS} && echo VERTEX_RAY_RESULT {n}" for n in range(COUNT)],
    poll_interval=5,
    job_timeout=600,
)
