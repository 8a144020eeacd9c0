"""Validate the jobs of a task that runs many, and fill in what they have in common, before any request is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_vertex_ray.core.checks import did_you_mean, known_at_run_time, unless_empty
from airflow_provider_vertex_ray.core.job.batch import JobRow, check_count, check_keys
from airflow_provider_vertex_ray.core.job.inputs import (
    check_metadata,
    check_reservation,
    command_line,
    runtime_environment,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

ENTRY_FIELDS = (
    "key",
    "entrypoint",
    "runtime_env",
    "env_vars",
    "metadata",
    "entrypoint_num_cpus",
    "entrypoint_num_gpus",
    "entrypoint_memory",
    "entrypoint_resources",
)
"""What a job may have of its own. All but ``key`` are arguments of the operator too, which are the defaults."""

JOBS_RULE = (
    "Use a list of dicts, one for each job. A template for all of it renders to one only with "
    "render_template_as_native_obj=True; the output of a task is one in any case."
)


class Defaults(NamedTuple):
    """The operator's arguments, which all its jobs have unless they have their own.

    A job's ``env_vars`` and ``metadata`` are added to these; its other values replace them.
    """

    entrypoint: Any = None
    runtime_env: Any = None
    working_dir: Any = None
    py_modules: Any = None
    excludes: Any = None
    env_vars: Any = None
    metadata: Any = None
    entrypoint_num_cpus: Any = None
    entrypoint_num_gpus: Any = None
    entrypoint_memory: Any = None
    entrypoint_resources: Any = None

    def check(self, *, rendered: bool) -> dict[str, Any]:
        """Validate the arguments, and return the runtime environment of a job without one of its own.

        :param rendered: whether all values are known; before that, templates and XComArgs pass
        :raises InvalidArgumentError: an argument is invalid
        """
        if self.entrypoint is not None:
            command_line(self.entrypoint, rendered=rendered)
        check_metadata(unless_empty(self.metadata), rendered=rendered)
        check_reservation(
            self.entrypoint_num_cpus,
            self.entrypoint_num_gpus,
            self.entrypoint_memory,
            self.entrypoint_resources,
            rendered=rendered,
        )
        return self._environment({}, rendered)

    def row(self, entry: Mapping[str, Any], environment: dict[str, Any], *, rendered: bool) -> JobRow:
        """Validate a job, and return it.

        :param entry: the job
        :param environment: what ``check`` returned
        :param rendered: whether all values are known
        :raises InvalidArgumentError: a value is invalid; names the field inside the entry
        """
        for name in entry:
            if name not in ENTRY_FIELDS:
                rule = f"The fields are {', '.join(ENTRY_FIELDS)}.{did_you_mean(name, ENTRY_FIELDS)}"
                # Not its value, which may be the variables of a misspelt env_vars.
                raise InvalidArgumentError(str(name), type(entry[name]).__name__, rule)
        entrypoint = self._own(entry, "entrypoint")
        if entrypoint is None:
            raise InvalidArgumentError(
                "entrypoint", None, "Use a shell command or a list of arguments, or set the entrypoint of all jobs."
            )
        metadata = entry.get("metadata")
        check_metadata(metadata, rendered=rendered)
        reservation = tuple(
            self._own(entry, f"entrypoint_{name}") for name in ("num_cpus", "num_gpus", "memory", "resources")
        )
        check_reservation(*reservation, rendered=rendered)
        own = any(entry.get(name) is not None for name in ("runtime_env", "env_vars"))
        return JobRow(
            entrypoint=command_line(entrypoint, rendered=rendered),
            runtime_env=self._environment(entry, rendered) if own else environment,
            metadata=_added(None, metadata),
            reservation=reservation,
        )

    def _own(self, entry: Mapping[str, Any], name: str) -> Any:
        value = entry.get(name)
        return getattr(self, name) if value is None else value

    def _environment(self, entry: Mapping[str, Any], rendered: bool) -> dict[str, Any]:
        variables = self._own(entry, "env_vars")
        if isinstance(variables, Mapping):
            variables = _added(self.env_vars, variables)
        return runtime_environment(
            self._own(entry, "runtime_env"),
            self.working_dir,
            variables,
            self.py_modules,
            self.excludes,
            rendered=rendered,
        )


def _added(to: Any, own: Any) -> dict[str, Any]:
    """Return two dicts as one; anything else, which is not known yet, counts as empty."""
    return {**(to if isinstance(to, Mapping) else {}), **(own if isinstance(own, Mapping) else {})}


def check_entries(jobs: Any, defaults: Defaults, *, rendered: bool = True) -> tuple[tuple[str, ...], list[JobRow]]:
    """Validate all jobs, and return their keys and what is to be submitted.

    :param jobs: the ``jobs`` argument
    :param defaults: the operator's arguments for all of them
    :param rendered: whether all values are known; before that, templates and XComArgs pass, and the result means
        nothing
    :raises InvalidArgumentError: a value is invalid; names the job by its place, as in ``jobs[17].entrypoint``
    """
    environment = defaults.check(rendered=rendered)
    if not rendered and known_at_run_time(jobs):
        return (), []
    # The output of mapped tasks is a sequence that is no list.
    if isinstance(jobs, (str, bytes)) or not isinstance(jobs, Sequence):
        # Not the value, which may contain secrets.
        raise InvalidArgumentError("jobs", type(jobs).__name__, JOBS_RULE)
    entries = list(jobs)
    check_count(len(entries))
    rows = []
    for place, entry in _known(entries, rendered):
        if not isinstance(entry, Mapping):
            rule = "Use a dict, such as {'entrypoint': 'python score.py --shard 3'}."
            raise InvalidArgumentError(f"jobs[{place}]", type(entry).__name__, rule)
        try:
            rows.append(defaults.row(entry, environment, rendered=rendered))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"jobs[{place}].{error.field}", error.value, error.rule) from None
    keys = [entry.get("key") if isinstance(entry, Mapping) else None for entry in entries]
    if not rendered and any(map(known_at_run_time, keys)):
        return (), rows
    return check_keys(keys), rows


def _known(entries: Sequence[Any], rendered: bool) -> Iterator[tuple[int, Any]]:
    for place, entry in enumerate(entries):
        if rendered or not known_at_run_time(entry):
            yield place, entry
