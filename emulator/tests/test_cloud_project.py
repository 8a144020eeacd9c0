"""The project, through Google's discovery clients: services, quotas, permissions, networks, machine types, keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from emulator_support.cloud_clients import discovery, http_error, list_entries
from emulator_support.process import EmulatorProcess, cluster_body
from googleapiclient.errors import HttpError
from vertex_ray_emulator.project.quota_metrics import METRICS

P = "projects/demo-project"
CPUS = "custom_model_training_cpus"
KEY = f"{P}/locations/us-central1/keyRings/ring/cryptoKeys/key"


@pytest.fixture
def project(emulator: EmulatorProcess) -> Iterator[Callable[..., Any]]:
    """Return a function that scripts the project for one test."""
    yield lambda **script: emulator.admin("PUT", "project", script)
    emulator.admin("DELETE", "project")


def refused(call: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(HttpError) as caught:
        call.execute()
    return http_error(caught.value)


def batch(emulator: EmulatorProcess, *names: str) -> Any:
    services = discovery(emulator, "serviceusage", "v1").services()
    return services.batchGet(parent=P, names=[f"{P}/services/{name}" for name in names])


@pytest.mark.sdk
def test_services(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    project(services={"compute.googleapis.com": "DISABLED"})
    found = batch(emulator, "aiplatform.googleapis.com", "compute.googleapis.com").execute()["services"]
    assert [each["state"] for each in found] == ["ENABLED", "DISABLED"]
    assert found[0]["name"] == "projects/123456789012/services/aiplatform.googleapis.com"
    assert found[0]["config"]["name"] == "aiplatform.googleapis.com"
    services = discovery(emulator, "serviceusage", "v1").services()
    assert services.get(name=f"{P}/services/compute.googleapis.com").execute()["state"] == "DISABLED"
    listed = services.list(parent=P, filter="state:ENABLED").execute()["services"]
    names = [each["config"]["name"] for each in listed]
    assert "aiplatform.googleapis.com" in names
    assert "compute.googleapis.com" not in names
    assert refused(services.get(name=f"{P}/services/nonsense"))[0] == 403
    assert refused(batch(emulator, *["a.googleapis.com"] * 31))[0] == 400
    # The catalogue of prices has a similar path, which the emulator does not serve.
    assert emulator.request("GET", "/v1/services/C7E2-9256-1C43/skus", token=emulator.token())[0] == 404


@pytest.mark.sdk
def test_policy_of_the_project(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    agent = "serviceAccount:service-123456789012@gcp-sa-aiplatform.iam.gserviceaccount.com"
    own = {"role": "roles/aiplatform.serviceAgent", "members": [agent]}
    manager = discovery(emulator, "cloudresourcemanager", "v1").projects()
    assert manager.get(projectId="demo-project").execute()["projectNumber"] == "123456789012"
    assert manager.getIamPolicy(resource="demo-project", body={}).execute()["bindings"] == [own]
    project(policy={"roles/compute.networkAdmin": [agent], own["role"]: []})
    granted = {"role": "roles/compute.networkAdmin", "members": [agent]}
    assert manager.getIamPolicy(resource="123456789012", body={}).execute()["bindings"] == [granted]


@pytest.mark.sdk
def test_disabled_service_refuses_requests(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    hosts = ("compute", "logging", "aiplatform")
    project(services={f"{host}.googleapis.com": "DISABLED" for host in hosts})
    status, error = refused(discovery(emulator, "compute", "v1").networks().get(project="demo-project", network="x"))
    assert (status, error["status"]) == (403, "PERMISSION_DENIED")
    assert "has not been used in project 123456789012 before or it is disabled. Enable it by" in error["message"]
    assert error["details"][0]["reason"] == "SERVICE_DISABLED"
    assert error["errors"][0]["reason"] == "accessNotConfigured"
    status, answer = list_entries(emulator)
    assert answer["error"]["details"][0]["metadata"]["service"] == "logging.googleapis.com"
    status, answer = emulator.api("GET", "persistentResources")
    assert (status, answer["error"]["details"][0]["reason"]) == (403, "SERVICE_DISABLED")


def quota(emulator: EmulatorProcess, metric: str, region: str) -> dict[str, Any]:
    metrics = discovery(emulator, "serviceusage", "v1beta1").services().consumerQuotaMetrics()
    name = f"{P}/services/aiplatform.googleapis.com/consumerQuotaMetrics/aiplatform.googleapis.com%2F{metric}"
    found = metrics.get(name=name).execute()
    assert found["metric"] == f"aiplatform.googleapis.com/{metric}"
    (limit,) = found["consumerQuotaLimits"]
    assert limit["unit"] == "1/{project}/{region}"
    general, *regional = limit["quotaBuckets"]
    assert "dimensions" not in general
    return dict(next((each for each in regional if each["dimensions"] == {"region": region}), general))


@pytest.mark.sdk
def test_quotas(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    project(quota={CPUS: {"us-central1": {"limit": 100, "used": 90}}})
    assert quota(emulator, CPUS, "us-central1")["effectiveLimit"] == "100"
    assert quota(emulator, CPUS, "us-east1")["effectiveLimit"] == "2200"
    assert quota(emulator, "custom_model_training_nvidia_h100_gpus", "us-east1")["effectiveLimit"] == "16"

    metrics = discovery(emulator, "serviceusage", "v1beta1").services().consumerQuotaMetrics()
    request, found = metrics.list(parent=f"{P}/services/aiplatform.googleapis.com", pageSize=7), []
    while request is not None:
        answer = request.execute()
        found += [each["metric"].split("/")[1] for each in answer["metrics"]]
        request = metrics.list_next(request, answer)
    assert found == list(METRICS)
    assert {f"custom_model_training_{name}" for name in ("n2_cpus", "g2_cpus", "a2_cpus", "a3_cpus")} <= set(found)
    gpus = ("t4", "l4", "v100", "p100", "p4", "a100", "a100_80gb", "h100")
    assert {f"custom_model_training_nvidia_{name}_gpus" for name in gpus} <= set(found)


def test_create_and_resize_beyond_scripted_limit_fail(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    project(quota={CPUS: {"us-central1": {"limit": 64, "used": 16}}})
    assert emulator.create("fits", cluster_body(2))["state"] == "RUNNING"
    too_big = emulator.create("too-big", cluster_body(1))
    text = "The following quotas are exceeded: CustomModelTrainingCPUsPerProjectPerRegion"
    assert too_big["state"] == "ERROR"
    assert too_big["error"] == {"code": 8, "message": text}
    mask = "?updateMask=resourcePools.replicaCount"
    done = emulator.wait(emulator.api("PATCH", "persistentResources/fits" + mask, cluster_body(3))[1])
    assert done["error"]["message"] == text
    done = emulator.wait(emulator.api("PATCH", "persistentResources/fits" + mask, cluster_body(1))[1])
    assert "error" not in done
    # Above the limit, a cluster can still be made smaller.
    assert emulator.wait(emulator.api("PATCH", "persistentResources/fits" + mask, cluster_body(2))[1])["done"]
    project(quota={CPUS: {"us-central1": {"limit": 1}}})
    done = emulator.wait(emulator.api("PATCH", "persistentResources/fits" + mask, cluster_body(1))[1])
    assert "error" not in done


@pytest.mark.sdk
def test_permissions(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    create, get = "aiplatform.persistentResources.create", "aiplatform.persistentResources.get"
    act = "iam.serviceAccounts.actAs"
    accounts = {"mine@p.iam.gserviceaccount.com": {"denied_permissions": [act]}, "gone@p.iam.gserviceaccount.com": None}
    project(denied_permissions=[create, "iam.serviceAccounts.get"], service_accounts=accounts)
    manager = discovery(emulator, "cloudresourcemanager", "v1").projects()
    request = manager.testIamPermissions(resource="demo-project", body={"permissions": [create, get]})
    assert request.execute() == {"permissions": [get]}
    assert refused(manager.testIamPermissions(resource="demo-project", body={"permissions": ["nonsense"]}))[0] == 400
    status, answer = emulator.api("POST", "persistentResources?persistentResourceId=x", cluster_body())
    assert status == 403
    assert create in answer["error"]["message"]

    of_accounts = discovery(emulator, "iam", "v1").projects().serviceAccounts()

    def test(email: str, where: str = "-") -> Any:
        name = f"projects/{where}/serviceAccounts/{email}"
        return of_accounts.testIamPermissions(resource=name, body={"permissions": [act]})

    assert test("other@p.iam.gserviceaccount.com").execute() == {"permissions": [act]}
    assert test("mine@p.iam.gserviceaccount.com", "demo-project").execute() == {}
    assert refused(test("gone@p.iam.gserviceaccount.com"))[0] == 404
    assert refused(of_accounts.get(name="projects/-/serviceAccounts/other@p.iam.gserviceaccount.com"))[0] == 403


@pytest.mark.sdk
def test_networks_and_attachments(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    project(networks={"vpc": {"peerings": []}}, network_attachments={"us-central1/att": {}})
    compute = discovery(emulator, "compute", "v1")
    networks, attachments = compute.networks(), compute.networkAttachments()
    (peering,) = networks.get(project="demo-project", network="default").execute()["peerings"]
    assert (peering["name"], peering["state"]) == ("servicenetworking-googleapis-com", "ACTIVE")
    assert networks.get(project="123456789012", network="vpc").execute()["peerings"] == []
    status, error = refused(networks.get(project="demo-project", network="none"))
    assert (status, error["errors"][0]["reason"]) == (404, "notFound")
    where = {"project": "demo-project", "region": "us-central1"}
    assert attachments.get(**where, networkAttachment="att").execute()["name"] == "att"
    assert refused(attachments.get(**where, networkAttachment="none"))[0] == 404
    assert refused(networks.get(project="another", network="default"))[0] == 403


def zones_with(answer: dict[str, Any], field: str) -> set[str]:
    return {zone.removeprefix("zones/") for zone, found in answer["items"].items() if field in found}


@pytest.mark.sdk
def test_machine_and_accelerator_types(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    project(missing_types={"us-central1": ["n1-highmem-32", "NVIDIA_H100_80GB"], "us-east1-b": ["n1-highmem-32"]})
    compute = discovery(emulator, "compute", "v1")
    machines, accelerators = compute.machineTypes(), compute.acceleratorTypes()
    for text in ("name = n1-highmem-32", "name=n1-highmem-32", 'name="n1-highmem-32"'):
        answer = machines.aggregatedList(project="demo-project", filter=text).execute()
        zones = zones_with(answer, "machineTypes")
        assert {"us-east1-a", "us-east1-c", "europe-west4-a"} <= zones
        assert not zones & {"us-central1-a", "us-central1-b", "us-central1-c", "us-east1-b"}
    (found,) = answer["items"]["zones/us-east1-a"]["machineTypes"]
    assert (found["guestCpus"], found["memoryMb"], found["zone"]) == (32, 212992, "us-east1-a")
    assert answer["items"]["zones/us-central1-a"]["warning"]["code"] == "NO_RESULTS_ON_PAGE"
    answer = accelerators.aggregatedList(project="demo-project", filter="name = nvidia-h100-80gb").execute()
    assert "us-central1-a" not in zones_with(answer, "acceleratorTypes")
    assert "us-east4-a" in zones_with(answer, "acceleratorTypes")
    # Machine types with such a GPU built in are missing as well.
    answer = machines.aggregatedList(project="demo-project", filter="name=a3-highgpu-8g").execute()
    assert "us-central1-a" not in zones_with(answer, "machineTypes")
    assert refused(machines.aggregatedList(project="demo-project", filter="zone=a"))[0] == 400

    request, count = accelerators.aggregatedList(project="demo-project"), 0
    pages = 0
    while request is not None:
        answer = request.execute()
        count += sum(len(each.get("acceleratorTypes", [])) for each in answer["items"].values())
        request, pages = accelerators.aggregatedList_next(request, answer), pages + 1
    assert pages > 1
    assert count == len(zones_with(answer, "warning") | zones_with(answer, "acceleratorTypes")) * 14 - 3


@pytest.mark.sdk
def test_keys(emulator: EmulatorProcess, project: Callable[..., Any]) -> None:
    keys = discovery(emulator, "cloudkms", "v1").projects().locations().keyRings().cryptoKeys()
    assert refused(keys.get(name=KEY))[0] == 404
    project(crypto_keys={"us-central1/ring/key": "DISABLED"})
    found = keys.get(name=KEY).execute()
    assert (found["name"], found["purpose"], found["primary"]["state"]) == (KEY, "ENCRYPT_DECRYPT", "DISABLED")


V1 = "/v1/projects/demo-project"
COMPUTE = "/compute/v1/projects/demo-project"
CALLS = [
    ("serviceusage.services.get", "GET", f"{V1}/services/aiplatform.googleapis.com"),
    ("serviceusage.services.get", "GET", f"{V1}/services:batchGet"),
    ("serviceusage.services.list", "GET", f"{V1}/services"),
    (
        "serviceusage.quotas.get",
        "GET",
        "/v1beta1/projects/demo-project/services/aiplatform.googleapis.com/consumerQuotaMetrics",
    ),
    ("monitoring.timeSeries.list", "GET", "/v3/projects/demo-project/timeSeries"),
    ("monitoring.timeSeries.list", "GET", f"{V1}/location/global/prometheus/api/v1/query?query=1"),
    ("logging.logEntries.list", "POST", "/v2/entries:list"),
    ("compute.networks.get", "GET", f"{COMPUTE}/global/networks/default"),
    ("compute.networkAttachments.get", "GET", f"{COMPUTE}/regions/us-central1/networkAttachments/a"),
    ("compute.machineTypes.list", "GET", f"{COMPUTE}/aggregated/machineTypes"),
    ("compute.acceleratorTypes.list", "GET", f"{COMPUTE}/aggregated/acceleratorTypes"),
    ("cloudkms.cryptoKeys.get", "GET", f"/v1/{KEY}"),
    ("iam.serviceAccounts.get", "GET", "/v1/projects/-/serviceAccounts/a@b.c"),
    ("aiplatform.persistentResources.list", "GET", f"{V1}/locations/us-central1/persistentResources"),
    ("resourcemanager.projects.get", "GET", "/v3/projects/demo-project"),
    ("resourcemanager.projects.get", "GET", "/v1/projects/demo-project"),
    ("resourcemanager.projects.getIamPolicy", "POST", "/v1/projects/demo-project:getIamPolicy"),
]


@pytest.mark.parametrize(("permission", "verb", "path"), CALLS)
def test_denied_permission_refuses_requests(
    emulator: EmulatorProcess, project: Callable[..., Any], permission: str, verb: str, path: str
) -> None:
    assert emulator.request(verb, path)[0] == 401
    project(denied_permissions=[permission])
    status, answer = emulator.request(verb, path, {} if verb == "POST" else None, token=emulator.token())
    assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert permission in answer["error"]["message"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([], "Use a JSON object."),
        ({"service": {}}, "Unknown fields: service."),
        ({"services": {"compute": "DISABLED"}}, "services['compute']"),
        ({"services": {"compute.googleapis.com": "off"}}, "'off'. Use ENABLED or DISABLED."),
        ({"denied_permissions": "all"}, "Invalid value for denied_permissions: 'all'."),
        ({"denied_permissions": ["compute.*"]}, "denied_permissions[0]: 'compute.*'"),
        ({"policy": {"editor": []}}, "policy['editor']"),
        ({"policy": {"roles/editor": ["me"]}}, "policy['roles/editor']: ['me']"),
        ({"service_accounts": {"me": None}}, "service_accounts['me']"),
        ({"service_accounts": {"a@b": {"denied": []}}}, "The only allowed field is denied_permissions."),
        ({"quota": {"cpus": {}}}, "quota['cpus']"),
        ({"quota": {CPUS: {"us-central1": {"limit": -2}}}}, "['us-central1'].limit: -2."),
        ({"quota": {CPUS: {"us-central1": {"used": 1.5}}}}, ".used: 1.5."),
        ({"quota": {CPUS: {"us-central1": {"free": 1}}}}, "The only allowed fields are limit and used."),
        ({"networks": {"vpc": []}}, "networks['vpc']: []."),
        ({"networks": {"vpc": {"peerings": None}}}, "networks['vpc'].peerings: None."),
        ({"network_attachments": {"att": {}}}, "region/name"),
        ({"crypto_keys": {"key": "ENABLED"}}, "location/ring/key"),
        ({"crypto_keys": {"a/b/c": "OFF"}}, "'OFF'. Use one of"),
        ({"missing_types": {"us-central1": ["n9-huge"]}}, "missing_types['us-central1'][0]: 'n9-huge'."),
    ],
)
def test_invalid_project_scripts_are_refused(emulator: EmulatorProcess, script: Any, words: str) -> None:
    status, answer = emulator.request("PUT", "/emulator/project", script)
    assert status == 400
    assert words in answer["error"]["message"]
    assert not any(emulator.admin("GET", "project").values())


ACCOUNT = "ray@demo-project.iam.gserviceaccount.com"
WITH_ACCOUNT = {"serviceAccountSpec": {"enableCustomServiceAccount": True, "serviceAccount": ACCOUNT}}
WITH_NETWORK = {"network": "projects/123456789012/global/networks/vpc"}
WITH_KEY = {"encryptionSpec": {"kmsKeyName": KEY}}
TYPES = ["n1-standard-16"]


@pytest.mark.parametrize(
    ("more", "scripted", "status", "words"),
    [
        (WITH_ACCOUNT, {"service_accounts": {ACCOUNT: None}}, "PERMISSION_DENIED", ACCOUNT),
        (
            WITH_ACCOUNT,
            {"service_accounts": {ACCOUNT: {"denied_permissions": ["iam.serviceAccounts.actAs"]}}},
            "PERMISSION_DENIED",
            "'iam.serviceAccounts.actAs' denied",
        ),
        (WITH_ACCOUNT, {"denied_permissions": ["iam.serviceAccounts.actAs"]}, "PERMISSION_DENIED", ACCOUNT),
        (WITH_NETWORK, {"networks": {"vpc": None}}, "INVALID_ARGUMENT", "The network does not exist"),
        (WITH_KEY, {"crypto_keys": {"us-central1/ring/key": "DISABLED"}}, "FAILED_PRECONDITION", "state is: DISABLED"),
        ({}, {"missing_types": {"us-central1": TYPES}}, "INVALID_ARGUMENT", "'n1-standard-16' is not available"),
        (
            {},
            {"missing_types": {f"us-central1-{zone}": TYPES for zone in "abc"}},
            "INVALID_ARGUMENT",
            "'n1-standard-16' is not available in us-central1",
        ),
    ],
)
def test_create_is_refused_by_what_the_script_names_only(
    emulator: EmulatorProcess,
    project: Callable[..., Any],
    more: dict[str, Any],
    scripted: dict[str, Any],
    status: str,
    words: str,
) -> None:
    body = cluster_body()
    if "serviceAccountSpec" in more:
        body["resourceRuntimeSpec"].update(more)
    else:
        body.update(more)
    project(**scripted)
    answer = emulator.api("POST", "persistentResources?persistentResourceId=c1", body)[1]
    assert answer["error"]["status"] == status
    assert words in answer["error"]["message"]
    # What is scripted of others does not matter.
    project(
        service_accounts={"other@demo-project.iam.gserviceaccount.com": None},
        networks={"other": None},
        crypto_keys={"us-central1/ring/other": "DISABLED", "us-central1/ring/key": "ENABLED"},
        missing_types={"us-central1": ["n1-highmem-32"], "us-central1-a": TYPES, "us-east1": TYPES},
    )
    assert emulator.create("c1", body)["state"] == "RUNNING"
