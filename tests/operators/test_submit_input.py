"""What a job is given: wrong input before any call, a working_dir sent once, variables that are masked."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.job import packages
from airflow_provider_vertex_ray.errors import InvalidArgumentError, JobFailedError
from airflow_provider_vertex_ray.operators import masking
from airflow_provider_vertex_ray.operators.job import Secret
from tests.operators.builders import submit_job
from tests.support.clusters import jobs_of, start
from tests.support.tasks import TaskInstance, context_of, deferral_of, run_task

AT_PARSE: list[tuple[dict[str, Any], str]] = [
    ({"entrypoint": ""}, "entrypoint"),
    ({"entrypoint": "  "}, "entrypoint"),
    ({"entrypoint": []}, "entrypoint"),
    ({"entrypoint": ["python", 3]}, "entrypoint"),
    ({"cluster_id": "Bad_Id"}, "cluster_id"),
    ({"cluster_id": None}, "cluster_id"),
    ({"poll_interval": 0}, "poll_interval"),
    ({"job_timeout": -1}, "job_timeout"),
    ({"pending_timeout": True}, "pending_timeout"),
    ({"lost_timeout": None}, "lost_timeout"),
    ({"entrypoint": ["python", "a\0b"]}, "entrypoint"),
    ({"entrypoint_num_cpus": "1"}, "entrypoint_num_cpus"),
    ({"entrypoint_num_cpus": -1}, "entrypoint_num_cpus"),
    ({"entrypoint_num_cpus": True}, "entrypoint_num_cpus"),
    ({"entrypoint_num_cpus": float("inf")}, "entrypoint_num_cpus"),
    ({"entrypoint_num_gpus": "{{ params.n }}"}, "entrypoint_num_gpus"),
    ({"entrypoint_num_gpus": 1.5}, "entrypoint_num_gpus"),
    ({"entrypoint_num_gpus": 2.0001}, "entrypoint_num_gpus"),
    ({"entrypoint_memory": 1.5e9}, "entrypoint_memory"),
    ({"entrypoint_memory": "2GiB"}, "entrypoint_memory"),
    ({"entrypoint_memory": 2**70}, "entrypoint_memory"),
    ({"entrypoint_num_cpus": 0.00001}, "entrypoint_num_cpus"),
    ({"entrypoint_resources": ["a"]}, "entrypoint_resources"),
    ({"metadata": ["a"]}, "metadata"),
    ({"submission_id": 5}, "submission_id"),
    ({"submission_id": ""}, "submission_id"),
    ({"submission_id": "a/b"}, "submission_id"),
    ({"submission_id": "."}, "submission_id"),
    ({"submission_id": ".."}, "submission_id"),
    ({"submission_id": "a\nb"}, "submission_id"),
    ({"submission_id": "x" * 241}, "submission_id"),
    ({"submission_id": "é" * 121}, "submission_id"),
]


@pytest.mark.parametrize(("arguments", "field"), AT_PARSE, ids=str)
def test_at_dag_parse(fake_emulator: EmulatorProcess, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        submit_job(**arguments)
    assert caught.value.field == field
    assert caught.value.value == arguments[field]
    assert fake_emulator.calls() == []


ENVIRONMENTS: list[tuple[dict[str, Any], str, str]] = [
    ({"runtime_env": {"pip": {"a"}}}, "runtime_env['pip']", "Use a list of packages"),
    (
        {"runtime_env": {"working_dir": "/a"}, "working_dir": "/b"},
        "working_dir",
        "Set working_dir either here or in runtime_env",
    ),
    ({"env_vars": {"N": 3}}, "env_vars['N']", "Use strings as names and values"),
    ({"env_vars": {"A=B": "1"}}, "env_vars['A=B']", "contains neither '=' nor NUL"),
    ({"env_vars": {"": "1"}}, "env_vars['']", "not empty"),
    ({"env_vars": {"A": "x\0y"}}, "env_vars['A']", "without NUL"),
    ({"env_vars": {"A": "\ud800"}}, "env_vars['A']", "lone surrogates"),
    ({"runtime_env": "pip"}, "runtime_env", "Use a dict"),
    ({"metadata": {"n": 1}}, "metadata['n']", "Use strings"),
    ({"entrypoint_resources": {"a": "1"}}, "entrypoint_resources['a']", "Use a number"),
    ({"entrypoint_resources": {"": 1}}, "entrypoint_resources['']", "name of a resource"),
]


@pytest.mark.parametrize(
    ("name", "amount", "rule"),
    [
        ("CPU", 1, "Use entrypoint_num_cpus"),
        ("GPU", 1, "Use entrypoint_num_gpus"),
        ("memory", 1, "Use entrypoint_memory"),
        ("object_store_memory", 1, "cannot reserve"),
        ("", 1, "non-empty string"),
        (1, 1, "non-empty string"),
        ("a", "1", "Use a number, 0 or at least"),
        ("a", -1, "Use a number, 0 or at least"),
        ("a", True, "Use a number, 0 or at least"),
        ("a", 0.00009, "Use a number, 0 or at least"),
    ],
)
def test_custom_resources_at_dag_parse(name: Any, amount: Any, rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule) as caught:
        submit_job(entrypoint_resources={name: amount})
    assert caught.value.field == f"entrypoint_resources[{name!r}]"


@pytest.mark.ray
def test_ray_rejects_what_is_rejected_here_as_custom_resource() -> None:
    from ray._private.ray_option_utils import _validate_resource_quantity
    from ray._private.utils import resources_from_ray_options

    for name in ("CPU", "GPU", "memory", "object_store_memory"):
        with pytest.raises(ValueError, match="must not"):
            resources_from_ray_options({"resources": {name: 1}})
    assert _validate_resource_quantity("num_cpus", 0.00009) is not None
    assert _validate_resource_quantity("num_cpus", 0.0001) is None


@pytest.mark.parametrize(("arguments", "field", "rule"), ENVIRONMENTS, ids=str)
def test_an_environment_at_dag_parse(arguments: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        submit_job(**arguments)
    assert caught.value.field == field
    assert rule in caught.value.rule


MISSING = [
    ({"working_dir": "nowhere"}, "working_dir"),
    ({"working_dir": "nowhere.zip"}, "working_dir"),
    ({"working_dir": "text.txt"}, "working_dir"),
    ({"py_modules": ["module", "nowhere"]}, "py_modules[1]"),
    ({"py_modules": ["text.txt"]}, "py_modules[0]"),
    ({"runtime_env": {"working_dir": "nowhere"}}, "working_dir"),
    ({"runtime_env": {"conda": "nowhere.yml"}}, "runtime_env['conda']"),
    ({"runtime_env": {"conda": "list.yml"}}, "runtime_env['conda']"),
    ({"runtime_env": {"conda": "odd.yaml"}}, "runtime_env['conda']"),
]


@pytest.mark.parametrize(("arguments", "field"), MISSING, ids=str)
def test_missing_code_is_told_before_any_call(
    fake_emulator: EmulatorProcess,
    arguments: dict[str, Any],
    field: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module").mkdir()
    (tmp_path / "text.txt").touch()
    (tmp_path / "list.yml").write_text("- 1")
    (tmp_path / "odd.yaml").write_bytes(b"\xff: [")
    start(fake_emulator)
    fake_emulator.admin("DELETE", "calls")
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(submit_job(deferrable=False, **arguments))
    assert caught.value.field == field
    assert fake_emulator.calls() == []


def test_a_job_is_adopted_where_its_code_is_not(fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    start(fake_emulator)
    folder = tmp_path / "code"
    folder.mkdir()
    begun = submit_job(working_dir=str(folder), wait_for_completion=False)
    first = run_task(begun, context_of(begun, TaskInstance("submit", max_tries=1)))
    folder.rmdir()
    again = submit_job(working_dir=str(folder), wait_for_completion=False)
    second = run_task(again, context_of(again, TaskInstance("submit", max_tries=1, try_number=2)))
    assert (second["submission_id"], second["adopted"]) == (first["submission_id"], True)


def test_a_folder_is_sent_once_for_each_content(
    fake_emulator: EmulatorProcess, deferrable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "SMALL_PACKAGE_BYTES", 0)
    start(fake_emulator)
    (tmp_path / "main.py").write_text("print(1)\n")
    jobs = [run_task(submit_job("python main.py", working_dir=str(tmp_path), deferrable=deferrable)) for _ in range(2)]
    assert len(fake_emulator.calls("PUT /api/packages/*")) == 1
    (tmp_path / "main.py").write_text("print(2)\n")
    jobs.append(run_task(submit_job("python main.py", working_dir=str(tmp_path), deferrable=deferrable)))
    assert len(fake_emulator.calls("PUT /api/packages/*")) == 2
    known = jobs_of(fake_emulator, "shared")
    folders = [known[job["submission_id"]]["runtime_env"]["working_dir"] for job in jobs]
    assert all(folder.startswith("gcs://_ray_pkg_") for folder in folders)
    assert folders[0] == folders[1] != folders[2]


def test_a_small_folder_has_a_name_of_the_job_s_own(fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    start(fake_emulator)
    (tmp_path / "main.py").write_text("print(1)\n")
    jobs = [run_task(submit_job("python main.py", working_dir=str(tmp_path), deferrable=False)) for _ in range(2)]
    known = jobs_of(fake_emulator, "shared")
    first, second = (known[job["submission_id"]]["runtime_env"]["working_dir"] for job in jobs)
    assert first != second
    assert first.rpartition("_")[0] == second.rpartition("_")[0]


def test_excludes_are_kept_out_and_not_sent(
    fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(fake_emulator)
    (tmp_path / "main.py").write_text("print(1)\n")
    monkeypatch.setattr(packages, "SMALL_PACKAGE_BYTES", 0)
    for content, more in (
        ("a", {"runtime_env": {"excludes": ["*.bin"]}}),
        ("b", {"excludes": ["{{ pattern }}"]}),
    ):
        (tmp_path / "big.bin").write_text(content)
        operator = submit_job(working_dir=str(tmp_path), deferrable=False, **more)
        run_task(operator, context_of(operator, pattern="*.bin"))
    assert len(fake_emulator.calls("PUT /api/packages/*")) == 1
    assert all("excludes" not in job["runtime_env"] for job in jobs_of(fake_emulator, "shared").values())


def test_a_zip_elsewhere_is_left_to_ray(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    result = run_task(submit_job(working_dir="gs://bucket/code.zip", deferrable=False))
    job = jobs_of(fake_emulator, "shared")[result["submission_id"]]
    assert job["runtime_env"] == {"working_dir": "gs://bucket/code.zip"}
    assert fake_emulator.calls("* /api/packages/*") == []


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Airflow was told to hide."""
    told: list[str] = []
    real = masking._masker
    monkeypatch.setattr(masking, "_masker", lambda name: told.append if name == "mask_secret" else real(name))
    return told


def test_secrets_are_masked_right_after_the_rendering(masked: list[str]) -> None:
    operator = submit_job(
        env_vars={"KEY": Secret("{{ secret }}"), "ENV": "production", "OMP_NUM_THREADS": "12345"},
        runtime_env={"env_vars": {"DB_PASSWORD": "inner-secret", "MODEL": "gs://bucket/model"}},
    )
    operator.render_template_fields(context_of(operator, secret="rendered+secret"))
    assert {"rendered+secret", "rendered%2Bsecret", "inner-secret", "aW5uZXItc2VjcmV0"} <= set(masked)
    assert not any(plain in masked for plain in ("production", "12345", "gs://bucket/model"))


def test_value_that_airflow_masks_already_is_a_secret(fake_emulator: EmulatorProcess) -> None:
    masking._masker("mask_secret")("from-a-connection-x")
    start(fake_emulator)
    variables = {"URL": "db://from-a-connection-x@h", "ENV": "production"}
    result = run_task(submit_job("true", env_vars=variables, deferrable=False))
    assert json.loads(result["metadata"]["airflow_secret_env"]) == ["URL"]


def test_text_for_the_environment_is_not_shown() -> None:
    operator = submit_job(runtime_env="{{ given }}")
    operator.render_template_fields(context_of(operator, given="{'env_vars': {'KEY': 'hunter2-x'}}"))
    with pytest.raises(InvalidArgumentError, match="Use a dict") as caught:
        operator.execute(context_of(operator))
    assert "hunter2" not in str(caught.value)


def test_variables_are_in_no_log_line_and_no_result(
    fake_emulator: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    start(fake_emulator)
    encoded = base64.b64encode(b"u:hunter2/hunter2").decode()
    command = f"echo hello reproduction && echo key=hunter2/hunter2 url=hunter2%2Fhunter2 {encoded}"
    variables = {"KEY": Secret("hunter2/hunter2"), "ENV": "production"}
    operator = submit_job(command, env_vars=variables, deferrable=deferrable)
    context = context_of(operator)
    result = run_task(operator, context)
    assert jobs_of(fake_emulator, "shared")[result["submission_id"]]["runtime_env"]["env_vars"] == {
        "KEY": "hunter2/hunter2",
        "ENV": "production",
    }
    assert "hello reproduction" in task_log
    (shown,) = [line for line in task_log if line.startswith("key=")]
    assert shown.startswith("key=*** url=*** ")
    assert encoded[5:-5] not in shown
    assert "hunter2" not in str(result)
    assert "hunter2" not in str(context["ti"].xcoms)


def test_message_of_a_failed_job_is_masked(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    variables = {"API_TOKEN": "hunter2-hunter2"}
    with pytest.raises(JobFailedError) as caught:
        run_task(submit_job("echo hunter2-hunter2 && exit 3", env_vars=variables, deferrable=deferrable))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.details)


def test_variables_are_not_in_the_trigger(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    deferral = deferral_of(submit_job("sleep 600", env_vars={"KEY": "hunter2-hunter2"}, deferrable=True))
    assert "hunter2" not in str(deferral.trigger.serialize())


def test_a_wrong_variable_s_value_is_not_shown(fake_emulator: EmulatorProcess) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(submit_job(env_vars={"KEY": b"hunter2"}, deferrable=False))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("num_cpus", "entrypoint_num_cpus"),
        ("num_gpus", "entrypoint_num_gpus"),
        ("memory", "entrypoint_memory"),
        ("entry_point", "entrypoint"),
        ("runtime_environment", "runtime_env"),
        ("timeout_job", "job_timeout"),
    ],
)
def test_a_name_that_is_nearly_right_is_recognised(given: str, meant: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"Invalid value for {given}: 2. .*Did you mean {meant}[?]"):
        submit_job(**{given: 2})


def test_a_driver_that_fits_nowhere_is_not_submitted(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    with pytest.raises(InvalidArgumentError, match="Invalid value for entrypoint_num_cpus: 9.*n1-standard-8"):
        run_task(submit_job(entrypoint_num_cpus=9, deferrable=deferrable))
    assert jobs_of(fake_emulator, "shared") == {}
    assert run_task(submit_job(entrypoint_num_cpus=8, deferrable=deferrable))["status"] == "SUCCEEDED"
