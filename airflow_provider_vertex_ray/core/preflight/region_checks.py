"""Preflight checks of the cluster's surroundings: quota, machine types, network, encryption key and buckets."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.http.google_call import NoSuchResourceError
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.lookups import (
    ENABLED,
    ENCRYPT,
    MachineTypesApi,
    NetworksApi,
    PermissionsApi,
    compute_name,
    encryption_key,
    peering_state,
    permissions_in,
)
from airflow_provider_vertex_ray.core.preflight.quota_demand import Demand, QuotaStatus, quota_demand, unknown_machines
from airflow_provider_vertex_ray.core.preflight.quotas import QuotasApi
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status
from airflow_provider_vertex_ray.core.preflight.requirements import (
    BUCKET_PERMISSIONS,
    LEASE_PERMISSIONS,
    PreflightRequest,
    grant,
    quota_page,
    unchecked,
)
from airflow_provider_vertex_ray.core.sharing.lease_objects import parse_lease_uri
from airflow_provider_vertex_ray.errors import VertexRayError


async def check_quota(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check each training quota that the cluster uses."""
    api = QuotasApi(transport, asked.project, asked.location)
    findings = [await _quota(asked, api, demand) for demand in quota_demand(asked.spec)]
    for machine in unknown_machines(asked.spec):
        found = "its number of vCPUs is unknown, so its quota was not checked"
        findings.append(Finding("quota", Status.COULD_NOT_CHECK, machine, found, quota_page(asked.project)))
    return findings


async def _quota(asked: PreflightRequest, api: QuotasApi, demand: Demand) -> Finding:
    page = quota_page(asked.project)
    try:
        limit = await api.limit(demand.metric)
    except NoSuchResourceError:
        found = f"{demand.least} requested; Service Usage has no metric with this name, which is a guess"
        return Finding("quota", Status.COULD_NOT_CHECK, demand.metric, found, page)
    except VertexRayError as error:
        return unchecked(asked, "quota", demand.metric, error, "serviceusage.quotas.get")
    status = QuotaStatus(demand, limit, None)
    summary = f"{status}, in {asked.location}"
    if status.can_never():
        return Finding("quota", Status.FAIL, demand.metric, f"{summary}: the limit is too small", page)
    if limit is None:
        return Finding("quota", Status.PASS, demand.metric, summary)
    try:
        status = QuotaStatus(demand, limit, await api.used(demand.metric))
    except VertexRayError as error:
        missing = unchecked(asked, "quota", demand.metric, error, "monitoring.timeSeries.list")
        return Finding("quota", missing.status, demand.metric, f"{summary}; {missing.found}", missing.remedy)
    summary = f"{status}, in {asked.location}"
    if not status.is_free():
        remedy = f"{page} (or wait for it with VertexRayQuotaSensor)"
        return Finding("quota", Status.FAIL, demand.metric, f"{summary}: too little is free", remedy)
    if not status.is_free(full_size=True):
        return Finding("quota", Status.WARN, demand.metric, f"{summary}: it cannot scale up to its full size", page)
    return Finding("quota", Status.PASS, demand.metric, summary)


async def check_machines(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check for each kind of node that one zone of the region has both its machine type and its accelerator."""
    api = MachineTypesApi(transport, asked.project, asked.location)
    machines = [pool.machine for pool in asked.spec.pools()]
    kinds = dict.fromkeys((machine.machine_type, machine.accelerator_type) for machine in machines)
    return [await _machine(asked, api, machine, accelerator) for machine, accelerator in kinds]


async def _machine(asked: PreflightRequest, api: MachineTypesApi, machine: str, accelerator: str | None) -> Finding:
    subject = f"{machine}+{accelerator}" if accelerator else machine
    permission = "compute.machineTypes.list"
    try:
        zones = await api.zones_with_machine(machine)
        if not zones:
            remedy = f"gcloud compute machine-types list --project={asked.project} --filter=name={machine}"
            found = f"no zone of {asked.location} has {machine}; this lists those that do"
            return Finding("machines", Status.FAIL, subject, found, remedy)
        if accelerator:
            permission = "compute.acceleratorTypes.list"
            both = zones & await api.zones_with_accelerator(accelerator)
            if not both:
                name = compute_name(accelerator)
                remedy = f"gcloud compute accelerator-types list --project={asked.project} --filter=name={name}"
                found = f"no zone of {asked.location} has {name} and {machine}; this lists those with the accelerator"
                return Finding("machines", Status.FAIL, subject, found, remedy)
            zones = both
    except VertexRayError as error:
        return unchecked(asked, "machines", subject, error, permission)
    found = f"Compute Engine has it in {', '.join(sorted(zones))}; no API tells whether Vertex AI has it"
    return Finding("machines", Status.PASS, subject, found)


async def check_network(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check the peered network, or the network attachment of a Private Service Connect interface."""
    api = NetworksApi(transport)
    psc = asked.spec.psc_interface_config
    if asked.spec.network:
        return [await _peered(asked, api, asked.spec.network)]
    if psc is None:
        return []
    found = await _attachment(asked, api, str(psc.network_attachment))
    if found.status is not Status.PASS:
        return [found]
    return [found, await _agent(asked, PermissionsApi(transport), str(psc.network_attachment))]


AGENT_ROLES = frozenset({"roles/compute.networkAdmin", "roles/editor", "roles/owner"})
"""Roles that let Vertex AI's service agent use a network attachment
(https://cloud.google.com/vertex-ai/docs/general/vpc-psc-i-setup); in its own project, its own role does, too."""


async def _agent(asked: PreflightRequest, api: PermissionsApi, given: str) -> Finding:
    """Check that Vertex AI's service agent may use a network attachment, by the policy of the attachment's project."""
    project = given.split("/")[1] if "/" in given else asked.project
    subject = "service agent"
    try:
        number = await api.project_number(asked.project)
        agent = f"serviceAccount:service-{number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
        roles = await api.agent_roles(project, agent)
        own = project in (asked.project, number)
    except VertexRayError as error:
        permission = "resourcemanager.projects.getIamPolicy"
        return unchecked(asked, "network", subject, error, permission, project=project)
    if roles & AGENT_ROLES or (own and "roles/aiplatform.serviceAgent" in roles):
        return Finding("network", Status.PASS, subject, f"may use the network attachment in project {project}")
    found = f"has no known role in project {project} that lets it use the network attachment"
    return Finding("network", Status.WARN, subject, found, grant(project, "roles/compute.networkAdmin", agent))


async def _peered(asked: PreflightRequest, api: NetworksApi, name: str) -> Finding:
    project, short = name.split("/")[1], name.rpartition("/")[2]
    try:
        network = await api.network(name)
    except NoSuchResourceError:
        remedy = f"gcloud compute networks create {short} --project={project}"
        return Finding("network", Status.FAIL, name, "the network does not exist", remedy)
    except VertexRayError as error:
        return unchecked(asked, "network", name, error, "compute.networks.get", project=project)
    state = peering_state(network)
    if state == "ACTIVE":
        return Finding("network", Status.PASS, name, "peered with Google's services")
    ranges = ",".join(asked.spec.reserved_ip_ranges) or "RANGE"
    remedy = (
        f"gcloud services vpc-peerings connect --service=servicenetworking.googleapis.com --network={short} "
        f"--ranges={ranges} --project={project}"
    )
    if ranges == "RANGE":
        remedy = (
            f"gcloud compute addresses create {ranges} --global --purpose=VPC_PEERING --prefix-length=16 "
            f"--network={short} --project={project} && {remedy}"
        )
    found = "not peered with Google's services" if state is None else f"its peering with Google's services is {state}"
    return Finding("network", Status.FAIL, name, found, remedy)


async def _attachment(asked: PreflightRequest, api: NetworksApi, given: str) -> Finding:
    name = given
    if "/" not in given:
        name = f"projects/{asked.project}/regions/{asked.location}/networkAttachments/{given}"
    _, project, _, region, _, short = name.split("/")
    try:
        await api.check_attachment(name)
    except NoSuchResourceError:
        found = "the network attachment does not exist"
        return Finding("network", Status.FAIL, given, found, _create_attachment(short, region, project))
    except VertexRayError as error:
        return unchecked(asked, "network", given, error, "compute.networkAttachments.get", project=project)
    return Finding("network", Status.PASS, given, f"the network attachment exists in {region}")


def _create_attachment(name: str, region: str, project: str) -> str:
    return (
        f"gcloud compute network-attachments create {name} --region={region} --subnets=SUBNET "
        f"--connection-preference=ACCEPT_AUTOMATIC --project={project}"
    )


async def check_encryption_key(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check that the encryption key exists and is enabled."""
    name = str(asked.spec.encryption_spec_key_name)
    _, project, _, location, _, ring, _, key = name.split("/")
    where = f"--keyring={ring} --location={location} --project={project}"
    try:
        found = await encryption_key(transport, name)
    except NoSuchResourceError:
        remedy = f"gcloud kms keys create {key} {where} --purpose=encryption"
        return [Finding("encryption_key", Status.FAIL, name, "the key does not exist", remedy)]
    except VertexRayError as error:
        return [unchecked(asked, "encryption_key", name, error, "cloudkms.cryptoKeys.get", project=project)]
    if found.purpose != ENCRYPT:
        remedy = f"gcloud kms keys create NEW_KEY {where} --purpose=encryption"
        return [Finding("encryption_key", Status.FAIL, name, f"its purpose is {found.purpose}, not {ENCRYPT}", remedy)]
    if found.primary_state != ENABLED:
        state = found.primary_state or "missing"
        remedy = f"gcloud kms keys versions list --key={key} {where}, then gcloud kms keys versions enable VERSION"
        if found.primary_state is None:
            remedy = f"gcloud kms keys versions create --key={key} {where} --primary"
        return [Finding("encryption_key", Status.FAIL, name, f"its primary version is {state}, not {ENABLED}", remedy)]
    result = "its primary version is enabled; whether Vertex AI's service agent may use it was not checked"
    return [Finding("encryption_key", Status.PASS, name, result)]


async def check_bucket(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check the buckets of jobs and of leases."""
    wanted = [(asked.bucket, BUCKET_PERMISSIONS), (asked.lease_uri, LEASE_PERMISSIONS)]
    return [await _bucket(asked, transport, uri, permissions) for uri, permissions in wanted if uri]


async def _bucket(asked: PreflightRequest, transport: Transport, uri: str, permissions: tuple[str, ...]) -> Finding:
    bucket, _ = parse_lease_uri(uri)
    if transport.addresses.emulator_host and not transport.addresses.storage_emulator:
        found = "STORAGE_EMULATOR_HOST is not set, and the emulator's token is sent to no other host"
        return Finding("bucket", Status.COULD_NOT_CHECK, uri, found, "vertex-ray-emulator start --with storage")
    try:
        granted = await permissions_in(transport, bucket, permissions)
    except NoSuchResourceError:
        remedy = f"gcloud storage buckets create gs://{bucket} --location={asked.location} --project={asked.project}"
        return Finding("bucket", Status.FAIL, uri, "the bucket does not exist", remedy)
    except VertexRayError as error:
        return unchecked(asked, "bucket", uri, error)
    if granted is None:
        return Finding("bucket", Status.PASS, uri, "the bucket exists; this emulator does not support permissions")
    missing = [permission for permission in permissions if permission not in granted]
    if not missing:
        verbs = ", ".join(permission.rpartition(".")[2] for permission in permissions)
        return Finding("bucket", Status.PASS, uri, f"may {verbs} objects")
    remedy = (
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member={asked.member} "
        "--role=roles/storage.objectUser"
    )
    return Finding("bucket", Status.FAIL, uri, f"lacks {', '.join(missing)}", remedy)
