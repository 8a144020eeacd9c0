"""Names of what a step leaves in BigQuery for a while."""

from __future__ import annotations

import uuid

__all__ = ["new_staging_id", "staging_prefix"]


def staging_prefix(owner: str) -> str:
    """How the names of all staging tables of a task instance begin.

    :param owner: The task instance's hash.
    """
    return f"vertex_ray_staging_{owner}_"


def new_staging_id(owner: str) -> str:
    """The name of one run's staging tables, less its ending: nobody else has it, also no earlier run of the step.

    What an earlier run still sends, after its driver was killed, then arrives nowhere.
    """
    return staging_prefix(owner) + uuid.uuid4().hex[:12]
