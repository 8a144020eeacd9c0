"""A cluster's logs as a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.monitoring import logs
from airflow_provider_vertex_ray.core.monitoring.logs import LogEntry
from airflow_provider_vertex_ray.errors import InvalidArgumentError, LogsNotAuthorisedError, RateLimitedError
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.log_query import LogQuery
from airflow_provider_vertex_ray.operators import monitoring_logs
from airflow_provider_vertex_ray.operators.monitoring import VertexRayClusterLogsOperator
from tests.support.clusters import LOCATION, full_name, start, submit
from tests.support.monitoring import listed
from tests.support.tasks import context_of, run_task

LIST = "ListLogEntries"


def show(**more: Any) -> VertexRayClusterLogsOperator:
    return VertexRayClusterLogsOperator(
        **{"task_id": "logs", "cluster_id": "shared", "location": LOCATION, "submission_id": "one", **more}
    )


@pytest.fixture
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With the job ``one``, which has logged 25 lines and a warning."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    submit(fake_emulator, "shared", "one", "count 25 0 && echo WARNING: at the end")
    listed(fake_emulator, 27)
    return fake_emulator


def messages(result: dict[str, Any]) -> list[str]:
    return [entry["message"] for entry in result["entries"]]


def test_a_job_s_lines_are_shown_and_returned(shared: EmulatorProcess, task_log: list[str]) -> None:
    operator = show(cluster_id="{{ name }}")
    context = context_of(operator, name="shared")
    result = run_task(operator, context)
    lines = [f"line {k}" for k in range(25)]
    assert messages(result)[1:] == [*lines, "WARNING: at the end"]
    assert (result["count"], result["more"], result["written"], result["output_path"]) == (27, False, 0, None)
    assert 'jsonPayload.tailed_path:"job-driver-one.log"' in result["filter"]
    said = [line for line in task_log if "job-driver-one.log: line " in line]
    assert [line.split(": ", 1)[1] for line in said] == lines
    assert all("Z DEFAULT" in line for line in said)
    facts = context["ti"].xcoms[LINK_KEY]
    assert (facts["cluster_id"], facts["submission_id"], facts["log_filter"]) == ("shared", "one", result["filter"])
    assert facts["dashboard_uri"]


def test_what_is_wanted(shared: EmulatorProcess) -> None:
    assert messages(run_task(show(severity="WARNING"))) == ["WARNING: at the end"]
    assert messages(run_task(show(text="LINE 7"))) == ["line 7"]
    assert messages(run_task(show(file="raylet"))) == []
    newest = run_task(show(newest_first=True, max_entries=2))
    assert (messages(newest), newest["more"]) == (["WARNING: at the end", "line 24"], True)
    moment = run_task(show(text="line 7"))["entries"][0]["time"]
    assert messages(run_task(show(end="{{ moment }}", text="line"), context_of(show(), moment=moment)))[-1] == "line 6"
    assert messages(run_task(show(start=moment, text="line")))[0] == "line 7"
    assert messages(run_task(show(end=moment - 100, window=10))) == []


def test_a_cluster_that_is_gone(shared: EmulatorProcess) -> None:
    shared.wait(shared.api("DELETE", "persistentResources/shared")[1])
    context = context_of(show())
    assert run_task(show(cluster_id=full_name("shared"), location=None), context)["count"] == 27
    assert "dashboard_uri" not in context["ti"].xcoms[LINK_KEY]


@pytest.mark.parametrize("name", ["all.log", "all.txt", "all.jsonl"])
def test_all_pages_become_a_file(
    shared: EmulatorProcess, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, task_log: list[str]
) -> None:
    monkeypatch.setitem(logs.LogsApi.pages.__kwdefaults__, "page_size", 7)
    file = tmp_path / "new" / name
    operator = show(output_path="file://{{ folder }}/new/" + name, max_entries=10)
    result = run_task(operator, context_of(operator, folder=tmp_path))
    assert (result["count"], result["more"], result["written"]) == (10, True, 27)
    assert result["output_path"] == f"file://{file}"
    lines = file.read_text().splitlines()
    assert len(lines) == 27
    if name.endswith(".jsonl"):
        assert [json.loads(line)["message"] for line in lines][1:3] == ["line 0", "line 1"]
        assert set(json.loads(lines[0])) == {"time", "severity", "message", "path", "node"}
    else:
        assert lines[-1].endswith("WARNING  job-driver-one.log: WARNING: at the end")
    assert len([line for line in task_log if "job-driver-one.log: " in line]) == 10
    assert len(shared.calls(LIST)) == 4


def test_a_file_in_cloud_storage(shared: EmulatorProcess, storage: StorageEmulator) -> None:
    result = run_task(show(output_path=f"gs://{storage.bucket}/report/all.jsonl"))
    lines = storage.read("report/all.jsonl").decode().splitlines()
    assert (len(lines), result["written"]) == (27, 27)


def test_what_fails_half_way_leaves_no_file(
    shared: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logs.LogsApi.pages.__kwdefaults__, "page_size", 7)
    monkeypatch.setitem(logs.LogsApi.pages.__kwdefaults__, "attempts", 1)
    line, shown = monitoring_logs._line, []

    def armed_after_the_first_page(entry: LogEntry) -> str:
        shown.append(entry)
        if len(shown) == 7:
            shared.admin("POST", "faults", {"scope": "control_plane", "method": LIST, "status": 429, "times": None})
        return line(entry)

    monkeypatch.setattr(monitoring_logs, "_line", armed_after_the_first_page)
    with pytest.raises(RateLimitedError):
        run_task(show(output_path=f"file://{tmp_path}/all.jsonl"))
    assert len(shown) == 7
    assert list(tmp_path.iterdir()) == []


def test_rate_limits_and_an_expired_token_on_the_way(
    shared: EmulatorProcess, revoked_once: None, tmp_path: Path
) -> None:
    with shared.fault(scope="control_plane", method=LIST, status=429, times=2):
        assert run_task(show(output_path=f"file://{tmp_path}/all.log"))["written"] == 27
    assert [call["status"] for call in shared.calls(LIST)][:4] == [429, 401, 429, 200]


def test_the_result_is_bounded(shared: EmulatorProcess) -> None:
    submit(shared, "shared", "loud", " && ".join(f"echo {k} {'x' * 3000}" for k in range(100)))
    listed(shared, 100, LogQuery("shared", submission_id="loud"))
    result = run_task(show(submission_id="loud", max_entries=500))
    assert result["count"] >= 100
    assert 30 < len(result["entries"]) < 60
    assert len(json.dumps(result["entries"])) <= 48 * 1024
    assert max(map(len, messages(result))) == 1000


def test_who_may_not_read(shared: EmulatorProcess) -> None:
    shared.admin("PUT", "project", {"denied_permissions": ["logging.logEntries.list"]})
    try:
        with pytest.raises(LogsNotAuthorisedError, match=r"roles/logging\.viewer"):
            run_task(show())
    finally:
        shared.admin("DELETE", "project")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cluster_id": "Bad_Id"}, "cluster_id"),
        ({"submission_id": ""}, "submission_id"),
        ({"severity": "error"}, "severity"),
        ({"text": "two\nlines"}, "text"),
        ({"file": ""}, "file"),
        ({"window": 0}, "window"),
        ({"start": 5, "window": 5}, "window"),
        ({"start": 5, "end": 4}, "end"),
        ({"start": "yesterday"}, "start"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_entries": 10_001}, "max_entries"),
        ({"newest_first": "yes"}, "newest_first"),
        ({"output_path": "/tmp/x.log"}, "output_path"),
        ({"output_path": "gs://bucket"}, "output_path"),
        ({"output_path": "gs://bucket/x.csv"}, "output_path"),
        ({"output_path": "gs://bucket/.log"}, "output_path"),
        ({"output_path": 3}, "output_path"),
    ],
    ids=str,
)
def test_wrong_input_is_refused_at_parse(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        show(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("severity", "loud"),
        ("text", "a\nb"),
        ("file", "\x00"),
        ("start", "soon"),
        ("output_path", "x.log"),
        ("submission_id", "a\nb"),
    ],
)
def test_what_templates_give_is_judged_before_any_call(fake_emulator: EmulatorProcess, field: str, value: str) -> None:
    operator = show(**{field: "{{ given }}"})
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(operator, context_of(operator, given=value))
    assert caught.value.field == field
    assert fake_emulator.calls() == []
