"""The command ``vertex-ray-emulator``, run as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from emulator_support.process import PATIENCE, QUICK, EmulatorProcess, cluster_body, until
from vertex_ray_emulator import cli
from vertex_ray_emulator.settings import Settings, default_state_dir


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vertex_ray_emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_start_writes_state_file_and_stop_removes_it(state_dir: Path) -> None:
    with EmulatorProcess(state_dir, QUICK) as emulator:
        state = json.loads((state_dir / "emulator.json").read_text())
        assert set(state) == {"pid", "host", "project", "project_number", "profile", "traits", "env", "ports"}
        assert state["pid"] == emulator.pid
        # The state file comes first.
        until(lambda: "Next: " in emulator.log(), "it does not say what comes next")
        told = emulator.log()
        assert told.startswith(f"vertex-ray-emulator is ready on {emulator.host}\nProject demo-project, ")
        for line in (
            f"export VERTEX_RAY_EMULATOR_HOST={emulator.host}",
            "export AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT='google-cloud-platform://?project=demo-project'",
            f'eval "$(vertex-ray-emulator env --state-dir {state_dir})"',
            f"Next: vertex-ray-emulator status --state-dir {state_dir}",
        ):
            assert line in told
        emulator.create("c1")
        assert emulator.stop() == 0
        assert not (state_dir / "emulator.json").exists()
        assert "Traceback" not in emulator.log()


def test_sigint_stops_emulator(state_dir: Path) -> None:
    with EmulatorProcess(state_dir, QUICK) as emulator:
        os.kill(emulator.pid, signal.SIGINT)
        until(lambda: emulator.returncode is not None)
        assert emulator.returncode == 0


def test_second_start_on_same_state_directory_is_refused(state_dir: Path) -> None:
    with EmulatorProcess(state_dir, QUICK) as emulator:
        second = run("start", "--port", "0", "--state-dir", str(state_dir), "--backend", "fake")
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert emulator.host in second.stderr
        assert emulator.admin("GET", "health") == {"status": "ok"}


def test_start_after_crash_has_no_clusters_and_keeps_authority(state_dir: Path) -> None:
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


def test_stop_ends_the_emulator_and_waits(state_dir: Path) -> None:
    emulator = EmulatorProcess(state_dir, QUICK).start()
    emulator.create("c1")
    stopped = run("stop", "--state-dir", str(state_dir))
    assert (stopped.returncode, stopped.stdout) == (0, f"The emulator on {emulator.host} has stopped.\n")
    until(lambda: emulator.returncode is not None)
    assert emulator.returncode == 0
    again = run("stop", "--state-dir", str(state_dir))
    assert again.returncode == 3
    assert "Start one with: vertex-ray-emulator start" in again.stderr


def test_state_of_a_dead_emulator_is_explained(state_dir: Path) -> None:
    emulator = EmulatorProcess(state_dir, QUICK).start()
    emulator.kill()
    # Another process may have its process id by now.
    file = state_dir / "emulator.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": os.getpid()}))
    for command in ("env", "status", "stop"):
        answer = run(command, "--state-dir", str(state_dir))
        assert answer.returncode == 3
        assert f"on {emulator.host} has died" in answer.stderr


def test_version() -> None:
    answer = run("--version")
    assert re.fullmatch(r"vertex-ray-emulator \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+, Ray 2\.47\.1\)\n", answer.stdout)


def test_status_names_another_address_in_the_environment(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorProcess(state_dir, QUICK) as emulator:
        monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "127.0.0.1:1")
        answer = run("status", "--state-dir", str(state_dir))
        assert answer.returncode == 0
        assert f"127.0.0.1:1 here, but this emulator listens on {emulator.host}" in answer.stderr
        monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", emulator.host.replace("127.0.0.1", "localhost"))
        assert run("status", "--state-dir", str(state_dir)).stderr == ""


def test_another_project_is_named_as_such(emulator: EmulatorProcess) -> None:
    status, answer = emulator.api("GET", "projects/other-project/locations/us-central1/persistentResources")
    assert status == 403
    assert "The Vertex Ray emulator has only the project 'demo-project'" in answer["error"]["message"]


def test_start_on_taken_port_fails(state_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run("start", "--port", port, "--state-dir", str(state_dir), "--backend", "fake")
    assert refused.returncode == 1
    assert "address already in use" in refused.stderr
    assert "--port 0 for a free one" in refused.stderr
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
        assert re.search(rf"^c1 +RUNNING +3 +\d+:\d\d:\d\d +{dashboard}$", status.stdout, re.MULTILINE)
        as_json = json.loads(run("status", "--json", "--state-dir", str(state_dir)).stdout)
        assert as_json["running"] is True
        assert [cluster["id"] for cluster in as_json["clusters"]] == ["c1"]


def test_env_and_status_when_nothing_runs(state_dir: Path) -> None:
    for command in ("env", "status"):
        answer = run(command, "--state-dir", str(state_dir))
        assert answer.returncode == 3
        assert "No emulator is running" in answer.stderr
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
        (["--port", "70000"], "Invalid value for port: 70000."),
        (["--delete-seconds", "-1"], "Invalid value for delete_seconds: -1.0."),
        (["--provisioning-seconds", "nan"], "Invalid value for provisioning_seconds: nan."),
        (["--token-seconds", "0"], "Invalid value for token_seconds: 0.0."),
        (["--without", "warmup,websockets"], "Invalid value for without: 'websockets'."),
        (["--leak-seconds", "inf"], "Invalid value for leak_seconds: inf."),
        (["--dashboard-warmup-seconds", "-1"], "Invalid value for warmup_seconds: -1.0."),
        (["--permission-seconds", "nan"], "Invalid value for permission_seconds: nan."),
        (["--project", "No"], "Invalid value for project: 'No'."),
        (["--project-number", "abc"], "Invalid value for project_number: 'abc'."),
    ],
)
def test_invalid_settings_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["start", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_default_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_state_dir() == Path("/somewhere/vertex-ray-emulator")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state_dir() == Path.home() / ".local" / "state" / "vertex-ray-emulator"
    assert Settings().state_dir == default_state_dir()


def test_project_can_be_set(state_dir: Path) -> None:
    arguments = [*QUICK, "--project", "my-project", "--project-number", "987654321"]
    with EmulatorProcess(state_dir, arguments) as emulator:
        assert emulator.create("c1")["name"].startswith("projects/987654321/")
        assert emulator.env["GOOGLE_CLOUD_PROJECT"] == "my-project"


def test_dashboard_warmup_and_google_form_of_its_address(state_dir: Path) -> None:
    arguments = [*QUICK, "--dashboard-warmup-seconds", "3600", "--dashboard-addresses", "google"]
    with EmulatorProcess(state_dir, arguments) as emulator:
        uris = emulator.create("c1", ready=False)["resourceRuntime"]["accessUris"]
        host = uris["RAY_DASHBOARD_URI"]
        assert re.fullmatch(r"[0-9a-f]+-dot-us-central1\.aiplatform-training\.googleusercontent\.com", host)
        assert emulator.request("GET", f"/{host}/api/version", token=emulator.token())[0] == 524


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
    # 127.0.0.1, and its IPv4-mapped IPv6 address, which gRPC binds.
    assert listening(emulator.pid) == {"0100007F", "0000000000000000FFFF00000100007F"}
