"""A local folder as the zip that Ray's Jobs API takes for a working_dir: measured first, the same bytes each time."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_vertex_ray.errors import PackageTooLargeError
from airflow_provider_vertex_ray.spec_error import SpecError

MAX_PACKAGE_BYTES = 512 << 20
"""Ray's limit for an upload (RAY_RUNTIME_ENV_UPLOAD limit, 512 MiB in 2.47.1)."""

ALWAYS_EXCLUDED = (".git/", "__pycache__/", "*.pyc")

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip can hold: file times must not change the content's hash."""


@dataclass(frozen=True)
class Package:
    """A packed folder.

    :param path: The zip on this machine.
    :param name: Its content-addressed name on the cluster, ``_ray_pkg_<hash>.zip``.
    :param size: Bytes of the zip.
    """

    path: Path
    name: str
    size: int

    @property
    def uri(self) -> str:
        """What ``runtime_env.working_dir`` says on the cluster."""
        return f"gcs://{self.name}"


def pack(folder: str, target: Path, *, excludes: Sequence[str] = (), field: str = "working_dir") -> Package:
    """Zip a folder so that equal content gives an equal name.

    :param folder: The local folder.
    :param target: The zip to write.
    :param excludes: Patterns as in a ``.gitignore``; the folder's own ``.gitignore`` counts too.
    :param field: The parameter's name, for errors.
    :raises SpecError: There is no such folder.
    :raises PackageTooLargeError: Its files pass Ray's limit; the error names the biggest ones.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise SpecError(field, folder, "give an existing local folder, or a gs:// or https:// zip")
    files = sorted(_files(root, excludes))
    total = sum(path.stat().st_size for path in files)
    if total > MAX_PACKAGE_BYTES:
        biggest = sorted(files, key=lambda path: path.stat().st_size, reverse=True)[:5]
        listed = ", ".join(f"{path.relative_to(root)} ({path.stat().st_size / 2**20:.1f} MiB)" for path in biggest)
        raise PackageTooLargeError(
            f"{field}={folder!r} holds {total / 2**20:.1f} MiB; Ray takes at most "
            f"{MAX_PACKAGE_BYTES >> 20} MiB. Biggest files: {listed}.",
            {"bytes": total, "limit": MAX_PACKAGE_BYTES},
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            info = zipfile.ZipInfo(str(path.relative_to(root)), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (path.stat().st_mode & 0o777) << 16
            with path.open("rb") as source, archive.open(info, "w") as entry:
                while block := source.read(1 << 20):
                    entry.write(block)
    digest = hashlib.sha256()
    with target.open("rb") as packed:
        while block := packed.read(1 << 20):
            digest.update(block)
    return Package(target, f"_ray_pkg_{digest.hexdigest()[:32]}.zip", target.stat().st_size)


def _files(root: Path, excludes: Sequence[str]) -> Iterator[Path]:
    # Airflow itself depends on pathspec, which knows .gitignore's language.
    from pathspec import PathSpec

    ignore = root / ".gitignore"
    own = ignore.read_text().splitlines() if ignore.is_file() else []
    spec = PathSpec.from_lines("gitwildmatch", [*ALWAYS_EXCLUDED, *own, *excludes])
    for path in root.rglob("*"):
        if path.is_file() and not spec.match_file(path.relative_to(root).as_posix()):
            yield path
