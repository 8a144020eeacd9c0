"""An emulator with a ready cluster, for benchmarks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.emulator_process import Emulator

LOCATION = "us-central1"
INSTANT = ("--backend", "fake", "--provisioning-seconds", "0", "--dashboard-warmup-seconds", "0")
"""Arguments of an emulator whose clusters exist at once, without Ray."""


@dataclass(frozen=True)
class Bench:
    """An emulator and a cluster.

    :param folder: a folder for the benchmark, removed afterwards.
    :param cluster: full name of the cluster.
    :param dashboard_uri: its ``RAY_DASHBOARD_URI``.
    """

    emulator: Emulator
    folder: Path
    cluster: str
    dashboard_uri: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that uses the emulator, with an Airflow folder of its own."""
        return {**os.environ, **self.emulator.airflow_environment, "AIRFLOW_HOME": str(self.folder / "airflow")}


@contextmanager
def bench(arguments: Sequence[str] = INSTANT) -> Iterator[Bench]:
    """Start an emulator, create a cluster, and let this process's hooks use both."""
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
        emulator = Emulator(Path(folder) / "state", arguments)
        emulator.start()
        try:
            home = {"AIRFLOW_HOME": str(Path(folder) / "airflow")}
            with environment({**emulator.airflow_environment, **home}):
                cluster = create("bench")
                yield Bench(emulator, Path(folder), cluster.name, cluster.dashboard_uri)
        finally:
            emulator.stop()


def create(cluster_id: str) -> Any:
    """Create a cluster, and return it when it is ready."""
    from airflow_provider_vertex_ray.core.threads import run_sync
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterHook
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger

    hook = VertexRayClusterHook(location=LOCATION)
    hook.create_cluster(cluster_id, {"worker_node_types": [{"machine_type": "n1-standard-8"}]})
    name = f"projects/{hook.known_project()}/locations/{LOCATION}/persistentResources/{cluster_id}"
    outcome = run_sync(VertexRayClusterReadyTrigger(cluster_name=name, poll_interval=0.5).outcome)
    if outcome["status"] != "success":
        raise RuntimeError(f"Cluster {cluster_id} did not become ready: {outcome}")
    return hook.get_cluster(name)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
