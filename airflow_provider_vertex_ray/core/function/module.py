"""Build the module or package that is sent to a cluster for one task: this package's programs, and what they run."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.remote import bigquery, job, runner, tracebacks, values

__all__ = ["step_package", "task_module"]

PROGRAM = (values, tracebacks, job, runner)
"""Modules of the program that runs a function or a step, each after those that it uses."""

_WITHOUT = re.compile(r"^from (?:__future__|\.\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)
"""Imports that are not needed, or not valid, in the one module that is sent for a function."""


def task_module(payload: dict[str, Any]) -> tuple[str, str]:
    """Return the name and the text of a module that ``python -m`` runs.

    The name contains a hash of the content, so a retry sends nothing new.

    :param payload: argument of ``remote.runner.main``; must be JSON-serialisable
    """
    parts = [_WITHOUT.sub("", Path(str(part.__file__)).read_text("utf-8")) for part in PROGRAM]
    text = "from __future__ import annotations\n\n" + "\n\n".join(parts)
    # Not on the line of the call, which a traceback would show, with the arguments. Keys stay in their order, which is
    # a part of the values of dicts; all else in the payload has the same order in every process.
    text += f"\n\nPAYLOAD = {json.dumps(payload)!r}\n"
    text += "if __name__ == '__main__':\n    main(json.loads(PAYLOAD))\n"
    return f"vertex_ray_task_{hashlib.sha256(text.encode()).hexdigest()[:16]}", text


def step_package(plan: dict[str, Any], folder: Path) -> Path:
    """Write the package that ``python -m`` runs for a BigQuery step.

    Its name contains a hash of the content, so a retry sends nothing new.

    :param plan: argument of ``remote.bigquery.program.main``; must be JSON-serialisable
    :param folder: an empty folder
    :return: the folder of the package itself
    """
    parts = Path(bigquery.__file__).parent
    start = f"import json\n\nfrom .bigquery.program import main\n\nmain(json.loads({json.dumps(plan)!r}))\n"
    texts = {"__init__.py": "", "__main__.py": start}
    texts |= {Path(str(part.__file__)).name: Path(str(part.__file__)).read_text("utf-8") for part in PROGRAM}
    texts |= {f"bigquery/{path.name}": path.read_text("utf-8") for path in sorted(parts.glob("*.py"))}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
    package = folder / f"vertex_ray_bigquery_{digest}"
    for name, text in texts.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return package
