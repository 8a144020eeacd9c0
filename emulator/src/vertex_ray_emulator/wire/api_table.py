"""Requirements of all RPCs: the service that must be enabled, and the permission that the caller needs."""

from __future__ import annotations

AIPLATFORM = "aiplatform.googleapis.com"

# Service and permission by the name of the RPC; an empty permission means that none is needed.
_OTHERS: dict[str, tuple[str, str]] = {
    "ListLogEntries": ("logging.googleapis.com", "logging.logEntries.list"),
    "QueryPrometheus": ("monitoring.googleapis.com", "monitoring.timeSeries.list"),
    "QueryRangePrometheus": ("monitoring.googleapis.com", "monitoring.timeSeries.list"),
    "ListTimeSeries": ("monitoring.googleapis.com", "monitoring.timeSeries.list"),
    "GetService": ("serviceusage.googleapis.com", "serviceusage.services.get"),
    "BatchGetServices": ("serviceusage.googleapis.com", "serviceusage.services.get"),
    "ListServices": ("serviceusage.googleapis.com", "serviceusage.services.list"),
    "GetConsumerQuotaMetric": ("serviceusage.googleapis.com", "serviceusage.quotas.get"),
    "ListConsumerQuotaMetrics": ("serviceusage.googleapis.com", "serviceusage.quotas.get"),
    "GetProject": ("cloudresourcemanager.googleapis.com", "resourcemanager.projects.get"),
    "GetIamPolicy": ("cloudresourcemanager.googleapis.com", "resourcemanager.projects.getIamPolicy"),
    "TestIamPermissions": ("cloudresourcemanager.googleapis.com", ""),
    "GetServiceAccount": ("iam.googleapis.com", "iam.serviceAccounts.get"),
    "TestServiceAccountPermissions": ("iam.googleapis.com", ""),
    "GetNetwork": ("compute.googleapis.com", "compute.networks.get"),
    "GetNetworkAttachment": ("compute.googleapis.com", "compute.networkAttachments.get"),
    "AggregatedListMachineTypes": ("compute.googleapis.com", "compute.machineTypes.list"),
    "AggregatedListAcceleratorTypes": ("compute.googleapis.com", "compute.acceleratorTypes.list"),
    "GetCryptoKey": ("cloudkms.googleapis.com", "cloudkms.cryptoKeys.get"),
}

_VERTEX: dict[str, str] = {
    **{
        f"{verb.capitalize()}{kind}{'s' if verb == 'list' else ''}": f"aiplatform.{collection}.{verb}"
        for kind, collection in (
            ("PersistentResource", "persistentResources"),
            ("Endpoint", "endpoints"),
            ("Model", "models"),
        )
        for verb in ("create", "get", "list", "update", "delete")
    },
    "UploadModel": "aiplatform.models.upload",
    "ListModelVersions": "aiplatform.models.list",
    "DeleteModelVersion": "aiplatform.models.delete",
    "MergeVersionAliases": "aiplatform.models.update",
    "DeployModel": "aiplatform.endpoints.deploy",
    "UndeployModel": "aiplatform.endpoints.undeploy",
    "Predict": "aiplatform.endpoints.predict",
    "RawPredict": "aiplatform.endpoints.predict",
}

SERVICE_TITLES: dict[str, str] = {
    AIPLATFORM: "Vertex AI API",
    "artifactregistry.googleapis.com": "Artifact Registry API",
    "bigquery.googleapis.com": "BigQuery API",
    "bigquerystorage.googleapis.com": "BigQuery Storage API",
    "cloudbilling.googleapis.com": "Cloud Billing API",
    "cloudkms.googleapis.com": "Cloud Key Management Service (KMS) API",
    "cloudresourcemanager.googleapis.com": "Cloud Resource Manager API",
    "compute.googleapis.com": "Compute Engine API",
    "iam.googleapis.com": "Identity and Access Management (IAM) API",
    "logging.googleapis.com": "Cloud Logging API",
    "monitoring.googleapis.com": "Cloud Monitoring API",
    "servicenetworking.googleapis.com": "Service Networking API",
    "serviceusage.googleapis.com": "Service Usage API",
    "storage.googleapis.com": "Cloud Storage API",
}


def requirements(rpc: str) -> tuple[str, str]:
    """Return the service of an RPC and the permission that it needs, empty for none."""
    return _OTHERS.get(rpc) or (AIPLATFORM, _VERTEX.get(rpc, ""))
