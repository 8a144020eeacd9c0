"""The emulator's own certificate authority, and a server certificate for every name that clients connect to."""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import certifi
import trustme

NAMES = ("localhost", "127.0.0.1", "*.googleapis.com", "*.aiplatform-training.googleusercontent.com")
SERVER_LIFETIME = datetime.timedelta(days=397)
"""Some TLS clients reject server certificates with a longer lifetime. A new one is issued at every start."""


@dataclass(frozen=True)
class Pki:
    """Paths of the certificates and of the server's key.

    :param authority: the authority's certificate alone, for gRPC clients.
    :param bundle: the authority's certificate and the public ones, for all other TLS clients.
    :param certificate: the server's certificate.
    :param key: the server's private key.
    """

    authority: Path
    bundle: Path
    certificate: Path
    key: Path


def ensure(folder: Path) -> Pki:
    """Load or create the authority, and issue a server certificate.

    The authority is kept across restarts: clients read its certificate once, when they start, and must be able to
    connect to the next emulator that uses the same state directory.

    :param folder: directory of the certificates; it is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pki = Pki(folder / "ca.pem", folder / "bundle.pem", folder / "server.pem", folder / "server.key")
    authority = _load_authority(pki.authority, folder / "ca.key")
    if authority is None:
        authority = trustme.CA(organization_name="vertex-ray-emulator", path_length=0)
        _write(folder / "ca.key", authority.private_key_pem.bytes(), 0o600)
        _write(pki.authority, authority.cert_pem.bytes(), 0o644)
    expiry = datetime.datetime.now(datetime.timezone.utc) + SERVER_LIFETIME
    server = authority.issue_cert(*NAMES, common_name="localhost", not_after=expiry)
    _write(pki.key, server.private_key_pem.bytes(), 0o600)
    _write(pki.certificate, server.cert_chain_pems[0].bytes(), 0o644)
    _write(pki.bundle, authority.cert_pem.bytes() + Path(certifi.where()).read_bytes(), 0o644)
    return pki


def _load_authority(certificate: Path, key: Path) -> trustme.CA | None:
    """Return the stored authority, or None if a file is missing or damaged or the two do not belong together."""
    try:
        # Loading checks the files and that the key fits the certificate; trustme does not.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    except (OSError, ValueError, TypeError):  # ssl.SSLError is an OSError
        return None


def _no_password() -> str:
    """Answer OpenSSL's request for a password, which would otherwise wait for input on the terminal."""
    return ""


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file atomically; no reader sees a partial file or one with wider permissions."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    new.replace(path)
