"""Each check of the preflight, passing, failing, and not to be made, as the emulator's project is scripted."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.cluster_spec import AutoscalingSpec, ClusterSpec, NodeImages, Resources
from airflow_provider_vertex_ray.core.preflight.report import CHECKS
from airflow_provider_vertex_ray.errors import InvalidArgumentError, PreflightFailedError
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.preflight import VertexRayPreflightOperator
from tests.support.clusters import LOCATION, SPEC, start
from tests.support.tasks import TaskInstance, context_of, run_task

pytestmark = pytest.mark.usefixtures("in_time")

VPC = "projects/123456789012/global/networks/vpc"
ATTACHMENT = f"projects/demo-project/regions/{LOCATION}/networkAttachments/att"
KEY = f"projects/demo-project/locations/{LOCATION}/keyRings/ring/cryptoKeys/key"
ACCOUNT = "ray@demo-project.iam.gserviceaccount.com"
CPUS, T4S = "custom_model_training_cpus", "custom_model_training_nvidia_t4_gpus"
GPU = Resources("n1-standard-8", 2, "NVIDIA_TESLA_T4", 1)
GROWING = Resources("n1-standard-8", 2, "NVIDIA_TESLA_T4", 1, autoscaling_spec=AutoscalingSpec(2, 40))
GRANT = "gcloud projects add-iam-policy-binding demo-project --member=PRINCIPAL --role="
AI, COMPUTE = "aiplatform.googleapis.com", "compute.googleapis.com"
IMAGE = "us-docker.pkg.dev/my-project/ray/ray:1"
GONE_IMAGE = "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-33.py310:latest"


def preflight(spec: Any = SPEC, **more: Any) -> VertexRayPreflightOperator:
    return VertexRayPreflightOperator(**{"task_id": "preflight", "spec": spec, "location": LOCATION, **more})


def outcome(operator: VertexRayPreflightOperator) -> dict[str, Any]:
    """The report, which a failed task leaves as well."""
    ti = TaskInstance("preflight")
    failed: list[dict[str, str]] = []
    try:
        result: dict[str, Any] = run_task(operator, context_of(operator, ti))
    except PreflightFailedError as error:
        result, failed = ti.xcoms["return_value"], error.details["findings"]
    assert failed == [each for each in result["findings"] if each["status"] == "fail"]
    assert bool(failed) == (result["worst"] == "fail")
    return result


def findings(spec: Any = SPEC, *, check: str, **more: Any) -> list[dict[str, str]]:
    found = outcome(preflight(spec, checks=[check], **more))["findings"]
    assert {each["check"] for each in found} == {check}
    return list(found)


def spec(**fields: Any) -> ClusterSpec:
    return ClusterSpec(**fields)


# Check, fields of the spec, script of the project, index of the finding, status, and words of what is found and mends.
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str, str]] = [
    # --- spec and versions -----------------------------------------------------------------------------------------
    ("spec", {}, {}, "cluster", "pass", "2 nodes", ""),
    ("spec", {"worker_node_types": [GROWING]}, {}, "cluster", "pass", "3 to 41 nodes", ""),
    (
        "spec", {"head_node_type": Resources("n1-standard-8"), "allow_small_head": True}, {},
        "head_node_type.machine_type", "warn",
        "may never answer", "",
    ),
    ("versions", {}, {}, "Ray 2.47, Python 3.11", "pass", "available until 2027-07-28", ""),
    (
        "versions", {"custom_images": NodeImages(GONE_IMAGE, GONE_IMAGE)}, {}, "Ray 2.33, Python 3.10", "fail",
        "no longer available", 'ray_version="2.47"',
    ),
    ("versions", {"custom_images": NodeImages(IMAGE, IMAGE)}, {}, IMAGE, "could_not_check", "custom image", ""),
    ("versions", {"ray_version": "2.42"}, {}, "Ray Client", "warn", "Ray 2.42.0", "ray[client]==2.42.0"),
    # --- APIs ------------------------------------------------------------------------------------------------------
    ("apis", {}, {}, AI, "pass", "enabled", ""),
    (
        "apis", {}, {"services": {AI: "DISABLED"}}, AI, "fail", "disabled",
        "gcloud services enable aiplatform.googleapis.com --project=demo-project",
    ),
    ("apis", {"network": VPC}, {}, COMPUTE, "pass", "enabled", ""),
    (
        "apis", {"network": VPC}, {"services": {"servicenetworking.googleapis.com": "DISABLED"}},
        "servicenetworking.googleapis.com", "fail", "peering", "gcloud services enable servicenetworking",
    ),
    (
        "apis", {}, {"services": {"logging.googleapis.com": "DISABLED"}}, "logging.googleapis.com", "warn", "logs",
        "gcloud services enable logging",
    ),
    (
        "apis", {}, {"denied_permissions": ["serviceusage.services.get"]}, "project demo-project", "could_not_check",
        "lacks serviceusage.services.get", f"{GRANT}roles/serviceusage.serviceUsageViewer",
    ),
    (
        "apis", {}, {"services": {"serviceusage.googleapis.com": "DISABLED"}}, "project demo-project",
        "could_not_check", "serviceusage.googleapis.com is disabled",
        "gcloud services enable serviceusage.googleapis.com",
    ),
    # --- permissions -----------------------------------------------------------------------------------------------
    ("permissions", {}, {}, "project demo-project", "pass", "may create, get, list, delete, update", ""),
    (
        "permissions", {}, {"denied_permissions": ["aiplatform.persistentResources.create"]}, "project demo-project",
        "fail", "lacks aiplatform.persistentResources.create", f"{GRANT}roles/aiplatform.admin",
    ),
    (
        "permissions", {}, {"denied_permissions": ["aiplatform.persistentResources.get"]}, "project demo-project",
        "fail", "lacks aiplatform.persistentResources.get", f"{GRANT}roles/aiplatform.user",
    ),
    (
        "permissions", {}, {"denied_permissions": ["aiplatform.persistentResources.update"]}, "project demo-project",
        "warn", "cannot be resized", f"{GRANT}roles/aiplatform.admin",
    ),
    (
        "permissions", {}, {"services": {"cloudresourcemanager.googleapis.com": "DISABLED"}}, "project demo-project",
        "could_not_check", "cloudresourcemanager.googleapis.com is disabled",
        "gcloud services enable cloudresourcemanager",
    ),
    # --- service account -------------------------------------------------------------------------------------------
    ("service_account", {"service_account": ACCOUNT}, {}, ACCOUNT, "pass", "may run as it", ""),
    (
        "service_account", {"service_account": ACCOUNT},
        {"service_accounts": {ACCOUNT: {"denied_permissions": ["iam.serviceAccounts.actAs"]}}}, ACCOUNT, "fail",
        "lacks iam.serviceAccounts.actAs",
        f"gcloud iam service-accounts add-iam-policy-binding {ACCOUNT} --project=demo-project --member=PRINCIPAL "
        "--role=roles/iam.serviceAccountUser",
    ),
    (
        "service_account", {"service_account": ACCOUNT}, {"service_accounts": {ACCOUNT: None}}, ACCOUNT, "fail",
        "the service account does not exist", "gcloud iam service-accounts create ray --project=demo-project",
    ),
    (
        "service_account", {"service_account": ACCOUNT}, {"services": {"iam.googleapis.com": "DISABLED"}}, ACCOUNT,
        "could_not_check", "iam.googleapis.com is disabled", "gcloud services enable iam.googleapis.com",
    ),
    # --- quota -----------------------------------------------------------------------------------------------------
    ("quota", {"worker_node_types": [GPU]}, {}, T4S, "pass", "2 requested; limit 16, 0 used, 16 free", ""),
    (
        "quota", {"worker_node_types": [GPU]}, {"quota": {T4S: {LOCATION: {"limit": -1}}}}, T4S, "pass", "no limit", "",
    ),
    (
        "quota", {"worker_node_types": [GPU]}, {"quota": {T4S: {LOCATION: {"limit": 0}}}}, T4S, "fail",
        "the limit is too small", "https://console.cloud.google.com/apis/api/aiplatform.googleapis.com/quotas?project=",
    ),
    (
        "quota", {"worker_node_types": [GPU]}, {"quota": {T4S: {LOCATION: {"used": 15}}}}, T4S, "fail",
        "limit 16, 15 used, 1 free, in us-central1: too little is free", "VertexRayQuotaSensor",
    ),
    # Another region's use is no matter.
    ("quota", {"worker_node_types": [GPU]}, {"quota": {T4S: {"us-east1": {"used": 15}}}}, T4S, "pass", "16 free", ""),
    (
        "quota", {"worker_node_types": [GROWING]}, {}, T4S, "warn",
        "2 requested (up to 40 when autoscaled); limit 16, 0 used", "https://console.cloud.google.com/",
    ),
    (
        "quota", {}, {"denied_permissions": ["serviceusage.quotas.get"]}, CPUS, "could_not_check",
        "lacks serviceusage.quotas.get", f"{GRANT}roles/serviceusage.serviceUsageViewer",
    ),
    (
        "quota", {}, {"denied_permissions": ["monitoring.timeSeries.list"]}, CPUS, "could_not_check",
        "limit 2200, in us-central1; the caller lacks monitoring.timeSeries.list", f"{GRANT}roles/monitoring.viewer",
    ),
    (
        # A limit that is too small anyway needs no use.
        "quota", {}, {"denied_permissions": ["monitoring.timeSeries.list"], "quota": {CPUS: {LOCATION: {"limit": 8}}}},
        CPUS, "fail", "the limit is too small", "https://console.cloud.google.com/",
    ),
    # --- machines --------------------------------------------------------------------------------------------------
    (
        "machines", {"worker_node_types": [GPU]}, {}, "n1-standard-8+NVIDIA_TESLA_T4", "pass",
        "us-central1-a, us-central1-b, us-central1-c", "",
    ),
    (
        "machines", {}, {"missing_types": {"us-central1-a": ["n1-standard-16"]}}, "n1-standard-16", "pass",
        "has it in us-central1-b, us-central1-c;", "",
    ),
    (
        "machines", {}, {"missing_types": {LOCATION: ["n1-standard-16"]}}, "n1-standard-16", "fail",
        "no zone of us-central1 has n1-standard-16", "gcloud compute machine-types list --project=demo-project",
    ),
    (
        "machines", {"worker_node_types": [GPU]}, {"missing_types": {LOCATION: ["NVIDIA_TESLA_T4"]}},
        "n1-standard-8+NVIDIA_TESLA_T4", "fail", "has nvidia-tesla-t4 and n1-standard-8",
        "gcloud compute accelerator-types list",
    ),
    (
        # Each is there, but nowhere both.
        "machines", {"worker_node_types": [GPU]},
        {"missing_types": {"us-central1-a": ["n1-standard-8"], "us-central1-b": ["NVIDIA_TESLA_T4"],
                           "us-central1-c": ["NVIDIA_TESLA_T4"]}},
        "n1-standard-8+NVIDIA_TESLA_T4", "fail", "has nvidia-tesla-t4 and n1-standard-8", "accelerator-types list",
    ),
    (
        "machines", {}, {"denied_permissions": ["compute.machineTypes.list"]}, "n1-standard-16", "could_not_check",
        "lacks compute.machineTypes.list", f"{GRANT}roles/compute.viewer",
    ),
    (
        "machines", {"worker_node_types": [GPU]}, {"denied_permissions": ["compute.acceleratorTypes.list"]},
        "n1-standard-8+NVIDIA_TESLA_T4", "could_not_check", "lacks compute.acceleratorTypes.list",
        f"{GRANT}roles/compute.viewer",
    ),
    (
        "machines", {}, {"services": {COMPUTE: "DISABLED"}}, "n1-standard-16", "could_not_check",
        "compute.googleapis.com is disabled", "gcloud services enable compute.googleapis.com",
    ),
    # --- network ---------------------------------------------------------------------------------------------------
    ("network", {"network": VPC}, {"networks": {"vpc": {}}}, VPC, "pass", "peered", ""),
    ("network", {}, {}, "cluster", "pass", "does not apply", ""),
    (
        "network", {"network": VPC}, {"networks": {"vpc": {"peerings": []}}}, VPC, "fail", "not peered",
        "gcloud services vpc-peerings connect --service=servicenetworking.googleapis.com --network=vpc --ranges=RANGE "
        "--project=123456789012",
    ),
    (
        "network", {"network": VPC, "reserved_ip_ranges": ["mine"]},
        {"networks": {"vpc": {"peerings": [{"name": "servicenetworking-googleapis-com", "state": "INACTIVE"}]}}},
        VPC, "fail", "INACTIVE", "--ranges=mine",
    ),
    (
        # A peering with somebody else is none with Google's services.
        "network", {"network": VPC}, {"networks": {"vpc": {"peerings": [{"name": "other", "state": "ACTIVE"}]}}},
        VPC, "fail", "not peered", "vpc-peerings connect",
    ),
    ("network", {"network": VPC}, {}, VPC, "fail", "the network does not exist", "gcloud compute networks create vpc"),
    (
        "network", {"network": VPC}, {"denied_permissions": ["compute.networks.get"]}, VPC, "could_not_check",
        "lacks compute.networks.get",
        "gcloud projects add-iam-policy-binding 123456789012 --member=PRINCIPAL --role=roles/compute.networkViewer",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": "att"}},
        {"network_attachments": {f"{LOCATION}/att": {}}}, "att", "pass", "exists", "",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": ATTACHMENT}},
        {"network_attachments": {f"{LOCATION}/att": {}}}, ATTACHMENT, "pass", "exists", "",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": "att"}},
        {"network_attachments": {f"{LOCATION}/att": {}}}, "service agent", "pass", "may use the network attachment", "",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": "att"}},
        {"network_attachments": {f"{LOCATION}/att": {}}, "policy": {"roles/aiplatform.serviceAgent": []}},
        "service agent", "warn", "has no known role in project demo-project",
        "--member=serviceAccount:service-123456789012@gcp-sa-aiplatform.iam.gserviceaccount.com"
        " --role=roles/compute.networkAdmin",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": "att"}},
        {
            "network_attachments": {f"{LOCATION}/att": {}},
            "denied_permissions": ["resourcemanager.projects.getIamPolicy"],
        },
        "service agent", "could_not_check", "lacks resourcemanager.projects.getIamPolicy",
        f"{GRANT}roles/iam.securityReviewer",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": "att"}}, {}, "att", "fail",
        "the network attachment does not exist", f"gcloud compute network-attachments create att --region={LOCATION}",
    ),
    (
        "network", {"psc_interface_config": {"network_attachment": "att"}},
        {"denied_permissions": ["compute.networkAttachments.get"]}, "att", "could_not_check",
        "lacks compute.networkAttachments.get", f"{GRANT}roles/compute.networkViewer",
    ),
    # --- encryption key --------------------------------------------------------------------------------------------
    (
        "encryption_key", {"encryption_spec_key_name": KEY}, {"crypto_keys": {f"{LOCATION}/ring/key": "ENABLED"}}, KEY,
        "pass", "enabled", "",
    ),
    (
        "encryption_key", {"encryption_spec_key_name": KEY}, {"crypto_keys": {f"{LOCATION}/ring/key": "DISABLED"}}, KEY,
        "fail", "DISABLED, not ENABLED", "gcloud kms keys versions enable",
    ),
    (
        "encryption_key", {"encryption_spec_key_name": KEY}, {}, KEY, "fail", "the key does not exist",
        f"gcloud kms keys create key --keyring=ring --location={LOCATION} --project=demo-project --purpose=encryption",
    ),
    (
        "encryption_key", {"encryption_spec_key_name": KEY}, {"denied_permissions": ["cloudkms.cryptoKeys.get"]}, KEY,
        "could_not_check", "lacks cloudkms.cryptoKeys.get", f"{GRANT}roles/cloudkms.viewer",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "fields", "script", "subject", "status", "found", "remedy"), CASES, ids=str)
def test_a_check(
    fake_emulator: EmulatorProcess,
    check: str,
    fields: dict[str, Any],
    script: dict[str, Any],
    subject: str,
    status: str,
    found: str,
    remedy: str,
) -> None:
    fake_emulator.admin("PUT", "project", script)
    (finding,) = (each for each in findings(spec(**fields), check=check) if each["subject"] == subject)
    assert finding["status"] == status
    assert found in finding["found"]
    assert remedy in finding["remedy"]
    assert bool(remedy) == bool(finding["remedy"])


def test_each_check_is_seen_passing_failing_and_not_to_be_made() -> None:
    # The bucket has tests of its own; a spec that is wrong never gets as far as the check of it.
    seen = {(check, status) for check, _, _, _, status, _, _ in CASES}
    remote = set(CHECKS) - {"spec", "versions", "bucket"}
    assert {(check, status) for check in remote for status in ("pass", "fail", "could_not_check")} <= seen
    assert {("spec", "pass"), ("spec", "warn"), ("versions", "pass"), ("versions", "fail")} <= seen


@pytest.mark.parametrize("arguments", [{"bucket": "{bucket}"}, {"lease_uri": "gs://{bucket}/leases"}], ids=str)
def test_a_bucket(fake_emulator: EmulatorProcess, storage: StorageEmulator, arguments: dict[str, str]) -> None:
    def of(bucket: str) -> dict[str, str]:
        (finding,) = findings(check="bucket", **{name: uri.format(bucket=bucket) for name, uri in arguments.items()})
        return finding

    assert of(storage.bucket)["status"] == "pass"
    missing = of("no-such-bucket")
    assert (missing["status"], missing["found"]) == ("fail", "the bucket does not exist")
    assert missing["remedy"] == (
        f"gcloud storage buckets create gs://no-such-bucket --location={LOCATION} --project=demo-project"
    )
    assert storage.names() == []


def test_a_bucket_without_a_storage_emulator(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    (finding,) = findings(check="bucket", bucket="my-bucket")
    assert finding["status"] == "could_not_check"
    assert "STORAGE_EMULATOR_HOST" in finding["found"]


def test_without_a_word_all_is_well_and_nothing_is_changed(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    everything = spec(network=VPC, service_account=ACCOUNT, encryption_spec_key_name=KEY)
    fake_emulator.admin("PUT", "project", {"networks": {"vpc": {}}, "crypto_keys": {f"{LOCATION}/ring/key": "ENABLED"}})
    result = outcome(preflight(everything, bucket=storage.bucket, lease_uri=storage.uri))
    # With a peered network and its own account the Ray Client does not work, which is a warning of the spec. Whether
    # its version would fit depends on this environment's Ray and Python.
    states = Counter(each["status"] for each in result["findings"] if each["subject"] != "Ray Client")
    assert states == {"warn": 1, "pass": len(result["findings"]) - 2}
    assert list(dict.fromkeys(each["check"] for each in result["findings"])) == list(CHECKS)
    reads = {"GetToken", "BatchGetServices", "TestIamPermissions", "TestServiceAccountPermissions", "GetCryptoKey",
             "GetConsumerQuotaMetric", "ListTimeSeries", "AggregatedListMachineTypes", "GetNetwork"}  # fmt: skip
    assert {call["method"] for call in fake_emulator.calls()} == reads
    assert storage.names() == []
    assert json.loads(json.dumps(result)) == result


def test_what_runs_already_is_counted(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    # 16 + 2 x 8 vCPUs are used by the cluster, and as many are asked for.
    fake_emulator.admin("PUT", "project", {"quota": {CPUS: {LOCATION: {"limit": 63}}}})
    (finding,) = findings(check="quota")
    assert (finding["status"], finding["found"]) == (
        "fail",
        "32 requested; limit 63, 32 used, 31 free, in us-central1: too little is free",
    )
    fake_emulator.admin("DELETE", "clusters")
    (finding,) = findings(check="quota")
    assert finding["status"] == "pass"


def test_the_log_has_the_table_and_the_error_names_what_failed(
    fake_emulator: EmulatorProcess, task_log: list[str]
) -> None:
    denied = [f"aiplatform.persistentResources.{verb}" for verb in ("create", "delete")]
    quota = {CPUS: {LOCATION: {"limit": 8}}}
    missing = {LOCATION: ["n1-standard-16", "n1-standard-8"]}
    fake_emulator.admin("PUT", "project", {"denied_permissions": denied, "quota": quota, "missing_types": missing})
    with pytest.raises(PreflightFailedError) as caught:
        run_task(preflight())
    text = str(caught.value)
    assert "4 of " in text
    assert "permissions: project demo-project: lacks aiplatform.persistentResources.create" in text
    assert "and 1 more" in text
    assert "includes the command that fixes it" in text
    begin = next(place for place, line in enumerate(task_log) if line.startswith("status  "))
    heading, *lines = task_log[begin:]
    assert heading.split() == ["status", "check", "subject", "found"]
    column = heading.index("found")
    assert all(line[column - 2 : column] == "  " for line in lines if not line.startswith(" "))
    assert any("-> gcloud projects add-iam-policy-binding demo-project" in line for line in lines)


def test_only_a_fail_fails_the_task(fake_emulator: EmulatorProcess) -> None:
    fake_emulator.admin(
        "PUT",
        "project",
        {"services": {"serviceusage.googleapis.com": "DISABLED", "logging.googleapis.com": "DISABLED"}},
    )
    result = outcome(preflight())
    assert result["worst"] == "could_not_check"
    assert result["counts"]["could_not_check"] == 2


def test_a_service_that_does_not_answer(fake_emulator: EmulatorProcess, quick_retries: None) -> None:
    for method in ("BatchGetServices", "ListTimeSeries", "TestIamPermissions"):
        fake_emulator.admin(
            "POST",
            "faults",
            {"scope": "control_plane", "method": method, "action": "status", "status": 503, "times": None},
        )
    by_check = {each["check"]: each for each in outcome(preflight())["findings"]}
    for check in ("apis", "permissions", "quota"):
        assert by_check[check]["status"] == "could_not_check", check
        assert "no answer: " in by_check[check]["found"]
        assert by_check[check]["remedy"] == "Run the preflight again in a few minutes."
    assert by_check["machines"]["status"] == "pass"


def test_credentials_that_are_refused(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="auth", action="status", status=401, times=None):
        found = outcome(preflight())["findings"]
    by_check = {each["check"]: each for each in found}
    assert by_check["permissions"]["status"] == "could_not_check"
    assert "access denied: " in by_check["permissions"]["found"]


def test_no_credentials_at_all(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    # A port at which nobody listens.
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "127.0.0.1:9")
    found = outcome(preflight())["findings"]
    assert (found[0]["check"], found[0]["status"]) == ("credentials", "fail")
    assert found[0]["remedy"] == "vertex-ray-emulator start"
    remote = [each for each in found[1:] if each["check"] not in ("spec", "versions")]
    assert {each["status"] for each in remote} == {"could_not_check"}


def test_the_link_has_its_project(fake_emulator: EmulatorProcess) -> None:
    operator = preflight()
    ti = TaskInstance("preflight")
    run_task(operator, context_of(operator, ti))
    assert ti.xcoms[LINK_KEY] == {
        "project_id": "demo-project",
        "location": LOCATION,
        "emulator": fake_emulator.host,
    }


def test_templates_in_the_spec(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    fields = {"worker_node_types": [{"machine_type": "{{ machine }}", "node_count": "{{ nodes }}"}]}
    operator = preflight(fields, bucket="{{ bucket }}", lease_uri="{{ nothing }}", location="{{ region }}")
    context = context_of(operator, machine="n2-standard-4", nodes=3, bucket=storage.bucket, nothing="", region=LOCATION)
    found = run_task(operator, context)["findings"]
    metrics = {each["subject"]: each["found"] for each in found if each["check"] == "quota"}
    assert metrics["custom_model_training_n2_cpus"].startswith("12 requested")
    assert [each["subject"] for each in found if each["check"] == "bucket"] == [f"gs://{storage.bucket}"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"spec": {"worker_node_types": []}}, "worker_node_types"),
        ({"spec": 3}, "spec"),
        ({"spec": {"ray_version": "2.9"}}, "ray_version"),
        (
            {"spec": {"psc_interface_config": {"network_attachment": ATTACHMENT.replace(LOCATION, "us-east1")}}},
            "psc_interface_config.network_attachment",
        ),
        ({"checks": ["everything"]}, "checks"),
        ({"checks": []}, "checks"),
        ({"bucket": "No Bucket"}, "bucket"),
        ({"bucket": ""}, "bucket"),
        ({"lease_uri": "s3://bucket/leases"}, "lease_uri"),
        ({"location": "us-central1-a"}, "location"),
        ({"spec": {"encryption_spec_key_name": KEY.replace(LOCATION, "us-east1")}}, "encryption_spec_key_name"),
        ({"spec": {"ray_version": "{{ nothing }}"}}, "ray_version"),
        ({"bucket": "{{ odd }}"}, "bucket"),
    ],
    ids=str,
)
def test_wrong_input_is_refused_before_any_call(
    fake_emulator: EmulatorProcess, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        operator = preflight(**arguments)
        run_task(operator, context_of(operator, nothing="", odd="a b"))
    assert caught.value.field == field
    assert fake_emulator.calls() == []


def test_each_finding_is_logged_at_its_own_level(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("tests.preflight")
    monkeypatch.setattr(VertexRayBaseOperator, "log", logger, raising=False)
    quota = {CPUS: {LOCATION: {"limit": 1, "used": 0}}}
    fake_emulator.admin("PUT", "project", {"quota": quota, "denied_permissions": ["serviceusage.services.get"]})
    with caplog.at_level(logging.INFO, logger.name):
        outcome(preflight(checks=["spec", "apis", "quota"]))
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.funcName == "execute"]
    levels = {"fail": "ERROR", "could_not_check": "WARNING", "pass": "INFO", "status": "INFO"}
    assert {line.split()[0] for _, line in said} - {"->"} == set(levels)
    last = ""
    for level, line in said:
        # A remedy has the level of its finding.
        last = last if line.split()[0] == "->" else levels[line.split()[0]]
        assert level == last
