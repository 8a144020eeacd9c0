"""The specification of a Ray cluster, as DAG authors import it.

Names and fields are those of the Vertex AI SDK (``vertex_ray``). Importing this module costs no more than importing the
standard library.
"""

from __future__ import annotations

from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.spec_parts import (
    AutoscalingSpec,
    NfsMount,
    NodeImages,
    PscIConfig,
    Resources,
)

__all__ = ["AutoscalingSpec", "ClusterSpec", "NfsMount", "NodeImages", "PscIConfig", "Resources"]
