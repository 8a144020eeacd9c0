"""Who may use the emulator: no web page, whatever it does with DNS, and no other user of the machine."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from emulator_support.process import PATIENCE, QUICK, EmulatorProcess, cluster_body
from vertex_ray_emulator import access
from vertex_ray_emulator.access import user_refusal, web_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8787",
    "127.0.0.1.evil.example",
    "localhost.evil.example:8787",
    "evil-127.0.0.1",
    "evil.example#127.0.0.1",
    "127.0.0.1@evil.example",
    "[::1]:8787",
    "localhost.",
    "0.0.0.0:8787",
    "",
    "storage.googleapis.com",
    "x.googleapis.com.evil.example",
]
TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8787", "localhost:1", "LocalHost:8787"])
def test_requests_of_programs_pass(host: str) -> None:
    assert web_refusal([host]) is None
    assert web_refusal([host], fetch_site="none") is None
    assert web_refusal([host], [f"http://{host}"], fetch_site="same-origin") is None


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_other_hosts_are_refused(host: str) -> None:
    assert web_refusal([host]) is not None
    assert web_refusal([host], [f"http://{host}"], fetch_site="same-origin") is not None


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:3000", "https://127.0.0.1:8787", ""]
)
def test_other_origins_are_refused(origin: str) -> None:
    assert web_refusal(["127.0.0.1:8787"], [origin]) is not None
    assert web_refusal(["127.0.0.1:8787"], ["http://127.0.0.1:8787", origin]) is not None


def test_missing_and_repeated_hosts_are_refused() -> None:
    assert web_refusal([]) is not None
    assert web_refusal(["127.0.0.1", "evil.example"]) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_of_other_pages_are_refused_but_links_work(site: str) -> None:
    assert web_refusal(["127.0.0.1:8787"], fetch_site=site) is not None
    assert web_refusal(["127.0.0.1:8787"], fetch_site=site, navigation=True) is None
    assert web_refusal(["evil.example"], fetch_site=site, navigation=True) is not None


def test_names_of_google_are_served_over_tls_only() -> None:
    for host in (
        "us-central1-aiplatform.googleapis.com",
        "x-dot-us-central1.aiplatform-training.googleusercontent.com",
    ):
        assert web_refusal([host], secure=True) is None
        assert web_refusal([host]) is not None
        assert web_refusal([f"evil-{host}.example"], secure=True) is not None


def send(port: int, method: str, path: str, headers: dict[str, str], *, tls: str = "", body: Any = None) -> int:
    """Send a request with exactly these headers and return the status."""
    context = ssl.create_default_context(cafile=tls) if tls else None
    client: http.client.HTTPConnection = (
        http.client.HTTPSConnection("localhost", port, context=context, timeout=PATIENCE)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    )
    client.putrequest(method, path, skip_host=True)
    data = b"" if body is None else json.dumps(body).encode()
    for name, value in {**headers, "Content-Length": str(len(data))}.items():
        client.putheader(name, value)
    client.endheaders(data)
    status = client.getresponse().status
    client.close()
    return status


def surfaces(emulator: EmulatorProcess) -> dict[str, tuple[int, str, str, str, Any]]:
    """Return port, verb, path, certificate and body of a request that would do harm, for each surface."""
    cluster = emulator.create("c1")
    dashboard = "/" + cluster["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"].split("/", 1)[1]
    raw = int(emulator.admin("GET", "clusters")["clusters"][0]["dashboard_url"].rsplit(":", 1)[1])
    ports, ca = emulator.ports, emulator.env["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]
    resources = f"/v1beta1/projects/{emulator.project}/locations/us-central1/persistentResources"
    job = {"entrypoint": "echo of a web page"}
    return {
        "token": (ports["main"], "GET", TOKEN, "", None),
        "api": (ports["main"], "POST", f"{resources}?persistentResourceId=evil", "", cluster_body()),
        "dashboard": (ports["main"], "POST", f"{dashboard}/api/jobs/", "", job),
        "dashboard over TLS": (ports["dashboard"], "POST", f"{dashboard}/api/jobs/", ca, job),
        "api over TLS": (ports["rest"], "GET", resources, ca, None),
        "the cluster's own dashboard": (raw, "POST", "/api/jobs/", "", job),
        "admin": (ports["main"], "DELETE", "/emulator/clusters", "", None),
    }


@pytest.mark.parametrize(
    "foreign",
    [
        {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_no_surface_serves_a_web_page(emulator: EmulatorProcess, foreign: dict[str, str]) -> None:
    token = {"Authorization": f"Bearer {emulator.token()}", "Metadata-Flavor": "Google"}
    found = surfaces(emulator)
    for name, (port, method, path, tls, body) in found.items():
        headers = {key: value.format(port=port) for key, value in foreign.items()}
        assert send(port, method, path, {**headers, **token}, tls=tls, body=body) == 403, name
        assert send(port, "OPTIONS", path, {**headers, "Access-Control-Request-Method": method}, tls=tls) == 403, name
    for name, (port, method, path, tls, body) in found.items():
        own = {"Host": f"localhost:{port}", **token}
        assert send(port, method, path, own, tls=tls, body=body) == 200, name


def test_links_of_other_pages_lead_to_dashboards_only(emulator: EmulatorProcess) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    dashboard = emulator.create("c1")["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"].split("/", 1)[1]
    raw = int(emulator.admin("GET", "clusters")["clusters"][0]["dashboard_url"].rsplit(":", 1)[1])
    main = emulator.ports["main"]

    def follow(port: int, path: str) -> int:
        return send(port, "GET", path, {"Host": f"127.0.0.1:{port}", **headers})

    assert follow(main, f"/emulator/dashboards/{dashboard}") == 302
    assert follow(main, f"/emulator/dashboards/{dashboard}/") == 302
    assert follow(raw, "/") == 200
    for port, path in ((main, "/emulator/clusters"), (main, TOKEN), (raw, "/api/jobs/"), (raw, "/nodes")):
        assert follow(port, path) == 403, path


def test_websockets_of_web_pages_are_refused(emulator: EmulatorProcess) -> None:
    port, _, path, _, _ = surfaces(emulator)["dashboard"]
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="
    headers = {"Host": f"127.0.0.1:{port}", "Origin": "http://evil.example", **upgrade}
    headers["Authorization"] = f"Bearer {emulator.token()}"
    assert send(port, "GET", f"{path}x/logs/tail", headers) == 403


def as_nobody(ask: Callable[[], str]) -> str:
    """Return what a function returns in a process of the user "nobody"."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, ask().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


def fetch(emulator: EmulatorProcess, path: str) -> str:
    status, answer = emulator.request("GET", path, headers={"Metadata-Flavor": "Google"})
    return f"{status} {answer}"


def tunnel(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"CONNECT us-central1-aiplatform.googleapis.com:443 HTTP/1.1\r\n\r\n")
        return client.recv(1000).decode()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as another user")
def test_other_users_get_no_token_and_no_tunnel(emulator: EmulatorProcess, state_dir: Path) -> None:
    for path in (TOKEN, "/emulator/clusters"):
        told = as_nobody(lambda path=path: fetch(emulator, path))
        assert told.startswith("403 ")
        assert "the request came from the user with id 65534" in told
        assert "--allow-other-users" in told
    assert "403 Forbidden" in as_nobody(lambda: tunnel(emulator.ports["proxy"]))
    with EmulatorProcess(state_dir, [*QUICK, "--allow-other-users"]) as shared:
        assert as_nobody(lambda: fetch(shared, TOKEN)).startswith("200 ")


@pytest.mark.parametrize("source", ["netlink", "tables"])
def test_owner_of_a_connection_is_found(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    if source == "tables":
        # As in a sandbox that lets nobody ask the kernel.
        monkeypatch.delattr(socket, "AF_NETLINK")
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
        with socket.socket() as server, socket.socket(family) as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect((address, server.getsockname()[1]))
            connection, peer = server.accept()
            with connection:
                own = connection.getsockname()
                if source == "netlink" and access._owner_by_netlink(peer, own) is None:
                    pytest.skip("this kernel does not say who owns a socket")
                assert access._owner(peer, own) == os.getuid()
                assert user_refusal(peer, own) is None
                # A peer that has closed its socket is no one's.
                client.close()
                assert access._owner(peer, own) is None
                assert user_refusal(peer, own) is not None
                monkeypatch.setenv(access.OTHER_USERS_VARIABLE, "1")
                assert user_refusal(peer, own) is None
                monkeypatch.delenv(access.OTHER_USERS_VARIABLE)


def test_no_file_of_the_emulator_is_readable_by_others(tmp_path: Path) -> None:
    state_dir = tmp_path / "open"
    state_dir.mkdir(mode=0o755)
    with EmulatorProcess(state_dir, QUICK) as emulator:
        assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
        for name in ("emulator.json", "emulator.lock", "pki/ca.key", "pki/server.key"):
            assert stat.S_IMODE((emulator.state_dir / name).stat().st_mode) == 0o600, name


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of another user")
def test_state_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, -1)
    command = [sys.executable, "-m", "vertex_ray_emulator", "start", "--port", "0", "--backend", "fake"]
    done = subprocess.run([*command, "--state-dir", str(theirs)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "belongs to the user with id 65534" in done.stderr
    assert "Traceback" not in done.stderr
