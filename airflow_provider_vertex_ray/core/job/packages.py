"""Packages of local code for a Ray cluster: limited in size, reproducible byte for byte, and named by their content.

Source of names and limits: Ray 2.47.1, python/ray/_private/runtime_env (packaging.py, py_modules.py, working_dir.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.job.package_files import packed_paths
from airflow_provider_vertex_ray.core.job.runtime_env import CONDA_FILES, is_local
from airflow_provider_vertex_ray.errors import InvalidArgumentError, PackageTooLargeError

MAX_PACKAGE_BYTES = 100 << 20
"""Largest request body of Ray 2.47.1's dashboard (its DASHBOARD_CLIENT_MAX_SIZE); it answers 413 to a larger one."""

SMALL_PACKAGE_BYTES = 1 << 20
"""Size up to which a package gets a name of its own for each job, see ``Package.for_job``."""

SAID_FROM = 4 << 20
"""Size in bytes above which the progress of an upload is logged."""
SAID_EVERY = 0.1
"""Minimum share of an upload between two progress lines."""
SAID_SECONDS = 5.0
"""Minimum number of seconds between two progress lines."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can store; the times of files must not change the hash of the content."""

_WHEEL = re.compile(r"([^\s-]+-[^\s-]+)(?:-(\d[^\s-]*))?(-[^\s-]+-[^\s-]+-[^\s-]+)\.whl")
"""A wheel's file name, with its build tag in the middle (https://peps.python.org/pep-0427/#file-name-convention)."""


@dataclass(frozen=True)
class Package:
    """A file that is ready to be uploaded.

    :param path: the file on this machine
    :param name: its content-addressed name on the cluster, such as ``_ray_pkg_<hash>.zip``
    :param size: its size in bytes
    """

    path: Path
    name: str
    size: int

    @property
    def uri(self) -> str:
        """Return the URI of the package in a ``runtime_env``."""
        return f"gcs://{self.name}"

    def for_job(self, job_key: str) -> Package:
        """Return a small package under a name that only one job uses, and a larger one unchanged.

        If two jobs with the same working_dir reach a node of Ray 2.47.1 at the same time, the node unpacks it twice,
        and the second time removes the folder that the first job runs in (``WorkingDirPlugin.create`` passes
        ``overwrite=True``, and the agent locks per runtime environment, not per package). Two jobs that install the
        same wheel at the same time fail in a similar way.
        """
        if self.size > SMALL_PACKAGE_BYTES:
            return self
        own = hashlib.sha256(job_key.encode()).hexdigest()[:16]
        wheel = _WHEEL.fullmatch(self.name)
        if wheel is not None:
            return replace(self, name=f"{wheel[1]}-{wheel[2]}_{own}{wheel[3]}.whl")
        return replace(self, name=f"{self.name.removesuffix('.zip')}_{own}.zip")

    def open(self, progress: Callable[[int], None] | None = None) -> io.BufferedReader:
        """Open the file as the body of a request.

        :param progress: receives the number of bytes read so far, in the thread that reads
        """
        return _ProgressReader(self.path, progress)


class _ProgressReader(io.BufferedReader):
    """A file that reports how far it was read; aiohttp sends it with its length and reads it in a thread."""

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
    """Reports the progress of a large upload, at most once per 10 % and per five seconds.

    :param what: what is uploaded, for the log
    :param size: its size in bytes
    :param notify: receives each line; may be called from any thread
    :param clock: returns the time in seconds; for tests
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
        """Record that ``done`` bytes were read."""
        if self._size <= SAID_FROM:
            return
        now = self._clock()
        if done < self._last:
            # Another attempt, from the beginning.
            self._began, self._said_bytes = now, 0
        self._last = done
        if done - self._said_bytes < self._size * SAID_EVERY or now - self._said_at < SAID_SECONDS:
            return
        self._said_at, self._said_bytes = now, done
        self._notify(f"{self._what}: {done / 2**20:.1f} of {self._size / 2**20:.1f} MiB sent, {self.rate(done)}")

    def rate(self, done: int) -> str:
        """Return the average speed since the (last) beginning."""
        return f"{done / 2**20 / max(self._clock() - self._began, 1e-3):.1f} MiB/s"


def pack(
    folder: str, target: Path, *, excludes: Sequence[str] = (), field: str = "working_dir", named: bool = False
) -> Package:
    """Zip the files of a folder that Ray would send; the same content always results in the same name.

    :param folder: the local folder
    :param target: the zip file to write
    :param excludes: patterns as in a ``.gitignore`` file; the ``.gitignore`` files in the folder apply as well
    :param field: name of the argument, for errors
    :param named: whether the zip file contains the folder itself, as a module requires, or only its files
    :raises InvalidArgumentError: the folder does not exist, or one of its files cannot be packed
    :raises PackageTooLargeError: the zip file exceeds Ray's limit; the error names the biggest files
    """
    root = _existing_folder(folder, field)
    found = sorted(packed_paths(root, excludes, field))
    return _zip(root, found, target, field, root.parent if named else root)


def pack_module(path: str, target: Path, *, excludes: Sequence[str] = (), field: str = "py_modules[0]") -> Package:
    """Return the package of a Python module: a folder or a ``.py`` file as a zip file, or a wheel as it is.

    :param path: the local folder or file
    :param target: the zip file to write, if one is needed
    :param excludes: patterns for a folder, as for ``pack``
    :param field: name of the argument, for errors
    :raises InvalidArgumentError: the module does not exist, or its name cannot be imported
    :raises PackageTooLargeError: the package exceeds Ray's limit
    """
    found, wheel = _existing_module(path, field)
    if wheel is not None:
        # Ray goes by the name; the hash of the content in the build tag distinguishes two builds of one version.
        digest = _digest(found, field)
        return _file(found, f"{wheel[1]}-{wheel[2] or 0}_{digest}{wheel[3]}.whl", field)
    if found.is_file():
        return _zip(found, [found], target, field, found.parent)
    return pack(path, target, excludes=excludes, field=field, named=True)


def ready_zip(path: str, field: str = "working_dir") -> Package:
    """Return the package of an existing local zip file.

    :param path: the zip file
    :param field: name of the argument, for errors
    :raises InvalidArgumentError: it is not a zip file
    :raises PackageTooLargeError: it exceeds Ray's limit
    """
    found = _existing_zip(path, field)
    return _file(found, f"_ray_pkg_{_digest(found, field)}.zip", field)


def pack_all(environment: Mapping[str, Any], scratch: Path, job_key: str) -> dict[int | None, tuple[str, str, Package]]:
    """Pack all local code of a runtime environment.

    :param environment: the runtime environment, as ``runtime_environment`` returns it
    :param scratch: folder for the zip files
    :param job_key: a text that is unique among the cluster's jobs
    :return: field, path and package by index in ``py_modules``; the ``working_dir`` has the key None
    :raises InvalidArgumentError: a folder or file does not exist or cannot be packed
    :raises PackageTooLargeError: a package exceeds Ray's limit
    """
    excludes = environment.get("excludes") or ()
    found: dict[int | None, tuple[str, str, Package]] = {}
    for place, field, path in _local_code(environment):
        if place is None:
            package = ready_zip(path) if _is_zip(path) else pack(path, scratch / "working_dir.zip", excludes=excludes)
            found[place] = (field, path, package.for_job(job_key))
        else:
            package = pack_module(path, scratch / f"{place}.zip", excludes=excludes, field=field)
            # Unlike a working_dir, a zip of py_modules is unpacked once on each node, for all jobs.
            found[place] = (field, path, package.for_job(job_key) if package.name.endswith(".whl") else package)
    return found


def check_local_code(environment: Mapping[str, Any]) -> None:
    """Validate that the local code of a runtime environment is there; only a conda file is read.

    :param environment: the runtime environment, as ``runtime_environment`` returns it
    :raises InvalidArgumentError: a folder or file does not exist, or is none that can be sent
    """
    for place, field, path in _local_code(environment):
        if place is not None:
            _existing_module(path, field)
        elif _is_zip(path):
            _existing_zip(path, field)
        else:
            _existing_folder(path, field)
    read_conda(environment)


def read_conda(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Read a local conda file, as Ray's own client does.

    :param environment: the runtime environment, as ``runtime_environment`` returns it
    :return: the field ``conda`` with the file's content; nothing where it is no local file
    :raises InvalidArgumentError: the file cannot be read, or holds no mapping
    """
    path = environment.get("conda")
    if not isinstance(path, str) or Path(path).suffix not in CONDA_FILES:
        return {}
    import yaml

    field, rule = "runtime_env['conda']", "Use the name of an environment, a dict, or a local YAML file."
    try:
        found = yaml.safe_load(Path(path).expanduser().read_text("utf-8"))
        json.dumps(found)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise InvalidArgumentError(field, path, f"{rule} The file cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgumentError(field, path, rule)
    return {"conda": found}


def _local_code(environment: Mapping[str, Any]) -> Iterator[tuple[int | None, str, str]]:
    folder = environment.get("working_dir")
    if folder and is_local(folder):
        yield None, "working_dir", folder
    for place, module in enumerate(environment.get("py_modules") or ()):
        if is_local(module):
            yield place, f"py_modules[{place}]", module


def _is_zip(path: str) -> bool:
    return Path(path).suffix == ".zip" and not Path(path).expanduser().is_dir()


def _existing_folder(path: str, field: str) -> Path:
    found = Path(path).expanduser().absolute()
    if not found.is_dir():
        raise InvalidArgumentError(field, path, "Use an existing local folder, or the gs:// or https:// URI of a zip.")
    return found


def _existing_zip(path: str, field: str) -> Path:
    found = Path(path).expanduser().absolute()
    if not found.is_file() or not zipfile.is_zipfile(found):
        raise InvalidArgumentError(
            field, path, "Use an existing local folder or zip, or the gs:// or https:// URI of a zip."
        )
    return found


def _existing_module(path: str, field: str) -> tuple[Path, re.Match[str] | None]:
    """Return an existing module and, if it is a wheel, the parts of its name."""
    found = Path(path).expanduser().absolute()
    if found.is_file() and found.suffix == ".whl":
        wheel = _WHEEL.fullmatch(found.name)
        if wheel is None:
            raise InvalidArgumentError(field, path, "Name the wheel name-version-python-abi-platform.whl.")
        return found, wheel
    if not found.is_dir() and not (found.is_file() and found.suffix == ".py"):
        raise InvalidArgumentError(
            field, path, "Use a local folder, a .py file, a wheel, or the URI of a zip or wheel."
        )
    name = found.stem if found.is_file() else found.name
    if not name.isidentifier():
        raise InvalidArgumentError(
            field, path, "Use the folder of the module itself; this name is not a valid name of a module."
        )
    return found, None


def _file(path: Path, name: str, field: str) -> Package:
    size = path.stat().st_size
    if size > MAX_PACKAGE_BYTES:
        raise _too_large(path, [path], field)
    return Package(path, name, size)


def _zip(shown: Path, files: Sequence[Path], target: Path, field: str, top: Path) -> Package:
    with target.open("wb") as packed, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            try:
                if path.is_dir():
                    folder = zipfile.ZipInfo(path.relative_to(top).as_posix() + "/", _EPOCH)
                    folder.external_attr = 0o40755 << 16
                    archive.writestr(folder, b"")
                    continue
                info = zipfile.ZipInfo(path.relative_to(top).as_posix(), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (path.stat().st_mode & 0o777) << 16
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                    while block := source.read(1 << 20):
                        entry.write(block)
                        # Checked while it grows: a folder of many gigabytes must not be packed in vain.
                        if packed.tell() > MAX_PACKAGE_BYTES:
                            raise _too_large(shown, files, field)
            except OSError as error:
                raise InvalidArgumentError(field, str(path), f"The file cannot be packed: {error}.") from error
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
        raise InvalidArgumentError(field, str(path), f"The file cannot be read: {error}.") from error
    return digest.hexdigest()[:32]


def _too_large(shown: Path, files: Sequence[Path], field: str) -> PackageTooLargeError:
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    biggest = sorted(files, key=lambda path: sizes[path], reverse=True)[:5]
    base = shown if shown.is_dir() else shown.parent
    listed = ", ".join(f"{path.relative_to(base)} ({sizes[path] / 2**20:.1f} MiB)" for path in biggest)
    return PackageTooLargeError(
        f"{field}={str(shown)!r} contains {total / 2**20:.1f} MiB; its package exceeds Ray's limit of "
        f"{MAX_PACKAGE_BYTES >> 20} MiB. Biggest files: {listed}.",
        {"bytes": total, "limit": MAX_PACKAGE_BYTES},
    )
