"""Cloud Storage and BigQuery beside the emulator, used by Google's own clients and by a job."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from tests.support.clusters import dashboard_of, start, submit

pytestmark = pytest.mark.sdk

CLIENTS = """
import io
from google.api_core.exceptions import Conflict
from google.cloud import bigquery, bigquery_storage, storage

storage.Client().create_bucket("bucket").blob("a/b").upload_from_string("of a client")
client = bigquery.Client()
client.create_dataset("ds")
client.query("CREATE TABLE ds.source AS SELECT x, x * 2 AS y FROM UNNEST(GENERATE_ARRAY(1, 100)) x").result()
# Ray's own sink needs an existing table, because this BigQuery does not infer columns.
client.query("CREATE TABLE ds.copied AS SELECT x, y FROM ds.source WHERE FALSE").result()
session = bigquery_storage.BigQueryReadClient().create_read_session(
    parent=f"projects/{client.project}",
    read_session=bigquery_storage.ReadSession(
        table=f"projects/{client.project}/datasets/ds/tables/source", data_format="ARROW"
    ),
)
reader = bigquery_storage.BigQueryReadClient()
rows = [page.num_items for stream in session.streams for page in reader.read_rows(stream.name).rows().pages]
assert sum(rows) == 100, rows


def load():
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", schema=[bigquery.SchemaField("n", "INT64")])
    job = client.load_table_from_file(io.BytesIO(b'{"n": 7}'), "ds.loaded", job_id="once", job_config=config)
    return job.result()


load()
try:
    load()
except Conflict:
    assert client.get_job("once").state == "DONE"
else:
    raise AssertionError("a job's id can be used once")
assert [row.n for row in client.query("SELECT COUNT(*) n FROM ds.loaded").result()] == [1]
copy = client.copy_table("ds.loaded", "ds.copy", job_id="copy")
copy.result()
try:
    client.copy_table("ds.loaded", "ds.copy", job_id="copy").result()
except Conflict:
    pass
else:
    raise AssertionError("a job's id can be used once")
client.copy_table("ds.loaded", "ds.copy", job_config=bigquery.CopyJobConfig(write_disposition="WRITE_APPEND")).result()
assert client.get_table("ds.copy").num_rows == 2
print("all is well")
"""
JOB = """
import ray
from google.cloud import bigquery, storage

ray.data.DataContext.get_current().enable_progress_bars = False
project = bigquery.Client().project
rows = ray.data.read_bigquery(project, dataset="ds.source")
rows.repartition(1).write_bigquery(project, "ds.copied", overwrite_table=False)
print("text", storage.Client().bucket("bucket").blob("a/b").download_as_text())
print("rows", bigquery.Client().get_table("ds.copied").num_rows)
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    arguments = ["--with", "storage,bigquery"]
    with tempfile.TemporaryDirectory(prefix="vre-") as folder, EmulatorProcess(Path(folder), arguments) as process:
        yield process


def test_google_clients_need_only_the_environment(emulator: EmulatorProcess) -> None:
    command = [sys.executable, "-c", CLIENTS]
    done = subprocess.run(command, env=emulator.sdk_env(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "all is well\n", done.stderr


@pytest.mark.ray
@pytest.mark.soak
def test_ray_data_reads_bigquery_in_job(emulator: EmulatorProcess, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(JOB)
    start(emulator)
    submit(emulator, "shared", "reads", f"{sys.executable} {script}")
    path = f"{dashboard_of(emulator, 'shared')}/api/jobs/reads"

    def status() -> str:
        return str(emulator.request("GET", path, token=emulator.token())[1]["status"])

    until(lambda: status() in ("SUCCEEDED", "FAILED"), "the job does not end")
    log = emulator.request("GET", f"{path}/logs", token=emulator.token())[1]["logs"]
    assert status() == "SUCCEEDED", log
    assert "text of a client\n" in log
    assert "rows 100\n" in log


def test_web_pages_reach_neither(emulator: EmulatorProcess) -> None:
    for companion in emulator.admin("GET", "companions")["companions"]:
        address = companion["address"]
        path = {"storage": "/storage/v1/b?project=p", "bigquery": "/bigquery/v2/projects/demo-project/datasets"}
        for headers, status in (
            ({"Host": address}, 200),
            ({"Host": "evil.example"}, 403),
            ({"Host": address, "Origin": "http://evil.example"}, 403),
            ({"Host": address, "Sec-Fetch-Site": "cross-site"}, 403),
        ):
            client = http.client.HTTPConnection(address, timeout=PATIENCE)
            client.putrequest("GET", path[companion["name"]], skip_host=True)
            for name, value in headers.items():
                client.putheader(name, value)
            client.endheaders()
            answer = client.getresponse()
            assert answer.status == status, (companion["name"], headers)
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
            client.close()


def test_status_shows_companions_and_dead_ones(emulator: EmulatorProcess) -> None:
    def shown(*more: str) -> str:
        command = [sys.executable, "-m", "vertex_ray_emulator", "status"]
        command += ["--state-dir", str(emulator.state_dir), *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    found = {each["name"]: each for each in json.loads(shown("--json"))["companions"]}
    assert set(found) == {"storage", "bigquery"}
    assert all(each["alive"] for each in found.values())
    assert f"storage on {found['storage']['address']}\n" in shown()
    os.kill(found["storage"]["pid"], signal.SIGKILL)
    until(lambda: f"storage on {found['storage']['address']} HAS DIED" in shown(), "nobody says that it died")


def test_companions_end_with_emulator(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vre-") as folder:
        for end in ("stop", "kill"):
            process = EmulatorProcess(Path(folder), ["--backend", "fake", "--with", "bigquery,storage"]).start()
            pids = [each["pid"] for each in process.admin("GET", "companions")["companions"]]
            assert len(pids) == 2
            getattr(process, end)()
            until(lambda pids=pids: not any(Path(f"/proc/{pid}").exists() for pid in pids), "one goes on")


@pytest.mark.parametrize("names", ["spanner", "storage,spanner"])
def test_unknown_companions_are_refused(tmp_path: Path, names: str) -> None:
    command = [sys.executable, "-m", "vertex_ray_emulator", "start", "--with", names]
    done = subprocess.run([*command, "--state-dir", str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "Invalid value for with: 'spanner'. Use names out of storage, bigquery." in done.stderr
