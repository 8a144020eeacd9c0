"""The job around a function or a step: its connection to Ray, and the channel by which its result reaches Airflow.

Part of the program that runs on the cluster. How the function leaves its standard output is its own business: the
result is written to a descriptor of its own, which ends in the same log.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from .tracebacks import explain

__all__ = ["hand_back", "install_airflow_exceptions"]

CHANNEL = 100
"""Lowest number of the descriptor for the result, above those that a function is likely to name."""

EXCEPTIONS = ("AirflowException", "AirflowSkipException", "AirflowFailException")
"""Exceptions of Airflow that a function can raise on the cluster, where Airflow is not installed."""

AIRFLOW_MODULES = (
    "airflow",
    "airflow.exceptions",
    "airflow.providers",
    "airflow.providers.common",
    "airflow.providers.common.compat",
    "airflow.providers.common.compat.sdk",
    "airflow.sdk",
    "airflow.sdk.exceptions",
)
"""Modules from which they are imported, and the packages around these."""


def hand_back(payload: dict[str, Any], work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Do the work, write its result or its error as the last line of the output, and exit.

    The exit code is 0 after a result or a skip, that of ``sys.exit(code)`` if the work ended with that, otherwise 1.

    :param payload: ``marker``, the start of the last line, and ``max_bytes``.
    :param work: returns the content of the last line.
    """
    channel = _Channel()
    # Line by line, so that the function's output is visible while it runs.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    import ray

    code = 1
    content: dict[str, Any]
    try:
        context = ray.init()
        with _harmless_init(ray, context):
            content = work()
        code = 0
    except BaseException as error:  # noqa: BLE001 (including sys.exit() in the function, which must not count as a result)
        kind = _kind_in_airflow(error)
        if kind == "AirflowSkipException":
            content, code = {"skipped": str(error)[:1000]}, 0
        else:
            content = {"error": {**explain(error, payload["max_bytes"]), "airflow": kind}}
            if isinstance(error, SystemExit) and isinstance(error.code, int) and 0 < error.code < 256:
                code = error.code
            with contextlib.suppress(Exception):
                sys.stderr.write(content["error"]["traceback"])
    # Before the line, because Ray's thread for the workers' output could write into it.
    with contextlib.suppress(Exception):
        ray.shutdown()
    _flush()
    # On a separate line, whatever was printed before.
    channel.write(f"\n{payload['marker']}{json.dumps(content)}\n")
    sys.exit(code)


class _Channel:
    """A descriptor of the job's output that the function does not know, and its children do not inherit."""

    def __init__(self) -> None:
        import fcntl

        self._descriptor = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, CHANNEL)
        self._file = os.fstat(self._descriptor)
        self._path = os.path.realpath("/proc/self/fd/1")

    def write(self, text: str) -> None:
        data = text.encode("ascii")
        descriptor = self._descriptor
        if not self._is_open():
            # Something has closed every descriptor, as daemons do.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        while data:
            data = data[os.write(descriptor, data) :]

    def _is_open(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._file)
        except OSError:
            return False


def _flush() -> None:
    """Flush what the function has printed; a stream that cannot be flushed would change the exit code at the end."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:  # noqa: BLE001 (the function may have put anything there)
            setattr(sys, name, None)
    for name in ("__stdout__", "__stderr__"):
        with contextlib.suppress(Exception):
            getattr(sys, name).flush()


@contextlib.contextmanager
def _harmless_init(ray: Any, context: Any) -> Iterator[None]:
    """Make a further ``ray.init()`` return the connection that exists, instead of failing."""
    connect = ray.init

    def init(*args: Any, **kwargs: Any) -> Any:
        # Without a connection, after ray.shutdown(), it connects again.
        if ray.is_initialized():
            return context
        return connect(*args, **kwargs)

    ray.init = init
    try:
        yield
    finally:
        ray.init = connect


# --- Airflow's exceptions -------------------------------------------------------------------------------------------


def _kind_in_airflow(error: BaseException) -> str:
    """Return the name of an exception of Airflow that the function raised, also in a remote function; else nothing."""
    cause = getattr(error, "cause", None)
    told = type(cause if isinstance(cause, BaseException) else error)
    names = {each.__name__ for each in told.__mro__ if each.__module__.partition(".")[0] in ("airflow", "__main__")}
    return next((name for name in EXCEPTIONS[1:] if name in names), "")


def install_airflow_exceptions(source: str) -> None:
    """Make the exceptions of Airflow importable on a cluster that has no Airflow, if the function names one.

    :param source: the function's source.
    """
    if not any(name in source for name in EXCEPTIONS) or importlib.util.find_spec("airflow") is not None:
        return
    sys.meta_path.append(_Exceptions())


class _Exceptions(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules from which Airflow's exceptions are imported, with the exceptions and nothing else."""

    def __init__(self) -> None:
        # Of __main__, because Ray pickles those by value.
        base: type[Exception] = type(EXCEPTIONS[0], (Exception,), {"__module__": "__main__"})
        self._found: dict[str, type[Exception]] = {base.__name__: base}
        for name in EXCEPTIONS[1:]:
            self._found[name] = type(name, (base,), {"__module__": "__main__"})

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if fullname not in AIRFLOW_MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._found)
