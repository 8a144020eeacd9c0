"""The clock of deadlines, which a test turns on: so a deadline passes as soon as what must come before it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from airflow_provider_vertex_ray.core import deadlines
from tests.support.meanwhile import meanwhile

FAR = 3600.0
"""Seconds until a deadline that passes only when the clock is turned on."""


@contextmanager
def passing_once(monkeypatch: pytest.MonkeyPatch, condition: Callable[[], object]) -> Iterator[None]:
    """Let deadlines that are ``FAR`` ahead pass in the block, once a condition is true; they stay passed."""
    ahead = 0.0
    monkeypatch.setattr(deadlines, "time", SimpleNamespace(time=lambda: time.time() + ahead))

    def turn_on() -> None:
        nonlocal ahead
        ahead = FAR

    with meanwhile(turn_on, condition):
        yield
