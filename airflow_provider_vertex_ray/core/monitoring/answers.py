"""Models of the answers of Cloud Logging and of Cloud Monitoring's Prometheus API."""

from __future__ import annotations

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import JsonObject

__all__ = ["EntryAnswer", "EntryPage", "MatrixAnswer", "SeriesAnswer"]


class EntryAnswer(msgspec.Struct, rename="camel"):
    """A log entry."""

    text_payload: str | None = None
    json_payload: JsonObject | None = None
    timestamp: str | None = None
    receive_timestamp: str | None = None
    severity: str | None = None
    labels: dict[str, str] | None = None


class EntryPage(msgspec.Struct, rename="camel"):
    """A page of log entries."""

    entries: list[EntryAnswer] | None = None
    next_page_token: str | None = None


Sample = tuple[float, str]


class SeriesAnswer(msgspec.Struct):
    """A series of an instant query (``value``) or a range query (``values``)."""

    metric: dict[str, str] | None = None
    value: Sample | None = None
    values: list[Sample] | None = None


class _MatrixData(msgspec.Struct, rename="camel"):
    result_type: str
    # A scalar is one sample instead of a list of series.
    result: list[SeriesAnswer | float | str] | None = None


class MatrixAnswer(msgspec.Struct):
    """The result of a PromQL query, or the reason why there is none."""

    status: str
    data: _MatrixData | None = None
    error: str | None = None
