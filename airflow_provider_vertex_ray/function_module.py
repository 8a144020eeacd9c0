"""The module that is sent for one call of a function: the runner's text, and what it shall run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.remote import runner

__all__ = ["task_module"]


def task_module(payload: dict[str, Any]) -> tuple[str, str]:
    """Name and text of a module that ``python -m`` runs.

    The name holds a hash of the content, so that a retry sends nothing new.

    :param payload: What ``remote.runner.main`` takes, JSON-able.
    """
    text = Path(runner.__file__).read_text("utf-8")
    text += f"\n\nif __name__ == '__main__':\n    main(json.loads({json.dumps(payload, sort_keys=True)!r}))\n"
    return f"vertex_ray_task_{hashlib.sha256(text.encode()).hexdigest()[:16]}", text
