"""What of a folder is sent: the same list of files as Ray's own packing, over random trees."""

from __future__ import annotations

import logging
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.ignore_patterns import IgnorePatterns
from airflow_provider_vertex_ray.core.job.package_files import IGNORE_GITIGNORE
from airflow_provider_vertex_ray.core.job.packages import pack
from airflow_provider_vertex_ray.errors import InvalidArgumentError

NAMES = ["a", "b", "data", "x.py", "y.bin", "main.py", "big.bin", "größe.txt", ".hidden", "a b", "lib"]
PATTERNS = [
    "*.bin", "data/", "/data", "data", "!x.py", "lib/*", "!lib/x.py", "**/a", "a/**", "*.p?", "# comment", "",
    "  ", "/a/b", "!data/", "b*", "[xy].*", "\\#a", "lib/**/x.py", ".*", "größe.txt", "a b", "*", "!*/",
]  # fmt: skip


def random_tree(folder: Path, chance: random.Random, complete: list[Path], depth: int = 0) -> None:
    """Fill a folder: files, folders, empty folders, ignore files, and links to what is complete already."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in chance.sample(NAMES, chance.randint(0, 6)):
        path, kind = folder / name, chance.random()
        if kind < 0.45:
            path.write_bytes(name.encode())
        elif kind < 0.8 and depth < 3:
            random_tree(path, chance, complete, depth + 1)
        elif complete:
            path.symlink_to(chance.choice(complete) if chance.random() < 0.9 else folder / "nothing")
    if chance.random() < 0.35:
        lines = chance.sample(PATTERNS[:-2] if chance.random() < 0.9 else PATTERNS, chance.randint(0, 4))
        (folder / ".gitignore").write_text("\n".join(lines))
    complete += [folder, *(each for each in folder.iterdir() if each.is_file())]


def packed_by_ray(root: Path, excludes: list[str], target: Path, *, named: bool) -> set[str]:
    if not pytest.importorskip("ray").__version__.startswith("2.47."):
        pytest.skip("the cluster's Ray is another one")
    from ray._private.runtime_env.packaging import create_package

    create_package(str(root), target, include_parent_dir=named, excludes=excludes, logger=logging.getLogger("quiet"))
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
    # An empty folder is an entry for itself there, which unpacks to nothing.
    return set(names) - {"./", f"{root.name}/"}


def compare(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    complete: list[Path] = []
    random_tree(folder / "outside", chance, complete)
    # A link to the folder around itself is the one thing that is better here, see below.
    complete.remove(folder / "outside")
    root = folder / "root"
    random_tree(root, chance, complete)
    excludes = chance.sample(PATTERNS, chance.choice([0, 0, 1, 3]))
    monkeypatch.setenv(IGNORE_GITIGNORE, chance.choice(["0", "0", "1", ""]))
    named = chance.random() < 0.3
    wanted = packed_by_ray(root, excludes, folder / "ray.zip", named=named)
    ours = pack(str(root), folder / "ours.zip", excludes=excludes, named=named)
    with zipfile.ZipFile(ours.path) as archive:
        assert set(archive.namelist()) - {f"{root.name}/"} == wanted, f"seed {seed}"


@pytest.mark.parametrize("part", range(4))
def test_same_files_as_ray(tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(part * 50, part * 50 + 50):
        compare(tmp_path / str(seed), seed, monkeypatch)


@pytest.mark.soak
def test_same_files_as_ray_in_thousands_of_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(1_000, 3_000):
        compare(tmp_path / str(seed), seed, monkeypatch)


def test_ray_packs_links_to_folders_empty_folders_and_reads_nested_ignore_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The random trees contain these: so the comparison is not one of empty lists."""
    root, shared = tmp_path / "root", tmp_path / "shared"
    for place in (root / "data", root / "empty", shared):
        place.mkdir(parents=True)
    (shared / "u.py").write_text("X = 1")
    (root / "lib").symlink_to(shared)
    (root / "data" / "big.bin").write_text("x")
    (root / "data" / ".gitignore").write_text("*.bin")
    wanted = {"lib/u.py", "empty/", "data/.gitignore"}
    for setting, more in (("0", set()), ("1", {"data/big.bin"})):
        monkeypatch.setenv(IGNORE_GITIGNORE, setting)
        package = pack(str(root), tmp_path / f"{setting}.zip")
        with zipfile.ZipFile(package.path) as archive:
            assert set(archive.namelist()) == wanted | more
        assert packed_by_ray(root, [], tmp_path / f"ray{setting}.zip", named=False) == wanted | more


def test_link_to_a_folder_around_it_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "main.py").write_text("")
    (root / "a" / "up").symlink_to(root)
    package = pack(str(root), tmp_path / "p.zip")
    with zipfile.ZipFile(package.path) as archive:
        assert archive.namelist() == ["a/main.py"]
    assert str(root / "a" / "up") in caplog.text


def test_pattern_that_excludes_everything_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "main.py").write_text("")
    package = pack(str(tmp_path / "root"), tmp_path / "p.zip", excludes=["*", "!main.py"])
    with zipfile.ZipFile(package.path) as archive:
        assert archive.namelist() == []
    assert "nothing of it is sent" in caplog.text


def test_pattern_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(InvalidArgumentError, match="excludes"):
        pack(str(tmp_path / "root"), tmp_path / "p.zip", excludes=["!"])


PARTS = [
    "*",
    "**",
    "?",
    "a",
    "b*",
    "[ab]",
    "[!a]",
    "[]a]",
    "[^a]",
    "[a",
    "a]",
    "\\*",
    "\\!",
    "#",
    " ",
    ".",
    "!",
    "\\",
    "",
]


@settings(max_examples=400, deadline=None)
@given(
    lines=st.lists(
        st.lists(st.lists(st.sampled_from(PARTS), max_size=3).map("".join), min_size=1, max_size=4).map("/".join),
        max_size=3,
    ),
    paths=st.lists(st.lists(st.text("ab*!#.]^ \\", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)),
)
def test_patterns_match_as_in_ray(lines: list[str], paths: list[str]) -> None:
    from ray._private.thirdparty.pathspec import PathSpec

    try:
        theirs = PathSpec.from_lines("gitwildmatch", lines)
    except Exception:
        with pytest.raises(InvalidArgumentError):
            IgnorePatterns(lines, "excludes")
        return
    ours = IgnorePatterns(lines, "excludes")
    for path in paths:
        if not path.startswith("./"):
            assert ours(path) == theirs.match_file(path), (lines, path)
