"""The quick starts, as their pages have them: pasted into a shell, with nothing but what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow import __version__
from emulator_support.process import EmulatorProcess

from devtools.docs_blocks import ROOT, Block, blocks

pytestmark = [pytest.mark.soak, pytest.mark.ray, pytest.mark.timeout(900)]


def _blocks(page: str, language: str) -> list[Block]:
    return [block for block in blocks((ROOT / "docs" / page).read_text()) if block.language == language]


def _expected(page: str) -> list[str]:
    """Return the lines of the last output on a page; what changes from run to run is a pattern."""
    lines = _blocks(page, "text")[-1].code.splitlines()
    return [re.sub(r"first-\d+t\d+|…", ".*", re.escape(line).replace(r"\-", "-")) for line in lines]


def _paste(commands: str, home: Path) -> str:
    """Run commands in a shell whose home is a new folder; return all that they print."""
    place = Path(sys.executable).parent
    environment = {"HOME": str(home), "PATH": f"{place}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.skipif(__version__.startswith("2."), reason="the quick start installs Airflow 3")
def test_quick_start_for_airflow(tmp_path: Path) -> None:
    dags = tmp_path / "ray-quick-start" / "dags"
    dags.mkdir(parents=True)
    (code,) = _blocks("quick-start.md", "python")
    (dags / "first_ray_jobs.py").write_text(code.code)
    commands = _blocks("quick-start.md", "bash")[-1].code
    assert "127.0.0.1:8787" in commands
    with EmulatorProcess(tmp_path / "emulator") as emulator:
        printed = _paste(commands.replace("127.0.0.1:8787", emulator.host), tmp_path)
    for line in _expected("quick-start.md"):
        assert re.search(line, printed), line


def test_quick_start_for_the_sdk(tmp_path: Path) -> None:
    (code,) = _blocks("quick-start-sdk.md", "python")
    (tmp_path / "first_cluster.py").write_text(code.code)
    printed = _paste(_blocks("quick-start-sdk.md", "bash")[-1].code, tmp_path).splitlines()
    expected = _blocks("quick-start-sdk.md", "text")[-1].code.splitlines()
    assert [line for line in printed if line in expected] == expected
