"""Removal of a cluster's files: waited for when a cluster is deleted, handed on when the emulator stops."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from emulator_support.data_plane import until
from emulator_support.process import PATIENCE
from vertex_ray_emulator.backends.processes import ClusterRecord, reclaim
from vertex_ray_emulator.backends.ray_cluster import Cluster, ClusterError


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    record = ClusterRecord.create("c-1", tmp_path)
    (Path(record.temp_dir) / "file").write_text("of a job")
    return Cluster(record, tmp_path)


@pytest.fixture
def slow_rm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``rm`` wait until the returned file exists, as it does for a long time on a slow disk."""
    flag = tmp_path / "go"
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "rm"
    script.write_text(f'#!/bin/sh\nwhile [ ! -e "{flag}" ]; do /bin/sleep 0.05; done\nexec /bin/rm "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return flag


async def test_end_waits_until_the_files_are_gone(cluster: Cluster, tmp_path: Path, slow_rm: Path) -> None:
    ending = asyncio.create_task(cluster.end())
    done, _ = await asyncio.wait({ending}, timeout=0.5)
    assert done == set()
    slow_rm.touch()  # noqa: ASYNC240
    await asyncio.wait_for(ending, PATIENCE)
    assert not Path(cluster.record.temp_dir).exists()  # noqa: ASYNC240
    assert list((tmp_path / "clusters").iterdir()) == []


async def test_end_with_patience_leaves_the_removal_to_another_process(
    cluster: Cluster, tmp_path: Path, slow_rm: Path
) -> None:
    await asyncio.wait_for(cluster.end(patience=0.2), PATIENCE)
    assert Path(cluster.record.temp_dir).exists()  # noqa: ASYNC240
    assert [file.name for file in (tmp_path / "clusters").iterdir()] == ["c-1.json"]
    slow_rm.touch()  # noqa: ASYNC240
    await until(lambda: not Path(cluster.record.temp_dir).exists(), "the files are removed")
    # The record is what the next emulator of this state directory looks for.
    reclaim(tmp_path)
    assert list((tmp_path / "clusters").iterdir()) == []


HOST = """
import json, pathlib, sys, time
for line in sys.stdin:
    command = json.loads(line)
    while "after" in command and not pathlib.Path(command["after"]).exists():
        time.sleep(0.05)
    print(json.dumps({"ok": True, "id": command["id"], "of": command["op"]}), flush=True)
"""
"""A node host that returns a command's name, once the file exists that the command names."""


async def test_answer_to_a_command_that_timed_out_is_skipped(cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    cluster._process = process
    try:
        assert await cluster.command(PATIENCE, op="first") == {"of": "first"}
        with pytest.raises(ClusterError, match=r"slow took longer than 0\.1 s"):
            await cluster.command(0.1, op="slow", after=str(flag))
        flag.touch()
        for name in ("second", "third"):
            assert await cluster.command(PATIENCE, op=name) == {"of": name}
    finally:
        process.kill()
        await process.wait()
    with pytest.raises(ClusterError, match="the node host died during late"):
        await cluster.command(PATIENCE, op="late")
