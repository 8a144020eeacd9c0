"""Build the module or package that is sent to a cluster for one task: this package's programs, and what they run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.remote import bigquery, runner

__all__ = ["step_package", "task_module"]


def task_module(payload: dict[str, Any]) -> tuple[str, str]:
    """Return the name and the text of a module that ``python -m`` runs.

    The name contains a hash of the content, so a retry sends nothing new.

    :param payload: argument of ``remote.runner.main``; must be JSON-serialisable
    """
    text = Path(runner.__file__).read_text("utf-8")
    text += f"\n\nif __name__ == '__main__':\n    main(json.loads({json.dumps(payload, sort_keys=True)!r}))\n"
    return f"vertex_ray_task_{hashlib.sha256(text.encode()).hexdigest()[:16]}", text


def step_package(plan: dict[str, Any], folder: Path) -> Path:
    """Write the package that ``python -m`` runs for a BigQuery step.

    Its name contains a hash of the content, so a retry sends nothing new.

    :param plan: argument of ``remote.bigquery.program.main``; must be JSON-serialisable
    :param folder: an empty folder
    :return: the folder of the package itself
    """
    parts = Path(bigquery.__file__).parent
    start = (
        f"import json\n\nfrom .bigquery.program import main\n\nmain(json.loads({json.dumps(plan, sort_keys=True)!r}))\n"
    )
    texts = {"__init__.py": "", "__main__.py": start, "runner.py": Path(runner.__file__).read_text("utf-8")}
    texts |= {f"bigquery/{path.name}": path.read_text("utf-8") for path in sorted(parts.glob("*.py"))}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
    package = folder / f"vertex_ray_bigquery_{digest}"
    for name, text in texts.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return package
