"""The clusters to show: the options of ``[vertex_ray]``, validated, with their errors as texts for the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.checks import is_number
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
from airflow_provider_vertex_ray.core.sharing.idle_policy import Policy
from airflow_provider_vertex_ray.core.sharing.lease_objects import parse_lease_uri
from airflow_provider_vertex_ray.errors import InvalidArgumentError

SECTION = "vertex_ray"
MOST_SOURCES = 20
DEFAULT_CONNECTION = "google_cloud_default"
REAPED_LABELS: Mapping[str, str] = {"airflow-owner": ""}
"""Default filter of ``VertexRayDeleteIdleClustersOperator``: clusters that this package created."""


@dataclass(frozen=True)
class Source:
    """A connection and region whose clusters are shown.

    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param location: region of the clusters.
    :param project_id: Google Cloud project; None for the connection's.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param lease_uri: folder in Cloud Storage with the leases; None for no leases.
    :param price_table: prices, as for ``VertexRayClusterCostOperator``.
    :param idle_for: ``idle_for`` of the DAG that deletes idle clusters; None if there is none.
    :param max_age: ``max_age`` of that DAG.
    :param label_filter: ``label_filter`` of that DAG.
    """

    gcp_conn_id: str
    location: str
    project_id: str | None = None
    impersonation_chain: str | tuple[str, ...] | None = None
    lease_uri: str | None = None
    price_table: Any = field(default=None, hash=False)
    idle_for: float | None = None
    max_age: float | None = None
    label_filter: Mapping[str, str] = field(default_factory=lambda: dict(REAPED_LABELS), hash=False)

    @property
    def key(self) -> str:
        """The source's name in addresses."""
        parts = (self.gcp_conn_id, self.project_id, self.location)
        return ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part) for part in parts if part)

    @property
    def policy(self) -> Policy | None:
        """When idle clusters are deleted, as configured; None if nothing is configured."""
        return None if self.idle_for is None else Policy(self.idle_for, self.max_age)


@dataclass(frozen=True)
class Sources:
    """The configured sources.

    :param sources: the valid sources, in the order of the configuration.
    :param problems: errors in the configuration, each as a sentence.
    """

    sources: tuple[Source, ...]
    problems: tuple[str, ...] = ()

    def find(self, key: str) -> Source | None:
        """Return the source with a key; None if there is none."""
        return next((source for source in self.sources if source.key == key), None)


def configured_sources(option: Callable[[str], str]) -> Sources:
    """Read and validate the configuration.

    :param option: returns an option's text by its name; an empty text if it is not set.
    """
    text = option("page_sources").strip()
    if text:
        return _listed(text)
    locations = [each.strip() for each in option("page_locations").split(",") if each.strip()]
    found: list[Source] = []
    problems: list[str] = []
    for location in locations[:MOST_SOURCES]:
        try:
            found.append(Source(DEFAULT_CONNECTION, validate_location(location, "page_locations")))
        except InvalidArgumentError as error:
            problems.append(f"[{SECTION}] {error}")
    return _together(found, problems)


def _listed(text: str) -> Sources:
    try:
        entries = json.loads(text)
    except ValueError as error:
        return Sources((), (f"[{SECTION}] page_sources is not valid JSON: {error}",))
    if not isinstance(entries, list):
        return Sources((), (f"[{SECTION}] page_sources is not a list of objects: {str(entries)[:100]}",))
    found: list[Source] = []
    problems: list[str] = []
    for place, entry in enumerate(entries[:MOST_SOURCES]):
        try:
            found.append(_source(f"page_sources[{place}]", entry))
        except InvalidArgumentError as error:
            problems.append(f"[{SECTION}] {error}")
    if len(entries) > MOST_SOURCES:
        problems.append(f"[{SECTION}] page_sources has {len(entries)} entries; the page shows at most {MOST_SOURCES}.")
    return _together(found, problems)


def _together(found: list[Source], problems: list[str]) -> Sources:
    by_key: dict[str, Source] = {}
    for source in found:
        if source.key in by_key:
            where = source.gcp_conn_id, source.project_id or "its own project", source.location
            problems.append(f"[{SECTION}] connection {where[0]} ({where[1]}, {where[2]}) is listed more than once.")
        by_key.setdefault(source.key, source)
    return Sources(tuple(by_key.values()), tuple(problems))


def _source(place: str, entry: Any) -> Source:
    if not isinstance(entry, dict):
        raise InvalidArgumentError(place, entry, "Use an object with a location.")
    names = tuple(Source.__dataclass_fields__)
    if unknown := sorted(set(entry) - set(names)):
        raise InvalidArgumentError(place, ", ".join(unknown), f"Use only the keys {', '.join(names)}.")
    connection = entry.get("gcp_conn_id", DEFAULT_CONNECTION)
    if not isinstance(connection, str) or not re.fullmatch(r"[\w.\-]{1,200}", connection):
        raise InvalidArgumentError(f"{place}.gcp_conn_id", connection, "Use the id of an Airflow connection.")
    project = entry.get("project_id")
    labels = entry.get("label_filter", dict(REAPED_LABELS))
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        raise InvalidArgumentError(f"{place}.label_filter", labels, "Use an object whose values are strings.")
    lease_uri = entry.get("lease_uri")
    if lease_uri is not None:
        _in(place, "lease_uri", lambda: parse_lease_uri(lease_uri))
    idle_for = _seconds(place, "idle_for", entry)
    max_age = _seconds(place, "max_age", entry)
    if max_age is not None and idle_for is None:
        raise InvalidArgumentError(f"{place}.max_age", max_age, "Set idle_for as well.")
    return Source(
        gcp_conn_id=connection,
        location=_in(place, "location", lambda: validate_location(entry.get("location"))),
        project_id=None if project is None else _in(place, "project_id", lambda: validate_project(project)),
        impersonation_chain=_chain(place, entry.get("impersonation_chain")),
        lease_uri=lease_uri,
        price_table=_prices(place, entry.get("price_table")),
        idle_for=idle_for,
        max_age=max_age,
        label_filter=labels,
    )


def _in(place: str, name: str, check: Callable[[], Any]) -> Any:
    """Return a check's result, or raise its error with the place in the list."""
    try:
        return check()
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{place}.{name}", error.value, error.rule) from error


def _seconds(place: str, name: str, entry: dict[str, Any]) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if not is_number(value) or not 0 < value < 10**9:
        raise InvalidArgumentError(f"{place}.{name}", value, "Use a positive number of seconds.")
    return float(value)


def _chain(place: str, value: Any) -> str | tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise InvalidArgumentError(
        f"{place}.impersonation_chain", value, "Use a service account, or a list of service accounts."
    )


def _prices(place: str, value: Any) -> Any:
    if isinstance(value, dict):
        try:
            return PriceTable.from_value(value)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{place}.{error.field}", error.value, error.rule) from error
    if value is None or isinstance(value, str):
        return value or None
    raise InvalidArgumentError(
        f"{place}.price_table", value, "Use an object, the path of a JSON file, variable:NAME, or catalog."
    )
