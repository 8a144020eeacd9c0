"""The module that travels, run as a program; a stand-in for Ray keeps it quick."""

from __future__ import annotations

import ast
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
from airflow_provider_vertex_ray.remote import runner

MARKER = "A_RESULT "
RAY = """
class RayTaskError(Exception):
    def __init__(self, text, cause):
        super().__init__(text)
        self.cause = cause

def init():
    print("init")

def shutdown():
    print("shutdown")

def get(text, cause):
    raise RayTaskError(text, cause)
"""


class Done:
    """What a run came to."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code, self.output, self.errors = process.returncode, process.stdout, process.stderr
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
            "args": list(args),
            "kwargs": kwargs,
            "result_path": path,
            "max_bytes": limit,
            "marker": MARKER,
        }
        name, text = task_module(payload)
        (tmp_path / f"{name}.py").write_text(text)
        process = subprocess.run(
            [sys.executable, "-m", name],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(process)

    return run


def answers(x: int, *, y: str = "ü") -> Any:
    import datetime

    print("working", end="")
    return {"x": (x, y), "on": datetime.date(2026, 1, 2)}


def test_a_result(run: Callable[..., Done]) -> None:
    done = run(answers, 3)
    assert (done.code, done.errors) == (0, "")
    assert done.content == {"value": {"x": [3, "ü"], "on": "2026-01-02"}}
    # Connected before, disconnected before the result, which has a line of its own.
    assert done.output.splitlines()[:-1] == ["init", "workingshutdown", ""]
    assert done.output.isascii()


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
    assert runner._with_source(text) == expected
    assert runner._with_source(expected) == expected


def leaves(code: Any) -> Any:
    import sys

    sys.exit(code)


@pytest.mark.parametrize("code", [0, 3, None, "text"])
def test_exit_is_not_a_result(run: Callable[..., Done], code: Any) -> None:
    done = run(leaves, code)
    assert done.code == 1
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
    assert error["message"].startswith("the result['rows'][1] (bytes) cannot be represented as JSON. Use a string")
    assert error["traceback"] == f"ResultError: {error['message']}\n"
    assert (
        "the result (generator) cannot be represented as JSON" in run(returns, "generator").content["error"]["message"]
    )


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


def test_the_runner_needs_the_standard_library_and_ray_only() -> None:
    tree = ast.parse(Path(runner.__file__).read_text(), feature_version=(3, 10))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    # The last two only if they are there.
    assert imported - set(sys.stdlib_module_names) == {"ray", "fsspec", "pyarrow"}
