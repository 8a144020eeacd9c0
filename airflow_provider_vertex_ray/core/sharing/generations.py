"""A cluster that is shared by its name: its generations, and which of them new work goes to. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from airflow_provider_vertex_ray.core.cluster.name import validate_cluster_id
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.errors import InvalidArgumentError

SHARED_LABEL = "vertex-ray-shared"
"""Label with the name by which a cluster is shared."""

GENERATION_LABEL = "vertex-ray-generation"
"""Label with the number of the generation, from 1."""

SPEC_LABEL = "vertex-ray-spec"
"""Label with ``ClusterSpec.spec_hash()``."""

LONGEST_SHARED_NAME = 54
"""Characters; the id of a generation has ``-g`` and its number behind it, and 63 at most."""

ON_SPEC_MISMATCH = ("attach", "fail", "replace")

_GONE = frozenset({ClusterState.STOPPING, ClusterState.ERROR})


def validate_shared_name(value: str) -> str:
    """Return ``value`` if it can name a shared cluster.

    :raises InvalidArgumentError: It can not.
    """
    validate_cluster_id(value, "shared_name")
    if len(value) > LONGEST_SHARED_NAME:
        raise InvalidArgumentError("shared_name", value, f"use at most {LONGEST_SHARED_NAME} characters")
    return value


def generation_id(shared_name: str, number: int) -> str:
    """The cluster id of a generation."""
    return f"{shared_name}-g{number}"


def shared_name_of(cluster_id: str) -> str | None:
    """The shared name in the id of a generation; None for another id."""
    match = re.fullmatch(r"(.+)-g[1-9]\d*", cluster_id)
    return match[1] if match else None


def generation_of(cluster: Cluster) -> int | None:
    """The number of a cluster's generation; None for one that is not shared."""
    number = cluster.labels.get(GENERATION_LABEL, "")
    if SHARED_LABEL not in cluster.labels or not number.isdecimal():
        return None
    return int(number)


def spec_hash_of(cluster: Cluster) -> str:
    """The hash of what a cluster was asked to be, also for one without the label."""
    return cluster.labels.get(SPEC_LABEL) or ClusterSpec.from_persistent_resource(cluster.resource).spec_hash()


class Step(Enum):
    """What to do for new work."""

    ATTACH = "attach"
    """Use the cluster: it is RUNNING."""
    WAIT = "wait"
    """The cluster will be RUNNING."""
    CREATE = "create"
    """Create the generation of that number."""
    FAIL = "fail"
    """The cluster is not what is asked for."""


@dataclass(frozen=True)
class ClusterRequest:
    """What new work asks for.

    :param shared_name: The name.
    :param spec_hash: ``ClusterSpec.spec_hash()`` of what the cluster should be; None: whatever there is.
    :param on_spec_mismatch: ``attach``, ``fail`` or ``replace``.
    :param max_age: Seconds after its creation from which a cluster gets no new work; None: no limit.
    """

    shared_name: str
    spec_hash: str | None = None
    on_spec_mismatch: str = "attach"
    max_age: float | None = None


@dataclass(frozen=True)
class Plan:
    """What to do for new work, and about the others.

    :param step: What to do.
    :param number: Of which generation.
    :param cluster: That generation, unless it is to be created.
    :param note: A sentence that the user should read; may be empty.
    :param superseded: Older generations that live: they get no new work, and are deleted once nobody uses them.
    :param broken: Generations in ERROR.
    """

    step: Step
    number: int
    cluster: Cluster | None = None
    note: str = ""
    superseded: tuple[Cluster, ...] = ()
    broken: tuple[Cluster, ...] = ()


def newest_first(clusters: Iterable[Cluster], shared_name: str) -> list[tuple[int, Cluster]]:
    """The generations of a shared cluster with their numbers, in any state."""
    found = []
    for cluster in clusters:
        number = generation_of(cluster)
        if number is not None and cluster.labels.get(SHARED_LABEL) == shared_name:
            found.append((number, cluster))
    return sorted(found, key=lambda pair: -pair[0])


def plan(clusters: Iterable[Cluster], wanted: ClusterRequest, now: float, blocked: Collection[int] = ()) -> Plan:
    """Which generation new work goes to.

    Everybody who sees the same clusters comes to the same plan, and a number is created once only: the service refuses
    the second one. So those who race meet on one cluster.

    :param clusters: All clusters that the service knows.
    :param now: Unix time.
    :param blocked: Numbers whose ids the service refuses, because their clusters were deleted a short time ago.
    """
    found = newest_first(clusters, wanted.shared_name)
    live = [(number, cluster) for number, cluster in found if cluster.state not in _GONE]
    broken = tuple(cluster for _, cluster in found if cluster.state is ClusterState.ERROR)
    following = max([0, *blocked, *(number for number, _ in found)]) + 1
    if not live:
        return Plan(Step.CREATE, following, broken=broken)
    number, newest = live[0]
    older = tuple(cluster for _, cluster in live[1:])
    note = ""
    differs = wanted.spec_hash is not None and spec_hash_of(newest) != wanted.spec_hash
    if differs:
        note = f"Cluster {newest.cluster_id} does not look as the spec says."
        if wanted.on_spec_mismatch == "fail":
            return Plan(Step.FAIL, number, newest, note, older, broken)
        if wanted.on_spec_mismatch == "replace":
            return Plan(Step.CREATE, following, None, note, (newest, *older), broken)
    if too_old(newest, wanted.max_age, now):
        note = f"Cluster {newest.cluster_id} is older than max_age."
        if not any(generation_of(cluster) == following - 1 for cluster in broken):
            return Plan(Step.CREATE, following, None, note, (newest, *older), broken)
        # An old cluster is better than none; the next ensure tries again, once the broken one is gone.
        note += " Its successor failed, so it is used nevertheless."
    step = Step.ATTACH if newest.state is ClusterState.RUNNING else Step.WAIT
    return Plan(step, number, newest, note, older, broken)


def too_old(cluster: Cluster, max_age: float | None, now: float) -> bool:
    """Whether a cluster has lived for longer than ``max_age`` seconds."""
    return max_age is not None and cluster.created is not None and now - cluster.created > max_age
