"""A certificate authority of the emulator's own, and a server certificate for every name that clients dial."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = ("localhost", "*.googleapis.com", "*.aiplatform-training.googleusercontent.com")
AUTHORITY_LIFE = datetime.timedelta(days=3650)
SERVER_LIFE = datetime.timedelta(days=397)
# A certificate is renewed when less than this is left, so that none expires under an emulator that runs.
MARGIN = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Pki:
    """Where the certificates are.

    :param authority: The authority's certificate alone: what gRPC clients are to trust.
    :param bundle: The authority and the public ones: what other TLS clients are to trust.
    :param certificate: The server's certificate.
    :param key: The server's private key.
    """

    authority: Path
    bundle: Path
    certificate: Path
    key: Path


def ensure(folder: Path) -> Pki:
    """The certificates of a state directory, made or renewed where needed.

    They are kept across restarts: a client that runs on trusts the authority that it read at its start.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pki = Pki(folder / "ca.pem", folder / "bundle.pem", folder / "server.pem", folder / "server.key")
    authority_key_file = folder / "ca.key"
    authority, authority_key = _load(pki.authority, authority_key_file)
    renewed = authority is None or authority_key is None
    if authority is None or authority_key is None:
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _authority(authority_key)
        _write_key(authority_key_file, authority_key)
        _write(pki.authority, _pem(authority), 0o644)
    certificate, _ = _load(pki.certificate, pki.key)
    if certificate is None or renewed or certificate.issuer != authority.subject:
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(pki.key, key)
        _write(pki.certificate, _pem(_server(key, authority, authority_key)), 0o644)
    _write(pki.bundle, pki.authority.read_bytes() + Path(certifi.where()).read_bytes(), 0o644)
    return pki


def _load(certificate_file: Path, key_file: Path) -> tuple[x509.Certificate | None, ec.EllipticCurvePrivateKey | None]:
    """A certificate with its key; None for both when either is missing, damaged or soon to expire."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None, None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None, None
    if certificate.not_valid_after_utc - MARGIN < _now():
        return None, None
    return certificate, key


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day back: clocks of containers and hosts differ.
        .not_valid_before(_now() - datetime.timedelta(days=1))
        .not_valid_after(_now() + life)
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # The serial part of the name tells one emulator's authority from another's in a client's error.
    common_name = f"Vertex Ray emulator authority {os.urandom(4).hex()}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(name, name, key, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    return (
        _builder(subject, authority.subject, key, SERVER_LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file at once; a reader sees the old one or the new one, and never one with wider rights."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    new.replace(path)
