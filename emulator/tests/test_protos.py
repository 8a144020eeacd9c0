from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = """
import sys
from airflow_provider_vertex_ray.emulator import protos
print(sorted(m for m in sys.modules if m.startswith("google.cloud.aiplatform") and ".services" in m))
"""
# What is loaded later is the same package: its clients, and messages that are the ones already in use.
WHOLE = """
from airflow_provider_vertex_ray.emulator import protos
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


def test_no_client_is_loaded_for_the_messages() -> None:
    assert output(LIGHT) == ["[]"]


@pytest.mark.sdk
def test_the_whole_package_can_be_loaded_later() -> None:
    assert output(WHOLE) == ["True", "True", "True"]
