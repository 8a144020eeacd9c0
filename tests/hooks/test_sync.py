"""Synchronous hooks: the same calls as the asynchronous ones, with the same signatures and docstrings."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterHook
from airflow_provider_vertex_ray.hooks.job import VertexRayJobHook
from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseHook
from airflow_provider_vertex_ray.hooks.model import VertexRayModelHook
from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringHook
from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightHook

HOOKS: list[type[VertexRaySyncHook[Any]]] = [
    VertexRayClusterHook,
    VertexRayJobHook,
    VertexRayLeaseHook,
    VertexRayModelHook,
    VertexRayMonitoringHook,
    VertexRayPreflightHook,
]


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "google_cloud_default"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", "google-cloud-platform://")


class EchoAsyncHook(VertexRayBaseAsyncHook):
    async def echo(self, text: str, *, times: int = 1) -> list[Any]:
        """Repeat a text."""
        await asyncio.sleep(0)
        if times < 0:
            raise ValueError(text)
        return [text] * times + [self._project_id, self._location, self._key]


class EchoHook(VertexRaySyncHook[EchoAsyncHook]):
    async_hook_class = EchoAsyncHook
    echo = sync_of(EchoAsyncHook.echo)


@pytest.mark.parametrize("hook", HOOKS)
def test_sync_hook_has_every_call_of_the_async_hook(hook: type[VertexRaySyncHook[Any]]) -> None:
    calls = {
        name: call
        for kind in hook.async_hook_class.__mro__
        if kind not in VertexRayBaseAsyncHook.__mro__
        for name, call in vars(kind).items()
        # An opened API or a stream lives only in an event loop.
        if inspect.iscoroutinefunction(call) and not name.startswith("_")
    }
    assert calls
    for name, call in calls.items():
        ours = getattr(hook, name)
        assert not inspect.iscoroutinefunction(ours)
        assert inspect.signature(ours) == inspect.signature(call), name
        assert inspect.getdoc(ours) == inspect.getdoc(call), name


def test_call_has_the_hooks_connection_project_and_location() -> None:
    hook = EchoHook("mine", ["a@b", "c@d"], "my-project", "us-central1")
    assert hook.echo("x", times=2) == ["x", "x", "my-project", "us-central1", ("mine", ("a@b", "c@d"))]


def test_exception_of_a_call_is_raised() -> None:
    with pytest.raises(ValueError, match="x"):
        EchoHook().echo("x", times=-1)


async def test_call_works_inside_a_running_event_loop() -> None:
    assert EchoHook().echo("x")[0] == "x"
