"""Options of the section ``[vertex_ray]`` in Airflow's configuration, for code that does not import Airflow."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["SECTION", "option", "read_options_with"]

SECTION = "vertex_ray"
"""Name of the section."""


def _from_environment(name: str) -> str:
    return os.environ.get(f"AIRFLOW__{SECTION.upper()}__{name.upper()}", "")


_readers: list[Callable[[str], str]] = []


def read_options_with(reader: Callable[[str], str]) -> None:
    """Read options with Airflow's own reader from now on; until then, only environment variables count.

    :param reader: returns the value of an option by its name; an empty string if it is not set
    """
    _readers[:] = [reader]


def option(name: str) -> str:
    """Return the value of an option, without surrounding white space; an empty string if it is not set."""
    reader = _readers[0] if _readers else _from_environment
    return (reader(name) or "").strip()
