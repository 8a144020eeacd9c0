"""Ray's Jobs API as we call it, against the emulator's scripted jobs and its faults."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job import client, log_client
from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.job.dashboard_errors import dashboard_error
from airflow_provider_vertex_ray.core.job.packages import Package, pack
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.errors import (
    CredentialsError,
    InvalidRequestError,
    JobNotFoundError,
    NotAuthorisedError,
    PackageTooLargeError,
    RequestTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    SubmissionIdTakenError,
    UnreadableAnswerError,
    VertexRayError,
)
from tests.support.clusters import dashboard_of, jobs_of, start, submit
from tests.support.server import serving, transport_to

POST = "POST /api/jobs/"


@pytest.fixture
async def api(transport: Transport, fake_emulator: EmulatorProcess) -> JobsApi:
    start(fake_emulator)
    return JobsApi(transport, f"http://{fake_emulator.host}{dashboard_of(fake_emulator, 'shared')}")


async def reached(api: JobsApi, submission_id: str, *statuses: JobStatus) -> Job:
    end = time.monotonic() + 240
    while (job := await api.get(submission_id)).status not in statuses:
        assert time.monotonic() < end, job
        await asyncio.sleep(0.02)
    return job


async def ended(api: JobsApi, submission_id: str) -> Job:
    return await reached(api, submission_id, *(status for status in JobStatus if status.is_terminal))


async def test_a_job_from_submit_to_delete(api: JobsApi) -> None:
    request = JobRequest("echo hello && exit 3", "one", {"env_vars": {"A": "b"}}, {"team": "a"})
    assert await api.submit(request) is True
    job = await ended(api, "one")
    assert (job.status, job.exit_code, job.entrypoint) == (JobStatus.FAILED, 3, "echo hello && exit 3")
    assert job.metadata["team"] == "a"
    assert "hello" in await api.logs("one")
    assert [each.submission_id for each in await api.list_all()] == ["one"]
    await api.delete("one")
    assert await api.find("one") is None
    with pytest.raises(JobNotFoundError, match="Job one does not exist"):
        await api.get("one")


def test_what_a_submit_sends() -> None:
    plain = JobRequest("run", "id")
    assert plain.body() == {"entrypoint": "run", "submission_id": "id", "runtime_env": {}, "metadata": {}}
    full = JobRequest("run", "id", num_cpus=0.5, num_gpus=1, memory=1 << 30, resources={"disk": 1})
    assert full.body() == {
        **plain.body(),
        "entrypoint_num_cpus": 0.5,
        "entrypoint_num_gpus": 1,
        "entrypoint_memory": 1 << 30,
        "entrypoint_resources": {"disk": 1},
    }


@pytest.mark.parametrize(
    "fault", [{"action": "drop_response"}, {"action": "reset"}, {"status": 503}, {"status": 524}, {"status": 429}]
)
async def test_a_submit_whose_answer_is_lost_makes_one_job(
    api: JobsApi, fake_emulator: EmulatorProcess, fault: dict[str, Any]
) -> None:
    with fake_emulator.fault(scope="dashboard", method=POST, **fault):
        assert await api.submit(JobRequest("sleep 5", "one")) is True
    assert list(jobs_of(fake_emulator, "shared")) == ["one"]


@pytest.mark.parametrize("status", [401, 403])
async def test_submission_that_is_refused_for_a_moment_makes_one_job(
    api: JobsApi, fake_emulator: EmulatorProcess, status: int
) -> None:
    with fake_emulator.fault(scope="dashboard", method=POST, action="status", status=status, times=3):
        assert await api.submit(JobRequest("sleep 5", "one")) is True
    assert list(jobs_of(fake_emulator, "shared")) == ["one"]


async def test_submission_that_is_always_refused_fails_after_its_attempts(
    api: JobsApi, fake_emulator: EmulatorProcess
) -> None:
    with (
        fake_emulator.fault(scope="dashboard", method=POST, action="status", status=403, times=None),
        pytest.raises(NotAuthorisedError, match="403"),
    ):
        await api.submit(JobRequest("sleep 5", "one"))
    assert len(fake_emulator.calls(POST)) == client.SUBMIT_ATTEMPTS


async def test_credentials_that_give_no_token_end_a_submission(api: JobsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: Any, **more: Any) -> Any:
        calls.append(args)
        raise CredentialsError("The key is damaged.")

    calls: list[Any] = []
    monkeypatch.setattr(Transport, "read", broken)
    with pytest.raises(CredentialsError):
        await api.submit(JobRequest("sleep 5", "one"))
    assert len(calls) == 1


async def test_submission_whose_answer_and_lookup_are_lost_makes_one_job(
    api: JobsApi, fake_emulator: EmulatorProcess
) -> None:
    with (
        fake_emulator.fault(scope="dashboard", method=POST, action="drop_response"),
        fake_emulator.fault(scope="dashboard", method="GET /api/jobs/one", status=404),
    ):
        assert await api.submit(JobRequest("sleep 5", "one")) is True
    assert len(fake_emulator.calls(POST)) == 2
    assert list(jobs_of(fake_emulator, "shared")) == ["one"]


async def test_a_submission_id_that_is_in_use(api: JobsApi, fake_emulator: EmulatorProcess) -> None:
    submit(fake_emulator, "shared", "theirs", "sleep 5")
    assert await api.submit(JobRequest("echo mine", "theirs")) is False
    assert (await api.get("theirs")).entrypoint == "sleep 5"


@pytest.mark.parametrize("fault", [{"action": "reset"}, {"status": 503}])
async def test_existing_job_of_same_id_is_not_mistaken_for_ours(
    api: JobsApi, fake_emulator: EmulatorProcess, fault: dict[str, Any]
) -> None:
    submit(fake_emulator, "shared", "theirs", "sleep 5")
    with fake_emulator.fault(scope="dashboard", method=POST, **fault):
        assert await api.submit(JobRequest("sleep 5", "theirs")) is False


async def test_submission_that_is_never_received_raises(api: JobsApi, fake_emulator: EmulatorProcess) -> None:
    with (
        fake_emulator.fault(scope="dashboard", method=POST, times=None, status=503, message="no agent"),
        pytest.raises(ServiceUnavailableError, match="no agent"),
    ):
        await api.submit(JobRequest("echo", "one"))
    assert len(fake_emulator.calls(POST)) == 6


async def test_request_that_ray_rejects(api: JobsApi, fake_emulator: EmulatorProcess) -> None:
    with pytest.raises(InvalidRequestError, match=r"TypeError: entrypoint_num_cpus must be a number"):
        await api.submit(JobRequest("echo", "one", num_cpus="many"))  # type: ignore[arg-type]
    assert len(fake_emulator.calls(POST)) == 1


async def test_a_package_is_sent_once(api: JobsApi, fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("print(1)")
    package = pack(str(tmp_path / "code"), tmp_path / "p.zip")
    assert await api.upload(package) is True
    assert await api.upload(package) is False
    assert len(fake_emulator.calls("PUT *")) == 1
    await api.submit(JobRequest("echo", "one", {"working_dir": package.uri}))
    assert (await ended(api, "one")).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("fault", [{"status": 503}, {"action": "drop_response"}, {"action": "reset"}])
async def test_an_upload_that_breaks_off_is_repeated(
    api: JobsApi, fake_emulator: EmulatorProcess, tmp_path: Path, fault: dict[str, Any]
) -> None:
    (tmp_path / "code").mkdir()
    package = pack(str(tmp_path / "code"), tmp_path / "p.zip")
    with fake_emulator.fault(scope="dashboard", method="PUT *", **fault):
        assert await api.upload(package) is True
    assert await api.upload(package) is False


async def test_stopping(api: JobsApi) -> None:
    await api.submit(JobRequest("sleep 600", "one"))
    await reached(api, "one", JobStatus.RUNNING)
    assert await api.stop("one") is True
    assert (await ended(api, "one")).status is JobStatus.STOPPED
    assert await api.stop("one") is False
    with pytest.raises(JobNotFoundError):
        await api.stop("nobodys")


async def test_running_job_cannot_be_deleted(api: JobsApi) -> None:
    await api.submit(JobRequest("sleep 600", "one"))
    with pytest.raises(VertexRayError, match="in a non-terminal state"):
        await api.delete("one")
    assert await api.find("one") is not None


async def test_a_list_without_the_drivers_of_others() -> None:
    listed = [
        {"type": "DRIVER", "job_id": "01000000"},
        {"type": "SUBMISSION", "submission_id": "a", "status": "RUNNING"},
    ]
    async with serving(web.json_response(listed)) as server, transport_to(server) as transport:
        assert [job.submission_id for job in await JobsApi(transport, server.url).list_all()] == ["a"]


async def test_ids_with_odd_characters(api: JobsApi, fake_emulator: EmulatorProcess) -> None:
    odd = "ä b?c#d%2Fe&f"
    await api.submit(JobRequest("echo", odd))
    assert (await ended(api, odd)).submission_id == odd


async def test_the_tail_tells_all_from_the_beginning_and_then_ends(
    websocket_transport: Transport, websocket_emulator: EmulatorProcess
) -> None:
    start(websocket_emulator)
    dashboard = f"http://{websocket_emulator.host}{dashboard_of(websocket_emulator, 'shared')}"
    api = JobsApi(websocket_transport, dashboard)
    await api.submit(JobRequest(" && ".join(f"echo line-{n}" for n in range(25)), "one"))
    for _ in range(2):
        async with api.tail("one") as frames:
            text = "".join([frame async for frame in frames])
        assert [line for line in text.splitlines() if line.startswith("line-")] == [f"line-{n}" for n in range(25)]


async def test_the_tail_of_a_job_that_there_is_not(api: JobsApi) -> None:
    # The refusal of a websocket has no text that distinguishes Ray's answer from a proxy's.
    with pytest.raises(ServiceUnavailableError):
        async with api.tail("nobodys"):
            pass


@pytest.mark.parametrize("limit", [10, 999, 1000, 1001, 100_000])
async def test_long_logs_are_cut_and_stay_readable(limit: int) -> None:
    text = 'ä"\\\n🎉' * 1000
    async with serving(web.Response(text=json.dumps({"logs": text}))) as server, transport_to(server) as transport:
        found = await JobsApi(transport, server.url).logs("one", max_bytes=limit)
    assert text.startswith(found)
    assert len(found) >= min(limit // 6, len(text))
    assert len(found) <= limit


async def test_no_logs_yet() -> None:
    async with serving(web.json_response({"logs": None})) as server, transport_to(server) as transport:
        assert await JobsApi(transport, server.url).logs("one") == ""


async def test_logs_that_are_something_else() -> None:
    async with serving(web.Response(text="<html>sign in</html>")) as server, transport_to(server) as transport:
        with pytest.raises(ServiceError, match="not the log of a job"):
            await JobsApi(transport, server.url).logs("one")


async def test_a_log_so_far_comes_in_pieces() -> None:
    text = 'ä"\\\n🎉' * 100_000
    async with (
        serving(web.Response(text=json.dumps({"logs": text}))) as server,
        transport_to(server) as transport,
        JobsApi(transport, server.url).log_so_far("one") as pieces,
    ):
        got = [piece async for piece in pieces]
    assert "".join(got) == text
    assert max(map(len, got)) <= 1 << 16


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.Response(text='{"logs": "half', status=200), ServiceUnavailableError),
        (web.Response(text="Job one does not exist", status=404), JobNotFoundError),
        (web.Response(text="x" * 2000), ServiceError),
    ],
)
async def test_unreadable_log_so_far_raises(answer: web.Response, kind: type[VertexRayError]) -> None:
    async with serving(answer) as server, transport_to(server) as transport:
        with pytest.raises(kind):
            async with JobsApi(transport, server.url).log_so_far("one") as pieces:
                assert [piece async for piece in pieces] in ([], ["half"])


async def test_dashboard_that_is_not_ready_yet(api: JobsApi, fake_emulator: EmulatorProcess) -> None:
    assert await api.not_ready() is None
    for status in (302, 401, 403, 404, 500, 502, 503, 524):
        with fake_emulator.fault(scope="dashboard", method="GET /api/version", status=status, times=2):
            assert str(status) in str(await api.not_ready())
    with fake_emulator.fault(scope="auth", times=2, status=403):
        assert "403" in str(await api.not_ready())


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="<html>Sign in to continue</html>", content_type="text/html"),
        web.Response(text=""),
        web.Response(text="{}"),
        web.Response(text="[]"),
        web.Response(text="null"),
        web.Response(text='{"version": 4, "ray_version": null}'),
        web.Response(text='{"error": {"code": 200, "message": "no"}}'),
        web.Response(status=302, headers={"Location": "https://accounts.google.com/o/oauth2/auth?x"}),
        web.Response(status=403, text="x"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.text}",
)
async def test_only_the_json_of_ray_itself_means_ready(answer: web.Response) -> None:
    async with serving(answer, answer) as server, transport_to(server) as transport:
        problem = await JobsApi(transport, server.url).not_ready()
    assert problem
    assert answer.status == 200 or str(answer.status) in problem


async def test_version_of_ray_means_ready() -> None:
    answer = web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})
    async with serving(answer) as server, transport_to(server) as transport:
        assert await JobsApi(transport, server.url).not_ready() is None


async def test_the_nodes_that_ray_sees(api: JobsApi, fake_emulator: EmulatorProcess) -> None:
    assert [node.state for node in await api.nodes()] == ["ALIVE"] * 3
    fake_emulator.admin("POST", "clusters/shared/kill", {"part": "raylet", "node": "worker-pool1-0"})
    assert sorted(str(node.state) for node in await api.nodes()) == ["ALIVE", "ALIVE", "DEAD"]


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, "x", NotAuthorisedError),
        (403, "x", NotAuthorisedError),
        (404, "Job x does not exist", JobNotFoundError),
        (404, "<html>no such page</html>", UnreadableAnswerError),
        (400, "x", InvalidRequestError),
        (413, "x", RequestTooLargeError),
        (500, "ValueError: Job with submission_id x already exists. Please use …", SubmissionIdTakenError),
        (500, "x", ServiceUnavailableError),
        (302, "x", ServiceUnavailableError),
    ],
)
def test_what_a_dashboards_answers_become(status: int, text: str, kind: type[VertexRayError]) -> None:
    error = dashboard_error(status, text)
    assert type(error) is kind
    assert error.details == {"http_status": status}


def test_reason_is_the_last_line_of_a_traceback() -> None:
    text = (
        'Traceback (most recent call last):\n  File "job_head.py", line 1\nTypeError: entrypoint must be a string\n\n'
    )
    assert dashboard_error(400, text).message.endswith("(400): TypeError: entrypoint must be a string")
    assert dashboard_error(500, "").message.endswith("(empty answer)")
    assert len(dashboard_error(500, "x" * 100_000).message) < 1000


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [(413, PackageTooLargeError, "use its gs:// URI"), (524, ServiceUnavailableError, "use its gs:// URI")],
)
async def test_upload_that_a_proxy_refuses_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[VertexRayError], advice: str
) -> None:
    monkeypatch.setattr(client, "RISKY_UPLOAD_BYTES", 1 << 18)
    file = tmp_path / "package.zip"
    file.write_bytes(bytes(1 << 19))

    async def refuse(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(status=404, text="Package x does not exist")
        return web.Response(status=status, text="<title>Error (Request Entity Too Large)!!1</title>")

    async with serving(refuse) as server, transport_to(server) as transport:
        with pytest.raises(kind, match=r"0\.5 MiB") as caught:
            await JobsApi(transport, server.url).upload(Package(file, "_ray_pkg_x.zip", 1 << 19))
    assert advice in str(caught.value)
    assert "Correct the field" not in str(caught.value)


async def test_websocket_whose_handshake_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_client, "HANDSHAKE_SECONDS", 0.2)

    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    async with serving(hang) as server, transport_to(server) as transport:
        with pytest.raises(ServiceUnavailableError, match="no answer within"):
            async with JobsApi(transport, server.url).tail("one"):
                pass
