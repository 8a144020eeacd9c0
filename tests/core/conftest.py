"""Transports to the emulators, for each test its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from airflow_provider_vertex_ray.core.http.transport import Transport
from tests.support.server import QUICK


def _transport(emulator: EmulatorProcess) -> Transport:
    return Transport(EmulatorTokenSource(emulator.host), Addresses(emulator.host), retry=QUICK, timeout=60)


@pytest.fixture
async def transport(fake_emulator: EmulatorProcess) -> AsyncIterator[Transport]:
    async with _transport(fake_emulator) as opened:
        yield opened


@pytest.fixture
async def websocket_transport(websocket_emulator: EmulatorProcess) -> AsyncIterator[Transport]:
    async with _transport(websocket_emulator) as opened:
        yield opened
