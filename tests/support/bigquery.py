"""A BigQuery beside the emulator: what tests put into it and ask of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from tests.conftest import use
from tests.support.clusters import LOCATION

DATASET = "shop"


class BigQuery:
    """Google's client, and the dataset ``shop``."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        options = {"api_endpoint": emulator.env["BIGQUERY_EMULATOR_HOST"]}
        self.project = emulator.project
        self.client = bigquery.Client(emulator.project, credentials=AnonymousCredentials(), client_options=options)
        self.client.create_dataset(DATASET, exists_ok=True)

    def sql(self, text: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [dict(row) for row in self.client.query(text).result()]

    def numbers(self, table: str, count: int) -> str:
        """A table with ``x`` from 1 to ``count``, and ``y``, a half of it; gives its name."""
        rows = f"SELECT x, x / 2 AS y FROM UNNEST(GENERATE_ARRAY(1, {count})) x"
        self.sql(f"CREATE OR REPLACE TABLE {DATASET}.{table} AS {rows}")
        return f"{DATASET}.{table}"

    def counts(self, table: str) -> tuple[int, int]:
        """How many rows a table has, and how many different ``x``."""
        (row,) = self.sql(f"SELECT COUNT(*) n, COUNT(DISTINCT x) d FROM {DATASET}.{table}")
        return row["n"], row["d"]

    def tables(self) -> set[str]:
        """The tables of the dataset."""
        return {item.table_id for item in self.client.list_tables(DATASET)}

    def staging(self) -> set[str]:
        """Those that a step has left."""
        return {name for name in self.tables() if "staging" in name}


@contextmanager
def emulator_with_bigquery() -> Iterator[EmulatorProcess]:
    """An emulator with BigQuery beside it, and this process set up for both."""
    with bigquery_process() as process, used(process):
        yield process


@contextmanager
def bigquery_process() -> Iterator[EmulatorProcess]:
    """An emulator with BigQuery beside it."""
    with (
        tempfile.TemporaryDirectory(prefix="vre-") as folder,
        EmulatorProcess(Path(folder), ["--with", "bigquery"]) as process,
    ):
        yield process


@contextmanager
def used(process: EmulatorProcess) -> Iterator[None]:
    """Make this process's hooks and Google's clients talk to an emulator and to the BigQuery beside it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(process, monkeypatch)
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", process.env["BIGQUERY_EMULATOR_HOST"])
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", connection(process))
        yield


def step_operator(**more: Any) -> VertexRayBigQueryOperator:
    """A step on the cluster ``shared``, which waits in the worker."""
    given = {
        "cluster_id": "shared",
        "location": LOCATION,
        "poll_interval": 0.2,
        "job_timeout": PATIENCE,
        "deferrable": False,
    }
    return VertexRayBigQueryOperator(task_id="step", **{**given, **more})


def connection(emulator: EmulatorProcess) -> str:
    """An Airflow connection with which the Google provider's BigQuery hook asks for no credentials."""
    return f"google-cloud-platform://?project={emulator.project}&is_anonymous=True"
