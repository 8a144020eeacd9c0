"""The module that travels, run as a program; a stand-in for Ray keeps it quick."""

from __future__ import annotations

import ast
import datetime
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.function.module import task_module
from airflow_provider_vertex_ray.core.function.source import function_source
from airflow_provider_vertex_ray.remote import runner, tracebacks, values
from airflow_provider_vertex_ray.remote.values import decode, encode

MARKER = "A_RESULT "
RAY = """
class RayTaskError(Exception):
    def __init__(self, text, cause):
        super().__init__(text)
        self.cause = cause

connections = []

def is_initialized():
    return bool(connections)

def init(*args, **kwargs):
    if connections:
        raise RuntimeError("Maybe you called ray.init twice by accident?")
    print("init", flush=True)
    connections.append(object())
    return connections[0]

def shutdown():
    connections.clear()
    print("shutdown", flush=True)

def nodes():
    return list(connections)

def get(text, cause):
    raise RayTaskError(text, cause)
"""


class Done:
    """What a run came to."""

    def __init__(self, process: subprocess.CompletedProcess[str], output: str) -> None:
        self.code, self.output, self.errors = process.returncode, output, process.stderr
        lines = self.output.splitlines()
        self.content: dict[str, Any] = json.loads(lines[-1].removeprefix(MARKER))
        assert lines[-1].startswith(MARKER)
        self.length = len(lines[-1]) - len(MARKER)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Done]:
    """Runs a function as the cluster would."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "ray.py").write_text(RAY)

    def run(
        function: Callable[..., Any], *args: Any, limit: int = 4000, path: str | None = None, **kwargs: Any
    ) -> Done:
        payload = {
            **function_source(function, lambda value: False).payload(function),
            "args": [encode(value, "argument") for value in args],
            "kwargs": {name: encode(value, name) for name, value in kwargs.items()},
            "result_path": path,
            "max_bytes": limit,
            "marker": MARKER,
        }
        name, text = task_module(payload)
        (tmp_path / f"{name}.py").write_text(text)
        # As Ray does: into a file. Without the packages of this environment, which has Airflow.
        output = tmp_path / "output"
        with output.open("ab") as log:
            process = subprocess.run(
                [sys.executable, "-S", "-m", name],
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=log,
                stderr=subprocess.PIPE,
                text=True,
                timeout=240,
                check=False,
            )
        text = output.read_text()
        output.unlink()
        return Done(process, text)

    return run


def answers(x: int, *, y: str = "ü") -> Any:
    import datetime

    print("working", end="")
    return {"x": (x, y), "on": datetime.date(2026, 1, 2)}


def test_a_result(run: Callable[..., Done]) -> None:
    done = run(answers, 3)
    assert (done.code, done.errors) == (0, "")
    assert decode(done.content["value"]) == {"x": (3, "ü"), "on": datetime.date(2026, 1, 2)}
    # Connected before, disconnected before the result, which has a line of its own.
    assert done.output.splitlines()[:-1] == ["init", "workingshutdown", ""]
    assert done.output.isascii()


COLUMNS = {"name": "str", "age": {"unit": "years", "kind": "int"}}


def keys_in_order(given: dict[str, int], how: Any = {"b": 1, "a": 2}) -> Any:  # noqa: B006
    return [list(COLUMNS), list(COLUMNS["age"]), list(given), list(how)]


def test_dicts_keep_their_order(run: Callable[..., Done]) -> None:
    given = {"z": 1, "y": 2}
    assert decode(run(keys_in_order, given).content["value"]) == keys_in_order(given)


def fails(n: int) -> Any:
    def deeper() -> Any:
        raise ValueError(f"no {n}")

    try:
        {}["missing"]  # type: ignore
    except KeyError:
        return deeper()


def line_of(text: str, place: int = 0) -> int:
    lines = Path(__file__).read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if text in line][place]


def test_an_error_has_the_lines_of_the_file(run: Callable[..., Done]) -> None:
    done = run(fails, 3)
    assert done.code == 1
    error = done.content["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no 3")
    text = error["traceback"]
    assert f'File "{__file__}", line {line_of("return deeper()")}, in fails\n    return deeper()\n' in text
    assert f'line {line_of("raise ValueError(f")}, in deeper\n    raise ValueError(f"no {{n}}")\n' in text
    assert f"line {line_of('missing', 0)}, in fails" in text
    assert text.rstrip().endswith("ValueError: no 3")
    assert text.count("File ") == text.count(f'File "{__file__}"') == 3
    assert text in done.errors


def fails_remotely() -> Any:
    import ray

    file = fails_remotely.__code__.co_filename
    text = f'\x1b[36mray::f()\x1b[39m (pid=1)\n  File "{file}", line 1, in f\nZeroDivisionError: x'
    ray.get(text, ZeroDivisionError("x"))  # type: ignore  # first


def test_an_error_of_a_remote_function(run: Callable[..., Done]) -> None:
    error = run(fails_remotely).content["error"]
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "x")
    assert "\x1b" not in error["traceback"]
    # Neither the runner's nor Ray's frames.
    assert error["traceback"].count('  File "') == 2
    assert "# first" in error["traceback"]


def test_source_lines_below_the_frames_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    monkeypatch.setitem(linecache.cache, "/elsewhere/dag.py", (1, None, ["one\n", "    two\n"], "/elsewhere/dag.py"))
    text = '  File "/elsewhere/dag.py", line 2, in f\n  File "/other.py", line 2, in g\nE: x\n'
    expected = '  File "/elsewhere/dag.py", line 2, in f\n    two\n  File "/other.py", line 2, in g\nE: x\n'
    assert tracebacks._with_source(text) == expected
    assert tracebacks._with_source(expected) == expected


def leaves(code: Any) -> Any:
    import sys

    sys.exit(code)


@pytest.mark.parametrize(("code", "expected"), [(0, 1), (3, 3), (256, 1), (-1, 1), (None, 1), ("text", 1)])
def test_exit_is_not_a_result(run: Callable[..., Done], code: Any, expected: int) -> None:
    done = run(leaves, code)
    assert done.code == expected
    assert done.content["error"]["type"] == "SystemExit"


def returns(kind: str, size: int = 0) -> Any:
    if kind == "bytes":
        return {"rows": [1, b"x"]}
    if kind == "generator":
        return (x for x in [1])
    return "x" * size


def test_a_result_that_is_no_json(run: Callable[..., Done]) -> None:
    done = run(returns, "bytes")
    assert done.code == 1
    error = done.content["error"]
    assert error["type"] == "ResultError"
    assert error["message"].startswith(
        "the result['rows'][1] (bytes) cannot be sent between Airflow and the cluster. Airflow cannot store it"
    )
    assert error["traceback"] == f"ResultError: {error['message']}\n"
    assert "the result (generator) cannot be sent" in run(returns, "generator").content["error"]["message"]


def test_the_size_of_a_result(run: Callable[..., Done]) -> None:
    fits = run(returns, "text", 4000 - len('{"value": ""}'))
    assert (fits.code, fits.length) == (0, 4000)
    done = run(returns, "text", 4000 - len('{"value": ""}') + 1)
    assert done.code == 1
    assert "4,001 bytes as JSON, and at most 4,000" in done.content["error"]["message"]
    assert "result_path" in done.content["error"]["message"]


def test_a_large_result_goes_to_the_path(run: Callable[..., Done], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "inner"
    done = run(returns, "text", 5000, path=f"file://{folder}/")
    assert done.code == 0
    (file,) = folder.iterdir()
    assert done.content == {"path": f"file://{folder}/{file.name}"}
    assert json.loads(file.read_text()) == "x" * 5000
    # A small one does not.
    assert run(returns, "text", 5, path=f"file://{folder}").content == {"value": "xxxxx"}
    assert list(folder.iterdir()) == [file]


def test_unwritable_result_path_is_reported(run: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(returns, "text", 5000, path=f"file://{tmp_path}/file")
    assert done.code == 1
    assert "could not be written to file://" in done.content["error"]["message"]
    done = run(returns, "text", 5000, path="nosuch://bucket/folder")
    assert "supports nosuch://" in done.content["error"]["message"]


def test_other_stores_by_fsspec_or_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import fsspec  # type: ignore[import-untyped]

    runner.store("memory://connection@bucket/results/a.json", b"1")
    # The connection is Airflow's.
    assert fsspec.filesystem("memory").cat("/bucket/results/a.json") == b"1"
    # Without fsspec, pyarrow.
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setattr(runner, "_by_pyarrow", functools.partial(_to_file, tmp_path, runner._by_pyarrow))
    runner.store("gs://bucket/a.json", b"2")
    assert (tmp_path / "a.json").read_bytes() == b"2"
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    with pytest.raises(runner.ResultError, match="neither fsspec nor pyarrow"):
        runner.store("gs://bucket/a.json", b"2")


def _to_file(folder: Path, write: Callable[[str, bytes], bool], uri: str, data: bytes) -> bool:
    assert uri == "gs://bucket/a.json"
    return write(f"file://{folder}/a.json", data)


def long_error() -> Any:
    raise RuntimeError("é" * 100_000 + "the end")


def test_a_long_error_is_cut_to_the_limit(run: Callable[..., Done]) -> None:
    done = run(long_error, limit=10_000)
    assert done.length <= 10_000
    error = done.content["error"]
    assert "characters omitted" in error["traceback"]
    assert "in long_error" in error["traceback"]
    assert error["message"].endswith("the end")
    assert error["traceback"].rstrip().endswith("the end")


def test_the_name_is_that_of_the_content() -> None:
    name, text = task_module({"args": [1]})
    assert task_module({"args": [1]}) == (name, text)
    assert task_module({"args": [2]})[0] != name
    assert name.isidentifier()


def test_the_program_needs_the_standard_library_and_ray_only() -> None:
    _, text = task_module({})
    tree = ast.parse(text, feature_version=(3, 10))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    # The last two only if they are there.
    assert imported - set(sys.stdlib_module_names) == {"ray", "fsspec", "pyarrow"}


def test_no_two_parts_of_the_program_have_a_name_in_common() -> None:
    _, text = task_module({})
    names = [node.name for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert len(names) == len(set(names)) > 30
    assert values.__name__ not in text


# --- Ray and the output ---------------------------------------------------------------------------------------------


def connects_again() -> Any:
    import ray

    first = ray.init()
    second = ray.init(address="auto", ignore_reinit_error=False)
    ray.shutdown()
    third = ray.init(num_cpus=1)
    return [first is second, third is first, len(ray.nodes())]


def test_init_in_the_function_is_harmless(run: Callable[..., Done]) -> None:
    assert run(connects_again).content == {"value": [True, False, 1]}


def replaces_stdout() -> int:
    import io
    import sys

    sys.stdout = io.StringIO()
    print("lost")
    return 42


def closes_stdout() -> int:
    import sys

    sys.stdout.close()
    sys.stderr.close()
    return 42


def redirects_descriptor() -> int:
    import os

    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    return 42


def fills_descriptor() -> int:
    import os

    print("never flushed", end="")
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    print("more", end="")
    return 42


def closes_all_descriptors() -> int:
    import os

    os.closerange(0, 1000)
    return 42


def has_a_child_that_writes() -> int:
    import subprocess

    subprocess.run(["printf", "x"], check=True)
    return 42


def prints_a_result_of_its_own() -> int:
    print('A_RESULT {"value": 1}', flush=True)
    return 42


@pytest.mark.parametrize(
    "function",
    [
        replaces_stdout,
        closes_stdout,
        redirects_descriptor,
        fills_descriptor,
        closes_all_descriptors,
        has_a_child_that_writes,
        prints_a_result_of_its_own,
    ],
)
def test_result_does_not_depend_on_the_output_of_the_function(run: Callable[..., Done], function: Any) -> None:
    done = run(function)
    assert (done.content, done.code) == ({"value": 42}, 0)


def fails_without_output(secret: str) -> int:
    import sys

    sys.stdout.close()
    raise ValueError("no")


def test_arguments_are_not_in_the_output(run: Callable[..., Done]) -> None:
    done = run(fails_without_output, "hunter2-hunter2")
    assert done.content["error"]["message"] == "no"
    assert "hunter2" not in done.output + done.errors


# --- Airflow's exceptions -------------------------------------------------------------------------------------------


def skips(where: str) -> Any:
    if where == "new":
        from airflow.sdk.exceptions import AirflowSkipException
    elif where == "compat":
        from airflow.providers.common.compat.sdk import AirflowSkipException
    else:
        from airflow.exceptions import AirflowSkipException
    raise AirflowSkipException("nothing to do")


@pytest.mark.parametrize("where", ["new", "compat", "old"])
def test_skip_is_no_failure(run: Callable[..., Done], where: str) -> None:
    done = run(skips, where)
    assert (done.content, done.code) == ({"skipped": "nothing to do"}, 0)


def gives_up() -> Any:
    from airflow.exceptions import AirflowFailException

    raise AirflowFailException("hopeless")


def test_fail_is_told_to_airflow(run: Callable[..., Done]) -> None:
    done = run(gives_up)
    assert (done.content["error"]["airflow"], done.code) == ("AirflowFailException", 1)


def looks_for_airflow() -> Any:
    try:
        import airflow
    except ImportError:
        return "none"
    return str(airflow)


def test_airflow_is_missing_for_all_other_functions(run: Callable[..., Done]) -> None:
    assert run(looks_for_airflow).content == {"value": "none"}
