"""Models of the answers of the services that the preflight asks; what it does not use is not declared, and skipped."""

from __future__ import annotations

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import Int64

__all__ = [
    "AnyObject",
    "BucketAnswer",
    "KeyAnswer",
    "NetworkAnswer",
    "PermissionsAnswer",
    "PolicyAnswer",
    "ProjectAnswer",
    "QuotaAnswer",
    "SeriesAnswer",
    "SeriesPage",
    "ServicesAnswer",
    "ZonesPage",
]


class AnyObject(msgspec.Struct):
    """An object of which only the existence matters."""


class _ServiceConfig(msgspec.Struct):
    name: str | None = None


class _ServiceAnswer(msgspec.Struct):
    name: str | None = None
    state: str | None = None
    config: _ServiceConfig | None = None


class ServicesAnswer(msgspec.Struct):
    """The states of several APIs."""

    services: list[_ServiceAnswer] | None = None


class PermissionsAnswer(msgspec.Struct):
    """Those permissions of a request that the account has."""

    permissions: list[str] | None = None


class _BindingAnswer(msgspec.Struct):
    role: str | None = None
    members: list[str] | None = None


class PolicyAnswer(msgspec.Struct):
    """Who has which role in a project."""

    bindings: list[_BindingAnswer] | None = None


class ProjectAnswer(msgspec.Struct, rename="camel"):
    """A project."""

    project_number: Int64 | None = None


class _PeeringAnswer(msgspec.Struct):
    name: str | None = None
    state: str | None = None


class NetworkAnswer(msgspec.Struct):
    """A network."""

    peerings: list[_PeeringAnswer] | None = None


class _ZoneAnswer(msgspec.Struct, rename="camel"):
    machine_types: list[AnyObject] | None = None
    accelerator_types: list[AnyObject] | None = None


class ZonesPage(msgspec.Struct, rename="camel"):
    """A page of a list over all zones, which includes zones without any element."""

    items: dict[str, _ZoneAnswer] | None = None
    next_page_token: str | None = None


class _KeyVersionAnswer(msgspec.Struct):
    state: str | None = None


class KeyAnswer(msgspec.Struct):
    """A key of Cloud KMS."""

    purpose: str | None = None
    primary: _KeyVersionAnswer | None = None


class BucketAnswer(msgspec.Struct, rename="camel"):
    """A limit of a quota, for a region or for all that have none of their own."""

    effective_limit: Int64 | None = None
    dimensions: dict[str, str] | None = None


class _LimitAnswer(msgspec.Struct, rename="camel"):
    unit: str | None = None
    quota_buckets: list[BucketAnswer] | None = None


class QuotaAnswer(msgspec.Struct, rename="camel"):
    """The limits of a quota."""

    consumer_quota_limits: list[_LimitAnswer] | None = None


class _IntervalAnswer(msgspec.Struct, rename="camel"):
    end_time: str | None = None


class _ValueAnswer(msgspec.Struct, rename="camel"):
    int64_value: Int64 | None = None
    double_value: float | None = None


class _PointAnswer(msgspec.Struct):
    interval: _IntervalAnswer | None = None
    value: _ValueAnswer | None = None


class SeriesAnswer(msgspec.Struct):
    """A time series."""

    points: list[_PointAnswer] | None = None


class SeriesPage(msgspec.Struct, rename="camel"):
    """A page of time series."""

    time_series: list[SeriesAnswer] | None = None
    next_page_token: str | None = None
