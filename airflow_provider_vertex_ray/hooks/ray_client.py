"""Connect a worker process through the Ray Client with the Airflow connection's credentials, and always disconnect.

By default, the SDK (google-cloud-aiplatform 2.7.0, ``vertex_ray/client_builder.py``) looks up the cluster with the
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

from airflow_provider_vertex_ray.core.cluster.state import USABLE_STATES, Cluster
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.preflight.ray_versions import full_version
from airflow_provider_vertex_ray.core.threads import run_sync
from airflow_provider_vertex_ray.errors import (
    DashboardNotReadyError,
    InvalidArgumentError,
    RayClientConnectedError,
    RayClientVersionError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook

_IMAGE = re.compile(r"/ray-(?:cpu|gpu)\.(\d+)-(\d+)\.py(\d)(\d+)(?::|@|$)")

SDK_VARIABLES = ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "grpc_proxy", "GCE_METADATA_HOST")
"""Some of the variables that ``vertex-ray-emulator env`` prints; without them, the SDK would connect to Google."""

# The SDK's settings are global to the process.
_connecting = threading.Lock()


@contextlib.contextmanager
def connected(
    hook: VertexRayBaseHook, asynchronous: VertexRayBaseAsyncHook, cluster: Cluster, options: dict[str, Any]
) -> Iterator[Any]:
    """Connect this process to a cluster, and yield the module ``ray``. See ``VertexRayClusterHook.connect``.

    :param hook: the hook with the Airflow connection.
    :param asynchronous: the asynchronous hook with the same connection.
    :param cluster: the current state of the cluster.
    :param options: keyword arguments for ``ray.init``.
    """
    check_not_connected()
    check_usable(cluster)
    versions = run_sync(lambda: _versions(asynchronous, cluster))
    check_versions(cluster, *versions)
    host = os.environ.get("VERTEX_RAY_EMULATOR_HOST")
    if host and any(variable not in os.environ for variable in SDK_VARIABLES):
        raise InvalidArgumentError(
            "VERTEX_RAY_EMULATOR_HOST",
            host,
            "Set the other variables that vertex-ray-emulator env prints as well; the Ray Client needs them.",
        )
    ray = _import_ray(cluster, *versions)
    with contextlib.ExitStack() as stack:
        with _connecting:
            check_not_connected()
            # Not before that check: what is connected then belongs to another thread.
            stack.callback(ray.shutdown)
            with _sdk_settings(hook, cluster):
                _init(ray, cluster, versions, options)
        yield ray


def check_not_connected() -> None:
    """Validate that this process is not connected to Ray.

    :raises RayClientConnectedError: this process is already connected.
    """
    ray = sys.modules.get("ray")
    if ray is None:
        return
    # While a Ray Client is connected, ray.is_initialized() asks it, except one with allow_multiple=True.
    clients = getattr(getattr(ray, "util", None), "client", None)
    if ray.is_initialized() or (clients is not None and clients.num_connected_contexts() > 0):
        raise RayClientConnectedError("This process is already connected to Ray.")


def check_usable(cluster: Cluster) -> None:
    """Validate that a cluster is RUNNING, or UPDATING while it autoscales; the SDK would wait without a limit.

    :raises ClusterFailedError: the cluster is in ERROR, or is being deleted.
    :raises NotARayClusterError: the persistent resource is not a Ray cluster.
    :raises DashboardNotReadyError: the cluster is in another state.
    """
    usable_dashboard(cluster)
    if cluster.state not in USABLE_STATES:
        raise DashboardNotReadyError(
            f"Cluster {cluster.cluster_id} is {cluster.state.value}; the Ray Client connects only to clusters that are "
            "RUNNING or UPDATING.",
            {"cluster": cluster.name},
        )


async def _versions(hook: VertexRayBaseAsyncHook, cluster: Cluster) -> tuple[str | None, str | None]:
    async with hook.session() as (transport, _):
        found = await JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri or "")).versions()
    by_image = image_versions(cluster)
    return found[0] or by_image[0], found[1] or by_image[1]


def image_versions(cluster: Cluster) -> tuple[str | None, str | None]:
    """Return the Ray and Python versions in the name of the head's image; None for each if it is a custom image."""
    spec = (cluster.resource.get("resourceRuntimeSpec") or {}).get("raySpec") or {}
    images = spec.get("resourcePoolImages") or {}
    match = _IMAGE.search(str(images.get(cluster.head_pool_id) or spec.get("imageUri") or ""))
    if match is None:
        return None, None
    short = f"{match[1]}.{match[2]}"
    return full_version(short), f"{match[3]}.{match[4]}"


def check_versions(cluster: Cluster, ray_version: str | None, python_version: str | None) -> None:
    """Compare this process's versions with the cluster's; Ray itself checks an unknown version.

    :param cluster: the cluster.
    :param ray_version: its Ray version, such as ``2.47.1``; None if unknown.
    :param python_version: its Python version, such as ``3.11`` or ``3.11.9``; None if unknown.
    :raises RayClientVersionError: the versions differ; the message says what to install.
    """
    local = _installed()
    own_python = _own_python()
    python = ".".join((python_version or own_python).split(".")[:2])
    wrong = []
    if python != own_python:
        wrong.append(f"runs Python {own_python}")
    if local is None:
        wrong.append("does not have Ray")
    elif ray_version is not None and local != ray_version:
        wrong.append(f"has Ray {local}")
    if wrong:
        there = f"Cluster {cluster.cluster_id} runs Ray {ray_version or 'of an unknown version'} on Python {python}"
        raise _mismatch(f"{there}, but this process {' and '.join(wrong)}.", cluster, ray_version, python_version)


def _mismatch(
    what: str, cluster: Cluster, ray_version: str | None, python_version: str | None
) -> RayClientVersionError:
    own_python = _own_python()
    python = ".".join((python_version or own_python).split(".")[:2])
    exact = f"=={ray_version}" if ray_version else ""
    install = f"pip install 'google-cloud-aiplatform[ray]' 'ray[client]{exact}'"
    where = "" if python == own_python else f" in a Python {python}, where the task must run (@task.external_python)"
    return RayClientVersionError(
        f"{what} The Ray Client needs the same Ray version and the same minor Python version: {install}{where}. "
        "A job (VertexRaySubmitJobOperator) works with all versions.",
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
        what = f"Google's SDK for Ray cannot be imported in this process: {error}."
        raise _mismatch(what, cluster, ray_version, python_version) from error
    return ray


@contextlib.contextmanager
def _sdk_settings(hook: VertexRayBaseHook, cluster: Cluster) -> Iterator[None]:
    """Configure the SDK with the connection's credentials and the cluster's place, and restore it afterwards."""
    from google.cloud.aiplatform import initializer
    from google.cloud.aiplatform.vertex_ray.util import _gapic_utils, _validation_utils

    source = hook.token_source()
    token = run_sync(source.get)
    if os.environ.get("VERTEX_RAY_EMULATOR_HOST"):
        from google.oauth2.credentials import Credentials

        credentials = Credentials(token)
    else:
        credentials = hook.get_credentials()
    # A new object, because init() of the current one would also reset an experiment that is being tracked.
    ours = type(initializer.global_config)()
    ours._credentials = credentials
    ours._project = source.quota_project or cluster.project
    ours._location = cluster.location
    before = initializer.global_config, _validation_utils.get_bearer_token, _gapic_utils.get_persistent_resource

    def read_once(persistent_resource_name: str, tolerance: int = 0) -> Any:
        # The SDK's own function waits for RUNNING, without a limit; an autoscaling cluster is often UPDATING.
        return _gapic_utils.create_persistent_resource_client().get_persistent_resource(name=persistent_resource_name)

    initializer.global_config, _validation_utils.get_bearer_token = ours, lambda: token
    _gapic_utils.get_persistent_resource = read_once
    try:
        yield
    finally:
        initializer.global_config, _validation_utils.get_bearer_token, _gapic_utils.get_persistent_resource = before


def _init(ray: Any, cluster: Cluster, versions: tuple[str | None, str | None], options: dict[str, Any]) -> None:
    import grpc

    try:
        ray.init(f"vertex_ray://{cluster.name}", **options)
    except RuntimeError as error:
        # Ray's own check, for a cluster whose versions are unknown.
        if "Version mismatch" not in str(error):
            raise
        raise _mismatch(f"Ray rejected the connection: {error}.", cluster, *versions) from error
    except (ConnectionError, grpc.RpcError) as error:
        address = cluster.access_uris.get("RAY_CLIENT_ENDPOINT") or cluster.access_uris.get("RAY_HEAD_NODE_INTERNAL_IP")
        raise ServiceUnavailableError(
            f"The Ray Client could not reach cluster {cluster.cluster_id} at {address}: {error}. A cluster in a peered "
            "network can be reached only from within that network.",
            {"cluster": cluster.name},
        ) from error
