"""Local code as the packages that a Ray cluster takes: measured first, the same bytes each time, named by content.

Source of names and limits: Ray 2.47.1, python/ray/_private/runtime_env (packaging.py, py_modules.py, working_dir.py).
"""

from __future__ import annotations

import hashlib
import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_provider_vertex_ray.errors import InvalidArgumentError, PackageTooLargeError

MAX_PACKAGE_BYTES = 100 << 20
"""What Ray 2.47.1's dashboard takes as a request's body (its DASHBOARD_CLIENT_MAX_SIZE); it answers 413 to more."""

SMALL_PACKAGE_BYTES = 1 << 20
"""Up to here a job gets its working_dir under a name of its own, see ``Package.for_job``."""

SAID_FROM = 4 << 20
"""Bytes from which on an upload's progress is said."""
SAID_EVERY = 0.1
"""Part of an upload between two lines of progress at least."""
SAID_SECONDS = 5.0
"""Seconds between two lines of progress at least."""

ALWAYS_EXCLUDED = (".git/", "__pycache__/", "*.pyc")

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip can hold: file times must not change the content's hash."""

_WHEEL = re.compile(r"([^\s-]+-[^\s-]+)(?:-(\d[^\s-]*))?(-[^\s-]+-[^\s-]+-[^\s-]+)\.whl")
"""A wheel's file name (https://peps.python.org/pep-0427/#file-name-convention), its build tag in the middle."""


@dataclass(frozen=True)
class Package:
    """A file that is ready to be sent.

    :param path: The file on this machine.
    :param name: Its content-addressed name on the cluster, such as ``_ray_pkg_<hash>.zip``.
    :param size: Its bytes.
    """

    path: Path
    name: str
    size: int

    @property
    def uri(self) -> str:
        """What ``runtime_env`` says on the cluster."""
        return f"gcs://{self.name}"

    def for_job(self, job_key: str) -> Package:
        """The same under a name that only one job uses, if it is small; else this.

        A node of Ray 2.47.1 that two jobs reach at once unpacks a working_dir that both name twice, and the second time
        removes the folder under the first job (``WorkingDirPlugin.create`` says ``overwrite=True``, and the agent locks
        per runtime environment, not per package). Two jobs that install one wheel at once do the like.
        """
        if self.size > SMALL_PACKAGE_BYTES:
            return self
        own = hashlib.sha256(job_key.encode()).hexdigest()[:16]
        wheel = _WHEEL.fullmatch(self.name)
        if wheel is not None:
            return replace(self, name=f"{wheel[1]}-{wheel[2]}_{own}{wheel[3]}.whl")
        return replace(self, name=f"{self.name.removesuffix('.zip')}_{own}.zip")

    def open(self, progress: Callable[[int], None] | None = None) -> io.BufferedReader:
        """The file for a request's body.

        :param progress: Is told the number of bytes that were read so far, from the thread that reads.
        """
        return _Watched(self.path, progress)


class _Watched(io.BufferedReader):
    """A file that says how far it was read. aiohttp sends it with its length, and reads it in a thread."""

    def __init__(self, path: Path, progress: Callable[[int], None] | None) -> None:
        super().__init__(io.FileIO(path))
        self._progress = progress
        self._done = 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self._done += len(block)
        if self._progress is not None:
            self._progress(self._done)
        return block


class Progress:
    """Says how an upload gets on: never for a small one, and never twice within 10 % or five seconds.

    :param what: What is sent, for the reader.
    :param size: Its bytes.
    :param notify: Gets each line; may be called from any thread.
    :param clock: Seconds; for tests.
    """

    def __init__(
        self, what: str, size: int, notify: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._size = size
        self._notify = notify
        self._clock = clock
        self._began = clock()
        self._said_at = self._began
        self._said_bytes = 0
        self._last = 0

    def __call__(self, done: int) -> None:
        """Note that so many bytes are read."""
        if self._size <= SAID_FROM:
            return
        now = self._clock()
        if done < self._last:
            # Another try, from the beginning.
            self._began, self._said_bytes = now, 0
        self._last = done
        if done - self._said_bytes < self._size * SAID_EVERY or now - self._said_at < SAID_SECONDS:
            return
        self._said_at, self._said_bytes = now, done
        self._notify(f"{self._what}: {done / 2**20:.1f} of {self._size / 2**20:.1f} MiB sent, {self.rate(done)}")

    def rate(self, done: int) -> str:
        """The mean speed since the (last) beginning."""
        return f"{done / 2**20 / max(self._clock() - self._began, 1e-3):.1f} MiB/s"


def pack(
    folder: str, target: Path, *, excludes: Sequence[str] = (), field: str = "working_dir", named: bool = False
) -> Package:
    """Zip a folder so that equal content gives an equal name.

    :param folder: The local folder.
    :param target: The zip to write.
    :param excludes: Patterns as in a ``.gitignore``; the folder's own ``.gitignore`` counts too.
    :param field: The parameter's name, for errors.
    :param named: Whether the zip's files are in a folder of the folder's name, as those of a module must be.
    :raises InvalidArgumentError: There is no such folder, or a file of it can not be packed.
    :raises PackageTooLargeError: The zip passes Ray's limit; the error names the biggest files.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise InvalidArgumentError(field, folder, "give an existing local folder, or a gs:// or https:// zip")
    return _zip(root, sorted(_files(root, excludes, field)), target, field, root.parent if named else root)


def pack_module(path: str, target: Path, *, excludes: Sequence[str] = (), field: str = "py_modules[0]") -> Package:
    """A Python module: a folder or a ``.py`` file as a zip, or a wheel as it is.

    :param path: The local folder or file.
    :param target: The zip to write, where one is needed.
    :param excludes: Patterns for a folder, as for ``pack``.
    :param field: The parameter's name, for errors.
    :raises InvalidArgumentError: There is no such module, or its name can not be imported.
    :raises PackageTooLargeError: It passes Ray's limit.
    """
    found = Path(path).expanduser().absolute()
    if found.is_file() and found.suffix == ".whl":
        wheel = _WHEEL.fullmatch(found.name)
        if wheel is None:
            raise InvalidArgumentError(field, path, "a wheel's file is called name-version-python-abi-platform.whl")
        # Ray goes by the name: the content's hash in the build tag keeps two builds of one version apart.
        digest = _digest(found, field)
        return _file(found, f"{wheel[1]}-{wheel[2] or 0}_{digest}{wheel[3]}.whl", field)
    if not found.is_dir() and not (found.is_file() and found.suffix == ".py"):
        raise InvalidArgumentError(
            field, path, "give a local folder, a .py file, a wheel, or the URI of a zip or wheel"
        )
    name = found.stem if found.is_file() else found.name
    if not name.isidentifier():
        raise InvalidArgumentError(field, path, "nothing of that name can be imported; name the module's own folder")
    if found.is_file():
        return _zip(found, [found], target, field, found.parent)
    return pack(path, target, excludes=excludes, field=field, named=True)


def ready_zip(path: str, field: str = "working_dir") -> Package:
    """A local zip as it is.

    :raises InvalidArgumentError: It is no zip.
    :raises PackageTooLargeError: It passes Ray's limit.
    """
    found = Path(path).expanduser().absolute()
    if not found.is_file() or not zipfile.is_zipfile(found):
        raise InvalidArgumentError(field, path, "give an existing local folder or zip, or a gs:// or https:// zip")
    return _file(found, f"_ray_pkg_{_digest(found, field)}.zip", field)


def _file(path: Path, name: str, field: str) -> Package:
    size = path.stat().st_size
    if size > MAX_PACKAGE_BYTES:
        raise _too_large(path, [path], field)
    return Package(path, name, size)


def _zip(shown: Path, files: Sequence[Path], target: Path, field: str, top: Path) -> Package:
    with target.open("wb") as packed, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            try:
                info = zipfile.ZipInfo(path.relative_to(top).as_posix(), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (path.stat().st_mode & 0o777) << 16
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                    while block := source.read(1 << 20):
                        entry.write(block)
                        # Looked at as it grows: a folder of many gigabytes must not be packed for nothing.
                        if packed.tell() > MAX_PACKAGE_BYTES:
                            raise _too_large(shown, files, field)
            except OSError as error:
                raise InvalidArgumentError(field, str(path), f"the file can not be packed: {error}") from error
    if target.stat().st_size > MAX_PACKAGE_BYTES:
        raise _too_large(shown, files, field)
    return Package(target, f"_ray_pkg_{_digest(target, field)}.zip", target.stat().st_size)


def _digest(path: Path, field: str) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as done:
            while block := done.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InvalidArgumentError(field, str(path), f"the file can not be read: {error}") from error
    return digest.hexdigest()[:32]


def _too_large(shown: Path, files: Sequence[Path], field: str) -> PackageTooLargeError:
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    biggest = sorted(files, key=lambda path: sizes[path], reverse=True)[:5]
    base = shown if shown.is_dir() else shown.parent
    listed = ", ".join(f"{path.relative_to(base)} ({sizes[path] / 2**20:.1f} MiB)" for path in biggest)
    return PackageTooLargeError(
        f"{field}={str(shown)!r} holds {total / 2**20:.1f} MiB; packed, that is more than the "
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
            raise InvalidArgumentError(field, str(path), "a file's name must be valid UTF-8") from error
        if path.is_file() and not spec.match_file(name):
            yield path
