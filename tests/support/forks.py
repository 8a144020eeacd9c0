"""A command in forks of a process which has imported Airflow: each run is a new process, and imports nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

# Standard input and output carry requests and answers; the forks get files instead.
_PARENT = """
import importlib, json, os, sys
requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
command, *others = [importlib.import_module(name) for name in sys.argv[1:]]
print("ready", file=answers, flush=True)
for line in requests:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in enumerate(request["files"]):
            os.dup2(os.open(name, os.O_RDWR), number)
        os.environ.update(request["environment"])
        code = 70
        try:
            code = command.main(request["arguments"])
        except SystemExit as end:
            code = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Done:
    """What a run left: its exit code and its output."""

    code: int
    output: str
    errors: str


class Forks:
    """Runs a module's ``main`` in forks of a process that has imported the module; a context manager.

    :param module: module with a function ``main`` that takes the arguments and returns the exit code.
    :param imports: what that function would import first.
    :param environment: all variables of the process; what Airflow reads when it is imported has to be in them.
    """

    def __init__(self, module: str, *imports: str, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-c", _PARENT, module, *imports]
        self._environment = dict(environment)

    def __enter__(self) -> Forks:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=self._environment,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def run(self, arguments: Sequence[str], given: str = "", **environment: str) -> Done:
        """Run the command once.

        :param arguments: its arguments.
        :param given: its standard input.
        :param environment: further variables.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("input", "output", "errors")]
            for file, text in zip(files, (given, "", ""), strict=True):
                file.write_text(text, "utf-8")
            request = {"files": list(map(str, files)), "arguments": list(arguments), "environment": environment}
            assert self._process.stdin is not None
            print(json.dumps(request), file=self._process.stdin, flush=True)
            code = int(self._answer())
            return Done(code, files[1].read_text("utf-8"), files[2].read_text("utf-8"))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise AssertionError(f"{self._command[3:]} ended:\n{self._log.read()}")
        return line.strip()
