"""The profile ``google``: what reports of the service say, and how each trait is turned off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, cluster_body, until
from vertex_ray_emulator.profile import TRAITS, traits_of
from vertex_ray_emulator.project import recorded_texts
from vertex_ray_emulator.project.quota_metrics import METRICS
from vertex_ray_emulator.project.recorded_texts import RecordedText, quota_name
from vertex_ray_emulator.settings import Settings

QUICK = ["--backend", "fake", "--provisioning-seconds", "0", "--leak-seconds", "3600"]


@pytest.fixture(scope="module")
def google_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    with EmulatorProcess(tmp_path_factory.mktemp("google"), QUICK) as process:
        yield process


@pytest.fixture(scope="module")
def lenient_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    with EmulatorProcess(tmp_path_factory.mktemp("lenient"), [*QUICK, "--profile", "lenient"]) as process:
        yield process


@pytest.fixture
def lenient(lenient_process: EmulatorProcess) -> Iterator[EmulatorProcess]:
    yield lenient_process
    lenient_process.reset()


@pytest.fixture
def google(google_process: EmulatorProcess) -> Iterator[EmulatorProcess]:
    yield google_process
    google_process.reset()


def dashboard(cluster: dict[str, Any]) -> str:
    return "/" + str(cluster["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"]).split("/", 1)[1]


def readiness(emulator: EmulatorProcess) -> list[str]:
    return [cluster["dashboard"] for cluster in emulator.admin("GET", "clusters")["clusters"]]


def test_profiles() -> None:
    assert traits_of("lenient") == frozenset()
    assert traits_of("google") == frozenset(TRAITS)
    assert Settings().traits == frozenset(TRAITS), "google is the default"
    assert Settings(without=("warmup",)).traits == frozenset(TRAITS) - {"warmup"}
    assert Settings(without=("warmup",)).warmup_seconds == 0
    assert Settings().warmup_seconds == 2
    assert Settings(dashboard_warmup_seconds=7).warmup_seconds == 7
    assert Settings(profile="lenient").warmup_seconds == 0
    for wrong in ({"profile": "dark"}, {"without": ("websockets",)}):
        with pytest.raises(ValueError, match=f"Invalid value for {next(iter(wrong))}"):
            Settings(**wrong)  # type: ignore[arg-type]


def first_answers(emulator: EmulatorProcess) -> list[str | int]:
    """Return the readiness of a new cluster's dashboard, and its different answers until it is ready, in order."""
    path, token = dashboard(emulator.create("c1", ready=False)) + "/api/version", emulator.token()
    seen: list[str | int] = [*readiness(emulator)]

    def look() -> bool:
        status = emulator.request("GET", path, token=token)[0]
        if status not in seen[-1:]:
            seen.append(status)
        return status == 200

    until(look)
    assert readiness(emulator) == ["ready"]
    return seen


def test_dashboard_answers_524_then_401_and_403_then_200(tmp_path: Path) -> None:
    expected = ["warming", 524, 401, 403, 200]
    # On a busy machine, an answer that is given for half a second may not be seen.
    for seconds in (0.5, 4.0, 30.0):
        arguments = [*QUICK, "--dashboard-warmup-seconds", f"{seconds}", "--permission-seconds", f"{2 * seconds}"]
        with EmulatorProcess(tmp_path / f"{seconds}", arguments) as emulator:
            seen = first_answers(emulator)
        if seen == expected:
            break
        left = iter(expected)
        assert all(each in left for each in seen if each != "ready"), seen
    assert seen == expected


def test_small_head_has_a_dead_dashboard(google: EmulatorProcess) -> None:
    dead: dict[str, str] = {}
    for machine in ("n1-standard-8", "n1-highcpu-16", "n1-highmem-8", "e2-highcpu-16"):
        small = cluster_body()
        small["resourcePools"][0]["machineSpec"]["machineType"] = machine
        dead[machine] = dashboard(google.create(machine, small))
    alive = dashboard(google.create("large"))
    token = google.token()
    until(lambda: google.request("GET", f"{alive}/api/version", token=token)[0] == 200)
    statuses = {machine: google.request("GET", f"{path}/api/version", token=token)[0] for machine, path in dead.items()}
    assert statuses == dict.fromkeys(dead, 524)
    assert sorted(readiness(google)) == [*["dead"] * len(dead), "ready"]


def failed_create(
    emulator: EmulatorProcess, outcome: str, body: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    with emulator.fault(scope="provisioning", outcome=outcome, **more):
        _, operation = emulator.api("POST", "persistentResources?persistentResourceId=c1", body or cluster_body())
        return dict(emulator.wait(operation)["error"])


def test_failed_create_leaks(google: EmulatorProcess, emulator: EmulatorProcess) -> None:
    error = failed_create(google, "stockout")
    assert error["message"] == (
        "Region us-central1 does not have enough resources available to fulfill the request. "
        "Please try a different region."
    )
    status, leaked = google.api("GET", "persistentResources/c1")
    assert (status, leaked["state"]) == (200, "PROVISIONING")
    assert google.api("GET", "persistentResources")[1] == {}
    status, refused = google.api("DELETE", "persistentResources/c1")
    assert status == 400
    assert "being created thus can not be deleted now" in refused["error"]["message"]
    status, refused = google.api("POST", "persistentResources?persistentResourceId=c1", cluster_body())
    assert status == 409
    assert 'existing PersistentResource with the same ID "c1"' in refused["error"]["message"]
    # The other emulator has the same profile, and what leaks there is soon in ERROR.
    assert failed_create(emulator, "stockout") == error
    until(lambda: emulator.api("GET", "persistentResources/c1")[1]["state"] == "ERROR")
    assert emulator.api("GET", "persistentResources/c1")[1]["error"]["message"] == error["message"]
    assert len(emulator.api("GET", "persistentResources")[1]["persistentResources"]) == 1
    assert emulator.api("DELETE", "persistentResources/c1")[0] == 200


def test_leak_is_an_outcome_of_its_own(lenient: EmulatorProcess) -> None:
    assert failed_create(lenient, "leak", delay=3600.0)["code"] == 13
    assert lenient.api("GET", "persistentResources/c1")[1]["state"] == "PROVISIONING"
    lenient.admin("DELETE", "clusters")
    assert failed_create(lenient, "leak", delay=0.1)["code"] == 13
    until(lambda: lenient.api("GET", "persistentResources/c1")[1]["state"] == "ERROR")


def test_quota_has_its_recorded_text(google: EmulatorProcess) -> None:
    body = cluster_body()
    spec = body["resourcePools"][1]["machineSpec"]
    spec.update(machineType="n1-standard-16", acceleratorType="NVIDIA_TESLA_T4", acceleratorCount=1)
    text = "The following quotas are exceeded: CustomModelTrainingT4GPUsPerProjectPerRegion"
    assert failed_create(google, "quota", body)["message"] == text
    google.admin("DELETE", "clusters")
    limits = {"custom_model_training_nvidia_t4_gpus": {"us-central1": {"limit": 0}}}
    google.admin("PUT", "project", {"quota": limits})
    _, operation = google.api("POST", "persistentResources?persistentResourceId=c1", body)
    assert google.wait(operation)["error"]["message"] == text


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ("quota", "metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus"),
        ("stockout", "Resources are insufficient in region: us-central1."),
    ],
)
def test_lenient_profile_has_the_texts_of_custom_jobs(lenient: EmulatorProcess, outcome: str, text: str) -> None:
    assert text in failed_create(lenient, outcome)["message"]
    assert lenient.api("GET", "persistentResources/c1")[1]["state"] == "ERROR"


def test_recorded_texts_have_sources() -> None:
    texts = [each for each in vars(recorded_texts).values() if isinstance(each, RecordedText)]
    assert len(texts) == 8
    assert all(each.source[0] in "FDI" and each.source[1] == ":" for each in texts)
    assert quota_name("custom_model_training_cpus") == "CustomModelTrainingCPUsPerProjectPerRegion"
    assert len({quota_name(metric) for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("trait", ["warmup", "late-permissions", "small-heads"])
def test_trait_can_be_turned_off(tmp_path_factory: pytest.TempPathFactory, trait: str) -> None:
    off = {"warmup": 524, "late-permissions": 403, "small-heads": 524}[trait]
    arguments = [*QUICK, "--dashboard-warmup-seconds", "0.3", "--without", trait]
    if trait == "warmup":
        arguments = [*QUICK, "--without", trait]
    with EmulatorProcess(tmp_path_factory.mktemp("without"), arguments) as emulator:
        body = cluster_body()
        if trait == "small-heads":
            body["resourcePools"][0]["machineSpec"]["machineType"] = "n1-standard-8"
        path, token = dashboard(emulator.create("c1", body, ready=False)) + "/api/version", emulator.token()
        seen: list[int] = []

        def look() -> bool:
            seen.append(emulator.request("GET", path, token=token)[0])
            return seen[-1] == 200

        until(look)
        assert trait == "small-heads" or off not in seen
        assert seen[-1] == 200


def refused(emulator: EmulatorProcess, body: dict[str, Any]) -> str:
    status, answer = emulator.api("POST", "persistentResources?persistentResourceId=c1", body)
    if status == 200:
        emulator.admin("DELETE", "clusters")
        return ""
    return str(answer["error"]["message"])


def with_worker(machine_type: str, machine: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    body = cluster_body()
    pool = body["resourcePools"][1]
    pool["machineSpec"] = {"machineType": machine_type, **(machine or {})}
    pool.update(more)
    return body


def test_specs_that_the_service_may_refuse(google: EmulatorProcess, lenient: EmulatorProcess) -> None:
    reserved = with_worker(
        "n1-standard-16", machine={"reservationAffinity": {"reservationAffinityType": "ANY_RESERVATION"}}
    )
    h200 = {"acceleratorType": "NVIDIA_H200_141GB", "acceleratorCount": 8}
    wrong_disk = with_worker("a3-ultragpu-8g", machine=h200)
    mixed = with_worker("n1-standard-16", autoscalingSpec={"minReplicaCount": 0, "maxReplicaCount": 2})
    mixed["resourcePools"][1].pop("replicaCount")
    mixed["resourcePools"].append({**cluster_body()["resourcePools"][1], "id": "worker-pool2"})
    images = mixed["resourceRuntimeSpec"]["raySpec"]["resourcePoolImages"]
    images["worker-pool2"] = images["worker-pool1"]
    for body, words in (
        (reserved, "Reservation affinity is not supported yet for persistent clusters"),
        (wrong_disk, "'pd-ssd' cannot be used with a3-ultragpu-8g"),
        (mixed, "autoscaling_spec must be set for all worker pools or for none"),
    ):
        assert words in refused(google, body)
        assert refused(lenient, body) == ""


def test_disks_and_machines_of_the_api(google: EmulatorProcess) -> None:
    h200 = {"acceleratorType": "NVIDIA_H200_141GB", "acceleratorCount": 8}
    body = with_worker("a3-ultragpu-8g", machine=h200, diskSpec={})
    assert google.create("c1", body)["resourcePools"][1]["diskSpec"]["bootDiskType"] == "hyperdisk-balanced"
    disk = {"bootDiskType": "hyperdisk-balanced", "bootDiskSizeGb": 100}
    gb200 = {"acceleratorType": "NVIDIA_GB200", "acceleratorCount": 4}
    assert google.create("c2", with_worker("a4x-highgpu-4g", machine=gb200, diskSpec=disk))["state"] == "RUNNING"


def test_what_must_be_in_the_clusters_region(google: EmulatorProcess) -> None:
    key = "projects/p/locations/{}/keyRings/r/cryptoKeys/k"
    attachment = "projects/p/regions/{}/networkAttachments/a"
    for region, words in (("us-central1", ""), ("europe-west4", "must be in the region of the resource, us-central1")):
        for body in (
            cluster_body(encryptionSpec={"kmsKeyName": key.format(region)}),
            cluster_body(pscInterfaceConfig={"networkAttachment": attachment.format(region)}),
        ):
            assert words in refused(google, body)
            assert bool(refused(google, body)) == bool(words)


def test_start_of_a_cluster_takes_its_time(google: EmulatorProcess) -> None:
    begin = time.monotonic()
    with google.fault(scope="provisioning", outcome="slow", delay=1.0):
        google.create("c1")
    assert time.monotonic() - begin >= 1.0
