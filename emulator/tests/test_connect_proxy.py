from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from emulator_support.process import PATIENCE
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.surfaces.client_hello import offered_protocols

if TYPE_CHECKING:
    from emulator_support.process import EmulatorProcess

DASHBOARD = "abc-dot-us-central1.aiplatform-training.googleusercontent.com"


def dial(emulator: EmulatorProcess, request: str) -> tuple[socket.socket, str]:
    connection = socket.create_connection(("127.0.0.1", emulator.ports["proxy"]), timeout=PATIENCE)
    connection.sendall(f"{request}\r\nHost: x\r\n\r\n".encode())
    return connection, connection.recv(4096).decode()


@pytest.mark.parametrize(
    "request_line",
    [
        "CONNECT example.com:443 HTTP/1.1",
        "CONNECT googleapis.com.example.com:443 HTTP/1.1",
        "CONNECT xgoogleapis.com:443 HTTP/1.1",
        "CONNECT us-central1-aiplatform.googleapis.com:80 HTTP/1.1",
        "CONNECT us-central1-aiplatform.googleapis.com HTTP/1.1",
        "GET http://us-central1-aiplatform.googleapis.com/ HTTP/1.1",
        "nonsense",
    ],
)
def test_requests_for_other_hosts_are_rejected(emulator: EmulatorProcess, request_line: str) -> None:
    connection, answer = dial(emulator, request_line)
    with connection:
        assert answer.startswith("HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("host", "protocol"),
    [
        ("us-central1-aiplatform.googleapis.com", "h2"),
        ("us-central1-aiplatform.googleapis.com", "http/1.1"),
        ("cloudresourcemanager.googleapis.com", "h2"),
        ("cloudresourcemanager.googleapis.com", ""),
        (DASHBOARD, "http/1.1"),
    ],
)
def test_google_host_names_reach_the_emulator_with_valid_certificates(
    emulator: EmulatorProcess, host: str, protocol: str
) -> None:
    context = ssl.create_default_context(cafile=emulator.env["SSL_CERT_FILE"])
    context.set_alpn_protocols([protocol] if protocol else [])
    connection, answer = dial(emulator, f"CONNECT {host}:443 HTTP/1.1")
    assert answer.startswith("HTTP/1.1 200 ")
    with connection, context.wrap_socket(connection, server_hostname=host) as tunnel:
        assert tunnel.version() in ("TLSv1.2", "TLSv1.3")
        assert tunnel.selected_alpn_protocol() == ("h2" if protocol == "h2" else None)
        if protocol != "h2":
            path = "/api/version" if host == DASHBOARD else "/v3/projects/demo-project"
            tunnel.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert tunnel.recv(4096).startswith(b"HTTP/1.1 401 ")


def hello(*protocols: str) -> bytes:
    """Return the ClientHello of Python's TLS client."""
    # Not the default context, which reads all certificates of the machine.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(list(protocols))
    said = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


@given(st.lists(st.text("abch2/.1", min_size=1, max_size=12), max_size=5))
def test_offered_protocols_are_read_from_a_client_hello(protocols: list[str]) -> None:
    assert offered_protocols(hello(*protocols)) == protocols


@given(st.binary(max_size=80), st.integers(min_value=0))
def test_invalid_client_hello_offers_no_protocols(data: bytes, at: int) -> None:
    assert offered_protocols(data) == []
    whole = hello("h2")
    # A hello cut short anywhere must not raise; nothing that is not there may be read.
    assert offered_protocols(whole[: at % len(whole)]) in ([], ["h2"])


def test_tunnel_without_tls_is_closed(emulator: EmulatorProcess) -> None:
    connection, _ = dial(emulator, "CONNECT us-central1-aiplatform.googleapis.com:443 HTTP/1.1")
    with connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""


def test_proxy_survives_a_client_that_sends_nothing(emulator: EmulatorProcess) -> None:
    with socket.create_connection(("127.0.0.1", emulator.ports["proxy"]), timeout=PATIENCE):
        pass
    connection, answer = dial(emulator, "CONNECT example.com:443 HTTP/1.1")
    with connection:
        assert answer.startswith("HTTP/1.1 403 ")
