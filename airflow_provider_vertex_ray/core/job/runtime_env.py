"""Validation of Ray's runtime environment before any request is made.

Source: Ray 2.47.1, python/ray/runtime_env/runtime_env.py and python/ray/_private/runtime_env/validation.py. This
validation is stricter than Ray's where Ray accepts something that cannot work or that its agent ignores, such as an
unknown field or a package that is not a string.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from airflow_provider_vertex_ray.core.checks import (
    check_flag,
    check_text,
    is_carried,
    is_one_of,
    is_whole,
    known_at_run_time,
    unless_empty,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["CONDA_FILES", "KNOWN_FIELDS", "is_local", "runtime_environment"]

KNOWN_FIELDS = (
    "working_dir",
    "py_modules",
    "excludes",
    "pip",
    "uv",
    "conda",
    "env_vars",
    "config",
    "worker_process_setup_hook",
    "py_executable",
    "image_uri",
    "container",
    "java_jars",
    "mpi",
    "nsight",
    "_nsight",
    "_ray_release",
    "_ray_commit",
    "_inject_current_ray",
)
"""The fields of Ray 2.47.1's RuntimeEnv; ``nsight`` is its constructor's name for ``_nsight``."""

REMOTE_SCHEMES = ("gs", "s3", "https", "file")
"""URI schemes from which a node of the cluster can download a package."""

CONDA_FILES = (".yaml", ".yml")
"""Suffixes that make a ``conda`` value a local file, as in Ray."""

_PIP_FIELDS = ("packages", "pip_check", "pip_version")
_UV_FIELDS = ("packages", "uv_check", "uv_version", "uv_pip_install_options")
_CONFIG_FIELDS = ("setup_timeout_seconds", "eager_install", "log_files")
_ALONE = {"image_uri": ("config", "env_vars"), "container": ("config", "env_vars")}


def is_local(place: str) -> bool:
    """Tell whether a ``working_dir`` or an entry of ``py_modules`` is a path on this machine, by Ray's own rule."""
    return not urlparse(place).scheme


def runtime_environment(
    runtime_env: dict[str, Any] | None,
    working_dir: str | None = None,
    env_vars: dict[str, str] | None = None,
    py_modules: Sequence[str] | None = None,
    excludes: Sequence[str] | None = None,
    *,
    rendered: bool = True,
) -> dict[str, Any]:
    """Validate a runtime environment and merge the parameters that have names of their own into it.

    A local requirements file is read into the result, as by Ray's own client. Local folders and a local conda file stay
    as they are, for ``VertexRayJobAsyncHook.prepare_environment``.

    :param runtime_env: Ray's runtime environment, or None
    :param working_dir: its ``working_dir``; must not also be set in ``runtime_env``
    :param env_vars: environment variables, which take precedence over those in ``runtime_env``
    :param py_modules: its ``py_modules``; must not also be set in ``runtime_env``
    :param excludes: its ``excludes``; must not also be set in ``runtime_env``
    :param rendered: whether all templates are rendered. At DAG parse time they are not: values that are known only at
        run time pass, and no file is read.
    :return: a new, JSON-serialisable dict
    :raises InvalidArgumentError: a value breaks a rule; the error never shows the value of an environment variable
    """
    if not rendered and known_at_run_time(runtime_env):
        runtime_env = None
    if runtime_env is not None and not isinstance(runtime_env, dict):
        # Not shown: its text may contain secrets.
        raise InvalidArgumentError(
            "runtime_env",
            type(runtime_env).__name__,
            "Use a dict. A template for all of it renders to one only with render_template_as_native_obj=True.",
        )
    given = {key: value for key, value in (runtime_env or {}).items() if value is not None}
    for field, value in (("working_dir", working_dir), ("py_modules", py_modules), ("excludes", excludes)):
        if unless_empty(value) is None:
            continue
        if given.get(field):
            raise InvalidArgumentError(field, value, f"Set {field} either here or in runtime_env, not in both.")
        given[field] = value
    fields = _FieldValidator(rendered)
    variables = fields.variables(given.get("env_vars"), env_vars)
    if rendered:
        _check_json(
            {key: value for key, value in given.items() if key not in ("env_vars", "working_dir", "py_modules")}
        )
    environment = {key: fields.field(key, value) for key, value in given.items() if key != "env_vars"}
    if variables:
        environment["env_vars"] = variables
    # As in Ray, an empty list of packages (or of anything else) means none.
    environment = {key: value for key, value in environment.items() if value not in (None, [], {}, "")}
    _check_together(environment)
    return environment


def _check_json(environment: dict[str, Any]) -> None:
    try:
        json.dumps(environment)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            "runtime_env", sorted(map(str, environment)), f"Use JSON-serialisable values: {error}."
        ) from error


def _check_together(environment: dict[str, Any]) -> None:
    installers = [field for field in ("pip", "conda", "uv") if environment.get(field)]
    if len(installers) > 1:
        raise InvalidArgumentError(
            "runtime_env",
            installers,
            "Use only one of pip, conda and uv; the dict of a conda environment can list pip packages.",
        )
    for field, allowed in _ALONE.items():
        if environment.get(field):
            others = sorted(set(environment) - {field, *allowed})
            if others:
                raise InvalidArgumentError(
                    f"runtime_env[{field!r}]", others, f"Combine {field} only with {' and '.join(allowed)}."
                )


class _FieldValidator:
    """Validates the fields of a runtime environment, one at a time.

    :param rendered: as for ``runtime_environment``
    """

    def __init__(self, rendered: bool) -> None:
        self._rendered = rendered
        self._by_field: dict[str, Callable[[str, Any], Any]] = {
            "working_dir": self._working_dir,
            "py_modules": self._py_modules,
            "excludes": self._excludes,
            "pip": self._pip,
            "uv": self._uv,
            "conda": self._conda,
            "config": self._config,
            "worker_process_setup_hook": self._text,
            "py_executable": self._text,
            "image_uri": self._text,
            "container": self._dict,
            "mpi": self._dict,
            "java_jars": self._texts,
        }

    def _later(self, value: Any) -> bool:
        return not self._rendered and known_at_run_time(value)

    def field(self, name: Any, value: Any) -> Any:
        """Validate one field and return its value as it is sent."""
        if not is_one_of(name, KNOWN_FIELDS):
            close = difflib.get_close_matches(str(name), KNOWN_FIELDS, 1, 0.5)
            hint = f"Did you mean {close[0]}?" if close else f"The fields are {', '.join(KNOWN_FIELDS[:11])}."
            raise InvalidArgumentError("runtime_env", name, f"Ray does not have this field. {hint}")
        check = self._by_field.get(name)
        return value if check is None or self._later(value) else check(name, value)

    def variables(self, inner: Any, outer: Any) -> dict[str, str]:
        """Merge the environment variables of both sources; an invalid value may be a secret and is not shown."""
        merged: dict[str, str] = {}
        for variables in (inner, outer):
            if variables is None or self._later(variables):
                continue
            if not isinstance(variables, dict):
                raise InvalidArgumentError("env_vars", type(variables).__name__, "Use a dict of strings.")
            for key, value in variables.items():
                if not isinstance(key, str) or not (isinstance(value, str) or self._later(value)):
                    raise InvalidArgumentError(
                        f"env_vars[{key!r}]", type(value).__name__, "Use strings as names and values."
                    )
                if not key or "=" in key or not is_carried(key):
                    raise InvalidArgumentError(
                        f"env_vars[{key!r}]", key, "Use a name that is not empty and contains neither '=' nor NUL."
                    )
                if isinstance(value, str) and not is_carried(value):
                    raise InvalidArgumentError(
                        f"env_vars[{key!r}]", type(value).__name__, "Use a value without NUL and lone surrogates."
                    )
            merged.update(variables)
        return merged

    def _working_dir(self, name: str, value: Any) -> str:
        return self._package(name, value, (".zip",))

    def _py_modules(self, name: str, value: Any) -> list[str]:
        return [
            item if self._later(item) else self._package(f"{name}[{place}]", item, (".zip", ".whl"))
            for place, item in enumerate(self._list(name, value, "Use a list of local modules and URIs."))
        ]

    def _package(self, field: str, value: Any, endings: tuple[str, ...]) -> str:
        place = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(place, str) or not place.strip():
            raise InvalidArgumentError(field, value, f"Use a local path, or the URI of a {' or '.join(endings)} file.")
        if is_local(place):
            return place
        uri = urlparse(place)
        if uri.scheme == "gcs":
            name = uri.netloc
        elif uri.scheme in REMOTE_SCHEMES:
            name = uri.path
        else:
            schemes = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
            raise InvalidArgumentError(
                field, value, f"Use a local path, or a URI that begins with one of {schemes}, gcs://."
            )
        if not name.endswith(endings):
            raise InvalidArgumentError(field, value, f"Use a URI that ends with {' or '.join(endings)}.")
        return place

    def _excludes(self, name: str, value: Any) -> list[str]:
        return self._texts(name, value, "Use a list of patterns as in a .gitignore file.")

    def _pip(self, name: str, value: Any) -> Any:
        return self._installer(name, value, _PIP_FIELDS)

    def _uv(self, name: str, value: Any) -> Any:
        return self._installer(name, value, _UV_FIELDS)

    def _installer(self, name: str, value: Any, fields: tuple[str, ...]) -> Any:
        field = f"runtime_env[{name!r}]"
        if not isinstance(value, dict):
            return self._packages(field, value)
        self._check_keys(field, value, fields)
        if "packages" not in value:
            raise InvalidArgumentError(f"{field}['packages']", None, "Set the packages to install.")
        found = {**value, "packages": self._packages(f"{field}['packages']", value["packages"])}
        for key, inner in value.items():
            place = f"{field}[{key!r}]"
            if key.endswith("_check"):
                check_flag(place, inner)
            if key.endswith("_version") and not isinstance(inner, str):
                raise InvalidArgumentError(place, inner, "Use a string such as '==24.0'.")
            if key.endswith("_options"):
                found[key] = self._texts(place, inner)
        return found if found["packages"] else None

    def _packages(self, field: str, value: Any) -> Any:
        if self._later(value):
            return value
        if isinstance(value, str):
            return self._read(field, value).strip().split("\n") if self._rendered else value
        return self._texts(field, value, "Use a list of packages, or the path of a requirements file.")

    def _conda(self, name: str, value: Any) -> Any:
        field = f"runtime_env[{name!r}]"
        if not isinstance(value, (str, dict)):
            raise InvalidArgumentError(
                field, value, "Use the name of a conda environment, a dict, or the path of a YAML file."
            )
        if isinstance(value, str) and self._rendered and Path(value).suffix in CONDA_FILES:
            # Parsed when the job's code is uploaded, because the standard library has no YAML parser.
            self._read(field, value)
        return value

    def _read(self, field: str, path: str) -> str:
        try:
            return Path(path).expanduser().read_text("utf-8")
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(field, path, f"The file cannot be read: {error}.") from error

    def _config(self, name: str, value: Any) -> Any:
        field = f"runtime_env[{name!r}]"
        self._check_keys(field, self._dict(name, value), _CONFIG_FIELDS)
        for key, inner in value.items():
            place = f"{field}[{key!r}]"
            if self._later(inner):
                continue
            if key == "log_files" and inner is not None:
                self._texts(place, inner)
            if key == "eager_install":
                check_flag(place, inner)
            if (
                key == "setup_timeout_seconds"
                and self._rendered
                and isinstance(inner, str)
                and inner.isdecimal()
                and int(inner)
            ):
                # A template renders a number to its digits.
                value = {**value, key: int(inner)}
            elif key == "setup_timeout_seconds" and not (is_whole(inner) and (inner > 0 or inner == -1)):
                raise InvalidArgumentError(place, inner, "Use a positive whole number of seconds, or -1 for no limit.")
        return value

    def _dict(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InvalidArgumentError(f"runtime_env[{name!r}]", value, "Use a dict.")
        return value

    def _check_keys(self, field: str, value: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in value:
            if key not in known:
                raise InvalidArgumentError(field, key, f"The fields are {', '.join(known)}.")

    def _text(self, name: str, value: Any) -> str:
        check_text(f"runtime_env[{name!r}]", value, required=True)
        return str(value)

    def _list(self, field: str, value: Any, rule: str) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise InvalidArgumentError(field, value, rule)
        return list(value)

    def _texts(self, field: str, value: Any, rule: str = "Use a list of strings.") -> list[str]:
        found = self._list(field, value, rule)
        for place, item in enumerate(found):
            if not isinstance(item, str) and not self._later(item):
                raise InvalidArgumentError(f"{field}[{place}]", item, rule)
        return found
