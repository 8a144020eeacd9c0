"""Checks on models: ids, aliases, and required fields of an upload.

The rules come from the API's reference, and the format of the texts from reports of live runs; most of the wording was
made up here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters.rules import IMAGE_PATTERN, MAX_DISPLAY_NAME, check_labels, snake_case
from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MODEL_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
DEFAULT_ALIAS = "default"
MAX_DESCRIPTION = 10_000
UPDATABLE = ("display_name", "description", "version_description", "labels")


def found_errors(field: str, message: str) -> ApiError:
    """Return an error 400 in the format of the services for models and endpoints."""
    return invalid(f"List of found errors:\t1.Field: {field}; Message: {message}\t")


def required(field: str) -> ApiError:
    """Return the error 400 for a missing field."""
    return found_errors(field, "Required field is not set.")


def check_display_name(field: str, value: str) -> None:
    """Raise an error for a display name that is missing or too long."""
    if not value:
        raise required(field)
    if len(value) > MAX_DISPLAY_NAME:
        raise found_errors(field, f"The display name must be at most {MAX_DISPLAY_NAME} characters long.")


def check_model_id(model_id: str) -> None:
    """Raise an error for an invalid model id; an empty id lets the service choose one."""
    if model_id and not MODEL_ID.fullmatch(model_id):
        raise found_errors(
            "model_id",
            "Valid characters are [a-z0-9_-], up to 63 of them; the first one cannot be a number or hyphen. "
            f"Got: {model_id!r}",
        )


def check_alias(alias: str) -> None:
    """Raise an error for an invalid version alias."""
    if not ALIAS.fullmatch(alias):
        raise found_errors("version_aliases", f"The version alias must match `{ALIAS.pattern}`. Got: {alias!r}")


def check_upload(model: Any) -> None:
    """Raise an error for a model that cannot be uploaded.

    :raises ApiError: INVALID_ARGUMENT with the name of the field.
    """
    check_display_name("model.display_name", model.display_name)
    for field in ("description", "version_description"):
        if len(getattr(model, field)) > MAX_DESCRIPTION:
            raise found_errors(f"model.{field}", f"It must be at most {MAX_DESCRIPTION} characters long.")
    check_labels(model.labels)
    for alias in model.version_aliases:
        check_alias(alias)
    if not model.container_spec.image_uri:
        raise required("model.container_spec.image_uri")
    if not IMAGE_PATTERN.fullmatch(model.container_spec.image_uri):
        raise found_errors("model.container_spec.image_uri", f"{model.container_spec.image_uri!r} is not an image URI.")
    if model.artifact_uri and not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/.*)?", model.artifact_uri):
        raise found_errors(
            "model.artifact_uri",
            f"It must be a Cloud Storage directory, such as gs://bucket/path. Got: {model.artifact_uri!r}",
        )


def check_update(paths: Sequence[str], allowed: Iterable[str]) -> list[str]:
    """Return the paths of an update mask in snake case.

    :param paths: paths of the mask.
    :param allowed: fields that can be updated.
    :raises ApiError: INVALID_ARGUMENT if the mask is empty or has a field that cannot be updated.
    """
    if not paths:
        raise required("update_mask")
    found = [snake_case(path) for path in paths]
    for path in found:
        field, dot, _ = path.partition(".")
        # Only labels can be updated one by one; part of another field would escape the checks of the whole.
        if field not in allowed or (dot and field != "labels"):
            raise found_errors("update_mask", f"Updating {path!r} is not supported.")
    return found


def merge(target: Any, wanted: Any, paths: Iterable[str]) -> None:
    """Copy the fields in a mask; a path such as ``labels.team`` copies one entry, other maps and lists are replaced."""
    for path in paths:
        field, _, key = path.partition(".")
        if key:
            labels = getattr(target, field)
            if key in getattr(wanted, field):
                labels[key] = getattr(wanted, field)[key]
            else:
                labels.pop(key, None)
            continue
        target.ClearField(field)
        value = getattr(wanted, field)
        if isinstance(value, (str, int, float, bool)):
            setattr(target, field, value)
        else:
            getattr(target, field).MergeFrom(value)
