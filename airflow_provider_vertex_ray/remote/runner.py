"""The program that runs a function of ``@task.vertex_ray`` on the cluster.

It is sent as text, in one module with ``values``, ``tracebacks`` and ``job``, the payload and a call of ``main`` at its
end. So it needs only the standard library and Ray, and supports Python 3.10 and later.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .job import hand_back, install_airflow_exceptions
from .tracebacks import ResultError, show_in_tracebacks
from .values import NotPlainError, decode, encode

__all__ = ["job_name", "load", "main", "parse"]

ANNOTATIONS = 0x1000000
"""``CO_FUTURE_ANNOTATIONS`` of ``__future__``, which is the same in all versions."""

DEFAULTS = "_vertex_ray_defaults"


# --- the function ---------------------------------------------------------------------------------------------------


def parse(source: str, filename: str, first_line: int) -> ast.FunctionDef | ast.ClassDef:
    """Parse the definition of a function or class, with the line numbers and columns that it has in its file.

    :param source: its lines as they are in the file, including decorators; they may be indented.
    :param filename: its file, for errors.
    :param first_line: number of its first line in the file.
    :raises SyntaxError: this Python version cannot parse it, or it is neither ``def`` nor ``class``.
    """
    indented = source[:1] in (" ", "\t")
    # Not dedented: that would change multi-line strings, and the columns that a traceback marks.
    tree = ast.parse("if 1:\n" + source if indented else source, filename)
    ast.increment_lineno(tree, first_line - (2 if indented else 1))
    body = tree.body[0].body if indented and isinstance(tree.body[0], ast.If) else tree.body
    if not body or not isinstance(body[0], (ast.FunctionDef, ast.ClassDef)):
        raise SyntaxError("no function definition")
    return body[0]


def load(payload: dict[str, Any]) -> Callable[..., Any]:
    """Load the function or class as if it were defined in its DAG file, with the same file name and lines."""
    filename = payload["filename"]
    definition = parse(payload["source"], filename, payload["first_line"])
    kept = payload["kept_decorators"]
    definition.decorator_list = definition.decorator_list[-kept:] if kept else []
    if isinstance(definition, ast.FunctionDef):
        _without_hints_and_defaults(definition)
    module = ast.fix_missing_locations(ast.Module([definition], []))
    flags = ANNOTATIONS if payload["future_annotations"] else 0
    code = compile(module, filename, "exec", flags=flags, dont_inherit=True)
    namespace: dict[str, Any] = {
        # Ray pickles members of __main__ by value, so that workers do not need the module.
        "__name__": "__main__",
        "__builtins__": builtins,
        DEFAULTS: {name: decode(value) for name, value in payload["defaults"].items()},
        **{name: decode(value) for name, value in payload["constants"].items()},
    }
    for name, source_module, attribute in payload["imports"]:
        value: Any = importlib.import_module(source_module)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
        namespace[name] = value
    exec(code, namespace)  # noqa: S102 (the task's own function)
    function: Callable[..., Any] = namespace[definition.name]
    return function


def _without_hints_and_defaults(definition: ast.FunctionDef) -> None:
    """Replace defaults by their values in Airflow, and remove hints, which may need imports that are missing here."""
    arguments = definition.args
    positional = [*arguments.posonlyargs, *arguments.args]
    for argument in (*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    definition.returns = None
    first = len(positional) - len(arguments.defaults)
    arguments.defaults = [_default(argument.arg) for argument in positional[first:]]
    arguments.kw_defaults = [
        None if value is None else _default(argument.arg)
        for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]


def _default(name: str) -> ast.expr:
    return ast.Subscript(ast.Name(DEFAULTS, ast.Load()), ast.Constant(name), ast.Load())


# --- results --------------------------------------------------------------------------------------------------------


def answer(payload: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return the content for Airflow: the function's result, or the path of the object that contains it.

    :raises ResultError: the result cannot be represented as JSON, or it is too large.
    """
    try:
        result = encode(value, "the result", result=True)
    except NotPlainError as error:
        raise ResultError(str(error)) from None
    content = {"value": result}
    text, limit = json.dumps(content), payload["max_bytes"]
    if len(text) <= limit:
        return content
    if not payload["result_path"]:
        raise ResultError(
            f"the result has {len(text):,} bytes as JSON, and at most {limit:,} can be returned in the job's output. "
            "Set result_path to a folder in an object store, or return the path of an object that the function writes."
        )
    path = f"{payload['result_path'].rstrip('/')}/{job_name()}.json"
    store(path, json.dumps(result).encode())
    return {"path": path}


def job_name() -> str:
    """Return the job's submission id, which is unique on the cluster."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return str(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])
    return uuid.uuid4().hex


def store(path: str, data: bytes) -> None:
    """Write a file or an object.

    :param path: ``scheme://…``; the name of an Airflow connection in it (``gs://connection@bucket/…``) is ignored,
        because the cluster has its own credentials.
    :param data: the content.
    :raises ResultError: no package on the cluster supports the scheme, or the write failed.
    """
    scheme, _, rest = path.partition("://")
    host, slash, inside = rest.partition("/")
    uri = f"{scheme}://{host.rpartition('@')[2]}{slash}{inside}"
    try:
        if scheme == "file":
            target = Path(slash + inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            return
        for write in (_by_fsspec, _by_pyarrow):
            if write(uri, data):
                return
    except Exception as error:
        raise ResultError(f"the result could not be written to {uri}: {type(error).__name__}: {error}") from error
    raise ResultError(
        f"the result could not be written to {uri}: neither fsspec nor pyarrow on the cluster supports {scheme}://. "
        "Install the package that does, with runtime_env['pip'] or in the cluster's image."
    )


def _by_fsspec(uri: str, data: bytes) -> bool:
    try:
        import fsspec  # type: ignore[import-untyped]

        opened = fsspec.open(uri, "wb")
    except (ImportError, ValueError):
        # fsspec is missing, or none of its packages supports the scheme.
        return False
    with opened as file:
        file.write(data)
    return True


def _by_pyarrow(uri: str, data: bytes) -> bool:
    try:
        from pyarrow.fs import FileSystem

        system, path = FileSystem.from_uri(uri)
    except (ImportError, ValueError, NotImplementedError):
        return False
    with system.open_output_stream(path) as file:
        file.write(data)
    return True


# --- the job --------------------------------------------------------------------------------------------------------


def main(payload: dict[str, Any]) -> NoReturn:
    """Call the function, return its result or its error to Airflow, and exit."""

    def call() -> dict[str, Any]:
        show_in_tracebacks(payload)
        install_airflow_exceptions(payload["source"])
        arguments = [decode(value) for value in payload["args"]]
        named = {name: decode(value) for name, value in payload["kwargs"].items()}
        return answer(payload, load(payload)(*arguments, **named))

    hand_back(payload, call)
