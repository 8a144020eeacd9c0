"""The program that runs a function of ``@task.vertex_ray`` on the cluster.

It is sent as text, as one module with a call of ``main`` and the payload at its end. So it needs only the standard
library and Ray, and supports Python 3.10 and later. Airflow also uses ``plain``, so that the same rules apply to
arguments and results.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import datetime
import importlib
import json
import linecache
import math
import os
import re
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["NotPlainError", "ResultError", "hand_back", "job_name", "main", "plain"]

DEEPEST = 100
"""Maximum nesting depth of lists and dicts."""

LONGEST_WHOLE_NUMBER = 10_000
"""Maximum number of bits of an integer. Python itself rejects numbers with more than 4300 digits."""

ANNOTATIONS = 0x1000000
"""``CO_FUTURE_ANNOTATIONS`` of ``__future__``, which is the same in all versions."""

DEFAULTS = "_vertex_ray_defaults"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'^( *)File "(.+)", line (\d+), in ')


# --- values ---------------------------------------------------------------------------------------------------------


class NotPlainError(ValueError):
    """A value that cannot be represented as JSON.

    :param path: path of the value, such as ``rows[3]['when']``.
    :param value: the value.
    :param rule: what to use instead, as a sentence.
    """

    def __init__(self, path: str, value: object, rule: str) -> None:
        super().__init__(path, rule)
        self.path = path
        self.kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.path} ({self.kind}) cannot be represented as JSON. {self.rule}"


def plain(value: Any, path: str, later: Callable[[Any], bool] | None = None) -> Any:
    """Convert a value to what JSON can represent.

    None, booleans, numbers, strings, lists and dicts with string keys stay as they are. Tuples and other sequences
    become lists, NumPy scalars become Python numbers, and dates and times become ISO 8601 strings. Everything else is
    rejected.

    :param value: any value.
    :param path: name of the value in errors.
    :param later: recognises values that are not known yet; they become None.
    :raises NotPlainError: something in the value cannot be represented as JSON.
    """
    return _plain(value, path, later, ())


def _plain(value: Any, path: str, later: Callable[[Any], bool] | None, inside: tuple[int, ...]) -> Any:
    if later is not None and later(value):
        return None
    if value is None or isinstance(value, (bool, str, int, float)):
        return _scalar(value, path)
    if isinstance(value, (datetime.date, datetime.time)):
        return _moment(value, path)
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, (bytes, bytearray, memoryview)):
        if id(value) in inside:
            raise NotPlainError(path, value, "Remove the reference to itself.")
        if len(inside) >= DEEPEST:
            raise NotPlainError(path, value, f"Use at most {DEEPEST} levels of nesting.")
        inside = (*inside, id(value))
        if isinstance(value, Mapping):
            return {
                _key(key, path): _plain(item, f"{path}[{key!r}]", later, inside) for key, item in list(value.items())
            }
        return [_plain(item, f"{path}[{place}]", later, inside) for place, item in enumerate(value)]
    if getattr(value, "shape", None) == () and hasattr(getattr(value, "dtype", None), "kind"):
        return _numpy_scalar(value, path)
    raise NotPlainError(path, value, _advice(value))


def _scalar(value: Any, path: str) -> Any:
    # Subclasses (such as enumerations, or NumPy's float64) become their value.
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return value.encode().decode()
        except UnicodeEncodeError:
            raise NotPlainError(path, value, "Use a string without lone surrogates.") from None
    if isinstance(value, int):
        if value.bit_length() > LONGEST_WHOLE_NUMBER:
            raise NotPlainError(path, value, f"Use an integer of at most {LONGEST_WHOLE_NUMBER} bits, or a string.")
        return int(value)
    if not math.isfinite(value):
        raise NotPlainError(path, value, "Use None: JSON has neither NaN nor infinity.")
    return float(value)


def _moment(value: Any, path: str) -> str:
    text = str(value.isoformat())
    if text == "NaT":
        raise NotPlainError(path, value, "Use None instead of NaT.")
    return text


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise NotPlainError(f"{path}: the key {key!r}", key, "Use str(key): keys must be strings.")
    return str(_scalar(key, path))


def _numpy_scalar(value: Any, path: str) -> Any:
    kind = value.dtype.kind
    if kind == "b":
        return bool(value)
    if kind in "iu":
        return int(value)
    if kind == "f":
        return _scalar(float(value), path)
    if kind == "M" and str(value) != "NaT":
        return str(value)
    raise NotPlainError(path, value, "Use a number, boolean or time: other NumPy scalars are not supported.")


def _advice(value: Any) -> str:
    module = type(value).__module__.partition(".")[0]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "Use a string, or the path of a file or object that contains the bytes."
    if isinstance(value, (set, frozenset)):
        return "Use sorted(...) of it."
    if isinstance(value, datetime.timedelta):
        return "Use its total_seconds()."
    if type(value).__name__ == "ObjectRef" and module == "ray":
        return "Use ray.get(...) of it."
    if hasattr(value, "to_dict"):
        return "Use to_dict(...) of it, or the path of a file or object that contains it."
    if hasattr(value, "tolist"):
        return "Use its tolist(), or the path of a file or object that contains it."
    if type(value).__name__ in ("Decimal", "UUID", "Fraction") or isinstance(value, os.PathLike):
        return "Use str(...) of it."
    return (
        "Use None, booleans, numbers, strings, dates, lists and dicts, "
        "or the path of a file or object that contains the value."
    )


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
        DEFAULTS: payload["defaults"],
        **payload["constants"],
    }
    for name, source_module, attribute in payload["imports"]:
        value: Any = importlib.import_module(source_module)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
        namespace[name] = value
    exec(code, namespace)  # noqa: S102 (the task's own function)
    function: Callable[..., Any] = namespace[definition.name]
    return function


def show_in_tracebacks(payload: dict[str, Any]) -> None:
    """Add the function's lines to this process's tracebacks, although its file does not exist here."""
    filename, source = payload["filename"], payload["source"]
    lines = ["\n"] * (payload["first_line"] - 1) + source.splitlines(keepends=True)
    # Without a modification time, the entry is never compared with a file.
    linecache.cache[filename] = (len(source), None, lines, filename)


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


class ResultError(Exception):
    """The function's result cannot be returned to Airflow."""


def answer(payload: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return the content for Airflow: the function's result, or the path of the object that contains it.

    :raises ResultError: the result cannot be represented as JSON, or it is too large.
    """
    try:
        result = plain(value, "the result")
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


# --- errors ---------------------------------------------------------------------------------------------------------


def explain(error: BaseException, limit: int) -> dict[str, str]:
    """Describe an exception for Airflow: type, message, and the traceback without frames of this module and of Ray.

    :param error: the exception.
    :param limit: maximum number of bytes as JSON; longer texts are shortened in their middle.
    """
    # Ray wraps what a remote function raised; the original type and message are more useful.
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, BaseException) else error
    found = traceback.TracebackException(type(error), error, error.__traceback__)
    if isinstance(error, ResultError):
        text = f"{type(error).__name__}: {error}\n"
    else:
        _clean(found, set())
        text = _with_source(_COLOURS.sub("", "".join(found.format())))
    return {
        "type": type(told).__name__,
        "message": _shortened(_COLOURS.sub("", str(told)), limit // 4),
        "traceback": _shortened(text, limit // 2),
    }


def _clean(found: traceback.TracebackException, seen: set[int]) -> None:
    if id(found) in seen:
        return
    seen.add(id(found))
    ray = sys.modules.get("ray")
    folder = os.path.dirname(getattr(ray, "__file__", None) or "") + os.sep  # noqa: PTH120 (a text to compare with)
    found.stack = traceback.StackSummary.from_list(
        [
            frame
            for frame in found.stack
            if frame.filename != __file__ and (ray is None or not frame.filename.startswith(folder))
        ]
    )
    for other in (found.__cause__, found.__context__, *(getattr(found, "exceptions", None) or ())):
        if other is not None:
            _clean(other, seen)


def _with_source(text: str) -> str:
    """Add the DAG's own lines to the frames of a worker, which does not have the file."""
    lines = text.splitlines()
    shown = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        shown.append(line)
        frame = _FRAME.match(line)
        if frame and not following.startswith(frame[1] + "  "):
            source = linecache.getline(frame[2], int(frame[3])).strip() if frame[2] in linecache.cache else ""
            if source:
                shown.append(f"{frame[1]}  {source}")
    return "\n".join(shown) + "\n"


def _shortened(text: str, limit: int) -> str:
    """Shorten a text in its middle if it has more than ``limit`` bytes as JSON."""
    short, keep = text, min(len(text), limit) // 2
    while len(json.dumps(short)) > limit and keep:
        keep = keep * 4 // 5
        left_out = f"\n... {len(text) - 2 * keep:,} characters omitted ...\n"
        short = text[:keep] + left_out + text[len(text) - keep :]
    return short


# --- the job --------------------------------------------------------------------------------------------------------


def main(payload: dict[str, Any]) -> NoReturn:
    """Call the function, return its result or its error to Airflow, and exit."""

    def call() -> dict[str, Any]:
        show_in_tracebacks(payload)
        return answer(payload, load(payload)(*payload["args"], **payload["kwargs"]))

    hand_back(payload, call)


def hand_back(payload: dict[str, Any], work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Do the work, print its result or its error as the last line of the output, and exit.

    The exit code is 0 after a result, otherwise 1.

    :param payload: ``marker``, the start of the last line, and ``max_bytes``.
    :param work: returns the content of the last line.
    """
    # Line by line, so that the function's output is visible while it runs.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    import ray

    code = 1
    content: dict[str, Any]
    try:
        ray.init()
        content = work()
        code = 0
    except BaseException as error:  # noqa: BLE001 (including sys.exit() in the function, which must not count as a result)
        content = {"error": explain(error, payload["max_bytes"])}
        sys.stderr.write(content["error"]["traceback"])
    # Before the line, because Ray's thread for the workers' output could write into it.
    ray.shutdown()
    # On a separate line, whatever was printed before.
    sys.stdout.write(f"\n{payload['marker']}{json.dumps(content)}\n")
    sys.stdout.flush()
    sys.exit(code)
