"""Cloud Logging: pages, bounds, errors."""

from __future__ import annotations

import time

import pytest
from aiohttp import web
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.decoding import check_shape
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.monitoring import logs
from airflow_provider_vertex_ray.core.monitoring.answers import EntryAnswer
from airflow_provider_vertex_ray.core.monitoring.logs import LogEntry, LogsApi
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    LogsNotAuthorisedError,
    NotAuthorisedError,
    RateLimitedError,
    ServiceUnavailableError,
    UnreadableAnswerError,
)
from airflow_provider_vertex_ray.log_query import LogQuery
from tests.support.clusters import start, submit
from tests.support.monitoring import OF_JOB, listed
from tests.support.server import serving, transport_to

LIST = "ListLogEntries"


@pytest.fixture
def emulator(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With 30 lines of the job ``one`` on the cluster ``shared``."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    submit(fake_emulator, "shared", "one", "count 30 0")
    listed(fake_emulator, 30)
    return fake_emulator


def numbers(entries: tuple[LogEntry, ...]) -> list[int]:
    return [int(entry.message.split()[-1]) for entry in entries if entry.message.startswith("line ")]


@pytest.fixture
def api(transport: Transport, emulator: EmulatorProcess) -> LogsApi:
    return LogsApi(transport, emulator.project)


async def test_the_lines_of_a_job_in_their_order(api: LogsApi) -> None:
    found = await api.entries(OF_JOB, 100)
    assert not found.more
    first = found.entries[0]
    assert abs(first.time - time.time()) < 60
    assert (first.severity, first.node) == ("INFO", None)
    assert first.path.endswith("job-driver-one.log")
    assert numbers(found.entries) == sorted(numbers(found.entries))
    backwards = await api.entries(LogQuery("shared", submission_id="one", newest_first=True), 100)
    assert backwards.entries == found.entries[::-1]
    assert LogEntry(**first.to_json()) == first


async def test_all_pages_are_read(api: LogsApi, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    emulator.admin("DELETE", "calls")
    monkeypatch.setattr(logs, "PAGE_SIZE", 7)
    found = await api.entries(OF_JOB, 100)
    assert (found.entries, found.more) == (everything, False)
    assert len(emulator.calls(LIST)) == -(-len(everything) // 7)


@pytest.mark.parametrize("most", [1, 7, 14, 20])
async def test_no_more_than_was_asked_for(api: LogsApi, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    monkeypatch.setattr(logs, "PAGE_SIZE", 7)
    found = await api.entries(OF_JOB, most)
    assert (found.entries, found.more) == (everything[:most], True)


async def test_exact_number_of_entries_is_not_more(api: LogsApi) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    assert (await api.entries(OF_JOB, len(everything))).more is False


async def test_no_more_bytes_than_were_asked_for(api: LogsApi) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    size = sum(len(entry.message) for entry in everything[:4])
    found = await api.entries(OF_JOB, 100, max_bytes=size)
    assert (found.entries, found.more) == (everything[:4], True)
    assert len((await api.entries(OF_JOB, 100, max_bytes=1)).entries) == 1


async def test_a_window_of_time_and_a_text(api: LogsApi) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    begin, end = everything[3].time, everything[9].time
    found = await api.entries(LogQuery("shared", submission_id="one", start=begin, end=end), 100)
    assert found.entries == everything[3:9]
    word = everything[5].message
    assert everything[5] in (await api.entries(LogQuery("shared", text=word), 100)).entries
    assert (await api.entries(LogQuery("shared", file="no-such-file"), 100)).entries == ()
    assert (await api.entries(LogQuery("other"), 100)).entries == ()


async def test_job_whose_id_is_prefix_of_another(api: LogsApi, emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one-a2", "echo other")
    listed(emulator, 1, LogQuery("shared", text="other"))
    assert not [entry for entry in (await api.entries(OF_JOB, 100)).entries if "one-a2" in entry.path]


async def test_rate_limits_are_waited_for(api: LogsApi, emulator: EmulatorProcess) -> None:
    with emulator.fault(scope="control_plane", method=LIST, status=429, times=2):
        assert (await api.entries(OF_JOB, 100)).entries
    assert len(emulator.calls(LIST)) == 3
    with (
        emulator.fault(scope="control_plane", method=LIST, status=429, times=20),
        pytest.raises(RateLimitedError),
    ):
        await api.entries(OF_JOB, 100)


async def test_a_page_whose_answer_is_lost_is_asked_for_again(
    api: LogsApi, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    monkeypatch.setattr(logs, "PAGE_SIZE", 7)
    with emulator.fault(scope="control_plane", method=LIST, action="reset", times=2):
        assert (await api.entries(OF_JOB, 100)).entries == everything
    with (
        emulator.fault(scope="control_plane", method=LIST, status=503, times=20),
        pytest.raises(ServiceUnavailableError),
    ):
        await api.entries(OF_JOB, 100)


async def test_a_token_that_expires_between_pages(
    api: LogsApi, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = (await api.entries(OF_JOB, 100)).entries
    monkeypatch.setattr(logs, "PAGE_SIZE", 7)
    found: list[LogEntry] = []
    async for page in api.pages(OF_JOB, page_size=7):
        found += page.entries
        emulator.admin("POST", "tokens/revoke")
    assert tuple(found) == everything


async def test_what_may_not_be_read(api: LogsApi, emulator: EmulatorProcess) -> None:
    emulator.admin("PUT", "project", {"denied_permissions": ["logging.logEntries.list"]})
    try:
        with pytest.raises(NotAuthorisedError, match=r"roles/logging\.viewer") as caught:
            await api.entries(OF_JOB, 100)
    finally:
        emulator.admin("DELETE", "project")
    assert type(caught.value) is LogsNotAuthorisedError


async def test_rejected_filter_is_quoted_in_the_error(
    api: LogsApi, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogQuery, "filter", lambda self: 'severity>="HIGH"')
    with pytest.raises(InvalidRequestError, match='The filter was: severity>="HIGH"'):
        await api.entries(OF_JOB, 100)


async def test_empty_page_does_not_end_the_search() -> None:
    """The service gives a token without entries when it had no time to find any."""
    entry = {"jsonPayload": {"message": "late"}, "timestamp": "2026-01-31T12:00:00.123456789Z", "severity": "ERROR"}
    answers = [
        web.json_response({"nextPageToken": "a"}),
        web.json_response({"nextPageToken": "b"}),
        web.json_response({"entries": [entry]}),
    ]
    async with serving(*answers) as server, transport_to(server) as transport:
        found = await LogsApi(transport, "p").entries(LogQuery("c"), 10)
    assert [entry.message for entry in found.entries] == ["late"]
    assert found.entries[0].time == pytest.approx(1769860800.123456789)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"textPayload": "plain\n"}, "plain"),
        ({"jsonPayload": {"message": "said", "tailed_path": "/x"}}, "said"),
        ({"jsonPayload": {"log": "said"}}, "said"),
        ({"jsonPayload": {"level": 3, "tailed_path": "/x"}}, '{"level": 3}'),
        ({}, ""),
    ],
)
def test_entries_of_all_kinds(payload: dict[str, object], message: str) -> None:
    assert LogEntry.of(check_shape(payload, EntryAnswer)).message == message


async def test_an_answer_that_is_none() -> None:
    async with serving(web.json_response(["what"])) as server, transport_to(server) as transport:
        with pytest.raises(UnreadableAnswerError):
            await LogsApi(transport, "p").entries(LogQuery("c"), 10)
