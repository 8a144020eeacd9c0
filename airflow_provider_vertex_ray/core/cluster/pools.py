"""From head and worker types to the resource pools of a cluster, and the images that they run.

The rules are the SDK's (``vertex_ray.create_ray_cluster`` of google-cloud-aiplatform 2.7.0), its oddities
included, because clusters that it made and clusters that we made must look the same:

- The head's pool is ``head-node``; a worker type with the head's machine and accelerator joins it.
- Other worker types get ``worker-pool1``, ``worker-pool2``, … by their place in the list. A type that joined
  the head uses up its number too, so numbers may have gaps.
- A type that joins the head with autoscaling makes its bounds those of the whole pool, head included, and
  takes the pool's replica count away; a later type of fixed size then puts an explicit 0 there.
- The pool of the head runs the head's image only.
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

# What the service offers (facts, November 2026). The SDK still lists 2.33 and 2.9 for 3.10: both are gone.
# The first Python of a Ray is the SDK's choice where none is given.
SUPPORTED_VERSIONS: dict[str, tuple[str, ...]] = {"2.47": ("3.11",), "2.42": ("3.10", "3.11")}

_CONTINENTS = ("us", "europe", "asia")
_OFFICIAL_IMAGE = re.compile(
    r"(?P<prefix>us|europe|asia)-docker\.pkg\.dev/vertex-ai/training/"
    r"ray-(?P<kind>cpu|gpu)\.(?P<ray>\d+-\d+)\.py(?P<python>\d{2,3}):latest"
)


@dataclass(frozen=True)
class Pool:
    """One resource pool of a planned cluster.

    :param pool_id: id in the API.
    :param machine: machine, accelerator and disk of each node (counts and images are read elsewhere).
    :param replica_count: nodes as sent to the service, the head among them; None or 0 where it autoscales.
    :param autoscaling: bounds of the pool, the head counted in.
    :param has_head: whether one of the nodes is the head.
    :param custom_image: None for the service's own image.
    """

    pool_id: str
    machine: Resources
    replica_count: int | None
    autoscaling: AutoscalingSpec | None
    has_head: bool
    custom_image: str | None

    @property
    def smallest(self) -> int:
        """Nodes at the start, and the fewest there will be."""
        return self.autoscaling.min_replica_count if self.autoscaling else self.replica_count or 0

    @property
    def largest(self) -> int:
        """The most nodes that there can be."""
        return self.autoscaling.max_replica_count if self.autoscaling else self.replica_count or 0


@dataclass(frozen=True)
class OfficialImage:
    """What the address of one of the service's own images says."""

    prefix: str
    ray_version: str
    python_version: str
    gpu: bool


def worker_pool_id(place: int) -> str:
    """Return the id of the pool for the worker type at ``place`` in the list, counted from 1."""
    return f"worker-pool{place}"


def plan_pools(head: Resources, workers: Sequence[Resources], images: NodeImages | None) -> tuple[Pool, ...]:
    """Return the pools in the order in which they are sent, the head's first."""
    replicas: int | None = 1
    autoscaling: AutoscalingSpec | None = None
    others: list[Pool] = []
    for place, worker in enumerate(workers, start=1):
        joins_head = worker.shares_machine(head)
        if joins_head and worker.autoscaling_spec:
            replicas, autoscaling = None, worker.autoscaling_spec
        elif worker.autoscaling_spec is None:
            # Also for a type that does not join: this is where the SDK's explicit 0 comes from.
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
    """Return the Python that the SDK takes for ``ray_version`` where none is asked for."""
    versions = SUPPORTED_VERSIONS.get(ray_version)
    return versions[0] if versions else None


def image_prefix(location: str) -> str:
    """Return the continent of the image registry for a region; ``us`` where there is none of its own."""
    continent = location.split("-")[0]
    return continent if continent in _CONTINENTS else "us"


def official_image(prefix: str, ray_version: str, python_version: str, *, gpu: bool) -> str:
    """Return the address of the service's own image."""
    kind = "gpu" if gpu else "cpu"
    versions = f"{ray_version.replace('.', '-')}.py{python_version.replace('.', '')}"
    return f"{prefix}-docker.pkg.dev/vertex-ai/training/ray-{kind}.{versions}:latest"


def parse_official_image(image: str) -> OfficialImage | None:
    """Read the address of one of the service's own images; None for any other image."""
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
