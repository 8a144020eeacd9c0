"""Generations of a cluster that is shared by its name, and the choice of the generation for new work. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from airflow_provider_vertex_ray.core.cluster.name import validate_cluster_id
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import GONE_STATES, USABLE_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.errors import InvalidArgumentError

SHARED_LABEL = "vertex-ray-shared"
"""Label with the shared name of a cluster."""

GENERATION_LABEL = "vertex-ray-generation"
"""Label with the number of the generation, counted from 1."""

SPEC_LABEL = "vertex-ray-spec"
"""Label with ``ClusterSpec.spec_hash()``."""

LONGEST_SHARED_NAME = 54
"""Characters of a shared name, at most; the id of a generation adds ``-g`` and its number, and has 63 at most."""

ON_SPEC_MISMATCH = ("attach", "fail", "replace")


def validate_shared_name(value: str) -> str:
    """Return ``value`` if it is a valid name of a shared cluster.

    :raises InvalidArgumentError: it is too long, or has characters that an id cannot have
    """
    validate_cluster_id(value, "shared_name")
    if len(value) > LONGEST_SHARED_NAME:
        raise InvalidArgumentError("shared_name", value, f"Use at most {LONGEST_SHARED_NAME} characters.")
    return value


def generation_id(shared_name: str, number: int) -> str:
    """Return the cluster id of a generation."""
    return f"{shared_name}-g{number}"


def shared_name_of(cluster_id: str) -> str | None:
    """Return the shared name in the id of a generation; None for any other id."""
    match = re.fullmatch(r"(.+)-g[1-9]\d*", cluster_id)
    return match[1] if match else None


def generation_in(cluster_id: str, shared_name: str) -> int | None:
    """Return the number in the id of a generation of a shared cluster; None for any other id."""
    number = cluster_id.removeprefix(f"{shared_name}-g")
    return int(number) if number != cluster_id and re.fullmatch(r"[1-9]\d{0,9}", number, re.ASCII) else None


def generation_of(cluster: Cluster) -> int | None:
    """Return the number of a cluster's generation; None if the cluster is not shared."""
    number = cluster.labels.get(GENERATION_LABEL, "")
    if SHARED_LABEL not in cluster.labels or not re.fullmatch(r"\d{1,10}", number, re.ASCII):
        return None
    return int(number)


def spec_hash_of(cluster: Cluster) -> str:
    """Return the hash of the spec of a cluster, even for a cluster without the label."""
    return cluster.labels.get(SPEC_LABEL) or ClusterSpec.from_persistent_resource(cluster.resource).spec_hash()


class Step(Enum):
    """The next step towards a cluster for new work."""

    ATTACH = "attach"
    """Use the cluster, which is RUNNING, or UPDATING while it is resized."""
    WAIT = "wait"
    """Wait until the cluster is RUNNING."""
    CREATE = "create"
    """Create the generation with this number."""
    FAIL = "fail"
    """Fail, because the cluster does not match the requested spec."""


@dataclass(frozen=True)
class ClusterRequest:
    """A request for a shared cluster.

    :param shared_name: name of the shared cluster
    :param spec_hash: ``ClusterSpec.spec_hash()`` of the requested spec; None to accept any spec
    :param on_spec_mismatch: what to do if the newest cluster has another spec: ``attach``, ``fail`` or ``replace``
    :param max_age: age in seconds above which a cluster receives no new work; None for no limit
    """

    shared_name: str
    spec_hash: str | None = None
    on_spec_mismatch: str = "attach"
    max_age: float | None = None


@dataclass(frozen=True)
class Plan:
    """The next step for new work, and the other generations.

    :param step: the next step
    :param number: number of the generation that the step concerns
    :param cluster: this generation; None if it must be created
    :param note: message for the user; may be empty
    :param superseded: older generations that still exist; they receive no new work, and are deleted once unused
    :param broken: generations in ERROR
    """

    step: Step
    number: int
    cluster: Cluster | None = None
    note: str = ""
    superseded: tuple[Cluster, ...] = ()
    broken: tuple[Cluster, ...] = ()


def newest_first(clusters: Iterable[Cluster], shared_name: str) -> list[tuple[int, Cluster]]:
    """Return the generations of a shared cluster with their numbers, in any state, newest first."""
    found = []
    for cluster in clusters:
        number = generation_of(cluster)
        if number is not None and cluster.labels.get(SHARED_LABEL) == shared_name:
            found.append((number, cluster))
    return sorted(found, key=lambda pair: -pair[0])


def plan(clusters: Iterable[Cluster], wanted: ClusterRequest, now: float, blocked: Collection[int] = ()) -> Plan:
    """Choose the generation for new work.

    Everyone who sees the same clusters makes the same plan, and a generation can be created only once, because the
    service rejects a second one. Concurrent tasks therefore end up on the same cluster.

    :param clusters: all clusters of the project and region
    :param wanted: the request
    :param now: Unix time
    :param blocked: numbers of generations whose ids the service blocks, because they were deleted recently
    """
    found = newest_first(clusters, wanted.shared_name)
    live = [(number, cluster) for number, cluster in found if cluster.state not in GONE_STATES]
    broken = tuple(cluster for _, cluster in found if cluster.state is ClusterState.ERROR)
    following = max([0, *blocked, *(number for number, _ in found)]) + 1
    if not live:
        return Plan(Step.CREATE, following, broken=broken)
    number, newest = live[0]
    older = tuple(cluster for _, cluster in live[1:])
    note = ""
    differs = wanted.spec_hash is not None and spec_hash_of(newest) != wanted.spec_hash
    if differs:
        note = f"Cluster {newest.cluster_id} does not match the requested spec."
        if wanted.on_spec_mismatch == "fail":
            return Plan(Step.FAIL, number, newest, note, older, broken)
        if wanted.on_spec_mismatch == "replace":
            return Plan(Step.CREATE, following, None, note, (newest, *older), broken)
    if newest.state in USABLE_STATES and too_old(newest, wanted.max_age, now):
        note = f"Cluster {newest.cluster_id} is older than max_age."
        if not any(generation_of(cluster) == following - 1 for cluster in broken):
            return Plan(Step.CREATE, following, None, note, (newest, *older), broken)
        # An old cluster is better than none; once the broken one is deleted, the next task tries again.
        note += " It is used nevertheless, because its successor failed."
    step = Step.ATTACH if newest.state in USABLE_STATES else Step.WAIT
    return Plan(step, number, newest, note, older, broken)


def too_old(cluster: Cluster, max_age: float | None, now: float) -> bool:
    """Tell whether a cluster is older than ``max_age`` seconds.

    Its age counts from the moment at which it was first RUNNING: creating it may take longer than ``max_age``, and each
    generation would then be succeeded before it is usable. Before that moment, the age counts from its creation.
    """
    since = cluster.started or cluster.created
    return max_age is not None and since is not None and now - since > max_age
