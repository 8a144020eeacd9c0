from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = """
import sys
from vertex_ray_emulator.wire import protos
print(sorted(m for m in sys.modules if m.startswith("google.cloud.aiplatform") and ".services" in m))
"""
# What is loaded later is the same package: its clients, and messages that are the ones already in use.
WHOLE = """
from vertex_ray_emulator.wire import protos
from google.cloud import aiplatform_v1beta1
from google.cloud.aiplatform_v1beta1 import PersistentResource, PersistentResourceServiceClient, types
import google.cloud.aiplatform_v1beta1.services.job_service
print(types.PersistentResource is PersistentResource is aiplatform_v1beta1.PersistentResource)
print(PersistentResource.pb() is protos.PersistentResource)
print(aiplatform_v1beta1.services.job_service.JobServiceClient is aiplatform_v1beta1.JobServiceClient)
"""


def output(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_messages_load_without_clients() -> None:
    assert output(LIGHT) == ["[]"]


@pytest.mark.sdk
def test_whole_package_can_be_loaded_later() -> None:
    assert output(WHOLE) == ["True", "True", "True"]
