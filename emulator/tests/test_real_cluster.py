"""A real cluster: Ray's own servers refuse web pages; it has logs and metrics, also after it was deleted."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil
import pytest
from emulator_support.cloud_clients import list_entries, messages, of_cluster, run_job
from emulator_support.process import PATIENCE, EmulatorProcess, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.ray

LINES = 120
# They check no token.
SERVERS = ("dashboard/dashboard.py", "dashboard/agent.py", "runtime_env/agent/main.py")
QUERY = "/v1/projects/demo-project/location/global/prometheus/api/v1/query?"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """With a real cluster, which the last test deletes."""
    arguments = ["--provisioning-seconds", "0", "--scrape-seconds", "0.5"]
    with EmulatorProcess(tmp_path_factory.mktemp("emulator"), arguments) as process:
        assert process.create("real")["state"] == "RUNNING"
        yield process


def ports_of(part: str, state_dir: Path) -> set[int]:
    """Return the TCP ports on which the emulator's processes of a kind listen."""
    found = set()
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            mine = process.environ().get("VERTEX_RAY_EMULATOR_STATE") == str(state_dir)
            if mine and any(word.endswith(part) for word in words):
                found |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        except (psutil.Error, OSError):
            continue
    return found


def status(port: int, host: str) -> int | None:
    """Return the status of a GET; None if no HTTP server answers."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.putrequest("GET", "/no-such-page", skip_host=True)
        client.putheader("Host", host)
        client.putheader("User-Agent", "a program")  # Ray's dashboard fails without one
        client.endheaders()
        return client.getresponse().status
    except (http.client.HTTPException, OSError):
        return None
    finally:
        client.close()


@pytest.mark.parametrize("part", SERVERS)
def test_servers_refuse_other_hosts(emulator: EmulatorProcess, part: str) -> None:
    ports = ports_of(part, emulator.state_dir)
    served = {port for port in ports if status(port, f"127.0.0.1:{port}") == 404}
    assert served, f"{part} serves no HTTP on {ports}"
    assert {status(port, f"evil.example:{port}") for port in served} == {403}


def query(emulator: EmulatorProcess, text: str) -> list[dict[str, Any]]:
    status, body = emulator.request("GET", QUERY + urlencode({"query": text}), token=emulator.token())
    assert status == 200, body
    return list(body["data"]["result"])


def all_entries(emulator: EmulatorProcess, text: str) -> list[dict[str, Any]]:
    """Return all entries, page by page."""
    found, token = [], ""
    while True:
        status, page = list_entries(emulator, filter=text, pageSize=50, pageToken=token)
        assert status == 200, page
        found += page.get("entries", [])
        token = page.get("nextPageToken", "")
        if not token:
            return found


def test_logs_and_metrics_survive_a_deletion(emulator: EmulatorProcess) -> None:
    command = f"python -c \"[print('number', k) for k in range({LINES})]; raise SystemExit('ERROR: at the end')\""
    run_job(emulator, "real", "job-1", command)
    driver = of_cluster("real", 'jsonPayload.tailed_path:"job-driver-job-1.log"')
    before = all_entries(emulator, driver)
    found = messages({"entries": before})
    assert [text for text in found if text.startswith("number")] == [f"number {k}" for k in range(LINES)]
    assert before[0]["jsonPayload"]["tailed_path"].endswith("/logs/job-driver-job-1.log")
    assert messages(list_entries(emulator, filter=driver + "\nseverity=ERROR")[1]) == ["ERROR: at the end"]
    files = {entry["jsonPayload"]["tailed_path"].rsplit("/", 1)[1] for entry in all_entries(emulator, "")}
    assert {"gcs_server.out", "raylet.out", "dashboard.log"} <= files

    # The agents measure every few seconds; both nodes have been measured then.
    cpu = 'ray_node_cpu_utilization{cluster="real"}'
    until(lambda: len(query(emulator, cpu)) == 2, "no CPU of both nodes is known")
    assert all(0 <= float(each["value"][1]) <= 100 for each in query(emulator, cpu))
    memory = 'sum(ray_node_mem_used{cluster="real"}) / sum(ray_node_mem_total{cluster="real"})'
    (share,) = until(lambda: query(emulator, memory), "no memory is known")
    assert 0 < float(share["value"][1]) < 1
    assert query(emulator, 'sum by (cluster) (ray_node_mem_used{cluster="other"})') == []
    # What is set by hand hides what is measured.
    emulator.admin("PUT", "clusters/real/metrics", {"ray_node_cpu_utilization": 99})
    assert [each["value"][1] for each in query(emulator, cpu)] == ["99"]
    emulator.admin("DELETE", "clusters/real/metrics")

    emulator.admin("POST", "clusters/real/kill", {"part": "head"})
    assert all_entries(emulator, driver) == before
    emulator.wait(emulator.api("DELETE", "persistentResources/real")[1])
    assert all_entries(emulator, driver) == before
    assert query(emulator, cpu) == []
    assert query(emulator, 'max_over_time(ray_node_mem_used{cluster="real"}[10m])') != []
