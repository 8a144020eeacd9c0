"""The page's searches, links and downloads over the emulator, and odd addresses, which are no errors of the server."""

from __future__ import annotations

import html
import re
import time
from urllib.parse import quote

import pytest
from emulator_support.process import EmulatorProcess, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.plugins.page import log as log_module
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.query import ClusterQuery, ListQuery
from tests.plugins.conftest import AIRFLOW_3, SOURCE, Page
from tests.support.clusters import jobs_of, start, submit

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="there is no page on Airflow 2")

HTML = {"Accept": "text/html"}
ODD_IDS = [
    "new\nline",
    "tab\there",
    "right\u202eto left\u2066",
    "a'b\"c<d>&e",
    "%0A",
    "../..",
    "é" * 300,
    "+ ?#",
    "{{ 7*7 }}",
]
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _names(text: str) -> list[str]:
    return re.findall(r'<a class="name" href="[^"]*">([^<]*)</a>', text)


def _read(page: Page, path: str, marker: str) -> str:
    return str(until(lambda: t if marker in (t := page.get(path).text) else None))


@pytest.fixture
def odd(page: Page, fake_emulator: EmulatorProcess) -> str:
    """A cluster whose jobs have odd ids; the page's path of it."""
    start(fake_emulator, "odd")
    for name in ODD_IDS:
        submit(fake_emulator, "odd", name, "echo hello")
    until(lambda: {job["status"] for job in jobs_of(fake_emulator, "odd").values()} == {"SUCCEEDED"})
    _read(page, f"{SOURCE}/odd?part=1", "<b>9</b>")
    return f"{SOURCE}/odd"


def test_log_of_a_job_with_any_id_is_shown(page: Page, odd: str) -> None:
    for name in ODD_IDS:
        path = f"{odd}?part=1&job={quote(name, safe='')}"
        answer = page.get(path)
        assert answer.status_code == 200, name
        assert 'id="log"' in answer.text, name
        # Ray has no address for an id of two lines; that is said.
        said = "answered 404" if name == "new\nline" else "from the dashboard"
        assert said in _read(page, path, said), name
        if "\n" in name:
            assert page.get(f"{odd}/log?job={quote(name, safe='')}").status_code == 502
            continue
        download = page.get(f"{odd}/log?job={quote(name, safe='')}")
        assert (download.status_code, download.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert "\n" not in download.headers["content-disposition"]


def test_controls_of_the_direction_of_text_are_shown(page: Page, odd: str) -> None:
    text = page.get(f"{odd}?part=1").text
    assert BIDI.findall(text) == []
    assert "right[U+202E]to left[U+2066]" in text
    # The actions get the name as it is.
    assert r"right\u202eto left\u2066" in text


SENT = sorted({*ListQuery.__dataclass_fields__, *ClusterQuery.__dataclass_fields__, "part", "else"})
VALUES = st.text(max_size=12) | st.sampled_from(
    [*ODD_IDS, "0-1", "1-999999999999", "1h", "24h", "-1", "9" * 30, "longest", "failed", "-", "\x00", "\u202e"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.dictionaries(st.sampled_from(SENT), VALUES, max_size=6))
def test_no_address_is_an_error_of_the_server(page: Page, odd: str, parameters: dict[str, str]) -> None:
    for path in ("", odd):
        answer = page.get(path, params=parameters)
        assert answer.status_code == 200, (path, parameters)
        assert BIDI.findall(answer.text) == []
    # 502: the dashboard has no address for a job whose id has a line break.
    assert page.get(f"{odd}/log", params=parameters).status_code in (200, 404, 502)
    found = page.get("projects/p/locations/us-central1/persistentResources/odd", params=parameters)
    assert found.status_code == 303


@pytest.mark.parametrize(
    "path", ["%00/x", f"{SOURCE}/%00", f"{SOURCE}/%F0%9F", "projects/a/locations/b/persistentResources/c"]
)
def test_odd_paths_are_404(page: Page, path: str) -> None:
    until(lambda: page.get(path, headers=HTML).status_code == 404)


def test_clusters_are_searched_and_sorted(page: Page, fake_emulator: EmulatorProcess) -> None:
    for name in ("etl-a", "etl-b", "train-c"):
        start(fake_emulator, name)
    submit(fake_emulator, "etl-b", "runs", "sleep 600")
    _read(page, "?part=1", "<b>1</b> running")
    assert _names(page.get("?part=1&q=ETL").text) == ["etl-a", "etl-b"]
    assert "2 of 3 clusters" in page.get("?part=1&q=ETL").text
    assert _names(page.get("?part=1&use=used").text) == ["etl-b"]
    assert _names(page.get("?part=1&sort=jobs").text)[0] == "etl-b"
    assert _names(page.get("?part=1").text)[-1] == "etl-b"
    assert _names(page.get("?part=1&sort=nonsense&state=nonsense").text)[-1] == "etl-b"
    assert "None of 3 clusters fits" in page.get("?part=1&q=nowhere").text
    # From a cluster back to the same search.
    link = re.search(r'href="([^"]*/etl-b\?back=[^"]*)"', page.get("?part=1&q=etl&sort=cost").text)
    assert link
    path = html.unescape(link[1]).removeprefix("/ray-clusters/")
    assert 'href="/ray-clusters/?q=etl&amp;sort=cost"' in page.get(path).text


def test_title_names_cluster_and_job(page: Page, busy: str) -> None:
    until(lambda: "<title>busy · Ray clusters</title>" in page.get(busy).text)
    until(lambda: "<title>runs · busy · Ray clusters</title>" in page.get(f"{busy}?job=runs").text)
    assert "<title>Ray clusters</title>" in page.get("").text


def test_log_is_searched_and_downloaded(
    page: Page, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(fake_emulator, "busy")
    env = {"env_vars": {"PASSWORD": "hunter2-secret"}}
    command = "count 500 && echo hunter2-secret Needle and hay"
    submit(fake_emulator, "busy", "j", command, runtime_env=env)
    until(lambda: jobs_of(fake_emulator, "busy")["j"]["status"] == "SUCCEEDED")
    path = f"{SOURCE}/busy?part=1&job=j"
    text = _read(page, f"{path}&line=needle", "</pre>")
    assert "1 line with “needle”" in text
    assert "*** Needle and hay" in text
    # Nobody finds a secret by searching for it.
    until(lambda: "No line contains this text" in page.get(f"{path}&line=hunter2").text)
    assert "0 lines with “hunter2”" in page.get(f"{path}&line=hunter2").text
    answer = page.get(f"{SOURCE}/busy/log?job=j")
    lines = answer.text.splitlines()
    assert len(lines) > log_module.LINES
    assert lines[-1] == "*** Needle and hay"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''j.log"
    monkeypatch.setattr(log_module, "MOST_DOWNLOADED", 100)
    short = page.get(f"{SOURCE}/busy/log?job=j").text
    assert short.startswith("[The first ")
    assert short.endswith("*** Needle and hay\n")
    assert page.get(f"{SOURCE}/busy/log?job=none").status_code == 404


def test_task_leads_to_its_cluster_and_job_and_back(page: Page, busy: str) -> None:
    path = "projects/demo-project/locations/us-central1/persistentResources/busy"
    came = "from_dag=etl&from_run=r+1&from_task=load&from_map=2"
    answer = page.get(f"{path}?job=runs&{came}")
    assert answer.status_code == 303
    target = answer.headers["location"]
    assert target == f"/ray-clusters/{busy}?job=runs&from_dag=etl&from_run=r%201&from_task=load&from_map=2#log"
    text = _read(page, f"{target.removeprefix('/ray-clusters/').removesuffix('#log')}&part=1", 'id="log"')
    assert '/dags/etl/runs/r%201/tasks/load/mapped/2"' in text
    assert "Back to task load [2] of etl" in text
    unknown = page.get("projects/p/locations/europe-west4/persistentResources/busy", headers=HTML)
    assert unknown.status_code == 404
    assert "page_locations" in unknown.text


def test_way_back_names_no_dag_that_is_hidden(page: Page, busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_vertex_ray.plugins.page.access import Viewer

    monkeypatch.setattr(Viewer, "may_read", lambda self, dag_id: dag_id != "secret")
    text = page.get(f"{busy}?from_dag=secret&from_run=r&from_task=t").text
    assert "Back to task" not in text


def test_link_of_a_task_chooses_the_source_of_its_project(page: Page, busy: str) -> None:
    path = "projects/demo-project/locations/us-central1/persistentResources/busy"
    page.options["page_sources"] = (
        '[{"location": "us-central1", "project_id": "other-project"},'
        ' {"location": "us-central1", "project_id": "demo-project"}]'
    )
    expected = "/ray-clusters/google_cloud_default.demo-project.us-central1/busy?"
    assert page.get(path).headers["location"] == expected


def test_page_and_stop_are_answered_within_seconds() -> None:
    from airflow_provider_vertex_ray.plugins.page import actions, app, service

    assert app.FIRST_PAINT + service.MARGIN < 2
    assert app.LATER + service.MARGIN < 5
    assert actions.STOP_READ_SECONDS + service.MARGIN + actions.STOP_WAIT_SECONDS <= 5


def test_stop_under_a_hanging_dashboard_is_answered_in_time(
    page: Page, busy: str, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_vertex_ray.plugins.page import actions

    monkeypatch.setattr(actions, "STOP_READ_SECONDS", 1.0)
    monkeypatch.setattr(actions, "STOP_WAIT_SECONDS", 3.0)
    _read(page, f"{busy}?part=1", "Stop…")
    with fake_emulator.fault(scope="dashboard", action="hang", times=None):
        begun = time.monotonic()
        answer = page.post(f"{busy}/stop", {"job": "runs"})
        # Without these limits, it waits for the tries of a request, each of which takes a minute.
        assert time.monotonic() - begun < 60
    assert (answer.status_code, answer.json()["done"]) == (202, False)
    assert "has not answered yet" in answer.json()["message"]


def test_log_needs_the_permission_of_its_dag(
    page: Page, busy: str, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_vertex_ray.plugins.page.access import Viewer

    owner = Owner("secret", "r", "t")
    names = {"dag_id": "secret", "run_id": "r", "task_id": "t", "map_index": "-1", "owner": owner.key}
    submit(fake_emulator, "busy", "theirs", "echo hello", metadata={f"airflow_{k}": v for k, v in names.items()})
    _read(page, f"{busy}?part=1", "theirs")
    assert page.get(f"{busy}/log?job=theirs").status_code == 200
    monkeypatch.setattr(Viewer, "may_read_logs", lambda self, dag_id: False)
    assert page.get(f"{busy}/log?job=theirs").status_code == 403
    monkeypatch.setattr(Viewer, "may_read", lambda self, dag_id: dag_id != "secret")
    assert page.get(f"{busy}/log?job=theirs").status_code == 404
