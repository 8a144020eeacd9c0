"""The page's routes: who may see and do what, and what they do to the emulator's clusters and Airflow's audit log."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.plugins.page import connections, reader
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from tests.plugins.conftest import AIRFLOW_3, POSTED, SOURCE, Page
from tests.support.clusters import cluster_ids, jobs_of, start, submit
from tests.support.leases import hold

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="there is no page on Airflow 2")

HTML = {"Accept": "text/html"}
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def _audit() -> list[Any]:
    from airflow.models.log import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.scalars(select(Log).where(Log.event.like("vertex_ray.%")).order_by(Log.id)).all()
        session.expunge_all()
        return list(rows)


def test_every_route_requires_a_login(page: Page) -> None:
    from fastapi.routing import APIRoute

    asked = 0
    client = page.client(None)
    for route in page.app.routes:
        # Anything else, such as a mount, would have its own way past the login.
        assert isinstance(route, APIRoute), route
        path = route.path.format(source=SOURCE, cluster_id="x", name="page.css", project="p", location="us-central1")
        for method in route.methods:
            answer = client.request(method, path, headers=POSTED if method == "POST" else {})
            assert answer.status_code == 401, (method, path)
            assert "Ray clusters" not in answer.text
            asked += 1
    assert asked == 7
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert client.get(path).status_code in (401, 404)


def test_browser_without_login_is_redirected(page: Page) -> None:
    answer = page.get(f"{SOURCE}/x?show=failed", user=None, headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/api/v2/auth/login?next=%2F{SOURCE}%2Fx%3Fshow%3Dfailed"
    assert page.get("?part=1", user=None, headers=HTML).status_code == 401


def test_viewer_can_see_but_not_act(page: Page, busy: str, fake_emulator: EmulatorProcess) -> None:
    text = page.get(f"{busy}?part=1", user="vic").text
    assert "runs" in text
    assert "data-act" not in text
    assert "data-act" in page.get(f"{busy}?part=1").text
    before = len(_audit())
    assert page.post(f"{busy}/stop", {"job": "runs"}, user="vic").status_code == 403
    assert page.post(f"{busy}/delete", {"confirm": "busy", "force": True}, user="vic").status_code == 403
    assert cluster_ids(fake_emulator) == ["busy"]
    assert jobs_of(fake_emulator, "busy")["runs"]["status"] == "RUNNING"
    assert len(_audit()) == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Vertex-Ray-Page": "1"},
        {"X-Vertex-Ray-Page": "1", "Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
        {"X-Vertex-Ray-Page": "1", "Sec-Fetch-Site": "same-site"},
        {"X-Vertex-Ray-Page": "1", "Sec-Fetch-Site": "none"},
        {"X-Vertex-Ray-Page": "1", "Origin": "http://evil.example"},
        {"X-Vertex-Ray-Page": "1", "Origin": "null"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_request_of_another_site_is_rejected(
    page: Page, busy: str, fake_emulator: EmulatorProcess, headers: dict[str, str]
) -> None:
    assert page.post(f"{busy}/stop", {"job": "runs"}, headers=headers).status_code == 403
    assert page.post(f"{busy}/delete", {"confirm": "busy", "force": True}, headers=headers).status_code == 403
    assert cluster_ids(fake_emulator) == ["busy"]


def test_request_of_the_page_is_accepted(page: Page, busy: str) -> None:
    for headers in (
        POSTED,
        {"X-Vertex-Ray-Page": "1", "Origin": "http://testserver"},
        {"X-Vertex-Ray-Page": "1", "Authorization": f"Bearer {page.token('ada')}"},
    ):
        assert page.post(f"{busy}/stop", {"job": "none"}, headers=headers).status_code == 404


def test_get_requests_do_not_act(page: Page, busy: str, fake_emulator: EmulatorProcess) -> None:
    for path in ("stop?job=runs", "delete?confirm=busy&force=true"):
        assert page.get(f"{busy}/{path}").status_code in (404, 405)
    assert cluster_ids(fake_emulator) == ["busy"]


def test_stop_of_a_job_is_audited(page: Page, busy: str, fake_emulator: EmulatorProcess) -> None:
    answer = page.post(f"{busy}/stop", {"job": "runs"})
    assert (answer.status_code, answer.json()) == (
        200,
        {"done": True, "message": "A stop request was sent to job runs."},
    )
    assert until(lambda: jobs_of(fake_emulator, "busy")["runs"]["status"] == "STOPPED")
    row = _audit()[-1]
    assert (row.event, row.owner) == ("vertex_ray.stop_job", "ada")
    extra = json.loads(row.extra)
    assert extra["job"] == "runs"
    assert extra["cluster"].endswith("/busy")
    assert extra["outcome"] == "A stop request was sent to job runs."


@pytest.mark.parametrize(
    "slow",
    [
        {"scope": "control_plane", "method": "ListPersistentResources"},
        {"scope": "dashboard", "method": "GET /api/jobs/"},
    ],
    ids=["list", "jobs"],
)
def test_process_that_has_read_nothing_yet_stops_a_job(
    page: Page, busy: str, fake_emulator: EmulatorProcess, slow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less than on a busy server, so that the test does not wait for long.
    monkeypatch.setattr("airflow_provider_vertex_ray.plugins.page.actions.STOP_READ_SECONDS", 0.05)
    with fake_emulator.fault(**slow, action="slow", delay=1.0):
        assert page.post(f"{busy}/stop", {"job": "runs"}).status_code in (200, 202)
    assert until(lambda: jobs_of(fake_emulator, "busy")["runs"]["status"] == "STOPPED")


def test_cluster_in_use_is_deleted_only_with_force(page: Page, busy: str, fake_emulator: EmulatorProcess) -> None:
    answer = page.post(f"{busy}/delete", {"confirm": "busy", "force": False})
    assert answer.status_code == 409
    assert "job runs" in answer.json()["message"]
    assert page.post(f"{busy}/delete", {"confirm": "else", "force": True}).status_code == 400
    assert cluster_ids(fake_emulator) == ["busy"]
    answer = page.post(f"{busy}/delete", {"confirm": "busy", "force": True})
    assert (answer.status_code, answer.json()["message"]) == (200, "Cluster busy is being deleted.")
    assert until(lambda: cluster_ids(fake_emulator) == [])
    row = _audit()[-1]
    assert (row.event, row.owner, json.loads(row.extra)["force"]) == ("vertex_ray.delete_cluster", "ada", True)
    assert json.loads(_audit()[-2].extra)["outcome"].startswith("Cluster busy was not deleted")


def test_leased_cluster_is_deleted_only_with_force(
    page: Page, fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    start(fake_emulator, "held")
    hold(storage, "etl/run", "held", ttl=600)
    assert "etl/run" in page.get(f"{SOURCE}/held?part=1").text
    answer = page.post(f"{SOURCE}/held/delete", {"confirm": "held"})
    assert answer.status_code == 409
    assert "etl/run" in answer.json()["message"]
    assert page.post(f"{SOURCE}/held/delete", {"confirm": "held", "force": True}).status_code == 200
    assert until(lambda: cluster_ids(fake_emulator) == [])
    assert storage.names() == []


def test_unused_cluster_is_deleted_without_force(page: Page, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "idle")
    assert page.post(f"{SOURCE}/idle/delete", {"confirm": "idle"}).status_code == 200
    assert until(lambda: cluster_ids(fake_emulator) == [])


def test_slow_action_continues_and_its_outcome_is_audited(
    page: Page, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_vertex_ray.plugins.page import actions

    start(fake_emulator, "idle")
    page.get(f"{SOURCE}/idle?part=1")
    monkeypatch.setattr(actions, "WAIT_SECONDS", 0.0)
    answer = page.post(f"{SOURCE}/idle/delete", {"confirm": "idle"})
    assert (answer.status_code, answer.json()["done"]) == (202, False)
    assert until(lambda: cluster_ids(fake_emulator) == [])
    assert until(lambda: json.loads(_audit()[-1].extra).get("outcome")) == "Cluster idle is being deleted."


def test_rejection_by_the_service_is_shown(page: Page, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "idle")
    fault = {
        "scope": "control_plane",
        "method": "DeletePersistentResource",
        "status": 403,
        "message": "denied by policy",
    }
    with fake_emulator.fault(**fault):
        answer = page.post(f"{SOURCE}/idle/delete", {"confirm": "idle"})
    assert answer.status_code == 409
    assert "denied by policy" in answer.json()["message"]
    assert "denied by policy" in json.loads(_audit()[-1].extra)["outcome"]


def test_hostile_texts_are_escaped(page: Page, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "busy")
    submit(fake_emulator, "busy", HOSTILE, f"echo '{HOSTILE}' && fail", metadata={"airflow_dag_id": HOSTILE})
    until(lambda: jobs_of(fake_emulator, "busy")[HOSTILE]["status"] == "FAILED")
    for path in ("?part=1", f"{SOURCE}/busy?part=1", f"{SOURCE}/busy"):
        text = page.get(path, params={"job": HOSTILE, "show": HOSTILE, "part": "1"}).text
        assert "<script>alert" not in text
        assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    policy = page.get("").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_secrets_of_a_job_are_masked(page: Page, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "busy")
    env = {"env_vars": {"PASSWORD": "hunter2-secret"}}
    submit(fake_emulator, "busy", "j", "echo hunter2-secret", runtime_env=env)
    until(lambda: jobs_of(fake_emulator, "busy")["j"]["status"] == "SUCCEEDED")
    text = page.get(f"{SOURCE}/busy?part=1&job=j").text
    assert "hunter2" not in text
    assert "***" in text


def test_log_comes_from_cloud_logging_if_the_dashboard_is_silent(page: Page, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "busy")
    submit(fake_emulator, "busy", "j", "echo first && echo second")
    until(lambda: jobs_of(fake_emulator, "busy")["j"]["status"] == "SUCCEEDED")
    assert page.get(f"{SOURCE}/busy?part=1").status_code == 200
    with fake_emulator.fault(scope="dashboard", method="GET /api/*/logs*", status=500, times=None):
        text = until(lambda: t if "</pre>" in (t := page.get(f"{SOURCE}/busy?part=1&job=j").text) else None)
    assert "from Cloud Logging" in text
    assert "second" in text


@pytest.mark.parametrize("path", ["nowhere.us-central1/x", f"{SOURCE}/x", "static/page.py", "static/..%2Fpage.html"])
def test_missing_resources_are_404(page: Page, path: str) -> None:
    # Until the list is read, nobody knows.
    until(lambda: page.get(path, headers=HTML).status_code == 404)


def test_cluster_newer_than_the_list_is_found(page: Page, fake_emulator: EmulatorProcess) -> None:
    until(lambda: page.get(f"{SOURCE}/new", headers=HTML).status_code == 404)
    start(fake_emulator, "new")
    answer = page.get(f"{SOURCE}/new", headers=HTML)
    assert answer.status_code == 200
    assert "has no Ray cluster with this name" not in answer.text
    # The first look waits for a moment only.
    shown = until(lambda: t if "Reading the cluster" not in (t := page.get(f"{SOURCE}/new").text) else None)
    assert 'class="state' in shown


def test_cluster_is_not_missing_while_the_list_is_read(page: Page, fake_emulator: EmulatorProcess) -> None:
    until(lambda: page.get(f"{SOURCE}/x", headers=HTML).status_code == 404)
    with fake_emulator.fault(scope="control_plane", method="ListPersistentResources", action="hang", times=1):
        answer = page.get(f"{SOURCE}/x", headers=HTML)
        assert answer.status_code == 200
        assert "Reading the cluster" in answer.text
        assert 'data-reading="1"' in answer.text


def test_page_of_a_deleted_cluster_says_so(page: Page) -> None:
    answer = page.get(f"{SOURCE}/x?part=1")
    assert answer.status_code == 200
    assert "has no Ray cluster with this name" in answer.text


def test_airflow_may_have_a_base_path(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi import FastAPI

    from airflow_provider_vertex_ray.plugins.page.app import create_page
    from airflow_provider_vertex_ray.plugins.page.service import PageService

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    service = PageService(lambda _: "")
    page.app = FastAPI(root_path="/airflow")
    page.app.mount("/ray-clusters", create_page(service))
    text = page.get("airflow/ray-clusters/").text
    addresses = re.findall(r'(?:href|src|action)="([^"#]+)"', text)
    assert len(addresses) == 5
    assert addresses.pop() == "/airflow/"
    assert all(address.startswith("/airflow/ray-clusters/static/") for address in addresses)
    assert page.get("airflow/ray-clusters/static/page.css").status_code == 200
    answer = page.get("airflow/ray-clusters/", user=None, headers=HTML)
    assert answer.headers["location"] == "/airflow/api/v2/auth/login?next=%2Fairflow%2Fray-clusters%2F"
    service.stop()


def test_page_without_configuration_explains_it(page: Page) -> None:
    page.options.clear()
    text = page.get("").text
    assert "page_locations = us-central1" in text
    assert "AIRFLOW__VERTEX_RAY__PAGE_SOURCES" in text


def test_invalid_configuration_is_shown(page: Page) -> None:
    page.options["page_sources"] = '[{"location": "Mars!"}, {"location": "us-central1"}]'
    text = page.get("").text
    assert "page_sources[0].location" in text
    assert "us-central1</h2>" in text


def test_missing_permission_is_named(page: Page, fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(
        scope="control_plane", method="ListPersistentResources", status=403, message="no list", times=None
    ):
        text = page.get("?part=1").text
    assert "NotAuthorisedError" in text
    assert "Connection google_cloud_default, region us-central1" in text
    assert "roles/aiplatform.user" in text


def test_missing_connection_is_named(page: Page) -> None:
    page.options["page_sources"] = '[{"location": "us-central1", "gcp_conn_id": "nobody_has_it"}]'
    text = until(lambda: t if "problem" in (t := page.get("?part=1").text) else None)
    assert "nobody_has_it" in text


def test_hanging_service_does_not_block_the_page(page: Page, busy: str, fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="control_plane", action="hang", times=None):
        begun = time.monotonic()
        text = page.get("").text
        # Nothing that it may wait for ends before.
        assert time.monotonic() - begun < PATIENCE / 4
        assert 'data-reading="1"' in text


def test_running_job_is_kept_among_many_newer_ones(
    page: Page, busy: str, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_JOBS", 2)
    for name in ("newer-1", "newer-2", "newer-3"):
        submit(fake_emulator, "busy", name, "true")
        until(lambda name=name: jobs_of(fake_emulator, "busy")[name]["status"] == "SUCCEEDED")
    text = until(lambda: t if "newer-3" in (t := page.get(f"{busy}?part=1").text) else None)
    assert "<b>1</b> running" in page.get("?part=1").text
    assert ["sleep 600" in text, "newer-1" in text, "newer-2" in text] == [True, False, False]


def test_known_data_is_shown_while_a_dashboard_hangs(
    page: Page, busy: str, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ATTEMPT_SECONDS", 1.0)
    monkeypatch.setattr(reader, "DEADLINE", 5.0)
    # On a busy machine a first read may take longer than that.
    until(lambda: "<b>1</b> running" in page.get("?part=1").text)
    with fake_emulator.fault(scope="dashboard", action="hang", times=None):
        told = ("does not answer", "treated as in use")
        text = until(lambda: t if all(each in (t := page.get("?part=1").text) for each in told) else None)
        assert "<b>1</b> running" in text


def test_static_files_are_served(page: Page) -> None:
    css = page.get("static/page.css")
    assert css.headers["content-type"].startswith("text/css")
    assert page.get("static/icon.svg", user="vic").headers["content-type"] == "image/svg+xml"


@pytest.fixture
def secret_dag(monkeypatch: pytest.MonkeyPatch, auth_manager: Any) -> None:
    """An auth manager with permissions for each DAG, of which nobody has those of the DAG ``secret`` or of all."""

    def is_authorized_dag(*, details: Any = None, **_: Any) -> bool:
        return details is not None and details.id not in (None, "secret")

    monkeypatch.setattr(auth_manager, "is_authorized_dag", is_authorized_dag)


def _submit_of(emulator: EmulatorProcess, dag_id: str) -> str:
    owner = Owner(dag_id, "run", "task")
    names = {"dag_id": dag_id, "run_id": "run", "task_id": "task", "map_index": "-1", "owner": owner.key}
    metadata = {f"airflow_{name}": value for name, value in names.items()}
    submission_id = f"af-{dag_id}-task"
    submit(emulator, "busy", submission_id, f"echo of {dag_id} && sleep 600", metadata=metadata)
    return submission_id


def test_dag_data_requires_the_dags_permissions(
    page: Page, busy: str, fake_emulator: EmulatorProcess, storage: StorageEmulator, secret_dag: None
) -> None:
    secret, mine = _submit_of(fake_emulator, "secret"), _submit_of(fake_emulator, "mine")
    hold(storage, "secret/run", "busy", ttl=600)
    for path in ("?part=1", f"{busy}?part=1"):
        text = page.get(path).text
        assert "secret" not in text
        assert mine in text
    assert "of secret" not in page.get(f"{busy}?part=1&job={secret}").text
    # A log: of the own DAG, and of a job of nobody, which needs the permission for all DAGs.
    assert "of mine" in page.get(f"{busy}?part=1&job={mine}").text
    assert "You may not read the task logs of all DAGs" in page.get(f"{busy}?part=1&job=runs").text
    text = page.get(busy).text
    assert f"""data-name='"{mine}"'""" in text
    assert 'data-act="delete"' not in text
    assert page.post(f"{busy}/stop", {"job": secret}).status_code == 403
    assert page.post(f"{busy}/stop", {"job": "runs"}).status_code == 403
    assert page.post(f"{busy}/delete", {"confirm": "busy"}).status_code == 403
    assert page.post(f"{busy}/stop", {"job": mine}).status_code == 200
    until(lambda: jobs_of(fake_emulator, "busy")[mine]["status"] == "STOPPED")
    states = {name: job["status"] for name, job in jobs_of(fake_emulator, "busy").items()}
    assert states == {"runs": "RUNNING", secret: "RUNNING", mine: "STOPPED"}


def test_job_with_forged_metadata_has_no_owner(
    page: Page, busy: str, fake_emulator: EmulatorProcess, secret_dag: None
) -> None:
    metadata = {"airflow_dag_id": "mine", "airflow_run_id": "r", "airflow_task_id": "t", "airflow_owner": "0" * 16}
    submit(fake_emulator, "busy", "liar", "sleep 600", metadata=metadata)
    assert page.post(f"{busy}/stop", {"job": "liar"}).status_code == 403


def _cluster_of_mine(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster ``busy`` that the DAG ``mine`` has created."""
    from airflow_provider_vertex_ray.plugins.page import airflow

    creator = Owner("mine", "run", "create")
    labels = {"airflow-owner": creator.key, "airflow-dag": "mine", "airflow-run": "run", "airflow-task": "create"}
    start(emulator, "busy", labels=labels)
    # As if Airflow's database had that run.
    monkeypatch.setattr(airflow, "_look_up", lambda labels: labels.owner("mine", "run", [("create", -1)]))


def test_forced_delete_requires_permissions_of_the_users_dags(
    page: Page, fake_emulator: EmulatorProcess, secret_dag: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cluster_of_mine(fake_emulator, monkeypatch)
    path = f"{SOURCE}/busy"
    assert 'data-act="delete"' in page.get(f"{path}?part=1").text
    # What the page knows already is not enough: this one has come since.
    _submit_of(fake_emulator, "secret")
    refused = page.post(f"{path}/delete", {"confirm": "busy", "force": True})
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "You need the permission to trigger DAG mine, and every DAG that uses the cluster.",
    )
    assert page.post(f"{path}/delete", {"confirm": "busy"}).status_code == 409
    assert cluster_ids(fake_emulator) == ["busy"]


@pytest.mark.parametrize(
    "fault",
    [
        {"scope": "dashboard", "method": "GET /api/jobs/", "status": 403},
        {"scope": "dashboard", "action": "reset"},
    ],
    ids=str,
)
def test_forced_delete_with_unknown_users_requires_all_permissions(
    page: Page,
    fake_emulator: EmulatorProcess,
    secret_dag: None,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
) -> None:
    _cluster_of_mine(fake_emulator, monkeypatch)
    path = f"{SOURCE}/busy"
    assert page.get(f"{path}?part=1").status_code == 200
    with fake_emulator.fault(**fault, times=None):
        refused = page.post(f"{path}/delete", {"confirm": "busy", "force": True})
    assert refused.status_code == 403
    assert refused.json()["detail"].endswith("all DAGs, because the cluster's users cannot be read.")
    assert page.post(f"{path}/delete", {"confirm": "busy", "force": True}).status_code == 200
    until(lambda: cluster_ids(fake_emulator) == [])
