"""Task decorator ``@task.vertex_ray``, which runs a function on a Ray cluster as a job."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    DecoratedOperator,
    task_decorator_factory,
)

try:
    from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
except ImportError:
    from airflow.utils.context import KNOWN_CONTEXT_KEYS  # type: ignore[attr-defined,no-redef]

from airflow_provider_vertex_ray.core.checks import known_at_run_time
from airflow_provider_vertex_ray.core.function.module import task_module
from airflow_provider_vertex_ray.core.function.results import (
    FAIL_AT_ONCE,
    Skipped,
    Stored,
    decoded,
    function_error,
    function_outcome,
)
from airflow_provider_vertex_ray.core.function.source import FunctionSource, check_own_name, function_source
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import InvalidArgumentError, JobFailedError, VertexRayTaskError
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.job_entrypoint_module import runs_module
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL
from airflow_provider_vertex_ray.remote.values import NotPlainError, encode
from airflow_provider_vertex_ray.triggers.task_end import FUNCTION

if TYPE_CHECKING:
    from typing import ParamSpec, TypeVar

    from airflow.providers.common.compat.sdk import Context, TaskDecorator, XComArg
    from airflow.sdk.bases.decorator import Task
    from typing_extensions import Unpack

    from airflow_provider_vertex_ray.decorators.arguments import OperatorArguments

    P = ParamSpec("P")
    R = TypeVar("R")

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
"""Keys of Airflow's context whose values can be sent, and so can be arguments of the function."""

_MARK = "_is_vertex_ray_task"


class _VertexRayDecoratedOperator(DecoratedOperator, VertexRaySubmitJobOperator):
    """Run a function on a cluster and return its result.

    The other arguments are those of ``VertexRaySubmitJobOperator``, except ``entrypoint``.

    :param python_callable: function to run.
    :param op_args: positional arguments of the function. (templated)
    :param op_kwargs: keyword arguments of the function. (templated)
    :param result_path: URI of an object-store folder for results that are too large for the job's output. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises VertexRayTaskError: the function failed; carries the remote traceback.
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
    deferred_result: ClassVar[str] = FUNCTION

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
                "entrypoint", kwargs["entrypoint"], "Remove it: @task.vertex_ray runs the function."
            )
        source = _source(python_callable)
        if result_path is not None and not known_at_run_time(result_path):
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
        self._returned = False

    def execute(self, context: Context) -> Any:
        """Send the function and its arguments, run it, and return its result."""
        self._returned = False
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return the result of the function, or raise its error."""
        try:
            job = super().execute_complete(context, event)
        except JobFailedError as error:
            found = function_error(error)
            if found.details.get("airflow") == FAIL_AT_ONCE:
                raise AirflowFailException(str(found)) from None
            raise found from None
        if self._returned:
            # The adopted job was stopped and the next attempt ran at once: its result has already passed through here.
            return job
        self._returned = True
        return self._result_of(job)

    def _run(self, context: Context, cluster: str | None = None) -> Any:
        """Write the module that runs the function, then adopt or submit the job and wait for it."""
        name, text = task_module(self._payload(context))
        # Local files are uploaded before the call below ends, even if it defers.
        with tempfile.TemporaryDirectory(prefix="vertex-ray-task-") as folder:
            # A file rather than a folder, because excludes apply to folders only.
            file = Path(folder) / f"{name}.py"
            file.write_text(text, "utf-8")
            with runs_module(self, file):
                return super()._run(context, cluster)

    def _payload(self, context: Context) -> dict[str, Any]:
        if self.result_path:
            _check_result_path(self.result_path)
        args, kwargs = _plain_arguments(self.python_callable, self.op_args, self.op_kwargs)
        for key in _context_parameters(self.python_callable, self.op_args, self.op_kwargs):
            kwargs[key] = _plain(context.get(key), key)
        if _takes_everything(self.python_callable):
            others = PLAIN_CONTEXT - set(inspect.signature(self.python_callable).parameters) - set(kwargs)
            kwargs |= {key: _plain(context.get(key), key) for key in sorted(others) if key in context}
        return {
            **_source(self.python_callable).payload(self.python_callable),
            "args": args,
            "kwargs": kwargs,
            "result_path": self.result_path or None,
            "max_bytes": MAX_RESULT_BYTES,
            "marker": RESULT_MARKER,
        }

    def _result_of(self, job: dict[str, Any]) -> Any:
        outcome = function_outcome(job)
        if isinstance(outcome, Skipped):
            raise AirflowSkipException(outcome.reason)
        if isinstance(outcome, Stored):
            return self._stored(outcome.path)
        return outcome.value

    def _stored(self, path: str) -> Any:
        folder = str(self.result_path or "").rstrip("/") + "/"
        # The DAG decides where this worker reads, not the code on the cluster.
        if not path.startswith(folder) or ".." in path[len(folder) :] or "/" in path[len(folder) :]:
            raise VertexRayTaskError(
                f"The function's result is at {path}, which is not directly below result_path ({folder}). A template "
                "in result_path must render to the same value each time.",
                {"path": path},
            )
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        self.log.info("Reading the function's result from %s", path)
        try:
            return decoded(json.loads(ObjectStoragePath(path).read_bytes()))
        except (ValueError, RecursionError) as error:
            raise VertexRayTaskError(f"The object {path} is not the function's result: {error}", {}) from None


@lru_cache(maxsize=256)
def _source(function: Callable[..., Any]) -> FunctionSource:
    # Many tasks are often made from one function.
    return function_source(function, _is_ours)


def _is_ours(value: Any) -> bool:
    """Tell whether a value is this decorator, under any name."""
    return value is vertex_ray_task or bool(getattr(value, _MARK, False))


def _is_reference(value: Any) -> bool:
    """Tell whether Airflow resolves a value only at run time: an XComArg, a mapped argument, a DAG parameter."""
    return hasattr(value, "iter_references")


def _check_result_path(path: Any) -> None:
    rule = "Use the URI of a folder, such as gs://bucket/results."
    if not isinstance(path, str):
        raise InvalidArgumentError("result_path", path, rule)
    scheme, found, rest = path.partition("://")
    if not found or not scheme.isidentifier() or not rest.strip("/"):
        raise InvalidArgumentError("result_path", path, rule)


def _takes_everything(function: Callable[..., Any]) -> bool:
    """Tell whether a function has a parameter such as ``**context``."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values())


def _plain(value: Any, name: str, is_open: Callable[[Any], bool] | None = None) -> Any:
    try:
        return encode(value, name, is_open)
    except NotPlainError as error:
        raise InvalidArgumentError(f"argument {error.path}", error.kind, error.rule) from None


def _plain_arguments(
    function: Callable[..., Any],
    args: Collection[Any],
    kwargs: Mapping[str, Any],
    is_open: Callable[[Any], bool] | None = None,
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments as they are sent.

    :param is_open: tells whether a value is resolved only at run time, and is to be kept.
    :raises InvalidArgumentError: a value cannot be sent; names the argument and the place inside it.
    """
    positional: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [f"{parameter.name}[{place}]" for place in range(len(args) - len(positional))]
        elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.kind is not parameter.VAR_KEYWORD:
            positional.append(parameter.name)
    # Airflow checks the number of arguments itself.
    positional += [f"[{place}]" for place in range(len(positional), len(args))]
    # One reference may also stand for all of them (expand_kwargs).
    named = kwargs.items() if isinstance(kwargs, Mapping) else ()
    return (
        [_plain(value, name, is_open) for name, value in zip(positional, args, strict=False)],
        {name: _plain(value, name, is_open) for name, value in named},
    )


def _context_parameters(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]
) -> Sequence[str]:
    """Return the parameters that have the name of a key in Airflow's context and no value from the caller."""
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
                "This key of Airflow's context cannot be sent to the cluster. Pass the part that you need as an "
                f"argument, for example as a template. Keys that can be sent: {', '.join(sorted(PLAIN_CONTEXT))}.",
            )


@overload
def vertex_ray_task(python_callable: Callable[P, R], multiple_outputs: bool | None = None) -> Task[P, R]: ...
@overload
def vertex_ray_task(
    python_callable: None = None,
    multiple_outputs: bool | None = None,
    *,
    cluster_id: str | XComArg | None = None,
    result_path: str | XComArg | None = None,
    runtime_env: dict[str, Any] | XComArg | None = None,
    working_dir: str | XComArg | None = None,
    py_modules: Sequence[str] | XComArg | None = None,
    excludes: Sequence[str] | XComArg | None = None,
    env_vars: Mapping[str, Any] | XComArg | None = None,
    metadata: Mapping[str, Any] | XComArg | None = None,
    submission_id: str | XComArg | None = None,
    lease_uri: str | XComArg | None = None,
    lease_ttl: float = LEASE_TTL,
    lease_owner: str | XComArg | None = None,
    max_cost: float | None = None,
    price_table: Any = None,
    entrypoint_num_cpus: float | XComArg | None = None,
    entrypoint_num_gpus: float | XComArg | None = None,
    entrypoint_memory: int | XComArg | None = None,
    entrypoint_resources: Mapping[str, Any] | XComArg | None = None,
    wait_for_completion: bool = True,
    stream_logs: bool = True,
    stop_on_kill: bool = True,
    skip_on_exit_code: int | Collection[int] | None = None,
    pending_timeout: float | None = None,
    job_timeout: float | None = None,
    lost_timeout: float = 600.0,
    poll_interval: float = 15.0,
    deferrable: bool | None = None,
    end_from_trigger: bool | None = None,
    cluster_address: str | None = None,
    get_job_logs: bool | None = None,
    wait_for_job_done: bool | None = None,
    submit_job_timeout: float | None = None,
    project_id: str | XComArg | None = None,
    location: str | XComArg | None = None,
    gcp_conn_id: str | XComArg = "google_cloud_default",
    impersonation_chain: str | Sequence[str] | XComArg | None = None,
    **kwargs: Unpack[OperatorArguments],
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def vertex_ray_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> Any:
    """Run a function on a Ray cluster as a task; used as ``@task.vertex_ray``, or by its own name.

    Editors and type checkers know the arguments of this function; of ``task.vertex_ray`` they know only that Airflow
    may find a decorator with that name.

    :param python_callable: function to run, when the decorator is used without arguments.
    :param multiple_outputs: whether each key of the dict that the function returns becomes an XCom of its own.
    :param kwargs: arguments of ``VertexRaySubmitJobOperator`` except ``entrypoint``, and ``result_path``: the URI of a
        folder for results that are too large for the job's output.
    """

    def decorate(function: Callable[..., Any]) -> TaskDecorator:
        check_own_name(function)
        # Called for each function: Airflow's own factory would give all functions the task ID of the first one.
        return task_decorator_factory(
            python_callable=function,
            multiple_outputs=multiple_outputs,
            decorated_operator_class=_VertexRayDecoratedOperator,
            **kwargs,
        )

    if python_callable is not None:
        return decorate(python_callable)
    # Marks the decorator, so that function_source recognises it under another name.
    setattr(decorate, _MARK, True)
    return decorate
