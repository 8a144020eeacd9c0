"""The environment of the page's tests and screenshots: an emulator with clusters and jobs, and Airflow's API server."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_provider_vertex_ray.core.job.state import owner_key
from devtools.airflow_api import OPENER
from devtools.airflow_stack import AirflowStack
from devtools.emulator_process import Emulator

HERE = Path(__file__).resolve().parent
LOCATION = "us-central1"
RUN = "manual__2026-11-25T06:00:00+00:00"
BUCKET = "leases-bucket"
USERS = {"ada": ("ADMIN", "ada-page"), "vic": ("VIEWER", "vic-page")}
HOSTILE = '<img src=x onerror="document.title=1">'
"""An entrypoint, log line and name that must be shown as text."""

CROWD = "crowd-"
"""Start of the names of further clusters."""

PRICES = {
    "currency": "USD",
    "regions": {
        LOCATION: {
            "machines": {"n1-standard-16": 0.874, "n1-standard-8": 0.437, "g2-standard-12": 1.15},
            "accelerators": {"NVIDIA_L4": 0.644},
        }
    },
}
_LAST = 9
"""Number of jobs that keep running: the last ones."""

_FAKE = (
    *("--backend", "fake", "--provisioning-seconds", "0.1", "--with", "storage"),
    *("--dashboard-warmup-seconds", "0.1", "--permission-seconds", "0.1"),
)
_MULTIPART = "multipart/related; boundary=part"


class PageWorld:
    """Start and stop the emulator and Airflow's API server.

    :param home: folder for everything that is written.
    :param options: options of ``[vertex_ray]``; None: one source with leases, prices and a reaper.
    :param emulator: start the emulator; otherwise every call to it fails.
    """

    def __init__(self, home: Path, *, options: Mapping[str, str] | None = None, emulator: bool = True) -> None:
        self._home = home
        self._options = options
        self.emulator = Emulator(home / "emulator", _FAKE) if emulator else None
        self.airflow: AirflowStack | None = None
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> PageWorld:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        environment = {}
        if self.emulator is not None:
            self.emulator.start()
            # The connection is stored in Airflow's database, as most users do.
            environment = dict(self.emulator.airflow_environment)
            del environment["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"]
            self.storage = environment["STORAGE_EMULATOR_HOST"].removeprefix("http://")
            self._send(f"http://{self.storage}/storage/v1/b?project=p", "POST", {"name": BUCKET})
        options = self.options() if self._options is None else self._options
        for name, value in options.items():
            environment[f"AIRFLOW__VERTEX_RAY__{name.upper()}"] = value
        self.airflow = AirflowStack(
            self._home / "airflow",
            dag_folders=[HERE / "page_dags"],
            environment=environment,
            only=["api-server"],
            users=USERS,
        )
        self.airflow.start(600)
        connection = {"connection_id": "google_cloud_default", "conn_type": "google_cloud_platform"}
        self.api("POST", "connections", {**connection, "extra": json.dumps({"project": "demo-project"})})

    def options(self) -> dict[str, str]:
        """Return the options for one source with all of its keys."""
        source = {
            "location": LOCATION,
            "lease_uri": f"gs://{BUCKET}/leases",
            "price_table": PRICES,
            "idle_for": 3600,
            "max_age": 30 * 86400,
        }
        return {"page_sources": json.dumps([source])}

    def stop(self) -> None:
        """End every process."""
        if self.airflow is not None:
            self.airflow.stop()
        if self.emulator is not None:
            self.emulator.stop()

    @property
    def url(self) -> str:
        """Address of the page."""
        assert self.airflow is not None
        return f"{self.airflow.web_url}/ray-clusters/"

    def token(self, user: str) -> str:
        """Return a user's token, as Airflow's own interface gets it."""
        assert self.airflow is not None
        if user not in self._tokens:
            body = {"username": user, "password": USERS[user][1]}
            self._tokens[user] = self._send(f"{self.airflow.web_url}/auth/token", "POST", body)["access_token"]
        return self._tokens[user]

    def api(self, method: str, path: str, body: Any = None, user: str = "ada") -> Any:
        """Send a request to Airflow's REST API."""
        assert self.airflow is not None
        return self._send(f"{self.airflow.web_url}/api/v2/{path}", method, body, self.token(user))

    def fill(self, jobs: int = 200, pause: float = 0.0, crowd: int = 0) -> None:
        """Create DAG runs, three clusters, and jobs on them.

        :param jobs: number of jobs.
        :param crowd: number of further clusters, which nobody uses.
        :param pause: seconds between two batches of twelve jobs, so that a timeline has something to show.
        """
        assert self.airflow is not None
        self.airflow.command("reserialize", ("dags", "reserialize"), 600)
        for dag_id in ("etl_daily", "Train.Model"):
            self.api("PATCH", f"dags/{dag_id}", {"is_paused": True})
            self.api("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": RUN, "logical_date": None})
        self.create("etl-g7", _body(2, 4, labels=_labels("etl_daily", shared=("etl", 7))))
        self.create("train-g2", _body(2, 0, gpus=2, labels=_labels("Train.Model", shared=("train", 2))))
        self.create("adhoc", _body(1, 0, labels={}))
        for place in range(crowd):
            # Without waiting for each of them.
            path = f"persistentResources?persistentResourceId={CROWD}{place:02}"
            self.vertex("POST", path, _body(1, 0, labels={}))
        while not all(self._ready(f"{CROWD}{place:02}") for place in range(crowd)):
            time.sleep(0.1)
        for place in range(jobs):
            if pause and place % 12 == 11:
                time.sleep(pause)
            cluster = ("etl-g7", "etl-g7", "etl-g7", "train-g2", "etl-g7")[place % 5]
            self.submit(cluster, *_job(cluster, place, jobs))
        # Wait for the jobs that end, so that the page's figures can be compared.
        while sum(job["status"] == "RUNNING" for name in ("etl-g7", "train-g2") for job in self.jobs(name)) > _LAST:
            time.sleep(0.1)
        self.hold("etl-g7", f"etl_daily/{RUN}")
        for cluster in ("etl-g7", "train-g2"):
            self.metrics(cluster)

    def create(self, cluster_id: str, body: dict[str, Any]) -> None:
        """Create a cluster and wait until its dashboard answers."""
        self.vertex("POST", f"persistentResources?persistentResourceId={cluster_id}", body)
        while not self._ready(cluster_id):
            time.sleep(0.05)

    def _ready(self, cluster_id: str) -> bool:
        clusters = self.emulate("GET", "clusters")["clusters"]
        return any(each["id"] == cluster_id and each["dashboard"] == "ready" for each in clusters)

    def submit(self, cluster_id: str, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Submit a job."""
        env = {"env_vars": {"DB_PASSWORD": "hunter2-secret"}}
        body = {"entrypoint": entrypoint, "submission_id": submission_id, "metadata": metadata, "runtime_env": env}
        if entrypoint.startswith("sleep"):
            body["entrypoint_num_cpus"] = 1
        self._send(f"{self._dashboard(cluster_id)}/api/jobs/", "POST", body, self._google())

    def jobs(self, cluster_id: str) -> list[dict[str, Any]]:
        """Return a cluster's jobs, as its dashboard lists them."""
        return list(self._send(f"{self._dashboard(cluster_id)}/api/jobs/", "GET", None, self._google()))

    def hold(self, cluster_id: str, owner: str) -> None:
        """Write a lease on a cluster for this owner."""
        from airflow_provider_vertex_ray.core.sharing.lease import Holder

        now = time.time()
        name = self.vertex("GET", f"persistentResources/{cluster_id}")["name"].split("/")
        held = Holder(owner, now, now + 900)
        path = f"leases/{name[1]}/{name[3]}/{name[5]}/holders/{held.holder_id.key}.json"
        lease = {"name": path, "metadata": {"lease": json.dumps(held.to_json())}}
        # In one request, because an object takes one write a second.
        parts = [f"--part\r\nContent-Type: application/json\r\n\r\n{json.dumps(each)}\r\n" for each in (lease, {})]
        data = "".join([*parts, "--part--"]).encode()
        url = f"http://{self.storage}/upload/storage/v1/b/{BUCKET}/o?uploadType=multipart"
        self._send(url, "POST", data, content_type=_MULTIPART)

    def metrics(self, cluster_id: str) -> None:
        """Set an hour of varying metrics for a cluster."""

        def nodes(*values: tuple[float, int]) -> list[dict[str, Any]]:
            return [
                {"labels": {"instance": f"n{place}"}, "value": value, "for_seconds": seconds}
                for place, (value, seconds) in enumerate(values)
            ]

        gib = 1 << 30
        self.emulate(
            "PUT",
            f"clusters/{cluster_id}/metrics",
            {
                "ray_node_cpu_utilization": nodes((30, 3600), (88, 2900), (12, 2200), (95, 1300), (71, 500)),
                "ray_node_mem_used": nodes((9 * gib, 3600), (21 * gib, 2000), (25 * gib, 900)),
                "ray_node_mem_total": nodes((30 * gib, 3600), (30 * gib, 2000), (30 * gib, 900)),
                "ray_node_gpus_utilization": nodes((64, 3000), (92, 1500), (20, 600)) if cluster_id[0] == "t" else [],
            },
        )

    def vertex(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the emulator's Vertex AI API."""
        assert self.emulator is not None
        base = f"http://{self.emulator.host}/v1beta1/projects/demo-project/locations/{LOCATION}"
        return self._send(f"{base}/{path}", method, body, self._google())

    def emulate(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to ``/emulator/``."""
        assert self.emulator is not None
        return self._send(f"http://{self.emulator.host}/emulator/{path}", method, body)

    def _dashboard(self, cluster_id: str) -> str:
        assert self.emulator is not None
        found = self.vertex("GET", f"persistentResources/{cluster_id}")
        uri = str(found["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"])
        return f"http://{self.emulator.host}/{uri.rsplit('/', 1)[-1]}"

    def _google(self) -> str:
        assert self.emulator is not None
        url = f"http://{self.emulator.host}/computeMetadata/v1/instance/service-accounts/default/token"
        request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
        with OPENER.open(request, timeout=240) as answer:
            return str(json.load(answer)["access_token"])

    def _send(
        self, url: str, method: str, body: Any = None, token: str | None = None, content_type: str = "application/json"
    ) -> Any:
        request = urllib.request.Request(url, method=method)
        if body is not None:
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.add_header("Content-Type", content_type)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with OPENER.open(request, timeout=240) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')}") from error
        return json.loads(text) if text.strip().startswith((b"{", b"[")) else None


def _labels(dag_id: str, shared: tuple[str, int]) -> dict[str, str]:
    from airflow_provider_vertex_ray.operators.owner_labels import label_value

    parts = (dag_id, RUN, "ray.create")
    names = dict(zip(("airflow-dag", "airflow-run", "airflow-task"), map(label_value, parts), strict=True))
    name, generation = shared
    own = {"vertex-ray-shared": name, "vertex-ray-generation": str(generation)}
    return {"airflow-owner": owner_key(*parts, -1), **names, **own}


def _body(workers: int, most: int, *, gpus: int = 0, labels: dict[str, str]) -> dict[str, Any]:
    worker: dict[str, Any] = {"machineType": "g2-standard-12" if gpus else "n1-standard-8"}
    if gpus:
        worker |= {"acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
    size: dict[str, Any] = {"replicaCount": str(workers)}
    if most:
        size = {"autoscalingSpec": {"minReplicaCount": str(workers), "maxReplicaCount": str(most)}}
    disk = {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100}
    pools = [
        {"id": "head-node", "replicaCount": "1", "machineSpec": {"machineType": "n1-standard-16"}, "diskSpec": disk},
        {"id": "worker-pool1", "machineSpec": worker, "diskSpec": disk, **size},
    ]
    kind = "gpu" if gpus else "cpu"
    image = f"us-docker.pkg.dev/vertex-ai/training/ray-{kind}.2-47.py311:latest"
    images = {str(pool["id"]): image for pool in pools}
    return {
        "resourcePools": pools,
        "labels": labels,
        "resourceRuntimeSpec": {"raySpec": {"resourcePoolImages": images}},
    }


def _job(cluster: str, place: int, jobs: int) -> tuple[str, str, dict[str, str]]:
    """Return id, entrypoint and metadata of a job; the last jobs keep running."""
    if place == jobs - 1:
        return "by-hand", f"echo '{HOSTILE}' && sleep 3600", {}
    task = ("load", "score", "report")[place % 3]
    dag_id = "etl_daily" if cluster == "etl-g7" else "Train.Model"
    parts = {"dag_id": dag_id, "run_id": RUN, "task_id": task}
    key = owner_key(dag_id, RUN, task, -1)
    what = f"echo loading part {place} && count {5 + place % 40} 0.01 && echo done"
    if place % 17 == 5:
        what = f"echo connecting with hunter2-secret && exit {1 + place % 3}"
    if place % 11 == 3:
        what = f"sleep {2 + place % 5}"
    if place >= jobs - _LAST:
        what = "sleep 3600"
    metadata = {f"airflow_{name}": value for name, value in parts.items()}
    readable = dag_id.lower().replace("_", "-").replace(".", "-")
    return f"af-{readable}-{task}-{key}-a{place}", what, {**metadata, "airflow_map_index": "-1", "airflow_owner": key}
