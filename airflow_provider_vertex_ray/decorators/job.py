"""``@task.vertex_ray``: a function that runs on a Ray cluster, as a job."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

try:
    from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
except ImportError:
    from airflow.utils.context import KNOWN_CONTEXT_KEYS  # type: ignore[attr-defined,no-redef]

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.function.module import task_module
from airflow_provider_vertex_ray.core.function.source import FunctionSource, function_source
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import InvalidArgumentError, JobFailedError, VertexRayTaskError
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.job_entrypoint_module import runs_module
from airflow_provider_vertex_ray.remote.runner import NotPlainError, plain

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

__all__ = ["vertex_ray_task"]

PLAIN_CONTEXT = {
    "data_interval_end",
    "data_interval_start",
    "ds",
    "ds_nodash",
    "logical_date",
    "params",
    "run_id",
    "task_instance_key_str",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
}
"""What of Airflow's context is JSON, by our rule, and so can be an argument."""

_MARK = "_is_vertex_ray_task"


class _VertexRayDecoratedOperator(DecoratedOperator, VertexRaySubmitJobOperator):
    """Runs a function on a cluster and returns what it returns.

    :param python_callable: The function.
    :param op_args: Its positional arguments. (templated)
    :param op_kwargs: Its keyword arguments. (templated)
    :param result_path: Folder in an object store for results that are too large for the job's output. (templated)

    All others are ``VertexRaySubmitJobOperator``'s, but for ``entrypoint``. Raises VertexRayTaskError, with the remote
    traceback, when the function fails.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(field for field in VertexRaySubmitJobOperator.template_fields if field != "entrypoint"),
        "result_path",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **{key: kind for key, kind in VertexRaySubmitJobOperator.template_fields_renderers.items() if "env" in key},
    }
    custom_operator_name = "@task.vertex_ray"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        result_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        if "entrypoint" in kwargs:
            raise InvalidArgumentError(
                "entrypoint", kwargs["entrypoint"], "@task.vertex_ray runs the function; leave it out"
            )
        source = _source(python_callable)
        if result_path is not None and not _is_reference(result_path) and not has_template(result_path):
            _check_result_path(result_path)
        _refuse_context(source, python_callable, op_args or (), op_kwargs or {})
        _plain_arguments(python_callable, op_args or (), op_kwargs or {}, _is_reference)
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            entrypoint="python -m vertex_ray_task",
            **kwargs,
        )
        self.result_path = result_path
        self._handed_back = False

    def execute(self, context: Context) -> Any:
        """Send the function and its arguments, run it, and return its result."""
        self._handed_back = False
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return the function's result, or raise its error."""
        try:
            job = super().execute_complete(context, event)
        except JobFailedError as error:
            raise _task_error(error) from None
        if self._handed_back:
            # The job had failed and was run again at once: its result came through here already.
            return job
        self._handed_back = True
        return self._result_of(job)

    def _run(self, context: Context, failures: int, cluster: str | None = None) -> Any:
        """Every job of this task is sent from here, those of ``retry_failed_job`` too."""
        name, text = task_module(self._payload(context))
        # What is local is sent before the call below ends, also when it defers.
        with tempfile.TemporaryDirectory(prefix="vertex-ray-task-") as folder:
            # A file and not a folder, as excludes are for folders only.
            file = Path(folder) / f"{name}.py"
            file.write_text(text, "utf-8")
            with runs_module(self, file):
                return super()._run(context, failures, cluster)

    def _payload(self, context: Context) -> dict[str, Any]:
        if self.result_path:
            _check_result_path(self.result_path)
        args, kwargs = _plain_arguments(self.python_callable, self.op_args, self.op_kwargs)
        for key in _context_parameters(self.python_callable, self.op_args, self.op_kwargs):
            kwargs[key] = _plain(context.get(key), key)
        return {
            **_source(self.python_callable).payload(self.python_callable),
            "args": args,
            "kwargs": kwargs,
            "result_path": self.result_path or None,
            "max_bytes": MAX_RESULT_BYTES,
            "marker": RESULT_MARKER,
        }

    def _result_of(self, job: dict[str, Any]) -> Any:
        found = job.get("result")
        if isinstance(found, dict) and "value" in found:
            return found["value"]
        if isinstance(found, dict) and isinstance(found.get("path"), str):
            return self._stored(found["path"])
        raise VertexRayTaskError(
            f"Ray job {job.get('submission_id')} succeeded without handing back the function's result: it ended "
            "before the function did (os._exit?), or something else printed a result of its own.",
            {"submission_id": job.get("submission_id"), "logs_tail": job.get("logs_tail")},
        )

    def _stored(self, path: str) -> Any:
        folder = str(self.result_path or "").rstrip("/") + "/"
        # Where this worker reads is for the DAG to say, not for what runs on the cluster.
        if not path.startswith(folder) or ".." in path[len(folder) :] or "/" in path[len(folder) :]:
            raise VertexRayTaskError(
                f"The function's result is at {path}, which is not directly below result_path ({folder}). A template "
                "in result_path must give the same each time that it is rendered.",
                {"path": path},
            )
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        self.log.info("Reading the function's result from %s", path)
        return json.loads(ObjectStoragePath(path).read_bytes())


@lru_cache(maxsize=256)
def _source(function: Callable[..., Any]) -> FunctionSource:
    # A function is often made many tasks of.
    return function_source(function, lambda value: value is vertex_ray_task or bool(getattr(value, _MARK, False)))


def _is_reference(value: Any) -> bool:
    """Whether Airflow has still to put a value in its place: an XComArg, a mapped argument, a DAG parameter."""
    return hasattr(value, "iter_references")


def _check_result_path(path: Any) -> None:
    rule = "give the URI of a folder, such as gs://bucket/results"
    if not isinstance(path, str):
        raise InvalidArgumentError("result_path", path, rule)
    scheme, found, rest = path.partition("://")
    if not found or not scheme.isidentifier() or not rest.strip("/"):
        raise InvalidArgumentError("result_path", path, rule)


def _plain(value: Any, name: str, later: Callable[[Any], bool] | None = None) -> Any:
    try:
        return plain(value, name, later)
    except NotPlainError as error:
        raise InvalidArgumentError(f"the argument {error.path}", error.kind, error.rule) from None


def _plain_arguments(
    function: Callable[..., Any],
    args: Collection[Any],
    kwargs: Mapping[str, Any],
    later: Callable[[Any], bool] | None = None,
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as JSON.

    :raises InvalidArgumentError: Names the argument, and the place in it.
    """
    positional: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [f"{parameter.name}[{place}]" for place in range(len(args) - len(positional))]
        elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.kind is not parameter.VAR_KEYWORD:
            positional.append(parameter.name)
    # Airflow judges the number of arguments itself.
    positional += [f"[{place}]" for place in range(len(positional), len(args))]
    # A reference may also stand for all of them (expand_kwargs).
    named = kwargs.items() if isinstance(kwargs, Mapping) else ()
    return (
        [_plain(value, name, later) for name, value in zip(positional, args, strict=False)],
        {name: _plain(value, name, later) for name, value in named},
    )


def _context_parameters(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]
) -> Sequence[str]:
    """Parameters that are named as something in Airflow's context, and that the caller gave no value."""
    names = [
        name
        for place, (name, parameter) in enumerate(inspect.signature(function).parameters.items())
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and place >= len(args)
    ]
    return [name for name in names if name in KNOWN_CONTEXT_KEYS and name not in kwargs]


def _refuse_context(
    source: FunctionSource, function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]
) -> None:
    for name in _context_parameters(function, args, kwargs):
        if name not in PLAIN_CONTEXT:
            raise InvalidArgumentError(
                f"@task.vertex_ray {source.name}",
                name,
                "this part of Airflow's context can not leave Airflow; pass what you need of it as an argument, "
                f"such as a template. These can: {', '.join(sorted(PLAIN_CONTEXT))}",
            )


def _task_error(error: JobFailedError) -> JobFailedError:
    """The function's own error, where the job handed one back; else the job's."""
    found = error.details.get("result")
    told = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, VertexRayTaskError) or not isinstance(told, dict):
        return error
    job = error.details.get("submission_id")
    details = {**error.details, **{key: str(told.get(key, "")) for key in ("type", "message", "traceback")}}
    details.pop("result")
    return VertexRayTaskError(f"The function failed on the cluster (Ray job {job}):\n{details['traceback']}", details)


def vertex_ray_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a task of a function that runs on a Ray cluster; ``@task.vertex_ray``.

    :param python_callable: The function, when the decorator is written without arguments.
    :param multiple_outputs: Whether the keys of the dict that the function returns become XComs of their own.
    :param kwargs: Arguments of ``VertexRaySubmitJobOperator`` but for ``entrypoint``, and ``result_path``: the URI of a
        folder for results that are too large for the job's output.
    """

    def decorate(function: Callable[..., Any]) -> TaskDecorator:
        # Airflow's own would keep the first function's name as the task id of all that it decorates.
        return task_decorator_factory(
            python_callable=function,
            multiple_outputs=multiple_outputs,
            decorated_operator_class=_VertexRayDecoratedOperator,
            **kwargs,
        )

    if python_callable is not None:
        return decorate(python_callable)
    # So that it is known when it stands above a function under another name.
    setattr(decorate, _MARK, True)
    return cast("TaskDecorator", decorate)
