"""Fields that the SDK lacks: passed through as they are, read back, and warned about."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.clusters import LOCATION

DNS = {"domain": "corp.example.", "targetProject": "host-project", "targetNetwork": "net"}
SPECIFIC = {
    "reservationAffinityType": "SPECIFIC_RESERVATION",
    "key": "compute.googleapis.com/reservation-name",
    "values": ["projects/p/zones/us-central1-a/reservations/r"],
}
WORKER = {"machine_type": "n1-standard-8", "node_count": 2}


def spec(**fields: Any) -> ClusterSpec:
    return ClusterSpec.from_value({"worker_node_types": [WORKER], **fields})


ALL = {
    "display_name": "Nightly training",
    "psc_interface_config": {"network_attachment": "a", "dns_peering_configs": [DNS]},
    "ray_cluster_autoscaling_spec": {"idleTimeoutMinutes": 10, "upscalingSpeed": 2.0},
    "worker_node_types": [{**WORKER, "reservation_affinity": SPECIFIC}],
}


def test_fields_are_written_and_read_back() -> None:
    given = spec(**ALL)
    body = given.to_persistent_resource(LOCATION)
    assert body["displayName"] == "Nightly training"
    assert body["pscInterfaceConfig"] == {"networkAttachment": "a", "dnsPeeringConfigs": [DNS]}
    ray = body["resourceRuntimeSpec"]["raySpec"]
    # As all int64 fields in the JSON of Google's APIs.
    assert ray["rayClusterAutoscalingSpec"] == {"idleTimeoutMinutes": "10", "upscalingSpeed": 2.0}
    assert body["resourcePools"][1]["machineSpec"]["reservationAffinity"] == SPECIFIC
    assert "reservationAffinity" not in body["resourcePools"][0]["machineSpec"]
    assert ClusterSpec.from_persistent_resource(body, LOCATION) == given
    assert ClusterSpec.from_value(given.to_dict()) == given


def test_each_field_has_a_warning() -> None:
    warnings = spec(**ALL).warnings()
    for field in ("dns_peering_configs", "ray_cluster_autoscaling_spec", "worker_node_types[0].reservation_affinity"):
        assert sum(field in warning and "Vertex AI may reject it" in warning for warning in warnings) == 1
    assert len(warnings) == 3


def test_display_name_does_not_make_another_cluster() -> None:
    assert spec(display_name="one").spec_hash() == spec(display_name="two").spec_hash() == spec().spec_hash()
    assert spec(ray_cluster_autoscaling_spec={"idleTimeoutMinutes": 7}).spec_hash() != spec().spec_hash()


def test_service_accepts_the_names(fake_emulator: EmulatorProcess) -> None:
    # The emulator's messages (google-cloud-aiplatform 2.7.0) do not have the other two.
    given = {**ALL, "psc_interface_config": None, "ray_cluster_autoscaling_spec": None}
    # It knows the name, and refuses it with the service's recorded text.
    with pytest.raises(RuntimeError, match="Reservation affinity is not supported yet for persistent clusters"):
        fake_emulator.create("named", spec(**given).to_persistent_resource(LOCATION))
    found = fake_emulator.create(
        "named", spec(**{**given, "worker_node_types": [WORKER]}).to_persistent_resource(LOCATION)
    )
    assert (found["state"], found["displayName"]) == ("RUNNING", "Nightly training")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"display_name": "x" * 129}, "display_name"),
        ({"display_name": 3}, "display_name"),
        ({"ray_cluster_autoscaling_spec": {"idle": 3}}, "ray_cluster_autoscaling_spec.idle"),
        ({"ray_cluster_autoscaling_spec": [3]}, "ray_cluster_autoscaling_spec"),
        (
            {"ray_cluster_autoscaling_spec": {"idleTimeoutMinutes": 0}},
            "ray_cluster_autoscaling_spec.idleTimeoutMinutes",
        ),
        ({"ray_cluster_autoscaling_spec": {"upscalingSpeed": -1}}, "ray_cluster_autoscaling_spec.upscalingSpeed"),
        (
            {"psc_interface_config": {"network_attachment": "a", "dns_peering_configs": [{"domain": "x."}]}},
            "psc_interface_config.dns_peering_configs[0].targetProject",
        ),
        (
            {"psc_interface_config": {"network_attachment": "a", "dns_peering_configs": DNS}},
            "psc_interface_config.dns_peering_configs",
        ),
        (
            {"worker_node_types": [{**WORKER, "reservation_affinity": {"reservationAffinityType": "MINE"}}]},
            "worker_node_types[0].reservation_affinity.reservationAffinityType",
        ),
        (
            {
                "worker_node_types": [
                    {**WORKER, "reservation_affinity": {"reservationAffinityType": "SPECIFIC_RESERVATION", "key": "k"}}
                ]
            },
            "worker_node_types[0].reservation_affinity.values",
        ),
        (
            {"worker_node_types": [{"reservation_affinity": {"reservationAffinityType": "ANY_RESERVATION"}}]},
            "worker_node_types[0].reservation_affinity",
        ),
    ],
)
def test_malformed_fields_are_rejected(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        spec(**fields)
    assert caught.value.field == field


def test_templates_pass_at_parse() -> None:
    scaling = {"idleTimeoutMinutes": "{{ params.minutes }}"}
    given = spec(display_name="{{ run_id }}", ray_cluster_autoscaling_spec=scaling)
    with pytest.raises(InvalidArgumentError, match="not rendered"):
        given.validate()
