"""Cloud Logging: the lines of jobs, listed with plain requests and with Google's clients."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.cloud_clients import discovery, list_entries, logging_client, messages, of_cluster, run_job
from emulator_support.process import EmulatorProcess
from vertex_ray_emulator.google import log_store
from vertex_ray_emulator.google.log_store import ClusterName, LogStore

JOB = of_cluster("logs", 'jsonPayload.tailed_path:"job-driver-j1"')


@pytest.fixture
def logged(emulator: EmulatorProcess) -> EmulatorProcess:
    """A cluster with a job of a hundred lines, and another with one."""
    emulator.admin("DELETE", "telemetry")
    for name in ("logs", "other"):
        emulator.create(name)
    run_job(emulator, "logs", "j1", "count 100 0")
    run_job(emulator, "other", "j2", "echo ERROR: of the other")
    return emulator


def numbered(found: list[str]) -> list[str]:
    return [text for text in found if text.startswith("line ")]


def test_entry_has_labels_severity_and_message(logged: EmulatorProcess) -> None:
    status, answer = list_entries(logged, filter=of_cluster("other"), orderBy="timestamp desc", pageSize=1)
    assert status == 200
    (entry,) = answer["entries"]
    moment, insert_id = entry.pop("timestamp"), entry.pop("insertId")
    assert entry.pop("receiveTimestamp") == moment
    assert moment.endswith("Z")
    assert insert_id
    path = entry["jsonPayload"].pop("tailed_path")
    assert path.endswith("/logs/job-driver-j2.log")
    assert entry == {
        "logName": "projects/demo-project/logs/ray-cluster-logs",
        "resource": {
            "type": "ml_job",
            "labels": {"task_name": "ray-cluster-logs", "project_id": "demo-project", "location": "us-central1"},
        },
        "labels": {"ml.googleapis.com/ray_cluster_id": "other"},
        "severity": "ERROR",
        "jsonPayload": {"message": "ERROR: of the other"},
    }
    assert list_entries(logged, filter=f'timestamp>"{moment}"')[1] == {}
    assert messages(list_entries(logged, filter=f'timestamp>="{moment}"')[1]) == ["ERROR: of the other"]
    assert messages(list_entries(logged, filter="severity>=ERROR")[1]) == ["ERROR: of the other"]
    assert messages(list_entries(logged, filter=of_cluster("logs", "severity>=ERROR"))[1]) == []


@pytest.mark.parametrize("order", ["timestamp asc", "timestamp desc"])
def test_pages_are_consistent_while_lines_are_added(logged: EmulatorProcess, order: str) -> None:
    found: list[str] = []
    token = ""
    while True:
        status, page = list_entries(logged, filter=JOB, orderBy=order, pageSize=30, pageToken=token)
        assert status == 200, page
        found += messages(page)
        token = page.get("nextPageToken", "")
        if not token:
            break
        assert len(page["entries"]) == 30
        run_job(logged, "other", f"more-{len(found)}", "echo more")
    expected = [f"line {k}" for k in range(100)]
    assert numbered(found) == (expected if order.endswith("asc") else expected[::-1])


def test_entries_outlive_the_head_and_the_cluster(logged: EmulatorProcess) -> None:
    before = list_entries(logged, filter=JOB, pageSize=1000)[1]
    logged.admin("POST", "clusters/logs/kill", {"part": "head"})
    assert list_entries(logged, filter=JOB, pageSize=1000)[1] == before
    run_job(logged, "other", "last", "echo the last line")
    for name in ("logs", "other"):
        logged.wait(logged.api("DELETE", f"persistentResources/{name}")[1])
    assert list_entries(logged, filter=JOB, pageSize=1000)[1] == before
    assert "the last line" in messages(list_entries(logged, filter=of_cluster("other"))[1])
    logged.admin("DELETE", "telemetry")
    assert list_entries(logged, filter=JOB)[1] == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"filter": "severity="}, "filter"),
        ({"filter": "nothing=1"}, "nothing"),
        ({"filter": 5}, "filter"),
        ({"filter": "x" * 20_001}, "20000"),
        ({"orderBy": "severity"}, "order_by"),
        ({"pageSize": -1}, "page_size"),
        ({"pageToken": "abc"}, "page_token"),
        ({"resourceNames": []}, "resource_names"),
        ({"resourceNames": ["folders/1"]}, "folders/1"),
        ({"pagesize": 1}, "pagesize"),
    ],
)
def test_invalid_request_is_rejected(emulator: EmulatorProcess, body: dict[str, Any], words: str) -> None:
    status, answer = list_entries(emulator, **body)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert words in answer["error"]["message"]


def test_page_token_of_another_filter_is_rejected(logged: EmulatorProcess) -> None:
    token = list_entries(logged, filter=JOB, pageSize=1)[1]["nextPageToken"]
    assert list_entries(logged, filter="", pageToken=token)[0] == 400


def test_tokens_and_faults_apply(emulator: EmulatorProcess) -> None:
    body = {"resourceNames": [f"projects/{emulator.project}"]}
    assert emulator.request("POST", "/v2/entries:list", body)[0] == 401
    assert list_entries(emulator, resourceNames=["projects/another"])[0] == 403
    for status, code in ((403, "PERMISSION_DENIED"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")):
        with emulator.fault(scope="control_plane", method="ListLogEntries", status=status):
            found, answer = list_entries(emulator)
            assert (found, answer["error"]["status"]) == (status, code)
    assert list_entries(emulator)[0] == 200
    assert [call["status"] for call in emulator.calls("ListLogEntries")] == [401, 403, 403, 429, 503, 200]


@pytest.mark.sdk
def test_google_clients_list_entries(logged: EmulatorProcess) -> None:
    client = logging_client(logged)
    found = list(client.list_entries(filter_=JOB, page_size=30))
    assert numbered([entry.payload["message"] for entry in found]) == [f"line {k}" for k in range(100)]
    assert found[-1].resource.labels["location"] == "us-central1"
    assert found[-1].timestamp > found[0].timestamp

    entries = discovery(logged, "logging", "v2").entries()
    request = entries.list(body={"resourceNames": ["projects/demo-project"], "filter": JOB, "pageSize": 1000})
    assert len(request.execute()["entries"]) == len(found)


def test_store_drops_the_oldest_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "LINES_IN_ALL", 5)
    monkeypatch.setattr(log_store, "CLUSTERS_GONE", 2)
    store = LogStore()
    for k in range(4):
        store.begin(f"k{k}", ClusterName(f"c{k}", "us-central1"))
        store.add(f"k{k}", "a.log", ["one", "two"])
    for k in (1, 0, 2):
        store.end(f"k{k}")
    store.trim()
    assert {entry.cluster.id for entry in store.entries()} == {"c2", "c3"}
    times = [entry.micros for entry in store.entries()]
    assert len(set(times)) == len(times)
    for name in ("b.log", "c.log"):
        store.add("k3", name, [name] * 3)
    store.trim()
    assert {entry.path for entry in store.entries()} == {"c.log"}


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("2026-01-01 12:00:00,000\tINFO job_manager.py:531 -- Runtime env", "INFO"),
        ("[2026-01-01 12:00:00,000 W 12 12] core_worker.cc:1: slow", "WARNING"),
        ("(pid=1) WARN: hot", "WARNING"),
        ("FATAL", "CRITICAL"),
        ("an ERRORless line", "DEFAULT"),
        ("x" * 100 + " ERROR", "DEFAULT"),
    ],
)
def test_severity_is_read_from_the_line(line: str, severity: str) -> None:
    assert log_store.LogEntry(ClusterName("c", "l"), "p", line, 1).severity == severity
