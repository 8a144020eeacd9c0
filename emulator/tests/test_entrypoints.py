"""Entrypoints on the fake backend: run for real, or a warning that they were not."""

from __future__ import annotations

import io
import os
import signal
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from emulator_support.process import PATIENCE, QUICK, EmulatorProcess, until
from vertex_ray_emulator.backends.fake_jobs import is_simulated

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class Jobs:
    """The Jobs API of a cluster."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self.emulator, self.token = emulator, emulator.token()
        uri = emulator.create("c1")["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"]
        self.base = "/" + uri.split("/", 1)[1]

    def submit(self, entrypoint: str, submission_id: str = "job", **more: Any) -> None:
        body = {"entrypoint": entrypoint, "submission_id": submission_id, **more}
        status, answer = self.emulator.request("POST", f"{self.base}/api/jobs/", body, token=self.token)
        assert status == 200, answer

    def details(self, submission_id: str = "job") -> dict[str, Any]:
        return dict(self.emulator.request("GET", f"{self.base}/api/jobs/{submission_id}", token=self.token)[1])

    def log(self, submission_id: str = "job") -> str:
        return str(
            self.emulator.request("GET", f"{self.base}/api/jobs/{submission_id}/logs", token=self.token)[1]["logs"]
        )

    def upload(self, name: str, files: dict[str, str]) -> str:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        return self.put(name, data.getvalue())

    def put(self, name: str, data: bytes) -> str:
        address = f"http://{self.emulator.host}{self.base}/api/packages/gcs/{name}.zip"
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(address, data, headers, method="PUT")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE).close()
        return f"gcs://{name}.zip"

    def run(self, entrypoint: str, **more: Any) -> tuple[str, int | None, str]:
        self.submit(entrypoint, **more)
        until(lambda: self.details()["status"] in ENDED)
        found = self.details()
        return found["status"], found["driver_exit_code"], self.log().split("Runtime env is setting up.\n", 1)[1]


@pytest.fixture
def jobs(emulator: EmulatorProcess) -> Jobs:
    return Jobs(emulator)


def test_script_of_the_working_directory_runs(jobs: Jobs) -> None:
    files = {
        "main.py": "import os, sys, helper\nprint(helper.TEXT, os.environ['MINE'], sys.argv[1])",
        "helper.py": "TEXT = 'hello'",
    }
    runtime_env = {"working_dir": jobs.upload("code", files), "env_vars": {"MINE": "of mine"}}
    assert jobs.run("python main.py x", runtime_env=runtime_env) == ("SUCCEEDED", 0, "hello of mine x\n")


def test_modules_are_on_the_path(jobs: Jobs) -> None:
    module = jobs.upload("module", {"mine/__init__.py": "X = 7"})
    assert jobs.run("python -c 'import mine; print(mine.X)'", runtime_env={"py_modules": [module]})[2] == "7\n"


@pytest.mark.parametrize(
    ("entrypoint", "code", "log"),
    [
        ("python -c 'raise RuntimeError(\"no good\")'", 1, "RuntimeError: no good\n"),
        ("python nothing.py", 2, "No such file or directory\n"),
        ("no-such-command", 127, "not found\n"),
        ("echo before; exit 3", 3, "before\n"),
        ("kill -9 $$", -9, ""),
    ],
)
def test_what_fails_fails(jobs: Jobs, entrypoint: str, code: int, log: str) -> None:
    status, found, text = jobs.run(entrypoint)
    assert (status, found) == ("FAILED", code)
    assert text.endswith(log)
    assert jobs.details()["message"].startswith(f"Job entrypoint command failed with exit code {code}")


def test_output_arrives_as_it_is_written(jobs: Jobs) -> None:
    jobs.submit("printf 'one\\ntwo'; sleep 600")
    until(lambda: jobs.log().endswith("one\n"))
    jobs.emulator.request("POST", f"{jobs.base}/api/jobs/job/stop", {}, token=jobs.token)
    until(lambda: jobs.details()["status"] == "STOPPED")


def test_bytes_and_long_lines_are_kept(jobs: Jobs) -> None:
    program = "import sys; sys.stdout.buffer.write(b'\\xe9t\\xe9\\n' + b'x' * 300000 + b'\\nend')"
    log = jobs.run(f'python -c "{program}"')[2]
    assert log == "\N{REPLACEMENT CHARACTER}t\N{REPLACEMENT CHARACTER}\n" + "x" * 300_000 + "\nend"


def test_stop_ends_all_processes(jobs: Jobs, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    jobs.submit(f"sh -c 'echo $$ >> {pids}; sleep 600 & echo $! >> {pids}; wait'")
    until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    found = [int(pid) for pid in pids.read_text().split()]
    jobs.emulator.request("POST", f"{jobs.base}/api/jobs/job/stop", {}, token=jobs.token)
    until(lambda: not any(psutil.pid_exists(pid) for pid in found))
    assert jobs.details()["status"] == "STOPPED"


def test_child_in_the_background_does_not_keep_the_job_running(jobs: Jobs) -> None:
    # It would run for longer than the test waits for the job.
    status, code, log = jobs.run("(sleep 3600; echo never) & printf 'one\ntwo'; exit 0")
    assert (status, code, log) == ("SUCCEEDED", 0, "one\ntwo")


def test_stop_ends_processes_in_a_session_of_their_own(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    jobs.submit(f"setsid sh -c 'echo $$ > {file}; exec sleep 600' & wait; sleep 600")
    until(lambda: file.exists() and file.read_text().strip())
    pid = int(file.read_text())
    jobs.emulator.request("POST", f"{jobs.base}/api/jobs/job/stop", {}, token=jobs.token)
    try:
        until(lambda: not psutil.pid_exists(pid))
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def test_ray_is_refused_at_once_and_by_name(jobs: Jobs) -> None:
    status, _, log = jobs.run("python -c 'import ray; ray.init()'")
    assert status == "FAILED"
    assert "there-is-no-ray-behind-the-fake-backend" in log


@pytest.mark.parametrize(
    ("runtime_env", "words"),
    [
        ({"working_dir": 5}, "`working_dir` must be a string"),
        ({"py_modules": 5}, "`py_modules` must be a list of strings"),
        ({"py_modules": [5]}, "`py_modules` must be a list of strings"),
        ({"env_vars": ["A=1"]}, "runtime_env['env_vars'] must be of type Dict[str, str]"),
        ({"working_dir": "gcs://missing.zip"}, "Failed to download runtime_env file package gcs://missing.zip"),
    ],
)
@pytest.mark.parametrize("entrypoint", ["echo simulated", "python -c 'print(1)'"])
def test_runtime_env_that_cannot_be_set_up_fails_the_job(
    jobs: Jobs, entrypoint: str, runtime_env: dict[str, Any], words: str
) -> None:
    jobs.submit(entrypoint, runtime_env=runtime_env)
    until(lambda: jobs.details()["status"] == "FAILED")
    message = jobs.details()["message"]
    assert message.startswith("runtime_env setup failed: ")
    assert words in message


def test_package_that_is_no_zip_fails_the_job(jobs: Jobs) -> None:
    uri = jobs.put("code", b"no zip")
    jobs.submit("python main.py", runtime_env={"working_dir": uri})
    until(lambda: jobs.details()["status"] == "FAILED")
    assert jobs.details()["message"].startswith("runtime_env setup failed: ")
    assert "BadZipFile" in jobs.details()["message"]


def test_requirements_that_are_not_installed_are_named(jobs: Jobs) -> None:
    log = jobs.run("python -c 'print(1)'", runtime_env={"pip": ["numpy"]})[2]
    assert log == "WARNING: the fake backend does not apply runtime_env['pip'].\n1\n"


def test_jobs_end_with_the_emulator(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with EmulatorProcess(tmp_path / "state", QUICK) as emulator:
        Jobs(emulator).submit(f"echo $$ > {file}; exec {sys.executable} -c 'import time; time.sleep(600)'")
        until(lambda: file.exists() and file.read_text().strip())
        pid = int(file.read_text())
        assert psutil.pid_exists(pid)
        os.kill(emulator.pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid))


def test_without_the_trait_the_log_says_that_nothing_ran(tmp_path: Path) -> None:
    with EmulatorProcess(tmp_path / "state", [*QUICK, "--without", "run-entrypoints"]) as emulator:
        status, _, log = Jobs(emulator).run("python train.py")
    assert status == "SUCCEEDED"
    assert log.startswith("WARNING: this entrypoint was NOT RUN.")
    assert "--backend ray" in log


@pytest.mark.parametrize(
    ("entrypoint", "simulated"),
    [
        ("sleep 1 && echo a b && exit 3", True),
        ("", True),
        ("true", True),
        ("count 3 1", True),
        ("python x.py", False),
        ("echo a && python x.py", False),
        ("echo a; exit 1", False),
        ("echo $HOME", False),
        ("echo a > file", False),
        ("echo a\npython x.py", False),
    ],
)
def test_simulated_entrypoints(entrypoint: str, simulated: bool) -> None:
    assert is_simulated(entrypoint) is simulated
