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

from airflow_provider_vertex_ray.core.job import packages
from airflow_provider_vertex_ray.core.job.packages import Package, Progress, pack, pack_module, ready_zip
from airflow_provider_vertex_ray.errors import InvalidArgumentError, PackageTooLargeError


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


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
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
    with pytest.raises(
        InvalidArgumentError, match=r"Invalid value for working_dir: '.*'. Use an existing local folder"
    ):
        pack(str(tmp_path / what), tmp_path / "p.zip")


def test_a_name_that_no_zip_can_hold(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", {"a": b""})
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.py")).write_text("")
    with pytest.raises(InvalidArgumentError, match=r"working_dir: .*must be valid UTF-8"):
        pack(str(root), tmp_path / "p.zip")


def test_unreadable_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "f", {"a": b"", "locked": b""})
    real = Path.open

    def refuse(self: Path, *arguments: Any, **more: Any) -> Any:
        # As root, file modes keep nobody out.
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidArgumentError, match=r"working_dir: '.*locked'. The file cannot be packed"):
        pack(str(root), tmp_path / "p.zip")


def test_the_limit_names_the_biggest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 2 << 20)
    root = folder(tmp_path / "f", {"small.py": b"1", "data/huge.bin": os.urandom(3 << 20), "big.bin": os.urandom(1000)})
    with pytest.raises(PackageTooLargeError) as caught:
        pack(str(root), tmp_path / "p.zip")
    text = str(caught.value)
    assert "working_dir=" in text
    assert re.search(
        r"contains 3\.0 MiB.*exceeds Ray's limit of 2 MiB.*Biggest files: data/huge\.bin \(3\.0 MiB\), big\.bin", text
    )
    assert "excludes" in text
    assert caught.value.details["limit"] == 2 << 20
    assert names(pack(str(root), tmp_path / "p.zip", excludes=["*.bin"])) == {"small.py"}


def test_the_limit_is_for_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 1 << 20)
    root = folder(tmp_path / "f", {"zeros.bin": bytes(8 << 20)})
    assert pack(str(root), tmp_path / "p.zip").size < 1 << 20


def test_packing_of_huge_folder_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 1 << 20)
    root = folder(tmp_path / "f", {f"{n}.bin": os.urandom(1 << 20) for n in range(8)})
    with pytest.raises(PackageTooLargeError):
        pack(str(root), tmp_path / "p.zip")
    assert (tmp_path / "p.zip").stat().st_size < 4 << 20


def test_a_small_package_has_a_name_of_each_job_s_own(tmp_path: Path) -> None:
    package = pack(str(folder(tmp_path / "f", {"a.py": b"1"})), tmp_path / "p.zip")
    one, again, other = (package.for_job(key) for key in ("job-1", "job-1", "job-2"))
    assert re.fullmatch(r"_ray_pkg_[0-9a-f]{32}_[0-9a-f]{16}\.zip", one.name)
    assert one == again
    assert len({package.name, one.name, other.name}) == 3
    assert (one.path, one.size) == (package.path, package.size)


def test_a_large_package_is_shared(tmp_path: Path) -> None:
    large = Package(tmp_path / "x.zip", "_ray_pkg_1.zip", packages.SMALL_PACKAGE_BYTES + 1)
    assert large.for_job("job-1") is large
    edge = Package(tmp_path / "x.zip", "_ray_pkg_1.zip", packages.SMALL_PACKAGE_BYTES)
    assert edge.for_job("job-1").name != edge.name


def test_a_module_s_folder_is_on_top(tmp_path: Path) -> None:
    root = folder(tmp_path / "scores", {"__init__.py": b"", "sub/x.py": b"", "data.bin": b"x", ".gitignore": b"*.log"})
    (root / "a.log").write_text("x")
    package = pack_module(str(root), tmp_path / "p.zip", excludes=["*.bin"])
    assert names(package) == {"scores/__init__.py", "scores/sub/x.py", "scores/.gitignore"}
    elsewhere = pack_module(f"{folder(tmp_path / 'b' / 'scores', {'__init__.py': b''})}/", tmp_path / "q.zip")
    assert names(elsewhere) == {"scores/__init__.py"}
    assert elsewhere.name != package.name


def test_a_module_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("A = 1")
    assert names(pack_module(str(tmp_path / "helper.py"), tmp_path / "p.zip")) == {"helper.py"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("my_tools-1.0-py3-none-any.whl", r"my_tools-1\.0-0_[0-9a-f]{32}-py3-none-any\.whl"),
        ("a-1.0+cu118-7b-cp311-cp311-linux_x86_64.whl", r"a-1\.0\+cu118-7b_[0-9a-f]{32}-cp311-cp311-linux_x86_64\.whl"),
    ],
)
def test_a_wheel_keeps_its_name_but_for_the_build_tag(tmp_path: Path, name: str, wanted: str) -> None:
    from packaging.utils import parse_wheel_filename

    (tmp_path / name).write_bytes(b"one")
    first = pack_module(str(tmp_path / name), tmp_path / "unused.zip")
    assert re.fullmatch(wanted, first.name)
    assert first.path == tmp_path / name
    (tmp_path / name).write_bytes(b"two")
    assert pack_module(str(tmp_path / name), tmp_path / "unused.zip").name != first.name
    own = first.for_job("job-1")
    assert own.name not in (first.name, first.for_job("job-2").name)
    for each in (first, own):
        project, version, build, tags = parse_wheel_filename(each.name)
        assert build, "pip does not take it for a build tag"
        assert (project, version, tags) == (lambda p: (p[0], p[1], p[3]))(parse_wheel_filename(name))


@pytest.mark.parametrize("name", ["nothing", "file.txt", "nothing.whl", "nothing.py", "odd.whl", "my-tools"])
def test_invalid_modules_are_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "odd.whl").write_text("")
    (tmp_path / "my-tools").mkdir()
    with pytest.raises(InvalidArgumentError) as caught:
        pack_module(str(tmp_path / name), tmp_path / "p.zip", field="py_modules[3]")
    assert caught.value.field == "py_modules[3]"


def test_the_limit_holds_for_modules_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 1 << 20)
    root = folder(tmp_path / "scores", {"weights.bin": os.urandom(2 << 20)})
    with pytest.raises(PackageTooLargeError, match=r"py_modules\[1\]=.*Biggest files: weights\.bin \(2\.0 MiB\)"):
        pack_module(str(root), tmp_path / "p.zip", field="py_modules[1]")
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(bytes(2 << 20))
    with pytest.raises(PackageTooLargeError, match=r"py_modules\[0\]=.*Biggest files: a-1-py3-none-any\.whl"):
        pack_module(str(wheel), tmp_path / "p.zip")


def test_a_zip_that_is_ready(tmp_path: Path) -> None:
    made = pack(str(folder(tmp_path / "f", {"a.py": b"1"})), tmp_path / "p.zip")
    assert ready_zip(str(tmp_path / "p.zip")) == made
    (tmp_path / "no.zip").write_text("no zip")
    for name in ("no.zip", "nothing.zip"):
        with pytest.raises(InvalidArgumentError, match="^Invalid value for working_dir: "):
            ready_zip(str(tmp_path / name))


def test_open_package_reports_progress(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    told: list[int] = []
    with Package(tmp_path / "x", "x", 10).open(told.append) as source:
        assert source.read(4) == b"0123"
        assert source.read() == b"456789"
        assert source.read() == b""
    assert told == [4, 10, 10]


MIB = 1 << 20


def progress(size: int, steps: list[tuple[float, int]]) -> list[str]:
    """What is said of an upload, of which so much was read at such times."""
    now = [0.0]
    said: list[str] = []
    watch = Progress("code", size, said.append, lambda: now[0])
    for now[0], done in steps:
        watch(done)
    return said


def test_progress_is_said_in_steps_of_ten_percent_and_five_seconds() -> None:
    # A MiB a second.
    said = progress(100 * MIB, [(float(n), n * MIB) for n in range(101)])
    assert said[0] == "code: 10.0 of 100.0 MiB sent, 1.0 MiB/s"
    assert len(said) == 10
    # Ten MiB a second: what counts are the five seconds.
    said = progress(100 * MIB, [(n / 10, n * MIB) for n in range(101)])
    assert said == ["code: 50.0 of 100.0 MiB sent, 10.0 MiB/s", "code: 100.0 of 100.0 MiB sent, 10.0 MiB/s"]


def test_progress_of_a_second_try_begins_anew() -> None:
    said = progress(10 * MIB, [(6.0, 5 * MIB), (12.0, 0), (22.0, 5 * MIB)])
    assert said == ["code: 5.0 of 10.0 MiB sent, 0.8 MiB/s", "code: 5.0 of 10.0 MiB sent, 0.5 MiB/s"]


def test_a_few_megabytes_are_sent_silently() -> None:
    assert progress(4 * MIB, [(60.0 * n, n * MIB) for n in range(5)]) == []
