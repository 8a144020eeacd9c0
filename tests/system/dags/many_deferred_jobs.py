"""Many jobs on one cluster: more wait than Airflow has worker slots. Six in the ordinary tests, fifty in the soak."""

from __future__ import annotations

from tests.support.job_dags import jobs_on_one_cluster

SAMPLE, ALL = 6, 50
# Longer than it takes to submit a few jobs through two slots, so that they wait together.
JOB_SECONDS = 20

for jobs in (SAMPLE, ALL):
    # The driver does not use Ray: the test is about waiting, and this costs next to nothing.
    globals()[f"deferred_jobs_{jobs}"] = jobs_on_one_cluster(
        f"deferred_jobs_{jobs}",
        "many-jobs-{{ run_id }}",
        [f"sleep {JOB_SECONDS} && echo VERTEX_RAY_RESULT {n}" for n in range(jobs)],
        poll_interval=5,
        job_timeout=600,
    )
