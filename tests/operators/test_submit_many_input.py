"""Arguments of a task that runs many jobs: each is checked before anything is started, and named by its place."""

from __future__ import annotations

import datetime
import random
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.job.batch import MOST_JOBS
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.operators.builders import submit_jobs
from tests.support.clusters import jobs_of, start
from tests.support.tasks import context_of, run_task

GOOD = {"entrypoint": "true"}
noise = random.Random(7)
LONG_KEYS = [f"{noise.getrandbits(60 * 4):060x}" for _ in range(1500)]
"""Some 57,000 characters when compressed."""

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"jobs": [GOOD, {}]}, "jobs[1].entrypoint", "or set the entrypoint of all jobs"),
    ({"jobs": [GOOD, {"entrypoint": " "}]}, "jobs[1].entrypoint", "Use a shell command"),
    ({"jobs": [GOOD, {"entrypoint": [1]}]}, "jobs[1].entrypoint", "Use a shell command"),
    ({"jobs": [{**GOOD, "entrypont": "x"}]}, "jobs[0].entrypont", "Did you mean entrypoint?"),
    ({"jobs": [{**GOOD, "working_dir": "."}]}, "jobs[0].working_dir", "The fields are key, entrypoint"),
    ({"jobs": [GOOD, "true"]}, "jobs[1]", "Use a dict"),
    ({"jobs": [None]}, "jobs[0]", "Use a dict"),
    ({"jobs": GOOD}, "jobs", "Use a list of dicts"),
    ({"jobs": None}, "jobs", "Use a list of dicts"),
    ({"jobs": "true"}, "jobs", "Use a list of dicts"),
    ({"jobs": [{**GOOD, "key": "a/b"}]}, "jobs[0].key", "Use 1 to 63 letters"),
    ({"jobs": [{**GOOD, "key": "shard-a2"}]}, "jobs[0].key", "do not end like the number of an attempt"),
    ({"jobs": [{**GOOD, "key": 7}]}, "jobs[0].key", "Use 1 to 63 letters"),
    ({"jobs": [{**GOOD, "key": ""}]}, "jobs[0].key", "Use 1 to 63 letters"),
    ({"jobs": [{**GOOD, "key": "x" * 64}]}, "jobs[0].key", "Use 1 to 63 letters"),
    ({"jobs": [{**GOOD, "key": "a"}, GOOD, {**GOOD, "key": "a"}]}, "jobs[2].key", "jobs[0] has the same"),
    ({"jobs": [{**GOOD, "key": "1"}, GOOD]}, "jobs[1].key", "jobs[0] has the same"),
    ({"jobs": [{**GOOD, "env_vars": {"N": 1}}]}, "jobs[0].env_vars['N']", ""),
    ({"jobs": [{**GOOD, "env_vars": "text"}]}, "jobs[0].env_vars", ""),
    ({"jobs": [{**GOOD, "runtime_env": {"pipp": []}}]}, "jobs[0].runtime_env", "pip"),
    ({"jobs": [{**GOOD, "runtime_env": "text"}]}, "jobs[0].runtime_env", "Use a dict"),
    ({"jobs": [{**GOOD, "metadata": {"a": 1}}]}, "jobs[0].metadata['a']", "Use strings"),
    ({"jobs": [{**GOOD, "entrypoint_num_cpus": -1}]}, "jobs[0].entrypoint_num_cpus", "Use a number"),
    ({"jobs": [{**GOOD, "entrypoint_num_cpus": "{{ 1 }}"}]}, "jobs[0].entrypoint_num_cpus", "Use a number"),
    ({"jobs": [{**GOOD, "entrypoint_resources": {"CPU": 1}}]}, "jobs[0].entrypoint_resources['CPU']", ""),
    ({"jobs": [GOOD] * (MOST_JOBS + 1)}, "jobs", "the ends of 4,000 jobs of a task. Use several tasks."),
    ({"jobs": [{**GOOD, "key": key} for key in LONG_KEYS]}, "jobs", "Use shorter keys, or several tasks."),
    ({"jobs": [GOOD], "entrypoint": ""}, "entrypoint", "Use a shell command"),
    ({"jobs": [GOOD], "max_active": 0}, "max_active", "1 or more"),
    ({"jobs": [GOOD], "max_active": True}, "max_active", "1 or more"),
    ({"jobs": [GOOD], "on_failure": "abort"}, "on_failure", "continue, stop"),
    ({"jobs": [GOOD], "logs": True}, "logs", "failed, all, none"),
    ({"jobs": [GOOD], "log_lines": 0}, "log_lines", "from 1 to 50"),
    ({"jobs": [GOOD], "log_lines": 51}, "log_lines", "from 1 to 50"),
]


@pytest.mark.parametrize(("given", "field", "rule"), BAD, ids=[f"{n}-{each[1]}" for n, each in enumerate(BAD)])
def test_bad_argument_is_refused_at_dag_parse(given: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        submit_jobs(**given)
    assert caught.value.field.startswith(field)
    assert rule in caught.value.rule
    assert caught.value.rule.endswith((".", "?"))


@pytest.mark.parametrize(
    ("given", "field", "rule"),
    [each for each in BAD if each[1].startswith("jobs") and "{{" not in str(each[0])],
    ids=[f"{n}-{each[1]}" for n, each in enumerate(BAD) if each[1].startswith("jobs") and "{{" not in str(each[0])],
)
def test_bad_output_of_a_task_is_refused_before_any_request(
    fake_emulator: EmulatorProcess, given: dict[str, Any], field: str, rule: str
) -> None:
    with DAG("dag", schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)):

        @task
        def make() -> Any: ...

        operator = submit_jobs(make())
    operator.jobs = given["jobs"]
    with pytest.raises(InvalidArgumentError) as caught:
        operator.execute(context_of(operator))
    assert caught.value.field.startswith(field)
    assert fake_emulator.calls() == []


@pytest.mark.parametrize(
    "jobs",
    [
        [{**GOOD, "env_var": {"DB_PASSWORD": "hunter2"}}],
        {**GOOD, "env_vars": {"DB_PASSWORD": "hunter2"}},
        ["hunter2"],
        "[{'entrypoint': 'true', 'env_vars': {'DB_PASSWORD': 'hunter2'}}]",
    ],
)
def test_values_are_not_shown_as_they_may_be_secrets(fake_emulator: EmulatorProcess, jobs: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        submit_jobs(jobs)
    assert "hunter2" not in str(caught.value)


def test_values_that_are_known_later_pass_at_dag_parse() -> None:
    with DAG("dag", schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)):

        @task
        def make() -> Any: ...

        made = make()
        found = submit_jobs(
            [{"entrypoint": "{{ x }}", "key": "{{ y }}", "entrypoint_num_cpus": made, "env_vars": "{{ z }}"}, "{{ e }}"]
        )
        assert found.upstream_task_ids == {"make"}
        assert submit_jobs(make(), task_id="other").upstream_task_ids == {"make__1"}


@pytest.mark.parametrize("native", [True, False])
def test_templates_render_with_both_renderings(fake_emulator: EmulatorProcess, native: bool) -> None:
    start(fake_emulator)
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    with DAG("dag", schedule=None, start_date=day, render_template_as_native_obj=native):
        whole = submit_jobs("{{ jobs }}", task_id="whole")
        parts = submit_jobs(
            [
                {"entrypoint": ["echo", "{{ version }}"], "env_vars": {"V": "{{ version }}"}, "key": "{{ version }}"},
                {"entrypoint": "{{ command }}", "metadata": {"version": "1.10"}},
            ],
            task_id="parts",
        )
    context: dict[str, Any] = {"version": "1.10", "command": "echo 1.10", "jobs": [{"entrypoint": "echo 7"}]}
    run_task(parts, context_of(parts, **context))
    jobs = {job["metadata"]["airflow_job_key"]: job for job in jobs_of(fake_emulator, "shared").values()}
    assert jobs["1.10"]["entrypoint"] == "echo 1.10"
    assert jobs["1.10"]["runtime_env"]["env_vars"] == {"V": "1.10"}
    assert (jobs["1"]["entrypoint"], jobs["1"]["metadata"]["version"]) == ("echo 1.10", "1.10")
    if native:
        assert len(run_task(whole, context_of(whole, **context))) == 1
        return
    with pytest.raises(InvalidArgumentError, match="Use a list of dicts.*render_template_as_native_obj=True"):
        run_task(whole, context_of(whole, **context))
