"""Fields of a cluster spec, without the rules and the JSON that are defined in terms of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.checks import find_templates, refuse_templates
from airflow_provider_vertex_ray.core.cluster.pools import Pool, plan_pools
from airflow_provider_vertex_ray.core.cluster.spec_parts import NfsMount, NodeImages, PscIConfig, Resources

__all__ = ["SpecFields"]


@dataclass(frozen=True)
class SpecFields:
    """Base class of ClusterSpec, which documents the fields."""

    head_node_type: Resources = field(default_factory=Resources)
    worker_node_types: Sequence[Resources] = field(default_factory=lambda: (Resources(),))
    ray_version: str = "2.47"
    python_version: str | None = None
    network: str | None = None
    service_account: str | None = None
    custom_images: NodeImages | None = None
    enable_metrics_collection: bool = True
    enable_logging: bool = True
    psc_interface_config: PscIConfig | None = None
    reserved_ip_ranges: Sequence[str] = ()
    nfs_mounts: Sequence[NfsMount] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    encryption_spec_key_name: str | None = None
    allow_small_head: bool = False
    display_name: str | None = None
    ray_cluster_autoscaling_spec: Mapping[str, Any] | None = None

    def pools_known(self) -> bool:
        """Tell whether no size and no machine is still a template."""
        return not any(find_templates((self.head_node_type, self.worker_node_types)))

    def pools(self) -> tuple[Pool, ...]:
        """Return the requested resource pools with their ids and sizes; the first one contains the head.

        :raises InvalidArgumentError: a size or a machine is still a template
        """
        refuse_templates(self.head_node_type, "head_node_type")
        refuse_templates(self.worker_node_types, "worker_node_types")
        return plan_pools(self.head_node_type, self.worker_node_types, self.custom_images)

    def node_count(self) -> int:
        """Return the initial number of nodes, with the head, and with autoscaling pools at their minimum."""
        return sum(pool.smallest for pool in self.pools())

    def max_node_count(self) -> int:
        """Return the maximum number of nodes, including the head."""
        return sum(pool.largest for pool in self.pools())
