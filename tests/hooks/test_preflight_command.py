"""The command as a user runs it: in a process of its own, without an Airflow database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.preflight.report import CHECKS
from tests.support.clusters import LOCATION
from tests.support.forks import Forks

COMMAND = "airflow_provider_vertex_ray.hooks.preflight_command"
HOOK = "airflow_provider_vertex_ray.hooks.preflight"
PLACE = ["--project", "demo-project", "--location", LOCATION]


class Command:
    """``vertex-ray-preflight`` with an empty home.

    :param home: home folder.
    :param environment: variables of this test alone.
    :param forks: processes with this home that have imported Airflow; default: a new process, which imports it.
    """

    def __init__(self, home: Path, environment: dict[str, str], forks: Forks | None) -> None:
        self.home, self.environment, self._forks = home, environment, forks

    def run(self, arguments: Sequence[str], given: str = "", **environment: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error output."""
        more = {**self.environment, **environment}
        if self._forks is not None:
            done = self._forks.run(arguments, given, **more)
            assert "Traceback" not in done.errors, done.errors
            return done.code, done.output, done.errors
        process = subprocess.run(
            [sys.executable, "-m", COMMAND, *arguments],
            input=given,
            capture_output=True,
            text=True,
            env={**environment_of(self.home), **more},
            timeout=240,
            check=False,
        )
        assert "Traceback" not in process.stderr, process.stderr
        return process.returncode, process.stdout, process.stderr


def environment_of(home: Path) -> dict[str, str]:
    """Variables of a process with this home: nothing of the tests' own Airflow and of this machine's credentials."""
    found = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "GOOGLE", "VERTEX_RAY", "STORAGE")) and name != "PYTHONWARNINGS"
    }
    return {**found, "HOME": str(home), "CLOUDSDK_CONFIG": str(home / "gcloud"), "NO_GCE_CHECK": "true"}


@pytest.fixture(scope="module")
def forks_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def forks(forks_home: Path) -> Iterator[Forks]:
    with Forks(COMMAND, HOOK, environment=environment_of(forks_home)) as found:
        yield found


@pytest.fixture
def bare(forks: Forks, forks_home: Path) -> Iterator[Command]:
    """Without an emulator."""
    yield Command(forks_home, {}, forks)
    assert list(forks_home.rglob("*.db")) == []


@pytest.fixture
def command(bare: Command, fake_emulator: EmulatorProcess) -> Command:
    bare.environment["VERTEX_RAY_EMULATOR_HOST"] = fake_emulator.host
    return bare


@pytest.fixture
def new_command(tmp_path: Path, fake_emulator: EmulatorProcess) -> Iterator[Command]:
    """As a user has it: a process that imports Airflow itself."""
    yield Command(tmp_path, {"VERTEX_RAY_EMULATOR_HOST": fake_emulator.host}, None)
    assert list(tmp_path.rglob("*.db")) == []


def test_only_the_table_is_printed(new_command: Command) -> None:
    code, output, said = new_command.run(PLACE)
    assert code == 0, said
    heading, *lines = output.splitlines()
    assert heading.split() == ["status", "check", "subject", "found"]
    # How long the versions are available depends on the day, and so does the remedy in the line below.
    assert {line.split()[0] for line in lines if " versions " not in line and "->" not in line} == {"pass"}
    column = heading.index("subject")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines if "->" not in line)
    assert said == ""


def test_json_output_and_spec_from_a_file(command: Command, fake_emulator: EmulatorProcess) -> None:
    fake_emulator.admin("PUT", "project", {"services": {"aiplatform.googleapis.com": "DISABLED"}})
    file = command.home / "spec.json"
    file.write_text(json.dumps({"worker_node_types": [{"machine_type": "n2-standard-8", "node_count": 3}]}))
    code, output, _ = command.run([*PLACE, "--spec", str(file), "--json", "--check", "quota", "--check", "apis"])
    assert code == 1
    report = json.loads(output)
    assert (report["worst"], report["project_id"], report["location"]) == ("fail", "demo-project", LOCATION)
    assert [each["check"] for each in report["findings"]] == ["apis", "apis", "apis", "quota", "quota"]
    assert report["findings"][-1]["found"].startswith("24 requested")
    assert report["findings"][0]["remedy"] == (
        "gcloud services enable aiplatform.googleapis.com --project=demo-project"
    )


def test_spec_from_standard_input_and_buckets(command: Command, storage: StorageEmulator) -> None:
    arguments = [*PLACE, "--spec", "-", "--bucket", "no-such-bucket", "--lease-uri", storage.uri, "--check", "bucket"]
    code, output, _ = command.run(arguments, '{"ray_version": "2.47"}', STORAGE_EMULATOR_HOST=storage.host)
    assert code == 1
    lines = output.splitlines()
    assert lines[1].split()[:3] == ["fail", "bucket", "gs://no-such-bucket"]
    assert "-> gcloud storage buckets create gs://no-such-bucket" in lines[2]
    assert lines[3].split()[:3] == ["pass", "bucket", storage.uri]


def test_unknown_finding_is_no_failure(command: Command, fake_emulator: EmulatorProcess) -> None:
    fake_emulator.admin("PUT", "project", {"services": {"serviceusage.googleapis.com": "DISABLED"}})
    code, output, _ = command.run([*PLACE, "--check", "apis"])
    assert (code, output.splitlines()[1].split()[0]) == (0, "could_not_check")


def test_project_of_the_connection_is_used(command: Command) -> None:
    connection = "google-cloud-platform://?project=demo-project"
    code, output, said = command.run(
        ["--location", LOCATION, "--gcp-conn-id", "mine", "--check", "permissions"], AIRFLOW_CONN_MINE=connection
    )
    assert code == 0, said
    assert "project demo-project" in output


@pytest.mark.parametrize("content", [b"", b"no database"])
def test_database_without_the_connection_uses_default_credentials(command: Command, content: bytes) -> None:
    database = command.home / "airflow" / "airflow.db"
    database.write_bytes(content)
    try:
        code, output, said = command.run([*PLACE, "--check", "permissions"])
        assert (code, output.splitlines()[1].split()[0]) == (0, "pass"), said
        assert database.read_bytes() == content
    finally:
        database.unlink()


def test_missing_credentials_are_findings(bare: Command, tmp_path: Path) -> None:
    # Without an emulator, and at Google with a key that there is not.
    code, output, _ = bare.run([*PLACE, "--check", "apis"], GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "key.json"))
    assert code == 1
    assert output.splitlines()[1].split()[:2] == ["fail", "credentials"]
    assert "key.json" in output
    assert "gcloud auth application-default login" in output


WRONG = {
    "no-location": (["--project", "demo-project"], "", "--location"),
    "a-zone": (["--location", "us-central1-a"], "", "--location"),
    "a-path-for-a-project": ([*PLACE, "--project", "../x"], "", "--project"),
    "unknown-check": ([*PLACE, "--check", "everything"], "", "invalid choice"),
    "unknown-option": ([*PLACE, "--fix"], "", "unrecognized arguments"),
    "no-file": ([*PLACE, "--spec", "/no/such/file"], "", "/no/such/file"),
    "a-folder": ([*PLACE, "--spec", "/"], "", "cannot be read"),
    "no-json": ([*PLACE, "--spec", "-"], "{", "cannot be read as JSON"),
    "deep-json": ([*PLACE, "--spec", "-"], "[" * 100_000, "cannot be read as JSON"),
    "a-list": ([*PLACE, "--spec", "-"], "[]", "Use a JSON object"),
    "unknown-field": ([*PLACE, "--spec", "-"], '{"size": 3}', "size"),
    "no-workers": ([*PLACE, "--spec", "-"], '{"worker_node_types": []}', "worker_node_types"),
    "a-pair-that-there-is-not": ([*PLACE, "--spec", "-"], '{"ray_version": "2.9"}', "ray_version"),
    "a-template": ([*PLACE, "--spec", "-"], '{"service_account": "{{ x }}"}', "service_account"),
    "bytes": ([*PLACE, "--spec", "-"], "\x00", "cannot be read as JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_input_is_named(bare: Command, name: str) -> None:
    arguments, given, words = WRONG[name]
    code, output, said = bare.run(arguments, given)
    assert (code, output) == (2, "")
    assert words in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bucket", "No Bucket"], "bucket"),
        (["--lease-uri", "/tmp/leases"], "lease_uri"),
        (["--gcp-conn-id", "nobody"], "--gcp-conn-id nobody: The Airflow connection does not exist"),
    ],
)
def test_invalid_connection_is_named(command: Command, arguments: list[str], words: str) -> None:
    code, output, said = command.run([*PLACE, *arguments])
    assert (code, output) == (2, "")
    assert words in said


def test_missing_project_is_named(command: Command) -> None:
    code, output, said = command.run(["--location", LOCATION])
    assert (code, output) == (2, "")
    assert "project_id" in said


def test_help_names_the_checks(bare: Command) -> None:
    code, output, _ = bare.run(["--help"])
    assert code == 0
    assert all(check in output for check in CHECKS)
    assert "Nothing is changed" in " ".join(output.split())
