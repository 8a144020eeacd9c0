"""Files that a task writes for a report: in any storage that Airflow knows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import IO, Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.errors import InvalidArgumentError

OF_GOOGLE = ("gs", "gcs")


def check_file_uri(field: str, value: Any, suffixes: Sequence[str]) -> None:
    """Refuse what is no URI of a file with one of these suffixes; None, templates and references pass.

    :raises InvalidArgumentError: Names the field.
    """
    if value is None or has_template(value) or hasattr(value, "iter_references"):
        return
    rule = f"give the URI of a file, such as gs://bucket/report/name{suffixes[0]}"
    if not isinstance(value, str):
        raise InvalidArgumentError(field, value, rule)
    scheme, found, rest = value.partition("://")
    name = rest.rsplit("/", 1)[-1]
    if not found or not scheme.isidentifier() or not name or rest == name:
        raise InvalidArgumentError(field, value, rule)
    if not name.endswith(tuple(suffixes)) or name in suffixes:
        raise InvalidArgumentError(
            field, value, f"the name must end with {' or '.join(suffixes)}, which says what is written"
        )


def write_file(uri: str, content: IO[bytes], gcp_conn_id: str) -> None:
    """Write a file, all of it at once: the content is complete before the first byte is sent.

    :param uri: Where to; the connection may stand in it (``gs://my_conn@bucket/name``).
    :param gcp_conn_id: Connection for Cloud Storage where the URI names none.
    """
    path = _path(uri, gcp_conn_id)
    if path.protocol in ("file", ""):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _path(uri: str, gcp_conn_id: str) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    scheme, _, rest = uri.partition("://")
    if scheme in OF_GOOGLE and "@" not in rest.split("/", 1)[0] and not _emulated():
        return ObjectStoragePath(uri, conn_id=gcp_conn_id)
    return ObjectStoragePath(uri)


def _emulated() -> bool:
    """Whether Cloud Storage is an emulator, for which no connection has credentials."""
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))
