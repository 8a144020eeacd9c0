"""The Ray Client in a worker's process: connected with the Airflow connection's credentials, always disconnected.

Left to itself, the SDK (google-cloud-aiplatform 2.7.0, ``vertex_ray/client_builder.py``) asks for the cluster with the
credentials of ``aiplatform.init``, and connects with a token of the Application Default Credentials.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.preflight.ray_versions import FULL_VERSIONS
from airflow_provider_vertex_ray.errors import (
    DashboardNotReadyError,
    InvalidArgumentError,
    RayClientConnectedError,
    RayClientVersionError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.hooks.base import run_sync
from airflow_provider_vertex_ray.hooks.job import usable_dashboard

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook

_IMAGE = re.compile(r"/ray-(?:cpu|gpu)\.(\d+)-(\d+)\.py(\d)(\d+)(?::|@|$)")

SDK_VARIABLES = ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "grpc_proxy", "GCE_METADATA_HOST")
"""Some of what ``vertex-ray-emulator env`` prints: without them, the SDK would go to Google."""

# The SDK's settings are one set for the whole process.
_connecting = threading.Lock()


@contextlib.contextmanager
def connected(
    hook: VertexRayBaseHook, asynchronous: VertexRayBaseAsyncHook, cluster: Cluster, options: dict[str, Any]
) -> Iterator[Any]:
    """Connect this process to a cluster; gives the module ``ray``. See ``VertexRayClusterHook.connect``.

    :param hook: The Airflow connection.
    :param asynchronous: The same, for an event loop.
    :param cluster: The cluster as it is.
    :param options: Keyword arguments of ``ray.init``.
    """
    refuse_second()
    connectable(cluster)
    versions = run_sync(lambda: _versions(asynchronous, cluster))
    check_versions(cluster, *versions)
    host = os.environ.get("VERTEX_RAY_EMULATOR_HOST")
    if host and any(variable not in os.environ for variable in SDK_VARIABLES):
        raise InvalidArgumentError(
            "VERTEX_RAY_EMULATOR_HOST",
            host,
            "the Ray Client also needs the variables that vertex-ray-emulator env prints",
        )
    ray = _import_ray(cluster, *versions)
    try:
        with _connecting:
            refuse_second()
            with _sdk_settings(hook, cluster):
                _init(ray, cluster, versions, options)
        yield ray
    finally:
        ray.shutdown()


def refuse_second() -> None:
    """Refuse a second connection in this process.

    :raises RayClientConnectedError: There is one.
    """
    ray = sys.modules.get("ray")
    if ray is None:
        return
    # While a Ray Client is connected, ray.is_initialized() asks it. One with allow_multiple=True is counted only.
    clients = getattr(getattr(ray, "util", None), "client", None)
    if ray.is_initialized() or (clients is not None and clients.num_connected_contexts() > 0):
        raise RayClientConnectedError("Ray is connected in this process already.")


def connectable(cluster: Cluster) -> None:
    """Refuse a cluster that the SDK would wait for without a limit.

    :raises ClusterFailedError: It is in ERROR, or being deleted.
    :raises NotARayClusterError: It has no Ray.
    :raises DashboardNotReadyError: It is not RUNNING.
    """
    usable_dashboard(cluster)
    if cluster.state is not ClusterState.RUNNING:
        raise DashboardNotReadyError(
            f"Cluster {cluster.cluster_id} is {cluster.state.value}; the Ray Client connects to a RUNNING one only.",
            {"cluster": cluster.name},
        )


async def _versions(hook: VertexRayBaseAsyncHook, cluster: Cluster) -> tuple[str | None, str | None]:
    async with hook.session() as (transport, _):
        found = await JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri or "")).versions()
    by_image = image_versions(cluster)
    return found[0] or by_image[0], found[1] or by_image[1]


def image_versions(cluster: Cluster) -> tuple[str | None, str | None]:
    """The versions of Ray and Python that the head's image has by its name; None each for a custom image."""
    spec = (cluster.resource.get("resourceRuntimeSpec") or {}).get("raySpec") or {}
    images = spec.get("resourcePoolImages") or {}
    match = _IMAGE.search(str(images.get(cluster.head_pool_id) or spec.get("imageUri") or ""))
    if match is None:
        return None, None
    short = f"{match[1]}.{match[2]}"
    return FULL_VERSIONS.get(short), f"{match[3]}.{match[4]}"


def check_versions(cluster: Cluster, ray_version: str | None, python_version: str | None) -> None:
    """Compare this process with the cluster; an unknown version is left to Ray's own check.

    :param ray_version: The cluster's, such as ``2.47.1``.
    :param python_version: The cluster's, such as ``3.11`` or ``3.11.9``.
    :raises RayClientVersionError: They differ; it says what to install.
    """
    local = _installed()
    own_python = _own_python()
    python = ".".join((python_version or own_python).split(".")[:2])
    wrong = []
    if python != own_python:
        wrong.append(f"runs Python {own_python}")
    if local is None:
        wrong.append("has no Ray")
    elif ray_version is not None and local != ray_version:
        wrong.append(f"has Ray {local}")
    if wrong:
        there = f"Cluster {cluster.cluster_id} runs Ray {ray_version or 'of an unknown version'} on Python {python}"
        raise _mismatch(f"{there}, this process {' and '.join(wrong)}.", cluster, ray_version, python_version)


def _mismatch(
    what: str, cluster: Cluster, ray_version: str | None, python_version: str | None
) -> RayClientVersionError:
    own_python = _own_python()
    python = ".".join((python_version or own_python).split(".")[:2])
    exact = f"=={ray_version}" if ray_version else ""
    install = f"pip install 'google-cloud-aiplatform[ray]' 'ray[client]{exact}'"
    where = "" if python == own_python else f" in a Python {python}, where the task must run (@task.external_python)"
    return RayClientVersionError(
        f"{what} The Ray Client needs the same Ray and the same minor version of Python: {install}{where}. "
        "A job (VertexRaySubmitJobOperator) works with any version.",
        {"cluster": cluster.name, "ray_version": ray_version, "python_version": python, "install": install},
    )


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _installed() -> str | None:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_ray(cluster: Cluster, ray_version: str | None, python_version: str | None) -> Any:
    try:
        import ray
        import vertex_ray  # noqa: F401 - ray.init finds it by the address's scheme
    except ImportError as error:
        what = f"Google's SDK for Ray can not be imported here: {error}."
        raise _mismatch(what, cluster, ray_version, python_version) from error
    return ray


@contextlib.contextmanager
def _sdk_settings(hook: VertexRayBaseHook, cluster: Cluster) -> Iterator[None]:
    """The SDK with this connection's credentials and the cluster's place; as it was before, afterwards."""
    from google.cloud.aiplatform import initializer
    from google.cloud.aiplatform.vertex_ray.util import _validation_utils

    source = hook.token_source()
    token = run_sync(source.get)
    if os.environ.get("VERTEX_RAY_EMULATOR_HOST"):
        from google.oauth2.credentials import Credentials

        credentials = Credentials(token)
    else:
        credentials = hook.get_credentials()
    # A new object: init() of the present one would also reset an experiment that is being tracked.
    ours = type(initializer.global_config)()
    ours._credentials = credentials
    ours._project = source.quota_project or cluster.project
    ours._location = cluster.location
    before = initializer.global_config, _validation_utils.get_bearer_token
    initializer.global_config, _validation_utils.get_bearer_token = ours, lambda: token
    try:
        yield
    finally:
        initializer.global_config, _validation_utils.get_bearer_token = before


def _init(ray: Any, cluster: Cluster, versions: tuple[str | None, str | None], options: dict[str, Any]) -> None:
    import grpc

    try:
        ray.init(f"vertex_ray://{cluster.name}", **options)
    except RuntimeError as error:
        # Ray's own check, of a cluster whose versions could not be told before.
        if "Version mismatch" not in str(error):
            raise
        raise _mismatch(f"Ray refuses to connect. {error}", cluster, *versions) from error
    except (ConnectionError, grpc.RpcError) as error:
        address = cluster.access_uris.get("RAY_CLIENT_ENDPOINT") or cluster.access_uris.get("RAY_HEAD_NODE_INTERNAL_IP")
        raise ServiceUnavailableError(
            f"The Ray Client does not reach cluster {cluster.cluster_id} at {address}: {error}. A cluster in a peered "
            "network is reached from within that network only.",
            {"cluster": cluster.name},
        ) from error
