from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path

import certifi
import pytest
from vertex_ray_emulator.surfaces import pki


def stored(made: pki.Pki) -> tuple[bytes, bytes]:
    """Return the authority's certificate and key."""
    return made.authority.read_bytes(), made.authority.with_name("ca.key").read_bytes()


async def handshake(made: pki.Pki, name: str, *, trusted: str | None = None) -> None:
    """Connect to a server with the certificate, under this name, with a client that trusts the authority.

    :param trusted: what the client trusts, in place of the authority's file.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(made.certificate, made.key)
    client_side = ssl.create_default_context(cadata=trusted or made.authority.read_text())
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_side)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname=name)
        writer.close()


def test_authority_is_kept_across_restarts(tmp_path: Path) -> None:
    first = stored(pki.ensure(tmp_path / "pki"))
    assert stored(pki.ensure(tmp_path / "pki")) == first


async def test_client_that_read_the_authority_before_a_restart_still_trusts_the_server(tmp_path: Path) -> None:
    trusted = pki.ensure(tmp_path).authority.read_text()
    await handshake(pki.ensure(tmp_path), "localhost", trusted=trusted)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "us-central1-aiplatform.googleapis.com",
        "abc-dot-us-central1.aiplatform-training.googleusercontent.com",
    ],
)
async def test_certificate_is_valid_for_every_name_that_clients_use(tmp_path: Path, name: str) -> None:
    await handshake(pki.ensure(tmp_path), name)


async def test_certificate_is_not_valid_for_other_names(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await handshake(pki.ensure(tmp_path), "example.com")


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    made = pki.ensure(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for key in (made.key, folder / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["server.key", "server.pem", "ca.key", "ca.pem"])
async def test_damaged_files_are_replaced(tmp_path: Path, name: str) -> None:
    pki.ensure(tmp_path)
    (tmp_path / name).write_text("damaged")
    made = pki.ensure(tmp_path)
    await handshake(made, "localhost")
    assert stored(pki.ensure(tmp_path)) == stored(made)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
async def test_authority_with_a_foreign_key_is_replaced(tmp_path: Path, name: str) -> None:
    pki.ensure(tmp_path / "a")
    pki.ensure(tmp_path / "b")
    (tmp_path / "b" / name).replace(tmp_path / "a" / name)
    made = pki.ensure(tmp_path / "a")
    await handshake(made, "localhost")
    assert stored(pki.ensure(tmp_path / "a")) == stored(made)


def test_bundle_has_the_authority_and_the_public_ones(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path)
    bundle = made.bundle.read_text()
    assert made.authority.read_text() in bundle
    assert Path(certifi.where()).read_text() in bundle
