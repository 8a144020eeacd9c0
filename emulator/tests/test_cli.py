"""The command, from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from emulator_support.process import QUICK, EmulatorProcess, cluster_body, until
from vertex_ray_emulator import cli
from vertex_ray_emulator.settings import Settings, default_state_dir


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vertex_ray_emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_start_ready_stop(state_dir: Path) -> None:
    emulator = EmulatorProcess(state_dir, QUICK).start()
    note = json.loads((state_dir / "emulator.json").read_text())
    assert set(note) == {"pid", "host", "project", "project_number", "env", "ports"}
    assert note["pid"] == emulator.pid
    assert emulator.log() == f"vertex-ray-emulator is ready on {emulator.host}\n"
    emulator.create("c1")
    start = time.monotonic()
    assert emulator.stop() == 0
    assert time.monotonic() - start < 15
    assert not (state_dir / "emulator.json").exists()
    assert "Traceback" not in emulator.log()


def test_sigint_ends_it_too(state_dir: Path) -> None:
    emulator = EmulatorProcess(state_dir, QUICK).start()
    os.kill(emulator.pid, signal.SIGINT)
    until(lambda: emulator.returncode is not None)
    assert emulator.returncode == 0


def test_a_second_start_on_one_state_directory_is_refused(state_dir: Path) -> None:
    with EmulatorProcess(state_dir, QUICK) as emulator:
        second = run("start", "--port", "0", "--state-dir", str(state_dir), "--backend", "fake")
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert emulator.host in second.stderr
        assert emulator.admin("GET", "health") == {"status": "ok"}


def test_a_start_after_a_crash_is_fresh_and_keeps_the_authority(state_dir: Path) -> None:
    first = EmulatorProcess(state_dir, QUICK).start()
    first.create("c1")
    authority = Path(first.env["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]).read_bytes()
    first.kill()
    assert (state_dir / "emulator.json").exists()
    assert run("env", "--state-dir", str(state_dir)).returncode == 3
    assert run("status", "--state-dir", str(state_dir)).returncode == 3
    with EmulatorProcess(state_dir, QUICK) as second:
        assert second.admin("GET", "clusters") == {"clusters": []}
        assert Path(second.env["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]).read_bytes() == authority
        assert second.create("c1")["state"] == "RUNNING"


def test_a_port_that_is_taken(state_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run("start", "--port", port, "--state-dir", str(state_dir), "--backend", "fake")
    assert refused.returncode == 1
    assert "address already in use" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_env_and_status(state_dir: Path) -> None:
    with EmulatorProcess(state_dir, QUICK) as emulator:
        emulator.create("c1", cluster_body(2))
        env = run("env", "--state-dir", str(state_dir))
        status = run("status", "--state-dir", str(state_dir))
        shell = env.stdout + f'\n{sys.executable} -c "import os, json; print(json.dumps(dict(os.environ)))"'
        seen = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=True)
        assert emulator.env.items() <= json.loads(seen.stdout).items()
        assert set(emulator.env) >= {
            "VERTEX_RAY_EMULATOR_HOST",
            "GOOGLE_CLOUD_PROJECT",
            "GCE_METADATA_HOST",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
            "grpc_proxy",
            "https_proxy",
            "no_proxy",
        }
        assert json.loads(run("env", "--json", "--state-dir", str(state_dir)).stdout) == emulator.env
        assert status.returncode == 0
        dashboard = r"http://127\.0\.0\.1:\d+"
        assert re.search(rf"^c1 +RUNNING +3 +0:00:\d\d +{dashboard}$", status.stdout, re.MULTILINE)
        as_json = json.loads(run("status", "--json", "--state-dir", str(state_dir)).stdout)
        assert as_json["running"] is True
        assert [cluster["id"] for cluster in as_json["clusters"]] == ["c1"]


def test_env_and_status_when_nothing_runs(state_dir: Path) -> None:
    for command in ("env", "status"):
        answer = run(command, "--state-dir", str(state_dir))
        assert answer.returncode == 3
        assert "not running" in answer.stderr
        assert answer.stdout == ""
    answer = run("status", "--json", "--state-dir", str(state_dir))
    assert (answer.returncode, json.loads(answer.stdout)) == (3, {"running": False})


def test_env_and_status_import_no_server() -> None:
    code = (
        "import sys, vertex_ray_emulator.cli as c; "
        "print([m for m in ('aiohttp', 'grpc', 'google.protobuf', 'ray', 'cryptography') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "port must be between 0 and 65535"),
        (["--delete-seconds", "-1"], "delete_seconds must not be negative"),
        (["--provisioning-seconds", "nan"], "provisioning_seconds must not be negative"),
        (["--token-seconds", "0"], "token_seconds must be positive"),
        (["--project", "No"], "project is no project id"),
        (["--project-number", "abc"], "project_number must be a number"),
    ],
)
def test_settings_that_mean_nothing(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["start", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_state_directory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_state_dir() == Path("/somewhere/vertex-ray-emulator")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state_dir() == Path.home() / ".local" / "state" / "vertex-ray-emulator"
    assert Settings().state_dir == default_state_dir()


def test_another_project(state_dir: Path) -> None:
    arguments = [*QUICK, "--project", "my-project", "--project-number", "987654321"]
    with EmulatorProcess(state_dir, arguments) as emulator:
        assert emulator.create("c1")["name"].startswith("projects/987654321/")
        assert emulator.env["GOOGLE_CLOUD_PROJECT"] == "my-project"


def test_a_dashboard_that_is_not_warm_and_googles_form_of_its_address(state_dir: Path) -> None:
    arguments = [*QUICK, "--dashboard-warmup-seconds", "2", "--dashboard-addresses", "google"]
    with EmulatorProcess(state_dir, arguments) as emulator:
        uris = emulator.create("c1")["resourceRuntime"]["accessUris"]
        host = uris["RAY_DASHBOARD_URI"]
        assert re.fullmatch(r"[0-9a-f]+-dot-us-central1\.aiplatform-training\.googleusercontent\.com", host)
        path, token = f"/{host}/api/version", emulator.token()
        assert emulator.request("GET", path, token=token)[0] == 503
        until(lambda: emulator.request("GET", path, token=token)[0] == 200)


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens, as the kernel tells."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].split(":")[0])
    return found


def test_nothing_listens_outside_loopback(emulator: EmulatorProcess) -> None:
    emulator.create("c1")
    # 127.0.0.1, and the same as gRPC binds it: mapped into IPv6.
    assert listening(emulator.pid) == {"0100007F", "0000000000000000FFFF00000100007F"}
