"""The emulator as a whole: wires the parts together, listens, and writes the state file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import ssl
from typing import TYPE_CHECKING, Any

import grpc
from aiohttp import web

from vertex_ray_emulator.access import OTHER_USERS_VARIABLE, guard
from vertex_ray_emulator.admin import Admin, AdminCloud
from vertex_ray_emulator.backends.processes import reclaim
from vertex_ray_emulator.clusters.control_plane import ControlPlane
from vertex_ray_emulator.companions.companions import Companions
from vertex_ray_emulator.faults import Faults
from vertex_ray_emulator.google.cloud_api import CloudApis
from vertex_ray_emulator.google.compute_api import ComputeApi
from vertex_ray_emulator.google.iam_api import IamApi
from vertex_ray_emulator.google.logging_api import LoggingApi
from vertex_ray_emulator.google.monitoring_api import MonitoringApi
from vertex_ray_emulator.google.service_usage import ServiceUsage
from vertex_ray_emulator.google.telemetry import Telemetry, WatchedPublisher
from vertex_ray_emulator.project.project_script import Project
from vertex_ray_emulator.request_log import RequestLog
from vertex_ray_emulator.runtime import check_runtime
from vertex_ray_emulator.serving.endpoints import DEDICATED_SUFFIX
from vertex_ray_emulator.serving.serving import Serving
from vertex_ray_emulator.settings import LOOPBACK, Settings
from vertex_ray_emulator.state_file import lock_path, make_private, read_state, state_file_path, write_state
from vertex_ray_emulator.surfaces import pki
from vertex_ray_emulator.surfaces.connect_proxy import ConnectProxy, Destination
from vertex_ray_emulator.surfaces.dashboard_proxy import DASHBOARD_DOMAIN, DashboardProxy
from vertex_ray_emulator.surfaces.dashboard_target import ProxyLimits
from vertex_ray_emulator.surfaces.grpc_forwarder import CHANNEL_OPTIONS, GrpcForwarder
from vertex_ray_emulator.surfaces.grpc_server import GrpcApi
from vertex_ray_emulator.surfaces.metadata import MetadataServer
from vertex_ray_emulator.surfaces.publisher import Publisher
from vertex_ray_emulator.surfaces.ray_client_proxy import RayClientProxy
from vertex_ray_emulator.surfaces.request_pipeline import RequestPipeline
from vertex_ray_emulator.surfaces.rest import VERSIONS, RestApi
from vertex_ray_emulator.surfaces.tokens import Tokens
from vertex_ray_emulator.wire.errors import UNAUTHENTICATED_MESSAGE, ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vertex_ray_emulator.backends.backend import ClusterBackend


# Variables that lead Google's clients in a job to the emulator; on the service, a job has the cluster's account.
_FOR_JOBS = (
    "GOOGLE_CLOUD_PROJECT",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "grpc_proxy",
    "no_grpc_proxy",
    "STORAGE_EMULATOR_HOST",
    "BIGQUERY_EMULATOR_HOST",
)


class AlreadyRunningError(RuntimeError):
    """A running emulator uses the state directory."""


class Emulator:
    """An emulator. Everything listens on 127.0.0.1, on free ports except for the main port.

    :param settings: settings of the emulator.
    :param backend: backend of the clusters; by default the one that the settings name.
    """

    def __init__(self, settings: Settings, backend: ClusterBackend | None = None) -> None:
        self.settings = settings
        self.faults = Faults()
        self.request_log = RequestLog()
        self.tokens = Tokens(settings.token_seconds)
        self._publisher = Publisher(
            settings.warmup_seconds, settings.permission_seconds, settings.dashboard_addresses, settings.traits
        )
        self._given_backend = backend
        self._runners: list[web.AppRunner] = []
        self._lock: int | None = None
        self.companions = Companions(settings.state_dir, settings.project, limit_writes=settings.has("storage-writes"))
        # Cloud Storage from which predictors download their models.
        self.storage_host = os.environ.get("STORAGE_EMULATOR_HOST")
        self._node_environment: dict[str, str] = {}
        self._channels: list[Any] = []
        self.host = ""
        self.ports: dict[str, int] = {}
        self.env: dict[str, str] = {}

    async def start(self) -> None:
        """Start to listen, and return once everything is ready and the state file is written.

        :raises AlreadyRunningError: if another emulator runs on the state directory.
        :raises CompanionError: if an emulator of another service does not start.
        :raises OSError: if the main port is taken, or the state directory is another user's.
        :raises UnsupportedRuntimeError: if real clusters cannot run in this environment.
        """
        if self._given_backend is None:
            check_runtime(self.settings.backend)
        settings = self.settings
        if settings.allow_other_users:
            os.environ[OTHER_USERS_VARIABLE] = "1"  # the companions and the predictors inherit it
        make_private(settings.state_dir)
        self._take_lock()
        state_file_path(settings.state_dir).unlink(missing_ok=True)
        reclaim(settings.state_dir)
        certificates = pki.ensure(settings.state_dir / "pki")
        key, certificate = certificates.key.read_bytes(), certificates.certificate.read_bytes()

        await self.companions.start(settings.companions, certificates)
        if (storage := self.companions.get("storage")) is not None:
            self.storage_host = f"http://{storage.address}"
        backend = self._given_backend or _backend(settings, self._node_environment)
        self._telemetry = Telemetry(settings, backend)
        project = Project(settings.project, settings.project_number)
        publisher = WatchedPublisher(self._publisher, self._telemetry)
        self._plane = ControlPlane(settings, backend, publisher, self.faults, project)
        pipeline = RequestPipeline(self.tokens, self.faults, self.request_log, project)
        self._serving = Serving(settings, self._plane.operations, self.faults, lambda: self.storage_host)
        rpcs = self._serving.rpcs()
        self._rest = RestApi(self._plane, pipeline, settings, rpcs, self._other_apis(project))
        self._metadata = MetadataServer(settings, self.tokens, self.faults, self.request_log)
        limits = ProxyLimits.of(settings.traits)
        self._dashboards = DashboardProxy(self._publisher.target, self.tokens, self.faults, self.request_log, limits)
        self._admin = Admin(
            self._plane,
            backend,
            self._serving,
            self.companions,
            self.faults,
            self.request_log,
            self.tokens,
            self._dashboards.cut_all,
            self._publisher.readiness,
            AdminCloud(project, self._plane, self._telemetry),
        )
        self._ray_client = RayClientProxy(self.tokens, self.request_log, self.faults, key, certificate)
        self._grpc = GrpcApi(self._plane, pipeline, settings, rpcs)
        self._forward_bigquery()
        self._telemetry.start()
        await self._dashboards.start()
        self._publisher.ray_client = self._ray_client

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.certificate, certificates.key)
        main = await self._serve(self._dispatch, settings.port, None)
        dashboard = await self._serve(self._dashboards.handle, 0, context)
        self._publisher.dashboard_port = dashboard
        grpc_port = await self._grpc.start(key, certificate)
        # For REST clients of Google's own hosts: the SDK is one when aiplatform.init is given no project.
        rest = await self._serve(self._rest.handle, 0, context)
        self._connect = ConnectProxy(
            {
                ".googleapis.com": Destination(http1=rest, http2=grpc_port),
                DASHBOARD_DOMAIN: Destination(http1=dashboard, http2=dashboard),
            }
        )
        proxy = await self._connect.start()
        self.ports = {"main": main, "dashboard": dashboard, "grpc": grpc_port, "rest": rest, "proxy": proxy}
        self.host = f"{LOOPBACK}:{main}"
        self.env = {
            **_environment(settings, self.host, proxy, certificates),
            **self.companions.environment(),
        }
        self._node_environment.update({name: self.env[name] for name in _FOR_JOBS if name in self.env})
        if settings.allow_other_users:
            self._node_environment[OTHER_USERS_VARIABLE] = "1"
        self._write_state_file()

    async def stop(self) -> None:
        """Delete all clusters, stop listening, and remove the state file."""
        state_file_path(self.settings.state_dir).unlink(missing_ok=True)
        await self._serving.close()
        await self._telemetry.close()
        await self._plane.close()
        await self._connect.close()
        await self._ray_client.close()
        await self._grpc.close()
        await self._dashboards.close()
        for runner in self._runners:
            await runner.cleanup()
        for channel in self._channels:
            await channel.close()
        await self.companions.close()
        self._release_lock()

    def _other_apis(self, project: Project) -> CloudApis:
        """Return the APIs of Google's other services that clients of clusters use."""
        telemetry, quotas = self._telemetry, self._plane.quotas
        apis = (
            LoggingApi(project, telemetry.logs, telemetry.read_logs),
            MonitoringApi(project, telemetry.metrics, quotas),
            ServiceUsage(project, quotas),
            IamApi(project),
            ComputeApi(project),
        )
        return CloudApis([rpc for api in apis for rpc in api.rpcs()], project)

    def _forward_bigquery(self) -> None:
        """Forward BigQuery's Storage Read API, which is gRPC only, to the emulator of BigQuery."""
        bigquery = self.companions.get("bigquery")
        if bigquery is None or bigquery.grpc is None:
            return
        channel = grpc.aio.insecure_channel(bigquery.grpc, options=CHANNEL_OPTIONS)
        self._channels.append(channel)
        self._grpc.forwarders.append(
            GrpcForwarder(channel, "/google.cloud.bigquery.storage.", self._token_guard, "bigquery")
        )

    @contextlib.asynccontextmanager
    async def _token_guard(self, method: str, resource: str, context: Any) -> AsyncIterator[None]:
        authorised = self.tokens.accepts(dict(context.invocation_metadata()).get("authorization"))
        self.request_log.record("grpc", method, resource, authorised=authorised, status=200 if authorised else 401)
        if not authorised:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED_MESSAGE)
        try:
            yield
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")

    async def _serve(self, handler: Any, port: int, context: ssl.SSLContext | None) -> int:
        # Uploads to a dashboard are streamed, so no limit applies here; the REST API has its own.
        application = web.Application(client_max_size=0, middlewares=[guard(secure=context is not None)])
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, LOOPBACK, port, ssl_context=context).start()
        return int(runner.addresses[0][1])

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        first = request.path.lstrip("/").split("/", 1)[0]
        if first in VERSIONS or first.endswith(DEDICATED_SUFFIX):
            return await self._rest.handle(request)
        if first.endswith(DASHBOARD_DOMAIN):
            return await self._dashboards.handle(request)
        if first == "emulator":
            return await self._admin.handle(request)
        if first in ("", "computeMetadata"):
            return await self._metadata.handle(request)
        error = ApiError("NOT_FOUND", f"Method not found: {request.method} {request.path}")
        return web.json_response(error.body(), status=404)

    def _take_lock(self) -> None:
        """Take the lock of the state directory; the kernel releases it however this process ends."""
        state_dir = self.settings.state_dir
        self._lock = os.open(lock_path(state_dir), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release_lock()
            state = read_state(state_dir)
            who = f"pid {state['pid']} on {state['host']}" if state else "it is starting or stopping"
            raise AlreadyRunningError(
                f"An emulator is already running on state directory {state_dir} ({who}). Stop it first, or use "
                "another --state-dir."
            ) from None

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_state_file(self) -> None:
        state = {
            "pid": os.getpid(),
            "host": self.host,
            "project": self.settings.project,
            "project_number": self.settings.project_number,
            "profile": self.settings.profile,
            "traits": sorted(self.settings.traits),
            "env": self.env,
            "ports": self.ports,
        }
        write_state(self.settings.state_dir, state)


def _backend(settings: Settings, node_environment: dict[str, str]) -> ClusterBackend:
    # Imported here, so that each backend runs without the requirements of the other.
    if settings.backend == "fake":
        from vertex_ray_emulator.backends.entrypoints import Entrypoints
        from vertex_ray_emulator.backends.fake_backend import FakeBackend

        runs = settings.has("run-entrypoints")
        return FakeBackend(Entrypoints(settings.state_dir, node_environment) if runs else None)
    from vertex_ray_emulator.backends.ray_backend import RayBackend

    return RayBackend(settings.state_dir, node_environment=node_environment)


def _environment(settings: Settings, host: str, proxy: int, certificates: pki.Pki) -> dict[str, str]:
    """Return the variables that lead an unmodified SDK and the Airflow provider's hooks to the emulator."""
    local = "localhost,127.0.0.1"
    gcloud = settings.state_dir / "gcloud"
    gcloud.mkdir(exist_ok=True)
    return {
        "VERTEX_RAY_EMULATOR_HOST": host,
        "GOOGLE_CLOUD_PROJECT": settings.project,
        # Credentials come from the metadata server; the user's own must neither be used nor be sent to the emulator.
        "GCE_METADATA_HOST": host,
        "GCE_METADATA_IP": host,
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "CLOUDSDK_CONFIG": str(gcloud),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificates.authority),
        "REQUESTS_CA_BUNDLE": str(certificates.bundle),
        "SSL_CERT_FILE": str(certificates.bundle),
        "grpc_proxy": f"http://{LOOPBACK}:{proxy}",
        "https_proxy": f"http://{LOOPBACK}:{proxy}",
        "no_proxy": local,
        "no_grpc_proxy": local,
    }
