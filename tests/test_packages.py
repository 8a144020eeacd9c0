"""A folder as a package: the same bytes for the same content, and a clear word when it can not be."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.api import packages
from airflow_provider_vertex_ray.api.packages import Package, pack
from airflow_provider_vertex_ray.errors import PackageTooLargeError
from airflow_provider_vertex_ray.spec_error import SpecError


def folder(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(package: Package) -> set[str]:
    with zipfile.ZipFile(package.path) as archive:
        assert archive.testzip() is None
        return set(archive.namelist())


PARTS = st.text("abcé", min_size=1, max_size=5)
TREES = st.dictionaries(
    st.builds(lambda where, name: f"d_{where}/f_{name}", PARTS, PARTS), st.binary(max_size=200), min_size=1, max_size=6
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TREES, st.randoms())
def test_equal_content_gives_an_equal_name_and_other_content_another(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], random: object
) -> None:
    base = tmp_path_factory.mktemp("pack")
    first = pack(str(folder(base / "one", tree)), base / "1.zip")
    # The same files, made in another order, at another time, elsewhere.
    second_root = folder(base / "two" / "deeper", dict(reversed(tree.items())))
    for path in second_root.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    second = pack(str(second_root), base / "2.zip")
    assert first.name == second.name
    assert first.path.read_bytes() == second.path.read_bytes()
    assert names(first) == set(tree)
    changed = next(iter(tree))
    third = pack(str(folder(base / "three", {**tree, changed: tree[changed] + b"!"})), base / "3.zip")
    assert third.name != first.name
    renamed = {("x" + name if name == changed else name): content for name, content in tree.items()}
    assert pack(str(folder(base / "four", renamed)), base / "4.zip").name != first.name


def test_what_a_package_is_called(tmp_path: Path) -> None:
    package = pack(str(folder(tmp_path / "f", {"a.py": b"1"})), tmp_path / "p.zip")
    assert re.fullmatch(r"_ray_pkg_[0-9a-f]{32}\.zip", package.name)
    assert package.uri == f"gcs://{package.name}"
    assert package.size == package.path.stat().st_size


def test_an_executable_file_stays_one(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", {"run.sh": b"#!/bin/sh\n", "data": b""})
    (root / "run.sh").chmod(0o755)
    (root / "data").chmod(0o644)
    with zipfile.ZipFile(pack(str(root), tmp_path / "p.zip").path) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert modes == {"run.sh": 0o755, "data": 0o644}


def test_what_is_left_out(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "f",
        {
            "main.py": b"",
            "lib/util.py": b"",
            "lib/__pycache__/util.cpython-311.pyc": b"x",
            ".git/config": b"x",
            "lib/.git/config": b"x",
            "old.pyc": b"x",
            "data/big.bin": b"x",
            "data/keep.csv": b"",
            "secret.env": b"x",
            "notes.txt": b"x",
            "sub/notes.txt": b"",
            ".gitignore": b"# a comment\n*.env\n/notes.txt\n",
        },
    )
    package = pack(str(root), tmp_path / "p.zip", excludes=["data/*", "!data/keep.csv"])
    assert names(package) == {"main.py", "lib/util.py", "data/keep.csv", "sub/notes.txt", ".gitignore"}


def test_names_of_all_languages(tmp_path: Path) -> None:
    wanted = {"größe.py", "数据/表.csv", "a b&c.txt", "emoji🎉"}
    assert names(pack(str(folder(tmp_path / "f", dict.fromkeys(wanted, b"1"))), tmp_path / "p.zip")) == wanted


def test_links_are_followed_to_files_and_not_in_circles(tmp_path: Path) -> None:
    outside = folder(tmp_path / "outside", {"shared.py": b"shared"})
    root = folder(tmp_path / "f", {"main.py": b""})
    (root / "link.py").symlink_to(outside / "shared.py")
    (root / "gone.py").symlink_to(outside / "nothing.py")
    (root / "circle").symlink_to(root)
    package = pack(str(root), tmp_path / "p.zip")
    assert names(package) == {"main.py", "link.py"}
    with zipfile.ZipFile(package.path) as archive:
        assert archive.read("link.py") == b"shared"


def test_an_empty_folder_is_an_empty_package(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", {})
    assert names(pack(str(root), tmp_path / "p.zip")) == set()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", {"a": b""})
    os.mkfifo(root / "pipe")
    assert names(pack(str(root), tmp_path / "p.zip")) == {"a"}


@pytest.mark.parametrize("what", ["missing", "file.txt"])
def test_no_such_folder(tmp_path: Path, what: str) -> None:
    (tmp_path / "file.txt").write_text("no folder")
    with pytest.raises(SpecError, match=r"working_dir: '.*' is refused: give an existing local folder"):
        pack(str(tmp_path / what), tmp_path / "p.zip")


def test_a_name_that_no_zip_can_hold(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", {"a": b""})
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.py")).write_text("")
    with pytest.raises(SpecError, match=r"working_dir: .*must be valid UTF-8"):
        pack(str(root), tmp_path / "p.zip")


def test_a_file_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "f", {"a": b"", "locked": b""})
    real = Path.open

    def refuse(self: Path, *arguments: Any, **more: Any) -> Any:
        # As root, file modes keep nobody out.
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpecError, match=r"working_dir: '.*locked' is refused: the file can not be packed"):
        pack(str(root), tmp_path / "p.zip")


def test_the_limit_names_the_biggest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 2 << 20)
    root = folder(tmp_path / "f", {"small.py": b"1", "data/huge.bin": os.urandom(3 << 20), "big.bin": os.urandom(1000)})
    with pytest.raises(PackageTooLargeError) as caught:
        pack(str(root), tmp_path / "p.zip")
    text = str(caught.value)
    assert "working_dir=" in text
    assert re.search(r"holds 3\.0 MiB.*more than the 2 MiB.*Biggest files: data/huge\.bin \(3\.0 MiB\), big\.bin", text)
    assert "excludes" in text
    assert caught.value.details["limit"] == 2 << 20
    assert names(pack(str(root), tmp_path / "p.zip", excludes=["*.bin"])) == {"small.py"}


def test_the_limit_is_for_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 1 << 20)
    root = folder(tmp_path / "f", {"zeros.bin": bytes(8 << 20)})
    assert pack(str(root), tmp_path / "p.zip").size < 1 << 20


def test_a_folder_of_many_gigabytes_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 1 << 20)
    root = folder(tmp_path / "f", {f"{n}.bin": os.urandom(1 << 20) for n in range(8)})
    with pytest.raises(PackageTooLargeError):
        pack(str(root), tmp_path / "p.zip")
    assert (tmp_path / "p.zip").stat().st_size < 4 << 20
