"""What a user says of a job, judged before anything is sent."""

from __future__ import annotations

import json
import shlex
from typing import Any

from airflow_provider_vertex_ray.spec_error import SpecError, has_template


def command_line(entrypoint: Any) -> str:
    """The shell command; a list of arguments is quoted.

    :raises SpecError: It is empty, or no string and no list of strings.
    """
    rule = "give a shell command, or a list of arguments"
    if isinstance(entrypoint, str):
        if not entrypoint.strip():
            raise SpecError("entrypoint", entrypoint, rule)
        return entrypoint
    if not isinstance(entrypoint, (list, tuple)) or not entrypoint:
        raise SpecError("entrypoint", entrypoint, rule)
    if not all(isinstance(part, str) for part in entrypoint) or not entrypoint[0].strip():
        raise SpecError("entrypoint", entrypoint, rule)
    return shlex.join(entrypoint)


def runtime_environment(
    runtime_env: dict[str, Any] | None, working_dir: str | None, env_vars: dict[str, str] | None
) -> dict[str, Any]:
    """The runtime environment that is sent: ``runtime_env`` with the two parameters that have names of their own.

    :param env_vars: Win over the variables in ``runtime_env``.
    :raises SpecError: A part of it is wrong.
    """
    if runtime_env is not None and not isinstance(runtime_env, dict):
        raise SpecError("runtime_env", runtime_env, "give a dict")
    environment = dict(runtime_env or {})
    if working_dir:
        if environment.get("working_dir"):
            raise SpecError("working_dir", working_dir, "runtime_env has a working_dir too; give one of them")
        environment["working_dir"] = working_dir
    variables = {**(environment.get("env_vars") or {}), **(env_vars or {})}
    for key, value in variables.items():
        if not isinstance(key, str) or not isinstance(value, str):
            # The value may be a secret: its type says enough.
            raise SpecError(f"env_vars[{key!r}]", type(value).__name__, "names and values are strings")
    if variables:
        environment["env_vars"] = variables
    try:
        json.dumps(environment)
    except TypeError as error:
        raise SpecError("runtime_env", sorted(environment), f"it must be JSON-able: {error}") from error
    return environment


def check_submission_id(submission_id: Any) -> None:
    """Refuse an empty submission id; a template or an XComArg passes.

    :raises SpecError: It is empty.
    """
    if submission_id is None or (isinstance(submission_id, str) and not submission_id.strip()):
        raise SpecError("submission_id", submission_id, "give the id of a job")
    if isinstance(submission_id, str) and not has_template(submission_id) and "/" in submission_id:
        raise SpecError("submission_id", submission_id, "it has no slash in it")
