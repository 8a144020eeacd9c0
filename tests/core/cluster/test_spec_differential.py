"""Ours against the SDK's own ``create_ray_cluster``: the same arguments must make the same request.

Once with many examples and the request taken in the SDK's own process, where the protos are compared; and once
through the emulator, where the unmodified SDK comes by gRPC and ours by REST, and what arrived is compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.sdk_creator import SdkCreator
from tests.support.specs import LOCATIONS, spec_fields

pytestmark = pytest.mark.sdk

# What a cluster has besides what was asked for.
_OUTPUT_ONLY = {"name", "state", "createTime", "startTime", "updateTime", "resourceRuntime"}
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    # All that the SDK sends is compared, also what the service may refuse.
    arguments = ["--backend", "fake", "--provisioning-seconds", "0", "--hold-get", "--without", "strict-specs"]
    with EmulatorProcess(tmp_path_factory.mktemp("emulator"), arguments) as process:
        yield process


@pytest.fixture(scope="module")
def sdk(emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdkCreator]:
    creator = SdkCreator(log=tmp_path_factory.mktemp("sdk") / "log", env=emulator.sdk_env())
    yield creator
    creator.close()


SPEC: Any = {"fields": spec_fields(), "location": st.sampled_from(LOCATIONS)}
RULES: Any = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
# What is sent shrinks the same mistakes, and much faster than two clusters an example allow.
UNSHRUNK: Any = {**RULES, "phases": [Phase.explicit, Phase.generate]}


def check_sent(sdk: SdkCreator, fields: dict[str, Any], location: str) -> None:
    body = ClusterSpec.from_value(fields).to_persistent_resource(location)
    answer = sdk.compare(location, "same", fields, body)
    assert "error" not in answer
    assert answer["ours"] == answer["sdk"]
    # The messages too: a dict does not tell a field that is absent from one that was set to its default.
    assert answer["equal"]
    assert (answer["parent"], answer["cluster_id"]) == (f"projects/123456789012/locations/{location}", "same")


@settings(max_examples=60, **RULES)
@given(**SPEC)
def test_sends_what_the_sdk_sends(sdk: SdkCreator, fields: dict[str, Any], location: str) -> None:
    check_sent(sdk, fields, location)


@pytest.mark.soak
@settings(max_examples=300, **RULES)
@given(**SPEC)
def test_sends_what_the_sdk_sends_for_many_specs(sdk: SdkCreator, fields: dict[str, Any], location: str) -> None:
    check_sent(sdk, fields, location)


def check_received(emulator: EmulatorProcess, sdk: SdkCreator, fields: dict[str, Any], location: str) -> None:
    number = next(_NUMBERS)
    theirs, ours = f"sdk-{number}", f"ours-{number}"
    clusters = f"projects/{emulator.project}/locations/{location}/persistentResources"
    full_name = f"projects/{emulator.project_number}/locations/{location}/persistentResources/{theirs}"

    assert sdk.create(location, theirs, fields) == {"name": full_name}
    body = ClusterSpec.from_value(fields).to_persistent_resource(location)
    status, answer = emulator.api("POST", f"{clusters}?persistentResourceId={ours}", body)
    assert status == 200, answer

    assert _asked_for(emulator, f"{clusters}/{ours}") == _asked_for(emulator, f"{clusters}/{theirs}")
    created = {
        (call["surface"], call["resource"].rsplit("/", 1)[1]) for call in emulator.calls("CreatePersistentResource")
    }
    assert {("grpc", theirs), ("rest", ours)} <= created
    for cluster_id in (theirs, ours):
        assert emulator.api("DELETE", f"{clusters}/{cluster_id}")[0] == 200
    emulator.admin("DELETE", "calls")


@settings(max_examples=15, **UNSHRUNK)
@given(**SPEC)
def test_the_emulator_receives_the_same_from_both(
    emulator: EmulatorProcess, sdk: SdkCreator, fields: dict[str, Any], location: str
) -> None:
    check_received(emulator, sdk, fields, location)


@pytest.mark.soak
@settings(max_examples=250, **UNSHRUNK)
@given(**SPEC)
def test_the_emulator_receives_the_same_from_both_for_many_specs(
    emulator: EmulatorProcess, sdk: SdkCreator, fields: dict[str, Any], location: str
) -> None:
    check_received(emulator, sdk, fields, location)


def test_all_defaults_are_the_sdks(sdk: SdkCreator) -> None:
    answer = sdk.compare("us-central1", "same", {}, ClusterSpec().to_persistent_resource("us-central1"))
    assert answer["equal"], answer


@pytest.mark.parametrize(
    "fields",
    [
        {"head_node_type": {"node_count": 2}},
        {"head_node_type": {"autoscaling_spec": {}}},
        {"head_node_type": {"accelerator_count": 1}},
        {"head_node_type": {"accelerator_type": "nvidia-tesla-t4", "accelerator_count": 1}},
        {"worker_node_types": [{"machine_type": "n1-standard-32", "accelerator_count": 1}]},
        {"worker_node_types": [{"boot_disk_type": "pd-standard"}]},
        {"worker_node_types": [{"boot_disk_size_gb": 200}]},
        {"custom_images": {"head": "us-docker.pkg.dev/my-project/ray/head:1"}},
        {"custom_images": {"worker": "us-docker.pkg.dev/my-project/ray/worker:1"}},
        {"ray_version": "2.4"},
    ],
)
def test_refuses_what_the_sdk_refuses(sdk: SdkCreator, fields: dict[str, Any]) -> None:
    assert "error" in sdk.compare("us-central1", "same", fields)
    with pytest.raises(InvalidArgumentError):
        ClusterSpec.from_value(fields)


def _asked_for(emulator: EmulatorProcess, name: str) -> dict[str, Any]:
    status, resource = emulator.api("GET", name)
    assert status == 200, resource
    assert resource["state"] == "RUNNING"
    return {field: value for field, value in resource.items() if field not in _OUTPUT_ONLY}
