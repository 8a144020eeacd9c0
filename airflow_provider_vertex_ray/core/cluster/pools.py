"""Resource pools of a cluster, planned from its head and worker types, and the images that they run.

The rules are the SDK's (``vertex_ray.create_ray_cluster`` of google-cloud-aiplatform 2.7.0), including its oddities,
because clusters that either of them creates must look the same:

- The head's pool is ``head-node``; a worker type with the head's machine type and accelerator joins it.
- Other worker types get ``worker-pool1``, ``worker-pool2``, … by their place in the list. A type that joins the head
  uses its number as well, so the numbers may have gaps.
- If a type that joins the head autoscales, its bounds become those of the whole pool, including the head, and the pool
  has no replica count; a later type of fixed size then sets an explicit 0.
- All nodes in the head's pool run the head's image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_vertex_ray.core.cluster.spec_parts import AutoscalingSpec, NodeImages, Resources

__all__ = [
    "HEAD_POOL_ID",
    "SUPPORTED_VERSIONS",
    "OfficialImage",
    "Pool",
    "default_python_version",
    "image_prefix",
    "official_image",
    "parse_official_image",
    "plan_pools",
    "worker_pool_id",
]

HEAD_POOL_ID = "head-node"

SUPPORTED_VERSIONS: dict[str, tuple[str, ...]] = {"2.47": ("3.11",), "2.42": ("3.10", "3.11")}
"""Python versions that the service offers, by Ray version (docs/service-facts.md, November 2026).

The SDK still lists 2.33 and 2.9 for Python 3.10, which are no longer available. The first Python version is the SDK's
choice if none is requested."""

_CONTINENTS = ("us", "europe", "asia")
_OFFICIAL_IMAGE = re.compile(
    r"(?P<prefix>us|europe|asia)-docker\.pkg\.dev/vertex-ai/training/"
    r"ray-(?P<kind>cpu|gpu)\.(?P<ray>\d+-\d+)\.py(?P<python>\d{2,3}):latest"
)


@dataclass(frozen=True)
class Pool:
    """One resource pool of a planned cluster.

    :param pool_id: id in the API
    :param machine: machine type, accelerator and disk of each node; its count and image are not used
    :param replica_count: number of nodes as sent to the service, including the head; None or 0 if it autoscales
    :param autoscaling: bounds of the pool, including the head
    :param has_head: whether one of the nodes is the head
    :param custom_image: custom image of the nodes; None for the service's own image
    """

    pool_id: str
    machine: Resources
    replica_count: int | None
    autoscaling: AutoscalingSpec | None
    has_head: bool
    custom_image: str | None

    @property
    def smallest(self) -> int:
        """Return the initial number of nodes, which is also the minimum."""
        return self.autoscaling.min_replica_count if self.autoscaling else self.replica_count or 0

    @property
    def largest(self) -> int:
        """Return the maximum number of nodes."""
        return self.autoscaling.max_replica_count if self.autoscaling else self.replica_count or 0


@dataclass(frozen=True)
class OfficialImage:
    """The parts of the address of one of the service's own images."""

    prefix: str
    ray_version: str
    python_version: str
    gpu: bool


def worker_pool_id(place: int) -> str:
    """Return the id of the pool for the worker type at ``place`` in the list, counted from 1."""
    return f"worker-pool{place}"


def plan_pools(head: Resources, workers: Sequence[Resources], images: NodeImages | None) -> tuple[Pool, ...]:
    """Return the pools in the order in which they are sent, starting with the head's."""
    replicas: int | None = 1
    autoscaling: AutoscalingSpec | None = None
    others: list[Pool] = []
    for place, worker in enumerate(workers, start=1):
        joins_head = worker.shares_machine(head)
        if joins_head and worker.autoscaling_spec:
            replicas, autoscaling = None, worker.autoscaling_spec
        elif worker.autoscaling_spec is None:
            # Also for a type that does not join the head: this is where the SDK's explicit 0 comes from.
            replicas = (replicas or 0) + (worker.node_count if joins_head else 0)
        if not joins_head:
            others.append(
                Pool(
                    pool_id=worker_pool_id(place),
                    machine=worker,
                    replica_count=None if worker.autoscaling_spec else worker.node_count,
                    autoscaling=worker.autoscaling_spec,
                    has_head=False,
                    custom_image=worker.custom_image or (images.worker if images else None),
                )
            )
    head_pool = Pool(
        pool_id=HEAD_POOL_ID,
        machine=head,
        replica_count=replicas,
        autoscaling=autoscaling,
        has_head=True,
        custom_image=head.custom_image or (images.head if images else None),
    )
    return (head_pool, *others)


def default_python_version(ray_version: str) -> str | None:
    """Return the Python version that the SDK uses for ``ray_version`` by default; None for an unknown version."""
    versions = SUPPORTED_VERSIONS.get(ray_version)
    return versions[0] if versions else None


def image_prefix(location: str) -> str:
    """Return the continent of the image registry for a region; ``us`` if its continent has no registry."""
    continent = location.split("-")[0]
    return continent if continent in _CONTINENTS else "us"


def official_image(prefix: str, ray_version: str, python_version: str, *, gpu: bool) -> str:
    """Return the address of the service's own image."""
    kind = "gpu" if gpu else "cpu"
    versions = f"{ray_version.replace('.', '-')}.py{python_version.replace('.', '')}"
    return f"{prefix}-docker.pkg.dev/vertex-ai/training/ray-{kind}.{versions}:latest"


def parse_official_image(image: str) -> OfficialImage | None:
    """Return the parts of the address of one of the service's own images; None for any other image."""
    match = _OFFICIAL_IMAGE.fullmatch(image)
    if match is None:
        return None
    python = match["python"]
    return OfficialImage(
        prefix=match["prefix"],
        ray_version=match["ray"].replace("-", "."),
        python_version=f"{python[0]}.{python[1:]}",
        gpu=match["kind"] == "gpu",
    )
