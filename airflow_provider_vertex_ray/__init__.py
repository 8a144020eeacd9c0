"""Apache Airflow provider for Ray on Vertex AI."""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "get_provider_info"]

__version__ = "0.1.0"

_PACKAGE = "airflow_provider_vertex_ray"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata for Airflow (entry point ``apache_airflow_provider``)."""
    service = "Ray on Vertex AI"
    return {
        "package-name": "airflow-provider-vertex-ray",
        "name": service,
        "description": "Ray on Vertex AI: long-lived clusters that many tasks share, and the jobs that run on them.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": service,
                "external-doc-url": "https://cloud.google.com/vertex-ai/docs/open-source/ray-on-vertex-ai/overview",
                "tags": ["gcp"],
            }
        ],
        "operators": [
            {
                "integration-name": service,
                "python-modules": [
                    f"{_PACKAGE}.operators.bigquery",
                    f"{_PACKAGE}.operators.cluster",
                    f"{_PACKAGE}.operators.cluster_create",
                    f"{_PACKAGE}.operators.cluster_resize",
                    f"{_PACKAGE}.operators.cost",
                    f"{_PACKAGE}.operators.endpoint",
                    f"{_PACKAGE}.operators.idle",
                    f"{_PACKAGE}.operators.job",
                    f"{_PACKAGE}.operators.job_admin",
                    f"{_PACKAGE}.operators.jobs",
                    f"{_PACKAGE}.operators.leases",
                    f"{_PACKAGE}.operators.model",
                    f"{_PACKAGE}.operators.monitoring",
                    f"{_PACKAGE}.operators.monitoring_logs",
                    f"{_PACKAGE}.operators.prediction",
                    f"{_PACKAGE}.operators.preflight",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": service,
                "python-modules": [
                    f"{_PACKAGE}.sensors.cluster",
                    f"{_PACKAGE}.sensors.endpoint",
                    f"{_PACKAGE}.sensors.idle",
                    f"{_PACKAGE}.sensors.job",
                    f"{_PACKAGE}.sensors.monitoring",
                    f"{_PACKAGE}.sensors.quota",
                ],
            }
        ],
        "hooks": [
            {
                "integration-name": service,
                "python-modules": [
                    f"{_PACKAGE}.hooks.bigquery",
                    f"{_PACKAGE}.hooks.cluster",
                    f"{_PACKAGE}.hooks.job",
                    f"{_PACKAGE}.hooks.lease",
                    f"{_PACKAGE}.hooks.model",
                    f"{_PACKAGE}.hooks.monitoring",
                    f"{_PACKAGE}.hooks.preflight",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": service,
                "python-modules": [
                    f"{_PACKAGE}.triggers.bigquery",
                    f"{_PACKAGE}.triggers.cluster",
                    f"{_PACKAGE}.triggers.cluster_clean_up",
                    f"{_PACKAGE}.triggers.ensure",
                    f"{_PACKAGE}.triggers.idle",
                    f"{_PACKAGE}.triggers.job",
                    f"{_PACKAGE}.triggers.jobs",
                    f"{_PACKAGE}.triggers.monitoring",
                    f"{_PACKAGE}.triggers.quota",
                    f"{_PACKAGE}.triggers.serving",
                ],
            }
        ],
        "task-decorators": [
            {"name": "vertex_ray", "class-name": f"{_PACKAGE}.decorators.job.vertex_ray_task"},
        ],
        "extra-links": [
            f"{_PACKAGE}.links.cluster.VertexRayClusterLink",
            f"{_PACKAGE}.links.cluster.VertexRayClusterListLink",
            f"{_PACKAGE}.links.cluster.VertexRayDashboardLink",
            f"{_PACKAGE}.links.cluster.VertexRayLogsLink",
            f"{_PACKAGE}.links.cluster.VertexRayShellLink",
            f"{_PACKAGE}.links.monitoring.VertexRayMetricsLink",
            f"{_PACKAGE}.links.page.VertexRayPageLink",
            f"{_PACKAGE}.links.quota.VertexRayQuotaLink",
            f"{_PACKAGE}.links.serving.VertexRayEndpointLink",
            f"{_PACKAGE}.links.serving.VertexRayModelLink",
        ],
        "config": {
            "vertex_ray": {
                "description": "Settings of the provider, and of the Ray clusters page in the Airflow UI (Airflow 3).",
                "options": {
                    "ray_versions": {
                        "description": "Ray versions of the service that this release does not know, or knows "
                        "otherwise: a JSON list of objects, or the path of a file with one. The fields are ray, python "
                        "(a list, the default first) and, where they are known, full, ends (the day from which the "
                        "service creates no cluster with it), ended, and image (the address of its images, with "
                        "{region}, {device}, {ray} and {python}).",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": '[{"ray": "2.60", "full": "2.60.0", "python": ["3.12"], "ends": "2029-01-31"}]',
                        "default": "",
                    },
                    "serving_containers": {
                        "description": "Prebuilt serving containers that this release does not know: a JSON list of "
                        "objects, or the path of a file with one. The fields are framework, version and, where they "
                        "are known, ends and ended.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": '[{"framework": "sklearn", "version": "1.7", "ends": "2029-01-14"}]',
                        "default": "",
                    },
                    "dashboard_hosts": {
                        "description": "Comma-separated hosts of dashboards beside Google's own, which may receive the "
                        "access token, such as those of clusters in VPC Service Controls. An entry is a host name or "
                        "an address, with its port and, for unencrypted connections, http://.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "10.0.0.5:8888,*.ray.example.com:8888",
                        "default": "",
                    },
                    "page_locations": {
                        "description": "Comma-separated regions whose clusters the page shows, read through the "
                        "connection google_cloud_default.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "us-central1,europe-west4",
                        "default": "",
                    },
                    "page_sources": {
                        "description": "Sources of the page: a JSON list of objects with location and, where they "
                        "differ from the defaults, gcp_conn_id, project_id, impersonation_chain, lease_uri, "
                        "price_table, and the idle_for, max_age and label_filter of the DAG that deletes idle "
                        "clusters. Overrides page_locations.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": '[{"location": "us-central1", "idle_for": 3600}]',
                        "default": "",
                    },
                },
            }
        },
    }
