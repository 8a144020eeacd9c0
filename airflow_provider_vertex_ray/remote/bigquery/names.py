"""Names of a step's staging tables in BigQuery."""

from __future__ import annotations

import hashlib
import uuid

__all__ = ["create_as", "new_staging_id", "split_table", "staging_prefix"]


def staging_prefix(submission_id: str) -> str:
    """Return the prefix of the names of all staging tables of a Ray job.

    By the job and not by the task: the clean-up after one job never meets the tables of the next one.

    :param submission_id: submission id of the job.
    """
    return f"vertex_ray_staging_{hashlib.sha256(submission_id.encode()).hexdigest()[:16]}_"


def new_staging_id(submission_id: str) -> str:
    """Return a unique name prefix for the staging tables of one run of a step.

    Data that an earlier run still sends, after its driver was killed, then never gets into this run's tables.

    :param submission_id: submission id of the job.
    """
    return staging_prefix(submission_id) + uuid.uuid4().hex[:12]


def split_table(table: str) -> tuple[str, str, str]:
    """Return project, dataset and table of a name; a project such as ``example.com:project`` contains a dot."""
    project, dataset, name = table.rsplit(".", 2)
    return project, dataset, name


def create_as(table: str, query: str, expires: str) -> str:
    """Return the statement that fills a staging table with the rows of a query; its dry run says whether it is one.

    :param table: the table.
    :param query: the query.
    :param expires: time at which the table expires, as a TIMESTAMP literal.
    """
    text = query.strip().rstrip(";")
    return f"CREATE TABLE `{table}` OPTIONS(expiration_timestamp=TIMESTAMP '{expires}') AS\n{text}\n"
