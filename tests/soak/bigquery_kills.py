"""BigQuery steps while their parts are killed: after each step the table is the old or the whole new one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred
from emulator_support.process import EmulatorProcess
from vertex_ray_emulator.backends.processes import command_line, descendants

from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from tests.support.bigquery import BigQuery
from tests.support.clusters import BODY, LOCATION
from tests.support.tasks import TaskInstance, context_of, first_event, round_trip

PARTS = ("driver", "worker", "raylet", "task", "triggerer")
MOST_TRIES = 8
# A step takes about so long on two processors; kills come somewhere in it.
STEP_SECONDS = 7.0


def slowly(batch: Any) -> Any:
    import time

    # Something to be killed in.
    time.sleep(0.3)
    batch["z"] = batch["x"] * 2
    return batch


@dataclass
class Outcome:
    """What came of it."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    tries: int = 0
    failures: list[str] = field(default_factory=list)


class Kills:
    """Runs steps, one after the other, and kills one part in each of their first tries.

    :param rows: Rows of the source; BigQuery's emulator gives several streams above 1 MB.
    """

    def __init__(self, emulator: EmulatorProcess, warehouse: BigQuery, seed: int, rows: int = 200_000) -> None:
        self.emulator, self.warehouse, self.rows = emulator, warehouse, rows
        self.chance = random.Random(seed)
        self.outcome = Outcome()
        self.cluster = ""
        self.number = 0
        self._new_cluster()

    def _new_cluster(self) -> None:
        if self.cluster:
            self.emulator.admin("DELETE", f"clusters/{self.cluster}")
        self.number += 1
        self.cluster = f"kills-{self.number}"
        found = self.emulator.create(self.cluster, BODY)
        assert found["state"] == "RUNNING", found

    def run(self, part: str, write_disposition: str) -> None:
        """One step: a kill in its first try, and retries until it is done."""
        source = self.warehouse.numbers("source", self.rows)
        self.warehouse.sql("CREATE OR REPLACE TABLE shop.target AS SELECT -x AS x, 0 AS z FROM UNNEST([1, 2, 3]) x")
        old = 3
        new = self.rows + (old if write_disposition == "WRITE_APPEND" else 0)
        run_id = f"{part}-{self.chance.random()}"
        for number in range(1, MOST_TRIES + 1):
            self.outcome.tries += 1
            operator = VertexRayBigQueryOperator(
                task_id="step",
                cluster_id=self.cluster,
                location=LOCATION,
                query=f"SELECT x FROM {source}",
                transform=slowly,
                batch_size=25_000,
                target_table="shop.target",
                write_disposition=write_disposition,
                deferrable=True,
                poll_interval=0.2,
                job_timeout=200,
            )
            context = context_of(operator, TaskInstance("step", run_id=run_id, max_tries=9, try_number=number))
            try:
                found = self._try(operator, context, part if number == 1 else None)
            except VertexRayError:
                self._whole({(old, old), (new, new)}, f"{part}: after a failed try")
                continue
            if found is None:
                self._whole({(old, old), (new, new)}, f"{part}: after a lost try")
                continue
            self._whole({(new, new)}, f"{part}: at the end")
            if found["rows_written"] != self.rows:
                self.outcome.failures.append(f"{part}: {found}")
            break
        else:
            self.outcome.failures.append(f"{part}: not done after {MOST_TRIES} tries")
        if left := self.warehouse.staging():
            self.outcome.failures.append(f"{part}: {left} is left")
        if part == "raylet":
            self._new_cluster()

    def _whole(self, allowed: set[tuple[int, int]], when: str) -> None:
        counts = self.warehouse.counts("target")
        if counts not in allowed:
            self.outcome.failures.append(f"{when} the table has {counts}, and not one of {allowed}")

    def _try(self, operator: VertexRayBigQueryOperator, context: Any, part: str | None) -> dict[str, Any] | None:
        """One try; None when the task or its triggerer was lost in it."""
        operator.render_template_fields(context)
        try:
            operator.execute(context)
        except TaskDeferred as deferral:
            waiting = deferral
        else:
            raise AssertionError("it did not defer")
        event = asyncio.run(self._wait(waiting.trigger, part))
        if event is None and part == "triggerer":
            # Another triggerer takes the same trigger.
            event = asyncio.run(first_event(round_trip(waiting.trigger)))
        return None if event is None else operator.execute_complete(context, event)

    async def _wait(self, trigger: Any, part: str | None) -> dict[str, Any] | None:
        work = asyncio.create_task(first_event(round_trip(trigger)))
        if part is not None:
            await asyncio.wait({work}, timeout=self.chance.uniform(0, STEP_SECONDS))
            if not work.done():
                self.outcome.kills[part] += 1
                if part in ("task", "triggerer"):
                    # Cancelled without a word of a user's, as a process that ends does.
                    work.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await work
                    return None
                await asyncio.to_thread(self._kill, part, trigger.submission_id)
        return await work

    def _kill(self, part: str, submission_id: str) -> None:
        if part == "driver":
            body = {"part": "driver", "submission_id": submission_id}
            self.emulator.request("POST", f"/emulator/clusters/{self.cluster}/kill", body)
        elif part == "raylet":
            nodes = self.emulator.admin("GET", "clusters")["clusters"][0]["nodes"]
            (node, *_) = [each["node_id"] for each in nodes if each["node_id"] != "head"]
            self.emulator.admin("POST", f"clusters/{self.cluster}/kill", {"part": "raylet", "node": node})
        else:
            workers = [pid for pid in descendants([self.emulator.pid]) if command_line(pid).startswith("ray::")]
            for pid in workers:
                if Path(f"/proc/{pid}").exists() and "JobSupervisor" not in command_line(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
