"""``VertexRayClusterHook.connect`` in a process of its own, as a worker's task would use it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import google.auth
import ray
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform import initializer
from google.cloud.aiplatform.vertex_ray.util import _validation_utils
from stages import tell

# Clients stand alone; this one is of what is ours.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from airflow_provider_vertex_ray.core.sharing.activity import read_activity
from airflow_provider_vertex_ray.core.threads import run_sync
from airflow_provider_vertex_ray.errors import RayClientConnectedError
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook, VertexRayClusterHook
from airflow_provider_vertex_ray.hooks.ray_client import _sdk_settings

CLUSTER = os.environ["CLUSTER"]
LOCATION = "us-central1"


def sdk_settings() -> list[Any]:
    return [initializer.global_config, _validation_utils.get_bearer_token]


def no_default_credentials(*arguments: Any, **more: Any) -> Any:
    raise AssertionError("the Application Default Credentials were asked for")


class OwnHook:
    """A connection with credentials of its own, as it is outside of the emulator."""

    credentials = AnonymousCredentials()

    class Tokens:
        quota_project = "pays"

        async def get(self) -> str:
            return "the-connection-s"

    def token_source(self) -> Any:
        return self.Tokens()

    def get_credentials(self) -> Any:
        return self.credentials


def settings_outside_of_the_emulator() -> None:
    cluster = VertexRayClusterHook(location=LOCATION).get_cluster(CLUSTER)
    host = os.environ.pop("VERTEX_RAY_EMULATOR_HOST")
    own: Any = OwnHook()
    with _sdk_settings(own, cluster):
        config = initializer.global_config
        tell(
            "settings",
            credentials=config.credentials is own.credentials,
            place=[config.project, config.location],
            token=_validation_utils.get_bearer_token(),
        )
    os.environ["VERTEX_RAY_EMULATOR_HOST"] = host


def connected() -> bool:
    return bool(ray.is_initialized()) or ray.util.client.num_connected_contexts() > 0


def reasons() -> list[str]:
    """Why the cluster is in use."""

    async def read() -> list[str]:
        async_hook = VertexRayClusterAsyncHook(location=LOCATION)
        async with async_hook.session() as (transport, _):
            cluster = await async_hook.get_cluster(CLUSTER)
            return list((await read_activity(transport, cluster, None, time.time())).reasons)

    return run_sync(read)


def main() -> None:
    initializer.global_config.init(project="someone-elses", location="europe-west4")
    before = sdk_settings()
    google.auth.default = no_default_credentials
    settings_outside_of_the_emulator()
    hook = VertexRayClusterHook(location=LOCATION)

    with hook.connect(CLUSTER, namespace="ours", runtime_env={"env_vars": {"WORD": "sent"}}) as given:
        restored = all(a is b for a, b in zip(sdk_settings(), before, strict=True))

        @given.remote(num_cpus=1)
        def word(number: int) -> str:
            return f"{os.environ['WORD']} {number}"

        words = given.get([word.remote(number) for number in range(3)])
        namespace = given.get_runtime_context().namespace
        tell("activity", reasons=reasons())
        try:
            with hook.connect(CLUSTER):
                refused = ""
        except RayClientConnectedError as error:
            refused = str(error)
        still = connected()
    tell(
        "once",
        same=given is ray,
        words=words,
        namespace=namespace,
        restored=restored,
        project=initializer.global_config.project,
        refused=refused,
        still=still,
        after=connected(),
    )

    try:
        with hook.connect(CLUSTER):
            during = connected()
            raise KeyError("the task's own")
    except KeyError as error:
        tell("error", during=during, error=str(error), after=connected())

    # Connecting itself fails half way: the SDK finds no cluster of that name after we did.
    real = ray.init

    def fail(*arguments: Any, **more: Any) -> None:
        real(*arguments, **more)
        raise ConnectionError("cut")

    ray.init = fail
    try:
        with hook.connect(CLUSTER):
            raise AssertionError("connected")
    except Exception as error:
        restored = all(a is b for a, b in zip(sdk_settings(), before, strict=True))
        tell("failed", kind=type(error).__name__, error=str(error), after=connected(), restored=restored)
    ray.init = real

    with hook.connect(CLUSTER) as given:
        tell("again", cpus=given.cluster_resources().get("CPU"))


if __name__ == "__main__":
    main()
