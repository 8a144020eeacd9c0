"""Ray and Python versions on the service, as data: one table, which users extend before this package knows a version.

The table is ray_versions.json beside this file (https://cloud.google.com/vertex-ai/docs/supported-frameworks-list#ray,
November 2026), and the rows in the option ``[vertex_ray] ray_versions``. A version that is in neither may exist.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.data_rows import added_text, date_in, read_rows, rows_in
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = [
    "RayVersion",
    "is_rejected",
    "is_version",
    "known_versions",
    "newest_version",
    "offered",
    "offered_versions",
]

OPTION = "ray_versions"
_FIELDS = {"ray": str, "full": str, "python": list, "image": str, "ends": str, "ended": bool}
_FILE = Path(__file__).with_name("ray_versions.json")


@dataclass(frozen=True)
class RayVersion:
    """A Ray version on the service.

    :param ray: version as in a spec and in the names of images, such as ``2.47``
    :param full: full version, such as ``2.47.1``; None if unknown
    :param pythons: Python versions of its images; the first one is the default
    :param image: address of its images with ``{region}`` (us, europe or asia), ``{device}`` (cpu or gpu), ``{ray}``
        (``2-47``) and ``{python}`` (``311``); None for the usual one
    :param ends: day from which the service creates no cluster with it; None if unknown
    :param ended: whether that day has passed for certain
    """

    ray: str
    full: str | None
    pythons: tuple[str, ...]
    image: str | None = None
    ends: date | None = None
    ended: bool = False


def known_versions() -> dict[str, RayVersion]:
    """Return all rows by Ray version; a row in the option replaces one of the same Ray version.

    :raises InvalidArgumentError: the option is malformed
    """
    return _table(added_text(OPTION))


def offered_versions() -> dict[str, RayVersion]:
    """Return the rows of versions that have not ended."""
    return {ray: row for ray, row in known_versions().items() if not row.ended}


def newest_version() -> RayVersion:
    """Return the newest version that has not ended."""
    return max(offered_versions().values(), key=lambda row: _order(row.ray))


def is_rejected(ray_version: str) -> bool:
    """Tell whether the service certainly does not offer a Ray version: it has ended, or an older one is in no row."""
    row = known_versions().get(ray_version)
    return row.ended if row else _order(ray_version) < _order(newest_version().ray)


def _order(ray_version: str) -> tuple[int, ...]:
    return tuple(map(int, ray_version.split(".")))


def offered() -> str:
    """Return the versions that have not ended, in words, the newest first."""
    rows = sorted(offered_versions().values(), key=lambda row: _order(row.ray), reverse=True)
    return "; ".join(f"Ray {row.ray} with Python {' or '.join(row.pythons)}" for row in rows)


@functools.lru_cache(maxsize=8)
def _table(added: str) -> dict[str, RayVersion]:
    rows = [*read_rows(_FILE), *rows_in(OPTION, added, _FIELDS, ("ray", "python"))]
    return {row["ray"]: _version(row) for row in rows}


def _version(row: dict[str, Any]) -> RayVersion:
    pythons = tuple(row["python"])
    if not is_version(row["ray"]) or not pythons or not all(map(is_version, pythons)):
        raise InvalidArgumentError(
            f"[vertex_ray] {OPTION}", row, 'Use versions of two numbers, such as "ray": "2.60", "python": ["3.12"].'
        )
    return RayVersion(
        row["ray"], row.get("full"), pythons, row.get("image"), date_in(OPTION, row), bool(row.get("ended"))
    )


def is_version(value: object) -> bool:
    """Tell whether a value is a version of two numbers, such as ``2.47``."""
    if not isinstance(value, str):
        return False
    parts = value.split(".")
    return len(parts) == 2 and all(part.isascii() and part.isdecimal() for part in parts)
