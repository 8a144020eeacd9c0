"""What the classes and arguments of other Ray integrations are called here."""

from __future__ import annotations

OPERATORS = "airflow_provider_vertex_ray.operators"

GOOGLE_CLUSTERS = "airflow.providers.google.cloud.operators.vertex_ai.ray"
GOOGLE_JOBS = "airflow.providers.google.cloud.operators.ray"
ASTRO_OPERATORS = ("ray_provider.operators.ray", "ray_provider.operators")
ASTRO_DECORATORS = ("ray_provider.decorators.ray", "ray_provider.decorators")
SDK_RESOURCES = "google.cloud.aiplatform.vertex_ray.util.resources"

CLASSES: dict[str, dict[str, tuple[str, str]]] = {
    GOOGLE_CLUSTERS: {
        "CreateRayClusterOperator": (f"{OPERATORS}.cluster", "VertexRayCreateClusterOperator"),
        "DeleteRayClusterOperator": (f"{OPERATORS}.cluster", "VertexRayDeleteClusterOperator"),
        "GetRayClusterOperator": (f"{OPERATORS}.cluster", "VertexRayGetClusterOperator"),
        "ListRayClustersOperator": (f"{OPERATORS}.cluster", "VertexRayListClustersOperator"),
        "UpdateRayClusterOperator": (f"{OPERATORS}.cluster", "VertexRayResizeClusterOperator"),
    },
    GOOGLE_JOBS: {
        "RayDeleteJobOperator": (f"{OPERATORS}.job", "VertexRayDeleteJobOperator"),
        "RayGetJobInfoOperator": (f"{OPERATORS}.job", "VertexRayGetJobOperator"),
        "RayListJobsOperator": (f"{OPERATORS}.job", "VertexRayListJobsOperator"),
        "RayStopJobOperator": (f"{OPERATORS}.job", "VertexRayStopJobOperator"),
        "RaySubmitJobOperator": (f"{OPERATORS}.job", "VertexRaySubmitJobOperator"),
    },
    SDK_RESOURCES: {
        name: ("airflow_provider_vertex_ray.cluster_spec", name)
        for name in ("AutoscalingSpec", "NfsMount", "NodeImages", "PscIConfig", "Resources")
    },
}
for _module in ASTRO_OPERATORS:
    CLASSES[_module] = {
        "DeleteRayCluster": (f"{OPERATORS}.cluster", "VertexRayDeleteClusterOperator"),
        "SetupRayCluster": (f"{OPERATORS}.cluster", "VertexRayCreateClusterOperator"),
        "SubmitRayJob": (f"{OPERATORS}.job", "VertexRaySubmitJobOperator"),
    }
"""By module and name: the module and the name here."""

OPERATOR_MODULES = (GOOGLE_CLUSTERS, GOOGLE_JOBS, *ASTRO_OPERATORS)

MODULES = {
    GOOGLE_CLUSTERS: (OPERATORS, "cluster"),
    GOOGLE_JOBS: (OPERATORS, "job"),
    SDK_RESOURCES: ("airflow_provider_vertex_ray", "cluster_spec"),
}
"""Modules all of whose classes are in one module here: its package and name."""

ASTRO_RAY = {f"{module}.ray" for module in ASTRO_DECORATORS}
ASTRO_TASK = {f"{ray}.task" for ray in ASTRO_RAY}
"""Full names of astro-provider-ray's decorator."""

OLD_MODULES = (
    GOOGLE_CLUSTERS,
    GOOGLE_JOBS,
    "airflow.providers.google.cloud.hooks.ray",
    "airflow.providers.google.cloud.hooks.vertex_ai.ray",
    "airflow.providers.google.cloud.links.ray",
    "ray_provider",
)
"""Modules and packages that a rewritten file no longer needs."""


def is_old(full: str) -> bool:
    """Tell whether a full name is one of these modules, or is in one of them."""
    return any(full == module or full.startswith(f"{module}.") for module in OLD_MODULES)


GOOGLE_ARGUMENTS = {
    "cluster_address": "cluster_id",
    "cluster_name": "cluster_id",
    "get_job_logs": "stream_logs",
    "job_id": "submission_id",
    "submit_job_timeout": "job_timeout",
    "wait_for_job_done": "wait_for_completion",
}
"""Arguments of the Google provider's operators that have another name here; the others have the same."""

ASTRO_ARGUMENTS: dict[str, str | None] = {
    "conn_id": None,
    "fetch_logs": "stream_logs",
    "job_timeout_seconds": "job_timeout",
    "kuberay_version": None,
    "memory": "entrypoint_memory",
    "num_cpus": "entrypoint_num_cpus",
    "num_gpus": "entrypoint_num_gpus",
    "ray_cluster_yaml": None,
    "resources": "entrypoint_resources",
    "update_if_exists": None,
    "use_gpu": None,
    "xcom_task_key": None,
    "gpu_device_plugin_yaml": None,
}
"""Arguments and settings of astro-provider-ray: the name here, or None for those that have no meaning here."""

OLD_RAY = ("2.9", "2.9.3", "2.33", "2.33.0")
"""Ray versions that Vertex AI no longer offers."""

NEW_VERSIONS = {"ray_version": "2.47", "python_version": "3.11"}
"""What replaces them."""

SDK_CALLS = {
    "create_ray_cluster": "VertexRayCreateClusterOperator",
    "delete_ray_cluster": "VertexRayDeleteClusterOperator",
    "get_ray_cluster": "VertexRayGetClusterOperator",
    "list_ray_clusters": "VertexRayListClustersOperator",
    "update_ray_cluster": "VertexRayResizeClusterOperator",
    "JobSubmissionClient": "VertexRaySubmitJobOperator",
}
"""Calls of the SDK, which stay as they are and work, with the operators that wait without a worker slot."""
