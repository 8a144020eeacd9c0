"""Fifteen mistakes of first users, and what each of them is told; ``docs/wrong-uses.md`` is written from this."""

from __future__ import annotations

import contextlib
import http.server
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.operators import triggerer_health
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.triggerer_health import HEALTH_PATH
from tests.operators.builders import create, submit_job
from tests.support.clusters import BODY, LOCATION
from tests.support.tasks import deferral_of, run_task


@dataclass(frozen=True)
class World:
    """What a mistake is made in.

    :param emulator: an emulator with a cluster ``shared``, which the hooks find by themselves
    :param monkeypatch: for the environment
    :param folder: an empty folder
    :param task_log: what the task has logged
    """

    emulator: EmulatorProcess
    monkeypatch: pytest.MonkeyPatch
    folder: Path

    def without_emulator(self) -> None:
        self.monkeypatch.delenv("VERTEX_RAY_EMULATOR_HOST")


@dataclass(frozen=True)
class WrongUse:
    """A mistake.

    :param name: what is wrong, for the page
    :param example: how it is made, as code
    :param make: makes it; its exception is what the user sees
    :param within: seconds after which the user knows at the latest, or 0 if the DAG file already fails
    """

    name: str
    example: str
    make: Callable[[World], object]
    within: float = 5.0


@contextlib.contextmanager
def _closed_port() -> Iterator[str]:
    """An address at which nothing answers: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@contextlib.contextmanager
def serving_json(answers: dict[str, bytes]) -> Iterator[str]:
    """An HTTP server with these answers, and 404 for everything else; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"not here")

        def log_request(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _no_project(world: World) -> None:
    world.monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")
    run_task(submit_job())


def _no_connection(world: World) -> None:
    world.without_emulator()
    run_task(submit_job(gcp_conn_id="google_cloud_defalt"))


def _other_connection(world: World) -> None:
    world.monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://user:secret@db/etl")
    run_task(submit_job(gcp_conn_id="warehouse"))


def _no_credentials(world: World) -> None:
    world.without_emulator()
    world.monkeypatch.setenv("CLOUDSDK_CONFIG", str(world.folder))
    world.monkeypatch.setenv("NO_GCE_CHECK", "true")
    run_task(submit_job(project_id="my-project"))


def _emulator_down(world: World) -> None:
    with _closed_port() as address:
        world.monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", address)
        run_task(submit_job())


def _wrong_port(world: World) -> None:
    with serving_json({}) as address:
        world.monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", address)
        run_task(submit_job())


def _no_port(world: World) -> None:
    world.monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "localhost")
    run_task(submit_job())


def _no_triggerer(world: World) -> str:
    """As Airflow 3 answers; ``test_triggerer_health`` asks Airflow itself."""
    said = _Said()
    world.monkeypatch.setattr(VertexRayBaseOperator, "log", said.logger, raising=False)
    world.monkeypatch.setattr(triggerer_health, "SECONDS", 60.0)
    with serving_json({HEALTH_PATH: b'{"metadatabase": {"status": "healthy"}, "triggerer": {"status": null}}'}) as host:
        world.monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"http://{host}/execution/")
        deferral_of(submit_job(deferrable=True))
    (line,) = (line for line in said.warnings if "triggerer" in line)
    return f"WARNING in the task's log: {line}"


class _Said(logging.Handler):
    """The warnings of a logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []
        self.logger = logging.Logger("task")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append(record.getMessage())


def _quota_zero(world: World) -> None:
    quota = {"custom_model_training_cpus": {LOCATION: {"limit": 0, "used": 0}}}
    world.emulator.admin("PUT", "project", {"quota": quota})
    run_task(create("etl-run-1"))


WRONG_USES = (
    WrongUse(
        "a typo in the id of a cluster",
        'cluster_id="shraed"',
        lambda world: run_task(submit_job(cluster_id="shraed")),
    ),
    WrongUse("no project, neither in the task nor in the connection", "project_id=None", _no_project),
    WrongUse("a connection that does not exist", 'gcp_conn_id="google_cloud_defalt"', _no_connection),
    WrongUse("a connection to something else", 'gcp_conn_id="warehouse"', _other_connection),
    # google-auth asks for a metadata server, which takes it up to 12 s where nothing refuses the connection.
    WrongUse(
        "no credentials",
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT='google-cloud-platform://?project=my-project'",
        _no_credentials,
        15,
    ),
    WrongUse("the emulator is not running", "VERTEX_RAY_EMULATOR_HOST=127.0.0.1:8787", _emulator_down),
    WrongUse("the emulator's port is another server's", "VERTEX_RAY_EMULATOR_HOST=127.0.0.1:8080", _wrong_port),
    WrongUse("the emulator's port is missing", "VERTEX_RAY_EMULATOR_HOST=localhost", _no_port),
    WrongUse(
        "another project than the emulator's",
        'project_id="my-project"',
        lambda world: run_task(submit_job(project_id="my-project")),
    ),
    WrongUse(
        "leases, and an emulator without Cloud Storage",
        'shared_name="etl", lease_uri="gs://leases/etl"',
        lambda world: run_task(
            VertexRayCreateClusterOperator(
                task_id="ensure", shared_name="etl", spec={}, lease_uri="gs://leases/etl", location=LOCATION
            )
        ),
    ),
    WrongUse("the id of a cluster is taken", 'cluster_id="shared"', lambda world: run_task(create("shared"))),
    WrongUse(
        "a typo in a key of the spec",
        'spec={"worker_node_typs": [{"node_count": 2}]}',
        lambda world: create(spec={"worker_node_typs": [{"node_count": 2}]}),
        0,
    ),
    WrongUse(
        "an argument under another name",
        "VertexRaySubmitJobOperator(…, num_cpus=2)",
        lambda world: VertexRaySubmitJobOperator(task_id="job", cluster_id="shared", entrypoint="true", num_cpus=2),
        0,
    ),
    WrongUse(
        "a typo in a machine type",
        'spec={"worker_node_types": [{"machine_type": "n1-standrd-8"}]}',
        lambda world: create(spec={"worker_node_types": [{"machine_type": "n1-standrd-8"}]}),
        0,
    ),
    WrongUse(
        "the working_dir does not exist",
        'working_dir="/opt/airflow/jbos"',
        lambda world: run_task(submit_job(working_dir="/opt/airflow/jbos")),
    ),
    WrongUse("the quota is 0", 'cluster_id="etl-run-1"', _quota_zero),
    WrongUse(
        "the driver reserves more than any node has",
        "entrypoint_num_cpus=64",
        lambda world: run_task(submit_job(entrypoint_num_cpus=64)),
    ),
    WrongUse("no triggerer is running", "deferrable=True", _no_triggerer),
)


@dataclass(frozen=True)
class Told:
    """What a user is told.

    :param message: type and text of the error
    :param seconds: seconds until then
    """

    message: str
    seconds: float


def told(use: WrongUse, world: World) -> Told:
    """Make a mistake, and return what the user is told; with stable texts in place of ports and times."""
    world.emulator.create("shared", BODY)
    begin = time.monotonic()
    try:
        result = use.make(world)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        assert isinstance(result, str), f"{use.name} was accepted: {result!r}"
        text = result
    seconds = time.monotonic() - begin
    named = re.search(r":(\d+)$", use.example)
    port = named[1] if named else "8787"
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-29T15:00:00Z", text)
    return Told(re.sub(r"127\.0\.0\.1(:|', )\d+", rf"127.0.0.1\g<1>{port}", text), seconds)
