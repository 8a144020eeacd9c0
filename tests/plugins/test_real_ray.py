"""What a real Ray says of its nodes and jobs, as the page reads it."""

from __future__ import annotations

import asyncio
import time

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess

from airflow_provider_vertex_ray.plugins.page import connections
from airflow_provider_vertex_ray.plugins.page import reader as reader_module
from airflow_provider_vertex_ray.plugins.page.reader import PageReader
from airflow_provider_vertex_ray.plugins.page.row import cluster_row
from airflow_provider_vertex_ray.plugins.page.sources import Source
from airflow_provider_vertex_ray.plugins.page.timeline import timeline
from tests.support.clusters import BODY, LOCATION, submit

pytestmark = pytest.mark.ray


async def test_job_is_shown_on_its_node_with_its_cpu(
    ray_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "DEADLINE", PATIENCE)
    monkeypatch.setattr(connections, "ATTEMPT_SECONDS", PATIENCE)
    ray_emulator.create("real", BODY)
    submit(ray_emulator, "real", "on-a-worker", "echo hello && sleep 600", entrypoint_num_cpus=1)
    source = Source("google_cloud_default", LOCATION)
    reader = PageReader()
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            found, _ = await reader.cluster(source, "real", PATIENCE, patient=True)
            assert found is not None
            nodes, jobs = found.nodes.value, found.jobs.value or ()
            # Ray's autoscaler reports every few seconds.
            if nodes is not None and jobs and jobs[0].node_id and nodes.usage["CPU"] == (1.0, 16.0):
                break
            assert time.monotonic() < deadline, (nodes, jobs)
            reader.outdate(source, found.cluster)
        assert nodes.alive == 3
        row = cluster_row(found, time.time(), lambda _: True, lambda _: None)
        assert [(meter.name, meter.text) for meter in row.meters] == [("CPU", "1 / 16")]
        drawn = timeline(jobs, {ray_id: f"node {place}" for place, ray_id in enumerate(nodes.ids)}, time.time())
        assert drawn is not None
        assert [group.label for group in drawn.groups] in (["node 1"], ["node 2"])
        while True:
            log = await reader.log(source, found.cluster, jobs[0], PATIENCE, patient=True)
            assert log.value is not None
            if "hello" in log.value.lines:
                break
            assert time.monotonic() < deadline, log.value
            await asyncio.sleep(0.1)
    finally:
        await reader.close()
