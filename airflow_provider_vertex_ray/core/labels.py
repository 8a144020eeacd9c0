"""Labels of Google Cloud's resources: keys and values that the services accept."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["check_labels"]

MAX_LABELS = 64  # (D)
# Lower-case letters, and letters of scripts without case.
_LETTERS = frozenset({"Ll", "Lo"})


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Validate labels; templates are left for later.

    :param field: name of the argument, for errors
    :raises InvalidArgumentError: there are too many, or a key or a value is not as the services want it
    """
    if len(labels) > MAX_LABELS:
        raise InvalidArgumentError(field, len(labels), f"Use at most {MAX_LABELS} labels.")
    for key, value in labels.items():
        if not has_template(key) and not (_is_label(key) and key and unicodedata.category(key[0]) in _LETTERS):
            raise InvalidArgumentError(
                field,
                key,
                "Use a key of 1 to 63 lower-case letters, digits, underscores and hyphens that begins with a letter.",
            )
        if not has_template(value) and not _is_label(value):
            raise InvalidArgumentError(
                f"{field}[{key!r}]",
                value,
                "Use a value of at most 63 lower-case letters, digits, underscores and hyphens.",
            )


def _is_label(text: object) -> bool:
    if not isinstance(text, str) or len(text) > 63 or len(text.encode(errors="replace")) > 128:
        return False
    return all(letter in "_-" or unicodedata.category(letter) in (*_LETTERS, "Nd") for letter in text)
