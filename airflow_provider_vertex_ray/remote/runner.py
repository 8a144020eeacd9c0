"""The program in which a function of ``@task.vertex_ray`` reaches the cluster.

It travels as text, with a call of ``main`` and the payload at its end, as one module. So it lives on the standard
library and Ray alone, and on Python 3.10 and later. Airflow's side uses ``plain`` too: one rule for both directions.
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

__all__ = ["NotPlainError", "ResultError", "hand_back", "main", "plain"]

DEEPEST = 100
"""Levels of lists and dicts in one another."""

LONGEST_WHOLE_NUMBER = 10_000
"""Bits. Python itself refuses to read numbers of more than 4300 digits."""

ANNOTATIONS = 0x1000000
"""``CO_FUTURE_ANNOTATIONS`` of ``__future__``, the same in all versions."""

DEFAULTS = "_vertex_ray_defaults"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'^( *)File "(.+)", line (\d+), in ')


# --- values ---------------------------------------------------------------------------------------------------------


class NotPlainError(ValueError):
    """A value that is not JSON.

    :param path: Where it is, such as ``rows[3]['when']``.
    :param value: What it is.
    :param rule: What to give instead.
    """

    def __init__(self, path: str, value: object, rule: str) -> None:
        super().__init__(path, rule)
        self.path = path
        self.kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.path} ({self.kind}) is no JSON: {self.rule}"


def plain(value: Any, path: str, later: Callable[[Any], bool] | None = None) -> Any:
    """The value as JSON has it, or an error that names the place.

    None, booleans, numbers, texts, lists and dicts with text keys stay as they are. Tuples and other sequences become
    lists, numpy's scalars Python's numbers; dates and times become ISO 8601 texts. All else is refused.

    :param value: Any value.
    :param path: What to call it in an error.
    :param later: Tells values that are not known yet; they become None.
    :raises NotPlainError: Something in it is no JSON.
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
            raise NotPlainError(path, value, "it holds itself")
        if len(inside) >= DEEPEST:
            raise NotPlainError(path, value, f"it lies more than {DEEPEST} levels deep")
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
    # Subclasses (an enumeration, numpy's float64) become what they hold.
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return value.encode().decode()
        except UnicodeEncodeError:
            raise NotPlainError(path, value, "the text holds half of a surrogate pair") from None
    if isinstance(value, int):
        if value.bit_length() > LONGEST_WHOLE_NUMBER:
            raise NotPlainError(path, value, f"whole numbers have up to {LONGEST_WHOLE_NUMBER} bits; give a text")
        return int(value)
    if not math.isfinite(value):
        raise NotPlainError(path, value, "JSON has neither NaN nor infinity; give None")
    return float(value)


def _moment(value: Any, path: str) -> str:
    text = str(value.isoformat())
    if text == "NaT":
        raise NotPlainError(path, value, "it is no time; give None")
    return text


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise NotPlainError(f"{path}: the key {key!r}", key, "keys are texts; give str(key)")
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
    raise NotPlainError(path, value, "of numpy's scalars only numbers, booleans and times are taken")


def _advice(value: Any) -> str:
    module = type(value).__module__.partition(".")[0]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "give a text, or the path of a file or object that holds the bytes"
    if isinstance(value, (set, frozenset)):
        return "give sorted(...) of it"
    if isinstance(value, datetime.timedelta):
        return "give its total_seconds()"
    if type(value).__name__ == "ObjectRef" and module == "ray":
        return "give ray.get(...) of it"
    if hasattr(value, "to_dict"):
        return "give to_dict(...) of it, or the path of a file or object that holds it"
    if hasattr(value, "tolist"):
        return "give its tolist(), or the path of a file or object that holds it"
    if type(value).__name__ in ("Decimal", "UUID", "Fraction") or isinstance(value, os.PathLike):
        return "give str(...) of it"
    return (
        "None, booleans, numbers, texts, dates, lists and dicts travel as JSON; make one of these, "
        "or give the path of a file or object that holds it"
    )


# --- the function ---------------------------------------------------------------------------------------------------


def parse(source: str, filename: str, first_line: int) -> ast.FunctionDef | ast.ClassDef:
    """The definition of the function or class, with the line numbers and columns that it has in its file.

    :param source: Its lines as they are in the file, decorators included; they may be indented.
    :param filename: Its file, for errors.
    :param first_line: The number of its first line there.
    :raises SyntaxError: This Python can not read it, or it is neither ``def`` nor ``class``.
    """
    indented = source[:1] in (" ", "\t")
    # Not dedented: that would change texts over several lines, and the columns that a traceback marks.
    tree = ast.parse("if 1:\n" + source if indented else source, filename)
    ast.increment_lineno(tree, first_line - (2 if indented else 1))
    body = tree.body[0].body if indented and isinstance(tree.body[0], ast.If) else tree.body
    if not body or not isinstance(body[0], (ast.FunctionDef, ast.ClassDef)):
        raise SyntaxError("no function definition")
    return body[0]


def load(payload: dict[str, Any]) -> Callable[..., Any]:
    """The function or class, as if it had been defined in its DAG file: same file, same lines."""
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
        # Ray pickles what belongs to __main__ by value, so that workers need no such module.
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
    """Let this process's tracebacks have the function's lines, though its file is not here."""
    filename, source = payload["filename"], payload["source"]
    lines = ["\n"] * (payload["first_line"] - 1) + source.splitlines(keepends=True)
    # Without a time of change it is never compared with a file.
    linecache.cache[filename] = (len(source), None, lines, filename)


def _without_hints_and_defaults(definition: ast.FunctionDef) -> None:
    """Defaults become the values that they had in Airflow; hints may need imports that are not here."""
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
    """The function returned what can not be handed back."""


def answer(payload: dict[str, Any], value: Any) -> dict[str, Any]:
    """What is handed back of the function's value.

    :raises ResultError: It is no JSON, or too large for the way that it has.
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
            f"the result has {len(text):,} bytes as JSON, and up to {limit:,} can be handed back in the job's output. "
            "Give result_path, a folder in an object store, or return the path of an object that the function wrote."
        )
    path = f"{payload['result_path'].rstrip('/')}/{_job_name()}.json"
    store(path, json.dumps(result).encode())
    return {"path": path}


def _job_name() -> str:
    """The job's submission id, which nobody else has on this cluster."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return str(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])
    return uuid.uuid4().hex


def store(path: str, data: bytes) -> None:
    """Write a file or an object.

    :param path: ``scheme://…``; the name of an Airflow connection in it (``gs://connection@bucket/…``) is passed over,
        as the cluster has its own credentials.
    :raises ResultError: Nothing here can write to such a place, or the writing failed.
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
        f"the result could not be written to {uri}: neither fsspec nor pyarrow on the cluster knows {scheme}://. "
        "Install the package that does, by runtime_env['pip'] or in the cluster's image."
    )


def _by_fsspec(uri: str, data: bytes) -> bool:
    try:
        import fsspec  # type: ignore[import-untyped]

        opened = fsspec.open(uri, "wb")
    except (ImportError, ValueError):
        # No fsspec, or none of its packages knows the scheme.
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
    """An exception for Airflow: type, message, and the traceback without the frames of this module and of Ray.

    :param limit: Bytes as JSON; a longer traceback or message loses its middle.
    """
    # Ray wraps what a remote function raised: its own type and message say more.
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
    """The DAG's own lines below the frames of a worker, which does not have the file."""
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
    """The text with its middle left out where it has more bytes as JSON."""
    short, keep = text, min(len(text), limit) // 2
    while len(json.dumps(short)) > limit and keep:
        keep = keep * 4 // 5
        left_out = f"\n... {len(text) - 2 * keep:,} characters are left out here ...\n"
        short = text[:keep] + left_out + text[len(text) - keep :]
    return short


# --- the job --------------------------------------------------------------------------------------------------------


def main(payload: dict[str, Any]) -> NoReturn:
    """Call the function where Ray is, and hand back its result, or its error; then exit."""

    def call() -> dict[str, Any]:
        show_in_tracebacks(payload)
        return answer(payload, load(payload)(*payload["args"], **payload["kwargs"]))

    hand_back(payload, call)


def hand_back(payload: dict[str, Any], work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Do some work where Ray is, and print what it gives, or its error, as the last line; then exit.

    The exit code is 0 after a result, else 1.
    """
    # What the function prints shall be seen while it runs.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    import ray

    code = 1
    content: dict[str, Any]
    try:
        ray.init()
        content = work()
        code = 0
    except BaseException as error:  # noqa: BLE001 (also sys.exit() in the function: it must not pass for a result)
        content = {"error": explain(error, payload["max_bytes"])}
        sys.stderr.write(content["error"]["traceback"])
    # First, as Ray's thread for the workers' output could otherwise break into the line.
    ray.shutdown()
    # On a line of its own, whatever was printed last.
    sys.stdout.write(f"\n{payload['marker']}{json.dumps(content)}\n")
    sys.stdout.flush()
    sys.exit(code)
