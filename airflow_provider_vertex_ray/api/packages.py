"""A local folder as the zip that Ray's Jobs API takes for a working_dir: measured first, the same bytes each time."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_vertex_ray.errors import PackageTooLargeError
from airflow_provider_vertex_ray.spec_error import SpecError

MAX_PACKAGE_BYTES = 100 << 20
"""What Ray 2.47.1's dashboard takes as a request's body (its DASHBOARD_CLIENT_MAX_SIZE); it answers 413 to more."""

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
    :raises SpecError: There is no such folder, or a file of it can not be packed.
    :raises PackageTooLargeError: The zip passes Ray's limit; the error names the biggest files.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise SpecError(field, folder, "give an existing local folder, or a gs:// or https:// zip")
    files = sorted(_files(root, excludes, field))
    with target.open("wb") as packed, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            try:
                info = zipfile.ZipInfo(path.relative_to(root).as_posix(), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (path.stat().st_mode & 0o777) << 16
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                    while block := source.read(1 << 20):
                        entry.write(block)
                        # Looked at as it grows: a folder of many gigabytes must not be packed for nothing.
                        if packed.tell() > MAX_PACKAGE_BYTES:
                            raise _too_large(folder, root, files, field)
            except OSError as error:
                raise SpecError(field, str(path), f"the file can not be packed: {error}") from error
    if target.stat().st_size > MAX_PACKAGE_BYTES:
        raise _too_large(folder, root, files, field)
    digest = hashlib.sha256()
    with target.open("rb") as done:
        while block := done.read(1 << 20):
            digest.update(block)
    return Package(target, f"_ray_pkg_{digest.hexdigest()[:32]}.zip", target.stat().st_size)


def _too_large(folder: str, root: Path, files: Sequence[Path], field: str) -> PackageTooLargeError:
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    biggest = sorted(files, key=lambda path: sizes[path], reverse=True)[:5]
    listed = ", ".join(f"{path.relative_to(root)} ({sizes[path] / 2**20:.1f} MiB)" for path in biggest)
    return PackageTooLargeError(
        f"{field}={folder!r} holds {total / 2**20:.1f} MiB; packed, that is more than the "
        f"{MAX_PACKAGE_BYTES >> 20} MiB that Ray takes. Biggest files: {listed}.",
        {"bytes": total, "limit": MAX_PACKAGE_BYTES},
    )


def _files(root: Path, excludes: Sequence[str], field: str) -> Iterator[Path]:
    # Airflow itself depends on pathspec, which knows .gitignore's language.
    from pathspec import GitIgnoreSpec

    ignore = root / ".gitignore"
    own = ignore.read_text("utf-8", "replace").splitlines() if ignore.is_file() else []
    spec = GitIgnoreSpec.from_lines([*ALWAYS_EXCLUDED, *own, *excludes])
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise SpecError(field, str(path), "a file's name must be valid UTF-8") from error
        if path.is_file() and not spec.match_file(name):
            yield path
