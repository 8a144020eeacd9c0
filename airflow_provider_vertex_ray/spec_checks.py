"""The few checks that all rules of a spec are made of. Each passes a value that Jinja has still to render."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.spec_error import SpecError, has_template

if TYPE_CHECKING:
    import re

__all__ = ["check_flag", "check_match", "check_text", "check_whole", "find_templates", "refuse_templates"]


def find_templates(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of every string inside ``value`` that Jinja has still to render."""
    if has_template(value):
        yield path, value
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from find_templates(getattr(value, item.name), f"{path}.{item.name}" if path else item.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from find_templates(key, f"{path}.{key}")
            yield from find_templates(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from find_templates(item, f"{path}[{place}]")


def refuse_templates(value: object, path: str = "") -> None:
    """Raise SpecError if Jinja has still to render something inside ``value``."""
    for place, text in find_templates(value, path):
        raise SpecError(place, text, "a template in it was not rendered")


def check_flag(field: str, value: object) -> None:
    """Refuse all but True and False."""
    if not isinstance(value, bool):
        raise SpecError(field, value, "give True or False")


def check_whole(field: str, value: object, low: int, high: int | None, rule: str) -> None:
    """Refuse all but whole numbers from ``low`` to ``high``; True and False are no numbers."""
    if has_template(value):
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(field, value, f"give a whole number: {rule}")
    if value < low or (high is not None and value > high):
        raise SpecError(field, value, rule)


def check_text(field: str, value: object, *, required: bool = False) -> None:
    """Refuse all but texts with something in them, and None unless ``required``."""
    if value is None and not required:
        return
    if not isinstance(value, str) or not value.strip():
        raise SpecError(field, value, "give a text that is not empty")


def check_match(field: str, value: object, pattern: re.Pattern[str], rule: str, *, required: bool = False) -> None:
    """Refuse all but texts that match ``pattern`` as a whole, and None unless ``required``."""
    if has_template(value) or (value is None and not required):
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise SpecError(field, value, rule)
