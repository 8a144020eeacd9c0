"""The Jobs API of a cluster: the same assertions for real Ray and for the fake backend."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from emulator_support.data_plane import GIB, plans, until
from vertex_ray_emulator.backends.fake_backend import FakeBackend
from vertex_ray_emulator.backends.ray_backend import RayBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vertex_ray_emulator.backends.backend import ClusterAddresses, ClusterBackend

pytestmark = pytest.mark.asyncio(loop_scope="module")

DETAILS = [
    "type", "job_id", "submission_id", "driver_info", "status", "entrypoint", "message", "error_type", "start_time",
    "end_time", "metadata", "runtime_env", "driver_agent_http_address", "driver_node_id", "driver_exit_code",
]  # fmt: skip
TERMINAL = {"SUCCEEDED", "FAILED", "STOPPED"}
SETUP_LINE = "Runtime env is setting up."


class Dashboard:
    """A cluster's dashboard, without a proxy in between."""

    def __init__(self, backend: ClusterBackend, addresses: ClusterAddresses, session: aiohttp.ClientSession) -> None:
        self.backend = backend
        self.address = f"http://127.0.0.1:{addresses.dashboard_port}"
        self.session = session

    async def call(self, method: str, path: str, body: Any = None, data: bytes | None = None) -> tuple[int, str]:
        async with self.session.request(method, self.address + path, json=body, data=data) as response:
            return response.status, await response.text()

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        status, text = await self.call(method, path, body)
        assert status == 200, text
        return json.loads(text)

    async def submit(self, entrypoint: str, **more: Any) -> str:
        answer = await self.json("POST", "/api/jobs/", {"entrypoint": entrypoint, **more})
        assert answer["job_id"] == answer["submission_id"]
        return answer["submission_id"]

    async def get(self, job: str) -> dict[str, Any]:
        return await self.json("GET", f"/api/jobs/{job}")

    async def reaches(self, job: str, *statuses: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            details = await self.get(job)
            assert details["status"] in statuses or details["status"] not in TERMINAL, details
            return details if details["status"] in statuses else None

        return await until(there, f"{job} to be {statuses}")


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["fake", pytest.param("ray", marks=pytest.mark.ray)]
)
async def dashboard(request, tmp_path_factory) -> AsyncIterator[Dashboard]:
    backend = FakeBackend() if request.param == "fake" else RayBackend(tmp_path_factory.mktemp("state"))
    try:
        addresses = await backend.start("contract-1", plans(2))
        async with aiohttp.ClientSession() as session:
            yield Dashboard(backend, addresses, session)
    finally:
        await backend.close()


async def test_successful_job(dashboard):
    job = await dashboard.submit("echo one && sleep 0.1 && echo two three", submission_id="good")
    assert job == "good"
    details = await dashboard.reaches(job, "SUCCEEDED")
    assert list(details) == DETAILS
    assert details["type"] == "SUBMISSION"
    assert details["message"] == "Job finished successfully."
    assert details["driver_exit_code"] == 0
    assert details["start_time"] < details["end_time"] < details["start_time"] + 600_000
    assert details["metadata"] is None
    assert details["runtime_env"] is None
    assert details["driver_agent_http_address"].startswith("http://127.0.0.1:")
    assert len(details["driver_node_id"]) == 56
    lines = (await dashboard.json("GET", f"/api/jobs/{job}/logs"))["logs"].splitlines()
    assert lines[0].endswith(SETUP_LINE)
    assert lines[1:] == ["one", "two three"]


async def test_failed_job_has_exit_code_and_last_lines(dashboard):
    job = await dashboard.submit("echo before && exit 3", metadata={"owner": "etl"})
    details = await dashboard.reaches(job, "FAILED")
    assert details["driver_exit_code"] == 3
    assert details["metadata"] == {"owner": "etl"}
    head, *tail = details["message"].splitlines()
    assert head == "Job entrypoint command failed with exit code 3, last available logs (truncated to 20,000 chars):"
    assert tail[-1] == "before"


async def test_submission_id_is_generated_if_none_is_given(dashboard):
    first, second = [await dashboard.submit("echo x") for _ in range(2)]
    assert first != second
    assert first.startswith("raysubmit_")
    for job in (first, second):
        await dashboard.reaches(job, "SUCCEEDED")


async def test_duplicate_id_is_a_500_with_the_reason(dashboard):
    job = await dashboard.submit("echo x", submission_id="taken")
    status, text = await dashboard.call("POST", "/api/jobs/", {"entrypoint": "echo y", "submission_id": "taken"})
    assert status == 500
    assert "Job with submission_id taken already exists. Please use a different submission_id." in text
    assert (await dashboard.reaches(job, "SUCCEEDED"))["entrypoint"] == "echo x"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"entrypoint": "echo", "foo": 1}, "got an unexpected keyword argument 'foo'"),
        ({"metadata": {}}, "missing 1 required positional argument: 'entrypoint'"),
        ({"entrypoint": 5}, "entrypoint must be a string, got <class 'int'>"),
        ({"entrypoint": "echo", "submission_id": 5}, "submission_id must be a string if provided, got <class 'int'>"),
        ({"entrypoint": "echo", "metadata": {"a": 1}}, "metadata values must be strings, got <class 'int'>"),
        ({"entrypoint": "echo", "runtime_env": "x"}, "runtime_env must be a dict, got <class 'str'>"),
        ({"entrypoint": "echo", "entrypoint_num_cpus": "2"}, "entrypoint_num_cpus must be a number"),
        ({"entrypoint": "echo", "entrypoint_memory": 1.5}, "entrypoint_memory must be an integer"),
        ({"entrypoint": "echo", "entrypoint_resources": {"a": "1"}}, "entrypoint_resources values must be numbers"),
    ],
)
async def test_invalid_request_is_a_400_with_the_reason(dashboard, body, text):
    status, answer = await dashboard.call("POST", "/api/jobs/", body)
    assert (status, text in answer) == (400, True), answer


async def test_key_with_value_null_counts_as_absent(dashboard):
    job = await dashboard.submit("echo x", submission_id=None, from_a_newer_client=None)
    await dashboard.reaches(job, "SUCCEEDED")


async def test_body_that_is_not_json_is_a_500(dashboard):
    status, _ = await dashboard.call("POST", "/api/jobs/", data=b"{oops")
    assert status == 500


async def test_unknown_jobs_are_404(dashboard):
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/logs"), ("GET", "/logs/tail")):
        status, text = await dashboard.call(method, f"/api/jobs/nobody{tail}")
        assert (status, text) == (404, "Job nobody does not exist"), (method, tail)
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await dashboard.session.ws_connect(f"{dashboard.address}/api/jobs/nobody/logs/tail")
    assert error.value.status == 404


async def test_paths_must_match_exactly(dashboard):
    assert (await dashboard.call("GET", "/api/jobs"))[0] == 404
    assert (await dashboard.call("PATCH", "/api/jobs/x"))[0] == 405
    assert (await dashboard.call("GET", "/api/nothing"))[0] == 404


async def test_stopping_and_deleting(dashboard):
    job = await dashboard.submit("sleep 600")
    await dashboard.reaches(job, "RUNNING")
    status, text = await dashboard.call("DELETE", f"/api/jobs/{job}")
    assert status == 500
    assert f"Attempted to delete job '{job}', but it is in a non-terminal state RUNNING." in text
    assert await dashboard.json("POST", f"/api/jobs/{job}/stop") == {"stopped": True}
    details = await dashboard.reaches(job, "STOPPED")
    assert details["message"] == "Job was intentionally stopped."
    assert details["driver_exit_code"] is None
    assert details["end_time"] is not None

    async def nothing_to_stop() -> bool:  # the supervisor takes a moment to go
        return await dashboard.json("POST", f"/api/jobs/{job}/stop") == {"stopped": False}

    await until(nothing_to_stop, "the supervisor to go")
    assert await dashboard.json("DELETE", f"/api/jobs/{job}") == {"deleted": True}
    assert (await dashboard.call("GET", f"/api/jobs/{job}"))[0] == 404


async def test_job_that_cannot_be_placed_stays_pending_and_cannot_be_stopped(dashboard):
    job = await dashboard.submit("echo x", entrypoint_num_cpus=64)
    details = await dashboard.get(job)
    assert details["status"] == "PENDING"
    assert details["message"] == (
        "Job has not started yet. "
        "It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become available."
    )
    assert details["driver_node_id"] is None
    assert await dashboard.json("POST", f"/api/jobs/{job}/stop") == {"stopped": True}
    await asyncio.sleep(1)  # long enough for a stop to show, if it did anything
    assert (await dashboard.get(job))["status"] == "PENDING"
    assert await dashboard.json("GET", f"/api/jobs/{job}/logs") == {"logs": ""}


async def test_driver_with_entrypoint_resources_runs_on_a_worker(dashboard):
    nodes = await dashboard.json("GET", "/api/v0/nodes")
    (head,) = [row["node_id"] for row in nodes["data"]["result"]["result"] if row["is_head_node"]]
    plain = await dashboard.submit("echo x")
    placed = await dashboard.submit("echo x", entrypoint_num_cpus=1, entrypoint_resources={"accelerator_type:T4": 0.5})
    assert (await dashboard.reaches(plain, "SUCCEEDED"))["driver_node_id"] == head
    assert (await dashboard.reaches(placed, "SUCCEEDED"))["driver_node_id"] != head


async def test_tail_starts_at_the_beginning_and_closes_with_1000(dashboard):
    for seconds in (3, 20, 100):  # on a busy machine, the job may have ended when the connection is made
        script = " && ".join(f"echo line {k}" for k in range(25)) + f" && sleep {seconds} && echo last"
        job = await dashboard.submit(script)
        await dashboard.reaches(job, "RUNNING", "SUCCEEDED")
        statuses = []
        for _ in range(2):  # while it runs, and once more when it has ended: each connection has all of it
            frames = []
            async with dashboard.session.ws_connect(f"{dashboard.address}/api/jobs/{job}/logs/tail") as tail:
                async for message in tail:
                    assert message.type is aiohttp.WSMsgType.TEXT
                    if not frames:
                        statuses.append((await dashboard.get(job))["status"])
                    frames.append(message.data)
                assert tail.close_code == 1000
            assert max(frame.count("\n") for frame in frames) <= 10
            lines = "".join(frames).splitlines()
            assert lines[0].endswith(SETUP_LINE)
            assert lines[1:] == [f"line {k}" for k in range(25)] + ["last"]
            assert (await dashboard.get(job))["status"] == "SUCCEEDED"
        if statuses == ["RUNNING", "SUCCEEDED"]:
            break
    assert statuses == ["RUNNING", "SUCCEEDED"]


async def test_packages_are_stored(dashboard):
    path = "/api/packages/gcs/_ray_pkg_0011223344556677.zip"
    status, text = await dashboard.call("GET", path)
    assert (status, text) == (404, "Package gcs://_ray_pkg_0011223344556677.zip does not exist")
    assert await dashboard.call("PUT", path, data=b"x" * 5_000_000) == (200, "")
    assert await dashboard.call("GET", path) == (200, "")
    assert (await dashboard.call("GET", "/api/packages/ftp/x.zip"))[0] == 500


async def test_job_with_a_missing_package_is_accepted_and_fails(dashboard):
    job = await dashboard.submit("echo x", runtime_env={"working_dir": "gcs://_ray_pkg_missing.zip"})
    details = await dashboard.reaches(job, "FAILED")
    assert details["message"].startswith("runtime_env setup failed: Failed to set up runtime environment.")
    assert "Failed to download runtime_env file package gcs://_ray_pkg_missing.zip" in details["message"]
    assert details["driver_exit_code"] is None
    assert details["runtime_env"] == {"working_dir": "gcs://_ray_pkg_missing.zip"}


async def test_list_has_all_details_of_every_job(dashboard):
    job = await dashboard.submit("echo listed")
    await dashboard.reaches(job, "SUCCEEDED")
    jobs = {each["submission_id"]: each for each in await dashboard.json("GET", "/api/jobs/")}
    assert jobs[job] == await dashboard.get(job)
    state = await dashboard.json("GET", "/api/v0/jobs")
    rows = {row["submission_id"]: row for row in state["data"]["result"]["result"]}
    assert rows[job]["status"] == "SUCCEEDED"
    assert set(rows[job]) <= set(jobs[job])


async def test_nodes_and_their_logical_resources(dashboard):
    answer = await dashboard.json("GET", "/api/v0/nodes")
    assert answer["result"] is True
    rows = answer["data"]["result"]["result"]
    assert answer["data"]["result"]["total"] == len(rows) == 3
    assert {row["state"] for row in rows} == {"ALIVE"}
    for row in rows:
        resources = row["resources_total"]
        assert resources["node:127.0.0.1"] == 1
        if row["is_head_node"]:
            assert "CPU" not in resources  # the service gives the head none
            assert "GPU" not in resources
            assert resources["memory"] == 60 * GIB
        else:
            assert (resources["CPU"], resources["GPU"], resources["accelerator_type:T4"]) == (4, 1, 1)
            assert resources["memory"] == 15 * GIB
    summary = (await dashboard.json("GET", "/nodes?view=summary"))["data"]["summary"]
    listed = {each["raylet"]["nodeId"]: each["raylet"] for each in summary}
    assert set(listed) == {row["node_id"] for row in rows}
    assert [node["isHeadNode"] for node in listed.values()].count(True) == 1
    assert {node["state"] for node in listed.values()} == {"ALIVE"}


async def test_version_health_and_status(dashboard):
    version = await dashboard.json("GET", "/api/version")
    assert list(version) == ["version", "ray_version", "ray_commit", "session_name"]
    assert (version["version"], version["ray_version"]) == ("4", "2.47.1")
    assert await dashboard.call("GET", "/api/gcs_healthz") == (200, "success")
    status = await dashboard.json("GET", "/api/cluster_status")
    assert (status["result"], status["msg"]) == (True, "Got cluster status.")
    assert {"autoscalingStatus", "autoscalingError", "clusterStatus"} <= set(status["data"])
    code, page = await dashboard.call("GET", "/")
    assert code == 200
    assert "<title>Ray Dashboard</title>" in page


async def test_killed_driver_fails_its_job_with_the_signal(dashboard):
    job = await dashboard.submit("echo hello && sleep 600")
    await dashboard.reaches(job, "RUNNING")

    async def logged() -> bool:
        return "hello" in (await dashboard.json("GET", f"/api/jobs/{job}/logs"))["logs"]

    await until(logged, "the driver to run")
    await dashboard.backend.kill("contract-1", "driver", "KILL", submission_id=job)
    details = await dashboard.reaches(job, "FAILED")
    assert details["driver_exit_code"] == -9
    assert "failed with exit code -9" in details["message"]


async def test_unmodified_job_client_works(dashboard, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "data.txt").write_text("from the working directory\n")
    from ray.job_submission import JobStatus, JobSubmissionClient

    def submit() -> tuple[JobSubmissionClient, str]:
        client = JobSubmissionClient(dashboard.address)
        return client, client.submit_job(
            entrypoint="echo hello", runtime_env={"working_dir": str(tmp_path)}, metadata={"a": "b"}
        )

    client, job = await asyncio.to_thread(submit)
    await dashboard.reaches(job, "SUCCEEDED")
    assert await asyncio.to_thread(client.get_job_status, job) == JobStatus.SUCCEEDED
    assert (await asyncio.to_thread(client.get_job_info, job)).metadata == {"a": "b"}
    assert (await asyncio.to_thread(client.get_job_logs, job)).splitlines()[-1] == "hello"
    tailed = "".join([chunk async for chunk in client.tail_job_logs(job)])
    assert tailed.splitlines()[-1] == "hello"
    assert job in {each.submission_id for each in await asyncio.to_thread(client.list_jobs)}
    assert await asyncio.to_thread(client.delete_job, job)


async def test_resizing_changes_the_node_list(dashboard):
    """This test is the last one because the others rely on two workers."""

    async def alive() -> int:
        rows = (await dashboard.json("GET", "/api/v0/nodes"))["data"]["result"]["result"]
        return sum(row["state"] == "ALIVE" for row in rows)

    names = [node["node_id"] for node in await dashboard.backend.nodes("contract-1")]
    assert names == ["head", "worker-pool1-0", "worker-pool1-1"]
    await dashboard.backend.resize("contract-1", plans(4))
    assert await alive() == 5
    await dashboard.backend.resize("contract-1", plans(1))
    assert await alive() == 2
    nodes = await dashboard.backend.nodes("contract-1")
    assert [(n["node_id"], n["pool_id"], n["alive"]) for n in nodes] == [
        ("head", "head-node", True),
        ("worker-pool1-0", "worker-pool1", True),
    ]
    with pytest.raises(KeyError):
        await dashboard.backend.resize("nobody", plans(1))
