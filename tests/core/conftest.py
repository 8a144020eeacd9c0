"""A transport to the emulator, for each test its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from airflow_provider_vertex_ray.core.http.transport import Transport
from tests.support.server import QUICK


@pytest.fixture
async def transport(fake_emulator: EmulatorProcess) -> AsyncIterator[Transport]:
    host = fake_emulator.host
    async with Transport(EmulatorTokenSource(host), Addresses(host), retry=QUICK, timeout=10) as opened:
        yield opened
