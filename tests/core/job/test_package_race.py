"""Why a small working_dir has a name of the job's own: Ray's own code, as a node runs it for two jobs at once."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.job.packages import Package

pytestmark = pytest.mark.sdk


class Store:
    """The cluster's store of packages, which answers after a while as any other process does."""

    async def async_internal_kv_get(self, key: bytes, namespace: Any = None, timeout: float | None = None) -> bytes:
        await asyncio.sleep(0.01)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("main.py", "")
        return content.getvalue()


async def removed_under_a_job(folder: Path, field: str, names: list[str]) -> list[bool]:
    """For each job, whether the folder that it was started in is removed while it runs."""
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.runtime_env.plugin import create_for_plugin_if_needed
    from ray._private.runtime_env.py_modules import PyModulesPlugin
    from ray._private.runtime_env.uri_cache import URICache
    from ray._private.runtime_env.working_dir import WorkingDirPlugin
    from ray.runtime_env import RuntimeEnv

    plugin = (WorkingDirPlugin if field == "working_dir" else PyModulesPlugin)(str(folder), Store())
    cache = URICache()
    ready: list[int] = []
    all_ready = asyncio.Event()

    async def job(number: int, name: str) -> bool:
        uri = f"gcs://{name}"
        environment = RuntimeEnv(**{field: uri if field == "working_dir" else [uri]}, env_vars={"NUMBER": str(number)})
        await create_for_plugin_if_needed(environment, plugin, cache, RuntimeEnvContext(), logging.getLogger("race"))
        started_in = os.open(folder / f"{field}_files" / name.removesuffix(".zip"), os.O_RDONLY)
        ready.append(number)
        if len(ready) == len(names):
            all_ready.set()
        await all_ready.wait()
        try:
            return os.fstat(started_in).st_nlink == 0
        finally:
            os.close(started_in)

    return list(await asyncio.gather(*(job(number, name) for number, name in enumerate(names))))


async def test_ray_removes_a_working_dir_that_two_jobs_share(tmp_path: Path) -> None:
    assert any(await removed_under_a_job(tmp_path, "working_dir", ["_ray_pkg_1.zip"] * 2))


async def test_with_names_of_their_own_jobs_are_safe(tmp_path: Path) -> None:
    package = Package(tmp_path / "p.zip", "_ray_pkg_1.zip", 100)
    names = [package.for_job(f"job-{number}").name for number in range(3)]
    assert not any(await removed_under_a_job(tmp_path, "working_dir", names))


async def test_zips_of_modules_can_be_shared(tmp_path: Path) -> None:
    assert not any(await removed_under_a_job(tmp_path, "py_modules", ["_ray_pkg_1.zip"] * 3))
