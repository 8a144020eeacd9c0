"""Ray's own HTTP servers, which check no token, refuse web pages."""

from __future__ import annotations

import http.client
from pathlib import Path

import psutil
import pytest
from emulator_support.process import PATIENCE, EmulatorProcess

pytestmark = pytest.mark.ray

SERVERS = ("dashboard/dashboard.py", "dashboard/agent.py", "runtime_env/agent/main.py")


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
def test_servers_refuse_other_hosts(ray_process: EmulatorProcess, part: str) -> None:
    if not ray_process.admin("GET", "clusters")["clusters"]:
        assert ray_process.create("guarded")["state"] == "RUNNING"
    ports = ports_of(part, ray_process.state_dir)
    served = {port for port in ports if status(port, f"127.0.0.1:{port}") == 404}
    assert served, f"{part} serves no HTTP on {ports}"
    assert {status(port, f"evil.example:{port}") for port in served} == {403}
