"""Shared fixtures and the settings of Hypothesis, for the tests of the emulator and of the provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from emulator_support.storage import StorageEmulator

# On a busy machine an example may take long: that says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def storage_process() -> Iterator[StorageEmulator]:
    """One emulator of Cloud Storage for the whole run."""
    with StorageEmulator() as storage:
        yield storage


@pytest.fixture
def storage(storage_process: StorageEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageEmulator]:
    """Cloud Storage with an empty bucket, beside the emulator."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{storage_process.host}")
    # Artifacts may be left that other modules stored for all of their tests.
    storage_process.clear()
    yield storage_process
    storage_process.clear()
