"""Whatever a dashboard answers, neither the page, nor its actions, nor the audit log show the API server's token."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from emulator_support.process import until

from tests.plugins.conftest import AIRFLOW_3, SOURCE, Page
from tests.support.input_fuzz import connected
from tests.support.raw_service import PLANTED_TOKEN, RawService, http

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="there is no page on Airflow 2")

ECHO = f"Authorization: Bearer {PLANTED_TOKEN}"
BROKEN = {
    "bad status line": b"HTTP/1.1 oops\r\n\r\n",
    "status line with the token": f"HTTP/1.1 {ECHO}\r\n\r\n".encode(),
    "long header": f"HTTP/1.1 200 OK\r\n{ECHO}{'a' * 9000}\r\n\r\n".encode(),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
    "error with the token": http(400, ECHO),
    "page with the token": http(200, f"<html>{ECHO}"),
    "log with the token": http(200, {"logs": ECHO}),
}


@pytest.fixture
def service(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawService]:
    # A stop that is not understood is repeated for a while.
    monkeypatch.setattr("airflow_provider_vertex_ray.plugins.page.actions.STOP_WAIT_SECONDS", 3.0)
    with connected(monkeypatch) as found:
        page.options["page_sources"] = json.dumps([{"location": "us-central1"}])
        yield found


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
def test_broken_answer_shows_no_token(page: Page, service: RawService, payload: bytes) -> None:
    from tests.plugins.test_routes import _audit

    path = f"{SOURCE}/shared"
    until(lambda: "job" in page.get(f"{path}?part=1").text)
    service.requests.clear()
    service.odd = lambda request: payload if "/api/jobs/job" in request.path else None
    shown = [page.get(path, user=user, params={"job": "job", "part": "1"}).text for user in ("vic", "ada")]
    until(lambda: [path for path in service.sent("GET", "/api/jobs/job") if "logs" in path])
    shown += [page.get(path, user=user, params={"job": "job", "part": "1"}).text for user in ("vic", "ada")]
    answer = page.post(f"{path}/stop", {"job": "job"})
    until(lambda: service.sent("POST", "/stop"), answer.text)
    assert any(PLANTED_TOKEN in each.head for each in service.requests), "the dashboard got no token to show"
    shown += [answer.text, *(f"{row.event} {row.extra}" for row in _audit())]
    assert [text for text in shown if PLANTED_TOKEN in text] == []
