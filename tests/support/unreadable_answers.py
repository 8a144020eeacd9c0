"""Random answers that tell nothing about a cluster's jobs, and the actions that must not follow from them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL, SHARED_LABEL
from airflow_provider_vertex_ray.errors import ClusterInUseError, InvalidArgumentError, VertexRayError
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
from airflow_provider_vertex_ray.triggers.ensure import VertexRayClusterEnsureTrigger
from airflow_provider_vertex_ray.triggers.idle import VertexRayReaperTrigger
from tests.support.answer_fuzz import odd_bytes
from tests.support.clusters import SPEC
from tests.support.raw_service import LOCATION, SUFFIX, RawService, Request

BUSY, OWNER = "etl-g1", {"airflow-owner": "x", SHARED_LABEL: "etl", GENERATION_LABEL: "1"}
JOB = {"type": "SUBMISSION", "submission_id": "j", "status": "RUNNING", "metadata": {}, "start_time": 1}


def is_readable(answer: bytes) -> bool:
    """Tell whether an answer could be a list of jobs, or a cluster: a 2xx with a list, or an object with a name."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.split(b" ", 1)[-1].startswith(b"2"):
        return False
    # However the length and the encoding are told.
    for end in range(len(body), -1, -1) if len(body) < 60 else (len(body), 3):
        try:
            found = json.loads(body[:end])
        except (ValueError, RecursionError):
            continue
        return isinstance(found, list) or (isinstance(found, dict) and "name" in found)
    return False


@dataclass
class DeletionFuzz:
    """A cluster with a running job and no lease, whose use, state or resources are answered with anything.

    :param answers: number of answers that could not be read
    :param outcomes: number of actions by their outcome
    """

    rng: random.Random
    service: RawService
    answers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    deleted: list[str] = field(default_factory=list)

    def odd(self, request: Request) -> bytes | None:
        """Answer a request about the busy cluster's use with something that cannot be read."""
        if request.method in ("DELETE", "PATCH"):
            self.deleted.append(f"{request.method} {request.path}")
        about_use = f"{BUSY}{SUFFIX}/" in request.path
        # Seldom: most of what asks for the jobs has to know the cluster.
        about_cluster = request.path.endswith(f"/persistentResources/{BUSY}") and self.rng.random() < 0.1
        if request.method != "GET" or not (about_use or about_cluster):
            return None
        while is_readable(answer := odd_bytes(self.rng, self.service.usual(request))):
            pass
        self.answers += 1
        return answer

    async def run(self, answers: int) -> None:
        """Reap, ensure and resize in turn until this many answers were given."""
        self.service.odd = self.odd
        while self.answers < answers:
            self.prepare()
            await self.reap()
            await self.ensure()
            await self.resize()

    def prepare(self) -> None:
        """Begin with the same clusters again: the busy one is old, and a newer generation has replaced it."""
        self.service.clusters.clear()
        self.service.requests.clear()
        for number in (1, 2):
            self.service.add(f"etl-g{number}", labels={**OWNER, GENERATION_LABEL: str(number)})
            self.service.jobs[f"etl-g{number}"] = [JOB]

    async def reap(self) -> None:
        """Let the reaper judge all clusters."""
        trigger = VertexRayReaperTrigger(
            location=LOCATION, idle_for=0.001, max_age=0.001, poll_interval=0.01, deadline=time.time() + PATIENCE
        )
        event = await asyncio.wait_for(trigger.outcome(), PATIENCE)
        if event["status"] != "success":
            self.outcomes[f"reap: {event['error']['type']}"] += 1
            return
        for each in event["result"]["clusters"]:
            self.outcomes[f"reap: {each['cluster_id']} {each['action']}"] += 1

    async def ensure(self) -> None:
        """Ensure the shared cluster, which deletes unused older generations."""
        trigger = VertexRayClusterEnsureTrigger(
            shared_name="etl",
            spec=SPEC.to_dict(),
            location=LOCATION,
            poll_interval=0.01,
            deadline=time.time() + PATIENCE,
        )
        event = await asyncio.wait_for(trigger.outcome(), PATIENCE)
        self.outcomes[f"ensure: {event['status']} {event.get('error', {}).get('type', '')}"] += 1

    async def resize(self) -> None:
        """Remove a worker."""
        hook = VertexRayClusterAsyncHook(location=LOCATION)
        try:
            found: Any = await hook.resize_cluster(BUSY, {"worker-pool1": 1})
            self.outcomes[f"resize: {found}"] += 1
        except ClusterInUseError:
            self.outcomes["resize: refused"] += 1
        except (VertexRayError, InvalidArgumentError) as error:
            # The latter if the name of a pool is another one by now.
            self.outcomes[f"resize: {type(error).__name__}"] += 1
