from __future__ import annotations

import datetime
import stat
from typing import TYPE_CHECKING

import certifi
import pytest
from vertex_ray_emulator.surfaces import pki

if TYPE_CHECKING:
    from pathlib import Path


def contents(made: pki.Pki) -> tuple[bytes, bytes, bytes]:
    return made.authority.read_bytes(), made.certificate.read_bytes(), made.key.read_bytes()


def test_kept_across_restarts(tmp_path: Path) -> None:
    first = contents(pki.ensure(tmp_path / "pki"))
    assert contents(pki.ensure(tmp_path / "pki")) == first


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    made = pki.ensure(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for key in (made.key, folder / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_certificate_near_its_end_is_renewed_and_the_authority_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pki, "SERVER_LIFE", datetime.timedelta(days=29))
        old = contents(pki.ensure(tmp_path))
    new = contents(pki.ensure(tmp_path))
    assert new[0] == old[0]
    assert new[1] != old[1]
    assert new[2] != old[2]


def test_an_authority_near_its_end_is_renewed_with_all_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pki, "AUTHORITY_LIFE", datetime.timedelta(days=29))
        old = contents(pki.ensure(tmp_path))
    new = contents(pki.ensure(tmp_path))
    assert all(a != b for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("name", ["server.key", "server.pem", "ca.key", "ca.pem"])
def test_damaged_files_are_made_anew(tmp_path: Path, name: str) -> None:
    pki.ensure(tmp_path)
    (tmp_path / name).write_text("damaged")
    made = pki.ensure(tmp_path)
    assert b"damaged" not in b"".join(contents(made))
    assert contents(pki.ensure(tmp_path)) == contents(made)


def test_the_bundle_has_our_authority_and_the_public_ones(tmp_path: Path) -> None:
    made = pki.ensure(tmp_path)
    bundle = made.bundle.read_text()
    assert made.authority.read_text() in bundle
    with open(certifi.where()) as public:  # noqa: PTH123 (a path that certifi gives as a string)
        assert public.read() in bundle
