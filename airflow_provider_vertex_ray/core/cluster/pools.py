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

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.cluster.versions import known_versions, newest_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_vertex_ray.core.cluster.spec_parts import AutoscalingSpec, NodeImages, Resources

__all__ = [
    "HEAD_POOL_ID",
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

_CONTINENTS = ("us", "europe", "asia")
_IMAGE = "{region}-docker.pkg.dev/vertex-ai/training/ray-{device}.{ray}.py{python}:latest"
_IN_IMAGE = {
    "region": r"(?P<prefix>us|europe|asia)",
    "device": r"(?P<kind>cpu|gpu)",
    "ray": r"(?P<ray>\d+-\d+)",
    "python": r"(?P<python>\d{2,3})",
}


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


def default_python_version(ray_version: str) -> str:
    """Return the Python version for ``ray_version`` by default: the SDK's choice, or that of the newest Ray version."""
    row = known_versions().get(ray_version) or newest_version()
    return row.pythons[0]


def image_prefix(location: str) -> str:
    """Return the continent of the image registry for a region; ``us`` if its continent has no registry."""
    continent = location.split("-")[0]
    return continent if continent in _CONTINENTS else "us"


def official_image(prefix: str, ray_version: str, python_version: str, *, gpu: bool) -> str:
    """Return the address of the service's own image."""
    row = known_versions().get(ray_version)
    return ((row and row.image) or _IMAGE).format(
        region=prefix,
        device="gpu" if gpu else "cpu",
        ray=ray_version.replace(".", "-"),
        python=python_version.replace(".", ""),
    )


def parse_official_image(image: str) -> OfficialImage | None:
    """Return the parts of the address of one of the service's own images; None for any other image."""
    rows = [row for row in known_versions().values() if row.image]
    for template, ray in ((_IMAGE, None), *((str(row.image), row.ray) for row in rows)):
        match = _image_pattern(template).fullmatch(image)
        found = match.groupdict() if match else {}
        if match and (ray is None or found.get("ray", ray.replace(".", "-")) == ray.replace(".", "-")):
            python = found.get("python") or default_python_version(str(ray)).replace(".", "")
            return OfficialImage(
                prefix=found.get("prefix") or "us",
                ray_version=(found.get("ray") or str(ray)).replace("-", "."),
                python_version=f"{python[0]}.{python[1:]}",
                gpu=found.get("kind") == "gpu",
            )
    return None


@functools.lru_cache(maxsize=16)
def _image_pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(region|device|ray|python)\}", template)
    pattern = "".join(_IN_IMAGE[part] if place % 2 else re.escape(part) for place, part in enumerate(parts))
    return re.compile(pattern)
