"""Names of a step's staging tables in BigQuery."""

from __future__ import annotations

import uuid

__all__ = ["new_staging_id", "staging_prefix"]


def staging_prefix(owner: str) -> str:
    """Return the prefix of the names of all staging tables of a task instance.

    :param owner: hash of the task instance.
    """
    return f"vertex_ray_staging_{owner}_"


def new_staging_id(owner: str) -> str:
    """Return a unique name prefix for the staging tables of one run of a step.

    Data that an earlier run still sends, after its driver was killed, then never gets into this run's tables.

    :param owner: hash of the task instance.
    """
    return staging_prefix(owner) + uuid.uuid4().hex[:12]
