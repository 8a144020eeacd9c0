"""Output files of tasks, in any storage that Airflow supports."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import IO, Any

from airflow_provider_vertex_ray.core.checks import known_at_run_time
from airflow_provider_vertex_ray.errors import InvalidArgumentError

GOOGLE_SCHEMES = ("gs", "gcs")


def check_file_uri(field: str, value: Any, suffixes: Sequence[str]) -> None:
    """Validate that a value is the URI of a file with one of the suffixes; None, templates and XComArgs pass.

    :param field: name of the argument.
    :param value: value of the argument.
    :param suffixes: valid suffixes, such as ``.png``.
    :raises InvalidArgumentError: the value is not such a URI.
    """
    if value is None or known_at_run_time(value):
        return
    rule = f"Use the URI of a file, such as gs://bucket/report/name{suffixes[0]}."
    if not isinstance(value, str):
        raise InvalidArgumentError(field, value, rule)
    scheme, found, rest = value.partition("://")
    name = rest.rsplit("/", 1)[-1]
    if not found or not scheme.isidentifier() or not name or rest == name:
        raise InvalidArgumentError(field, value, rule)
    if not name.endswith(tuple(suffixes)) or name in suffixes:
        raise InvalidArgumentError(
            field, value, f"Use a file name that ends with {' or '.join(suffixes)}; the suffix selects the format."
        )


def write_file(uri: str, content: IO[bytes], gcp_conn_id: str) -> None:
    """Write a file, whose content is complete before the first byte is sent.

    :param uri: URI of the file, which may name a connection (``gs://my_conn@bucket/name``).
    :param content: the content.
    :param gcp_conn_id: connection for Cloud Storage if the URI names none.
    """
    path = _path(uri, gcp_conn_id)
    if path.protocol in ("file", ""):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _path(uri: str, gcp_conn_id: str) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    scheme, _, rest = uri.partition("://")
    if scheme in GOOGLE_SCHEMES and "@" not in rest.split("/", 1)[0] and not _emulated():
        return ObjectStoragePath(uri, conn_id=gcp_conn_id)
    return ObjectStoragePath(uri)


def _emulated() -> bool:
    """Tell whether Cloud Storage is an emulator, for which no connection has credentials."""
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))
