"""A trigger's event waits until Airflow has read what was logged."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.triggers import base, log_channel
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.log_channel import lines_are_read


def configured(monkeypatch: pytest.MonkeyPatch, io: Any) -> None:
    """Airflow logs to this file."""
    found = SimpleNamespace(get_config=lambda: {"logger_factory": SimpleNamespace(io=io)})
    monkeypatch.setitem(sys.modules, "structlog", found)


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, Any]]:
    """The triggerer's end, and what its triggers write to."""
    reader, writer = socket.socketpair()
    with reader, writer, os.fdopen(os.dup(writer.fileno()), "wb", buffering=0) as io:
        configured(monkeypatch, io)
        yield reader, io


class Wait(WaitTrigger):
    async def wait(self) -> dict[str, Any]:
        return {}


async def test_the_event_comes_after_the_lines(
    channel: tuple[socket.socket, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "lines_are_read", lambda: lines_are_read(PATIENCE))
    reader, io = channel
    io.write(b"x" * 9_999 + b"\n")
    events = Wait().run()
    event = asyncio.ensure_future(anext(events))
    left = 10_000
    while left:
        # As long as a part of it is unread, however often the loop comes round.
        await asyncio.wait({event}, timeout=3 * log_channel._PAUSE)
        assert not event.done()
        left -= len(reader.recv(4096))
    assert (await event).payload["status"] == "success"


async def test_a_triggerer_that_does_not_read_is_not_waited_for(channel: tuple[socket.socket, Any]) -> None:
    channel[1].write(b"a line\n")
    await lines_are_read(0.05)


async def test_without_a_channel_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    read, write = os.pipe()
    with (tmp_path / "log").open("wb") as file, os.fdopen(write, "wb", buffering=0) as pipe, os.fdopen(read):
        pipe.write(b"a line\n")
        for io in (None, file, pipe, SimpleNamespace(fileno=lambda: -1)):
            configured(monkeypatch, io)
            assert log_channel._unread_bytes() == 0
    monkeypatch.setitem(sys.modules, "structlog", SimpleNamespace(get_config=dict))
    assert log_channel._unread_bytes() == 0
    monkeypatch.delitem(sys.modules, "structlog")
    assert log_channel._unread_bytes() == 0
