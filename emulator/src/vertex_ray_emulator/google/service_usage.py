"""Service Usage (v1 and v1beta1): the enabled services and the quotas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters.quotas import Quotas, default_limit
from vertex_ray_emulator.google.cloud_api import PROJECT, CloudRequest, CloudRpc, offset_page
from vertex_ray_emulator.project.quota_metrics import METRICS
from vertex_ray_emulator.wire.api_table import AIPLATFORM, SERVICE_TITLES
from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from vertex_ray_emulator.project.project_script import Project

_SERVICE = rf"{PROJECT}/services/(?P<service>[^/:]+)"
_METRICS = rf"v1beta1/{_SERVICE}/consumerQuotaMetrics"
_HOST = re.compile(r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*\.googleapis\.com")
MOST_NAMES = 30
_UNIT = "1/{project}/{region}"


class ServiceUsage:
    """Services and quotas of the project.

    :param project: the project with its enabled services.
    :param quotas: limits of the training quotas.
    """

    def __init__(self, project: Project, quotas: Quotas) -> None:
        self._project = project
        self._quotas = quotas

    def rpcs(self) -> list[CloudRpc]:
        """Return the methods that this API serves."""
        return [
            CloudRpc("BatchGetServices", "GET", rf"v1/{PROJECT}/services:batchGet", self._batch_get),
            CloudRpc("ListServices", "GET", rf"v1/{PROJECT}/services", self._list),
            CloudRpc("GetService", "GET", rf"v1/{_SERVICE}", self._get),
            CloudRpc("ListConsumerQuotaMetrics", "GET", _METRICS, self._list_metrics),
            CloudRpc("GetConsumerQuotaMetric", "GET", rf"{_METRICS}/(?P<metric>.+)", self._get_metric),
        ]

    def _service(self, name: str) -> dict[str, Any]:
        if not _HOST.fullmatch(name):
            raise ApiError("PERMISSION_DENIED", f"Not found or permission denied for service(s): {name}.")
        return {
            "name": f"projects/{self._project.number}/services/{name}",
            "config": {"name": name, "title": SERVICE_TITLES.get(name, name)},
            "state": "ENABLED" if self._project.enabled(name) else "DISABLED",
            "parent": f"projects/{self._project.number}",
        }

    async def _get(self, request: CloudRequest) -> dict[str, Any]:
        return self._service(request.path["service"])

    async def _batch_get(self, request: CloudRequest) -> dict[str, Any]:
        names = list(request.query.get("names", []))
        if len(names) > MOST_NAMES:
            raise invalid(f"A single request can get a maximum of {MOST_NAMES} services at a time, not {len(names)}.")
        services = []
        for name in names:
            match = re.fullmatch(_SERVICE, name)
            if match is None or match["project"] not in (self._project.id, self._project.number):
                raise invalid(f"Invalid name {name!r}: it must be projects/{request.path['project']}/services/SERVICE.")
            services.append(self._service(match["service"]))
        return {"services": services}

    async def _list(self, request: CloudRequest) -> dict[str, Any]:
        match = re.fullmatch(r"(?:state:(ENABLED|DISABLED))?", request.parameter("filter"))
        if match is None:
            raise invalid("Invalid filter: it must be state:ENABLED or state:DISABLED.")
        services = [self._service(name) for name in sorted({*SERVICE_TITLES, *self._project.script.services})]
        wanted = [each for each in services if match[1] in (None, each["state"])]
        size = min(request.number("pageSize", 50) or 50, 200)
        found, token = offset_page(wanted, size, request.parameter("pageToken"))
        return {"services": found, **({"nextPageToken": token} if token else {})}

    async def _list_metrics(self, request: CloudRequest) -> dict[str, Any]:
        self._check_quota_service(request)
        size = request.number("pageSize", len(METRICS)) or len(METRICS)
        found, token = offset_page(METRICS, size, request.parameter("pageToken"))
        metrics = [self._metric(metric) for metric in found]
        return {"metrics": metrics, **({"nextPageToken": token} if token else {})}

    async def _get_metric(self, request: CloudRequest) -> dict[str, Any]:
        self._check_quota_service(request)
        metric = request.path["metric"].removeprefix(f"{AIPLATFORM}/")
        if metric not in METRICS or not request.path["metric"].startswith(f"{AIPLATFORM}/"):
            raise ApiError("NOT_FOUND", f"Quota metric '{request.path['metric']}' was not found.")
        return self._metric(metric)

    def _check_quota_service(self, request: CloudRequest) -> None:
        service, view = request.path["service"], request.parameter("view")
        if service != AIPLATFORM:
            raise ApiError("NOT_FOUND", f"The emulator supports only quotas of {AIPLATFORM}, not of {service!r}.")
        if view not in ("", "QUOTA_VIEW_UNSPECIFIED", "BASIC", "FULL"):
            raise invalid(f"Invalid value at 'view' (type.googleapis.com/…QuotaView), {view!r}")

    def _metric(self, metric: str) -> dict[str, Any]:
        full = f"{AIPLATFORM}/{metric}"
        name = f"projects/{self._project.number}/services/{AIPLATFORM}/consumerQuotaMetrics/{full.replace('/', '%2F')}"
        default = str(default_limit(metric))
        # The first bucket has no dimensions: it applies to every region without a bucket of its own.
        buckets: list[dict[str, Any]] = [{"effectiveLimit": default, "defaultLimit": default}]
        for region in sorted(self._quotas.regions()):
            limit = str(self._quotas.limit(metric, region))
            buckets.append({"effectiveLimit": limit, "defaultLimit": default, "dimensions": {"region": region}})
        return {
            "name": name,
            "metric": full,
            "displayName": metric.replace("_", " ").capitalize(),
            "unit": "1",
            "consumerQuotaLimits": [
                {
                    "name": f"{name}/limits/%2Fproject%2Fregion",
                    "metric": full,
                    "unit": _UNIT,
                    "isPrecise": True,
                    "quotaBuckets": buckets,
                }
            ],
        }
